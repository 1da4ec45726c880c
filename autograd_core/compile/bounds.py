"""Labels and indices out of bounds are an error in a replay too, before anything is computed or changed.

A record's `check` looks at integers: labels of a loss, numbers of rows, places in a cache. Where they come in as
arguments, or lie in storages that the program does not write, the check runs at the start of every replay.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

from ...backends import Backend
from ..errors import explained
from ..record import Record
from ..recorder import Value
from .tape import Tape


def bound_checks(tape: Tape, places: Mapping[int, Any], written: Collection[int], backend: Backend) -> list[Any]:
    """Calls without arguments that raise for the integers that a run was given.

    Args:
        places: arrays of inputs and storages, by number. `written`: storages that the program changes.
    """
    known = {n: places[n] for n in [*tape.inputs, *tape.storages] if n in places and n not in written}
    calls: dict[Any, Any] = {}
    for step in [*tape.steps, *tape.checks]:
        rec = step.record
        if rec is None:
            continue
        if step.view and isinstance(step.inputs[0], Value) and step.inputs[0].number in known and not rec.multiple:
            source = known[step.inputs[0].number]
            if all(not isinstance(v, Value) for v in step.inputs[1:]):
                seen = rec.as_written(backend.array_type)(source, *step.inputs[1:], **step.attributes)
                if backend.shares_memory(seen, source):
                    known[step.outputs[0]] = seen
        values = [v.number for v in step.inputs if isinstance(v, Value)]
        integers = [n for n in values if tape.specs[n][1].kind in "iu"]
        if rec.check is None or not integers or any(n not in known for n in integers):
            continue
        arrays = [_array(v, tape, known, backend) for v in step.inputs]
        key = (rec.name, tuple(step.inputs), repr(step.attributes))
        calls.setdefault(key, partial(_check, rec, backend, arrays, dict(step.attributes)))
    return list(calls.values())


def _array(value: Any, tape: Tape, known: Mapping[int, Any], backend: Backend) -> Any:
    """An operand of a check: the integers themselves; of anything else only shape and dtype."""
    if not isinstance(value, Value):
        return value
    shape, dtype = tape.specs[value.number]
    if dtype.kind in "iu":
        return known[value.number]
    return backend.xp.broadcast_to(backend.xp.zeros((), dtype), shape)


def _check(rec: Record, backend: Backend, arrays: list[Any], attributes: dict[str, Any]) -> None:
    try:
        rec.check(backend, *arrays, **attributes)  # type: ignore[misc]  only records that have one come here
    except Exception as error:
        raise explained(rec, tuple(arrays), attributes, error) from None
