"""The safetensors file format, NumPy arrays in and out: a JSON header that says what lies where, then one buffer.

    8 bytes      length of the header, little-endian
    header       {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ..., "__metadata__": {"k": "v"}}
    buffer       the arrays end to end, row-major, little-endian

A file is data from a stranger. Nothing in it is executed, every number is checked against the size of the file before
memory is asked for, and whatever is wrong ends in one SafetensorsError.

Source: https://huggingface.co/docs/safetensors (the description of the format).
"""

from __future__ import annotations

import json
import math
import mmap
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, NoReturn

import numpy as np

from ..backends.whole_files import whole_file

HEADER_LIMIT = 100_000_000
"""Longest header in bytes, the same limit as in the library: parsing is the one place where a file costs memory."""

# What each dtype's bytes are read as, in the order in which the arrays stand in a file (wide ones first, so that each
# begins at a multiple of its width). BOOL and BF16 come in as plain bytes and words and are turned afterwards.
DTYPES = {
    "U64": "<u8", "I64": "<i8", "F64": "<f8", "C64": "<c8", "F32": "<f4", "U32": "<u4", "I32": "<i4",
    "BF16": "<u2", "F16": "<f2", "U16": "<u2", "I16": "<i2", "I8": "|i1", "U8": "|u1", "BOOL": "|u1",
}  # fmt: skip

_WRITTEN_AS = {np.dtype(d).str[1:]: n for n, d in DTYPES.items() if n not in ("BOOL", "BF16")} | {"b1": "BOOL"}
_ORDER = {name: place for place, name in enumerate(DTYPES)}
_ENTRY = {"dtype", "shape", "data_offsets"}
_MAX_AXES = 64  # NumPy's own limit

_DAMAGED = "the file is damaged: download it or save it again"
_FOREIGN = "write it with rg.save or another safetensors writer"
_FROM_TORCH = "load it where PyTorch is installed and save its state_dict with safetensors.torch.save_file"

# Files that are often taken for safetensors, by their first bytes: what they are, and how to mend it.
_OTHER_FORMATS: tuple[tuple[bytes, str, str], ...] = (
    (b"PK\x03\x04", "a zip archive (a PyTorch .pt or .bin file, or a NumPy .npz)",
     f"an .npz is read by numpy.load; for a PyTorch file, {_FROM_TORCH}"),
    (b"\x80", "a pickle (an old PyTorch .pt or .bin file)", f"pickles can run code and are never read: {_FROM_TORCH}"),
    (b"GGUF", "a GGUF file", "it is quantised: take the model's safetensors file instead"),
    (b"\x93NUMPY", "a NumPy .npy file", "read it with numpy.load"),
    (b"\x89HDF", "an HDF5 file (Keras .h5)", "convert it to safetensors where it was made"),
    (b"\x1f\x8b", "a gzip file", "unpack it first"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "run `git lfs pull` where it was cloned"),
    (b"<", "a web page", "the download failed: fetch the file itself"),
    (b"{", "JSON text (perhaps the index of a sharded checkpoint)", "open the .safetensors files that it names"),
)  # fmt: skip


class SafetensorsError(ValueError):
    """Content that the format does not allow. One line: which file, what was expected, what came, how to mend it."""


class Spec(NamedTuple):
    """One array of a file: dtype as the format spells it ("F32"), shape, first byte in the file, one past the last."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


class Header(NamedTuple):
    """What a file says of itself: an array's name to its Spec, in the order of the header, and the free metadata."""

    specs: dict[str, Spec]
    metadata: dict[str, str]


Path = str | os.PathLike[str]
Bfloat16 = Literal["float32", "keep"]


def write(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write arrays under their names, atomically: afterwards the file is either the old one or complete.

    Args:
        path: where to; an existing file is replaced. The folder must exist.
        arrays: name to ndarray of any layout and byte order; dtypes bool, (u)int8 to 64, float16 to 64, complex64, and
            ml_dtypes' bfloat16.
        metadata: free text, str to str.
    Raises:
        SafetensorsError: a name, dtype or metadata entry that the format cannot hold; nothing is written.
        OSError: the file system refuses (full disk, no permission). The old file, if any, is untouched.

    Example:
        >>> import numpy as np, tempfile
        >>> from retrograd.autograd_core import safetensors
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     safetensors.write(f"{folder}/w.safetensors", {"w": np.eye(2, dtype="float32")}, {"epoch": "3"})
        ...     arrays, metadata = safetensors.read(f"{folder}/w.safetensors")
        >>> arrays["w"].dtype, arrays["w"].tolist(), metadata
        (dtype('float32'), [[1.0, 0.0], [0.0, 1.0]], {'epoch': '3'})
    """
    header, order = _plan(arrays, metadata, os.fspath(path))
    with whole_file(path) as file:
        file.write(header)
        for name in order:
            file.write(_bytes(arrays[name]))
    _sync_folder(os.path.dirname(os.path.realpath(os.fspath(path))))


def pack(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> bytes:
    """The bytes that `write` would put into a file. Raises SafetensorsError as `write` does."""
    header, order = _plan(arrays, metadata, "safetensors bytes")
    return b"".join([header, *(_bytes(arrays[name]) for name in order)])


def read(path: Path, *, bf16: Bfloat16 = "float32") -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """All arrays of a file by name, each with memory of its own, and the metadata ({} if there is none).

    Args:
        bf16: bfloat16, which NumPy lacks, becomes "float32" (exactly); "keep" gives ml_dtypes.bfloat16 arrays.
    Raises:
        SafetensorsError: the file is not safetensors, or damaged in any way; the message says what it is where it can.
        OSError: there is no such file, or it cannot be read.
        ImportError: bf16="keep" without the package ml_dtypes.
    """
    with open_file(path, bf16=bf16) as file:
        return {name: file.get(name) for name in file.names}, file.metadata


def parse(
    data: bytes | bytearray | memoryview, *, bf16: Bfloat16 = "float32"
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """As `read`, from bytes that are already in memory.

    Example:
        >>> import numpy as np
        >>> from retrograd.autograd_core import safetensors
        >>> safetensors.parse(safetensors.pack({"x": np.arange(3)}))
        ({'x': array([0, 1, 2])}, {})
    """
    view = memoryview(data).cast("B")
    with SafetensorsFile(view, "safetensors bytes", bf16) as file:
        return {name: file.get(name) for name in file.names}, file.metadata


def read_header(path: Path) -> Header:
    """Names, dtypes, shapes, places and metadata of a file, without touching its buffer. Raises as `read` does."""
    with open_file(path) as file:
        return Header({name: file.spec(name) for name in file.names}, file.metadata)


def open_file(path: Path, *, bf16: Bfloat16 = "float32") -> SafetensorsFile:
    """Open a file to take arrays out one at a time; only what is taken is read from the disk. Raises as `read` does.

    Example:
        >>> import numpy as np, tempfile
        >>> from retrograd.autograd_core import safetensors
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     safetensors.write(f"{folder}/m.safetensors", {"a": np.ones(3), "b": np.zeros((2, 2), "int8")})
        ...     with safetensors.open_file(f"{folder}/m.safetensors") as file:
        ...         file.names, file.spec("b").shape, file.get("a")
        (('a', 'b'), (2, 2), array([1., 1., 1.]))
    """
    name = os.fspath(path)
    with open(name, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            _refuse(name, "a safetensors file", "an empty file", _DAMAGED)
        mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
    return SafetensorsFile(mapped, name, bf16)


class SafetensorsFile:
    """A file whose header is read and checked, and whose arrays are still on the disk. Made by `open_file`.

    Attributes:
        names: the names of its arrays, in the order of the header.
        metadata: the free metadata, str to str.
    """

    def __init__(self, buffer: mmap.mmap | memoryview, source: str, bf16: Bfloat16 = "float32"):
        if bf16 not in ("float32", "keep"):
            raise ValueError(f'bf16 must be "float32" or "keep", got {bf16!r}')
        self._bf16, self._source = bf16, source
        self._specs, self.metadata = _header(buffer, source)
        self._buffer: mmap.mmap | memoryview | None = buffer
        self.names = tuple(self._specs)

    def spec(self, name: str) -> Spec:
        """Dtype, shape and place of one array. Raises SafetensorsError if there is none of that name."""
        if name not in self._specs:
            import difflib

            close = " or ".join(map(repr, difflib.get_close_matches(str(name), self.names, 3)))
            mend = f"did you mean {close}?" if close else "`.names` lists them"
            _refuse(self._source, f"one of its {len(self.names)} names", _show(name), mend)
        return self._specs[name]

    def get(self, name: str, *, copy: bool = True) -> np.ndarray:
        """One array. With copy=False it is a read-only view of the file where no conversion is needed.

        Raises SafetensorsError if there is none of that name, its bytes are no booleans, or the file is closed.
        """
        spec = self.spec(name)
        if self._buffer is None:
            _refuse(self._source, "an open file", "a closed one", "take arrays inside the `with` block")
        # np.ndarray over a buffer takes any offset and holds the buffer: a view outlives `close`.
        raw = np.ndarray(spec.shape, DTYPES[spec.dtype], self._buffer, spec.start)
        array = self._convert(name, spec, raw)
        return array.copy() if copy and array.base is not None else array

    def _convert(self, name: str, spec: Spec, raw: np.ndarray) -> np.ndarray:
        if spec.dtype == "BOOL":
            # Any other byte would make a bool that is neither true nor false to compiled code.
            if raw.size and raw.max() > 1:
                _refuse(self._source, f"bytes 0 and 1 in BOOL array {_show(name)}", f"{raw.max()}", _DAMAGED)
            return raw.view(np.bool_)
        if spec.dtype == "BF16":
            # bfloat16 is the upper half of a float32.
            return raw.view(_ml_bfloat16()) if self._bf16 == "keep" else _widen(raw)
        return raw.astype(raw.dtype.newbyteorder("="), copy=False)

    def close(self) -> None:
        """Let go of the file. Views that were taken with copy=False stay valid and keep it open themselves."""
        self._buffer = None

    def __enter__(self) -> SafetensorsFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# --- reading a header ------------------------------------------------------------------------------------------------


def _header(buffer: mmap.mmap | memoryview, source: str) -> Header:
    size = len(buffer)
    start = bytes(buffer[:32])
    length = int.from_bytes(start[:8], "little")
    # A foreign file betrays itself by a length that cannot be, or by a header that is no JSON object.
    if size < 10 or length < 2 or length > min(HEADER_LIMIT, size - 8) or start[8:9] != b"{":
        _refuse_start(source, start, length, size)
    try:
        entries = json.loads(
            bytes(buffer[8 : 8 + length]).decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as error:  # JSON and UTF-8 errors are ValueErrors
        _refuse(source, "a JSON header", _short(str(error) or "nesting too deep"), _DAMAGED, error)
    metadata = _metadata(entries.pop("__metadata__", {}), source, _DAMAGED)
    specs = {_name(n, source, _DAMAGED): _spec(n, entry, 8 + length, size, source) for n, entry in entries.items()}
    _check_cover(specs, 8 + length, size, source)
    return Header(specs, metadata)


def _refuse_start(source: str, start: bytes, length: int, size: int) -> NoReturn:
    for signature, what, mend in _OTHER_FORMATS:
        if start.lstrip().startswith(signature) or start.startswith(signature):
            _refuse(source, "a safetensors file", what, mend)
    if size < 10:
        came = f"{size} bytes, too few for any" if size else "no bytes"
    elif HEADER_LIMIT >= length > size - 8:
        came = f"a header length of {length} in a file of {size} bytes, so the end is missing or it is another format"
    elif 2 <= length <= HEADER_LIMIT:
        came = f"a header that begins with {start[8:9]!r} instead of b'{{'"
    else:
        came = f"a header length of {length} (allowed: 2 to {HEADER_LIMIT})"
    _refuse(source, "a safetensors file", came, _DAMAGED)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"the key {_show(twice)} twice")
    return found


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text}, which is not JSON")


def _spec(name: str, entry: Any, start: int, size: int, source: str) -> Spec:
    what = f"array {_show(name)}"
    if not isinstance(entry, dict) or set(entry) != _ENTRY:
        came = sorted(entry) if isinstance(entry, dict) else entry
        _refuse(source, f"dtype, shape and data_offsets for {what}", _show(came), _DAMAGED)
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        _refuse(source, f"a dtype among {', '.join(DTYPES)} for {what}", _show(dtype), "save that array in one of them")
    if not _is_sizes(shape) or len(shape) > _MAX_AXES:
        _refuse(source, f"a shape of at most {_MAX_AXES} sizes for {what}", _show(shape), _DAMAGED)
    if not _is_sizes(offsets) or len(offsets) != 2 or not offsets[0] <= offsets[1] <= size - start:
        _refuse(source, f"two rising data_offsets up to {size - start} for {what}", _show(offsets), _DAMAGED)
    width = np.dtype(DTYPES[dtype]).itemsize
    # Python's integers cannot overflow; NumPy multiplies the non-zero sizes even of an empty array.
    if math.prod(n for n in shape if n) * width > sys.maxsize:
        _refuse(source, f"a shape that fits into memory for {what}", _show(shape), _DAMAGED)
    if math.prod(shape) * width != offsets[1] - offsets[0]:
        expected = f"{math.prod(shape) * width} bytes for {what} ({dtype} {_show(shape)})"
        _refuse(source, expected, f"data_offsets of {offsets[1] - offsets[0]} bytes", _DAMAGED)
    return Spec(dtype, tuple(shape), start + offsets[0], start + offsets[1])


def _is_sizes(value: Any) -> bool:
    # `type`, because True is an int too.
    return isinstance(value, list) and all(type(n) is int and 0 <= n <= sys.maxsize for n in value)


def _check_cover(specs: dict[str, Spec], start: int, size: int, source: str) -> None:
    """Every byte of the buffer belongs to exactly one array."""
    end, before = start, "the header"
    for name, spec in sorted(specs.items(), key=lambda item: item[1][2:]):
        if spec.start != end:
            problem = "a gap" if spec.start > end else "an overlap"
            came = f"{problem} of {abs(spec.start - end)} bytes between {before} and array {_show(name)}"
            _refuse(source, "arrays that lie end to end", came, _DAMAGED)
        end, before = spec.stop, f"array {_show(name)}"
    if end != size:
        _refuse(source, f"{end} bytes, as the header says", f"{size} bytes", _DAMAGED)


# --- what reading and writing share ----------------------------------------------------------------------------------


def _name(name: Any, source: str, mend: str) -> str:
    if not isinstance(name, str) or not _is_text(name) or name == "__metadata__":
        _refuse(source, "names that are text, and not '__metadata__'", _show(name), mend)
    return name


def _metadata(metadata: Any, source: str, mend: str) -> dict[str, str]:
    if not isinstance(metadata, Mapping):
        _refuse(source, "metadata that maps text to text", _show(metadata), mend)
    for key, value in metadata.items():
        if not (isinstance(key, str) and isinstance(value, str) and _is_text(key) and _is_text(value)):
            _refuse(source, "metadata that maps text to text", f"{_show(key)}: {_show(value)}", mend)
    return dict(metadata)


def _is_text(text: str) -> bool:
    """Whether UTF-8 can hold it: half of a surrogate pair is a Python str, but no text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse(source: str, expected: str, came: str, mend: str, cause: Exception | None = None) -> NoReturn:
    raise SafetensorsError(f"{source}: expected {expected}, came {came}; {mend}") from cause


def _show(value: Any) -> str:
    return _short(repr(value))


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 80 else text[:79] + "…"


def _widen(words: np.ndarray) -> np.ndarray:
    wide = np.empty(words.shape, np.float32)
    np.left_shift(words, 16, out=wide.view(np.uint32), dtype=np.uint32)
    return wide


def _ml_bfloat16() -> np.dtype:
    try:
        import ml_dtypes  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError('bf16="keep" needs the package ml_dtypes; bf16="float32" does without it') from error
    return np.dtype(ml_dtypes.bfloat16)


# --- writing ---------------------------------------------------------------------------------------------------------


def _plan(
    arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None, source: str
) -> tuple[bytes, Sequence[str]]:
    """The length and header as bytes, and the order of the arrays behind them. Checks everything first."""
    if not isinstance(arrays, Mapping):
        _refuse(source, "a dict of arrays", type(arrays).__name__, "give each array a name")
    header: dict[str, Any] = {}
    if metadata is not None:
        header["__metadata__"] = _metadata(metadata, source, "turn both into str first, e.g. with json.dumps")
    dtypes = {_name(n, source, "rename the array"): _dtype_name(n, array, source) for n, array in arrays.items()}
    order = sorted(arrays, key=lambda n: (_ORDER[dtypes[n]], n.encode()))
    end = 0
    for name in order:
        array = arrays[name]
        header[name] = {"dtype": dtypes[name], "shape": list(array.shape), "data_offsets": [end, end + array.nbytes]}
        end += array.nbytes
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the buffer begins at a multiple of eight
    if len(text) > HEADER_LIMIT:
        _refuse(source, f"a header of at most {HEADER_LIMIT} bytes", str(len(text)), "store fewer arrays or metadata")
    return len(text).to_bytes(8, "little") + text, order


def _dtype_name(name: str, array: Any, source: str) -> str:
    if not isinstance(array, np.ndarray | np.generic):
        _refuse(source, f"a NumPy array for {_show(name)}", type(array).__name__, "convert it with numpy.asarray")
    found = "BF16" if array.dtype.name == "bfloat16" else _WRITTEN_AS.get(array.dtype.str[1:])
    if found is None:
        expected = "a bool, integer, float16 to float64 or complex64 array"
        _refuse(source, f"{expected} for {_show(name)}", f"dtype {array.dtype}", "convert it with .astype")
    return found


def _bytes(array: np.ndarray) -> memoryview:
    """Its elements in row-major order, little-endian; a view where they lie so already."""
    flat = np.ascontiguousarray(array).reshape(-1)
    if array.dtype.name != "bfloat16":
        flat = flat.astype(flat.dtype.newbyteorder("<"), copy=False)
    return flat.view(np.uint8).data


def _sync_folder(folder: str) -> None:
    """Put the renaming itself on the disk, where the system lets a folder be opened."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)
