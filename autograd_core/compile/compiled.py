"""`rg.compile`: a function is watched three times, then replayed as a flat program.

    call 1   an eager call: optimizer state and gradients come into being
    call 2   eager and recorded
    call 3   recorded again: what differs is Python state that a replay would freeze, and is an error
    call 4…  the program runs; a new signature needs one recording more

A signature is the nest, shapes and dtypes of the arguments, the values of the static ones, and the modes of what was
met inside (modules, leaves, optimizers). What else the function reads in Python is `mentioned`: where that changes, the
call is recorded anew. Results carry no graph: put `backward()` into the function.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from functools import update_wrapper
from itertools import compress
from types import FunctionType, MethodType
from typing import Any

import numpy as np

from ..context import current
from ..recorder import RecordingError
from ..tensor import TENSOR_TYPES, Tensor, asarray
from ..transforms import nesting, tree_leaves, tree_map, tree_rebuild
from .arena import Arena
from .lasting import changed_itself, clocks, tensor_kept, times_taken
from .mentioned import Mentioned, changes, mentioned
from .met import Met, is_tensor
from .naming import argument_names
from .program import Called, Program
from .programs import Programs, Recording
from .signature import MODES, check_results, copied_in, describe, shared, spelled
from .tape import Tape, Undo, compare, record_call
from .verify import verified


class Compiled:
    """What `compile` returns: called like the function, whose attributes it forwards.

    `programs` maps signature to program, `program` is that of the latest call that replayed.
    """

    def __init__(self, function: Callable, verify: bool = False):
        self.function = function
        self.verify = verify
        self.program: Program | None = None
        self._made = Programs()
        self._met = Met()
        self._arenas: dict[str, Arena] = {}  # by backend
        self._times: set[Any] = set()  # places of times that calls take, which are not watched
        self._warm = self._confirmed = self._prepared = False
        self._lock = threading.RLock()
        self._name = ""  # as a method
        if hasattr(function, "__name__"):
            update_wrapper(self, function)

    @property
    def programs(self) -> dict[Any, Program]:
        return self._made.current

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if current().recorder is not None:  # a compiled function inside another one is part of that one's program
            return self.function(*_as_tensors(args), **_as_tensors(kwargs))
        if nesting():  # it is being differentiated, and a program's results carry no graph
            return self.function(*args, **kwargs)
        with self._lock:
            arguments: list[Tensor] = []
            signature = self._signature(args, kwargs, arguments)
            program = self._made.find(signature)
            if program is None:
                return _copied(self._record(signature, _as_tensors(args), _as_tensors(kwargs)))
            if not self._prepared:  # else this call was recorded too
                self._made.in_a_row = 0
            self.program, self._prepared = program, False
            if self.verify:
                return self._verified(program, arguments, _as_tensors(args), _as_tensors(kwargs))
            nest, results = program.called.result, program.run(arguments)
            return results[0] if nest is None else tree_rebuild(nest, iter(results))

    def prepare(self, *args: Any, **kwargs: Any) -> None:
        """Warm up, record and confirm for arguments like these, and leave no trace: parameters, gradients, optimizer
        state, schedules and random streams are afterwards what they were."""
        with self._lock:
            if self._made.find(self._signature(args, kwargs)) is not None:
                return
            args, kwargs = _as_tensors(args), _as_tensors(kwargs)
            gradients, arguments = _gradients(), copied_in(args, kwargs, self._met.leaves)
            for _ in range(5):  # leaves and optimizers are part of the signature once a call has met them
                signature = self._signature(args, kwargs)
                if self._made.find(signature) is not None:
                    break
                done: list[Undo] = []
                self._prepared = True
                try:
                    self._record(signature, args, kwargs, done)
                finally:
                    for undo in done:
                        undo.restore()
                    for leaf in [*self._met.leaves.values(), *arguments]:
                        leaf.grad = None
                    for tensor, grad, values in gradients:
                        grad.array[...] = values
                        tensor.grad = grad

    def _record(self, signature: Any, args: Any, kwargs: Any, undo: list[Undo] | None = None) -> Any:
        """An eager call that is watched. The first of all only warms up, the second is confirmed by the third.

        One that meets an optimizer for the first time is a first one too: its parameters move (see `flatten`).
        """
        self._made.refuse_more(signature, self._met.modules.values())
        arguments = copied_in(args, kwargs, self._met.leaves)
        for tensor in arguments:
            if tensor.node is not None and current().grad:
                raise RecordingError(
                    f"a compiled function was given the result of {tensor.node.name}, whose graph would end here: "
                    "compile the whole step, or pass the tensor's .detach()."
                )
        for backend in {t.backend for t in [*arguments, *self._met.leaves.values()]}:
            backend.empty_cache()  # what eager calls left between their arrays would stay beside what this one needs
        journal, before, started = undo is not None, self._mentioned(args, kwargs, moving=True), clocks()
        waiting = self._made.waiting.get(signature, [])
        first = next((r.tape for r in waiting if all(is_tensor(m.value) for m in changes(r.mentioned))), None)
        contents = {} if first is None else first.contents()
        known = [len(part) for part in signature[MODES:]]
        tape, result = record_call(self.function, args, kwargs, arguments, self._met.leaves.values(), journal)
        self._times |= times_taken(before, started)
        if tape.undo is not None and undo is not None:
            undo.append(tape.undo)
            tape.undo = None  # copies of all that changed: the program, which keeps the tape, has no use for them
        check_results(result)
        result = _detached(result)
        met = self._met.take_in(tape, arguments)
        modes = self._met.modes()
        grown = [len(part) for part in modes] != known
        if grown:  # what is new did not matter to the programs that there are: they stay right as it is
            self._made.rename(lambda s: ((*old, *now[n:]) for old, now, n in zip(s, modes, known, strict=True)))
        if met or not self._warm:
            del tape  # which holds the arrays that now move
            for optimizer in met:
                optimizer.flatten()
            self._warm = True
            return result
        if grown:
            return result  # the signature of this call said nothing of what it met
        kept = tensor_kept(tape, result)
        left = kept or changed_itself([m for m in before if m.place not in self._times])
        if left and signature not in self._made.left:
            self._made.left[signature] = tape  # state of its own (a cache, an average) came into being: again a first
            return result
        if left:
            earlier = self._made.left[signature]
            if earlier is not None and not kept:
                compare(earlier, tape, {})  # which can say where it matters
            raise RecordingError(left)
        if first is not None and first.stands():
            compare(first, tape, contents)
            self._confirmed = True
            self._made.waiting.clear()
        elif not self._confirmed:
            self._made.wait(signature, Recording(tape, self._mentioned(args, kwargs)))
            return result
        self._make(signature, tape, arguments, args, kwargs, tree_map(lambda leaf: None, result))
        return result

    def _make(self, signature: Any, tape: Tape, arguments: list[Tensor], args: Any, kwargs: Any, nest: Any) -> None:
        """The program of a recording; what was dropped for it, and what that alone had used, is let go of."""
        tensors = [*arguments, *tape.storages.values(), *tape.grad_reads.values()]
        backend = next((t.backend for t in tensors), None)
        if backend is None:
            raise RecordingError("a compiled function met no tensor: there is nothing to compile")
        arena = self._arenas.setdefault(backend.name, Arena(backend))
        program = Program(tape, arguments, backend, arena)
        names = argument_names(self.function, args, kwargs, arguments)
        found, given = self._mentioned(args, kwargs), spelled(args, kwargs)
        program.called = Called(self.function, names, nest, self._lock, self._met.leaves, found, given)
        program.take_gradients()
        self._made.add(signature, program)
        gone = self._made.met_by_dropped()
        if gone:
            stays = self._met.let_go(gone)
            self._made.rename(lambda s: (tuple(compress(part, marks)) for part, marks in zip(s, stays, strict=True)))
        backend.empty_cache()  # the eager calls' memory goes back: the program has its own

    def _mentioned(self, args: Any, kwargs: Any, moving: bool = False) -> list[Mentioned]:
        passed = [v for _, v in tree_leaves((args, kwargs))]
        found = mentioned(self.function, [*passed, *self._met.modules.values()], moving)
        return [m for m in found if m.place not in self._times]

    def _verified(self, program: Program, arguments: list[Tensor], args: Any, kwargs: Any) -> Any:
        leaves = self._met.leaves.values()

        def call() -> Any:
            # Recorded: buffers that are assigned are written where they lie, and compiled functions inside are in it.
            return _detached(record_call(self.function, args, kwargs, arguments, leaves)[1])

        return _copied(verified(program, list(leaves), arguments, call))

    def _signature(self, args: Any, kwargs: Any, arguments: list[Tensor] | None = None) -> Any:
        """What a program was made for. The tensors among the arguments are added to `arguments`."""
        nest: list[Any] = []
        tensors: list[Tensor] = [] if arguments is None else arguments
        describe(args, nest, tensors, self._met.leaves)
        if kwargs:
            describe(kwargs, nest, tensors, self._met.leaves)
        return (tuple(nest), shared(tensors), current().grad, *self._met.modes())

    # -- as an attribute -----------------------------------------------------------------------------------------------

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Compiled:
        """As a method: each object has a compiled function of its own, which it keeps under the method's name."""
        if instance is None or not isinstance(self.function, FunctionType):
            return self
        name = self._name or self.function.__name__
        if name not in instance.__dict__:
            instance.__dict__[name] = type(self)(MethodType(self.function, instance), self.verify)
        return instance.__dict__[name]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what Python and its libraries ask for is not the function's to answer
            raise AttributeError(name)
        return getattr(self.__dict__["function"], name)

    def __reduce__(self) -> Any:
        """A copy has no programs yet. What a decorator made is found by its name, as functions are."""
        function, name = self.function, getattr(self, "__qualname__", "")
        if isinstance(function, MethodType):
            owner = function.__self__
            kept = getattr(owner, "__dict__", {}).items()  # where __get__ puts it
            found = next((name for name, value in kept if value is self), "")
            if isinstance(getattr(type(owner), found, None), Compiled):
                return getattr, (owner, found)
        if getattr(sys.modules.get(getattr(self, "__module__", "")), name, None) is self:
            return name
        return type(self), (function, self.verify)

    def __repr__(self) -> str:
        return f"<compiled {getattr(self.function, '__name__', self.function)!s}: {len(self.programs)} programs>"


def compile(function: Callable, *, verify: bool = False) -> Compiled:
    """A function (a whole training step, or a model for inference) that runs as a flat program from its fourth call on.

    Args:
        function: of tensors, arrays, numbers and nests of them. Tensors are copied into the program's own places
            (parameters are used where they lie); other values are part of the signature. What the function reads in
            Python elsewhere (names, attributes of objects and modules, lists and dicts, in functions that it calls
            too) may change: a program is made for each of its values. Code of libraries is not looked into.
        verify: compare each replay with an eager call, and raise RecordingError where they differ. Slow.

    Raises, when called:
        RecordingError: the function reads a value, depends on Python state that changes from call to call, keeps a
            tensor beside its results, takes or returns something that hides tensors, or has met more than 64
            signatures.

    >>> import retrograd as rg
    >>> w = rg.tensor([2.0], requires_grad=True)
    >>> @rg.compile
    ... def loss_of(x):
    ...     return ((w * x) ** 2).sum()
    >>> [loss_of(rg.tensor([float(i)])).item() for i in range(5)]
    [0.0, 4.0, 16.0, 36.0, 64.0]
    """
    return Compiled(function, verify)


def _as_tensors(tree: Any) -> Any:
    return tree_map(lambda v: asarray(v) if isinstance(v, np.ndarray) else v, tree)


def _detached(result: Any) -> Any:
    return tree_map(lambda v: v.detach() if type(v) in TENSOR_TYPES else v, result)


def _copied(result: Any) -> Any:
    """Results of an eager call, apart from what the function goes on to write: those of a replay are copies too."""
    return tree_map(lambda v: v.copy() if type(v) in TENSOR_TYPES else v, result)


def _gradients() -> list[tuple[Tensor, Tensor, Any]]:
    """Every tensor of the process that has a gradient, the gradient, and its values: a first call may touch any."""
    import gc

    # Not gc.get_objects(): it hands out tuples that another thread is still building, which breaks that thread.
    tensors = [t for t in gc.get_referrers(*TENSOR_TYPES) if type(t) in TENSOR_TYPES]
    found = [t for t in tensors if getattr(t, "grad", None) is not None]  # one that is being made has no grad yet
    return [(t, t.grad, t.grad.array.copy()) for t in found if t.node is None]
