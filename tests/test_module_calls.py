"""Calling a Module: hooks, the path in an error, and how little of the framework a traceback shows."""

import traceback
from collections import OrderedDict

import numpy as np
import pytest
import retrograd as rg
from retrograd import nn


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
