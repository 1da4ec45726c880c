"""The ways out of a graph: asked for they work, and nothing detaches silently."""

import copy
import pickle

import numpy as np
import pytest
import retrograd as rg


def leaf(*values):
    return rg.tensor(np.array(values, np.float64), requires_grad=True)


# -- grad mode --------------------------------------------------------------------------------------------------


def test_no_grad_and_enable_grad_as_blocks():
    x = leaf(1.0)
    with rg.no_grad():
        assert not rg.is_grad_enabled()
        assert not (x * 2).requires_grad
        with rg.enable_grad():
            assert (x * 2).requires_grad
        with rg.set_grad_enabled(True):
            assert rg.is_grad_enabled()
        assert not rg.is_grad_enabled()
    assert (x * 2).requires_grad
    with rg.set_grad_enabled(False):
        assert not rg.is_grad_enabled()


def test_grad_mode_comes_back_after_an_exception():
    with pytest.raises(ZeroDivisionError), rg.no_grad():
        raise ZeroDivisionError
    assert rg.is_grad_enabled()


def test_no_grad_and_enable_grad_as_decorators():
    @rg.no_grad()
    def plain(x):
        return x * 2, tracked(x)

    @rg.enable_grad()
    def tracked(x):
        return x * 2

    for _ in range(2):  # a decorated function is called more than once
        a, b = plain(leaf(1.0))
        assert not a.requires_grad
        assert b.requires_grad
        assert rg.is_grad_enabled()


def test_leaves_made_under_no_grad_may_require_gradients():
    with rg.no_grad():
        x = leaf(1.0)
    (x * 3).backward()
    assert x.grad.tolist() == [3.0]


# -- asked for --------------------------------------------------------------------------------------------------


def test_detach_shares_memory_and_ends_the_gradient():
    x = leaf(2.0)
    d = x.detach()
    assert not d.requires_grad
    assert d.is_leaf
    (x * d).backward()
    assert x.grad.tolist() == [2.0]
    with rg.no_grad():
        x.add_(1)
    assert d.tolist() == [3.0]


def test_numpy_is_a_read_only_view_with_or_without_a_graph():
    x = leaf(1.0, 2.0)
    for t in (x, x * 2, rg.tensor([1, 2])):
        a = t.numpy()
        assert type(a) is np.ndarray
        assert a.tolist() == t.tolist()
        with pytest.raises(ValueError, match="read-only"):
            a[0] = 5
    if x.backend.name == "numpy":
        assert np.shares_memory(x.numpy(), x.array)


def test_item_and_tolist_give_python_numbers():
    assert type((leaf(1.5) * 2).item()) is float
    assert type(rg.tensor([[3]]).item()) is int
    assert type(rg.tensor(True).item()) is bool
    assert rg.tensor(2.5).tolist() == 2.5
    assert leaf(1.0, 2.0).tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match=r"exactly one element, got a tensor of shape \(2,\)"):
        leaf(1.0, 2.0).item()


def test_numbers_formats_and_truth():
    t = rg.tensor([2.0])
    assert float(t) == 2.0
    assert int(t) == 2
    assert complex(t) == 2.0
    assert [10, 20, 30][rg.tensor(1)] == 20
    with pytest.raises(TypeError, match="only integer tensors can be used as an index, got dtype float32"):
        [1, 2][rg.tensor(1.0)]
    x = leaf(0.25)
    assert f"{x:.1f}" == "0.2"
    assert f"{x * 2}" == str(x * 2)
    assert bool(x)
    assert not rg.tensor(0)
    with pytest.raises(ValueError, match=r"ambiguous.*\.any\(\)"):
        bool(leaf(1.0, 2.0))


def test_equal_is_elementwise_and_hash_is_identity():
    x, y = leaf(1.0, 2.0), leaf(1.0, 3.0)
    assert (x == y).tolist() == [True, False]
    assert (x != y).tolist() == [False, True]
    assert len({x, y, x}) == 2
    assert hash(x) == hash(x)


# -- not asked for ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "way",
    [
        np.asarray,
        np.array,
        float,
        int,
        complex,
        lambda t: np.from_dlpack(t),
        lambda t: np.add(np.ones(1), 1, out=t.numpy()) if False else np.array([t, t]),
        lambda t: [1, 2][t],
    ],
)
def test_nothing_detaches_silently(way):
    x = leaf(1.0)
    for t in (x, x * 2):
        with pytest.raises((TypeError, BufferError)):
            way(t)


def test_the_error_names_the_ways_out():
    with pytest.raises(TypeError, match=r"\.item\(\) or \.detach\(\)"):
        float(leaf(1.0))
    with pytest.raises(TypeError, match=r"\.numpy\(\) or \.detach\(\).*np.stack"):
        np.asarray(leaf(1.0))


def test_numpy_functions_of_tensors_are_differentiable_and_refuse_out():
    x = leaf(1.0, 2.0)
    np.sum(np.exp(x) * np.array([1.0, 2.0])).backward()
    np.testing.assert_allclose(x.grad.numpy(), np.exp([1.0, 2.0]) * [1.0, 2.0])
    with pytest.raises(TypeError, match="out"):
        np.exp(x, out=np.empty(2))
    with pytest.raises(TypeError):
        np.add(rg.tensor([1.0]), 1.0, out=np.empty(1))


def test_arrays_of_tensors_without_gradients_are_numbers():
    t = rg.tensor(np.array([1.0, 2.0]))
    a = np.asarray(t)
    assert a.dtype == np.float64
    assert a.tolist() == [1.0, 2.0]
    assert np.array([t, t]).dtype == np.float64
    written = np.array(t)
    written[0] = 9.0
    assert t.tolist() == [1.0, 2.0]


def test_numpy_cannot_write_into_a_tensor_unseen():
    """What NumPy gets without asking for a copy cannot be written to: no version would count the change."""
    t = rg.tensor(np.array([1.0, 2.0]))
    a = np.asarray(t)
    with pytest.raises(ValueError, match="read-only"):
        a[0] = 5.0
    assert t.tolist() == [1.0, 2.0]


# -- copies -----------------------------------------------------------------------------------------------------


def test_deepcopy_of_leaves():
    x = leaf(1.0, 2.0)
    (x * x).sum().backward()
    pair = copy.deepcopy([x, x])
    y = pair[0]
    assert pair[1] is y
    assert y is not x
    assert y.requires_grad
    assert y.grad.tolist() == [2.0, 4.0]
    with rg.no_grad():
        y.zero_()
        y.grad.zero_()
    assert x.tolist() == [1.0, 2.0]
    assert x.grad.tolist() == [2.0, 4.0]
    with pytest.raises(RuntimeError, match="only leaves can be deep-copied"):
        copy.deepcopy(x * 2)


def test_pickle_of_leaves():
    x = leaf(1.0, 2.0)
    y = pickle.loads(pickle.dumps(x))
    assert (y.tolist(), y.dtype, y.requires_grad, type(y)) == ([1.0, 2.0], np.float64, True, rg.Tensor)
    assert y.dtype is x.dtype  # the quick ways of a call ask no more
    with pytest.raises(RuntimeError, match="only leaves can be pickled"):
        pickle.dumps(x * 2)
