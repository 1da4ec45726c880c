"""Writing a safetensors file is atomic: on a full disk, after a failure or a refusal, the old file is what is there."""

import errno
import os

import numpy as np
import pytest
from retrograd.autograd_core import safetensors
from retrograd.autograd_core.safetensors import SafetensorsError


class FullDisk:
    """A file that takes some bytes and then has no room, as a full disk does."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, data):
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.file.write(data)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def __getattr__(self, name):
        return getattr(self.file, name)


@pytest.mark.parametrize("room", [0, 200, 2000])
@pytest.mark.parametrize("old", [True, False])
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, room, old):
    path = tmp_path / "a.safetensors"
    if old:
        safetensors.write(path, {"old": np.ones(2)})
    before = path.read_bytes() if old else None
    fdopen = os.fdopen
    monkeypatch.setattr(os, "fdopen", lambda *args: FullDisk(fdopen(*args), room))
    with pytest.raises(OSError, match="No space left"):
        safetensors.write(path, {"a": np.ones(200), "b": np.ones(200)})
    monkeypatch.undo()
    assert sorted(os.listdir(tmp_path)) == ([path.name] if old else [])
    assert not old or path.read_bytes() == before


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken"), KeyboardInterrupt()])
def test_a_failure_at_the_end_leaves_the_old_file(tmp_path, monkeypatch, call, error):
    path = tmp_path / "a.safetensors"
    safetensors.write(path, {"old": np.ones(2)})
    before = path.read_bytes()

    def fail(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(type(error)):
            safetensors.write(path, {"new": np.ones(2)})
    assert os.listdir(tmp_path) == [path.name]
    assert path.read_bytes() == before


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
def test_a_disk_that_is_really_full(tmp_path, monkeypatch):
    real_open = os.open
    monkeypatch.setattr(
        os, "open", lambda path, flags, mode=0o777: real_open("/dev/full" if "tmp" in path[-4:] else path, os.O_WRONLY)
    )
    monkeypatch.setattr(os, "unlink", lambda path: None)
    with pytest.raises(OSError, match="No space left") as caught:
        safetensors.write(tmp_path / "a", {"a": np.ones(10)})
    assert caught.value.filename == str(tmp_path / "a")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("place", ["nowhere/a", "folder"])
def test_errors_name_the_file_that_was_asked_for(tmp_path, place):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=r"No such file|Is a directory") as caught:
        safetensors.write(tmp_path / place, {"a": np.ones(10)})
    assert caught.value.filename == str(tmp_path / place)
    assert os.listdir(tmp_path) == ["folder"]


def test_overwriting_keeps_links_and_open_readers(tmp_path):
    real, link = tmp_path / "real", tmp_path / "link"
    safetensors.write(real, {"a": np.ones(3)})
    link.symlink_to(real)
    with safetensors.open_file(link) as file:
        safetensors.write(link, {"a": np.zeros(3)})
        assert file.get("a").tolist() == [1, 1, 1]
    assert link.is_symlink()
    assert safetensors.read(real)[0]["a"].tolist() == [0, 0, 0]


def test_permissions_follow_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        safetensors.write(tmp_path / "a", {})
    finally:
        os.umask(old)
    assert os.stat(tmp_path / "a").st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("arrays", "metadata", "text"),
    [
        ({"a": np.ones(2, "c16")}, None, "complex128"),
        ({"a": np.array([{}])}, None, "object"),
        ({"a": np.array(["x"])}, None, "<U1"),
        ({"a": np.zeros(1, "M8[s]")}, None, "datetime64"),
        ({"a": [1.0]}, None, "came list"),
        ({1: np.ones(1)}, None, "came 1; rename"),
        ({"__metadata__": np.ones(1)}, None, "rename"),
        ({"\ud800": np.ones(1)}, None, "rename"),
        ([np.ones(1)], None, "a dict of arrays, came list"),
        ({}, {"epoch": 3}, "'epoch': 3; turn both into str"),
        ({}, {"\ud800": ""}, "text to text"),
        ({}, ["a"], "text to text"),
        ({}, {"long": "x" * (safetensors.HEADER_LIMIT + 1)}, "at most 100000000 bytes"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is(tmp_path, arrays, metadata, text):
    with pytest.raises(SafetensorsError, match=r"^[^\n]+$") as caught:
        safetensors.write(tmp_path / "a", arrays, metadata)
    assert text in str(caught.value)
    assert str(tmp_path / "a") in str(caught.value)
    assert os.listdir(tmp_path) == []
