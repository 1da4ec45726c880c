"""The frame of the benchmarks, with peers of pure Python: rows, resuming, errors, and no process left behind."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from retrograd.backends import host_memory
from retrograd.benchmarks import adapters, begin, child, journal, measure, process, report, runs, suite
from retrograd.benchmarks.__main__ import main

PEERS = """
import itertools, os

WORKLOADS = {"short": {"loops": 10}, "long": {"loops": 1000}}
SMOKE = {"short": {"loops": 1}}
THREADS = 1
TOLERANCE = 1e-6

def data(size, rng):
    return {"x": rng.normal(size=4)}

def gemms(size):
    return [(2, 3, 4, "nt"), (3, 2, 4, "tn")]

def steps(size, arrays, wrong_at=None):
    values = (float(arrays["x"].sum()) + n + (n == wrong_at) for n in itertools.count())
    def step():
        for _ in range(size["loops"]):
            pass
        return next(values)
    return step

def noisy(size, arrays):
    os.write(1, b"a line that is no answer\\n")
    print("another")
    return steps(size, arrays)

def absent(size, arrays):
    import a_library_that_is_not_there

def broken(size, arrays):
    raise ValueError("no such thing")

def crashing(size, arrays):
    if size["loops"] > 10:
        return steps(size, arrays)
    os.write(2, b"something is badly wrong\\n")
    os._exit(3)

def hanging(size, arrays):
    file = os.environ.get("HANGING_PID_FILE")
    if file:
        with open(file + ".part", "w") as out:
            out.write(str(os.getpid()))
        os.rename(file + ".part", file)
    while True:
        pass

def mixing(size, arrays):
    import retrograd
    return steps(size, arrays)

PEERS = {
    "plain": steps, "other": steps, "noisy": noisy, "absent": absent, "broken": broken, "crashing": crashing,
    "hanging": hanging, "mixing": mixing, "wrong": lambda size, arrays: steps(size, arrays, wrong_at=3),
    "nan": lambda size, arrays: lambda: float("nan"),
}
"""

QUICK = measure.Protocol(pairs=3, block=0.002, product_block=0.001, calm=None)


@pytest.fixture
def peers(tmp_path, monkeypatch):
    """The suite is the file above; gives the list of processes that are started, which must all be gone at the end."""
    file = tmp_path / "fakes.py"
    file.write_text(PEERS)
    monkeypatch.setattr(suite, "FILES", (file,))
    started = []
    popen = subprocess.Popen

    def record(*args, **kwargs):
        started.append(popen(*args, **kwargs))
        return started[-1]

    monkeypatch.setattr(process.subprocess, "Popen", record)
    yield started
    for peer in started:
        assert peer.returncode is not None, "a process was left behind"


def rows_of(rivals, **options):
    said = []
    works = suite.load(options.pop("workloads", ()))
    rows = runs.timings(works, rivals, subjects=["plain"], protocol=QUICK, show=said.append, **options)
    return rows, "\n".join(said)


def test_a_row_holds_what_a_claim_needs(peers):
    rows, text = rows_of(["other", "noisy"])
    assert [(r["settings"]["workload"], r["settings"]["peer"], r["status"]) for r in rows] == [
        (workload, peer, "timed") for workload in ("short", "long") for peer in ("other", "noisy")
    ]
    for row in rows:
        assert len(row["ours"]) == len(row["theirs"]) == QUICK.pairs
        assert min(row["ours"] + row["theirs"]) > 0
        ratios = sorted(a / b for a, b in zip(row["ours"], row["theirs"], strict=True))
        assert row["ratio"]["median"] == pytest.approx(ratios[1])
        assert ratios[0] <= row["ratio"]["low"] <= row["ratio"]["median"] <= row["ratio"]["high"] <= ratios[-1]
        assert len(row["losses"]) == measure.STEPS_THAT_MUST_AGREE
        assert row["gemm"].keys() == {"ours", "theirs", "ratio"}
        assert row["settings"]["threads"] == 1
        assert row["settings"]["machine"]["processor"]
        assert row["libraries"]["ours"]["numpy"] == np.__version__
        assert f"| {row['ratio']['median']:.2f} " in text
    assert "geometric mean of plain against other" in text
    assert len(peers) == 6  # one process for each peer and workload: none finds the heap that another workload left


def test_the_rival_that_keeps_memory_keeps_as_much_as_we_do():
    kept = {"MALLOC_TRIM_THRESHOLD_": str(host_memory.KEPT), "MALLOC_MMAP_THRESHOLD_": str(host_memory.LARGEST)}
    assert adapters.ADAPTERS["torch-keeping"].environment == kept


def test_both_sides_take_turns_and_begin_in_turn():
    calls = []

    def side(name):
        def answer(warm, steps):
            calls.append((name, steps))
            return steps * {"a": 2.0, "b": 1.0}[name], 0.0

        return answer

    found = measure.alternate(side("a"), side("b"), measure.Protocol(pairs=4), block=100.0)
    calls = [c for c in calls if c[1] >= 50]
    assert "".join(name for name, _ in calls[-8:]) == "abbaabba"
    assert dict(calls[-8:]) == {"a": 50, "b": 100}
    assert found["ratio"] == {"median": 2.0, "low": 2.0, "high": 2.0}
    assert found["status"] == "timed"


@pytest.mark.parametrize(("disturbed", "status", "kept"), [(3, "timed", 4), (5, "disturbed", 8)])
def test_pairs_that_others_disturb_are_tried_again(disturbed, status, kept):
    """The rival is slow while it waits: a ratio over those pairs would flatter us."""
    blocks = iter(range(100))

    def theirs(warm, steps):
        n = next(blocks) - 1  # the first is for finding the number of steps
        return (100.0, 80.0) if 0 <= n < disturbed else (1.0, 0.01)

    found = measure.alternate(lambda warm, steps: (1.0, 0.02), theirs, measure.Protocol(pairs=4), block=1.0)
    assert found["status"] == status
    assert len(found["ours"]) == len(found["theirs"]) == kept
    assert (found["ratio"]["median"] == 1.0) == (status == "timed")
    assert (found["waited"] < 0.05) == (status == "timed")
    row = {"settings": {"a": 1}, **found}
    assert (journal.find([row], {"a": 1}) is None) == (status == "disturbed")


@pytest.mark.skipif(not os.path.exists("/proc/self/schedstat"), reason="the system does not count waiting")
def test_waiting_for_a_core_is_noticed():
    core = min(os.sched_getaffinity(0))
    program = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])})\nprint(flush=True)\nwhile True: pass"
    others = [subprocess.Popen([sys.executable, "-c", program, str(core)], stdout=subprocess.PIPE) for _ in range(3)]
    before = os.sched_getaffinity(0)
    try:
        for other in others:
            other.stdout.readline()
        os.sched_setaffinity(0, {core})
        seconds, waited = child.timed(lambda: sum(range(1000)), 0, 10_000)
    finally:
        os.sched_setaffinity(0, before)
        for other in others:
            other.kill()
            other.communicate()
    assert 0.1 * seconds < waited < seconds


@pytest.mark.parametrize(
    ("rival", "status", "reason"),
    [
        ("absent", "not installed", "absent: No module named 'a_library_that_is_not_there'"),
        ("broken", "failed", "broken: ValueError: no such thing (fakes.py:"),
        ("wrong", "disagreement", "step 4: plain has"),
        ("nan", "disagreement", "nan nan"),
        ("mixing", "failed", "its process has loaded retrograd too"),
        ("unheard-of", "not written", "fakes.py has no step for unheard-of"),
    ],
)
def test_what_cannot_be_timed_is_a_row_that_says_why(peers, rival, status, reason):
    rows, text = rows_of([rival, "other"], workloads=["short"])
    assert [row["status"] for row in rows] == [status, "timed"]
    assert reason in rows[0]["reason"]
    assert status in text
    assert "ours" not in rows[0]


def test_our_own_failure_is_a_row_too(peers):
    rows = runs.timings(suite.load(["short"]), ["other"], subjects=["absent"], protocol=QUICK, show=lambda _: None)
    assert rows[0]["status"] == "not installed"
    assert rows[0]["reason"].startswith("absent: ")


def test_a_peer_that_dies_is_started_again(peers):
    rows, _ = rows_of(["crashing"])
    assert [row["status"] for row in rows] == ["failed", "timed"]
    assert rows[0]["reason"] == "crashing: its process ended with code 3: something is badly wrong"
    assert len(peers) == 4


def test_numbers_that_are_not_finite_never_agree():
    for ours, theirs in ([[float("nan")]], [[float("nan")]]), ([[float("inf")]], [[float("inf")]]):
        with pytest.raises(measure.Disagreement, match="step 1"):
            measure.check_agreement(("a", "b"), ours, theirs, 1e-3)
    with pytest.raises(measure.Disagreement, match="step 2"):
        measure.check_agreement(("a", "b"), [[1.0], [1.0]], [[1.0], [1.0, 2.0]], 1e-3)
    measure.check_agreement(("a", "b"), [[1.0, 0.0]], [[1.0005, 1e-7]], 1e-3)


# --- beginning -------------------------------------------------------------------------------------------------------


def test_beginning_subtracts_the_steps_themselves():
    eager, compiled = {"seconds": [9.0] * 6}, {"seconds": [1.0, 2.0, 3.0, 0.5, 0.5, 0.5], "eager": 1.0}
    assert begin.first_replay(eager) == {}
    assert begin.first_replay(compiled) == {"first_replay": 3.0}


BEGINNER = """
import time
import numpy as np

WORKLOADS = {"growing": {"wait": 0.3}}
SMOKE = {"growing": {"wait": 0.0}}
THREADS, TOLERANCE = 1, 1e-6

def data(size, rng):
    return {"w": np.ones(1)}

def parameters(arrays):
    return arrays

def gemms(size):
    return []

def plain(size, arrays):
    kept, calls = [], []
    def step():
        calls.append(0)
        if size["wait"] and len(calls) == 1:
            time.sleep(size["wait"])
            kept.append(np.ones(4_000_000))
        return float(len(calls))
    return step

PEERS = {"autograd": plain, "jax": plain}
"""


def test_a_beginning_is_measured_in_a_fresh_process_and_kept(tmp_path, monkeypatch):
    for name in ("one", "two"):
        (tmp_path / f"{name}.py").write_text(BEGINNER.replace("growing", f"growing-{name}"))
    monkeypatch.setattr(suite, "FILES", (tmp_path / "one.py", tmp_path / "two.py"))
    file, said = tmp_path / "rows.jsonl", []
    for _ in range(2):
        rows = runs.beginnings(
            suite.load(["growing-one"]), ["autograd"], subjects=["jax"], threads=1, file=file, show=said.append
        )
    assert [row["settings"]["ours"] for row in rows] == ["autograd", "jax"]
    assert [row.get("reason") for row in rows] == [None, None]
    assert all(row["kept"] for row in rows)
    eager, compiles = rows
    assert "first_replay" not in eager["cold"]
    assert 0.3 <= compiles["cold"]["first_replay"] < 3
    if sys.platform == "linux":
        assert 30e6 < compiles["warm"]["bytes"] < 60e6
    assert len(file.read_text().splitlines()) == 2
    assert "growing-one" in said[-2]


# --- resuming --------------------------------------------------------------------------------------------------------


def test_what_is_there_is_not_timed_again(peers, tmp_path, monkeypatch):
    file = tmp_path / "new folder" / "results.json"
    first, _ = rows_of(["other"], workloads=["short"], file=file)
    before = len(peers)
    again, text = rows_of(["other"], workloads=["short"], file=file)
    assert len(peers) == before
    assert "kept" in text
    assert again == [json.loads(json.dumps(first[0])) | {"kept": True}]
    more, _ = rows_of(["other"], file=file)
    assert [row.get("kept", False) for row in more] == [True, False]
    assert len(file.read_text().splitlines()) == 2
    # Other settings are another result: the code, the number of threads, the protocol.
    monkeypatch.setattr(journal, "source", lambda: "changed")
    other, _ = rows_of(["other"], workloads=["short"], file=file)
    assert "kept" not in other[0]


def test_a_row_that_failed_is_tried_again(peers, tmp_path):
    file = tmp_path / "results.json"
    rows_of(["wrong"], workloads=["short"], file=file)
    before = len(peers)
    again, _ = rows_of(["wrong"], workloads=["short"], file=file)
    assert len(peers) > before
    assert "kept" not in again[0]


def test_a_line_that_was_cut_off_is_dropped(tmp_path):
    file = tmp_path / "results.json"
    journal.append(file, {"settings": {"a": 1}, "status": "timed"})
    whole = file.read_bytes()
    file.write_bytes(whole + whole[:20])
    assert journal.find(journal.read(file), {"a": 1})
    journal.append(file, {"settings": {"a": 2}, "status": "timed"})
    assert [row["settings"]["a"] for row in journal.read(file)] == [1, 2]


@pytest.mark.parametrize("content", ["[1, 2]\n", "{}\n", "hello\n", '{"settings": 1}\nhello\n{"settings": 1}\n'])
def test_a_file_of_something_else_is_refused_and_kept(tmp_path, content, capsys):
    file = tmp_path / "other.json"
    file.write_text(content)
    assert main(["--smoke", "--workload", "ops-add", "--json", str(file)]) == 2
    assert f"error: {file}, line" in capsys.readouterr().err
    assert file.read_text() == content


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_started(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setattr(runs, "timings", None)
    for path in (tmp_path / "file" / "rows.jsonl", tmp_path):
        assert main(["--smoke", "--workload", "ops-add", "--json", str(path)]) == 2
        assert f"{path if path == tmp_path else path.parent}" in capsys.readouterr().err


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_reports_disagreement_by_its_exit_code(peers, monkeypatch, capsys):
    for name in ("wrong", "other"):
        monkeypatch.setitem(adapters.ADAPTERS, name, adapters.PLAIN)
    small = ["--workload", "short", "--smoke"]
    assert main([*small, "--peer", "wrong"], ["plain"]) == 1
    assert "disagreement: step 4" in capsys.readouterr().out
    assert main([*small, "--peer", "other"], ["plain"]) == 0
    assert "| short " in capsys.readouterr().out


def test_an_unknown_workload_is_refused_by_name(capsys):
    assert main(["--workload", "ops-sinc"]) == 2
    message = capsys.readouterr().err
    assert "ops-sinc" in message
    assert "ops-chain" in message
    for wrong in (["--pairs", "0"], ["--threads", "-1"], ["--peer", "nobody"]):
        with pytest.raises(SystemExit):
            main(wrong)


# --- processes -------------------------------------------------------------------------------------------------------


def gone(pid):
    """Whether a process ends within a while: not there, or a zombie that nobody has fetched yet."""
    for _ in range(1000):
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rsplit(")", 1)[1].split()[0] == "Z":
                    return True
        except FileNotFoundError:
            return True
        time.sleep(0.02)
    return False


needs_proc = pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs /proc")


@needs_proc
def test_a_peer_sleeps_between_requests_and_can_be_ended_asleep(tmp_path):
    with process.peers() as living:
        peer = living.get("plain", 2)
        assert peer.ask("facts")["numpy"] == np.__version__
        for _ in range(1000):
            with open(f"/proc/{peer.pid}/stat") as file:
                state = file.read().rsplit(")", 1)[1].split()[0]
            if state == "T":
                break
            time.sleep(0.01)
        assert state == "T"
        assert living.get("plain", 2) is peer
        assert living.get("plain", 1) is not peer
        with pytest.raises(process.PeerError, match="has no attribute 'dance'"):
            peer.ask("dance")
        assert peer.ask("facts")
    assert not peer.alive
    peer.end()


def test_every_library_gets_the_same_threads(peers):
    rows, _ = rows_of(["other"], workloads=["short"], threads=7)
    assert rows[0]["settings"]["threads"] == 1  # the workload's own number wins
    assert pytest.importorskip("threadpoolctl")
    assert rows[0]["libraries"]["ours"]["threads"] == rows[0]["libraries"]["peer"]["threads"] == 1


def test_a_peer_that_hangs_is_given_up(peers, tmp_path):
    with process.peers(patience=1.0) as living:
        peer = living.get("hanging", 1)
        np.savez(tmp_path / "data.npz", x=np.ones(2))
        work = suite.load(["short"])[0]
        with pytest.raises(process.PeerError, match="no answer for 1 s"):
            peer.ask("prepare", file=str(work.file), size=work.size, data=str(tmp_path / "data.npz"), steps=1)
        assert not peer.alive
        assert living.get("hanging", 1) is not peer


PARENT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts jobs in the background without it
from pathlib import Path
from retrograd.benchmarks import adapters, suite
from retrograd.benchmarks.__main__ import main
suite.FILES = (Path(sys.argv[1]),)
adapters.ADAPTERS["hanging"] = adapters.PLAIN
sys.exit(main(["--workload", "short", "--peer", "hanging"], ["plain"]))
"""


@needs_proc
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_an_interrupted_run(tmp_path, how):
    (tmp_path / "fakes.py").write_text(PEERS)
    pid_file = tmp_path / "pid"
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "fakes.py")],
        env=os.environ | {"HANGING_PID_FILE": str(pid_file)},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    try:
        while not pid_file.exists():
            assert parent.poll() is None, parent.stderr.read()
            time.sleep(0.02)
        # One child hangs, the other one (ours) is asleep: both have the parent's number as theirs.
        children = children_of(parent.pid)
        assert int(pid_file.read_text()) in children
        assert len(children) == 2
        parent.send_signal(how)
        code = parent.wait(60)
    finally:
        parent.kill()
        parent.wait()
    message = parent.stderr.read().decode()
    parent.stderr.close()
    assert code == (130 if how == signal.SIGINT else -signal.SIGKILL), message
    assert how != signal.SIGINT or message == "interrupted; nothing is kept\n"
    if sys.platform == "linux" or how == signal.SIGINT:
        assert all(gone(pid) for pid in children)


def children_of(pid):
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                if int(file.read().rsplit(")", 1)[1].split()[1]) == pid:
                    found.append(int(name))
        except OSError:
            continue
    return found


# --- tables ----------------------------------------------------------------------------------------------------------


def test_the_share_of_the_ceiling_counts_products_and_the_optimizers_traffic():
    work = suite.load(["mlp-784-128-10"], smoke=True)[0]._replace(products=[(100, 100, 50, "nn")], weights=1000)
    found = {"gemm": {"ours": 1.0, "theirs": 2.0}, "ours": [2e-3], "theirs": [4e-3]}
    share = measure.ceiling(work, found, bandwidth=28e6)
    assert share["seconds"] == pytest.approx(0.5e-3 + 1e-3)  # a million operations at 2 GFLOP/s, 28 kB at 28 MB/s
    assert share["ours"] == pytest.approx(0.75)
    assert share["theirs"] == pytest.approx(0.375)


def test_a_reason_cannot_break_the_table():
    row = {"settings": {"workload": "w", "ours": "o", "peer": "p", "threads": 1}, "status": "failed", "reason": "a|b"}
    assert report.line(row).count("|") == 6
    assert report.beginning_line(row, None).count("|") == 5
