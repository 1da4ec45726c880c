"""Losses: how far a prediction is from its target, as one number (or one per element, with reduction="none")."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..define import fused, public
from ..record import REGISTRY, tensor_ops
from ..samples import Sample, Special, calls, draw
from ..tensor import Tensor, TensorLike, asarray
from .indexing import check_range


def _reduce(ops: Any, losses: Any, reduction: str, weight: Any = None) -> Any:
    """Sum or mean of the losses; `weight` is what a mean divides by instead of their number."""
    if reduction == "none":
        return losses
    if reduction == "mean" and weight is None:
        return ops.mean(losses)
    total = ops.sum(losses)
    return total if reduction == "sum" else weighted_mean(ops, total, weight)


def weighted_mean(ops: Any, total: Any, weight: Any) -> Any:
    """total / weight. Where nothing counts that is NaN, 0/0, and its gradient 0, as in PyTorch: a batch without labels
    shows, and does no harm."""
    if type(weight) is float:
        return ops.divide(total, weight)
    return ops.add(ops.divide(total, _at_least(ops, weight)), ops.divide(0.0, weight))


def _at_least(ops: Any, weight: Any) -> Any:
    """A sum of weights to divide by, where it may be 0."""
    return ops.maximum(weight, float(np.finfo(weight.dtype).tiny))


def _check_reduction(reduction: str) -> None:
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")


# -- cross-entropy -------------------------------------------------------------------------------------------------


def _class_axis(shape: tuple[int, ...]) -> int:
    return 1 if len(shape) > 1 else 0


def _along_classes(ops: Any, vector: Any, shape: tuple[int, ...]) -> Any:
    axis = _class_axis(shape)
    return ops.reshape(vector, shape=tuple(shape[axis] if i == axis else 1 for i in range(len(shape))))


def _wanted(ops, x, target, weight, ignore_index, label_smoothing):
    """What each position asks of each class (a row of the target distribution times the class weights), and what a
    mean divides by: the weights of the true classes, or the number of positions for probability targets."""
    shape = tuple(x.shape)
    axis = _class_axis(shape)
    classes = shape[axis]
    weights = None if weight is None else _along_classes(ops, weight, shape)
    if target.dtype.kind == "f":
        wanted = ops.astype(target, dtype=x.dtype)
        count = float(max(math.prod(shape) // max(classes, 1), 0)) or math.nan
        valid = None
    else:
        numbers = _along_classes(ops, ops.arange_like(target, classes), shape)
        hot = ops.equal(ops.expand_dims(target, axis=axis), numbers)
        valid = ops.expand_dims(ops.not_equal(target, ignore_index), axis=axis)
        if 0 <= ignore_index < classes:  # else no class is hot where it stands
            hot = ops.logical_and(hot, valid)
        wanted = ops.astype(hot, dtype=x.dtype)
        count = ops.sum(wanted if weights is None else ops.multiply(wanted, weights))
    if label_smoothing:
        wanted = ops.add(ops.multiply(wanted, 1 - label_smoothing), label_smoothing / classes)
        if valid is not None:
            wanted = ops.multiply(wanted, ops.astype(valid, dtype=x.dtype))
    return (wanted if weights is None else ops.multiply(wanted, weights)), count


def _cross_entropy_rule(ops, needs, g, x, target, weight, row_log, count, ignore_index, reduction, label_smoothing):
    """The cotangent of each position times (softmax · Σ wanted - wanted)."""
    axis = _class_axis(tuple(x.shape))
    gx = gt = None
    if row_log is not None:
        gx = _rows_gradient(ops, g, x, target, row_log, count, ignore_index, reduction)
        return gx, None, None
    wanted, count = _wanted(ops, x, target, weight, ignore_index, label_smoothing)
    if reduction == "mean":
        each = ops.divide(g, count if type(count) is float else _at_least(ops, count))
    else:
        each = ops.expand_dims(g, axis=axis) if reduction == "none" else g
    log_p = ops.log_softmax(x, axis=axis)
    if needs[0]:
        mass = ops.sum(wanted, axis=axis, keepdims=True)
        gx = ops.multiply(ops.subtract(ops.multiply(ops.exp(log_p), mass), wanted), each)
    if needs[1]:
        scale = log_p if weight is None else ops.multiply(log_p, _along_classes(ops, weight, tuple(x.shape)))
        gt = ops.multiply(ops.multiply(scale, -(1 - label_smoothing)), each)
    return gx, gt, None


def _rows_gradient(ops, g, x, target, row_log, count, ignore_index, reduction):
    """The everyday case, rows of scores with labels: softmax, minus 1 at the label, times the row's cotangent."""
    xp = ops.xp
    out = x - row_log
    xp.exp(out, out=out)
    rows = xp.arange(x.shape[0])
    valid = target != ignore_index
    out[rows, target * valid] -= 1  # of an ignored row it does not matter which
    each = (g / _at_least(ops, count) if reduction == "mean" else g) * valid
    out *= each[:, None]
    return out


def _cross_entropy_fast(ops, x, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    """Rows of scores with integer labels without one-hot rows; everything else as written out."""
    if x.ndim != 2 or target.dtype.kind == "f" or weight is not None or label_smoothing:
        written_out = REGISTRY["cross_entropy"].forward
        return written_out(ops, x, target, weight, ignore_index, reduction, label_smoothing), None, None
    xp = ops.xp
    top = xp.max(x, axis=1, keepdims=True)
    row_log = top + xp.log(xp.sum(xp.exp(x - top), axis=1, keepdims=True))
    valid = target != ignore_index
    losses = row_log[:, 0] - x[xp.arange(x.shape[0]), target * valid]
    losses = xp.where(valid, losses, 0.0)
    if reduction == "none":
        return losses, row_log, None
    count = xp.sum(valid, dtype=x.dtype)
    total = xp.sum(losses)
    return (total / count if reduction == "mean" else total), row_log, count


def check_labels(backend: Any, target: Any, classes: int, ignore_index: int) -> None:
    """Refuse integer labels outside 0…classes-1 that are not `ignore_index`."""
    unsigned = target.view(f"u{target.dtype.itemsize}")  # negative labels become huge: one comparison sees both ends
    if target.size and not bool(unsigned.max() < classes):
        xp = backend.xp
        counted = xp.where(target == ignore_index, xp.zeros_like(target), target)
        check_range(backend, counted, 0, classes, f"a label for {classes} classes")


def _label_hint(given: tuple[int, ...], shape: tuple[int, ...], axis: int) -> str:
    """What integer labels of a wrong shape look like: one-hot rows, right or too narrow, or an axis too many."""
    if given == shape:
        return ". One-hot rows must be floats: target.astype('float32')"
    if len(given) == len(shape) and given[axis] == 1:
        return f". Take the axis away: target.squeeze({axis})"
    if len(given) == len(shape) and given[:axis] == shape[:axis]:
        return f". One-hot rows of {given[axis]} classes do not fit the scores of {shape[axis]}: look at the last layer"
    return ""


def _check_cross_entropy(
    backend: Any, x: Any, target: Any, weight: Any, ignore_index: int, reduction: str, label_smoothing: float
) -> None:
    _check_reduction(reduction)
    shape = tuple(x.shape)
    if not shape:
        raise ValueError("input needs a class axis: shape (N, C), (N, C, d1, …) or (C,)")
    axis = _class_axis(shape)
    classes, without = shape[axis], shape[:axis] + shape[axis + 1 :]
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must lie in 0…1, got {label_smoothing}")
    if target.dtype.kind == "f":
        if tuple(target.shape) != shape:
            raise ValueError(
                f"float targets are probabilities (or one-hot rows) of {classes} classes and have the input's shape "
                f"{shape}; got {tuple(target.shape)}. Class labels are integers: target.astype('int64')"
            )
    elif target.dtype.kind not in "iu":
        raise TypeError(f"target must be integer labels or float probabilities, got {target.dtype}")
    elif tuple(target.shape) != without:
        raise ValueError(
            f"labels for an input of shape {shape} must have shape {without}, got {tuple(target.shape)}"
            f"{_label_hint(tuple(target.shape), shape, axis)}"
        )
    else:
        check_labels(backend, target, classes, ignore_index)
    if weight is not None and tuple(weight.shape) != (classes,):
        raise ValueError(f"weight must hold one number per class, shape ({classes},); got {tuple(weight.shape)}")


@fused(
    derivative=_cross_entropy_rule,
    fast=_cross_entropy_fast,
    residuals=("row_log", "count"),
    promote=("x", "weight"),
    floating=True,
    check=_check_cross_entropy,
    method=False,
    numpy=(),
    samples=calls(
        lambda rng: Sample((draw(rng, (4, 3)), np.array([0, 2, 1, 2]))),
        lambda rng: Sample((draw(rng, (4, 3)), np.array([0, -100, 1, 2])), {"reduction": "sum"}),
        lambda rng: Sample((draw(rng, (4, 3)), np.array([0, 1, 1, 2])), {"reduction": "none", "ignore_index": 1}),
        lambda rng: Sample((draw(rng, (3,)), np.array(1))),
        lambda rng: Sample((draw(rng, (2, 3, 2)), np.array([[0, 2], [1, 1]])), {"label_smoothing": 0.1}),
        lambda rng: Sample((draw(rng, (2, 3)), rng.random((2, 3)))),
    ),
    special=(Special((np.array([[1000.0, 0.0]]), np.array([0])), 0.0, (np.zeros((1, 2)),)),),
)
def cross_entropy(ops, x, target, weight=None, /, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    """-log softmax(x)[label]: scores x (N, C), (N, C, d1, …) or (C,), and integer labels without the class axis, or
    probabilities of x's shape.

    Args:
        weight: (C,), a weight per class. `ignore_index`: labels that count nothing. `label_smoothing`: the share of the
            target that is spread evenly over all classes (Szegedy et al. 2016).
        reduction: "mean" divides by the summed weights of the labels, as in PyTorch.
    Raises:
        IndexError: a label outside 0…C-1. ValueError: shapes that do not fit.

    >>> import retrograd as rg
    >>> rg.cross_entropy(rg.tensor([[0.0, 0.0]]), rg.tensor([1]))
    tensor(0.6931472)
    """
    wanted, count = _wanted(ops, x, target, weight, ignore_index, label_smoothing)
    axis = _class_axis(tuple(x.shape))
    log_p = ops.log_softmax(x, axis=axis)
    found = _reduce(ops, ops.sum(ops.multiply(wanted, log_p), axis=axis), reduction, count)
    return ops.negative(found)  # at the end, where it is one number, and its gradient a constant


# -- losses between tensors of one shape ---------------------------------------------------------------------------


def _paired(name: str, x: TensorLike, target: TensorLike, reduction: str) -> tuple[Tensor, Tensor]:
    _check_reduction(reduction)
    x, target = (v if isinstance(v, Tensor) else asarray(v) for v in (x, target))
    if x.shape != target.shape:
        raise ValueError(
            f"{name}: prediction {x.shape} and target {target.shape} must have the same shape. "
            "Broadcasting them would compare every prediction with every target; reshape one, e.g. with .reshape(-1)."
        )
    return x, target


@public
def mse_loss(x: TensorLike, target: TensorLike, reduction: str = "mean") -> Tensor:
    """Mean of (x - target)², shapes equal.

    >>> import retrograd as rg
    >>> rg.mse_loss(rg.tensor([2.0, 4.0, 6.0]), rg.tensor([2.0, 4.0, 9.0]))
    tensor(3.)
    """
    x, target = _paired("mse_loss", x, target, reduction)
    return _reduce(tensor_ops, tensor_ops.square(tensor_ops.subtract(x, target)), reduction)


@public
def l1_loss(x: TensorLike, target: TensorLike, reduction: str = "mean") -> Tensor:
    """Mean of |x - target|, shapes equal.

    >>> import retrograd as rg
    >>> rg.l1_loss(rg.tensor([2.0, 4.0]), rg.tensor([2.0, 7.0]))
    tensor(1.5)
    """
    x, target = _paired("l1_loss", x, target, reduction)
    return _reduce(tensor_ops, tensor_ops.abs(tensor_ops.subtract(x, target)), reduction)


@public
def binary_cross_entropy_with_logits(
    x: TensorLike,
    target: TensorLike,
    weight: TensorLike | None = None,
    reduction: str = "mean",
    pos_weight: TensorLike | None = None,
) -> Tensor:
    """-t·log σ(x) - (1 - t)·log(1 - σ(x)) for logits x and targets t in 0…1 of the same shape, without overflow.

    `weight` scales each element, `pos_weight` the part of the positive class.

    >>> import retrograd as rg
    >>> rg.binary_cross_entropy_with_logits(rg.tensor([0.0]), rg.tensor([1.0]))
    tensor(0.6931472)
    """
    ops = tensor_ops
    x, target = _paired("binary_cross_entropy_with_logits", x, target, reduction)
    # log(1 + e^x) - t·x, and with a weight p on positives: (1 - t)·x + (1 + (p - 1)·t)·log(1 + e^-x)
    if pos_weight is None:
        losses = ops.subtract(ops.softplus(x), ops.multiply(x, target))
    else:
        scale = ops.add(ops.multiply(ops.subtract(pos_weight, 1), target), 1)
        rest = ops.multiply(scale, ops.softplus(ops.negative(x)))
        losses = ops.add(ops.multiply(ops.subtract(1, target), x), rest)
    return _reduce(ops, losses if weight is None else ops.multiply(losses, weight), reduction)


@public
def nll_loss(x: TensorLike, target: TensorLike, reduction: str = "mean", ignore_index: int = -100) -> Tensor:
    """-x[label] for log-probabilities x (N, C) and integer labels (N,).

    >>> import retrograd as rg
    >>> rg.nll_loss(rg.log_softmax(rg.tensor([[0.0, 0.0]])), rg.tensor([1]))
    tensor(0.6931472)
    """
    _check_reduction(reduction)
    x, target = (v if isinstance(v, Tensor) else asarray(v) for v in (x, target))
    _check_cross_entropy(x.backend, x.array, target.array, None, ignore_index, reduction, 0.0)
    ops = tensor_ops
    wanted, count = _wanted(ops, x, target, None, ignore_index, 0.0)
    return _reduce(ops, ops.negative(ops.sum(ops.multiply(wanted, x), axis=_class_axis(x.shape))), reduction, count)


