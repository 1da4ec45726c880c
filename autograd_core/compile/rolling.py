"""Lines that repeat with other numbers, as a loop: a program's blocks of elements, read as they are meant.

    add(x[0:32], y[0:32], out=z[0:32])           for start in range(0, 80, 32):
    add(x[32:64], y[32:64], out=z[32:64])    →       stop = min(start + 32, 80)
    add(x[64:80], y[64:80], out=z[64:80])            add(x[start:stop], y[start:stop], out=z[start:stop])
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

LEAST = 3  # repetitions that are worth a loop
LONGEST = 80  # lines before a loop begins, and lines in one
NUMBER = re.compile(r"(?<![\w.])\d+(?![\w.])")


def rolled(lines: Sequence[str]) -> list[str] | None:
    """The same lines with the longest repetition as a loop; None if there is none.

    >>> print(*rolled([f"f(x[{i}:{min(i + 4, 10)}])" for i in (0, 4, 8)]), sep=chr(10))
    for start in range(0, 10, 4):
        stop = min(start + 4, 10)
        f(x[start:stop])
    """
    shapes = [NUMBER.sub("#", line) for line in lines]
    best = (0, 0, 0)  # where it begins, its lines, how often
    for length in range(1, min(LONGEST, len(lines) // LEAST) + 1):
        for begin in range(min(LONGEST, len(lines) - LEAST * length + 1)):
            times = 1
            at = begin + length
            while shapes[at : at + length] == shapes[begin : begin + length]:
                times, at = times + 1, at + length
            if times >= LEAST and times * length > best[1] * best[2]:
                best = (begin, length, times)
    begin, length, times = best
    if not times:
        return None
    end = begin + length * times
    loop = _loop([lines[at : at + length] for at in range(begin, end, length)])
    return None if loop is None else [*lines[:begin], *loop, *lines[end:]]


def _loop(blocks: Sequence[Sequence[str]]) -> list[str] | None:
    """Blocks of equal lines but for their numbers as one loop; None where the numbers follow no rule."""
    columns = [
        [[int(n) for n in row] for row in zip(*[NUMBER.findall(block[i]) for block in blocks], strict=True)]
        for i in range(len(blocks[0]))
    ]
    varying = [column for line in columns for column in line if len(set(column)) > 1]
    starts = [c for c in varying if all(b - a == c[1] - c[0] > 0 for a, b in pairwise(c))]
    if not starts:
        return None
    start = min(starts, key=lambda c: (c[1] - c[0], c[0]))
    width = start[1] - start[0]
    ends = {column[-1] // many for column in varying if (many := _multiple(column[:-1], start[1:])) is not None}
    ends |= {
        start[-1] + column[-1] // many
        for column in varying
        if (many := _multiple(column[:-1], [width] * (len(start) - 1))) is not None
    }
    end = min(ends, default=start[-1] + width)
    stop = [min(s + width, end) for s in start]
    names = {"start": start, "stop": stop, "(stop - start)": [b - a for a, b in zip(start, stop, strict=True)]}
    text = []
    for line, numbers in zip(blocks[0], columns, strict=True):
        words = [_word(column, names) for column in numbers]
        if None in words:
            return None
        given = iter(words)
        text.append("    " + NUMBER.sub(lambda _: next(given), line))  # type: ignore[arg-type, return-value]  # noqa: B023
    first = [f"for start in range({start[0]}, {end}, {width}):"]
    if any("stop" in line for line in text):
        first.append(f"    stop = min(start + {width}, {end})")
    return first + text


def _word(column: Sequence[int], names: dict[str, list[int]]) -> str | None:
    if len(set(column)) == 1:
        return str(column[0])
    for name, values in names.items():
        many = _multiple(column, values)
        if many is not None:
            return name.strip("()") if many == 1 else f"{many} * {name}"
    return None


def _multiple(column: Sequence[int], values: Sequence[int]) -> int | None:
    """The positive factor by which the values give the column."""
    pairs = [(a, b) for a, b in zip(column, values, strict=True) if b]
    many = pairs[0][0] // pairs[0][1] if pairs else 0
    return many if many > 0 and all(a == many * b for a, b in zip(column, values, strict=True)) else None
