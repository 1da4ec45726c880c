"""Byte-pair encoding, as GPT-2 has it: training, text to tokens and back, in one file that needs no other library.

Training begins with the 256 bytes as tokens, and again and again makes one token of the two neighbours that stand
together most often. What comes out is the list of these merges, in their order. A text is encoded by doing the same
merges in the same order: common words become one token, rare ones several, and no text, in whatever script, is unknown.

Two things keep it manageable. Text is first cut into words and other pieces, and no merge crosses their borders. And
each byte is written as one visible character, so that a vocabulary is a list of strings.

Sources: Sennrich et al., "Neural machine translation of rare words with subword units", 2016; bytes and the pattern for
cutting from Radford et al., "Language models are unsupervised multitask learners", 2019. Merges, numbers and texts are
equal to those of the `tokenizers` library (its BPE trainer with ByteLevel), which is faster.
"""

from __future__ import annotations

import heapq
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ..autograd_core.text_files import read_json, read_text, write_json, write_text
from .base_tokenizer import BaseTokenizer, Row, Text, id_list

if TYPE_CHECKING:
    import re

VOCABULARY, MERGES = "vocab.json", "merges.txt"
END_OF_TEXT = "<|endoftext|>"
_VERSION = "#version: 0.2"  # how the published files begin

Pair = tuple[int, int]


# -- bytes as characters ----------------------------------------------------------------------------------------------


@cache
def byte_characters() -> str:
    """The character that stands for each byte, at its place: 256 of them.

    Bytes that are visible characters in Latin-1 stand for themselves, the others are given the characters from 256 on.

    >>> from retrograd.data.byte_pair_encoding import byte_characters
    >>> "".join(byte_characters()[b] for b in " à\\n".encode())
    'ĠÃłĊ'
    """
    visible = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return "".join(chr(byte if byte in visible else next(others)) for byte in range(256))


@cache
def _bytes_of_characters() -> dict[str, int]:
    return {character: byte for byte, character in enumerate(byte_characters())}


# -- cutting text into pieces -----------------------------------------------------------------------------------------


@cache
def pieces_pattern() -> re.Pattern[str]:
    r"""GPT-2's pattern: endings such as 's; then a word, a number or other signs, each with a space before; then space.

    It is written with \p{L} and \p{N}, which `re` does not know: those classes are made here from the categories of
    Unicode. Its \s is that of Unicode, without the four separators that Python counts as space.

    >>> from retrograd.data.byte_pair_encoding import pieces_pattern
    >>> pieces_pattern().findall("They've 3 apples!!  ok")
    ['They', "'ve", ' 3', ' apples', '!!', ' ', ' ok']
    """
    import re

    letters, numbers = _class("L"), _class("N")
    space = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
    return re.compile(
        rf"'s|'t|'re|'ve|'m|'ll|'d| ?[{letters}]+| ?[{numbers}]+| ?[^{space}{letters}{numbers}]+"
        # A space before a word belongs to the word, so a run of space leaves its last one.
        rf"|[{space}]+(?![^{space}])|[{space}]+"
    )


def _class(major: str) -> str:
    """The inside of a character class for all characters whose category begins with that letter."""
    import sys
    import unicodedata

    ranges: list[list[int]] = []
    for code in range(sys.maxunicode + 1):
        if unicodedata.category(chr(code))[0] == major:
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    return "".join(rf"\U{first:08x}-\U{last:08x}" for first, last in ranges)


def pieces(text: str) -> Iterator[str]:
    """The pieces of a text, each with a character for every byte."""
    characters = byte_characters()
    for found in pieces_pattern().finditer(text):
        yield "".join(characters[byte] for byte in found.group().encode("utf-8", "replace"))


# -- training ---------------------------------------------------------------------------------------------------------


def train_merges(
    words: Counter[str], vocab_size: int, min_frequency: int, special: Sequence[str]
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Learn a vocabulary and its merges from how often each piece occurs.

    The pair that is merged next is the most frequent one; of equally frequent ones that with the lower numbers.
    """
    tokens = [*special, *sorted(byte_characters())]
    numbers = {token: number for number, token in enumerate(tokens)}
    merges: list[tuple[str, str]] = []
    spelled = [[numbers[character] for character in word] for word in words]
    frequency = list(words.values())
    counts: Counter[Pair] = Counter()
    where: defaultdict[Pair, set[int]] = defaultdict(set)  # the words that have, or had, a pair
    for word, ids in enumerate(spelled):
        for pair in pairwise(ids):
            counts[pair] += frequency[word]
            where[pair].add(word)
    queue = [(-count, pair) for pair, count in counts.items()]
    heapq.heapify(queue)
    while len(tokens) < vocab_size and queue:
        negative, pair = heapq.heappop(queue)
        if -negative != counts[pair]:
            # The count has sunk since it was put there.
            if counts[pair] > 0:
                heapq.heappush(queue, (-counts[pair], pair))
            continue
        if -negative < max(min_frequency, 1):
            break
        merged = tokens[pair[0]] + tokens[pair[1]]
        number = numbers.setdefault(merged, len(tokens))  # two merges can make the same string
        if number == len(tokens):
            tokens.append(merged)
        merges.append((tokens[pair[0]], tokens[pair[1]]))
        risen: set[Pair] = set()
        for word in where.pop(pair):
            before = Counter(pairwise(spelled[word]))
            spelled[word] = _replaced(spelled[word], pair, number)
            after = Counter(pairwise(spelled[word]))
            for changed in before.keys() | after.keys():
                difference = (after[changed] - before[changed]) * frequency[word]
                counts[changed] += difference
                if difference > 0:
                    where[changed].add(word)
                    risen.add(changed)
        for changed in risen:
            heapq.heappush(queue, (-counts[changed], changed))
    return numbers, merges


def _replaced(ids: list[int], pair: Pair, number: int) -> list[int]:
    """The row with `number` in the place of each such pair, from the left."""
    out: list[int] = []
    i = 0
    while i < len(ids):
        if i + 1 < len(ids) and (ids[i], ids[i + 1]) == pair:
            out.append(number)
            i += 2
        else:
            out.append(ids[i])
            i += 1
    return out


# -- the tokenizer ----------------------------------------------------------------------------------------------------


class BytePairTokenizer(BaseTokenizer):
    """Text to tokens and back by byte-pair encoding; `BytePairTokenizer.train` learns one.

    Args:
        vocabulary: token, with a character for each byte, → number.
        merges: pairs of tokens, in the order in which they are merged.
        special: tokens that stand for themselves in a text and are never cut, such as "<|endoftext|>".
    Raises:
        ValueError: a merge or special token that the vocabulary lacks; a vocabulary without all the bytes.

    Example:
        >>> from retrograd.data import BytePairTokenizer
        >>> tokenizer = BytePairTokenizer.train("low lower lowest slow slower", vocab_size=260)
        >>> tokenizer.merges
        [('l', 'o'), ('lo', 'w'), ('low', 'e'), ('Ġ', 's')]
        >>> [tokenizer.tokens[i] for i in tokenizer.encode("low slower")]
        ['low', 'Ġs', 'lowe', 'r']
        >>> tokenizer.decode(tokenizer.encode("€ 5, 東京"))
        '€ 5, 東京'
    """

    def __init__(
        self, vocabulary: dict[str, int], merges: Sequence[tuple[str, str]], special: Sequence[str] = ()
    ) -> None:
        lacking = [*special, *byte_characters(), *(t for a, b in merges for t in (a, b, a + b))]
        lacking = [token for token in lacking if token not in vocabulary]
        if lacking:
            raise ValueError(f"the vocabulary lacks {len(lacking)} tokens, such as {lacking[0]!r}")
        self.vocabulary, self.merges, self.special = dict(vocabulary), [tuple(pair) for pair in merges], tuple(special)
        self.vocab_size = len(self.vocabulary)
        self.tokens = {number: token for token, number in vocabulary.items()}
        self._ranks = {(vocabulary[a], vocabulary[b]): (rank, vocabulary[a + b]) for rank, (a, b) in enumerate(merges)}
        self._known: dict[str, list[int]] = {}  # pieces that were encoded before
        self.bos_token_id = self.eos_token_id = vocabulary.get(END_OF_TEXT) if END_OF_TEXT in special else None

    @classmethod
    def train(
        cls,
        texts: str | Iterable[str],
        vocab_size: int,
        *,
        min_frequency: int = 2,
        special: Sequence[str] = (),
    ) -> Self:
        """Learn from texts.

        Args:
            texts: one text, or several.
            vocab_size: how many tokens to end with, special ones and the 256 bytes included; fewer where nothing is
                left to merge.
            min_frequency: pairs that are rarer are not merged.
            special: tokens that get the first numbers.
        Raises ValueError for a vocab_size without room for the bytes.
        """
        least = 256 + len(special)
        if vocab_size < least:
            raise ValueError(f"vocab_size must be at least {least}, the bytes and special tokens, got {vocab_size}")
        words = Counter(piece for text in ([texts] if isinstance(texts, str) else texts) for piece in pieces(text))
        return cls(*train_merges(words, vocab_size, min_frequency, special), special)

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str]) -> Self:
        """The tokenizer whose `vocab.json` and `merges.txt` lie in a folder, GPT-2's for example.

        Raises FileNotFoundError where one is missing, ValueError for a damaged one.
        """
        paths = [Path(folder, name) for name in (VOCABULARY, MERGES)]
        for path in paths:
            if not path.is_file():
                raise FileNotFoundError(f"{os.fspath(folder)} has no {path.name}, which a BytePairTokenizer is made of")
        vocabulary = read_json(paths[0])
        merges = []
        for number, line in enumerate(read_text(paths[1]).split("\n"), 1):
            if line.strip() and not (number == 1 and line.startswith("#version")):
                pair = tuple(line.rstrip("\r").split(" "))
                if len(pair) != 2:
                    raise ValueError(f"{paths[1]}: line {number} is no merge of two tokens: {line[:40]!r}")
                merges.append(pair)
        if any(type(number) is not int for number in vocabulary.values()):
            raise ValueError(f"{paths[0]}: expected a whole number for every token")
        try:
            return cls(vocabulary, merges, [END_OF_TEXT] if END_OF_TEXT in vocabulary else [])
        except ValueError as error:
            raise ValueError(f"{paths[0]}: {error}") from None

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write `vocab.json` and `merges.txt` into a folder, which is made where it is missing."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_json(Path(folder, VOCABULARY), self.vocabulary)
        write_text(Path(folder, MERGES), "\n".join([_VERSION, *(f"{a} {b}" for a, b in self.merges)]) + "\n")

    def decode(self, ids: Any, skip_special_tokens: bool = True) -> str:
        """The text of a row of numbers; bytes that are no character become "\N{REPLACEMENT CHARACTER}".

        Raises IndexError for a number that is none of the vocabulary's.
        """
        content = bytearray()
        for number in id_list(ids):
            token = self.tokens.get(number)
            if token is None:
                raise IndexError(f"token {number} is not in the vocabulary of {self.vocab_size}")
            if token in self.special:
                content += b"" if skip_special_tokens else token.encode()
            else:
                content += bytes(map(_bytes_of_characters().__getitem__, token))
        return content.decode("utf-8", "replace")

    def _rows(self, texts: list[Text], special: bool, limit: int | None) -> list[Row]:
        rows = []
        for i, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(f"a BytePairTokenizer takes single texts, text {i} is a pair")
            ids = list(self._encoded(text))[:limit]
            rows.append(Row(ids, [0] * len(ids)))
        return rows

    def _encoded(self, text: str) -> Iterator[int]:
        for part in self._parts(text):
            if part in self.special:
                yield self.vocabulary[part]
                continue
            for piece in pieces(part):
                known = self._known.get(piece)
                if known is None:
                    known = self._known[piece] = self._merged([self.vocabulary[c] for c in piece])
                yield from known

    def _parts(self, text: str) -> list[str]:
        """The text cut at special tokens, which are parts of their own."""
        import re

        if not self.special:
            return [text]
        return re.split(f"({'|'.join(map(re.escape, sorted(self.special, key=len, reverse=True)))})", text)

    def _merged(self, ids: list[int]) -> list[int]:
        """Merge neighbours, always the pair that was learnt first, from the left, until none is left that was learnt.

        The row is a chain: a merge takes one link out, and makes two new pairs at most.
        """
        ids, last = list(ids), len(ids) - 1
        after, before = list(range(1, last + 2)), list(range(-1, last))
        queue: list[tuple[int, int, Pair, int]] = []  # rank, place, the pair when it was put here, what it becomes

        def put(place: int) -> None:
            if place >= 0 and after[place] <= last:
                pair = ids[place], ids[after[place]]
                if pair in self._ranks:
                    rank, number = self._ranks[pair]
                    heapq.heappush(queue, (rank, place, pair, number))

        for place in range(last):
            put(place)
        while queue:
            _, place, pair, number = heapq.heappop(queue)
            right = after[place]
            if right > last or (ids[place], ids[right]) != pair:
                continue  # one of the two has been merged with another
            ids[place], ids[right] = number, -1
            after[place] = after[right]
            if after[right] <= last:
                before[after[right]] = place
            put(before[place])
            put(place)
        return [number for number in ids if number >= 0]

    def __repr__(self) -> str:
        return f"BytePairTokenizer({self.vocab_size} tokens, {len(self.merges)} merges)"
