"""Algebra on a program: what changes no bit of any value is not computed.

    x · 1, x / 1, x - 0, x¹         the value itself
    -(-x), +x, a cast to x's dtype   the value itself
    a transpose of a transpose       one transpose, or the value itself
    a reshape of a reshape           one reshape, or the value itself
    an array cut and put together    the array
    numbers alone                    computed once, before the first run

A value that lies in a storage which the program writes is left alone: a copy of it is not the same as the storage
itself. So are values that are handed out. x + 0 stays for floats: it makes +0 of -0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from ...backends import Backend
from ..graph import Spec
from ..recorder import Step, Value

LARGEST_CONSTANT = 1 << 18  # elements

Found = int | Step | None  # the value that stands for the result, the step that makes it, or nothing better


def simplify(
    steps: Sequence[Step], specs: Sequence[Spec], kept: Collection[int], changing: Collection[int]
) -> tuple[list[Step], dict[int, int]]:
    """Fewer or simpler steps, and a map from the values that went to those that stand for them.

    Args:
        specs: shape and dtype of every value. `kept`: values that must stay values of their own.
        changing: values that lie in the memory of a storage which some step writes.
    """
    makers: dict[int, Step] = {}
    stands_for: dict[int, int] = {}
    result = []
    for step in steps:
        inputs = tuple(Value(stands_for.get(v.number, v.number)) if isinstance(v, Value) else v for v in step.inputs)
        step = step._replace(inputs=inputs)
        rule = RULES.get(step.record.name) if step.record is not None else None
        if rule is not None and step.outputs[0] not in changing and not _reads_any(step, changing):
            found = rule(step, specs, makers)
            if isinstance(found, Step):
                step = found
            elif found is not None and step.outputs[0] not in kept and specs[found] == specs[step.outputs[0]]:
                stands_for[step.outputs[0]] = found
                continue
        makers.update(dict.fromkeys(step.outputs, step))
        result.append(step)
    return result, stands_for


def fold_constants(
    steps: Sequence[Step],
    specs: Sequence[Spec],
    constants: Mapping[int, Any],
    backend: Backend,
    kept: Collection[int] = (),
) -> tuple[list[Step], dict[int, Any]]:
    """Steps of constants alone are run now: the other steps, and all constants with those that came to them.

    A draw is never folded, nor what writes, nor a value that is `kept` because it is handed out, nor what would take
    more memory than it saves time.
    """
    known = dict(constants)
    rest = []
    for step in steps:
        rec = step.record
        values = [v for v in step.inputs if isinstance(v, Value)]
        stays = rec is None or rec.kind == "random" or rec.multiple or rec.residuals or not values
        stays = stays or any(n in kept or math.prod(specs[n][0]) > LARGEST_CONSTANT for n in step.outputs)
        if rec is None or stays or any(v.number not in known for v in values):
            rest.append(step)
            continue
        inputs = [known[v.number] if isinstance(v, Value) else v for v in step.inputs]
        known[step.outputs[0]] = backend.wrap(rec.as_written(backend.array_type)(*inputs, **step.attributes))
    return rest, known


def _reads_any(step: Step, numbers: Collection[int]) -> bool:
    return any(isinstance(v, Value) and v.number in numbers for v in step.inputs)


def _neutral(number: float, places: tuple[int, ...]) -> Callable[..., Found]:
    """The rule of an operation that `number`, at one of those places, leaves its other operand by."""

    def rule(step: Step, specs: Sequence[Spec], makers: Mapping[int, Step]) -> Found:
        for place in places:
            constant, other = step.inputs[place], step.inputs[1 - place]
            if type(constant) in (int, float) and constant == number and isinstance(other, Value):
                return other.number
        return None

    return rule


def _integers_plus_nothing(step: Step, specs: Sequence[Spec], makers: Mapping[int, Step]) -> Found:
    return _neutral(0, (0, 1))(step, specs, makers) if specs[step.outputs[0]][1].kind in "iu" else None


def _itself(step: Step, specs: Sequence[Spec], makers: Mapping[int, Step]) -> Found:
    return step.inputs[0].number


def _twice(step: Step, specs: Sequence[Spec], makers: Mapping[int, Step]) -> Found:
    inner = makers.get(step.inputs[0].number)
    return inner.inputs[0].number if inner is not None and inner.record is step.record else None


def _transposed(step: Step, specs: Sequence[Spec], makers: Mapping[int, Step]) -> Found:
    inner = makers.get(step.inputs[0].number)
    ndim = len(specs[step.outputs[0]][0])
    order = _order(step, ndim)
    source = step.inputs[0]
    if inner is not None and inner.record is step.record and isinstance(inner.inputs[0], Value):
        before = _order(inner, ndim)
        order, source = tuple(before[i] for i in order), inner.inputs[0]
    if order == tuple(range(ndim)):
        return source.number
    return step._replace(inputs=(source,), attributes={"axes": order}) if source is not step.inputs[0] else None


def _order(step: Step, ndim: int) -> tuple[int, ...]:
    axes = step.attributes.get("axes")
    return tuple(range(ndim))[::-1] if axes is None else tuple(a % ndim for a in axes)


def _reshaped(step: Step, specs: Sequence[Spec], makers: Mapping[int, Step]) -> Found:
    source = step.inputs[0]
    inner = makers.get(source.number)
    shape = specs[step.outputs[0]][0]
    if inner is not None and inner.record is step.record and inner.view and step.view:
        source = inner.inputs[0]
    if specs[source.number][0] == shape:
        return source.number
    return step._replace(inputs=(source,), attributes={"shape": shape}) if source is not step.inputs[0] else None


def _put_together(step: Step, specs: Sequence[Spec], makers: Mapping[int, Step]) -> Found:
    """Stretches of one array laid end to end, from its first element to its last, are that array."""
    parts = [makers[v.number] for v in step.inputs if isinstance(v, Value) and v.number in makers]
    cuts = [p for p in parts if p.record is not None and p.record.name == "getitem"]
    sources = {p.inputs[0] for p in cuts}
    if len(cuts) != len(step.inputs) or len(sources) != 1:
        return None
    (source,) = sources
    shape, end = specs[source.number][0], 0
    for part in cuts:
        cut = part.attributes["template"]
        cut = cut[0] if isinstance(cut, tuple) and len(cut) == 1 else cut
        if len(shape) != 1 or not isinstance(cut, slice) or cut.step not in (None, 1) or (cut.start or 0) != end:
            return None
        end = shape[0] if cut.stop is None else cut.stop
    return source.number if end == shape[0] else None


RULES: dict[str, Callable[..., Found]] = {
    "multiply": _neutral(1, (0, 1)),
    "divide": _neutral(1, (1,)),
    "subtract": _neutral(0, (1,)),
    "add": _integers_plus_nothing,
    "power": _neutral(1, (1,)),
    "positive": _itself,
    "alias": _itself,
    "astype": _itself,
    "broadcast_to": _itself,
    "negative": _twice,
    "concat": _put_together,
    "transpose": _transposed,
    "reshape": _reshaped,
}
"""Record → rule. A value takes the result's place only if shape and dtype agree, so `astype` may name its input."""
