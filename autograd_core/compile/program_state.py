"""What a program's file is called with: `state`, the arrays that it reads and changes, and `inputs`, of one call.

Parameters that compile has laid end to end are arrays of their own in `state`, under their own names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ..recorder import Value
from ..tensor import Tensor
from .fusion import written_by
from .naming import host_numbers, named_storages, unique
from .passes import reads
from .program import Program
from .signature import copied_in, spelled
from .static_memory import extent, owner
from .tape import Undo
from .tracing import Traced

LARGEST = 1024  # elements of a constant that is written out


class Entry(NamedTuple):
    """One array of `state`: the tensor (or the tensor whose gradient) it is, and its places before and after a run."""

    name: str
    tensor: Tensor
    gradient: bool
    before: np.ndarray | None
    after: np.ndarray | None

    def value(self) -> np.ndarray:
        """A copy of what it holds now; of a gradient that is absent, zeros."""
        if not self.gradient:
            return self.tensor.array.copy()
        return np.zeros_like(self.tensor.array) if self.tensor.grad is None else self.tensor.grad.array.copy()


class Export(NamedTuple):
    """The text of a file, and what its two arguments are made from."""

    text: str
    entries: list[Entry]
    arguments: list[str]
    numbers: dict[str, Tensor]


def state_of(made: Export) -> dict[str, np.ndarray]:
    """Name → copy of the array, for `step(state, inputs)`."""
    return {entry.name: entry.value() for entry in made.entries}


def inputs_of(program: Program, made: Export, args: Any, kwargs: Any) -> dict[str, np.ndarray]:
    """The inputs of the call that comes next; host calls run, and what they changed is put back."""
    arrays = [tensor.array for tensor in copied_in(args, kwargs, program.called.held)]
    wanted = [(place.shape, place.dtype) for place in program.input_places]
    given = [(array.shape, array.dtype) for array in arrays]
    if wanted != given:
        expected, came = (", ".join(f"{d} {s}" for s, d in specs) or "none" for specs in (wanted, given))
        raise ValueError(f"inputs: this program takes arrays {expected}; got {came}")
    for expected, came in zip(program.called.spelled, spelled(args, kwargs), strict=True):
        if expected != came:
            raise ValueError(
                f"inputs: this program was recorded with {expected}, got {came}: take the one for these arguments, "
                "which is the compiled function's .program after a call with them"
            )
    found = {name: array.copy() for name, array in zip(made.arguments, arrays, strict=True)}
    undo, slots = Undo(), [(tensor, tensor.array.copy()) for tensor in made.numbers.values()]
    try:
        for call in program.tape.host_calls:
            undo.keep_host(call)
            call()
        found |= {name: tensor.array.copy() for name, tensor in made.numbers.items()}
    finally:
        undo.restore()
        for tensor, before in slots:
            tensor.array[...] = before
    for i, generator in enumerate(program.tape.generators):
        state = generator.state()
        words = [state["key"] >> 64 * n for n in range(2)] + [state["counter"] >> 64 * n for n in range(4)]
        found[f"random.{i}"] = np.array([w % (1 << 64) for w in words], np.uint64)
    return found


class Touched:
    """What a planned program touches outside of itself.

    `numbers` are filled by host calls, `constants` are the ids of memory whose values are always the same.
    """

    def __init__(self, plan: Traced, function: Any):
        self.plan, self.tape, self.steps = plan, plan.program.tape, plan.program.steps
        self.names = named_storages(self.tape, function)
        read = {n for step in self.steps for n in reads(step)}
        read |= {o.number for o in plan.program.outputs if isinstance(o, Value)}
        read |= {n for _, n in plan.program.grads if n is not None}
        self.storages = [n for n in self.tape.storages if n in read]
        self.written = [plan.places[n] for step in self.steps for n in written_by(step)]
        used = {id(self.tape.storages[n].array) for n in self.storages}
        self.numbers = {name: t for name, t in host_numbers(self.tape).items() if id(t.array) in used}
        fixed = {*self.tape.fixed, *self.tape.constants.values()} & plan.places.keys()
        self.fixed = fixed
        small = [n for n in fixed if _once(plan.places[n]).size <= LARGEST]
        self.constants = {id(owner(plan.places[n])) for n in small} - {id(owner(array)) for array in self.written}

    def entries(self) -> list[Entry]:
        """The arrays of `state`: named tensors that cover all memory which the program touches, then gradients."""
        numbers = {id(tensor.array) for tensor in self.numbers.values()}
        found: dict[Any, tuple[str, Tensor]] = {}
        for number in self.storages:
            tensor = self.tape.storages[number]
            if id(tensor.array) in numbers or id(owner(tensor.array)) in self.constants:
                continue
            kind = "tensor"
            if number in self.fixed:
                kind, tensor = "constant", Tensor(_once(tensor.array))
            for name, piece in _covering(tensor, self.names) or [(self._new_name(tensor, kind), tensor)]:
                found.setdefault(_where(piece.array), (name, piece))
        order = {name: i for i, name in enumerate(self.names)}
        entries = []
        for name, tensor in sorted(found.values(), key=lambda pair: order[pair[0]]):
            changes = any(_overlap(tensor.array, array) for array in self.written)
            entries.append(Entry(name, tensor, False, tensor.array, tensor.array if changes else None))
        return entries + self._gradients()

    def _gradients(self) -> list[Entry]:
        known = {_where(tensor.array): name for name, tensor in reversed(self.names.items())}
        before = {leaf: place for place, leaf in self.plan.program.grad_places}
        before |= {self.tape.given[i]: place for place, i in self.plan.program.given_places}
        after = {leaf: self.plan.places[n] for leaf, n in self.plan.program.grads if n is not None}
        entries = []
        for leaf in before | after:
            name = known.get(_where(leaf.array)) or self._new_name(leaf)
            entries.append(Entry(f"{name}/grad", leaf, True, before.get(leaf), after.get(leaf)))
        return entries

    def _new_name(self, tensor: Tensor, kind: str = "tensor") -> str:
        name = unique(kind, self.names)
        self.names[name] = tensor
        return name


def _covering(tensor: Tensor, names: Mapping[str, Tensor]) -> list[tuple[str, Tensor]] | None:
    """Named tensors that hold exactly the memory of a tensor: itself, or the pieces laid end to end in it."""
    array = tensor.array
    low, high = extent(array)
    inside = []
    for name, other in names.items():
        if type(other.array) is not np.ndarray or owner(other.array) is not owner(array):
            continue
        if _where(other.array) == _where(array):
            return [(name, other)]
        start, end = extent(other.array)
        if low <= start and end <= high and end - start == other.array.nbytes:
            inside.append((start, end, name, other))
    at, found = low, []
    for start, end, name, other in sorted(inside, key=lambda piece: piece[:2]):
        if start == at and end > start:
            at = end
            found.append((name, other))
    return found if at == high and high - low == array.nbytes and array.size else None


def _once(array: np.ndarray) -> np.ndarray:
    """An array without the repetitions that broadcasting made: nobody could write into them."""
    return array[tuple([slice(0, 1) if step == 0 else slice(None) for step in array.strides])]


def _where(array: np.ndarray) -> Any:
    return extent(array), array.shape, array.strides, id(owner(array)) if not array.size else 0


def _overlap(one: np.ndarray, other: np.ndarray) -> bool:
    (a, b), (c, d) = extent(one), extent(other)
    return a < d and c < b
