"""The graph and the walk over it: backward and its options, accumulation and who owns what, hooks."""

import gc
import weakref

import numpy as np
import pytest
import retrograd as rg
from retrograd.autograd_core.dispatch import function_of
from retrograd.autograd_core.record import Record


def leaf(*values, dtype=np.float64):
    return rg.tensor(np.array(values, dtype), requires_grad=True)


def grads(*tensors):
    return [t.grad.tolist() for t in tensors]


# -- backward and its options -----------------------------------------------------------------------------------


def test_a_tensor_used_often_gets_the_sum_of_all_its_gradients():
    x = leaf(2.0, 3.0)
    y = x * x + x * 3 + x
    (y * y + x).sum().backward()
    # d/dx of (x² + 4x)² + x
    assert x.grad.tolist() == [2 * (4 + 8) * (4 + 4) + 1, 2 * (9 + 12) * (6 + 4) + 1]


def test_backward_adds_to_the_gradient_that_is_there():
    x = leaf(1.0, 2.0)
    (x * 3).sum().backward()
    (x * 4).sum().backward()
    assert x.grad.tolist() == [7.0, 7.0]


def test_a_leaf_has_itself_as_its_graph():
    x = leaf(5.0)
    x.backward()
    assert x.grad.tolist() == [1.0]
    assert x.is_leaf


def test_backward_with_a_cotangent():
    x = leaf(1.0, 2.0)
    (x * x).backward(rg.tensor([10.0, 100.0]))
    assert x.grad.tolist() == [20.0, 400.0]
    assert x.grad.dtype == np.float64
    x.grad = None
    (x * x).backward(np.array([1.0, 2.0]))
    assert x.grad.tolist() == [2.0, 8.0]


def test_backward_of_many_needs_a_cotangent_of_its_shape():
    x = leaf(1.0, 2.0)
    with pytest.raises(ValueError, match=r"one element, got shape \(2,\).*\.sum\(\)"):
        (x * x).backward()
    with pytest.raises(ValueError, match=r"shape of the result, \(2,\).*\(3,\)"):
        (x * x).backward(rg.tensor([1.0, 2.0, 3.0]))


def test_backward_from_several_tensors_at_once():
    x = leaf(3.0)
    y = x * x
    rg.backward([y, y * x], [None, None])
    assert x.grad.tolist() == [6.0 + 27.0]


def test_a_graph_is_freed_unless_it_is_retained():
    x = leaf(3.0)
    y = x * x
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.tolist() == [12.0]
    with pytest.raises(
        RuntimeError, match=r"graph of multiply was freed by an earlier backward pass. Pass retain_graph=True"
    ):
        y.backward()
    assert x.grad.tolist() == [12.0]


def test_a_part_of_a_freed_graph_cannot_be_walked_again():
    x = leaf(3.0)
    y = x * x
    (y + 1).backward()
    with pytest.raises(RuntimeError, match="graph of multiply was freed"):
        (y * 2).backward()


def test_freeing_drops_what_the_rules_had_saved():
    x = leaf(3.0)
    inner = x * 2
    kept = weakref.ref(inner.array)
    y = rg.square(inner)
    del inner
    assert kept() is not None
    y.backward()
    assert kept() is None


def test_no_graph_is_said_with_the_mend():
    with pytest.raises(
        RuntimeError, match=r"nothing that it was computed from requires a gradient. Set requires_grad=True"
    ):
        rg.tensor([1.0]).backward()
    with rg.no_grad():
        y = leaf(1.0) * 2
    with pytest.raises(RuntimeError, match="no_grad"):
        y.backward()
    with pytest.raises(RuntimeError, match="cannot have a graph: int64"):
        rg.tensor([1]).backward()


def test_create_graph_gives_gradients_of_gradients():
    x = leaf(2.0)
    (x**3).backward(create_graph=True)
    first = x.grad
    x.grad = None
    first.backward(create_graph=True)
    second = x.grad
    x.grad = None
    second.backward()
    assert (first.item(), second.item(), x.grad.item()) == (12.0, 12.0, 6.0)


def test_create_graph_retains_the_graph_and_a_plain_walk_makes_none():
    x = leaf(2.0)
    y = x**3
    y.backward(create_graph=True)
    y.backward()
    assert x.grad.item() == 24.0
    x.grad = None
    (x**3).backward()
    assert not x.grad.requires_grad
    assert x.grad.is_leaf


def test_inputs_limits_where_gradients_go():
    x, w = leaf(2.0), leaf(3.0)
    y = x * w
    z = y * y
    z.backward(inputs=[w], retain_graph=True)
    assert x.grad is None
    assert w.grad.tolist() == [2 * 6.0 * 2.0]
    z.backward(inputs=y, retain_graph=True)
    assert y.grad.tolist() == [12.0]
    with pytest.raises(RuntimeError, match="does not require one"):
        z.backward(inputs=[rg.tensor([1.0])])


def test_inputs_prunes_the_walk():
    """No rule runs that leads to none of the inputs asked for, so what is off the way stays unfreed too."""
    x, w = leaf(2.0), leaf(3.0)
    frozen = rg.exp(x)
    (frozen * w).backward(inputs=[w])
    assert w.grad.tolist() == [np.exp(2.0)]
    frozen.backward()
    assert x.grad.tolist() == [np.exp(2.0)]


def test_an_input_that_is_not_reached_gets_no_gradient():
    x, w = leaf(2.0), leaf(3.0)
    (x * 2).backward(inputs=[x, w])
    assert x.grad.tolist() == [2.0]
    assert w.grad is None


def test_unused_outputs_of_an_operation_with_several():
    x = leaf(1.0, 2.0, 3.0, 4.0)
    first, _, third, _ = rg.split(x, 4)
    (first * 5 + third * third).sum().backward()
    assert x.grad.tolist() == [5.0, 0.0, 6.0, 0.0]


def test_second_order_through_an_operation_with_several_outputs_that_reads_them():
    """Two ways lead back to each output, one through its users and one through the rule; both must count."""

    def both(xp, x, /):
        return [xp.exp(x), x * x]

    def rule(ops, needs, g, x, out):
        given = [ops.zeros(x.shape, like=x) if part is None else part for part in g]
        return [ops.add(ops.multiply(given[0], out[0]), ops.multiply(given[1], ops.add(x, x)))]

    function = function_of(Record("both", "movement", both, derivative=rule, multiple=True))
    x = leaf(0.5, 1.5)
    e, s = function(x)
    (e * e * s).sum().backward(create_graph=True)
    g, x.grad = x.grad, None
    g.sum().backward()
    v = x.numpy()
    expected = np.exp(2 * v) * (4 * v**2 + 8 * v + 2)
    np.testing.assert_allclose(x.grad.numpy(), expected, rtol=1e-12)


def test_gradients_have_the_dtype_and_shape_of_their_leaves():
    narrow = rg.tensor(np.ones((3, 1), np.float32), requires_grad=True)
    wide = rg.tensor(np.ones(4), requires_grad=True)
    (narrow * wide).sum().backward()
    assert (narrow.grad.dtype, narrow.grad.shape) == (np.float32, (3, 1))
    assert (wide.grad.dtype, wide.grad.shape) == (np.float64, (4,))
    assert narrow.grad.tolist() == [[4.0]] * 3
    assert wide.grad.tolist() == [3.0] * 4


def test_only_floating_tensors_require_gradients():
    with pytest.raises(TypeError, match="int64"):
        rg.tensor([1, 2], requires_grad=True)
    x = leaf(1.5)
    assert not (x > 1).requires_grad
    assert not x.astype("int64").requires_grad
    with pytest.raises(RuntimeError, match="only a leaf can stop"):
        (x * 2).requires_grad_(False)


# -- accumulation and who owns what -----------------------------------------------------------------------------


@pytest.mark.parametrize("create_graph", [False, True])
def test_the_callers_cotangent_is_never_changed_nor_kept(create_graph):
    x = leaf(1.0, 2.0)
    given = rg.tensor([5.0, 7.0], dtype=np.float64)
    rg.positive(x).backward(given, create_graph=create_graph)
    rg.positive(x).backward(given)
    (x * 1).sum().backward()
    assert given.tolist() == [5.0, 7.0]
    assert x.grad.tolist() == [11.0, 15.0]
    array = np.array([1.0, 2.0])
    x.grad = None
    x.backward(array)
    x.backward(array)
    assert array.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("create_graph", [False, True])
def test_leaves_with_equal_gradients_do_not_share_one_array(create_graph):
    x, y, z = leaf(1.0, 2.0), leaf(3.0, 4.0), leaf(5.0, 6.0)
    (x + y + rg.reshape(z, (2,))).sum().backward(create_graph=create_graph)
    (x + y + z).sum().backward()
    assert grads(x, y, z) == [[2.0, 2.0]] * 3
    with rg.no_grad():
        x.grad.mul_(10)
    assert grads(x, y, z) == [[20.0, 20.0], [2.0, 2.0], [2.0, 2.0]]


@pytest.mark.parametrize("create_graph", [False, True])
def test_a_gradient_that_is_a_view_is_copied_before_it_is_added_to(create_graph):
    x = leaf(1.0, 2.0, 3.0)
    rg.sum(x).backward(create_graph=create_graph)  # its rule gives a broadcast view of one number
    rg.flip(x).backward(rg.tensor([1.0, 2.0, 3.0]))
    assert x.grad.tolist() == [4.0, 3.0, 2.0]


def test_a_gradient_set_by_the_user_is_added_to():
    x = leaf(1.0, 2.0)
    mine = rg.tensor(np.array([10.0, 20.0]))
    x.grad = mine
    (x * x).sum().backward()
    assert x.grad.tolist() == [12.0, 24.0]


def test_a_gradient_that_lies_in_a_graph_is_not_written_into():
    x = leaf(1.0, 2.0)
    y = x * 3
    x.grad = y.detach()
    (x * x).sum().backward()
    assert x.grad.tolist() == [5.0, 10.0]
    assert y.tolist() == [3.0, 6.0]


def test_intermediate_sums_do_not_change_what_rules_still_need():
    """The walk adds in place only into sums of its own: here one cotangent goes three ways at once."""
    x, y = leaf(2.0), leaf(3.0)
    s = x + y
    (s + s + x + y + s * x).backward()
    assert grads(x, y) == [[2 + 1 + 2 + 5], [2 + 1 + 2]]


def test_getitem_gradients_are_scattered_into_one_buffer():
    x = leaf(*range(6))
    total = x[0] * 1
    for i in range(1, 6):
        total = total + x[i] * (i + 1)
    (total + x[[1, 1, 2]].sum() + x[::2].sum() + (x * 100).sum()).backward()
    assert x.grad.tolist() == [102.0, 104.0, 105.0, 104.0, 106.0, 106.0]


# -- hooks ------------------------------------------------------------------------------------------------------


def test_hooks_see_the_complete_gradient_and_may_replace_it():
    x = leaf(2.0)
    seen = []
    y = x * 3
    y.register_hook(lambda g: seen.append(("y", g.item())))
    y.register_hook(lambda g: g * 10)
    x.register_hook(lambda g: seen.append(("x", g.item())))
    (y * y + y).backward()
    assert seen == [("y", 13.0), ("x", 390.0)]
    assert x.grad.tolist() == [390.0]


def test_hooks_are_removed_by_their_handles():
    x = leaf(2.0)
    seen = []
    handle = x.register_hook(lambda g: seen.append(1))
    with x.register_hook(lambda g: seen.append(2)):
        (x * 1).backward()
    (x * 1).backward()
    handle.remove()
    handle.remove()
    (x * 1).backward()
    assert seen == [1, 2, 1]


def test_hooks_run_in_their_order_and_with_create_graph_differentiably():
    x = leaf(3.0)
    y = x * x
    y.register_hook(lambda g: g * x)
    y.backward(create_graph=True)  # 2x·x
    g, x.grad = x.grad, None
    g.backward()
    assert g.item() == 18.0
    assert x.grad.item() == 12.0


def test_a_hook_must_return_something_like_its_gradient():
    x = leaf(1.0, 2.0)
    x.register_hook(lambda g: g.sum())
    with pytest.raises(TypeError, match=r"a gradient like its own, float64 \(2,\)"):
        (x * 1).sum().backward()
    with pytest.raises(RuntimeError, match="does not require a gradient"):
        rg.tensor([1.0]).register_hook(print)


@pytest.mark.parametrize("create_graph", [False, True])
def test_what_a_hook_keeps_or_returns_stays_its_own(create_graph):
    x = leaf(1.0, 2.0)
    kept = []
    y = rg.positive(x)
    y.register_hook(kept.append)
    (y * 3).sum().backward(create_graph=create_graph)
    (x * 1).sum().backward()
    assert kept[0].tolist() == [3.0, 3.0]
    assert x.grad.tolist() == [4.0, 4.0]

    x.grad = None
    constant = rg.tensor(np.array([5.0, 5.0]))
    with x.register_hook(lambda g: constant):
        (x * 3).sum().backward(create_graph=create_graph)
    (x * 1).sum().backward()
    assert constant.tolist() == [5.0, 5.0]
    assert x.grad.tolist() == [6.0, 6.0]


def test_retain_grad_stores_the_gradient_of_a_result():
    x = leaf(2.0)
    y = x * 3
    y.retain_grad()
    z = y * y
    z.backward()
    assert y.grad.tolist() == [12.0]
    assert z.grad is None
    x.retain_grad()  # nothing to do on a leaf


def test_retain_grad_adds_up_over_walks():
    x = leaf(2.0)
    y = x * 3
    y.retain_grad()
    y.backward(retain_graph=True)
    y.backward()
    assert y.grad.tolist() == [2.0]


def test_retain_grad_does_not_keep_the_result_alive():
    x = leaf(2.0)
    y = x * 3
    y.retain_grad()
    z = y * y
    gone = weakref.ref(y)
    gc.disable()
    try:
        del y
        assert gone() is None
    finally:
        gc.enable()
    z.backward()
    assert x.grad.tolist() == [36.0]
