"""BERT: words that look at all other words of their sentence (Devlin et al., "BERT: pre-training of deep bidirectional
transformers for language understanding", 2019).

    tokens → embeddings → ┌ attention → add & norm → feed forward → add & norm ┐ × layers → pooler, or mean → classifier

Each sublayer is added to its input, and the sum is normalised. Parameters have the names of the published checkpoints.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

from .. import nn
from ..autograd_core.errors import CheckpointError
from ..autograd_core.record import tensor_ops as ops
from ..autograd_core.tensor import Tensor, asarray
from ..nn import functional as F
from ..nn.errors import refusal
from .config import Config
from .layers import Embedding, Linear, activation
from .pretrained import PretrainedModel

POOLINGS = ("cls", "mean")


@dataclasses.dataclass(kw_only=True)
class BertConfig(Config):
    """Sizes and options of a BERT, under the names of config.json; the defaults are those of bert-base-uncased.

    `classifier_pooling` says what a sentence is classified by: "cls", the first token through the pooler, or "mean",
    the mean of all tokens as in sentence-transformers, for which there is no pooler.

    >>> from retrograd.models import BertConfig
    >>> BertConfig(hidden_size=64, num_attention_heads=4).intermediate_size
    3072
    """

    model_type: ClassVar[str] = "bert"
    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0
    classifier_dropout: float | None = None
    classifier_pooling: str = "cls"

    def __post_init__(self) -> None:
        super().__post_init__()
        activation(self.hidden_act)
        if self.hidden_size % self.num_attention_heads:
            raise CheckpointError(
                f"hidden_size={self.hidden_size} must be a multiple of num_attention_heads={self.num_attention_heads}"
            )
        if self.pad_token_id is not None and not 0 <= self.pad_token_id < self.vocab_size:
            raise CheckpointError(f"pad_token_id must lie below vocab_size={self.vocab_size}, got {self.pad_token_id}")
        if self.classifier_pooling not in POOLINGS:
            raise CheckpointError(f"classifier_pooling must be 'cls' or 'mean', got {self.classifier_pooling!r}")
        wanted = {"position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False}
        for name, value in wanted.items():
            if self.extra.get(name, value) != value:
                raise CheckpointError(f"this BERT knows {name}={value!r} only, got {self.extra[name]!r}")


class BertOutput(NamedTuple):
    """last_hidden_state (N, T, hidden_size); pooler_output (N, hidden_size), None without pooler."""

    last_hidden_state: Tensor
    pooler_output: Tensor | None


class ClassifierOutput(NamedTuple):
    """loss, 0-d, None without labels; logits (N, num_labels)."""

    loss: Tensor | None
    logits: Tensor


class Embeddings(nn.Module):
    """Which word + which place + which sentence of a pair, normalised: (N, T) → (N, T, hidden_size)."""

    def __init__(self, config: BertConfig):
        super().__init__()
        width, std = config.hidden_size, config.initializer_range
        self.word_embeddings = Embedding(config.vocab_size, width, config.pad_token_id, std=std)
        self.position_embeddings = Embedding(config.max_position_embeddings, width, std=std)
        self.token_type_embeddings = Embedding(config.type_vocab_size, width, std=std)
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None, position_ids: Tensor | None) -> Tensor:
        places, types = self.position_embeddings, self.token_type_embeddings
        place = places.weight[: input_ids.shape[1]] if position_ids is None else places(position_ids)
        type_ = types.weight[0] if token_type_ids is None else types(token_type_ids)
        return self.dropout(self.LayerNorm(self.word_embeddings(input_ids) + type_ + place))


class SelfAttention(nn.Module):
    """Each token takes the mean of all values, weighted by how well its query fits their keys, once per head."""

    def __init__(self, config: BertConfig):
        super().__init__()
        width, std = config.hidden_size, config.initializer_range
        self.num_heads = config.num_attention_heads
        self.dropout_p = config.attention_probs_dropout_prob
        self.query = Linear(width, width, std=std)
        self.key = Linear(width, width, std=std)
        self.value = Linear(width, width, std=std)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        n, length, width = x.shape

        def heads(y: Tensor) -> Tensor:  # (N, T, width) → (N, heads, T, width / heads)
            return y.reshape(n, length, self.num_heads, -1).transpose(0, 2, 1, 3)

        out = F.scaled_dot_product_attention(
            heads(self.query(x)),
            heads(self.key(x)),
            heads(self.value(x)),
            mask,
            dropout_p=self.dropout_p if self.training else 0.0,
        )
        return out.transpose(0, 2, 1, 3).reshape(n, length, width)


class AddAndNorm(nn.Module):
    """LayerNorm(residual + dropout(dense(x))): how each sublayer ends."""

    def __init__(self, config: BertConfig, in_features: int):
        super().__init__()
        self.dense = Linear(in_features, config.hidden_size, std=config.initializer_range)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(self.dropout(self.dense(x)) + residual)


class Attention(nn.Module):
    """Self-attention, its output map, add & norm."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.self = SelfAttention(config)
        self.output = AddAndNorm(config, config.hidden_size)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return self.output(self.self(x, mask), x)


class Intermediate(nn.Module):
    """The wide half of the feed-forward sublayer."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.dense = Linear(config.hidden_size, config.intermediate_size, std=config.initializer_range)
        self.activation = activation(config.hidden_act)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.dense(x))


class Layer(nn.Module):
    """Attention, then a feed-forward net for each token by itself."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.attention = Attention(config)
        self.intermediate = Intermediate(config)
        self.output = AddAndNorm(config, config.intermediate_size)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.attention(x, mask)
        return self.output(self.intermediate(x), x)


class Encoder(nn.Module):
    """The layers, one after the other."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.layer = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        for layer in self.layer:
            x = layer(x, mask)
        return x


class Pooler(nn.Module):
    """The first token, [CLS], through a dense tanh layer: (N, T, hidden_size) → (N, hidden_size)."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size, std=config.initializer_range)

    def forward(self, x: Tensor) -> Tensor:
        return F.tanh(self.dense(x[:, 0]))


class BertModel(PretrainedModel):
    """The encoder: token numbers in, one vector per token out.

    Args:
        config: sizes and options. add_pooling_layer: False leaves the pooler out, and pooler_output is None.

    >>> import retrograd as rg
    >>> from retrograd.models import BertConfig, BertModel
    >>> config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    >>> out = BertModel(config).eval()(rg.tensor([[2, 5, 3]]))
    >>> out.last_hidden_state.shape, out.pooler_output.shape
    ((1, 3, 8), (1, 8))
    """

    config_class = BertConfig
    base_model_prefix = "bert"
    options = ("add_pooling_layer",)
    ignored = (r"(^|\.)embeddings\.position_ids$",)  # 0, 1, 2, …: older checkpoints carry it along

    def __init__(self, config: BertConfig, add_pooling_layer: bool = True):
        super().__init__(config)
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.pooler = Pooler(config) if add_pooling_layer else None

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> BertOutput:
        """All arguments (N, T), integers.

        Args:
            attention_mask: 1 (or True) for tokens, 0 for padding, which nobody looks at; None: all are tokens.
            token_type_ids: 0 for the first sentence of a pair, 1 for the second; None: all 0.
            position_ids: places in the sentence; None: 0, 1, 2, …
        Raises:
            ValueError: shapes that do not fit, or more tokens than the model has places. IndexError: a token, type or
                place outside the tables.
        """
        input_ids = asarray(input_ids)
        check_tokens(input_ids, self.config.max_position_embeddings, attention_mask, token_type_ids, position_ids)
        mask = None if attention_mask is None else ops.not_equal(attention_mask, 0)[:, None, None, :]
        hidden = self.encoder(self.embeddings(input_ids, token_type_ids, position_ids), mask)
        return BertOutput(hidden, None if self.pooler is None else self.pooler(hidden))


class BertForSequenceClassification(PretrainedModel):
    """BERT with a linear head on one vector per sentence, and the loss that fits the labels.

    `config.problem_type`, or without it the labels, choose the loss: whole numbers (N,) cross-entropy, one label
    (num_labels=1) squared error, floats (N, num_labels) binary cross-entropy with logits.

    >>> import retrograd as rg
    >>> from retrograd.models import BertConfig, BertForSequenceClassification
    >>> config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    >>> out = BertForSequenceClassification(config)(rg.tensor([[2, 5, 3]]), labels=rg.tensor([1]))
    >>> out.logits.shape, out.loss.shape
    ((1, 2), ())
    """

    config_class = BertConfig
    base_model_prefix = "bert"
    ignored = BertModel.ignored

    def __init__(self, config: BertConfig):
        super().__init__(config)
        dropout = config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout
        self.bert = BertModel(config, add_pooling_layer=config.classifier_pooling == "cls")
        self.dropout = nn.Dropout(dropout)
        self.classifier = Linear(config.hidden_size, config.num_labels, std=config.initializer_range)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> ClassifierOutput:
        """The arguments of BertModel, and labels (N,) or (N, num_labels)."""
        pooled = self.pooled(input_ids, attention_mask, token_type_ids, position_ids)
        logits = self.classifier(self.dropout(pooled))
        return ClassifierOutput(None if labels is None else self.loss(logits, asarray(labels)), logits)

    def pooled(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> Tensor:
        """The vector by which each sentence is classified, (N, hidden_size); the arguments of BertModel."""
        hidden, pooled = self.bert(input_ids, attention_mask, token_type_ids, position_ids)
        return mean_pooling(hidden, attention_mask) if pooled is None else pooled

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of logits (N, num_labels) for the problem type of the config, or the one that the labels show."""
        problem = self.config.problem_type or _problem(self.config.num_labels, labels)
        if problem == "single_label_classification":
            return F.cross_entropy(logits, labels.reshape(-1))
        target = labels.astype(logits.dtype).reshape(logits.shape)
        return {"regression": F.mse_loss, "multi_label_classification": F.binary_cross_entropy_with_logits}[problem](
            logits, target
        )


def _problem(num_labels: int, labels: Tensor) -> str:
    if num_labels == 1:
        return "regression"
    return "single_label_classification" if labels.dtype.kind in "iu" else "multi_label_classification"


def mean_pooling(last_hidden_state: Tensor, attention_mask: Any = None, normalize: bool = False) -> Tensor:
    """One vector per sentence: the mean of its tokens' vectors, as in sentence-transformers (Reimers, Gurevych 2019).

    Args:
        last_hidden_state: (N, T, width). attention_mask: (N, T), 0 for padding, which is left out; None: no padding.
        normalize: divide each by its length, so that the product of two is the cosine of their angle.
    Returns:
        (N, width). A sentence of padding alone gives zeros.

    >>> import retrograd as rg
    >>> from retrograd.models import mean_pooling
    >>> mean_pooling(rg.tensor([[[1.0], [3.0], [8.0]]]), rg.tensor([[1, 1, 0]]))
    tensor([[2.]])
    """
    hidden = asarray(last_hidden_state)
    if attention_mask is None:
        pooled = ops.mean(hidden, axis=1)
    else:
        weights = ops.astype(ops.not_equal(attention_mask, 0), dtype=hidden.dtype)[:, :, None]
        pooled = ops.sum(hidden * weights, axis=1) / ops.maximum(ops.sum(weights, axis=1), 1.0)
    if not normalize:
        return pooled
    # 1e-12 as in PyTorch's F.normalize, under the root so that a vector of zeros has a gradient.
    return pooled / ops.sqrt(ops.maximum(ops.sum(ops.square(pooled), axis=-1, keepdims=True), 1e-24))


def check_tokens(input_ids: Tensor, limit: int, *others: Tensor | None) -> None:
    """Raise ValueError unless tokens are (N, T) with 1 ≤ T ≤ limit, and the other arrays have the same shape."""
    shape = input_ids.shape
    if len(shape) != 2 or not shape[1]:
        raise refusal(ValueError, f"expected tokens of shape (N, T) with T above 0, got {shape}")
    if shape[1] > limit:
        raise refusal(
            ValueError,
            f"a sequence of {shape[1]} tokens is longer than the {limit} that the model has places for; cut it",
        )
    for other in others:
        if other is not None and tuple(other.shape) != shape:
            raise refusal(
                ValueError, f"expected a mask, types and places of the tokens' shape {shape}, got {other.shape}"
            )
