"""A file that is there whole or not at all: written under another name, put on the disk, renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A new file to write bytes into, which takes the place of `path` when the block ends.

    Where the block or the file system raises, nothing is left of it, and the old file, if any, is untouched.

    Raises OSError where the file system refuses, or has no room: it names `path`, not the file beside it.

    Example:
        >>> import os, tempfile
        >>> from pathlib import Path
        >>> from retrograd.backends.whole_files import whole_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with whole_file(f"{folder}/a") as file:
        ...         _ = file.write(b"all of it")
        ...     os.listdir(folder), Path(folder, "a").read_bytes()
        (['a'], b'all of it')
    """
    # Through a symbolic link, or the link itself would be replaced by a file.
    target = os.path.realpath(os.fspath(path))
    temporary = os.path.join(os.path.dirname(target), f".{os.getpid()}-{os.urandom(6).hex()}.tmp")
    try:
        # Not tempfile: it makes files that only the owner may read, whatever the umask says.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        # A full disk names no file, and all else one that is gone by now.
        if error.errno is None or error.filename not in (None, temporary):
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None
