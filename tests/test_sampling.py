"""Choosing the next token: each step of it by itself, the distribution of the draws, and transformers' steps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from retrograd.models import sampling
from retrograd.models.text_stream import TextStream

INF = np.inf


def kept(logits: np.ndarray) -> list[list[int]]:
    return [np.flatnonzero(row > -INF).tolist() for row in logits]


def scores(n: int = 3, vocabulary: int = 50, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, vocabulary), scale=2.0).astype(np.float32)


def test_repetition_makes_less_likely_on_either_side_of_zero() -> None:
    logits = np.array([[4.0, -4.0, 0.0, 1.0], [4.0, -4.0, 0.0, 1.0]], np.float32)
    out = sampling.penalize_repetition(logits, [[0, 1, 1, 2], []], 2.0)
    assert out.tolist() == [[2.0, -8.0, 0.0, 1.0], [4.0, -4.0, 0.0, 1.0]]
    assert logits[0, 0] == 4.0  # the argument is as it was
    assert out.dtype == np.float32


@pytest.mark.parametrize(
    ("k", "expected"),
    [(1, [[1], [0, 1, 2, 3]]), (2, [[1, 2, 3], [0, 1, 2, 3]]), (4, [[0, 1, 2, 3]] * 2), (9, [[0, 1, 2, 3]] * 2)],
)
def test_top_k_keeps_equal_ones_together(k: int, expected: list) -> None:
    assert kept(sampling.keep_top_k(np.array([[1.0, 3.0, 2.0, 2.0], [1.0, 1.0, 1.0, 1.0]]), k)) == expected


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        (1e-9, [3]),
        (0.4, [3]),
        (0.41, [2, 3]),
        (0.7, [2, 3]),
        (0.71, [1, 2, 3]),
        (0.95, [0, 1, 2, 3]),
        (1.0, [0, 1, 2, 3]),
    ],
)
def test_top_p_keeps_the_fewest_that_reach_it(p: float, expected: list) -> None:
    logits = np.log(np.array([[0.1, 0.2, 0.3, 0.4]]))
    # A hair less than p, so that rounding of the sums decides nothing.
    assert kept(sampling.keep_top_p(logits, p if p == 1 else p - 1e-12)) == [expected]


def test_top_p_after_top_k() -> None:
    logits = np.log(np.array([[0.1, 0.2, 0.3, 0.4]]))
    both = sampling.keep_top_p(sampling.keep_top_k(logits, 2), 0.5)
    assert kept(both) == [[3]]  # of 3/7 and 4/7 the second is enough
    assert kept(sampling.keep_top_p(np.array([[-INF, 0.0, -INF]]), 0.1)) == [[1]]
    assert kept(sampling.keep_top_p(np.array([[0.0, -1000.0]]), 1.0)) == [[0, 1]]


@given(arrays(np.float32, (2, 7), elements=st.floats(-80, 80, width=32)), st.floats(0.01, 1.0), st.integers(1, 8))
def test_the_likeliest_is_never_out_and_scores_stay(logits: np.ndarray, p: float, k: int) -> None:
    for out in (sampling.keep_top_k(logits, k), sampling.keep_top_p(logits, p)):
        assert (out.max(axis=1) == logits.max(axis=1)).all()
        assert out.dtype == np.float32
        stays = out > -INF
        assert (out[stays] == logits[stays]).all()
        # Whatever is out is no better than anything that stays.
        for row, mask in zip(logits, stays, strict=True):
            assert mask.all() or row[~mask].max() <= row[mask].min()


def test_greedy_takes_the_first_of_equal_ones() -> None:
    assert sampling.greedy(np.array([[1.0, 2.0, 2.0], [3.0, 2.0, 1.0]])).tolist() == [1, 0]


def test_a_draw_at_the_borders() -> None:
    with np.errstate(divide="ignore"):
        logits = np.log(np.array([[0.0, 0.25, 0.0, 0.5, 0.25, 0.0]]))
    for place, expected in ((0.0, 1), (0.2499, 1), (0.25, 3), (0.7499, 3), (0.75, 4), (np.nextafter(1, 0), 4)):
        assert sampling.draw(logits, np.array([place])).tolist() == [expected]


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, None, None), (0.5, None, None), (2.0, 5, None), (1.0, None, 0.8), (1.3, 9, 0.7)],
)
def test_the_distribution_of_the_draws(temperature: float, top_k: int | None, top_p: float | None) -> None:
    logits = sampling.apply_temperature(scores(1, 20), temperature)
    logits = logits if top_k is None else sampling.keep_top_k(logits, top_k)
    logits = logits if top_p is None else sampling.keep_top_p(logits, top_p)
    expected = sampling.probabilities(logits)[0]
    exact = np.where(logits[0] > -INF, np.exp(logits[0].astype(float)), 0)
    np.testing.assert_allclose(expected, exact / exact.sum(), rtol=1e-6)
    n = 20_000
    drawn = sampling.draw(np.repeat(logits, n, axis=0), np.random.default_rng(7).random(n))
    counts = np.bincount(drawn, minlength=20)
    assert (counts[expected == 0] == 0).all()
    sure = expected * n >= 5
    chi_square = ((counts[sure] - n * expected[sure]) ** 2 / (n * expected[sure])).sum()
    degrees = max(sure.sum() - 1, 1)
    assert chi_square < degrees + 4 * np.sqrt(2 * degrees)  # four standard deviations above the mean


# -- text that comes token by token -----------------------------------------------------------------------------------


def letters(ids: list[int]) -> str:
    return "".join(map(chr, ids))


def test_what_may_be_the_beginning_of_a_stop_string_is_held_back() -> None:
    stream = TextStream(letters, ["\n\n", "STOP"])
    pieces = [stream.push(ord(c)) for c in "a\nb STO STOP tail"]
    assert pieces[:4] == ["a", "", "\nb", " "]
    assert stream.text == "".join(pieces) == "a\nb STO "
    assert stream.stopped
    assert stream.finish() == ""


def test_what_was_held_back_comes_at_the_end() -> None:
    stream = TextStream(letters, ["END"])
    assert [stream.push(ord(c)) for c in "xEN"] == ["x", "", ""]
    assert stream.finish() == "EN"
    assert (stream.text, stream.stopped) == ("xEN", False)


def test_the_first_of_two_stop_strings_ends_the_text() -> None:
    stream = TextStream(lambda ids: "one two three"[: 4 * len(ids)], ["three", "two"])
    assert [stream.push(0) for _ in range(4)] == ["one ", "", "", ""]
    assert (stream.text, stream.stopped) == ("one ", True)


def test_bytes_that_are_no_character_yet_are_held_back() -> None:
    content = "é€😀!".encode()
    stream = TextStream(lambda ids: bytes(ids).decode(errors="replace"))
    pieces = [stream.push(byte) for byte in content]
    assert [piece for piece in pieces if piece] == ["é", "€", "😀", "!"]
    assert stream.text == "é€😀!"
    broken = TextStream(lambda ids: bytes(ids).decode(errors="replace"))
    assert (broken.push(content[0]), broken.finish()) == ("", "\ufffd")


# -- against transformers ---------------------------------------------------------------------------------------------


@pytest.mark.parity
@pytest.mark.parametrize("seed", range(3))
def test_the_steps_are_those_of_transformers(seed: int) -> None:
    torch, process = pytest.importorskip("torch"), pytest.importorskip("transformers.generation.logits_process")
    logits = scores(4, 200, seed)
    seen = np.random.default_rng(seed).integers(0, 200, (4, 12))
    ours, theirs = logits, torch.tensor(logits)
    for mine, yours in (
        (lambda x: sampling.penalize_repetition(x, seen, 1.3), process.RepetitionPenaltyLogitsProcessor(1.3)),
        (lambda x: sampling.apply_temperature(x, 0.7), process.TemperatureLogitsWarper(0.7)),
        (lambda x: sampling.keep_top_k(x, 60), process.TopKLogitsWarper(60)),
        (lambda x: sampling.keep_top_p(x, 0.9), process.TopPLogitsWarper(0.9)),
    ):
        ours, theirs = mine(ours), yours(torch.tensor(seen), theirs)
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-6)
    assert 1 < np.count_nonzero(ours[0] > -INF) < 60
