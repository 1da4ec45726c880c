"""The losses of `nn.functional`: how far a prediction is from its target, under PyTorch's names and arguments."""

from __future__ import annotations

from ..autograd_core.context import current
from ..autograd_core.errors import one_frame
from ..autograd_core.operations import loss
from ..autograd_core.record import tensor_ops as ops
from ..autograd_core.tensor import Tensor, asarray
from .errors import refusal


@one_frame
def mse_loss(input: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """The mean of (input - target)². Shapes must be equal.

    >>> import retrograd as rg
    >>> rg.nn.functional.mse_loss(rg.zeros((8, 1)), rg.zeros(8))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: mse_loss: prediction (8, 1) and target (8,) must have the same shape. ...
    """
    return loss.mse_loss(input, target, reduction)


@one_frame
def l1_loss(input: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """The mean of |input - target|. Shapes must be equal.

    >>> import retrograd as rg
    >>> rg.nn.functional.l1_loss(rg.tensor([2.0, 4.0]), rg.tensor([2.0, 6.0]))
    tensor(1.)
    """
    return loss.l1_loss(input, target, reduction)


@one_frame
def huber_loss(input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0) -> Tensor:
    """Half the squared error up to `delta`, a straight line beyond (Huber 1964).

    >>> import retrograd as rg
    >>> rg.nn.functional.huber_loss(rg.tensor([0.5, 3.0]), rg.zeros(2), reduction="none")
    tensor([0.125, 2.5  ])
    """
    if not delta > 0:
        raise ValueError(f"delta must be above 0, got {delta}")
    error = loss.l1_loss(input, target, "none")
    line = ops.multiply(ops.subtract(error, 0.5 * delta), delta)
    return _reduced(ops.where(ops.less(error, delta), ops.multiply(ops.square(error), 0.5), line), reduction)


@one_frame
def smooth_l1_loss(input: Tensor, target: Tensor, *, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """The Huber loss divided by `beta`, its bend; with beta=0 the L1 loss.

    >>> import retrograd as rg
    >>> rg.nn.functional.smooth_l1_loss(rg.tensor([0.5, 3.0]), rg.zeros(2), reduction="none", beta=2.0)
    tensor([0.0625, 2.    ])
    """
    if beta == 0:
        return loss.l1_loss(input, target, reduction)
    return ops.divide(huber_loss(input, target, reduction, beta), beta)


@one_frame
def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """-log softmax(input)[label]: scores (N, C), (N, C, d1, …) or (C,); labels, or probabilities of the scores' shape.

    >>> import retrograd as rg
    >>> F = rg.nn.functional
    >>> scores = rg.tensor([[0.0, 0.0]])
    >>> F.cross_entropy(scores, rg.tensor([1])), F.cross_entropy(scores, rg.tensor([[0.0, 1.0]]))
    (tensor(0.6931472), tensor(0.6931472))
    """
    return loss.cross_entropy(
        input, target, weight, ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing
    )


@one_frame
def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """-input[label] for log-probabilities (N, C), (N, C, d1, …) or (C,) and integer labels; weight (C,) per class.

    >>> import retrograd as rg
    >>> rg.nn.functional.nll_loss(rg.log(rg.tensor([[0.25, 0.75]])), rg.tensor([0]))
    tensor(1.3862944)
    """
    if weight is None:
        return loss.nll_loss(input, target, reduction, ignore_index)
    x = asarray(input)
    axis = min(1, x.ndim - 1)
    per_class = ops.reshape(weight, shape=tuple(n if i == axis else 1 for i, n in enumerate(x.shape)))
    losses = loss.nll_loss(
        ops.multiply(x, per_class), target, "sum" if reduction == "mean" else reduction, ignore_index
    )
    if reduction != "mean":
        return losses
    spread = ops.broadcast_to(per_class, shape=x.shape)
    return loss.weighted_mean(ops, losses, ops.negative(loss.nll_loss(spread, target, "sum", ignore_index)))


@one_frame
def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """-t·log σ(x) - (1 - t)·log(1 - σ(x)) for scores x and targets t in 0…1 of the same shape.

    >>> import retrograd as rg
    >>> rg.nn.functional.binary_cross_entropy_with_logits(rg.tensor([0.0]), rg.tensor([1.0]))
    tensor(0.6931472)
    """
    return loss.binary_cross_entropy_with_logits(input, target, weight, reduction, pos_weight)


@one_frame
def binary_cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, *, reduction: str = "mean"
) -> Tensor:
    """-t·log p - (1 - t)·log(1 - p) for probabilities p and targets t of the same shape; each logarithm at least -100.

    >>> import retrograd as rg
    >>> rg.nn.functional.binary_cross_entropy(rg.tensor([0.5]), rg.tensor([1.0]))
    tensor(0.6931472)
    """
    p, t = asarray(input), asarray(target)
    _check_probabilities(p)
    loss.l1_loss(p.detach(), t, "none")  # raises where the shapes differ
    missed = ops.add(
        ops.multiply(t, _bounded_log(p)), ops.multiply(ops.subtract(1.0, t), _bounded_log(ops.subtract(1.0, p)))
    )
    losses = ops.negative(missed)
    return _reduced(losses if weight is None else ops.multiply(losses, weight), reduction)


def _bounded_log(p: Tensor) -> Tensor:
    # The logarithm of 0 has no gradient: there a constant takes its place.
    some = ops.greater(p, 0.0)
    return ops.where(some, ops.maximum(ops.log(ops.where(some, p, 1.0)), -100.0), -100.0)


def _check_probabilities(p: Tensor) -> None:
    if current().recorder is not None or not p.size:
        return
    values = p.backend.to_numpy(p.array)
    least, most = values.min(), values.max()
    if least < 0 or most > 1:
        raise refusal(
            ValueError,
            f"binary_cross_entropy expects probabilities in 0…1, got {least if least < 0 else most}. For scores, which "
            "may be any number, use binary_cross_entropy_with_logits",
        )


def _reduced(losses: Tensor, reduction: str) -> Tensor:
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
    return losses if reduction == "none" else ops.mean(losses) if reduction == "mean" else ops.sum(losses)
