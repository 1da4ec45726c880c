"""What code loads, as its instructions show, and that objects of any kind behind it are no trouble."""

from __future__ import annotations

import types
from unittest import mock

import pytest
import retrograd as rg
from retrograd.autograd_core.compile.loads import loads


class Raising:
    @property
    def __dict__(self):
        raise RuntimeError

    @property
    def a(self):
        raise RuntimeError


class Nameless:
    __module__ = None


def round_and_round():
    nest = [1]
    nest.append(nest)
    return nest


def far_down():
    place = types.SimpleNamespace(a=0.5)
    for _ in range(2000):
        place = types.SimpleNamespace(a=place)
    return place


@pytest.mark.parametrize(
    "odd",
    [
        Raising(),
        Nameless(),
        round_and_round(),
        far_down(),
        mock.MagicMock(),
        mock.Mock(spec=dict),
        mock.Mock(spec=list),
    ],
    ids=["raising", "nameless", "round", "far", "magic", "dict", "list"],
)
def test_odd_objects_are_no_trouble(odd):
    inside = types.SimpleNamespace(odd=odd, odds=[odd])

    @rg.compile
    def f(x, on=False):
        for v in inside.odds if on else []:
            x = x * odd.a * inside.odd.a.a * v.a * v
        return x * 2

    for _ in range(5):
        assert f(rg.ones(1)).item() == 2
    assert f.program is not None


def test_loads_of_code():
    def f(self, x):
        self.calls += 1
        made = self.make(x)
        self.tries = self.tries + 1
        self.table["n"] += made.mean()
        return [made.kind, __name__, (lambda: self.inner.a + self.table["a"].b)(), getattr(made, "size")]  # noqa: B009

    found = loads(f.__code__)
    assert found.chains == [
        ("first", "", "inner", "a"),
        ("first", "", "make()"),
        ("first", "", "table", "[a", "b"),
        ("global", "__name__"),
        ("global", "getattr"),
    ]
    assert found.loose == ["a?", "kind", "mean()", "n?", "size?"]
