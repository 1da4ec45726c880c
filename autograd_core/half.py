"""float16 is a format to keep numbers in, not to compute in: squares of 256 and sums of many terms leave its range.

So operations with sums and powers inside compute in float32 and round their result once, as PyTorch does.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def wide(x: Any) -> Any:
    """A raw array, float16 as float32; all others, and None, as they are."""
    return x if x is None or x.dtype != np.float16 else x.astype(np.float32)


def widened(ops: Any, *arrays: Any) -> list[Any]:
    """The same for several, written with operations."""
    return [x if x is None or x.dtype != np.float16 else ops.astype(x, dtype=np.float32) for x in arrays]


def rounded(ops: Any, out: Any, like: Any) -> Any:
    """A result back in the dtype of the input that it was computed for."""
    return out if out.dtype == like.dtype else ops.astype(out, dtype=like.dtype)
