"""Activation functions: PyTorch's values and gradients, at ordinary numbers and at kinks, huge ones and infinities."""

import numpy as np
import pytest
import retrograd as rg
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from retrograd.autograd_core.blocks import BLOCK, blockwise

ACTIVATIONS = [
    ("sigmoid", "sigmoid", {}),
    ("log_sigmoid", "logsigmoid", {}),
    ("relu", "relu", {}),
    ("relu6", "relu6", {}),
    ("leaky_relu", "leaky_relu", {}),
    ("leaky_relu", "leaky_relu", {"negative_slope": 0.3}),
    ("leaky_relu", "leaky_relu", {"negative_slope": -2.0}),
    ("elu", "elu", {}),
    ("elu", "elu", {"alpha": 0.4}),
    ("silu", "silu", {}),
    ("softplus", "softplus", {}),
    ("softplus", "softplus", {"beta": 3.0}),
    ("softplus", "softplus", {"beta": 0.5, "threshold": 1.0}),
    ("softplus", "softplus", {"threshold": -1.0}),
    ("gelu", "gelu", {}),
    ("gelu", "gelu", {"approximate": "tanh"}),
    ("hardtanh", "hardtanh", {}),
    ("hardtanh", "hardtanh", {"min_val": -0.5, "max_val": 2.0}),
]
IDS = [f"{name}-{'-'.join(map(str, options.values()))}" for name, _, options in ACTIVATIONS]
everywhere = pytest.mark.parametrize(("name", "theirs", "options"), ACTIVATIONS, ids=IDS)


def functions(name, theirs, options):
    functional = pytest.importorskip("torch").nn.functional
    return lambda x: getattr(rg, name)(x, **options), lambda x: getattr(functional, theirs)(x, **options)


def corners(dtype):
    """Kinks and bounds, numbers near 0, numbers whose exponential is infinite, and what lies between."""
    points = [0.0, 1.0, -1.0, 0.5, -0.5, 2.0, 6.0, 20.0, 1e-4, -1e-4, 30.0, -30.0, 200.0, -200.0, 2000.0, -2000.0]
    return np.concatenate([points, np.linspace(-12, 12, 200)]).astype(dtype)


@pytest.mark.parity
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@everywhere
def test_corners(against_torch, name, theirs, options, dtype):
    # A few roundings of the dtype, at results of up to 2000; float16 gradients are computed in float16 here.
    tolerance = {np.float64: 1e-13, np.float32: 3e-6, np.float16: 4e-3}[dtype]
    against_torch(*functions(name, theirs, options), corners(dtype), tolerance=tolerance)


@pytest.mark.parity
@everywhere
@settings(max_examples=20)
@given(x=arrays(np.float64, st.integers(1, 8), elements=st.floats(-1e6, 1e6)))
def test_any_numbers(against_torch, name, theirs, options, x):
    against_torch(*functions(name, theirs, options), x, tolerance=1e-11)


@pytest.mark.parity
@everywhere
def test_infinities_and_nan(name, theirs, options):
    torch = pytest.importorskip("torch")
    x = np.array([np.inf, -np.inf, np.nan])
    ours, other = functions(name, theirs, options)
    with np.errstate(invalid="ignore"):
        out = ours(rg.tensor(x)).numpy()
    expected = other(torch.tensor(x)).numpy()
    # 0 · ∞ is where PyTorch's own kernels differ from each other; ours are NaN or the limit there.
    settled = ~np.isnan(expected)
    np.testing.assert_array_equal(out[settled], expected[settled])
    assert np.isnan(out[2])


@pytest.mark.parametrize("name", ["sigmoid", "silu", "log_sigmoid", "softplus", "elu"])
def test_relative_precision_of_small_results(name):
    x = np.array([-1e-3, -1e-5, -5.0, -15.0])
    exact = getattr(rg, name)(rg.tensor(x)).numpy()
    single = getattr(rg, name)(rg.tensor(x.astype(np.float32))).numpy()
    np.testing.assert_allclose(single, exact, rtol=1e-6)


def test_gelu_of_large_negative_numbers_is_zero():
    x = np.array([-10.0, -100.0, -1e4], np.float32)
    for approximate in ("none", "tanh"):
        np.testing.assert_array_equal(rg.gelu(rg.tensor(x), approximate=approximate).numpy(), 0 * x)


def laid_out(x):
    """The same numbers, lying in memory in different ways."""
    wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
    wide[..., ::2] = x
    yield x
    yield np.ascontiguousarray(x.transpose(1, 2, 0)).transpose(2, 0, 1)
    yield np.asfortranarray(x)
    yield wide[..., ::2]
    yield x[::-1].copy()[::-1]


@pytest.mark.parametrize("name", ["sigmoid", "log_sigmoid", "softplus", "leaky_relu", "elu", "silu", "gelu"])
def test_large_arrays_give_what_their_rows_give(name):
    x = np.random.default_rng(0).normal(size=(3, 97, BLOCK // 150))
    assert x.size > BLOCK
    rows = [rg.tensor(row, requires_grad=True) for row in x]
    outs = [getattr(rg, name)(row) for row in rows]
    for out in outs:
        out.backward(out.detach())
    for view in laid_out(x):
        t = rg.asarray(view).requires_grad_()
        out = getattr(rg, name)(t)
        out.backward(out.detach())
        np.testing.assert_allclose(out.numpy(), [o.numpy() for o in outs], rtol=1e-14)
        np.testing.assert_allclose(t.grad.numpy(), [r.grad.numpy() for r in rows], rtol=1e-14, atol=1e-300)


def test_blockwise_keeps_dtype_and_order_of_axes():
    x = np.ones((5, BLOCK // 2, 3), np.float32).transpose(2, 0, 1)
    calls = []

    def positive(a, b):
        calls.append(a.size)
        return a + b > 0

    out = blockwise(positive, x, x)
    assert out.dtype == bool
    assert out.strides == tuple(s // 4 for s in x.strides)
    assert out.all()
    assert max(calls) == BLOCK
    assert sum(calls) == x.size


def test_blockwise_hands_on_what_lies_in_another_order():
    x = np.arange(3.0 * BLOCK).reshape(3, BLOCK)
    np.testing.assert_array_equal(blockwise(np.add, x, np.asfortranarray(x)), 2 * x)
    np.testing.assert_array_equal(
        blockwise(np.negative, np.broadcast_to(x[0], x.shape)), -np.broadcast_to(x[0], x.shape)
    )


def test_errors():
    x = rg.ones(3)
    with pytest.raises(ValueError, match=r"approximate must be 'none' .* or 'tanh', got 'sigmoid'"):
        rg.gelu(x, approximate="sigmoid")
    with pytest.raises(ValueError, match="min_val must not be above max_val, got 2 and 1"):
        rg.hardtanh(x, min_val=2, max_val=1)
    with pytest.raises(TypeError, match="leaky_relu has no argument 'slope'"):
        rg.leaky_relu(x, slope=0.1)
