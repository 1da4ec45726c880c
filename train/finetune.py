"""`retrograd finetune --model DIR --data FILE.csv --text COLUMN --label COLUMN --out DIR`: a classifier of your own."""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from . import command

NAME = "retrograd finetune"
HELD_OUT = 0.1  # of the rows, for validation
CHECKPOINTS, LOG = "checkpoints", "log.csv"
BEGUN = "begun_with.json"  # among the checkpoints: what must be the same where the run is resumed


def main(argv: list[str] | None = None) -> int:
    """Read the options, train, save, tell how good it is; 0, or 1 with one line of error."""
    parser = argparse.ArgumentParser(
        prog=NAME,
        description="Teach a published BERT to sort texts into classes, by a table with a column of texts and one of "
        "labels. A tenth of the rows, drawn with the seed, is held out and shows after each epoch how it goes. The "
        "result is a folder that `retrograd predict` reads.",
    )
    add = parser.add_argument
    add("--model", metavar="DIR", required=True, help="config.json, model.safetensors and the tokenizer's files")
    add("--data", metavar="FILE", required=True, help=command.TABLE)
    add("--text", metavar="COLUMN", required=True, help="the column with the texts")
    add("--label", metavar="COLUMN", required=True, help="the column with their classes, names or numbers")
    add("--test", metavar="FILE", help="another table with the same columns, only to test on at the end")
    add("--out", metavar="DIR", required=True, help="a new folder for the classifier")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--lora", metavar="RANK", type=int, help="train adapters of this rank (default, 8)")
    how.add_argument("--freeze", action="store_true", help="train nothing but a linear head: quick, less good")
    how.add_argument("--full", action="store_true", help="train all weights")
    add("--epochs", metavar="N", type=int, help="passes over the texts (default: 40 for --freeze, else 4)")
    add(
        "--lr",
        metavar="RATE",
        type=float,
        help="of adapters or encoder, the head keeps 1e-3; with --freeze of the "
        "head (default: 1e-3 for --lora, 1e-4 for --full, 1e-2 for --freeze)",
    )
    add("--batch-size", metavar="N", type=int, default=32, help="texts in a step (default 32)")
    add("--max-length", metavar="N", type=int, help="cut texts to so many tokens (default: a longer one is an error)")
    add(
        "--pooling",
        choices=["mean", "cls"],
        help="classify by the mean of all tokens or the first one (default: by DIR)",
    )
    add("--seed", metavar="N", type=int, default=0, help="of held-out rows, new weights, order, dropout (default 0)")
    add("--resume", action="store_true", help="go on where the run into this --out was broken off")
    add("--no-compile", action="store_true", help="run operation by operation, not as compiled programs")
    command.add_debug(parser)
    return command.run(NAME, _finetune, parser.parse_args(argv))


def _finetune(options: argparse.Namespace) -> None:
    from ..autograd_core.text_files import write_json
    from ..data import load_tokenizer, random_split, read_labelled_texts
    from . import metrics
    from .callbacks import Checkpoints
    from .classifier_folder import save_classifier
    from .text_classification import encoded, fine_tune, load_classifier, scores

    out = Path(options.out).expanduser()
    _check_folder(out, options.resume)
    table = read_labelled_texts(options.data, options.text, options.label)
    if len(table.texts) * HELD_OUT < 1:
        raise ValueError(f"{options.data}: expected at least {round(1 / HELD_OUT)} rows, got {len(table.texts)}")
    begun = _begun_with(options, table)
    if options.resume:
        _compare(out, begun)
    tests = read_labelled_texts(options.test, options.text, options.label, names=table.names) if options.test else None
    tokenizer = load_tokenizer(options.model)
    model = load_classifier(options.model, table.names, options.pooling, options.seed)
    dataset = encoded(model, tokenizer, table.texts, table.labels, options.max_length, options.data)
    test = tests and encoded(model, tokenizer, tests.texts, tests.labels, options.max_length, options.test)
    train, validation = random_split(dataset, [1 - HELD_OUT, HELD_OUT], options.seed)

    method, rank = _method(options)
    made = not out.exists()
    try:
        (out / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        write_json(out / CHECKPOINTS / BEGUN, begun)
        history = fine_tune(
            model,
            train,
            method,
            validation=validation,
            epochs=options.epochs,
            lr=options.lr if method != "frozen" else None,
            head_lr=options.lr if method == "frozen" else None,
            batch_size=options.batch_size,
            rank=rank,
            seed=options.seed,
            checkpoints=Checkpoints(out / CHECKPOINTS, keep=1, monitor=None),
            log=out / LOG,
            compile=not options.no_compile,
            resume=options.resume,
        )
    except BaseException:
        if made and not any((out / CHECKPOINTS).glob("step-*")):  # nothing to go on from
            shutil.rmtree(out, ignore_errors=True)
        raise
    record = {"options": _kept(options), "method": method, "history": history.rows, "max_length": options.max_length}
    if test is not None and tests is not None:
        names = np.array(table.names)
        report = metrics.classification_report(names[scores(model, test).argmax(axis=1)], names[tests.labels])
        sys.stdout.write(f"\n{options.test}:\n\n{report}\n")
    try:
        save_classifier(model, tokenizer, out, record)
    except OSError as error:
        raise OSError(
            f"{out}: the classifier could not be written: {error.strerror or error}. Nothing of it is left, the "
            "training is kept: make room, then --resume writes it"
        ) from None
    shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)  # several times the model's size, and of no more use
    sys.stdout.write(f"{out} holds the classifier: retrograd predict --model {out} --data FILE.csv --text COLUMN\n")
    if model.config.classifier_pooling == "mean":
        sys.stdout.write(
            "(transformers knows no BERT classifier on the mean of all tokens; it does with --pooling cls)\n"
        )


def _method(options: argparse.Namespace) -> tuple[str, int]:
    """(name in METHODS, rank of the adapters)."""
    from .text_classification import RANK

    chosen = "frozen" if options.freeze else "full" if options.full else "lora"
    return chosen, RANK if options.lora is None else options.lora


def _kept(options: argparse.Namespace) -> dict[str, Any]:
    return {name: value for name, value in vars(options).items() if name not in ("debug", "resume")}


def _begun_with(options: argparse.Namespace, table: Any) -> dict[str, Any]:
    """What decides about the result, in words of the command line."""
    from .text_classification import METHODS

    method, rank = _method(options)
    usual = METHODS[method]
    rate = usual.head_lr if method == "frozen" else usual.lr
    rows = hashlib.sha256(repr((table.texts, table.names, table.labels.tolist())).encode())
    return {
        "method": f"lora {rank}" if method == "lora" else method,
        "epochs": usual.epochs if options.epochs is None else options.epochs,
        "lr": rate if options.lr is None else options.lr,
        **{name: getattr(options, name) for name in ("batch_size", "max_length", "pooling", "seed")},
        "rows": rows.hexdigest()[:8],
    }


def _compare(out: Path, now: dict[str, Any]) -> None:
    """Refuse to go on with another run than the one that was begun."""
    from ..autograd_core.text_files import read_json

    path = out / CHECKPOINTS / BEGUN
    before = read_json(path) if path.is_file() else now
    other = [f"{name} {before.get(name)}, now {now[name]}" for name in now if before.get(name) != now[name]]
    if other:
        raise ValueError(
            f"--resume: the run into {out} was begun with {'; '.join(other)}. Give the same table and options, "
            "or begin anew with another --out"
        )


def _check_folder(out: Path, resume: bool) -> None:
    """Refuse a folder where something would be lost, or where there is nothing to go on with."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file; name a folder")
    begun = any((out / CHECKPOINTS).glob("step-*"))
    if resume:
        if (out / "config.json").exists():
            raise ValueError(f"--resume: the run into {out} is finished; `retrograd predict --model {out}` uses it")
        if not begun:
            raise ValueError(f"--resume: {out} holds no checkpoint of a run; leave the option out to begin one")
    elif begun:
        raise ValueError(f"{out} holds a run that was broken off: --resume goes on with it, or name another folder")
    elif (out / CHECKPOINTS).is_dir() and {path.name for path in out.iterdir()} <= {CHECKPOINTS, LOG}:
        pass  # a run was broken off before its first checkpoint
    elif out.is_dir() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty: name a new folder with --out")
