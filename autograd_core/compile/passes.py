"""Passes over a program: small pure functions from a list of steps to a shorter one that computes the same.

    dead_code        what nobody reads is not computed
    merge_equal      what was computed already is not computed again
    needless_copies  what nobody else holds is not copied to be held alone
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
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


def needless_copies(
    steps: Sequence[Step], root: Mapping[int, int], kept: Collection[int], written: Collection[int]
) -> tuple[Steps, dict[int, int]]:
    """Without copies of views that may be handed out themselves, and a map from those copies to the views.

    A gradient that is a view of something (a weight's, of that of its transpose) is copied in eager execution, since
    somebody else may hold the same memory. Here it can be seen that nobody does: the memory is all the view's, the
    program made it, hands out no other part of it (`kept`) and changes nothing in it (`written`).

    Args:
        root: value → the first value that lies in the same memory.
    """
    makers = {n: step for step in steps for n in step.outputs}
    held = {root[n] for n in kept}
    stands_for: dict[int, int] = {}
    left = []
    for step in steps:
        if step.record is not None and step.record.name == "positive" and step.outputs[0] in kept:
            view = step.inputs[0].number
            memory = _turned(view, makers)
            own = memory in makers and root[memory] == memory and memory not in held
            if own and not any(n in written for n in (memory, view, step.outputs[0])):
                stands_for[step.outputs[0]] = view
                held.add(memory)
                continue
        inputs = tuple(Value(stands_for.get(v.number, v.number)) if isinstance(v, Value) else v for v in step.inputs)
        left.append(step._replace(inputs=inputs))
    return left, stands_for


def _turned(number: int, makers: Mapping[int, Step]) -> int:
    """The value of which this one is the same elements, in another shape or order of axes."""
    while number in makers and makers[number].view and makers[number].record.name in ("transpose", "reshape"):  # type: ignore[union-attr]
        number = makers[number].inputs[0].number
    return number
