"""A step of fine-tuning a published BERT as a classifier: LoRA or all weights, mean pooling, clipping, AdamW.

Of the size of MiniLM, with its real weights where RETROGRAD_MINILM names a folder that holds them, else with random
ones. Texts are random and padded, as those that a loader has sorted by length are. Ours is the model that
`retrograd finetune` trains; PyTorch's is written from its layers. No dropout: two libraries draw other numbers.
"""

# PyTorch may be absent.
# pyright: reportMissingImports=false

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .variants import of_retrograd, of_torch

THREADS = None
TOLERANCE = 1e-3

WORKLOADS: dict[str, dict[str, Any]] = {
    name: {
        "layers": 6, "width": 384, "heads": 12, "inner": 1536, "vocabulary": 30522, "places": 512, "context": 64,
        "batch": 32, "classes": 6, "rank": rank, "alpha": 16, "batches": 8, "published": True,
    }
    for name, rank in (("finetune-lora", 8), ("finetune-full", 0))
}  # fmt: skip
SMOKE = {
    name: {
        "layers": 1, "width": 8, "heads": 2, "inner": 16, "vocabulary": 17, "places": 8, "context": 4, "batch": 2,
        "classes": 2, "batches": 2, "published": False,
    }
    for name in WORKLOADS
}  # fmt: skip
REASONS = dict.fromkeys(
    ("jax", "autograd", "mygrad", "tinygrad"), "this model is written in PyTorch alone; bert-384 has its layers in all"
)

RATE, DECAY, CLIP = 1e-4, 0.01, 1.0
EPSILON = 1e-12
ADAPTED = ("query", "value")

# What the weights are called here → in the published checkpoint, for the whole and for one block.
WHOLE = {
    "token": "embeddings.word_embeddings",
    "position": "embeddings.position_embeddings",
    "segment": "embeddings.token_type_embeddings",
    "norm": "embeddings.LayerNorm",
}
BLOCK = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "out": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "norm2": "output.LayerNorm",
}


def data(size: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Token numbers with their masks and a class each, and the weights under the names of PyTorch's model below."""
    shape = size["batches"], size["batch"], size["context"]
    lengths = rng.integers(max(1, size["context"] * 3 // 4), size["context"] + 1, size=shape[:2])
    mask = np.arange(size["context"]) < lengths[..., None]
    arrays = {
        "inputs": np.where(mask, rng.integers(size["vocabulary"], size=shape), 0),
        "mask": mask.astype(np.int64),
        "labels": rng.integers(size["classes"], size=shape[:2]),
    }
    published = os.environ.get("RETROGRAD_MINILM")
    weights = _random(size, rng)
    if published and size["published"]:
        known = published_weights(Path(published) / "model.safetensors")
        weights |= {name: known[published_name(name)] for name in weights if not name.startswith("classifier")}
    return arrays | weights | _adapters(size, rng)


def _random(size: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Weights as BERT draws them."""
    width, inner = size["width"], size["inner"]
    shapes = {"token.weight": (size["vocabulary"], width), "position.weight": (size["places"], width)}
    shapes |= {"segment.weight": (2, width)}
    norms, dense = ["norm"], {"classifier": (size["classes"], width)}
    for i in range(size["layers"]):
        norms += [f"blocks.{i}.norm1", f"blocks.{i}.norm2"]
        dense |= {f"blocks.{i}.{name}": (width, width) for name in ("query", "key", "value", "out")}
        dense |= {f"blocks.{i}.up": (inner, width), f"blocks.{i}.down": (width, inner)}
    shapes |= {f"{name}.weight": shape for name, shape in dense.items()}
    weights = {name: (rng.normal(size=shape) * 0.02).astype(np.float32) for name, shape in shapes.items()}
    weights |= {f"{name}.bias": np.zeros(shape[0], np.float32) for name, shape in dense.items()}
    weights |= {f"{name}.weight": np.ones(width, np.float32) for name in norms}
    weights |= {f"{name}.bias": np.zeros(width, np.float32) for name in norms}
    return weights


def _adapters(size: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """LoRA's two matrices beside queries and values; B not quite zero, so that both have a gradient from the start."""
    shapes = {"lora_A": (size["rank"], size["width"]), "lora_B": (size["width"], size["rank"])}
    return {
        f"blocks.{i}.{layer}.{matrix}.weight": (rng.normal(size=shape) * 0.02).astype(np.float32)
        for i in range(size["layers"] if size["rank"] else 0)
        for layer in ADAPTED
        for matrix, shape in shapes.items()
    }


def published_name(name: str) -> str:
    """The checkpoint's name of a weight.

    >>> published_name("blocks.3.query.bias"), published_name("token.weight")
    ('encoder.layer.3.attention.self.query.bias', 'embeddings.word_embeddings.weight')
    """
    first, *rest = name.split(".")
    if first != "blocks":
        return ".".join([WHOLE[first], *rest])
    number, part, *rest = rest
    return ".".join(["encoder.layer", number, BLOCK[part], *rest])


def beside_adapters(name: str, size: dict[str, Any]) -> str:
    """The name of a weight in a model where adapters, if there are any, stand around the layers that they adapt."""
    layer, _, last = name.rpartition(".")
    return f"{layer}.base_layer.{last}" if size["rank"] and layer.endswith(ADAPTED) else name


def published_weights(file: Path) -> dict[str, np.ndarray]:
    """The float32 arrays of a safetensors file: this file reads it alone, since a rival's process loads it too."""
    content = file.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    found = {}
    for name, about in json.loads(content[8:start]).items():
        if about.get("dtype") == "F32":
            low, high = (start + offset for offset in about["data_offsets"])
            found[name] = np.frombuffer(content[low:high], np.float32).reshape(about["shape"])
    return found


def gemms(size: dict[str, Any]) -> list[tuple[int, int, int, str]]:
    """Of the dense layers of each block: outputs x W^T, input gradient g W, and where all is trained the weight
    gradient g^T x. Attention's are left out: they are small, many, and fused where they can be; so are LoRA's."""
    rows, width, inner = size["batch"] * size["context"], size["width"], size["inner"]
    dense = ([(width, width)] * 4 + [(width, inner), (inner, width)]) * size["layers"]
    forward = [(rows, n, m, "nt") for n, m in dense]
    to_weights = [] if size["rank"] else [(m, rows, n, "tn") for n, m in dense]
    # Below the first layer's adapters nothing is trained.
    to_inputs = [(rows, m, n, "nn") for n, m in (dense[3:] if size["rank"] else dense)]
    return forward + to_weights + to_inputs


def parameters(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The weights among the arrays that are trained: all, or with adapters these and the classifier."""
    adapted = any("lora" in name for name in arrays)
    return {n: a for n, a in arrays.items() if "." in n and (not adapted or "lora" in n or n.startswith("classifier"))}


def batches(arrays: dict[str, np.ndarray], convert: Callable[[Any], Any]) -> Any:
    """Triples of tokens, mask and labels without end, converted beforehand."""
    rows = zip(arrays["inputs"], arrays["mask"], arrays["labels"], strict=True)
    return itertools.cycle([tuple(convert(part) for part in row) for row in rows])


def retrograd_step(size: dict[str, Any], arrays: dict[str, np.ndarray], wrap: Callable[..., Any]) -> Callable[[], Any]:
    """The step in retrograd, its function passed through `wrap`."""
    import retrograd as rg
    from retrograd import models, nn, optim

    config = models.BertConfig(
        vocab_size=size["vocabulary"],
        hidden_size=size["width"],
        num_hidden_layers=size["layers"],
        num_attention_heads=size["heads"],
        intermediate_size=size["inner"],
        max_position_embeddings=size["places"],
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        classifier_pooling="mean",
        id2label={i: str(i) for i in range(size["classes"])},
    )
    with nn.init.no_init():
        model = models.BertForSequenceClassification(config)
    if size["rank"]:
        models.add_lora(model, size["rank"], size["alpha"], targets=ADAPTED)
    weights = {beside_adapters(name, size): rg.tensor(array) for name, array in arrays.items() if "." in name}
    head = {name: weights.pop(f"classifier.{name}") for name in ("weight", "bias")}
    model.classifier.load_state_dict(head)
    model.bert.load_state_dict({published_name(name): tensor for name, tensor in weights.items()})
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = optim.AdamW(trained, lr=RATE, weight_decay=DECAY)
    triples = batches(arrays, rg.tensor)

    @wrap
    def train(tokens: Any, mask: Any, labels: Any) -> Any:
        optimizer.zero_grad()
        loss = model(tokens, mask, labels=labels).loss
        assert loss is not None
        loss.backward()
        nn.utils.clip_grad_norm_(trained, CLIP)
        optimizer.step()
        return loss

    return lambda: train(*next(triples))


def torch_network(size: dict[str, Any]) -> Any:
    """The model of PyTorch's layers: token numbers (B, L) and mask → scores (B, classes)."""
    from torch import nn
    from torch.nn import functional as F

    width, heads, rank = size["width"], size["heads"], size["rank"]

    class LoRA(nn.Module):
        def __init__(self, base: nn.Linear) -> None:
            super().__init__()
            self.base_layer = base
            self.lora_A, self.lora_B = nn.Linear(width, rank, bias=False), nn.Linear(rank, width, bias=False)
            self.scaling = size["alpha"] / rank

        def forward(self, x: Any) -> Any:
            return self.base_layer(x) + self.lora_B(self.lora_A(x)) * self.scaling

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
            self.up, self.down = nn.Linear(width, size["inner"]), nn.Linear(size["inner"], width)
            self.norm1, self.norm2 = nn.LayerNorm(width, eps=EPSILON), nn.LayerNorm(width, eps=EPSILON)

        def forward(self, x: Any, mask: Any) -> Any:
            b, n, _ = x.shape
            q, k, v = (
                layer(x).view(b, n, heads, width // heads).transpose(1, 2)
                for layer in (self.query, self.key, self.value)
            )
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
            x = self.norm1(x + self.out(mixed.transpose(1, 2).reshape(b, n, width)))
            return self.norm2(x + self.down(F.gelu(self.up(x))))

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token = nn.Embedding(size["vocabulary"], width)
            self.position = nn.Embedding(size["places"], width)
            self.segment = nn.Embedding(2, width)
            self.norm = nn.LayerNorm(width, eps=EPSILON)
            self.blocks = nn.ModuleList([Block() for _ in range(size["layers"])])
            self.classifier = nn.Linear(width, size["classes"])

        def forward(self, tokens: Any, mask: Any) -> Any:
            place = self.position.weight[: tokens.shape[1]]
            x = self.norm(self.token(tokens) + self.segment.weight[0] + place)
            seen = mask.bool()[:, None, None, :]
            for block in self.blocks:
                x = block(x, seen)
            weights = mask[:, :, None].to(x.dtype)
            return self.classifier((x * weights).sum(1) / weights.sum(1))

    model = Classifier()
    if rank:
        model.requires_grad_(False)
        model.classifier.requires_grad_(True)
        for block in model.blocks:
            block.query, block.value = LoRA(block.query), LoRA(block.value)
    return model


def torch_step(size: dict[str, Any], arrays: dict[str, np.ndarray], wrap: Callable[..., Any]) -> Callable[[], Any]:
    """The step in PyTorch, its loss passed through `wrap`, with the faster one of its AdamWs."""
    import torch
    from torch.nn import functional as F

    model = torch_network(size)
    model.load_state_dict({beside_adapters(n, size): torch.tensor(a) for n, a in arrays.items() if "." in n})
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=DECAY, fused=True)
    triples = batches(arrays, torch.tensor)

    @wrap
    def loss_of(tokens: Any, mask: Any, labels: Any) -> Any:
        return F.cross_entropy(model(tokens, mask), labels)

    def step() -> Any:
        optimizer.zero_grad()
        loss = loss_of(*next(triples))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, CLIP)
        optimizer.step()
        return loss

    return step


PEERS = {
    **of_retrograd(retrograd_step),
    **of_torch(torch_step),
}
