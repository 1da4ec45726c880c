"""Parameters in one piece: a cohort's arrays laid end to end, so that one update serves all of them.

A rule that treats every element for itself does not care where one parameter ends and the next begins. A compiled step
lays the parameters of equal group, dtype and step count into one flat array, and each state of the rule likewise; the
parameters become views of it. Views that were taken of them before are stale from then on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..autograd_core.record import tensor_ops
from ..autograd_core.tensor import Tensor


class Flat:
    """One cohort: `parameter` and `states` are flat Tensors, and the parameters' own arrays are views of them."""

    def __init__(self, parameters: Sequence[Tensor], states: Sequence[dict[str, Any]]):
        self.parameters = list(parameters)
        self.parameter = _joined(self.parameters)
        names = [name for name in states[0] if name != "step"]
        self.kept = {name: [state[name] for state in states] for name in names}
        self.states = {name: _joined(tensors) for name, tensors in self.kept.items()}

    def holds(self, parameters: Sequence[Tensor], states: Sequence[dict[str, Any]]) -> bool:
        """Whether these are the parameters and states, and their arrays still the views that were made here."""
        if len(parameters) != len(self.parameters):
            return False
        pairs = [(self.parameter, a, b) for a, b in zip(self.parameters, parameters, strict=True)]
        for name, flat in self.states.items():
            pairs += [(flat, a, state.get(name)) for a, state in zip(self.kept[name], states, strict=True)]
        return all(a is b and a.backend.shares_memory(flat.array, a.array) for flat, a, b in pairs)

    def gradient(self) -> Tensor:
        """The gradients of all parameters, end to end."""
        return end_to_end(self.parameters)


def end_to_end(parameters: Sequence[Tensor]) -> Tensor:
    """The gradients of all parameters in one row."""
    return tensor_ops.concat(*[tensor_ops.reshape(p.grad, shape=(p.array.size,)) for p in parameters], axis=0)


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    """The values of all tensors in one new array; their own arrays become the pieces of it."""
    flat = tensors[0].backend.empty((sum(t.array.size for t in tensors),), tensors[0].dtype)  # begins on a cache line
    end = 0
    for t in tensors:
        start, end = end, end + math.prod(t.shape)
        flat[start:end] = t.array.reshape(-1)
        t.array = flat[start:end].reshape(t.shape)
        if t.cell is not None:
            t.cell[0] += 1
    return Tensor(flat)
