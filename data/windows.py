"""A long text as samples: stretches of it, each with what comes next at every place."""

from __future__ import annotations

from typing import Any

import numpy as np

from .loader import _at_least

IGNORED = -100  # the label that cross_entropy leaves out


class TokenWindows:
    """Windows of a row of tokens. Sample i is (tokens, labels), (length,) int64 each: labels[t] follows tokens[t].

    For training every place of the text may begin a window: stride 1, in a loader that shuffles. For evaluating they
    stand side by side: with stride=length each token but the first is a label exactly once. A last window that would
    run over the end begins earlier; those of its labels that were there before are -100.

    Args:
        tokens: (N,) whole numbers. Memory is shared, so a memory-mapped file may be larger than memory.
        length: tokens in a window.
        stride: how many places further the next window begins. A shuffled loader needs 16 bytes a window.
    Raises:
        TypeError: tokens of another kind. ValueError: no window fits, or a number below 1.

    Example:
        >>> import numpy as np
        >>> from retrograd.data import TokenWindows
        >>> tokens, labels = TokenWindows(np.arange(10, 19), length=3)[2]
        >>> tokens, labels
        (array([12, 13, 14]), array([13, 14, 15]))
        >>> windows = TokenWindows(np.arange(10, 19), length=3, stride=3)
        >>> [labels.tolist() for _, labels in windows]
        [[11, 12, 13], [14, 15, 16], [-100, 17, 18]]
    """

    def __init__(self, tokens: Any, length: int, stride: int = 1) -> None:
        self.tokens = np.asarray(tokens.numpy() if hasattr(tokens, "numpy") else tokens)
        if self.tokens.ndim != 1 or self.tokens.dtype.kind not in "iu":
            raise TypeError(
                f"expected a row of token numbers (N,), got {self.tokens.dtype} of shape {self.tokens.shape}"
            )
        self.length, self.stride = _at_least(1, "length", length), _at_least(1, "stride", stride)
        self._last = len(self.tokens) - 1 - self.length  # where the last window begins
        if self._last < 0:
            raise ValueError(
                f"a window of {self.length} tokens and the one after it need at least {self.length + 1}, there are "
                f"{len(self.tokens)}: give a longer text or a smaller length"
            )

    def __len__(self) -> int:
        return -(-self._last // self.stride) + 1

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        tokens, labels = self.gather(np.array([range(len(self))[index]]))
        return tokens[0], labels[0]

    def gather(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The batch of the windows at those indices, (B,) integers: (tokens, labels), (B, length) int64 each."""
        begins = np.minimum(indices * self.stride, self._last)
        windows = self.tokens[begins[:, None] + np.arange(self.length + 1)].astype(np.int64)
        tokens, labels = windows[:, :-1].copy(), windows[:, 1:].copy()
        labels[np.arange(self.length) < (indices * self.stride - begins)[:, None]] = IGNORED
        return tokens, labels

    def __repr__(self) -> str:
        return f"TokenWindows({len(self)} of {self.length} in {len(self.tokens)} tokens, stride={self.stride})"
