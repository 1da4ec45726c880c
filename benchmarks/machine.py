"""What a result depends on beside the code: processor, cores, system, and how busy the machine was."""

from __future__ import annotations

import os
import pathlib
import platform
from typing import Any

THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS", "NPROC", "NUM_CPU_THREADS",  # the last two: JAX's and tinygrad's
)  # fmt: skip

_TUNING = ("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "ONEDNN_", "DNNL_", "ATEN_", "TORCH_", "XLA_", "RETROGRAD_")
_NOT_TUNING = ("RETROGRAD_DATA", "RETROGRAD_CACHE", "TORCH_HOME")


def facts() -> dict[str, Any]:
    """Processor, cores that this process may use, memory, system and Python: what stays the same between two runs."""
    return {
        "processor": processor(),
        "cores": cores(),
        "vector units": vector_units(),
        "memory GB": memory_gb(),
        "system": platform.system(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def processor() -> str:
    """The processor's name as the system tells it."""
    return _cpuinfo("model name") or platform.processor() or platform.machine() or "unknown"


def cores() -> int:
    """How many cores this process may use, which in a container or under `taskset` is less than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def vector_units() -> str:
    """The widest of the vector instruction sets that decide the speed of matrix products, or "unknown"."""
    flags = (_cpuinfo("flags") or _cpuinfo("Features")).split()
    known = {"avx512f": "AVX-512", "avx2": "AVX2", "avx": "AVX", "sve": "SVE", "asimd": "NEON"}
    return next((name for flag, name in known.items() if flag in flags), "unknown")


def memory_gb() -> int | None:
    """Memory of the machine in GB, or None where the system does not say."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9)
    except (AttributeError, ValueError, OSError):
        return None


def load() -> float | None:
    """How many processes wanted to run on average over the last minute, or None where the system does not say."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def tuning() -> dict[str, str]:
    """Environment variables that change the speed of a library, except those that the benchmark sets itself."""
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith(_TUNING) and name not in THREAD_VARIABLES and name not in _NOT_TUNING
    }


def _cpuinfo(key: str) -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.split(":")[0].strip() == key), "")
