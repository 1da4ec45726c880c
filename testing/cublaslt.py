"""cuBLASLt through ctypes: matrix products of CuPy arrays that a CUDA graph can hold, which CuPy's own cannot.

Everything that CuPy's call decides behind the scenes is an argument here: stream, workspace, algorithm. So a product
can be captured, and a plan (descriptors and algorithm) is made once for each combination of shapes.
"""

from __future__ import annotations

import ctypes
import importlib
from ctypes import POINTER, byref, c_float, c_int, c_int32, c_int64, c_size_t, c_uint64, c_void_p
from typing import Any, NamedTuple

from ..backends import Backend

# cudaDataType, by NumPy's name.
_DATA = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 14}
_COMPUTE_32F = 68
_SCALE_32F = 0
# Attributes: of a product's descriptor, of a layout, of the preference.
_TRANSPOSE_A, _TRANSPOSE_B = 3, 4
_BATCH_COUNT, _BATCH_STRIDE = 5, 6
_WORKSPACE_LIMIT = 1
_WORKSPACE_BYTES = 64 << 20


class _Algorithm(ctypes.Structure):
    _fields_ = (("data", c_uint64 * 8),)


class _Heuristic(ctypes.Structure):
    _fields_ = (
        ("algorithm", _Algorithm),
        ("workspace", c_size_t),
        ("state", c_int),
        ("waves", c_float),
        ("reserved", c_int * 4),
    )


_P = c_void_p
_SIGNATURES = {
    "cublasLtCreate": [POINTER(_P)],
    "cublasLtMatmulDescCreate": [POINTER(_P), c_int, c_int],
    "cublasLtMatmulDescSetAttribute": [_P, c_int, _P, c_size_t],
    "cublasLtMatrixLayoutCreate": [POINTER(_P), c_int, c_uint64, c_uint64, c_int64],
    "cublasLtMatrixLayoutSetAttribute": [_P, c_int, _P, c_size_t],
    "cublasLtMatmulPreferenceCreate": [POINTER(_P)],
    "cublasLtMatmulPreferenceSetAttribute": [_P, c_int, _P, c_size_t],
    "cublasLtMatmulAlgoGetHeuristic": [_P, _P, _P, _P, _P, _P, _P, c_int, _P, _P],
    "cublasLtMatmul": [_P, _P, _P, _P, _P, _P, _P, _P, _P, _P, _P, _P, _P, _P, c_size_t, _P],
}


class _Plan(NamedTuple):
    """What cuBLASLt needs to know of one combination of shapes."""

    product: c_void_p
    a: c_void_p
    b: c_void_p
    out: c_void_p
    algorithm: _Algorithm


class CublasLt:
    """Products on one device, with one workspace: for one stream at a time."""

    def __init__(self, backend: Backend) -> None:
        path = importlib.import_module("cuda.pathfinder").load_nvidia_dynamic_lib("cublasLt").abs_path
        self._library = ctypes.CDLL(path)
        for name, arguments in _SIGNATURES.items():
            function = getattr(self._library, name)
            function.argtypes, function.restype = arguments, c_int
        self._cupy = backend.xp
        self._handle = self._create("cublasLtCreate")
        self._workspace = self._cupy.empty(_WORKSPACE_BYTES, "uint8")
        self._plans: dict[Any, _Plan] = {}

    def matmul(self, a: Any, b: Any, transpose_a: bool = False, transpose_b: bool = False, out: Any = None) -> Any:
        """op(a) @ op(b) of C-contiguous arrays, (m, k) and (k, n) or (batch, m, k) and (batch, k, n).

        A row-major matrix is the transpose of a column-major one at the same place, and cuBLAS is column-major: it
        is given b and a, and its result, read by rows, is a @ b.
        """
        m, k = (a.shape[-1], a.shape[-2]) if transpose_a else a.shape[-2:]
        n = b.shape[-2] if transpose_b else b.shape[-1]
        batch = a.shape[0] if a.ndim == 3 else 1
        if out is None:
            out = self._cupy.empty((*a.shape[:-2], m, n), a.dtype)
        key = (a.dtype.name, m, n, k, batch, transpose_a, transpose_b)
        if key not in self._plans:
            self._plans[key] = self._plan(*key)
        plan = self._plans[key]
        # Host scalars: a graph keeps their values.
        one, zero = c_float(1.0), c_float(0.0)
        self._call(
            "cublasLtMatmul", self._handle, plan.product, byref(one), b.data.ptr, plan.a, a.data.ptr, plan.b,
            byref(zero), out.data.ptr, plan.out, out.data.ptr, plan.out, byref(plan.algorithm),
            self._workspace.data.ptr, self._workspace.nbytes, self._cupy.cuda.get_current_stream().ptr,
        )  # fmt: skip
        return out

    def _plan(self, dtype: str, m: int, n: int, k: int, batch: int, transpose_a: bool, transpose_b: bool) -> _Plan:
        product = self._create("cublasLtMatmulDescCreate", _COMPUTE_32F, _SCALE_32F)
        # cuBLAS's first matrix is our second.
        for attribute, turned in ((_TRANSPOSE_A, transpose_b), (_TRANSPOSE_B, transpose_a)):
            self._set("cublasLtMatmulDescSetAttribute", product, attribute, c_int32(turned))
        first = self._layout(dtype, (k, n) if transpose_b else (n, k), batch)
        second = self._layout(dtype, (m, k) if transpose_a else (k, m), batch)
        result = self._layout(dtype, (n, m), batch)
        preference = self._create("cublasLtMatmulPreferenceCreate")
        limit = c_uint64(_WORKSPACE_BYTES)
        self._set("cublasLtMatmulPreferenceSetAttribute", preference, _WORKSPACE_LIMIT, limit)
        found, count = _Heuristic(), c_int(0)
        self._call(
            "cublasLtMatmulAlgoGetHeuristic", self._handle, product, first, second, result, result, preference, 1,
            byref(found), byref(count),
        )  # fmt: skip
        if not count.value:
            raise RuntimeError(f"cuBLASLt has no algorithm for {dtype} ({m}, {k}) @ ({k}, {n}), batch {batch}")
        return _Plan(product, first, second, result, found.algorithm)

    def _layout(self, dtype: str, shape: tuple[int, int], batch: int) -> c_void_p:
        rows, columns = shape
        layout = self._create("cublasLtMatrixLayoutCreate", _DATA[dtype], rows, columns, rows)
        if batch > 1:
            self._set("cublasLtMatrixLayoutSetAttribute", layout, _BATCH_COUNT, c_int32(batch))
            self._set("cublasLtMatrixLayoutSetAttribute", layout, _BATCH_STRIDE, c_int64(rows * columns))
        return layout

    def _create(self, function: str, *arguments: Any) -> c_void_p:
        made = c_void_p()
        self._call(function, byref(made), *arguments)
        return made

    def _set(self, function: str, owner: c_void_p, attribute: int, value: Any) -> None:
        self._call(function, owner, attribute, byref(value), ctypes.sizeof(value))

    def _call(self, function: str, *arguments: Any) -> None:
        status = getattr(self._library, function)(*arguments)
        if status:
            raise RuntimeError(f"{function} gave status {status}")
