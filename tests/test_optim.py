"""Optimizers: groups, skipped parameters, closures, what is refused, and numbers that a recording does not freeze."""

import math

import numpy as np
import pytest
import retrograd as rg
from retrograd import nn, optim
from retrograd.autograd_core.recorder import recording


def test_parameters_without_a_gradient_are_left_out_and_steps_are_counted_for_each():
    a, b = nn.Parameter([1.0]), nn.Parameter([1.0])
    opt = optim.Adam([a, b], lr=0.1)
    a.grad = rg.ones(1)
    opt.step()
    assert b.item() == 1.0
    assert b not in opt.state
    b.grad = rg.ones(1)
    opt.step()
    assert (opt.state[a]["step"], opt.state[b]["step"]) == (2, 1)
    assert b.item() == pytest.approx(0.9)  # the first step of Adam is lr, whenever it comes


def test_groups_have_options_of_their_own_and_may_be_added():
    a, b, c = (nn.Parameter([1.0]) for _ in range(3))
    opt = optim.SGD([{"params": [a]}, {"params": b, "lr": 0.5}], lr=0.1)
    opt.add_param_group({"params": [c], "lr": 0.25, "momentum": 0.9})
    for p in (a, b, c):
        p.grad = rg.ones(1)
    opt.step()
    assert [round(p.item(), 6) for p in (a, b, c)] == [0.9, 0.5, 0.75]
    opt.param_groups[0]["lr"] = 0.0
    opt.step()
    assert a.item() == pytest.approx(0.9)
    assert set(opt.state[c]) == {"step", "momentum_buffer"}
    assert "lr: 0.25" in repr(opt)


def test_an_option_may_be_switched_on_later():
    w = nn.Parameter([1.0])
    opt = optim.SGD([w], lr=0.1)
    for _ in range(2):
        w.grad = rg.ones(1)
        opt.step()
        opt.param_groups[0]["momentum"] = 0.5
    assert opt.state[w]["momentum_buffer"].tolist() == [1.0]


def test_a_closure_is_called_with_gradients_on_and_its_result_returned():
    w = nn.Parameter([1.0])
    opt = optim.SGD([w], lr=0.1)

    def closure():
        opt.zero_grad()
        loss = rg.sum(w * w)
        loss.backward()
        return loss

    with rg.no_grad():
        assert opt.step(closure).item() == 1.0
    assert w.item() == pytest.approx(0.8)


def test_zero_grad():
    w = nn.Parameter([1.0])
    opt = optim.SGD([w])
    w.grad = rg.ones(1)
    opt.zero_grad(set_to_none=False)
    assert w.grad.tolist() == [0.0]
    opt.zero_grad()
    assert w.grad is None


def test_a_module_that_was_converted_goes_on_with_a_new_state_or_an_error():
    layer = nn.Linear(2, 1)
    opt = optim.SGD(layer.parameters(), momentum=0.9)
    rg.sum(layer(rg.ones((1, 2)))).backward()
    opt.step()
    layer.to({"numpy": "strict", "strict": "numpy"}[layer.weight.backend.name])
    with pytest.raises(TypeError, match=r"momentum_buffer.*make a new optimizer"):
        opt.step()


@pytest.mark.parametrize(
    ("params", "error", "text"),
    [
        (np.zeros((784, 500)), TypeError, r"got ndarray \(784, 500\) of float64.*w = rg\.nn\.Parameter\(w\).*w -= lr"),
        ([np.zeros(3)], TypeError, r"got ndarray \(3,\) of float64 at position 0.*rg\.nn\.Parameter"),
        ([[1.0, 2.0]], TypeError, "got list at position 0"),
        (nn.Linear(2, 1), TypeError, r"got the module itself: write linear\.parameters\(\)"),
        (rg.zeros(3, requires_grad=True), TypeError, r"got one float32 tensor \(3,\)"),
        ([], ValueError, "no parameters"),
        ([rg.zeros(3, requires_grad=True) * 2], ValueError, "got the result of multiply at position 0"),
        ([{"lr": 0.1}], TypeError, "with the key 'params', got dict"),
        ([{"params": [rg.zeros(1)], "weigth_decay": 0.1}], ValueError, "'weigth_decay'.*did you mean 'weight_decay'"),
        (3, TypeError, "got int"),
    ],
)
def test_what_is_no_list_of_parameters_is_refused(params, error, text):
    with pytest.raises(error, match=text):
        optim.Adam(params)


def test_a_parameter_given_twice_is_refused():
    w = nn.Parameter([1.0])
    with pytest.raises(ValueError, match=r"group 0, position 1 is in the optimizer already, at group 0, position 0"):
        optim.SGD([w, w])
    opt = optim.SGD([w])
    with pytest.raises(ValueError, match="group 1, position 0 is in the optimizer already"):
        opt.add_param_group({"params": [w]})
    assert len(opt.param_groups) == 1


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("SGD", {"lr": -1}, "lr must be at least 0, got -1"),
        ("SGD", {"lr": math.nan}, "lr must be at least 0"),
        ("SGD", {"nesterov": True}, "nesterov needs a momentum"),
        ("Adam", {"betas": (0.9, 1.0)}, r"betas must be two numbers in 0 ≤ β < 1, got \(0\.9, 1\.0\)"),
        ("Adam", {"eps": -1e-8}, "eps must be"),
        ("RMSprop", {"alpha": -0.1}, "alpha must be"),
    ],
)
def test_options_out_of_range_are_refused(name, options, text):
    with pytest.raises(ValueError, match=text):
        getattr(optim, name)([nn.Parameter([1.0])], **options)


def test_a_recorded_step_reads_its_numbers_from_slots_that_a_host_call_fills():
    a, b = nn.Parameter([1.0]), nn.Parameter([1.0])
    opt = optim.Adam([a, b], lr=0.1)
    a.grad = rg.ones(1)
    opt.step()
    b.grad = rg.ones(1)
    with recording() as tape:
        calls = []
        tape.host = lambda call, holds: calls.append(call)
        opt.step()
    assert len(calls) == 2  # two step counts, two sets of numbers
    assert (opt.state[a]["step"], opt.state[b]["step"]) == (2, 1)
    rates = {key[1]: slots["rate"].item() for key, slots in opt._slots.items()}
    opt.param_groups[0]["lr"] = 0.2
    for call in calls:
        call()
    assert (opt.state[a]["step"], opt.state[b]["step"]) == (3, 2)
    for key, slots in opt._slots.items():
        step = (3, 2)[key[1]]
        expected = 0.2 * math.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        assert slots["rate"].item() == pytest.approx(expected, rel=1e-6) != rates[key[1]]
    assert [s.record for s in tape.steps].count(None) == 6
