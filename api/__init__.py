"""retrograd: reverse-mode automatic differentiation with a pluggable array backend.

`import retrograd as rg` gives tensors and operations; `rg.nn`, `rg.optim`, `rg.data`, `rg.models`, `rg.train` are
imported when used first.

>>> import retrograd as rg
>>> w = rg.tensor([1.0, 2.0], requires_grad=True)
>>> loss = (w * w).sum()
>>> loss.backward()
>>> w.grad
tensor([2., 4.])
"""

from __future__ import annotations

from typing import Any

import numpy as np
from retrograd.autograd_core import numpy_protocol as _numpy_protocol
from retrograd.autograd_core import operations as _operations
from retrograd.autograd_core.backward import backward
from retrograd.autograd_core.context import (
    current_backend,
    detect_anomaly,
    enable_grad,
    is_grad_enabled,
    no_grad,
    set_grad_enabled,
    use_backend,
)
from retrograd.autograd_core.define import PUBLIC as _PUBLIC
from retrograd.autograd_core.dispatch import FUNCTIONS as _FUNCTIONS
from retrograd.autograd_core.operations.random import Generator, default_generator, manual_seed
from retrograd.autograd_core.record import REGISTRY as _REGISTRY
from retrograd.autograd_core.safetensors import SafetensorsError
from retrograd.autograd_core.storage import load, save
from retrograd.autograd_core.tensor import Tensor, asarray, tensor
from retrograd.autograd_core.transforms import grad, hessian, hvp, jacobian, value_and_grad, vjp
from retrograd.backends import BackendError, get_backend, set_default_backend

float16, float32, float64 = np.float16, np.float32, np.float64
complex64, complex128 = np.complex64, np.complex128
int8, int16, int32, int64 = np.int8, np.int16, np.int32, np.int64
uint8, uint16, uint32, uint64 = np.uint8, np.uint16, np.uint32, np.uint64
bool = np.bool_
half, float, double, long = float16, float32, float64, int64  # PyTorch's words
pi, e, inf, nan, newaxis = np.pi, np.e, np.inf, np.nan, None

__version__ = "0.1.0"

globals().update({name: function for name, function in _FUNCTIONS.items() if _REGISTRY[name].public == "rg"})
globals().update(_PUBLIC)
concatenate = _PUBLIC["concat"]

_ROOMS = ("nn", "optim", "data", "models", "train", "testing", "backends", "autograd_core", "benchmarks", "examples")
_ELSEWHERE = {  # what `rg.` offers from modules that are imported when it is used first
    "functional_call": "nn",
    "compile": "autograd_core.compile",
    "RecordingError": "autograd_core.recorder",
}


def set_num_threads(n: int) -> None:
    """Use n CPU threads for matrix products on the current backend.

    >>> import retrograd as rg
    >>> n = rg.get_num_threads()
    >>> rg.set_num_threads(1)
    >>> rg.get_num_threads()
    1
    >>> rg.set_num_threads(n)
    """
    current_backend().set_num_threads(n)


def get_num_threads() -> int:
    """How many CPU threads matrix products use on the current backend.

    >>> import retrograd as rg
    >>> rg.get_num_threads() >= 1
    True
    """
    return current_backend().num_threads


def __getattr__(name: str) -> Any:
    if name in _ROOMS or name in _ELSEWHERE:
        from importlib import import_module

        room = import_module(f"retrograd.{_ELSEWHERE.get(name, name)}")
        return getattr(room, name) if name in _ELSEWHERE else room
    raise AttributeError(f"module 'retrograd' has no attribute {name!r}")
