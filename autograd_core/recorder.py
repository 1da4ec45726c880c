"""The recorder: what a piece of code did, as a flat list. Compile, vmap, FLOP counts and pictures interpret it.

A recording holds numbers and specs, never arrays: a value is a number, counted up in the order of appearance, and its
spec (shape, dtype) stands beside it. Values that were neither passed in nor made inside are *captured*.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
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
    attributes: dict[str, Any]
    outputs: tuple[int, ...]
    line: str

    def __repr__(self) -> str:
        outs = ", ".join(f"%{n}" for n in self.outputs)
        attributes = "".join(f", {k}={v!r}" for k, v in self.attributes.items() if v is not None)
        name = self.record.name if self.record else "assign"
        return f"{outs} = {name}({', '.join(map(repr, self.inputs))}{attributes})"


class Recorder:
    """Collects `steps`; `specs[n]` is the shape and dtype of value n, `captured` the numbers of what came from outside."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.specs: list[Spec] = []
        self.captured: list[int] = []
        self._numbers: dict[int, tuple[weakref.ref, int]] = {}

    def number(self, tensor: Tensor, known: bool = False) -> int:
        """The number of the array behind a tensor: handles on one array (detached, lifted) are one value. An array not
        met before is entered; as captured, unless the caller says that it is known."""
        array = tensor.array
        entry = self._numbers.get(id(array))
        if entry is not None and entry[0]() is array:
            return entry[1]
        number = len(self.specs)
        self.specs.append((tensor.shape, tensor.dtype))
        self._numbers[id(array)] = (weakref.ref(array), number)
        if not known:
            self.captured.append(number)
        return number

    def record(self, rec: Record, operands: tuple[Any, ...], attributes: dict[str, Any], results: tuple[Tensor, ...]) -> None:
        inputs = tuple(Value(self.number(o)) if type(o) in TENSOR_TYPES else o for o in operands)
        outputs = tuple(self.number(r, known=True) for r in results)
        self.steps.append(Step(rec, inputs, attributes, outputs, user_line()))

    def assign(self, storage: Tensor, value: Any, index: Any = None) -> None:
        """An effect: `storage` holds `value` from here on."""
        given = Value(self.number(value)) if type(value) in TENSOR_TYPES else value
        self.steps.append(Step(None, (Value(self.number(storage)), given), {"index": index}, (), user_line()))

    def refuse_read(self, what: str) -> None:
        raise RecordingError(
            f"{what} inside a recorded function, at {user_line()}: a recording cannot hold a value that Python has read. "
            "Return the tensor and read it outside."
        )

    def __repr__(self) -> str:
        return "\n".join(map(repr, self.steps))


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
