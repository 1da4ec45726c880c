"""Normalization: PyTorch's values and gradients, statistics, long rows, blocks, and errors."""

import numpy as np
import pytest
import retrograd as rg
from hypothesis import given, settings
from hypothesis import strategies as st
from retrograd.autograd_core.context import switched
from retrograd.autograd_core.operations import normalization

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape)


def torch_functional():
    return pytest.importorskip("torch").nn.functional


shapes = st.lists(st.integers(1, 4), min_size=2, max_size=4)


@pytest.mark.parity
@settings(max_examples=60)
@given(shapes, st.integers(1, 2), st.booleans(), st.booleans(), st.sampled_from([1e-5, 1e-2]))
def test_layer_norm(against_torch, shape, axes, weighted, shifted, eps):
    last = tuple(shape[-axes:])
    theirs = torch_functional().layer_norm
    against_torch(
        lambda *a: rg.layer_norm(*a, normalized_shape=last, eps=eps),
        lambda *a: theirs(a[0], last, *a[1:], eps=eps),
        normal(*shape),
        normal(*last) if weighted else None,
        normal(*last) if shifted else None,
        tolerance=1e-9,
    )


@pytest.mark.parity
@settings(max_examples=40)
@given(shapes, st.integers(1, 2), st.booleans(), st.sampled_from([None, 1e-2]))
def test_rms_norm(against_torch, shape, axes, weighted, eps):
    last = tuple(shape[-axes:])
    theirs = torch_functional().rms_norm
    against_torch(
        lambda *a: rg.rms_norm(*a, normalized_shape=last, eps=eps),
        lambda *a: theirs(a[0], last, *a[1:], eps=eps),
        normal(*shape),
        normal(*last) if weighted else None,
        tolerance=1e-9,
    )


@pytest.mark.parity
@pytest.mark.parametrize("shape", [(3, 6), (2, 6, 5), (2, 6, 3, 4), (0, 6, 2)])
@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("affine", [True, False])
def test_group_norm(against_torch, shape, groups, affine):
    theirs = torch_functional().group_norm
    vectors = (normal(6), normal(6)) if affine else (None, None)
    against_torch(
        lambda *a: rg.group_norm(a[0], groups, *a[1:], eps=1e-3),
        lambda *a: theirs(a[0], groups, *a[1:], eps=1e-3),
        normal(*shape),
        *vectors,
        tolerance=1e-9,
    )


BATCHES = [(5, 3), (4, 3, 5), (2, 3, 4, 2), (7, 1), (2, 1, 3, 3), (2, 3, 2, 2, 2)]


@pytest.mark.parity
@pytest.mark.parametrize("shape", BATCHES)
@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm(against_torch, shape, affine):
    theirs = torch_functional().batch_norm
    vectors = (normal(shape[1]), normal(shape[1])) if affine else (None, None)
    against_torch(
        lambda *a: rg.batch_norm(*a, eps=1e-3)[0],
        lambda x, *a: theirs(x, None, None, *a, training=True, eps=1e-3),
        normal(*shape),
        *vectors,
    )


@pytest.mark.parity
@pytest.mark.parametrize("shape", [*BATCHES, (1, 3), (0, 3)])
def test_batch_norm_inference(against_torch, shape):
    theirs = torch_functional().batch_norm
    mean, var = normal(shape[1]), RNG.uniform(0.5, 2.0, shape[1])
    against_torch(
        lambda x, *a: rg.batch_norm_inference(x, rg.tensor(mean), rg.tensor(var), *a),
        lambda x, *a: theirs(x, *(x.new_tensor(v) for v in (mean, var)), *a, training=False),
        normal(*shape),
        normal(shape[1]),
        normal(shape[1]),
    )


@pytest.mark.parity
@pytest.mark.parametrize("name", ["layer_norm", "rms_norm", "batch_norm"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float16, 4e-3)])
def test_narrow_dtypes(against_torch, name, dtype, tolerance):
    functional = torch_functional()
    ours, theirs = {
        "layer_norm": (
            lambda *a: rg.layer_norm(*a, normalized_shape=6),
            lambda x, *a: functional.layer_norm(x, (6,), *a),
        ),
        "rms_norm": (
            lambda x, w, b: rg.rms_norm(x, w, normalized_shape=6) + b,
            lambda x, w, b: functional.rms_norm(x, (6,), w) + b,
        ),
        "batch_norm": (
            lambda *a: rg.batch_norm(*a)[0],
            lambda x, *a: functional.batch_norm(x, None, None, *a, training=True),
        ),
    }[name]
    arrays = [a.astype(dtype) for a in (300 * normal(8, 6), normal(6), normal(6))]  # 300² leaves the range of float16
    against_torch(ours, theirs, *arrays, tolerance=tolerance)


def test_statistics_of_a_batch():
    x = normal(4, 3, 5, 2)
    out, mean, var = rg.batch_norm(rg.tensor(x), eps=0)
    np.testing.assert_allclose(mean.numpy(), x.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(var.numpy(), x.var(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(out.numpy().mean(axis=(0, 2, 3)), 0, atol=1e-12)
    np.testing.assert_allclose(out.numpy().var(axis=(0, 2, 3)), 1, rtol=1e-12)


def test_the_results_are_a_tuple_also_when_written_out():
    for reference in (False, True):
        with switched(reference=reference):
            assert type(rg.batch_norm(rg.ones((3, 2)))) is tuple


def test_gradients_of_the_statistics_alone():
    for pick, expected in ((1, lambda x: np.ones_like(x) / 4), (2, lambda x: (x - x.mean(axis=0)) / 2)):
        x = rg.tensor(normal(4, 3), requires_grad=True)
        rg.batch_norm(x)[pick].sum().backward()
        np.testing.assert_allclose(x.grad.numpy(), expected(x.numpy()), rtol=1e-12)


def test_a_mean_far_from_zero_costs_no_digits():
    x = (normal(64, 8) + 1e4).astype(np.float32)
    exact = rg.layer_norm(rg.tensor(x.astype(np.float64)), normalized_shape=8).numpy()
    np.testing.assert_allclose(rg.layer_norm(rg.tensor(x), normalized_shape=8).numpy(), exact, atol=5e-3)
    exact = rg.batch_norm(rg.tensor(x.astype(np.float64)))[0].numpy()
    np.testing.assert_allclose(rg.batch_norm(rg.tensor(x))[0].numpy(), exact, atol=5e-3)


@pytest.mark.parametrize("length", [normalization._LONG, normalization._LONG + 1, 100_000])
def test_long_rows_in_float32(length):
    x, w = normal(2, length), normal(length)
    g = normal(2, length)
    results = []
    for dtype in (np.float64, np.float32):
        t, v = (rg.tensor(a.astype(dtype), requires_grad=True) for a in (x, w))
        out = rg.layer_norm(t, v, normalized_shape=length)
        out.backward(rg.tensor(g.astype(dtype)))
        results.append([out.numpy(), t.grad.numpy(), v.grad.numpy()])
    for single, exact in zip(*results[::-1], strict=True):
        np.testing.assert_allclose(single, exact, rtol=1e-5, atol=1e-5)


def run(function, *arrays):
    given = [rg.tensor(a, requires_grad=True) for a in arrays]
    out = function(*given)
    out.backward(rg.tensor(np.sin(np.arange(out.size)).reshape(out.shape)))
    return [out.numpy(), *[t.grad.numpy() for t in given]]


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (lambda *a: rg.layer_norm(*a, normalized_shape=5), [(7, 5), (5,), (5,)]),
        (lambda *a: rg.rms_norm(*a, normalized_shape=5), [(7, 5), (5,)]),
        (lambda *a: rg.batch_norm(*a)[0], [(4, 7, 3), (7,), (7,)]),
        (lambda x: rg.batch_norm(x)[0], [(4, 7, 3)]),
    ],
)
def test_blocks_of_any_size_give_the_same(monkeypatch, function, shapes):
    arrays = [normal(*s) for s in shapes]
    whole = run(function, *arrays)
    for block in (1, 12, 29):
        monkeypatch.setattr(normalization, "BLOCK", block)
        for a, b in zip(run(function, *arrays), whole, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)


def test_empty_batches():
    for axes, out in (
        ((0, 4), rg.layer_norm(rg.ones((0, 4)), normalized_shape=4)),
        ((0, 4), rg.rms_norm(rg.ones((0, 4)), normalized_shape=4)),
        ((0, 4, 2), rg.group_norm(rg.ones((0, 4, 2)), 2)),
    ):
        assert out.shape == axes
    x, w = rg.ones((0, 4, 2)).requires_grad_(), rg.ones(4).requires_grad_()
    out, mean, var = rg.batch_norm(x, w)
    out.sum().backward()
    assert (x.grad.shape, w.grad.tolist()) == ((0, 4, 2), [0.0] * 4)
    assert (mean.tolist(), var.tolist()) == ([0.0] * 4, [1.0] * 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: rg.layer_norm(rg.ones((2, 4)), normalized_shape=3),
            r"layer_norm.*x must end with the axes .*\(3,\), got shape \(2, 4\)",
        ),
        (
            lambda: rg.layer_norm(rg.ones(4), normalized_shape=(2, 4)),
            r"x must end with the axes .*\(2, 4\), got shape \(4,\)",
        ),
        (
            lambda: rg.layer_norm(rg.ones((2, 4)), normalized_shape=()),
            r"x must end with the axes normalized_shape=\(\)",
        ),
        (
            lambda: rg.layer_norm(rg.ones((2, 4)), rg.ones(2), normalized_shape=4),
            r"weight must have shape .*\(4,\), got \(2,\)",
        ),
        (
            lambda: rg.layer_norm(rg.ones((2, 4)), None, rg.ones((1, 4)), normalized_shape=4),
            r"bias must have shape .*\(4,\), got \(1, 4\)",
        ),
        (lambda: rg.rms_norm(rg.ones((2, 4)), rg.ones(2), normalized_shape=4), r"rms_norm.*weight must have shape"),
        (lambda: rg.group_norm(rg.ones((2, 4)), 3), r"group_norm: num_groups=3 must divide the channels of x"),
        (
            lambda: rg.group_norm(rg.ones((2, 4)), 2, rg.ones(2)),
            r"group_norm: weight must have shape \(4,\), got \(2,\)",
        ),
        (lambda: rg.batch_norm(rg.ones(4)), r"batch_norm.*x must have shape \(N, C, …\), got \(4,\)"),
        (
            lambda: rg.batch_norm(rg.ones((2, 4)), rg.ones(2)),
            r"weight must have shape \(4,\), one number per channel; got \(2,\)",
        ),
        (lambda: rg.batch_norm(rg.ones((1, 4))), r"need more than one value per channel, got shape \(1, 4\)"),
        (lambda: rg.batch_norm_inference(rg.ones((1, 4)), rg.ones(4), rg.ones(3)), r"var must have shape \(4,\)"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
