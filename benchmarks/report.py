"""What a run prints: a Markdown table, readable as it grows and fit to be kept as it is."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from . import bounds, machine

COLUMNS = (("workload", 18), ("of", 15), ("against", 14), ("threads", 7), ("ours", 9), ("theirs", 9), ("ratio", 6),
           ("quartiles", 13), ("GEMM", 5), ("ceiling", 11), ("bound", 24))  # fmt: skip

LEGEND = """\
Times are medians per step. `ratio` is the median of ours / theirs over the pairs of alternating blocks (less than 1:
ours is faster), `quartiles` its spread. `GEMM` is the rate of our side's matrix products over that of theirs, alone and
on the workload's own shapes: where it is below 1, the BLAS beneath us is the slower one. `ceiling` is the share of
each side's time that nothing spares: the matrix products at the better of both rates, and the optimizer's traffic at
the rate of a copy. `bound` is where the ratio must get to (divided by GEMM where that is below 1). A disturbed row was
timed while other programs took the cores: it is no result, and the next run with the same --json file times it
again."""

BEGINNING_COLUMNS = (("workload", 18), ("library", 15), ("threads", 7), ("cold", 8), ("warm", 8), ("memory", 9),
                     ("of torch", 8), ("bounds", 40))  # fmt: skip

BEGINNING_LEGEND = """
`cold` and `warm` are the time from the first call to the first replay without the steps themselves, with an empty cache
of compiled code and with a filled one; of a library that does not compile there is none. `memory` is the growth of the
largest resident size over that after the imports and a small step, by ten steps; a ratio to PyTorch's is judged only
where PyTorch's is 100 MB or more. Each figure is of a fresh process, and kernels that the small step needs too are not
in it."""


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
    start = [known["workload"], known["ours"], known["peer"], str(known["threads"])]
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
        f"{row['ceiling']['ours']:.0%} / {row['ceiling']['theirs']:.0%}" if "ceiling" in row else "",
        bounds.verdict(ratio["median"], bounds.step_bound(row)),
    ]
    remarks = [f"disturbed: waited {row['waited']:.0%} of the time for a core"] if row["status"] == "disturbed" else []
    return " ".join([_line(cells), *remarks, *(["kept"] if row.get("kept") else [])])


def closing(rows: list[dict[str, Any]]) -> str:
    """Geometric means over the workloads, chains of operations apart from training steps, and what the columns mean."""
    lines, found = [""], {}
    for row in rows:
        if row["status"] == "timed":
            known = row["settings"]
            kind = "chains of operations" if known["workload"].startswith("ops-") else "training steps"
            found.setdefault((known["ours"], known["peer"], kind), []).append(row["ratio"]["median"])
    for (ours, peer, kind), ratios in found.items():
        mean = math.exp(math.fsum(map(math.log, ratios)) / len(ratios))
        lines.append(f"geometric mean of {ours} against {peer}: {mean:.2f} over {len(ratios)} undisturbed {kind}  ")
    lines += dict.fromkeys(_library(row, side) for side in ("ours", "peer") for row in rows if "ratio" in row)
    return "\n".join([*lines, "", LEGEND])


def beginning_heading(threads: int) -> str:
    """The machine, and the head of the table of beginnings."""
    about = ", ".join(f"{name} {value}" for name, value in machine.facts().items())
    head = [_line((name for name, _ in BEGINNING_COLUMNS), BEGINNING_COLUMNS)]
    head += [_line(("-" * n for _, n in BEGINNING_COLUMNS), BEGINNING_COLUMNS)]
    return "\n".join([f"{about}  ", f"{threads} threads where a workload sets none", "", *head])


def beginning_line(row: dict[str, Any], against: dict[str, Any] | None) -> str:
    """One row of the table of beginnings, its memory held against the rival's."""
    known = row["settings"]
    start = [known["workload"], known["ours"], str(known["threads"])]
    if "cold" not in row:
        return _line(start, BEGINNING_COLUMNS) + f" {row['status']}: {row['reason'].replace('|', '/')} |"
    grown = max(row[state]["bytes"] for state in ("cold", "warm"))
    cells = [
        *start,
        *(f"{row[s]['first_replay']:.1f} s" if "first_replay" in row[s] else "" for s in ("cold", "warm")),
        f"{grown / 1e6:.0f} MB",
    ]
    remarks = []
    if known["ours"] == "retrograd-jit":
        limits = bounds.FIRST_REPLAY.get(known["workload"], {})
        remarks += [f"{s} {bounds.verdict(row[s]['first_replay'], limit)}" for s, limit in limits.items()]
    if against and "cold" in against and against is not row:
        theirs = max(against[state]["bytes"] for state in ("cold", "warm"))
        cells.append(f"{grown / theirs:.2f}" if theirs else "")
        if theirs >= bounds.MEMORY_FROM and known["ours"].startswith("retrograd"):
            remarks.append(f"memory {bounds.verdict(grown / theirs, bounds.MEMORY)}")
    else:
        cells.append("")
    return _line([*cells, ", ".join(remarks)], BEGINNING_COLUMNS)


def duration(seconds: float) -> str:
    """A time with three digits.

    >>> duration(0.00012345), duration(0.0123), duration(1.5)
    ('123 µs', '12.3 ms', '1.5 s')
    """
    unit, factor = next((u for u in (("s", 1), ("ms", 1e3), ("µs", 1e6)) if seconds * u[1] >= 1), ("µs", 1e6))
    return f"{seconds * factor:.3g} {unit}"


def _library(row: dict[str, Any], side: str) -> str:
    name, facts = row["settings"][side], row["libraries"][side]
    return f"{name} {row['settings']['versions'][name]}: {', '.join(f'{k} {v}' for k, v in sorted(facts.items()))}  "


def _line(cells: Iterable[str], columns: Sequence[tuple[str, int]] = COLUMNS) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, (_, width) in zip(cells, columns, strict=False)) + " |"
