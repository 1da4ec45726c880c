"""Transforms: values, geometry against a second way to compute it, and draws that depend on the sample alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from retrograd import data
from retrograd.data import transforms

RANDOM = [
    data.RandomRotation(30),
    data.RandomScale(0.7, 1.4),
    data.RandomAffine(20, (0.8, 1.2), 0.2),
    data.RandomCrop(7, padding=2),
    data.RandomCrop((3, 5)),
    data.RandomHorizontalFlip(),
    data.Compose([data.RandomHorizontalFlip(), data.RandomRotation(10), data.RandomCrop(6, 1), data.ToFloat()]),
]


def some_images(shape: tuple[int, ...], dtype: type = np.uint8, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).random(shape)
    return (values * 255).astype(dtype) if dtype is np.uint8 else values.astype(dtype)


# -- draws -------------------------------------------------------------------------------------------------------------


@given(
    st.integers(0, 5),
    st.integers(0, 5),
    st.lists(st.integers(0, 1000), min_size=1, max_size=6),
    st.lists(st.integers(0, 40), min_size=1, max_size=4),
)
def test_draws_of_a_sample_depend_on_seed_epoch_and_sample_only(
    seed: int, epoch: int, samples: list[int], counts: list[int]
) -> None:
    batch = data.Draws(seed, epoch, samples)
    together = np.concatenate([batch.uniform(n) for n in counts], axis=1)
    for row, sample in zip(together, samples, strict=True):
        np.testing.assert_array_equal(data.Draws(seed, epoch, [sample]).uniform(sum(counts))[0], row)


def test_places_do_not_share_numbers() -> None:
    draws = [data.Draws(seed, epoch, [0, 1]).uniform(8) for seed in (0, 1) for epoch in (0, 1)]
    values = np.concatenate(draws).ravel()
    assert len(set(values.tolist())) == values.size
    assert ((values >= 0) & (values < 1)).all()


def test_the_bounds_of_a_draw() -> None:
    values = data.Draws(0, 0, list(range(200))).uniform(3, -2.0, 5.0)
    assert -2 <= values.min() < -1.8
    assert 4.8 < values.max() < 5


# -- what every random transform keeps to ------------------------------------------------------------------------------


@pytest.mark.parametrize("transform", RANDOM, ids=repr)
@pytest.mark.parametrize("shape", [(6, 9, 8), (6, 3, 9, 8)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_a_sample_comes_out_the_same_in_every_batch(transform, shape: tuple[int, ...], dtype: type) -> None:
    images = some_images(shape, dtype)
    before = images.copy()
    whole = transform(images, data.Draws(4, 2, range(6)))
    for chosen in ([3], [5, 0, 3]):
        part = transform(images[chosen], data.Draws(4, 2, chosen))
        np.testing.assert_array_equal(part, whole[chosen])
    np.testing.assert_array_equal(images, before)
    assert whole.shape[:-2] == shape[:-2]
    assert whole.dtype == (np.float32 if isinstance(transform, data.Compose) else dtype)
    assert whole.any()


@pytest.mark.parametrize("transform", RANDOM, ids=repr)
def test_an_empty_batch_and_a_batch_that_is_none(transform) -> None:
    assert len(transform(np.zeros((0, 9, 9), np.float32), data.Draws(0, 0, []))) == 0
    with pytest.raises(ValueError, match=r"\(N, H, W\).*\(9, 9\)"):
        transform(np.zeros((9, 9)), data.Draws(0, 0, range(9)))
    with pytest.raises(TypeError, match="NumPy array of numbers"):
        transform([[1]], data.Draws(0, 0, [0]))


# -- geometry ----------------------------------------------------------------------------------------------------------


def test_a_quarter_turn_against_the_clock() -> None:
    images = some_images((2, 5, 5))
    turned = transforms.resample(images, transforms.inverse_turns(np.full(2, np.pi / 2), np.ones(2)), np.zeros((2, 2)))
    np.testing.assert_array_equal(turned, np.rot90(images, axes=(1, 2)))


def test_a_shift_moves_down_and_right_and_fills() -> None:
    images = some_images((1, 2, 4, 6), np.float32)
    moved = transforms.resample(images, np.eye(2)[None], np.array([[1, -2]]), fill=0.5)
    expected = np.full_like(images, 0.5)
    expected[:, :, 1:, :-2] = images[:, :, :-1, 2:]
    np.testing.assert_allclose(moved, expected, atol=1e-6)


def test_a_picture_made_larger_shows_its_middle() -> None:
    ramp = np.tile(np.arange(9, dtype=np.float32), (1, 9, 1))
    larger = transforms.resample(ramp, transforms.inverse_turns(np.zeros(1), np.full(1, 2.0)), np.zeros((1, 2)))
    np.testing.assert_allclose(larger[0, 4], 4 + (np.arange(9) - 4) / 2, atol=1e-5)


@pytest.mark.parity
@given(
    st.floats(-3, 3),
    st.floats(0.5, 2),
    st.tuples(st.floats(-3, 3), st.floats(-3, 3)),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.integers(0, 99),
)
def test_resampling_equals_scipy(
    angle: float, factor: float, shift: tuple[float, float], size: tuple[int, int], seed: int
) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    images = some_images((1, *size), np.float32, seed)
    maps = transforms.inverse_turns(np.array([angle]), np.array([factor]))
    found = transforms.resample(images, maps, np.array([shift]), fill=0.25)
    # scipy blends into `cval` outside of the image only in this mode, and only if a border of it is there already.
    bordered = np.pad(images[0].astype(np.float64), 3, constant_values=0.25)
    middle = (np.array(size) - 1) / 2
    offset = middle - maps[0] @ (middle + shift) + 3
    expected = ndimage.affine_transform(
        bordered, maps[0], offset, output_shape=size, order=1, mode="constant", cval=0.25
    )
    np.testing.assert_allclose(found[0], expected, atol=2e-5)


def test_the_parameters_bound_what_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(transforms, "resample", lambda images, maps, shift, fill: calls.append((maps, shift)) or images)
    data.RandomAffine(10, (0.9, 1.2), 0.1)(np.zeros((400, 20, 30)), data.Draws(0, 0, range(400)))
    ((maps, shift),) = calls
    angle = np.rad2deg(np.arctan2(maps[:, 0, 1], maps[:, 0, 0]))
    factor = 1 / np.hypot(maps[:, 0, 0], maps[:, 0, 1])
    for values, low, high in ((angle, -10, 10), (factor, 0.9, 1.2), (shift[:, 0], -2, 2), (shift[:, 1], -3, 3)):
        assert low <= values.min() < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < values.max() <= high


def test_crops_are_windows_of_the_padded_image() -> None:
    images = some_images((50, 2, 6, 5))
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=7)
    places = set()
    crops = data.RandomCrop((4, 5), 1, fill=7)(images, data.Draws(0, 0, range(50)))
    for image, crop in zip(padded, crops, strict=True):
        hits = [(y, x) for y in range(5) for x in range(3) if (image[:, y : y + 4, x : x + 5] == crop).all()]
        assert len(hits) == 1
        places.update(hits)
    assert len(places) > 10


def test_flips_are_mirrored_or_not() -> None:
    images = some_images((100, 3, 4))
    flipped = data.RandomHorizontalFlip(0.3)(images, data.Draws(0, 0, range(100)))
    mirrored = [(out == image[:, ::-1]).all() for image, out in zip(images, flipped, strict=True)]
    same = [(out == image).all() for image, out in zip(images, flipped, strict=True)]
    assert all(a != b for a, b in zip(mirrored, same, strict=True))
    assert 15 < sum(mirrored) < 45
    np.testing.assert_array_equal(data.RandomHorizontalFlip(0)(images, data.Draws(0, 0, range(100))), images)


# -- values ------------------------------------------------------------------------------------------------------------


def test_bytes_become_floats_between_0_and_1() -> None:
    images = np.array([[[0, 51, 255]]], np.uint8)
    found = data.ToFloat()(images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[[0, 0.2, 1]]])
    assert data.ToFloat()(np.array([[[7.0]]])).tolist() == [[[7.0]]]
    with pytest.raises(TypeError, match="int64"):
        data.ToFloat()(np.zeros((1, 2, 2), np.int64))


def test_normalize_by_number_and_by_channel() -> None:
    images = some_images((4, 3, 5, 5), np.float32)
    mean, std = images.mean((0, 2, 3)), images.std((0, 2, 3))
    found = data.Normalize(mean.tolist(), std.tolist())(images)
    np.testing.assert_allclose(found.mean((0, 2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(found.std((0, 2, 3)), 1, atol=1e-6)
    assert data.Normalize(0.5, 0.25)(np.ones((1, 2, 2), np.float32)).tolist() == [[[2, 2], [2, 2]]]


@pytest.mark.parametrize("shape", [(700, 3, 4), (700, 2, 3, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_mean_and_std_in_blocks(shape: tuple[int, ...], dtype: type) -> None:
    images = some_images(shape, dtype)
    axes = None if len(shape) == 3 else (0, 2, 3)
    expected = images.mean(axes, dtype=np.float64), images.std(axes, dtype=np.float64)
    np.testing.assert_allclose(data.mean_and_std(images), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "error", "expected"),
    [
        (lambda: data.Normalize(0.1, 0.0), ValueError, "positive"),
        (lambda: data.Normalize([0.1, 0.2], 0.3), ValueError, "one number per channel"),
        (lambda: data.Normalize(0.1, 0.2)(np.zeros((1, 2, 2), np.uint8)), TypeError, r"ToFloat\(\) before"),
        (lambda: data.Normalize([0.1] * 3, [1] * 3)(np.zeros((1, 2, 2))), ValueError, "3 channels"),
        (lambda: data.RandomScale(1.2, 0.8), ValueError, "low <= high"),
        (lambda: data.RandomRotation(-1), ValueError, "degrees=-1"),
        (lambda: data.RandomHorizontalFlip(2), ValueError, "between 0 and 1"),
        (lambda: data.RandomCrop(0), ValueError, "positive size"),
        (lambda: data.RandomCrop(9)(np.zeros((1, 8, 9)), data.Draws(0, 0, [0])), ValueError, r"cannot crop \(9, 9\)"),
        (lambda: data.Compose([data.RandomCrop(3)])(np.zeros((1, 8, 9))), TypeError, "images, draws"),
    ],
)
def test_bad_parameters_and_bad_images(make, error: type[Exception], expected: str) -> None:
    with pytest.raises(error, match=expected):
        make()


def test_a_plain_function_is_a_transform() -> None:
    chain = data.Compose([lambda images: images + 1, data.RandomHorizontalFlip(1.0)])
    assert chain(np.array([[[0, 1]]]), data.Draws(0, 0, [0])).tolist() == [[[2, 1]]]
    assert data.Compose([lambda images: images * 2])(np.ones(3)).tolist() == [2, 2, 2]
