"""An update rule that is recorded without being computed.

A recorded step would otherwise run the rule operation by operation on flat arrays as large as the model, a new array
for each. Here the rule runs on stand-ins, which have a shape and no memory; the numbers come from the same few calls
in place as in a plain step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd_core.record import REGISTRY
from ..autograd_core.recorder import Recorder
from ..autograd_core.tensor import Tensor
from .program import NotElementwise


class NotingOps:
    """`ops` for Tensors: each operation is entered in a recording, and its result is a stand-in."""

    raw = False

    def __init__(self, recorder: Recorder):
        self.recorder = recorder

    def __getattr__(self, name: str) -> Callable[..., Tensor]:
        rec = REGISTRY.get(name)
        if rec is None or rec.kind != "elementwise" or rec.attributes:
            raise NotElementwise(name)

        def note(*operands: Any) -> Tensor:
            arrays = [o.array if isinstance(o, Tensor) else o for o in operands]
            ones = [np.ones((), a.dtype) if isinstance(a, np.ndarray) else a for a in arrays]
            one = rec.as_written(np.ndarray)(*ones)
            result = Tensor(np.broadcast_to(np.asarray(one), np.broadcast_shapes(*map(np.shape, arrays))))
            self.recorder.record(rec, operands, {}, [result], None)
            return result

        return note
