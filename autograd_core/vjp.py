"""The first-order rule of a fused record as an operation of its own, `name.vjp`.

A recording of a step holds one instruction for it. Tensors among the values that the rule reads become the inputs; the
places where they stood, and all other values, are the layout.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from .record import REGISTRY, Record, takes_places
from .tensor import TENSOR_TYPES


class _Hole:
    def __repr__(self) -> str:
        return "%"


HOLE = _Hole()  # where an array input stands in a layout


@cache
def vjp_record(rec: Record) -> Record:
    """The record that runs `rec`'s rule on arrays: its outputs are the gradients of the needed inputs, in order."""

    rule: Any = rec.joint

    def forward(ops, /, *arrays, layout, needs, **given):
        values = fill(layout, iter(arrays))
        if given:
            places = iter(given["places"])
            given = {"places": [next(places) if need else None for need in needs]}
        gradients = rule(ops, needs, *values, **given)
        return [g for g, need in zip(gradients, needs, strict=True) if need]

    made = Record(f"{rec.name}.vjp", "fused", forward, multiple=True, promote=())
    made.takes_places = takes_places(rule)
    REGISTRY.setdefault(made.name, made)
    return made


def call_vjp(rec: Record, needs: tuple[bool, ...], values: list[Any]) -> Any:
    """Run the rule of `rec` on Tensors and other values, as one recorded operation."""
    from .dispatch import apply

    tensors: list[Any] = []
    layout = punch(values, tensors)
    return apply(vjp_record(rec), tuple(tensors), {"layout": layout, "needs": needs})


def punch(values: Any, tensors: list[Any]) -> Any:
    """`values` with every Tensor moved to `tensors` and a hole left in its place; lists and tuples are searched."""
    if type(values) in TENSOR_TYPES:
        tensors.append(values)
        return HOLE
    return type(values)(punch(v, tensors) for v in values) if type(values) in (list, tuple) else values


def fill(layout: Any, arrays: Any) -> Any:
    """The opposite of `punch`."""
    if layout is HOLE:
        return next(arrays)
    return type(layout)(fill(v, arrays) for v in layout) if type(layout) in (list, tuple) else layout
