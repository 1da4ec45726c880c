"""Metrics: small cases by hand, scikit-learn on random labels, and errors."""

import numpy as np
import pytest
import retrograd as rg
from hypothesis import given
from hypothesis import strategies as st
from retrograd.train import metrics

pairs = st.integers(1, 6).flatmap(
    lambda classes: st.lists(
        st.tuples(st.integers(0, classes - 1), st.integers(0, classes - 1)), min_size=1, max_size=40
    )
)


def test_a_case_by_hand() -> None:
    prediction, target = [0, 0, 1, 2, 2, 2], [0, 1, 1, 2, 2, 0]
    assert metrics.accuracy(prediction, target) == pytest.approx(4 / 6)
    assert metrics.confusion_matrix(prediction, target).tolist() == [[1, 0, 1], [1, 1, 0], [0, 0, 2]]
    scores = metrics.precision_recall_f1(prediction, target)
    np.testing.assert_allclose(scores.precision, [1 / 2, 1, 2 / 3])
    np.testing.assert_allclose(scores.recall, [1 / 2, 1 / 2, 1])
    np.testing.assert_allclose(scores.f1, [1 / 2, 2 / 3, 4 / 5])
    assert scores.support.tolist() == [2, 2, 2]


def test_tensors_scores_and_names() -> None:
    scores = rg.tensor([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]], requires_grad=True)
    assert metrics.accuracy(scores, rg.tensor([1, 0, 0])) == pytest.approx(2 / 3)
    assert metrics.confusion_matrix(["b", "a"], ["a", "a"]).tolist() == [[1, 1], [0, 0]]
    assert metrics.confusion_matrix([True, False], [1, 1]).tolist() == [[0, 0], [1, 1]]


def test_labels_fix_the_order_and_the_size() -> None:
    found = metrics.confusion_matrix([5, 3], [5, 5], labels=[5, 4, 3])
    assert found.tolist() == [[1, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert found.dtype == np.int64
    scores = metrics.precision_recall_f1([5, 3], [5, 5], labels=[5, 4, 3])
    assert scores.recall.tolist() == [0.5, 0.0, 0.0]


@given(pairs)
def test_what_holds_for_every_confusion_matrix(pairs: list[tuple[int, int]]) -> None:
    prediction, target = np.array(pairs).T
    found = metrics.confusion_matrix(prediction, target)
    assert found.sum() == len(pairs)
    assert np.trace(found) / found.sum() == pytest.approx(metrics.accuracy(prediction, target))
    np.testing.assert_array_equal(found, metrics.confusion_matrix(target, prediction).T)
    micro = metrics.precision_recall_f1(prediction, target, average="micro")
    assert micro.precision == micro.recall == pytest.approx(metrics.accuracy(prediction, target))


@pytest.mark.parity
@given(pairs, st.booleans())
def test_equal_to_scikit_learn(pairs: list[tuple[int, int]], as_names: bool) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    prediction, target = np.array(pairs).T
    labels = None
    if as_names:
        prediction, target = (np.array(list("fedcba"))[values] for values in (prediction, target))
        labels = list("cabdef")
    assert metrics.accuracy(prediction, target) == pytest.approx(sklearn.accuracy_score(target, prediction))
    np.testing.assert_array_equal(
        metrics.confusion_matrix(prediction, target, labels),
        sklearn.confusion_matrix(target, prediction, labels=labels),
    )
    for average in (None, "micro", "macro", "weighted"):
        found = metrics.precision_recall_f1(prediction, target, labels, average)
        expected = sklearn.precision_recall_fscore_support(
            target, prediction, labels=labels, average=average, zero_division=0
        )
        for ours, theirs in zip(found[:3], expected[:3], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-12)
        if average is None:
            np.testing.assert_array_equal(found.support, expected[3])
        elif labels is None:
            singles = [one(prediction, target, average) for one in (metrics.precision, metrics.recall, metrics.f1)]
            assert singles == list(found[:3])


@pytest.mark.parity
def test_perplexity_is_the_exponential_of_scikit_learns_log_loss() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    scores, target = rng.standard_normal((40, 5)), rng.integers(0, 5, 40)
    loss = rg.nn.functional.cross_entropy(rg.tensor(scores), rg.tensor(target), reduction="none")
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    expected = np.exp(sklearn.log_loss(target, probabilities, labels=range(5)))
    assert metrics.perplexity(loss) == pytest.approx(expected, rel=1e-12)
    assert metrics.perplexity(loss.mean()) == pytest.approx(expected, rel=1e-12)


def test_perplexity_by_hand() -> None:
    assert metrics.perplexity(0.0) == 1.0
    assert metrics.perplexity([np.log(2.0), np.log(8.0)]) == pytest.approx(4.0)
    assert metrics.perplexity(1e4) == np.inf
    with pytest.raises(ValueError, match="at least one token"):
        metrics.perplexity([])


@pytest.mark.parity
def test_the_report_has_the_numbers_of_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    prediction, target = rng.integers(0, 4, 50), rng.integers(0, 5, 50)
    names = ["a", "b", "c", "d", "a name longer than the averages"]
    ours = metrics.classification_report(prediction, target, names=names, digits=2)
    theirs = sklearn.classification_report(target, prediction, target_names=names, zero_division=0)

    def values(report: str) -> list[list[str]]:
        rows = [line.rsplit(maxsplit=4) for line in report.splitlines()[1:] if line.strip()]
        return [[cell.strip() for cell in row] for row in rows]

    assert values(ours) == values(theirs)
    assert len({len(line) for line in ours.splitlines() if line}) == 1


@pytest.mark.parametrize(
    ("arguments", "error", "expected"),
    [
        (([0, 1], [0, 1, 1]), ValueError, r"got \(2,\) and \(3,\)"),
        (([[0, 1]], [[0, 1]]), ValueError, r"got \(1, 2\) and \(1, 2\)"),
        (([], []), ValueError, "expected a prediction|at least one sample"),
        ((np.zeros(0, int), np.zeros(0, int)), ValueError, "at least one sample"),
        (([0.5, 1.0], [0, 1]), TypeError, "float64 and int64"),
        ((["a", "b"], [0, 1]), TypeError, "alike"),
        (([[0.0, float("nan")]], [0]), ValueError, "NaN"),
        ((np.zeros((2, 0)), [0, 1]), ValueError, "at least one class"),
        (([0, 7], [0, 1], [0, 1]), ValueError, r"class 7 is not among the labels \[0, 1\]"),
        (([0, 1], [0, 1], [0, 1, 1]), ValueError, "different classes"),
    ],
)
def test_bad_arguments(arguments: tuple, error: type[Exception], expected: str) -> None:
    for function in (metrics.confusion_matrix, metrics.precision_recall_f1, metrics.classification_report):
        with pytest.raises(error, match=expected):
            function(*arguments)


def test_bad_names_and_averages() -> None:
    with pytest.raises(ValueError, match=r"expected 2 names.*got 1"):
        metrics.classification_report([0, 1], [0, 1], names=["a"])
    with pytest.raises(ValueError, match="'micro', 'macro', 'weighted', got 'mean'"):
        metrics.precision_recall_f1([0], [0], average="mean")  # type: ignore[arg-type]
