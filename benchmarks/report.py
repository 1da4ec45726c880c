"""What a run prints: a Markdown table, readable as it grows and fit to be kept as it is."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from typing import Any

from . import machine

COLUMNS = (("workload", 20), ("against", 10), ("threads", 7), ("ours", 9), ("theirs", 9), ("ratio", 6),
           ("quartiles", 13), ("GEMM", 5))  # fmt: skip

LEGEND = """\
Times are medians per step. `ratio` is the median of ours / theirs over the pairs of alternating blocks (less than 1:
ours is faster), `quartiles` its spread. `GEMM` is the rate of our side's matrix products over that of theirs, alone and
on the workload's own shapes: where it is below 1, the BLAS beneath us is the slower one. A disturbed row was timed
while other programs took the cores: it is no result, and the next run with the same --json file times it again."""


def heading(threads: int, protocol: Any) -> str:
    """The machine, how it is measured, and the head of the table."""
    about = ", ".join(f"{name} {value}" for name, value in machine.facts().items())
    method = f"{protocol.pairs} pairs of blocks of {protocol.block:g} s, {threads} threads where a workload sets none"
    tuned = "".join(f" {name}={value}" for name, value in machine.tuning().items())
    busy = machine.load()
    lines = [about, method, *([f"environment:{tuned}"] if tuned else [])]
    if busy is not None and busy > 0.7:
        lines.append(f"the machine is busy (load {busy}): rows may come out disturbed")
    return "\n".join(["  \n".join(lines), "", _line(name for name, _ in COLUMNS), _line("-" * n for _, n in COLUMNS)])


def line(row: dict[str, Any]) -> str:
    """One row of the table; for one that was not timed, the reason."""
    known = row["settings"]
    start = [known["workload"], known["peer"], str(known["threads"])]
    if "ratio" not in row:
        return _line(start) + f" {row['status']}: {row['reason'].replace('|', '/')} |"
    ratio = row["ratio"]
    cells = [
        *start,
        duration(statistics.median(row["ours"])),
        duration(statistics.median(row["theirs"])),
        f"{ratio['median']:.2f}",
        f"{ratio['low']:.2f} – {ratio['high']:.2f}",
        f"{row['gemm']['ratio']:.2f}" if "gemm" in row else "",
    ]
    remarks = [f"disturbed: waited {row['waited']:.0%} of the time for a core"] if row["status"] == "disturbed" else []
    return " ".join([_line(cells), *remarks, *(["kept"] if row.get("kept") else [])])


def closing(rows: list[dict[str, Any]]) -> str:
    """Geometric means over the workloads, and what the columns mean."""
    lines = [""]
    for peer in dict.fromkeys(row["settings"]["peer"] for row in rows):
        ratios = [r["ratio"]["median"] for r in rows if r["status"] == "timed" and r["settings"]["peer"] == peer]
        if ratios:
            mean = math.exp(math.fsum(map(math.log, ratios)) / len(ratios))
            lines.append(f"geometric mean against {peer}: {mean:.2f} over {len(ratios)} undisturbed workloads  ")
    lines += dict.fromkeys(_library(row, side) for side in ("ours", "peer") for row in rows if "ratio" in row)
    return "\n".join([*lines, "", LEGEND])


def duration(seconds: float) -> str:
    """A time with three digits.

    >>> duration(0.00012345), duration(0.0123), duration(1.5)
    ('123 µs', '12.3 ms', '1.5 s')
    """
    unit, factor = next((u for u in (("s", 1), ("ms", 1e3), ("µs", 1e6)) if seconds * u[1] >= 1), ("µs", 1e6))
    return f"{seconds * factor:.3g} {unit}"


def _library(row: dict[str, Any], side: str) -> str:
    name, facts = row["settings"][side], row["libraries"][side]
    return f"{name} {row['settings']['versions'][name]}: {', '.join(f'{k} {v}' for k, v in facts.items())}  "


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, (_, width) in zip(cells, COLUMNS, strict=False)) + " |"
