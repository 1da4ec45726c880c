"""NumPy on the CPU: the default backend, and the meaning of every other one."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from . import blas, host_memory, random
from .base import Array, Backend
from .errors import BackendError
from .kernels.scratch import aligned
from .numpy_kernels import KERNELS
from .tiers import kernel_tier


def make(device: str = "") -> NumpyBackend:
    """The backend `numpy`; there is one CPU, so it takes no device."""
    if device:
        raise BackendError(f"'numpy' has one device: write 'numpy', not 'numpy:{device}'")
    return NumpyBackend()


def numeric(array: np.ndarray, data: Any, copy: bool | None = None) -> np.ndarray:
    """The array in the byte order of the machine, which kernels read; or the error that its elements are no numbers."""
    if array.dtype.kind in "OSUTMm" or array.dtype.names is not None:
        raise TypeError(f"expected numbers, got {type(data).__name__} data that NumPy reads as {array.dtype!r}")
    if not array.dtype.isnative:
        array = np.asarray(array, array.dtype.type, copy=False if copy is False else None)
    return array


@cache
def installed(module: str) -> bool:
    """Whether a module could be imported, without importing it."""
    return importlib.util.find_spec(module) is not None


class NumpyBackend(Backend):
    """Arrays are `numpy.ndarray`, always of exactly that type."""

    name = "numpy"
    array_type = np.ndarray
    xp = np
    kernels = KERNELS

    def __init__(self) -> None:
        super().__init__()
        host_memory.keep_freed_memory()

    def asarray(self, data: Any, dtype: Any = None, copy: bool | None = None) -> Array:
        return numeric(np.asarray(data, dtype=dtype, copy=copy), data, copy)

    def to_numpy(self, array: Array) -> np.ndarray:
        return array

    def wrap(self, value: Any) -> Array:
        return value if type(value) is np.ndarray else np.asarray(value)

    def shares_memory(self, a: Array, b: Array) -> bool:
        return np.may_share_memory(a, b)

    def scatter_add(self, target: Array, index: Any, value: Any) -> None:
        rows: Any = index[0] if type(index) is tuple and len(index) == 1 else index
        if not names_elements_twice(index):
            target[index] += value
        elif _by_rows(target, rows, value):
            _add_rows(target.reshape(-1), rows.reshape(-1), value, target.shape)
        else:
            np.add.at(target, index, value)

    def generates(self) -> bool:
        return kernel_tier(self) in ("jit", "vendor") and installed("numba")

    def build(self, descriptions: Sequence[Any]) -> dict[str, Callable[..., None] | None]:
        from .kernels.build import build

        return build(descriptions)

    def fuses(self) -> bool:
        return kernel_tier(self) != "reference"

    def bind(self, groups: Sequence[tuple[Any, int, Sequence[Array]]], scratch: Any) -> list[list[Any] | None]:
        from .kernels.expressions import Unsupported
        from .kernels.numpy_generator import instructions

        kernels = self.build([d for d, _, _ in groups]) if groups and self.generates() else {}
        calls: list[list[Any] | None] = []
        for description, rows, arrays in groups:
            kernel = kernels.get(description.key)
            try:
                found = [(kernel, (0, rows, *arrays))] if kernel else instructions(description, arrays, scratch)
            except Unsupported:
                found = None
            calls.append(found)
        return calls

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        return aligned(shape, dtype)

    def bits(self, key: int, counter: int, n: int) -> Array:
        return random.bits(key, counter, n)

    def uniform(self, key: int, counter: int, shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
        return random.uniform(key, counter, shape, dtype)

    def normal(self, key: int, counter: int, shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
        return random.normal(key, counter, shape, dtype)

    def empty_cache(self) -> None:
        host_memory.give_back()

    def describe(self) -> dict[str, Any]:
        return super().describe() | {
            "numpy": np.__version__,
            "device": "cpu",
            "cores": os.cpu_count(),
            "blas": blas.describe(),
        }


def names_elements_twice(index: Any) -> bool:
    """Whether an index can: only integer arrays and lists do, slices, integers and masks do not."""
    parts = index if type(index) is tuple else (index,)
    return any(isinstance(part, list) or getattr(getattr(part, "dtype", None), "kind", "b") in "iu" for part in parts)


# np.add.at is quick on one axis and five times slower on whole rows, where it goes through NumPy's general indexing.
# So rows are added element by element, in blocks whose indices stay in the cache.

_BLOCK = 1 << 15


def _by_rows(target: np.ndarray, rows: Any, value: Any) -> bool:
    return (
        type(rows) is np.ndarray
        and target.ndim > 1
        and target.flags.c_contiguous
        and type(value) is np.ndarray
        and value.dtype == target.dtype
        and value.shape == rows.shape + target.shape[1:]
    )


def _add_rows(flat: np.ndarray, rows: np.ndarray, value: np.ndarray, shape: tuple[int, ...]) -> None:
    """Add value[i] to row rows[i] of the (rows, width) array that `flat` is the memory of."""
    if not rows.size:
        return
    lowest, highest = int(rows.min()), int(rows.max())
    if lowest < -shape[0] or highest >= shape[0]:
        wrong = lowest if lowest < -shape[0] else highest
        raise IndexError(f"index {wrong} is out of bounds for axis 0 with size {shape[0]}")
    width = flat.size // shape[0]
    value = value.reshape(len(rows), width)
    columns = np.arange(width)
    step = max(1, _BLOCK // max(1, width))
    for start in range(0, len(rows), step):
        block = rows[start : start + step].astype(np.intp) % shape[0]
        np.add.at(flat, (block[:, None] * width + columns).reshape(-1), value[start : start + step].reshape(-1))
