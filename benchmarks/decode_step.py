"""Decoding with a GPT-2 at batch 1: a step reads the token that was chosen last, and chooses the likeliest next one.

Random weights of the smallest GPT-2's size; when a text is full, the next step reads the prompt anew. At batch 1 every
step goes through all weights once, so the rate at which memory gives them is what counts. Ours reads with the decoder
that `generate` has; PyTorch's loop keeps keys and values in a cache that is there from the start (a cache that grows by
`cat` was slower).
"""

# PyTorch may be absent.
# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .variants import of_torch

THREADS = None
TOLERANCE = 1e-5  # of a number below 50,000, less than 1: the same token

WORKLOADS: dict[str, dict[str, Any]] = {
    "decode-gpt2": {
        "layers": 12, "width": 768, "heads": 12, "vocabulary": 50257, "places": 1024, "prompt": 64, "new": 128,
    },
}  # fmt: skip
SMOKE = {
    "decode-gpt2": {
        "layers": 1, "width": 8, "heads": 2, "vocabulary": 17, "places": 16, "prompt": 4, "new": 3,
    },
}  # fmt: skip
REASONS = dict.fromkeys(
    ("jax", "autograd", "mygrad", "tinygrad"), "this model is written in PyTorch alone; gpt-128 has its layers in all"
)


def data(size: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The prompt. Half a gigabyte of weights is drawn where it is needed, see `weights`."""
    return {"prompt": rng.integers(size["vocabulary"], size=(1, size["prompt"])), "seed": np.array(0)}


def weights(size: dict[str, Any], seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """Names and values of GPT-2's weights, matrices (in, out) as in its checkpoints; the scores use `wte` again."""
    rng, width = np.random.default_rng(seed), size["width"]
    norms, dense = ["ln_f"], {}
    for i in range(size["layers"]):
        norms += [f"h.{i}.ln_1", f"h.{i}.ln_2"]
        dense |= {f"h.{i}.attn.c_attn": (width, 3 * width), f"h.{i}.attn.c_proj": (width, width)}
        dense |= {f"h.{i}.mlp.c_fc": (width, 4 * width), f"h.{i}.mlp.c_proj": (4 * width, width)}
    shapes = {"wte": (size["vocabulary"], width), "wpe": (size["places"], width)} | dense
    for name, shape in shapes.items():
        matrix = rng.standard_normal(shape, np.float32)
        matrix *= 0.02
        yield f"{name}.weight", matrix
    for name, shape in dense.items():
        yield f"{name}.bias", np.zeros(shape[1], np.float32)
    for name in norms:
        yield f"{name}.weight", np.ones(width, np.float32)
        yield f"{name}.bias", np.zeros(width, np.float32)


def gemms(size: dict[str, Any]) -> list[tuple[int, int, int, str]]:
    """One row times every matrix; the last one's lies as it does in the embeddings."""
    width = size["width"]
    block = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)]
    return [(1, n, m, "nn") for n, m in block * size["layers"]] + [(1, width, size["vocabulary"], "nt")]


Best = tuple[Any, Any]
"""The number of the likeliest token and its score."""


def endless(start: Callable[[], Best], following: Callable[[Any, int], Best], size: dict[str, Any]) -> Any:
    """A step that gives the next token, of a text that begins again when it is full.

    Args:
        start: reads the prompt. following: reads a token that stands at a place.
    """
    place, token = size["prompt"] + size["new"] - 1, None

    def step() -> Best:
        nonlocal place, token
        full = place == size["prompt"] + size["new"] - 1
        best = start() if full else following(token, place)
        place, token = size["prompt"] if full else place + 1, best[0]
        return best

    return step


def retrograd_model(size: dict[str, Any], arrays: dict[str, np.ndarray]) -> Any:
    """The model in retrograd."""
    from retrograd import models, nn

    config = models.GPT2Config(
        vocab_size=size["vocabulary"],
        n_positions=size["places"],
        n_embd=size["width"],
        n_layer=size["layers"],
        n_head=size["heads"],
    )
    with nn.init.no_init():
        model = models.GPT2LMHeadModel(config).eval()
    for name, array in weights(size, int(arrays["seed"])):
        model.transformer.load_state_dict({name: array}, strict=False)
    return model


def retrograd_step(size: dict[str, Any], arrays: dict[str, np.ndarray], compile: bool) -> Callable[[], Best]:
    """The step in retrograd."""
    import retrograd as rg
    from retrograd.models.decoder import Decoder

    prompt = arrays["prompt"]
    decoder = Decoder(retrograd_model(size, arrays), batch=1, room=size["prompt"] + size["new"])

    def best(scores: np.ndarray) -> Best:
        token = scores.argmax(axis=-1)
        return rg.asarray(token), rg.asarray(scores[0, token])

    @rg.no_grad()
    def start() -> Best:
        return best(decoder.read_prompts(prompt, np.ones_like(prompt)))

    @rg.no_grad()
    def following(token: Any, place: int) -> Best:
        return best(decoder.read_next(token.numpy(), compile))

    return endless(start, following, size)


def with_retrograd(size: dict[str, Any], arrays: dict[str, np.ndarray]) -> Callable[[], Best]:
    """The step in retrograd, eager."""
    return retrograd_step(size, arrays, compile=False)


def with_compiled(size: dict[str, Any], arrays: dict[str, np.ndarray]) -> Callable[[], Best]:
    """The step with a compiled program, as `generate` has it unless told otherwise."""
    return retrograd_step(size, arrays, compile=True)


def torch_network(size: dict[str, Any]) -> Any:
    """The model of PyTorch's layers: tokens (1, T) that stand from a place on → scores (1, vocabulary) of the next."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    width, heads, room = size["width"], size["heads"], size["prompt"] + size["new"]

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.keys = torch.zeros(1, heads, room, width // heads, device="cpu")
            self.values = torch.zeros_like(self.keys)

        def forward(self, x: Any, place: int) -> Any:
            n = x.shape[1]
            q, k, v = self.c_attn(x).view(1, n, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
            self.keys[:, :, place : place + n] = k
            self.values[:, :, place : place + n] = v
            keys, values = self.keys[:, :, : place + n], self.values[:, :, : place + n]
            mixed = F.scaled_dot_product_attention(q, keys, values, is_causal=n > 1)
            return self.c_proj(mixed.transpose(1, 2).reshape(1, n, width))

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.attn = Attention()
            self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})

        def forward(self, x: Any, place: int) -> Any:
            x = x + self.attn(self.ln_1(x), place)
            return x + self.mlp["c_proj"](F.gelu(self.mlp["c_fc"](self.ln_2(x)), approximate="tanh"))

    class GPT2(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wte, self.wpe = nn.Embedding(size["vocabulary"], width), nn.Embedding(size["places"], width)
            self.h = nn.ModuleList([Block() for _ in range(size["layers"])])
            self.ln_f = nn.LayerNorm(width)

        def forward(self, tokens: Any, place: int) -> Any:
            x = self.wte(tokens) + self.wpe.weight[place : place + tokens.shape[1]]
            for block in self.h:
                x = block(x, place)
            return F.linear(self.ln_f(x[:, -1]), self.wte.weight)

    return GPT2()


def torch_step(size: dict[str, Any], arrays: dict[str, np.ndarray], wrap: Callable[..., Any]) -> Callable[[], Best]:
    """The step in PyTorch, its reading of one token passed through `wrap`."""
    import torch

    with torch.device("meta"):  # no memory yet: each array becomes a weight as it is drawn
        model = torch_network(size).eval()
    for name, array in weights(size, int(arrays["seed"])):
        # PyTorch's linear layers keep their matrices the other way round.
        own = np.ascontiguousarray(array.T) if ".c_" in name else array
        model.load_state_dict({name: torch.from_numpy(own)}, strict=False, assign=True)
    prompt, read = torch.from_numpy(arrays["prompt"]), wrap(model)

    def best(scores: Any) -> Best:
        score, token = scores.max(dim=-1)
        return token, score

    @torch.no_grad()
    def start() -> Best:
        return best(model(prompt, 0))

    @torch.no_grad()
    def following(token: Any, place: int) -> Best:
        return best(read(token[None], place))

    return endless(start, following, size)


PEERS = {
    "retrograd": with_retrograd,
    "retrograd-numpy": with_compiled,
    "retrograd-jit": with_compiled,
    **of_torch(torch_step),
}
