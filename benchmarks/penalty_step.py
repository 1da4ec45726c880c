"""A step with a gradient penalty: the loss holds the norm of the input gradient, so that it is differentiated twice.

For every example the gradient of its cross-entropy by its input should have norm one (Gulrajani et al. 2017, for
critics): loss = mean cross-entropy + mean (norm - 1)^2. A smooth activation, or second derivatives would vanish.
"""

# The rivals may be absent, and HIPS autograd makes its names at run time.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportPrivateImportUsage=false, reportArgumentType=false, reportOptionalOperand=false

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from .adam import jax_step, numpy_adam, tinygrad_step
from .variants import of_retrograd

THREADS = None
TOLERANCE = 1e-3

WORKLOADS: dict[str, dict[str, Any]] = {
    f"penalty-{activation}": {"layers": [784, 256, 256, 10], "batch": 64, "batches": 32, "activation": activation}
    for activation in ("tanh", "softplus")
}
SMOKE = {name: {"layers": [12, 8, 8, 10], "batch": 4, "batches": 2} for name in WORKLOADS}
REASONS = {
    "torch-compiled": "torch.compile has no double backward",
    "mygrad": "it has no gradients of gradients",
}

RATE = 1e-3


def data(size: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Inputs, labels, and weights under the names that a Sequential of PyTorch gives them."""
    layers, batch, batches = size["layers"], size["batch"], size["batches"]
    arrays = {
        "inputs": rng.normal(size=(batches, batch, layers[0])).astype(np.float32),
        "labels": rng.integers(layers[-1], size=(batches, batch)),
    }
    for i, (n, m) in enumerate(itertools.pairwise(layers)):
        arrays[f"{2 * i}.weight"] = (rng.normal(size=(m, n)) * n**-0.5).astype(np.float32)
        arrays[f"{2 * i}.bias"] = np.zeros(m, np.float32)
    return arrays


def gemms(size: dict[str, Any]) -> list[tuple[int, int, int, str]]:
    """Per layer: outputs x W^T, input gradient g W, their two counterparts in the second walk, and the weight gradient,
    which is the sum of two products."""
    batch, pairs = size["batch"], list(itertools.pairwise(size["layers"]))
    products = []
    for i, (n, m) in enumerate(pairs):
        products += [(batch, n, m, "nt"), (batch, m, n, "nn"), (batch, n, m, "nt"), *[(m, batch, n, "tn")] * 2]
        products += [(batch, m, n, "nn")] if i else []
    return products


def parameters(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The weights among the arrays."""
    return {name: array for name, array in arrays.items() if name[0].isdigit()}


def batches(arrays: dict[str, np.ndarray], convert: Callable[[Any], Any]) -> Any:
    """Pairs of inputs and labels without end, converted beforehand."""
    return itertools.cycle([(convert(x), convert(y)) for x, y in zip(arrays["inputs"], arrays["labels"], strict=True)])


def modules(nn: Any, size: dict[str, Any]) -> Any:
    """The network of PyTorch's or retrograd's layers: they agree in names."""
    activation = {"tanh": nn.Tanh, "softplus": nn.Softplus}[size["activation"]]
    layers: list[Any] = []
    for n, m in itertools.pairwise(size["layers"]):
        layers += [nn.Linear(n, m), activation()]
    return nn.Sequential(*layers[:-1])


def retrograd_step(size: dict[str, Any], arrays: dict[str, np.ndarray], wrap: Callable[..., Any]) -> Callable[[], Any]:
    """The step in retrograd, its function passed through `wrap`."""
    import retrograd as rg
    from retrograd import nn, optim
    from retrograd.nn import functional as F

    model = modules(nn, size)
    model.load_state_dict({name: rg.tensor(array) for name, array in parameters(arrays).items()})
    weights = list(model.parameters())
    optimizer = optim.Adam(weights, lr=RATE)
    pairs = batches(arrays, rg.tensor)

    @wrap
    def train(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        x = x.detach().requires_grad_()
        total = F.cross_entropy(model(x), y, reduction="sum")
        total.backward(create_graph=True, inputs=[x])
        penalty = (((x.grad**2).sum(axis=1).sqrt() - 1) ** 2).mean()
        loss = total / len(x) + penalty
        loss.backward(inputs=weights)
        optimizer.step()
        return loss

    return lambda: train(*next(pairs))


def with_torch(size: dict[str, Any], arrays: dict[str, np.ndarray]) -> Callable[[], Any]:
    """The step in PyTorch eager, with the faster one of its Adams."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    model = modules(nn, size)
    model.load_state_dict({name: torch.tensor(array) for name, array in parameters(arrays).items()})
    weights = list(model.parameters())
    optimizer = torch.optim.Adam(weights, lr=RATE, fused=True)
    pairs = batches(arrays, torch.tensor)

    def step() -> Any:
        x, y = next(pairs)
        optimizer.zero_grad()
        x = x.detach().requires_grad_()
        total = F.cross_entropy(model(x), y, reduction="sum")
        (gradient,) = torch.autograd.grad(total, x, create_graph=True)
        penalty = ((gradient.norm(dim=1) - 1) ** 2).mean()
        loss = total / len(x) + penalty
        loss.backward(inputs=weights)
        optimizer.step()
        return loss

    return step


def with_jax(size: dict[str, Any], arrays: dict[str, np.ndarray]) -> Callable[[], Any]:
    """The step in JAX, compiled: the inner gradient is a function like any other."""
    import jax
    import jax.numpy as jnp

    activation = {"tanh": jnp.tanh, "softplus": jax.nn.softplus}[size["activation"]]

    def total(x: Any, weights: Any, y: Any) -> Any:
        for w, b in weights[:-1]:
            x = activation(x @ w.T + b)
        w, b = weights[-1]
        logs = jax.nn.log_softmax(x @ w.T + b)
        return -jnp.sum(jnp.take_along_axis(logs, y[:, None], axis=1))

    def loss(weights: Any, x: Any, y: Any) -> Any:
        value, gradient = jax.value_and_grad(total)(x, weights, y)
        return value / len(x) + jnp.mean((jnp.linalg.norm(gradient, axis=1) - 1) ** 2)

    flat = list(parameters(arrays).values())
    pairs = batches(arrays, lambda a: jnp.asarray(a, jnp.int32 if a.dtype.kind == "i" else None))
    return jax_step(loss, list(zip(flat[::2], flat[1::2], strict=True)), RATE, pairs)


def with_autograd(size: dict[str, Any], arrays: dict[str, np.ndarray]) -> Callable[[], Any]:
    """The step in HIPS autograd, whose gradients are functions too."""
    import autograd.numpy as anp
    from autograd import elementwise_grad, value_and_grad

    activation = {"tanh": anp.tanh, "softplus": lambda x: anp.logaddexp(x, np.float32(0))}[size["activation"]]

    def losses(x: Any, weights: list[Any], one_hot: Any) -> Any:
        for i in range(0, len(weights), 2):
            x = anp.dot(x, weights[i].T) + weights[i + 1]
            if i + 2 < len(weights):
                x = activation(x)
        x = x - anp.max(x, axis=1, keepdims=True)
        return anp.log(anp.sum(anp.exp(x), axis=1)) - anp.sum(x * one_hot, axis=1)

    def loss(weights: list[Any], x: Any, one_hot: Any) -> Any:
        gradient = elementwise_grad(losses)(x, weights, one_hot)
        penalty = anp.mean((anp.sqrt(anp.sum(gradient**2, axis=1)) - 1) ** 2)
        return anp.mean(losses(x, weights, one_hot)) + penalty

    weights = [array.copy() for array in parameters(arrays).values()]
    with_gradients, update = value_and_grad(loss), numpy_adam(weights, RATE)
    one_hot = np.eye(size["layers"][-1], dtype=np.float32)[arrays["labels"]]
    pairs = itertools.cycle(list(zip(arrays["inputs"], one_hot, strict=True)))

    def step() -> Any:
        value, gradients = with_gradients(weights, *next(pairs))
        update(gradients)
        return value

    return step


def with_tinygrad(size: dict[str, Any], arrays: dict[str, np.ndarray]) -> Callable[[], Any]:
    """The step in tinygrad, recorded and replayed."""
    from tinygrad import Tensor
    from tinygrad.nn.optim import Adam

    weights = [Tensor(array) for array in parameters(arrays).values()]

    def loss(x: Any, y: Any) -> Any:
        h = x
        for i in range(0, len(weights), 2):
            h = h.linear(weights[i].T, weights[i + 1])
            if i + 2 < len(weights):
                h = getattr(h, size["activation"])()
        total = h.sparse_categorical_crossentropy(y, reduction="sum")
        (gradient,) = total.gradient(x)
        return total / x.shape[0] + ((gradient.square().sum(axis=1).sqrt() - 1) ** 2).mean()

    pairs = batches(arrays, lambda a: Tensor(a.astype(np.int32) if a.dtype.kind == "i" else a).realize())
    return tinygrad_step(loss, Adam(weights, lr=RATE), pairs)


PEERS = {
    **of_retrograd(retrograd_step),
    "torch": with_torch,
    "jax": with_jax,
    "autograd": with_autograd,
    "tinygrad": with_tinygrad,
}
