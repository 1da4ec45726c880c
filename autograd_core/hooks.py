"""Hooks on gradients: called when a tensor's gradient is complete, in the order in which they were registered."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from itertools import count
from typing import Any

from .record import tensor_ops
from .tensor import Tensor

_next_key = count().__next__


class Handle:
    """What registering a hook returns; `remove()` takes the hook away, once or more often."""

    __slots__ = ("_changed", "_hooks", "_key")

    def __init__(self, hooks: dict[int, Any], key: int, changed: Callable[[], None] | None = None):
        self._hooks = hooks
        self._key = key
        self._changed = changed

    def remove(self) -> None:
        self._hooks.pop(self._key, None)
        if self._changed is not None:
            self._changed()

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.remove()


def register(tensor: Tensor, hook: Callable[[Tensor], Tensor | None]) -> Handle:
    """Call `hook(gradient)` when the gradient of `tensor` is complete; a Tensor that it returns replaces it."""
    if not tensor.requires_grad:
        raise RuntimeError("cannot register a hook on a tensor that does not require a gradient")
    owner, slot = (tensor, "_hooks") if tensor.node is None else (tensor.node, "hooks")
    hooks = getattr(owner, slot)
    if hooks is None:
        hooks = {}
        setattr(owner, slot, hooks)
    return add(hooks, hook)


def add(hooks: dict[int, Any], hook: Callable[..., Any], changed: Callable[[], None] | None = None) -> Handle:
    """Put a hook at the end of a table of hooks; the handle takes it out again. `changed` is called after both."""
    key = _next_key()
    hooks[key] = hook
    if changed is not None:
        changed()
    return Handle(hooks, key, changed)


def retain_grad(tensor: Tensor) -> None:
    """Store the gradient of a result in its `.grad`. The node holds the tensor weakly, so no cycle is made."""
    if tensor.node is None:
        return
    reference = weakref.ref(tensor)

    def keep(gradient: Tensor) -> None:
        alive = reference()
        if alive is not None:
            alive.grad = gradient if alive.grad is None else tensor_ops.add(alive.grad, gradient)

    register(tensor, keep)


def run_hooks(hooks: dict[int, Any], g: Any, lifted: bool) -> Any:
    """Pass a cotangent through the hooks, as a Tensor; raw again where the walk is raw.

    A hook may keep what it is given and give what it keeps, and the walk adds into arrays that it takes for its own: so
    both are copies.
    """
    for hook in list(hooks.values()):
        given = _copy(g) if lifted else Tensor(g.copy())
        replaced = hook(given)
        if replaced is None:
            continue
        if not isinstance(replaced, Tensor) or replaced.shape != given.shape or replaced.dtype != given.dtype:
            raise TypeError(
                f"a hook must return None or a gradient like its own, {given.dtype} {given.shape}, got {replaced!r}"
            )
        g = _copy(replaced) if lifted else replaced.array.copy()
    return g


def _copy(g: Tensor) -> Tensor:
    return g if g.requires_grad else tensor_ops.positive(g)  # what lies in a graph is never written into
