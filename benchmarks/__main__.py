"""`python -m retrograd.benchmarks`: times our steps against those of other libraries, in separate processes."""

from __future__ import annotations

import argparse
import datetime
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from . import journal, measure, runs, suite
from .adapters import ADAPTERS, PLAIN


def main(arguments: list[str] | None = None, subjects: Sequence[str] = suite.SUBJECTS) -> int:
    """The command line. Returns 0, 1 where a workload failed or two peers disagreed, 130 after Ctrl-C."""
    options = _parser(list(ADAPTERS), subjects).parse_args(arguments)
    subjects = options.ours or subjects
    own = {ADAPTERS.get(name, PLAIN).module for name in subjects}
    rivals = [name for name, adapter in ADAPTERS.items() if adapter.module not in own]
    asked: list[str] = options.peer or list(suite.DEFAULT_PEERS)
    rivals = rivals if "all" in asked else asked
    file = Path(options.json) if options.json else None
    given = sys.argv[1:] if arguments is None else arguments
    runs.say(f"{datetime.date.today()}, `{shlex.join(['python', '-m', 'retrograd.benchmarks', *given])}`  ")
    try:
        everything = options.smoke or options.peer or options.begin
        workloads = suite.load(options.workload or suite.names(long=bool(everything)), options.smoke)
        if file:
            journal.read(file)  # a file of something else is refused before anything is started
            journal.make(file)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    threads = options.threads or (1 if options.smoke else None)
    try:
        if options.begin:
            rows = runs.beginnings(workloads, rivals, subjects=subjects, threads=threads, file=file)
        else:
            protocol = measure.SMOKE if options.smoke else measure.Protocol(pairs=options.pairs)
            rows = runs.timings(workloads, rivals, subjects=subjects, threads=threads, protocol=protocol, file=file)
    except KeyboardInterrupt:
        print(f"interrupted; {'what was timed is in ' + options.json if file else 'nothing is kept'}", file=sys.stderr)
        return 130
    return int(any(row["status"] in ("failed", "disagreement") for row in rows))


def _parser(known: list[str], subjects: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m retrograd.benchmarks",
        description="Times our steps against those of other libraries, in separate processes, after checking that they "
        "compute the same.",
        epilog=f"Workloads: {', '.join(suite.names())}. Without arguments all but the last three, against PyTorch.",
    )
    parser.add_argument(
        "--workload", action="append", default=[], metavar="NAME", help="only this one; may be given several times"
    )
    parser.add_argument(
        "--peer",
        action="append",
        choices=[*[name for name in known if name not in subjects], "all"],
        help=f"against what; may be given several times (default: {' and '.join(suite.DEFAULT_PEERS)})",
    )
    parser.add_argument(
        "--ours",
        action="append",
        choices=known,
        help=f"whose time is divided; may be given several times (default: {', '.join(subjects)})",
    )
    parser.add_argument(
        "--begin", action="store_true", help="instead of steps, measure the time to the first replay, and memory"
    )
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
