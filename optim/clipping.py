"""Keeping gradients in bounds (Pascanu et al. 2013), and parameters as one vector."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from ..autograd_core.context import current, no_grad
from ..autograd_core.errors import describe, one_frame
from ..autograd_core.inplace import overwrite
from ..autograd_core.record import tensor_ops
from ..autograd_core.recorder import RecordingError
from ..autograd_core.tensor import Tensor
from .flat import end_to_end


@one_frame
def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor], max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> Tensor:
    """Scale all gradients by one factor, so that the norm of all of them together is at most `max_norm`.

    Args:
        parameters: those without a gradient count nothing.
        norm_type: p of the p-norm, `math.inf` for the largest absolute value.
        error_if_nonfinite: raise where the norm is infinite or NaN, before anything is scaled; reads the norm.
    Returns:
        The norm before clipping, a 0-d Tensor. Nothing is read on the host, so a GPU does not wait.

    >>> import retrograd as rg
    >>> w = rg.tensor([3.0, 4.0], requires_grad=True)
    >>> rg.sum(w * w).backward()
    >>> rg.optim.clip_grad_norm_([w], 1.0)
    tensor(10.)
    >>> [round(g, 3) for g in w.grad.tolist()]
    [0.6, 0.8]
    """
    if not max_norm >= 0:
        raise ValueError(f"max_norm must be at least 0, got {max_norm}")
    owners = _with_gradients(parameters)
    if not owners:
        return Tensor(_zero())
    with no_grad():
        pieces = _pieces(owners)
        rows = [tensor_ops.reshape(g, shape=(g.array.size,)) for g, _ in pieces]
        total = _norm(rows, float(norm_type))
        if error_if_nonfinite:
            _refuse_nonfinite(total, norm_type)
        # As in PyTorch: a factor of 1 is applied too, so that nothing has to wait for the comparison.
        factor = tensor_ops.minimum(tensor_ops.divide(float(max_norm), tensor_ops.add(total, 1e-6)), 1.0)
        for gradient, parts in pieces:
            _change(parts, tensor_ops.multiply(gradient, tensor_ops.astype(factor, dtype=gradient.dtype)))
    return total


@one_frame
def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Limit every element of all gradients to -clip_value … clip_value.

    >>> import retrograd as rg
    >>> w = rg.tensor([3.0, 4.0], requires_grad=True)
    >>> rg.sum(w * w).backward()
    >>> rg.optim.clip_grad_value_([w], 7.0)
    >>> w.grad
    tensor([6., 7.])
    """
    limit = float(clip_value)
    if not limit >= 0:
        raise ValueError(f"clip_value must be at least 0, got {clip_value}")
    with no_grad():
        for gradient, parts in _pieces(_with_gradients(parameters)):
            _change(parts, tensor_ops.maximum(tensor_ops.minimum(gradient, limit), -limit))


def _with_gradients(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    if hasattr(parameters, "named_parameters"):
        raise TypeError("expected parameters, got the module itself: write module.parameters()")
    listed = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    for p in listed:
        if not isinstance(p, Tensor):
            raise TypeError(f"expected parameters, got {type(p).__name__}")
    return [p for p in {id(p): p for p in listed}.values() if p.grad is not None]


def _zero() -> Any:
    from ..autograd_core.context import current_backend

    return current_backend().asarray(0.0, dtype="float32")


def _norm(gradients: list[Tensor], p: float) -> Tensor:
    ops: Any = tensor_ops
    # The parts are added in the widest dtype that occurs: squares of half precision overflow at 256.
    wide = [g if g.dtype.itemsize >= 4 else ops.astype(g, dtype="float32") for g in gradients]
    total: Tensor | None = None
    for g in wide:
        if p == 2.0:
            part = ops.matmul(g, g)  # one pass, no array of squares
        elif p == math.inf:
            part = ops.max(ops.abs(g)) if g.size else ops.multiply(ops.sum(g), 0.0)
        else:
            part = ops.sum(ops.power(ops.abs(g), p))
        total = part if total is None else ops.maximum(total, part) if p == math.inf else ops.add(total, part)
    return ops.sqrt(total) if p == 2.0 else total if p == math.inf else ops.power(total, 1.0 / p)  # type: ignore[return-value]


def _refuse_nonfinite(total: Tensor, norm_type: float) -> None:
    if current().recorder is not None:
        raise RecordingError(
            "error_if_nonfinite reads the norm, which a recorded function cannot; look at what is returned"
        )
    if not math.isfinite(total.item()):
        raise RuntimeError(f"the {norm_type}-norm of the gradients is {total.item()}; nothing was clipped")


def _pieces(owners: list[Tensor]) -> list[tuple[Tensor, list[Tensor]]]:
    """Gradients to be looked at and changed as one, with the parameters that they belong to.

    In a recording those of one dtype are laid end to end: the program computes one norm, and its optimizer, which wants
    the gradients in the same order, scales them on the way.
    """
    joined = current().recorder is not None and all(p.grad.node is None for p in owners)  # type: ignore[union-attr]
    cohorts: dict[object, list[Tensor]] = {}
    for p in owners:
        cohorts.setdefault((p.dtype, p.backend.name) if joined else id(p), []).append(p)
    return [(end_to_end(parts) if len(parts) > 1 else parts[0].grad.detach(), parts) for parts in cohorts.values()]  # type: ignore[union-attr]


def _change(parts: list[Tensor], gradient: Tensor) -> None:
    """Give parameters the gradient, or each its stretch of what was laid end to end."""
    if len(parts) == 1 and parts[0].grad.node is None:  # type: ignore[union-attr]
        overwrite(parts[0].grad, gradient)  # type: ignore[arg-type]
        return
    end = 0
    for p in parts:
        start, end = end, end + p.size
        p.grad = gradient if len(parts) == 1 else tensor_ops.reshape(gradient[start:end], shape=p.shape)


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All parameters in one vector, in their order; differentiable.

    >>> import retrograd as rg
    >>> rg.nn.utils.parameters_to_vector([rg.zeros((2, 2)), rg.ones(1)])
    tensor([0., 0., 0., 0., 1.])
    """
    from ..autograd_core.operations.joining import concat

    return concat([tensor_ops.reshape(p, shape=(p.size,)) for p in parameters])


@one_frame
def vector_to_parameters(vector: Tensor, parameters: Iterable[Tensor]) -> None:
    """Copy a vector that `parameters_to_vector` gave back into the parameters.

    >>> import retrograd as rg
    >>> layer = rg.nn.Linear(2, 1)
    >>> rg.nn.utils.vector_to_parameters(rg.tensor([1.0, 2.0, 3.0]), layer.parameters())
    >>> layer.weight.tolist(), layer.bias.tolist()
    ([[1.0, 2.0]], [3.0])
    """
    listed = list(parameters)
    needed = sum(p.size for p in listed)
    if vector.shape != (needed,):
        raise ValueError(f"the parameters need a vector of {needed} numbers, got {describe(vector)}")
    start = 0
    with no_grad():
        for p in listed:
            part = vector.detach()[start : start + p.size]
            overwrite(p, tensor_ops.reshape(part, shape=p.shape))
            start += p.size
