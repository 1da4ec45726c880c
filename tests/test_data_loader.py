"""Datasets, splitting, and the loader: its order, its position, its thread."""

import contextvars
import gc
import subprocess
import sys
import threading
import traceback
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from retrograd import data
from retrograd.autograd_core.tensor import Tensor
from retrograd.backends import default_backend


def numbered(n: int) -> data.ArrayDataset:
    return data.ArrayDataset(np.arange(2.0 * n).reshape(n, 2), np.arange(n))


def labels(loader: data.DataLoader) -> list[list[int]]:
    return [batch[-1].tolist() for batch in loader]


def order(loader: data.DataLoader) -> list[int]:
    return list(chain.from_iterable(labels(loader)))


def prefetch_threads() -> int:
    return sum(thread.name == "retrograd-prefetch" for thread in threading.enumerate())


class Squares:
    """A dataset that gives samples one by one."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return np.full(3, index * index), index


# -- datasets ----------------------------------------------------------------------------------------------------------


def test_a_dataset_keeps_the_memory_of_its_arrays() -> None:
    images = np.zeros((4, 2))
    assert data.ArrayDataset(images).arrays[0] is images


@pytest.mark.parametrize(
    ("arrays", "error", "expected"),
    [
        ((), TypeError, "at least one array"),
        ((np.zeros(3), np.zeros(4)), ValueError, "one length, got 3, 4"),
        ((np.zeros(3), np.float64(1)), TypeError, "array 1"),
        ((np.array([None, "a"]),), TypeError, "object"),
    ],
)
def test_arrays_that_make_no_dataset(arrays: tuple, error: type[Exception], expected: str) -> None:
    with pytest.raises(error, match=expected):
        data.ArrayDataset(*arrays)


def test_a_subset_of_a_subset() -> None:
    inner = data.Subset(data.Subset(numbered(10), [9, 7, 5, 3]), np.array([3, 0]))
    assert [inner[i][1] for i in range(len(inner))] == [3, 9]
    assert inner.gather(np.array([1, 1, 0]))[1].tolist() == [9, 9, 3]
    assert data.Subset(Squares(), [4, 2]).gather(np.array([0]))[1].tolist() == [4]
    assert len(data.Subset(numbered(3), [])) == 0


@pytest.mark.parametrize(
    ("indices", "error"), [([0, 4], IndexError), ([-1], IndexError), ([0.5], TypeError), ([[0, 1]], TypeError)]
)
def test_indices_that_make_no_subset(indices: list, error: type[Exception]) -> None:
    with pytest.raises(error):
        data.Subset(numbered(4), indices)


@given(st.integers(0, 60), st.integers(0, 3), st.lists(st.floats(0.01, 1.0), min_size=1, max_size=4))
def test_a_split_deals_out_every_sample_once(n: int, seed: int, weights: list[float]) -> None:
    fractions = [weight / sum(weights) for weight in weights]
    parts = data.random_split(numbered(n), fractions, seed)
    assert sorted(i for part in parts for i in part.indices.tolist()) == list(range(n))
    assert all(abs(len(part) - fraction * n) <= 1 for part, fraction in zip(parts, fractions, strict=True))
    again = data.random_split(numbered(n), [len(part) for part in parts], seed)
    assert [part.indices.tolist() for part in again] == [part.indices.tolist() for part in parts]


def test_seeds_give_different_splits() -> None:
    one, two = (data.random_split(numbered(50), [25, 25], seed)[0].indices.tolist() for seed in (0, 1))
    assert one != two


@pytest.mark.parametrize("parts", [[5, 4], [0.5, 0.6], [-1, 11], [], [[5, 5]], ["a"], [True, False]])
def test_parts_that_do_not_add_up(parts: list) -> None:
    with pytest.raises(ValueError, match="add up to"):
        data.random_split(numbered(10), parts)


# -- batches -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefetch", [0, 2])
def test_batches_are_tensors_of_the_default_float_and_the_labels_dtype(prefetch: int) -> None:
    batches = list(data.DataLoader(numbered(5), batch_size=2, prefetch=prefetch))
    assert [len(batch) for batch in batches] == [2, 2, 2]
    x, y = batches[1]
    assert type(x) is Tensor
    assert (x.dtype, y.dtype) == (np.float32, np.int64)
    assert x.backend is y.backend is default_backend()
    assert x.tolist() == [[4, 5], [6, 7]]
    assert not x.requires_grad


def test_bytes_stay_bytes_and_text_stays_numpy() -> None:
    dataset = data.ArrayDataset(np.zeros((3, 2), np.uint8), np.array(["a", "b", "c"]))
    x, words = next(iter(data.DataLoader(dataset, 2)))
    assert x.dtype == np.uint8
    assert isinstance(words, np.ndarray)
    assert words.tolist() == ["a", "b"]


@given(st.integers(0, 23), st.integers(1, 9), st.booleans(), st.booleans())
def test_length_and_content_of_an_epoch(n: int, batch_size: int, drop_last: bool, shuffle: bool) -> None:
    loader = data.DataLoader(numbered(n), batch_size, shuffle, drop_last=drop_last, prefetch=0)
    batches = labels(loader)
    assert len(batches) == len(loader)
    assert all(len(batch) == batch_size for batch in batches[: n // batch_size])
    seen = sorted(chain.from_iterable(batches))
    assert len(seen) == len(set(seen)) == (n - n % batch_size if drop_last else n)


def test_a_dataset_without_arrays_is_stacked_or_collated() -> None:
    x, y = next(iter(data.DataLoader(Squares(), 3)))
    assert x.tolist() == [[0, 0, 0], [1, 1, 1], [4, 4, 4]]
    assert y.tolist() == [0, 1, 2]
    (total,) = next(iter(data.DataLoader(Squares(), 3, collate=lambda samples: sum(x for x, _ in samples))))
    assert total.tolist() == [5, 5, 5]


def test_samples_of_different_shapes_name_the_field() -> None:
    class Ragged(Squares):
        def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
            return np.zeros(index), index

    with pytest.raises(ValueError, match=r"field 0.*\(0,\), \(1,\).*collate"):
        next(iter(data.DataLoader(Ragged(), 2)))


def test_samples_that_are_no_arrays_say_what_a_sample_is() -> None:
    class Named(Squares):
        def __getitem__(self, index: int) -> dict[str, int]:
            return {"x": index}

    with pytest.raises(TypeError, match=r"field 0 of a sample is a dict.*collate"):
        next(iter(data.DataLoader(Named(), 2)))
    loader = data.DataLoader(Named(), 2, collate=lambda samples: np.array([s["x"] for s in samples]))
    assert next(iter(loader))[0].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("options", "error", "expected"),
    [
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
        ({"batch_size": 2.0}, TypeError, "batch_size must be a whole number, got 2.0"),
        ({"prefetch": -1}, ValueError, "prefetch"),
        ({"seed": None}, TypeError, "seed"),
        ({"transform": 3}, TypeError, "transform must be callable"),
        ({"dataset": 3}, TypeError, "got int"),
    ],
)
def test_bad_arguments(options: dict, error: type[Exception], expected: str) -> None:
    with pytest.raises(error, match=expected):
        data.DataLoader(**{"dataset": numbered(3), **options})


# -- order and position ------------------------------------------------------------------------------------------------


def test_the_order_depends_on_seed_and_epoch_only() -> None:
    loader = data.DataLoader(numbered(40), 7, shuffle=True, seed=5)
    first, second = order(loader), order(loader)
    assert first != second
    other = data.DataLoader(numbered(40), 10, shuffle=True, seed=5, prefetch=0)
    assert order(other) == first
    other.set_epoch(1)
    assert order(other) == second
    assert order(data.DataLoader(numbered(40), 7, shuffle=True, seed=6)) != first


def test_the_order_of_this_seed_never_changes() -> None:
    loader = data.DataLoader(numbered(10), 10, shuffle=True, seed=0)
    # Written down when the loader was made: another order is another result for everybody's seeds.
    assert labels(loader) == [[6, 1, 0, 8, 9, 3, 4, 5, 2, 7]]


def test_an_epoch_broken_off_is_followed_by_the_next() -> None:
    loader = data.DataLoader(numbered(20), 4, shuffle=True)
    for _ in loader:
        break
    assert loader.epoch == 0
    whole = labels(loader)
    assert loader.epoch == 2
    loader.set_epoch(1)
    assert labels(loader) == whole


@pytest.mark.parametrize("prefetch", [0, 3])
@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_loader_resumes_with_the_very_batches_that_would_have_come(prefetch: int, stop: int) -> None:
    def make() -> data.DataLoader:
        shift = data.RandomAffine(shift=0.2)
        dataset = data.ArrayDataset(np.random.default_rng(0).random((18, 5, 5)), np.arange(18))
        return data.DataLoader(dataset, 4, shuffle=True, seed=3, transform=shift, prefetch=prefetch)

    whole = make()
    expected = [(x.tolist(), y.tolist()) for _ in range(3) for x, y in whole]
    broken = make()
    list(broken)
    seen = 5
    for _ in broken:
        seen += 1
        if seen == 5 + stop:
            break
    resumed = make()
    resumed.load_state_dict(broken.state_dict())
    rest = [(x.tolist(), y.tolist()) for _ in range(2) for x, y in resumed]
    assert rest == expected[seen:]
    assert resumed.state_dict() == whole.state_dict()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"seed": 1}, "seed 1, this one has 0"),
        ({"samples": 9}, "samples 9"),
        ({"batch_size": 9}, "batch_size 9"),
        ({"position": 6}, "beyond the 5 batches"),
        ({"epoch": -1}, "epoch must be at least 0"),
        ({"extra": 1}, "entries"),
    ],
)
def test_the_state_of_another_loader_is_refused_and_changes_nothing(change: dict, expected: str) -> None:
    loader = data.DataLoader(numbered(10), 2)
    next(iter(loader))
    before = loader.state_dict()
    with pytest.raises(ValueError, match=expected):
        loader.load_state_dict({**before, **change})
    assert loader.state_dict() == before


# -- the thread --------------------------------------------------------------------------------------------------------


def test_prefetching_changes_no_batch() -> None:
    assert labels(data.DataLoader(numbered(50), 3, True, prefetch=4)) == labels(
        data.DataLoader(numbered(50), 3, True, prefetch=0)
    )


def test_no_thread_is_left_behind() -> None:
    loader = data.DataLoader(numbered(50), 2, prefetch=3)
    for _ in loader:
        assert prefetch_threads() == 1
        break
    gc.collect()
    assert prefetch_threads() == 0
    iterator = iter(loader)
    assert prefetch_threads() == 0, "a thread before the first batch is asked for"
    next(iterator)
    del iterator
    assert prefetch_threads() == 0
    list(loader)
    assert prefetch_threads() == 0


def test_an_error_in_the_thread_comes_out_with_its_traceback() -> None:
    def fails_here(images: np.ndarray) -> np.ndarray:
        if images[0, 0] >= 4:
            raise ZeroDivisionError("on purpose")
        return images

    batches = iter(data.DataLoader(numbered(10), 2, transform=fails_here, prefetch=2))
    assert next(batches)[1].tolist() == [0, 1]
    with pytest.raises(ZeroDivisionError, match="on purpose") as caught:
        next(batches)
    assert "fails_here" in "".join(traceback.format_exception(caught.value))
    assert prefetch_threads() == 0


def test_the_thread_sees_the_context_of_whoever_iterates() -> None:
    place = contextvars.ContextVar("place", default="nowhere")
    seen = []

    def look(images: np.ndarray) -> np.ndarray:
        seen.append((place.get(), threading.current_thread() is threading.main_thread()))
        return images

    token = place.set("here")
    try:
        iterator = iter(data.DataLoader(numbered(2), 2, transform=look))
    finally:
        place.reset(token)
    list(iterator)
    assert seen == [("here", False)]


def test_an_interpreter_ends_with_a_loop_half_done() -> None:
    program = (
        "import numpy as np; from retrograd import data\n"
        "batches = iter(data.DataLoader(data.ArrayDataset(np.zeros(100)), prefetch=1)); next(batches)"
    )
    done = subprocess.run([sys.executable, "-c", program], timeout=60, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
