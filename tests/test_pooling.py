"""Pooling: PyTorch's values and gradients; ties, infinities, windows at the edge; errors."""

import numpy as np
import pytest
import retrograd as rg
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from retrograd.autograd_core.context import reference_tier
from retrograd.backends import kernel_tier

RNG = np.random.default_rng(0)
fast_only = pytest.mark.skipif(kernel_tier() == "reference", reason="a property of the fast path")


def torch_functional():
    return pytest.importorskip("torch").nn.functional


@st.composite
def pools(draw, dilated):
    """An image and options that PyTorch accepts for it."""
    some = st.integers(1, 3)
    kernel = draw(st.one_of(some, st.tuples(some, some)))
    smallest = min(kernel) if isinstance(kernel, tuple) else kernel
    options = {
        "kernel_size": kernel,
        "stride": draw(st.one_of(st.none(), some, st.tuples(some, some))),
        "padding": draw(st.integers(0, smallest // 2)),
        "ceil_mode": draw(st.booleans()),
    }
    if dilated:
        options["dilation"] = draw(st.integers(1, 2))
    lead = draw(st.sampled_from([(2,), (1, 2), (3, 1)]))
    image = draw(st.tuples(st.integers(2, 8), st.integers(2, 7)))
    reach = [
        options.get("dilation", 1) * (k - 1) + 1 for k in (kernel if isinstance(kernel, tuple) else (kernel, kernel))
    ]
    assume(all(n + 2 * options["padding"] >= r for n, r in zip(image, reach, strict=True)))
    # Few different numbers, so that windows hold their maximum several times.
    return RNG.integers(-2, 3, size=(*lead, *image)).astype(float), options


@pytest.mark.parity
@settings(max_examples=100)
@given(pools(dilated=True))
def test_max_pool2d(against_torch, drawn):
    x, options = drawn
    theirs = torch_functional().max_pool2d
    against_torch(lambda x: rg.max_pool2d(x, **options), lambda x: theirs(x, **options), x)


@pytest.mark.parity
@settings(max_examples=100)
@given(pools(dilated=False), st.booleans(), st.sampled_from([None, None, 5, -2]))
def test_avg_pool2d(against_torch, drawn, count_include_pad, divisor):
    x, options = drawn
    theirs = torch_functional().avg_pool2d
    options |= {"count_include_pad": count_include_pad, "divisor_override": divisor}
    against_torch(lambda x: rg.avg_pool2d(x, **options), lambda x: theirs(x, **options), x)


@pytest.mark.parity
@pytest.mark.parametrize("size", [1, (1, 1), 2, (3, 2), (5, 4), (None, 3), (7, None), (9, 8), (1, 4)])
@pytest.mark.parametrize("shape", [(2, 3, 7, 8), (3, 6, 4)])
def test_adaptive_avg_pool2d(against_torch, size, shape):
    theirs = torch_functional().adaptive_avg_pool2d
    against_torch(lambda x: rg.adaptive_avg_pool2d(x, size), lambda x: theirs(x, size), RNG.normal(size=shape))


@pytest.mark.parity
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float16, 2e-3)])
@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
def test_narrow_dtypes(against_torch, name, dtype, tolerance):
    x = RNG.normal(size=(2, 3, 9, 9)).astype(dtype)
    theirs = getattr(torch_functional(), name)
    against_torch(lambda x: getattr(rg, name)(x, 3, 2, 1), lambda x: theirs(x, 3, 2, 1), x, tolerance=tolerance)


def gradient(function, x):
    t = rg.tensor(x, requires_grad=True)
    out = function(t)
    out.sum().backward()
    return out.numpy(), t.grad.numpy()


def test_of_equal_ones_the_first_gets_the_gradient():
    # Row by row: in the second window (0, 1) comes before (1, 0).
    x = np.array([[[7.0, 7.0, 1.0, 5.0], [7.0, 7.0, 5.0, 1.0]]])
    out, g = gradient(lambda t: rg.max_pool2d(t, 2), x)
    np.testing.assert_array_equal(out, [[[7.0, 5.0]]])
    np.testing.assert_array_equal(g, [[[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]]])


def test_a_maximum_of_several_windows_gets_all_their_gradients():
    x = np.zeros((1, 3, 3))
    x[0, 1, 1] = 1.0
    _, g = gradient(lambda t: rg.max_pool2d(t, 2, stride=1), x)
    assert g[0, 1, 1] == 4.0
    assert g.sum() == 4.0


def test_more_elements_than_a_byte_counts():
    x = RNG.normal(size=(1, 2, 20, 18))
    out, g = gradient(lambda t: rg.max_pool2d(t, (20, 18)), x)
    np.testing.assert_array_equal(out.ravel(), x.max(axis=(2, 3)).ravel())
    np.testing.assert_array_equal(g, x == out)


def test_infinities_and_nan():
    x = np.full((1, 2, 4), -np.inf)
    x[0, 0, 3], x[0, 1, 2] = 1.0, np.nan
    np.testing.assert_array_equal(rg.max_pool2d(rg.tensor(x), 2).numpy(), [[[-np.inf, np.nan]]])
    with reference_tier():
        np.testing.assert_array_equal(rg.max_pool2d(rg.tensor(x), 2).numpy(), [[[-np.inf, np.nan]]])


def test_integers():
    x = np.arange(16).reshape(1, 4, 4)
    out = rg.max_pool2d(rg.tensor(-x), 3, 2, 1)
    assert out.dtype == np.int64
    np.testing.assert_array_equal(out.numpy(), [[[0, -1], [-4, -5]]])
    np.testing.assert_array_equal(rg.avg_pool2d(rg.tensor(x), 2).numpy(), [[[2.5, 4.5], [10.5, 12.5]]])
    assert rg.max_pool2d(rg.tensor(x > 14), 2).numpy().tolist() == [[[False, False], [False, True]]]


@fast_only
@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
@pytest.mark.parametrize("options", [{}, {"stride": 1, "padding": 1}])
def test_order_of_axes_in_memory_is_kept(name, options):
    x = RNG.normal(size=(4, 3, 6, 6))
    turned = np.ascontiguousarray(x.transpose(1, 2, 3, 0)).transpose(3, 0, 1, 2)
    expected, found = (gradient(lambda t: getattr(rg, name)(t, 2, **options), a) for a in (x, turned))
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-14)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-14)
    with rg.use_backend("numpy"):
        out = getattr(rg, name)(rg.asarray(turned), 2, **options)
    assert out.array.transpose(1, 2, 3, 0).flags.c_contiguous


@pytest.mark.parametrize("function", [rg.max_pool2d, rg.avg_pool2d, rg.adaptive_avg_pool2d])
def test_empty_batches(function):
    out, g = gradient(lambda t: function(t, 2), np.zeros((0, 3, 4, 5)))
    assert out.shape == (0, 3, 2, 2)
    assert g.shape == (0, 3, 4, 5)


@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((4, 4), {}, r"x must have shape \(N, C, H, W\) or \(C, H, W\), got \(4, 4\)"),
        ((1, 1, 4, 1), {}, r"the window of 2 × 2 .* is larger than the image of 4 × 1"),
        ((1, 4, 4), {"padding": 2}, r"padding \(2, 2\) must be at most half of the window, \(1, 1\)"),
        ((1, 4, 4), {"stride": 0}, r"stride must be an int or a pair of ints, at least 1; got 0"),
        ((1, 4, 4), {"kernel_size": 2.0}, r"kernel_size must be an int or a pair of ints, at least 1; got 2.0"),
        ((1, 4, 4), {"padding": "same"}, r"padding must be an int or a pair of ints, at least 0; got 'same'"),
    ],
)
def test_errors(name, shape, options, message):
    with pytest.raises(ValueError, match=f"^{name}.*{message}"):
        getattr(rg, name)(rg.ones(shape), **{"kernel_size": 2, **options})


def test_other_errors():
    with pytest.raises(ValueError, match=r"avg_pool2d.*divisor_override must not be 0"):
        rg.avg_pool2d(rg.ones((1, 4, 4)), 2, divisor_override=0)
    with pytest.raises(ValueError, match=r"adaptive_avg_pool2d: x must have shape \(N, C, H, W\) or \(C, H, W\)"):
        rg.adaptive_avg_pool2d(rg.ones((4, 4)), 2)
    with pytest.raises(ValueError, match="output_size must be an int or a pair of ints, at least 1; got"):
        rg.adaptive_avg_pool2d(rg.ones((1, 4, 4)), 0)
