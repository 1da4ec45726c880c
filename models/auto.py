"""From what a config.json says to the class that reads it."""

from __future__ import annotations

import os
from typing import Any

from ..autograd_core.errors import CheckpointError
from .bert import BertForSequenceClassification, BertModel
from .config import Path, read_config
from .gpt2 import GPT2LMHeadModel, GPT2Model
from .pretrained import PretrainedModel

# model_type → the classes of the family; the first one is taken where config.json names none of them.
FAMILIES: dict[str, tuple[type[PretrainedModel], ...]] = {
    "bert": (BertModel, BertForSequenceClassification),
    "gpt2": (GPT2LMHeadModel, GPT2Model),
}


def load_pretrained(path: Path, **options: Any) -> PretrainedModel:
    """The model that a folder holds, of the class that its config.json names.

    Args:
        path: a folder with config.json and model.safetensors. options: those of `PretrainedModel.from_pretrained`.
    Raises:
        CheckpointError: the model's type is none of FAMILIES, which are listed; all else as in from_pretrained.

    >>> import tempfile
    >>> from retrograd.models import BertConfig, BertModel, load_pretrained
    >>> config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     BertModel(config).save_pretrained(folder)
    ...     type(load_pretrained(folder)).__name__
    'BertModel'
    """
    return pretrained_class(path).from_pretrained(path, **options)


def pretrained_class(path: Path) -> type[PretrainedModel]:
    """The class that reads the checkpoint in a folder, without reading its weights. Raises as `load_pretrained`."""
    values = read_config(path)
    family = FAMILIES.get(str(values.get("model_type")))
    if family is None:
        raise CheckpointError(
            f"{os.fspath(path)!r}: config.json says model_type {values.get('model_type')!r}; "
            f"known are {', '.join(FAMILIES)}"
        )
    named = values.get("architectures")
    named = named if isinstance(named, list) else []
    return next((cls for cls in family if cls.__name__ in named), family[0])
