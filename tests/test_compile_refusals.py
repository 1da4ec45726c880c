"""What a compiled function refuses: frozen Python state, values that are read, signatures without end."""

from __future__ import annotations

import copy
import os
import pickle

import numpy as np
import pytest
import retrograd as rg
from retrograd.autograd_core.recorder import RecordingError


def _counter():
    calls = [0.0]
    w = rg.tensor([1.0, 2.0], requires_grad=True)

    def f(x):
        calls[0] += 1
        return (w * x * calls[0]).sum()

    return f


def _draw():
    rng = np.random.default_rng(0)
    return lambda x: (x * rg.tensor(rng.standard_normal(2))).sum()


def _length():
    calls = [0]

    def f(x):
        calls[0] += 1
        for _ in range(calls[0]):
            x = x * 2
        return x

    return f


def _count_in_an_array():
    calls = np.zeros(1, np.float32)

    def f(x):
        calls[0] += 1
        return x * calls

    return f


def _draw_into_an_array():
    rng, noise = np.random.default_rng(0), np.empty(2, np.float32)

    def f(x):
        rng.random(out=noise, dtype=np.float32)
        return x + noise

    return f


@pytest.mark.parametrize("made", [_counter, _draw, _length, _count_in_an_array, _draw_into_an_array])
def test_frozen_python_state_is_an_error_that_names_the_line_and_says_what_to_do(made):
    f = rg.compile(made())

    def call_it_often():
        for _ in range(4):
            f(rg.ones(2))

    with pytest.raises(RecordingError, match=rf"(?i){__file__}:\d+.* a replay would .*pass .*as an argument"):
        call_it_often()


def test_the_end_of_a_slice_is_a_value_that_is_read_and_an_index_is_not():
    cache = rg.zeros(5, 2)

    def put(index):
        with rg.no_grad():
            cache[index] = rg.ones(2)
        return cache.sum()

    sliced = rg.compile(lambda i: put(slice(i, i + 1)))
    with pytest.raises(RecordingError, match=r"slice.*x\[i\] takes the tensor itself"):
        sliced(rg.tensor(0))
    indexed = rg.compile(put)
    assert [indexed(rg.tensor(i)).item() for i in range(5)] == [2.0, 4.0, 6.0, 8.0, 10.0]


@pytest.mark.skipif(
    os.environ.get("RETROGRAD_BACKEND", "numpy") != "numpy", reason="another backend has a copy of the array"
)
def test_an_array_that_is_changed_outside_is_read_at_each_call():
    scale = np.ones(2, np.float32)
    f = rg.compile(lambda x: x * scale)
    for i in range(6):
        scale[:] = i
        assert f(rg.ones(2)).tolist() == [i, i]


@pytest.mark.parametrize("read", [lambda t: t.item(), lambda t: t.numpy(), lambda t: bool(t > 0), lambda t: f"{t:.2f}"])
def test_reading_a_value_inside_is_an_error_that_says_what_to_do(read):
    f = rg.compile(lambda x: read(x.sum()))
    with pytest.raises(RecordingError, match="outside"):
        f(rg.ones(2))


@pytest.mark.parametrize("read", [copy.deepcopy, pickle.dumps])
def test_a_copy_that_python_makes_is_a_read(read):
    f = rg.compile(lambda x: read(x * 1))
    with rg.no_grad(), pytest.raises(RecordingError, match="outside"):
        f(rg.ones(2))


def test_a_tensor_of_a_tensor_is_recorded():
    f = rg.compile(lambda x: rg.tensor(x * 2, dtype="float64"))
    for i in range(6):
        assert f(rg.ones(1) * i).item() == 2.0 * i


@pytest.mark.parametrize("mask", [lambda x: x > 0, lambda x: x])
def test_a_mask_that_picks_is_a_shape_that_depends_on_data(mask):
    f = rg.compile(lambda x: rg.arange(3)[mask(x)])
    x = rg.tensor([True, False, True])
    with pytest.raises(RecordingError, match=r"x\[mask\].*rg.where"):
        f(x if mask(x) is x else rg.ones(3))


def test_a_mask_from_outside_picks():
    mask = rg.tensor([True, False, True])
    f = rg.compile(lambda x: x[mask] + x[np.array([False, True, True])])
    for i in range(5):
        assert f(rg.tensor([1.0, 2.0, i])).tolist() == [3.0, 2.0 * i]
    mask[1] = rg.tensor(True)
    with pytest.raises(RuntimeError, match="shape"):
        f(rg.ones(3))


def test_a_static_argument_that_is_another_one_in_each_call_is_named():
    f = rg.compile(lambda x, given: x * 2)
    with pytest.raises(RecordingError, match=r"a str changes from call to call, it was sample\d+ and sample\d+"):
        [f(rg.ones(2), {"id": f"sample{max(i - 3, 0)}"}) for i in range(80)]


@pytest.mark.parametrize("times", [1, 3])
def test_too_many_signatures(times):
    calls = rg.zeros(())

    @rg.compile
    def f(x):
        calls.add_(1.0)
        return x * 2

    def call_it_with_every_length():
        for n in range(1, 80):
            for _ in range(times):
                f(rg.ones(n))
                done.append(n)

    done = []
    with pytest.raises(RecordingError, match="signatures"):
        call_it_with_every_length()
    assert calls.item() == len(done)  # the call that is refused has done nothing
