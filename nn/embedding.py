"""A table of vectors, one per word, looked up by number."""

from __future__ import annotations

from typing import Any, Self

from ..autograd_core.context import no_grad
from ..autograd_core.operations.creation import zeros
from ..autograd_core.operations.indexing import embedding
from ..autograd_core.promotion import DEFAULT_FLOAT
from ..autograd_core.tensor import Tensor, asarray
from . import init
from .errors import refusal
from .module import Module
from .parameter import Parameter


class Embedding(Module):
    """Integer indices of any shape → their rows of `weight`: (…) → (…, embedding_dim).

    Parameter: `weight` (num_embeddings, embedding_dim), standard normal.

    Args:
        padding_idx: a row that starts as zeros and gets no gradient.
    Raises:
        IndexError: an index outside 0…num_embeddings-1. TypeError: indices that are no integers.

    >>> import retrograd as rg
    >>> layer = rg.nn.Embedding(100, 16, padding_idx=0)
    >>> layer(rg.tensor([[1, 2, 0]])).shape
    (1, 3, 16)
    """

    def __init__(
        self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None, *, dtype: Any = DEFAULT_FLOAT
    ):
        super().__init__()
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise ValueError(f"padding_idx must name one of the {num_embeddings} rows, got {padding_idx}")
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = None if padding_idx is None else padding_idx % num_embeddings
        self.weight = Parameter(zeros(num_embeddings, embedding_dim, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new vectors."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            with no_grad():
                self.weight[self.padding_idx] = 0

    @classmethod
    def from_pretrained(cls, embeddings: Any, freeze: bool = True, padding_idx: int | None = None) -> Self:
        """A layer on a given table (num_embeddings, embedding_dim), frozen unless said otherwise."""
        table = asarray(embeddings)
        if table.ndim != 2:
            raise ValueError(f"a table of vectors has two axes, got shape {table.shape}")
        layer = cls(*table.shape, padding_idx=padding_idx, dtype=table.dtype)
        layer.weight = Parameter(table, requires_grad=not freeze)
        return layer

    def forward(self, input: Tensor) -> Tensor:
        indices = asarray(input)
        if indices.dtype.kind not in "iu":
            raise refusal(TypeError, f"expected integer indices, got a {indices.dtype} tensor {indices.shape}")
        return embedding(self.weight, indices, padding_idx=self.padding_idx)

    def extra_repr(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"
