"""Transforms of a batch of images, NumPy in and NumPy out: scaling of values, and seeded augmentation.

A batch is (N, H, W) or (N, C, H, W). A transform is a callable of the batch; one with the attribute `random` set takes
the random numbers of the batch as well, `transform(images, draws)`, and its result for a sample depends on those of
that sample only. None changes its input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .draws import Draws

Transform = Callable[..., np.ndarray]


def apply(transform: Transform, images: np.ndarray, draws: Draws | None) -> np.ndarray:
    """The transformed batch, whichever of the two kinds of transform it is."""
    return transform(images, draws) if getattr(transform, "random", False) else transform(images)


class Compose:
    """Transforms one after another.

    Example:
        >>> import numpy as np
        >>> from retrograd.data import Compose, Draws, Normalize, RandomRotation, ToFloat
        >>> augment = Compose([RandomRotation(10), ToFloat(), Normalize(0.1307, 0.3081)])
        >>> images = np.zeros((2, 28, 28), np.uint8)
        >>> augment(images, Draws(seed=0, epoch=0, samples=[0, 1])).dtype
        dtype('float32')
    """

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.transforms = list(transforms)
        self.random = any(getattr(transform, "random", False) for transform in self.transforms)

    def __call__(self, images: np.ndarray, draws: Draws | None = None) -> np.ndarray:
        if self.random and draws is None:
            raise TypeError("a Compose with random transforms takes (images, draws); see retrograd.data.Draws")
        for transform in self.transforms:
            images = apply(transform, images, draws)
        return images

    def __repr__(self) -> str:
        return f"Compose({self.transforms!r})"


# -- values ------------------------------------------------------------------------------------------------------------


class ToFloat:
    """Bytes from 0 to 255 as float32 from 0 to 1; floating images become float32 as they are.

    Example:
        >>> import numpy as np
        >>> from retrograd.data import ToFloat
        >>> ToFloat()(np.array([[[0, 255]]], np.uint8))
        array([[[0., 1.]]], dtype=float32)
    """

    def __call__(self, images: np.ndarray) -> np.ndarray:
        if images.dtype == np.uint8:
            return np.multiply(images, np.float32(1 / 255), dtype=np.float32)
        if images.dtype.kind != "f":
            raise TypeError(f"ToFloat expects uint8 or floating images, got {images.dtype}")
        return images.astype(np.float32, copy=False)

    def __repr__(self) -> str:
        return "ToFloat()"


class Normalize:
    """(x - mean) / std, so that values have mean 0 and deviation 1 if these two are the ones of the training images.

    Args:
        mean: a number, or one per channel for images (N, C, H, W).
        std: the same; not 0.

    Example:
        >>> import numpy as np
        >>> from retrograd.data import Normalize
        >>> Normalize(0.5, 0.25)(np.array([[[0.0, 1.0]]], np.float32))
        array([[[-2.,  2.]]], dtype=float32)
    """

    def __init__(self, mean: float | Sequence[float], std: float | Sequence[float]) -> None:
        self.mean, self.std = (np.asarray(values, np.float32) for values in (mean, std))
        if self.mean.ndim > 1 or self.mean.shape != self.std.shape:
            raise ValueError(
                f"mean and std are two numbers or two sequences of one number per channel, got shapes "
                f"{self.mean.shape} and {self.std.shape}"
            )
        if not (np.isfinite(self.mean).all() and np.isfinite(self.std).all() and (self.std > 0).all()):
            raise ValueError(f"std must be positive and both finite, got mean {mean} and std {std}")

    def __call__(self, images: np.ndarray) -> np.ndarray:
        if images.dtype.kind != "f":
            raise TypeError(f"Normalize expects floating images, got {images.dtype}. Put ToFloat() before it.")
        mean, std = self.mean, self.std
        if mean.ndim:
            if images.ndim != 4 or images.shape[1] != len(mean):
                raise ValueError(f"Normalize has {len(mean)} channels, got images of shape {images.shape}")
            mean, std = mean.reshape(-1, 1, 1), std.reshape(-1, 1, 1)
        return (images - mean.astype(images.dtype)) / std.astype(images.dtype)

    def __repr__(self) -> str:
        return f"Normalize({self.mean.tolist()}, {self.std.tolist()})"


def mean_and_std(images: np.ndarray) -> tuple[Any, Any]:
    """Mean and deviation of all pixels, for `Normalize`: two numbers, or for (N, C, H, W) two arrays (C,), float64.

    In blocks of images, since NumPy's own `std` would make eight bytes of every pixel at once.

    Example:
        >>> import numpy as np
        >>> from retrograd.data import mean_and_std
        >>> mean_and_std(np.array([[[0, 2], [4, 6]]], np.uint8))
        (3.0, 2.23606797749979)
    """
    check_images(images)
    axes = (0, 1, 2) if images.ndim == 3 else (0, 2, 3)
    total, squares = 0.0, 0.0
    for start in range(0, len(images), 512):
        block = images[start : start + 512].astype(np.float64)
        total = total + block.sum(axis=axes)
        squares = squares + np.square(block, out=block).sum(axis=axes)
    count = images.size // (1 if images.ndim == 3 else images.shape[1])
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean * mean, 0.0))
    return (float(mean), float(std)) if images.ndim == 3 else (mean, std)


# -- seeded augmentation -----------------------------------------------------------------------------------------------


class RandomHorizontalFlip:
    """Each image mirrored, left for right, with probability p.

    Example:
        >>> import numpy as np
        >>> from retrograd.data import Draws, RandomHorizontalFlip
        >>> RandomHorizontalFlip(p=1.0)(np.array([[[1, 2]]]), Draws(seed=0, epoch=0, samples=[0]))
        array([[[2, 1]]])
    """

    random = True

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"a probability is between 0 and 1, got {p}")
        self.p = p

    def __call__(self, images: np.ndarray, draws: Draws) -> np.ndarray:
        check_images(images)
        chosen = draws.uniform(1) < self.p
        return np.where(chosen.reshape(-1, *[1] * (images.ndim - 1)), images[..., ::-1], images)

    def __repr__(self) -> str:
        return f"RandomHorizontalFlip({self.p})"


class RandomCrop:
    """A window of each image at a random place.

    Args:
        size: height and width of the window, or one number for both.
        padding: pixels of value `fill` put around the image first.
        fill: their value.

    Example:
        >>> import numpy as np
        >>> from retrograd.data import Draws, RandomCrop
        >>> images = np.zeros((2, 3, 32, 32), np.uint8)
        >>> RandomCrop(28, padding=2)(images, Draws(seed=0, epoch=0, samples=[0, 1])).shape
        (2, 3, 28, 28)
    """

    random = True

    def __init__(self, size: int | tuple[int, int], padding: int = 0, fill: float = 0) -> None:
        self.size = (size, size) if isinstance(size, int) else tuple(size)
        if len(self.size) != 2 or min(self.size) < 1 or padding < 0:
            raise ValueError(f"a crop has a positive size and a padding of at least 0, got {size} and {padding}")
        self.padding, self.fill = padding, fill

    def __call__(self, images: np.ndarray, draws: Draws) -> np.ndarray:
        check_images(images)
        padded = pad_borders(images, self.padding, self.fill)
        room = [have - want + 1 for have, want in zip(padded.shape[-2:], self.size, strict=True)]
        if min(room) < 1:
            raise ValueError(
                f"cannot crop {self.size} out of images of {images.shape[-2:]} with padding {self.padding}"
            )
        top, left = (draws.uniform(2) * room).astype(np.int64).T
        windows = np.lib.stride_tricks.sliding_window_view(padded, self.size, axis=(-2, -1))  # type: ignore[arg-type]
        # The place axes of `windows` come after the sample axis, and after the channel axis where there is one.
        batch = np.arange(len(images))
        return windows[batch, top, left] if images.ndim == 3 else windows[batch, :, top, left]

    def __repr__(self) -> str:
        return f"RandomCrop({self.size}, padding={self.padding})"


class RandomAffine:
    """Each image turned, scaled and shifted about its middle, in one bilinear resampling.

    Args:
        degrees: turned by an angle drawn from [-degrees, degrees); a positive one turns against the clock.
        scale: (low, high): made larger by a factor drawn from [low, high).
        shift: moved by up to this fraction of the height, and of the width.
        fill: the value outside of the image: what black is. Images that are normalised already have another black
            than 0, so augment before.

    Images of integers give the nearest integers, floating ones keep their dtype.

    Example:
        >>> import numpy as np
        >>> from retrograd.data import Draws, RandomAffine
        >>> augment = RandomAffine(degrees=10, scale=(0.9, 1.1), shift=0.1)
        >>> augment(np.ones((5, 3, 32, 32), np.float32), Draws(seed=0, epoch=0, samples=range(5))).shape
        (5, 3, 32, 32)
    """

    random = True

    def __init__(
        self, degrees: float = 0.0, scale: tuple[float, float] = (1.0, 1.0), shift: float = 0.0, fill: float = 0.0
    ) -> None:
        if degrees < 0 or shift < 0 or len(scale) != 2 or not 0 < scale[0] <= scale[1] < math.inf:
            raise ValueError(
                f"RandomAffine expects degrees and shift of at least 0 and a scale with 0 < low <= high, got "
                f"degrees={degrees}, scale={scale}, shift={shift}"
            )
        self.degrees, self.scale, self.shift, self.fill = degrees, (float(scale[0]), float(scale[1])), shift, fill

    def __call__(self, images: np.ndarray, draws: Draws) -> np.ndarray:
        check_images(images)
        angle, factor, down, right = draws.uniform(4).T
        angle = np.deg2rad(self.degrees) * (2 * angle - 1)
        factor = self.scale[0] + (self.scale[1] - self.scale[0]) * factor
        height, width = images.shape[-2:]
        shift = self.shift * np.stack([height * (2 * down - 1), width * (2 * right - 1)], axis=1)
        return resample(images, inverse_turns(angle, factor), shift, self.fill)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(degrees={self.degrees}, scale={self.scale}, shift={self.shift})"


class RandomRotation(RandomAffine):
    """Each image turned about its middle by an angle drawn from [-degrees, degrees).

    Example:
        >>> import numpy as np
        >>> from retrograd.data import Draws, RandomRotation
        >>> images = np.zeros((2, 28, 28), np.uint8)
        >>> RandomRotation(10)(images, Draws(seed=0, epoch=0, samples=[0, 1])).shape
        (2, 28, 28)
    """

    def __init__(self, degrees: float, fill: float = 0.0) -> None:
        super().__init__(degrees=degrees, fill=fill)


class RandomScale(RandomAffine):
    """Each image made larger, about its middle, by a factor drawn from [low, high); its size stays.

    Example:
        >>> import numpy as np
        >>> from retrograd.data import Draws, RandomScale
        >>> images = np.zeros((2, 28, 28), np.uint8)
        >>> RandomScale(0.9, 1.1)(images, Draws(seed=0, epoch=0, samples=[0, 1])).shape
        (2, 28, 28)
    """

    def __init__(self, low: float, high: float, fill: float = 0.0) -> None:
        super().__init__(scale=(low, high), fill=fill)


# -- geometry ----------------------------------------------------------------------------------------------------------


def inverse_turns(angle: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """The maps from a place in the result to its place in the image, both (row, column) from the middle, (N, 2, 2).

    The image is turned against the clock by `angle` (radians, (N,)) and made larger by `factor` ((N,)).
    """
    cos, sin = np.cos(angle) / factor, np.sin(angle) / factor
    return np.stack([np.stack([cos, sin], axis=-1), np.stack([-sin, cos], axis=-1)], axis=1)


def resample(images: np.ndarray, maps: np.ndarray, shift: np.ndarray, fill: float = 0.0) -> np.ndarray:
    """Every pixel of the result read, by bilinear interpolation, where its map says.

    Args:
        images: (N, H, W) or (N, C, H, W).
        maps: (N, 2, 2) as `inverse_turns` gives them.
        shift: (N, 2): how far the result moves down and right, in pixels.
        fill: the value outside of the image.
    Returns:
        images of the same shape and dtype.
    """
    height, width = images.shape[-2:]
    # A border of one pixel of `fill`: every place outside of the image can then be read as a place on that border.
    bordered = pad_borders(images.astype(np.float32, copy=False), 1, fill)
    rows, columns = source_places(height, width, maps.astype(np.float32), shift.astype(np.float32))
    top = np.clip(rows, 0, height + 1, out=rows).astype(np.int32)
    left = np.clip(columns, 0, width + 1, out=columns).astype(np.int32)
    np.minimum(top, height, out=top)
    np.minimum(left, width, out=left)
    down, right = rows - top, columns - left

    across = width + 2
    flat = bordered.reshape(len(images), math.prod(images.shape[1:-2]), (height + 2) * across)
    planes = np.arange(flat.shape[0] * flat.shape[1], dtype=np.int64).reshape(*flat.shape[:2], 1, 1) * flat.shape[2]
    corner = planes + (top * across + left)[:, None]
    pixels, down, right = flat.reshape(-1), down[:, None], right[:, None]

    def read(offset: int) -> np.ndarray:
        # Every index is inside by construction; clip mode only spares the check of it.
        return pixels.take(corner + offset, mode="clip")

    upper, lower = read(0), read(across)
    upper += right * (read(1) - upper)
    lower += right * (read(across + 1) - lower)
    upper += down * (lower - upper)
    result = upper.reshape(images.shape)
    return (np.rint(result) if images.dtype.kind in "iu" else result).astype(images.dtype, copy=False)


def source_places(height: int, width: int, maps: np.ndarray, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel of the result is read: rows and columns of the image with its border of one, (N, H, W) each."""
    middle = np.array([(height - 1) / 2, (width - 1) / 2], np.float32)
    row = np.arange(height, dtype=np.float32) - middle[0] - shift[:, :1]
    column = np.arange(width, dtype=np.float32) - middle[1] - shift[:, 1:]
    maps = maps[..., None, None]
    row, column = row[:, :, None], column[:, None, :]
    return (
        maps[:, 0, 0] * row + maps[:, 0, 1] * column + (middle[0] + 1),
        maps[:, 1, 0] * row + maps[:, 1, 1] * column + (middle[1] + 1),
    )


def pad_borders(images: np.ndarray, padding: int, fill: float) -> np.ndarray:
    """The images with `padding` pixels of value `fill` on all four sides."""
    if not padding:
        return images
    height, width = images.shape[-2:]
    bordered = np.full((*images.shape[:-2], height + 2 * padding, width + 2 * padding), fill, images.dtype)
    bordered[..., padding : padding + height, padding : padding + width] = images
    return bordered


def check_images(images: Any) -> None:
    """Raises TypeError or ValueError unless this is a batch of images."""
    if not isinstance(images, np.ndarray) or images.dtype.kind not in "iuf":
        kind = getattr(images, "dtype", type(images).__name__)
        raise TypeError(f"expected a batch of images as a NumPy array of numbers, got {kind}")
    if images.ndim not in (3, 4):
        raise ValueError(f"expected images of shape (N, H, W) or (N, C, H, W), got {images.shape}")
