"""From a published encoder to a classifier: MiniLM (22 million weights) learns what questions ask for, or what critics
think.

    python -m retrograd.examples.finetune_bert --model DIR                     # TREC-6, six kinds of questions, by LoRA
    python -m retrograd.examples.finetune_bert --model DIR --task polarity --method full
    python -m retrograd.examples.finetune_bert --table                         # every result so far, in Markdown

DIR holds a BERT in the files in which models are published; RETROGRAD_MINILM may name it. RETROGRAD_DATA names the
folder with the texts. Read it from the bottom: `run` is the walk. What fine-tuning is stands in
`retrograd.train.text_classification`; `retrograd finetune` does the same with a table of your own.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from retrograd.data import LabelledTexts, Splits, load_tokenizer, sentence_polarity, trec
from retrograd.train import classifier_folder, command, metrics
from retrograd.train import text_classification as classification

NAME = "finetune_bert"
MAX_LENGTH = 64
RESULTS = "results.jsonl"
MODEL_HINT = (
    "name the folder of a BERT with --model, or in RETROGRAD_MINILM; `retrograd fetch minilm --to DIR` gets "
    "sentence-transformers/all-MiniLM-L6-v2 into DIR/weights_lm/minilm"
)


class Task(NamedTuple):
    """A collection with two splits. `load(seed)` reads it, `split` says in words what the test is."""

    load: Callable[[int], Splits]
    split: str
    epochs: dict[str, int]


TASKS = {
    "trec": Task(lambda seed: trec(), "TREC-6: its own 500", {"frozen": 40, "lora": 6, "full": 4}),
    "polarity": Task(
        lambda seed: sentence_polarity(seed=seed),
        "polarity: 1,066 drawn with the seed",
        {"frozen": 40, "lora": 2, "full": 2},
    ),
}


# -- two baselines: what can be had without an encoder ----------------------------------------------------------------


def majority(train: LabelledTexts, texts: list[str]) -> np.ndarray:
    """The commonest class of the training texts, whatever the text."""
    return np.full(len(texts), np.bincount(train.labels).argmax())


def bag_of_words(train: LabelledTexts, texts: list[str]) -> np.ndarray:
    """Logistic regression on how often each word, and each pair of neighbours, occurs."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    words = CountVectorizer(ngram_range=(1, 2))
    model = LogisticRegression(max_iter=1000).fit(words.fit_transform(train.texts), train.labels)
    return model.predict(words.transform(texts))


BASELINES = {"majority class": majority, "bag of words": bag_of_words}


def baselines(splits: Splits, common: dict[str, Any]) -> list[dict[str, Any]]:
    """A row of the table for each baseline; without scikit-learn, one that says so."""
    rows = []
    for name, guess in BASELINES.items():
        try:
            rows.append(common | {"method": name} | judged(guess(splits.train, splits.test.texts), splits.test))
        except ImportError:
            rows.append(common | {"method": f"{name} (needs scikit-learn: pip install 'retrograd[parity]')"})
    return rows


# -- the table --------------------------------------------------------------------------------------------------------

COLUMNS: dict[str, tuple[str, str]] = {  # of a row → heading, format
    "split": ("test split", "{}"),
    "method": ("method", "{}"),
    "seed": ("seed", "{}"),
    "epochs": ("epochs", "{}"),
    "accuracy": ("accuracy %", "{:.1f}"),
    "f1": ("macro F1 %", "{:.1f}"),
    "parameters": ("trained parameters", "{:,}"),
    "seconds": ("wall time s", "{:,.0f}"),
    "megabytes": ("peak memory MB", "{:,.0f}"),
}


def judged(prediction: np.ndarray, test: LabelledTexts) -> dict[str, float]:
    """Accuracy and macro F1 in percent, of classes (N,) or scores (N, C)."""
    return {
        "accuracy": 100 * metrics.accuracy(prediction, test.labels),
        "f1": 100 * metrics.f1(prediction, test.labels),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as a table in Markdown."""
    lines = [[heading for heading, _ in COLUMNS.values()]]
    lines += [[form.format(row[name]) if name in row else "–" for name, (_, form) in COLUMNS.items()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |" for line in lines
    )


def results(folder: Path, task: str | None = None) -> list[dict[str, Any]]:
    """The rows kept in a folder, the newest of each run, in the order of tasks and methods."""
    path = folder / RESULTS
    kept = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
    newest = {(row["task"], row["method"], row["seed"]): row for row in kept if task in (None, row["task"])}
    order = [*BASELINES, *classification.METHODS]
    return sorted(newest.values(), key=lambda row: ([*TASKS].index(row["task"]), _place(row, order), row["seed"]))


def _place(row: dict[str, Any], order: list[str]) -> int:
    return next(i for i, name in enumerate(order) if row["method"].startswith(name))


def peak_megabytes() -> dict[str, float]:
    """The most memory that this process has held, where the system says it."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return {}
    peak = next((line for line in lines if line.startswith("VmHWM:")), None)
    return {} if peak is None else {"megabytes": int(peak.split()[1]) * 1024 / 1e6}


# -- the walk ---------------------------------------------------------------------------------------------------------


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Read, fine-tune, test, save; gives the row of the table."""
    if not options.model:
        raise FileNotFoundError(MODEL_HINT)
    task = TASKS[options.task]
    splits = task.load(options.seed)
    model = classification.load_classifier(options.model, splits.train.names, "mean", options.seed)
    tokenizer = load_tokenizer(options.model)
    train, test = (classification.encoded(model, tokenizer, s.texts, s.labels, MAX_LENGTH) for s in splits)
    epochs = task.epochs[options.method] if options.epochs is None else options.epochs
    print(f"{options.task}: {len(train):,} texts to learn from, {len(test):,} to test on")
    print(f"{options.method}, {epochs} epochs, seed {options.seed}\n")

    start = time.perf_counter()
    classification.fine_tune(
        model,
        train,
        options.method,
        epochs=epochs,
        lr=options.lr,
        seed=options.seed,
        log_every=options.log_every,
        compile=not options.no_compile,
    )
    row = {"task": options.task, "split": task.split, "seed": options.seed}
    tuned = {
        "method": options.method,
        "epochs": epochs,
        "seconds": time.perf_counter() - start,
        "parameters": sum(p.size for p in model.parameters() if p.requires_grad),
    }
    found = classification.scores(model, test)
    names = np.array(splits.test.names)
    tuned = row | tuned | judged(found, splits.test) | peak_megabytes()

    out = Path(options.out).expanduser()
    place = out / f"{options.task}-{options.method}-{options.seed}"
    classifier_folder.save_classifier(model, tokenizer, place, {**tuned, "max_length": MAX_LENGTH})
    with open(out / RESULTS, "a", encoding="utf-8") as file:
        file.writelines(json.dumps(one) + "\n" for one in [*baselines(splits, row), tuned])
    print("\n" + metrics.classification_report(names[found.argmax(axis=1)], names[splits.test.labels]))
    print("\n" + table(results(out, options.task)))
    print(f"\nthe classifier is in {place}: retrograd predict --model {place} --data FILE.csv --text COLUMN")
    return tuned


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m retrograd.examples.finetune_bert", description="Fine-tune a BERT.")
    add = parser.add_argument
    add("--model", metavar="DIR", default=os.environ.get("RETROGRAD_MINILM"), help="the published encoder")
    add("--task", choices=TASKS, default="trec", help="what is learnt (default: trec)")
    add("--method", choices=classification.METHODS, default="lora", help="how much is trained (default: lora)")
    add("--epochs", type=int, metavar="N", help="passes over the texts (default: by task and method)")
    add("--lr", type=float, help="the rate of the encoder or the adapters (default: by method)")
    add("--seed", type=int, default=0, help="of the split, the head, the order and dropout (default: 0)")
    add("--out", metavar="DIR", default="finetune_results", help="for models and results (default: finetune_results)")
    add("--log-every", type=int, metavar="N", help="print a line every N steps, not only after epochs")
    add("--no-compile", action="store_true", help="run operation by operation, not as compiled programs")
    add("--table", action="store_true", help="train nothing, print the results in --out")
    command.add_debug(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """0 if all went well; 1 with one line of error, 130 after Ctrl-C."""

    def work(options: argparse.Namespace) -> None:
        if options.table:
            print(table(results(Path(options.out))))
        else:
            run(options)

    return command.run(NAME, work, parse(argv))


if __name__ == "__main__":
    sys.exit(main())
