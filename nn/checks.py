"""What a layer asks of its input before it multiplies, and the errors that say how to mend it."""

from __future__ import annotations

import math
from typing import Any

from ..autograd_core.errors import describe
from ..autograd_core.tensor import TENSOR_TYPES, Tensor, host_array
from .errors import refusal


def matching(x: Any, weight: Tensor) -> Tensor:
    """`x` as a Tensor with the dtype of `weight`; raises TypeError where it has another one."""
    if type(x) not in TENSOR_TYPES:
        x = _constant(x, weight)
    if x.array.dtype != weight.array.dtype:
        raise _wrong_dtype(x, weight)
    return x


def _constant(x: Any, weight: Tensor) -> Tensor:
    if isinstance(x, str) or not (hasattr(x, "dtype") or isinstance(x, int | float | list | tuple)):
        raise refusal(TypeError, f"expected a Tensor or an array, got {type(x).__name__}")
    return Tensor(weight.backend.asarray(x if hasattr(x, "dtype") else host_array(x)))


def _wrong_dtype(x: Tensor, weight: Tensor) -> Exception:
    expected = weight.dtype
    if x.dtype.kind in "iub":
        mend = f"x.astype('{expected}')"
        text = (
            f"Convert it first: {mend}, or {mend} / 255 for the bytes of an image; labels and indices belong elsewhere"
        )
    else:
        text = f"Convert the input, x.astype('{expected}'), or the module, module.to('{x.dtype}')"
    return refusal(TypeError, f"expected {expected}, the dtype of the weight, got a {describe(x)}. {text}")


def wrong_last_axis(x: Tensor, expected: int, name: str) -> Exception:
    """The error of a layer that wants `expected` numbers along the last axis."""
    text = f"expected {name}={expected} numbers along the last axis, got a {describe(x)}"
    for start in range(x.ndim - 1):
        if math.prod(x.shape[start:]) == expected:
            flatten = "nn.Flatten()" if start == 1 else f"nn.Flatten({start})"
            text += f". Its axes from {start} on hold {expected}: put {flatten} in front"
            break
    return refusal(ValueError, text)


def wrong_channels(x: Tensor, expected: int, name: str, spatial: int) -> Exception:
    """The error of a layer that wants (N, channels, …) or (channels, …), with `spatial` axes behind the channels."""
    sizes = ", ".join("DHW"[3 - spatial :]) if spatial > 1 else "L"
    text = f"expected (N, {expected}, {sizes}) or ({expected}, {sizes}) with {name}={expected}, got a {describe(x)}"
    if x.ndim == spatial + 1 and expected == 1:
        text += (
            f". Images without a channel axis need one: x.reshape({x.shape[0]}, 1, {', '.join(map(str, x.shape[1:]))})"
        )
    elif x.ndim == spatial + 2 and x.shape[-1] == expected:
        order = (0, spatial + 1, *range(1, spatial + 1))
        text += f". The channels stand last here: x.transpose{order} brings them forward"
    elif x.ndim == spatial and expected == 1:
        text += f". One image without a channel axis needs one: x.reshape(1, {', '.join(map(str, x.shape))})"
    return refusal(ValueError, text)
