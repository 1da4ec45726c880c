"""Texts as batches for a model: tokenized once, batched by length, padded to few different widths.

Padding is wasted work, and every new shape is a new program. So the texts of a batch have about the same length, and
its width is a multiple of 8: with at most 64 tokens eight programs serve every batch. To find texts of equal length
without giving up the random order, an epoch is shuffled first; then windows of some batches each are sorted by length,
cut into batches, and the batches shuffled among each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .base_tokenizer import BaseTokenizer, Row, Text
from .dataset import Dataset, Subset
from .draws import batch_order
from .loader import DataLoader, _at_least

WINDOW = 50


class TextDataset:
    """Texts as rows of token numbers, with their labels: sample i is (Row, label), or (Row,) without labels.

    Args:
        texts: N texts, or pairs of texts.
        labels: (N,) or (N, …) numbers, or None.
        tokenizer: called once for all texts.
        max_length: longer texts are cut to so many tokens; by default to what the model takes.
    Raises:
        ValueError: lengths that differ, an empty text.

    Example:
        >>> from retrograd.data import CharTokenizer, TextDataset
        >>> dataset = TextDataset(["to be", "not"], [1, 0], CharTokenizer.from_text("to be not"), max_length=4)
        >>> dataset.lengths, dataset[1]
        (array([4, 3]), (Row(ids=[3, 4, 5], types=[0, 0, 0]), np.int64(0)))
    """

    def __init__(
        self, texts: Sequence[Text], labels: Any, tokenizer: BaseTokenizer, max_length: int | None = None
    ) -> None:
        self.labels = None if labels is None else np.asarray(labels)
        if self.labels is not None and len(self.labels) != len(texts):
            raise ValueError(f"expected a label for each of the {len(texts)} texts, got {len(self.labels)}")
        limited = max_length is not None or tokenizer.model_max_length is not None
        self.rows = tokenizer.rows(texts, max_length, truncation=limited)
        self.tokenizer, self.limit = tokenizer, max_length or tokenizer.model_max_length
        self.lengths = np.array([len(row.ids) for row in self.rows])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Row] | tuple[Row, Any]:
        return (self.rows[index],) if self.labels is None else (self.rows[index], self.labels[index])

    def gather(self, indices: np.ndarray, pad_to_multiple_of: int = 8) -> tuple[np.ndarray, ...]:
        """The batch of the samples at those indices: tokens, mask, types, (B, T) int64 each, and labels if any."""
        longest = int(self.lengths[indices].max())
        width = -(-longest // pad_to_multiple_of) * pad_to_multiple_of
        width = width if self.limit is None else min(width, self.limit)  # padding has places in the model too
        batch = self.tokenizer.pad([self.rows[i] for i in indices.tolist()], pad_to_multiple_of=width)
        columns = (batch["input_ids"], batch["attention_mask"], batch["token_type_ids"])
        return columns if self.labels is None else (*columns, self.labels.take(indices, axis=0))

    def __repr__(self) -> str:
        return f"TextDataset({len(self)} texts of {self.lengths.min()} to {self.lengths.max()} tokens)"


class TextLoader(DataLoader):
    """A DataLoader whose batches hold texts of about the same length.

    A batch is (input_ids, attention_mask, token_type_ids, labels), Tensors; the first three (B, T) int64 with T a
    multiple of 8, or the most that the model takes; labels only where the dataset has them. Epochs, seeds, resuming and
    prefetching are the DataLoader's.

    Args:
        dataset: a TextDataset, or a Subset of one.
        batch_size, shuffle, seed, drop_last, prefetch: as for DataLoader.
        window: how many batches are sorted by length together: 0 leaves the order as it is, a large number sorts the
            whole dataset. By default 50 where it shuffles and 0 where it does not, so that predictions are in the order
            of the texts. `order(epoch)` says where a sample went.
    Raises:
        TypeError, ValueError: an argument of another kind, or out of range.

    Example:
        >>> import retrograd as rg
        >>> texts = ["to be", "or", "not to be", "or"]
        >>> dataset = rg.data.TextDataset(texts, [1, 0, 1, 0], rg.data.CharTokenizer.from_text("".join(texts)))
        >>> for ids, mask, types, labels in rg.data.TextLoader(dataset, batch_size=2, window=2):
        ...     print(ids.shape, mask.sum(axis=1).tolist(), labels.tolist())
        (2, 8) [2, 2] [0, 0]
        (2, 16) [5, 9] [1, 1]
    """

    def __init__(
        self,
        dataset: TextDataset | Subset,
        batch_size: int = 32,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        window: int | None = None,
        prefetch: int = 2,
    ) -> None:
        self.lengths = _lengths(dataset)
        super().__init__(dataset, batch_size, shuffle, seed, drop_last, prefetch=prefetch)
        self.window = _at_least(0, "window", WINDOW * shuffle if window is None else window)

    def order(self, epoch: int) -> np.ndarray:
        """The order in which an epoch visits the samples, (N,) int64."""
        order = super().order(epoch)
        if not self.window:
            return order
        size = self.window * self.batch_size
        windows = [order[start : start + size] for start in range(0, len(order), size)]
        order = np.concatenate([w[np.argsort(self.lengths[w], kind="stable")] for w in windows])
        if not self.shuffle:
            return order
        # A last batch that is smaller stays the last one: the position of the others depends on it.
        full = len(order) // self.batch_size
        batches = order[: full * self.batch_size].reshape(full, self.batch_size)
        shuffled = batches[batch_order(self._key, epoch, full)]
        return np.concatenate([shuffled.reshape(-1), order[full * self.batch_size :]])

    def _identity(self) -> dict[str, int]:
        return {**super()._identity(), "window": self.window}


def _lengths(dataset: Dataset) -> np.ndarray:
    """How many tokens each text has, (N,)."""
    if isinstance(dataset, Subset):
        return _lengths(dataset.dataset)[dataset.indices]
    if not isinstance(dataset, TextDataset):
        raise TypeError(f"a TextLoader reads a TextDataset or a Subset of one, got {type(dataset).__name__}")
    return dataset.lengths
