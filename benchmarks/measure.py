"""One workload, our step against a rival's: first the same numbers, then the time, in alternating blocks."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from .process import PeerError, PeerProcess
from .suite import Workload

STEPS_THAT_MUST_AGREE = 10


class Protocol(NamedTuple):
    """How long and how often. A pair is one block of each side, a block is steps for about `block` seconds.

    The machine's speed wanders over seconds; within a pair both sides meet the same, so that the ratio of a pair is
    steadier than the ratio of two medians.

    A pair is *calm* if other programs took no more than the share `calm` from both of its blocks. A thread
    that waits for a core makes the others wait at the next barrier, so what is not calm says little about a library:
    such pairs are tried again, up to as many more, and what has too few calm ones is called disturbed.
    """

    pairs: int = 11
    block: float = 0.15
    product_block: float = 0.08
    calm: float | None = 0.05


SMOKE = Protocol(pairs=1, block=0.0, product_block=0.0, calm=None)


class Disagreement(RuntimeError):
    """Two peers do not compute the same."""


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles.

    >>> spread([1.0, 2.0, 3.0, 4.0, 5.0])
    {'median': 3.0, 'low': 2.0, 'high': 4.0}
    """
    if len(values) == 1:
        return {"median": values[0], "low": values[0], "high": values[0]}
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": median, "low": low, "high": high}


def measure(ours: PeerProcess, theirs: PeerProcess, work: Workload, data: Path, protocol: Protocol) -> dict[str, Any]:
    """Time a workload. `data` is the file that both sides read their weights and inputs from.

    Returns:
        losses; ours and theirs, seconds per step of each block; ratio, ours / theirs with quartiles; waited, the share
        of the blocks that was spent waiting for a core; status, "timed" or "disturbed"; gemm, the rates of the
        workload's matrix products alone in GFLOP/s and their ratio, and ceiling (see there), if it has any.
    Raises:
        PeerError: a side cannot run it. Its `peer` says which.
        Disagreement: the losses of the first steps differ.
    """
    observed = [_prepare(side, work, data) for side in (ours, theirs)]
    check_agreement((ours.peer, theirs.peer), observed[0], observed[1], work.tolerance)
    found: dict[str, Any] = {"losses": [row[0] for row in observed[0]]}
    found |= alternate(partial(ours.ask, "time"), partial(theirs.ask, "time"), protocol, protocol.block)
    if work.products:
        products = alternate(
            partial(ours.ask, "time_products", shapes=work.products),
            partial(theirs.ask, "time_products", shapes=work.products),
            protocol,
            protocol.product_block,
        )
        found["status"] = max(found["status"], products["status"], key=("timed", "disturbed").index)
        found["waited"] = max(found["waited"], products["waited"])
        gflop = 2e-9 * sum(math.prod(shape[:3]) for shape in work.products)
        found["gemm"] = {
            "ours": gflop / statistics.median(products["ours"]),
            "theirs": gflop / statistics.median(products["theirs"]),
            # Of rates, not of times: below 1 our library is the slower one.
            "ratio": 1 / products["ratio"]["median"],
        }
        found["ceiling"] = ceiling(work, found, ours.ask("bandwidth"))
    return found


ADAM_TRAFFIC = 28
"""Bytes that Adam moves for a float32 weight: it reads weight, gradient and two moments, and writes three of them."""


def ceiling(work: Workload, found: dict[str, Any], bandwidth: float) -> dict[str, Any]:
    """The seconds of a step that nothing on this machine spares: its matrix products at the faster library's rate, and
    the optimizer's traffic at the rate of a copy. Of what each side takes, this is the share."""
    gflop = 2e-9 * sum(math.prod(shape[:3]) for shape in work.products)
    least = gflop / max(found["gemm"]["ours"], found["gemm"]["theirs"]) + ADAM_TRAFFIC * work.weights / bandwidth
    shares = {side: least / statistics.median(found[side]) for side in ("ours", "theirs")}
    return {"seconds": least, "bandwidth": bandwidth, **shares}


Side = Callable[..., tuple[float, float]]
"""Called with `warm` and `steps`, gives the seconds for the steps and those of them spent waiting for a core."""


class Pair(NamedTuple):
    """One block of each side: seconds per step, and the share of the block that was spent waiting."""

    ours: float
    theirs: float
    ours_waited: float
    theirs_waited: float


def alternate(ours: Side, theirs: Side, protocol: Protocol, block: float) -> dict[str, Any]:
    """Time both sides, pair by pair, until there are enough calm pairs, or twice as many as are asked for.

    Which side begins changes from pair to pair, so that a steady drift favours neither.
    """
    sides = (ours, theirs)
    steps = [_steps_in(side, block) for side in sides]
    tried: list[Pair] = []
    calm: list[Pair] = []
    while len(calm) < protocol.pairs and len(tried) < 2 * protocol.pairs:
        blocks = [(0.0, 0.0), (0.0, 0.0)]
        for i in (0, 1) if len(tried) % 2 == 0 else (1, 0):
            # The first steps after a rest find cold caches.
            seconds, waited = sides[i](warm=1 + steps[i] // 10, steps=steps[i])
            blocks[i] = seconds / steps[i], waited / seconds
        pair = Pair(blocks[0][0], blocks[1][0], blocks[0][1], blocks[1][1])
        tried.append(pair)
        if protocol.calm is None or max(pair.ours_waited, pair.theirs_waited) <= protocol.calm:
            calm.append(pair)
    enough = len(calm) == protocol.pairs
    pairs = calm if enough else tried
    return {
        "status": "timed" if enough else "disturbed",
        "ours": [pair.ours for pair in pairs],
        "theirs": [pair.theirs for pair in pairs],
        "ratio": spread([pair.ours / pair.theirs for pair in pairs]),
        "waited": statistics.mean(max(pair.ours_waited, pair.theirs_waited) for pair in pairs),
    }


def check_agreement(
    peers: tuple[str, str], ours: list[list[float]], theirs: list[list[float]], tolerance: float
) -> None:
    """Raise Disagreement at the first step whose numbers differ by more than the tolerance, or are not finite."""
    for step, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        same = len(a) == len(b) and all(
            math.isclose(x, y, rel_tol=tolerance, abs_tol=tolerance * 1e-3) for x, y in zip(a, b, strict=True)
        )
        if not same or not all(map(math.isfinite, a)):
            raise Disagreement(
                f"step {step + 1}: {peers[0]} has {_listed(a)}, {peers[1]} {_listed(b)} (tolerance {tolerance:g})"
            )


def _prepare(side: PeerProcess, work: Workload, data: Path) -> list[list[float]]:
    wanted = {"file": str(work.file), "size": work.size, "data": str(data), "steps": STEPS_THAT_MUST_AGREE}
    if side.prepared[0] != wanted:
        side.prepared = (None, None)
        found = side.ask("prepare", **wanted)
        if found["strangers"]:
            raise PeerError(side.peer, f"its process has loaded {', '.join(found['strangers'])} too")
        side.prepared = (wanted, found["observed"])
    return side.prepared[1]


def _steps_in(side: Side, block: float) -> int:
    """How many steps take about so long."""
    steps = 1
    while (seconds := side(warm=1, steps=steps)[0]) < block / 4:
        steps *= 2
    return max(1, round(block * steps / seconds)) if block else 1


def _listed(numbers: list[float]) -> str:
    return " ".join(f"{n:.7g}" for n in numbers)
