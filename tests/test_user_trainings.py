"""Training programs in the idiom in which people write them: eager and compiled, the same numbers after each call."""

from __future__ import annotations

import gc
import weakref
from itertools import pairwise

import numpy as np
import pytest
import retrograd as rg
from retrograd import nn, optim
from retrograd.autograd_core.compile import Compiled


def normal(seed, *shape):
    return rg.tensor(np.random.default_rng(seed).standard_normal(shape))


def labels(seed, classes, n):
    return rg.tensor(np.random.default_rng(seed).integers(0, classes, n))


def mlp(*sizes):
    rg.manual_seed(sum(sizes))
    layers = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.Tanh())]
    return nn.Sequential(*layers[:-1]).double()


def same(program):
    """What `program(compiled)` yields is the same where steps are compiled. Returns what was compiled."""
    made = []

    def compiled(function):
        made.append(rg.compile(function))
        return made[-1]

    rounds = zip(program(lambda f: f), program(compiled), strict=True)
    for call, pair in enumerate(rounds):
        one, other = ([t.detach().numpy().copy() for t in found] for found in pair)
        for expected, found in zip(one, other, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12, err_msg=f"call {call}")
    return made


def descend(optimizer, loss):
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


def by_hand(compiled):
    """A recurrent net as a loop: its two biases have the same gradient."""
    rg.manual_seed(0)
    inputs, states = nn.Linear(4, 6).double(), nn.Linear(6, 6).double()
    parameters = [*inputs.parameters(), *states.parameters()]
    optimizer = optim.Adam(parameters, lr=0.01)

    @compiled
    def step(x, h):
        for t in range(x.shape[1]):
            h = rg.tanh(inputs(x[:, t]) + states(h))
        optimizer.zero_grad()
        (h**2).mean().backward()
        nn.utils.clip_grad_norm_(parameters, 0.1)
        optimizer.step()
        return h.detach()

    h = rg.zeros(3, 6, dtype="float64")
    for i in range(8):
        h = step(normal(i, 3, 2, 4), h)
        yield [h, *parameters]


def loss_made_inside(compiled):
    model = mlp(5, 8, 3)
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    @compiled
    def step(x, y):
        return descend(optimizer, nn.CrossEntropyLoss(label_smoothing=0.1)(model(x), y))

    for i in range(12):
        yield [step(normal(i, 6, 5), labels(i, 3, 6)), *model.parameters()]


def loss_for_each_epoch(compiled):
    model = mlp(5, 8, 3)
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    @compiled
    def step(x, y):
        return descend(optimizer, criterion(model(x), y))

    for epoch in range(10):
        criterion = nn.CrossEntropyLoss(weight=abs(normal(epoch, 3)) + 0.1)
        for i in range(3):
            yield [step(normal(i, 6, 5), labels(i, 3, 6)), *model.parameters()]


def models_that_take_turns(compiled):
    class Trainer:
        def step(self, x, y):
            return descend(self.optimizer, nn.functional.cross_entropy(self.model(x), y))

    trainer, models = Trainer(), [mlp(5, n, 3) for n in (4, 5, 6)]
    optimizers = [optim.Adam(m.parameters(), lr=0.01) for m in models]
    step = compiled(trainer.step)
    for i in range(12):
        for trainer.model, trainer.optimizer in zip(models, optimizers, strict=True):
            yield [step(normal(i, 6, 5), labels(i, 3, 6)), *trainer.model.parameters()]


def a_flag_that_alternates(compiled):
    class Phases:
        def __init__(self):
            self.maker, self.critic, self.of_the_critic = mlp(2, 6, 3), mlp(3, 6, 1), True
            self.optimizers = [optim.Adam(m.parameters(), lr=0.01) for m in (self.maker, self.critic)]

        def step(self, z, real):
            for optimizer in self.optimizers:
                optimizer.zero_grad()
            loss = self.critic(self.maker(z)).mean()
            if self.of_the_critic:
                loss = self.critic(real).mean() - loss
            loss.backward()
            self.optimizers[int(self.of_the_critic)].step()
            return loss

    phases = Phases()
    step = compiled(phases.step)
    for i in range(16):
        phases.of_the_critic = i % 3 < 2
        parameters = [*phases.maker.parameters(), *phases.critic.parameters()]
        yield [step(normal(i, 6, 2), normal(i + 50, 6, 3)), *parameters]


def a_model_for_each_fold(compiled):
    @compiled
    def step(x, y):
        return descend(optimizer, nn.functional.cross_entropy(model(x), y))

    for fold in range(10):
        model = mlp(5, 4 + fold % 2, 3)
        optimizer = optim.Adam(model.parameters(), lr=0.02)
        for i in range(7):
            n = 3 if i > 4 else 6  # the last batches are short
            yield [step(normal(i, n, 5), labels(i, 3, n)), *model.parameters()]


TRAININGS = {  # calls that are recorded at most
    by_hand: 3,
    loss_made_inside: 3,
    loss_for_each_epoch: 3 + 9 * 2,
    models_that_take_turns: 13,
    a_flag_that_alternates: 7,
    a_model_for_each_fold: 4 + 9 * 3,
}


@pytest.mark.parametrize("program", TRAININGS)
def test_the_same_numbers(program, monkeypatch):
    recorded, record = [], Compiled._record
    monkeypatch.setattr(Compiled, "_record", lambda self, *given: recorded.append(self) or record(self, *given))
    monkeypatch.setattr("retrograd.autograd_core.compile.programs.MAX_PROGRAMS", 6)
    monkeypatch.setattr("retrograd.autograd_core.compile.met.MAX_OPTIMIZERS", 6)
    (step,) = same(program)
    assert len(recorded) <= TRAININGS[program]
    assert len(step.programs) <= 2


def test_a_model_that_was_replaced_is_let_go():
    step, models = None, []

    def compiled(function):
        nonlocal step
        step = rg.compile(function)
        return step

    for _, *parameters in a_model_for_each_fold(compiled):
        models.append(weakref.ref(parameters[0]))
        del parameters
    gc.collect()
    assert len({id(m()) for m in models if m() is not None}) <= 2


def gradients_that_are_looked_at(compiled):
    """Their norm, by a function that does not compute with the parameters themselves."""
    model = mlp(5, 4, 3)
    extra = nn.Parameter(normal(1, 4))

    @compiled
    def norm():
        return sum((p.grad**2).sum() for p in [*model.parameters(), extra]) ** 0.5

    for i in range(7):
        for p in [*model.parameters(), extra]:
            p.grad = None
        ((model(normal(i, 6, 5)) ** 2).mean() + (extra**i).sum()).backward()
        yield [norm()]


def test_gradients_that_a_function_only_looks_at():
    (norm,) = same(gradients_that_are_looked_at)
    assert len(norm.programs) == 1


def test_a_value_laid_end_to_end_with_itself():
    join = rg.compile(lambda x: rg.concat([x * 2, x + 1, x * 2]))
    for i in range(5):
        assert join(rg.ones(2) * i).tolist() == [2 * i, 2 * i, i + 1, i + 1, 2 * i, 2 * i]
