"""Losses as modules, under PyTorch's names; `functional` says what each computes."""

from __future__ import annotations

from typing import Any

from ..autograd_core.tensor import Tensor, asarray
from . import functional as F
from .module import Module


class _Loss(Module):
    def __init__(self, reduction: str = "mean"):
        super().__init__()
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
        self.reduction = reduction


class _WeightedLoss(_Loss):
    def __init__(self, weight: Any = None, reduction: str = "mean"):
        super().__init__(reduction)
        self.register_buffer("weight", None if weight is None else asarray(weight))
        self.weight: Tensor | None


class MSELoss(_Loss):
    """The mean of (prediction - target)²; shapes must be equal.

    >>> import retrograd as rg
    >>> rg.nn.MSELoss()(rg.tensor([2.0, 4.0]), rg.tensor([2.0, 6.0]))
    tensor(2.)
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(input, target, reduction=self.reduction)


class L1Loss(_Loss):
    """The mean of |prediction - target|; shapes must be equal.

    >>> import retrograd as rg
    >>> rg.nn.L1Loss()(rg.tensor([2.0, 4.0]), rg.tensor([2.0, 6.0]))
    tensor(1.)
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.l1_loss(input, target, reduction=self.reduction)


class HuberLoss(_Loss):
    """Half the squared error up to `delta`, a straight line beyond (Huber 1964).

    >>> import retrograd as rg
    >>> rg.nn.HuberLoss(reduction="none")(rg.tensor([0.5, 3.0]), rg.zeros(2))
    tensor([0.125, 2.5  ])
    """

    def __init__(self, reduction: str = "mean", delta: float = 1.0):
        super().__init__(reduction)
        self.delta = delta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.huber_loss(input, target, reduction=self.reduction, delta=self.delta)


class SmoothL1Loss(_Loss):
    """The Huber loss divided by `beta`, its bend (Girshick 2015).

    >>> import retrograd as rg
    >>> rg.nn.SmoothL1Loss(reduction="none", beta=2.0)(rg.tensor([0.5, 3.0]), rg.zeros(2))
    tensor([0.0625, 2.    ])
    """

    def __init__(self, reduction: str = "mean", beta: float = 1.0):
        super().__init__(reduction)
        self.beta = beta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.smooth_l1_loss(input, target, reduction=self.reduction, beta=self.beta)


class CrossEntropyLoss(_WeightedLoss):
    """-log softmax(scores)[label]; labels are integers, or probabilities (one-hot rows) of the scores' shape.

    Takes scores, not probabilities: no Softmax in front of it. `weight` (C,) is a weight per class; labels equal to
    `ignore_index` count nothing; `label_smoothing` spreads a share of each target over all classes.

    >>> import retrograd as rg
    >>> loss = rg.nn.CrossEntropyLoss()
    >>> loss(rg.tensor([[0.0, 0.0]]), rg.tensor([1]))
    tensor(0.6931472)
    """

    def __init__(
        self,
        weight: Any = None,
        *,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ):
        super().__init__(weight, reduction)
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(
            input,
            target,
            self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


class NLLLoss(_WeightedLoss):
    """-log_probabilities[label]: what CrossEntropyLoss is behind a LogSoftmax.

    >>> import retrograd as rg
    >>> rg.nn.NLLLoss()(rg.log(rg.tensor([[0.25, 0.75]])), rg.tensor([0]))
    tensor(1.3862944)
    """

    def __init__(self, weight: Any = None, *, ignore_index: int = -100, reduction: str = "mean"):
        super().__init__(weight, reduction)
        self.ignore_index = ignore_index

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.nll_loss(input, target, self.weight, ignore_index=self.ignore_index, reduction=self.reduction)


class BCELoss(_WeightedLoss):
    """Binary cross-entropy of probabilities. BCEWithLogitsLoss on the scores themselves is exact where this is not.

    >>> import retrograd as rg
    >>> rg.nn.BCELoss()(rg.tensor([0.5]), rg.tensor([1.0]))
    tensor(0.6931472)
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy(input, target, self.weight, reduction=self.reduction)


class BCEWithLogitsLoss(_WeightedLoss):
    """Binary cross-entropy of scores: -t·log σ(x) - (1 - t)·log(1 - σ(x)), for targets of the scores' shape.

    `pos_weight` scales the part of the positive class, `weight` every element.

    >>> import retrograd as rg
    >>> rg.nn.BCEWithLogitsLoss()(rg.tensor([0.0]), rg.tensor([1.0]))
    tensor(0.6931472)
    """

    def __init__(self, weight: Any = None, *, reduction: str = "mean", pos_weight: Any = None):
        super().__init__(weight, reduction)
        self.register_buffer("pos_weight", None if pos_weight is None else asarray(pos_weight))
        self.pos_weight: Tensor | None

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(
            input, target, self.weight, reduction=self.reduction, pos_weight=self.pos_weight
        )
