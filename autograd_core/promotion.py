"""Which dtype an operation computes in. Looked at only when the operands' dtypes differ, or a float is needed.

Within a kind NumPy's table holds. Across kinds (bool < integer < real < complex) the higher kind's dtype wins as it is:
an int64 index beside a float32 weight gives float32, where NumPy says float64. Python and NumPy scalars are weak: they
never widen a dtype within its kind. What needs a real number and has none (`exp` of integers, `/` of integers) takes
the default float.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

DEFAULT_FLOAT = np.dtype(np.float32)
DEFAULT_COMPLEX = np.dtype(np.complex64)
DEFAULT_INT = np.dtype(np.int64)
_KIND = {"b": 0, "u": 1, "i": 1, "f": 2, "V": 2, "c": 3}  # V: bfloat16 and its kin as ml_dtypes registers them
_DEFAULT = (np.dtype(bool), DEFAULT_INT, DEFAULT_FLOAT, DEFAULT_COMPLEX)
_WEAK = ((bool, 0), (int, 1), (float, 2), (complex, 3))
_COMPLEX_OF = {np.dtype(np.float32): np.dtype(np.complex64), np.dtype(np.float64): np.dtype(np.complex128)}


def is_float(dtype: np.dtype) -> bool:
    """Real floating point or complex: what a gradient can be taken of."""
    return _KIND.get(dtype.kind, 0) >= 2


def scalar_kind(value: Any) -> int | None:
    """The rank of a Python scalar's kind, None for anything else."""
    for python_type, kind in _WEAK:
        if type(value) is python_type:
            return kind
    return None


def weak(value: Any) -> Any:
    """A NumPy scalar as the Python scalar it stands for, so that it does not widen a dtype; all else unchanged."""
    return value.item() if isinstance(value, np.generic) else value


def result_dtype(dtypes: Sequence[np.dtype], scalar_kinds: Sequence[int], floating: bool = False) -> np.dtype:
    """The common dtype of arrays of `dtypes` and Python scalars of `scalar_kinds`; `floating` asks for a float.

    >>> result_dtype([np.dtype("int64"), np.dtype("float32")], [])
    dtype('float32')
    >>> result_dtype([np.dtype("int8")], [1])
    dtype('int8')
    >>> result_dtype([np.dtype("int8")], [2])
    dtype('float32')
    """
    kinds = [_KIND.get(d.kind, -1) for d in dtypes]
    if -1 in kinds:
        wrong = dtypes[kinds.index(-1)]
        raise TypeError(f"expected numbers, got an array of dtype {wrong}. Convert it first, e.g. with .astype(float).")
    of_arrays, of_scalars = max(kinds, default=-1), max(scalar_kinds, default=-1)
    highest = max(of_arrays, of_scalars, 2 if floating else 0)
    if of_arrays < highest:
        if highest == 3 and of_arrays == 2:  # a float array beside a complex scalar keeps its precision
            floats = [d for d, k in zip(dtypes, kinds, strict=True) if k == 2]
            return _COMPLEX_OF.get(np.result_type(*floats), DEFAULT_COMPLEX)
        return _DEFAULT[highest]
    same_kind = [d for d, k in zip(dtypes, kinds, strict=True) if k == highest]
    if all(d == same_kind[0] for d in same_kind):
        return same_kind[0]
    return np.result_type(*same_kind)
