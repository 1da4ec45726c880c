"""Eager fused records on generated kernels: the numbers of the hand-written forms, whatever the operands look like."""

import threading

import numpy as np
import pytest
import retrograd as rg
from retrograd.autograd_core.compile.eager_kernels import MAX_PROGRAMS, QuickForward, QuickRule
from retrograd.autograd_core.context import switched
from retrograd.autograd_core.record import REGISTRY
from retrograd.autograd_core.recorder import recording
from retrograd.backends import get_backend
from retrograd.backends.numpy_backend import NumpyBackend

pytest.importorskip("numba")

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _kernels(monkeypatch):
    monkeypatch.setenv("RETROGRAD_KERNELS", "jit")


def quick(name: str) -> tuple[QuickForward, QuickRule]:
    rec = REGISTRY[name]
    backend = get_backend("numpy")
    written = rec.fast or rec.forward
    from retrograd.autograd_core.record import raw_ops

    def by_hand(*arrays, **attributes):
        out = written(raw_ops(np.ndarray), *arrays, **attributes)
        return out if rec.fast or not rec.residuals else (out, *[None] * len(rec.residuals))

    return QuickForward(rec, backend, by_hand), QuickRule(rec, backend, rec.joint)


def single(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def layouts(x: np.ndarray) -> list[np.ndarray]:
    wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
    wide[..., ::2] = x
    return [x, np.asfortranarray(x), wide[..., ::2], x[::-1].copy()[::-1]]


@pytest.mark.parametrize(
    ("name", "attributes"),
    [("gelu", {"approximate": "tanh"}), ("gelu", {}), ("softmax", {}), ("log_softmax", {"axis": -1})],
)
def test_forward_and_rule_agree_with_the_hand_written_ones(name, attributes):
    forward, rule = quick(name)
    ops = _raw()
    for x in layouts(single(6, 5, 8)):
        out = forward(x, **attributes)
        np.testing.assert_allclose(out, forward.by_hand(x, **attributes), rtol=2e-6, atol=2e-6)
        g = single(6, 5, 8)
        full = REGISTRY[name].defaults | attributes
        given = {"out": out, "input": x}
        reads = [given[source] if source in given else full[key] for source, key in rule.record.joint_reads]
        (dx,) = rule(ops, (True,), g, *reads)
        (expected,) = rule.by_hand(ops, (True,), g, *reads)
        np.testing.assert_allclose(dx, expected, rtol=2e-6, atol=2e-6)
    assert any(program is not None for program in forward.programs.values())
    assert any(program is not None for program in rule.programs.values())


def _raw():
    from retrograd.autograd_core.record import raw_ops

    return raw_ops(np.ndarray)


def test_a_gradient_that_is_the_cotangent_itself_is_not_stale():
    _, rule = quick("layer_norm")
    x = single(5)
    for _ in range(2):
        g = single(5)
        reads = {"x": x, "weight": None, "mean": None, "var": None, "normalized_shape": (5,), "eps": 1e-5}
        values = [reads[p] for p in ("x", "weight", "mean", "var", "normalized_shape", "eps")]
        dx, dw, db = rule(_raw(), (True, False, True), g, *values)
        expected = rule.by_hand(_raw(), (True, False, True), g, *values)
        assert dw is None
        np.testing.assert_allclose(dx, expected[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(db, g)
        g[:] = 7.0  # and it is memory of its own
        assert not (db == 7.0).all()


def test_results_are_fresh_at_every_call():
    forward, _ = quick("gelu")
    x = single(300)
    one = forward(x)
    kept = one.copy()
    two = forward(-x)
    assert not np.shares_memory(one, two)
    np.testing.assert_array_equal(one, kept)


def test_double_precision_products_and_recorded_calls_stay_by_hand():
    forward, _ = quick("gelu")
    forward(RNG.normal(size=7))
    assert list(forward.programs.values()) == [None]
    attention, _ = quick("scaled_dot_product_attention")
    q = single(2, 3, 4)
    attention(q, q, q, None, is_causal=False, scale=None)
    assert list(attention.programs.values()) == [None]
    gelu, _ = quick("gelu")
    with recording():
        gelu(single(7))
    with switched(anomaly=True):
        gelu(single(7))
    assert not gelu.programs


def test_shapes_beyond_the_limit_are_computed_by_hand(monkeypatch):
    monkeypatch.setattr("retrograd.autograd_core.compile.eager_kernels.MAX_PROGRAMS", 2)
    forward, _ = quick("gelu")
    for n in range(1, 6):
        x = single(n)
        np.testing.assert_allclose(forward(x), forward.by_hand(x), rtol=2e-6, atol=2e-6)
    assert len(forward.programs) == 2
    assert MAX_PROGRAMS > 2


def test_threads_do_not_mix_their_numbers():
    forward, _ = quick("log_softmax")
    arrays = [single(64, 50) for _ in range(4)]
    expected = [forward(a) for a in arrays]
    wrong = []

    def work(i):
        wrong.extend(i for _ in range(200) if not np.array_equal(forward(arrays[i]), expected[i]))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_threads_that_meet_a_shape_first_compute_the_same(monkeypatch):
    """The one that comes second waits for the program, and does not compute by hand meanwhile."""
    forward, _ = quick("gelu")
    monkeypatch.setattr(forward, "by_hand", lambda *_, **__: pytest.fail("computed by hand"))
    x, found, together = single(5, 7), {}, threading.Barrier(4)

    def work(number):
        together.wait()
        found[number] = forward(x, approximate="none").tobytes()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(found) == 4
    assert len(set(found.values())) == 1


def test_an_operation_without_kernels_for_it_warns_nothing_and_computes(monkeypatch):
    monkeypatch.setattr(NumpyBackend, "build", lambda self, descriptions: {d.key: None for d in descriptions})
    forward, _ = quick("gelu")
    x = single(40)
    np.testing.assert_allclose(forward(x), forward.by_hand(x), rtol=2e-6, atol=2e-6)


def test_higher_orders_go_their_own_way():
    x = rg.tensor(single(4, 6), requires_grad=True)
    weight = rg.tensor(single(6), requires_grad=True)
    y = rg.layer_norm(rg.gelu(x), weight, normalized_shape=6)
    (g,) = rg.vjp(lambda v: rg.layer_norm(rg.gelu(v), weight, normalized_shape=6), x)[1](rg.ones_like(y))
    assert g.shape == x.shape
    hessian = rg.hessian(lambda v: (rg.layer_norm(v, normalized_shape=6) ** 3).sum())(x.detach()[0])
    np.testing.assert_allclose(hessian.numpy(), hessian.numpy().T, atol=1e-3)
