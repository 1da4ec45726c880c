"""A training step of a convolutional network on images of 28x28: 3x3 convolutions, ReLU, pooling, dense layers, Adam.

A network is a list of layers; each library has a table of what a layer is in its own idiom. ReLU follows every layer
with weights but the last. Images and labels are random, so that nothing is learnt by heart while it is timed.
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

THREE_CONVOLUTIONS = [
    ["conv", 1, 32], ["pool"], ["conv", 32, 64], ["pool"], ["conv", 64, 128], ["flat"], ["dense", 1152, 128],
    ["dense", 128, 10],
]  # fmt: skip
CASE_STUDY = [
    ["conv", 1, 32], ["conv", 32, 64], ["pool"], ["flat"], ["dense", 64 * 12 * 12, 512], ["dense", 512, 10],
]  # fmt: skip

WORKLOADS: dict[str, dict[str, Any]] = {
    "cnn-32-64-128": {"network": THREE_CONVOLUTIONS, "side": 28, "batch": 64, "batches": 16},
    "cnn-32-64-pool-512": {"network": CASE_STUDY, "side": 28, "batch": 64, "batches": 16},
}
SMOKE = {
    "cnn-32-64-128": {
        "network": [["conv", 1, 2], ["pool"], ["conv", 2, 3], ["flat"], ["dense", 12, 4], ["dense", 4, 10]],
        "side": 10, "batch": 2, "batches": 2,
    },
    "cnn-32-64-pool-512": {
        "network": [["conv", 1, 2], ["conv", 2, 3], ["pool"], ["flat"], ["dense", 12, 10]],
        "side": 8, "batch": 2, "batches": 2,
    },
}  # fmt: skip

RATE = 1e-3


def data(size: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Images (batches, batch, 1, side, side), labels, and weights, "i.weight" of the i-th layer that has any:
    (out, in, 3, 3) or (out, in)."""
    images = rng.normal(size=(size["batches"], size["batch"], 1, size["side"], size["side"])).astype(np.float32)
    arrays = {"inputs": images, "labels": rng.integers(10, size=(size["batches"], size["batch"]))}
    for i, (kind, n, m) in enumerate(layer for layer in size["network"] if len(layer) == 3):
        shape = (m, n, 3, 3) if kind == "conv" else (m, n)
        weight = rng.normal(size=shape) * np.prod(shape[1:]) ** -0.5
        arrays |= {f"{i}.weight": weight.astype(np.float32), f"{i}.bias": np.zeros(m, np.float32)}
    return arrays


def gemms(size: dict[str, Any]) -> list[tuple[int, int, int, str]]:
    """The products of one step, convolutions as products over unfolded windows (the first needs no input gradient)."""
    products, side, first = [], size["side"], True
    for kind, *widths in size["network"]:
        if kind == "pool":
            side //= 2
        if kind == "conv":
            side -= 2
        if kind in ("conv", "dense"):
            n, m = widths[0] * (9 if kind == "conv" else 1), widths[1]
            rows = size["batch"] * (side * side if kind == "conv" else 1)
            products += [(m, n, rows, "nn"), (m, rows, n, "nt")] + ([] if first else [(n, m, rows, "tn")])
            first = False
    return products


def parameters(arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The weights among the arrays: weight and bias of each layer in turn."""
    return [array for name, array in arrays.items() if "." in name]


def batches(arrays: dict[str, np.ndarray], convert: Callable[[Any], Any]) -> Any:
    """Pairs of images and labels without end, converted beforehand."""
    return itertools.cycle([(convert(x), convert(y)) for x, y in zip(arrays["inputs"], arrays["labels"], strict=True)])


def modules(nn: Any, size: dict[str, Any]) -> Any:
    """The network of PyTorch's or retrograd's layers: they agree in names."""
    table: dict[str, Callable[..., list[Any]]] = {
        "conv": lambda n, m: [nn.Conv2d(n, m, 3), nn.ReLU()],
        "pool": lambda: [nn.MaxPool2d(2)],
        "flat": lambda: [nn.Flatten()],
        "dense": lambda n, m: [nn.Linear(n, m), nn.ReLU()],
    }
    layers = [layer for kind, *widths in size["network"] for layer in table[kind](*widths)]
    return nn.Sequential(*layers[:-1])


def retrograd_step(size: dict[str, Any], arrays: dict[str, np.ndarray], wrap: Callable[..., Any]) -> Callable[[], Any]:
    """The step in retrograd, its function passed through `wrap`."""
    import retrograd as rg
    from retrograd import nn, optim
    from retrograd.nn import functional as F

    model = modules(nn, size)
    model.load_state_dict(dict(zip(model.state_dict(), map(rg.tensor, parameters(arrays)), strict=True)))
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
    """The step in PyTorch, its loss passed through `wrap`: channels last and the fused Adam are the faster ones."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    model = modules(nn, size)
    model.load_state_dict(dict(zip(model.state_dict(), map(torch.tensor, parameters(arrays)), strict=True)))
    model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE, fused=True)
    pairs = itertools.cycle(
        [
            (torch.tensor(x).to(memory_format=torch.channels_last), torch.tensor(y))
            for x, y in zip(arrays["inputs"], arrays["labels"], strict=True)
        ]
    )

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


Layers = dict[str, Callable[..., Any]]


def scores(table: Layers, network: list[Any], weights: Any, x: Any) -> Any:
    """Run the network with a library's table of layers: of x alone, or of x, a weight and a bias."""
    rest = iter(weights)
    for i, (kind, *widths) in enumerate(network):
        if widths:
            x = table[kind](x, next(rest), next(rest))
            if i < len(network) - 1:
                x = table["relu"](x)
        else:
            x = table[kind](x)
    return x


def with_jax(size: dict[str, Any], arrays: dict[str, np.ndarray]) -> Callable[[], Any]:
    """The step in JAX, compiled."""
    import jax
    import jax.numpy as jnp

    window = (1, 1, 2, 2)
    table: Layers = {
        "conv": lambda x, w, b: jax.lax.conv(x, w, (1, 1), "VALID") + b[:, None, None],
        "pool": lambda x: jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID"),
        "flat": lambda x: x.reshape(len(x), -1),
        "dense": lambda x, w, b: x @ w.T + b,
        "relu": jax.nn.relu,
    }

    def loss(weights: Any, x: Any, y: Any) -> Any:
        logs = jax.nn.log_softmax(scores(table, size["network"], weights, x))
        return -jnp.mean(jnp.take_along_axis(logs, y[:, None], axis=1))

    pairs = batches(arrays, lambda a: jnp.asarray(a, jnp.int32 if a.dtype.kind == "i" else None))
    return jax_step(loss, parameters(arrays), RATE, pairs)


def with_autograd(size: dict[str, Any], arrays: dict[str, np.ndarray]) -> Callable[[], Any]:
    """The step in HIPS autograd, with the convolution that it brings and pooling by reshaping, as in its examples."""
    import autograd.numpy as anp
    from autograd import value_and_grad
    from autograd.scipy.signal import convolve

    def conv(x: Any, w: Any, b: Any) -> Any:
        turned = w[:, :, ::-1, ::-1]  # a true convolution turns the kernel around
        return convolve(x, turned, axes=([2, 3], [2, 3]), dot_axes=([1], [1]), mode="valid") + b[:, None, None]

    def pool(x: Any) -> Any:
        n, c, h, w = x.shape
        x = x[:, :, : h // 2 * 2, : w // 2 * 2]
        return anp.max(anp.max(anp.reshape(x, (n, c, h // 2, 2, w // 2, 2)), axis=5), axis=3)

    table: Layers = {
        "conv": conv,
        "pool": pool,
        "flat": lambda x: anp.reshape(x, (len(x), -1)),
        "dense": lambda x, w, b: anp.dot(x, w.T) + b,
        "relu": lambda x: anp.maximum(x, 0),
    }

    def loss(weights: Any, x: Any, one_hot: Any) -> Any:
        out = scores(table, size["network"], weights, x)
        out = out - anp.max(out, axis=1, keepdims=True)
        return anp.mean(anp.log(anp.sum(anp.exp(out), axis=1)) - anp.sum(out * one_hot, axis=1))

    weights = [array.copy() for array in parameters(arrays)]
    with_gradients, update = value_and_grad(loss), numpy_adam(weights, RATE)
    pairs = itertools.cycle(list(zip(arrays["inputs"], np.eye(10, dtype=np.float32)[arrays["labels"]], strict=True)))

    def step() -> Any:
        value, gradients = with_gradients(weights, *next(pairs))
        update(gradients)
        return value

    return step


def with_mygrad(size: dict[str, Any], arrays: dict[str, np.ndarray]) -> Callable[[], Any]:
    """The step in MyGrad, whose pooling needs windows that fill the image."""
    import mygrad as mg
    from mygrad.nnet.activations import relu
    from mygrad.nnet.layers import conv_nd, max_pool
    from mygrad.nnet.losses import softmax_crossentropy

    table: Layers = {
        "conv": lambda x, w, b: conv_nd(x, w, stride=1) + b.reshape(-1, 1, 1),
        "pool": lambda x: max_pool(x[:, :, : x.shape[2] // 2 * 2, : x.shape[3] // 2 * 2], (2, 2), stride=2),
        "flat": lambda x: x.reshape(len(x), -1),
        "dense": lambda x, w, b: mg.matmul(x, w.T) + b,
        "relu": relu,
    }
    weights = [mg.tensor(array) for array in parameters(arrays)]
    update = numpy_adam([w.data for w in weights], RATE)
    pairs = batches(arrays, np.asarray)

    def step() -> Any:
        x, y = next(pairs)
        loss = softmax_crossentropy(scores(table, size["network"], weights, x), y)
        loss.backward()
        update([w.grad for w in weights])
        loss.null_grad()
        return loss

    return step


def with_tinygrad(size: dict[str, Any], arrays: dict[str, np.ndarray]) -> Callable[[], Any]:
    """The step in tinygrad, recorded and replayed."""
    from tinygrad import Tensor
    from tinygrad.nn.optim import Adam

    table: Layers = {
        "conv": lambda x, w, b: x.conv2d(w, b),
        "pool": lambda x: x.max_pool2d(),
        "flat": lambda x: x.flatten(1),
        "dense": lambda x, w, b: x.linear(w.T, b),
        "relu": lambda x: x.relu(),
    }
    weights = [Tensor(array) for array in parameters(arrays)]

    def loss(x: Any, y: Any) -> Any:
        return scores(table, size["network"], weights, x).sparse_categorical_crossentropy(y)

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
