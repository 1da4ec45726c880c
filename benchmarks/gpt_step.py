"""A training step of a small GPT on batches of token numbers: pre-norm blocks, tanh GELU, cross-entropy, AdamW.

Texts are random, so that nothing is learnt by heart while it is timed. No dropout: two libraries draw other numbers.
PyTorch and retrograd are given the same class, because they agree in names; the libraries that follow NumPy are given
the same function.
"""

# The rivals may be absent, and HIPS autograd makes its names at run time.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportPrivateImportUsage=false, reportArgumentType=false, reportOptionalOperand=false

from __future__ import annotations

import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from .adam import jax_step, numpy_adam, tinygrad_step
from .variants import of_retrograd, of_torch

THREADS = None
TOLERANCE = 1e-3

WORKLOADS: dict[str, dict[str, Any]] = {
    "gpt-128": {"layers": 4, "width": 128, "heads": 4, "context": 64, "batch": 12, "vocabulary": 65, "batches": 16},
    "gpt-256": {"layers": 4, "width": 256, "heads": 4, "context": 128, "batch": 8, "vocabulary": 65, "batches": 16},
}
SMOKE = {
    name: {"layers": 1, "width": 8, "heads": 2, "context": 4, "batch": 2, "vocabulary": 7, "batches": 2}
    for name in WORKLOADS
}

RATE, DECAY = 1e-3, 0.01


def data(size: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Token numbers with their successors, and weights as GPT-2 draws them, under the names of the class below."""
    width, vocabulary, context = size["width"], size["vocabulary"], size["context"]
    texts = rng.integers(vocabulary, size=(size["batches"], size["batch"], context + 1))
    dense = {"qkv": (3 * width, width), "out": (width, width), "up": (4 * width, width), "down": (width, 4 * width)}
    shapes: dict[str, tuple[int, ...]] = {"token.weight": (vocabulary, width), "position.weight": (context, width)}
    for i in range(size["layers"]):
        for name in ("norm1", "norm2"):
            shapes |= {f"blocks.{i}.{name}.weight": (width,), f"blocks.{i}.{name}.bias": (width,)}
        for name, shape in dense.items():
            shapes |= {f"blocks.{i}.{name}.weight": shape, f"blocks.{i}.{name}.bias": shape[:1]}
    shapes |= {"norm.weight": (width,), "norm.bias": (width,), "head.weight": (vocabulary, width)}
    weights = {name: _initial(name, shape, rng) for name, shape in shapes.items()}
    return weights | {"inputs": texts[:, :, :-1].copy(), "labels": texts[:, :, 1:].copy()}


def _initial(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if len(shape) == 1:
        return np.full(shape, float("norm" in name and name.endswith("weight")), np.float32)
    return (rng.normal(size=shape) * 0.02).astype(np.float32)


def gemms(size: dict[str, Any]) -> list[tuple[int, int, int, str]]:
    """Of every dense layer: outputs x W^T, weight gradient g^T x, input gradient g W. Attention's are left out: they
    are small, many, and fused where they can be."""
    rows, width = size["batch"] * size["context"], size["width"]
    dense = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)] * size["layers"]
    dense += [(width, size["vocabulary"])]
    forward = [(rows, n, m, "nt") for n, m in dense]
    to_weights = [(m, rows, n, "tn") for n, m in dense]
    to_inputs = [(rows, m, n, "nn") for n, m in dense]
    return forward + to_weights + to_inputs


def parameters(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The weights among the arrays."""
    return {name: array for name, array in arrays.items() if "." in name}


def batches(arrays: dict[str, np.ndarray], convert: Callable[[Any], Any]) -> Any:
    """Pairs of inputs and labels without end, converted beforehand."""
    return itertools.cycle([(convert(x), convert(y)) for x, y in zip(arrays["inputs"], arrays["labels"], strict=True)])


def network(nn: Any, F: Any, size: dict[str, Any]) -> Any:
    """The model of PyTorch's or retrograd's layers: token numbers (B, L) → scores (B, L, vocabulary)."""
    width, heads = size["width"], size["heads"]

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: Any) -> Any:
            b, n, _ = x.shape
            q, k, v = self.qkv(self.norm1(x)).reshape(b, n, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(mixed.permute(0, 2, 1, 3).reshape(b, n, width))
            return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))

    class GPT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token = nn.Embedding(size["vocabulary"], width)
            self.position = nn.Embedding(size["context"], width)
            self.blocks = nn.ModuleList([Block() for _ in range(size["layers"])])
            self.norm = nn.LayerNorm(width)
            self.head = nn.Linear(width, size["vocabulary"], bias=False)

        def forward(self, tokens: Any) -> Any:
            x = self.token(tokens) + self.position.weight
            for block in self.blocks:
                x = block(x)
            return self.head(self.norm(x))

    return GPT()


def retrograd_step(size: dict[str, Any], arrays: dict[str, np.ndarray], wrap: Callable[..., Any]) -> Callable[[], Any]:
    """The step in retrograd, its function passed through `wrap`."""
    import retrograd as rg
    from retrograd import nn, optim
    from retrograd.nn import functional as F

    model = network(nn, F, size)
    model.load_state_dict({name: rg.tensor(array) for name, array in parameters(arrays).items()})
    optimizer = optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    pairs = batches(arrays, rg.tensor)

    @wrap
    def train(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x).reshape(-1, size["vocabulary"]), y.reshape(-1))
        loss.backward()
        optimizer.step()
        return loss

    return lambda: train(*next(pairs))


def torch_step(size: dict[str, Any], arrays: dict[str, np.ndarray], wrap: Callable[..., Any]) -> Callable[[], Any]:
    """The step in PyTorch, its loss passed through `wrap`, with the faster one of its AdamWs."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    model = network(nn, F, size)
    model.load_state_dict({name: torch.tensor(array) for name, array in parameters(arrays).items()})
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY, fused=True)
    pairs = batches(arrays, torch.tensor)

    @wrap
    def loss_of(x: Any, y: Any) -> Any:
        return F.cross_entropy(model(x).reshape(-1, size["vocabulary"]), y.reshape(-1))

    def step() -> Any:
        optimizer.zero_grad()
        loss = loss_of(*next(pairs))
        loss.backward()
        optimizer.step()
        return loss

    return step


def scores(xp: Any, f: Any, w: dict[str, Any], tokens: Any, size: dict[str, Any]) -> Any:
    """The model in a library that follows NumPy; `f` has `softmax` over the last axis and `gelu`."""
    heads, n, width = size["heads"], size["context"], size["width"]
    future = np.triu(np.full((n, n), -1e9, np.float32), 1)

    def normed(name: str, x: Any) -> Any:
        x = x - xp.mean(x, axis=-1, keepdims=True)
        deviation = xp.sqrt(xp.mean(x * x, axis=-1, keepdims=True) + 1e-5)
        return x / deviation * w[f"{name}.weight"] + w[f"{name}.bias"]

    def dense(name: str, x: Any) -> Any:
        return xp.matmul(x, w[f"{name}.weight"].T) + w[f"{name}.bias"]

    x = w["token.weight"][tokens] + w["position.weight"]
    for i in range(size["layers"]):
        qkv = xp.reshape(dense(f"blocks.{i}.qkv", normed(f"blocks.{i}.norm1", x)), (-1, n, 3, heads, width // heads))
        q, k, v = (xp.transpose(qkv[:, :, j], (0, 2, 1, 3)) for j in range(3))
        seen = f.softmax(xp.matmul(q, xp.transpose(k, (0, 1, 3, 2))) * (width // heads) ** -0.5 + future)
        mixed = xp.reshape(xp.transpose(xp.matmul(seen, v), (0, 2, 1, 3)), (-1, n, width))
        x = x + dense(f"blocks.{i}.out", mixed)
        x = x + dense(f"blocks.{i}.down", f.gelu(dense(f"blocks.{i}.up", normed(f"blocks.{i}.norm2", x))))
    return xp.matmul(normed("norm", x), w["head.weight"].T)


def with_jax(size: dict[str, Any], arrays: dict[str, np.ndarray]) -> Callable[[], Any]:
    """The step in JAX, compiled."""
    import jax
    import jax.numpy as jnp

    f = SimpleNamespace(softmax=jax.nn.softmax, gelu=jax.nn.gelu)

    def loss(weights: Any, x: Any, y: Any) -> Any:
        logs = jax.nn.log_softmax(scores(jnp, f, weights, x, size))
        return -jnp.mean(jnp.take_along_axis(logs, y[..., None], axis=-1))

    pairs = batches(arrays, lambda a: jnp.asarray(a, jnp.int32))
    return jax_step(loss, parameters(arrays), RATE, pairs, DECAY)


def with_autograd(size: dict[str, Any], arrays: dict[str, np.ndarray]) -> Callable[[], Any]:
    """The step in HIPS autograd."""
    import autograd.numpy as anp
    from autograd import value_and_grad

    def softmax(x: Any) -> Any:
        e = anp.exp(x - anp.max(x, axis=-1, keepdims=True))
        return e / anp.sum(e, axis=-1, keepdims=True)

    def gelu(x: Any) -> Any:
        return 0.5 * x * (1 + anp.tanh(0.7978845608 * (x + 0.044715 * x**3)))

    f = SimpleNamespace(softmax=softmax, gelu=gelu)

    def loss(weights: Any, x: Any, one_hot: Any) -> Any:
        out = scores(anp, f, weights, x, size)
        out = out - anp.max(out, axis=-1, keepdims=True)
        return anp.mean(anp.log(anp.sum(anp.exp(out), axis=-1)) - anp.sum(out * one_hot, axis=-1))

    weights = {name: array.copy() for name, array in parameters(arrays).items()}
    with_gradients, update = value_and_grad(loss), numpy_adam(list(weights.values()), RATE, DECAY)
    one_hot = np.eye(size["vocabulary"], dtype=np.float32)[arrays["labels"]]
    pairs = itertools.cycle(list(zip(arrays["inputs"], one_hot, strict=True)))

    def step() -> Any:
        value, gradients = with_gradients(weights, *next(pairs))
        update([gradients[name] for name in weights])
        return value

    return step


def with_mygrad(size: dict[str, Any], arrays: dict[str, np.ndarray]) -> Callable[[], Any]:
    """The step in MyGrad."""
    import mygrad as mg
    from mygrad.nnet.activations import softmax
    from mygrad.nnet.losses import softmax_crossentropy

    def gelu(x: Any) -> Any:
        return 0.5 * x * (1 + mg.tanh(0.7978845608 * (x + 0.044715 * x**3)))

    f = SimpleNamespace(softmax=softmax, gelu=gelu)
    weights = {name: mg.tensor(array) for name, array in parameters(arrays).items()}
    update = numpy_adam([w.data for w in weights.values()], RATE, DECAY)
    pairs = batches(arrays, np.asarray)

    def step() -> Any:
        x, y = next(pairs)
        loss = softmax_crossentropy(scores(mg, f, weights, x, size).reshape(-1, size["vocabulary"]), y.reshape(-1))
        loss.backward()
        update([w.grad for w in weights.values()])
        loss.null_grad()
        return loss

    return step


def with_tinygrad(size: dict[str, Any], arrays: dict[str, np.ndarray]) -> Callable[[], Any]:
    """The step in tinygrad, recorded and replayed."""
    from tinygrad import Tensor
    from tinygrad.nn.optim import AdamW

    heads, n, width = size["heads"], size["context"], size["width"]
    w = {name: Tensor(array) for name, array in parameters(arrays).items()}

    def normed(name: str, x: Any) -> Any:
        return x.layernorm() * w[f"{name}.weight"] + w[f"{name}.bias"]

    def dense(name: str, x: Any) -> Any:
        return x.linear(w[f"{name}.weight"].T, w[f"{name}.bias"])

    def loss(tokens: Any, labels: Any) -> Any:
        x = w["token.weight"][tokens] + w["position.weight"]
        for i in range(size["layers"]):
            qkv = dense(f"blocks.{i}.qkv", normed(f"blocks.{i}.norm1", x)).reshape(-1, n, 3, heads, width // heads)
            q, k, v = (qkv[:, :, j].permute(0, 2, 1, 3) for j in range(3))
            mixed = q.scaled_dot_product_attention(k, v, is_causal=True).permute(0, 2, 1, 3).reshape(-1, n, width)
            x = x + dense(f"blocks.{i}.out", mixed)
            x = x + dense(f"blocks.{i}.down", dense(f"blocks.{i}.up", normed(f"blocks.{i}.norm2", x)).gelu())
        return normed("norm", x).dot(w["head.weight"].T).sparse_categorical_crossentropy(labels)

    optimizer = AdamW(list(w.values()), lr=RATE, weight_decay=DECAY)
    return tinygrad_step(loss, optimizer, batches(arrays, lambda a: Tensor(a.astype(np.int32)).realize()))


PEERS = {
    **of_retrograd(retrograd_step),
    **of_torch(torch_step),
    "jax": with_jax,
    "autograd": with_autograd,
    "mygrad": with_mygrad,
    "tinygrad": with_tinygrad,
}
