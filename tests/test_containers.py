"""Containers of modules: indexed, sliced and changed as a list or a dict is."""

from collections import OrderedDict

import pytest
import retrograd as rg
from retrograd import nn


def names(module):
    return [name for name, _ in module.named_parameters()]


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
