"""The recorder: what a piece of code did, as a flat list. Compile, vmap, FLOP counts and pictures interpret it.

A recording holds numbers and specs, never arrays: a value is a number, counted up in the order of appearance, and its
spec (shape, dtype) stands beside it. Values that were neither passed in nor made inside are *captured*.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from .context import current, switched
from .errors import user_line
from .graph import Spec
from .record import Record
from .tensor import TENSOR_TYPES, Tensor


class RecordingError(RuntimeError):
    """Something inside a recorded function that a recording cannot hold."""

    explained = True


class Value(NamedTuple):
    """An operand that is a Tensor: its number in the recording."""

    number: int

    def __repr__(self) -> str:
        return f"%{self.number}"


class Step(NamedTuple):
    """One entry: a record applied to operands (values or constants), or an `assign` to a storage."""

    record: Record | None
    inputs: tuple[Any, ...]
    attributes: Mapping[str, Any]
    outputs: tuple[int, ...]  # of a record with residuals, those after its results
    line: str
    view: bool = False  # whether the result lies in the memory of the first input

    def __repr__(self) -> str:
        outs = ", ".join(f"%{n}" for n in self.outputs)
        attributes = "".join(f", {k}={v!r}" for k, v in self.attributes.items() if v is not None)
        name = self.record.name if self.record else "assign"
        return f"{outs} = {name}({', '.join(map(repr, self.inputs))}{attributes})"


class Recorder:
    """Collects `steps`; `specs[n]` is the shape and dtype of value n, `captured` numbers what came from outside."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.specs: list[Spec] = []
        self.captured: list[int] = []
        self._numbers: dict[int, tuple[weakref.ref, int]] = {}

    def number(self, tensor: Tensor, known: bool = False) -> int:
        """The number of the array behind a tensor: handles on one array (detached, lifted) are one value. An array not
        met before is entered; as captured, unless the caller says that it is known."""
        return self._number(tensor.array) if known else self._number(tensor.array, tensor)

    def _number(self, array: Any, captured: Tensor | None = None) -> int:
        entry = self._numbers.get(id(array))
        if entry is not None and entry[0]() is array:
            return entry[1]
        number = len(self.specs)
        self.specs.append((array.shape, array.dtype))
        self._numbers[id(array)] = (weakref.ref(array), number)
        self.entered_array(number, array, captured)
        return number

    def entered_array(self, number: int, array: Any, captured: Tensor | None) -> None:
        """An array got a number; `captured` is the tensor from outside that holds it, None where it was made inside."""
        if captured is not None:
            self.captured.append(number)

    def record(
        self,
        rec: Record,
        operands: tuple[Any, ...],
        attributes: Mapping[str, Any],
        results: Sequence[Tensor],
        residuals: Sequence[Any] | None,
    ) -> None:
        inputs = tuple(Value(self.number(o)) if type(o) in TENSOR_TYPES else o for o in operands)
        arrays = [*[r.array for r in results], *[r for r in residuals or () if r is not None]]
        view = rec.moves and _in_the_memory_of(operands[0], results[0])
        self.steps.append(Step(rec, inputs, attributes, tuple(map(self._number, arrays)), user_line(), view))

    def checked(self, rec: Record, operands: tuple[Any, ...], attributes: Mapping[str, Any]) -> None:
        """A record looked at its operands; the operations that it is written in follow, it does not itself."""

    def assign(self, storage: Tensor, value: Any, template: Any = None, indices: Sequence[Any] = ()) -> None:
        """An effect: `storage` (its elements at the index, where there is one) holds `value` from here on."""
        given = [Value(self.number(v)) if type(v) in TENSOR_TYPES else v for v in (storage, value, *indices)]
        self.steps.append(Step(None, tuple(given), {"template": template}, (), user_line()))

    def brought(self, leaf: Tensor) -> Tensor:
        """A leaf came into being, made of constants; what stands for it from here on."""
        return leaf

    def reserve(self, generator: Any, key: int, counter: int, n_blocks: int) -> None:
        """A random draw reserved `n_blocks` of `generator` from `counter` on: a replay must know, others need not."""

    def host(self, call: Any, holds: Any = None) -> None:
        """`call()` changed numbers that recorded operations read, such as a rate; a replay repeats it first, where
        `holds()` says that what the recording took for granted is still so."""

    def stepped(self, optimizer: Any) -> int:
        """An optimizer makes a step; the number of those that it has made before in this recording, if they count."""
        return 0

    def entered(self, module: Any) -> None:
        """A module was called: its mode and its parameters are part of what was recorded."""

    def refuse_read(self, what: str) -> None:
        raise RecordingError(
            f"{what} inside a recorded function, at {user_line()}: a recording cannot hold a value that Python has "
            "read. Return the tensor and read it outside."
        )

    def __repr__(self) -> str:
        return "\n".join(map(repr, self.steps))


def _in_the_memory_of(operand: Tensor, result: Tensor) -> bool:
    return operand.backend is result.backend and operand.backend.shares_memory(result.array, operand.array)


@contextmanager
def recording() -> Iterator[Recorder]:
    """Record every operation inside the block, backward passes included.

    >>> import retrograd as rg
    >>> from retrograd.autograd_core.recorder import recording
    >>> x = rg.tensor([1.0, 2.0])
    >>> with recording() as tape:
    ...     y = rg.sum(rg.exp(x))
    >>> tape
    %1 = exp(%0)
    %2 = sum(%1, keepdims=False)
    """
    if current().recorder is not None:
        raise RecordingError("a recording is going on already")
    recorder = Recorder()
    with switched(recorder=recorder):
        yield recorder
