"""How weights lie in memory: transposed where that makes their products quicker, with the same shapes and values."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import retrograd as rg
from retrograd.autograd_core.compile.layout import lie_better_transposed
from retrograd.autograd_core.compile.tape import record_call
from retrograd.autograd_core.operations.contraction import lies_transposed

RNG = np.random.default_rng(0)
X = RNG.standard_normal((40, 36)).astype(np.float32)
Y = RNG.integers(0, 33, 40)


def weight(*shape):
    return rg.nn.Parameter(RNG.standard_normal(shape).astype(np.float32) / 6)


def turned(tensor):
    """Whether a weight lies transposed as it should: only NumPy's do."""
    return lies_transposed(tensor) or type(tensor.array) is not np.ndarray


W, NEXT, NARROW = weight(48, 36), weight(33, 48), weight(8, 36)
READS = {  # weight, function, whether it had better lie transposed
    "a first layer": (W, lambda x: rg.linear(x, W), True),
    "a first layer, written plainly": (W, lambda x: x @ W.T, True),
    "one with a second behind it": (W, lambda x: rg.linear(rg.relu(rg.linear(x, W)), NEXT), True),
    "one that is decayed": (W, lambda x: rg.sum(x @ W.T) + rg.sum(W * W), True),
    "a second layer": (NEXT, lambda x: rg.linear(rg.relu(rg.linear(x, W)), NEXT), False),
    "a second layer, written plainly": (NEXT, lambda x: rg.relu(x @ W.T) @ NEXT.T, False),
    "as it is": (W, lambda x: x[:, :1] @ rg.ones((1, 48)) @ W, False),
    "both ways": (W, lambda x: rg.linear(x, W) @ W, False),
    "no product": (W, lambda x: W * W, False),
    "a narrow one": (NARROW, lambda x: rg.linear(x, NARROW), False),
}


@pytest.mark.parametrize("name", READS)
def test_a_weight_that_products_read_transposed_only(name):
    matrix, function, expected = READS[name]
    x = rg.tensor(X)
    tape, _ = record_call(lambda x: rg.sum(function(x)).backward(), (x,), {}, [x], [])
    assert (id(matrix.array) in lie_better_transposed(tape)) is (expected and type(W.array) is np.ndarray)


def training(rule, clipped=False):
    """(model, optimizer, step) of a small net."""
    rg.manual_seed(3)
    model = rg.nn.Sequential(rg.nn.Linear(36, 48), rg.nn.Tanh(), rg.nn.Linear(48, 33))
    optimizer = rule(model.parameters())

    def step(x, y):
        optimizer.zero_grad()
        loss = rg.nn.functional.cross_entropy(model(x), y) + 1e-3 * rg.sum(model[0].weight ** 2)
        loss.backward()
        if clipped:
            rg.optim.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        return loss

    return model, optimizer, step


RULES = {
    "sgd": lambda p: rg.optim.SGD(p, lr=0.1),
    "momentum": lambda p: rg.optim.SGD(p, lr=0.1, momentum=0.9),
    "adamw": lambda p: rg.optim.AdamW(p, lr=0.01),
}


@pytest.mark.parametrize("clipped", [False, True])
@pytest.mark.parametrize("rule", RULES)
def test_training_goes_on_as_before(rule, clipped):
    model, optimizer, step = training(RULES[rule], clipped)
    plain, _, eager = training(RULES[rule], clipped)
    compiled = rg.compile(step)
    for _ in range(6):
        np.testing.assert_allclose(compiled(X, Y).item(), eager(rg.tensor(X), rg.tensor(Y)).item(), rtol=1e-4)
    first, second = model[0].weight, model[2].weight
    kept = [t for t in optimizer.state[first].values() if isinstance(t, rg.Tensor)]
    assert all(map(turned, [first, first.grad, *kept]))
    assert not lies_transposed(second)
    for _ in range(3):  # without the program, on what it left
        found, expected = step(rg.tensor(X), rg.tensor(Y)).item(), eager(rg.tensor(X), rg.tensor(Y)).item()
        np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert turned(first.grad)
    compiled(X, Y)
    eager(rg.tensor(X), rg.tensor(Y))
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(one.grad.numpy(), other.grad.numpy(), rtol=1e-3, atol=1e-5)


def test_states_come_and_go(tmp_path):
    model, optimizer, step = training(RULES["adamw"])
    compiled = rg.compile(step)
    for _ in range(4):
        compiled(X, Y)
    rg.save(model.state_dict(), tmp_path / "model.safetensors")
    tensors, metadata = optimizer.to_arrays()
    rg.save(tensors, tmp_path / "optimizer.safetensors", metadata)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(twin[0].weight.numpy(), model[0].weight.numpy())
    expected = [compiled(X, Y).item() for _ in range(3)]
    programs = list(compiled.programs.values())
    for into, its_optimizer, its_step in ((model, optimizer, compiled), training(RULES["adamw"])):
        into.load_state_dict(rg.load(tmp_path / "model.safetensors"))
        its_optimizer.from_arrays(rg.load(tmp_path / "optimizer.safetensors"), metadata)
        found = [its_step(rg.tensor(X), rg.tensor(Y)).item() for _ in range(3)]
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert list(compiled.programs.values()) == programs


def test_flat_arrays_begin_on_a_cache_line():
    _, optimizer, step = training(RULES["adamw"])
    compiled = rg.compile(step)
    compiled(X, Y)
    (flat,) = optimizer._flats
    for tensor in [flat.parameter, *flat.states.values()]:
        if type(tensor.array) is np.ndarray:
            assert tensor.array.__array_interface__["data"][0] % 64 == 0


def test_a_gradient_that_is_a_view_of_what_the_program_made_is_not_copied():
    w = weight(48, 36)
    loss = rg.compile(lambda x: rg.sum((x @ w.T) ** 2).backward())
    for _ in range(4):
        w.grad = None
        loss(X)
    assert "positive" not in {s.record.name for s in loss.program.steps}
    np.testing.assert_allclose(w.grad.numpy(), 2 * (X @ w.numpy().T).T @ X, rtol=1e-3, atol=1e-3)


def test_equal_gradients_stay_apart():
    a, b = rg.nn.Parameter(W.numpy().copy()), rg.nn.Parameter(W.numpy().copy())
    step = rg.compile(lambda x: rg.sum(x @ a.T + x @ b.T).backward())
    for _ in range(4):
        a.grad = b.grad = None
        step(X)
    assert not a.backend.shares_memory(a.grad.array, b.grad.array)
    with rg.no_grad():
        a.grad.mul_(2.0)
    np.testing.assert_allclose(a.grad.numpy(), 2 * b.grad.numpy(), rtol=1e-6)


def test_a_view_whose_memory_is_handed_out_is_copied():
    w = weight(48, 36)

    def step(x):
        out = x @ w.T
        rg.sum(out).backward()
        return w.grad.T

    step = rg.compile(step)
    for _ in range(4):
        w.grad = None
        result = step(X)
    assert not w.backend.shares_memory(w.grad.array, result.array)
    np.testing.assert_array_equal(result.numpy(), w.grad.numpy().T)


def test_weights_that_another_function_turns_between_two_recordings():
    def pair():
        rg.manual_seed(0)
        critic, maker = rg.nn.Linear(36, 48), rg.nn.Linear(36, 36)
        rules = rg.optim.SGD(critic.parameters(), lr=0.01), rg.optim.SGD(maker.parameters(), lr=0.01)

        def make(x):
            rules[1].zero_grad()
            loss = rg.mean(critic(maker(x)) ** 2)
            loss.backward()  # into the critic's gradients too
            rules[1].step()
            return loss

        def judge(x):
            rules[0].zero_grad()
            loss = rg.mean(critic(x) ** 2) - rg.mean(critic(maker(x).detach()))
            loss.backward()
            rules[0].step()
            return loss

        return make, judge, critic.weight

    make, judge, weight = pair()
    plainly_make, plainly_judge, _ = pair()
    compiled, judged = rg.compile(make), rg.compile(judge)
    for which in (0, 0, 1, 0, 0, 1, 0, 1, 1, 0):
        found = (judged if which else compiled)(X)
        expected = (plainly_judge if which else plainly_make)(rg.tensor(X))
        np.testing.assert_allclose(found.item(), expected.item(), rtol=1e-4)
    assert turned(weight)
    assert len(compiled.programs) == len(judged.programs) == 1


def test_a_gradient_does_not_lie_in_the_buffer_that_took_what_it_is_a_view_of(monkeypatch):
    monkeypatch.setenv("RETROGRAD_KERNELS", "reference")  # where each step is a call of its own, not part of a group
    w, buffer = weight(36, 40), rg.zeros((40, 36))

    def look(gradient):
        buffer.copy_(gradient)

    def step(x):
        w.grad = None
        turned = w.T
        turned.register_hook(look)
        rg.sum(turned * x).backward()

    compiled = rg.compile(step)
    for _ in range(5):
        compiled(X)
        np.testing.assert_array_equal(buffer.numpy(), X)
        with rg.no_grad():
            buffer.fill_(7.0)
        np.testing.assert_array_equal(w.grad.numpy(), X.T)


def test_a_value_is_not_changed_with_the_buffer_that_took_it(monkeypatch):
    monkeypatch.setenv("RETROGRAD_KERNELS", "reference")
    buffer = rg.zeros((40, 36))

    def step(x):
        tripled = x * 3.0
        buffer.copy_(tripled)
        buffer.mul_(2.0)
        return rg.sum(tripled, axis=0), tripled.T

    compiled = rg.compile(step)
    for _ in range(5):
        total, result = compiled(X)
        np.testing.assert_allclose(total.numpy(), 3 * X.sum(0), rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(result.numpy(), np.float32(3) * X.T)
