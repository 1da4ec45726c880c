"""Arguments that lie across what a program changes: it copies arguments in, and would not see the change there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..recorder import RecordingError, Value
from ..tensor import Tensor
from .passes import is_effect, reads
from .tape import Tape


def read_after_changes(tape: Tape, root: Mapping[int, int]) -> dict[int, list[Tensor]]:
    """Position of an argument → the tensors from outside that are changed before the function has read it last.

    `root`: value → the first value that lies in the same memory.
    """
    first_change: dict[int, int] = {}
    last_read: dict[int, int] = {}
    for i, step in enumerate(tape.steps):
        last_read |= {root[n]: i for n in reads(step)}
        if is_effect(step):
            first_change.setdefault(root[step.inputs[0].number], i)
    last_read |= {root[v.number]: len(tape.steps) for v in tape.outputs if isinstance(v, Value)}
    found: dict[int, list[Tensor]] = {}
    for i, number in enumerate(tape.inputs):
        read = last_read.get(root[number], -1)
        changed = [t for n, t in tape.storages.items() if first_change.get(root[n], read) < read]
        if changed:
            found[i] = changed
    return found


def refuse_overlap(tensors: Sequence[Tensor], changed: Sequence[int]) -> None:
    """Raise RecordingError for an argument that is changed in place and lies across another one: a program, which
    copies its arguments in, would not see the change there."""
    for i in changed:
        for j, other in enumerate(tensors):
            if _overlap(other.backend, tensors[i].array, other.array):
                raise RecordingError(
                    f"the compiled function changes tensor {i} of its arguments in place, which shares memory with "
                    f"tensor {j}. Pass one of them as a .clone(), or the tensor whose parts they are."
                )


def refuse_stale(tensors: Sequence[Tensor], late: Mapping[int, list[Tensor]]) -> None:
    """Raise RecordingError for an argument that lies across a tensor which is changed before the argument is read."""
    for i, changed in late.items():
        array, backend = tensors[i].array, tensors[i].backend
        across = (t.array is array or _overlap(backend, array, t.array) for t in changed if t.backend is backend)
        if any(across):
            raise RecordingError(
                f"tensor {i} of the arguments lies in the memory of a tensor that the compiled function changes before "
                "it has read the argument. Pass it as a .clone(), or read it before."
            )


def _overlap(backend: Any, one: Any, other: Any) -> bool:
    if one is other or not backend.shares_memory(one, other):
        return False
    try:
        work: Any = 1000  # columns of one array do not overlap, though their bounds do
        return type(one) is not np.ndarray or np.shares_memory(one, other, max_work=work)
    except np.exceptions.TooHardError:
        return True
