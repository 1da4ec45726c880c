"""The conformance suite: the shipped backends pass, so does one of a third party, and broken ones are caught."""

import importlib.metadata
import operator
import sys
import types

import numpy as np
import pytest
from retrograd.backends import Backend, get_backend, registry
from retrograd.backends.numpy_backend import NumpyBackend
from retrograd.testing import ConformanceError, backend_checks, check_backend, run_checks


class Boxed:
    """An array of a third party: it has a NumPy array, and is none."""

    __slots__ = ("inside",)
    __array_ufunc__ = None
    __hash__ = None

    def __init__(self, inside):
        self.inside = np.asarray(inside)

    def __getattr__(self, name):
        return box(getattr(self.inside, name))

    def __getitem__(self, key):
        return Boxed(self.inside[unbox(key)])

    def __setitem__(self, key, value):
        self.inside[unbox(key)] = unbox(value)

    def __len__(self):
        return len(self.inside)

    def __float__(self):
        return float(self.inside)

    def __bool__(self):
        return bool(self.inside)


def unbox(value):
    if isinstance(value, list | tuple):
        return type(value)(map(unbox, value))
    return value.inside if isinstance(value, Boxed) else value


def box(value):
    if isinstance(value, np.ndarray | np.generic):
        return Boxed(value)
    if isinstance(value, list | tuple) and any(isinstance(v, np.ndarray) for v in value):
        return [Boxed(v) for v in value]
    return boxing(value) if callable(value) and not isinstance(value, type) else value


def boxing(function):
    def call(*args, out=None, **kwargs):
        if out is not None:
            function(*map(unbox, args), out=out.inside, **kwargs)
            return out
        return box(function(*map(unbox, args), **{k: unbox(v) for k, v in kwargs.items()}))

    return call


def _in_place(apply):
    def operate(self, other):
        apply(self.inside, unbox(other))
        return self

    return operate


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor"):
    _apply = getattr(operator, f"__{_name}__")
    setattr(Boxed, f"__{_name}__", lambda self, other, f=_apply: Boxed(f(self.inside, unbox(other))))
    setattr(Boxed, f"__r{_name}__", lambda self, other, f=_apply: Boxed(f(unbox(other), self.inside)))
    setattr(Boxed, f"__i{_name}__", _in_place(getattr(operator, f"__i{_name}__")))
for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    _apply = getattr(operator, f"__{_name}__")
    setattr(Boxed, f"__{_name}__", lambda self, other, f=_apply: Boxed(f(self.inside, unbox(other))))
for _name in ("neg", "pos", "abs", "invert"):
    _apply = getattr(operator, _name)
    setattr(Boxed, f"__{_name}__", lambda self, f=_apply: Boxed(f(self.inside)))


class BoxedNamespace:
    """NumPy's functions for boxed arrays."""

    def __init__(self, module=np):
        self.module = module

    def __getattr__(self, name):
        value = getattr(self.module, name)
        return BoxedNamespace(value) if isinstance(value, types.ModuleType) else box(value)


class BoxedBackend(Backend):
    """What an author of a backend has to write."""

    name = "boxed"
    array_type = Boxed
    xp = BoxedNamespace()

    def asarray(self, data, dtype=None, copy=None):
        if isinstance(data, Boxed) and copy is not True and dtype in (None, data.inside.dtype):
            return data
        array = np.array(unbox(data), dtype=dtype, copy=copy)
        if array.dtype.kind not in "biufc":
            raise TypeError(f"expected numbers, got {data!r}")
        return Boxed(array)

    def to_numpy(self, array):
        return array.inside

    def shares_memory(self, a, b):
        return np.may_share_memory(a.inside, b.inside)

    def scatter_add(self, target, index, value):
        np.add.at(target.inside, unbox(index), unbox(value))


def wrong(**methods):
    """NumPy's backend with some methods or attributes replaced."""
    return type("Wrong", (NumpyBackend,), methods)()


class OtherNamespace:
    """NumPy's namespace with some functions replaced."""

    def __init__(self, **functions):
        vars(self).update(functions)

    def __getattr__(self, name):
        return getattr(np, name)


def _add_once(self, target, index, value):
    target[index] += value


def _loses_the_dtype(self, data, dtype=None, copy=None):
    return np.array(NumpyBackend.asarray(self, data, dtype, copy), dtype="float64", copy=None)


def _one_word_late(self, key, counter, n):
    return NumpyBackend.bits(self, key, counter, n + 1)[1:]


def _takes_anything(self, data, dtype=None, copy=None):
    return np.asarray(data, dtype, copy=copy)


def _not_normal(self, key, counter, shape, dtype=np.float32):
    return self.uniform(key, counter, shape, dtype)


def _rounds_up_to_one(self, key, counter, shape, dtype=np.float32):
    return NumpyBackend.uniform(self, key, counter, shape, "float64").astype(dtype)


BROKEN = {
    "scatter_add_of_every_dtype": wrong(scatter_add=_add_once),
    "scatter_add_of_every_index": wrong(scatter_add=_add_once),
    "round_trip_of_every_dtype": wrong(asarray=_loses_the_dtype),
    "copy_argument": wrong(asarray=lambda self, data, dtype=None, copy=None: np.array(data, dtype)),
    "refuses_what_is_no_number": wrong(asarray=_takes_anything),
    "random_bits": wrong(bits=_one_word_late),
    "random_uniform": wrong(uniform=_rounds_up_to_one),
    "random_normal": wrong(normal=_not_normal),
    "memory_sharing": wrong(shares_memory=lambda self, a, b: True),
    "wraps_scalars": wrong(wrap=lambda self, value: value),
    "attributes": wrong(highest_tier="fastest"),
    "threads": wrong(set_num_threads=lambda self, n: None),
    "description_is_json": wrong(describe=lambda self: {"dtype": np.float32}),
    "device_calls": wrong(memory=lambda self: {"used": "much"}),
    "elementwise_functions": wrong(xp=OtherNamespace(expm1=lambda x: np.exp(x) - np.float32(1.001))),
    "out_argument": wrong(xp=OtherNamespace(add=lambda a, b, out=None: np.add(a, b))),
    "reductions": wrong(xp=OtherNamespace(mean=lambda x, axis=None, keepdims=False: np.mean(x, axis))),
    "contractions": wrong(xp=OtherNamespace(einsum=lambda subscripts, *arrays: np.zeros(3))),
    "movements": wrong(xp=OtherNamespace(flip=lambda x, axis: x)),
    "strided_windows": wrong(xp=OtherNamespace(lib=None)),
    "inputs_stay_as_they_were": wrong(xp=OtherNamespace(exp=lambda x: np.exp(x, out=x))),
    "choosing": wrong(xp=OtherNamespace(where=lambda condition, x, y: np.where(condition, y, x))),
}


@pytest.fixture(autouse=True)
def _registry_of_its_own(monkeypatch):
    monkeypatch.setattr(registry, "BACKEND_BY_TYPE", dict(registry.BACKEND_BY_TYPE))
    monkeypatch.setattr(registry, "_made", dict(registry._made))


@pytest.mark.parametrize("check", backend_checks())
@pytest.mark.parametrize("name", ["numpy", "strict"])
def test_shipped_backends(name, check):
    backend_checks()[check](get_backend(name))


@pytest.mark.gpu
@pytest.mark.parametrize("check", backend_checks())
def test_cupy(check):
    if registry.discover()["cupy"]:
        pytest.skip(f"no GPU: {registry.discover()['cupy']}")
    backend_checks()[check](get_backend("cupy"))


@pytest.mark.parametrize("check", backend_checks())
def test_a_backend_of_a_third_party(check):
    backend_checks()[check](BoxedBackend())


def test_a_third_party_is_chosen_by_its_entry_point(monkeypatch):
    module = types.ModuleType("boxed_library")
    module.BoxedBackend = BoxedBackend
    monkeypatch.setitem(sys.modules, "boxed_library", module)
    point = importlib.metadata.EntryPoint("boxed", "boxed_library:BoxedBackend", "retrograd.backends")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda *, group: [point])
    backend = get_backend("boxed")
    assert registry.backend_of(backend.asarray([1.0])) is backend
    check_backend(backend)


@pytest.mark.parametrize("check", BROKEN)
def test_a_broken_backend_is_caught(check):
    assert run_checks(BROKEN[check])[check] is not None


def test_every_failure_is_listed_with_what_was_expected():
    backend = wrong(scatter_add=_add_once, wrap=lambda self, value: value)
    with pytest.raises(ConformanceError) as caught:
        check_backend(backend)
    assert {"scatter_add_of_every_dtype", "wraps_scalars"} <= set(caught.value.failures)
    assert "backend 'numpy' fails" in str(caught.value)
    for name, reason in caught.value.failures.items():
        assert f"\n  {name}: {reason}" in str(caught.value)
        assert "expected" in reason or "raised" in reason
