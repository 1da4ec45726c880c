"""The rows of PEERS that a workload's builder gives when it passes its function through `wrap`: eager, and compiled.

Imported by files of workloads (`from .variants import …`): it needs nothing.
"""

# PyTorch may be absent.
# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Builder = Callable[[dict[str, Any], Any], Callable[[], Any]]
Wrapping = Callable[[dict[str, Any], Any, Callable[..., Any]], Callable[[], Any]]


def of_retrograd(step: Wrapping) -> dict[str, Builder]:
    """Eager, and the whole step under `rg.compile`, on either tier: which one is a matter of the peer's environment."""

    def compiled(size: dict[str, Any], arrays: Any) -> Callable[[], Any]:
        import retrograd as rg

        return step(size, arrays, rg.compile)

    return {"retrograd": _eager(step), "retrograd-numpy": compiled, "retrograd-jit": compiled}


def of_torch(step: Wrapping) -> dict[str, Builder]:
    """Eager, the same where glibc keeps freed memory (a matter of the environment), and the loss or the model under
    `torch.compile`."""

    def compiled(size: dict[str, Any], arrays: Any) -> Callable[[], Any]:
        import torch

        return step(size, arrays, torch.compile)

    return {"torch": _eager(step), "torch-keeping": _eager(step), "torch-compiled": compiled}


def _eager(step: Wrapping) -> Builder:
    return lambda size, arrays: step(size, arrays, lambda function: function)
