"""Attention: PyTorch's values, gradients and masks; blocks, kept and recomputed probabilities; errors."""

import math

import numpy as np
import pytest
import retrograd as rg
from hypothesis import given, settings
from hypothesis import strategies as st
from retrograd.autograd_core.context import reference_tier
from retrograd.autograd_core.operations import attention
from retrograd.backends import kernel_tier

RNG = np.random.default_rng(0)
fast_only = pytest.mark.skipif(kernel_tier() == "reference", reason="a property of the fast path")


def normal(*shape):
    return RNG.normal(size=shape)


def torch_attention():
    return pytest.importorskip("torch").nn.functional.scaled_dot_product_attention


@st.composite
def calls(draw):
    """Query, key and value, a mask of some kind or None, and options."""
    lead = draw(st.sampled_from([(), (2,), (2, 3), (1, 2), (2, 1, 3)]))
    queries, keys, width, out = (draw(st.integers(1, 5)) for _ in range(4))
    arrays = [normal(*lead, n, w) for n, w in ((queries, width), (keys, width), (keys, out))]
    causal = draw(st.booleans())
    mask = None
    if not causal and draw(st.booleans()):
        shape = draw(
            st.sampled_from(
                [(queries, keys), (1, keys), (*lead, queries, keys), (*lead[:-1], *[1] * bool(lead), 1, keys)]
            )
        )
        mask = normal(*shape) if draw(st.booleans()) else RNG.random(shape) > 0.4
    return arrays, mask, {"is_causal": causal, "scale": draw(st.sampled_from([None, 0.3]))}


@pytest.mark.parity
@settings(max_examples=100)
@given(calls())
def test_against_torch(against_torch, drawn):
    arrays, mask, options = drawn
    theirs = torch_attention()
    against_torch(
        lambda *a: rg.scaled_dot_product_attention(*a, **options), lambda *a: theirs(*a, **options), *arrays, mask
    )


@pytest.mark.parity
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float16, 5e-3)])
def test_narrow_dtypes(against_torch, dtype, tolerance):
    theirs = torch_attention()
    arrays = [normal(2, 3, 9, 8).astype(dtype) for _ in range(3)]
    against_torch(
        lambda *a: rg.scaled_dot_product_attention(*a, is_causal=True),
        lambda *a: theirs(*a, is_causal=True),
        *arrays,
        tolerance=tolerance,
    )


@pytest.mark.parity
def test_second_order_with_a_dead_row():
    torch = pytest.importorskip("torch")
    arrays = [normal(2, 3, 4), normal(2, 5, 4), normal(2, 5, 3)]
    mask = RNG.random((3, 5)) > 0.3
    mask[1] = False

    ours = [rg.tensor(a, requires_grad=True) for a in arrays]
    out = rg.scaled_dot_product_attention(*ours, rg.tensor(mask))
    (out**3).sum().backward(create_graph=True, inputs=ours[:1])
    g = ours[0].grad
    (g * g).sum().backward(inputs=ours[1:])
    # PyTorch's kernels have no second order, so its side is written out; a dead row is left out by hand.
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
    q, k, v = theirs
    scores = (q @ k.mT / 2).masked_fill(~torch.tensor(mask), -math.inf)
    alive = torch.tensor(mask.any(axis=1))
    out = torch.softmax(scores[:, alive], -1) @ v
    (g,) = torch.autograd.grad((out**3).sum(), q, create_graph=True)
    (g * g).sum().backward(inputs=theirs[1:])
    for a, b in zip(ours[1:], theirs[1:], strict=True):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-10, atol=1e-12)


def run(*arrays, **options):
    given = [a if a is None else rg.tensor(a) for a in arrays]
    wanted = [t.requires_grad_() for t in given if t is not None and t.dtype.kind == "f"]
    out = rg.scaled_dot_product_attention(*given, **options)
    out.backward(rg.tensor(np.sin(np.arange(out.size)).reshape(out.shape)))
    return [out.numpy(), *[t.grad.numpy() for t in wanted]]


def same(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)


MASKS = {
    "none": lambda: None,
    "boolean": lambda: RNG.random((6, 5)) > 0.3,
    "padding": lambda: RNG.random((2, 1, 1, 5)) > 0.3,
    "floating": lambda: normal(3, 1, 5),
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("width", [2, 9])  # narrow heads: probabilities are computed again, wide ones: kept
def test_blocks_of_any_size_give_what_the_definition_gives(monkeypatch, mask, is_causal, width):
    arrays = [normal(2, 3, 6, width), normal(2, 3, 5, width), normal(2, 3, 5, 2), MASKS[mask]()]
    with reference_tier():
        expected = run(*arrays, is_causal=is_causal)
    for scores in (1, 11, 30, 65, 1000):
        monkeypatch.setattr(attention, "_HOST_BLOCK", scores)
        monkeypatch.setattr(attention, "_DEVICE_BLOCK", scores)
        same(run(*arrays, is_causal=is_causal), expected)


@fast_only
def test_large_probabilities_are_not_kept():
    def kept(length, width):
        x = rg.tensor(normal(1, length, width), requires_grad=True)
        node = rg.scaled_dot_product_attention(x, x, x).node
        return [v for v in node.saved if getattr(v, "shape", ())[-2:] == (length, length)]

    with rg.use_backend("numpy"):
        assert len(kept(8, 3)) == 1
        assert kept(40, 3) == []


@pytest.mark.parametrize("mask", [np.zeros((2, 3), bool), np.full((2, 3), -np.inf)])
@pytest.mark.parametrize("is_causal", [False, True])
def test_a_query_that_may_see_nothing_gives_zeros(mask, is_causal):
    arrays = [normal(2, 4), normal(3, 4), normal(3, 2)]
    mask[1, 0] = 1 if mask.dtype == bool else 0
    out, dq, dk, dv, *_ = run(*arrays, mask, is_causal=is_causal)
    np.testing.assert_array_equal(out[0], 0)
    np.testing.assert_allclose(out[1], arrays[2][0])
    np.testing.assert_array_equal(dq[0], 0)
    assert np.isfinite(dk).all()
    np.testing.assert_array_equal(dv[1:], 0)


def test_causal_and_padding_together():
    q, k, v = (normal(2, 4, 3) for _ in range(3))
    padding = np.array([[[True, True, False, False]], [[True, True, True, True]]])
    both = padding & np.tri(4, dtype=bool)
    same(run(q, k, v, padding, is_causal=True), run(q, k, v, both))


def test_huge_scores_do_not_overflow():
    x, v = 1e4 * np.eye(3), normal(3, 2)
    np.testing.assert_array_equal(run(x, x, v)[0], v)


def test_broadcast_heads_get_the_sum_of_gradients():
    q, k, v = normal(2, 3, 4, 2), normal(4, 2), normal(3, 4, 2)
    whole = run(q, *(np.broadcast_to(a, (2, 3, 4, 2)) for a in (k, v)))
    found = run(q, k, v)
    same(found[:2], whole[:2])
    same(found[2:], [whole[2].sum(axis=(0, 1)), whole[3].sum(axis=0)])


@fast_only
def test_heads_lie_in_the_result_as_in_the_query():
    with rg.use_backend("numpy"):
        x = rg.tensor(normal(2, 5, 3, 4)).transpose(0, 2, 1, 3)  # heads split off the last axis
        out = rg.scaled_dot_product_attention(x, x, x)
        joined = out.transpose(0, 2, 1, 3).reshape(2, 5, 12)
        assert np.may_share_memory(joined.array, out.array)


def test_empty():
    assert run(normal(0, 2, 3, 4), normal(0, 2, 5, 4), normal(0, 2, 5, 1))[0].shape == (0, 2, 3, 1)
    out, dq, *_ = run(normal(2, 3, 4), normal(2, 0, 4), normal(2, 0, 1))
    np.testing.assert_array_equal(out, np.zeros((2, 3, 1)))
    np.testing.assert_array_equal(dq, np.zeros((2, 3, 4)))


@pytest.mark.parametrize(
    ("shapes", "mask", "error", "message"),
    [
        (((3,), (3, 4), (3, 4)), None, ValueError, r"query must have shape \(…, length, width\), got \(3,\)"),
        (((3, 4), (3, 5), (3, 4)), None, ValueError, "query and key must be equally wide, got heads of 4 and 5"),
        (((3, 4), (3, 4), (2, 4)), None, ValueError, "there must be one value per key, got 3 keys and 2 values"),
        (
            ((2, 3, 4), (3, 3, 4), (3, 3, 4)),
            None,
            ValueError,
            r"must have the same axes .* got \(2, 3, 4\), \(3, 3, 4\)",
        ),
        (
            ((3, 4), (5, 4), (5, 4)),
            np.ones((3, 4), bool),
            ValueError,
            r"mask of shape \(3, 4\) must .* scores \(3, 5\)",
        ),
        (((3, 4), (5, 4), (5, 4)), np.ones((2, 3, 5), bool), ValueError, r"mask of shape \(2, 3, 5\) must broadcast"),
        (
            ((3, 4), (5, 4), (5, 4)),
            np.ones((3, 5), int),
            TypeError,
            "mask must be boolean .* or floating .*, got int64",
        ),
    ],
)
def test_errors(shapes, mask, error, message):
    arrays = [rg.ones(s) for s in shapes]
    with pytest.raises(error, match=f"^scaled_dot_product_attention.*{message}"):
        rg.scaled_dot_product_attention(*arrays, mask if mask is None else rg.tensor(mask))
