"""Losses: values by hand, reductions, the forms of a target, and the mistakes that are errors."""

import math

import numpy as np
import pytest
import retrograd as rg
from retrograd import nn
from retrograd.nn import functional as F

SCORES = rg.tensor([[0.0, 0.0], [0.0, math.log(3.0)]])
LABELS = rg.tensor([0, 1])
EACH = [math.log(2.0), math.log(4.0 / 3.0)]


@pytest.mark.parametrize(
    ("loss", "prediction", "target", "each"),
    [
        (nn.MSELoss, [2.0, 4.0, 6.0], [2.1, 4.2, 5.9], [0.01, 0.04, 0.01]),
        (nn.L1Loss, [2.0, 4.0, 6.0], [2.5, 4.0, 5.0], [0.5, 0.0, 1.0]),
        (nn.HuberLoss, [0.0, 0.0], [0.5, 3.0], [0.125, 2.5]),
        (nn.SmoothL1Loss, [0.0, 0.0], [0.5, 3.0], [0.125, 2.5]),
        (nn.BCELoss, [0.5, 0.25], [1.0, 0.0], [math.log(2), -math.log(0.75)]),
        (nn.BCEWithLogitsLoss, [0.0, -math.log(3.0)], [1.0, 0.0], [math.log(2), -math.log(0.75)]),
        (nn.CrossEntropyLoss, SCORES.tolist(), [0, 1], EACH),
        (nn.NLLLoss, np.log([[0.5, 0.5], [0.25, 0.75]]).tolist(), [0, 1], EACH),
    ],
)
def test_values_and_reductions(loss, prediction, target, each):
    x, t = rg.tensor(prediction), rg.tensor(target)
    np.testing.assert_allclose(loss(reduction="none")(x, t).numpy(), each, rtol=1e-5)
    assert loss(reduction="sum")(x, t).item() == pytest.approx(sum(each), rel=1e-5)
    assert loss()(x, t).item() == pytest.approx(sum(each) / len(each), rel=1e-5)
    assert loss()(x, t).shape == ()
    with pytest.raises(ValueError, match="reduction must be 'mean', 'sum' or 'none', got 'average'"):
        loss(reduction="average")


def test_the_worked_numbers_of_the_articles():
    p, t = rg.tensor([0.8, 0.2]), rg.tensor([1.0, 0.0])
    assert F.nll_loss(rg.log(p), rg.tensor(0)).item() == pytest.approx(0.2231, abs=1e-4)
    assert F.cross_entropy(rg.log(p), t).item() == pytest.approx(0.2231, abs=1e-4)
    assert F.mse_loss(rg.tensor([2.0, 4.0, 6.0]), rg.tensor([2.1, 4.2, 5.9])).item() == pytest.approx(0.02, abs=1e-6)


def test_labels_and_one_hot_rows_mean_the_same():
    rows = F.one_hot(LABELS, 2).astype("float32")
    assert rows.tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert F.cross_entropy(SCORES, rows).item() == pytest.approx(F.cross_entropy(SCORES, LABELS).item(), rel=1e-6)
    for smoothing in (0.0, 0.1):
        one = nn.CrossEntropyLoss(label_smoothing=smoothing)
        assert one(SCORES, rows).item() == pytest.approx(one(SCORES, LABELS).item(), rel=1e-6)


def test_class_weights_and_ignored_labels():
    weight = rg.tensor([1.0, 3.0])
    expected = (EACH[0] + 3 * EACH[1]) / 4
    assert nn.CrossEntropyLoss(weight)(SCORES, LABELS).item() == pytest.approx(expected, rel=1e-6)
    log_p = F.log_softmax(SCORES, dim=1)
    assert nn.NLLLoss(weight)(log_p, LABELS).item() == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(
        nn.NLLLoss(weight, reduction="none")(log_p, LABELS).numpy(), [EACH[0], 3 * EACH[1]], rtol=1e-6
    )
    ignoring = nn.CrossEntropyLoss(ignore_index=1)
    assert ignoring(SCORES, LABELS).item() == pytest.approx(EACH[0], rel=1e-6)
    assert list(nn.CrossEntropyLoss(weight).state_dict()) == ["weight"]
    assert list(nn.CrossEntropyLoss().state_dict()) == []


@pytest.mark.filterwarnings("ignore:(divide by zero|invalid value):RuntimeWarning")
@pytest.mark.parametrize("options", [{}, {"weight": [1.0, 3.0]}, {"label_smoothing": 0.1}, {"kind": "NLLLoss"}])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_mean_over_no_labels_is_nan_and_asks_for_no_change(options, compiled):
    options = dict(options)
    if "weight" in options:
        options["weight"] = rg.tensor(options["weight"])
    loss = getattr(nn, options.pop("kind", "CrossEntropyLoss"))(**options)
    x, nothing = rg.tensor(SCORES.tolist(), requires_grad=True), rg.full(len(SCORES), -100)

    def step(target):
        x.grad = None
        found = loss(x, target)
        found.backward()
        return found

    if compiled:
        step = rg.compile(step)
        for _ in range(4):
            step(LABELS)
    assert math.isnan(step(nothing).item())
    assert np.abs(x.grad.numpy()).max() == 0
    assert math.isfinite(step(LABELS).item())
    assert np.abs(x.grad.numpy()).max() > 0


def test_positive_weights_and_weights():
    x, t = rg.tensor([0.0, 0.0]), rg.tensor([1.0, 0.0])
    two = math.log(2)
    loss = nn.BCEWithLogitsLoss(pos_weight=rg.tensor(3.0), reduction="none")
    np.testing.assert_allclose(loss(x, t).numpy(), [3 * two, two], rtol=1e-6)
    loss = nn.BCEWithLogitsLoss(rg.tensor([1.0, 5.0]), reduction="none")
    np.testing.assert_allclose(loss(x, t).numpy(), [two, 5 * two], rtol=1e-6)
    loss = nn.BCELoss(rg.tensor([1.0, 5.0]), reduction="sum")
    assert loss(rg.tensor([0.5, 0.5]), t).item() == pytest.approx(6 * two, rel=1e-6)


def test_large_scores_stay_finite():
    x = rg.tensor([1000.0, -1000.0], requires_grad=True)
    loss = F.binary_cross_entropy_with_logits(x, rg.tensor([0.0, 1.0]))
    loss.backward()
    assert loss.item() == 1000.0
    assert x.grad.tolist() == [0.5, -0.5]
    assert F.cross_entropy(rg.tensor([[1000.0, 0.0]]), rg.tensor([1])).item() == 1000.0


def test_probabilities_of_0_and_1_stay_finite():
    p = rg.tensor([0.0, 1.0, 0.5], requires_grad=True)
    loss = F.binary_cross_entropy(p, rg.tensor([1.0, 1.0, 1.0]), reduction="sum")
    loss.backward()
    assert loss.item() == pytest.approx(100 + math.log(2))
    assert np.isfinite(p.grad.numpy()).all()
    assert p.grad.tolist()[1:] == [-1.0, -2.0]


PAIRED = (nn.MSELoss, nn.L1Loss, nn.HuberLoss, nn.SmoothL1Loss, nn.BCEWithLogitsLoss, nn.BCELoss)


@pytest.mark.parametrize("loss", PAIRED)
def test_a_target_of_another_shape_is_refused(loss):
    with pytest.raises(ValueError, match=r"prediction \(8, 1\) and target \(8,\) must have the same shape"):
        loss()(rg.zeros((8, 1)), rg.zeros(8))


@pytest.mark.parametrize(
    ("target", "error", "text"),
    [
        (rg.tensor([0, 10]), IndexError, r"10 classes must lie in 0…9, got 10"),
        (rg.tensor([0, -1]), IndexError, r"10 classes must lie in 0…9, got -1"),
        (rg.zeros((2, 3)), ValueError, r"10 classes.*got \(2, 3\)"),
        (rg.zeros((2, 1), dtype="int64"), ValueError, r"must have shape \(2,\), got \(2, 1\)"),
        (rg.zeros((2, 10), dtype="int64"), ValueError, r"One-hot rows must be floats"),
        (rg.zeros(3, dtype="int64"), ValueError, r"must have shape \(2,\), got \(3,\)"),
        (rg.zeros(2, dtype="bool"), TypeError, "integer labels or float probabilities, got bool"),
    ],
)
def test_labels_that_cannot_be_are_refused(target, error, text):
    with pytest.raises(error, match=text) as info:
        nn.CrossEntropyLoss()(rg.zeros((2, 10)), target)
    assert str(info.value).startswith("CrossEntropyLoss: ")


def test_the_loss_of_scores_that_are_no_probabilities_names_the_other_loss():
    with pytest.raises(ValueError, match=r"in 0…1, got 1\.5.*binary_cross_entropy_with_logits"):
        nn.BCELoss()(rg.tensor([1.5]), rg.tensor([1.0]))


def test_weights_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r"shape \(2,\); got \(3,\)"):
        nn.CrossEntropyLoss(rg.ones(3))(SCORES, LABELS)


@pytest.mark.parametrize(
    ("shape", "hint"),
    [
        ((4, 10), r"must be floats: target.astype\('float32'\)"),
        ((4, 1), r"Take the axis away: target.squeeze\(1\)"),
        ((4, 7), "One-hot rows of 7 classes do not fit the scores of 10"),
    ],
)
def test_integer_labels_of_a_wrong_shape_say_what_they_look_like(shape, hint):
    with pytest.raises(ValueError, match=hint):
        F.cross_entropy(rg.zeros((4, 10)), rg.zeros(shape, dtype="int64"))


def test_one_hot_counts_the_classes_that_occur():
    assert F.one_hot(rg.tensor([[0], [2]])).shape == (2, 1, 3)
    assert F.one_hot(rg.tensor([1]), 4).dtype == np.int64
    with pytest.raises(IndexError, match=r"0…1, got 2"):
        F.one_hot(rg.tensor([2]), 2)


def test_dim_and_axis_are_one_argument():
    x = rg.tensor([[1.0, 2.0], [3.0, 5.0]])
    np.testing.assert_array_equal(F.softmax(x, dim=0).numpy(), F.softmax(x, axis=0).numpy())
    np.testing.assert_array_equal(F.log_softmax(x, 0).numpy(), nn.LogSoftmax(axis=0)(x).numpy())
    np.testing.assert_array_equal(F.softmax(x).numpy(), nn.Softmax(dim=1)(x).numpy())
    assert F.softmax(x, dim=1, dtype="float64").dtype == np.float64
    with pytest.raises(TypeError, match="dim=0 and axis=1 are two names"):
        F.softmax(x, dim=0, axis=1)
