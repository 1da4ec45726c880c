"""Functions of layers and losses under PyTorch's names, in its order of arguments.

    from retrograd.nn import functional as F

Activation functions stand in `activation_functions`, losses in `loss_functions`; all are names of this module. The
mathematics stands with the operations of the same names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..autograd_core.context import no_grad
from ..autograd_core.errors import one_frame
from ..autograd_core.inplace import overwrite
from ..autograd_core.operations import (
    attention,
    batch_normalization,
    contraction,
    convolution,
    indexing,
    movement,
    normalization,
    pooling,
    random,
    windows,
)
from ..autograd_core.record import tensor_ops as ops
from ..autograd_core.tensor import Tensor, asarray
from .activation_functions import (  # noqa: F401  they belong to this namespace
    elu,
    gelu,
    hardtanh,
    leaky_relu,
    log_softmax,
    logsigmoid,
    relu,
    relu6,
    sigmoid,
    silu,
    softmax,
    softplus,
    tanh,
)
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


# -- linear maps and convolutions -------------------------------------------------------------------------------------


@one_frame
def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """input · weightᵀ + bias: (…, in), (out, in), (out,) → (…, out).

    >>> import retrograd as rg
    >>> rg.nn.functional.linear(rg.tensor([[1.0, 2.0]]), rg.tensor([[3.0, 4.0]]), rg.tensor([0.5]))
    tensor([[11.5]])
    """
    return contraction.linear(input, weight, bias)


@one_frame
def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Σ input1[…, i] · weight[k, i, j] · input2[…, j] + bias[k]: (…, I), (…, J), (K, I, J), (K,) → (…, K).

    >>> import retrograd as rg
    >>> rg.nn.functional.bilinear(rg.ones((5, 3)), rg.ones((5, 4)), rg.ones((2, 3, 4))).shape
    (5, 2)
    """
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
    """(N, C, L), (out, C / groups, k), (out,) → (N, out, places).

    >>> import retrograd as rg
    >>> rg.nn.functional.conv1d(rg.tensor([[[1.0, 2.0, 4.0]]]), rg.tensor([[[-1.0, 1.0]]]))
    tensor([[[1., 2.]]])
    """
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
    """(N, C, H, W), (out, C / groups, kh, kw), (out,) → (N, out, rows, columns); `rg.conv2d` has the formula.

    >>> import retrograd as rg
    >>> rg.nn.functional.conv2d(rg.ones((1, 3, 8, 8)), rg.ones((4, 3, 3, 3)), stride=2, padding=1).shape
    (1, 4, 4, 4)
    """
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
    """The transpose of `conv2d`: (N, in, H, W), (in, out / groups, kh, kw), (out,) → (N, out, rows, columns).

    >>> import retrograd as rg
    >>> rg.nn.functional.conv_transpose2d(rg.ones((1, 4, 4, 4)), rg.ones((4, 3, 2, 2)), stride=2).shape
    (1, 3, 8, 8)
    """
    return convolution.conv_transpose2d(input, weight, bias, stride, padding, output_padding, groups, dilation)


@one_frame
def unfold(input: Tensor, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Tensor:
    """The windows of images as columns: (N, C, H, W) → (N, C · kh · kw, places).

    >>> import retrograd as rg
    >>> rg.nn.functional.unfold(rg.ones((1, 3, 8, 8)), kernel_size=2, stride=2).shape
    (1, 12, 16)
    """
    return windows.unfold(input, kernel_size, dilation, padding, stride)


@one_frame
def fold(
    input: Tensor, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Tensor:
    """Columns added up to images, the transpose of `unfold`: (N, C · kh · kw, places) → (N, C, *output_size).

    >>> import retrograd as rg
    >>> rg.nn.functional.fold(rg.ones((1, 4, 1)), output_size=2, kernel_size=2)
    tensor([[[[1., 1.],
              [1., 1.]]]])
    """
    return windows.fold(input, output_size, kernel_size, dilation, padding, stride)


@one_frame
def embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None) -> Tensor:
    """Rows of `weight` (N, D) at integer indices (…): (…, D). The row padding_idx gets no gradient.

    >>> import retrograd as rg
    >>> rg.nn.functional.embedding(rg.tensor([1, 0]), rg.tensor([[1.0, 2.0], [3.0, 4.0]]))
    tensor([[3., 4.],
            [1., 2.]])
    """
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
    """The largest element of every window: (N, C, H, W) → (N, C, rows, columns).

    >>> import retrograd as rg
    >>> rg.nn.functional.max_pool2d(rg.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), 2)
    tensor([[[[4.]]]])
    """
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
    """The mean of every window: (N, C, H, W) → (N, C, rows, columns).

    >>> import retrograd as rg
    >>> rg.nn.functional.avg_pool2d(rg.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), 2)
    tensor([[[[2.5]]]])
    """
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
    """Means of windows laid so that output_size (rows, columns) come out.

    >>> import retrograd as rg
    >>> rg.nn.functional.adaptive_avg_pool2d(rg.ones((1, 3, 7, 5)), (2, 2)).shape
    (1, 3, 2, 2)
    """
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
    """Mean 0 and variance 1 over the last axes, of lengths normalized_shape, times weight, plus bias.

    >>> import retrograd as rg
    >>> rg.nn.functional.layer_norm(rg.tensor([[1.0, 3.0]]), [2], eps=0.0)
    tensor([[-1.,  1.]])
    """
    return normalization.layer_norm(input, weight, bias, normalized_shape=normalized_shape, eps=eps)


@one_frame
def rms_norm(input: Tensor, normalized_shape: Size, weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    """Divided by the root mean square of the last axes, of lengths normalized_shape, times weight.

    >>> import retrograd as rg
    >>> rg.nn.functional.rms_norm(rg.tensor([[1.0, 1.0]]), [2], rg.tensor([1.0, 2.0]), eps=0.0)
    tensor([[1., 2.]])
    """
    return normalization.rms_norm(input, weight, normalized_shape=normalized_shape, eps=eps)


@one_frame
def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Mean 0 and variance 1 over each group of channels, times weight, plus bias, one number of each per channel.

    >>> import retrograd as rg
    >>> rg.nn.functional.group_norm(rg.randn(2, 4, 8, 8), num_groups=2).shape
    (2, 4, 8, 8)
    """
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

    >>> import retrograd as rg
    >>> mean, var = rg.zeros(1), rg.ones(1)
    >>> x = rg.tensor([[1.0], [3.0]])
    >>> rg.nn.functional.batch_norm(x, mean, var, training=True, eps=0.0)
    tensor([[-1.],
            [ 1.]])
    >>> mean, var
    (tensor([0.2]), tensor([1.1]))
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


# -- dropout and attention --------------------------------------------------------------------------------------------


@one_frame
def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Each element 0 with probability p, the others divided by 1 - p; without `training` the input itself.

    >>> import retrograd as rg
    >>> x = rg.ones(1000)
    >>> kept = rg.nn.functional.dropout(x, 0.5)
    >>> sorted(set(kept.tolist()))
    [0.0, 2.0]
    >>> rg.nn.functional.dropout(x, 0.5, training=False) is x
    True
    """
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

    >>> import retrograd as rg
    >>> q, k, v = rg.randn(2, 4, 8), rg.randn(2, 6, 8), rg.randn(2, 6, 3)
    >>> rg.nn.functional.scaled_dot_product_attention(q, k, v).shape
    (2, 4, 3)
    """
    if not dropout_p:
        return attention.scaled_dot_product_attention(query, key, value, attn_mask, is_causal=is_causal, scale=scale)
    mask = None if attn_mask is None else asarray(attn_mask)
    weights = attention.attention_weights(ops, asarray(query), asarray(key), mask, is_causal, scale)
    return ops.matmul(random.dropout(weights, dropout_p), value)
