"""What mnist.py shows: the data, progress, the confusion matrix, and pictures where matplotlib is there."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from retrograd.data import ArrayDataset, mean_and_std

if TYPE_CHECKING:
    from retrograd.examples.mnist import History

INK = " .:-=+*#%@"  # from paper to full ink


# -- the data ---------------------------------------------------------------------------------------------------------


def show_data(train: ArrayDataset, test: ArrayDataset) -> None:
    """Print shapes, dtypes, values and counts of the two splits, and the first digit."""
    for name, digits in (("training", train), ("test", test)):
        images, labels = digits.arrays
        mean, std = mean_and_std(images)
        print(f"{name} images {images.shape} {images.dtype}, values {images.min()} to {images.max()}, ", end="")
        print(f"mean {mean:.2f}, deviation {std:.2f}; labels {labels.shape} {labels.dtype}")
    print("\ndigit     " + "".join(f"{digit:7}" for digit in range(10)))
    for name, digits in (("training", train), ("test", test)):
        counts = np.bincount(digits.arrays[1], minlength=10)
        print(f"{name:10}" + "".join(f"{count:7,}" for count in counts))
    image, label = train[0]
    print(f"\nthe first training image, labelled {label}:\n\n{in_characters(image)}")


def in_characters(image: np.ndarray) -> str:
    """An image of bytes, (H, W), as lines of text: two characters a pixel, without the empty border."""
    rows, columns = (np.flatnonzero(image.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return ""
    inked = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    shades = inked.astype(np.int64) * len(INK) // 256
    return "\n".join("".join(2 * INK[shade] for shade in line).rstrip() for line in shades)


# -- progress ---------------------------------------------------------------------------------------------------------


class Progress:
    """A bar by tqdm on a terminal; otherwise a plain line for each quarter. Counts the means of an epoch."""

    def __init__(self, title: str, total: int) -> None:
        self.title, self.total, self.done = title, total, 0
        self.loss = self.accuracy = self.rate = 0.0
        self.start = time.perf_counter()
        self.bar = _bar(title, total)

    def step(self, loss: float, accuracy: float, rate: float) -> None:
        """Count one batch."""
        self.done += 1
        self.loss += (loss - self.loss) / self.done
        self.accuracy += (accuracy - self.accuracy) / self.done
        self.rate = rate
        if self.bar is not None:
            self.bar.set_postfix_str(
                f"loss {self.loss:.4f}, accuracy {self.accuracy:.2%}, rate {rate:.1e}", refresh=False
            )
            self.bar.update()
        elif self.done * 4 // self.total > (self.done - 1) * 4 // self.total:
            print(f"  {self.title}: {self.done}/{self.total}  {self._means()}", flush=True)

    def summary(self, validation_loss: float, validation_accuracy: float) -> str:
        """One line on the epoch."""
        seconds = time.perf_counter() - self.start
        validation = f"validation loss {validation_loss:.4f}  accuracy {validation_accuracy:.2%}"
        return f"{self.title}  {self._means()}  {validation}  {seconds:.1f} s"

    def _means(self) -> str:
        return f"loss {self.loss:.4f}  accuracy {self.accuracy:.2%}  rate {self.rate:.1e}"

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.close()


def _bar(title: str, total: int) -> Any:
    if not sys.stderr.isatty():
        return None
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm(desc=title, total=total, leave=False)


# -- results ----------------------------------------------------------------------------------------------------------


def confusion_table(confusion: np.ndarray) -> str:
    """The confusion matrix of the ten digits as text; zeros as dots, so that the mistakes stand out."""
    lines = ["true \\ predicted" + "".join(f"{digit:6}" for digit in range(len(confusion)))]
    for digit, counts in enumerate(confusion.tolist()):
        lines.append(f"{digit:16}" + "".join(f"{count or '.':>6}" for count in counts))
    return "\n".join(lines)


def draw(out: Path, images: np.ndarray, scores: np.ndarray, labels: np.ndarray, history: History) -> None:
    """Write mnist_mistakes.png and mnist_loss.png, or say why not."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("\nno pictures: matplotlib is not installed (the extra `examples` has it)")
        return
    figure = Figure((7, 4), layout="tight")
    draw_losses(figure.subplots(), history)
    figure.savefig(out / "mnist_loss.png", dpi=150)
    print(f"\nloss curves in {out / 'mnist_loss.png'}")
    wrong = np.flatnonzero(scores.argmax(axis=1) != labels)
    if len(wrong):
        figure = Figure((8, 1 + 1.1 * min(5, -(-len(wrong) // 8))), layout="tight")
        draw_mistakes(figure.subplots(), images[wrong], scores[wrong], labels[wrong])
        figure.savefig(out / "mnist_mistakes.png", dpi=150)
        print(f"misclassified digits in {out / 'mnist_mistakes.png'}")
    else:
        print("no digit was misclassified: no picture of mistakes")


def draw_losses(axes: Any, history: History) -> None:
    """The training loss of every step with its running mean, and the validation loss of every epoch."""
    losses = np.array(history.losses)
    window = min(len(losses), 50)
    running = np.convolve(losses, np.full(window, 1 / window), mode="valid")
    ends = len(losses) // len(history.validation_losses) * np.arange(1, len(history.validation_losses) + 1)
    axes.plot(np.arange(1, len(losses) + 1), losses, color="0.8", linewidth=0.5, label="training, each step")
    axes.plot(np.arange(window, len(losses) + 1), running, label=f"training, mean of {window} steps")
    axes.plot(ends, history.validation_losses, "o-", label="validation, each epoch")
    axes.set(xlabel="step", ylabel="cross-entropy", yscale="log", title="MNIST")
    axes.legend()


def draw_mistakes(axes: Any, images: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> None:
    """Up to 40 digits that were taken for others, the surest mistakes first, put together into one picture."""
    predicted, every = scores.argmax(axis=1), np.arange(len(labels))
    margin = scores[every, predicted] - scores[every, labels]
    chosen = np.argsort(-margin, kind="stable")[:40]
    height, width = 40, 36  # of a cell: the digit, and room for its caption
    sheet = np.zeros((-(-len(chosen) // 8) * height, 8 * width), np.uint8)
    for place, i in enumerate(chosen):
        top, left = place // 8 * height + 10, place % 8 * width + 4
        sheet[top : top + 28, left : left + 28] = images[i]
        axes.text(left + 14, top - 2, f"{labels[i]} → {predicted[i]}", ha="center")
    axes.imshow(sheet, cmap="gray_r", vmin=0, vmax=255)
    axes.axis("off")
    axes.set_title(f"{len(labels)} digits were misclassified; the surest of these mistakes (true → predicted)")
