"""Joining axes into one, and splitting one into several."""

from __future__ import annotations

from collections.abc import Sequence

from ..autograd_core.operations.movement import flatten, reshape
from ..autograd_core.tensor import Tensor, asarray
from .module import Module


class Flatten(Module):
    """Axes start_dim to end_dim joined into one; all but the batch axis by default.

    >>> import retrograd as rg
    >>> rg.nn.Flatten()(rg.zeros((64, 1, 28, 28))).shape
    (64, 784)
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1):
        super().__init__()
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, input: Tensor) -> Tensor:
        x = asarray(input)
        if x.ndim <= self.start_dim:
            raise ValueError(
                f"expected more than {self.start_dim} axes to flatten from axis {self.start_dim}, got {x.shape}"
            )
        return flatten(x, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """Axis `dim` split into axes of the sizes `unflattened_size`, one of which may be -1.

    >>> import retrograd as rg
    >>> rg.nn.Unflatten(1, (1, 28, 28))(rg.zeros((64, 784))).shape
    (64, 1, 28, 28)
    """

    def __init__(self, dim: int, unflattened_size: Sequence[int]):
        super().__init__()
        self.dim = dim
        self.unflattened_size = tuple(unflattened_size)

    def forward(self, input: Tensor) -> Tensor:
        x = asarray(input)
        axis = self.dim % x.ndim
        return reshape(x, shape=(*x.shape[:axis], *self.unflattened_size, *x.shape[axis + 1 :]))

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"
