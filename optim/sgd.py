"""Stochastic gradient descent, with momentum (Polyak 1964; Sutskever et al. 2013 for Nesterov's form)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..autograd_core.errors import one_frame
from .optimizer import Optimizer, Params, nonnegative, zeros_like


class SGD(Optimizer):
    """p ← p - lr · v, where v is the gradient or, with momentum, v ← momentum · v + (1 - dampening) · gradient.

    Args:
        params: parameters, (name, parameter) pairs, or dicts of them with options of their own.
        lr: the learning rate. `momentum`: how much of the last v stays. `dampening`: how much of the gradient is left
            out of it. `weight_decay`: adds weight_decay · p to the gradient. `nesterov`: looks one step ahead along v.
        maximize: climb instead of descending.
    Raises:
        TypeError: params that collect no gradients, such as plain arrays. ValueError: a number out of range.

    >>> import retrograd as rg
    >>> w = rg.tensor([1.0], requires_grad=True)
    >>> opt = rg.optim.SGD([w], lr=0.1)
    >>> rg.sum(w * w).backward()
    >>> opt.step()
    >>> w
    tensor([0.8], requires_grad=True)
    """

    @one_frame
    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ):
        defaults = dict(
            lr=lr,
            momentum=momentum,
            dampening=dampening,
            weight_decay=weight_decay,
            nesterov=nesterov,
            maximize=maximize,
        )
        super().__init__(params, defaults)

    @staticmethod
    def check(hyper: Mapping[str, Any]) -> None:
        nonnegative(hyper, "lr", "momentum", "weight_decay")
        if hyper["nesterov"] and (hyper["momentum"] <= 0 or hyper["dampening"] != 0):
            raise ValueError("nesterov needs a momentum above 0 and no dampening")

    @staticmethod
    def init(p: Any, hyper: Mapping[str, Any]) -> dict[str, Any]:
        return {"momentum_buffer": zeros_like(p)} if hyper["momentum"] else {}

    @staticmethod
    def scalars(step: int, hyper: Mapping[str, Any]) -> dict[str, float]:
        found = {"lr": hyper["lr"]}
        if hyper["maximize"]:
            found["sign"] = -1.0
        if hyper["weight_decay"]:
            found["decay"] = hyper["weight_decay"]
        if hyper["momentum"]:
            found["keep"] = hyper["momentum"]
            if hyper["dampening"]:  # the first v is the gradient itself
                found["take"] = 1.0 if step == 1 else 1.0 - hyper["dampening"]
            if hyper["nesterov"]:
                found["ahead"] = hyper["momentum"]
        return found

    @staticmethod
    def update(ops: Any, p: Any, g: Any, state: dict[str, Any], scalars: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        if "sign" in scalars:
            g = ops.multiply(g, scalars["sign"])
        if "decay" in scalars:
            g = ops.add(g, ops.multiply(p, scalars["decay"]))
        if "keep" in scalars:
            taken = ops.multiply(g, scalars["take"]) if "take" in scalars else g
            v = ops.add(ops.multiply(state["momentum_buffer"], scalars["keep"]), taken)
            g = ops.add(g, ops.multiply(v, scalars["ahead"])) if "ahead" in scalars else v
            state = {"momentum_buffer": v}
        return ops.subtract(p, ops.multiply(g, scalars["lr"])), state
