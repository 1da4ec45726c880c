"""Tables of texts and what is wrong with them, the collections, and batches of texts of about the same length."""

import csv
from pathlib import Path

import numpy as np
import pytest
import retrograd as rg
from retrograd.data import (
    CharTokenizer,
    DataLoader,
    Subset,
    TextDataset,
    TextLoader,
    label_names,
    label_numbers,
    read_columns,
    read_labelled_texts,
    sentence_polarity,
    trec,
)

# -- tables -----------------------------------------------------------------------------------------------------------


def written(folder: Path, content: str | bytes, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_columns_by_name_with_quotes_and_line_ends(tmp_path: Path) -> None:
    path = written(tmp_path, '\ufeffid,text,label\r\n1,"a, ""b""\nc",x\r\n\r\n2,東京,y\r\n')
    assert read_columns(path, ["label", "text"]) == {"label": ["x", "y"], "text": ['a, "b"\nc', "東京"]}
    path = written(tmp_path, "text\tlabel\none, two\t3\n", "table.tsv")
    assert read_columns(path, ["text"]) == {"text": ["one, two"]}
    path = written(tmp_path, "text;label\none;3\n", "table.txt")
    assert read_columns(path, ["label"], delimiter=";") == {"label": ["3"]}


def refused(path: Path, match: str, expected: str) -> None:
    """Reading columns is an error of one line, which names the file."""
    with pytest.raises(ValueError, match=match) as caught:
        read_columns(path, ["text", "label"])
    assert str(path) in str(caught.value)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "is empty: expected a first row"),
        ("text,label\n", "has a header and no rows"),
        ("review,label\ngood,1\n", "has no column 'text'. Its columns are 'review', 'label'"),
        ("text;label\ngood;1\n", "Its columns are 'text;label'. Are they separated by something else?"),
        ("text,text,label\na,b,1\n", "has more than one column 'text'"),
        ("text,label\ngood, but long,1\n", "line 2 has 3 cells where the header has 2"),
        ("text,label\n\na\n", "line 3 has 1 cells where the header has 2"),
        ('text,label\n"open,1\n', "line 2 is no row of a table"),
        (b"text,label\ncaf\xe9,1\n", "expected UTF-8 text, but line 2 has the byte 0xe9"),
    ],
)
def test_files_that_are_no_table(tmp_path: Path, content: str | bytes, expected: str) -> None:
    path = written(tmp_path, content)
    refused(path, "table", expected)


def test_an_object_per_line(tmp_path: Path) -> None:
    lines = [
        '\ufeff{"text": "a, \\"b\\"\\nc", "label": 10, "more": null}\r',
        "",
        ' {"label": 9, "text": "\\u6771京\u2028!"} ',  # a line end to some, not here
    ]
    path = written(tmp_path, "\n".join(lines), "table.JSONL")
    assert read_columns(path, ["label", "text"]) == {"label": ["10", "9"], "text": ['a, "b"\nc', "東京\u2028!"]}
    _, labels, names = read_labelled_texts(path)
    assert (labels.tolist(), names) == ([1, 0], ("9", "10"))
    path = written(tmp_path, '{"text": "a", "label": true}\n{"text": "b", "label": false}\n', "table.jsonl")
    assert read_labelled_texts(path).names == ("false", "true")
    with pytest.raises(ValueError, match="row 2 has nothing in the column 'text'"):
        read_labelled_texts(written(tmp_path, '{"text": "a", "label": 1}\n{"text": " ", "label": 1}', "table.jsonl"))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"text": "a", "label": ', "line 3 is no JSON: "),
        ("[" * 100_000, "line 3 is no JSON: "),
        ('["a", "1"]', 'line 3: expected an object, {…}, with a field for each column, got ["a", "1"]'),
        ('{"review": "a", "label": "1"}', "line 3 has no field 'text'. Its fields are 'review', 'label'"),
        ('{"text": "a", "label": 1}', "has a whole number in the field 'label', the lines before it a text"),
        ('{"text": "a", "label": true}', "line 3 has true or false in the field 'label', the lines before it a text"),
        (
            '{"text": "a", "label": null}',
            "expected a text, a whole number, true or false in the field 'label', got null",
        ),
        ('{"text": ["a"], "label": "1"}', """in the field 'text', got ["a"]"""),
        ('{"text": "a", "label": 0.5}', "in the field 'label', got 0.5"),
        ('{"text": "\\ud83d", "label": "1"}', "line 3 has half a character (a surrogate alone) in the field 'text'"),
        (b'{"text": "\xe9", "label": "1"}', "expected UTF-8 text, but line 3 has the byte 0xe9"),
    ],
)
def test_lines_that_are_no_row(tmp_path: Path, line: str | bytes, expected: str) -> None:
    content = line.encode() if isinstance(line, str) else line
    path = written(tmp_path, b'{"text": "good", "label": "1"}\n\n' + content + b"\n", "table.jsonl")
    refused(path, "line 3", expected)


def test_no_objects_at_all(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no rows: expected one object per line, with the fields text, label"):
        read_columns(written(tmp_path, "\n\n", "table.jsonl"), ["text", "label"])


def test_a_text_may_be_longer_than_what_the_csv_module_takes_by_itself(tmp_path: Path) -> None:
    limit, text = csv.field_size_limit(), "word " * 40_000
    assert len(text) > limit
    assert read_columns(written(tmp_path, f"text\n{text}\n"), ["text"]) == {"text": [text]}
    assert csv.field_size_limit() == limit


def test_a_file_without_a_known_ending_or_none_at_all(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"expected a table whose name ends in \.csv, \.tsv, \.tab, \.jsonl; in a program delimiter="
    ):
        read_columns(written(tmp_path, "a\n1\n", "table.txt"), ["a"])
    with pytest.raises(FileNotFoundError):
        read_columns(tmp_path / "missing.csv", ["a"])


def test_labelled_texts(tmp_path: Path) -> None:
    path = written(tmp_path, "mood,review\nsad, dull \nglad,great\nsad,slow\n")
    texts, labels, names = read_labelled_texts(path, "review", "mood")
    assert texts == [" dull ", "great", "slow"]
    assert (labels.tolist(), labels.dtype, names) == ([1, 0, 1], np.int64, ("glad", "sad"))
    assert read_labelled_texts(path, "review", "mood", names=["sad", "so-so", "glad"]).labels.tolist() == [0, 2, 0]
    with pytest.raises(ValueError, match="has the labels 'glad', 'sad', unknown from training, where there were 'up'"):
        read_labelled_texts(path, "review", "mood", names=["up"])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("text,label\na,1\n  ,1\n,0\n", r"row 2 and 1 more have nothing in the column 'text'"),
        ("text,label\na,\n", r"row 1 has nothing in the column 'label'"),
    ],
)
def test_cells_with_nothing_in_them(tmp_path: Path, content: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        read_labelled_texts(written(tmp_path, content))


def test_classes_are_numbered_in_a_sensible_order() -> None:
    assert label_names(["10", "9", "-1", "9"]) == ("-1", "9", "10")
    assert label_names(["b", "10", "a"]) == ("10", "a", "b")
    assert label_numbers(["b", "a"], ("a", "b")).tolist() == [1, 0]


# -- collections ------------------------------------------------------------------------------------------------------


def test_sentence_polarity(data_folder) -> None:
    data_folder("text/sentence_polarity.zip")
    splits = sentence_polarity()
    assert [len(part.texts) for part in splits] == [9596, 1066]
    assert sum(int(part.labels.sum()) for part in splits) == 5331
    assert splits.train.names == splits.test.names == ("negative", "positive")
    assert all(text == text.strip() != "" for part in splits for text in part.texts)
    assert sentence_polarity().test.texts == splits.test.texts != sentence_polarity(seed=1).test.texts
    assert 480 < splits.test.labels.sum() < 590
    first = splits.train.texts.index("it's so laddish and juvenile , only teenage boys could possibly find it funny .")
    assert splits.train.labels[first] == 0


def test_trec(data_folder) -> None:
    data_folder("text/trec/trec_qc.zip")
    train, test = trec()
    assert (len(train.texts), len(test.texts)) == (5452, 500)
    assert train.names == test.names == ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM")
    assert (test.texts[0], test.names[test.labels[0]]) == ("How far is it from Denver to Aspen ?", "NUM")
    assert np.bincount(test.labels).tolist() == [9, 138, 94, 65, 81, 113]


def test_collections_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"trec_qc\.zip is missing: `retrograd fetch trec --to"):
        trec(tmp_path)
    monkeypatch.delenv("RETROGRAD_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="no folder with data is named: `retrograd fetch sentence-polarity"):
        sentence_polarity()
    written(tmp_path, b"PK no zip", "sp.zip")
    (tmp_path / "text").mkdir()
    (tmp_path / "sp.zip").rename(tmp_path / "text" / "sentence_polarity.zip")
    with pytest.raises(ValueError, match="is damaged"):
        sentence_polarity(tmp_path)


# -- batches ----------------------------------------------------------------------------------------------------------


def dataset(n: int = 101, labels: bool = True) -> TextDataset:
    """n texts of 1 to 40 characters; the label of a text is its number."""
    lengths = np.random.default_rng(0).integers(1, 41, n)
    texts = ["".join("ab"[(i >> k) & 1] for k in range(length)) for i, length in enumerate(lengths.tolist())]
    return TextDataset(texts, np.arange(n) if labels else None, CharTokenizer.from_text("ab"))


def test_a_batch_is_tokens_mask_types_and_labels() -> None:
    data = dataset(20)
    for ids, mask, types, labels in TextLoader(data, batch_size=8):
        assert ids.shape == mask.shape == types.shape
        assert ids.shape[1] % 8 == 0
        assert all(t.dtype == np.int64 for t in (ids, mask, types, labels))
        for row, ones, label in zip(ids.numpy(), mask.numpy(), labels.numpy(), strict=True):
            n = data.lengths[label]
            assert row[:n].tolist() == data[label][0].ids
            assert (ones.sum(), ones[:n].all()) == (n, True)
    assert [len(batch) for batch in TextLoader(dataset(3, labels=False))] == [3]
    assert dataset(3, labels=False)[0] == (dataset(3)[0][0],)


def test_every_text_comes_once_in_another_order_each_epoch() -> None:
    loader = TextLoader(dataset(), batch_size=8, shuffle=True, window=4)
    epochs = [[label for *_, labels in loader for label in labels.tolist()] for _ in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(101))
    assert epochs[0] != epochs[1]
    assert epochs[0] == loader.order(0).tolist()
    assert epochs[1] == loader.order(1).tolist()


def test_batches_hold_texts_of_about_the_same_length_and_are_shuffled() -> None:
    data = dataset(1000)

    def padding(loader: TextLoader) -> float:
        masks = [mask.numpy() for _, mask, *_ in loader]
        return 1 - sum(m.sum() for m in masks) / sum(m.size for m in masks)

    sorted_, plain = (TextLoader(data, 32, shuffle=True, window=w) for w in (10, 0))
    assert padding(sorted_) < 0.25 < 0.4 < padding(plain)
    widths = [ids.shape[1] for ids, *_ in sorted_]
    assert set(widths) <= {8, 16, 24, 32, 40}
    rises = np.mean(np.diff(widths[:-1]) >= 0)
    assert 0.3 < rises < 0.9  # sorted windows one after the other would nearly always rise


def test_the_order_of_the_texts_stays_unless_asked_for() -> None:
    data = dataset(50)
    assert TextLoader(data).order(3).tolist() == list(range(50))
    order = TextLoader(data, 8, window=1000).order(0)
    assert (np.diff(data.lengths[order]) >= 0).all()
    # Predictions in the order of the batches go back to that of the texts.
    back = np.empty(50, int)
    back[order] = data.labels[order]
    assert back.tolist() == list(range(50))


@pytest.mark.parametrize("prefetch", [0, 2])
def test_resumed_in_the_middle_of_an_epoch(prefetch: int) -> None:
    def loader() -> TextLoader:
        return TextLoader(dataset(), batch_size=8, shuffle=True, seed=5, window=3, prefetch=prefetch)

    whole = loader()
    expected = [ids.numpy() for _ in range(2) for ids, *_ in whole]
    first = loader()
    batches = iter(first)
    for _ in range(5):
        next(batches)
    state = first.state_dict()
    batches.close()
    second = loader()
    second.load_state_dict(state)
    rest = [ids.numpy() for _ in range(2) for ids, *_ in second]
    assert len(rest) == len(expected) - 5
    assert all(np.array_equal(a, b) for a, b in zip(rest, expected[5:], strict=True))
    with pytest.raises(ValueError, match="window 3, this one has 4"):
        TextLoader(dataset(), 8, True, 5, window=4).load_state_dict(state)


def test_a_part_of_a_dataset_and_the_plain_loader() -> None:
    data = dataset()
    part = Subset(data, np.arange(90, 30, -3))
    loader = TextLoader(part, batch_size=4, window=100)
    assert (np.diff(data.lengths[part.indices][loader.order(0)]) >= 0).all()
    seen = [label for *_, labels in loader for label in labels.tolist()]
    assert sorted(seen) == sorted(part.indices.tolist())
    ids, mask, _, labels = next(iter(DataLoader(data, batch_size=3)))
    assert isinstance(ids, rg.Tensor)
    assert (ids.shape == mask.shape, labels.tolist()) == (True, [0, 1, 2])


def test_texts_are_cut_where_a_length_is_said() -> None:
    tokenizer = CharTokenizer.from_text("ab")
    assert TextDataset(["ab" * 9, "a"], None, tokenizer, max_length=5).lengths.tolist() == [5, 1]
    tokenizer.model_max_length = 7
    assert TextDataset(["ab" * 9, "a"], None, tokenizer).lengths.tolist() == [7, 1]


def test_wrong_arguments() -> None:
    tokenizer = CharTokenizer.from_text("ab")
    with pytest.raises(ValueError, match="a label for each of the 2 texts, got 1"):
        TextDataset(["a", "b"], [1], tokenizer)
    with pytest.raises(ValueError, match="text 1 is empty"):
        TextDataset(["a", ""], None, tokenizer)
    with pytest.raises(TypeError, match="reads a TextDataset or a Subset of one, got ArrayDataset"):
        TextLoader(rg.data.ArrayDataset(np.zeros(3)))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="window must be at least 0"):
        TextLoader(dataset(3), window=-1)


def test_padding_goes_no_further_than_the_model() -> None:
    texts = ["a" * n for n in (3, 9, 12)]
    dataset = TextDataset(texts, None, CharTokenizer.from_text("a"), max_length=12)
    assert [len(dataset.gather(np.array([i]))[0][0]) for i in range(3)] == [8, 12, 12]
