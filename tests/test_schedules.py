"""Schedules: the sequences, going on from a saved state, recordings, and what is refused."""

import json

import numpy as np
import pytest
import retrograd as rg
from retrograd.autograd_core.recorder import recording
from retrograd.optim import lr_scheduler as schedules


def optimizer(kind="SGD", lr=0.1, groups=1, **options):
    params = [{"params": [rg.zeros(1, requires_grad=True)], "lr": lr * (i + 1)} for i in range(groups)]
    return getattr(rg.optim, kind)(params, **options)


def sequence(schedule, steps):
    found = []
    for _ in range(steps):
        found.append(schedule.get_last_lr())
        schedule.step()
    return found


def test_making_a_schedule_sets_the_first_rate_and_stepping_the_next():
    opt = optimizer(lr=1.0)
    schedule = schedules.StepLR(opt, step_size=2, gamma=0.5)
    assert [rates[0] for rates in sequence(schedule, 5)] == [1.0, 1.0, 0.5, 0.5, 0.25]
    assert opt.param_groups[0]["initial_lr"] == 1.0


def test_warm_up_and_cosine():
    rates = [r[0] for r in sequence(schedules.WarmupCosineLR(optimizer(lr=1.0), 10, 110, eta_min=0.1), 130)]
    assert rates[:3] == [0.0, 0.1, 0.2]
    assert rates[10] == 1.0
    assert rates[60] == pytest.approx(0.55)
    assert np.allclose(rates[110:], 0.1)
    assert np.all(np.diff(rates[10:111]) < 0)


@pytest.mark.parametrize(
    "make",
    [
        lambda o: schedules.CosineAnnealingLR(o, 7),
        lambda o: schedules.OneCycleLR(o, 0.5, total_steps=20),
        lambda o: schedules.WarmupCosineLR(o, 3, 15),
        lambda o: schedules.LinearLR(o, total_iters=6),
        lambda o: schedules.CosineAnnealingWarmRestarts(o, 4),
        lambda o: schedules.SequentialLR(o, [schedules.LinearLR(o), schedules.CosineAnnealingLR(o, 5)], [5]),
    ],
)
def test_a_schedule_goes_on_where_its_state_stood(make):
    whole = sequence(make(optimizer("Adam", groups=2)), 14)
    first = make(optimizer("Adam", groups=2))
    sequence(first, 6)
    state = json.loads(json.dumps(first.state_dict()))
    opt = optimizer("Adam", groups=2)
    second = make(opt)
    second.load_state_dict(state)
    betas = opt.param_groups[0]["betas"]
    assert betas == first.optimizer.param_groups[0]["betas"]
    assert sequence(second, 8) == whole[6:]


def test_one_cycle_cycles_momentum_the_other_way():
    for kind, options, read in (
        ("Adam", {}, lambda g: g["betas"][0]),
        ("SGD", {"momentum": 0.9}, lambda g: g["momentum"]),
    ):
        opt = optimizer(kind, **options)
        schedule = schedules.OneCycleLR(opt, 1.0, total_steps=10)
        values = []
        for _ in range(9):
            values.append(read(opt.param_groups[0]))
            schedule.step()
        assert values[0] == 0.95
        assert values[2] == pytest.approx(0.85)
        assert min(values) == values[2]
        assert opt.param_groups[0]["max_lr"] == 1.0


def test_one_cycle_refuses_steps_beyond_its_end_and_half_said_lengths():
    schedule = schedules.OneCycleLR(optimizer(momentum=0.9), 1.0, epochs=2, steps_per_epoch=3)
    sequence(schedule, 6)
    with pytest.raises(ValueError, match="made for 6 steps"):
        schedule.step()
    with pytest.raises(ValueError, match="total_steps, or both"):
        schedules.OneCycleLR(optimizer(), 1.0, epochs=2)
    with pytest.raises(ValueError, match="2 groups; got 3"):
        schedules.OneCycleLR(optimizer(groups=2, momentum=0.9), [1.0, 2.0, 3.0], total_steps=10)
    with pytest.raises(ValueError, match="'cos' or 'linear'"):
        schedules.OneCycleLR(optimizer(momentum=0.9), 1.0, total_steps=10, anneal_strategy="cosine")


def test_bad_requests():
    with pytest.raises(TypeError, match="takes an Optimizer"):
        schedules.StepLR(0.1, 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="step_size must be a positive whole number, got 0"):
        schedules.StepLR(optimizer(), 0)
    with pytest.raises(ValueError, match="one function for each of the 2 groups, got 1"):
        schedules.LambdaLR(optimizer(groups=2), [lambda step: 1.0])
    with pytest.raises(ValueError, match="0 ≤ warmup_steps < total_steps"):
        schedules.WarmupCosineLR(optimizer(), 5, 5)
    with pytest.raises(ValueError, match="rising milestones"):
        schedules.SequentialLR(optimizer(), [], [1])
    schedule = schedules.StepLR(optimizer(), 1)
    with pytest.raises(ValueError, match="the state is of 2 parameter groups, the optimizer has 1"):
        schedule.load_state_dict({"last_epoch": 1, "base_lrs": [0.1, 0.2]})
    with pytest.raises(ValueError, match="the state holds"):
        schedule.load_state_dict({"epoch": 1})


def test_in_a_recording_a_step_is_a_host_call():
    opt = optimizer(lr=1.0)
    schedule = schedules.StepLR(opt, 1, 0.5)
    with recording() as tape:
        called = []
        tape.host = called.append
        schedule.step()
    assert opt.param_groups[0]["lr"] == 0.5
    called[0]()
    assert opt.param_groups[0]["lr"] == 0.25


PAIRS = [
    ("StepLR", {"step_size": 3, "gamma": 0.5}),
    ("LinearLR", {}),
    ("LinearLR", {"start_factor": 0.1, "end_factor": 0.5, "total_iters": 7}),
    ("CosineAnnealingLR", {"T_max": 6, "eta_min": 0.01}),
    ("CosineAnnealingWarmRestarts", {"T_0": 4}),
    ("CosineAnnealingWarmRestarts", {"T_0": 3, "T_mult": 2, "eta_min": 0.01}),
    ("LambdaLR", {"lr_lambda": lambda step: 0.9**step}),
    ("OneCycleLR", {"max_lr": 0.5, "total_steps": 20}),
    ("OneCycleLR", {"max_lr": [0.5, 0.7], "epochs": 4, "steps_per_epoch": 5, "pct_start": 0.25}),
    ("OneCycleLR", {"max_lr": 0.5, "total_steps": 20, "anneal_strategy": "linear"}),
    ("OneCycleLR", {"max_lr": 0.5, "total_steps": 20, "three_phase": True, "div_factor": 10, "final_div_factor": 100}),
    ("OneCycleLR", {"max_lr": 0.5, "total_steps": 20, "base_momentum": 0.5, "max_momentum": 0.8}),
    ("OneCycleLR", {"max_lr": 0.5, "total_steps": 20, "cycle_momentum": False}),
]


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*:UserWarning")
@pytest.mark.parametrize("kind", ["SGD", "AdamW"])
@pytest.mark.parametrize(("name", "options"), PAIRS)
def test_the_sequences_are_those_of_torch(name, options, kind):
    torch = pytest.importorskip("torch")
    more = {"momentum": 0.9} if kind == "SGD" else {}
    ours = optimizer(kind, groups=2, **more)
    theirs = getattr(torch.optim, kind)(
        [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.1 * (i + 1)} for i in range(2)], **more
    )
    mine, other = getattr(schedules, name)(ours, **options), getattr(torch.optim.lr_scheduler, name)(theirs, **options)
    for _ in range(20):
        for one, two in zip(ours.param_groups, theirs.param_groups, strict=True):
            assert one["lr"] == pytest.approx(two["lr"], rel=1e-12, abs=1e-15)
            key = "momentum" if kind == "SGD" else "betas"
            assert one[key] == pytest.approx(two[key], rel=1e-12)
        mine.step()
        other.step()
