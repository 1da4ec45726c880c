"""The threads of NumPy's matrix products: told to the BLAS library that NumPy brought, through ctypes.

NumPy itself has no call for it, and its library is private to the wheel (a hashed file name, prefixed symbols), so the
library is looked for among those that this process has loaded.
"""

from __future__ import annotations

import ctypes
import functools
import operator
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .errors import BackendError

VARIABLES = "OPENBLAS_NUM_THREADS, MKL_NUM_THREADS, BLIS_NUM_THREADS, VECLIB_MAXIMUM_THREADS or OMP_NUM_THREADS"

# Getter and setter of each library that is known; the first pair that a loaded library has is used.
SYMBOLS = (
    ("scipy_openblas_get_num_threads64_", "scipy_openblas_set_num_threads64_"),
    ("scipy_openblas_get_num_threads", "scipy_openblas_set_num_threads"),
    ("openblas_get_num_threads64_", "openblas_set_num_threads64_"),
    ("openblas_get_num_threads", "openblas_set_num_threads"),
    ("MKL_Get_Max_Threads", "MKL_Set_Num_Threads"),
    ("bli_thread_get_num_threads", "bli_thread_set_num_threads"),
)


class Blas(NamedTuple):
    """A BLAS library that can be told how many threads to use."""

    file: str
    get: Callable[[], int]
    set: Callable[[int], Any]


@functools.cache
def find() -> Blas | None:
    """The BLAS behind NumPy, or None where none of the known ones is loaded."""
    for path in _candidates():
        try:
            library = ctypes.CDLL(path)
        except OSError:
            continue
        for getter, setter in SYMBOLS:
            if hasattr(library, getter) and hasattr(library, setter):
                get, put = getattr(library, getter), getattr(library, setter)
                get.restype, put.argtypes, put.restype = ctypes.c_int, [ctypes.c_int], None
                return Blas(path, get, put)
    return None


def _candidates() -> list[str]:
    package = pathlib.Path(np.__file__).parent
    # Where wheels keep it on Linux and Windows (numpy.libs) and on macOS (.dylibs).
    places = [p for p in (package.parent / "numpy.libs", package / ".dylibs") if p.is_dir()]
    bundled = [str(file) for place in places for file in sorted(place.iterdir()) if "blas" in file.name.lower()]
    return bundled + _loaded()


def _loaded() -> list[str]:
    # A NumPy of a distribution or of conda links to a library outside the wheel; Linux lists what is mapped.
    try:
        maps = pathlib.Path("/proc/self/maps").read_text()
    except OSError:
        return []
    paths = {line.split(maxsplit=5)[5] for line in maps.splitlines() if line.count(" ") >= 5 and "/" in line}
    known = ("blas", "mkl_rt", "blis")
    return sorted(p for p in paths if ".so" in p and any(word in pathlib.Path(p).name for word in known))


def num_threads() -> int:
    """How many threads NumPy's matrix products use. Raises BackendError where the library is not known."""
    return int(_found().get())


def set_num_threads(n: int) -> None:
    """Let NumPy's matrix products use n threads, in this process, from now on.

    Raises:
        ValueError: n is not a positive integer.
        BackendError: NumPy stands on a BLAS that cannot be told; the message names the environment variables.
    """
    try:
        count = operator.index(n)
    except TypeError:
        count = 0
    if count < 1:
        raise ValueError(f"the number of threads must be a positive integer, got {n!r}")
    _found().set(count)


def _found() -> Blas:
    blas = find()
    if blas is None:
        raise BackendError(
            f"NumPy's BLAS is none that can be told its threads while running; set {VARIABLES} before Python starts"
        )
    return blas


def describe() -> dict[str, Any]:
    """Name, version, file and threads of the BLAS behind NumPy, as far as they are known."""
    config = np.show_config(mode="dicts") or {}
    built = config.get("Build Dependencies", {}).get("blas", {})
    blas = find()
    return {
        "name": built.get("name", "unknown"),
        "version": built.get("version", "unknown"),
        "file": blas.file if blas else None,
        "threads": blas.get() if blas else None,
    }
