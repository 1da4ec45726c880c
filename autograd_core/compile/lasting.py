"""What a call leaves behind beside its results, gradients and changed tensors: a replay would leave nothing there.

    a tensor that it made    kept in a list, by an object or a hook: it would stay that of the recorded call
    a number, a list         that it changes itself and looks at, such as a count: it would stand still
    a generator, iterator    that it uses: it would not move on
"""

from __future__ import annotations

import gc
import sys
import time
from typing import Any

from ..recorder import Step
from ..tensor import TENSOR_TYPES, Tensor
from ..transforms import tree_leaves
from .mentioned import Mentioned, changes, is_plain
from .moving import Position
from .tape import Tape


def tensor_kept(tape: Tape, result: Any) -> str:
    """What is wrong with a call that keeps a tensor, and how to mend it; "" of one that keeps none.

    `result`: of the call, detached from its graph.
    """
    step = _kept(tape, result)
    if step is None:
        return ""
    made = f"the result of {step.record.name}" if step.record else "a tensor"
    return (
        f"the compiled function keeps {made} that it made at {step.line}: a replay would leave there what the recorded "
        "call did. Return it, or write it into a tensor from outside (copy_ under rg.no_grad())."
    )


def changed_itself(before: list[Mentioned]) -> str:
    """The same of a call that changes what it mentions, given that as it was before the call."""
    for name, _, key, value, held in changes(before):
        if type(value) is Position:
            return (
                f"the compiled function uses {name!r}, a {type(key).__name__} that moves on with each call: a replay "
                "would go on with what it gave once. Draw or call next() outside, and pass what comes as an argument."
            )
        if held is not None or (is_plain(value) and value is not None):
            was = f"which was {value!r} before the call" if held is None else f"a {type(value).__name__}"
            return (
                f"the compiled function changes {name!r}, {was}, and looks at it: a replay would do neither. Do it "
                "outside and pass what matters as an argument, or keep numbers in a 0-d Tensor that operations change."
            )
    return ""


def clocks() -> list[float]:
    """What the clocks show."""
    return [clock() for clock in (time.time, time.perf_counter, time.monotonic)]


def times_taken(before: list[Mentioned], started: list[float]) -> set[tuple[str, int]]:
    """The places where a call put a time that it took: what measures it, and has no part in what it computes.

    `started`: what the clocks showed before the call.
    """
    spans = list(zip(started, clocks(), strict=True))
    changed = [m for m in changes(before) if m.held is None and type(m.value) in (float, type(None))]
    found = [(m.place, m.now()) for m in changed]
    return {at for at, now in found if type(now) is float and any(first <= now <= last for first, last in spans)}


def _kept(tape: Tape, result: Any) -> Step | None:
    """The step whose result somebody holds who is neither the caller nor a gradient."""
    results = [v for _, v in tree_leaves(result) if type(v) in TENSOR_TYPES]
    gradients = [leaf.grad for leaf, _ in tape.grads if leaf.grad is not None]
    if not _left(tape, results, gradients) and all(sys.getrefcount(t.array) <= _HELD_ONCE for t in results):
        return None
    gc.collect()  # a graph that goes round in a circle holds nothing for anybody
    known = {id(t) for t in [*results, *gradients, *tape.storages.values()]}
    numbers = _left(tape, results, gradients)
    for tensor in results:
        holders = (t for t in gc.get_referrers(tensor.array) if type(t) in TENSOR_TYPES)
        if any(id(t) not in known for t in holders):
            numbers.append(tape.number(tensor))
    return next((step for step in tape.steps if _made(tape, step) & {*numbers}), None)


_HELD_ONCE = 2  # by the one tensor, and by the question


def _left(tape: Tape, *handed: list[Tensor]) -> list[int]:
    """The values that steps made, and that still lie somewhere else than in these tensors."""
    arrays = [t.array for tensors in handed for t in tensors]
    apart = {id(a) for array in arrays for a in (array, getattr(array, "base", None))}
    made = {number for step in tape.steps for number in _made(tape, step)}
    return [number for number, array in tape.alive() if number in made and id(array) not in apart]


def _made(tape: Tape, step: Step) -> set[int]:
    """The values that a step made: another handle on an array from outside (`alias`) is none."""
    return {*step.outputs}.difference(tape.captured, tape.inputs)
