"""A step of fine-tuning a BERT-shaped encoder as a classifier: post-norm blocks, exact GELU, cross-entropy, AdamW.

Of the size of MiniLM: embeddings, 6 layers of attention and two dense layers, then the pooler and a classifier on the
first token. Texts are random and fill the context. No dropout: two libraries draw other numbers. PyTorch and retrograd
are given the same class, because they agree in names; the libraries that follow NumPy are given the same function.
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
    "bert-384": {
        "layers": 6, "width": 384, "heads": 12, "context": 128, "batch": 8, "vocabulary": 30522, "classes": 2,
        "batches": 8,
    },
}  # fmt: skip
SMOKE = {
    "bert-384": {
        "layers": 1, "width": 8, "heads": 2, "context": 4, "batch": 2, "vocabulary": 7, "classes": 2, "batches": 2,
    },
}  # fmt: skip
REASONS = {"mygrad": "it has no erf"}

RATE, DECAY = 1e-4, 0.01
EPSILON = 1e-12


def data(size: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Token numbers with a class each, and weights as BERT draws them, under the names of the class below."""
    width = size["width"]
    arrays = {
        "inputs": rng.integers(size["vocabulary"], size=(size["batches"], size["batch"], size["context"])),
        "labels": rng.integers(size["classes"], size=(size["batches"], size["batch"])),
    }
    shapes = {"token.weight": (size["vocabulary"], width), "position.weight": (size["context"], width)}
    norms, dense = ["norm"], {"pooler": (width, width), "classifier": (size["classes"], width)}
    for i in range(size["layers"]):
        norms += [f"blocks.{i}.norm1", f"blocks.{i}.norm2"]
        dense |= {f"blocks.{i}.{name}": (width, width) for name in ("query", "key", "value", "out")}
        dense |= {f"blocks.{i}.up": (4 * width, width), f"blocks.{i}.down": (width, 4 * width)}
    shapes |= {f"{name}.weight": shape for name, shape in dense.items()}
    weights = {name: (rng.normal(size=shape) * 0.02).astype(np.float32) for name, shape in shapes.items()}
    weights |= {f"{name}.bias": np.zeros(shape[0], np.float32) for name, shape in dense.items()}
    weights |= {f"{name}.weight": np.ones(width, np.float32) for name in norms}
    weights |= {f"{name}.bias": np.zeros(width, np.float32) for name in norms}
    return arrays | weights


def gemms(size: dict[str, Any]) -> list[tuple[int, int, int, str]]:
    """Of the dense layers of each block: outputs x W^T, weight gradient g^T x, input gradient g W. Attention's are left
    out: they are small, many, and fused where they can be."""
    rows, width = size["batch"] * size["context"], size["width"]
    dense = ([(width, width)] * 4 + [(width, 4 * width), (4 * width, width)]) * size["layers"]
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
    """The model of PyTorch's or retrograd's layers: token numbers (B, L) → scores (B, classes)."""
    width, heads = size["width"], size["heads"]

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
            self.out = nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
            self.norm1, self.norm2 = nn.LayerNorm(width, eps=EPSILON), nn.LayerNorm(width, eps=EPSILON)

        def forward(self, x: Any) -> Any:
            b, n, _ = x.shape
            q, k, v = (
                layer(x).reshape(b, n, heads, width // heads).permute(0, 2, 1, 3)
                for layer in (self.query, self.key, self.value)
            )
            mixed = F.scaled_dot_product_attention(q, k, v)
            x = self.norm1(x + self.out(mixed.permute(0, 2, 1, 3).reshape(b, n, width)))
            return self.norm2(x + self.down(F.gelu(self.up(x))))

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token = nn.Embedding(size["vocabulary"], width)
            self.position = nn.Embedding(size["context"], width)
            self.norm = nn.LayerNorm(width, eps=EPSILON)
            self.blocks = nn.ModuleList([Block() for _ in range(size["layers"])])
            self.pooler = nn.Linear(width, width)
            self.classifier = nn.Linear(width, size["classes"])

        def forward(self, tokens: Any) -> Any:
            x = self.norm(self.token(tokens) + self.position.weight)
            for block in self.blocks:
                x = block(x)
            return self.classifier(self.pooler(x[:, 0]).tanh())

    return Encoder()


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
        loss = F.cross_entropy(model(x), y)
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
        return F.cross_entropy(model(x), y)

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

    def normed(name: str, x: Any) -> Any:
        x = x - xp.mean(x, axis=-1, keepdims=True)
        deviation = xp.sqrt(xp.mean(x * x, axis=-1, keepdims=True) + EPSILON)
        return x / deviation * w[f"{name}.weight"] + w[f"{name}.bias"]

    def dense(name: str, x: Any) -> Any:
        return xp.matmul(x, w[f"{name}.weight"].T) + w[f"{name}.bias"]

    def split(x: Any) -> Any:
        return xp.transpose(xp.reshape(x, (-1, n, heads, width // heads)), (0, 2, 1, 3))

    x = normed("norm", w["token.weight"][tokens] + w["position.weight"])
    for block in (f"blocks.{i}" for i in range(size["layers"])):
        q, k, v = (split(dense(f"{block}.{name}", x)) for name in ("query", "key", "value"))
        seen = f.softmax(xp.matmul(q, xp.transpose(k, (0, 1, 3, 2))) * (width // heads) ** -0.5)
        mixed = xp.reshape(xp.transpose(xp.matmul(seen, v), (0, 2, 1, 3)), (-1, n, width))
        x = normed(f"{block}.norm1", x + dense(f"{block}.out", mixed))
        x = normed(f"{block}.norm2", x + dense(f"{block}.down", f.gelu(dense(f"{block}.up", x))))
    return dense("classifier", xp.tanh(dense("pooler", x[:, 0])))


def with_jax(size: dict[str, Any], arrays: dict[str, np.ndarray]) -> Callable[[], Any]:
    """The step in JAX, compiled."""
    import jax
    import jax.numpy as jnp

    f = SimpleNamespace(softmax=jax.nn.softmax, gelu=lambda x: jax.nn.gelu(x, approximate=False))

    def loss(weights: Any, x: Any, y: Any) -> Any:
        logs = jax.nn.log_softmax(scores(jnp, f, weights, x, size))
        return -jnp.mean(jnp.take_along_axis(logs, y[..., None], axis=-1))

    pairs = batches(arrays, lambda a: jnp.asarray(a, jnp.int32))
    return jax_step(loss, parameters(arrays), RATE, pairs, DECAY)


def with_autograd(size: dict[str, Any], arrays: dict[str, np.ndarray]) -> Callable[[], Any]:
    """The step in HIPS autograd."""
    import autograd.numpy as anp
    from autograd import value_and_grad
    from autograd.scipy.special import erf

    def softmax(x: Any) -> Any:
        e = anp.exp(x - anp.max(x, axis=-1, keepdims=True))
        return e / anp.sum(e, axis=-1, keepdims=True)

    def gelu(x: Any) -> Any:
        return 0.5 * x * (1 + erf(x * 0.5**0.5))

    f = SimpleNamespace(softmax=softmax, gelu=gelu)

    def loss(weights: Any, x: Any, one_hot: Any) -> Any:
        out = scores(anp, f, weights, x, size)
        out = out - anp.max(out, axis=-1, keepdims=True)
        return anp.mean(anp.log(anp.sum(anp.exp(out), axis=-1)) - anp.sum(out * one_hot, axis=-1))

    weights = {name: array.copy() for name, array in parameters(arrays).items()}
    with_gradients, update = value_and_grad(loss), numpy_adam(list(weights.values()), RATE, DECAY)
    one_hot = np.eye(size["classes"], dtype=np.float32)[arrays["labels"]]
    pairs = itertools.cycle(list(zip(arrays["inputs"], one_hot, strict=True)))

    def step() -> Any:
        value, gradients = with_gradients(weights, *next(pairs))
        update([gradients[name] for name in weights])
        return value

    return step


def with_tinygrad(size: dict[str, Any], arrays: dict[str, np.ndarray]) -> Callable[[], Any]:
    """The step in tinygrad, recorded and replayed."""
    from tinygrad import Tensor
    from tinygrad.nn.optim import AdamW

    heads, n, width = size["heads"], size["context"], size["width"]
    w = {name: Tensor(array) for name, array in parameters(arrays).items()}

    def normed(name: str, x: Any) -> Any:
        return x.layernorm(eps=EPSILON) * w[f"{name}.weight"] + w[f"{name}.bias"]

    def dense(name: str, x: Any) -> Any:
        return x.linear(w[f"{name}.weight"].T, w[f"{name}.bias"])

    def split(x: Any) -> Any:
        return x.reshape(-1, n, heads, width // heads).permute(0, 2, 1, 3)

    def gelu(x: Any) -> Any:
        return 0.5 * x * (1 + (x * 0.5**0.5).erf())

    def loss(tokens: Any, labels: Any) -> Any:
        x = normed("norm", w["token.weight"][tokens] + w["position.weight"])
        for block in (f"blocks.{i}" for i in range(size["layers"])):
            q, k, v = (split(dense(f"{block}.{name}", x)) for name in ("query", "key", "value"))
            mixed = q.scaled_dot_product_attention(k, v).permute(0, 2, 1, 3).reshape(-1, n, width)
            x = normed(f"{block}.norm1", x + dense(f"{block}.out", mixed))
            x = normed(f"{block}.norm2", x + dense(f"{block}.down", gelu(dense(f"{block}.up", x))))
        return dense("classifier", dense("pooler", x[:, 0]).tanh()).sparse_categorical_crossentropy(labels)

    optimizer = AdamW(list(w.values()), lr=RATE, weight_decay=DECAY)
    return tinygrad_step(loss, optimizer, batches(arrays, lambda a: Tensor(a.astype(np.int32)).realize()))


PEERS = {
    **of_retrograd(retrograd_step),
    **of_torch(torch_step),
    "jax": with_jax,
    "autograd": with_autograd,
    "tinygrad": with_tinygrad,
}
