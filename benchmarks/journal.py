"""Results in a file of JSON lines, to which runs are added: what it holds for the same settings is not timed again."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
from pathlib import Path
from typing import Any

from . import machine
from .adapters import ADAPTERS
from .measure import Protocol
from .suite import Workload

# What our numbers depend on. Data, examples and the benchmarks themselves are not in it.
_TIMED_PACKAGES = ("backends", "autograd_core", "nn", "optim", "models", "train")

_SHARED = ("adam.py",)  # what files of workloads share


def settings(work: Workload, ours: str, theirs: str | None, threads: int, protocol: Protocol | None) -> dict[str, Any]:
    """Everything that makes a result another one: two rows with the same settings may stand for each other.

    Of a beginning, which is measured of one library alone and in one way, there is no rival and no protocol.
    """
    return {
        "workload": work.name,
        "size": work.size,
        "ours": ours,
        **({"peer": theirs} if theirs else {"measured": "beginning"}),
        "threads": threads,
        **(protocol._asdict() if protocol else {}),
        "machine": machine.facts(),
        "environment": machine.tuning(),
        "versions": {name: version(name) for name in (ours, theirs, "numpy") if name},
        "source": source(),
        "workload source": digest(work.file, *(work.file.parent / name for name in _SHARED)),
    }


def digest(*files: Path) -> str:
    """A fingerprint of those of the files that are there."""
    found = hashlib.sha256()
    for file in files:
        if file.exists():
            found.update(file.read_bytes())
    return found.hexdigest()[:12]


def version(peer: str) -> str | None:
    """The version that is installed of a peer's library, or None."""
    distribution = ADAPTERS[peer].distribution if peer in ADAPTERS else peer
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def source() -> str:
    """A fingerprint of retrograd's own code: between two releases the version says nothing."""
    files: list[Path] = []
    for package in _TIMED_PACKAGES:
        spec = importlib.util.find_spec(f"retrograd.{package}")
        for folder in (spec.submodule_search_locations or []) if spec else []:
            files += sorted(Path(folder).rglob("*.py"))
    return digest(*files)


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a file; none if it is not there.

    A last line that was cut off by a crash is passed over. Raises ValueError for anything else that is no row.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            if line.strip():
                rows.append(json.loads(line))
                rows[-1]["settings"]  # a row of ours has them
        except (ValueError, TypeError, KeyError):
            if number < len(lines):
                raise ValueError(f"{path}, line {number}: not a result of this suite; name another file") from None
    return rows


def make(path: Path) -> None:
    """Make the file and its folder where they are not there. Raises OSError where nothing can be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a"):
        pass


def append(path: Path, row: dict[str, Any]) -> None:
    """Add a row. The file and its folder are made if they are not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        if file.seek(0, 2):
            file.seek(-1, 2)
            if file.read(1) != b"\n":
                _drop_cut_line(file)
        file.write(json.dumps(row, sort_keys=True).encode() + b"\n")


def find(rows: list[dict[str, Any]], wanted: dict[str, Any]) -> dict[str, Any] | None:
    """The newest row that was timed under these settings, or None."""
    plain = json.loads(json.dumps(wanted))
    return next((row for row in reversed(rows) if row["status"] == "timed" and row["settings"] == plain), None)


def _drop_cut_line(file: Any) -> None:
    file.seek(0)
    file.truncate(file.read().rfind(b"\n") + 1)
