"""Dropout (Srivastava et al. 2014): noise in training that keeps neurons from relying on each other."""

from __future__ import annotations

from ..autograd_core.operations.random import dropout
from ..autograd_core.tensor import Tensor
from .module import Module


class Dropout(Module):
    """In training each element becomes 0 with probability p, the others are divided by 1 - p; in evaluation x itself.

    The draws come from the framework's random stream, see `rg.manual_seed`. `inplace` is taken for PyTorch's sake and
    changes nothing: values in a graph are never overwritten.

    >>> import retrograd as rg
    >>> layer = rg.nn.Dropout(0.2).eval()
    >>> layer(rg.ones(3))
    tensor([1., 1., 1.])
    """

    def __init__(self, p: float = 0.5, inplace: bool = False):
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"p is a probability, in 0…1; got {p}")
        self.p = p
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return dropout(input, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"
