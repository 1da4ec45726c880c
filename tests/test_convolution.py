"""Convolution: PyTorch's values and gradients for shapes and options of every kind; layout, blocks, and errors."""

import numpy as np
import pytest
import retrograd as rg
from hypothesis import given, settings
from hypothesis import strategies as st
from retrograd.autograd_core.operations import batch_last
from retrograd.backends import kernel_tier

RNG = np.random.default_rng(0)
fast_only = pytest.mark.skipif(kernel_tier() == "reference", reason="a property of the fast path")


def normal(*shape):
    return RNG.normal(size=shape)


def torch_functional():
    return pytest.importorskip("torch").nn.functional


@st.composite
def convolutions(draw, transposed=False):
    """Input, weight, bias and options that fit each other."""
    some = st.integers(1, 3)
    groups, per_group, outs = draw(st.integers(1, 2)), draw(some), draw(some)
    kernel = draw(st.tuples(some, some))
    options = {
        "stride": draw(st.one_of(some, st.tuples(some, some))),
        "padding": draw(st.one_of(st.integers(0, 2), st.tuples(st.integers(0, 2), st.integers(0, 2)))),
        "dilation": draw(st.one_of(st.integers(1, 2), st.tuples(st.integers(1, 2), some))),
        "groups": groups,
    }
    image = draw(st.tuples(st.integers(7, 9), st.integers(7, 8)))
    lead = draw(st.sampled_from([(), (1,), (2,), (3,)]))
    weight = (groups * per_group, outs, *kernel) if transposed else (groups * outs, per_group, *kernel)
    bias = normal(groups * outs) if draw(st.booleans()) else None
    return normal(*lead, groups * per_group, *image), normal(*weight), bias, options


@pytest.mark.parity
@settings(max_examples=60)
@given(convolutions())
def test_conv2d(against_torch, drawn):
    x, weight, bias, options = drawn
    theirs = torch_functional().conv2d
    against_torch(lambda *a: rg.conv2d(*a, **options), lambda *a: theirs(*a, **options), x, weight, bias)


@pytest.mark.parity
@settings(max_examples=60)
@given(convolutions(transposed=True), st.integers(0, 1))
def test_conv_transpose2d(against_torch, drawn, output_padding):
    x, weight, bias, options = drawn
    theirs = torch_functional().conv_transpose2d
    if output_padding:
        options |= {"output_padding": output_padding, "stride": 2}
    against_torch(lambda *a: rg.conv_transpose2d(*a, **options), lambda *a: theirs(*a, **options), x, weight, bias)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")  # torch's own path
@pytest.mark.parametrize("kernel", [(3, 3), (2, 4), (1, 1), (5, 2)])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_padding_by_name(against_torch, kernel, dilation, padding):
    theirs = torch_functional().conv2d
    options = {"padding": padding, "dilation": dilation}
    x, weight = normal(2, 2, 9, 8), normal(3, 2, *kernel)
    against_torch(lambda *a: rg.conv2d(*a, **options), lambda *a: theirs(*a, **options), x, weight)


@pytest.mark.parity
@pytest.mark.parametrize("shape", [(2, 4, 9), (4, 9)])
@pytest.mark.parametrize(
    "options",
    [{}, {"stride": 2, "padding": 2}, {"dilation": 3}, {"groups": 2}, {"padding": "same"}, {"padding": "valid"}],
)
def test_conv1d(against_torch, shape, options):
    theirs = torch_functional().conv1d
    weight = normal(6, 4 // options.get("groups", 1), 3)
    against_torch(
        lambda *a: rg.conv1d(*a, **options), lambda *a: theirs(*a, **options), normal(*shape), weight, normal(6)
    )


@pytest.mark.parity
def test_depthwise(against_torch):
    theirs = torch_functional().conv2d
    options = {"groups": 5, "padding": 1}
    x, weight = normal(2, 5, 6, 7), normal(10, 1, 3, 3)
    against_torch(lambda *a: rg.conv2d(*a, **options), lambda *a: theirs(*a, **options), x, weight, normal(10))


@pytest.mark.parity
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2e-5), (np.float16, 5e-2)])
def test_narrow_dtypes(against_torch, dtype, tolerance):
    theirs = torch_functional().conv2d
    arrays = [a.astype(dtype) for a in (normal(2, 8, 9, 9), normal(4, 8, 3, 3), normal(4))]
    against_torch(lambda *a: rg.conv2d(*a, padding=1), lambda *a: theirs(*a, padding=1), *arrays, tolerance=tolerance)


@pytest.mark.parity
@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d"])
def test_second_order(name):
    torch = pytest.importorskip("torch")
    x, weight, bias = normal(2, 3, 5, 4), normal(3, 3, 2, 2), normal(3)

    ours = [rg.tensor(a, requires_grad=True) for a in (x, weight, bias)]
    function = getattr(rg, name)
    out = function(*ours, stride=2, padding=1)
    (out * out * out).sum().backward(create_graph=True, inputs=ours[:1])
    g = ours[0].grad
    (g * g).sum().backward(inputs=ours[1:])
    theirs = [torch.tensor(a, requires_grad=True) for a in (x, weight, bias)]
    out = getattr(torch.nn.functional, name)(*theirs, stride=2, padding=1)
    (g,) = torch.autograd.grad((out * out * out).sum(), theirs[0], create_graph=True)
    (g * g).sum().backward(inputs=theirs[1:])
    for a, b in zip(ours[1:], theirs[1:], strict=True):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-10)


@pytest.mark.parity
@pytest.mark.parametrize(
    "options", [{}, {"stride": 2}, {"padding": 1, "dilation": 2}, {"stride": (1, 2), "padding": (0, 1)}]
)
def test_unfold_and_fold(against_torch, options):
    functional = torch_functional()
    image = (6, 7)
    for x in (normal(2, 3, *image), normal(3, *image)):
        against_torch(lambda x: rg.unfold(x, (2, 3), **options), lambda x: functional.unfold(x, (2, 3), **options), x)
        columns = rg.unfold(rg.tensor(x), (2, 3), **options).numpy()
        against_torch(
            lambda c: rg.fold(c, image, (2, 3), **options),
            lambda c: functional.fold(c, image, (2, 3), **options),
            columns,
        )


def run(x, weight, bias, function=rg.conv2d, **options):
    given = [rg.tensor(a, requires_grad=True) for a in (x, weight, bias)]
    out = function(*given, **options)
    out.backward(rg.tensor(np.sin(np.arange(out.size)).reshape(out.shape)))
    return [out.numpy(), *[t.grad.numpy() for t in given]]


@pytest.mark.parametrize("limit", [1, 600, 3000])
@pytest.mark.parametrize(
    "options", [{}, {"stride": (2, 1), "padding": (1, 2)}, {"dilation": 2, "groups": 2}, {"padding": "same"}]
)
def test_blocks_of_any_size_give_the_same(monkeypatch, limit, options):
    x, weight, bias = normal(3, 4, 7, 9), normal(2, 4 // options.get("groups", 1), 3, 2), normal(2)
    whole = run(x, weight, bias, **options)
    monkeypatch.setattr(batch_last, "_HOST_BLOCK", limit)
    monkeypatch.setattr(batch_last, "_DEVICE_BLOCK", limit)
    monkeypatch.setattr(batch_last, "_UNPACKED", 20 * limit)
    for a, b in zip(run(x, weight, bias, **options), whole, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_the_transpose_is_the_transpose():
    x, weight = normal(2, 4, 7, 8), normal(6, 2, 3, 2)
    options = {"stride": 2, "padding": 1, "groups": 2}
    out = rg.conv2d(rg.tensor(x), rg.tensor(weight), **options)
    y = normal(*out.shape)
    back = rg.conv_transpose2d(rg.tensor(y), rg.tensor(weight), **options)
    assert back.shape == x.shape
    np.testing.assert_allclose(np.sum(out.numpy() * y), np.sum(x * back.numpy()), rtol=1e-12)


@fast_only
def test_the_batch_lies_last_in_memory():
    with rg.use_backend("numpy"):
        x = rg.tensor(normal(4, 3, 8, 8))
        once = rg.conv2d(x, rg.tensor(normal(5, 3, 3, 3)))
        assert once.shape == (4, 5, 6, 6)
        turned = once.array.transpose(1, 2, 3, 0)
        assert turned.flags.c_contiguous
        # What comes between keeps the order, and the next convolution finds its input as it wants it.
        between = rg.max_pool2d(rg.relu(once), 2)
        assert between.array.transpose(1, 2, 3, 0).flags.c_contiguous
        assert np.may_share_memory(batch_last.batch_last(np, once.array), once.array)


@pytest.mark.parametrize("function", [rg.conv2d, rg.conv_transpose2d])
def test_an_empty_batch(function):
    out, gx, gw, gb = run(normal(0, 2, 4, 5), normal(2, 2, 3, 3), normal(2), function)
    assert out.shape[:2] == (0, 2)
    assert gx.shape == (0, 2, 4, 5)
    assert not gw.any()
    assert not gb.any()


X, W = (2, 3, 6, 6), (4, 3, 3, 3)


@pytest.mark.parametrize(
    ("x", "weight", "bias", "options", "message"),
    [
        ((3, 6), W, None, {}, r"x must have shape \(N, C, H, W\) or \(C, H, W\), got \(3, 6\)"),
        (X, (4, 3, 3), None, {}, r"weight must have shape \(out, in / groups, kh, kw\), got \(4, 3, 3\)"),
        ((2, 5, 6, 6), W, None, {}, r"x has 5 channels, and weight .* of \(4, 3, 3, 3\) with groups=1 expects 3"),
        ((2, 9, 6, 6), W, None, {"groups": 3}, r"groups=3 must divide the 9 channels of x and the 4 of the result"),
        (X, W, None, {"groups": 0}, r"groups must be a positive int, got 0"),
        (X, W, (3,), {}, r"bias must have shape \(4,\), one number per channel of the result; got \(3,\)"),
        ((2, 3, 2, 6), W, None, {}, r"the window of 3 × 3 .* is larger than the image of 2 × 6 \(padding included\)"),
        (X, W, None, {"dilation": 4}, r"the window of 9 × 9 \(kernel \(3, 3\), dilation \(4, 4\)\)"),
        (X, W, None, {"stride": 0}, r"stride must be an int or a pair of ints, at least 1; got 0"),
        (X, W, None, {"stride": (1, 2, 3)}, r"stride must be an int or a pair of ints, at least 1; got \(1, 2, 3\)"),
        (X, W, None, {"padding": -1}, r"padding must be an int or a pair of ints, at least 0; got -1"),
        (X, W, None, {"padding": 0.5}, r"padding must be an int or a pair of ints, at least 0; got 0.5"),
        (X, W, None, {"padding": "full"}, r"padding must be an int, a pair of ints, 'same' or 'valid', got 'full'"),
        (X, W, None, {"padding": "same", "stride": 2}, r"padding='same' needs stride=1, got stride=\(2, 2\)"),
    ],
)
def test_conv2d_errors(x, weight, bias, options, message):
    with pytest.raises(ValueError, match=f"^conv2d.*{message}"):
        rg.conv2d(rg.ones(x), rg.ones(weight), bias and rg.ones(bias), **options)


def test_other_errors():
    with pytest.raises(
        ValueError, match=r"conv_transpose2d.*output_padding \(2, 2\) must be smaller than stride \(2, 2\)"
    ):
        rg.conv_transpose2d(rg.ones(X), rg.ones((3, 4, 3, 3)), stride=2, output_padding=2)
    with pytest.raises(
        ValueError, match=r"padding \(4, 4\) leaves nothing of the result, whose size would be \(0, 0\)"
    ):
        rg.conv_transpose2d(rg.ones(X), rg.ones((3, 4, 3, 3)), padding=4)
    with pytest.raises(
        ValueError, match=r"x has 3 channels, and weight \(in, out / groups, kh, kw\) of \(4, 3, 3, 3\)"
    ):
        rg.conv_transpose2d(rg.ones(X), rg.ones(W))
    with pytest.raises(ValueError, match=r"conv1d: x must have shape \(N, C, L\) or \(C, L\)"):
        rg.conv1d(rg.ones(X), rg.ones(W))
    with pytest.raises(ValueError, match=r"unfold.*x must have shape \(N, C, H, W\) or \(C, H, W\), got \(3, 3\)"):
        rg.unfold(rg.ones((3, 3)), 2)
    with pytest.raises(ValueError, match=r"fold.*x must have shape \(N, C·2·2, 2·2\), or that without N; got \(4, 5\)"):
        rg.fold(rg.ones((4, 5)), 3, 2)
