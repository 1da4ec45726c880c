"""Finding CuPy and a GPU that it can use, or saying in one line what is missing."""

from __future__ import annotations

import importlib
from typing import Any

from .errors import BackendError

OLDEST = 14

# cudaError_t by number: what is wrong, and what to do.
_STATUS = {
    35: "no NVIDIA driver is loaded, or it is older than CuPy's CUDA {runtime}; check `nvidia-smi`, update the driver",
    100: "the NVIDIA driver sees no GPU; check `nvidia-smi`, CUDA_VISIBLE_DEVICES and the rights on /dev/nvidia*",
}


def find(device: str = "") -> tuple[Any, int]:
    """The module `cupy` and the number of a device that it can use.

    Args:
        device: its number in digits; "" is device 0.
    Raises:
        BackendError: CuPy is not installed, there is no driver, no device, or parts of CUDA are missing: each in one
            line that says what to install or to check.
    """
    number = _number(device)
    cupy = _module()
    count = _count(cupy)
    if number >= count:
        raise BackendError(f"there is no device {number}: CUDA sees {count}, numbered from 0")
    _try_out(cupy, number)
    return cupy, number


def _number(device: str) -> int:
    if device and not (device.isascii() and device.isdigit()):
        raise BackendError(f"expected the number of a device, as in 'cupy:1', got {device!r}")
    return int(device or 0)


def _module() -> Any:
    try:
        cupy = importlib.import_module("cupy")
    except ModuleNotFoundError as error:
        if error.name != "cupy":
            raise BackendError(f"CuPy is installed but lacks the module {error.name}; install CuPy anew") from error
        raise BackendError(
            "CuPy is not installed; pip install 'cupy-cuda13x[ctk]' (for NVIDIA drivers from 580 on) "
            "or 'cupy-cuda12x[ctk]' (for older ones)"
        ) from error
    except ImportError as error:
        raise BackendError(f"CuPy is installed but not importable ({_first_line(error)}); install it anew") from error
    if int(cupy.__version__.partition(".")[0]) < OLDEST:
        raise BackendError(f"CuPy {cupy.__version__} is too old; version {OLDEST} or newer is needed")
    return cupy


def _count(cupy: Any) -> int:
    runtime = cupy.cuda.runtime
    try:
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        unknown = f"CUDA does not start ({_first_line(error)}); check `nvidia-smi`"
        said = _STATUS.get(error.status, unknown).format(runtime=version(runtime.runtimeGetVersion()))
        raise BackendError(said) from error
    if count == 0:
        raise BackendError(_STATUS[100])
    return count


def _try_out(cupy: Any, number: int) -> None:
    # The smallest program that needs the compiler, a launch and cuBLAS, each of which is a library of its own.
    try:
        with cupy.cuda.Device(number):
            cupy.RawKernel('extern "C" __global__ void nothing() {}', "nothing")((1,), (1,), ())
            ones = cupy.ones((2, 2), "float32")
            total = float((ones @ ones).sum())
    except Exception as error:
        major = cupy.cuda.runtime.runtimeGetVersion() // 1000
        raise BackendError(
            f"the GPU is there, but CUDA's libraries are not complete ({_first_line(error)}); "
            f"pip install 'cupy-cuda{major}x[ctk]' brings them"
        ) from error
    if total != 8.0:
        raise BackendError(f"device {number} computes wrongly: the sum of [[2, 2], [2, 2]] came out as {total}")


def version(number: int) -> str:
    """CUDA's version number in words: 13020 is 13.2."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
