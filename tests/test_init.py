"""Initialisers: bounds, moments, the random stream, and what they refuse."""

import math

import numpy as np
import pytest
import retrograd as rg
from retrograd import nn
from retrograd.nn import init

SHAPE = (200, 50, 3, 3)
FAN_IN, FAN_OUT = 450, 1800


@pytest.fixture(autouse=True)
def _seed():
    rg.manual_seed(0)


@pytest.mark.parametrize(
    ("fill", "bound"),
    [
        (lambda t: init.uniform_(t, -2, 2), 2.0),
        (lambda t: init.xavier_uniform_(t), math.sqrt(6 / (FAN_IN + FAN_OUT))),
        (lambda t: init.xavier_uniform_(t, gain=5 / 3), 5 / 3 * math.sqrt(6 / (FAN_IN + FAN_OUT))),
        (lambda t: init.kaiming_uniform_(t, nonlinearity="relu"), math.sqrt(6 / FAN_IN)),
        (lambda t: init.kaiming_uniform_(t, a=math.sqrt(5)), 1 / math.sqrt(FAN_IN)),
        (lambda t: init.kaiming_uniform_(t, mode="fan_out", nonlinearity="relu"), math.sqrt(6 / FAN_OUT)),
    ],
)
def test_uniform_initialisers_fill_their_interval_evenly(fill, bound):
    values = fill(rg.zeros(SHAPE)).numpy()
    assert np.abs(values).max() <= bound * (1 + 1e-6)
    assert np.abs(values).max() > 0.999 * bound
    assert values.std() == pytest.approx(bound / math.sqrt(3), rel=0.01)
    assert abs(values.mean()) < 0.02 * bound


@pytest.mark.parametrize(
    ("fill", "std"),
    [
        (lambda t: init.normal_(t, std=0.02), 0.02),
        (lambda t: init.xavier_normal_(t), math.sqrt(2 / (FAN_IN + FAN_OUT))),
        (lambda t: init.kaiming_normal_(t, nonlinearity="relu"), math.sqrt(2 / FAN_IN)),
        (lambda t: init.kaiming_normal_(t, 0.2, "fan_out"), math.sqrt(2 / 1.04 / FAN_OUT)),
    ],
)
def test_normal_initialisers_have_their_deviation(fill, std):
    values = fill(rg.zeros(SHAPE)).numpy() / std
    assert values.std() == pytest.approx(1, rel=0.01)
    assert abs(values.mean()) < 0.02
    assert pytest.approx((np.abs(values) > 3).mean(), rel=0.3) == 0.0027


def test_constants_and_means():
    t = rg.zeros(4)
    assert init.constant_(t, 2.5) is t
    assert t.tolist() == [2.5] * 4
    assert init.ones_(t).tolist() == [1.0] * 4
    assert init.zeros_(t).tolist() == [0.0] * 4
    assert abs(init.normal_(rg.zeros(10_000), mean=5.0).numpy().mean() - 5) < 0.05


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_dtype_stays_and_the_same_seed_gives_the_same_numbers(dtype):
    first = init.normal_(rg.zeros(5, dtype=dtype))
    rg.manual_seed(0)
    second = init.normal_(rg.zeros(5, dtype=dtype))
    assert first.dtype == dtype
    assert np.array_equal(first.numpy(), second.numpy())
    assert len(set(first.tolist())) == 5


def test_a_parameter_is_filled_without_a_graph_and_on_its_backend():
    p = nn.Parameter(rg.zeros((3, 2), backend="strict"))
    assert init.xavier_uniform_(p) is p
    assert p.is_leaf
    assert p.backend.name == "strict"
    other = rg.Generator(7)
    assert np.array_equal(
        init.uniform_(rg.zeros(3), generator=other).numpy(),
        init.uniform_(rg.zeros(3), generator=rg.Generator(7)).numpy(),
    )


def test_the_same_seed_gives_the_same_model():
    def model():
        rg.manual_seed(3)
        return nn.Sequential(nn.Linear(4, 8), nn.Conv2d(1, 2, 3), nn.Embedding(5, 2)).state_dict()

    one, two = model(), model()
    assert all(np.array_equal(one[name].numpy(), two[name].numpy()) for name in one)


def test_bad_requests():
    with pytest.raises(ValueError, match=r"two axes or more, got shape \(3,\)"):
        init.xavier_uniform_(rg.zeros(3))
    with pytest.raises(ValueError, match="'fan_in' or 'fan_out', got 'fan'"):
        init.kaiming_normal_(rg.zeros((2, 2)), mode="fan")
    with pytest.raises(ValueError, match="no gain is known for 'swish'"):
        init.calculate_gain("swish")


def test_an_empty_weight_is_filled_with_nothing():
    assert init.kaiming_uniform_(rg.zeros((3, 0))).shape == (3, 0)


@pytest.mark.parity
def test_gains_and_fans_are_those_of_torch():
    torch = pytest.importorskip("torch")
    for name, param in (("linear", None), ("sigmoid", None), ("tanh", None), ("relu", None), ("selu", None),
                        ("leaky_relu", None), ("leaky_relu", 0.2), ("conv2d", None)):  # fmt: skip
        assert init.calculate_gain(name, param) == torch.nn.init.calculate_gain(name, param)
    assert init.fans(rg.zeros(SHAPE)) == torch.nn.init._calculate_fan_in_and_fan_out(torch.zeros(SHAPE))
