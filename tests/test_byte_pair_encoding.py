"""Byte-pair encoding: what it learns, there and back for any text, files, and the same results as the library's."""

import itertools
import json
import re
import shutil
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from retrograd.data import BytePairTokenizer
from retrograd.data.byte_pair_encoding import byte_characters, pieces, pieces_pattern

AWKWARD = [
    "Crème brûlée naïve e\u0301 \u1e69 s\u0323\u0307 ﬁ ﬂ",
    "東京タワー ひらがな 한국어 العربية हिन्दी ไทย",
    "😀👩‍👩‍👧‍👦🇩🇪 ½ ² ⅷ ① ٣ ১২৩ 𝟘𝟙",
    "tabs\t\tand  spaces   \n\n\n end \r\n x\u00a0y\u2003z\u200bq\u2028r\x1c\x1ds\x85t\ufeff",
    "don't WE'LL 'tis they've 's ' 's's I'm'd",
    "snake_case camelCase x=1+2;//-- ###!!! 3.14 1,000 a1b2",
    "\x00\x01\x7f\x80\xad\xff\ufffd\uffff\U0010ffff",
    " ",
    "\n",
    "a" * 70 + " " * 40 + "ab" * 30,
]
SMALL = "the cat sat on the mat; the cats sat on the mats. " * 3 + "aaaa aaa aaaaaaa abababab " * 4

# Characters that this Python's Unicode knows: a library with a newer one counts others as letters.
known = st.characters(exclude_categories=["Cs", "Cn"])


def library(texts: list[str], vocab_size: int, min_frequency: int, special: list[str] | None = None):
    """The library's tokenizer trained on the same texts."""
    tokenizers = pytest.importorskip("tokenizers")
    level = tokenizers.pre_tokenizers.ByteLevel
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer, made.decoder = level(add_prefix_space=False), tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=special or [],
        initial_alphabet=level.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    return made


def same_training(texts: list[str], vocab_size: int, min_frequency: int, special: list[str] | None = None):
    """Both, after it was seen that they learnt the same."""
    theirs = library(texts, vocab_size, min_frequency, special)
    ours = BytePairTokenizer.train(texts, vocab_size, min_frequency=min_frequency, special=special or [])
    learnt = json.loads(theirs.to_str())["model"]
    assert ours.merges == [tuple(pair) for pair in learnt["merges"]]
    assert ours.vocabulary == learnt["vocab"]
    return ours, theirs


# -- pieces and bytes -------------------------------------------------------------------------------------------------


def test_bytes_have_visible_characters_of_their_own() -> None:
    characters = byte_characters()
    assert len(set(characters)) == len(characters) == 256
    assert all(character.isprintable() and not character.isspace() for character in characters)
    assert characters[ord("a")] == "a"
    assert (characters[ord(" ")], characters[ord("\n")]) == ("Ġ", "Ċ")


def test_pieces_hold_the_whole_text() -> None:
    for text in AWKWARD:
        assert "".join(pieces_pattern().findall(text)) == text
    assert list(pieces("a  bc's 12!?")) == ["a", "Ġ", "Ġbc", "'s", "Ġ12", "!?"]
    assert pieces_pattern().findall("x \n\n y") == ["x", " \n\n", " y"]


# -- training ---------------------------------------------------------------------------------------------------------


def test_the_most_frequent_pair_is_merged_first() -> None:
    tokenizer = BytePairTokenizer.train("ab ab ab cd cd x", 260, min_frequency=2)
    # Of equally frequent ones that with the lower numbers: "c" and "d" before the space, whose character is beyond.
    assert tokenizer.merges == [("a", "b"), ("c", "d"), ("Ġ", "ab"), ("Ġ", "cd")]
    assert [tokenizer.vocabulary[a + b] for a, b in tokenizer.merges] == [256, 257, 258, 259]


def test_training_by_counting_everything_anew_each_time() -> None:
    words = Counter(pieces(SMALL))
    tokenizer = BytePairTokenizer.train(SMALL, 320, min_frequency=2)
    numbers = {token: i for i, token in enumerate(sorted(byte_characters()))}
    spelled = {word: list(word) for word in words}
    for learnt in tokenizer.merges:
        counts: Counter = Counter()
        for word, tokens in spelled.items():
            for pair in itertools.pairwise(tokens):
                counts[pair] += words[word]
        best = min(counts, key=lambda pair: (-counts[pair], numbers[pair[0]], numbers[pair[1]]))
        assert best == learnt
        numbers.setdefault("".join(best), len(numbers))
        for tokens in spelled.values():
            i = 0
            while i < len(tokens) - 1:
                if (tokens[i], tokens[i + 1]) == best:
                    tokens[i : i + 2] = ["".join(best)]
                i += 1
    assert len(tokenizer.merges) > 20


def test_nothing_rarer_than_asked_for_is_merged() -> None:
    assert BytePairTokenizer.train("ab ab cd", 300, min_frequency=2).merges == [("a", "b")]
    assert BytePairTokenizer.train("ab ab cd", 300, min_frequency=3).merges == []
    assert BytePairTokenizer.train("", 300).vocab_size == 256
    with pytest.raises(ValueError, match="vocab_size must be at least 257, the bytes and special tokens, got 256"):
        BytePairTokenizer.train("ab", 256, special=["<s>"])


# -- there and back ---------------------------------------------------------------------------------------------------


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back(text: str) -> None:
    tokenizer = _trained()
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == tokenizer.decode(np.array(ids, int)) == text
    assert len(ids) <= len(text.encode())


def _trained(cache: list = []) -> BytePairTokenizer:  # noqa: B006  made once
    if not cache:
        cache.append(BytePairTokenizer.train(SMALL, 330))
    return cache[0]


def test_merges_happen_in_the_order_in_which_they_were_learnt() -> None:
    vocabulary = {token: i for i, token in enumerate([*sorted(byte_characters()), "bc", "ab", "abc", "aa"])}
    tokenizer = BytePairTokenizer(vocabulary, [("b", "c"), ("a", "b"), ("a", "bc"), ("a", "a")])
    split = {text: [tokenizer.tokens[i] for i in tokenizer.encode(text)] for text in ("abc", "aab", "aaaaa", "aabc")}
    assert split == {
        "abc": ["abc"],
        "aab": ["a", "ab"],
        "aaaaa": ["aa", "aa", "a"],
        "aabc": ["a", "abc"],
    }


def test_special_tokens_are_never_cut() -> None:
    tokenizer = BytePairTokenizer.train(SMALL, 300, special=["<|endoftext|>", "<|end"])
    ids = tokenizer.encode("the<|endoftext|>cat <|end")
    assert (ids.count(0), ids.count(1), tokenizer.eos_token_id) == (1, 1, 0)
    assert tokenizer.decode(ids) == "thecat "
    assert tokenizer.decode(ids, skip_special_tokens=False) == "the<|endoftext|>cat <|end"


def test_batches_as_all_tokenizers_make_them() -> None:
    batch = _trained()(["the cat", "sat on the mat"], pad_to_multiple_of=8, padding_side="left")
    assert batch["input_ids"].shape[1] % 8 == 0
    assert _trained().decode(batch["input_ids"][0][batch["attention_mask"][0] == 1]) == "the cat"
    with pytest.raises(TypeError, match="single texts, text 0 is a pair"):
        _trained()([("a", "b")])
    with pytest.raises(IndexError, match="token 999 is not in the vocabulary of"):
        _trained().decode([999])


def test_half_a_character_is_replaced() -> None:
    ids = _trained().encode("é")
    assert _trained().decode(ids[:1]) == "\ufffd"


# -- files ------------------------------------------------------------------------------------------------------------


def test_saved_and_read_again(tmp_path: Path) -> None:
    tokenizer = BytePairTokenizer.train([SMALL, *AWKWARD], 400, special=["<|endoftext|>"])
    tokenizer.save_pretrained(tmp_path / "new")
    assert (tmp_path / "new" / "merges.txt").read_text().startswith("#version: 0.2\n")
    again = BytePairTokenizer.from_pretrained(tmp_path / "new")
    assert (again.vocabulary, again.merges, again.special) == (
        tokenizer.vocabulary,
        tokenizer.merges,
        tokenizer.special,
    )


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("merges.txt", "#version: 0.2\na b c\n", r"merges\.txt: line 2 is no merge of two tokens: 'a b c'"),
        ("merges.txt", "q z\n", r"vocab\.json: the vocabulary lacks 1 tokens, such as 'qz'"),
        ("vocab.json", '{"a": 0}', r"vocab\.json: the vocabulary lacks \d+ tokens, such as 'Ā'"),
        ("vocab.json", '{"a": "b"}', "expected a whole number for every token"),
        ("vocab.json", "[]", "expected an object"),
    ],
)
def test_damaged_files(tmp_path: Path, name: str, content: str, expected: str) -> None:
    BytePairTokenizer.train(SMALL, 280).save_pretrained(tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=expected) as caught:
        BytePairTokenizer.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_files(tmp_path: Path) -> None:
    for name in ("vocab.json", "merges.txt"):
        with pytest.raises(FileNotFoundError, match=re.escape(f"has no {name}")):
            BytePairTokenizer.from_pretrained(tmp_path)
        (tmp_path / name).write_text("{}")


# -- against the library ----------------------------------------------------------------------------------------------


@pytest.mark.parity
def test_every_character_is_of_the_same_class() -> None:
    tokenizers = pytest.importorskip("tokenizers")
    level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    classes = [unicodedata.category(chr(i)) for i in range(0x110000)]
    # The borders of all ranges of a class, and every 50th character inside of them.
    borders = {i + d for i, (a, b) in enumerate(itertools.pairwise(classes)) if a[0] != b[0] for d in (0, 1)}
    chosen = sorted(borders | set(range(0x3000)) | set(range(0, 0x110000, 50)))
    every = [chr(i) for i in chosen if classes[i] not in ("Cs", "Cn")]
    # Between a letter, a number, a sign and spaces each class shows where the cuts are.
    for before, after in (("a", "b"), ("1", "2"), ("!", "?"), (" ", " x")):
        for start in range(0, len(every), 500):  # the library takes its time with long texts
            text = "\n".join(before + character + after for character in every[start : start + 500])
            assert list(pieces(text)) == [piece for piece, _ in level.pre_tokenize_str(text)]


@pytest.mark.parity
def test_tiny_shakespeare_gives_the_same_merges_and_numbers(data_folder) -> None:
    text = data_folder("text/tinyshakespeare.txt").read_text()
    ours, theirs = same_training([text[:200_000]], 600, 2, ["<|endoftext|>"])
    assert len(ours.merges) == 343
    ids = ours.encode(text)
    assert ids == theirs.encode(text).ids
    assert ours.decode(ids) == theirs.decode(ids) == text


@pytest.mark.parity
@pytest.mark.parametrize("min_frequency", [0, 2, 5])
def test_awkward_texts_give_the_same_merges_and_numbers(min_frequency: int) -> None:
    ours, theirs = same_training([*AWKWARD, SMALL, *AWKWARD], 600, min_frequency)
    for text in [*AWKWARD, SMALL]:
        ids = ours.encode(text)
        assert ids == theirs.encode(text).ids
        assert ours.decode(ids) == theirs.decode(ids) == text


@pytest.mark.parity
@given(st.lists(st.text("ab c", max_size=30), max_size=5), st.text("abc ", max_size=40))
def test_texts_full_of_ties_and_overlaps(texts: list[str], other: str) -> None:
    ours, theirs = same_training(texts, 290, 0)
    assert ours.encode(other) == theirs.encode(other).ids


@pytest.fixture(scope="module")
def gpt2(data_folder, tmp_path_factory):
    """GPT-2's own vocabulary, ours and the library's."""
    tokenizers = pytest.importorskip("tokenizers")
    folder = tmp_path_factory.mktemp("gpt2")
    shutil.copy(data_folder("tokenizers/gpt2_encoder.json"), folder / "vocab.json")
    shutil.copy(data_folder("tokenizers/gpt2_vocab.bpe"), folder / "merges.txt")
    theirs = tokenizers.Tokenizer(
        tokenizers.models.BPE.from_file(*(str(folder / n) for n in ("vocab.json", "merges.txt")))
    )
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs.decoder = tokenizers.decoders.ByteLevel()
    theirs.add_special_tokens(["<|endoftext|>"])
    return BytePairTokenizer.from_pretrained(folder), theirs


@pytest.mark.parity
def test_gpt2s_own_vocabulary(gpt2, data_folder) -> None:
    ours, theirs = gpt2
    assert (ours.vocab_size, len(ours.merges), ours.eos_token_id) == (50257, 50000, 50256)
    assert ours.encode("Hello world") == [15496, 995]
    text = data_folder("text/tinyshakespeare.txt").read_text()[:200_000]
    for sample in [*AWKWARD, "".join(AWKWARD), text, "one<|endoftext|>two<|endoftext|>"]:
        assert ours.encode(sample) == theirs.encode(sample).ids


@pytest.mark.parity
@given(st.text(known, max_size=60))
def test_any_text_has_the_same_numbers(gpt2, text: str) -> None:
    ours, theirs = gpt2
    ids = ours.encode(text)
    assert ids == theirs.encode(text).ids
    assert ours.decode(ids) == theirs.decode(ids)


@pytest.mark.parity
@given(st.lists(st.integers(0, 50256), max_size=12))
def test_any_numbers_have_the_same_text(gpt2, ids: list[int]) -> None:
    ours, theirs = gpt2
    for skip in (True, False):
        assert ours.decode(ids, skip) == theirs.decode(ids, skip_special_tokens=skip)
