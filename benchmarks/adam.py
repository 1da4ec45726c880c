"""Adam with decoupled decay, for libraries that bring no optimizer: once in NumPy, in place, and once for JAX, pure.

Imported by files of workloads (`from .adam import …`), inside their builders or at the top: it needs NumPy alone.
"""

# JAX and tinygrad may be absent.
# pyright: reportMissingImports=false, reportPrivateImportUsage=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


def numpy_adam(weights: Sequence[np.ndarray], rate: float, decay: float = 0.0) -> Callable[[Sequence[Any]], None]:
    """A function that takes the gradients of `weights` and changes these in place."""
    means = [np.zeros_like(w) for w in weights]
    squares = [np.zeros_like(w) for w in weights]
    step = 0

    def update(gradients: Sequence[Any]) -> None:
        nonlocal step
        step += 1
        rate_now, root = rate / (1 - BETA1**step), (1 - BETA2**step) ** 0.5
        for w, g, m, v in zip(weights, gradients, means, squares, strict=True):
            m[...] = BETA1 * m + (1 - BETA1) * g
            v[...] = BETA2 * v + (1 - BETA2) * g**2
            if decay:
                w *= 1 - rate * decay
            w -= rate_now * m / (np.sqrt(v) / root + EPSILON)

    return update


def jax_adam(rate: float, decay: float = 0.0) -> tuple[Callable[[Any], Any], Callable[[Any, Any, Any], Any]]:
    """Two pure functions of trees of arrays: init(weights) → state, update(weights, gradients, state) → both anew."""
    import jax
    import jax.numpy as jnp

    def init(weights: Any) -> Any:
        return jax.tree.map(jnp.zeros_like, weights), jax.tree.map(jnp.zeros_like, weights), jnp.zeros(())

    def update(weights: Any, gradients: Any, state: Any) -> Any:
        means, squares, step = state
        step = step + 1
        rate_now, root = rate / (1 - BETA1**step), jnp.sqrt(1 - BETA2**step)
        means = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, means, gradients)
        squares = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, squares, gradients)
        weights = jax.tree.map(
            lambda w, m, v: w * (1 - rate * decay) - rate_now * m / (jnp.sqrt(v) / root + EPSILON),
            weights, means, squares,
        )  # fmt: skip
        return weights, (means, squares, step)

    return init, update


def jax_step(loss: Callable[..., Any], weights: Any, rate: float, batches: Any, decay: float = 0.0) -> Any:
    """A compiled step in JAX's idiom: loss(weights, x, y), its gradients, and Adam, the old weights given up.

    It waits for the result: JAX returns from a call before the work is done.
    """
    import jax
    import jax.numpy as jnp

    weights = jax.tree.map(jnp.array, weights)
    init, update = jax_adam(rate, decay)
    state = init(weights)

    def train(weights: Any, state: Any, x: Any, y: Any) -> Any:
        value, gradients = jax.value_and_grad(loss)(weights, x, y)
        weights, state = update(weights, gradients, state)
        return weights, state, value

    compiled = jax.jit(train, donate_argnums=(0, 1))

    def step() -> Any:
        nonlocal weights, state
        weights, state, value = compiled(weights, state, *next(batches))
        return value.block_until_ready()

    return step


def tinygrad_step(loss: Callable[..., Any], optimizer: Any, batches: Any) -> Any:
    """A step in tinygrad's idiom, recorded at its second call and replayed from the third: loss(x, y), an optimizer."""
    from tinygrad import Context, Device, TinyJit

    @TinyJit
    def train(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        value = loss(x, y).backward()
        return value.realize(*optimizer.schedule_step())

    def step() -> Any:
        with Context(TRAINING=1):
            value = train(*next(batches))
        Device[Device.DEFAULT].synchronize()
        return value

    return step
