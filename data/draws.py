"""Random numbers for data, each a function of its place: (seed, purpose, epoch, sample).

None depends on what was drawn before. That makes a shuffled order or an augmented image the same on every backend,
whatever the batch size, the number of threads and the point at which a run was resumed. The place is the counter of
`backends.random`, 256 bits wide:

    bits 192-255   the purpose, a row of the table below; 0 is left to the streams that models draw from
    bits 128-191   the epoch
    bits  64-127   the sample
    bits   0-63    the blocks of the draw
"""

from __future__ import annotations

import numpy as np

from ..backends import random

SHUFFLE, AUGMENT, SPLIT, BATCHES = 1, 2, 3, 4
_AT_ONCE = 16


def place(purpose: int, epoch: int = 0, sample: int = 0) -> int:
    """Where the numbers of that purpose, epoch and sample begin: a counter of `backends.random`."""
    return purpose << 192 | epoch << 128 | sample << 64


def epoch_order(key: int, epoch: int, n: int) -> np.ndarray:
    """The order in which an epoch visits n samples, (n,) int64."""
    return random.permutation(key, place(SHUFFLE, epoch), n)


def batch_order(key: int, epoch: int, n: int) -> np.ndarray:
    """The order of an epoch's n batches where they are made first and shuffled then, (n,) int64."""
    return random.permutation(key, place(BATCHES, epoch), n)


def split_order(seed: int, n: int) -> np.ndarray:
    """The order in which `random_split` deals out n samples, (n,) int64."""
    return random.permutation(random.seed_to_key(seed), place(SPLIT), n)


class Draws:
    """The random numbers of one batch: a row per sample, which depends on (seed, epoch, sample) alone.

    Every call goes on where the one before ended, so the transforms of a chain draw different numbers.

    Args:
        seed: of the loader; `Draws.from_key` takes the key that was made of it.
        epoch: which pass over the dataset.
        samples: the index of each sample in the dataset, (B,) integers.

    Example:
        >>> from retrograd.data import Draws
        >>> one, other = Draws(0, epoch=2, samples=[7, 3]), Draws(0, epoch=2, samples=[3])
        >>> bool((one.uniform(2)[1] == other.uniform(2)[0]).all())
        True
    """

    def __init__(self, seed: int, epoch: int, samples: np.ndarray | list[int]) -> None:
        self._start(random.seed_to_key(seed), epoch, samples)

    @classmethod
    def from_key(cls, key: int, epoch: int, samples: np.ndarray) -> Draws:
        """The draws of a seed whose key is known: making it takes 15 microseconds."""
        draws = cls.__new__(cls)
        draws._start(key, epoch, samples)
        return draws

    def _start(self, key: int, epoch: int, samples: np.ndarray | list[int]) -> None:
        self.key, self.epoch, self.samples = key, epoch, np.asarray(samples)
        self._rows, self._taken = np.empty((len(self.samples), 0)), 0

    def __len__(self) -> int:
        return len(self.samples)

    def uniform(self, n: int, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        """n numbers in [low, high) for each sample, (B, n) float64."""
        end = self._taken + n
        if end > self._rows.shape[1]:
            self._extend(end)
        chosen = self._rows[:, self._taken : end]
        self._taken = end
        return low + (high - low) * chosen

    def _extend(self, end: int) -> None:
        # Going to the place of a sample takes longer than making its numbers, so some are made for the next transforms.
        start = self._rows.shape[1]
        more = np.empty((len(self), max(4 * random.blocks(end - start), _AT_ONCE)))
        for row, sample in zip(more, self.samples.tolist(), strict=True):
            counter = place(AUGMENT, self.epoch, sample) + random.blocks(start)
            row[:] = random.uniform(self.key, counter, row.shape, np.float64)
        self._rows = np.concatenate([self._rows, more], axis=1)
