"""What changes between the calls of a compiled function and is no argument: options, counts of steps, hooks."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import retrograd as rg
from retrograd.autograd_core.recorder import RecordingError

F = rg.nn.functional


def batches(n=9):
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((n, 4, 6)).astype(np.float32), rng.integers(0, 3, (n, 4))
    return [(rg.tensor(a), rg.tensor(b)) for a, b in zip(x, y, strict=True)]


def net():
    rg.manual_seed(0)
    return rg.nn.Sequential(rg.nn.Linear(6, 8), rg.nn.Tanh(), rg.nn.Linear(8, 3))


def training(make):
    """(model, optimizer, step)."""
    model = net()
    optimizer = make(model.parameters())

    def step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return model, optimizer, step


def same(a, b, tolerance=2e-5):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance / 10)


def same_where(change, rule, calls=12, tolerance=2e-5):
    """Eager and compiled training have the same losses, with `change(i, model, optimizer, x)` before the i-th call."""
    results = []
    for compiles in (False, True):
        model, optimizer, step = training(rule)
        run = rg.compile(step) if compiles else step
        losses = []
        for i, (x, y) in enumerate(batches(calls)):
            change(i, model, optimizer, x)
            losses.append(run(x, y).item())
        results.append(losses)
    same(*results, tolerance)


def test_an_option_that_is_switched_off_and_on_again():
    def change(i, model, optimizer, x):
        optimizer.param_groups[0]["weight_decay"] = 0.0 if i in (6, 7) else 0.1 * (i + 1)

    same_where(change, lambda p: rg.optim.AdamW(p, lr=1e-2))


def test_parameters_that_other_functions_updated_more_often():
    def change(i, model, optimizer, x):
        for _ in range(3 if i == 6 else 0):
            optimizer.zero_grad()
            model[0](x).sum().backward()
            optimizer.step()

    same_where(change, lambda p: rg.optim.Adam(p, lr=0.05, betas=(0.5, 0.6)), 14, 2e-4)


def test_verify_of_gradients_that_add_up():
    results = []
    for verify in (None, True):
        model = net()

        def step(x, y, model=model):
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            return loss

        run = step if verify is None else rg.compile(step, verify=verify)
        for x, y in batches():
            run(x, y)
        results.append(model[0].weight.grad.numpy().copy())
    same(*results, 1e-4)


def test_hooks_of_modules_that_come_and_go():
    model, (x, _) = net(), batches()[0]
    compiled = rg.compile(model)
    for _ in range(4):
        plain = compiled(x).numpy()
    handle = model[0].register_forward_hook(lambda module, args, out: out * 2)
    assert not np.allclose(compiled(x).numpy(), plain)
    same(compiled(x).numpy(), model(x).numpy())
    handle.remove()
    same(compiled(x).numpy(), plain)


def test_numbers_in_attributes_of_modules_that_are_changed():
    model, (x, _) = rg.nn.Sequential(net(), rg.nn.LeakyReLU(0.1), rg.nn.Softplus()), batches()[0]
    compiled = rg.compile(model)
    for _ in range(4):
        compiled(x)
    for slope, beta in ((0.3, 1.0), (0.3, 2), (0.1, 1.0)):
        model[1].negative_slope, model[2].beta = slope, beta
        same(compiled(x).numpy(), model(x).numpy())
        same(compiled(x).numpy(), model(x).numpy())
    assert len(compiled.programs) == 3  # the last of them is the first one again


def test_tuples_and_names_in_attributes_of_modules():
    pool, x = rg.nn.MaxPool2d((2, 2)), rg.randn(1, 1, 6, 6)
    compiled = rg.compile(pool)
    for _ in range(4):
        compiled(x)
    pool.kernel_size = pool.stride = (3, 3)
    same(compiled(x).numpy(), pool(x).numpy())


def test_what_calls_count_does_not_make_programs():
    class Counting(rg.nn.Module):
        def __init__(self):
            self.inner, self.calls, self.sign = rg.nn.Linear(6, 3), 0, 1.0

        def forward(self, x):
            self.calls += 1
            return self.inner(x) * self.sign

    model, (x, _) = Counting(), batches()[0]
    model(x)
    compiled = rg.compile(model)
    for _ in range(5):
        compiled(x)
    assert len(compiled.programs) == 1
    model(x)
    compiled(x)
    assert len(compiled.programs) == 1
    model.sign = -1.0
    same(compiled(x).numpy(), -model.inner(x).numpy())


def test_a_layer_of_the_same_group_that_is_unfrozen_and_frozen_again():
    results = []
    for compiles in (False, True):
        model, _, step = training(lambda p: rg.optim.SGD(p, lr=0.1))
        model[0].freeze()
        run = rg.compile(step) if compiles else step
        weights = []
        for i, (x, y) in enumerate(batches(12)):
            if i >= 5:
                model[0].requires_grad_(i % 2 == 1)
            run(x, y)
            weights.append([p.numpy().copy() for p in model.parameters()])
        results.append(weights)
    for expected, found in zip(*results, strict=True):
        for a, b in zip(expected, found, strict=True):
            same(a, b, 2e-4)


def test_gradients_that_one_program_adds_up_and_another_spends():
    results = []
    for compiles in (False, True):
        model = net()
        optimizer = rg.optim.SGD(model.parameters(), lr=0.1)

        def add(x, y, model=model):
            F.cross_entropy(model(x), y).backward()

        def spend(model=model, optimizer=optimizer):
            norm = rg.optim.clip_grad_norm_(model.parameters(), 0.3)
            optimizer.step()
            optimizer.zero_grad()
            return norm

        adds, spends = (rg.compile(add), rg.compile(spend)) if compiles else (add, spend)
        norms = []
        for i, (x, y) in enumerate(batches(14)):
            adds(x, y)
            if i % 2:
                norms.append(spends().item())
                assert all(p.grad is None for p in model.parameters())
        results.append(norms)
    same(*results, 2e-4)


def test_an_average_of_weights_that_an_optimizer_moves_to_other_memory():
    model, _, step = training(lambda p: rg.optim.SGD(p, lr=0.1))
    average = [rg.zeros(p.shape) for p in model.parameters()]

    @rg.compile
    def follow():
        for a, p in zip(average, model.parameters(), strict=True):
            a.copy_(p.data)

    for _ in range(4):
        follow()
    run = rg.compile(step)  # its first call lays the parameters end to end
    for x, y in batches(5):
        run(x, y)
        follow()
        for a, p in zip(average, model.parameters(), strict=True):
            np.testing.assert_array_equal(a.numpy(), p.numpy())


def test_a_weight_that_is_first_met_detached_still_gets_its_gradient():
    w = rg.tensor([1.0, 2.0], requires_grad=True)

    @rg.compile
    def f(x):
        loss = (w.detach() ** 2).sum() + (w * x).sum()
        loss.backward()
        return loss

    for _ in range(6):
        f(rg.tensor([1.0, 3.0]))
    same(w.grad.numpy(), [6.0, 18.0])


def test_a_critic_that_the_step_freezes_and_unfreezes():
    results = []
    for compiles in (False, True):
        maker, critic = net(), rg.nn.Linear(3, 1)
        optimizers = [rg.optim.SGD(m.parameters(), lr=0.1) for m in (maker, critic)]

        def step(x, maker=maker, critic=critic, optimizers=optimizers):
            critic.requires_grad_(True)
            optimizers[1].zero_grad()
            critic(maker(x).detach()).square().mean().backward()
            optimizers[1].step()
            critic.requires_grad_(False)
            optimizers[0].zero_grad()
            critic(maker(x)).mean().backward()
            optimizers[0].step()

        run = rg.compile(step) if compiles else step
        gradients = []
        for x, _ in batches(6):
            run(x)
            gradients.append(critic.weight.grad.numpy().copy())
        results.append(gradients)
    same(*results, 2e-4)


def test_attributes_of_every_kind_that_are_replaced():
    class Net(rg.nn.Module):
        def __init__(self):
            self.inner, self.act, self.scales, self.table = rg.nn.Linear(6, 3), rg.tanh, [1.0, 2.0], {"shift": 0.0}
            self.number, self.array = np.float32(1), np.ones(3, np.float32)
            self.plain = rg.ones(3)

        def forward(self, x):
            x = self.act(self.inner(x)) * self.scales[1] + self.table["shift"]
            return x * float(self.number) * self.array * self.plain

    model, (x, _) = Net(), batches()[0]
    compiled = rg.compile(model)
    for _ in range(4):
        compiled(x)
    changes = {"act": rg.relu, "scales": [1.0, 3.0], "table": {"shift": 1.0}, "number": np.float32(2)}
    changes |= {"array": np.full(3, 2, np.float32), "plain": rg.ones(3) * 2}
    for name, value in changes.items():
        setattr(model, name, value)
        same(compiled(x).numpy(), model(x).numpy())
        same(compiled(x).numpy(), model(x).numpy())


def test_an_attribute_that_the_call_sets_to_what_it_was():
    class Net(rg.nn.Module):
        def __init__(self):
            self.inner, self.sign = rg.nn.Linear(6, 3), 1.0

        def forward(self, x):
            self.sign = float(self.sign)
            return self.inner(x) * self.sign

    model, (x, _) = Net(), batches()[0]
    compiled = rg.compile(model)
    for _ in range(4):
        compiled(x)
    model.sign = -1.0
    same(compiled(x).numpy(), model(x).numpy())


def test_an_attribute_that_changes_in_each_call_is_named():
    class Net(rg.nn.Module):
        def __init__(self):
            self.inner, self.temperature = rg.nn.Linear(6, 3), 1.0

        def forward(self, x):
            return self.inner(x) / self.temperature

    (x, _) = batches()[0]
    for change, text in (
        (lambda net: setattr(net, "temperature", net.temperature * 0.99), r"'self.temperature' changes .*0-d"),
        (lambda net: net.register_buffer("rate", rg.ones(())), r"buffer, .* of Net is replaced .* in place"),
    ):
        model = Net()
        compiled = rg.compile(model)
        for _ in range(65):  # the first only warms up
            compiled(x)
            change(model)
        with pytest.raises(RecordingError, match=text):
            compiled(x)


def test_copies_of_a_module_that_was_compiled():
    model, (x, _) = rg.nn.Sequential(net(), rg.nn.LeakyReLU(0.1)), batches()[0]
    model[1].kept = rg.relu  # any attribute that can be pickled
    compiled = rg.compile(model)
    for _ in range(4):
        compiled(x)
    for other in (copy.copy(model[1]), copy.deepcopy(model)[1], pickle.loads(pickle.dumps(model))[1]):
        run = rg.compile(other)
        for _ in range(4):
            run(x)
        other.negative_slope = 0.5
        same(run(x).numpy(), other(x).numpy())
        assert model[1].negative_slope == 0.1


def test_hooks_of_weights_that_come_and_go():
    w, x = rg.ones(3), rg.tensor([1.0, 2.0, 3.0])
    w.requires_grad_()

    @rg.compile
    def f(x):
        w.grad = None
        (w * x).sum().backward()

    for _ in range(4):
        f(x)
    handle = w.register_hook(lambda g: g * 2)
    for _ in range(2):
        f(x)
        same(w.grad.numpy(), [2.0, 4.0, 6.0])
    handle.remove()
    f(x)
    same(w.grad.numpy(), [1.0, 2.0, 3.0])


def test_attributes_of_modules_whose_other_methods_are_called():
    class Net(rg.nn.Module):
        def __init__(self, inner=None):
            self.layer, self.inner, self.scale = rg.nn.Linear(6, 6), inner, 1.0

        def features(self, x):
            x = self.layer(x) * self.scale
            return x if self.inner is None else self.inner.features(x)

    class Trainer:
        def __init__(self):
            self.models = {"net": Net(Net())}

        def step(self, x):
            return self.models["net"].features(x)

    trainer, (x, _) = Trainer(), batches()[0]
    run = rg.compile(trainer.step)
    for _ in range(4):
        run(x)
    for net in (trainer.models["net"], trainer.models["net"].inner):
        net.scale = 3.0
        for _ in range(2):
            same(run(x).numpy(), trainer.step(x).numpy())


def test_verify_of_names_in_results_of_buffers_and_of_compiled_functions_inside():
    class Counting(rg.nn.Module):
        def __init__(self):
            self.inner = net()
            self.register_buffer("seen", rg.tensor(0))

        def forward(self, x):
            self.seen = self.seen + 1
            return self.inner(x)

    model = Counting()
    inner = rg.compile(model)
    inner(batches()[0][0])

    @rg.compile
    def step(x, y):
        loss = F.cross_entropy(inner(x), y)
        loss.backward()
        return {"loss": loss, "name": "train"}

    step.verify = True
    for x, y in batches():
        assert step(x, y)["name"] == "train"
    assert model.seen.item() == 10


def test_several_steps_of_one_optimizer_in_one_program():
    results = []
    for compiles in (False, True):
        _, optimizer, step = training(lambda p: rg.optim.AdamW(p, lr=0.05, weight_decay=0.1))
        schedule = rg.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)

        def steps(xs, ys, step=step, schedule=schedule):
            losses = []
            for x, y in zip(xs, ys, strict=True):
                losses.append(step(x, y))
                schedule.step()
            return rg.stack(losses)

        run = rg.compile(steps) if compiles else steps
        parts = [list(zip(*batches(9)[i : i + 3], strict=True)) for i in (0, 3, 6, 0, 3, 6)]
        results.append([run(*part).numpy() for part in parts])
    same(*results, 2e-4)


def test_gradients_of_parameters_that_a_call_does_not_use_are_taken_away_too():
    model = rg.nn.ModuleList([rg.nn.Linear(6, 3), rg.nn.Linear(6, 3)])
    optimizer = rg.optim.SGD(model.parameters(), lr=0.1)

    @rg.compile
    def step(x, y, which):
        optimizer.zero_grad()
        loss = F.cross_entropy(model[which](x), y)
        loss.backward()
        optimizer.step()
        return loss

    for i, (x, y) in enumerate(batches(12)):
        step(x, y, i % 2)
        assert model[i % 2].weight.grad is not None
        assert model[1 - i % 2].weight.grad is None


@pytest.mark.parametrize("call", [2, 6])  # between the two recordings, and later
def test_an_optimizer_whose_state_is_cleared(call):
    def change(i, model, optimizer, x):
        if i == call:
            optimizer.state.clear()

    same_where(change, lambda p: rg.optim.Adam(p, lr=0.05), tolerance=2e-4)


TAKEN = {
    "one state": lambda state, p: state.pop(p),
    "all in it": lambda state, p: state[p].clear(),
    "one of its tensors": lambda state, p: state[p].update(exp_avg=rg.zeros(p.shape)),
}


@pytest.mark.parametrize("call", [2, 6])
@pytest.mark.parametrize("taken", TAKEN)
def test_a_state_of_one_parameter_that_is_taken_away(taken, call):
    def change(i, model, optimizer, x):
        if i == call:
            TAKEN[taken](optimizer.state, model[2].weight)

    same_where(change, lambda p: rg.optim.Adam(p, lr=0.05), tolerance=2e-4)


def test_a_layer_that_is_unfrozen_between_two_recordings():
    def change(i, model, optimizer, x):
        model[0].requires_grad_(i >= 2)

    same_where(change, lambda p: rg.optim.Adam(p, lr=0.05), 8, 2e-4)
