"""`python -m retrograd.benchmarks`: times our steps against those of other libraries, in separate processes."""

from __future__ import annotations

import argparse
import datetime
import functools
import shlex
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from . import journal, machine, measure, report, suite
from .adapters import ADAPTERS, PLAIN
from .process import PeerError, Peers, peers

_print = functools.partial(print, flush=True)


def run(
    workloads: list[suite.Workload],
    rivals: list[str],
    *,
    subject: str = suite.SUBJECT,
    threads: int | None = None,
    protocol: measure.Protocol | None = None,
    file: Path | None = None,
    show: Callable[[str], Any] = _print,
) -> list[dict[str, Any]]:
    """Time every workload against every rival; one row each, also for what could not be timed.

    Args:
        subject: the peer whose time is the numerator of each ratio.
        threads: for workloads that set none themselves; all cores if None.
        protocol: how long and how often.
        file: where rows are added as they come, and rows of the same settings are taken from.
        show: gets each line of the report as it is known.
    """
    cores, protocol = threads or machine.cores(), protocol or measure.Protocol()
    known = journal.read(file) if file else []
    rows: list[dict[str, Any]] = []
    show(report.heading(cores, protocol))
    with peers() as living, tempfile.TemporaryDirectory() as folder:
        for work in workloads:
            data = Path(folder) / "data.npz"
            np.savez(data, **work.arrays)  # pyright: ignore[reportArgumentType]
            for rival in rivals:
                wanted = journal.settings(work, subject, rival, work.threads or cores, protocol)
                kept = journal.find(known, wanted)
                row = kept | {"kept": True} if kept else _row(living, work, wanted, data, protocol)
                if file and not kept:
                    journal.append(file, row)
                rows.append(row)
                show(report.line(row))
    show(report.closing(rows))
    return rows


def _row(living: Peers, work: suite.Workload, wanted: dict[str, Any], data: Path, protocol: Any) -> dict[str, Any]:
    row = {
        "settings": wanted,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "load": machine.load(),
    }
    rival = wanted["peer"]
    if rival not in work.peers:
        return row | {"status": "not written", "reason": f"{work.file.name} has no step for {rival}"}
    try:
        ours, theirs = (living.get(wanted[side], wanted["threads"]) for side in ("ours", "peer"))
        found = measure.measure(ours, theirs, work, data, protocol)
        return row | found | {"libraries": {"ours": ours.ask("facts"), "peer": theirs.ask("facts")}}
    except PeerError as error:
        status = "not installed" if error.missing and error.peer == rival else "failed"
        return row | {"status": status, "reason": f"{error.peer}: {error}"}
    except measure.Disagreement as error:
        return row | {"status": "disagreement", "reason": str(error)}


def main(arguments: list[str] | None = None, subject: str = suite.SUBJECT) -> int:
    """The command line. Returns 0, 1 where a workload failed or two peers disagreed, 130 after Ctrl-C."""
    options = _parser(list(ADAPTERS), subject).parse_args(arguments)
    subject = options.ours
    rivals = [name for name, adapter in ADAPTERS.items() if adapter.module != ADAPTERS.get(subject, PLAIN).module]
    asked: list[str] = options.peer or list(suite.DEFAULT_PEERS)
    protocol = measure.SMOKE if options.smoke else measure.Protocol(pairs=options.pairs)
    file = Path(options.json) if options.json else None
    given = sys.argv[1:] if arguments is None else arguments
    _print(f"{datetime.date.today()}, `{shlex.join(['python', '-m', 'retrograd.benchmarks', *given])}`  ")
    try:
        workloads = suite.load(options.workload, options.smoke)
        if file:
            journal.read(file)  # a file of something else is refused before anything is started
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    rivals = rivals if "all" in asked else asked
    threads = options.threads or (1 if options.smoke else None)
    try:
        rows = run(workloads, rivals, subject=subject, threads=threads, protocol=protocol, file=file)
    except KeyboardInterrupt:
        print(f"interrupted; {'what was timed is in ' + options.json if file else 'nothing is kept'}", file=sys.stderr)
        return 130
    return int(any(row["status"] in ("failed", "disagreement") for row in rows))


def _parser(known: list[str], subject: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m retrograd.benchmarks",
        description="Times our steps against those of other libraries, in separate processes, after checking that they "
        "compute the same.",
        epilog=f"Workloads: {', '.join(suite.names())}.",
    )
    parser.add_argument(
        "--workload", action="append", default=[], metavar="NAME", help="only this one; may be given several times"
    )
    parser.add_argument(
        "--peer",
        action="append",
        choices=[*[name for name in known if name != subject], "all"],
        help=f"against what; may be given several times (default: {' and '.join(suite.DEFAULT_PEERS)})",
    )
    parser.add_argument("--ours", choices=known, default=subject, help="whose time is divided (%(default)s)")
    parser.add_argument(
        "--pairs", type=_positive, default=measure.Protocol().pairs, help="blocks per side (%(default)s)"
    )
    parser.add_argument("--threads", type=_positive, help="for each library (default: all cores)")
    parser.add_argument(
        "--json", metavar="FILE", help="add rows to it; what it holds for these settings is not timed again"
    )
    parser.add_argument("--smoke", action="store_true", help="one step of everything on tiny sizes, in seconds")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
