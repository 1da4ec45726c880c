"""What a compiled step is made of, counted: what CI can hold against a file, because no busy neighbour changes it.

    python -m retrograd.benchmarks.counts tests/counts.json

writes the file anew; do so after a change that is meant, and let the commit say why. Seconds are measured by the suite.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .child import load_module
from .suite import HERE

COUNTED: dict[str, tuple[str, str, bool]] = {
    "mlp-64-64-64-10": ("mlp_step.py", "mlp-64-64-64-10", False),
    "mlp-784-128-10": ("mlp_step.py", "mlp-784-128-10", False),
    "cnn, small": ("cnn_step.py", "cnn-32-64-128", True),
    "gpt, small": ("gpt_step.py", "gpt-128", True),
    "penalty, small": ("penalty_step.py", "penalty-tanh", True),
}
"""Name → file, workload in it, and whether its sizes are those of `--smoke`: the steps of a plan depend on ranks."""

REFRESH = "python -m retrograd.benchmarks.counts tests/counts.json"

TIERS: dict[str, tuple[str, ...]] = {"array": tuple(COUNTED), "jit": ("mlp-784-128-10", "gpt, small")}
"""Kernel tier → what is counted under it. The second one compiles kernels, which takes a while."""

SLACK = {"allocated bytes": 1.1}
"""By which factor a count may differ without having grown: objects have other sizes in other versions of Python."""

Counts = dict[str, int]


def count(name: str, tier: str) -> Counts:
    """The counts of one workload's program under a kernel tier.

    Returns:
        steps: of the plan. fused groups: of elementwise work among them. instructions: calls that a replay makes.
        buffers, buffer bytes: the program's own arrays. python calls: of functions, Python's and C's, in one replay
        from the call on, NumPy's ufuncs not among them. allocated bytes: the most that a replay holds at a time beside
        what it held before.
    """
    import retrograd as rg

    from ..autograd_core.compile.fusion import FUSED

    with rg.use_backend("numpy"), _tier(tier):
        step, compiled = step_of(*COUNTED[name])
        for _ in range(5):  # three until there is a program, one to replay it, and one for what that makes only once
            step()
        calls, most = python_calls(step), allocated(step)
    program = compiled.program
    return {
        "steps": len(program.steps),
        "fused groups": sum(s.record is FUSED for s in program.steps),
        "instructions": len(program.instructions),
        "buffers": program.buffers,
        "buffer bytes": program.nbytes,
        "python calls": calls,
        "allocated bytes": most,
    }


def step_of(file: str, workload: str, small: bool = False) -> tuple[Callable[[], Any], Any]:
    """A workload's compiled step, and what `rg.compile` made of it."""
    import retrograd as rg

    module = load_module(str(HERE / file))
    size = module.WORKLOADS[workload] | (module.SMOKE[workload] if small else {})
    compiled: list[Any] = []

    def wrap(function: Callable) -> Any:
        compiled.append(rg.compile(function))
        return compiled[-1]

    return module.retrograd_step(size, module.data(size, np.random.default_rng(0)), wrap), compiled[0]


def grown(found: Counts, kept: Counts) -> list[str]:
    """What of a workload has become more, or was not counted before: one line each.

    >>> grown({"steps": 5, "buffers": 2}, {"steps": 4, "buffers": 3})
    ['steps: 5, was 4']
    """
    return [
        f"{what}: {number:,}, was {kept.get(what, 0):,}"
        for what, number in found.items()
        if number > kept.get(what, 0) * SLACK.get(what, 1)
    ]


def python_calls(step: Callable[[], Any]) -> int:
    """How many functions a call calls, Python's and C's, itself included."""
    calls = 0

    def notice(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(notice)
    try:
        step()
    finally:
        sys.setprofile(None)
    return calls - 1  # switching it off is a call too


def allocated(step: Callable[[], Any]) -> int:
    """The most bytes that a call holds at a time beside what was held before."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        step()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@contextmanager
def _tier(name: str) -> Iterator[None]:
    before = os.environ.get("RETROGRAD_KERNELS")
    os.environ["RETROGRAD_KERNELS"] = name
    try:
        yield
    finally:
        if before is None:
            del os.environ["RETROGRAD_KERNELS"]
        else:
            os.environ["RETROGRAD_KERNELS"] = before


def main(arguments: list[str]) -> None:
    """Write the file that is named."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        raise SystemExit(f"usage: {REFRESH}")
    counts = {tier: {name: count(name, tier) for name in names} for tier, names in TIERS.items()}
    Path(arguments[0]).write_text(json.dumps(counts, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
