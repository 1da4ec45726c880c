"""What an operation costs beside its arithmetic: chains of about a hundred of them on 8x8 arrays, forward and backward.

`ops-chain` is the mixed one (multiply, tanh); the others repeat one family. One thread: there is nothing to share out.
"""

# The rivals may be absent, and HIPS autograd makes its names at run time.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportPrivateImportUsage=false, reportArgumentType=false, reportOptionalOperand=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

THREADS = 1
TOLERANCE = 1e-3
REASONS = {
    "torch-compiled": "compiled, a chain has no operations left",
    "tinygrad": "compiled, a chain has no operations left",
}

# Rows of the input and how often the body runs; each body has the number of operations that makes a hundred.
WORKLOADS: dict[str, dict[str, Any]] = {
    "ops-chain": {"body": "tanh(h * w)", "rows": 8, "repeat": 50},
    "ops-add": {"body": "h + w", "rows": 8, "repeat": 100},
    "ops-mul": {"body": "h * w", "rows": 8, "repeat": 100},
    "ops-matmul": {"body": "h @ w", "rows": 8, "repeat": 100},
    "ops-relu": {"body": "relu(h)", "rows": 8, "repeat": 100},
    "ops-sum": {"body": "sum(h)", "rows": 8, "repeat": 100},
    "ops-reshape": {"body": "reshape(h)", "rows": 8, "repeat": 50},
    "ops-getitem": {"body": "h[1:]", "rows": 108, "repeat": 100},
    "ops-softmax": {"body": "softmax(h) * w", "rows": 8, "repeat": 50},
}
SMOKE = {name: {"repeat": 2} for name in WORKLOADS}

Body = Callable[[Any, Any], Any]

TORCH: dict[str, Body] = {
    "tanh(h * w)": lambda h, w: (h * w).tanh(),
    "h + w": lambda h, w: h + w,
    "h * w": lambda h, w: h * w,
    "h @ w": lambda h, w: h @ w,
    "relu(h)": lambda h, w: h.relu(),
    "sum(h)": lambda h, w: h.sum(dim=0, keepdim=True),
    "reshape(h)": lambda h, w: h.reshape(4, 16).reshape(8, 8),
    "h[1:]": lambda h, w: h[1:],
    "softmax(h) * w": lambda h, w: h.softmax(dim=-1) * w,
}

# NumPy's names and keywords where they differ from PyTorch's.
RETROGRAD = TORCH | {
    "sum(h)": lambda h, w: h.sum(axis=0, keepdims=True),
    "softmax(h) * w": lambda h, w: h.softmax(axis=-1) * w,
}


def data(size: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """An input and a weight for which a hundred steps neither grow nor shrink to denormals, which would be slow."""
    x = rng.normal(size=(size["rows"], 8))
    w = {
        "h @ w": np.linalg.qr(rng.normal(size=(8, 8)))[0],
        "softmax(h) * w": rng.uniform(3.5, 4.5, size=(8, 8)),
    }.get(size["body"], rng.uniform(0.9, 1.1, size=(8, 8)))
    return {"x": x.astype(np.float32), "w": w.astype(np.float32)}


def gemms(size: dict[str, Any]) -> list[tuple[int, int, int, str]]:
    """None: on 8x8 arrays even a matrix product is all overhead."""
    return []


def with_retrograd(size: dict[str, Any], arrays: dict[str, np.ndarray]) -> Callable[[], Any]:
    """The chain in retrograd."""
    import retrograd as rg

    body, uses_w = RETROGRAD[size["body"]], "w" in size["body"]
    x = rg.tensor(arrays["x"], requires_grad=True)
    w = rg.tensor(arrays["w"], requires_grad=uses_w)

    def step() -> Any:
        x.grad = w.grad = None
        h = x
        for _ in range(size["repeat"]):
            h = body(h, w)
        loss = h.sum()
        loss.backward()
        return (loss, x.grad, w.grad) if uses_w else (loss, x.grad)

    return step


def with_torch(size: dict[str, Any], arrays: dict[str, np.ndarray]) -> Callable[[], Any]:
    """The chain in PyTorch eager."""
    import torch

    body, uses_w = TORCH[size["body"]], "w" in size["body"]
    x = torch.tensor(arrays["x"], requires_grad=True)
    w = torch.tensor(arrays["w"], requires_grad=uses_w)

    def step() -> Any:
        x.grad = w.grad = None
        h = x
        for _ in range(size["repeat"]):
            h = body(h, w)
        loss = h.sum()
        loss.backward()
        return (loss, x.grad, w.grad) if uses_w else (loss, x.grad)

    return step


def with_autograd(size: dict[str, Any], arrays: dict[str, np.ndarray]) -> Callable[[], Any]:
    """The chain in HIPS autograd, which differentiates functions."""
    import autograd.numpy as anp
    from autograd import value_and_grad

    def softmax(h: Any) -> Any:
        e = anp.exp(h - anp.max(h, axis=-1, keepdims=True))
        return e / anp.sum(e, axis=-1, keepdims=True)

    bodies: dict[str, Body] = {
        "tanh(h * w)": lambda h, w: anp.tanh(h * w),
        "h + w": lambda h, w: h + w,
        "h * w": lambda h, w: h * w,
        "h @ w": lambda h, w: h @ w,
        "relu(h)": lambda h, w: anp.maximum(h, 0),
        "sum(h)": lambda h, w: anp.sum(h, axis=0, keepdims=True),
        "reshape(h)": lambda h, w: anp.reshape(anp.reshape(h, (4, 16)), (8, 8)),
        "h[1:]": lambda h, w: h[1:],
        "softmax(h) * w": lambda h, w: softmax(h) * w,
    }
    body, uses_w = bodies[size["body"]], "w" in size["body"]

    def loss(x: Any, w: Any) -> Any:
        h = x
        for _ in range(size["repeat"]):
            h = body(h, w)
        return anp.sum(h)

    with_gradients = value_and_grad(loss, (0, 1) if uses_w else (0,))
    x, w = arrays["x"], arrays["w"]

    def step() -> Any:
        value, gradients = with_gradients(x, w)
        return value, *gradients

    return step


def with_jax(size: dict[str, Any], arrays: dict[str, np.ndarray]) -> Callable[[], Any]:
    """The chain in JAX, compiled whole: what is left of the overhead is one call."""
    import jax
    import jax.numpy as jnp

    bodies: dict[str, Body] = {
        "tanh(h * w)": lambda h, w: jnp.tanh(h * w),
        "relu(h)": lambda h, w: jax.nn.relu(h),
        "sum(h)": lambda h, w: h.sum(axis=0, keepdims=True),
        "softmax(h) * w": lambda h, w: jax.nn.softmax(h) * w,
    }
    body, uses_w = (TORCH | bodies)[size["body"]], "w" in size["body"]

    def loss(x: Any, w: Any) -> Any:
        h = x
        for _ in range(size["repeat"]):
            h = body(h, w)
        return jnp.sum(h)

    with_gradients = jax.jit(jax.value_and_grad(loss, (0, 1) if uses_w else (0,)))
    x, w = jnp.array(arrays["x"]), jnp.array(arrays["w"])

    def step() -> Any:
        value, gradients = jax.block_until_ready(with_gradients(x, w))
        return value, *gradients

    return step


def with_mygrad(size: dict[str, Any], arrays: dict[str, np.ndarray]) -> Callable[[], Any]:
    """The chain in MyGrad."""
    import mygrad as mg
    from mygrad.nnet.activations import relu, softmax

    bodies: dict[str, Body] = {
        "tanh(h * w)": lambda h, w: mg.tanh(h * w),
        "relu(h)": lambda h, w: relu(h),
        "sum(h)": lambda h, w: h.sum(axis=0, keepdims=True),
        "softmax(h) * w": lambda h, w: softmax(h) * w,
    }
    body, uses_w = (TORCH | bodies)[size["body"]], "w" in size["body"]
    x, w = mg.tensor(arrays["x"]), mg.tensor(arrays["w"])

    def step() -> Any:
        x.null_grad()
        w.null_grad()
        h = x
        for _ in range(size["repeat"]):
            h = body(h, w)
        loss = h.sum()
        loss.backward()
        return (loss, mg.tensor(x.grad), mg.tensor(w.grad)) if uses_w else (loss, mg.tensor(x.grad))

    return step


PEERS = {
    "retrograd": with_retrograd,
    "torch": with_torch,
    "jax": with_jax,
    "autograd": with_autograd,
    "mygrad": with_mygrad,
}
