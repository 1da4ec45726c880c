"""A program to be read: its steps and groups, what they take in memory, and how much arithmetic they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..graph import Spec
from ..recorder import Step, Value
from .fusion import FUSED

if TYPE_CHECKING:
    from .program import Program


def _matmul(step: Step, specs: Sequence[Spec]) -> int:
    return 2 * math.prod(specs[step.outputs[0]][0]) * _shape(step, 0, specs)[-1]


def _convolution(step: Step, specs: Sequence[Spec]) -> int:
    return 2 * math.prod(specs[step.outputs[0]][0]) * math.prod(_shape(step, 1, specs)[1:])


def _shape(step: Step, position: int, specs: Sequence[Spec]) -> tuple[int, ...]:
    value = step.inputs[position]
    return specs[value.number][0] if isinstance(value, Value) else ()


FLOPS: dict[str, Callable[[Step, Sequence[Spec]], int]] = {
    "matmul": _matmul,
    "linear": _matmul,
    "conv2d": _convolution,
}
"""Multiplications and additions of the records that do most of them; elementwise work is not counted."""


def flops(steps: Sequence[Step], specs: Sequence[Spec]) -> int:
    """Floating-point operations of the matrix products and convolutions among the steps; of gradients that are one step
    (a convolution's) nothing is counted."""
    return sum(FLOPS[s.record.name](s, specs) for s in steps if s.record is not None and s.record.name in FLOPS)


def listing(program: Program) -> str:
    """One line a step; a fused group is named by what it does, with its elements and its values that are kept."""
    specs = program.tape.specs
    groups = sum(s.record is FUSED for s in program.steps)
    head = (
        f"program of {len(program.steps)} steps, {len(program.instructions)} calls, {groups} fused groups, "
        f"{program.nbytes:,} bytes in {program.buffers} arrays, {flops(program.steps, specs):,} FLOP in products"
    )
    return "\n".join([head, *[f"  {_line(s, specs)}" for s in program.steps]])


def _line(step: Step, specs: Sequence[Spec]) -> str:
    if step.record is not FUSED:
        return repr(step)
    group = step.attributes["group"]
    names = [m.record.name if m.record else "assign" for m in group.members]
    outs = ", ".join(f"%{n}" for n in step.outputs)
    rows = f", rows of {group.row}" if group.row else ""
    inputs = ", ".join(map(repr, step.inputs))
    return f"{outs} = fused({inputs}) over {group.size:,} elements{rows}: {' '.join(names)}"
