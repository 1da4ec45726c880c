"""Passes over a program: small pure functions from a list of steps to a shorter one that computes the same.

    dead_code        what nobody reads is not computed
    merge_equal      what was computed already is not computed again
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from ..recorder import Step, Value

Steps = list[Step]


def reads(step: Step) -> Iterable[int]:
    """Numbers of the values that a step reads."""
    return (v.number for v in step.inputs if isinstance(v, Value))


def is_effect(step: Step) -> bool:
    """Whether a step writes into a storage."""
    return step.record is None


def dead_code(steps: Sequence[Step], wanted: Iterable[int]) -> Steps:
    """Without the steps that lead neither to a wanted value nor to an effect."""
    needed, kept = set(wanted), []
    for step in reversed(steps):
        if is_effect(step) or any(n in needed for n in step.outputs):
            needed.update(reads(step))
            kept.append(step)
    return kept[::-1]


def merge_equal(
    steps: Sequence[Step], written: Iterable[int], kept: Collection[int] = ()
) -> tuple[Steps, dict[int, int]]:
    """Without steps that repeat an earlier one, and a map from the values that went to those that stand for them.

    Random draws are never merged. A value that was read from a storage which is `written` on the way may be another one
    the second time, so what touches such a storage stays; and so do the values `kept`, which must lie in places of
    their own (two gradients that are equal now may be changed apart).
    """
    changing = set(written)
    seen: dict[Any, tuple[int, ...]] = {}
    stands_for: dict[int, int] = {}
    left = []
    for step in steps:
        inputs = tuple(Value(stands_for.get(v.number, v.number)) if isinstance(v, Value) else v for v in step.inputs)
        step = step._replace(inputs=inputs)
        touched = any(isinstance(v, Value) and v.number in changing for v in inputs)
        if touched:
            changing.update(n for n in step.outputs if step.record is not None and step.record.moves)
        key = None
        own = any(n in changing for n in step.outputs)
        if step.record is not None and step.record.kind != "random" and not touched and not own:
            key = (step.record.name, repr(inputs), repr(sorted(step.attributes.items(), key=lambda kv: kv[0])))
        if key is not None and key in seen and not any(n in kept for n in step.outputs):
            stands_for.update(zip(step.outputs, seen[key], strict=True))
            continue
        if key is not None:
            seen[key] = step.outputs
        left.append(step)
    return left, stands_for
