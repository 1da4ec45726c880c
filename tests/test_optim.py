"""Optimizers: the rules against PyTorch's, groups, skipped parameters, state in memory and in files, recordings."""

import copy
import json
import math
import pickle

import numpy as np
import pytest
import retrograd as rg
from retrograd import nn, optim
from retrograd.autograd_core.record import raw_ops
from retrograd.autograd_core.recorder import RecordingError, recording
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


# -- the rules --------------------------------------------------------------------------------------------------------


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


# -- stepping ---------------------------------------------------------------------------------------------------------


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


# -- state ------------------------------------------------------------------------------------------------------------


def model_and_optimizer(named=False, seed=0, kind="AdamW", **options):
    rg.manual_seed(seed)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    params = net.named_parameters() if named else net.parameters()
    return net, getattr(optim, kind)(params, lr=0.05, **options)


def train(net, opt, steps, seed=1):
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        opt.zero_grad()
        x = rg.tensor(rng.normal(size=(5, 3)).astype(np.float32))
        rg.mean(rg.square(net(x) - 1)).backward()
        opt.step()
    return {name: t.numpy().copy() for name, t in net.state_dict().items()}


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("kind", ["AdamW", "SGD", "RMSprop"])
def test_training_goes_on_from_a_saved_state_bit_for_bit(tmp_path, named, kind):
    options = {} if kind == "AdamW" else {"momentum": 0.9}
    net, opt = model_and_optimizer(named, kind=kind, **options)
    train(net, opt, 3)
    saved, state = {n: t.numpy().copy() for n, t in net.state_dict().items()}, copy.deepcopy(opt.state_dict())
    rg.save(*_for_save(opt, tmp_path))
    whole = train(net, opt, 3, seed=2)

    second, again = model_and_optimizer(named, seed=9, kind=kind, **options)
    second.load_state_dict(saved)
    again.load_state_dict(state)
    for name, values in train(second, again, 3, seed=2).items():
        np.testing.assert_array_equal(values, whole[name])

    third, last = model_and_optimizer(named, seed=9, kind=kind, **options)
    third.load_state_dict(saved)
    last.from_arrays(rg.load(tmp_path / "o.safetensors"), opt_metadata(tmp_path))
    for name, values in train(third, last, 3, seed=2).items():
        np.testing.assert_array_equal(values, whole[name])


def _for_save(opt, folder):
    tensors, metadata = opt.to_arrays()
    (folder / "o.json").write_text(json.dumps(metadata))
    return tensors, folder / "o.safetensors", metadata


def opt_metadata(folder):
    return json.loads((folder / "o.json").read_text())


def test_the_state_is_keyed_by_position_or_by_name():
    net, opt = model_and_optimizer()
    train(net, opt, 1)
    state = opt.state_dict()
    assert list(state["state"]) == [0, 1, 2, 3]
    assert state["param_groups"][0]["params"] == [0, 1, 2, 3]
    named = opt.state_dict(net)
    assert list(named["state"]) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert named["state"]["0.weight"]["step"] == 1
    assert set(named["state"]["0.weight"]) == {"step", "exp_avg", "exp_avg_sq"}
    tensors, metadata = opt.to_arrays(net)
    assert tensors["0.weight/step"].dtype == np.int64
    assert "2.bias/exp_avg_sq" in tensors
    assert json.loads(metadata["optimizer"])["param_groups"][0]["betas"] == [0.9, 0.999]
    _, other = model_and_optimizer(named=True)
    other.load_state_dict(named)
    assert other.param_groups[0]["betas"] == (0.9, 0.999)
    assert other.param_groups[0]["lr"] == 0.05


def test_a_loaded_state_has_memory_of_its_own():
    net, opt = model_and_optimizer(named=True)
    train(net, opt, 1)
    _, other = model_and_optimizer(named=True)
    other.load_state_dict(opt.state_dict())
    before = other.state_dict()["state"]["0.bias"]["exp_avg"].numpy().copy()
    train(net, opt, 1)
    np.testing.assert_array_equal(other.state_dict()["state"]["0.bias"]["exp_avg"].numpy(), before)


def test_a_state_that_does_not_fit_is_refused_and_changes_nothing():
    net, opt = model_and_optimizer(named=True)
    train(net, opt, 1)
    good = opt.state_dict()
    _, target = model_and_optimizer(named=True)

    def broken(change):
        state = {
            "state": {k: dict(v) for k, v in good["state"].items()},
            "param_groups": [dict(g) for g in good["param_groups"]],
        }
        change(state)
        return state

    def rename(state):
        state["state"]["0.wieght"] = state["state"].pop("0.weight")

    cases = [
        (rename, r"'0\.wieght' \(did you mean '0\.weight'"),
        (lambda s: s["state"]["0.bias"].pop("exp_avg"), r"of '0\.bias' holds \['exp_avg_sq', 'step'\], AdamW needs"),
        (lambda s: s["state"]["0.bias"].update(exp_avg=rg.zeros(7)), r"'exp_avg' of '0\.bias' must have shape \(4,\)"),
        (lambda s: s["param_groups"].append({"params": []}), "2 groups with 4, 0 parameters"),
        (lambda s: s["param_groups"][0].update(lr=-1), "lr must be"),
        (lambda s: s.pop("state"), '"state" and "param_groups"'),
    ]
    for change, text in cases:
        with pytest.raises(ValueError, match=text):
            target.load_state_dict(broken(change))
        assert target.state == {}
        assert target.param_groups[0]["lr"] == 0.05
    _, unnamed = model_and_optimizer()
    with pytest.raises(ValueError, match="keyed by names, the optimizer has none"):
        unnamed.load_state_dict(good)
    sgd = optim.SGD(nn.Linear(2, 1).named_parameters())
    with pytest.raises(ValueError, match="are of AdamW, this optimizer is SGD"):
        sgd.from_arrays(*opt.to_arrays())
    with pytest.raises(ValueError, match="no entry 'optimizer'"):
        sgd.from_arrays({}, {})
    with pytest.raises(ValueError, match="do not belong to this Linear"):
        opt.state_dict(nn.Linear(2, 1))


def test_optimizers_are_copied_and_pickled_with_their_parameters():
    net, opt = model_and_optimizer()
    train(net, opt, 2)
    whole = train(*copy.deepcopy((net, opt)), 2)
    again = train(*pickle.loads(pickle.dumps((net, opt))), 2)
    for name, values in train(net, opt, 2).items():
        np.testing.assert_array_equal(values, whole[name])
        np.testing.assert_array_equal(values, again[name])


@pytest.mark.parity
def test_states_go_over_to_torch_and_back():
    torch = pytest.importorskip("torch")
    net, opt = model_and_optimizer()
    train(net, opt, 2)
    twin = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    twin.load_state_dict({n: torch.tensor(t.numpy()) for n, t in net.state_dict().items()})
    other = torch.optim.AdamW(twin.parameters(), lr=0.05)
    x = np.random.default_rng(3).normal(size=(5, 3)).astype(np.float32)
    state = opt.state_dict()
    entry = {
        k: {n: torch.tensor(v.numpy() if n != "step" else float(v)) for n, v in s.items()}
        for k, s in state["state"].items()
    }
    other.load_state_dict({"state": entry, "param_groups": other.state_dict()["param_groups"]})
    opt.zero_grad()
    rg.mean(rg.square(net(rg.tensor(x)) - 1)).backward()
    opt.step()
    ((twin(torch.tensor(x)) - 1) ** 2).mean().backward()
    other.step()
    for ours, theirs in zip(net.parameters(), twin.parameters(), strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), rtol=1e-5, atol=1e-7)
    back = {
        "state": {k: dict(v) for k, v in other.state_dict()["state"].items()},
        "param_groups": state["param_groups"],
    }
    for entry in back["state"].values():
        entry |= {n: v.numpy() for n, v in entry.items()}
    opt.load_state_dict(back)
    assert opt.state[next(net.parameters())]["step"] == 3


# -- recording --------------------------------------------------------------------------------------------------------


def test_a_recorded_step_reads_its_numbers_from_slots_that_a_host_call_fills():
    a, b = nn.Parameter([1.0]), nn.Parameter([1.0])
    opt = optim.Adam([a, b], lr=0.1)
    a.grad = rg.ones(1)
    opt.step()
    b.grad = rg.ones(1)
    with recording() as tape:
        calls = []
        tape.host = calls.append
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


# -- clipping ---------------------------------------------------------------------------------------------------------


def with_gradients(dtype="float32"):
    rng = np.random.default_rng(5)
    params = [nn.Parameter(rg.zeros(shape, dtype=dtype)) for shape in ((3, 4), (5,), (), (0,))]
    for p in params:
        p.grad = rg.tensor(rng.normal(size=p.shape).astype(dtype))
    return [*params, nn.Parameter(rg.zeros(2))]


@pytest.mark.parametrize("norm_type", [2.0, 1.0, 3.0, math.inf])
@pytest.mark.parametrize("max_norm", [0.5, 100.0])
def test_gradients_are_scaled_to_the_norm(norm_type, max_norm):
    params = with_gradients("float64")
    before = np.concatenate([p.grad.numpy().ravel() for p in params[:-1]])
    memory = params[0].grad
    total = optim.clip_grad_norm_(params, max_norm, norm_type)
    expected = np.linalg.norm(before, norm_type)
    assert total.shape == ()
    assert total.item() == pytest.approx(expected, rel=1e-12)
    after = np.concatenate([p.grad.numpy().ravel() for p in params[:-1]])
    np.testing.assert_allclose(after, before * min(1, max_norm / (expected + 1e-6)), rtol=1e-12)
    assert params[0].grad is memory
    assert params[-1].grad is None


def test_clipping_bad_and_empty_requests():
    params = with_gradients()
    params[1].grad = rg.full((5,), math.inf)
    before = params[0].grad.numpy().copy()
    with pytest.raises(RuntimeError, match=r"norm of the gradients is inf; nothing was clipped"):
        optim.clip_grad_norm_(params, 1.0, error_if_nonfinite=True)
    np.testing.assert_array_equal(params[0].grad.numpy(), before)
    with pytest.raises(ValueError, match="max_norm must be"):
        optim.clip_grad_norm_(params, -1.0)
    with pytest.raises(TypeError, match=r"write module\.parameters"):
        optim.clip_grad_norm_(nn.Linear(2, 1), 1.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected parameters, got ndarray"):
        optim.clip_grad_norm_([np.zeros(2)], 1.0)  # type: ignore[list-item]
    assert optim.clip_grad_norm_([nn.Parameter([1.0])], 1.0).item() == 0.0
    with recording(), pytest.raises(RecordingError, match="error_if_nonfinite"):
        optim.clip_grad_norm_(params, 1.0, error_if_nonfinite=True)


def test_half_precision_gradients_have_a_finite_norm():
    p = nn.Parameter(rg.zeros(4, dtype="float16"))
    p.grad = rg.full((4,), 1000.0, dtype="float16")
    assert optim.clip_grad_norm_(p, 1.0).item() == 2000.0
    np.testing.assert_allclose(p.grad.numpy(), 0.5, rtol=1e-3)
    assert p.grad.dtype == np.float16


def test_clipping_by_value():
    p = nn.Parameter([0.0, 0.0, 0.0])
    p.grad = rg.tensor([-3.0, 0.5, 2.0])
    optim.clip_grad_value_(p, 1.0)
    assert p.grad.tolist() == [-1.0, 0.5, 1.0]
    with pytest.raises(ValueError, match="clip_value"):
        optim.clip_grad_value_(p, -1.0)


def test_in_a_recording_clipping_is_operations_on_all_gradients_end_to_end():
    params, others = with_gradients()[:2], with_gradients()[:2]
    with recording() as tape:
        optim.clip_grad_norm_(params, 0.5)
    names = [step.record.name for step in tape.steps]
    assert names.count("matmul") == 1
    assert names.count("multiply") == 1
    optim.clip_grad_norm_(others, 0.5)
    for p, q in zip(params, others, strict=True):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-6)


def test_parameters_as_one_vector():
    net = nn.Linear(3, 2)
    vector = nn.utils.parameters_to_vector(net.parameters())
    assert vector.shape == (8,)
    nn.utils.vector_to_parameters(rg.arange(8.0), net.parameters())
    assert net.weight.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert net.bias.tolist() == [6.0, 7.0]
    assert net.weight.requires_grad
    with pytest.raises(ValueError, match="a vector of 8 numbers, got float32 tensor"):
        nn.utils.vector_to_parameters(rg.zeros(7), net.parameters())
    assert nn.utils.clip_grad_norm_ is optim.clip_grad_norm_
