"""The tokenizer of a published checkpoint, from its own files, by the `tokenizers` library (extra `text`)."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from ..autograd_core.text_files import read_json, read_text, write_json, write_text
from .base_tokenizer import ROLES, BaseTokenizer, Row, Text, id_list

CONFIG, SPECIAL = "tokenizer_config.json", "special_tokens_map.json"

# What special tokens are called where the files do not say: the first of these that the vocabulary has.
USUAL_NAMES = {
    "pad": ("[PAD]", "<pad>"),
    "unk": ("[UNK]", "<unk>"),
    "cls": ("[CLS]",),
    "sep": ("[SEP]",),
    "mask": ("[MASK]", "<mask>"),
    "bos": ("<|endoftext|>", "<s>"),
    "eos": ("<|endoftext|>", "</s>"),
}
_NO_LIMIT = 1_000_000_000  # configurations write a very large number where the model takes any length


class Tokenizer(BaseTokenizer):
    """Text to numbers and back as the checkpoint was trained with. Made by `Tokenizer.from_pretrained(folder)`.

    Calling it makes batches; see `BaseTokenizer` for what all tokenizers share.

    Args:
        library: a `tokenizers.Tokenizer`.
        config: the content of `tokenizer_config.json`, as far as there is one.
    """

    def __init__(self, library: Any, config: dict[str, Any] | None = None) -> None:
        # The file may ask for padding and cutting of its own; both are done by us, and are said at the call.
        library.no_padding()
        library.no_truncation()
        self._library, self._config, self._lock = library, dict(config or {}), threading.Lock()
        self.vocab_size = library.get_vocab_size()
        self.model_max_length = _limit(self._config.get("model_max_length"))
        for role in ROLES:
            setattr(self, f"{role}_token_id", self._special_id(role))

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str]) -> Self:
        """The tokenizer whose files lie in a folder: `tokenizer.json`, or else the vocabulary files in `LAYOUTS`.

        Raises:
            ImportError: the extra `text` is not installed.
            FileNotFoundError: no folder, or none of the files; lists what was looked for.
            ValueError: a damaged file.
        """
        place = Path(folder)
        if not place.is_dir():
            raise FileNotFoundError(f"{place} is not a folder: name the one that holds the checkpoint's files")
        library = _import_library()
        config: dict[str, Any] = {}
        for name in (SPECIAL, CONFIG):
            if (place / name).is_file():
                config.update(read_json(place / name))
        for files, build in LAYOUTS.items():
            if all((place / name).is_file() for name in files):
                try:
                    return cls(build(library, place, config), config)
                except (OSError, ImportError):
                    raise
                except Exception as error:  # the library raises plain Exceptions
                    text = str(error).removeprefix(f"{place / files[0]}: ")
                    raise ValueError(f"{place / files[0]} is no tokenizer that can be read: {text}") from None
        wanted = ", ".join(" with ".join(files) for files in LAYOUTS)
        raise FileNotFoundError(f"{place} holds no tokenizer: looked for {wanted}")

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json` into a folder, which is made where it is missing."""
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        with self._lock:
            self._library.no_truncation()
            write_text(place / "tokenizer.json", self._library.to_str(pretty=True))
        names = {f"{role}_token": self._token(role) for role in ROLES}
        write_json(place / CONFIG, {**self._config, **{name: token for name, token in names.items() if token}})

    def decode(self, ids: Any, skip_special_tokens: bool = True) -> str:
        return self._library.decode(id_list(ids), skip_special_tokens=skip_special_tokens)

    def token_to_id(self, token: str) -> int | None:
        """The number of one token as the vocabulary spells it, None if it has none."""
        return self._library.token_to_id(token)

    def id_to_token(self, id: int) -> str | None:
        """The token of a number as the vocabulary spells it, None if there is none."""
        return self._library.id_to_token(id)

    def _rows(self, texts: list[Text], special: bool, limit: int | None) -> list[Row]:
        if limit is not None and special:
            pairs = any(not isinstance(text, str) for text in texts)
            needed = self._added(pairs) + 1 + pairs
            if limit < needed:  # the library would not cut at all
                raise ValueError(f"max_length={limit} has no room for the special tokens and a text: at least {needed}")
        # Where to cut is a state of the library's object, which threads share.
        with self._lock:
            if limit is None:
                self._library.no_truncation()
            else:
                self._library.enable_truncation(limit)
            try:
                found = self._library.encode_batch(texts, add_special_tokens=special)
            except TypeError:  # of texts: what Python makes of bytes that are no UTF-8
                raise ValueError(
                    "a text holds parts of characters (surrogates): it was read from bytes that are no UTF-8"
                ) from None
        return [Row(row.ids, row.type_ids) for row in found]

    def _added(self, pair: bool) -> int:
        return self._library.num_special_tokens_to_add(pair)

    def _special_id(self, role: str) -> int | None:
        token = self._token(role)
        return None if token is None else self._library.token_to_id(token)

    def _token(self, role: str) -> str | None:
        known = (name for name in _names(self._config, role) if self._library.token_to_id(name) is not None)
        return next(known, None)

    def __repr__(self) -> str:
        return f"Tokenizer({self.vocab_size} tokens, model_max_length={self.model_max_length})"


def _limit(named: Any) -> int | None:
    return int(named) if isinstance(named, (int, float)) and 0 < named < _NO_LIMIT else None


def _names(config: dict[str, Any], role: str) -> tuple[str, ...]:
    """What the token of that role may be called, most likely first; files spell it as text or as {"content": text}."""
    named = config.get(f"{role}_token")
    named = named.get("content") if isinstance(named, dict) else named
    return (named,) if isinstance(named, str) else USUAL_NAMES[role]


def _import_library() -> Any:
    try:
        import tokenizers  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ImportError(
            "the tokenizer of a checkpoint needs the `tokenizers` library, which is not installed: "
            "pip install 'retrograd[text]'"
        ) from None
    return tokenizers


# -- what a folder may hold -------------------------------------------------------------------------------------------


def _whole(library: Any, place: Path, config: dict[str, Any]) -> Any:
    return library.Tokenizer.from_str(read_text(place / "tokenizer.json"))


def _wordpiece(library: Any, place: Path, config: dict[str, Any]) -> Any:
    """BERT's: words, lower-cased where the configuration says so, then the longest pieces that the vocabulary has."""
    lines = read_text(place / "vocab.txt").rstrip("\r\n").split("\n")
    vocabulary = {line.rstrip("\r"): i for i, line in enumerate(lines)}
    names = {role: _names(config, role)[0] for role in ("pad", "unk", "cls", "sep", "mask")}
    missing = [token for token in names.values() if token not in vocabulary]
    if missing:
        raise ValueError(f"it lacks the special tokens {' '.join(missing)}")
    made = library.Tokenizer(library.models.WordPiece(vocabulary, unk_token=names["unk"]))
    made.normalizer = library.normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=config.get("tokenize_chinese_chars", True),
        strip_accents=config.get("strip_accents"),
        lowercase=config.get("do_lower_case", True),
    )
    made.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    first, last = ((names[role], vocabulary[names[role]]) for role in ("cls", "sep"))
    made.post_processor = library.processors.BertProcessing(last, first)
    made.decoder = library.decoders.WordPiece()
    made.add_special_tokens(list(names.values()))
    return made


def _byte_level(library: Any, place: Path, config: dict[str, Any]) -> Any:
    """GPT-2's: bytes, merged pair by pair in the order in which the merges were learnt."""
    read_json(place / "vocab.json")  # a better error than the library's
    made = library.Tokenizer(library.models.BPE.from_file(str(place / "vocab.json"), str(place / "merges.txt")))
    made.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=config.get("add_prefix_space", False))
    made.decoder = library.decoders.ByteLevel()
    made.post_processor = library.processors.ByteLevel(trim_offsets=False)
    if made.token_to_id("<|endoftext|>") is not None:
        made.add_special_tokens(["<|endoftext|>"])
    return made


# The files that make a tokenizer, in the order in which they are looked for, and how it is built of them.
LAYOUTS: dict[tuple[str, ...], Callable[[Any, Path, dict[str, Any]], Any]] = {
    ("tokenizer.json",): _whole,
    ("vocab.txt",): _wordpiece,
    ("vocab.json", "merges.txt"): _byte_level,
}


def load_tokenizer(folder: str | os.PathLike[str]) -> BaseTokenizer:
    """The tokenizer of a folder, of the kind that its files show.

    A `Tokenizer` for the files in `LAYOUTS`; a `CharTokenizer` for a `vocab.json` of characters alone. The two
    files of GPT-2 need no extra: without it a `BytePairTokenizer`, which gives the same numbers, reads them.

    Raises as their `from_pretrained` do.
    """
    from .byte_pair_encoding import MERGES, BytePairTokenizer
    from .characters import VOCABULARY, CharTokenizer

    place = Path(folder)
    present = {name for files in LAYOUTS for name in files if (place / name).is_file()}
    if present == {VOCABULARY}:
        return CharTokenizer.from_pretrained(place)
    try:
        return Tokenizer.from_pretrained(place)
    except ImportError:
        if present == {VOCABULARY, MERGES}:
            return BytePairTokenizer.from_pretrained(place)
        raise
