"""What every tokenizer does once its rows of numbers are there: check lengths, pad, and say what is padding."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple, TypedDict

import numpy as np

from .padding import Side, pad

Text = str | tuple[str, str]

# The special tokens a tokenizer may have, by the names that the field gives them.
ROLES = ("pad", "unk", "cls", "sep", "mask", "bos", "eos")


class Row(NamedTuple):
    """One text as numbers: its tokens, and for each whether it belongs to the first (0) or second (1) of a pair."""

    ids: list[int]
    types: list[int]


class Tokens(TypedDict):
    """What a call of a tokenizer gives, a plain dict: (B, T) int64 arrays under the names that models take them by."""

    input_ids: np.ndarray
    attention_mask: np.ndarray
    token_type_ids: np.ndarray


class BaseTokenizer:
    """The face that tokenizers share. Subclasses write `_rows`, `decode` and `save_pretrained`.

    Attributes:
        vocab_size: how many different numbers there are.
        model_max_length: the longest sequence that the model takes, None where the files do not say.
        pad_token_id, unk_token_id, cls_token_id, sep_token_id, mask_token_id, bos_token_id, eos_token_id: the numbers
            of the special tokens, None for those that this vocabulary lacks. Without a token for padding the end of
            text fills up: the attention mask hides it.
    """

    vocab_size: int
    model_max_length: int | None = None
    pad_token_id: int | None = None
    unk_token_id: int | None = None
    cls_token_id: int | None = None
    sep_token_id: int | None = None
    mask_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | None = None

    def _rows(self, texts: list[Text], special: bool, limit: int | None) -> list[Row]:
        """Each text as numbers, cut to `limit` of them where it is given."""
        raise NotImplementedError

    def _added(self, pair: bool) -> int:
        """How many special tokens are put around a text or a pair."""
        return 0

    def decode(self, ids: Any, skip_special_tokens: bool = True) -> str:
        """The text of a row of numbers: a list, array or Tensor of shape (T,)."""
        raise NotImplementedError

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the files from which `from_pretrained` makes this tokenizer into a folder, made where it is missing."""
        raise NotImplementedError

    def encode(self, text: str, pair: str | None = None, *, add_special_tokens: bool = True) -> list[int]:
        """One text, or a pair of them, as a list of numbers: of any length, the empty text too."""
        one = _checked([text if pair is None else (text, pair)], empty=True)
        return self._rows(one, add_special_tokens, None)[0].ids

    def __call__(
        self,
        texts: str | Sequence[Text] | np.ndarray,
        max_length: int | None = None,
        *,
        truncation: bool = False,
        pad_to_multiple_of: int = 1,
        padding_side: Side = "right",
        add_special_tokens: bool = True,
    ) -> Tokens:
        """Texts as one batch of numbers, the shorter ones padded to the longest.

        Args:
            texts: a list of B texts, or of B pairs of texts; a single text is a batch of one.
            max_length: the most tokens a text may have, special ones included; by default what the model takes.
            truncation: cut longer texts to it (of a pair the longer text first); otherwise they are an error.
            pad_to_multiple_of: the length is rounded up to a multiple of it.
            padding_side: "right", or "left" for prompts that are to be continued.
            add_special_tokens: put in what the model expects around a text, such as [CLS] and [SEP].
        Returns:
            three (B, T) int64 arrays: `input_ids`; `attention_mask`, 1 for tokens and 0 for padding;
            `token_type_ids`, 1 for the second text of a pair and 0 elsewhere.
        Raises:
            TypeError: something that is no text.
            ValueError: an empty text, or one that is too long; says which.

        Example:
            >>> import retrograd as rg
            >>> tokenizer = rg.data.CharTokenizer.from_text("to be or not to be")
            >>> batch = tokenizer(["to be", "not"], pad_to_multiple_of=8)
            >>> batch["input_ids"].shape, batch["attention_mask"].sum(axis=1)
            ((2, 8), array([5, 3]))
        """
        rows = self.rows(texts, max_length, truncation=truncation, add_special_tokens=add_special_tokens)
        return self.pad(rows, pad_to_multiple_of=pad_to_multiple_of, padding_side=padding_side)

    def rows(
        self,
        texts: str | Sequence[Text] | np.ndarray,
        max_length: int | None = None,
        *,
        truncation: bool = False,
        add_special_tokens: bool = True,
    ) -> list[Row]:
        """The texts as rows of numbers without padding; arguments and errors as for a call."""
        checked = _checked([texts] if isinstance(texts, str) else list(texts), empty=False)
        limit = self._limit(max_length, truncation)
        rows = self._rows(checked, add_special_tokens, limit if truncation else None)
        for i, (row, text) in enumerate(zip(rows, checked, strict=True)):
            if len(row.ids) <= (self._added(not isinstance(text, str)) if add_special_tokens else 0):
                raise ValueError(f"text {i} has no token, {text!r:.60}: it is empty to this tokenizer. Leave it out.")
            if limit is not None and len(row.ids) > limit:
                raise ValueError(
                    f"text {i} is too long: {len(row.ids)} tokens where at most {limit} fit, {text!r:.60}. "
                    "Shorten it, or say truncation=True to cut such texts off."
                )
        return rows

    def pad(self, rows: Sequence[Row], *, pad_to_multiple_of: int = 1, padding_side: Side = "right") -> Tokens:
        """Rows as the batch that a call gives."""
        filling = next((i for i in (self.pad_token_id, self.eos_token_id) if i is not None), 0)

        def padded(values: list[list[int]], value: int = 0) -> np.ndarray:
            return pad(values, value, multiple_of=pad_to_multiple_of, side=padding_side)

        return {
            "input_ids": padded([row.ids for row in rows], filling),
            "attention_mask": padded([[1] * len(row.ids) for row in rows]),
            "token_type_ids": padded([row.types for row in rows]),
        }

    def _limit(self, max_length: int | None, truncation: bool) -> int | None:
        most = self.model_max_length
        if max_length is None:
            if truncation and most is None:
                raise ValueError(
                    "truncation=True needs max_length=…: the tokenizer's files do not say what the model takes"
                )
            return most
        if max_length < 1 or (most is not None and max_length > most):
            raise ValueError(f"max_length must be from 1 to {most or '…'}, what the model takes; got {max_length}")
        return max_length


def _checked(texts: list[Any], empty: bool) -> list[Text]:
    """Texts and pairs as they are, or an error that says which one is none."""
    if not texts:
        raise ValueError("expected at least one text, got none")
    for i, text in enumerate(texts):
        parts = text if isinstance(text, (tuple, list)) else (text,)
        if len(parts) > 2 or not all(isinstance(part, str) for part in parts):
            raise TypeError(f"expected a text or a pair of texts, got {type(text).__name__} {text!r:.60} as text {i}")
        if not empty and not all(parts):
            raise ValueError(f"text {i} is empty: leave it out")
    return [text if isinstance(text, str) else (text[0], text[1]) for text in texts]


def id_list(ids: Any) -> list[int]:
    """A row of token numbers, given as list, array or Tensor of shape (T,), as a list of Python integers."""
    array = np.asarray(ids.numpy() if hasattr(ids, "numpy") else ids)
    if array.size and (array.ndim != 1 or array.dtype.kind not in "iu"):
        raise TypeError(f"expected one row of token numbers, (T,) integers, got {array.dtype} of shape {array.shape}")
    return array.reshape(-1).tolist()
