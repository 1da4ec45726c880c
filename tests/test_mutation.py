"""What may be changed in place, and how a change that a graph would not survive is noticed."""

import numpy as np
import pytest
import retrograd as rg


def leaf(*values):
    return rg.tensor(np.array(values, np.float64), requires_grad=True)


def constant(*values):
    return rg.tensor(np.array(values, np.float64))


CHANGED = r"gradient of {} needs was changed in place after the forward pass"


# -- versions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "name"),
    [
        (lambda x: x * x, "multiply"),
        (lambda x: rg.sin(x), "sin"),
        (lambda x: x * 3.0 / x, "divide"),
        (lambda x: rg.sum(x[1:] * constant(2.0, 3.0)) + rg.sum(rg.square(rg.reshape(x, (3, 1)))), "square"),
        (lambda x: x @ x, "matmul"),
        (lambda x: rg.softmax(x) @ x, "matmul"),
        (lambda x: rg.where(x > 0, rg.log(x), x), "log"),
    ],
)
def test_a_saved_leaf_that_changes_is_named_by_the_operation(operation, name):
    x = leaf(1.0, 2.0, 3.0)
    y = rg.sum(operation(x))
    with rg.no_grad():
        x.mul_(2)
    with pytest.raises(RuntimeError, match=CHANGED.format(name)):
        y.backward()
    assert x.grad is None


def test_a_change_of_what_no_rule_reads_is_no_error():
    x = leaf(1.0, 2.0)
    y = (x + 1 - x * 3).sum()
    with rg.no_grad():
        x.zero_()
    y.backward()
    assert x.grad.tolist() == [-2.0, -2.0]


def test_a_change_after_backward_is_no_error():
    x = leaf(1.0, 2.0)
    for _ in range(3):
        x.grad = None
        (x * x).sum().backward()
        with rg.no_grad():
            x.sub_(x.grad * 0.5)
    assert x.tolist() == [0.0, 0.0]


def test_constants_have_versions_too():
    x, c = leaf(1.0, 2.0), constant(3.0, 4.0)
    y = (x * c).sum()
    c[0] = 100.0
    with pytest.raises(RuntimeError, match=CHANGED.format("multiply")):
        y.backward()


VIEWS = {
    "slice": lambda t: t[1:],
    "element": lambda t: t[0],
    "reshape": lambda t: rg.reshape(t, (2, 1)),
    "transpose": lambda t: rg.reshape(t, (1, 2)).T,
    "flip": lambda t: rg.flip(t),
    "expand_dims": lambda t: rg.expand_dims(t, 0),
    "split": lambda t: rg.split(t, 2)[1],
    "detach": lambda t: t.detach(),
    "data": lambda t: t.data,
}


@pytest.mark.parametrize("view", VIEWS)
def test_a_change_through_a_view_is_noticed(view):
    x, c = leaf(1.0, 2.0), constant(3.0, 4.0)
    through_constant = (x * c).sum()
    through_leaf = (x * x).sum()
    with rg.no_grad():
        VIEWS[view](c).add_(1)
        VIEWS[view](x).add_(1)
    for y in (through_constant, through_leaf):
        with pytest.raises(RuntimeError, match=CHANGED.format("multiply")):
            y.backward()


def test_a_change_of_the_whole_is_noticed_by_a_graph_that_saved_a_view():
    x, c = leaf(1.0, 2.0), constant(3.0, 4.0, 5.0)
    y = (x * c[1:]).sum()
    c.zero_()
    with pytest.raises(RuntimeError, match=CHANGED.format("multiply")):
        y.backward()


def test_a_copy_has_a_version_of_its_own():
    x, c = leaf(1.0, 2.0), constant(3.0, 4.0)
    for copied in (rg.tensor(c), c[[0, 1]], c.astype("float64"), rg.positive(c), c * 1):
        y = (x * copied).sum()
        c.add_(1)
        y.backward()
        assert copied.tolist() != c.tolist()


def test_values_in_a_graph_cannot_be_changed_by_any_way():
    x = leaf(1.0, 2.0)
    y = rg.exp(x)
    value = y.tolist()
    with rg.no_grad():
        ways = {"add_": lambda: y.add_(1), "setitem": lambda: y.__setitem__(0, 5.0)}
        for name, other in {
            "detach": y.detach(),
            "data": y.data,
            "view": y[:1],
            "transposed": y.reshape(1, 2).T,
        }.items():
            ways[f"{name}.add_"] = lambda other=other: other.add_(1)
            ways[f"{name}.setitem"] = lambda other=other: other.__setitem__(0, 5.0)
            ways[f"{name}.data"] = lambda other=other: setattr(other, "data", other * 2)
        for name, change in ways.items():
            with pytest.raises(RuntimeError):
                change()
            assert y.tolist() == value, name
    y.sum().backward()
    assert x.grad.tolist() == value


def test_results_made_without_a_graph_are_leaves_and_may_change():
    with rg.no_grad():
        y = rg.exp(leaf(1.0, 2.0))
    y.add_(1)
    z = constant(1.0) * 2
    z.mul_(4)
    assert z.tolist() == [8.0]


# -- in-place methods -------------------------------------------------------------------------------------------


def test_in_place_methods_change_the_memory_and_return_the_tensor():
    c = constant(1.0, 2.0)
    memory = c.array
    for change, expected in (
        (lambda: c.add_(1), [2.0, 3.0]),
        (lambda: c.add_(constant(1.0, 1.0), alpha=3), [5.0, 6.0]),
        (lambda: c.sub_(1), [4.0, 5.0]),
        (lambda: c.mul_(np.array([2.0, 3.0])), [8.0, 15.0]),
        (lambda: c.div_(2), [4.0, 7.5]),
        (lambda: c.copy_(constant(9.0, 8.0)), [9.0, 8.0]),
        (lambda: c.fill_(3), [3.0, 3.0]),
        (lambda: c.lerp_(constant(5.0, 7.0), 0.5), [4.0, 5.0]),
        (lambda: c.clamp_(4.5), [4.5, 5.0]),
        (lambda: c.clamp_(max=4.75), [4.5, 4.75]),
        (lambda: c.zero_(), [0.0, 0.0]),
    ):
        assert change() is c
        assert c.tolist() == expected
        assert c.array is memory


@pytest.mark.parametrize("compiled", [False, True])
def test_what_data_gave_keeps_its_values_when_others_are_assigned(compiled):
    w, average = rg.nn.Parameter(rg.tensor([1.0, 2.0])), rg.tensor([5.0, 6.0])

    def swapped(x):
        kept = w.data
        w.data = average
        found = w * x
        w.data = kept
        return found.detach()

    step = rg.compile(swapped) if compiled else swapped
    for _ in range(6):
        assert step(rg.ones(2)).tolist() == [5.0, 6.0]
        assert w.tolist() == [1.0, 2.0]
    w.data = w.data.clamp_(max=1.5)
    before, w.data = w.data, w.data * 2
    assert (before.tolist(), w.tolist()) == ([1.0, 1.5], [2.0, 3.0])
    w.data.add_(1)
    assert (before.tolist(), w.tolist(), average.tolist()) == ([1.0, 1.5], [3.0, 4.0], [5.0, 6.0])


def test_in_place_methods_keep_the_dtype():
    c = rg.tensor([1.0, 2.0])
    c.add_(np.array([0.5, 0.5]))
    assert c.dtype == np.float32
    n = rg.tensor([1, 2])
    n.add_(1)
    assert n.dtype == np.int64


def test_a_leaf_that_requires_grad_changes_under_no_grad_only():
    x = leaf(1.0)
    for change in (lambda: x.add_(1), lambda: x.zero_(), lambda: x.copy_(x), lambda: x.div_(2)):
        with pytest.raises(RuntimeError, match=r"with rg.no_grad\(\)"):
            change()
    assert x.tolist() == [1.0]
    with rg.no_grad():
        x.add_(1)
    assert x.tolist() == [2.0]
    assert x.requires_grad


def test_results_are_refused_with_the_name_of_their_operation():
    y = leaf(1.0) * 2
    with pytest.raises(RuntimeError, match="add_ on the result of multiply: only leaves"):
        y.add_(1)


def test_a_value_that_does_not_fit_is_refused_and_nothing_is_written():
    c = constant(1.0, 2.0)
    with pytest.raises(ValueError, match=r"float64 .*\(2,\): the shapes differ"):
        c.copy_(constant(1.0, 2.0, 3.0))
    for other in (np.ones((2, 2)), np.ones(2, np.float32)):
        with pytest.raises(ValueError, match=r"data must keep shape and dtype, float64 tensor \(2,\); got float"):
            c.data = other
    with pytest.raises(TypeError, match="imaginary"):
        c.copy_(np.array([1j, 2.0]))
    assert c.tolist() == [1.0, 2.0]


def test_assigning_data_copies_into_the_memory_that_is_there():
    x = leaf(1.0, 2.0)
    memory = x.array
    x.data = constant(5.0, 6.0)
    assert x.array is memory
    assert x.tolist() == [5.0, 6.0]
    assert x.requires_grad
    y = (x * x).sum()
    x.data = x.data * 2
    with pytest.raises(RuntimeError, match=CHANGED.format("multiply")):
        y.backward()


# -- augmented assignment ---------------------------------------------------------------------------------------


def test_augmented_assignment_rebinds_constants_and_results():
    for start in (constant(1.0, 2.0), leaf(1.0, 2.0) * 1):
        x = y = start
        x += 1
        x *= 2
        x -= 1
        x /= 3
        assert x is not y
        assert y.tolist() == [1.0, 2.0]
        assert x.tolist() == [1.0, 5.0 / 3.0]


def test_augmented_assignment_is_differentiable_on_results():
    x = leaf(3.0)
    y = x * 1
    y *= x
    y += x
    y.backward()
    assert x.grad.tolist() == [7.0]


def test_augmented_assignment_of_a_leaf_is_in_place_under_no_grad_and_an_error_elsewhere():
    x = leaf(1.0, 2.0)
    same = x
    with pytest.raises(RuntimeError, match="no_grad"):
        x += 1
    with rg.no_grad():
        x += 1
        x *= 2
        x -= 1
        x /= 3
    assert x is same
    assert x.requires_grad
    assert x.tolist() == [1.0, 5.0 / 3.0]


# -- elements ---------------------------------------------------------------------------------------------------


def test_elements_of_constants_can_be_set():
    c = constant(1.0, 2.0, 3.0)
    c[0] = 5
    c[1:] = constant(6.0, 7.0)
    assert c.tolist() == [5.0, 6.0, 7.0]
    c[np.array([True, False, True])] = 0.0
    c[[1]] = rg.tensor([9.0])
    assert c.tolist() == [0.0, 9.0, 0.0]


def test_elsewhere_setting_elements_is_an_error_that_shows_at():
    x = leaf(1.0, 2.0)
    for target in (x, x * 2):
        with pytest.raises(RuntimeError, match=r"y = x\.at\[index\]\.set\(value\)"):
            target[0] = 1.0
    with rg.no_grad():
        x[0] = 10.0
    assert x.tolist() == [10.0, 2.0]


def test_at_gives_differentiable_changed_copies():
    x, v = leaf(1.0, 2.0, 3.0), leaf(10.0)
    y = x.at[1].set(v[0]) * constant(1.0, 2.0, 3.0)
    z = x.at[[0, 0]].add(v)
    (y.sum() + (z * z).sum()).backward()
    assert x.tolist() == [1.0, 2.0, 3.0]
    assert z.tolist() == [21.0, 2.0, 3.0]
    assert x.grad.tolist() == [1.0 + 42.0, 0.0 + 4.0, 3.0 + 6.0]
    assert v.grad.tolist() == [2.0 + 2 * 42.0]
