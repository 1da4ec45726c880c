"""What a compiled function reads in Python, near and far, and what comes to be otherwise there."""

from __future__ import annotations

import functools
import sys
import types
from collections import deque
from dataclasses import dataclass

import numpy as np
import pytest
import retrograd as rg
from retrograd.autograd_core.compile.mentioned import mentioned
from retrograd.autograd_core.recorder import RecordingError

RATE = 0.5


def rated(x):
    return x * RATE


def scaled(x, scale):
    return x * scale


def of_helper(config):
    return rated, lambda: globals().update(RATE=0.25)


def of_object(config):
    return lambda x: x * config.inner.a, lambda: setattr(config.inner, "a", 0.25)


def of_object_by_another_name(config):
    def f(x):
        inner = config.inner
        return scaled(x, inner.a)

    return f, lambda: setattr(config.inner, "a", 0.25)


def of_object_that_is_replaced(config):
    return lambda x: x * config.inner.a, lambda: setattr(config, "inner", types.SimpleNamespace(a=0.25))


def of_getattr(config):
    return lambda x: x * getattr(config.inner, "a"), lambda: setattr(config.inner, "a", 0.25)  # noqa: B009


def of_dict(config):
    return lambda x: x * config.table["a"], lambda: config.table.update(a=0.25)


def of_dict_in_a_list(config):
    tables = [config.table]
    return lambda x: x * tables[0]["a"], lambda: config.table.update(a=0.25)


def of_list(config):
    def f(x):
        for v in config.numbers:
            x = x * v
        return x

    return f, lambda: config.numbers.append(3.0)


class Scaler:
    shared = 0.5

    def __init__(self):
        self.own = 0.5
        self.calls = 0

    @property
    def doubled(self):
        return 2 * self.own

    def scale(self, x):
        self.calls += 1
        return x * self.doubled

    def __call__(self, x):
        return self.scale(x) * self.shared


class Slotted:
    __slots__ = ("a",)


def of_method(config):
    scaler = Scaler()
    return scaler.scale, lambda: setattr(scaler, "own", 0.25)


def of_callable(config):
    scaler = Scaler()
    return scaler, lambda: setattr(scaler, "own", 0.25)


def of_class(config):
    scaler = Scaler()
    return scaler, lambda: setattr(Scaler, "shared", 0.25)


def of_attribute_that_hides_its_class_s(config):
    scaler = Scaler()
    return scaler, lambda: setattr(scaler, "shared", 0.25)


def of_slot(config):
    slotted = Slotted()
    slotted.a = 0.5
    return lambda x: x * slotted.a, lambda: setattr(slotted, "a", 0.25)


def of_partial(config):
    return functools.partial(scaled_by, config), lambda: setattr(config.inner, "a", 0.25)


def scaled_by(config, x):
    return scaled(x, config.inner.a)


class Number:
    def __init__(self, config):
        self.config = config

    def __float__(self):
        return self.config.inner.a


def of_special_method(config):
    number = Number(config)
    return lambda x: x * float(number), lambda: setattr(config.inner, "a", 0.25)


def of_default(config):
    def f(x, table=config.table):
        return x * table["a"]

    return f, lambda: config.table.update(a=0.25)


def of_python_module(config):
    module = types.ModuleType("settings")
    module.a = 0.5
    return lambda x: x * module.a, lambda: setattr(module, "a", 0.25)


@dataclass
class Options:
    a: float = 0.5


class Scaling(rg.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.options, self.numbers = Options(), config.numbers

    def forward(self, x):
        for v in self.numbers:
            x = x * v
        return x * self.options.a * RATE


def of_module_s_object(config):
    module = Scaling(config)
    return module, lambda: setattr(module.options, "a", 0.25)


def of_module_s_list(config):
    module = Scaling(config)
    return lambda x: module(x), lambda: module.numbers.append(3.0)


def of_forward(config):
    return Scaling(config), lambda: globals().update(RATE=0.25)


def of_hook(config):
    module = rg.nn.Identity()
    module.register_forward_hook(lambda module, args, out: out * config.inner.a)
    return module, lambda: setattr(config.inner, "a", 0.25)


def of_function_that_is_replaced(config):
    config.act = rg.relu
    return lambda x: config.act(x), lambda: setattr(config, "act", rg.tanh)


def of_tensor_in_a_dict(config):
    return lambda x: x * config.tensors["w"], lambda: config.tensors.update(w=rg.tensor([4.0, 5.0, 6.0]))


def of_array(config):
    return lambda x: x * config.array, lambda: setattr(config, "array", np.full(3, 3.0, np.float32))


def of_models_in_a_list(config):
    models = [rg.nn.Linear(3, 2), rg.nn.Linear(3, 2)]
    return lambda x: models[0](x) + models[1](x), lambda: models.reverse() or models.append(models.pop(0))


class Below(Scaler):
    def scale(self, x):
        return super().scale(x) * 2


def of_class_below_super(config):
    below = Below()
    return below.scale, lambda: setattr(below, "own", 0.25)


def of_class_that_hides_another_s(config):
    class Lower(Scaler):
        pass

    lower = Lower()
    return lambda x: x * lower.shared, lambda: setattr(Lower, "shared", 0.25)


def of_method_that_is_replaced(config):
    class Lower(Scaler):
        pass

    lower = Lower()
    return lambda x: lower.scale(x), lambda: setattr(Lower, "scale", lambda self, x: x * 3)


def of_method_that_an_object_replaces(config):
    scaler = Scaler()
    return lambda x: scaler(x), lambda: setattr(scaler, "scale", lambda x: x * 3)


def of_forward_that_is_replaced(config):
    class Lower(Scaling):
        pass

    return Lower(config), lambda: setattr(Lower, "forward", lambda self, x: x * 3)


def again(method):
    @functools.wraps(method)
    def decorated(*args):
        return method(*args) * 2

    return decorated


def of_decorated_methods(config):
    class Decorated:
        def __init__(self):
            self.a = 0.5

        @again
        def scale(self, x):
            return x * self.a * self.kept()

        @functools.lru_cache  # noqa: B019
        def kept(self):
            return config.inner.a

    decorated = Decorated()
    return lambda x: decorated.scale(x), lambda: setattr(decorated, "a", 0.25)


class Kept:
    def __set_name__(self, owner, name):
        self.name = "_" + name

    def __get__(self, instance, owner):
        return getattr(instance, self.name)


class WithKept:
    a = Kept()

    def __init__(self):
        self._a = 0.5


def of_descriptor(config):
    kept = WithKept()
    return lambda x: x * kept.a, lambda: setattr(kept, "_a", 0.25)


class Stand:
    def __init__(self, of):
        self.of = of

    def __getattr__(self, name):
        return getattr(self.__dict__["of"], name)


def of_what_an_object_stands_for(config):
    stand = Stand(config.inner)
    return lambda x: x * stand.a, lambda: setattr(config.inner, "a", 0.25)


def of_static_method(config):
    class Static:
        @staticmethod
        def scale(config, x):
            return x * config.inner.a

    return lambda x: Static.scale(config, x), lambda: setattr(config.inner, "a", 0.25)


def of_attribute_that_comes_to_be(config):
    def f(x):
        return x * 2 if hasattr(config.inner, "b") else x

    return f, lambda: setattr(config.inner, "b", 1)


def of_attribute_by_a_name(config):
    config.inner.b, config.name = 0.25, "a"
    return lambda x: x * getattr(config.inner, config.name), lambda: setattr(config, "name", "b")


def of_dict_of_an_object(config):
    return lambda x: x * vars(config.inner)["a"] * config.__dict__["n"], lambda: setattr(config.inner, "a", 0.25)


def of_match(config):
    config.options = Options()

    def f(x):
        match config.options:
            case Options(a=value):
                return x * value

    return f, lambda: setattr(config.options, "a", 0.25)


def of_import_inside(config):
    sys.modules["settings"] = module = types.ModuleType("settings")
    module.a = 0.5

    def f(x):
        from settings import a

        return x * a

    return f, lambda: setattr(module, "a", 0.25)


def of_class_that_is_called(config):
    class Made:
        def __init__(self):
            self.a = config.inner.a

    return lambda x: x * Made().a, lambda: setattr(config.inner, "a", 0.25)


def of_library_s_class(config):
    config.made = rg.nn.ReLU
    return lambda x: config.made()(x), lambda: setattr(config, "made", rg.nn.Tanh)


def of_deque(config):
    config.latest = deque([0.5], maxlen=2)
    return lambda x: x * sum(config.latest), lambda: config.latest.append(0.25)


def of_array_s_element(config):
    return lambda x: x * float(config.array[0]), lambda: config.array.fill(3.0)


def of_key_that_comes_to_be(config):
    def f(x):
        try:
            return x * config.table["b"]
        except KeyError:
            return x

    return f, lambda: config.table.update(b=3.0)


MADE = [value for name, value in list(globals().items()) if name.startswith("of_")]


@pytest.fixture
def config(monkeypatch):
    monkeypatch.setitem(globals(), "RATE", 0.5)
    monkeypatch.setattr(Scaler, "shared", 0.5)
    monkeypatch.setitem(sys.modules, "settings", None)
    return types.SimpleNamespace(
        inner=types.SimpleNamespace(a=0.5),
        n=1,
        table={"a": 0.5},
        numbers=[0.5, 2.0],
        tensors={"w": rg.tensor([1.0, 2.0, 3.0])},
        array=np.full(3, 2.0, np.float32),
    )


@pytest.mark.parametrize("made", MADE, ids=lambda made: made.__name__)
def test_what_changes_is_seen(made, config):
    function, change = made(config)
    compiled = rg.compile(function)
    rng = np.random.default_rng(0)
    for call in range(10):
        x = rg.tensor(rng.standard_normal((2, 3)).astype(np.float32))
        if call == 5:
            before = function(x)
            change()
            assert before.tolist() != function(x).tolist() or made is of_models_in_a_list
        np.testing.assert_allclose(compiled(x).numpy(), function(x).detach().numpy(), rtol=1e-5)
    assert compiled.program is not None
    assert len(compiled.programs) == 1


def test_an_object_among_the_arguments():
    scaler = Scaler()
    step = rg.compile(lambda x, scaler: scaler.scale(x))
    for a in (0.5,) * 5 + (0.25,) * 3:
        scaler.own = a
        assert step(rg.ones(1), scaler).item() == 2 * a


def test_a_value_that_comes_again_finds_its_program(config):
    step = rg.compile(lambda x: x * config.inner.a)
    for _ in range(5):
        step(rg.ones(1))
    first = step.program
    for a in (0.25, 0.5) * 100:  # as a flag that each epoch switches on and off
        config.inner.a = a
        assert [step(rg.ones(1)).item() for _ in range(2)] == [a, a]
    assert step.program is first


def test_a_number_that_changes_in_each_call_is_an_error(config):
    step = rg.compile(lambda x: x * config.inner.a)
    for _ in range(5):
        step(rg.ones(1))

    def go_on():
        for i in range(100):
            config.inner.a = float(i)
            assert step(rg.ones(1)).item() == i

    with pytest.raises(RecordingError, match=r"'config\.inner\.a' changes from call to call .* 0-d Tensor"):
        go_on()


class Teacher:
    """What people write: counts, a history, and lists of optimizers beside the step."""

    def __init__(self):
        self.model = rg.nn.Linear(3, 1)
        self.optimizers = [rg.optim.SGD(self.model.parameters(), lr=0.1)]
        self.step, self.best, self.history = 0, 1e9, []

    def update(self, x):
        loss = (self.model(x) ** 2).mean()
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
        return loss


def test_what_is_not_read_does_not_matter():
    teacher = Teacher()
    update = rg.compile(teacher.update)
    first = None
    for _ in range(8):
        loss = update(rg.randn(4, 3)).item()
        teacher.step += 1
        teacher.history.append(loss)
        teacher.best = min(teacher.best, loss)
        first = first or update.program
    assert update.program is first
    assert [m.name for m in mentioned(teacher.update)] == ["self.model", "self.optimizers"]


def test_numbers_that_are_called_like_methods_and_items_beside_those_that_are_read_do_not_matter():
    teacher = Teacher()
    state = {"teacher": teacher, "step": 0}
    loss_of = rg.compile(lambda x: updated(state["teacher"], x))

    def updated(teacher, x):
        return teacher.update(x).mean()

    first = None
    for _ in range(8):
        teacher.mean = loss_of(rg.randn(4, 3)).item()
        teacher.step += 1
        state["step"] += 1
        first = first or loss_of.program
    assert loss_of.program is first is not None
