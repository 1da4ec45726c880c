"""Module: what is registered, how it is named, and what reaches every part: modes, freezing, conversion."""

import gc
import weakref

import numpy as np
import pytest
import retrograd as rg
from retrograd import nn


def names(module):
    return [name for name, _ in module.named_parameters()]


# -- registration -----------------------------------------------------------------------------------------------------


def test_attributes_are_registered_in_the_order_of_their_first_assignment(Net):
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


def test_what_takes_the_place_of_a_parameter_or_submodule_must_be_one(Net):
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


def test_the_registration_counter_moves_with_parameters_buffers_and_submodules_alone(Net):
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


def test_a_missing_attribute_lists_the_nearest_names(Net):
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


# -- modes, freezing, conversion --------------------------------------------------------------------------------------


def test_train_and_eval_reach_every_module(Net):
    net = Net()
    assert all(m.training for m in net.modules())
    assert net.eval() is net
    assert not any(m.training for m in net.modules())
    net.train()
    assert all(m.training for m in net.modules())
    with pytest.raises(TypeError, match="True or False"):
        net.train("yes")  # type: ignore[arg-type]


def test_freezing_goes_by_pattern_or_module_name(Net):
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


def test_zero_grad_takes_gradients_away_or_fills_them(Net):
    net = Net()
    rg.sum(net(rg.ones((1, 4)))).backward()
    kept = net.out.bias.grad
    net.zero_grad(set_to_none=False)
    assert not net.out.bias.grad.numpy().any()
    assert kept.numpy().any()
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_conversion_keeps_the_parameter_objects_and_integer_buffers(Net):
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


def test_moving_to_another_backend_and_back(Net):
    net = Net()
    here, there = net.hidden.weight.backend.name, {"numpy": "strict", "strict": "numpy"}
    values = net.hidden.weight.numpy().copy()
    net.to(there[here])
    assert {t.backend.name for t in [*net.parameters(), *net.buffers()]} == {there[here]}
    assert net(rg.ones((1, 4), backend=there[here])).backend.name == there[here]
    net.to(here)
    assert np.array_equal(net.hidden.weight.numpy(), values)


def test_apply_visits_children_first(Net):
    order = []
    Net().apply(lambda m: order.append(type(m).__name__))
    assert order == ["Linear", "Scale", "Linear", "Net"]


# -- looking at it ----------------------------------------------------------------------------------------------------


def test_summary_shows_shapes_parameters_and_what_is_frozen(Net):
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


def test_gradient_report_names_what_no_gradient_reached(Net):
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


# -- Parameter --------------------------------------------------------------------------------------------------------


def test_a_module_is_freed_without_the_collector(Net):
    net = Net()
    rg.sum(net(rg.ones((1, 4)))).backward()
    reference = weakref.ref(net.hidden.weight)
    gc.disable()
    try:
        del net
        assert reference() is None
    finally:
        gc.enable()


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
