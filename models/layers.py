"""What the families are made of beside `nn`: layers that start as the published models did, and activations by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..autograd_core.context import no_grad
from ..autograd_core.errors import CheckpointError
from ..autograd_core.operations.creation import zeros
from ..autograd_core.record import tensor_ops as ops
from ..autograd_core.tensor import Tensor
from ..nn import Embedding as _Embedding
from ..nn import Linear as _Linear
from ..nn import Module, Parameter, init
from ..nn import functional as F
from ..nn.checks import matching, wrong_last_axis


class Linear(_Linear):
    """nn.Linear whose weight starts normal with standard deviation `std`, and whose bias starts at 0."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, std: float):
        self.std = std
        super().__init__(in_features, out_features, bias)

    def reset_parameters(self) -> None:
        init.normal_(self.weight, std=self.std)
        if self.bias is not None:
            init.zeros_(self.bias)


class Embedding(_Embedding):
    """nn.Embedding whose vectors start normal with standard deviation `std`; that of padding_idx is 0."""

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None, *, std: float):
        self.std = std
        super().__init__(num_embeddings, embedding_dim, padding_idx)

    def reset_parameters(self) -> None:
        init.normal_(self.weight, std=self.std)
        if self.padding_idx is not None:
            with no_grad():
                self.weight[self.padding_idx] = 0


class Conv1D(Module):
    """y = x · weight + bias along the last axis: a Linear whose weight is kept as (in, out), as GPT-2 published it.

    The name is the one that the checkpoints' authors gave it: a convolution over one place at a time.

    Parameters: `weight` (in_features, out_features), `bias` (out_features,).
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, std: float):
        super().__init__()
        self.std = std
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter(zeros(in_features, out_features))
        self.bias = Parameter(zeros(out_features)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights."""
        init.normal_(self.weight, std=self.std)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        x = matching(input, self.weight)
        if x.shape[-1:] != (self.in_features,):
            raise wrong_last_axis(x, self.in_features, "in_features")
        out = ops.matmul(ops.reshape(x, shape=(-1, self.in_features)), self.weight)  # one product for all sequences
        out = out if self.bias is None else ops.add(out, self.bias)
        return ops.reshape(out, shape=(*x.shape[:-1], self.out_features))

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"


def _tanh_gelu(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_python": F.gelu,
    "gelu_new": _tanh_gelu,
    "gelu_fast": _tanh_gelu,
    "gelu_pytorch_tanh": _tanh_gelu,
    "quick_gelu": lambda x: x * F.sigmoid(x * 1.702),
    "relu": F.relu,
    "relu6": F.relu6,
    "leaky_relu": F.leaky_relu,
    "silu": F.silu,
    "swish": F.silu,
    "sigmoid": F.sigmoid,
    "tanh": F.tanh,
    "linear": lambda x: x,
}
"""What config.json may call an activation → the function."""


def activation(name: Any) -> Callable[[Tensor], Tensor]:
    """The activation that config.json names. Raises CheckpointError with the known names for any other."""
    if name not in ACTIVATIONS:
        raise CheckpointError(f"expected one of the activations {', '.join(ACTIVATIONS)}, got {name!r}")
    return ACTIVATIONS[name]
