"""`retrograd doctor --gpu`: everything that only a real GPU can tell, in one run and one JSON file.

The conformance suite first; then what retrograd's design takes for granted of CuPy but could not be tried without a
device (which calls a CUDA graph can hold, what a call costs the host, how fast matrix products are, which of NVIDIA's
libraries are found and work). A probe that fails is an entry in the report, not the end of the run.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

from ..backends import Backend, BackendError, doctor, get_backend
from . import gpu_probes, gpu_vendor
from .backend_conformance import run_checks
from .doctor import write

REPORT = "retrograd_gpu.json"

PROBES: dict[str, Callable[[Backend], Any]] = {
    "conformance": run_checks,
    "host_cost": gpu_probes.host_cost,
    "matrix_products": gpu_probes.matrix_products,
    "memory": gpu_probes.memory,
    "random": gpu_probes.random_numbers,
    "capture": gpu_probes.capture,
    "libraries": gpu_vendor.libraries,
    "cublaslt": gpu_vendor.cublaslt,
    "cudnn": gpu_vendor.cudnn,
    "nccl": gpu_vendor.nccl,
    "triton": gpu_vendor.triton,
}


def run(name: str, out: str) -> int:
    """Examine the backend of that name and write the report to a file.

    Gives 0 if it conforms; 1, with one line on stderr, if it is not usable, is no GPU, does not conform, or the file
    cannot be written, which is tried before the examination.
    """
    try:
        backend = get_backend(name)
    except BackendError as error:
        return _fail(str(error))
    if not hasattr(backend.xp, "cuda"):
        return _fail(f"--gpu examines a CuPy device, and {backend.name!r} is none")
    if not write({"state": "begun"}, out):
        return 1
    found = examine(backend)
    if not write(found, out):
        return 1
    sys.stdout.write(f"the report is in {os.path.abspath(out)}\n")
    checks: dict[str, str | None] = found["conformance"].get("result", {"the suite": "did not run"})
    failed = [name for name, reason in checks.items() if reason]
    if failed:
        return _fail(f"{backend.name} fails {len(failed)} of {len(checks)} checks of conformance: {', '.join(failed)}")
    sys.stdout.write(f"{backend.name} passes all {len(checks)} checks of conformance\n")
    return 0


def examine(backend: Backend) -> dict[str, Any]:
    """The report: `doctor.report()`, and of each probe its `result` or `error`, with the `seconds` it took."""
    found: dict[str, Any] = {"date": time.strftime("%Y-%m-%d %H:%M:%S %z"), "backend": backend.name}
    found["machine"] = doctor.report()
    for name, probe in PROBES.items():
        sys.stderr.write(f"{name} ...\n")
        started = time.perf_counter()
        found[name] = attempt(probe, backend)
        found[name]["seconds"] = round(time.perf_counter() - started, 2)
    return found


def attempt(probe: Callable[[Backend], Any], backend: Backend) -> dict[str, Any]:
    """{"result": ...}, or {"error": ...} if the probe raised."""
    try:
        return {"result": probe(backend)}
    except Exception as error:  # whatever is wrong with this device belongs into its report
        return {"error": gpu_probes.said(error)}


def _fail(reason: str) -> int:
    sys.stderr.write(f"retrograd doctor --gpu: {reason}\n")
    return 1
