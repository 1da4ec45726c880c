"""What there is on this machine: backends, why the rest is not usable, versions, BLAS and threads.

`retrograd doctor` prints it (`retrograd.testing.doctor`, which adds what the operations say).
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from . import arithmetic, blas
from .errors import BackendError
from .registry import default_backend, discover, get_backend
from .tiers import kernel_tier
from .whole_files import whole_file

# What retrograd uses where it is installed, and the extra that installs it.
OPTIONAL = {
    "cupy": "cuda13 or cuda12",
    "numba": "jit",
    "scipy": "special",
    "tqdm": "examples",
    "matplotlib": "examples",
    "ml_dtypes": "bf16",
    "torch": "parity, bench",
}

VARIABLES = (
    "RETROGRAD_BACKEND",
    "RETROGRAD_KERNELS",
    "RETROGRAD_CACHE",
    "RETROGRAD_DATA",
    "RETROGRAD_TRACEBACK",
    "CUDA_VISIBLE_DEVICES",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
)


def report() -> dict[str, Any]:
    """Everything that `retrograd doctor` prints, in values that JSON can hold. Tries every backend, so it imports them.

    Example:
        >>> from retrograd.backends.doctor import report
        >>> report()["backends"]["numpy"]["usable"]
        True
    """
    return {
        "retrograd": _installed("retrograd"),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": {"model": processor(), "cores": os.cpu_count(), "usable_cores": usable_cores()},
        "arithmetic": {str(core): wrong for core, wrong in arithmetic.faults_by_core().items()},
        "numpy": {"version": np.__version__, "blas": blas.describe()},
        "default_backend": _or_error(lambda: default_backend().name),
        "backends": {name: _backend(name, reason) for name, reason in discover().items()},
        "kernels": {"highest_allowed": _or_error(kernel_tier)},
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "packages": {name: _installed(name) for name in OPTIONAL},
    }


def text(found: dict[str, Any]) -> str:
    """A report as lines for a reader."""
    return "\n".join(_lines(found)) + "\n"


def as_json(value: Any) -> str:
    """A report as JSON text."""
    import json

    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def write_json(value: Any, path: str | os.PathLike[str]) -> None:
    """Write JSON to a file: whole, or not at all. Raises OSError."""
    with whole_file(path) as file:
        file.write(as_json(value).encode())


def processor() -> str:
    """The processor's name, as the operating system gives it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def usable_cores() -> int | None:
    """How many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _backend(name: str, reason: str | None) -> dict[str, Any]:
    if reason is not None:
        return {"usable": False, "reason": reason}
    try:
        backend = get_backend(name)
        tiers = {"highest_tier": _or_error(lambda: kernel_tier(backend)), "own_kernels": sorted(backend.kernels)}
        return {"usable": True, **backend.describe(), **tiers}
    except Exception as error:  # a plug-in's own: the other backends must still be told of
        return {"usable": False, "reason": f"{type(error).__name__}: {error}"}


def _or_error(value: Callable[[], str]) -> Any:
    try:
        return value()
    except BackendError as error:
        return {"error": str(error)}


def _installed(package: str) -> str | None:
    from importlib import metadata

    names = ("cupy-cuda13x", "cupy-cuda12x", "cupy") if package == "cupy" else (package,)
    for name in names:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def _lines(found: dict[str, Any]) -> Iterator[str]:
    chip, library = found["processor"], found["numpy"]["blas"]
    threads = "an unknown number of threads" if library["threads"] is None else f"{library['threads']} thread(s)"
    yield f"retrograd    {found['retrograd']} on Python {found['python']}, {found['platform']}"
    yield f"processor    {chip['model']}, {chip['cores']} cores, {chip['usable_cores']} for this process"
    for core, wrong in found["arithmetic"].items():
        yield f"             FAULTY: core {core} computes {', '.join(wrong)} wrongly; trust no result of this machine"
    yield f"NumPy        {found['numpy']['version']} with {library['name']} {library['version']}, {threads}"
    yield f"             {library['file'] or 'a BLAS whose threads only the environment sets'}"
    yield ""
    yield f"new arrays   {_value(found['default_backend'])}"
    yield f"kernels      up to tier {_value(found['kernels']['highest_allowed'])}"
    yield "backends"
    for name, facts in found["backends"].items():
        yield f"  {name:<10} {_facts(facts) if facts['usable'] else 'not usable: ' + facts['reason']}"
    yield "packages"
    for name, version in found["packages"].items():
        yield f"  {name:<10} {version or f'not installed (extra {OPTIONAL[name]})'}"
    yield "environment"
    for name, value in found["environment"].items():
        yield f"  {name}={value}"
    if not found["environment"]:
        yield "  none of the variables that retrograd looks at is set"


def _value(value: Any) -> str:
    return f"not usable: {value['error']}" if isinstance(value, dict) else str(value)


def _facts(facts: dict[str, Any]) -> str:
    shown = ("device", "numpy", "cupy", "as_cupy", "cuda_runtime", "cuda_driver")
    own = facts["own_kernels"]
    words = [f"{name} {facts[name]}" for name in shown if name in facts]
    words.append(f"tiers up to {_value(facts['highest_tier'])}" + (f", own kernels: {', '.join(own)}" if own else ""))
    return "usable: " + ", ".join(words)
