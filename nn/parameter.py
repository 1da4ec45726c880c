"""Parameter: a leaf that a Module registers when it is assigned to one of its attributes."""

from __future__ import annotations

from typing import Any

from ..autograd_core.errors import one_frame
from ..autograd_core.tensor import Tensor, tensor


class Parameter(Tensor):
    """A tensor that is trained: assigned to an attribute of a Module it appears in `module.parameters()`.

    Args:
        data: a leaf Tensor, whose memory it shares, or anything that `rg.tensor` takes, which is copied.
        requires_grad: False makes it frozen from the start.
    Raises:
        TypeError: integers or booleans with requires_grad=True.

    >>> import retrograd as rg
    >>> rg.nn.Parameter([1.0, 2.0])
    parameter([1., 2.], requires_grad=True)
    """

    __slots__ = ()

    @one_frame
    def __init__(self, data: Any, requires_grad: bool = True):
        source = data if isinstance(data, Tensor) else tensor(data)
        # The value of a node belongs to its graph, which a training step must not change.
        super().__init__(source.array if source.cell is not None else source.array.copy(), requires_grad)
        if source.cell is not None:
            self.cell = source.cell
