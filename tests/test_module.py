"""Module: what is registered, how it is named, what an error says, and that a failed load changes nothing."""

import copy
import gc
import pickle
import traceback
import weakref
from collections import OrderedDict

import numpy as np
import pytest
import retrograd as rg
from retrograd import nn
from retrograd.autograd_core.recorder import RecordingError, recording


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(4, 8)
        self.norm = Scale(8)
        self.out = nn.Linear(8, 2)

    def forward(self, x):
        return self.out(self.norm(self.hidden(x)))


class Scale(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.register_buffer("calls", rg.tensor(0))
        self.register_buffer("scratch", rg.zeros(n), persistent=False)
        self.weight = nn.Parameter(rg.ones(n))

    def forward(self, x):
        return x * self.weight


def names(module):
    return [name for name, _ in module.named_parameters()]


# -- registration -----------------------------------------------------------------------------------------------------


def test_attributes_are_registered_in_the_order_of_their_first_assignment():
    net = Net()
    assert names(net) == ["hidden.weight", "hidden.bias", "norm.weight", "out.weight", "out.bias"]
    net.hidden = nn.Linear(4, 8)
    assert names(net)[0] == "hidden.weight"
    assert [n for n, _ in net.named_buffers()] == ["norm.calls", "norm.scratch"]
    assert [n for n, _ in net.named_modules()] == ["", "hidden", "norm", "out"]
    assert [n for n, _ in net.named_children()] == ["hidden", "norm", "out"]
    assert len(list(net.modules())) == 4
    assert len(list(net.parameters(recurse=False))) == 0


def test_a_forgotten_super_init_does_no_harm():
    class Forgetful(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(2, 1)
            self.register_buffer("seen", rg.tensor(0))

        def forward(self, x):
            return self.layer(x)

    net = Forgetful()
    assert names(net) == ["layer.weight", "layer.bias"]
    assert net(rg.ones((3, 2))).shape == (3, 1)
    assert list(net.eval().state_dict()) == ["seen", "layer.weight", "layer.bias"]
    assert not net.layer.training


@pytest.mark.parametrize("fill_later", [False, True])
def test_lists_and_dicts_of_modules_become_containers(fill_later):
    class Stack(nn.Module):
        def __init__(self):
            super().__init__()
            if fill_later:
                self.layers, self.heads = [], {}
                for _ in range(2):
                    self.layers.append(nn.Linear(3, 3))
                self.heads["a"] = nn.Linear(3, 1)
            else:
                self.layers = [nn.Linear(3, 3), nn.Linear(3, 3)]
                self.heads = {"a": nn.Linear(3, 1)}

    stack = Stack()
    expected = [f"{path}.{name}" for path in ("layers.0", "layers.1", "heads.a") for name in ("weight", "bias")]
    assert names(stack) == expected
    assert isinstance(stack.layers, nn.ModuleList)
    assert isinstance(stack.heads, nn.ModuleDict)


def test_nested_lists_and_lists_of_parameters_are_found():
    module = nn.Module()
    module.blocks = [[nn.ReLU(), nn.Linear(2, 2)], [nn.Linear(2, 2)]]
    module.scales = [nn.Parameter(rg.ones(1)), nn.Parameter(rg.ones(1))]
    module.words = ["no", "module"]
    module.sizes = {"a": 1}
    assert names(module) == [
        "blocks.0.1.weight",
        "blocks.0.1.bias",
        "blocks.1.0.weight",
        "blocks.1.0.bias",
        "scales.0",
        "scales.1",
    ]
    assert module.words == ["no", "module"]
    assert module.sizes == {"a": 1}


def test_a_list_that_mixes_modules_with_other_things_is_refused():
    module = nn.Module()
    with pytest.raises(TypeError, match=r"'layers' holds 1 Modules and a int"):
        module.layers = [nn.ReLU(), 3]
    assert not hasattr(module, "layers")


def test_what_takes_the_place_of_a_parameter_or_submodule_must_be_one():
    net = Net()
    with pytest.raises(TypeError, match=r"'weight' is a Parameter.*copy_"):
        net.hidden.weight = rg.zeros((8, 4))
    with pytest.raises(TypeError, match="'hidden' is a submodule"):
        net.hidden = net.hidden(rg.ones((1, 4)))
    with pytest.raises(TypeError, match="'calls' is a buffer"):
        net.norm.calls = 3
    net.hidden.bias = None
    assert names(net)[:2] == ["hidden.weight", "norm.weight"]
    del net.out
    assert names(net) == ["hidden.weight", "norm.weight"]


def test_registration_by_name_refuses_what_cannot_be_a_name():
    module = nn.Module()
    module.register_parameter("w", nn.Parameter(rg.ones(1)))
    module.add_module("part", nn.ReLU())
    assert names(module) == ["w"]
    with pytest.raises(ValueError, match="without a dot"):
        module.add_module("a.b", nn.ReLU())
    with pytest.raises(ValueError, match=r"would hide Module\.forward"):
        module.register_buffer("forward", rg.zeros(1))
    with pytest.raises(TypeError, match="expected a Parameter"):
        module.register_parameter("v", rg.zeros(1))
    with pytest.raises(TypeError, match="a buffer is a Tensor"):
        module.register_buffer("b", np.zeros(1))
    with pytest.raises(TypeError, match="expected a Module"):
        module.add_module("m", rg.zeros(1))


def test_the_registration_counter_moves_with_parameters_buffers_and_submodules_alone():
    net = Net()
    before = net._registrations
    net.note = "a text"
    net.result = rg.zeros(3)
    assert net._registrations == before
    for change in (
        lambda: setattr(net, "extra", nn.ReLU()),
        lambda: setattr(net, "extra", None),
        lambda: setattr(net, "scale", nn.Parameter(rg.ones(1))),
        lambda: net.register_buffer("b", rg.zeros(1)),
        lambda: setattr(net, "b", rg.ones(1)),
        lambda: delattr(net, "scale"),
    ):
        change()
        assert net._registrations > before
        before = net._registrations


def test_a_missing_attribute_lists_the_nearest_names():
    net = Net()
    with pytest.raises(AttributeError, match=r"Net has no attribute 'hiden'; did you mean 'hidden'"):
        net.hiden
    assert not hasattr(net, "nothing_like_it")
    with pytest.raises(AttributeError, match=r"no module 'hiden'.*'hidden'"):
        net.get_submodule("hiden")
    with pytest.raises(AttributeError, match=r"no parameter.*'out\.weight'"):
        net.get_parameter("out.wight")
    assert net.get_submodule("hidden") is net.hidden
    assert net.get_parameter("out.weight") is net.out.weight


def test_the_error_inside_a_property_is_the_one_that_is_seen():
    class WithProperty(nn.Module):
        @property
        def depth(self):
            return self.layers_of_it

    with pytest.raises(AttributeError, match="layers_of_it"):
        WithProperty().depth


def test_a_module_without_forward_says_so():
    class Typo(nn.Module):
        def foward(self, x):
            return x

    with pytest.raises(NotImplementedError, match=r"Typo has no forward method; did you mean 'foward'\?"):
        Typo()(1)


# -- calls and errors -------------------------------------------------------------------------------------------------


def block():
    return nn.Sequential(OrderedDict(attention=nn.Linear(4, 4), mlp=nn.Linear(5, 4)))


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.ModuleList([nn.Linear(4, 4), block()])

    def forward(self, x):
        for layer in self.layer:
            x = layer(x)
        return x


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = Encoder()

    def forward(self, x):
        return self.encoder(x)


def test_an_error_carries_the_path_of_the_module_and_no_frames_of_ours():
    with pytest.raises(ValueError, match=r"^encoder\.layer\.1\.mlp \(Linear\): expected in_features=5") as info:
        Model()(rg.ones((2, 4)))
    frames = traceback.extract_tb(info.value.__traceback__)
    mine = [f.filename == __file__ for f in frames]
    assert [f.name for f in frames if f.filename == __file__][-2:] == ["forward", "forward"]
    assert sum(1 for f in mine[mine.index(True) :][::-1][: mine[::-1].index(True)]) <= 1


def test_errors_of_every_kind_show_one_frame_of_ours():
    weight = nn.Parameter([1.0])
    net, opt = nn.Sequential(nn.Linear(2, 1)), rg.optim.SGD([weight])
    schedules = rg.optim.lr_scheduler
    for call in (
        lambda: rg.optim.Adam([np.zeros(2)]),
        lambda: rg.optim.SGD([weight], lr=-1),
        lambda: opt.add_param_group({"params": [weight]}),
        lambda: opt.load_state_dict({}),
        lambda: opt.from_arrays({}, {}),
        lambda: opt.state_dict(net),
        lambda: schedules.StepLR(opt, 0),
        lambda: schedules.OneCycleLR(opt, 0.1, total_steps=3, anneal_strategy="none"),
        lambda: rg.optim.clip_grad_norm_(net, 1.0),
        lambda: net.load_state_dict({}),
        lambda: net.freeze("no such name"),
        lambda: net.to("int32"),
        lambda: net.summary((5,)),
        lambda: nn.Sequential(3),
        lambda: nn.ModuleList([3]),
        lambda: nn.ModuleDict({"a.b": nn.ReLU()}),
        lambda: net[9],
        lambda: setattr(net, "x", [nn.ReLU(), 3]),
        lambda: setattr(net[0], "weight", 3),
        lambda: net.wieght,
        lambda: nn.Conv2d(1, 1, 0),
        lambda: nn.Parameter([1]),
        lambda: nn.init.xavier_uniform_(rg.zeros(3)),
        lambda: nn.functional_call(net, {"x": 1}, 3),
        lambda: nn.CrossEntropyLoss()(rg.zeros((2, 3)), rg.tensor([0, 5])),
        lambda: net(rg.zeros((2, 3))),
    ):
        with pytest.raises((TypeError, ValueError, RuntimeError, IndexError, AttributeError)) as info:
            call()
        names, here = [], info.tb
        while here is not None:
            names.append(here.tb_frame.f_globals["__name__"])
            here = here.tb_next
        assert sum(name.startswith("retrograd.") for name in names) <= 1, str(info.value)


def test_the_error_of_a_lone_layer_names_its_kind():
    with pytest.raises(ValueError, match=r"^Linear: expected in_features=4"):
        nn.Linear(4, 2)(rg.ones((2, 3)))


def test_an_error_of_the_users_own_keeps_its_text_and_gets_a_note():
    class Picky(nn.Module):
        def forward(self, x):
            raise KeyError("mine")

    with pytest.raises(KeyError) as info:
        nn.Sequential(nn.ReLU(), Picky())(rg.ones(1))
    assert info.value.args == ("mine",)
    assert info.value.__notes__ == ["in the module 1 (Picky)"]


def test_all_frames_are_shown_on_request(monkeypatch):
    monkeypatch.setenv("RETROGRAD_TRACEBACK", "full")
    with pytest.raises(ValueError, match="in_features") as info:
        Model()(rg.ones((2, 4)))
    assert any(f.name == "wrong_last_axis" or f.filename.endswith("linear.py") for f in traceback.extract_tb(info.tb))


def test_hooks_see_and_replace_arguments_and_outputs():
    layer = nn.Linear(2, 2)
    seen = []
    first = layer.register_forward_pre_hook(lambda m, args: seen.append(args[0].shape) or (args[0] * 0,))
    second = layer.register_forward_hook(lambda m, args, out: out + 1)
    with rg.no_grad():
        assert np.allclose(layer(rg.ones((3, 2))).numpy(), np.tile(layer.bias.numpy() + 1, (3, 1)))
        first.remove()
        second.remove()
        assert seen == [(3, 2)]
        expected = layer.weight.numpy().sum(1) + layer.bias.numpy()
        assert np.allclose(layer(rg.ones((1, 2))).numpy()[0], expected)


# -- state ------------------------------------------------------------------------------------------------------------


def test_the_state_is_a_flat_dict_that_shares_memory():
    net = Net()
    state = net.state_dict()
    assert list(state) == ["hidden.weight", "hidden.bias", "norm.weight", "norm.calls", "out.weight", "out.bias"]
    assert not any(t.requires_grad for t in state.values())
    with rg.no_grad():
        net.out.bias.fill_(3.0)
    assert state["out.bias"].tolist() == [3.0, 3.0]
    assert next(iter(net.state_dict(prefix="net."))) == "net.hidden.weight"


def test_a_state_round_trip_copies_into_the_existing_memory():
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


def test_loading_takes_numpy_arrays_and_casts_within_a_kind():
    net = Net()
    state = {name: t.numpy().astype(np.float64) if t.dtype.kind == "f" else t for name, t in net.state_dict().items()}
    net.load_state_dict(state)
    assert net.hidden.weight.dtype == np.float32


def test_a_state_that_does_not_fit_is_refused_whole():
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


def test_strict_false_leaves_out_and_reports_but_still_refuses_other_shapes():
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


def tied():
    net = nn.Module()
    net.embed = nn.Embedding(5, 3)
    net.head = nn.Linear(3, 5, bias=False)
    net.head.weight = net.embed.weight
    return net


def test_a_shared_parameter_is_named_once_and_loads_under_any_of_its_names():
    net = tied()
    assert names(net) == ["embed.weight"]
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


def test_a_module_that_holds_its_parent_is_walked_once():
    net = Net()
    net.hidden.parent = net
    assert len(names(net)) == 5
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


def test_save_and_load_through_a_file(tmp_path):
    one, two = Net(), Net()
    rg.save(one.state_dict(), tmp_path / "net.safetensors")
    two.load_state_dict(rg.load(tmp_path / "net.safetensors"))
    for name, tensor in two.state_dict().items():
        assert np.array_equal(tensor.numpy(), one.state_dict()[name].numpy())


# -- modes, freezing, conversion --------------------------------------------------------------------------------------


def test_train_and_eval_reach_every_module():
    net = Net()
    assert all(m.training for m in net.modules())
    assert net.eval() is net
    assert not any(m.training for m in net.modules())
    net.train()
    assert all(m.training for m in net.modules())
    with pytest.raises(TypeError, match="True or False"):
        net.train("yes")  # type: ignore[arg-type]


def test_freezing_goes_by_pattern_or_module_name():
    net = Net()

    def trained():
        return [n for n, p in net.named_parameters() if p.requires_grad]

    assert net.freeze("hidden", "*.bias") is net
    assert trained() == ["norm.weight", "out.weight"]
    net.unfreeze("hidden.bias")
    assert trained() == ["hidden.bias", "norm.weight", "out.weight"]
    net.freeze()
    assert trained() == []
    net.requires_grad_()
    assert len(trained()) == 5
    with pytest.raises(ValueError, match="no parameter of Net matches 'hiden'; did you mean 'hidden'"):
        net.freeze("hiden")


def test_zero_grad_takes_gradients_away_or_fills_them():
    net = Net()
    rg.sum(net(rg.ones((1, 4)))).backward()
    kept = net.out.bias.grad
    net.zero_grad(set_to_none=False)
    assert not net.out.bias.grad.numpy().any()
    assert kept.numpy().any()
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_conversion_keeps_the_parameter_objects_and_integer_buffers():
    net = Net()
    weight = net.hidden.weight
    weight.grad = rg.ones((8, 4))
    assert net.double() is net
    assert net.hidden.weight is weight
    assert weight.dtype == weight.grad.dtype == np.float64
    assert net.norm.calls.dtype == np.int64
    assert net(rg.ones((1, 4), dtype="float64")).dtype == np.float64
    assert net.half().out.bias.dtype == np.float16
    assert net.to("float32").out.bias.dtype == np.float32
    with pytest.raises(TypeError, match="floating dtype, not to int32"):
        net.to(np.int32)


def test_moving_to_another_backend_and_back():
    net = Net()
    here, there = net.hidden.weight.backend.name, {"numpy": "strict", "strict": "numpy"}
    values = net.hidden.weight.numpy().copy()
    net.to(there[here])
    assert {t.backend.name for t in [*net.parameters(), *net.buffers()]} == {there[here]}
    assert net(rg.ones((1, 4), backend=there[here])).backend.name == there[here]
    net.to(here)
    assert np.array_equal(net.hidden.weight.numpy(), values)


def test_apply_visits_children_first():
    order = []
    Net().apply(lambda m: order.append(type(m).__name__))
    assert order == ["Linear", "Scale", "Linear", "Net"]


# -- functional call --------------------------------------------------------------------------------------------------


def test_functional_call_uses_other_parameters_and_puts_the_own_ones_back():
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


def test_functional_call_refuses_and_restores():
    net = Net()
    own = net.hidden.weight
    with pytest.raises(ValueError, match=r"'hidden\.wight'; did you mean 'hidden\.weight'"):
        rg.functional_call(net, {"hidden.wight": own}, rg.ones((1, 4)))
    with pytest.raises(ValueError, match=r"has shape \(8, 4\), got \(4, 8\)"):
        rg.functional_call(net, {"hidden.weight": rg.ones((4, 8))}, rg.ones((1, 4)))
    with pytest.raises(ValueError, match="in_features"):
        rg.functional_call(net, {"hidden.weight": rg.ones((8, 4))}, rg.ones((1, 5)))
    assert net.hidden.weight is own


# -- containers -------------------------------------------------------------------------------------------------------


def test_sequential_is_indexed_sliced_and_changed_like_a_list():
    a, b, c = nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)
    net = nn.Sequential(a, b, c)
    assert len(net) == 3
    assert net[0] is a
    assert net[-1] is c
    assert list(net) == [a, b, c]
    assert list(net[1:]) == [b, c]
    assert net(rg.ones((4, 2))).shape == (4, 1)
    net[1] = nn.Tanh()
    net.append(nn.Sigmoid())
    net.insert(0, nn.Identity())
    assert [type(m).__name__ for m in net] == ["Identity", "Linear", "Tanh", "Linear", "Sigmoid"]
    assert names(net)[0] == "1.weight"
    del net[0]
    assert names(net)[0] == "0.weight"
    assert isinstance(net.pop(), nn.Sigmoid)
    assert len(net + nn.Sequential(nn.ReLU())) == 4
    with pytest.raises(IndexError, match="has 3 items, none at 7"):
        net[7]
    with pytest.raises(TypeError, match=r"unpack"):
        nn.Sequential([nn.ReLU()])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"holds Modules, got type \(a class: make an instance"):
        nn.Sequential(nn.ReLU)  # type: ignore[arg-type]


def test_sequential_with_names():
    net = nn.Sequential(OrderedDict(first=nn.Linear(2, 3), second=nn.ReLU()))
    assert net.first is net[0]
    assert names(net) == ["first.weight", "first.bias"]
    assert [n for n, _ in net[1:].named_children()] == ["second"]
    del net[0]
    assert [n for n, _ in net.named_children()] == ["second"]


def test_module_lists_and_dicts():
    layers = nn.ModuleList([nn.Linear(2, 2)])
    layers += [nn.ReLU(), nn.Linear(2, 1)]
    assert len(layers) == 3
    assert layers[2] in layers
    assert names(layers) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    with pytest.raises(TypeError, match="is not called"):
        layers(rg.ones(2))
    heads = nn.ModuleDict({"a": nn.Linear(2, 1)})
    heads["b"] = nn.Linear(2, 1)
    assert list(heads) == ["a", "b"]
    assert [n for n, _ in heads.items()] == list(heads.keys())
    assert heads.pop("a") is not None
    assert names(heads) == ["b.weight", "b.bias"]
    with pytest.raises(KeyError, match=r"no item 'bb'.*'b'"):
        heads["bb"]
    with pytest.raises(ValueError, match=r"would hide ModuleDict\.keys"):
        heads["keys"] = nn.ReLU()
    assert names(nn.ParameterDict({"w": rg.ones(2)})) == ["w"]
    assert names(nn.ParameterList([rg.ones(2), rg.ones(1)])) == ["0", "1"]


# -- looking at it ----------------------------------------------------------------------------------------------------


def test_summary_shows_shapes_parameters_and_what_is_frozen():
    net = Net().freeze("hidden")
    net.unused = nn.Linear(2, 2)
    summary = net.summary((4,))
    rows = {layer.name: layer for layer in summary.layers}
    assert rows["hidden"].output == "(1, 8)"
    assert rows["hidden"].frozen == rows["hidden"].parameters == 40
    assert rows["unused"].output == "not called"
    assert (summary.trained, summary.frozen) == (8 + 18 + 6, 40)
    assert "hidden Linear" in str(summary)
    assert "frozen" in repr(summary)
    assert net.training
    assert net.summary(sample=rg.ones((7, 4))).layers[0].output == "(7, 2)"
    assert net.summary().layers[0].output == ""
    with pytest.raises(ValueError, match=r"zeros of shape \(1, 5\)"):
        net.summary((5,))


def test_gradient_report_names_what_no_gradient_reached():
    net = Net().freeze("hidden.weight")
    net.unused = nn.Linear(2, 2)
    rg.sum(net(rg.ones((1, 4)))).backward()
    report = net.gradient_report()
    assert report.unreached == ["unused.weight", "unused.bias"]
    assert report.norms["out.bias"] == pytest.approx(2**0.5)
    assert report.norms["hidden.weight"] is None
    text = str(report)
    assert "frozen" in text
    assert "no gradient reached unused.weight, unused.bias" in text


def test_a_module_is_freed_without_the_collector():
    net = Net()
    rg.sum(net(rg.ones((1, 4)))).backward()
    reference = weakref.ref(net.hidden.weight)
    gc.disable()
    try:
        del net
        assert reference() is None
    finally:
        gc.enable()


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


def test_assigning_another_tensor_attribute_inside_a_recording_is_refused():
    module = nn.Module()
    with recording(), pytest.raises(RecordingError, match="'last'"):
        module.last = rg.zeros(1)
    with recording(), pytest.raises(RecordingError, match="converted"):
        module.double()


# -- Parameter --------------------------------------------------------------------------------------------------------


def test_parameters_share_tensors_and_copy_arrays():
    tensor, array = rg.zeros(3), np.zeros(3, np.float32)
    one, two = nn.Parameter(tensor), nn.Parameter(array)
    with rg.no_grad():
        one.fill_(1.0)
        two.fill_(1.0)
    assert tensor.tolist() == [1.0] * 3
    assert array.tolist() == [0.0] * 3
    assert one.requires_grad
    assert not nn.Parameter(tensor, requires_grad=False).requires_grad
    assert type(one * 2) is rg.Tensor
    assert weakref.ref(one)() is one
    with pytest.raises(TypeError, match="only floating"):
        nn.Parameter([1, 2])


def test_a_parameter_made_from_a_result_does_not_change_the_graph():
    x = rg.tensor([2.0], requires_grad=True)
    y = x * x
    p = nn.Parameter(y)
    with rg.no_grad():
        p.fill_(9.0)
    assert y.item() == 4.0
    assert p.is_leaf
