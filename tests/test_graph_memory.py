"""Memory goes when the last reference goes, without the collector; and no depth of a graph is too deep."""

import gc
import weakref

import numpy as np
import pytest
import retrograd as rg
from retrograd.autograd_core.graph import Node, Output

DEEP = 100_000


def leaf(*values):
    return rg.tensor(np.array(values, np.float64), requires_grad=True)


def alive():
    """Tensors and nodes that exist, counted by type."""
    counts = dict.fromkeys(("Tensor", "Node", "Output"), 0)
    for thing in gc.get_objects():
        if issubclass(type(thing), (rg.Tensor, Node, Output)):  # isinstance would ask modules of other libraries, too
            counts[type(thing).__name__] = counts.get(type(thing).__name__, 0) + 1
    return counts


@pytest.fixture
def without_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def forward(x):
    return (rg.softmax(rg.sin(x) * x) + rg.split(x, 2)[0].sum()).sum()


def forward_and_backward(x):
    forward(x).backward()


def retained_and_dropped(x):
    y = forward(x)
    y.backward(retain_graph=True)
    y.backward(retain_graph=True)


def second_order(x):
    forward(x).backward(create_graph=True)
    g, x.grad = x.grad, None
    g.sum().backward()


def functional(x):
    rg.grad(rg.grad(lambda v: (v**3).sum()))(2.0)
    rg.value_and_grad(forward)(x)


def hooks(x):
    y = x * 2
    y.retain_grad()
    y.register_hook(lambda g: g * 2)
    x.register_hook(lambda g: None).remove()
    y.sum().backward()


def a_hook_on_a_result_that_never_ran(x):
    (x * 2).register_hook(lambda g: None)


def views(x):
    c = x.detach()
    with rg.no_grad():
        c[1:].add_(1)
    (x[0] * x.reshape(2, 1).T).sum().backward()


def errors(x):
    for wrong in (lambda: x + rg.tensor(np.ones(5)), lambda: x[7], lambda: (x * x).backward(), lambda: x.reshape(3)):
        with pytest.raises((ValueError, IndexError)):
            wrong()
    y = (x * x).sum()
    y.backward()
    with pytest.raises(RuntimeError):
        y.backward()


def an_interrupted_walk(x):
    y = x * 2

    def stop(g):
        raise KeyError("stop")

    y.register_hook(stop)
    with pytest.raises(KeyError):
        (y * y).sum().backward()


def recorded(x):
    from retrograd.autograd_core.recorder import recording

    with recording() as tape:
        forward(x).backward()
    assert len(tape.steps) > 5


def anomaly(x):
    with rg.detect_anomaly():
        forward(x).backward()


@pytest.mark.parametrize(
    "program",
    [
        forward,
        forward_and_backward,
        retained_and_dropped,
        second_order,
        functional,
        hooks,
        a_hook_on_a_result_that_never_ran,
        views,
        errors,
        an_interrupted_walk,
        recorded,
        anomaly,
    ],
    ids=lambda f: f.__name__,
)
def test_nothing_is_left_behind(program, without_collector):
    program(leaf(0.5, 1.5))  # the first run fills caches: generators, tables of functions
    before = alive()
    for _ in range(3):
        program(leaf(0.5, 1.5))
    assert alive() == before


def test_the_count_sees_a_leak(without_collector):
    before = alive()
    kept = [leaf(0.5, 1.5) * 2]
    kept.append(kept)  # type: ignore[arg-type]
    del kept
    assert alive() != before
    gc.enable()
    gc.collect()
    assert alive() == before


def test_a_graph_goes_with_its_last_result(without_collector):
    x = leaf(1.0)
    y = rg.exp(x)
    z = y * y
    nodes = [weakref.ref(y.node), weakref.ref(z.node)]
    array = weakref.ref(y.array)
    del y
    assert all(node() for node in nodes)
    del z
    assert not any(node() for node in nodes)
    assert array() is None


def test_a_leaf_does_not_keep_what_was_made_from_it(without_collector):
    x = leaf(1.0)
    y = x * 2
    result = weakref.ref(y)
    node = weakref.ref(y.node)
    del y
    assert result() is None
    assert node() is None


def test_intermediate_gradients_go_as_the_walk_passes(without_collector):
    x = leaf(*range(10))
    y = x
    seen, most = [], 0
    for _ in range(20):
        y = y * 2

        def note(g):
            nonlocal most
            seen.append(weakref.ref(g))
            most = max(most, sum(r() is not None for r in seen))

        y.register_hook(note)
    y.sum().backward()
    assert len(seen) == 20
    assert most <= 2


def test_tensors_accept_weak_references():
    x = leaf(1.0)
    cache = weakref.WeakKeyDictionary({x: "kept"})
    assert cache[x] == "kept"
    del x
    gc.collect()
    assert len(cache) == 0


# -- depth ------------------------------------------------------------------------------------------------------


def chain(x, n=DEEP):
    for _ in range(n // 2):
        x = -x
        x = x + 1.0
    return x


def test_a_chain_of_100000_operations():
    x = leaf(1.0)
    y = chain(x)
    y.backward()
    assert x.grad.tolist() == [1.0]
    del y


def test_a_deep_graph_can_be_dropped_unwalked(without_collector):
    x = leaf(1.0)
    before = alive()
    y = chain(x)
    assert alive()["Node"] == before["Node"] + DEEP
    del y
    assert alive() == before


def test_a_deep_graph_walked_by_grad_and_towards_inputs():
    assert rg.grad(lambda x: chain(x, DEEP // 2))(2.0).item() == 1.0
    x, w = leaf(1.0), leaf(2.0)
    chain(x * w, DEEP // 2).backward(inputs=[w])
    assert w.grad.tolist() == [1.0]


def test_a_deep_graph_of_gradients():
    x = leaf(0.5)
    y = x
    for _ in range(DEEP // 20):
        y = rg.square(y) - y * y + y
    y.backward(create_graph=True)
    g, x.grad = x.grad, None
    g.backward()
    assert g.tolist() == [1.0]
    assert x.grad.tolist() == [0.0]


def test_deep_sums_of_one_leaf_nested_to_either_side():
    x = leaf(1.0)
    left = right = x * 1
    for _ in range(DEEP // 4):
        left = left + x
        right = x - right
    (left + right).backward()
    assert x.grad.tolist() == [DEEP // 4 + 1 + 1]


def test_a_wide_node():
    x = leaf(1.0)
    rg.sum(rg.concat([x] * 2000) * np.arange(2000.0)).backward()
    assert x.grad.tolist() == [1999 * 1000]


def test_a_diamond_does_not_double_the_work():
    x = leaf(1.0)
    y = x
    for _ in range(60):
        y = y + y  # 2⁶⁰ paths
    y.backward()
    assert x.grad.tolist() == [2.0**60]
