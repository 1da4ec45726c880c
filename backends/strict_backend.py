"""The backend `strict`: no GPU, but every mistake that one would punish.

For tests. The whole suite runs on it, so that code which only works because an array is NumPy's is found on a machine
without a GPU. `strict_array` holds the array, `strict_namespace` the functions, `strict_sync` counts transfers.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import cupy_surface, random
from .base import Array, Backend
from .errors import BackendError
from .numpy_backend import numeric
from .strict_array import StrictArray, unwrap
from .strict_array import index as index_of
from .strict_namespace import StrictNamespace


def make(device: str = "") -> StrictBackend:
    """The backend `strict`; it plays one device."""
    if device:
        raise BackendError(f"'strict' has one device: write 'strict', not 'strict:{device}'")
    return StrictBackend()


class StrictBackend(Backend):
    """Arrays are `StrictArray`; random numbers are made the way a GPU makes them, from words by functions of `xp`."""

    name = "strict"
    array_type = StrictArray
    highest_tier = "array"

    def __init__(self) -> None:
        self.xp = StrictNamespace()

    def asarray(self, data: Any, dtype: Any = None, copy: bool | None = None) -> Array:
        array = self.xp.asarray(data, dtype=dtype, copy=copy)
        found = numeric(array._data, data)
        if found is not array._data:  # it has become another byte order
            return StrictArray(found)
        return data if isinstance(data, StrictArray) and data._data is found else array

    def to_numpy(self, array: Array) -> np.ndarray:
        return array.get()

    def shares_memory(self, a: Array, b: Array) -> bool:
        return np.may_share_memory(a._data, b._data)

    def scatter_add(self, target: Array, index: Any, value: Any) -> None:
        np.add.at(target._data, index_of(target, index), unwrap(value))

    def bits(self, key: int, counter: int, n: int) -> Array:
        return StrictArray(random.bits(key, counter, n))

    def uniform(self, key: int, counter: int, shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
        words = self.bits(key, counter, random.words_for_uniform(math.prod(shape), dtype))
        return random.words_to_uniform(self.xp, words, shape, dtype)

    def normal(self, key: int, counter: int, shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
        words = self.bits(key, counter, random.words_for_normal(math.prod(shape)))
        return random.words_to_normal(self.xp, words, shape, dtype)

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"numpy": np.__version__, "device": "cpu", "as_cupy": cupy_surface.load()["cupy"]}
