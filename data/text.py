"""Texts, most with labels: from a table of the user's own, or a collection that `retrograd fetch` gets."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..autograd_core.text_files import read_text
from .draws import split_order
from .json_lines import ENDING, json_columns

DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
POLARITY_TEST = 1066  # a tenth of the 10,662 sentences


class LabelledTexts(NamedTuple):
    """One split of a text collection.

    Attributes:
        texts: the N texts.
        labels: their classes, (N,) int64.
        names: of the classes, in the order of their numbers.
    """

    texts: list[str]
    labels: np.ndarray
    names: tuple[str, ...]


class Splits(NamedTuple):
    """What to train on and what to test on."""

    train: LabelledTexts
    test: LabelledTexts


# -- tables of the user's own -----------------------------------------------------------------------------------------


def read_columns(
    path: str | os.PathLike[str], columns: Sequence[str], delimiter: str | None = None, *, filled: bool = False
) -> dict[str, list[str]]:
    """Named columns of a table: name → one text per row.

    Args:
        path: a UTF-8 file. CSV or TSV: the first row holds the names; quotes as spreadsheets write them, so a text may
            hold delimiters and line ends. `.jsonl`: an object per line, of which a field is a column; whole numbers,
            true and false become texts.
        columns: the names wanted. delimiter: by default by the file's ending, a row of `DELIMITERS`.
        filled: refuse rows that have nothing in one of the columns.
    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: no such column (lists those that there are), no rows, a row of another length, an empty cell where
            there must be none, a field with another kind of value than before, a file that is no table; says where.

    Example:
        >>> import pathlib, tempfile
        >>> from retrograd.data import read_columns
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "reviews.csv")
        ...     n = path.write_text('id,text,mood\\n1,"good, not great",+\\n2,dull,-\\n')
        ...     read_columns(path, ["text", "mood"])
        {'text': ['good, not great', 'dull'], 'mood': ['+', '-']}
    """
    name, ending = os.fspath(path), Path(path).suffix.lower()
    if delimiter is None and ending not in (*DELIMITERS, ENDING):
        raise ValueError(
            f"{name}: expected a table whose name ends in {', '.join((*DELIMITERS, ENDING))}; in a program delimiter=… "
            "reads more"
        )
    text = read_text(path)
    if delimiter is None and ending == ENDING:
        found = json_columns(text, columns, name)
    else:
        found = _delimited_columns(text, columns, name, delimiter or DELIMITERS[ending])
    if filled:
        _check_filled(found, name)
    return found


def _delimited_columns(text: str, columns: Sequence[str], name: str, delimiter: str) -> dict[str, list[str]]:
    import csv
    import io

    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    found: dict[str, list[str]] = {column: [] for column in columns}
    limit = csv.field_size_limit(max(len(text), 1))  # a text may be as long as the file
    try:
        header = next(rows, None)
        if header is None:
            raise ValueError(f"{name} is empty: expected a first row with the names of the columns")
        places = {column: _place(header, column, name) for column in columns}
        for row in rows:
            if not row:
                continue  # an empty line
            if len(row) != len(header):
                raise ValueError(
                    f"{name}: line {rows.line_num} has {len(row)} cells where the header has {len(header)}. A text "
                    "that holds the delimiter must stand in quotes."
                )
            for column, place in places.items():
                found[column].append(row[place])
    except csv.Error as error:
        raise ValueError(f"{name}: line {rows.line_num} is no row of a table: {error}") from None
    finally:
        csv.field_size_limit(limit)
    if not all(found.values()):
        raise ValueError(f"{name} has a header and no rows")
    return found


def _check_filled(found: dict[str, list[str]], name: str) -> None:
    for column, cells in found.items():
        empty = [i for i, cell in enumerate(cells, 1) if not cell.strip()]
        if empty:
            rows = f"row {empty[0]} has" if len(empty) == 1 else f"row {empty[0]} and {len(empty) - 1} more have"
            raise ValueError(f"{name}: {rows} nothing in the column {column!r}. Leave out such rows.")


def _place(header: list[str], column: str, name: str) -> int:
    if header.count(column) != 1:
        what = "has no column" if column not in header else "has more than one column"
        mend = ". Are they separated by something else?" if len(header) == 1 and column in header[0] else ""
        raise ValueError(f"{name} {what} {column!r}. Its columns are {', '.join(map(repr, header))}{mend}")
    return header.index(column)


def read_labelled_texts(
    path: str | os.PathLike[str],
    text: str = "text",
    label: str = "label",
    *,
    names: Sequence[str] | None = None,
    delimiter: str | None = None,
) -> LabelledTexts:
    """Texts and their classes from two columns of a table.

    Args:
        path, delimiter: as for `read_columns`. text, label: the columns.
        names: the classes there may be, in the order of their numbers, as a training split gave them; by default those
            that the file has, numbers in their order and anything else in that of the alphabet.
    Raises:
        OSError, ValueError: as `read_columns`; also an empty text or label, or a class that is not in `names`.

    Example:
        >>> import pathlib, tempfile
        >>> from retrograd.data import read_labelled_texts
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "reviews.tsv")
        ...     n = path.write_text("text\\tlabel\\nwonderful\\tpos\\ndull\\tneg\\n")
        ...     read_labelled_texts(path)
        LabelledTexts(texts=['wonderful', 'dull'], labels=array([1, 0]), names=('neg', 'pos'))
    """
    found = read_columns(path, list(dict.fromkeys((text, label))), delimiter, filled=True)
    labels = [cell.strip() for cell in found[label]]
    known = tuple(names) if names is not None else label_names(labels)
    return LabelledTexts(found[text], label_numbers(labels, known, os.fspath(path)), known)


def label_names(labels: Sequence[str]) -> tuple[str, ...]:
    """The classes among labels: whole numbers in their order, anything else in that of the alphabet.

    Example:
        >>> from retrograd.data import label_names
        >>> label_names(["10", "9", "9"])
        ('9', '10')
        >>> label_names(["pos", "neg"])
        ('neg', 'pos')
    """
    import re

    found = set(labels)
    numbers = all(re.fullmatch(r"[+-]?\d+", label) for label in found)
    return tuple(sorted(found, key=(lambda label: (int(label), label)) if numbers else None))


def label_numbers(labels: Sequence[str], names: Sequence[str], source: str = "the split") -> np.ndarray:
    """Labels as numbers, places in `names`: (N,) int64. Raises ValueError for a label that is not among them.

    Example:
        >>> from retrograd.data import label_numbers
        >>> label_numbers(["pos", "neg", "pos"], ("neg", "pos"))
        array([1, 0, 1])
    """
    place = {name: i for i, name in enumerate(names)}
    strange = sorted(set(labels) - place.keys())
    if strange:
        raise ValueError(
            f"{source} has the label{'s' * (len(strange) > 1)} {', '.join(map(repr, strange[:5]))}, unknown from "
            f"training, where there were {', '.join(map(repr, list(names)[:10]))}"
        )
    return np.array([place[label] for label in labels], dtype=np.int64)


# -- collections ------------------------------------------------------------------------------------------------------


def sentence_polarity(folder: str | os.PathLike[str] | None = None, seed: int = 0) -> Splits:
    """10,662 sentences from film reviews, half of them positive (Pang and Lee, "Seeing stars", 2005; CC BY 4.0).

    Args:
        folder: where `retrograd fetch sentence-polarity` put it; by default RETROGRAD_DATA.
        seed: the test split is a draw of 1,066 sentences, which depends on it alone.
    Returns:
        train (9,596) and test (1,066), classes ("negative", "positive").
    Raises:
        FileNotFoundError: it is not there; says how to get it. ValueError: a damaged file.
    """
    archive = _Archive(folder, "text/sentence_polarity.zip", "sentence-polarity")
    halves = [archive.lines(f"sentence_polarity/rt-polarity.{half}", "utf-8") for half in ("neg", "pos")]
    texts = [line.strip() for half in halves for line in half]
    labels = np.repeat(np.arange(2), [len(half) for half in halves])
    order = split_order(seed, len(texts))

    def part(chosen: np.ndarray) -> LabelledTexts:
        chosen = np.sort(chosen)
        return LabelledTexts([texts[i] for i in chosen.tolist()], labels[chosen], ("negative", "positive"))

    return Splits(part(order[POLARITY_TEST:]), part(order[:POLARITY_TEST]))


def trec(folder: str | os.PathLike[str] | None = None) -> Splits:
    """TREC-6: 5,452 questions to train on and 500 to test on, by what is asked for (Li and Roth, 2002).

    Args:
        folder: where `retrograd fetch trec` put it; by default RETROGRAD_DATA.
    Returns:
        train and test, with the six classes ABBR, DESC, ENTY, HUM, LOC, NUM.
    Raises:
        FileNotFoundError: it is not there; says how to get it. ValueError: a damaged file.
    """
    archive = _Archive(folder, "text/trec/trec_qc.zip", "trec")
    rows = {
        split: [line.split(" ", 1) for line in archive.lines(f"qc/{split}.txt", "latin-1")] for split in Splits._fields
    }
    names = label_names([label.split(":")[0] for label, _ in rows["train"]])

    def part(split: str) -> LabelledTexts:
        labels = label_numbers([label.split(":")[0] for label, _ in rows[split]], names, f"{archive.path}, {split}")
        return LabelledTexts([text.strip() for _, text in rows[split]], labels, names)

    return Splits(part("train"), part("test"))


def tiny_shakespeare(folder: str | os.PathLike[str] | None = None) -> str:
    """A million letters of Shakespeare's plays, the text on which small language models learn to spell.

    Args:
        folder: where `retrograd fetch tinyshakespeare` put it; by default RETROGRAD_DATA.
    Raises:
        FileNotFoundError: it is not there; says how to get it.
    """
    return read_text(_located(folder, "text/tinyshakespeare.txt", "tinyshakespeare"))


def _located(folder: str | os.PathLike[str] | None, name: str, entry: str) -> Path:
    """The path of a file of a collection, below the folder with the data."""
    root = folder if folder is not None else os.environ.get("RETROGRAD_DATA")
    if not root:
        raise FileNotFoundError(
            f"no folder with data is named: `retrograd fetch {entry} --to DIR` gets the collection, the folder is "
            "then named by the argument or by the environment variable RETROGRAD_DATA"
        )
    path = Path(root).expanduser() / name
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: `retrograd fetch {entry} --to {root}` gets it")
    return path


class _Archive:
    """A zip archive below the folder with the data."""

    def __init__(self, folder: str | os.PathLike[str] | None, name: str, entry: str) -> None:
        self.path = _located(folder, name, entry)

    def lines(self, member: str, encoding: str) -> list[str]:
        """The lines of a member, without the empty one at the end."""
        import zipfile

        try:
            with zipfile.ZipFile(self.path) as archive:
                # Not splitlines: some of these texts hold characters that it takes for line ends.
                return archive.read(member).decode(encoding).rstrip("\n").split("\n")
        except (KeyError, zipfile.BadZipFile, UnicodeDecodeError, EOFError) as error:
            raise ValueError(f"{self.path} is damaged ({error}); fetch it again") from None
