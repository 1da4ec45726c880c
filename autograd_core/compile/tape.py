"""A recording that can be replayed: operations, the storages they touch, and what Python must repeat before each run.

Values are numbered in the order of appearance, by the identity of their arrays. What the numbers stand for:

    input      a tensor among the arguments
    storage    a tensor from outside: a parameter, a state of an optimizer, a running mean; read and written in place
    result     what a step made
"""

from __future__ import annotations

import sys
import weakref
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

import numpy as np

from ..context import switched
from ..errors import user_line
from ..recorder import Recorder, RecordingError, Step, Value
from ..tensor import TENSOR_TYPES, Tensor
from ..transforms import tree_leaves


class Draw(NamedTuple):
    """Where a random step finds its counter at a replay: this generator's reservation, so many blocks in."""

    generator: int
    offset: int


Slots = dict[int, tuple[weakref.ref, Tensor]]  # id of the array of a gradient → it, and its leaf


class Tape(Recorder):
    """What one call of a function did."""

    def __init__(self, slots: Slots, journal: bool = False) -> None:
        super().__init__()
        self.undo = Undo() if journal else None
        self.storages: dict[int, Tensor] = {}  # number → the tensor from outside, held strongly
        self.grad_reads: dict[int, Tensor] = {}  # number → the leaf whose `.grad` it was at entry
        self.generators: list[Any] = []
        self.reserved: list[int] = []  # blocks of each generator
        self.checks: list[Step] = []  # records that were checked, and then written out as the operations they mean
        self.draws: dict[int, Draw] = {}  # recorded counter → place in the reservation
        self.host_calls: list[Callable[[], None]] = []
        self.guards: list[Callable[[], bool]] = []  # whether host calls can still be repeated as they were recorded
        self.orders: dict[int, tuple[int, ...]] = {}  # number → its axes as they lay in memory, where not in order
        self.optimizers: dict[int, Any] = {}
        self.turns: dict[int, int] = {}  # of the optimizers: how many steps came before the latest one
        self.modules: dict[int, Any] = {}
        self.made_in: dict[int, Any] = {}  # first result of a step → the innermost module that was being called
        self.inputs: list[int] = []
        self.given: dict[int, Tensor] = {}  # position → argument that wants a gradient
        self.outputs: Any = None
        self.grads: list[tuple[Tensor, int | None]] = []
        self.fixed: set[int] = set()  # storages that a call makes anew, always with the same values
        self.constants: dict[Any, int] = {}  # values → the number of the storage that passes made for them
        self.held: list[tuple[Tensor, Any, bool]] = []  # the storages, their arrays, and whether they want a gradient
        self._slots = slots

    def entered_array(self, number: int, array: Any, captured: Tensor | None) -> None:
        super().entered_array(number, array, captured)
        order = memory_order(array)
        if order is not None:
            self.orders[number] = order
        if captured is not None:
            at_entry, leaf = self._slots.get(id(array), (None, None))
            if leaf is not None and at_entry is not None and at_entry() is array:
                self.grad_reads[number] = leaf
            else:
                self.storages[number] = captured

    def record(self, rec: Any, operands: Any, attributes: Any, results: Any, residuals: Any) -> None:
        self._refuse_mask(rec, operands)
        super().record(rec, operands, attributes, results, residuals)
        module = _calling(self.modules)
        if module is not None:
            self.made_in[self.steps[-1].outputs[0]] = module

    def checked(self, rec: Any, operands: Any, attributes: Any) -> None:
        inputs = tuple(Value(self.number(o)) if type(o) in TENSOR_TYPES else o for o in operands)
        self.checks.append(Step(rec, inputs, attributes, (), user_line()))

    def _refuse_mask(self, rec: Any, operands: Any) -> None:
        """A mask that comes in or is computed: how many elements it picks would be frozen."""
        for mask in operands[1:] if rec.name == "getitem" else ():
            if type(mask) in TENSOR_TYPES and mask.dtype.kind == "b" and self.number(mask) not in self.storages:
                raise RecordingError(
                    f"x[mask] inside a recorded function, at {user_line()}: how many elements a mask picks changes "
                    "from call to call, and a program has fixed shapes. Keep the shape with rg.where(mask, x, other), "
                    "or pick outside."
                )

    def assign(self, storage: Tensor, value: Any, template: Any = None, indices: Sequence[Any] = ()) -> None:
        if self.undo is not None:
            self.undo.keep(storage)
        super().assign(storage, value, template, indices)

    def brought(self, leaf: Tensor) -> Tensor:
        """A copy of the constants, which each run makes anew: what is written into it the next does not find there."""
        return leaf.clone()

    def alive(self) -> list[tuple[int, Any]]:
        """(number, array) of the values that somebody still holds."""
        found = ((number, ref()) for ref, number in self._numbers.values())
        return [(number, array) for number, array in found if array is not None]

    def reserve(self, generator: Any, key: int, counter: int, n_blocks: int) -> None:
        if generator not in self.generators:
            self.generators.append(generator)
            self.reserved.append(0)
            if self.undo is not None:
                self.undo.streams.append((generator, {"key": key, "counter": counter}))
        index = self.generators.index(generator)
        self.draws[counter] = Draw(index, self.reserved[index])
        self.reserved[index] += n_blocks

    def host(self, call: Callable[[], None], holds: Callable[[], bool] | None = None) -> None:
        if holds is not None:
            self.guards.append(holds)
        if self.undo is not None:
            self.undo.keep_host(call)
        self.host_calls.append(call)

    def stepped(self, optimizer: Any) -> int:
        self.optimizers[id(optimizer)] = optimizer
        self.turns[id(optimizer)] = self.turns.get(id(optimizer), -1) + 1
        return self.turns[id(optimizer)]

    def entered(self, module: Any) -> None:
        self.modules[id(module)] = module
        if module._noted is None:
            module._note_options()

    def like(self, number: int, other: int) -> int:
        """A new value: of the shape of value `number`, lying in memory as that does, and of the dtype of `other`."""
        if number in self.orders:
            self.orders[len(self.specs)] = self.orders[number]
        self.specs.append((self.specs[number][0], self.specs[other][1]))
        return len(self.specs) - 1

    def stands(self) -> bool:
        """Whether the tensors from outside still hold the arrays that they held, none was frozen or unfrozen, and host
        calls can be repeated."""
        for guard in self.guards:
            if not guard():
                return False
        for tensor, array, trained in self.held:
            if tensor.array is not array or tensor.requires_grad is not trained:
                return False
        return True

    def contents(self) -> dict[int, int]:
        """Number → a sum over the values now, of the NumPy arrays from outside that the call itself took up."""
        arrays = {}
        for n in self.storages:
            tensor = self.storages[n]
            # Held by `storages`, by `held`, here, and by the question: what others hold is no handle of this call.
            if type(tensor.array) is np.ndarray and sys.getrefcount(tensor) <= 4:
                arrays[n] = tensor.array
        return {n: zlib.crc32(np.ascontiguousarray(a).view(np.uint8).data) for n, a in arrays.items()}

    def forget(self) -> None:
        """Let go of what a program, which outlives the call it was recorded from, has no use for: what was needed to
        tell arrays apart, and modules that the call made for itself (`nn.MSELoss()(x, y)`)."""
        self._slots = {}
        modules = {key: weakref.ref(module) for key, module in self.modules.items()}
        made_in = {number: id(module) for number, module in self.made_in.items()}
        self.modules, self.made_in = {}, {}
        self.modules = {key: module for key, ref in modules.items() if (module := ref()) is not None}
        self.made_in = {number: self.modules[key] for number, key in made_in.items() if key in self.modules}

    def leaves(self) -> list[Tensor]:
        """The leaves from outside that want gradients, or got one before they were frozen."""
        tensors, given = [*self.storages.values(), *self.grad_reads.values()], set(map(id, self.given.values()))
        trained = [t for t in tensors if t.node is None and (t.requires_grad or t.grad is not None)]
        wanted = [t for t in trained if id(t) not in given]
        return list({id(t): t for t in wanted}.values())

    def met(self) -> Iterator[Any]:
        """The modules, optimizers, and arrays of tensors from outside that this call had to do with."""
        yield from self.modules.values()
        yield from self.optimizers.values()
        yield from (t.array for t in [*self.storages.values(), *self.given.values(), *[leaf for leaf, _ in self.grads]])

    def lets_alone(self, leaf: Tensor) -> bool:
        """Whether this call neither read nor changed the gradient that a leaf has: so does a run."""
        if leaf.grad is None or self._slots.get(id(leaf.grad.array), (None, None))[1] is not leaf:
            return False
        met, _ = self._numbers.get(id(leaf.grad.array), (lambda: None, 0))
        return met() is not leaf.grad.array

    def given_leaves(self) -> list[Tensor]:
        """The leaves among the arguments whose gradients this call set, changed, read or took away."""
        leaves = list({id(t): t for t in self.given.values() if t.node is None}.values())
        had = {id(leaf) for _, leaf in self._slots.values()}
        return [t for t in leaves if (id(t) in had if t.grad is None else id(t.grad.array) in self._numbers)]


def memory_order(array: Any) -> tuple[int, ...] | None:
    """The axes of an array from the slowest to the quickest, None where that is their own order or there is none."""
    if type(array) is not np.ndarray or array.flags.c_contiguous or array.ndim < 2:
        return None
    long = [s for n, s in zip(array.shape, array.strides, strict=True) if n > 1]
    if len(set(long)) < len(long) or min(long, default=1) <= 0:  # broadcast or turned round
        return None
    order = tuple(sorted(range(array.ndim), key=lambda axis: -array.strides[axis]))
    return None if order == tuple(range(array.ndim)) else order


class Undo:
    """What a call changed, as it was before: for calls that shall leave no trace."""

    def __init__(self) -> None:
        self.storages: dict[int, tuple[Tensor, Any]] = {}
        self.hosts: dict[int, tuple[Any, Any]] = {}
        self.streams: list[tuple[Any, dict[str, int]]] = []

    def keep(self, storage: Tensor) -> None:
        if id(storage) not in self.storages:
            self.storages[id(storage)] = (storage, storage.array.copy())

    def keep_host(self, call: Callable[[], None]) -> None:
        owner = getattr(call, "__self__", None) or call.func.__self__  # type: ignore[attr-defined]  a bound method, or a partial of one
        self.hosts.setdefault(id(owner), (owner, owner.host_state()))

    def restore(self) -> None:
        """Put everything back."""
        for tensor, array in self.storages.values():
            tensor.array[...] = array
            if tensor.cell is not None:
                tensor.cell[0] += 1
        for owner, state in self.hosts.values():
            owner.restore_host_state(state)
        for generator, state in self.streams:
            generator.set_state(state)


def _calling(modules: dict[int, Any]) -> Any:
    """The innermost module whose call this is part of, None outside of all."""
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_name == "__call__" and id(frame.f_locals.get("self")) in modules:
            return frame.f_locals["self"]
        frame = frame.f_back
    return None


def record_call(
    function: Callable,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    arguments: Sequence[Tensor],
    leaves: Iterable[Tensor],
    journal: bool = False,
) -> tuple[Tape, Any]:
    """Call a function eagerly, and write down what it did.

    `arguments`: the tensors among the arguments that a program copies in. `leaves`: those from outside whose gradients
    at entry the function may read.
    """
    from .naming import variables

    named = list(variables(function))
    modules = _modules_of(function, named)
    reached = {id(t): t for t in [*leaves, *_leaves_of(named, modules), *arguments]}
    met = [leaf for leaf in reached.values() if leaf.grad is not None]
    slots: Slots = {id(leaf.grad.array): (weakref.ref(leaf.grad.array), leaf) for leaf in met}  # type: ignore[union-attr]
    tape = Tape(slots, journal)
    tape.given = {i: t for i, t in enumerate(arguments) if t.requires_grad}
    tape.inputs = [tape.number(t, known=True) for t in arguments]
    for module in modules:
        tape.entered(module)
    try:
        with switched(recorder=tape):
            result = function(*args, **kwargs)
    except BaseException:
        if tape.undo is not None:
            tape.undo.restore()
            for leaf in tape.leaves():
                leaf.grad = None
        raise
    tape.outputs = [Value(tape.number(v)) if type(v) in TENSOR_TYPES else v for _, v in tree_leaves(result)]
    known = {id(t) for t in [*tape.leaves(), *arguments]}
    taken = [t for t in met if t.grad is None and id(t) not in known]  # by zero_grad, of a parameter that was not used
    for leaf in [*tape.leaves(), *tape.given_leaves(), *taken]:
        if not tape.lets_alone(leaf):
            number = None if leaf.grad is None else tape.number(leaf.grad)
            tape.grads.append((leaf, number))
    tape.held = [(t, t.array, t.requires_grad) for t in tape.storages.values()]
    tape.forget()
    return tape, result


def _modules_of(function: Any, named: Sequence[tuple[str, Any]]) -> list[Any]:
    """The modules that a function can look at without calling them: what it is or is a method of, what its names stand
    for, and what lies in these, be it a list, a dict, an object or a module."""
    from .compiled import Compiled
    from .whose import dict_of

    found: dict[int, Any] = {}
    level = [function, getattr(function, "__self__", None), *[value for _, value in named]]
    for _ in range(3):  # trainer.models["critic"]
        inside: list[Any] = []
        for value in level:
            if hasattr(type(value), "_registrations"):
                found |= {id(m): m for m in value.modules()}
            elif issubclass(type(value), (list, tuple)):
                inside += value
            elif issubclass(type(value), dict):
                inside += value.values()
            elif not issubclass(type(value), (ModuleType, FunctionType, type, Compiled)):  # which knows those of before
                inside += dict_of(value).values()
        level = [value for value in inside if type(value) not in (int, float, str)]  # there may be a million
    return list(found.values())


def _leaves_of(named: Sequence[tuple[str, Any]], modules: list[Any]) -> list[Tensor]:
    """The tensors that a function has at hand, whose gradients it may read though it does not compute with them."""
    from .naming import tensors_in

    parameters = [p for module in modules for p in module.parameters(recurse=False)]
    return parameters + [t for name, value in named for _, t in tensors_in(name, value)]


def compare(first: Tape, second: Tape, contents: dict[int, int]) -> None:
    """Raise RecordingError where two recordings of the same call differ: that is Python state, frozen in a replay.

    `contents`: of the first, as it was before the second began.
    """
    for a, b in zip(first.steps, second.steps, strict=False):
        what = _difference(first, second, a, b)
        if what:
            raise RecordingError(
                f"two calls of the compiled function differ at {b.line}: {what}. A replay would freeze it; pass it as "
                "an argument, or keep it in a 0-d Tensor that operations change."
            )
    if len(first.steps) != len(second.steps) or first.reserved != second.reserved:
        longer = max(first.steps, second.steps, key=len)
        line = longer[min(len(first.steps), len(second.steps))].line if longer else user_line()
        raise RecordingError(
            f"two calls of the compiled function ran a different number of operations, from {line} on: a replay would "
            "always run the same. Pass what decides it as an argument (a program is made for each value), or compute "
            "both and choose with rg.where."
        )
    if any(one is not other for one, other in zip(first.generators, second.generators, strict=False)):
        raise RecordingError(
            "each call of the compiled function draws from another generator: a replay would go on with the last one's "
            "numbers. Make the generator once, outside of the function."
        )
    for a, b in zip(first.outputs, second.outputs, strict=True):
        if a != b and not (a != a and b != b):
            raise RecordingError(
                f"the compiled function returned {a!r} once and {b!r} then: only tensors can change from call to call"
            )
    _compare_storages(first, second, contents)


def _difference(first: Tape, second: Tape, a: Step, b: Step) -> str | None:
    name = a.record.name if a.record else "assign"
    if a.record is not b.record:
        return f"{name} in one, {b.record.name if b.record else 'assign'} in the other"
    if (a.inputs != b.inputs and repr(a.inputs) != repr(b.inputs)) or a.outputs != b.outputs:  # NaN equals nothing
        return f"{name} of {a.inputs} in one, of {b.inputs} in the other"
    if a.record is not None and a.record.kind == "random":
        place = ("key", "counter")  # a stream may be set between two calls: each run reads where it stands
        one, other = ({k: v for k, v in step.attributes.items() if k not in place} for step in (a, b))
        places = first.draws.get(a.attributes["counter"]), second.draws.get(b.attributes["counter"])
        return None if one == other and places[0] == places[1] else f"{name} with other options"
    if repr(a.attributes) == repr(b.attributes):
        return None
    return f"{name} with {a.attributes} in one, {b.attributes} in the other"


def _compare_storages(first: Tape, second: Tape, contents: dict[int, int]) -> None:
    """A tensor made anew in each call is a constant if it holds the same values, else frozen state. One made of an
    array from outside reads that at each replay, which would not see what the call itself does to it."""
    written = {step.inputs[0].number for step in second.steps if step.record is None}
    now = second.contents()
    for number, tensor in second.storages.items():
        before = first.storages.get(number)
        if before is None:
            continue
        if before.array is tensor.array:
            if before is not tensor and contents.get(number) != now.get(number):
                raise RecordingError(
                    f"the compiled function changes a NumPy array of shape {tensor.shape} that it reads "
                    f"{_where_read(second, number)}: a replay would not. Pass it as an argument, or keep it in a "
                    "Tensor that operations change."
                )
            continue
        if number in written and before is not tensor:
            raise RecordingError(
                f"the compiled function changes a {tensor.dtype} tensor of shape {tensor.shape} in place that each "
                "call makes anew from an array: a replay would go on with the values of the call before. Make it with "
                "rg.tensor(array), which copies, or with rg.zeros."
            )
        one, other = (t.backend.to_numpy(t.array) for t in (before, tensor))
        second.fixed.add(number)
        if one.dtype != other.dtype or one.tobytes() != other.tobytes():
            raise RecordingError(
                f"the compiled function used a {tensor.dtype} tensor of shape {tensor.shape} made from other values in "
                f"each call (a NumPy draw, a counter), {_where_read(second, number)}: a replay would freeze it. Pass "
                "it as an argument."
            )


def _where_read(tape: Tape, number: int) -> str:
    return next((f"at {step.line}" for step in tape.steps if Value(number) in step.inputs), "in its result")
