"""A program: a flat list of calls over static arrays, made once from a recording and run many times.

    recording → passes → a place in memory for every value → prebound calls

Every value gets its array before the first run, so a run is `for call, arguments in instructions: call(*arguments)` and
nothing else: no dispatch, no graph, no allocation where the array library can write into a given place. What shares
memory in eager execution (views, storages that are changed in place) shares it here, in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...backends import Backend
from ...backends.kernels.scratch import Scratch
from ..recorder import Step, Value
from ..tensor import Tensor
from .arena import Arena, Needs
from .blocking import Instruction
from .expansion import expand
from .fusion import fuse
from .listing import flops, listing
from .mentioned import Mentioned
from .overlaps import read_after_changes, refuse_overlap, refuse_stale
from .passes import dead_code, is_effect, merge_equal, needless_copies, reads
from .places import Builder
from .pools import relu_after_pool
from .recompute import recompute
from .simplify import fold_constants, simplify
from .tape import Tape


class Called(NamedTuple):
    """What a program was recorded from: the function, names of the tensors it was given, the nest of its result, the
    lock of its calls, the leaves that the function reaches by itself, what the names that it mentions stood for, and
    what was said of its arguments beside their tensors."""

    function: Callable
    arguments: list[str]
    result: Any
    lock: Any
    held: dict[int, Tensor]
    mentioned: list[Mentioned]
    spelled: list[str]


class Program:
    """One signature of a compiled function.

    `steps` are what is left of the recording, `instructions` what a run calls, `nbytes` what its values take, in
    `buffers` pieces. They lie in the arena of its function, over those of the other programs, or have memory of their
    own where there is no arena.
    """

    def __init__(
        self,
        tape: Tape,
        arguments: Sequence[Tensor],
        backend: Backend,
        arena: Arena | None = None,
        builder: type[Builder] = Builder,
    ):
        self.backend = backend
        self.arena = arena
        self.tape = tape
        generating = backend.fuses()
        steps = expand(tape) if generating else tape.steps
        steps, stands_for = _passed(tape, steps, backend)
        self.grads = [(leaf, None if n is None else stands_for.get(n, n)) for leaf, n in tape.grads]
        self.outputs = [Value(stands_for.get(o.number, o.number)) if isinstance(o, Value) else o for o in tape.outputs]
        wanted = {o.number for o in self.outputs if isinstance(o, Value)} | {n for _, n in self.grads if n is not None}
        steps = dead_code(steps, wanted)
        self.late = read_after_changes(tape, roots(tape, tape.steps))
        self.streams = [(0, 0)] * len(tape.generators)  # key and counter of each, for this run
        refused: set[tuple[int, ...]] = set()
        while True:  # a group that no kernel can be made for is taken apart, and its steps run with the array library
            self.steps = fuse(steps, tape.specs, roots(tape, steps), wanted, refused) if generating else steps
            if backend.generates():
                self.steps = recompute(self.steps, tape.specs, roots(tape, self.steps), wanted)
            found = self._place(builder, arguments, wanted)
            if not found:
                break
            refused |= found

    def _place(self, builder: type[Builder], arguments: Sequence[Tensor], wanted: set[int]) -> set[tuple[int, ...]]:
        """Give every value its place and bind the calls. Returns the groups that no kernel could be made for."""
        memory = None
        if self.arena is not None:
            needs = Needs(self.backend)
            self._begin()
            refused = builder(self, arguments, wanted, needs).place()
            if refused:
                return refused
            memory = self.arena.pieces(needs.spans)
        self._begin()
        refused = builder(self, arguments, wanted, memory).build()
        self.nbytes += 0 if memory is None else memory.nbytes
        return refused

    def _begin(self) -> None:
        """Nothing has a place yet."""
        self.root = roots(self.tape, self.steps)
        self.instructions: list[Instruction] = []
        self.scratch = Scratch()
        self.nbytes = self.buffers = 0

    def run(self, arguments: Sequence[Tensor]) -> list[Any]:
        """Copy the arguments in, repeat what Python did, run, and hand the results out as fresh tensors."""
        if self.changed_inputs:
            refuse_overlap(arguments, self.changed_inputs)
        if self.late:
            refuse_stale(arguments, self.late)
        for place, tensor in zip(self.input_places, arguments, strict=True):
            place[...] = tensor.array
        for check in self.checks:
            check()
        for place, leaf in self.grad_places:
            place[...] = leaf.grad.array
        for place, i in self.given_places:
            place[...] = arguments[i].grad.array  # type: ignore[union-attr]  the signature says that it has one
        for call in self.tape.host_calls:
            call()
        for i, generator in enumerate(self.tape.generators):
            self.streams[i] = (generator.stream.key, generator.stream.reserve(self.tape.reserved[i]))
        for leaf, _ in self.grad_results:
            leaf.grad = None  # what the call before left need not be there beside what this one makes
        _run(self.instructions)
        for tensor in self.changed:
            tensor.cell[0] += 1
        for leaf, array in self.grad_results:
            leaf.grad = None if array is None else Tensor(array)
        for i, array in self.given_results:
            arguments[i].grad = None if array is None else Tensor(array.copy())
        for i in self.changed_inputs:
            arguments[i].array[...] = self.input_places[i]
            arguments[i].cell[0] += 1  # type: ignore[index]  what is changed in place is a leaf
        return [Tensor(o.copy()) if c else o for o, c in self.results]

    def take_gradients(self) -> None:
        """Move the gradients that the recorded call left into the places where runs leave theirs."""
        for leaf, array in self.grad_results:
            if array is not None and leaf.grad is not None:
                array[...] = leaf.grad.array
                leaf.grad = Tensor(array)

    def source(self) -> str:
        """One Python file whose `step(state, inputs)` makes a call with NumPy alone; see docs/performance.md."""
        return self._exported().text

    def state(self) -> dict[str, np.ndarray]:
        """Name → copy of each array that a run reads or changes: what the file of `source()` takes as `state`."""
        from .program_state import state_of

        return state_of(self._exported())

    def inputs(self, *args: Any, **kwargs: Any) -> dict[str, np.ndarray]:
        """What the file takes as `inputs` for the call that comes next: these arguments, the numbers that the host
        computes before it (rates, step counts), and where random streams stand. Nothing is advanced.

        Raises:
            ValueError: arguments of other shapes, dtypes or static values than this program was recorded with.
        """
        from .program_state import inputs_of

        with self.called.lock:
            return inputs_of(self, self._exported(), args, kwargs)

    def _exported(self) -> Any:
        if self.export is None:
            from .source import export

            self.export = export(self)
        return self.export

    called: Called
    export: Any = None
    input_places: list[Any]
    checks: list[Any]
    grad_places: list[tuple[Any, Any]]  # with the leaf, which has a gradient by then
    grad_results: list[tuple[Tensor, Any]]
    given_places: list[tuple[Any, int]]  # the same for gradients of arguments, with their positions
    given_results: list[tuple[int, Any]]
    changed_inputs: list[int]  # positions of arguments that are written in place
    results: list[tuple[Any, bool]]
    changed: list[Any]  # leaves, so they have a version

    @property
    def flops(self) -> int:
        """Floating-point operations of a run's matrix products and convolutions."""
        return flops(self.steps, self.tape.specs)

    def __repr__(self) -> str:
        return listing(self)


@np.errstate(all="ignore")
def _run(instructions: Sequence[Instruction]) -> None:
    for call, places in instructions:
        call(*places)


def _passed(tape: Tape, steps: Sequence[Step], backend: Backend) -> tuple[list[Step], dict[int, int]]:
    """The steps after algebra and without repetitions, and which value stands for which."""
    root = roots(tape, steps)
    written = {root[s.inputs[0].number] for s in steps if is_effect(s)}
    changing = {n for n, m in root.items() if m in written}
    kept = {o.number for o in tape.outputs if isinstance(o, Value)} | {n for _, n in tape.grads if n is not None}
    steps, copied = needless_copies(steps, root, kept, changing)
    kept = {copied.get(n, n) for n in kept} | {root[view] for view in copied.values()}
    steps, simpler = simplify(steps, tape.specs, kept, changing)
    steps, equal = merge_equal(steps, changing, kept)
    steps = relu_after_pool(steps, kept | changing, changing, tape.like)
    steps = _folded(tape, steps, kept | changing, backend)
    merged = {n: equal.get(m, m) for n, m in (equal | simpler).items()}
    return steps, merged | {n: merged.get(m, m) for n, m in copied.items()}


def _folded(tape: Tape, steps: Sequence[Step], kept: set[int], backend: Backend) -> list[Step]:
    """The steps without those that compute with constants alone; what is left reads their results as storages."""
    fixed = ({*tape.fixed, *tape.constants.values()} - kept) & tape.storages.keys()
    constants = {n: tape.storages[n].array for n in fixed}
    steps, known = fold_constants(steps, tape.specs, constants, backend, kept)
    for number in {n for step in steps for n in reads(step)} & known.keys() - constants.keys():
        tape.storages[number] = Tensor(known[number])
        tape.constants["folded", number] = number
    return steps


def roots(tape: Tape, steps: Sequence[Step]) -> dict[int, int]:
    """Value → the first value that lies in the same memory: of a view what it was taken of, of the pieces of one flat
    array the first piece."""
    root = {number: number for number in range(len(tape.specs))}
    owners: dict[int, tuple[Any, int]] = {}  # id of a piece of memory → it, and the first storage in it
    for number, tensor in tape.storages.items():
        base = tensor.array
        while getattr(base, "base", None) is not None:
            base = base.base
        if id(base) not in owners and type(base) is not np.ndarray:  # a library may make a new handle at each look
            same = next((o for o in owners.values() if tensor.backend.shares_memory(o[0], base)), None)
            owners[id(base)] = (base, number if same is None else same[1])
        root[number] = owners.setdefault(id(base), (base, number))[1]
    for step in steps:
        if step.view:
            for number in step.outputs:
                root[number] = root[step.inputs[0].number]
    return root
