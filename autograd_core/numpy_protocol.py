"""NumPy functions called on Tensors: `np.exp(t)` runs `rg.exp(t)`, and is differentiable.

The table follows from the records (`numpy=` in a definition, by default the record's own name) and from the public
functions that NumPy has under the same name.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from .define import PUBLIC
from .dispatch import FUNCTIONS
from .errors import one_frame
from .record import REGISTRY
from .tensor import Tensor

# NumPy's spelling → ours, where a keyword differs.
_KEYWORDS = {"ddof": "correction", "newshape": "shape", "a_min": "min", "a_max": "max", "ary": "x", "a": "x"}
_IGNORED = {"optimize"}  # says how to compute, not what
_IGNORED_WHEN_DEFAULT = {"out": None, "dtype": None, "where": True, "subok": True, "order": "K", "casting": "same_kind"}


@cache
def table(size: int) -> dict[Any, Callable]:
    """NumPy function → ours; made anew when the number of operations has grown to `size`."""
    found: dict[Any, Callable] = {}
    for name, function in FUNCTIONS.items():
        for alias in REGISTRY[name].numpy:
            if hasattr(np, alias):
                found[getattr(np, alias)] = function
    for name, function in PUBLIC.items():
        if callable(getattr(np, name, None)):
            found.setdefault(getattr(np, name), function)
    found[np.concatenate] = PUBLIC["concat"]
    return found


def _call(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    ours = table(len(FUNCTIONS) + len(PUBLIC)).get(function)
    name = getattr(function, "__name__", str(function))
    if ours is None:
        raise TypeError(
            f"np.{name} has no differentiable counterpart here. "
            "Use an operation of retrograd, or t.numpy() to leave the graph."
        )
    if kwargs.get("out") is not None:
        raise TypeError(
            f"np.{name}: out= cannot take the result of an operation on Tensors. Assign the result instead."
        )
    given = {}
    for key, value in kwargs.items():
        if key in _IGNORED:
            continue
        if key in _IGNORED_WHEN_DEFAULT:
            if value is not _IGNORED_WHEN_DEFAULT[key] and value != _IGNORED_WHEN_DEFAULT[key]:
                raise TypeError(f"np.{name}: {key}={value!r} is not supported on Tensors")
            continue
        given[_KEYWORDS.get(key, key)] = value
    return ours(*args, **given)


def _array_ufunc(self: Tensor, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
    if method != "__call__":
        raise TypeError(f"np.{ufunc.__name__}.{method} is not supported on Tensors; use rg.sum, rg.max and their kin")
    return _call(ufunc, inputs, kwargs)


def _array_function(self: Tensor, function: Any, types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if function in (np.shape, np.ndim, np.size):
        return getattr(args[0], function.__name__)
    return _call(function, args, kwargs)


Tensor.__array_ufunc__ = one_frame(_array_ufunc)
Tensor.__array_function__ = one_frame(_array_function)
