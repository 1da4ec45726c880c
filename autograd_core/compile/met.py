"""What a compiled function has met inside: modules, leaves and optimizers, whose modes are part of its signatures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..recorder import RecordingError
from ..tensor import TENSOR_TYPES, Tensor
from .tape import Tape

MAX_OPTIMIZERS = 64


class Met:
    """By id, in the order in which they were met."""

    def __init__(self) -> None:
        self.modules: dict[int, Any] = {}
        self.leaves: dict[int, Tensor] = {}
        self.optimizers: dict[int, Any] = {}

    def modes(self) -> tuple[tuple[Any, ...], ...]:
        """What a signature says of them."""
        leaves = self.leaves.values()
        return (
            tuple([(m.training, m._registrations, m._options) for m in self.modules.values()]),
            tuple([(t.requires_grad, t.grad is None, tuple(t._hooks) if t._hooks else None) for t in leaves]),
            tuple([o.structure() for o in self.optimizers.values()]),
        )

    def take_in(self, tape: Tape, arguments: Iterable[Tensor]) -> list[Any]:
        """What a call met. Returns the optimizers among it that were not known."""
        new = [optimizer for key, optimizer in tape.optimizers.items() if key not in self.optimizers]
        if new and len(self.optimizers) >= MAX_OPTIMIZERS:
            raise RecordingError(
                f"a compiled function met more than {MAX_OPTIMIZERS} optimizers, another {type(new[0]).__name__} in "
                "call after call. Make the optimizer once, outside of the function."
            )
        trained = {id(p) for o in new for group in o.param_groups for p in group["params"]}
        self.modules |= tape.modules
        self.optimizers |= tape.optimizers
        self.leaves |= {id(t): t for t in [*tape.leaves(), *[t for t in arguments if id(t) in trained]]}
        return new

    def let_go(self, gone: set[int]) -> list[list[bool]]:
        """Forget those with these ids, tensors by their arrays'. Returns which stay, in the order of `modes`."""
        known: list[dict[int, Any]] = [self.modules, self.leaves, self.optimizers]
        stays = [[id(o.array if is_tensor(o) else o) not in gone for o in each.values()] for each in known]
        for each, marks in zip(known, stays, strict=True):
            for key in [key for key, stay in zip(each, marks, strict=True) if not stay]:
                del each[key]
        return stays


def is_tensor(value: Any) -> bool:
    return type(value) in TENSOR_TYPES or isinstance(value, np.ndarray)
