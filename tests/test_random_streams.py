"""Random numbers are functions of (key, counter): NumPy's Philox words, and numbers made from them by rule."""

import copy
import pickle
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import Generator, Philox
from retrograd.backends import get_backend, random
from retrograd.backends.random import Stream

KEYS = st.one_of(st.integers(0, 3), st.integers(0, random.KEYS - 1))
COUNTERS = st.one_of(
    st.integers(0, 3),
    st.integers(0, random.COUNTERS - 1),
    # Just before a word of the counter runs over.
    st.builds(lambda word, back: (1 << 64 * word) - back, st.integers(1, 4), st.integers(1, 3)),
)

MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
WORD = (1 << 64) - 1


def philox_block(key: int, counter: int) -> list[int]:
    """Philox4x64-10 as its paper writes it, in integers of any size."""
    c = [counter >> 64 * i & WORD for i in range(4)]
    k = [key & WORD, key >> 64]
    for _ in range(10):
        a, b = MULTIPLIERS[0] * c[0], MULTIPLIERS[1] * c[2]
        c = [b >> 64 ^ c[1] ^ k[0], b & WORD, a >> 64 ^ c[3] ^ k[1], a & WORD]
        k = [(k[i] + WEYL[i]) & WORD for i in range(2)]
    return c


@given(KEYS, COUNTERS)
def test_a_draw_begins_with_the_block_after_its_counter(key, counter):
    expected = [w for i in range(3) for w in philox_block(key, (counter + 1 + i) % random.COUNTERS)]
    assert random.bits(key, counter, 12).tolist() == expected


@given(KEYS, COUNTERS, st.integers(0, 40))
def test_bits_are_those_of_numpy(key, counter, n):
    words = random.bits(key, counter, n)
    assert words.dtype == np.uint64
    assert words.tolist() == Philox(key=key, counter=counter).random_raw(n).tolist()


@given(KEYS, COUNTERS, st.integers(0, 40), st.sampled_from(["float32", "float64"]))
def test_uniforms_are_those_of_numpys_generator(key, counter, n, dtype):
    expected = Generator(Philox(key=key, counter=counter)).random(n, dtype=dtype)
    assert random.uniform(key, counter, (n,), dtype).tolist() == expected.tolist()
    words = random.bits(key, counter, random.words_for_uniform(n, dtype))
    assert random.words_to_uniform(np, words, (n,), dtype).tolist() == expected.tolist()


@given(KEYS, COUNTERS, st.integers(1, 40))
def test_float16_uniforms_are_the_upper_bits_of_the_halves(key, counter, n):
    halves = [half for w in random.bits(key, counter, n).tolist() for half in (w & 0xFFFFFFFF, w >> 32)][:n]
    drawn = random.uniform(key, counter, (n,), "float16")
    assert drawn.dtype == np.float16
    assert drawn.tolist() == [(half >> 21) / 2048 for half in halves]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_largest_word_stays_below_one(dtype):
    words = np.full(4, WORD, np.uint64)
    assert (random.words_to_uniform(np, words, (4,), dtype) < 1).all()
    assert np.isfinite(random.words_to_normal(np, words, (4,), dtype)).all()


@given(KEYS, COUNTERS, st.integers(0, 30))
def test_normals_are_box_and_mullers(key, counter, n):
    words = random.bits(key, counter, n + n % 2)
    u, v = ((words[i::2] >> np.uint64(11)).astype(float) / 2.0**53 for i in range(2))
    radius = np.sqrt(-2 * np.log(1 - u))
    expected = np.stack([radius * np.cos(2 * np.pi * v), radius * np.sin(2 * np.pi * v)], axis=1).reshape(-1)[:n]
    np.testing.assert_array_almost_equal_nulp(random.normal(key, counter, (n,), "float64"), expected, 4)
    for dtype in ("float32", "float16"):
        rounded = random.normal(key, counter, (n,), "float64").astype(dtype)
        assert random.normal(key, counter, (n,), dtype).tolist() == rounded.tolist()


def test_moments_and_tails_of_uniforms_and_normals():
    n = 200_000
    for dtype in ("float32", "float64"):
        drawn = random.uniform(1, 0, (n,), dtype).astype(float)
        assert abs(drawn.mean() - 0.5) < 5 / np.sqrt(12 * n)
        assert abs(drawn.var() - 1 / 12) < 5 * np.sqrt(1 / 180 / n)
        drawn = random.normal(1, 0, (n,), dtype).astype(float)
        assert abs(drawn.mean()) < 5 / np.sqrt(n)
        assert abs(drawn.var() - 1) < 5 * np.sqrt(2 / n)
        assert abs((np.abs(drawn) > 1.959964).mean() - 0.05) < 5 * np.sqrt(0.05 * 0.95 / n)
        # The two coordinates of a point are independent.
        assert abs((drawn[::2] * drawn[1::2]).mean()) < 5 / np.sqrt(n / 2)


@given(KEYS, COUNTERS, st.integers(-(2**63), 2**63 - 1), st.integers(1, 2**64), st.integers(0, 20))
def test_integers_are_the_upper_half_of_the_product(key, counter, low, span, n):
    high = min(low + span, 2**63)
    drawn = random.integers(key, counter, low, high, (n,))
    assert drawn.dtype == np.int64
    assert drawn.tolist() == [low + (w * (high - low) >> 64) for w in random.bits(key, counter, n).tolist()]


def test_integers_fill_their_range_evenly():
    counts = np.bincount(random.integers(3, 0, 0, 10, (100_000,)), minlength=10)
    assert ((counts - 10_000) ** 2 / 10_000).sum() < 40  # chi-squared with 9 degrees of freedom: p < 1e-5


@pytest.mark.parametrize(("low", "high"), [(3, 3), (4, 3), (0, 2**63 + 1), (-(2**63) - 1, 0)])
def test_an_empty_or_too_wide_range_is_refused(low, high):
    with pytest.raises(ValueError, match=f"low={low}, high={high}"):
        random.integers(0, 0, low, high, (2,))


@given(KEYS, COUNTERS, st.integers(0, 50))
def test_a_permutation_sorts_the_words(key, counter, n):
    order = random.permutation(key, counter, n)
    assert sorted(order.tolist()) == list(range(n))
    words = random.bits(key, counter, n)[order]
    assert (words[:-1] <= words[1:]).all()


@given(KEYS, COUNTERS, st.lists(st.integers(0, 30), max_size=5))
def test_draws_at_reserved_places_do_not_overlap(key, counter, sizes):
    """Consecutive reservations read consecutive words, each beginning at a whole block."""
    stream = Stream(key, counter)
    drawn = [random.bits(key, stream.reserve(random.blocks(n)), n).tolist() for n in sizes]
    padded = [-(-n // 4) * 4 for n in sizes]
    words = random.bits(key, counter, sum(padded)).tolist()
    starts = [sum(padded[:i]) for i in range(len(sizes))]
    assert drawn == [words[start : start + n] for start, n in zip(starts, sizes, strict=True)]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 5, 8, 9, 101])
def test_blocks_hold_every_kind_of_draw(n, dtype):
    words = 4 * random.blocks(n, dtype)
    assert random.words_for_uniform(n, dtype) <= words
    assert random.words_for_normal(n) <= words
    assert words < n + 4


def test_a_seed_gives_the_key_of_numpys_philox():
    for seed in (0, 1, 42, 2**70):
        low, high = Philox(seed).state["state"]["key"].tolist()
        assert random.seed_to_key(seed) == low + (high << 64)
    assert Stream.from_seed(7).state() == {"key": random.seed_to_key(7), "counter": 0}
    assert random.seed_to_key() != random.seed_to_key()


@pytest.mark.parametrize(("seed", "error"), [(-1, ValueError), (1.5, TypeError), ("seed", TypeError)])
def test_a_seed_that_is_no_integer_from_zero_is_refused(seed, error):
    with pytest.raises(error, match="a seed must"):
        random.seed_to_key(seed)


def test_a_stream_goes_back_to_where_its_state_was_taken():
    stream = Stream.from_seed(3)
    stream.reserve(5)
    state = stream.state()
    first = random.uniform(stream.key, stream.reserve(2), (8,))
    stream.set_state(state)
    assert random.uniform(stream.key, stream.reserve(2), (8,)).tolist() == first.tolist()
    for twin in (copy.deepcopy(stream), pickle.loads(pickle.dumps(stream))):
        assert twin.state() == stream.state()
        twin.reserve(1)
        assert twin.state() != stream.state()


BAD_STATES = [{}, {"key": 1}, {"key": -1, "counter": 0}, {"key": 1, "counter": 0.5}, {"key": 2**128, "counter": 0}]


@pytest.mark.parametrize("state", BAD_STATES)
def test_a_bad_state_changes_nothing(state):
    stream = Stream(5, 6)
    with pytest.raises(ValueError, match="random stream"):
        stream.set_state(state)
    assert stream.state() == {"key": 5, "counter": 6}


def test_reservations_from_many_threads_are_disjoint():
    stream = Stream(0)
    places: list[int] = []

    def work():
        places.extend(stream.reserve(3) for _ in range(500))

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(places) == list(range(0, 3 * 2000, 3))
    with pytest.raises(ValueError, match="-1"):
        stream.reserve(-1)


def test_drawing_in_one_thread_does_not_disturb_another():
    expected = random.uniform(1, 2, (1000,)).tolist()
    found: list[bool] = []

    def work():
        found.append(all(random.uniform(1, 2, (1000,)).tolist() == expected for _ in range(20)))

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert found == [True] * 4


@pytest.mark.parametrize("draw", [random.uniform, random.normal])
def test_only_floating_dtypes_are_drawn(draw):
    with pytest.raises(TypeError, match="float16, float32, float64; got dtype int64"):
        draw(0, 0, (3,), "int64")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(), (0,), (3, 5), (1001,)])
def test_every_backend_draws_the_same(dtype, shape):
    numpy, strict = get_backend("numpy"), get_backend("strict")
    for draw in ("uniform", "normal"):
        a, b = (getattr(backend, draw)(9, 2**64 - 1, shape, dtype) for backend in (numpy, strict))
        assert strict.to_numpy(b).tolist() == a.tolist()
        assert (a.shape, a.dtype) == (shape, np.dtype(dtype))
