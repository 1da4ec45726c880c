"""Which workloads there are. A workload is a size in the table of one file, and a builder of its step for each peer.

A file of workloads stands alone (NumPy at the top, each library inside its own builder: the process of a peer loads the
file by its path) and has

    WORKLOADS   name to size: a dict of plain values that the builders and the functions below read
    SMOKE       name to the values of the size that `--smoke` replaces by small ones
    THREADS     how many threads every peer gets, or None for what the run asks for (all cores, or --threads)
    TOLERANCE   how far the numbers of two peers may lie apart over the first ten steps, relative to their size
    data(size, rng) -> dict of ndarrays     initial weights and inputs, the same for every peer
    gemms(size) -> list of (m, k, n, layout)    the matrix products of one step, or [] where they are not what counts
    PEERS       name to builder(size, arrays) -> step; step() trains once and returns the loss, or (loss,
                gradients ...), in the peer's own type: reading it is not part of the step

and may have

    REASONS     name of a peer to why it has no builder
    parameters(arrays) -> dict or list of ndarrays     the weights among them

`from .neighbour import x` reaches other files of this folder that need NumPy alone. A further workload is a row in its
file's table; a further file is a name in FILES.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .adapters import Gemm
from .child import load_module

HERE = Path(__file__).resolve().parent

FILES: tuple[str | Path, ...] = (
    "op_overhead.py", "mlp_step.py", "cnn_step.py", "gpt_step.py", "encoder_step.py", "penalty_step.py",
    "finetune_step.py", "decode_step.py",
)  # fmt: skip

LONG = ("finetune_step.py", "decode_step.py")
"""Files whose workloads take minutes each: a run that names neither workloads nor peers leaves them out."""

SUBJECTS: tuple[str, ...] = ("retrograd", "retrograd-numpy", "retrograd-jit")
DEFAULT_PEERS: tuple[str, ...] = ("torch",)


class Workload(NamedTuple):
    """One row of the suite: what is timed, and what the frame needs to know of it."""

    name: str
    file: Path
    size: dict[str, Any]
    threads: int | None
    tolerance: float
    arrays: dict[str, np.ndarray]
    products: list[Gemm]
    peers: tuple[str, ...]
    reasons: dict[str, str]
    weights: int  # how many numbers are trained


def names(long: bool = True) -> list[str]:
    """Every workload, in the order of the tables; without those of LONG if that is asked for."""
    files = [file for file in FILES if long or file not in LONG]
    return [name for file in files for name in load_module(str(HERE / file)).WORKLOADS]


def load(wanted: Sequence[str] = (), smoke: bool = False) -> list[Workload]:
    """The workloads of those names, or all, with their data. Raises ValueError for a name that no table has."""
    known = names()
    for name in wanted:
        if name not in known:
            raise ValueError(f"there is no workload {name!r}; there are {', '.join(known)}")
    return [
        _workload(HERE / file, module, name, smoke)
        for file in FILES
        for module in [load_module(str(HERE / file))]
        for name in module.WORKLOADS
        if not wanted or name in wanted
    ]


def _workload(file: Path, module: Any, name: str, smoke: bool) -> Workload:
    size = dict(module.WORKLOADS[name]) | (module.SMOKE.get(name, {}) if smoke else {})
    arrays = module.data(size, np.random.default_rng(0))
    found = getattr(module, "parameters", lambda arrays: {})(arrays)
    weights = sum(array.size for array in (found.values() if isinstance(found, dict) else found))
    peers, reasons = tuple(module.PEERS), getattr(module, "REASONS", {})
    return Workload(
        name, file, size, module.THREADS, module.TOLERANCE, arrays, module.gemms(size), peers, reasons, weights
    )
