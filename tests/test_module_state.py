"""What a Module holds is saved, loaded, copied and replaced by name; a load that fails changes nothing."""

import copy
import pickle

import numpy as np
import pytest
import retrograd as rg
from retrograd import nn
from retrograd.autograd_core.recorder import RecordingError, recording


def tied():
    net = nn.Module()
    net.embed = nn.Embedding(5, 3)
    net.head = nn.Linear(3, 5, bias=False)
    net.head.weight = net.embed.weight
    return net


# -- state ------------------------------------------------------------------------------------------------------------


def test_the_state_is_a_flat_dict_that_shares_memory(Net):
    net = Net()
    state = net.state_dict()
    assert list(state) == ["hidden.weight", "hidden.bias", "norm.weight", "norm.calls", "out.weight", "out.bias"]
    assert not any(t.requires_grad for t in state.values())
    with rg.no_grad():
        net.out.bias.fill_(3.0)
    assert state["out.bias"].tolist() == [3.0, 3.0]
    assert next(iter(net.state_dict(prefix="net."))) == "net.hidden.weight"


def test_a_state_round_trip_copies_into_the_existing_memory(Net):
    one, two = Net(), Net()
    array, object_before = two.hidden.weight.array, two.hidden.weight
    report = two.load_state_dict(one.state_dict())
    assert report == ([], [])
    assert two.hidden.weight is object_before
    assert two.hidden.weight.array is array
    assert np.array_equal(two.hidden.weight.numpy(), one.hidden.weight.numpy())
    with rg.no_grad():
        one.hidden.weight.zero_()
    assert two.hidden.weight.numpy().any()


def test_loading_takes_numpy_arrays_and_casts_within_a_kind(Net):
    net = Net()
    state = {name: t.numpy().astype(np.float64) if t.dtype.kind == "f" else t for name, t in net.state_dict().items()}
    net.load_state_dict(state)
    assert net.hidden.weight.dtype == np.float32


def test_a_state_that_does_not_fit_is_refused_whole(Net):
    net = Net()
    before = {name: t.numpy().copy() for name, t in net.state_dict().items()}
    state = {name: t.numpy() + 1 for name, t in net.state_dict().items()}
    state["hidden.wieght"] = state.pop("hidden.weight")
    state["out.bias"] = np.zeros(3, np.float32)
    state["norm.calls"] = np.zeros((), np.float32)
    with pytest.raises(RuntimeError) as info:
        net.load_state_dict(state)
    text = str(info.value)
    assert "does not fit Net, nothing was changed" in text
    assert "missing 1: 'hidden.weight'" in text
    assert "unexpected 1: 'hidden.wieght' (did you mean 'hidden.weight'?)" in text
    assert "'out.bias' expected (2,), got (3,)" in text
    assert "'norm.calls' expected int64, got float32" in text
    for name, tensor in net.state_dict().items():
        assert np.array_equal(tensor.numpy(), before[name])


def test_strict_false_leaves_out_and_reports_but_still_refuses_other_shapes(Net):
    net = Net()
    report = net.load_state_dict({"hidden.bias": np.ones(8, np.float32), "other": np.ones(1)}, strict=False)
    assert report.unexpected_keys == ["other"]
    assert "hidden.weight" in report.missing_keys
    assert net.hidden.bias.numpy().sum() == 8
    with pytest.raises(RuntimeError, match="not fitting 1"):
        net.load_state_dict({"hidden.bias": np.ones(7, np.float32)}, strict=False)
    with pytest.raises(TypeError, match=r"rg\.load"):
        net.load_state_dict("weights.safetensors")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="expected a Tensor or an array, got list"):
        net.load_state_dict({"hidden.bias": [1.0]}, strict=False)


def test_a_shared_parameter_is_named_once_and_loads_under_any_of_its_names():
    net = tied()
    assert list(dict(net.named_parameters())) == ["embed.weight"]
    assert list(net.state_dict()) == ["embed.weight"]
    values = np.arange(15, dtype=np.float32).reshape(5, 3)
    for state in (
        {"embed.weight": values},
        {"head.weight": values + 1},
        {"embed.weight": values, "head.weight": values},
    ):
        net.load_state_dict(state)
        assert np.array_equal(net.head.weight.numpy(), next(iter(state.values())))
    with pytest.raises(RuntimeError, match=r"'head\.weight' is the same parameter as 'embed\.weight'"):
        net.load_state_dict({"embed.weight": values, "head.weight": values + 1})


def test_a_module_that_holds_its_parent_is_walked_once(Net):
    net = Net()
    net.hidden.parent = net
    assert len(list(net.parameters())) == 5
    assert len(net.state_dict()) == 6


def test_copies_keep_sharing_and_are_independent():
    net = tied()
    net.embed.weight.grad = rg.ones((5, 3))
    for made in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert made.head.weight is made.embed.weight
        assert np.array_equal(made.embed.weight.numpy(), net.embed.weight.numpy())
        with rg.no_grad():
            made.embed.weight.zero_()
        assert net.embed.weight.numpy().any()
        assert isinstance(made.embed.weight, nn.Parameter)
        assert made.embed.weight.requires_grad


def test_save_and_load_through_a_file(tmp_path, Net):
    one, two = Net(), Net()
    rg.save(one.state_dict(), tmp_path / "net.safetensors")
    two.load_state_dict(rg.load(tmp_path / "net.safetensors"))
    for name, tensor in two.state_dict().items():
        assert np.array_equal(tensor.numpy(), one.state_dict()[name].numpy())


# -- functional call --------------------------------------------------------------------------------------------------


def test_functional_call_uses_other_parameters_and_puts_the_own_ones_back(Net):
    net = Net()
    own = dict(net.named_parameters())
    count = net._registrations
    given = {name: rg.tensor(p.numpy() * 2) for name, p in own.items()}
    x = rg.tensor(np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32))
    other = Net()
    other.load_state_dict({**other.state_dict(), **given})
    out = rg.functional_call(net, given, x)
    assert np.allclose(out.numpy(), other(x).numpy(), rtol=1e-6)
    assert all(p is own[name] for name, p in net.named_parameters())
    assert net._registrations == count
    gradient = rg.grad(lambda p: rg.sum(rg.functional_call(net, p, x)))(given)
    assert gradient["out.bias"].tolist() == [3.0, 3.0]
    assert net.out.bias.grad is None


def test_functional_call_replaces_shared_parameters_everywhere():
    net = tied()
    net.forward = lambda i: net.head(net.embed(i))
    out = rg.functional_call(net, {"embed.weight": rg.ones((5, 3))}, rg.tensor([1]))
    assert out.tolist() == [[3.0] * 5]


def test_functional_call_refuses_and_restores(Net):
    net = Net()
    own = net.hidden.weight
    with pytest.raises(ValueError, match=r"'hidden\.wight'; did you mean 'hidden\.weight'"):
        rg.functional_call(net, {"hidden.wight": own}, rg.ones((1, 4)))
    with pytest.raises(ValueError, match=r"has shape \(8, 4\), got \(4, 8\)"):
        rg.functional_call(net, {"hidden.weight": rg.ones((4, 8))}, rg.ones((1, 4)))
    with pytest.raises(ValueError, match="in_features"):
        rg.functional_call(net, {"hidden.weight": rg.ones((8, 4))}, rg.ones((1, 5)))
    assert net.hidden.weight is own


# -- recording --------------------------------------------------------------------------------------------------------


class Counter(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("total", rg.tensor(0.0))

    def forward(self, x):
        self.total = self.total + rg.sum(x)
        return x


def test_assigning_a_buffer_inside_a_recording_is_an_effect_on_its_memory():
    counter = Counter()
    storage = counter.total
    with recording() as tape:
        counter(rg.tensor([1.0, 2.0]))
    assert counter.total is storage
    assert storage.item() == 3.0
    assert [step.record for step in tape.steps].count(None) == 1


def test_assigning_another_part_inside_a_recording_is_refused():
    module, part = nn.Module(), nn.Linear(1, 1)
    with recording(), pytest.raises(RecordingError, match="'last'"):
        module.last = part
    with recording(), pytest.raises(RecordingError, match="converted"):
        module.double()
