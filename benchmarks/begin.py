"""What a workload costs before it runs at speed: the time until the first replay, and memory, in fresh processes."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from . import suite
from .process import Peers

REPLAYS_FROM = 3
"""Calls before the first replay: `rg.compile` warms up, records and confirms. Rivals are given the same three."""

CACHES = {"RETROGRAD_CACHE": "retrograd", "TORCHINDUCTOR_CACHE_DIR": "torch"}


def begin(living: Peers, work: suite.Workload, peer: str, threads: int, folder: Path) -> dict[str, Any]:
    """Begin a workload twice, first with empty caches for compiled code, then with those that this left.

    Args:
        folder: holds `data.npz`, what the workload reads.
    Returns:
        cold, warm: `seconds` of each of the first steps, `bytes` by which the process grew, and for a peer that
        compiles `first_replay`, the seconds from the first call to the first replay without the steps themselves.
    Raises:
        PeerError: it cannot run it.
    """
    small = next(w for w in suite.load(smoke=True) if w.weights and peer in w.peers and w.file != work.file)
    np.savez(folder / "trivial.npz", **small.arrays)  # pyright: ignore[reportArgumentType]
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as caches:
        places = {variable: str(Path(caches) / name) for variable, name in CACHES.items()}
        for state in ("cold", "warm"):
            process = living.fresh(peer, threads, places)
            answer = process.ask(
                "begin",
                file=str(work.file),
                size=work.size,
                data=str(folder / "data.npz"),
                trivial=[str(small.file), small.size, str(folder / "trivial.npz")],
            )
            process.end()
            found[state] = answer | first_replay(answer)
    return found


def first_replay(answer: dict[str, Any]) -> dict[str, float]:
    """From the first call to the first replay, without what the steps themselves take: {} for a peer that is eager.

    >>> first_replay({"seconds": [1.0, 1.0, 2.0, 0.25, 0.25], "eager": 0.5})
    {'first_replay': 2.5}
    """
    if "eager" not in answer:
        return {}
    seconds = answer["seconds"]
    steady = statistics.median(seconds[REPLAYS_FROM + 1 :])
    steps = REPLAYS_FROM * answer["eager"] + steady
    return {"first_replay": max(0.0, sum(seconds[: REPLAYS_FROM + 1]) - steps)}
