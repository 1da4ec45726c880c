"""Activation functions as layers: what stands between two linear maps, so that they do not collapse into one."""

from __future__ import annotations

from ..autograd_core.tensor import Tensor
from . import functional as F
from .module import Module


class ReLU(Module):
    """max(x, 0). `inplace` is taken for PyTorch's sake and changes nothing.

    >>> import retrograd as rg
    >>> rg.nn.ReLU()(rg.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """

    def __init__(self, inplace: bool = False):
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return F.relu(input)

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


class ReLU6(ReLU):
    """min(max(x, 0), 6), whose values small number formats can hold (Howard et al. 2017).

    >>> import retrograd as rg
    >>> rg.nn.ReLU6()(rg.tensor([-1.0, 2.0, 9.0]))
    tensor([0., 2., 6.])
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.relu6(input)


class Hardtanh(Module):
    """x, but not below min_val nor above max_val.

    >>> import retrograd as rg
    >>> rg.nn.Hardtanh()(rg.tensor([-3.0, 0.5, 3.0]))
    tensor([-1. ,  0.5,  1. ])
    """

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False):
        super().__init__()
        if not min_val < max_val:
            raise ValueError(f"min_val must lie below max_val, got {min_val} and {max_val}")
        self.min_val = min_val
        self.max_val = max_val
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return F.hardtanh(input, self.min_val, self.max_val)

    def extra_repr(self) -> str:
        return f"min_val={self.min_val}, max_val={self.max_val}" + (", inplace=True" if self.inplace else "")


class LeakyReLU(Module):
    """x for positive x, negative_slope · x otherwise (Maas et al. 2013).

    >>> import retrograd as rg
    >>> rg.nn.LeakyReLU(0.1)(rg.tensor([-1.0, 2.0]))
    tensor([-0.1,  2. ])
    """

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False):
        super().__init__()
        self.negative_slope = negative_slope
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return F.leaky_relu(input, self.negative_slope)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}" + (", inplace=True" if self.inplace else "")


class ELU(Module):
    """x for positive x, alpha · (exp(x) - 1) otherwise (Clevert et al. 2016).

    >>> import retrograd as rg
    >>> rg.nn.ELU()(rg.tensor([-1000.0, 2.0]))
    tensor([-1.,  2.])
    """

    def __init__(self, alpha: float = 1.0, inplace: bool = False):
        super().__init__()
        self.alpha = alpha
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return F.elu(input, self.alpha)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}" + (", inplace=True" if self.inplace else "")


class GELU(Module):
    """x · Φ(x) (Hendrycks and Gimpel 2016); approximate="tanh" for the form that GPT-2 uses.

    >>> import retrograd as rg
    >>> rg.nn.GELU()(rg.tensor([0.0, 1000.0]))
    tensor([   0., 1000.])
    """

    def __init__(self, approximate: str = "none"):
        super().__init__()
        self.approximate = approximate

    def forward(self, input: Tensor) -> Tensor:
        return F.gelu(input, self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class SiLU(Module):
    """x · sigmoid(x) (Elfwing et al. 2017), also called swish.

    >>> import retrograd as rg
    >>> rg.nn.SiLU()(rg.tensor([0.0, 1000.0]))
    tensor([   0., 1000.])
    """

    def __init__(self, inplace: bool = False):
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return F.silu(input)

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


class Sigmoid(Module):
    """1 / (1 + exp(-x)).

    >>> import retrograd as rg
    >>> rg.nn.Sigmoid()(rg.tensor([-1000.0, 0.0, 1000.0]))
    tensor([0. , 0.5, 1. ])
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.sigmoid(input)


class LogSigmoid(Module):
    """log(sigmoid(x)), without overflow.

    >>> import retrograd as rg
    >>> rg.nn.LogSigmoid()(rg.tensor([-1000.0, -2000.0]))
    tensor([-1000., -2000.])
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.logsigmoid(input)


class Tanh(Module):
    """The hyperbolic tangent.

    >>> import retrograd as rg
    >>> rg.nn.Tanh()(rg.tensor([-1000.0, 0.0, 1000.0]))
    tensor([-1.,  0.,  1.])
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.tanh(input)


class Softplus(Module):
    """log(1 + exp(beta · x)) / beta, and x itself where beta · x is above threshold.

    >>> import retrograd as rg
    >>> rg.nn.Softplus()(rg.tensor([-1000.0, 30.0]))
    tensor([ 0., 30.])
    """

    def __init__(self, beta: float = 1.0, threshold: float = 20.0):
        super().__init__()
        self.beta = beta
        self.threshold = threshold

    def forward(self, input: Tensor) -> Tensor:
        return F.softplus(input, self.beta, self.threshold)

    def extra_repr(self) -> str:
        return f"beta={self.beta}, threshold={self.threshold}"


class _AlongAxis(Module):
    """A function of the values along one axis, the last one if `dim` is None."""

    def __init__(self, dim: int | None = None, *, axis: int | None = None):
        super().__init__()
        self.dim = axis if dim is None else dim

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Softmax(_AlongAxis):
    """exp(x) / Σ exp(x) along `dim` (or `axis`): scores become probabilities.

    Not in front of CrossEntropyLoss, which takes the scores themselves.

    >>> import retrograd as rg
    >>> rg.nn.Softmax(dim=-1)(rg.tensor([0.0, 0.0]))
    tensor([0.5, 0.5])
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.softmax(input, self.dim)


class LogSoftmax(_AlongAxis):
    """log(softmax(x)) along `dim` (or `axis`).

    >>> import retrograd as rg
    >>> rg.nn.LogSoftmax(dim=-1)(rg.tensor([0.0, 0.0]))
    tensor([-0.6931472, -0.6931472])
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.log_softmax(input, self.dim)
