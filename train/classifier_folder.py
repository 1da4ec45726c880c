"""A fine-tuned classifier on the disk: one folder with all that is needed to classify texts again.

    config.json, model.safetensors      the model, with the names of its classes; adapters are taken into the weights
    tokenizer.json, …                   its tokenizer
    adapter/                            where LoRA was trained: the adapters alone, in the files of the peft library
    training.json                       how it was made, and at which length texts were cut

All is written aside and renamed, so that a disk that is full changes nothing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..autograd_core.text_files import read_json, write_json
from ..data import BaseTokenizer, load_tokenizer
from ..models import BertForSequenceClassification, merge_lora, save_lora

RECORD, ADAPTER = "training.json", "adapter"


def save_classifier(
    model: BertForSequenceClassification,
    tokenizer: BaseTokenizer,
    folder: str | os.PathLike[str],
    record: Mapping[str, Any],
) -> None:
    """Write a classifier into a folder, made where it is missing. Adapters are merged, in the model too.

    Args:
        record: for `training.json`, in values that JSON can hold.
    Raises:
        OSError: the file system refuses, or the disk is full. Nothing of it is left, and what was there is untouched.
    """
    place = Path(folder)
    made = not place.exists()
    aside = place / f".saving-{os.getpid()}-{os.urandom(4).hex()}"
    try:
        aside.mkdir(parents=True)
        if hasattr(model, "lora_config"):
            save_lora(model, aside / ADAPTER)
            merge_lora(model)
        model.save_pretrained(aside)
        tokenizer.save_pretrained(aside)
        write_json(aside / RECORD, dict(record))
        shutil.rmtree(place / ADAPTER, ignore_errors=True)  # os.replace puts no folder in a full one's place
        # The config comes last: without it a folder is no checkpoint.
        for name in sorted(os.listdir(aside), key="config.json".__eq__):
            os.replace(aside / name, place / name)
    except BaseException:
        shutil.rmtree(place if made else aside, ignore_errors=True)
        raise
    aside.rmdir()


def load_saved(
    folder: str | os.PathLike[str],
) -> tuple[BertForSequenceClassification, BaseTokenizer, dict[str, Any]]:
    """(model, tokenizer, record) of a folder; the record is empty where someone else wrote the folder.

    Raises OSError, CheckpointError or ValueError, one line each, for a folder that holds no whole classifier.
    """
    path = Path(folder, RECORD)
    model = BertForSequenceClassification.from_pretrained(folder, strict=True)  # a new head would guess
    return model, load_tokenizer(folder), read_json(path) if path.is_file() else {}
