"""A training step of a multi-layer perceptron: ReLU, cross-entropy, Adam, on batches that are already tensors.

The labels are random and the batches many, so that the networks do not learn them by heart while they are timed:
gradients that sink to denormal numbers would slow every library, and each in its own way.
"""

# The rivals may be absent, and HIPS autograd makes its names at run time.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

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


def with_retrograd(size: dict[str, Any], arrays: dict[str, np.ndarray]) -> Callable[[], Any]:
    """The step in retrograd, eager."""
    return retrograd_step(size, arrays, lambda train: train)


def with_compiled(size: dict[str, Any], arrays: dict[str, np.ndarray]) -> Callable[[], Any]:
    """The step under `rg.compile`. RETROGRAD_KERNELS says which generator makes the program."""
    import retrograd as rg

    return retrograd_step(size, arrays, rg.compile)


def retrograd_step(size: dict[str, Any], arrays: dict[str, np.ndarray], wrap: Callable[..., Any]) -> Callable[[], Any]:
    """The step in retrograd, its function passed through `wrap`."""
    import retrograd as rg
    from retrograd import nn, optim
    from retrograd.nn import functional as F

    layers: list[Any] = []
    for n, m in itertools.pairwise(size["layers"]):
        layers += [nn.Linear(n, m), nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    model.load_state_dict({name: rg.tensor(array) for name, array in parameters(arrays).items()})
    optimizer = optim.Adam(model.parameters(), lr=RATE)
    pairs = [(rg.tensor(x), rg.tensor(y)) for x, y in zip(arrays["inputs"], arrays["labels"], strict=True)]
    batches = itertools.cycle(pairs)

    @wrap
    def train(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return lambda: train(*next(batches))


def with_torch(size: dict[str, Any], arrays: dict[str, np.ndarray]) -> Callable[[], Any]:
    """The step in PyTorch eager, with the faster one of its Adams."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    layers: list[Any] = []
    for n, m in itertools.pairwise(size["layers"]):
        layers += [nn.Linear(n, m), nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    model.load_state_dict({name: torch.tensor(array) for name, array in parameters(arrays).items()})
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE, fused=True)
    pairs = [(torch.tensor(x), torch.tensor(y)) for x, y in zip(arrays["inputs"], arrays["labels"], strict=True)]
    batches = itertools.cycle(pairs)

    def step() -> Any:
        x, y = next(batches)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step


def with_autograd(size: dict[str, Any], arrays: dict[str, np.ndarray]) -> Callable[[], Any]:
    """The step in HIPS autograd: a loss of a list of arrays, one-hot labels, and Adam written out in NumPy."""
    import autograd.numpy as anp
    from autograd import value_and_grad

    weights = [array.copy() for array in parameters(arrays).values()]
    one_hot = np.eye(size["layers"][-1], dtype=np.float32)[arrays["labels"]]
    batches = itertools.cycle(list(zip(arrays["inputs"], one_hot, strict=True)))

    def loss(weights: list[Any], x: Any, y: Any) -> Any:
        for i in range(0, len(weights), 2):
            x = anp.dot(x, weights[i].T) + weights[i + 1]
            if i + 2 < len(weights):
                x = anp.maximum(x, 0)
        x = x - anp.max(x, axis=1, keepdims=True)
        return anp.mean(anp.log(anp.sum(anp.exp(x), axis=1)) - anp.sum(x * y, axis=1))

    with_gradients = value_and_grad(loss)
    means = [np.zeros_like(w) for w in weights]
    squares = [np.zeros_like(w) for w in weights]
    beta1, beta2, epsilon = 0.9, 0.999, 1e-8
    count = itertools.count(1)

    def step() -> Any:
        x, y = next(batches)
        value, gradients = with_gradients(weights, x, y)
        t = next(count)
        rate = RATE / (1 - beta1**t)
        root = (1 - beta2**t) ** 0.5
        for w, g, m, v in zip(weights, gradients, means, squares, strict=True):
            m[:] = beta1 * m + (1 - beta1) * g
            v[:] = beta2 * v + (1 - beta2) * g**2
            w -= rate * m / (np.sqrt(v) / root + epsilon)
        return value

    return step


PEERS = {
    "retrograd": with_retrograd,
    "retrograd-compiled": with_compiled,
    "torch": with_torch,
    "autograd": with_autograd,
}
