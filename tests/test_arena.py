"""The memory of programs: shared by those of one function, used again within each, but for what outlives a run."""

from __future__ import annotations

import weakref

import numpy as np
import retrograd as rg
from retrograd.autograd_core.compile.arena import CHUNK, Arena, Plan, laid
from retrograd.backends import get_backend


def test_a_program_holds_no_more_than_its_function():
    def used():
        w = rg.tensor([1.0], requires_grad=True)
        f = rg.compile(lambda x: w * x)
        for _ in range(5):
            f(rg.ones(1))
        return weakref.ref(w)

    assert used()() is None


def test_programs_of_one_function_share_their_memory():
    net = rg.nn.Sequential(rg.nn.Linear(8, 64), rg.nn.Tanh(), rg.nn.Linear(64, 64), rg.nn.Tanh(), rg.nn.Linear(64, 1))
    step = rg.compile(lambda x: (net(x) ** 2).sum())
    with rg.no_grad():
        for _ in range(2):  # programs that take turns do not find what the other left
            for rows in (3000, 1000, 2000, 3000, 1000):
                x = rg.randn(rows, 8)
                for _ in range(3):
                    found = step(x)
                np.testing.assert_allclose(found.numpy(), (net(x) ** 2).sum().numpy(), rtol=1e-4)
    (arena,) = step._arenas.values()
    assert len(step.programs) == 3
    assert arena.nbytes < sum(p.nbytes for p in step.programs.values()) + 3 * CHUNK
    largest = max(p.nbytes for p in step.programs.values())
    assert arena.nbytes <= largest + CHUNK


def test_gradients_outlive_runs_of_other_programs():
    w = rg.tensor(np.ones(5), requires_grad=True)
    other = rg.tensor(np.ones(3), requires_grad=True)

    @rg.compile
    def backward(x, which):
        (((w if which else other)) * x).sum().backward()

    for which, n in [(True, 5), (False, 3)] * 5:
        (w if which else other).grad = None
        backward(rg.tensor(np.arange(n) * 1.0), which)
    np.testing.assert_array_equal(w.grad.numpy(), np.arange(5))
    np.testing.assert_array_equal(other.grad.numpy(), np.arange(3))


def test_the_arena():
    backend = get_backend()
    arena = Arena(backend)
    one, two = Plan(arena), Plan(arena)
    a, b = one.take(100), one.take(CHUNK + 1)
    assert (a.size, b.size, len(arena.chunks)) == (128, CHUNK + 64, 2)
    one.give(a)
    assert one.take(120).size == 128
    assert one.pieces == 2
    assert backend.shares_memory(two.take(64), a)
    assert backend.shares_memory(two.take(CHUNK), b)
    assert laid(one.take(24), (2, 3), np.float32).shape == (2, 3)
