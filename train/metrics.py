"""How good predictions are: accuracy, confusion, precision, recall, F1 and perplexity, with scikit-learn's numbers.

Nearly everything here comes from one table. Row i, column j of the confusion matrix counts the samples of true class i
that were predicted as class j, so for class i

    true positives    the diagonal entry          precision = true positives / column sum
    predicted         the sum of column i         recall    = true positives / row sum
    support           the sum of row i            F1        = 2 true positives / (column sum + row sum)

Where a denominator is 0 the value is 0. Arguments are in the order of a loss, prediction before target; classes are
whole numbers or names, as NumPy arrays, Tensors or lists. A prediction with one axis more than the target holds a
score per class, (N, C), of which the highest wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

AVERAGES = ("micro", "macro", "weighted")
Average = Literal["micro", "macro", "weighted"]


class ClassScores(NamedTuple):
    """Precision, recall, F1 and support: an array each with an entry per class, or a number each for an average."""

    precision: Any
    recall: Any
    f1: Any
    support: Any


def accuracy(prediction: Any, target: Any) -> float:
    """The share of samples whose predicted class is the true one.

    Args:
        prediction: (N,) classes or (N, C) scores.
        target: (N,) classes, at least one.
    Raises:
        TypeError: values that name no classes.
        ValueError: shapes that do not fit.

    Example:
        >>> from retrograd.train.metrics import accuracy
        >>> accuracy([0, 1, 2, 2], [0, 1, 1, 2])
        0.75
    """
    predicted, true = class_pair(prediction, target)
    return float((predicted == true).mean())


def confusion_matrix(prediction: Any, target: Any, labels: Sequence[Any] | np.ndarray | None = None) -> np.ndarray:
    """How often each true class (row) was predicted as each class (column), (C, C) int64.

    Args:
        prediction: (N,) classes or (N, C) scores.
        target: (N,) classes.
        labels: the classes in the order of the rows; by default those that occur, sorted.
    Raises:
        TypeError: values that name no classes.
        ValueError: shapes that do not fit, a class that is not among `labels`, or one named twice.

    Example:
        >>> from retrograd.train.metrics import confusion_matrix
        >>> confusion_matrix([0, 1, 2, 2], [0, 1, 1, 2])
        array([[1, 0, 0],
               [0, 1, 1],
               [0, 0, 1]])
    """
    predicted, true = class_pair(prediction, target)
    return _confusion(predicted, true, _classes(predicted, true, labels))


def precision_recall_f1(
    prediction: Any,
    target: Any,
    labels: Sequence[Any] | np.ndarray | None = None,
    average: Average | None = None,
) -> ClassScores:
    """Precision, recall and F1 of each class, or their average.

    Args:
        prediction: (N,) classes or (N, C) scores.
        target: (N,) classes.
        labels: the classes in order; by default those that occur, sorted.
        average: None gives an entry per class; "macro" their mean; "weighted" their mean weighted by support; "micro"
            the values of all classes counted together.
    Raises:
        TypeError: values that name no classes.
        ValueError: shapes that do not fit, a class that is not among `labels`, or an unknown average.

    Example:
        >>> from retrograd.train.metrics import precision_recall_f1
        >>> scores = precision_recall_f1([0, 1, 2, 2], [0, 1, 1, 2])
        >>> scores.precision
        array([1. , 1. , 0.5])
        >>> scores.support
        array([1, 2, 1])
        >>> round(precision_recall_f1([0, 1, 2, 2], [0, 1, 1, 2], average="macro").f1, 4)
        0.7778
    """
    if average not in (None, *AVERAGES):
        raise ValueError(f"average must be None or one of {', '.join(map(repr, AVERAGES))}, got {average!r}")
    scores = scores_of(confusion_matrix(prediction, target, labels), together=average == "micro")
    return scores if average is None else averaged(scores, weighted=average == "weighted")


def precision(prediction: Any, target: Any, average: Average = "macro") -> float:
    """The average of the classes' precisions, one number: see `precision_recall_f1`.

    Example:
        >>> from retrograd.train.metrics import precision
        >>> round(precision([0, 1, 2, 2], [0, 1, 1, 2]), 4)
        0.8333
    """
    return precision_recall_f1(prediction, target, average=average).precision


def recall(prediction: Any, target: Any, average: Average = "macro") -> float:
    """The average of the classes' recalls, one number: see `precision_recall_f1`.

    Example:
        >>> from retrograd.train.metrics import recall
        >>> round(recall([0, 1, 2, 2], [0, 1, 1, 2]), 4)
        0.8333
    """
    return precision_recall_f1(prediction, target, average=average).recall


def f1(prediction: Any, target: Any, average: Average = "macro") -> float:
    """The average of the classes' F1, one number: see `precision_recall_f1`.

    Example:
        >>> from retrograd.train.metrics import f1
        >>> round(f1([0, 1, 2, 2], [0, 1, 1, 2]), 4)
        0.7778
    """
    return precision_recall_f1(prediction, target, average=average).f1


def perplexity(loss: Any) -> float:
    """e to the mean cross-entropy: among how many equally likely tokens the model is in doubt.

    Args:
        loss: the mean negative log-likelihood in nats, or that of each token, of any shape.

    Example:
        >>> import math
        >>> from retrograd.train.metrics import perplexity
        >>> round(perplexity(math.log(65)), 6)
        65.0
    """
    values = np.asarray(loss.numpy() if hasattr(loss, "numpy") else loss, np.float64)
    if not values.size:
        raise ValueError("expected at least one token, got none")
    with np.errstate(over="ignore"):
        return float(np.exp(values.mean()))


def scores_of(confusion: np.ndarray, together: bool = False) -> ClassScores:
    """Precision, recall and F1 of each class of a confusion matrix; of one class that stands for all if `together`."""
    hits, predicted, support = np.diag(confusion), confusion.sum(axis=0), confusion.sum(axis=1)
    if together:
        hits, predicted, support = (counts.sum(keepdims=True) for counts in (hits, predicted, support))
    return ClassScores(_ratio(hits, predicted), _ratio(hits, support), _ratio(2 * hits, predicted + support), support)


def averaged(scores: ClassScores, weighted: bool) -> ClassScores:
    """The mean over the classes, weighted by support or plain, as four numbers."""
    weights = scores.support if weighted else np.ones_like(scores.support)
    precision, recall, f1 = (float((values * weights).sum() / weights.sum()) for values in scores[:3])
    return ClassScores(precision, recall, f1, int(scores.support.sum()))


def classification_report(
    prediction: Any,
    target: Any,
    labels: Sequence[Any] | np.ndarray | None = None,
    names: Sequence[str] | None = None,
    digits: int = 3,
) -> str:
    """A table of precision, recall, F1 and support: a line per class, then accuracy and the averages.

    Args:
        prediction: (N,) classes or (N, C) scores.
        target: (N,) classes.
        labels: the classes in order; by default those that occur, sorted.
        names: what to call them, by default as they are.
        digits: decimal places.
    Raises:
        TypeError: values that name no classes.
        ValueError: shapes that do not fit, a class that is not among `labels`, or another number of names than classes.

    Example:
        >>> from retrograd.train.metrics import classification_report
        >>> print(classification_report([0, 1, 2, 2], [0, 1, 1, 2], names=["cat", "dog", "owl"]))
                      precision  recall      f1  support
                 cat      1.000   1.000   1.000        1
                 dog      1.000   0.500   0.667        2
                 owl      0.500   1.000   0.667        1
        <BLANKLINE>
            accuracy                      0.750        4
           macro avg      0.833   0.833   0.778        4
        weighted avg      0.875   0.750   0.750        4
    """
    predicted, true = class_pair(prediction, target)
    classes = _classes(predicted, true, labels)
    shown = [str(value) for value in classes.tolist()] if names is None else list(names)
    if len(shown) != len(classes):
        raise ValueError(f"expected {len(classes)} names, one per class, got {len(shown)}: {shown}")
    scores = scores_of(_confusion(predicted, true, classes))
    width = max(len("weighted avg"), *map(len, shown))

    def row(name: str, precision: str, recall: str, f1: str, support: Any) -> str:
        return f"{name:>{width}}  {precision:>9}  {recall:>6}  {f1:>6}  {support:>7}"

    def numbers(name: str, values: Sequence[Any]) -> str:
        precision, recall, f1 = (f"{value:.{digits}f}" for value in values[:3])
        return row(name, precision, recall, f1, values[3])

    return "\n".join(
        [
            row("", "precision", "recall", "f1", "support"),
            *(numbers(name, values) for name, *values in zip(shown, *scores, strict=True)),
            "",
            row("accuracy", "", "", f"{(predicted == true).mean():.{digits}f}", len(true)),
            numbers("macro avg", averaged(scores, weighted=False)),
            numbers("weighted avg", averaged(scores, weighted=True)),
        ]
    )


# -- arguments --------------------------------------------------------------------------------------------------------


def class_pair(prediction: Any, target: Any) -> tuple[np.ndarray, np.ndarray]:
    """Prediction and target as two arrays of classes, (N,) each; scores become the class of the highest.

    Raises TypeError for values that name no classes, ValueError for shapes that do not fit, no sample, or NaN scores.
    """
    predicted, true = (np.asarray(x.numpy() if hasattr(x, "numpy") else x) for x in (prediction, target))
    if true.ndim != 1 or predicted.ndim not in (1, 2) or len(predicted) != len(true):
        raise ValueError(
            "expected a prediction of shape (N,) or (N, C) and a target of shape (N,), got "
            f"{predicted.shape} and {true.shape}"
        )
    if not len(true):
        raise ValueError("expected at least one sample, got none")
    if predicted.ndim == 2:
        if not predicted.shape[1] or predicted.dtype.kind not in "iuf":
            raise ValueError(f"expected scores of at least one class, got {predicted.dtype} {predicted.shape}")
        if predicted.dtype.kind == "f" and np.isnan(predicted).any():
            raise ValueError("the scores contain NaN: no class is the highest")
        predicted = predicted.argmax(axis=1)
    kinds = [_kind(array) for array in (predicted, true)]
    if None in kinds or kinds[0] != kinds[1]:
        raise TypeError(
            "classes are whole numbers or names, alike in prediction and target, got "
            f"{predicted.dtype} and {true.dtype}"
        )
    return predicted, true


def _kind(array: np.ndarray) -> str | None:
    return {"b": "number", "i": "number", "u": "number", "U": "name"}.get(array.dtype.kind)


def _classes(predicted: np.ndarray, true: np.ndarray, labels: Sequence[Any] | np.ndarray | None) -> np.ndarray:
    present = np.unique(np.concatenate([predicted, true]))
    if labels is None:
        return present
    classes = np.asarray(labels)
    if classes.ndim != 1 or len(np.unique(classes)) != len(classes):
        raise ValueError(f"labels must be one row of different classes, got {classes.tolist()}")
    missing = present[~np.isin(present, classes)]
    if len(missing):
        raise ValueError(f"class {missing[0]!s} is not among the labels {classes.tolist()}")
    return classes


def _confusion(predicted: np.ndarray, true: np.ndarray, classes: np.ndarray) -> np.ndarray:
    order = np.argsort(classes)
    row, column = (order[np.searchsorted(classes, values, sorter=order)] for values in (true, predicted))
    n = len(classes)
    return np.bincount(row * n + column, minlength=n * n).reshape(n, n)


def _ratio(numerator: Any, denominator: Any) -> Any:
    numerator, denominator = np.asarray(numerator, np.float64), np.asarray(denominator)
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator != 0)
