"""The simplest tokenizer: every character is a token. Its vocabulary is a list of characters in `vocab.json`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Self

from ..autograd_core.text_files import read_json, write_json
from .base_tokenizer import BaseTokenizer, Row, Text, id_list

VOCABULARY = "vocab.json"


class CharTokenizer(BaseTokenizer):
    """Characters as numbers, for models that learn to spell. Needs no extra.

    Args:
        vocabulary: character → number, the numbers 0, 1, 2 … each once.
    Raises ValueError for anything else.

    Example:
        >>> import retrograd as rg
        >>> tokenizer = rg.data.CharTokenizer.from_text("hello")
        >>> tokenizer.encode("hole")
        [1, 3, 2, 0]
        >>> tokenizer.decode([1, 3, 2, 0])
        'hole'
    """

    def __init__(self, vocabulary: dict[str, int]) -> None:
        if not vocabulary or any(not isinstance(c, str) or len(c) != 1 for c in vocabulary):
            raise ValueError("a vocabulary of characters has single characters as its keys, and at least one")
        if any(type(i) is not int for i in vocabulary.values()) or sorted(vocabulary.values()) != list(
            range(len(vocabulary))
        ):
            raise ValueError(
                f"the {len(vocabulary)} characters of a vocabulary have the numbers 0 to {len(vocabulary) - 1}"
            )
        self.vocabulary = dict(vocabulary)
        self.vocab_size = len(vocabulary)
        self._characters = sorted(vocabulary, key=vocabulary.__getitem__)

    @classmethod
    def from_text(cls, text: str) -> Self:
        """The vocabulary of the characters that a text has, in the order of Unicode."""
        return cls({character: i for i, character in enumerate(sorted(set(text)))})

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str]) -> Self:
        """The tokenizer whose `vocab.json` lies in a folder. Raises OSError and ValueError, each one clear line."""
        path = Path(folder, VOCABULARY)
        if not path.is_file():
            raise FileNotFoundError(f"{os.fspath(folder)} has no {VOCABULARY}, the vocabulary of a CharTokenizer")
        try:
            return cls(read_json(path))
        except ValueError as error:
            text = str(error)
            raise ValueError(text if text.startswith(str(path)) else f"{path}: {text}") from None

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write `vocab.json` into a folder, which is made where it is missing."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_json(Path(folder, VOCABULARY), self.vocabulary)

    def decode(self, ids: Any, skip_special_tokens: bool = True) -> str:
        """The text of a row of numbers. Raises IndexError for a number that is none of the vocabulary's."""
        row = id_list(ids)
        for i in row:
            if not 0 <= i < self.vocab_size:
                raise IndexError(f"token {i} is not in the vocabulary of {self.vocab_size} characters")
        return "".join(self._characters[i] for i in row)

    def _rows(self, texts: list[Text], special: bool, limit: int | None) -> list[Row]:
        rows = []
        for i, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(f"a CharTokenizer takes single texts, text {i} is a pair")
            strangers = sorted(set(text) - self.vocabulary.keys())
            if strangers:
                raise ValueError(
                    f"text {i} has characters that the vocabulary of {self.vocab_size} lacks: "
                    f"{' '.join(map(repr, strangers[:10]))}{' …' if len(strangers) > 10 else ''}"
                )
            ids = [self.vocabulary[character] for character in text[:limit]]
            rows.append(Row(ids, [0] * len(ids)))
        return rows

    def __repr__(self) -> str:
        return f"CharTokenizer({self.vocab_size} characters)"
