"""Arrays as text: what memory a program's arrays lie in, and each of them as a view of it.

A view is written in the first of several spellings that gives the same elements with the same strides: how an array
lies in memory decides in which order a sum is added up, and thereby its last bits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

LONGEST = 30  # characters of a view that is written where it is used; longer ones get a name
NUMPY = {"np", "lib", "stride_tricks", "as_strided", "broadcast_to"}


class Memory:
    """Pieces of memory with their names, and the lines that make them and the views of them.

    Args:
        fresh: gives a name that is not taken yet.
        buffers: arrays in memory that a run writes before it reads it. `scratch`: arrays that it writes too, which may
            hold zeros where it does not. `constants`: arrays that it only reads.
        literal: the text that makes an array with its values.
    """

    def __init__(
        self,
        fresh: Callable[[str], str],
        buffers: Iterable[np.ndarray],
        scratch: Iterable[np.ndarray],
        constants: Iterable[np.ndarray],
        literal: Callable[[np.ndarray], str],
    ):
        self.fresh, self.literal = fresh, literal
        self.lines: list[str] = []
        self._counts = {"b": 0, "c": 0}
        buffers = list(buffers)
        self._whole = _largest(buffers)
        for array in buffers:  # pieces of a flat array that is not in the program itself
            whole = owner(array)
            if id(whole) in self._whole and not _holds(self._whole[id(whole)], array) and whole.flags.c_contiguous:
                self._whole[id(whole)] = whole
        self._scratch = {k: v for k, v in _largest(scratch).items() if k not in self._whole}
        self._whole |= self._scratch
        self._constants = {k: v for k, v in _largest(constants).items() if k not in self._whole}
        self._pieces: dict[int, list[tuple[np.ndarray, str]]] = {}
        self._texts: dict[Any, str] = {}

    def add(self, array: np.ndarray, name: str) -> None:
        """Give the memory that an array lies in a name, if it has none yet."""
        whole = owner(array)
        if id(whole) not in self._pieces:
            piece = self._whole.get(id(whole), whole)
            self._enter(piece, self.fresh(name), _made(piece))

    def fills(self, array: np.ndarray) -> bool:
        """Whether an array is all of the memory that it lies in."""
        return self._whole.get(id(owner(array)), owner(array)).nbytes == array.nbytes

    def view(self, array: np.ndarray, name: str) -> None:
        """Give an array a name of its own, if it is a part of the memory that it lies in."""
        text = self.spelled(array)
        if not text.isidentifier():
            self._enter(array, self.fresh(name), text)
            self._texts.pop(_place(array), None)

    def text(self, array: np.ndarray) -> str:
        """What an array is called where it is used; a long expression gets a name."""
        text = self.spelled(array)
        if len(text) > LONGEST:
            words = [w for w in re.findall(r"[A-Za-z_]\w*", text) if w not in NUMPY]
            name = self.fresh(f"{words[0]}_view")
            self.lines.append(f"{name} = {text}")
            text = self._texts[_place(array)] = name
        return text

    def spelled(self, array: np.ndarray) -> str:
        """An array as an expression over the names that there are."""
        key = _place(array)
        if key not in self._texts:
            pieces = self._around(array) or [self._new(array)]
            found = [(piece.nbytes, _spelled(name, piece, array)) for piece, name in pieces]
            self._texts[key] = min(found, key=lambda pair: ("as_strided" in pair[1], *pair))[1]
        return self._texts[key]

    def _around(self, array: np.ndarray) -> list[tuple[np.ndarray, str]]:
        """The named pieces that an array lies in."""
        return [p for p in self._pieces.get(id(owner(array)), []) if _holds(p[0], array)]

    def _new(self, array: np.ndarray) -> tuple[np.ndarray, str]:
        """Make the memory that an array lies in: empty, or with the values that a constant has."""
        whole = owner(array)
        if id(whole) in self._whole:
            if id(whole) in self._pieces:
                raise TypeError(
                    f"a {array.dtype} array of shape {array.shape} lies outside of the memory it belongs to"
                )
            text = _made(piece := self._whole[id(whole)])
            text = text.replace("empty", "zeros", 1) if id(whole) in self._scratch else text
            kind = "b"
        else:
            piece = self._constants.get(id(whole), whole)
            piece = piece if _holds(piece, array) else whole
            text, kind = self.literal(piece), "c"
        self._counts[kind] += 1
        self._enter(piece, self.fresh(f"{kind}{self._counts[kind] - 1}"), text)
        return self._pieces[id(whole)][-1]

    def _enter(self, piece: np.ndarray, name: str, text: str) -> None:
        self._pieces.setdefault(id(owner(piece)), []).append((piece, name))
        self.lines.append(f"{name} = {text}")


def _largest(arrays: Iterable[np.ndarray]) -> dict[int, np.ndarray]:
    """id of the owner → the largest of the arrays that lie in its memory without gaps, with axes as they lie there."""
    found: dict[int, np.ndarray] = {}
    for array in arrays:
        known = found.get(id(owner(array)))
        turned = array if array.flags.c_contiguous else array.transpose(_order(array))
        if turned.flags.c_contiguous and (known is None or known.nbytes < array.nbytes):
            found[id(owner(array))] = turned
    return found


def _order(array: np.ndarray) -> list[int]:
    """The axes from the one of the longest steps in memory to that of the shortest."""
    return sorted(range(array.ndim), key=lambda axis: (-array.strides[axis], axis))


def _holds(piece: np.ndarray, array: np.ndarray) -> bool:
    (a, b), (c, d) = extent(piece), extent(array)
    return a <= c and d <= b


def owner(array: np.ndarray) -> np.ndarray:
    """The array that owns the memory, or the outermost one that is known."""
    found, base = array, array.base
    while base is not None:
        found = base if isinstance(base, np.ndarray) else found
        base = getattr(base, "base", None)
    return found


def extent(array: np.ndarray) -> tuple[int, int]:
    """Addresses of the first byte and of that behind the last."""
    low = high = array.__array_interface__["data"][0]
    for n, stride in zip(array.shape, array.strides, strict=True):
        low, high = low + min(stride, 0) * max(n - 1, 0), high + max(stride, 0) * max(n - 1, 0)
    return low, high + array.itemsize * bool(array.size)


def _spelled(name: str, piece: np.ndarray, array: np.ndarray) -> str:
    """An array as an expression over the memory `piece`, called `name`."""
    wanted = _place(array)
    if _place(piece) == wanted:
        return name
    for text in _spellings(name, piece, array) if array.dtype == piece.dtype else _cast(name, piece, array):
        try:
            found = eval(text, {"np": np, name: piece})
        except (ValueError, IndexError):
            continue
        if isinstance(found, np.ndarray) and _place(found) == wanted:
            return text
    raise TypeError(f"no expression was found for a {array.dtype} array of shape {array.shape}")


def _cast(name: str, piece: np.ndarray, array: np.ndarray) -> Iterator[str]:
    """The same memory read as another dtype."""
    if array.itemsize == piece.itemsize:
        for text in _spellings(name, piece, array.view(piece.dtype)):
            yield f"{text}.view(np.{array.dtype})"
    offset = array.__array_interface__["data"][0] - extent(piece)[0]
    yield f"np.ndarray({array.shape}, np.{array.dtype}, {name}, {offset}, {array.strides})"


def _place(array: np.ndarray) -> Any:
    if not array.size:
        return id(owner(array)), array.shape, array.dtype
    return array.__array_interface__["data"][0], array.shape, array.strides, array.dtype


def _made(piece: np.ndarray) -> str:
    order = ', order="F"' if piece.flags.f_contiguous and not piece.flags.c_contiguous else ""
    if piece.flags.c_contiguous or order:
        return f"np.empty({piece.shape}, np.{piece.dtype}{order})"
    low, high = extent(piece)
    n = (high - low) // piece.itemsize
    flat = f"np.empty({n}, np.{piece.dtype})"
    return f"np.lib.stride_tricks.as_strided({flat}, {piece.shape}, {piece.strides})"


def _spellings(name: str, piece: np.ndarray, array: np.ndarray) -> Iterator[str]:
    yield name
    yield f"{name}.T"
    if not array.size:
        yield f"{name}.reshape(-1)[:0]{_reshape(array.shape)}"
        return
    offset = (array.__array_interface__["data"][0] - extent(piece)[0]) // array.itemsize
    new = [i for i, (n, s) in enumerate(zip(array.shape, array.strides, strict=True)) if n == 1 and s == 0]
    if new:
        inner = array[tuple(0 if i in new else slice(None) for i in range(array.ndim))]
        index = ", ".join("None" if i in new else ":" for i in range(array.ndim))
        for text in _spellings(name, piece, np.asarray(inner)):
            yield f"{text}[{index}]"
    spread = [i for i, (n, s) in enumerate(zip(array.shape, array.strides, strict=True)) if s == 0 and n > 1]
    if spread:
        inner = array[tuple(slice(0, 1) if i in spread else slice(None) for i in range(array.ndim))]
        for text in _dense(name, piece, inner, offset):
            yield f"np.broadcast_to({text}, {array.shape})"
    yield from _dense(name, piece, array, offset)
    yield from _sliced(name, piece, array, offset)
    flat = name if piece.ndim == 1 else f"{name}.reshape(-1)"
    if not piece.flags.c_contiguous:
        flat = f'{name}.ravel(order="K")'
    yield f"np.lib.stride_tricks.as_strided({flat}[{offset}:], {array.shape}, {array.strides})"


def _dense(name: str, piece: np.ndarray, array: np.ndarray, offset: int) -> Iterator[str]:
    """A run of the memory, reshaped, its axes in any order."""
    order = _order(array)
    turned = array.transpose(order)
    if not turned.flags.c_contiguous:
        return
    back = tuple(int(i) for i in np.argsort(order))
    turn = "" if back == tuple(range(array.ndim)) else ".T" if back[::-1] == tuple(range(array.ndim)) else None
    turn = f".transpose{back}" if turn is None else turn
    shape = _reshape(turned.shape)
    whole = offset == 0 and array.size == piece.size
    if whole and turned.shape == piece.shape:
        yield name + turn
    elif whole:
        yield name + shape + turn
    flat = name if piece.ndim == 1 else f"{name}.reshape(-1)"
    run = f"{flat}[{offset}:{offset + array.size}]"
    yield run if turned.ndim == 1 else run + shape + turn


def _reshape(shape: tuple[int, ...]) -> str:
    return ".reshape(-1)" if len(shape) == 1 else f".reshape{shape}" if shape else ".reshape(())"


def _sliced(name: str, piece: np.ndarray, array: np.ndarray, offset: int) -> Iterator[str]:
    """Some elements of each axis of the memory."""
    parts, axis = [], 0
    for n, stride in zip(piece.shape, [s // piece.itemsize for s in piece.strides], strict=True):
        start, offset = divmod(offset, stride) if stride else (0, offset)
        step = array.strides[axis] // array.itemsize if axis < array.ndim else 0
        many = step and stride and step % stride == 0 and (n == 1 or step // stride < max(n, 2))
        if not many:
            parts.append(str(start))
            continue
        length, step, axis = array.shape[axis], step // stride, axis + 1
        stop = start + (length - 1) * step + 1
        text = ":" if (start, stop, step) == (0, n, 1) else f"{start}:{stop}"
        parts.append(text + (f":{step}" if step != 1 else ""))
    yield f"{name}[{', '.join(parts)}]"
