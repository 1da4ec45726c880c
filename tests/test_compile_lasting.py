"""What a compiled function leaves behind in Python, which a replay would not: an error, or its own affair."""

from __future__ import annotations

import contextlib
import itertools
import random
import time
import types

import numpy as np
import pytest
import retrograd as rg
from retrograd.autograd_core.recorder import RecordingError


def kept_by_an_object(place):
    def f(x):
        place.last = x * 2
        return x.sum()

    return f


def kept_in_a_list(place):
    place.losses = []

    def f(x):
        place.losses.append((x * 2).sum())
        return x.sum()

    return f


def kept_by_a_hook(place):
    seen = {}
    model = rg.nn.Linear(3, 2)
    model.register_forward_hook(lambda module, args, out: seen.__setitem__("out", out.detach()))
    return lambda x: model(x).sum()


def kept_beside_the_result(place):
    def f(x):
        place.loss = loss = (x * 2).sum()
        return loss

    return f


def kept_without_its_graph(place):
    def f(x):
        loss = (x * 2).sum()
        place.loss = loss.detach()
        return loss

    return f


def kept_in_an_argument(place):
    found = []

    def f(x, found):
        found.append(x * 2)
        return x.sum()

    return lambda x: f(x, found)


def an_average_bound_anew(place):
    place.mean = rg.zeros(())

    def f(x):
        place.mean = 0.9 * place.mean + 0.1 * x.sum()
        return place.mean

    return f


@pytest.mark.parametrize(
    "made",
    [
        kept_by_an_object,
        kept_in_a_list,
        kept_by_a_hook,
        kept_beside_the_result,
        kept_without_its_graph,
        kept_in_an_argument,
        an_average_bound_anew,
    ],
)
def test_a_tensor_that_is_kept_is_an_error(made):
    f = rg.compile(made(types.SimpleNamespace()))
    f(rg.ones(3))
    with pytest.raises(RecordingError, match=r"keeps the result of \w+ .* at .*test_compile_lasting.*Return it"):
        [f(rg.ones(3)) for _ in range(3)]


@pytest.mark.parametrize("place", [types.SimpleNamespace(n=0), None])
def test_a_count_that_is_looked_at_is_an_error(place):
    n = 0

    @rg.compile
    def of_its_own(x):
        nonlocal n
        n += 1
        return x * 10 if n % 5 == 0 else x

    @rg.compile
    def of_an_object(x):
        place.n += 1
        return x * 10 if place.n % 5 == 0 else x

    f, name = (of_its_own, "n") if place is None else (of_an_object, "place.n")
    with pytest.raises(RecordingError, match=f"changes '{name}', which was .* Do it outside"):
        [f(rg.ones(3)) for _ in range(4)]


def test_a_count_that_is_only_counted_is_no_error():
    place, counts = types.SimpleNamespace(calls=0, tries=0), {"calls": 0, "factor": 2}

    @rg.compile
    def f(x):
        place.calls += 1
        place.tries = place.tries + 1
        counts["calls"] += 1
        return x * counts["factor"]

    for _ in range(6):
        assert f(rg.ones(1)).item() == 2
    assert [place.calls, place.tries, counts] == [3, 3, {"calls": 3, "factor": 2}]


def test_what_is_made_once_and_kept_is_no_error():
    masks = {}

    @rg.compile
    def f(x):
        if x.shape not in masks:
            masks[x.shape] = rg.ones(x.shape) * 2
        return x * masks[x.shape]

    for n in (3, 3, 3, 3, 4, 4, 4, 3, 5, 5, 4, 3):
        assert f(rg.ones(n)).tolist() == [2.0] * n


def test_results_that_share_memory_and_gradients_are_the_caller_s():
    w = rg.nn.Parameter(rg.ones(3))

    @rg.compile
    def f(x):
        y = w * x
        w.grad = None
        y.sum().backward()
        return y, y.detach(), y[0], y.T, w.grad, w, x

    for _ in range(6):
        assert [r.tolist() for r in f(rg.ones(3))] == [[1.0] * 3] * 2 + [1.0] + [[1.0] * 3] * 4
    assert len(f.programs) == 1


def test_a_graph_that_goes_round_in_a_circle_is_kept_by_nobody():
    @rg.compile
    def f(x):
        def again(n):
            return y if n == 0 else again(n - 1)

        y = x * 2
        return again(2).sum()

    for _ in range(6):
        assert f(rg.ones(3)).item() == 6


def counted(n):
    while True:
        n += 1
        yield n


def drawn_in_a_condition():
    rng = np.random.default_rng(0)
    return lambda x: x if rng.random() < 2 else x * 100


def drawn_by_python():
    return lambda x: x if random.random() < 2 else x * 100


def drawn_by_numpy():
    return lambda x: x if np.random.rand() < 2 else x * 100  # noqa: NPY002


def drawn_by_an_object_s():
    place = types.SimpleNamespace(rng=random.Random(0))
    return lambda x: x if place.rng.uniform(0, 1) < 2 else x * 100


def counted_by_an_iterator():
    numbers = itertools.count()
    return lambda x: x if next(numbers) % 10 else x * 100


def counted_by_a_generator():
    numbers = counted(0)
    return lambda x: x if next(numbers) % 10 else x * 100


def counted_in_a_list():
    seen = []

    def f(x):
        seen.append(1)
        return x if len(seen) % 10 else x * 100

    return f


def counted_in_a_default():
    def f(x, calls=[0]):  # noqa: B006
        calls[0] += 1
        return x if calls[0] % 10 else x * 100

    return f


class Counting(rg.nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x if self.calls % 10 else x * 100


@pytest.mark.parametrize(
    "made",
    [
        drawn_in_a_condition,
        drawn_by_python,
        drawn_by_numpy,
        drawn_by_an_object_s,
        counted_by_an_iterator,
        counted_by_a_generator,
        counted_in_a_list,
        counted_in_a_default,
        Counting,
    ],
)
def test_what_decides_a_branch_and_moves_on_is_an_error(made):
    f = rg.compile(made())
    with pytest.raises(RecordingError, match=r"moves on with each call.* outside|looks at it.* outside"):
        [f(rg.ones(3)) for _ in range(4)]


def test_a_list_that_is_only_written_to_is_its_own_affair():
    calls, counts = [], {"n": 0}

    @rg.compile
    def f(x):
        calls.append(1)
        counts["n"] += 1
        return x * 2

    for _ in range(6):
        calls.append(2)
        assert f(rg.ones(1)).item() == 2
    assert len(f.programs) == 1
    assert calls == [2, 1] * 3 + [2] * 3
    assert counts == {"n": 3}


class Lazy(rg.nn.Module):
    """What models and mixtures of experts write: a table made when it is first asked for, a loss left for a moment."""

    def __init__(self):
        super().__init__()
        self.table, self.aux, self.scale = None, None, None

    def forward(self, x):
        if self.table is None or len(self.table) < len(x):
            self.table = rg.arange(len(x)) * 2.0
        if self.scale is None:
            self.scale = 0.5
        self.aux = x.mean()
        return x * self.table[: len(x)] * self.scale


def test_a_module_makes_tensors_when_they_are_first_asked_for():
    model, eager = Lazy(), Lazy()

    def loss_of(model, x):
        y = model(x) + model.aux
        model.aux = None
        return y

    f = rg.compile(lambda x: loss_of(model, x))
    for n in (2, 2, 2, 2, 3, 3, 3, 3, 2, 2, 3):
        x = rg.randn(n)
        np.testing.assert_allclose(f(x).numpy(), loss_of(eager, x).numpy(), rtol=1e-6)
    model.scale = eager.scale = 3.0  # what a call had assigned once may be assigned outside too
    np.testing.assert_allclose(f(x).numpy(), loss_of(eager, x).numpy(), rtol=1e-6)


def test_a_tensor_that_a_module_keeps_in_each_call_is_an_error():
    f = rg.compile(Lazy())
    with pytest.raises(RecordingError, match=r"keeps the result of mean .*Return it"):
        [f(rg.ones(3)) for _ in range(4)]


@pytest.mark.parametrize("inside", [True, False])
def test_a_schedule_does_not_matter_to_who_goes_through_the_groups(inside):
    made = []
    for compiled in (False, True):
        w = rg.nn.Parameter(rg.ones(3))
        optimizer = rg.optim.SGD([w], lr=0.1)
        schedule = rg.optim.lr_scheduler.StepLR(optimizer, 2)

        def step(x, w=w, optimizer=optimizer, schedule=schedule):
            optimizer.zero_grad()
            ((w * x) ** 2).sum().backward()
            for group in optimizer.param_groups:
                rg.nn.utils.clip_grad_norm_(group["params"], 1.0)
            optimizer.step()
            if inside:
                schedule.step()
            return w

        run = rg.compile(step) if compiled else step
        for _ in range(8):
            run(rg.ones(3))
            if not inside:
                schedule.step()
        made.append(w.detach().numpy())
    np.testing.assert_allclose(*made, rtol=1e-6)
    assert run.program is not None


def test_an_option_of_a_group_that_is_read_is_watched():
    w = rg.nn.Parameter(rg.ones(3))
    optimizer = rg.optim.SGD([w], lr=0.5)
    f = rg.compile(lambda x: x * optimizer.param_groups[0]["lr"])
    for lr in (0.5,) * 5 + (0.25,) * 3:
        optimizer.param_groups[0]["lr"] = lr
        assert f(rg.ones(1)).item() == lr


class Watch:
    def __init__(self):
        self.total, self.events = 0.0, []

    def __enter__(self):
        self.start = time.perf_counter()

    def __exit__(self, *error):
        self.total += time.perf_counter() - self.start

    @contextlib.contextmanager
    def named(self, name):
        start = time.time()
        try:
            yield self
        finally:
            self.events.append((name, time.time() - start))


def test_times_that_are_taken_are_its_own_affair():
    watch = Watch()

    @rg.compile
    def f(x):
        with watch, watch.named("double"):
            return x * 2

    for i in range(6):
        assert f(rg.full((1,), i)).item() == 2 * i
    assert len(f.programs) == 1
    assert len(watch.events) == 3
