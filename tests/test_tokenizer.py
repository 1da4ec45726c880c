"""Tokenizers: batches and their errors, characters, and (parity) the same numbers as transformers' tokenizers."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import retrograd as rg
from retrograd.data import CharTokenizer, Tokenizer, load_tokenizer

TEXTS = [
    "The quick brown fox, jumped over 13 lazy dogs!",
    "a",
    "Crème brûlée — naïve façade… 東京タワー and 😀 emoji\tand  spaces\n",
    "don't we'll I'VE isn't",
    "antidisestablishmentarianism supercalifragilistic" + "x" * 120,
]


@pytest.fixture
def characters() -> CharTokenizer:
    return CharTokenizer.from_text("to be or not to be, that is the question")


@pytest.fixture
def wordpiece(tmp_path: Path) -> Path:
    """A folder with a small BERT vocabulary."""
    pytest.importorskip("tokenizers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "film", "was", "good", "##ish", "bad", "!"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True, "model_max_length": 16}))
    return tmp_path


# -- characters, and what all tokenizers share -----------------------------------------------------------------------


def test_characters_there_and_back(characters: CharTokenizer) -> None:
    text = "the boat is here"
    ids = characters.encode(text)
    assert ids == [sorted(characters.vocabulary).index(c) for c in text]
    assert characters.decode(ids) == characters.decode(np.array(ids)) == characters.decode(rg.tensor(ids)) == text
    assert characters.encode("") == []
    assert characters.decode([]) == ""


def test_a_batch_is_three_integer_arrays(characters: CharTokenizer) -> None:
    batch = characters(["the sea", "to"])
    assert list(batch) == ["input_ids", "attention_mask", "token_type_ids"]
    assert all(array.shape == (2, 7) and array.dtype == np.int64 for array in batch.values())
    assert batch["attention_mask"].tolist() == [[1] * 7, [1, 1, 0, 0, 0, 0, 0]]
    assert characters.decode(batch["input_ids"][1][:2]) == "to"
    assert characters("to")["input_ids"].shape == (1, 2)


@pytest.mark.parametrize("multiple", [1, 4, 8])
def test_padding_sides_and_multiples(characters: CharTokenizer, multiple: int) -> None:
    texts = ["the", "to be or", "that is not"]
    right = characters(texts, pad_to_multiple_of=multiple)
    left = characters(texts, pad_to_multiple_of=multiple, padding_side="left")
    length = right["input_ids"].shape[1]
    assert length % multiple == 0
    assert 0 <= length - 11 < multiple
    for i, text in enumerate(texts):
        n = len(text)
        assert characters.decode(right["input_ids"][i, :n]) == characters.decode(left["input_ids"][i, -n:]) == text
        assert right["attention_mask"][i].tolist() == left["attention_mask"][i, ::-1].tolist()
        assert right["attention_mask"][i].sum() == n


def test_cutting_is_asked_for(characters: CharTokenizer) -> None:
    assert characters(["the question"], 5, truncation=True)["input_ids"].tolist() == [characters.encode("the q")]
    with pytest.raises(
        ValueError, match=r"text 1 is too long: 12 tokens where at most 5 fit, 'the question'.*truncation=True"
    ):
        characters(["to", "the question"], 5)
    with pytest.raises(ValueError, match="truncation=True needs max_length"):
        characters(["to"], truncation=True)


@pytest.mark.parametrize(
    ("texts", "error", "expected"),
    [
        ([], ValueError, "at least one text"),
        (["to", ""], ValueError, "text 1 is empty"),
        ("", ValueError, "text 0 is empty"),
        (["to", None], TypeError, "got NoneType None as text 1"),
        ([float("nan")], TypeError, "got float nan as text 0"),
        ([("to", "be", "or")], TypeError, "a pair of texts, got tuple"),
        ([("to", "be")], TypeError, "single texts, text 0 is a pair"),
        (["to", "BE"], ValueError, "text 1 has characters that the vocabulary of 14 lacks: 'B' 'E'"),
    ],
)
def test_what_is_no_batch_of_texts(
    characters: CharTokenizer, texts: list, error: type[Exception], expected: str
) -> None:
    with pytest.raises(error, match=expected):
        characters(texts)


def test_arguments_out_of_range(characters: CharTokenizer) -> None:
    for bad, expected in (
        ({"padding_side": "top"}, "'left' or the 'right', got 'top'"),
        ({"pad_to_multiple_of": 0}, "multiple of 1 or more, got 0"),
        ({"max_length": 0}, "max_length must be from 1"),
    ):
        with pytest.raises(ValueError, match=expected):
            characters(["to"], **bad)
    with pytest.raises(IndexError, match="token 14 is not in the vocabulary of 14 characters"):
        characters.decode([0, 14])
    with pytest.raises(TypeError, match="one row of token numbers"):
        characters.decode([[0, 1]])


def test_characters_are_saved_and_found(characters: CharTokenizer, tmp_path: Path) -> None:
    characters.save_pretrained(tmp_path / "new")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["vocab.json"]
    again = load_tokenizer(tmp_path / "new")
    assert isinstance(again, CharTokenizer)
    assert again.vocabulary == characters.vocabulary


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "expected JSON"),
        ("[1]", r"expected an object, \{…\}, got a list"),
        ('{"ab": 0}', "single characters"),
        ("{}", "at least one"),
        ('{"a": 1}', "numbers 0 to 0"),
        ('{"a": 0, "b": 0}', "numbers 0 to 1"),
        ('{"a": true, "b": 1}', "numbers 0 to 1"),
    ],
)
def test_vocabularies_that_are_none(tmp_path: Path, content: str, expected: str) -> None:
    (tmp_path / "vocab.json").write_text(content)
    with pytest.raises(ValueError, match=expected) as caught:
        load_tokenizer(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "vocab.json"))
    assert "\n" not in str(caught.value)


def test_a_missing_vocabulary(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no vocab\.json"):
        CharTokenizer.from_pretrained(tmp_path)


def test_without_the_library_one_error_names_the_extra(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]\n")
    code = f"""
import sys
sys.modules["tokenizers"] = None
import retrograd as rg
rg.data.CharTokenizer.from_text("ab").encode("a")
try:
    rg.data.load_tokenizer({str(tmp_path)!r})
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "retrograd[text]" in done.stdout
    assert done.stdout.count("\n") == 1


def test_the_two_files_of_gpt2_need_no_library(tmp_path: Path) -> None:
    rg.data.BytePairTokenizer.train("low lower lowest", 260).save_pretrained(tmp_path)
    code = f"""
import sys
sys.modules["tokenizers"] = None
import retrograd as rg
print(rg.data.load_tokenizer({str(tmp_path)!r}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("BytePairTokenizer(")


def test_importing_does_not_import_the_library() -> None:
    code = "import sys, retrograd as rg; rg.data.Tokenizer; print('tokenizers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# -- the library's ---------------------------------------------------------------------------------------------------


def test_a_vocabulary_of_word_pieces(wordpiece: Path) -> None:
    tokenizer = load_tokenizer(wordpiece)
    assert isinstance(tokenizer, Tokenizer)
    assert (tokenizer.vocab_size, tokenizer.model_max_length) == (12, 16)
    assert (tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id) == (0, 2, 3)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (None, None)
    batch = tokenizer(["The film was goodish!", ("bad", "film")], pad_to_multiple_of=4)
    assert batch["input_ids"].tolist() == [[2, 5, 6, 7, 8, 9, 11, 3], [2, 10, 3, 6, 3, 0, 0, 0]]
    assert batch["token_type_ids"].tolist() == [[0] * 8, [0, 0, 0, 1, 1, 0, 0, 0]]
    assert tokenizer.decode(batch["input_ids"][0]) == "the film was goodish!"
    assert tokenizer.encode("good", add_special_tokens=False) == [8]
    assert tokenizer.encode("good", "bad") == [2, 8, 3, 10, 3]
    assert tokenizer.id_to_token(9) == "##ish"


def test_limits_of_the_model(wordpiece: Path) -> None:
    tokenizer = Tokenizer.from_pretrained(wordpiece)
    long = "good " * 20
    with pytest.raises(ValueError, match="text 0 is too long: 22 tokens where at most 16 fit"):
        tokenizer([long])
    assert tokenizer([long], truncation=True)["input_ids"].shape == (1, 16)
    assert tokenizer([long], 6, truncation=True)["input_ids"].tolist() == [[2, 8, 8, 8, 8, 3]]
    assert len(tokenizer.encode(long)) == 22  # cutting did not stay switched on
    with pytest.raises(ValueError, match="max_length must be from 1 to 16, what the model takes; got 17"):
        tokenizer(["good"], 17)
    with pytest.raises(ValueError, match="max_length=2 has no room for the special tokens and a text: at least 3"):
        tokenizer(["good"], 2, truncation=True)
    with pytest.raises(ValueError, match=r"text 1 has no token, ' \\t '"):
        tokenizer(["good", " \t "])
    with pytest.raises(ValueError, match="a text holds parts of characters"):
        tokenizer(["good", os.fsdecode(b"caf\xe9")])  # as an argument of a command comes in another encoding


def test_saved_and_read_again(wordpiece: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_pretrained(wordpiece)
    tokenizer(["good"], 8, truncation=True)
    tokenizer.save_pretrained(tmp_path / "saved")
    again = Tokenizer.from_pretrained(tmp_path / "saved")
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
    assert again.model_max_length == 16
    for text in ("the film was goodish", "bad " * 12):
        assert again.encode(text) == tokenizer.encode(text)


def test_folders_that_hold_no_tokenizer(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        load_tokenizer(tmp_path / "nowhere")
    with pytest.raises(
        FileNotFoundError, match=r"looked for tokenizer\.json, vocab\.txt, vocab\.json with merges\.txt"
    ):
        load_tokenizer(tmp_path)
    for name, content, expected in (
        ("tokenizer.json", "{}", "no tokenizer that can be read"),
        ("tokenizer.json", "\xff", "no tokenizer that can be read"),
        ("vocab.txt", "one\ntwo\n", r"lacks the special tokens \[PAD\] \[UNK\]"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(ValueError, match=expected) as caught:
            load_tokenizer(tmp_path)
        assert str(tmp_path / name) in str(caught.value)
        (tmp_path / name).unlink()


# -- against transformers --------------------------------------------------------------------------------------------


def _same(ours: Tokenizer, theirs, texts: list) -> None:
    for kwargs, other in (
        ({}, {}),
        ({"pad_to_multiple_of": 8}, {"pad_to_multiple_of": 8}),
        ({"padding_side": "left"}, {"padding_side": "left"}),
        ({"max_length": 12, "truncation": True}, {"max_length": 12, "truncation": True}),
    ):
        mine = ours(texts, **kwargs)
        pairs = [t for t in texts if not isinstance(t, str)]
        first = [t[0] for t in pairs] or texts
        yours = theirs(first, [t[1] for t in pairs] or None, padding=True, return_token_type_ids=True, **other)
        for name, array in mine.items():
            np.testing.assert_array_equal(array, yours[name], err_msg=f"{name} with {kwargs}")
    for text in texts:
        if isinstance(text, str):
            ids = theirs(text)["input_ids"]
            assert ours.encode(text) == ids
            assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


@pytest.mark.parity
def test_the_tokenizer_of_a_real_checkpoint(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    folder = os.environ.get("RETROGRAD_MINILM")
    if not folder:
        pytest.skip("RETROGRAD_MINILM names no folder with the MiniLM checkpoint")
    ours, theirs = Tokenizer.from_pretrained(folder), transformers.AutoTokenizer.from_pretrained(folder)
    _same(ours, theirs, TEXTS)
    _same(ours, theirs, list(zip(TEXTS, reversed(TEXTS), strict=True)))
    assert ours.model_max_length == theirs.model_max_length
    for role in ("pad", "unk", "cls", "sep", "mask"):
        assert getattr(ours, f"{role}_token_id") == getattr(theirs, f"{role}_token_id")
    ours.save_pretrained(tmp_path)
    shutil.copy(Path(folder, "config.json"), tmp_path)
    _same(ours, transformers.AutoTokenizer.from_pretrained(tmp_path), TEXTS)


@pytest.mark.parity
def test_the_vocabulary_of_bert(data_folder, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    shutil.copy(data_folder("tokenizers/bert_base_uncased_vocab.txt"), tmp_path / "vocab.txt")
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 512, "tokenizer_class": "BertTokenizer"}')
    theirs = transformers.BertTokenizer.from_pretrained(tmp_path)
    _same(Tokenizer.from_pretrained(tmp_path), theirs, TEXTS)


@pytest.mark.parity
def test_the_vocabulary_of_gpt2(data_folder, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    shutil.copy(data_folder("tokenizers/gpt2_encoder.json"), tmp_path / "vocab.json")
    shutil.copy(data_folder("tokenizers/gpt2_vocab.bpe"), tmp_path / "merges.txt")
    theirs = transformers.GPT2Tokenizer.from_pretrained(tmp_path)
    theirs.pad_token = theirs.eos_token
    ours = Tokenizer.from_pretrained(tmp_path)
    assert (ours.eos_token_id, ours.bos_token_id, ours.vocab_size) == (50256, 50256, 50257)
    _same(ours, theirs, TEXTS)
