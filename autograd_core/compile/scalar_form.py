"""Steps in the form that a kernel can hold: a scalar expression of elements, or a reduction over whole axes at one end.

Everything that decides what a kernel may contain stands here; what a record computes it says itself (`expression`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ...backends.kernels.expressions import Unsupported, substitute, translate
from ..graph import Spec
from ..recorder import Step, Value

DTYPES = {"float32", "float64", "bool", "int32", "int64", "uint8"}
_NAMES = {np.dtype(name): name for name in DTYPES}  # the name of a dtype takes NumPy microseconds
REDUCTIONS = {"sum", "mean", "max", "min"}


def _name(dtype: Any) -> str:
    return _NAMES.get(dtype) or str(dtype)


class Expressed(NamedTuple):
    """What an elementwise step computes: `text` over the names of inputs that are values."""

    text: str
    names: dict[str, int]
    numbers: str
    dtype: str


def expressed(step: Step, specs: Sequence[Spec]) -> Expressed | None:
    """A step as a scalar expression, None if it is no such thing."""
    rec = step.record
    if rec is None or len(step.outputs) != 1:
        return None
    out = _name(specs[step.outputs[0]][1])
    if rec.name in ("astype", "broadcast_to"):
        number = step.inputs[0].number
        source = _name(specs[number][1])
        return Expressed("x", {"x": number}, source, out) if {source, out} <= DTYPES else None
    if rec.expression is None or rec.residuals or rec.variadic:
        return None
    names, scalars, dtypes = {}, {}, []
    for name, value in zip(rec.inputs, step.inputs, strict=True):
        if isinstance(value, Value):
            names[name] = value.number
            if name != "condition":
                dtypes.append(_name(specs[value.number][1]))
        else:
            scalars[name] = value
    scalars |= step.attributes
    numbers = dtypes[0] if out == "bool" and dtypes else out
    if not names or not {out, *dtypes} <= DTYPES or any(d != numbers for d in dtypes):
        return None
    if "condition" in names and str(specs[names["condition"]][1]) != "bool":
        return None
    if any(type(v) not in (int, float, bool) for v in scalars.values()):
        return None
    if any(word in rec.expression.split() for word in ("and", "or", "not")) and numbers != "bool":
        return None  # truth of numbers
    text = substitute(rec.expression, {k: repr(v) for k, v in scalars.items()}) if scalars else rec.expression
    try:
        translate(text, numbers)
    except Unsupported:
        return None
    return Expressed(text, names, numbers, out)


class Reduced(NamedTuple):
    """A reduction: "sum", "mean", "max" or "min" of value `source`, over `row` last elements, the leading ones
    ("columns", of which there are `row`), or everything ("total")."""

    kind: str
    source: int
    over: str
    row: int | None


def reduced(step: Step, specs: Sequence[Spec]) -> Reduced | None:
    """A step as a reduction that a group can hold, else None."""
    rec = step.record
    if rec is None or rec.name not in REDUCTIONS:
        return None
    shape, dtype = specs[step.inputs[0].number]
    out = _name(specs[step.outputs[0]][1])
    if {_name(dtype), out} - DTYPES or _name(dtype) == "bool" or not math.prod(shape):
        return None
    if rec.name != "sum" and (_name(dtype) != out or dtype.kind != "f"):
        return None
    axis = step.attributes.get("axis")
    if not shape:
        return None
    listed = axis if isinstance(axis, (tuple, list)) else range(len(shape)) if axis is None else (axis,)
    axes = [a % len(shape) for a in listed]
    gone = [i in axes for i, n in enumerate(shape) if n > 1]
    lengths = [n for n in shape if n > 1]
    if not gone or not any(gone):
        return None
    if all(gone):
        return Reduced(rec.name, step.inputs[0].number, "total", None) if rec.name in ("sum", "mean") else None
    first = gone.index(True)
    if gone == [False] * first + [True] * (len(gone) - first):
        return Reduced(rec.name, step.inputs[0].number, "row", math.prod(lengths[first:]))
    last = gone.index(False)
    if rec.name == "sum" and gone == [True] * last + [False] * (len(gone) - last):
        return Reduced(rec.name, step.inputs[0].number, "columns", math.prod(lengths[last:]))
    return None
