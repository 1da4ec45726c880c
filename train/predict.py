"""`retrograd predict --model DIR --data FILE.csv --text COLUMN`: the class of each text in a table."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from . import command

NAME = "retrograd predict"
FOUND = ("label", "probability")  # columns beside the texts


def main(argv: list[str] | None = None) -> int:
    """Read the options, write a table with texts, classes and probabilities; 0, or 1 with one line of error."""
    parser = argparse.ArgumentParser(
        prog=NAME,
        description="Classify the texts of a table by a classifier that `retrograd finetune` made. Writes a table with "
        "three columns: the text, its likeliest class, and how likely the model finds it.",
    )
    add = parser.add_argument
    add("--model", metavar="DIR", required=True, help="the folder with the classifier")
    add("--data", metavar="FILE", required=True, help=command.TABLE)
    add("--text", metavar="COLUMN", required=True, help="the column with the texts")
    add("--out", metavar="FILE", help="where the table goes: .csv, .tsv or .jsonl (default: the standard output, CSV)")
    add("--max-length", metavar="N", type=int, help="cut texts to so many tokens (default: as in training)")
    command.add_debug(parser)
    return command.run(NAME, _predict, parser.parse_args(argv))


def _predict(options: argparse.Namespace) -> None:
    from ..autograd_core.text_files import write_text
    from ..data import read_columns
    from .classifier_folder import load_saved
    from .text_classification import encoded, scores

    if options.out is not None:
        _check_out(Path(options.out), options.text)  # before the work, not after
    texts = read_columns(options.data, [options.text], filled=True)[options.text]
    model, tokenizer, record = load_saved(options.model)
    max_length = record.get("max_length") if options.max_length is None else options.max_length
    found = scores(model, encoded(model, tokenizer, texts, None, max_length, options.data))

    names, likeliest = model.config.id2label, found.argmax(axis=1)
    probabilities = np.exp(found - found.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    rows = [
        (text, names[best], round(float(row[best]), 4))
        for text, best, row in zip(texts, likeliest.tolist(), probabilities, strict=True)
    ]
    if options.out is None:
        sys.stdout.write(_table(options.text, rows, ".csv"))
    else:
        write_text(options.out, _table(options.text, rows, Path(options.out).suffix.lower()))


def _table(text: str, rows: Sequence[tuple[str, str, float]], ending: str) -> str:
    """The content of a file of that kind; CSV where the ending is not known."""
    from ..data.json_lines import ENDING
    from ..data.text import DELIMITERS

    header = (text, *FOUND)
    if ending == ENDING:
        return "".join(json.dumps(dict(zip(header, row, strict=True)), ensure_ascii=False) + "\n" for row in rows)
    table = io.StringIO()
    writer = csv.writer(table, delimiter=DELIMITERS.get(ending, ","), lineterminator="\n")
    writer.writerow(header)
    writer.writerows((text, label, f"{probability:.4f}") for text, label, probability in rows)
    return table.getvalue()


def _check_out(out: Path, text: str) -> None:
    from ..data.json_lines import ENDING

    if out.suffix.lower() == ENDING and text in FOUND:
        raise ValueError(f"--out {out}: an object has one field {text!r}, and the texts' is called so; name a .csv")
    if out.is_dir():
        raise ValueError(f"--out {out} is a folder; name a file")
    if not out.parent.is_dir():
        raise ValueError(f"--out {out}: there is no folder {out.parent}")
