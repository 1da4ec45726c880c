"""Moving a whole module to another backend or another floating dtype, all of it or nothing."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

from ..autograd_core.context import current
from ..autograd_core.promotion import is_float
from ..autograd_core.recorder import RecordingError
from ..autograd_core.tensor import Tensor, names_dtype
from ..backends import Backend, get_backend
from .module import Module

M = TypeVar("M", bound=Module)


def convert(module: M, target: Any, dtype: Any) -> M:
    """Give every parameter and buffer an array of that backend and dtype; the Tensor objects stay the same."""
    if current().recorder is not None:
        raise RecordingError("a module cannot be converted inside a recorded function; call .to() before it")
    backend, dtype = _parsed(target, dtype)
    tensors = [*module.parameters(), *module.buffers()]
    arrays = [_converted(t, backend, dtype) for t in tensors]
    gradients = [None if t.grad is None else Tensor(_converted(t.grad, backend, dtype)) for t in tensors]
    for tensor, array, gradient in zip(tensors, arrays, gradients, strict=True):
        if array is not tensor.array:
            tensor.array = array
            tensor.cell = [0]  # new memory: a graph that saved the old one still may use it
        tensor.grad = gradient
    return module


def _parsed(target: Any, dtype: Any) -> tuple[Backend | None, np.dtype | None]:
    if isinstance(target, (np.dtype, type)) or (isinstance(target, str) and names_dtype(target)):
        target, dtype = None, target
    if dtype is not None:
        dtype = np.dtype(dtype)
        if not is_float(dtype):
            raise TypeError(f"a module can be converted to a floating dtype, not to {dtype}")
    return get_backend(target) if isinstance(target, str) else target, dtype


def _converted(tensor: Tensor, backend: Backend | None, dtype: np.dtype | None) -> Any:
    array = tensor.array
    if backend is not None and backend is not tensor.backend:
        array = backend.asarray(tensor.backend.to_numpy(array))
    if dtype is not None and is_float(array.dtype) and array.dtype != dtype:
        array = array.astype(dtype)
    return array
