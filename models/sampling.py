"""From the scores of all words to the next word: what is done to the scores, in this order, and the draw.

    repetition penalty → temperature → top-k → top-p → softmax → draw

Each step is a function of scores (N, V), NumPy on the host, that gives scores (N, V): words that are out have -inf. The
order is that of transformers, and so are the ties: equal scores are in or out together at top-k.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

OUT = -np.inf


def penalize_repetition(logits: np.ndarray, seen: Sequence[np.ndarray | Sequence[int]], penalty: float) -> np.ndarray:
    """Make words that were seen less likely: scores above 0 are divided by the penalty, others multiplied.

    Source: Keskar et al., "CTRL", 2019.

    Args:
        logits: (N, V). seen: for each row the numbers of its words so far. penalty: above 0; 1 changes nothing.

    >>> import numpy as np
    >>> from retrograd.models.sampling import penalize_repetition
    >>> penalize_repetition(np.array([[2.0, -2.0, 2.0]]), [[0, 1]], 2.0)
    array([[ 1., -4.,  2.]])
    """
    out = logits.copy()
    for row, words in zip(out, seen, strict=True):
        known = np.unique(np.asarray(words, dtype=np.int64))
        row[known] = np.where(row[known] > 0, row[known] / penalty, row[known] * penalty)
    return out


def apply_temperature(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Scores divided by the temperature: below 1 the likely becomes likelier, above 1 all become more alike."""
    return logits / np.asarray(temperature, logits.dtype)


def keep_top_k(logits: np.ndarray, k: int) -> np.ndarray:
    """The k highest scores of each row, and those equal to the last of them. Source: Fan et al., 2018.

    >>> import numpy as np
    >>> from retrograd.models.sampling import keep_top_k
    >>> keep_top_k(np.array([[1.0, 3.0, 2.0, 2.0]]), 2)
    array([[-inf,   3.,   2.,   2.]])
    """
    if k >= logits.shape[-1]:
        return logits
    last = np.partition(logits, -k, axis=-1)[:, [-k]]
    return np.where(logits < last, np.asarray(OUT, logits.dtype), logits)


def keep_top_p(logits: np.ndarray, p: float) -> np.ndarray:
    """The fewest words that together have at least the probability p, but one at least: the nucleus.

    Source: Holtzman et al., "The curious case of neural text degeneration", 2020.

    >>> import numpy as np
    >>> from retrograd.models.sampling import keep_top_p
    >>> keep_top_p(np.log(np.array([[0.5, 0.3, 0.2]])), 0.7).round(2)
    array([[-0.69, -1.2 ,  -inf]])
    """
    if p == 1:
        return logits
    out = np.full_like(logits, OUT)
    for row, kept in zip(logits, out, strict=True):
        words = np.flatnonzero(row > OUT)  # after top-k that is few, and sorting them is what costs
        words = words[np.argsort(row[words], kind="stable")]
        # Counted from the unlikely end: what may go has at most the probability 1 - p together.
        gone = np.count_nonzero(np.cumsum(probabilities(row[None, words])[0]) <= 1 - p)
        words = words[min(gone, len(words) - 1) :]
        kept[words] = row[words]
    return out


def probabilities(logits: np.ndarray) -> np.ndarray:
    """The softmax of each row, (N, V) float64. A row's highest score must be finite."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    weights = np.exp(shifted)
    return weights / weights.sum(axis=-1, keepdims=True)


def greedy(logits: np.ndarray) -> np.ndarray:
    """The word with the highest score of each row, the first of equal ones: (N,) int64."""
    return logits.argmax(axis=-1)


def draw(logits: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """A word of each row by its probability, (N,) int64: where `uniform`, (N,) in [0, 1), falls among their sums.

    >>> import numpy as np
    >>> from retrograd.models.sampling import draw
    >>> draw(np.log(np.array([[0.2, 0.8], [0.2, 0.8]])), np.array([0.1, 0.3]))
    array([0, 1])
    """
    sums = np.cumsum(probabilities(logits), axis=-1)
    places = uniform[:, None] * sums[:, -1:]
    # The first word whose sum lies above the place: one of probability 0 adds nothing, and is never that.
    return (sums > places).argmax(axis=-1)
