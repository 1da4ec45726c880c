"""No compiled step may grow unnoticed: its counts are held against counts.json, which one command writes anew.

python -m retrograd.benchmarks.counts tests/counts.json
"""

import json
from pathlib import Path

import pytest
from retrograd.benchmarks import counts

KEPT = json.loads((Path(__file__).parent / "counts.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("tier", "name"), [(tier, name) for tier, names in counts.TIERS.items() for name in names])
def test_a_compiled_step_has_not_grown(tier, name):
    if tier == "jit":
        pytest.importorskip("numba")
    found = counts.count(name, tier)
    assert min(found["steps"], found["instructions"], found["buffers"], found["python calls"]) > 0
    more = counts.grown(found, KEPT[tier][name])
    assert not more, f"{name}, {tier}: {'; '.join(more)}. If that is meant: {counts.REFRESH}"


def test_counts_are_the_same_each_time():
    name = next(iter(counts.COUNTED))
    assert counts.count(name, "array") == counts.count(name, "array")


def test_what_grows_is_noticed_and_what_shrinks_is_not():
    kept = {"steps": 10, "allocated bytes": 1000}
    assert counts.grown({"steps": 9, "allocated bytes": 1050}, kept) == []
    assert counts.grown({"steps": 11, "allocated bytes": 1101}, kept) == [
        "steps: 11, was 10",
        "allocated bytes: 1,101, was 1,000",
    ]
    assert counts.grown({"new": 1}, kept) == ["new: 1, was 0"]


def test_a_call_more_is_counted():
    def one():
        return len("a")

    def two():
        return one() + len("b")

    assert counts.python_calls(two) == counts.python_calls(one) + 2
    assert counts.allocated(lambda: bytearray(100_000)) > counts.allocated(one) + 90_000


def test_the_file_holds_what_is_counted():
    assert {tier: tuple(found) for tier, found in KEPT.items()} == counts.TIERS


@pytest.mark.parametrize("arguments", [[], ["--help"], ["one.json", "two.json"]])
def test_the_command_says_what_it_takes(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"usage: python -m retrograd.benchmarks.counts tests/counts\.json"):
        counts.main(arguments)
    assert not list(tmp_path.iterdir())
