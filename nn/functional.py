"""Functions of layers and losses under PyTorch's names, in its order of arguments.

    from retrograd.nn import functional as F

Where an axis is meant, `dim=` and `axis=` are both taken. The mathematics stands with the operations of the same names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..autograd_core.context import no_grad
from ..autograd_core.errors import one_frame
from ..autograd_core.inplace import overwrite
from ..autograd_core.operations import (
    activation,
    attention,
    batch_normalization,
    contraction,
    convolution,
    indexing,
    movement,
    normalization,
    pooling,
    random,
    trigonometric,
    windows,
)
from ..autograd_core.operations import (
    softmax as softmaxes,
)
from ..autograd_core.record import tensor_ops as ops
from ..autograd_core.tensor import Tensor, asarray
from .loss_functions import (  # noqa: F401  they belong to this namespace
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    huber_loss,
    l1_loss,
    mse_loss,
    nll_loss,
    smooth_l1_loss,
)

Size = int | Sequence[int]


def _axis(dim: int | None, axis: int | None, default: int) -> int:
    if dim is not None and axis is not None and dim != axis:
        raise TypeError(f"dim={dim} and axis={axis} are two names of one argument; give one of them")
    return dim if dim is not None else axis if axis is not None else default


# -- linear maps and convolutions -------------------------------------------------------------------------------------


@one_frame
def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """input · weightᵀ + bias: (…, in), (out, in), (out,) → (…, out)."""
    return contraction.linear(input, weight, bias)


@one_frame
def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Σ input1[…, i] · weight[k, i, j] · input2[…, j] + bias[k]: (…, I), (…, J), (K, I, J), (K,) → (…, K)."""
    out = contraction.einsum("...i,kij,...j->...k", input1, weight, input2)
    return out if bias is None else ops.add(out, bias)


@one_frame
def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """(N, C, L), (out, C / groups, k), (out,) → (N, out, places)."""
    return convolution.conv1d(input, weight, bias, stride, padding, dilation, groups)


@one_frame
def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """(N, C, H, W), (out, C / groups, kh, kw), (out,) → (N, out, rows, columns); `rg.conv2d` has the formula."""
    return convolution.conv2d(input, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups)


@one_frame
def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    """The transpose of `conv2d`: (N, in, H, W), (in, out / groups, kh, kw), (out,) → (N, out, rows, columns)."""
    return convolution.conv_transpose2d(input, weight, bias, stride, padding, output_padding, groups, dilation)


@one_frame
def unfold(input: Tensor, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Tensor:
    """The windows of images as columns: (N, C, H, W) → (N, C · kh · kw, places)."""
    return windows.unfold(input, kernel_size, dilation, padding, stride)


@one_frame
def fold(
    input: Tensor, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Tensor:
    """Columns added up to images, the transpose of `unfold`: (N, C · kh · kw, places) → (N, C, *output_size)."""
    return windows.fold(input, output_size, kernel_size, dilation, padding, stride)


@one_frame
def embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None) -> Tensor:
    """Rows of `weight` (N, D) at integer indices (…): (…, D). The row padding_idx gets no gradient."""
    return indexing.embedding(weight, input, padding_idx=padding_idx)


@one_frame
def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """int64 rows that are 1 at the class: (…) → (…, num_classes); -1 takes the largest class that occurs.

    >>> import retrograd as rg
    >>> rg.nn.functional.one_hot(rg.tensor([0, 2]))
    tensor([[1, 0, 0],
            [0, 0, 1]])
    """
    classes = asarray(tensor)
    if num_classes == -1:
        num_classes = int(ops.max(classes).item()) + 1
    return indexing.one_hot(classes, num_classes, dtype="int64")


@one_frame
def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Elements at the ends of axes; `pad` holds (before, after) of the last axis first, as in PyTorch.

    Negative numbers take elements away.

    >>> import retrograd as rg
    >>> rg.nn.functional.pad(rg.ones((1, 2)), (0, 1))
    tensor([[1., 1., 0.]])
    """
    x = asarray(input)
    if len(pad) % 2 or len(pad) > 2 * x.ndim:
        raise ValueError(f"pad needs (before, after) for at most {x.ndim} axes, got {tuple(pad)}")
    names = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
    if mode not in names:
        raise ValueError(f"mode must be one of {', '.join(names)}, got {mode!r}")
    pairs = [(pad[i], pad[i + 1]) for i in range(0, len(pad), 2)]
    widths = [(0, 0)] * (x.ndim - len(pairs)) + pairs[::-1]
    if min(pad, default=0) < 0:
        x = x[
            tuple(
                slice(max(-before, 0), n - max(-after, 0)) for n, (before, after) in zip(x.shape, widths, strict=True)
            )
        ]
        widths = [(max(before, 0), max(after, 0)) for before, after in widths]
    return movement.pad(x, widths, names[mode], 0.0 if value is None else value)


# -- pooling ----------------------------------------------------------------------------------------------------------


@one_frame
def max_pool2d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """The largest element of every window: (N, C, H, W) → (N, C, rows, columns)."""
    return pooling.max_pool2d(
        input, kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation, ceil_mode=ceil_mode
    )


@one_frame
def avg_pool2d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of every window: (N, C, H, W) → (N, C, rows, columns)."""
    return pooling.avg_pool2d(
        input,
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
        divisor_override=divisor_override,
    )


@one_frame
def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """Means of windows laid so that output_size (rows, columns) come out."""
    return pooling.adaptive_avg_pool2d(input, output_size)


# -- normalization ----------------------------------------------------------------------------------------------------


@one_frame
def layer_norm(
    input: Tensor,
    normalized_shape: Size,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Mean 0 and variance 1 over the last axes, of lengths normalized_shape, times weight, plus bias."""
    return normalization.layer_norm(input, weight, bias, normalized_shape=normalized_shape, eps=eps)


@one_frame
def rms_norm(input: Tensor, normalized_shape: Size, weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    """Divided by the root mean square of the last axes, of lengths normalized_shape, times weight."""
    return normalization.rms_norm(input, weight, normalized_shape=normalized_shape, eps=eps)


@one_frame
def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Mean 0 and variance 1 over each group of channels, times weight, plus bias, one number of each per channel."""
    return normalization.group_norm(input, num_groups, weight, bias, eps)


@one_frame
def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float | Tensor = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Mean 0 and variance 1 in each channel of (N, C, …), times weight, plus bias.

    With `training` the statistics are the batch's, and the running ones move towards them by the share `momentum`, in
    place (the variance as an estimate for all data: divided by one less than the count). Otherwise they are the running
    ones.
    """
    if not training:
        if running_mean is None or running_var is None:
            raise ValueError("batch_norm needs running_mean and running_var where training is False")
        return batch_normalization.batch_norm_inference(input, running_mean, running_var, weight, bias, eps=eps)
    out, mean, var = batch_normalization.batch_norm(input, weight, bias, eps=eps)
    n = input.size // max(input.shape[1], 1)
    with no_grad():
        for running, now in ((running_mean, mean), (running_var, ops.multiply(var.detach(), n / max(n - 1, 1)))):
            if running is not None:
                step = ops.multiply(ops.subtract(now.detach(), running), momentum)
                overwrite(running, ops.add(running, step))
    return out


# -- activation functions ---------------------------------------------------------------------------------------------


@one_frame
def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0). Here and below `inplace` is taken for PyTorch's sake and changes nothing."""
    return activation.relu(input)


@one_frame
def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x for positive x, negative_slope · x otherwise."""
    return activation.leaky_relu(input, negative_slope=negative_slope)


@one_frame
def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x, 0), 6)."""
    return activation.relu6(input)


@one_frame
def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """x, but not below min_val nor above max_val."""
    return activation.hardtanh(input, min_val, max_val)


@one_frame
def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x for positive x, alpha · (exp(x) - 1) otherwise."""
    return activation.elu(input, alpha=alpha)


@one_frame
def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x · Φ(x); approximate="tanh" for the form that GPT-2 uses."""
    return activation.gelu(input, approximate=approximate)


@one_frame
def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x · sigmoid(x)."""
    return activation.silu(input)


@one_frame
def sigmoid(input: Tensor) -> Tensor:
    """1 / (1 + exp(-x))."""
    return activation.sigmoid(input)


@one_frame
def logsigmoid(input: Tensor) -> Tensor:
    """log(sigmoid(x)), without overflow."""
    return activation.log_sigmoid(input)


@one_frame
def tanh(input: Tensor) -> Tensor:
    """The hyperbolic tangent."""
    return trigonometric.tanh(input)


@one_frame
def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta · x)) / beta, and x itself where beta · x is above threshold."""
    return activation.softplus(input, beta=beta, threshold=threshold)


@one_frame
def softmax(input: Tensor, dim: int | None = None, dtype: Any = None, *, axis: int | None = None) -> Tensor:
    """exp(x) / Σ exp(x) along `dim` (or `axis`; the last one by default); `dtype` casts first.

    >>> import retrograd as rg
    >>> rg.nn.functional.softmax(rg.tensor([0.0, 0.0]), dim=0)
    tensor([0.5, 0.5])
    """
    return softmaxes.softmax(_cast(input, dtype), axis=_axis(dim, axis, -1))


@one_frame
def log_softmax(input: Tensor, dim: int | None = None, dtype: Any = None, *, axis: int | None = None) -> Tensor:
    """log(softmax(x)) along `dim` (or `axis`; the last one by default); `dtype` casts first."""
    return softmaxes.log_softmax(_cast(input, dtype), axis=_axis(dim, axis, -1))


def _cast(x: Any, dtype: Any) -> Any:
    return x if dtype is None else ops.astype(x, dtype=dtype)


@one_frame
def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Each element 0 with probability p, the others divided by 1 - p; without `training` the input itself."""
    return random.dropout(input, p, training)


@one_frame
def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """softmax(scale · query · keyᵀ + mask) · value: (…, L, E), (…, S, E), (…, S, V) → (…, L, V) (Vaswani et al. 2017).

    A boolean mask is True where a query sees a key, a floating one is added to the scores; is_causal lets query i see
    keys 0…i. `dropout_p` drops probabilities, whenever it is above 0.
    """
    if not dropout_p:
        return attention.scaled_dot_product_attention(query, key, value, attn_mask, is_causal=is_causal, scale=scale)
    mask = None if attn_mask is None else asarray(attn_mask)
    weights = attention.attention_weights(ops, asarray(query), asarray(key), mask, is_causal, scale)
    return ops.matmul(random.dropout(weights, dropout_p), value)
