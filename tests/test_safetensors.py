"""The safetensors format: exact round trips, the library's own bytes, one clear error for bad content."""

import contextlib
import json
import os
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from retrograd.autograd_core import safetensors
from retrograd.autograd_core.safetensors import SafetensorsError

DTYPES = ["?", "u1", "i1", "u2", "i2", "f2", "u4", "i4", "f4", "c8", "u8", "i8", "f8"]


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        native = np.asarray(array).astype(array.dtype.newbyteorder("="))
        assert found[name].dtype == native.dtype
        assert found[name].shape == native.shape
        # Bytes, so that NaN payloads and signed zeros count.
        assert found[name].tobytes() == native.tobytes()


def built(header, body=b""):
    """A file from a header (dict, or bytes as they are) and a buffer."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


# --- round trips -----------------------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)  # no halves of surrogate pairs
array_dicts = st.dictionaries(
    texts.filter(lambda n: n != "__metadata__"),
    st.sampled_from(DTYPES).flatmap(
        lambda d: hnp.arrays(np.dtype(d), hnp.array_shapes(min_dims=0, min_side=0, max_side=4))
    ),
    max_size=5,
)


@given(arrays=array_dicts, metadata=st.dictionaries(texts, texts, max_size=3))
def test_round_trip(arrays, metadata):
    found, text = safetensors.parse(safetensors.pack(arrays, metadata))
    assert_same(found, arrays)
    assert text == metadata


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_layout_through_a_file(tmp_path, dtype):
    base = np.arange(24).reshape(4, 6) % 2 == 0 if dtype == "?" else np.arange(24).reshape(4, 6).astype(dtype)
    arrays = {
        "plain": base,
        "fortran": np.asfortranarray(base),
        "sliced": base[::2, ::-3],
        "transposed": base.T,
        "broadcast": np.broadcast_to(base[0], (3, 6)),
        "0-d": base[1, 1:2].reshape(()),
        "scalar": base[1, 2],
        "empty": base[:, :0],
        "big-endian": base.astype(base.dtype.newbyteorder(">")),
    }
    before = {n: a.tobytes() for n, a in arrays.items()}
    safetensors.write(tmp_path / "a.safetensors", arrays)
    found, metadata = safetensors.read(tmp_path / "a.safetensors")
    assert_same(found, arrays)
    assert metadata == {}
    assert {n: a.tobytes() for n, a in arrays.items()} == before
    for array in found.values():
        assert array.flags.writeable
        assert array.flags.c_contiguous
        assert array.flags.aligned


def test_arrays_are_aligned_in_the_file(tmp_path):
    safetensors.write(tmp_path / "a", {"a": np.ones(3, "i1"), "b": np.ones(1, "f8"), "c": np.ones(3, "f4")})
    for spec in safetensors.read_header(tmp_path / "a").specs.values():
        assert spec.start % np.dtype(safetensors.DTYPES[spec.dtype]).itemsize == 0


def test_bfloat16_becomes_float32_exactly():
    values = np.array([1.0, -2.5, 0.0, -0.0, np.inf, -np.inf, 3.3895314e38, 9.1835e-41], "f4")
    words = (values.view("u4") >> 16).astype("<u2")
    found, _ = safetensors.parse(built({"w": entry("BF16", (2, 4), (0, 16))}, words.tobytes()))
    assert found["w"].dtype == np.float32
    assert found["w"].shape == (2, 4)
    assert found["w"].view("u4").ravel().tolist() == (words.astype("u4") << 16).tolist()


def test_keeping_bfloat16_needs_ml_dtypes(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ml_dtypes", None)
    data = built({"w": entry("BF16", (), (0, 2))}, b"\x80\x3f")
    with pytest.raises(ImportError, match="ml_dtypes"):
        safetensors.parse(data, bf16="keep")
    with pytest.raises(ValueError, match='bf16 must be "float32" or "keep"'):
        safetensors.parse(data, bf16="float16")


@pytest.mark.parity
def test_bfloat16_kept_and_written_back():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    arrays = {"w": np.array([[1.5, -3.0]], ml_dtypes.bfloat16), "0-d": np.array(2, ml_dtypes.bfloat16)}
    packed = safetensors.pack(arrays)
    kept, _ = safetensors.parse(packed, bf16="keep")
    assert_same(kept, arrays)
    assert safetensors.pack(kept) == packed
    wide, _ = safetensors.parse(packed)
    assert wide["w"].tolist() == [[1.5, -3.0]]


# --- one array at a time ---------------------------------------------------------------------------------------------


def test_open_file_reads_what_is_asked_for(tmp_path):
    arrays = {"a": np.arange(6, dtype="f4").reshape(2, 3), "flag": np.array([True, False]), "none": np.zeros((0, 2))}
    safetensors.write(tmp_path / "a", arrays, {"step": "7"})
    with safetensors.open_file(tmp_path / "a") as file:
        assert set(file.names) == set(arrays)
        assert file.metadata == {"step": "7"}
        assert file.spec("a")[:2] == ("F32", (2, 3))
        assert_same({n: file.get(n) for n in file.names}, arrays)
        own, view = file.get("a"), file.get("a", copy=False)
        own[:] = 0
        with pytest.raises(ValueError, match="read-only"):
            view[:] = 0
        with pytest.raises(SafetensorsError, match=r"expected one of its 3 names, came 'flags'; did you mean 'flag'"):
            file.get("flags")
    assert view.tolist() == arrays["a"].tolist()  # a view outlives the file object
    with pytest.raises(SafetensorsError, match="closed"):
        file.get("a")
    assert safetensors.read_header(tmp_path / "a").metadata == {"step": "7"}


def test_a_missing_file_is_the_systems_own_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        safetensors.read(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        safetensors.write(tmp_path / "nowhere" / "a", {})


# --- reading trusts nothing ------------------------------------------------------------------------------------------

F = b"\x00" * 4
BAD_FILES = {
    "length beyond the file": (struct.pack("<Q", 1000) + b"{}", "header length of 1000 in a file of 10 bytes"),
    "length beyond the limit": (struct.pack("<Q", 2**40) + b"{}", "allowed: 2 to 100000000"),
    "length all ones": (b"\xff" * 8 + b"{}", "18446744073709551615"),
    "length zero": (struct.pack("<Q", 0) + b"{}", "header length of 0"),
    "too short": (b"\x02\x00\x00", "3 bytes, too few"),
    "no bytes": (b"", "no bytes"),
    "list": (built([1, 2]), "begins with"),
    "leading space": (built(b" {}"), "begins with"),
    "not JSON": (built(b'{"a": }'), "a JSON header"),
    "two values": (built(b"{}{}"), "Extra data"),
    "not UTF-8": (built(b'{"\xff": 1}'), "utf-8"),
    "deep": (built(b'{"a":' * 100_000 + b"1" + b"}" * 100_000), "a JSON header"),
    "huge number": (built(b'{"a":' + b"9" * 10_000 + b"}"), "a JSON header"),
    "NaN": (built(b'{"a": NaN}'), "NaN"),
    "a name twice": (
        built(
            b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'
        ),
        "the key 'a' twice",
    ),
    "a field twice": (built(b'{"a":{"dtype":"U8","dtype":"I8","shape":[0],"data_offsets":[0,0]}}'), "'dtype' twice"),
    "metadata twice": (built(b'{"__metadata__":{},"__metadata__":{}}'), "'__metadata__' twice"),
    "metadata number": (built({"__metadata__": {"a": 1}}), "'a': 1"),
    "metadata list": (built({"__metadata__": []}), "text to text"),
    "metadata null": (built({"__metadata__": None}), "text to text"),
    "half a surrogate": (built(b'{"\\ud800":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'), "names that are text"),
    "half a surrogate in metadata": (built(b'{"__metadata__":{"a":"\\udfff"}}'), "text to text"),
    "entry is a list": (built({"a": [1]}), "dtype, shape and data_offsets"),
    "entry lacks a field": (built({"a": {"dtype": "F32", "shape": [1]}}, F), "dtype, shape and data_offsets"),
    "entry has one too many": (built({"a": entry() | {"x": 1}}, F), "dtype, shape and data_offsets"),
    "unknown dtype": (built({"a": entry("F8_E4M3", (4,))}, F), "came 'F8_E4M3'"),
    "dtype is a list": (built({"a": entry(["F32"])}, F), "a dtype among"),
    "negative size": (built({"a": entry(shape=(-1,))}, F), "a shape"),
    "float size": (built({"a": entry(shape=(1.0,))}, F), "a shape"),
    "boolean size": (built({"a": entry(shape=(True,))}, F), "a shape"),
    "shape is a number": (built({"a": {"dtype": "F32", "shape": 1, "data_offsets": [0, 4]}}, F), "a shape"),
    "too many axes": (built({"a": entry(shape=(1,) * 65)}, F), "at most 64"),
    "sizes that wrap around": (built({"a": entry(shape=(2**32, 2**32))}, F), "fits into memory"),
    "sizes that wrap around to the right length": (built({"a": entry(shape=(2**62 + 1,))}, F), "fits into memory"),
    "an empty array too large": (built({"a": entry(shape=(0, 2**62, 2**62), offsets=(0, 0))}), "fits into memory"),
    "shape too small": (built({"a": entry(shape=(), offsets=(0, 8))}, F + F), "came data_offsets of 8 bytes"),
    "shape and bytes differ": (built({"a": entry(offsets=(0, 8))}, F + F), "expected 4 bytes for array 'a'"),
    "offsets past the end": (built({"a": entry(shape=(2,), offsets=(0, 8))}, F), "rising data_offsets up to 4"),
    "offsets fall": (built({"a": entry(offsets=(4, 0))}, F), "rising"),
    "offsets negative": (built({"a": entry(offsets=(-4, 0))}, F), "rising"),
    "one offset": (built({"a": entry(offsets=(0,))}, F), "rising"),
    "three offsets": (built({"a": entry(offsets=(0, 4, 4))}, F), "rising"),
    "overlap": (built({"a": entry(), "b": entry(offsets=(2, 6))}, F + F), "an overlap of 2 bytes"),
    "the same bytes": (built({"a": entry(), "b": entry()}, F), "an overlap of 4 bytes"),
    "gap": (built({"a": entry(), "b": entry(offsets=(8, 12))}, F * 3), "a gap of 4 bytes"),
    "gap at the start": (built({"a": entry(offsets=(4, 8))}, F * 2), "a gap of 4 bytes between the header"),
    "bytes left over": (built({"a": entry()}, F + b"x"), "as the header says"),
    "bytes missing": (built({"a": entry()}, F[:3]), "rising data_offsets up to 3"),
    "a bool that is two": (built({"a": entry("BOOL", (2,), (0, 2))}, b"\x01\x02"), "bytes 0 and 1"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_content_is_one_clear_line(tmp_path, case):
    data, text = BAD_FILES[case]
    with pytest.raises(SafetensorsError, match=r"^[^\n]{1,400}$") as caught:
        safetensors.parse(data)
    assert text in str(caught.value)
    path = tmp_path / "bad.safetensors"
    path.write_bytes(data)
    with pytest.raises(SafetensorsError, match=r"bad.safetensors: expected .+, came .+; .+"):
        safetensors.read(path)


FOREIGN = {
    "zip": (b"PK\x03\x04\x00\x00\x08\x08\x00\x00" + bytes(100), "zip archive"),
    "pickle 2": (b"\x80\x02}q\x00." + bytes(100), "a pickle"),
    "pickle 4": (b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00}\x94.", "a pickle"),
    "legacy torch": (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.", "a pickle"),
    "gguf": (b"GGUF\x03\x00\x00\x00" + bytes(100), "GGUF"),
    "npy": (b"\x93NUMPY\x01\x00v\x00{'descr'", "NumPy .npy"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
    "gzip": (b"\x1f\x8b\x08\x00" + bytes(100), "gzip"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n", "git lfs pull"),
    "html": (b"\n<!DOCTYPE html><html></html>", "web page"),
    "index": (b'{\n  "metadata": {"total_size": 1}, "weight_map": {}}', "sharded"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_other_formats_are_named(tmp_path, case):
    data, text = FOREIGN[case]
    (tmp_path / "model.bin").write_bytes(data)
    with pytest.raises(SafetensorsError, match=r"^[^\n]+$") as caught:
        safetensors.read(tmp_path / "model.bin")
    assert text in str(caught.value)


def test_a_real_npz_and_an_empty_file_are_named(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.ones(3))
    with pytest.raises(SafetensorsError, match=r"numpy\.load"):
        safetensors.read(tmp_path / "a.npz")
    (tmp_path / "empty").touch()
    with pytest.raises(SafetensorsError, match="came an empty file"):
        safetensors.read(tmp_path / "empty")


def test_a_header_whose_length_looks_like_another_format_is_still_read():
    for first in (0x7B, 0x3C, 0x80):  # "{", "<" and a pickle's first byte
        length = first
        data = built(b"{}".ljust(length))
        assert data[0] == first
        assert safetensors.parse(data) == ({}, {})


# --- fuzzing ---------------------------------------------------------------------------------------------------------

FUZZ_ROUNDS = int(os.environ.get("RETROGRAD_FUZZ", "10000"))

# What damaged or hostile headers are made of.
TOKENS = [
    b"0", b"-1", b"1", b"4", b"8", b"16", b"1e3", b"1.0", b"true", b"null", b"NaN", b"18446744073709551615", b"[", b"]",
    b"{", b"}", b'"', b",", b":", b"9223372036854775807", b"4611686018427387904", b'"F32"', b'"F64"', b'"BOOL"',
    b'"BF16"', b'"shape"', b'"dtype"', b'"data_offsets"', b'"__metadata__"', b'"\\ud800"', b"\\u0000", b"\x00", b"\xff",
    b'"a"', b'"b"', b"[0,0]", b"[]", b" ",
]  # fmt: skip


def seeds():
    arrays = {
        "a": np.arange(6, dtype="f4").reshape(2, 3),
        "b": np.array([True, False, True]),
        "c": np.array(3.5),
        "d": np.zeros((0, 4), "i8"),
        "e.weight": np.arange(5, dtype="u2"),
    }
    bf16 = built({"a": entry("BF16", (2,)), "__metadata__": {"k": "v"}}, F)
    return [safetensors.pack(arrays, {"k": "v", "é": "ü"}), safetensors.pack(arrays), safetensors.pack({}), bf16]


def mutated(data, rng):
    """One to three changes at random, most of them in the header, half of them with the length put right again."""
    data = bytearray(data)
    length = int.from_bytes(data[:8], "little")
    for _ in range(rng.integers(1, 4)):
        header_end = min(8 + length, len(data))
        low, high = [(0, 8), (8, header_end), (8, header_end), (8, header_end), (0, len(data))][rng.integers(5)]
        at = int(rng.integers(low, max(high, low + 1)))
        match rng.integers(6):
            case 0:
                data[at : at + 1] = bytes([rng.integers(256)])
            case 1:
                data[at : at + 1] = TOKENS[rng.integers(len(TOKENS))]
            case 2:
                data[at:at] = TOKENS[rng.integers(len(TOKENS))]
            case 3:
                del data[at : at + int(rng.integers(1, 12))]
            case 4:
                del data[at:]
            case 5:
                other = int(rng.integers(low, max(high, low + 1)))
                data[at : at + 10] = data[other : other + 10]
    if rng.integers(2):
        end = data.rfind(b"}")
        data[:8] = struct.pack("<Q", max(0, end + 1 - 8))
    return bytes(data)


def test_mutated_files_meet_our_error_only(tmp_path):
    rng = np.random.default_rng(int(os.environ.get("RETROGRAD_FUZZ_SEED", "0")))
    files, refused, messages = seeds(), 0, set()
    for i in range(FUZZ_ROUNDS):
        data = mutated(files[i % len(files)], rng)
        try:
            arrays, metadata = safetensors.parse(data)
        except SafetensorsError as error:
            refused += 1
            messages.add(str(error))
        else:
            # Whatever is accepted says the same once written and read again.
            again, text = safetensors.parse(safetensors.pack(arrays, metadata))
            assert_same(again, arrays)
            assert text == metadata
        if i % 50 == 0:
            (tmp_path / "a").write_bytes(data)
            with contextlib.suppress(SafetensorsError):
                safetensors.read(tmp_path / "a")
    # The mutations reach both sides and most of the checks.
    assert 0 < refused < FUZZ_ROUNDS
    assert len({text.split(", came")[0] for text in messages}) > 10
    assert max(map(len, messages)) < 500
    assert not any("\n" in text for text in messages)


@pytest.mark.parity
def test_mutated_files_that_we_accept_the_library_accepts_too():
    library = pytest.importorskip("safetensors.numpy")
    rng = np.random.default_rng(1)
    files, accepted = seeds()[:3], 0
    for i in range(2000):
        data = mutated(files[i % len(files)], rng)
        try:
            arrays, _ = safetensors.parse(data)
        except SafetensorsError:
            continue
        if b"BF16" not in data:  # the library's NumPy side has no such dtype
            assert_same(library.load(data), arrays)
            accepted += 1
    assert accepted > 10


# --- the library -----------------------------------------------------------------------------------------------------


@pytest.mark.parity
@pytest.mark.parametrize("metadata", [None, {}, {"k\n\x01": 'é"\\/\u2028'}])
def test_the_same_bytes_as_the_library(tmp_path, metadata):
    library = pytest.importorskip("safetensors.numpy")
    rng = np.random.default_rng(0)
    arrays = {f"layer.{i}.{d}": (rng.normal(size=(i, 3)) * 50).astype(d) for i in range(3) for d in DTYPES}
    arrays |= {'é\n\x7f\u2028"/\\': np.array(1, "f4"), "": np.zeros(0, "i1")}
    assert safetensors.pack(arrays, metadata) == library.save(arrays, metadata)
    safetensors.write(tmp_path / "ours", arrays, metadata)
    library.save_file(arrays, tmp_path / "theirs", metadata)
    assert_same(library.load_file(tmp_path / "ours"), arrays)
    found, text = safetensors.read(tmp_path / "theirs")
    assert_same(found, arrays)
    assert text == (metadata or {})


@pytest.mark.parity
def test_files_that_pytorch_wrote_with_bfloat16(tmp_path):
    torch = pytest.importorskip("torch")
    library = pytest.importorskip("safetensors.torch")
    tensors = {"w": torch.arange(12, dtype=torch.bfloat16).reshape(3, 4) / 7, "n": torch.ones(2, dtype=torch.int64)}
    library.save_file(tensors, tmp_path / "t")
    found, _ = safetensors.read(tmp_path / "t")
    assert found["w"].tolist() == tensors["w"].float().tolist()
    assert found["n"].tolist() == [1, 1]
