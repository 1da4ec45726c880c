"""Choosing a backend: names, the default of the process, plug-ins, and errors that say what there is."""

import importlib.metadata
import os
import subprocess
import sys
import types

import numpy as np
import pytest
from retrograd import backends
from retrograd.backends import Backend, BackendError, backend_of, discover, get_backend, kernel_tier, registry
from retrograd.backends.numpy_backend import NumpyBackend


class Plugged(NumpyBackend):
    """A backend with an array type of its own, which is all that the registry looks at."""

    def __init__(self, device: str = "none"):
        self.name = f"plugged:{device}"
        self.array_type = type("PluggedArray", (), {})


@pytest.fixture(autouse=True)
def _registry_of_its_own(monkeypatch):
    """What a test registers or sets is forgotten after it, and what the process has set does not matter."""
    numpy, strict = get_backend("numpy"), get_backend("strict")
    known = {b.array_type: b for b in (numpy, strict)}
    monkeypatch.setattr(registry, "BACKEND_BY_TYPE", known)
    monkeypatch.setattr(registry, "_made", {b.name: b for b in (numpy, strict)})
    monkeypatch.setattr(registry, "_default", None)
    monkeypatch.delenv("RETROGRAD_BACKEND", raising=False)
    monkeypatch.setitem(sys.modules, "cupy", None)


@pytest.fixture
def plug_in(monkeypatch):
    """`plug_in(name, made)` adds an entry point whose object is `made`."""
    points = []

    def add(name, made):
        module = types.ModuleType("retrograd_test_plugin")
        module.__dict__[name] = made
        monkeypatch.setitem(sys.modules, f"retrograd_test_plugin_{name}", module)
        value = f"retrograd_test_plugin_{name}:{name}"
        points.append(importlib.metadata.EntryPoint(name, value, "retrograd.backends"))

    def entry_points(*, group):
        return [point for point in points if point.group == group]

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    return add


def test_a_name_gives_the_same_object_every_time():
    for name in ("numpy", "strict"):
        backend = get_backend(name)
        assert backend.name == name
        assert get_backend(name) is backend
        assert get_backend(backend) is backend


def test_the_environment_names_the_default(monkeypatch):
    assert backends.default_backend().name == "numpy"
    monkeypatch.setenv("RETROGRAD_BACKEND", "strict")
    assert backends.default_backend().name == "numpy"  # read once
    assert backends.set_default_backend(None).name == "strict"
    assert get_backend().name == "strict"


def test_setting_the_default_lasts_until_it_is_set_again():
    assert backends.set_default_backend("strict") is get_backend()
    with pytest.raises(BackendError, match="cupy"):
        backends.set_default_backend("cupy")
    assert get_backend().name == "strict"


def test_an_unknown_name_lists_what_there_is_and_why_the_rest_is_not():
    with pytest.raises(BackendError) as caught:
        get_backend("tpu")
    message = str(caught.value)
    assert message.startswith("unknown backend 'tpu'; usable here: numpy, strict; not usable: cupy (CuPy is not inst")
    assert "\n" not in message


@pytest.mark.parametrize(("name", "ours"), [("cpu", "numpy"), ("cuda", "cupy"), ("cuda:1", "cupy")])
def test_what_others_call_a_device_has_a_name_here(name, ours):
    with pytest.raises(BackendError, match=rf"unknown backend '{name}' \(here it is called '{ours}'\)"):
        get_backend(name)


def test_a_wrong_variable_is_named(monkeypatch):
    monkeypatch.setenv("RETROGRAD_BACKEND", "nunpy")
    with pytest.raises(BackendError, match="RETROGRAD_BACKEND=nunpy: unknown backend 'nunpy'"):
        backends.default_backend()


def test_auto_falls_back_but_cupy_never_does():
    assert get_backend("auto").name == "numpy"
    with pytest.raises(BackendError, match="'cupy' is not usable: CuPy is not installed"):
        get_backend("cupy")


@pytest.mark.parametrize("name", ["numpy:0", "strict:1"])
def test_a_backend_of_one_device_takes_no_number(name):
    with pytest.raises(BackendError, match="has one device"):
        get_backend(name)


@pytest.mark.parametrize("name", [3, 1.5, np, ["numpy"]])
def test_a_name_is_text(name):
    with pytest.raises(TypeError, match="expected the name of a backend"):
        get_backend(name)


def test_plug_ins_are_found_by_their_entry_point(plug_in):
    plug_in("plugged", Plugged)
    assert discover() == {"numpy": None, "cupy": discover()["cupy"], "strict": None, "plugged": None}
    backend = get_backend("plugged")
    assert type(backend) is Plugged
    assert get_backend("plugged:7").name == "plugged:7"
    assert backend_of(backend.array_type()) is backend


def test_a_plug_in_that_fails_says_why_and_harms_no_other(plug_in):
    def broken():
        raise OSError("no such card")

    plug_in("broken", broken)
    plug_in("wrong", lambda: 3)
    with pytest.raises(BackendError, match="'broken' is not usable: making it failed with OSError: no such card"):
        get_backend("broken")
    with pytest.raises(BackendError, match="'wrong' is not usable: its entry point gave int"):
        get_backend("wrong")
    assert get_backend("numpy").name == "numpy"
    assert "no such card" in str(discover()["broken"])


def test_a_plug_in_cannot_take_a_shipped_name(plug_in):
    plug_in("numpy", Plugged)
    assert type(get_backend("numpy")) is NumpyBackend


def test_two_backends_cannot_claim_one_array_type():
    class Thief(Plugged):
        def __init__(self):
            super().__init__()
            self.array_type = np.ndarray

    with pytest.raises(BackendError, match=r"'numpy' and 'plugged:none' both claim arrays of type numpy.ndarray"):
        backends.register(Thief())
    assert backend_of(np.ones(2)).name == "numpy"


def test_backend_of_goes_by_the_exact_type():
    strict = get_backend("strict")
    assert backend_of(strict.asarray([1.0])) is strict
    assert registry.BACKEND_BY_TYPE[np.ndarray] is get_backend("numpy")
    for other in ([1.0], 1.0, np.float32(1), np.ones(2).view(np.matrix)):
        with pytest.raises(TypeError, match=f"got {type(other).__name__}"):
            backend_of(other)


def test_backend_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        Backend()


def test_kernel_tiers(monkeypatch):
    monkeypatch.delenv("RETROGRAD_KERNELS", raising=False)
    assert kernel_tier() == "vendor"
    assert kernel_tier(get_backend("strict")) == "array"
    monkeypatch.setenv("RETROGRAD_KERNELS", "reference")
    assert kernel_tier() == kernel_tier(get_backend("strict")) == "reference"
    monkeypatch.setenv("RETROGRAD_KERNELS", "fast")
    with pytest.raises(BackendError, match=r"RETROGRAD_KERNELS='fast' is not .* reference, array, jit, vendor"):
        kernel_tier()


def test_nothing_is_imported_before_it_is_asked_for():
    code = (
        "import sys, retrograd.backends as b; b.get_backend('numpy').asarray([1.0]);"
        "late = ('retrograd.backends.strict', 'retrograd.backends.cupy', 'cupy', 'importlib.metadata');"
        "print([m for m in sys.modules if m.startswith(late)])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_wrong_kernel_tier_is_one_line_at_the_call():
    program = "import retrograd as rg; rg.ones(2) + 1"
    environment = {**os.environ, "RETROGRAD_KERNELS": "fast"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, stderr=subprocess.PIPE, text=True, check=False
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "RETROGRAD_KERNELS='fast' is not a kernel tier: set it to one of reference, array, jit, vendor" in last
