"""Published architectures, with the names of their published checkpoints."""

from .auto import FAMILIES, load_pretrained
from .bert import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    BertOutput,
    ClassifierOutput,
    mean_pooling,
)
from .config import CheckpointError, Config
from .gpt2 import CausalLMOutput, GPT2Config, GPT2LMHeadModel, GPT2Model, KVCache
from .pretrained import PretrainedModel

__all__ = [
    "FAMILIES",
    "BertConfig",
    "BertForSequenceClassification",
    "BertModel",
    "BertOutput",
    "CausalLMOutput",
    "CheckpointError",
    "ClassifierOutput",
    "Config",
    "GPT2Config",
    "GPT2LMHeadModel",
    "GPT2Model",
    "KVCache",
    "PretrainedModel",
    "load_pretrained",
    "mean_pooling",
]
