"""Runs of elementwise calls in a program, in blocks that stay in the processor's cache.

An optimizer's dozen calls on flat arrays of megabytes move everything through memory a dozen times. The same calls on
one block after the other find what they read in the cache. The slices are made once, with the program.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..blocks import BLOCK, straight

Instruction = tuple[Callable[..., Any], tuple[Any, ...]]


def blocked(instructions: Sequence[Instruction]) -> list[Instruction]:
    """The same calls; neighbours that treat large arrays of one size element by element run block by block."""
    result: list[Instruction] = []
    run: list[Instruction] = []
    for instruction in [*instructions, None]:
        if instruction is not None and _joins(run, instruction):
            run.append(instruction)
            continue
        result += _in_blocks(run)
        run = [instruction] if instruction is not None and _joins([], instruction) else []
        if instruction is not None and not run:
            result.append(instruction)
    return result


def _joins(run: list[Instruction], instruction: Instruction) -> bool:
    """Whether a call is elementwise on large straight arrays, and on those of the run it would join."""
    call, places = instruction
    if not isinstance(call, np.ufunc) or call.signature is not None:
        return False
    like = places[-1]
    if not isinstance(like, np.ndarray) or like.size <= 2 * BLOCK:
        return False
    arrays = [p for p in places if isinstance(p, np.ndarray)]
    large = [p for p in arrays if p.ndim]
    if not large or any(p.size != like.size or straight(p, like) is None for p in large):
        return False
    before = [p for _, taken in run for p in taken if isinstance(p, np.ndarray)]
    first = next((p for p in before if p.ndim), like)
    if first.size != like.size or straight(first, like) is None or straight(like, first) is None:
        return False
    return all(_same_or_apart(p, q) for p in [*arrays, *before] for q in arrays)


def _same_or_apart(p: np.ndarray, q: np.ndarray) -> bool:
    """Element i of one array may lie in element i of the other, or nowhere in it: memory is used again, and the second
    block of the one call comes after the first of the next. A number stands for every element."""
    alike = (p.itemsize, p.ndim > 0) == (q.itemsize, q.ndim > 0)
    same = p.__array_interface__["data"][0] == q.__array_interface__["data"][0]
    return (alike and same) or not np.may_share_memory(p, q)


def _in_blocks(run: list[Instruction]) -> list[Instruction]:
    if len(run) < 2:
        return run
    size = run[0][1][-1].size
    flat = [
        (call, [straight(p, p) if isinstance(p, np.ndarray) and p.ndim else p for p in places]) for call, places in run
    ]
    return [
        (call, tuple(p[at : at + BLOCK] if isinstance(p, np.ndarray) and p.ndim else p for p in places))
        for at in range(0, size, BLOCK)
        for call, places in flat
    ]
