"""The rules of the optimizers: PyTorch's numbers, the same in place, as written, recorded and on every backend."""

import numpy as np
import pytest
import retrograd as rg
from retrograd import nn, optim
from retrograd.autograd_core.record import raw_ops
from retrograd.autograd_core.recorder import recording
from retrograd.optim.program import BLOCK, NotElementwise, build

RULES = [
    ("SGD", {}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "maximize": True}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    ("RMSprop", {}),
    ("RMSprop", {"centered": True, "momentum": 0.5, "weight_decay": 0.1}),
    ("RMSprop", {"alpha": 0.5, "eps": 1e-3, "maximize": True}),
    ("Adam", {}),
    ("Adam", {"betas": (0.5, 0.7), "eps": 1e-3, "maximize": True}),
    ("Adam", {"amsgrad": True, "weight_decay": 0.1}),
    ("AdamW", {}),
    ("AdamW", {"lr": 0.1, "amsgrad": True, "maximize": True, "weight_decay": 0.3}),
    ("AdamW", {"weight_decay": 0.0}),
]
SHAPES = ((3, 4), (5,), (), (2, 0))


def setup(name, options, dtype="float64", backend=None, seed=0):
    rng = np.random.default_rng(seed)
    values = [rng.normal(size=shape).astype(dtype) for shape in SHAPES]
    params = [nn.Parameter(rg.asarray(v.copy()) if backend is None else rg.asarray(v).to(backend)) for v in values]
    return values, params, getattr(optim, name)(params, **options)


def gradients(dtype="float64", steps=10):
    rng = np.random.default_rng(1)
    return [[rng.normal(size=shape).astype(dtype) for shape in SHAPES] for _ in range(steps)]


def run(params, opt, steps):
    for step in steps:
        for p, g in zip(params, step, strict=True):
            p.grad = rg.Tensor(p.backend.asarray(g.copy()))
        opt.step()
    return [p.numpy() for p in params]


@pytest.mark.parity
@pytest.mark.parametrize(("name", "options"), RULES)
def test_ten_steps_are_those_of_torch(name, options):
    torch = pytest.importorskip("torch")
    for dtype, tolerance in (("float64", 1e-12), ("float32", 2e-6)):
        values, params, opt = setup(name, options, dtype)
        theirs = [torch.nn.Parameter(torch.tensor(v)) for v in values]
        other = getattr(torch.optim, name)(theirs, **options)
        ours = run(params, opt, gradients(dtype))
        for step in gradients(dtype):
            for p, g in zip(theirs, step, strict=True):
                p.grad = torch.tensor(g)
            other.step()
        for one, two in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one, two.detach().numpy(), rtol=tolerance, atol=tolerance)


SWITCHES = [
    ("Adam", "amsgrad", True, False),
    ("RMSprop", "centered", True, False),
    ("RMSprop", "momentum", 0.9, 0.0),
    ("SGD", "momentum", 0.9, 0.0),
    ("AdamW", "maximize", True, False),
]


@pytest.mark.parity
@pytest.mark.parametrize(("name", "option", "on", "off"), SWITCHES)
def test_an_option_that_is_switched_off_and_on_again_is_that_of_torch(name, option, on, off):
    torch = pytest.importorskip("torch")
    values, params, opt = setup(name, {"lr": 0.1, option: on})
    theirs = [torch.nn.Parameter(torch.tensor(v)) for v in values]
    other = getattr(torch.optim, name)(theirs, lr=0.1, **{option: on})
    for i, step in enumerate(gradients()):
        opt.param_groups[0][option] = other.param_groups[0][option] = off if 3 <= i < 6 else on
        run(params, opt, [step])
        for p, g in zip(theirs, step, strict=True):
            p.grad = torch.tensor(g)
        other.step()
        for one, two in zip(params, theirs, strict=True):
            np.testing.assert_allclose(one.numpy(), two.detach().numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("name", "option", "on", "off"), SWITCHES)
def test_an_option_that_is_switched_on_late_is_so_in_a_program_too(name, option, on, off):
    results = []
    for compiles in (False, True):
        _, params, opt = setup(name, {"lr": 0.1, option: off})

        def step(x, params=params, opt=opt):
            opt.zero_grad()
            rg.sum(rg.stack([rg.sum((p * x) ** 2) for p in params])).backward()
            opt.step()

        call = rg.compile(step) if compiles else step
        for i in range(12):
            opt.param_groups[0][option] = on if 5 <= i < 9 else off
            call(rg.tensor(3.0 if i < 6 else 0.1, dtype="float64"))
        results.append([p.numpy() for p in params])
    _, plain, opt = setup(name, {"lr": 0.1, option: off})
    for i in range(12):
        step(rg.tensor(3.0 if i < 6 else 0.1, dtype="float64"), plain, opt)
    for one, two in zip(*results, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-10)
    assert not all(np.allclose(one, p.numpy(), rtol=1e-6) for one, p in zip(results[0], plain, strict=True))


@pytest.mark.parametrize(("name", "options"), RULES)
def test_the_program_the_rule_as_written_and_the_recorded_step_agree(name, options):
    _, params, opt = setup(name, options)
    in_place = run(params, opt, gradients())

    _, params, opt = setup(name, options)
    opt._build = lambda *_: None
    as_written = run(params, opt, gradients())

    _, params, opt = setup(name, options)
    run(params, opt, gradients()[:1])
    for step in gradients()[1:]:
        for p, g in zip(params, step, strict=True):
            p.grad = rg.Tensor(p.backend.asarray(g))
        with recording() as tape:
            opt.step()
        numbers = [v for s in tape.steps for v in s.inputs if isinstance(v, float)]
        assert numbers == []  # a rate that stood in the recording as a number would be frozen
    recorded = [p.numpy() for p in params]
    for one, two, three in zip(in_place, as_written, recorded, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-14, atol=1e-15)
        np.testing.assert_allclose(one, three, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize(("name", "options"), RULES)
def test_backends_agree(name, options):
    ours = run(*setup(name, options, backend="numpy")[1:], gradients())
    theirs = run(*setup(name, options, backend="strict")[1:], gradients())
    for one, two in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-14, atol=1e-15)


def test_a_rule_is_pure():
    ops = raw_ops(np.ndarray)
    p, g = np.ones(3), np.full(3, 2.0)
    hyper = optim.Adam([rg.zeros(1, requires_grad=True)], amsgrad=True).param_groups[0]
    state = optim.Adam.init(p, hyper)
    new, kept = optim.Adam.update(ops, p, g, state, optim.Adam.scalars(1, hyper))
    assert p.tolist() == [1.0] * 3
    assert not any(a.any() for a in state.values())
    assert list(kept) == ["exp_avg", "exp_avg_sq", "max_exp_avg_sq"]
    np.testing.assert_allclose(new, 1.0 - 1e-3, rtol=1e-9)


def test_large_parameters_are_worked_through_in_blocks():
    n = 2 * BLOCK + 17
    rng = np.random.default_rng(0)
    whole, parts = rng.normal(size=n), None
    p = nn.Parameter(whole.copy())
    pieces = [nn.Parameter(piece.copy()) for piece in np.array_split(whole, 5)]
    one, many = optim.Adam([p]), optim.Adam(pieces)
    for _ in range(2):
        g = rng.normal(size=n)
        p.grad = rg.tensor(g)
        for piece, part in zip(pieces, np.array_split(g, 5), strict=True):
            piece.grad = rg.tensor(part)
        one.step()
        many.step()
    parts = np.concatenate([piece.numpy() for piece in pieces])
    np.testing.assert_array_equal(p.numpy(), parts)


def test_memory_that_is_not_contiguous_is_updated_too():
    a = rg.asarray(np.arange(6.0).reshape(2, 3).T)
    p = nn.Parameter(a)
    p.grad = rg.ones((3, 2), dtype="float64")
    optim.SGD([p], lr=0.5, momentum=0.9).step()
    np.testing.assert_allclose(p.numpy(), np.arange(6.0).reshape(2, 3).T - 0.5)
    assert a.numpy()[0, 0] == -0.5


def test_an_update_is_seen_by_the_version_check():
    w = nn.Parameter([2.0])
    loss = rg.sum(w * w)
    w.grad = rg.ones(1)
    optim.SGD([w], lr=0.1).step()
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


def test_programs_need_no_buffer_more_than_they_use():
    program = build(optim.Adam.update, ("exp_avg", "exp_avg_sq"), ("take1", "keep2", "take2", "rate", "floor"))
    assert program.scratch == 2
    assert program.source.count("\n") == 12


def test_a_rule_with_other_operations_runs_as_it_is_written():
    class Lars(optim.Optimizer):
        """Steps of the length of the parameter: not elementwise."""

        def __init__(self, params, lr=0.1):
            super().__init__(params, {"lr": lr})

        @staticmethod
        def scalars(step, hyper):
            return {"lr": hyper["lr"]}

        @staticmethod
        def update(ops, p, g, state, scalars):
            return ops.subtract(p, ops.multiply(g, ops.multiply(ops.sum(ops.abs(p)), scalars["lr"]))), state

    with pytest.raises(NotElementwise):
        build(Lars.update, (), ("lr",))
    w = nn.Parameter([1.0, 3.0])
    w.grad = rg.ones(2)
    opt = Lars([w])
    opt.step()
    np.testing.assert_allclose(w.numpy(), [0.6, 2.6], rtol=1e-6)
    assert opt.state[w] == {"step": 1}
