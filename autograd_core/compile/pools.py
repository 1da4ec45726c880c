"""A relu in front of a max pool waits until after it, where there are fewer elements.

    h = relu(y)                          q = max_pool(y)
    p = max_pool(h)                      p = relu(q)

    gh = max_pool.vjp(g, h)              gq = g · (p > 0)
    gy = gh · (h > 0)                    gy = max_pool.vjp(gq, y)

The largest of positive parts is the positive part of the largest. The element that takes a window's gradient is another
one only where the whole window is negative, and there the gradient is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from ..recorder import Step, Value
from .passes import reads


class _Around(NamedTuple):
    """Places of the steps around a relu: the pool, and, where the way back was recorded, the pool's rule, the two steps
    that make the mask, and the product with it."""

    pool: int
    back: tuple[int, int, int, int] | None


def relu_after_pool(
    steps: Sequence[Step], kept: Collection[int], changing: Collection[int], like: Callable[[int, int], int]
) -> list[Step]:
    """The steps with every relu behind the max pool that alone reads it.

    Args:
        kept: values that must be computed as they are. `changing`: those in storages that some step writes.
        like: (value, other) → a new value with the shape of the one and the dtype of the other.
    """
    readers: dict[int, list[int]] = {}
    for i, step in enumerate(steps):
        for number in set(reads(step)):
            readers.setdefault(number, []).append(i)
    result: list[list[Step]] = [[step] for step in steps]
    for i, relu in enumerate(steps):
        if _name(relu) != "relu" or relu.outputs[0] in kept or any(number in changing for number in reads(relu)):
            continue
        around = _around(relu, steps, readers, kept)
        if around is None:
            continue
        pool = steps[around.pool]
        pooled, index = pool.outputs
        before = like(pooled, pooled)
        result[i] = []
        result[around.pool] = [
            pool._replace(inputs=relu.inputs, outputs=(before, index)),
            relu._replace(inputs=(Value(before),), outputs=(pooled,)),
        ]
        if around.back is not None:
            rule, greater, cast, product = (steps[j] for j in around.back)
            flags, mask, masked = (like(pooled, s.outputs[0]) for s in (greater, cast, product))
            for j in around.back:
                result[j] = []
            result[around.back[0]] = [
                greater._replace(inputs=(Value(pooled), 0), outputs=(flags,)),
                cast._replace(inputs=(Value(flags),), outputs=(mask,)),
                product._replace(inputs=(rule.inputs[0], Value(mask)), outputs=(masked,)),
                rule._replace(inputs=(Value(masked), *relu.inputs, Value(index)), outputs=product.outputs),
            ]
    return [step for several in result for step in several]


def _around(
    relu: Step, steps: Sequence[Step], readers: Mapping[int, list[int]], kept: Collection[int]
) -> _Around | None:
    """What reads a relu, if it is one max pool and that pool's way back."""
    out = relu.outputs[0]
    by_name: dict[str, int] = {}
    for j in readers.get(out, ()):
        if _name(steps[j]) in by_name:
            return None
        by_name[_name(steps[j])] = j
    pool = by_name.pop("max_pool2d", None)
    if pool is None or len(steps[pool].outputs) != 2:
        return None
    if not by_name:
        return _Around(pool, None)
    if by_name.keys() != {"max_pool2d.vjp", "greater"}:
        return None
    rule, greater = by_name["max_pool2d.vjp"], by_name["greater"]
    cast = _only_reader(greater, "astype", steps, readers, kept)
    product = None if cast is None else _only_reader(cast, "multiply", steps, readers, kept)
    if cast is None or product is None or product != _only_reader(rule, "multiply", steps, readers, kept):
        return None
    fits = (
        steps[rule].inputs[1:] == (Value(out), Value(steps[pool].outputs[1]))
        and steps[greater].inputs == (Value(out), 0)
        and set(steps[product].inputs) == {Value(steps[rule].outputs[0]), Value(steps[cast].outputs[0])}
    )
    return _Around(pool, (rule, greater, cast, product)) if fits else None


def _only_reader(
    i: int, name: str, steps: Sequence[Step], readers: Mapping[int, list[int]], kept: Collection[int]
) -> int | None:
    """The place of the step that alone reads what step i makes, if it has that name."""
    (out,) = steps[i].outputs
    found = readers.get(out, [])
    return found[0] if len(found) == 1 and _name(steps[found[0]]) == name and out not in kept else None


def _name(step: Step) -> Any:
    return step.record.name if step.record is not None else ""
