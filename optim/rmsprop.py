"""RMSprop (Hinton 2012, lecture 6e; centred as in Graves 2013): steps measured by the recent size of the gradient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..autograd_core.errors import one_frame
from .optimizer import Optimizer, Params, nonnegative, zeros_like


class RMSprop(Optimizer):
    """s ← alpha · s + (1 - alpha) · g²,  p ← p - lr · g / (√s + eps).

    Args:
        params: as for SGD. `lr`: the learning rate. `alpha`: how much of s stays. `eps`: keeps the quotient finite.
        weight_decay: adds weight_decay · p to the gradient. `momentum`: steps along a running sum of the quotients.
        centered: measures the gradient's deviation from its running mean instead of its size.

    >>> import retrograd as rg
    >>> w = rg.tensor([1.0], requires_grad=True)
    >>> opt = rg.optim.RMSprop([w], lr=0.01)
    >>> rg.sum(w * w).backward()
    >>> opt.step()
    >>> round(w.item(), 3)
    0.9
    """

    @one_frame
    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ):
        defaults = dict(
            lr=lr,
            alpha=alpha,
            eps=eps,
            weight_decay=weight_decay,
            momentum=momentum,
            centered=centered,
            maximize=maximize,
        )
        super().__init__(params, defaults)

    @staticmethod
    def check(hyper: Mapping[str, Any]) -> None:
        nonnegative(hyper, "lr", "alpha", "eps", "weight_decay", "momentum")

    @staticmethod
    def init(p: Any, hyper: Mapping[str, Any]) -> dict[str, Any]:
        names = ["square_avg"]
        if hyper["momentum"]:
            names.append("momentum_buffer")
        if hyper["centered"]:
            names.append("grad_avg")
        return {name: zeros_like(p) for name in names}

    @staticmethod
    def scalars(step: int, hyper: Mapping[str, Any]) -> dict[str, float]:
        found = {"lr": hyper["lr"], "keep": hyper["alpha"], "take": 1.0 - hyper["alpha"], "eps": hyper["eps"]}
        if hyper["maximize"]:
            found["sign"] = -1.0
        if hyper["weight_decay"]:
            found["decay"] = hyper["weight_decay"]
        if hyper["momentum"]:
            found["momentum"] = hyper["momentum"]
        if hyper["centered"]:
            found["centered"] = 1.0  # no number, but its name says which form of the rule is meant
        return found

    @staticmethod
    def update(ops: Any, p: Any, g: Any, state: dict[str, Any], scalars: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        if "sign" in scalars:
            g = ops.multiply(g, scalars["sign"])
        if "decay" in scalars:
            g = ops.add(g, ops.multiply(p, scalars["decay"]))
        size = _running_mean(ops, state["square_avg"], ops.multiply(g, g), scalars)
        new = {**state, "square_avg": size}
        if "centered" in scalars:
            new["grad_avg"] = mean = _running_mean(ops, state["grad_avg"], g, scalars)
            size = ops.subtract(size, ops.multiply(mean, mean))
        direction = ops.divide(g, ops.add(ops.sqrt(size), scalars["eps"]))
        if "momentum" in scalars:
            new["momentum_buffer"] = direction = ops.add(
                ops.multiply(state["momentum_buffer"], scalars["momentum"]), direction
            )
        return ops.subtract(p, ops.multiply(direction, scalars["lr"])), new


def _running_mean(ops: Any, mean: Any, value: Any, scalars: dict[str, Any]) -> Any:
    return ops.add(ops.multiply(mean, scalars["keep"]), ops.multiply(value, scalars["take"]))
