"""CuPy on an NVIDIA GPU: one backend for each device, `cupy:0`, `cupy:1`, ...

A thread of CUDA works on one device at a time. Making an array makes the backend's device the thread's own, so that
the operations which follow run there; arrays of two devices never meet in one operation (they have two backends).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import cupy_device, philox_cuda, random
from .base import Array, Backend
from .numpy_backend import names_elements_twice, numeric

_by_device: dict[int, CupyBackend] = {}

# What CUDA can add atomically; other dtypes are added in a wider one and cast back.
_ATOMIC = frozenset("efdilqILQ")


def make(device: str = "") -> CupyBackend:
    """The backend of that device, by number; the first one by default. Raises BackendError if it cannot be used."""
    cupy, number = cupy_device.find(device)
    if number not in _by_device:
        _by_device[number] = CupyBackend(cupy, number)
    return _by_device[number]


class CupyBackend(Backend):
    """Arrays are `cupy.ndarray`. Calls return before the GPU is done; whatever reads a value waits for it."""

    def __init__(self, cupy: Any, number: int) -> None:
        import cupyx  # pyright: ignore[reportMissingImports]

        self.name = f"cupy:{number}"
        self.xp = cupy
        self.array_type = cupy.ndarray
        self.shares_array_type = cupy.cuda.runtime.getDeviceCount() > 1
        self._number = number
        self._device = cupy.cuda.Device(number)
        self._scatter_add = cupyx.scatter_add
        self._philox = cupy.RawKernel(philox_cuda.SOURCE, philox_cuda.NAME)

    def of_array(self, array: Array) -> Backend:
        number = array.device.id
        if number == self._number:
            return self
        return _by_device.get(number) or make(str(number))

    # -- conversion ----------------------------------------------------------------------------------------------------

    def asarray(self, data: Any, dtype: Any = None, copy: bool | None = None) -> Array:
        self._device.use()
        if type(data) is self.array_type:
            if data.device.id == self._number:
                return self.xp.array(data, dtype=dtype, copy=True) if copy else self._shared(data, dtype, copy)
            data = self.xp.asnumpy(data)
        if copy is False:
            raise ValueError("copy=False is not possible: the data is not in the memory of the device")
        return self.xp.asarray(numeric(np.asarray(data, dtype=dtype), data))

    def _shared(self, data: Array, dtype: Any, copy: bool | None) -> Array:
        if copy is False and dtype is not None and data.dtype != dtype:
            raise ValueError(f"copy=False is not possible: {data.dtype} has to become {np.dtype(dtype)}")
        return data.astype(data.dtype if dtype is None else dtype, copy=False)

    def to_numpy(self, array: Array) -> np.ndarray:
        return self.xp.asnumpy(array)

    # -- what array libraries spell differently ------------------------------------------------------------------------

    def shares_memory(self, a: Array, b: Array) -> bool:
        return bool(self.xp.may_share_memory(a, b))

    def scatter_add(self, target: Array, index: Any, value: Any) -> None:
        self._device.use()
        kind = target.dtype.kind
        if not names_elements_twice(index):
            target[index] += value
        elif target.dtype.char in _ATOMIC:
            self._scatter_add(target, index, value)
        elif kind == "c":
            self._scatter_add(target.real, index, value.real)
            self._scatter_add(target.imag, index, value.imag)
        else:
            wide = target.astype(np.int32 if kind in "biu" else np.float32)
            self._scatter_add(wide, index, value)
            target[...] = wide.astype(target.dtype)

    # -- random numbers ------------------------------------------------------------------------------------------------

    def bits(self, key: int, counter: int, n: int) -> Array:
        self._device.use()
        words = self.xp.empty(n, np.uint64)
        if n:
            blocks = -(-random.blocks(n) // philox_cuda.THREADS)
            first = random.split_words((counter + 1) % random.COUNTERS, 4)
            arguments = (words, np.int64(n), *random.split_words(key, 2), *first)
            self._philox((min(blocks, philox_cuda.MOST_BLOCKS),), (philox_cuda.THREADS,), arguments)
        return words

    def uniform(self, key: int, counter: int, shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
        words = self.bits(key, counter, random.words_for_uniform(math.prod(shape), dtype))
        return random.words_to_uniform(self.xp, words, shape, dtype)

    def normal(self, key: int, counter: int, shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
        words = self.bits(key, counter, random.words_for_normal(math.prod(shape)))
        return random.words_to_normal(self.xp, words, shape, dtype)

    # -- the device ----------------------------------------------------------------------------------------------------

    def synchronize(self) -> None:
        self._device.synchronize()

    def memory(self) -> dict[str, int]:
        with self._device:
            pool = self.xp.get_default_memory_pool()
            free, total = self.xp.cuda.runtime.memGetInfo()
            return {"used": pool.used_bytes(), "held": pool.total_bytes(), "free": free, "total": total}

    def empty_cache(self) -> None:
        with self._device:
            self.xp.get_default_memory_pool().free_all_blocks()
            self.xp.get_default_pinned_memory_pool().free_all_blocks()

    def describe(self) -> dict[str, Any]:
        runtime = self.xp.cuda.runtime
        facts = runtime.getDeviceProperties(self._number)
        name = facts["name"]
        return super().describe() | {
            "cupy": self.xp.__version__,
            "device": name.decode() if isinstance(name, bytes) else str(name),
            "compute_capability": f"{facts['major']}.{facts['minor']}",
            "multiprocessors": facts["multiProcessorCount"],
            "memory": self.memory(),
            "devices": runtime.getDeviceCount(),
            "cuda_runtime": cupy_device.version(runtime.runtimeGetVersion()),
            "cuda_driver": cupy_device.version(runtime.driverGetVersion()),
        }
