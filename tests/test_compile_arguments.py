"""What a compiled function does with its arguments and results: what it changes in them, what it finds in them."""

from __future__ import annotations

import collections
import copy
import dataclasses
import pickle

import numpy as np
import pytest
import retrograd as rg
from retrograd.autograd_core.recorder import RecordingError

F = rg.nn.functional


@dataclasses.dataclass
class Batch:
    x: rg.Tensor
    scale: int = 1


@dataclasses.dataclass(frozen=True)
class Options:
    scale: float = 1.0


def often(f, *args, times=4):
    for _ in range(times):
        result = f(*args)
    return result


def test_one_tensor_passed_twice_is_another_program_than_two():
    f = rg.compile(lambda a, b: a * 2 + b)
    x = rg.ones(2)
    assert often(f, x, x).tolist() == [3.0, 3.0]
    for _ in range(2):
        assert f(rg.ones(2), rg.ones(2) * 10).tolist() == [12.0, 12.0]
    assert f(x * 5, x * 5).tolist() == [15.0, 15.0]


def test_an_argument_that_is_changed_in_place():
    @rg.compile
    def write(cache, place, value):
        cache[place] = value
        return cache.sum()

    cache, other = rg.zeros(8), rg.zeros(8)
    sums = [write(cache, rg.tensor(i), rg.tensor(1.0)).item() for i in range(7)]
    assert sums == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    assert cache.tolist() == [1.0] * 7 + [0.0]
    assert write(other, rg.tensor(7), rg.tensor(3.0)).item() == 3.0
    assert other.tolist() == [0.0] * 7 + [3.0]
    assert cache[7].item() == 0.0

    twice = rg.compile(lambda a, b: (a.add_(1.0), b * 1)[1])
    x = rg.zeros(2)
    assert [twice(x, x).tolist()[0] for _ in range(6)] == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    before = cache.tolist()
    verified = rg.compile(lambda a: a.mul_(2.0), verify=True)
    assert often(verified, cache, times=6).tolist() == [64 * v for v in before]


def test_gradients_of_arguments():
    f = rg.compile(lambda x: (x * x).sum().backward())
    for i in range(6):
        x = rg.tensor([float(i)], requires_grad=True)
        f(x)
        assert x.grad.item() == 2 * i
    kept = rg.tensor([1.0], requires_grad=True)
    for i in range(7):
        f(kept)  # the second call finds a gradient, and adds to it
        assert kept.grad.item() == 2 * (i + 1)
    assert x.grad.item() == 10.0
    f.prepare(kept)
    assert kept.grad.item() == 14.0

    def attack(x):
        x.grad = None
        (x * x).sum().backward()
        taken, x.grad = x.grad, None
        return x + taken

    compiled = rg.compile(attack)
    for _ in range(6):
        assert compiled(kept).item() == 3.0
        assert kept.grad is None


@pytest.mark.parametrize("kind", [rg.nn.Parameter, lambda v: rg.tensor(v, requires_grad=True)])
def test_what_an_optimizer_trains_may_be_an_argument(kind):
    def trained(compiles):
        rng = np.random.default_rng(0)
        weights = {n: kind(rng.standard_normal(s).astype("f")) for n, s in {"in": (3, 4), "out": (4, 1)}.items()}
        optimizer = rg.optim.Adam(weights.values(), lr=0.1)

        def step(weights, x):
            optimizer.zero_grad()
            loss = ((rg.tanh(x @ weights["in"]) @ weights["out"]) ** 2).mean()
            loss.backward()
            optimizer.step()
            return loss

        run = rg.compile(step) if compiles else step
        losses = [run(weights, rg.tensor(rng.standard_normal((5, 3)).astype("f"))).item() for _ in range(8)]
        return run, losses, weights

    (_, losses, weights), (run, found, others) = trained(False), trained(True)
    assert run.program is not None
    np.testing.assert_allclose(found, losses, rtol=1e-4)
    for name in weights:
        np.testing.assert_allclose(others[name].numpy(), weights[name].numpy(), rtol=1e-3, atol=1e-5)


def test_a_graph_that_would_end_at_a_compiled_function_is_an_error():
    w = rg.tensor([2.0], requires_grad=True)
    f = rg.compile(lambda x: x * 3)
    with pytest.raises(RecordingError, match=r"result of multiply.*\.detach\(\)"):
        f(w * 1)
    often(f, (w * 1).detach())
    with pytest.raises(RecordingError, match=r"result of multiply"):
        f(w * 1)
    with rg.no_grad():
        assert f(w * 1).item() == 6.0


def test_the_gradient_of_a_compiled_function_is_that_of_the_function():
    f = rg.compile(lambda x: (x**3).sum())
    for _ in range(5):
        assert rg.grad(f)(rg.tensor([1.0, 2.0])).tolist() == [3.0, 12.0]
        assert f(rg.tensor([1.0, 2.0])).item() == 9.0
    assert rg.hessian(f)(rg.tensor([1.0])).tolist() == [[6.0]]


def test_backward_on_a_result_says_where_it_belongs():
    w = rg.tensor([2.0], requires_grad=True)
    f = rg.compile(lambda x: (w * x).sum())
    with pytest.raises(RuntimeError, match=r"backward\(\) inside it"):
        often(f, rg.ones(1)).backward()


def test_static_values_that_equal_each_other_but_are_not_the_same():
    f = rg.compile(lambda x, s: x * s)
    often(f, rg.ones(1), 0.0)
    assert np.signbit(f(rg.ones(1), -0.0).item())
    often(f, rg.ones(1), float("nan"), times=70)
    g = rg.compile(lambda x, s: x * len(s))
    often(g, rg.ones(1), {1, 2})
    assert g(rg.ones(1), {1, 2, 3}).item() == 3.0
    h = rg.compile(lambda x, o: x * o.scale)
    often(h, rg.ones(1), Options(2.0))
    assert h(rg.ones(1), Options(3.0)).item() == 3.0
    rows = rg.compile(lambda x, rows: x[rows])
    often(rows, rg.ones(3), slice(0, 2))
    assert rows(rg.ones(3), slice(0, 3)).shape == (3,)


def test_tensors_where_a_program_does_not_find_them_are_refused():
    f = rg.compile(lambda batch: batch.x * batch.scale)
    with pytest.raises(RecordingError, match="Batch holds tensors"):
        f(Batch(rg.ones(1)))
    with pytest.raises(RecordingError, match=r"UserDict.*hash"):
        rg.compile(lambda d: d["x"])(collections.UserDict(x=rg.ones(1)))
    for hiding in (lambda x: Batch(x * 2), lambda x: [{x * 2}], lambda x: collections.UserDict(x=x * 2)):
        with pytest.raises(RecordingError, match="holds tensors"):
            often(rg.compile(hiding), rg.ones(1))
    with pytest.raises(RecordingError, match="NumPy array"):
        rg.compile(lambda x: (x, np.ones(2)))(rg.ones(1))


def test_dicts_of_other_classes():
    def f(d):
        made = collections.defaultdict(list)
        made["twice"].append(d["x"][0] * 2)
        return made

    given = collections.defaultdict(list, x=[rg.ones(1)])
    compiled = rg.compile(f)
    made = often(compiled, given, times=5)
    assert compiled.program is not None
    assert made["twice"][0].tolist() == [2.0]
    assert made.default_factory is list


def test_a_nan_is_no_frozen_state():
    f = rg.compile(lambda x: rg.where(x > 0, x, float("nan")))
    assert np.isnan(often(f, rg.tensor([-1.0]), times=5).item())


class Machine:
    def __init__(self, w):
        self.w = rg.tensor([w])

    @rg.compile
    def run(self, x):
        return self.w * x

    def plain(self, x):
        return self.w * x * 2


class Layer(rg.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = rg.nn.Linear(2, 2)

    @rg.compile
    def forward(self, x):
        return F.dropout(self.linear(x), 0.5, training=self.training)


def test_methods_have_programs_per_object():
    one, two = Machine(2.0), Machine(3.0)
    for i in range(6):
        assert (one.run(rg.ones(1) * i).item(), two.run(rg.ones(1) * i).item()) == (2.0 * i, 3.0 * i)
    assert len(one.run.programs) == len(two.run.programs) == 1
    assert pickle.loads(pickle.dumps(one)).run(rg.ones(1)).item() == 2.0
    layer, x = Layer(), rg.ones(4, 2)
    often(layer, x)
    layer.eval()
    assert np.array_equal(layer(x).numpy(), layer.linear(x).numpy())
    other = copy.deepcopy(layer)
    with rg.no_grad():
        other.linear.weight.mul_(0.0)
    assert np.array_equal(often(other, x).numpy(), other.linear(x).numpy())


def test_a_method_of_a_module_sees_its_mode():
    layer, x = Layer(), rg.ones(4, 2)
    for f in (rg.compile(lambda v: Layer.forward.function(layer, v)),):
        layer.train()
        often(f, x)
        layer.eval()
        assert np.array_equal(f(x).numpy(), layer.linear(x).numpy())


@rg.compile
def doubled(x):
    return x * 2


def test_copies_have_no_programs_yet():
    model = rg.nn.Linear(2, 2)
    compiled = rg.compile(model)
    x = rg.ones(1, 2)
    often(compiled, x)
    for other in (copy.deepcopy(compiled), pickle.loads(pickle.dumps(compiled))):
        assert not other.programs
        with rg.no_grad():
            other.weight.mul_(0.0)
        assert np.array_equal(often(other, x, times=5).numpy(), other.function(x).numpy())
    assert copy.deepcopy(doubled) is doubled
    of_method = rg.compile(Machine(2.0).plain)
    assert often(pickle.loads(pickle.dumps(of_method)), rg.ones(1), times=5).item() == 4.0


def test_a_result_that_is_refused_leaves_no_trace_in_prepare():
    w = rg.zeros(1)
    with pytest.raises(RecordingError, match="NumPy array"):
        rg.compile(lambda x: (w.add_(x), np.ones(1))[1]).prepare(rg.ones(1))
    assert w.item() == 0.0


def test_arguments_that_overlap_and_are_changed_are_refused():
    @rg.compile
    def f(a, b):
        a.mul_(2)
        return a + b

    for _ in range(4):
        f(rg.ones(3), rg.ones(3))
    both = rg.arange(6.0)
    assert f(both[:3], both[3:]).tolist() == [3.0, 6.0, 9.0]
    if rg.current_backend().name == "numpy":  # other libraries compare bounds alone
        columns = rg.ones(3, 2)
        assert f(columns[:, 0], columns[:, 1]).tolist() == [3.0, 3.0, 3.0]
    with pytest.raises(RecordingError, match="shares memory with tensor 1"):
        f(both[:3], both[1:4])


def test_arguments_that_lie_in_what_the_function_changes():
    kept = rg.zeros(4, 3)

    @rg.compile
    def read_before(x):
        total = x.sum()
        kept.add_(1)
        return total

    @rg.compile
    def read_after(x):
        kept.add_(1)
        return (x * 2).sum()

    for call in range(5):
        assert read_before(kept[1]).item() == 3 * call
    for call in range(5, 10):
        assert read_after(kept[1].clone()).item() == 6 * call
    for inside in (kept[1], kept[:, 0][:3]):
        with pytest.raises(RecordingError, match=r"lies in the memory of a tensor .* changes before .*\.clone\(\)"):
            read_after(inside)


def test_indices_that_come_from_an_index():
    f = rg.compile(lambda x, i: (x[i[0]], x[:, i[1]], x[1][i[0]], x[i[0], i[1]]))
    x = rg.tensor(np.arange(12.0).reshape(3, 4))
    for n in range(6):
        i = rg.tensor([n % 3, (n + 1) % 4])
        a, b, c, d = (t.tolist() for t in f(x, i))
        host = x.numpy()
        assert (a, b, c, d) == (
            host[n % 3].tolist(),
            host[:, (n + 1) % 4].tolist(),
            host[1, n % 3],
            host[n % 3, (n + 1) % 4],
        )
