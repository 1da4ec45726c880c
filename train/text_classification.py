"""Fine-tuning: a published encoder learns to sort texts into classes. Three ways, by how much of it is trained.

    frozen   nothing: every text is encoded once, and a linear head is trained on these vectors
    lora     thin matrices beside the queries and values of every layer, and the head
    full     everything

The more is trained, the closer the encoder comes to the task, and the more each step costs. See models/lora.py.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..autograd_core.operations.random import manual_seed
from ..autograd_core.tensor import Tensor
from ..autograd_core.text_files import read_json
from ..data import ArrayDataset, BaseTokenizer, DataLoader, Subset, TextDataset, TextLoader
from ..models import BertForSequenceClassification, CheckpointError, add_lora
from ..models.auto import pretrained_class
from ..models.bert import POOLINGS
from ..models.config import read_config
from ..nn import Module
from ..nn import functional as F
from ..optim import AdamW
from ..optim.lr_scheduler import LambdaLR
from . import metrics
from .evaluation import predict
from .history import History
from .trainer import Trainer

WEIGHT_DECAY = 0.01
CLIP = 1.0  # norm of the gradients at most
WARM_UP = 0.1  # share of the steps in which the rates rise
RANK = 8
ALPHA_PER_RANK = 2

Texts = TextDataset | Subset


class Method(NamedTuple):
    """One way to fine-tune.

    Attributes:
        prepare: `prepare(model, rank)` marks what is trained.
        epochs, lr, head_lr: what is taken where nothing else is said; `lr` is the encoder's or the adapters' rate.
    """

    prepare: Callable[[BertForSequenceClassification, int], Any]
    epochs: int
    lr: float
    head_lr: float


def _head_alone(model: BertForSequenceClassification, rank: int) -> None:
    model.requires_grad_(False)
    model.classifier.requires_grad_(True)


def _adapters(model: BertForSequenceClassification, rank: int) -> None:
    add_lora(model, rank, ALPHA_PER_RANK * rank)


def _everything(model: BertForSequenceClassification, rank: int) -> None:
    model.requires_grad_(True)


METHODS = {
    "frozen": Method(_head_alone, epochs=40, lr=0.0, head_lr=1e-2),
    "lora": Method(_adapters, epochs=4, lr=1e-3, head_lr=1e-3),
    "full": Method(_everything, epochs=4, lr=1e-4, head_lr=1e-3),
}


# -- the model --------------------------------------------------------------------------------------------------------


def load_classifier(
    folder: str | os.PathLike[str], names: Sequence[str], pooling: str | None = None, seed: int = 0
) -> BertForSequenceClassification:
    """A published BERT with a new head for the classes `names`, in evaluation mode.

    Args:
        folder: its checkpoint.
        names: of the classes, in the order of their numbers; they are kept in the model's config.
        pooling: what a text is classified by, "mean" or "cls"; by default what the checkpoint is made for, see
            `pooling_of`.
        seed: of the head's weights, and of all that is drawn afterwards.
    Raises:
        OSError, CheckpointError: the checkpoint cannot be read, or is none of a BERT.
        ValueError: fewer than two classes.
    """
    if len(names) < 2:
        raise ValueError(f"a classifier needs at least two classes, got {', '.join(map(repr, names)) or 'none'}")
    family = pretrained_class(folder).config_class
    if family is not BertForSequenceClassification.config_class:
        raise CheckpointError(
            f"{os.fspath(folder)!r} holds a model of type {family.model_type!r}; texts are classified by a "
            f"{BertForSequenceClassification.config_class.model_type!r}"
        )
    values = read_config(folder)
    own_head = BertForSequenceClassification.__name__ in values.get("architectures", ())
    other_head = own_head and family.from_dict(values).num_labels != len(names)
    manual_seed(seed)
    with warnings.catch_warnings():
        # That the head is new is no news here; that anything else is missing would be.
        head = r"2 weights: 'classifier\.(weight|bias)', 'classifier\.(weight|bias)'"
        warnings.filterwarnings("ignore", rf"(?!.*other shapes).*the checkpoint lacks {head};")
        warnings.filterwarnings("ignore", rf"(?!.*lacks).*other shapes there have {head};")
        warnings.filterwarnings("ignore", r"(?!.*(lacks|other shapes)).*the model has no place for")
        return BertForSequenceClassification.from_pretrained(
            folder,
            id2label=dict(enumerate(names)),
            classifier_pooling=pooling or pooling_of(folder),
            problem_type="single_label_classification",
            ignore_mismatched_sizes=other_head,
        )


def pooling_of(folder: str | os.PathLike[str]) -> str:
    """What an encoder is made for: "mean" where a file of sentence-transformers or its config says so, else "cls"."""
    path = os.path.join(folder, "1_Pooling", "config.json")
    if os.path.isfile(path) and read_json(path).get("pooling_mode_mean_tokens"):
        return "mean"
    named = read_config(folder).get("classifier_pooling")
    return named if named in POOLINGS else "cls"


# -- texts ------------------------------------------------------------------------------------------------------------


def encoded(
    model: BertForSequenceClassification,
    tokenizer: BaseTokenizer,
    texts: Sequence[str],
    labels: Any = None,
    max_length: int | None = None,
    source: str = "the texts",
) -> TextDataset:
    """Texts as token numbers that the model takes.

    Args:
        max_length: cut longer texts to so many tokens; None cuts nothing.
        source: what the texts are called in an error.
    Raises:
        ValueError: `max_length` or a text is longer than the model has places, or a text is empty.
    """
    places = model.config.max_position_embeddings
    if tokenizer.vocab_size > model.config.vocab_size:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size} tokens and the model {model.config.vocab_size}: they do not "
            "belong together"
        )
    if max_length is not None and not 1 <= max_length <= places:
        raise ValueError(
            f"max_length must be from 1 to the {places} tokens that the model has places for, got {max_length}"
        )
    limit = max_length or min(places, tokenizer.model_max_length or places)
    dataset = TextDataset(texts, labels, tokenizer, limit)
    if max_length is None:
        # Only what fills the limit can have been cut.
        lengths = {i: len(tokenizer.encode(texts[i])) for i in np.flatnonzero(dataset.lengths == limit).tolist()}
        long = [i for i, length in lengths.items() if length > places]
        if long:
            more = f", and {len(long) - 1} more are too long" if len(long) > 1 else ""
            raise ValueError(
                f"{source}: row {long[0] + 1} has {lengths[long[0]]} tokens where the model has places for {places}"
                f"{more}. Shorten such texts, or cut them with a max-length of at most {places}"
            )
    return dataset


def in_any_order(dataset: Texts, batch_size: int = 64) -> tuple[TextLoader, np.ndarray]:
    """(batches of texts of equal length, where each text came from): to compute something for every text quickly."""
    loader = TextLoader(dataset, batch_size, window=len(dataset))
    return loader, loader.order(0)


def scores(model: BertForSequenceClassification, dataset: Texts) -> np.ndarray:
    """The class scores of each text, (N, C), in the order of the texts."""
    return _for_each_text(model, dataset, lambda model, batch: model(*batch[:3]).logits)


def vectors(model: BertForSequenceClassification, dataset: Texts) -> np.ndarray:
    """What the head sees of each text, (N, hidden_size), in their order: computed once for a frozen encoder."""
    return _for_each_text(model, dataset, lambda model, batch: model.pooled(*batch[:3]))


def _for_each_text(model: Module, dataset: Texts, forward: Callable[[Any, Any], Tensor]) -> np.ndarray:
    loader, order = in_any_order(dataset)
    found = predict(model, loader, forward)
    result = np.empty_like(found)
    result[order] = found
    return result


# -- training ---------------------------------------------------------------------------------------------------------


def class_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """How badly the scores (N, C) fit the labels (N,): cross-entropy.

    With two classes only the difference of their scores matters: it is a logit, and the softmax of both is its logistic
    function. So it is binary cross-entropy with logits, and the head one linear unit written as two.
    """
    if scores.shape[1] > 2:
        return F.cross_entropy(scores, labels)
    return F.binary_cross_entropy_with_logits(scores[:, 1] - scores[:, 0], labels.astype(scores.dtype))


def text_loss(model: BertForSequenceClassification, batch: Any) -> tuple[Tensor, Tensor]:
    """(loss, scores) of a batch of a TextLoader."""
    found = model(*batch[:3]).logits
    return class_loss(found, batch[3]), found


def vector_loss(head: Module, batch: Any) -> tuple[Tensor, Tensor]:
    """(loss, scores) of a batch (vectors, labels)."""
    found = head(batch[0])
    return class_loss(found, batch[1]), found


def linear_warm_up(steps: int) -> Callable[[int], float]:
    """The schedule of BERT's authors: the rate rises for the first tenth of the steps, then falls to 0, both in a line.

    >>> rate = linear_warm_up(20)
    >>> [rate(step) for step in (0, 1, 2, 11, 20)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    warm = max(1, round(WARM_UP * steps))
    return lambda step: min((step + 1) / warm, max(0, steps - step) / max(1, steps - warm))


def fine_tune(
    model: BertForSequenceClassification,
    train: Texts,
    method: str = "lora",
    *,
    validation: Texts | None = None,
    epochs: int | None = None,
    lr: float | None = None,
    head_lr: float | None = None,
    batch_size: int = 32,
    rank: int = RANK,
    seed: int = 0,
    resume: bool = False,
    **trainer: Any,
) -> History:
    """Train a classifier on texts; the model is changed in place, and ready to predict.

    Args:
        model: of `load_classifier`. After "lora" it has adapters: `models.save_lora` writes them alone,
            `models.merge_lora` takes them into the weights.
        train, validation: of `encoded`, or a Subset of such; validated after each epoch.
        method: a row of METHODS, where the defaults of epochs, lr and head_lr stand.
        rank: of the adapters.
        seed: of the order of the texts. What is drawn beside it, dropout and adapters, follows `rg.manual_seed`.
        resume, trainer: as for `Trainer.fit`, and for `Trainer` (`checkpoints`, `log`, `progress`, …).
    Raises:
        ValueError: an unknown method, a model that has adapters already, or what Trainer refuses.

    Example: examples/finetune_bert.py
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    chosen = METHODS[method]
    epochs = chosen.epochs if epochs is None else epochs
    chosen.prepare(model, rank)
    part: Module
    if method == "frozen":
        part, loss = model.classifier, vector_loss
        batches = DataLoader(_vector_set(model, train), batch_size, shuffle=True, seed=seed)
        held_out = None if validation is None else DataLoader(_vector_set(model, validation), batch_size)
    else:
        part, loss = model, text_loss
        batches = TextLoader(train, batch_size, shuffle=True, seed=seed)
        held_out = None if validation is None else in_any_order(validation)[0]
    optimizer = AdamW(
        [
            {"params": list(model.classifier.parameters()), "lr": chosen.head_lr if head_lr is None else head_lr},
            {"params": [p for p in model.bert.parameters() if p.requires_grad], "lr": chosen.lr if lr is None else lr},
        ],
        weight_decay=WEIGHT_DECAY,
    )
    history = Trainer(
        part,
        optimizer,
        loss,
        schedule=LambdaLR(optimizer, linear_warm_up(epochs * len(batches))),
        metrics=(metrics.accuracy, metrics.f1),
        clip_grad_norm=CLIP,
        **trainer,
    ).fit(batches, validation=held_out, epochs=epochs, resume=resume)
    model.eval()
    return history


def _vector_set(model: BertForSequenceClassification, dataset: Texts) -> ArrayDataset:
    return ArrayDataset(vectors(model, dataset), np.array([dataset[i][-1] for i in range(len(dataset))]))
