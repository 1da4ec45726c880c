"""A training step of a multi-layer perceptron: ReLU, cross-entropy, Adam, on batches that are already tensors.

The labels are random and the batches many, so that the networks do not learn them by heart while they are timed:
gradients that sink to denormal numbers would slow every library, and each in its own way.
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
from .variants import of_retrograd, of_torch

THREADS = None
TOLERANCE = 1e-3

WORKLOADS: dict[str, dict[str, Any]] = {
    "mlp-64-64-64-10": {"layers": [64, 64, 64, 10], "batch": 64, "batches": 64},
    "mlp-784-128-10": {"layers": [784, 128, 10], "batch": 64, "batches": 32},
    "mlp-784-512-512-10": {"layers": [784, 512, 512, 10], "batch": 128, "batches": 32},
}
SMOKE = {name: {"layers": [12, 8, 10], "batch": 4, "batches": 2} for name in WORKLOADS}

RATE = 1e-3


def data(size: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Inputs, labels, and He-initialised weights under the names that a Sequential of PyTorch gives them."""
    layers, batch, batches = size["layers"], size["batch"], size["batches"]
    arrays = {
        "inputs": rng.normal(size=(batches, batch, layers[0])).astype(np.float32),
        "labels": rng.integers(layers[-1], size=(batches, batch)),
    }
    for i, (n, m) in enumerate(itertools.pairwise(layers)):
        arrays[f"{2 * i}.weight"] = (rng.normal(size=(m, n)) * np.sqrt(2 / n)).astype(np.float32)
        arrays[f"{2 * i}.bias"] = np.zeros(m, np.float32)
    return arrays


def gemms(size: dict[str, Any]) -> list[tuple[int, int, int, str]]:
    """Per layer: outputs x W^T, weight gradient g^T x, and (but for the first layer) input gradient g W."""
    batch, pairs = size["batch"], list(itertools.pairwise(size["layers"]))
    forward = [(batch, n, m, "nt") for n, m in pairs]
    to_weights = [(m, batch, n, "tn") for n, m in pairs]
    to_inputs = [(batch, m, n, "nn") for n, m in pairs[1:]]
    return forward + to_weights + to_inputs


def parameters(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The weights among the arrays."""
    return {name: array for name, array in arrays.items() if name[0].isdigit()}


def batches(arrays: dict[str, np.ndarray], convert: Callable[[Any], Any]) -> Any:
    """Pairs of inputs and labels without end, converted beforehand."""
    return itertools.cycle([(convert(x), convert(y)) for x, y in zip(arrays["inputs"], arrays["labels"], strict=True)])


def modules(nn: Any, size: dict[str, Any]) -> Any:
    """The network of PyTorch's or retrograd's layers: they agree in names."""
    layers: list[Any] = []
    for n, m in itertools.pairwise(size["layers"]):
        layers += [nn.Linear(n, m), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def retrograd_step(size: dict[str, Any], arrays: dict[str, np.ndarray], wrap: Callable[..., Any]) -> Callable[[], Any]:
    """The step in retrograd, its function passed through `wrap`."""
    import retrograd as rg
    from retrograd import nn, optim
    from retrograd.nn import functional as F

    model = modules(nn, size)
    model.load_state_dict({name: rg.tensor(array) for name, array in parameters(arrays).items()})
    optimizer = optim.Adam(model.parameters(), lr=RATE)
    pairs = batches(arrays, rg.tensor)

    @wrap
    def train(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return lambda: train(*next(pairs))


def torch_step(size: dict[str, Any], arrays: dict[str, np.ndarray], wrap: Callable[..., Any]) -> Callable[[], Any]:
    """The step in PyTorch, its loss passed through `wrap`, with the faster one of its Adams."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    model = modules(nn, size)
    model.load_state_dict({name: torch.tensor(array) for name, array in parameters(arrays).items()})
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE, fused=True)
    pairs = batches(arrays, torch.tensor)

    @wrap
    def loss_of(x: Any, y: Any) -> Any:
        return F.cross_entropy(model(x), y)

    def step() -> Any:
        optimizer.zero_grad()
        loss = loss_of(*next(pairs))
        loss.backward()
        optimizer.step()
        return loss

    return step


def with_jax(size: dict[str, Any], arrays: dict[str, np.ndarray]) -> Callable[[], Any]:
    """The step in JAX, compiled."""
    import jax
    import jax.numpy as jnp

    def loss(weights: Any, x: Any, y: Any) -> Any:
        for w, b in weights[:-1]:
            x = jax.nn.relu(x @ w.T + b)
        w, b = weights[-1]
        logs = jax.nn.log_softmax(x @ w.T + b)
        return -jnp.mean(jnp.take_along_axis(logs, y[:, None], axis=1))

    flat = list(parameters(arrays).values())
    pairs = batches(arrays, lambda a: jnp.asarray(a, jnp.int32 if a.dtype.kind == "i" else None))
    return jax_step(loss, list(zip(flat[::2], flat[1::2], strict=True)), RATE, pairs)


def with_autograd(size: dict[str, Any], arrays: dict[str, np.ndarray]) -> Callable[[], Any]:
    """The step in HIPS autograd: a loss of a list of arrays, one-hot labels, and Adam written out in NumPy."""
    import autograd.numpy as anp
    from autograd import value_and_grad

    weights = [array.copy() for array in parameters(arrays).values()]
    one_hot = np.eye(size["layers"][-1], dtype=np.float32)[arrays["labels"]]
    pairs = itertools.cycle(list(zip(arrays["inputs"], one_hot, strict=True)))

    def loss(weights: list[Any], x: Any, y: Any) -> Any:
        for i in range(0, len(weights), 2):
            x = anp.dot(x, weights[i].T) + weights[i + 1]
            if i + 2 < len(weights):
                x = anp.maximum(x, 0)
        x = x - anp.max(x, axis=1, keepdims=True)
        return anp.mean(anp.log(anp.sum(anp.exp(x), axis=1)) - anp.sum(x * y, axis=1))

    with_gradients, update = value_and_grad(loss), numpy_adam(weights, RATE)

    def step() -> Any:
        value, gradients = with_gradients(weights, *next(pairs))
        update(gradients)
        return value

    return step


def with_mygrad(size: dict[str, Any], arrays: dict[str, np.ndarray]) -> Callable[[], Any]:
    """The step in MyGrad."""
    import mygrad as mg
    from mygrad.nnet.activations import relu
    from mygrad.nnet.losses import softmax_crossentropy

    weights = [mg.tensor(array) for array in parameters(arrays).values()]
    update = numpy_adam([w.data for w in weights], RATE)
    pairs = batches(arrays, np.asarray)

    def step() -> Any:
        x, y = next(pairs)
        for i in range(0, len(weights), 2):
            x = mg.matmul(x, weights[i].T) + weights[i + 1]
            if i + 2 < len(weights):
                x = relu(x)
        loss = softmax_crossentropy(x, y)
        loss.backward()
        update([w.grad for w in weights])
        loss.null_grad()
        return loss

    return step


def with_tinygrad(size: dict[str, Any], arrays: dict[str, np.ndarray]) -> Callable[[], Any]:
    """The step in tinygrad, recorded and replayed."""
    from tinygrad import Tensor
    from tinygrad.nn.optim import Adam

    weights = [Tensor(array) for array in parameters(arrays).values()]

    def loss(x: Any, y: Any) -> Any:
        for i in range(0, len(weights), 2):
            x = x.linear(weights[i].T, weights[i + 1])
            if i + 2 < len(weights):
                x = x.relu()
        return x.sparse_categorical_crossentropy(y)

    pairs = batches(arrays, lambda a: Tensor(a.astype(np.int32) if a.dtype.kind == "i" else a).realize())
    return tinygrad_step(loss, Adam(weights, lr=RATE), pairs)


PEERS = {
    **of_retrograd(retrograd_step),
    **of_torch(torch_step),
    "jax": with_jax,
    "autograd": with_autograd,
    "mygrad": with_mygrad,
    "tinygrad": with_tinygrad,
}
