"""The two runs of the suite, each a loop over workloads that gives rows: `timings` of steps, and `beginnings`."""

from __future__ import annotations

import datetime
import functools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from . import journal, machine, measure, report, suite
from .begin import begin
from .bounds import RIVAL
from .process import PeerError, Peers, peers

Row = dict[str, Any]
say = functools.partial(print, flush=True)


def timings(
    workloads: Sequence[suite.Workload],
    rivals: Sequence[str],
    *,
    subjects: Sequence[str] = suite.SUBJECTS,
    threads: int | None = None,
    protocol: measure.Protocol | None = None,
    file: Path | None = None,
    show: Callable[[str], Any] = say,
) -> list[Row]:
    """Time every workload of each subject against every rival; one row each, also for what could not be timed.

    Args:
        subjects: the peers whose times are the numerators of the ratios; where a workload has a step for some of them,
            the others are passed over.
        threads: for workloads that set none themselves; all cores if None.
        protocol: how long and how often.
        file: where rows are added as they come, and rows of the same settings are taken from.
        show: gets each line of the report as it is known.
    """
    cores, protocol = threads or machine.cores(), protocol or measure.Protocol()
    show(report.heading(cores, protocol))
    rows: list[Row] = []
    with _kept_rows(file) as row_of, _folder() as folder:
        for work in workloads:
            _write(work, folder)
            with peers() as living:  # new processes for each workload: none finds the heap that another one left
                for rival in rivals:
                    for subject in [s for s in subjects if s in work.peers] or subjects:
                        wanted = journal.settings(work, subject, rival, work.threads or cores, protocol)
                        time_it = functools.partial(_timing, living, work, wanted, folder, protocol)
                        rows.append(row_of(work, wanted, time_it))
                        show(report.line(rows[-1]))
    show(report.closing(rows))
    return rows


def beginnings(
    workloads: Sequence[suite.Workload],
    rivals: Sequence[str],
    *,
    subjects: Sequence[str] = suite.SUBJECTS,
    threads: int | None = None,
    file: Path | None = None,
    show: Callable[[str], Any] = say,
) -> list[Row]:
    """Time to the first replay, and memory, of every workload but chains of operations. Arguments as of `timings`."""
    cores = threads or machine.cores()
    show(report.beginning_heading(cores))
    rows: list[Row] = []
    with _kept_rows(file) as row_of, peers() as living, _folder() as folder:
        for work in [w for w in workloads if w.weights or w.products]:
            _write(work, folder)
            against: Row | None = None
            for peer in sorted([*rivals, *subjects], key=lambda name: name != RIVAL):
                wanted = journal.settings(work, peer, None, work.threads or cores, None)
                measure_it = functools.partial(_beginning, living, work, wanted, folder)
                rows.append(row_of(work, wanted, measure_it))
                against = rows[-1] if peer == RIVAL else against
                show(report.beginning_line(rows[-1], against))
    show(report.BEGINNING_LEGEND)
    return rows


def _timing(living: Peers, work: suite.Workload, wanted: Row, folder: Path, protocol: measure.Protocol) -> Row:
    ours, theirs = (living.get(wanted[side], wanted["threads"]) for side in ("ours", "peer"))
    found = measure.measure(ours, theirs, work, folder / "data.npz", protocol)
    return found | {"libraries": {"ours": ours.ask("facts"), "peer": theirs.ask("facts")}}


def _beginning(living: Peers, work: suite.Workload, wanted: Row, folder: Path) -> Row:
    return {"status": "timed"} | begin(living, work, wanted["ours"], wanted["threads"], folder)


@contextmanager
def _kept_rows(file: Path | None) -> Iterator[Callable[[suite.Workload, Row, Callable[[], Row]], Row]]:
    """A function from a workload, settings, and what measures these, to a row: the file's, or a new one."""
    known = journal.read(file) if file else []

    def row_of(work: suite.Workload, wanted: Row, work_it_out: Callable[[], Row]) -> Row:
        kept = journal.find(known, wanted)
        if kept:
            return kept | {"kept": True}
        date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        row = {"settings": wanted, "date": date, "load": machine.load()} | _attempt(work, wanted, work_it_out)
        if file:
            journal.append(file, row)
        return row

    yield row_of


def _attempt(work: suite.Workload, wanted: Row, work_it_out: Callable[[], Row]) -> Row:
    """What was found, or why nothing was."""
    for name in [wanted[side] for side in ("ours", "peer") if side in wanted]:
        if name not in work.peers:
            reason = work.reasons.get(name, f"{work.file.name} has no step for {name}")
            return {"status": "not written", "reason": reason}
    try:
        return work_it_out()
    except PeerError as error:
        return {"status": "not installed" if error.missing else "failed", "reason": f"{error.peer}: {error}"}
    except measure.Disagreement as error:
        return {"status": "disagreement", "reason": str(error)}


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def _write(work: suite.Workload, folder: Path) -> None:
    np.savez(folder / "data.npz", **work.arrays)  # pyright: ignore[reportArgumentType]
