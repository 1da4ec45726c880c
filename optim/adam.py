"""Adam (Kingma and Ba 2015), with AMSGrad (Reddi et al. 2018), and AdamW (Loshchilov and Hutter 2019)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..autograd_core.errors import one_frame
from .optimizer import Optimizer, Params, nonnegative, zeros_like


class Adam(Optimizer):
    """m ← β₁·m + (1 - β₁)·g,  v ← β₂·v + (1 - β₂)·g²,  p ← p - lr · m̂ / (√v̂ + eps), m̂ and v̂ freed of their start at 0.

    Args:
        params: as for SGD. `lr`: the learning rate. `betas`: (β₁, β₂). `eps`: keeps the quotient finite.
        weight_decay: adds weight_decay · p to the gradient; see AdamW for decay of the weights themselves.
        amsgrad: divides by the largest v̂ so far. `maximize`: climb instead of descending.
    Raises:
        TypeError: params that collect no gradients, such as plain arrays. ValueError: a number out of range.

    >>> import retrograd as rg
    >>> w = rg.tensor([1.0], requires_grad=True)
    >>> opt = rg.optim.Adam([w], lr=0.1)
    >>> rg.sum(w * w).backward()
    >>> opt.step()
    >>> round(w.item(), 3)
    0.9
    """

    @one_frame
    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ):
        defaults = dict(
            lr=lr, betas=tuple(betas), eps=eps, weight_decay=weight_decay, amsgrad=amsgrad, maximize=maximize
        )
        super().__init__(params, defaults)

    @staticmethod
    def check(hyper: Mapping[str, Any]) -> None:
        nonnegative(hyper, "lr", "eps", "weight_decay")
        if len(hyper["betas"]) != 2 or not all(0 <= b < 1 for b in hyper["betas"]):
            raise ValueError(f"betas must be two numbers in 0 ≤ β < 1, got {hyper['betas']}")

    @staticmethod
    def init(p: Any, hyper: Mapping[str, Any]) -> dict[str, Any]:
        names = ["exp_avg", "exp_avg_sq"] + (["max_exp_avg_sq"] if hyper["amsgrad"] else [])
        return {name: zeros_like(p) for name in names}

    @staticmethod
    def scalars(step: int, hyper: Mapping[str, Any]) -> dict[str, float]:
        (beta1, beta2), lr = hyper["betas"], hyper["lr"]
        # √(1 - β₂ᵗ) is taken out of the quotient: two numbers on the host instead of one more pass over the arrays.
        root = math.sqrt(1.0 - beta2**step)
        found = {
            "take1": 1.0 - beta1,
            "keep2": beta2,
            "take2": 1.0 - beta2,
            "rate": lr * root / (1.0 - beta1**step),
            "floor": hyper["eps"] * root,
        }
        if hyper["maximize"]:
            found["sign"] = -1.0
        if hyper["weight_decay"]:
            found["decay"] = hyper["weight_decay"]
        if hyper["amsgrad"]:
            found["amsgrad"] = 1.0  # no number, but its name says which form of the rule is meant
        return found

    @staticmethod
    def update(ops: Any, p: Any, g: Any, state: dict[str, Any], scalars: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        if "sign" in scalars:
            g = ops.multiply(g, scalars["sign"])
        if "shrink" in scalars:
            p = ops.multiply(p, scalars["shrink"])
        if "decay" in scalars:
            g = ops.add(g, ops.multiply(p, scalars["decay"]))
        m = ops.add(state["exp_avg"], ops.multiply(ops.subtract(g, state["exp_avg"]), scalars["take1"]))
        v = ops.add(
            ops.multiply(state["exp_avg_sq"], scalars["keep2"]), ops.multiply(ops.multiply(g, g), scalars["take2"])
        )
        new = {**state, "exp_avg": m, "exp_avg_sq": v}
        if "amsgrad" in scalars:
            new["max_exp_avg_sq"] = v = ops.maximum(state["max_exp_avg_sq"], v)
        direction = ops.divide(m, ops.add(ops.sqrt(v), scalars["floor"]))
        return ops.subtract(p, ops.multiply(direction, scalars["rate"])), new


class AdamW(Adam):
    """Adam with decoupled weight decay: p ← p · (1 - lr · weight_decay) before each step of Adam.

    >>> import retrograd as rg
    >>> layer = rg.nn.Linear(3, 2)
    >>> opt = rg.optim.AdamW(layer.named_parameters(), lr=0.1)
    >>> rg.sum(layer(rg.ones((4, 3)))).backward()
    >>> opt.step()
    >>> sorted(opt.state_dict()["state"])
    ['bias', 'weight']
    """

    @one_frame
    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ):
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)

    @staticmethod
    def scalars(step: int, hyper: Mapping[str, Any]) -> dict[str, float]:
        found = Adam.scalars(step, hyper)
        if "decay" in found:
            found["shrink"] = 1.0 - hyper["lr"] * found.pop("decay")
        return found
