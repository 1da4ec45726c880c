"""The state of an optimizer: by position or name, in memory and in files, to PyTorch and back; nothing half loaded."""

import copy
import json
import pickle

import numpy as np
import pytest
import retrograd as rg
from retrograd import nn, optim


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
