"""GPT-2: words that look at the words before them and say which comes next (Radford et al., "Language models are
unsupervised multitask learners", 2019).

    tokens → embeddings → ┌ norm → attention → add, norm → feed forward → add ┐ × layers → norm → score of every word

Each sublayer reads its normalised input and adds to it. Parameters have the names of the published checkpoints.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

from .. import nn
from ..autograd_core.context import current, use_backend
from ..autograd_core.errors import CheckpointError
from ..autograd_core.operations.creation import arange, full, zeros
from ..autograd_core.operations.joining import concat
from ..autograd_core.record import tensor_ops as ops
from ..autograd_core.tensor import Tensor, asarray
from ..nn import functional as F
from ..nn import init
from ..nn.errors import refusal
from .config import Config
from .layers import Conv1D, Embedding, Linear, activation
from .pretrained import PretrainedModel

IGNORED_LABEL = -100


@dataclasses.dataclass(kw_only=True)
class GPT2Config(Config):
    """Sizes and options of a GPT-2, under the names of config.json; the defaults are those of the smallest GPT-2.

    `hidden_size`, `num_hidden_layers`, `num_attention_heads` and `max_position_embeddings` read n_embd, n_layer, n_head
    and n_positions. `bias=False` leaves the biases of maps and norms out, as nanoGPT does; transformers, which has no
    such option, fills them with zeros, which is the same model.

    >>> from retrograd.models import GPT2Config
    >>> GPT2Config(n_embd=64, n_head=4).hidden_size
    64
    """

    model_type: ClassVar[str] = "gpt2"
    other_names: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "hidden_size": "n_embd",
            "max_position_embeddings": "n_positions",
            "num_attention_heads": "n_head",
            "num_hidden_layers": "n_layer",
        }
    )

    vocab_size: int = 50257
    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int | None = None
    activation_function: str = "gelu_new"
    resid_pdrop: float = 0.1
    embd_pdrop: float = 0.1
    attn_pdrop: float = 0.1
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    bos_token_id: int | None = 50256
    eos_token_id: int | list[int] | None = 50256
    pad_token_id: int | None = None
    bias: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        activation(self.activation_function)
        if self.n_inner is not None and self.n_inner < 1:
            raise CheckpointError(f"n_inner must be a whole number above 0 or null, got {self.n_inner}")
        if self.n_embd % self.n_head:
            raise CheckpointError(f"n_embd={self.n_embd} must be a multiple of n_head={self.n_head}")
        if self.extra.get("add_cross_attention"):
            raise CheckpointError("this GPT-2 has no cross attention, got add_cross_attention=True")


class KVCache:
    """Keys and values of the tokens so far, in arrays of fixed size, so that one compiled program serves all positions.

    A compiled function takes it from outside, not as an argument: those are copied into the program, and back.

    Attributes:
        keys, values: one tensor (batch, heads, max_len, head width) per layer.
    """

    def __init__(self, layers: int, batch: int, heads: int, max_len: int, width: int, dtype: Any = "float32"):
        shape = (batch, heads, max_len, width)
        self.shape = shape
        self.keys = [zeros(shape, dtype=dtype) for _ in range(layers)]
        self.values = [zeros(shape, dtype=dtype) for _ in range(layers)]

    @property
    def max_len(self) -> int:
        """How many tokens there is room for."""
        return self.shape[2]

    def write(self, layer: int, places: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Put the keys and values (batch, heads, T, width) of new tokens at `places` (T,); gives all of the layer's."""
        if current().grad and key.requires_grad:
            raise refusal(RuntimeError, "a KVCache keeps numbers, no graph: use it under `with rg.no_grad():`")
        self.keys[layer][:, :, places] = key
        self.values[layer][:, :, places] = value
        return self.keys[layer], self.values[layer]


class CausalLMOutput(NamedTuple):
    """loss, 0-d, None without labels; logits (N, T, vocab_size)."""

    loss: Tensor | None
    logits: Tensor


class Attention(nn.Module):
    """Each token takes the mean of its own value and those before it, by how well its query fits their keys."""

    def __init__(self, config: GPT2Config, layer: int):
        super().__init__()
        width, std = config.n_embd, config.initializer_range
        self.layer, self.num_heads = layer, config.n_head
        self.scale = 1 / math.sqrt(width // config.n_head) if config.scale_attn_weights else 1.0
        if config.scale_attn_by_inverse_layer_idx:
            self.scale /= layer + 1
        self.c_attn = Conv1D(width, 3 * width, config.bias, std=std)
        self.c_proj = Conv1D(width, width, config.bias, std=_residual_std(config))
        self.dropout_p = config.attn_pdrop
        self.resid_dropout = nn.Dropout(config.resid_pdrop)

    def forward(self, x: Tensor, mask: Tensor | None, cache: KVCache | None, places: Tensor | None) -> Tensor:
        n, length, width = x.shape
        # (N, T, 3 · width) → query, key, value, each (N, heads, T, width / heads)
        joint = self.c_attn(x).reshape(n, length, 3, self.num_heads, -1).transpose(2, 0, 3, 1, 4)
        query, key, value = joint[0], joint[1], joint[2]
        if cache is not None and places is not None:
            key, value = cache.write(self.layer, places, key, value)
        out = F.scaled_dot_product_attention(
            query,
            key,
            value,
            mask,
            dropout_p=self.dropout_p if self.training else 0.0,
            is_causal=cache is None,  # with a cache the mask says it
            scale=self.scale,
        )
        return self.resid_dropout(self.c_proj(out.transpose(0, 2, 1, 3).reshape(n, length, width)))


class MLP(nn.Module):
    """The feed-forward net of each token by itself."""

    def __init__(self, config: GPT2Config):
        super().__init__()
        inner = config.n_inner or 4 * config.n_embd
        self.c_fc = Conv1D(config.n_embd, inner, config.bias, std=config.initializer_range)
        self.c_proj = Conv1D(inner, config.n_embd, config.bias, std=_residual_std(config))
        self.activation = activation(config.activation_function)
        self.dropout = nn.Dropout(config.resid_pdrop)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.c_proj(self.activation(self.c_fc(x))))


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed forward(norm(x))."""

    def __init__(self, config: GPT2Config, layer: int):
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon, bias=config.bias)
        self.attn = Attention(config, layer)
        self.ln_2 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon, bias=config.bias)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, mask: Tensor | None, cache: KVCache | None, places: Tensor | None) -> Tensor:
        x = x + self.attn(self.ln_1(x), mask, cache, places)
        return x + self.mlp(self.ln_2(x))


class GPT2Model(PretrainedModel):
    """The decoder without its scores: token numbers in, one vector per token out.

    >>> import retrograd as rg
    >>> from retrograd.models import GPT2Config, GPT2Model
    >>> model = GPT2Model(GPT2Config(vocab_size=9, n_positions=8, n_embd=8, n_layer=1, n_head=2))
    >>> model(rg.tensor([[2, 5, 3]])).shape
    (1, 3, 8)
    """

    config_class = GPT2Config
    base_model_prefix = "transformer"
    ignored = (r"(^|\.)h\.\d+\.attn\.(bias|masked_bias)$",)  # the causal mask: older checkpoints carry it along

    def __init__(self, config: GPT2Config):
        super().__init__(config)
        self.wte = Embedding(config.vocab_size, config.n_embd, std=config.initializer_range)
        self.wpe = Embedding(config.n_positions, config.n_embd, std=config.initializer_range)
        self.drop = nn.Dropout(config.embd_pdrop)
        self.h = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon, bias=config.bias)

    def new_cache(self, batch: int, max_len: int | None = None) -> KVCache:
        """An empty cache for `batch` sequences of up to max_len tokens, at most (and by default) n_positions."""
        length = self.config.n_positions if max_len is None else max_len
        if not 1 <= length <= self.config.n_positions:
            raise ValueError(f"max_len must lie in 1…{self.config.n_positions}, the model's n_positions; got {length}")
        heads, width = self.config.n_head, self.config.n_embd // self.config.n_head
        with use_backend(self.wte.weight.backend):
            return KVCache(self.config.n_layer, batch, heads, length, width, self.dtype)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: KVCache | None = None,
        cache_position: Tensor | int = 0,
    ) -> Tensor:
        """Token numbers (N, T) → last hidden states (N, T, n_embd).

        Args:
            attention_mask: 1 (or True) for tokens, 0 for padding, on either side, which nobody looks at. (N, T), or
                with a cache (N, S) for the tokens at places 0…S-1 of it; all behind them are seen.
            position_ids: (N, T); None: 0, 1, 2, … in every row, or from cache_position on. Padding on the left is not
                skipped: give the positions then.
            cache: from `new_cache`; the tokens' keys and values are written into it at cache_position,
                cache_position + 1, …, and tokens see all that stands before them.
            cache_position: a whole number, or in a compiled function a 0-d integer Tensor.
        Raises:
            ValueError: shapes that do not fit, or more tokens than there are places. RuntimeError: a cache where
                gradients are wanted.
        """
        tokens = asarray(input_ids)
        places, mask = (
            None,
            _check(tokens, self.config.n_positions, attention_mask, position_ids, cache, cache_position),
        )
        if cache is not None:
            places = _from(cache_position, tokens)
            mask = _seen(places, cache.max_len, mask)
            position_ids = places[None] if position_ids is None else position_ids
        place = self.wpe.weight[: tokens.shape[1]] if position_ids is None else self.wpe(position_ids)
        x = self.drop(self.wte(tokens) + place)
        for block in self.h:
            x = block(x, mask, cache, places)
        return self.ln_f(x)


class GPT2LMHeadModel(PretrainedModel):
    """GPT-2 with the score of every word of the vocabulary as the next one.

    With config.tie_word_embeddings, as published, the scores are products with the word embeddings themselves.

    >>> import retrograd as rg
    >>> from retrograd.models import GPT2Config, GPT2LMHeadModel
    >>> model = GPT2LMHeadModel(GPT2Config(vocab_size=9, n_positions=8, n_embd=8, n_layer=1, n_head=2))
    >>> tokens = rg.tensor([[2, 5, 3]])
    >>> out = model(tokens, labels=tokens)
    >>> out.logits.shape, out.loss.shape
    ((1, 3, 9), ())
    """

    config_class = GPT2Config
    base_model_prefix = "transformer"
    ignored = GPT2Model.ignored

    def __init__(self, config: GPT2Config):
        super().__init__(config)
        self.transformer = GPT2Model(config)
        if config.tie_word_embeddings:
            with init.no_init():
                self.lm_head = Linear(config.n_embd, config.vocab_size, bias=False, std=config.initializer_range)
            self.lm_head.weight = self.transformer.wte.weight
        else:
            self.lm_head = Linear(config.n_embd, config.vocab_size, bias=False, std=config.initializer_range)

    def new_cache(self, batch: int, max_len: int | None = None) -> KVCache:
        """See GPT2Model.new_cache."""
        return self.transformer.new_cache(batch, max_len)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
        cache: KVCache | None = None,
        cache_position: Tensor | int = 0,
        logits_to_keep: int = 0,
    ) -> CausalLMOutput:
        """The arguments of GPT2Model, and:

        Args:
            labels: (N, T), usually input_ids: each token is compared with the scores of the one before it; -100 leaves
                one out.
            logits_to_keep: give the scores of so many last tokens only; 0: of all.
        """
        hidden = self.transformer(input_ids, attention_mask, position_ids, cache, cache_position)
        logits = self.lm_head(hidden[:, -logits_to_keep:] if logits_to_keep else hidden)
        return CausalLMOutput(None if labels is None else next_token_loss(logits, asarray(labels)), logits)


def next_token_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of logits (N, T, V) at each place against the next place's label (N, T), if not -100."""
    if tuple(logits.shape[:2]) != tuple(labels.shape):
        raise refusal(ValueError, f"expected labels of shape {tuple(logits.shape[:2])}, got {tuple(labels.shape)}")
    # Labels are shifted, not logits: those are larger, and would be copied.
    with use_backend(labels.backend):
        last = full((labels.shape[0], 1), IGNORED_LABEL, dtype=labels.dtype)
    following = concat([labels[:, 1:], last], axis=1)
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), following.reshape(-1), ignore_index=IGNORED_LABEL)


def _residual_std(config: GPT2Config) -> float:
    # Each layer adds twice to the same sum: narrower weights keep its variance what it is for any depth.
    return config.initializer_range / math.sqrt(2 * config.n_layer)


def _from(start: Tensor | int, tokens: Tensor) -> Tensor:
    """(T,): start, start + 1, …"""
    with use_backend(tokens.backend):
        return ops.add(arange(tokens.shape[1]), start)


def _seen(places: Tensor, max_len: int, mask: Tensor | None) -> Tensor:
    """(1 or N, 1, T, max_len): True where a token at one of `places` sees the key at a place of the cache."""
    with use_backend(places.backend):
        keys = arange(max_len)
        seen = ops.less_equal(keys, places[:, None])[None, None]
        if mask is None:
            return seen
        n, _, _, given = mask.shape
        if given < max_len:
            mask = concat([mask, full((n, 1, 1, max_len - given), True, dtype=bool)], axis=3)
    return ops.logical_and(seen, mask)


def _check(
    tokens: Tensor,
    limit: int,
    attention_mask: Tensor | None,
    position_ids: Tensor | None,
    cache: KVCache | None,
    cache_position: Tensor | int,
) -> Tensor | None:
    """Refuse what does not fit; gives the mask as (N, 1, 1, S) of booleans."""
    shape = tuple(tokens.shape)
    if len(shape) != 2 or not shape[1]:
        raise refusal(ValueError, f"expected tokens of shape (N, T) with T above 0, got {shape}")
    if cache is not None:
        limit = cache.max_len
        if cache.shape[0] != shape[0]:
            raise refusal(
                ValueError, f"expected {cache.shape[0]} sequences, as many as the cache was made for; got {shape}"
            )
    last = shape[1] if cache is None or isinstance(cache_position, Tensor) else shape[1] + cache_position
    if last > limit:
        room = "the cache has room" if cache is not None else "the model has places"
        raise refusal(ValueError, f"a sequence of {last} tokens is longer than the {limit} that {room} for")
    if position_ids is not None and tuple(position_ids.shape) != shape:
        raise refusal(
            ValueError, f"expected position_ids of the tokens' shape {shape}, got {tuple(position_ids.shape)}"
        )
    if attention_mask is None:
        return None
    expected = shape if cache is None else (shape[0], min(attention_mask.shape[-1], limit))
    if tuple(attention_mask.shape) != expected:
        raise refusal(ValueError, f"expected an attention_mask of shape {expected}, got {tuple(attention_mask.shape)}")
    return ops.not_equal(attention_mask, 0)[:, None, None, :]
