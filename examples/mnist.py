"""From pictures to a trained network: MNIST, from looking at the data to fine-tuning.

    python -m retrograd.examples.mnist                     # a dense network, five epochs, about half a minute
    python -m retrograd.examples.mnist --model cnn --epochs 1
    RETROGRAD_BACKEND=cupy python -m retrograd.examples.mnist

Read it from the bottom: `main` reads the command line, `run` is the walk, and each step is a function above it. What
is only printing and drawing is in mnist_report.py.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import retrograd as rg
from retrograd import nn
from retrograd.data import (
    ArrayDataset,
    Compose,
    DataLoader,
    Mnist,
    Normalize,
    RandomAffine,
    RandomCrop,
    ToFloat,
    mean_and_std,
    mnist,
    random_split,
)
from retrograd.examples import mnist_report as report
from retrograd.nn import functional as F
from retrograd.train import metrics

BATCH = 64
PEAK_RATE = 3e-3  # the highest rate of the one-cycle schedule
HELD_OUT = 0.1  # of the training images, for validation
TUNING_RATE, TUNING_STEPS = 1e-4, 200


class Trouble(RuntimeError):
    """What the user can mend, in one line: printed without a traceback, exit code 1."""


# -- networks: images (N, 1, 28, 28) to scores (N, 10) ----------------------------------------------------------------


def dense() -> nn.Module:
    """784-128-10 with dropout: 102 thousand parameters, 97.6 % and more in five epochs."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10))


def cnn() -> nn.Module:
    """Three convolutions of 3x3 with 32, 64 and 128 channels, then a dense layer: 97.5 % and more in one epoch."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2),  # (N, 32, 13, 13)
        nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),  # (N, 64, 5, 5)
        nn.Conv2d(64, 128, 3), nn.ReLU(), nn.Flatten(),  # (N, 128 * 3 * 3)
        nn.Linear(128 * 3 * 3, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


def case_study() -> nn.Module:
    """Two convolutions, a wide dense layer and much dropout: with --augment and 20 epochs, above 99.4 %."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),  # (N, 64, 12, 12)
        nn.Dropout(0.25), nn.Flatten(), nn.Linear(64 * 12 * 12, 512), nn.ReLU(), nn.Dropout(0.5), nn.Linear(512, 10),
    )  # fmt: skip


MODELS = {"dense": dense, "cnn": cnn, "case-study": case_study}


# -- data -------------------------------------------------------------------------------------------------------------


@dataclass
class Digits:
    """The loaders of one run. Only the first is shuffled, and only the first augments."""

    train: DataLoader
    validation: DataLoader
    test: DataLoader


def load_digits(splits: Mnist, seed: int, augment: bool) -> Digits:
    """MNIST as batches of normalised float32 images (B, 1, 28, 28) and labels (B,)."""
    train, test = (with_channel(split) for split in splits)
    mean, std = mean_and_std(train.arrays[0])
    to_numbers = [ToFloat(), Normalize(mean / 255, std / 255)]
    turned = [RandomAffine(degrees=10, scale=(0.9, 1.1)), RandomCrop(28, padding=2)] if augment else []
    training, validation = random_split(train, [1 - HELD_OUT, HELD_OUT], seed)
    return Digits(
        DataLoader(training, BATCH, shuffle=True, seed=seed, transform=Compose([*turned, *to_numbers])),
        DataLoader(validation, 512, transform=Compose(to_numbers)),
        DataLoader(test, 512, transform=Compose(to_numbers)),
    )


def with_channel(digits: ArrayDataset) -> ArrayDataset:
    """The same digits, images with the axis for channels that convolutions expect."""
    images, labels = digits.arrays
    return ArrayDataset(images[:, None], labels)


# -- training and evaluating ------------------------------------------------------------------------------------------


@dataclass
class History:
    """The loss of every step, and the one on the held-out images after every epoch whose weights are saved."""

    losses: list[float] = field(default_factory=list)
    validation_losses: list[float] = field(default_factory=list)


def train_epoch(
    model: nn.Module, optimizer: Any, schedule: Any, batches: Iterable[Any], progress: report.Progress
) -> list[float]:
    """One pass: for each batch the loss, its gradients, and a step against them. Gives the losses."""
    model.train()
    losses = []
    for images, labels in batches:
        scores = model(images)
        loss = F.cross_entropy(scores, labels)
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise Trouble(f"the loss is {losses[-1]} after {len(losses) - 1} steps of this epoch: try a lower rate")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        progress.step(losses[-1], metrics.accuracy(scores, labels), optimizer.param_groups[0]["lr"])
        if schedule is not None:
            schedule.step()
    return losses


def train(model: nn.Module, digits: Digits, epochs: int, path: Path, history: History) -> None:
    """Train with Adam under a one-cycle schedule; after every epoch, validate, save the weights, and note it."""
    optimizer = rg.optim.Adam(model.parameters(), lr=PEAK_RATE)
    schedule = rg.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=PEAK_RATE, total_steps=epochs * len(digits.train))
    for epoch in range(1, epochs + 1):
        with report.Progress(f"epoch {epoch}/{epochs}", len(digits.train)) as progress:
            history.losses += train_epoch(model, optimizer, schedule, digits.train, progress)
        scores, labels = predict(model, digits.validation)
        loss = F.cross_entropy(rg.asarray(scores), rg.asarray(labels)).item()
        rg.save(model.state_dict(), path, metadata={"epoch": str(epoch)})
        history.validation_losses.append(loss)
        print(progress.summary(loss, metrics.accuracy(scores, labels)))


def predict(model: nn.Module, loader: DataLoader) -> tuple[np.ndarray, np.ndarray]:
    """Scores (N, 10) and true labels (N,) of all the loader's digits, in order."""
    model.eval()
    with rg.no_grad():
        batches = [(model(images).numpy(), labels.numpy()) for images, labels in loader]
    scores, labels = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
    return scores, labels


def fine_tune(model: nn.Module, digits: Digits) -> None:
    """A little further at a low rate: the same loop, without a schedule, for a part of an epoch."""
    optimizer = rg.optim.Adam(model.parameters(), lr=TUNING_RATE)
    steps = min(TUNING_STEPS, len(digits.train))
    with report.Progress("fine-tuning", steps) as progress:
        train_epoch(model, optimizer, None, islice(digits.train, steps), progress)


# -- the walk ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """What a run came to: accuracies on the test images, and where the weights are."""

    accuracy: float
    tuned_accuracy: float
    weights: Path


def run(options: argparse.Namespace) -> Result:
    """Look, train, evaluate, save, load, fine-tune, draw."""
    with rg.use_backend(options.backend) if options.backend else nullcontext():
        backend = rg.current_backend().name  # one that is not usable is refused before anything is made
        out = writable_folder(options.out)
        rg.manual_seed(options.seed)
        splits = mnist()
        report.show_data(*splits)
        splits = Mnist(*(ArrayDataset(*split[: options.limit]) for split in splits))

        digits = load_digits(splits, options.seed, options.augment)
        model = MODELS[options.model]()
        parameters = sum(p.size for p in model.parameters())
        print(f"\n{options.model}: {parameters:,} parameters, {len(digits.train)} steps an epoch, backend {backend}")
        path = out / "mnist.safetensors"
        history = History()
        try:
            train(model, digits, options.epochs, path, history)
        except KeyboardInterrupt:
            done = len(history.validation_losses)
            kept = f"{path} holds the weights of epoch {done}" if done else "no epoch was complete, nothing was saved"
            raise KeyboardInterrupt(f"interrupted in epoch {done + 1}; {kept}") from None

        scores, labels = predict(model, digits.test)
        accuracy = metrics.accuracy(scores, labels)
        print(f"\ntest accuracy {100 * accuracy:.2f} %\n")
        print(metrics.classification_report(scores, labels, labels=range(10)))
        print("\n" + report.confusion_table(metrics.confusion_matrix(scores, labels, labels=range(10))))

        second = MODELS[options.model]()
        second.load_state_dict(rg.load(path))
        fine_tune(second, digits)
        tuned_accuracy = metrics.accuracy(*predict(second, digits.test))
        print(f"\nweights in {path}; loaded into a second model and trained a little further:")
        print(f"test accuracy {100 * accuracy:.2f} % before, {100 * tuned_accuracy:.2f} % after")

        report.draw(out, splits.test.arrays[0], scores, labels, history)
    return Result(accuracy, tuned_accuracy, path)


def writable_folder(name: str) -> Path:
    """The output folder, made if need be. Tried before the training, not after it."""
    folder = Path(name).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise Trouble(
            f"cannot write in the output folder {folder}: {error.strerror}. Name another with --out."
        ) from None
    return folder


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""

    def positive(text: str) -> int:
        if not text.isdecimal() or int(text) < 1:
            raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
        return int(text)

    parser = argparse.ArgumentParser(prog="python -m retrograd.examples.mnist", description="Learn handwritten digits.")
    parser.add_argument("--model", choices=MODELS, default="dense", help="the network (default: dense)")
    parser.add_argument("--backend", help="numpy, cupy, cupy:1, … (default: what RETROGRAD_BACKEND says, or numpy)")
    parser.add_argument("--epochs", type=positive, default=5, help="passes over the training images (default: 5)")
    parser.add_argument("--seed", type=int, default=0, help="of weights, dropout, order and augmentation (default: 0)")
    parser.add_argument(
        "--out", default="mnist_results", help="folder for weights and pictures (default: mnist_results)"
    )
    parser.add_argument("--augment", action="store_true", help="turn, scale and crop the training images at random")
    parser.add_argument("--limit", type=positive, help="only the first digits of each split: for a quick look")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """0 if all went well; 1 with one line of error, 130 after Ctrl-C."""
    options = parse(argv)
    try:
        run(options)
    except (Trouble, rg.BackendError, OSError) as error:
        print(f"mnist: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        print(f"\nmnist: {interrupt or 'interrupted'}", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
