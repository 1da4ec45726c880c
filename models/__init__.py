"""Published architectures, with the names of their published checkpoints."""

from ..autograd_core.errors import CheckpointError
from .auto import FAMILIES, load_pretrained
from .bert import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    BertOutput,
    ClassifierOutput,
    mean_pooling,
)
from .config import Config
from .generation import Generated, generate
from .gpt2 import CausalLMOutput, GPT2Config, GPT2LMHeadModel, GPT2Model, KVCache
from .lora import LoraConfig, LoraLayer, add_lora, load_lora, lora_state_dict, merge_lora, save_lora
from .pretrained import PretrainedModel
from .text_stream import TextStream

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
    "Generated",
    "KVCache",
    "LoraConfig",
    "LoraLayer",
    "PretrainedModel",
    "TextStream",
    "add_lora",
    "generate",
    "load_lora",
    "load_pretrained",
    "lora_state_dict",
    "mean_pooling",
    "merge_lora",
    "save_lora",
]
