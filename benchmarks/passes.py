"""What each pass of the compiler gains: the same step compiled without one of them, beside the step with all.

    python -m retrograd.benchmarks.passes                 GPT of width 128, under the kernel tier that is set
    RETROGRAD_KERNELS=array python -m retrograd.benchmarks.passes mlp-784-128-10

A row leaves one pass out: how many calls a replay then makes, what its arrays take, and its time over that of the whole
program (median of interleaved pairs in one process; processor time, so that neighbours disturb it less).
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np

from .child import load_module
from .counts import step_of
from .suite import FILES, HERE

PAIRS = 11


def _one_behind_the_other(spans: Sequence[Any], chunks: Sequence[int]) -> list[int]:
    """Every piece of memory for itself, behind the chunks that there are."""
    return [sum(chunks) + sum(s.nbytes for s in spans[:i]) for i in range(len(spans))]


PASSES: dict[str, dict[str, Callable[..., Any]]] = {
    "all passes": {},
    "without algebra": {"program.simplify": lambda steps, *rest: (list(steps), {})},
    "without folded constants": {"program.fold_constants": lambda steps, specs, known, *rest: (list(steps), known)},
    "without merging equal values": {"program.merge_equal": lambda steps, *rest: (list(steps), {})},
    "without sparing copies": {"program.needless_copies": lambda steps, *rest: (list(steps), {})},
    "without writing fused records out": {"program.expand": lambda tape: tape.steps},
    "without relu behind pools": {"program.relu_after_pool": lambda steps, *rest: list(steps)},
    "without fusion": {"program.fuse": lambda steps, *rest: list(steps)},
    "without recomputation": {"program.recompute": lambda steps, *rest: list(steps)},
    "without packing": {"arena.packed": _one_behind_the_other},
    "without reuse in place": {"places.Builder._may_overwrite": lambda *_: False},
    "without destination passing": {
        "places.Builder._targets": lambda *_: {},
        "places.Builder._place_pieces": lambda *_: None,
    },
    "without blocks": {"places.blocked": lambda instructions: instructions},
}
"""Row → functions of the compiler and what stands in for them."""


@contextmanager
def without(replaced: dict[str, Callable[..., Any]]) -> Iterator[None]:
    """Compile with other functions in the place of some passes."""
    with ExitStack() as stack:
        for name, function in replaced.items():
            stack.enter_context(patch(f"retrograd.autograd_core.compile.{name}", function))
        yield


def main(names: Sequence[str]) -> None:
    """Print one table per workload."""
    files = {name: str(file) for file in FILES for name in load_module(str(HERE / file)).WORKLOADS}
    for name in [name for name in names if name not in files]:
        raise SystemExit(f"there is no workload {name!r}; there are {', '.join(files)}")
    for name in names or ("gpt-128",):
        made: dict[str, tuple[Callable[[], Any], Any]] = {}
        for row, replaced in PASSES.items():
            with without(replaced):
                step, compiled = step_of(files[name], name)
                for _ in range(4):
                    step()
                made[row] = step, compiled.program
        times: dict[str, list[float]] = {row: [] for row in made}
        for _ in range(PAIRS):
            for row, (step, _) in made.items():
                times[row].append(_processor_time(step))
        whole = times["all passes"]
        print(f"\n| {name} | calls | MB | time |\n|---|---|---|---|")
        for row, (_, program) in made.items():
            ratio = statistics.median(np.array(times[row]) / np.array(whole))
            print(f"| {row} | {len(program.instructions):,} | {program.nbytes / 1e6:,.1f} | {ratio:.2f} |")


def _processor_time(step: Callable[[], Any]) -> float:
    start = time.process_time()
    step()
    return time.process_time() - start


if __name__ == "__main__":
    main(sys.argv[1:])
