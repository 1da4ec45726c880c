"""The idx reader and the digits of the package."""

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from retrograd import data
from retrograd.data import digits, idx

# Published by the authors' page and by everybody who copied it: the MD5 sums of the unpacked files.
CANONICAL = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


def idx_bytes(array: np.ndarray) -> bytes:
    code = {np.dtype(dtype).newbyteorder("="): code for code, dtype in idx.DTYPES.items()}[array.dtype]
    header = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


native_dtypes = st.sampled_from([np.dtype(dtype).newbyteorder("=") for dtype in idx.DTYPES.values()])


@given(hnp.arrays(native_dtypes, hnp.array_shapes(min_dims=0, min_side=0, max_side=4)))
def test_every_dtype_and_shape_is_read_back(array: np.ndarray) -> None:
    found = idx.parse_idx(idx_bytes(array), "it")
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


@given(st.binary(max_size=40) | st.binary(max_size=12).map(lambda rest: b"\0\0\x08\x02" + rest))
def test_foreign_bytes_give_an_array_or_the_reader_s_own_error(content: bytes) -> None:
    try:
        found = idx.parse_idx(content, "it")
    except data.IdxError as error:
        found = error
    assert str(found).startswith("it is") if isinstance(found, data.IdxError) else found.ndim == content[3]


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda raw: b"", "begins with nothing"),
        (lambda raw: b"\x89PNG" + raw, "89 50 4e 47"),
        (lambda raw: raw[:6], "header of 16 bytes"),
        (lambda raw: raw[:-1], "cut off"),
        (lambda raw: raw + b"\0", "longer than its header says"),
        (lambda raw: gzip.compress(raw)[:-9], "damaged gzip"),
        (lambda raw: gzip.compress(raw)[:-8] + bytes(8), "damaged gzip"),
        (lambda raw: gzip.compress(raw)[:10] + b"\xff" * 20, "damaged gzip"),
    ],
)
def test_a_damaged_file_is_named_with_what_is_wrong(tmp_path: Path, damage, expected: str) -> None:
    path = tmp_path / "some.idx"
    path.write_bytes(damage(idx_bytes(np.arange(12, dtype=np.uint8).reshape(2, 3, 2))))
    with pytest.raises(data.IdxError, match=expected) as caught:
        data.read_idx(path)
    assert str(path) in str(caught.value)


def test_a_compressed_file_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "some.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.arange(6, dtype=np.int32))))
    np.testing.assert_array_equal(data.read_idx(path), np.arange(6))


def test_the_bundled_files_are_the_canonical_mnist() -> None:
    for name, md5 in CANONICAL.items():
        with gzip.open(digits.FOLDER / f"{name}.gz") as file:
            assert hashlib.md5(file.read()).hexdigest() == md5


def test_mnist_has_its_published_counts_and_moments() -> None:
    both = data.mnist()
    images, labels = both.train.arrays
    assert (images.shape, images.dtype, labels.dtype) == ((60_000, 28, 28), np.uint8, np.int64)
    assert np.bincount(labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert (round(images.mean() / 255, 4), round(images.std() / 255, 4)) == (0.1307, 0.3081)
    assert np.bincount(both.test.arrays[1]).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert len(data.mnist("test")) == len(both.test) == 10_000


def test_another_split_lists_the_two(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'train' and 'test'.*'valid'"):
        data.mnist("valid")  # type: ignore[call-overload]


def test_a_file_missing_or_swapped_in_the_package_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits, "FOLDER", tmp_path)
    with pytest.raises(FileNotFoundError, match="t10k-images"):
        data.mnist("test")
    for kind in ("images-idx3", "labels-idx1"):
        (tmp_path / f"t10k-{kind}-ubyte.gz").write_bytes(gzip.compress(idx_bytes(np.zeros(3, np.uint8))))
    with pytest.raises(data.IdxError, match=r"\(10000, 28, 28\)"):
        data.mnist("test")
