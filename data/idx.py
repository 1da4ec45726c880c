"""The idx format, in which MNIST and its relatives are published.

A file is a header of big-endian numbers and then the values, the last axis varying fastest:

    2 bytes   0
    1 byte    the type of the values: a row of `DTYPES`
    1 byte    the number of axes
    4 bytes   the length of an axis, for each of them
"""

from __future__ import annotations

import math
import struct
from os import PathLike, fspath

import numpy as np

DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP = b"\x1f\x8b"


class IdxError(ValueError):
    """A file is not in the idx format, or not whole."""


def read_idx(path: str | PathLike[str]) -> np.ndarray:
    """The array in an idx file, in the byte order of this machine; a gzip-compressed file is unpacked on the way.

    Source of the format: http://yann.lecun.com/exdb/mnist/

    Raises:
        OSError: the file cannot be read.
        IdxError: it is damaged, cut off, or something else; says which, and what was found.

    Example:
        >>> import tempfile, pathlib
        >>> from retrograd.data import read_idx
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "pairs.idx")
        ...     n = path.write_bytes(bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 2, 1, 2, 3, 4]))
        ...     read_idx(path)
        array([[1, 2],
               [3, 4]], dtype=uint8)
    """
    with open(path, "rb") as file:
        content = file.read()
    name = fspath(path)
    return parse_idx(_unpacked(content, name) if content.startswith(_GZIP) else content, name)


def parse_idx(content: bytes, name: str) -> np.ndarray:
    """The array that the bytes of an idx file hold; `name` is what an IdxError calls the file."""
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in DTYPES:
        known = ", ".join(f"{code:#04x}" for code in DTYPES)
        raise IdxError(
            f"{name} is not an idx file: it must begin with two zero bytes, one of the type codes {known} and the "
            f"number of axes, but begins with {content[:4].hex(' ') or 'nothing'}"
        )
    dtype, n_axes = np.dtype(DTYPES[content[2]]), content[3]
    start = 4 + 4 * n_axes
    if len(content) < start:
        raise IdxError(f"{name} is cut off: a header of {start} bytes was expected, the file has {len(content)}")
    shape = struct.unpack(f">{n_axes}I", content[4:start])
    expected = start + math.prod(shape) * dtype.itemsize
    if len(content) != expected:
        fault = "cut off" if len(content) < expected else "longer than its header says"
        raise IdxError(
            f"{name} is {fault}: shape {shape} of {dtype.itemsize}-byte values takes {expected} bytes, "
            f"the file has {len(content)}"
        )
    return np.frombuffer(content, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def _unpacked(content: bytes, name: str) -> bytes:
    import gzip
    import zlib

    try:
        return gzip.decompress(content)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise IdxError(f"{name} is a damaged gzip file: {error}") from None
