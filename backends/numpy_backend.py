"""NumPy on the CPU: the default backend, and the meaning of every other one."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from . import blas, random
from .base import Array, Backend
from .errors import BackendError


def make(device: str = "") -> NumpyBackend:
    """The backend `numpy`; there is one CPU, so it takes no device."""
    if device:
        raise BackendError(f"'numpy' has one device: write 'numpy', not 'numpy:{device}'")
    return NumpyBackend()


def numeric(array: np.ndarray, data: Any) -> np.ndarray:
    """The array, or the error that its elements are not numbers."""
    if array.dtype.kind in "OSUTMm" or array.dtype.names is not None:
        raise TypeError(f"expected numbers, got {type(data).__name__} data that NumPy reads as {array.dtype!r}")
    return array


class NumpyBackend(Backend):
    """Arrays are `numpy.ndarray`, always of exactly that type."""

    name = "numpy"
    array_type = np.ndarray
    xp = np

    def asarray(self, data: Any, dtype: Any = None, copy: bool | None = None) -> Array:
        return numeric(np.asarray(data, dtype=dtype, copy=copy), data)

    def to_numpy(self, array: Array) -> np.ndarray:
        return array

    def wrap(self, value: Any) -> Array:
        return value if type(value) is np.ndarray else np.asarray(value)

    def shares_memory(self, a: Array, b: Array) -> bool:
        return np.may_share_memory(a, b)

    def scatter_add(self, target: Array, index: Any, value: Any) -> None:
        np.add.at(target, index, value)

    def bits(self, key: int, counter: int, n: int) -> Array:
        return random.bits(key, counter, n)

    def uniform(self, key: int, counter: int, shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
        return random.uniform(key, counter, shape, dtype)

    def normal(self, key: int, counter: int, shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
        return random.normal(key, counter, shape, dtype)

    def describe(self) -> dict[str, Any]:
        return super().describe() | {
            "numpy": np.__version__,
            "device": "cpu",
            "cores": os.cpu_count(),
            "blas": blas.describe(),
        }
