"""The memory of programs: shared by those of one function, used again within each, but for what outlives a run."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import retrograd as rg
from retrograd import current_backend
from retrograd.autograd_core.compile.arena import Arena, Needs, Span, laid, packed
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
    assert arena.nbytes <= max(p.nbytes for p in step.programs.values())


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


@pytest.mark.skipif(current_backend().name != "numpy", reason="about operations that NumPy computes in place")
def test_clipped_gradients_lie_where_they_were_computed():
    """They outlive the call, so their memory is no arena's; the unclipped ones need none beside it."""
    w, other = (rg.tensor(np.ones(n, np.float32), requires_grad=True) for n in (50_000, 30_000))
    optimizer = rg.optim.SGD([w, other], lr=0.1)

    @rg.compile
    def step(x, y):
        optimizer.zero_grad()
        loss = (w * x).sum() + (other * y).sum()
        loss.backward()
        rg.optim.clip_grad_norm_([w, other], 1.0)
        optimizer.step()
        return loss

    for _ in range(5):
        step(rg.ones(50_000), rg.ones(30_000))
    norm = 80_000**-0.5
    np.testing.assert_allclose(w.grad.numpy(), np.full(50_000, norm), rtol=1e-5)
    np.testing.assert_allclose(other.grad.numpy(), np.full(30_000, norm), rtol=1e-5)
    arguments = gradients = 4 * 80_000
    assert step.program.nbytes < arguments + 1.5 * gradients  # with what NumPy computes in passing


def test_a_recorded_gradient_moves_into_the_program():
    """So that the arrays of the eager call are not held beside the program's own."""
    w = rg.tensor(np.ones(5), requires_grad=True)

    @rg.compile
    def backward(x):
        w.grad = None
        (w * x).sum().backward()

    for i in range(5):
        backward(rg.tensor(np.arange(5.0) + i))
        np.testing.assert_array_equal(w.grad.numpy(), np.arange(5.0) + i)
        if i >= 2:
            (program,) = backward.programs.values()
            ((_, place),) = program.grad_results
            assert w.grad.array is place


def test_gradients_of_before_are_not_kept_while_recording():
    w = rg.tensor(np.ones(5), requires_grad=True)
    before, held = [], []

    @rg.compile
    def backward(x):
        w.grad = None
        held.extend(gradient() for gradient in before)
        (w * x).sum().backward()

    for _ in range(3):
        backward(rg.ones(5, dtype="float64"))
        before.append(weakref.ref(w.grad.array))
    assert held == [None] * 3


def test_spans_are_packed_without_overlap_and_without_crossing_the_end_of_a_chunk():
    rng = np.random.default_rng(0)
    for _ in range(50):
        spans = []
        for _ in range(40):
            start = int(rng.integers(0, 60))
            spans.append(Span(int(rng.integers(1, 30)), start, start + int(rng.integers(1, 20))))
        ends = np.cumsum(chunks := [20, 1, 100])
        places = packed(spans, chunks)
        for i, (at, span) in enumerate(zip(places, spans, strict=True)):
            assert not any(at < end < at + span.nbytes for end in ends)
            for start, other in zip(places[:i], spans[:i], strict=True):
                together = other.start < span.end and span.start < other.end
                assert not together or at + span.nbytes <= start or start + other.nbytes <= at
        alone = max(at + s.nbytes for at, s in zip(packed(spans), spans, strict=True))
        needed = max(sum(s.nbytes for s in spans if s.start <= t < s.end) for t in range(80))
        assert needed <= alone <= 1.25 * needed


def test_an_arena_grows_by_what_a_larger_program_needs_beyond():
    backend = get_backend()
    arena = Arena(backend)
    needs = Needs(backend)
    a, b = needs.take(100), needs.take(50)
    needs.give(a)
    assert needs.take(120).size == 128
    needs.give(b)
    assert [s.nbytes for s in needs.spans] == [128, 64, 128]
    first = arena.pieces(needs.spans)
    assert (first.nbytes, arena.nbytes) == (192, 192)
    one, two, three = (first.take(n) for n in (100, 50, 120))
    assert backend.shares_memory(one, three)
    assert not backend.shares_memory(one, two)
    assert laid(one, (2, 3), np.float32).shape == (2, 3)
    second = arena.pieces([Span(192, 0, 1), Span(128, 0, 1)])
    assert arena.nbytes == 192 + 128
    assert backend.shares_memory(second.take(192), two)
    second.give(two)
