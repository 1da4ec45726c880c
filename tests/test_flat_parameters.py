"""Parameters that a compiled step lays end to end: training, eager steps and files go on as if they lay apart."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import retrograd as rg

RNG = np.random.default_rng(0)
X = RNG.standard_normal((40, 36)).astype(np.float32)
Y = RNG.integers(0, 33, 40)


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
    model, _, step = training(RULES[rule], clipped)
    plain, _, eager = training(RULES[rule], clipped)
    compiled = rg.compile(step)
    for _ in range(6):
        np.testing.assert_allclose(compiled(X, Y).item(), eager(rg.tensor(X), rg.tensor(Y)).item(), rtol=1e-4)
    for _ in range(3):  # without the program, on what it left
        found, expected = step(rg.tensor(X), rg.tensor(Y)).item(), eager(rg.tensor(X), rg.tensor(Y)).item()
        np.testing.assert_allclose(found, expected, rtol=1e-4)
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


def test_weights_that_another_function_lays_elsewhere_between_two_recordings():
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

        return make, judge

    make, judge = pair()
    plainly_make, plainly_judge = pair()
    compiled, judged = rg.compile(make), rg.compile(judge)
    for which in (0, 0, 1, 0, 0, 1, 0, 1, 1, 0):
        found = (judged if which else compiled)(X)
        expected = (plainly_judge if which else plainly_make)(rg.tensor(X))
        np.testing.assert_allclose(found.item(), expected.item(), rtol=1e-4)
    assert len(compiled.programs) == len(judged.programs) == 1
