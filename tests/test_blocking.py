"""Blocks: neighbouring calls go through large arrays piece by piece, unless one would overwrite what another reads."""

from __future__ import annotations

import numpy as np
from retrograd.autograd_core.blocks import BLOCK
from retrograd.autograd_core.compile.blocking import blocked

N = 3 * BLOCK + 5


def memory(n=N, dtype=np.float32):
    return np.arange(n, dtype=dtype) % 7


def run(instructions):
    for call, places in instructions:
        call(*places)


def in_blocks(instructions):
    return len(blocked(instructions)) > len(instructions)


def test_neighbours_run_block_by_block_and_compute_the_same():
    x, y = memory(), memory() + 1
    a, b = np.empty(N, np.float32), np.empty(N, np.float32)
    calls = [(np.multiply, (x, 3, a)), (np.add, (a, y, b)), (np.sqrt, (b, b))]
    assert in_blocks(calls)
    run(blocked(calls))
    np.testing.assert_array_equal(b, np.sqrt(x * 3 + y))


def test_a_number_whose_memory_is_used_again_is_read_to_the_end_first():
    x, piece = memory(), np.empty(N, np.float32)
    factor, a = piece[:1].reshape(()), np.empty(N, np.float32)
    factor[...] = 0.5
    calls = [(np.multiply, (x, factor, a)), (np.add, (x, 1, piece)), (np.add, (a, piece, a))]
    assert not in_blocks(calls[:2])
    run(blocked(calls))
    np.testing.assert_array_equal(a, x * 0.5 + x + 1)


def test_memory_that_is_used_again_for_elements_of_another_size_is_read_to_the_end_first():
    piece = np.zeros(8 * N, np.uint8)
    small, large = piece[:N].view(bool), piece.view(np.float64)
    small[...] = memory() > 3
    expected, a = small * 2.0, np.empty(N, np.float64)
    calls = [(np.multiply, (small, 2.0, a)), (np.add, (a, 1.0, large))]
    assert not in_blocks(calls)
    run(blocked(calls))
    np.testing.assert_array_equal(a, expected)
    np.testing.assert_array_equal(large, expected + 1)


def test_one_call_alone_and_small_arrays_stay_whole():
    x, y = memory(), memory(100)
    assert not in_blocks([(np.exp, (x, x))])
    assert not in_blocks([(np.exp, (y, y)), (np.sqrt, (y, y))])
