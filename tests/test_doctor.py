"""`retrograd doctor`: a report that is true, readable and JSON, and an exit code that scripts can use."""

import json
import os
import sys

import numpy as np
import pytest
from retrograd.backends import arithmetic, discover, registry
from retrograd.backends import doctor as machine
from retrograd.testing import doctor


@pytest.fixture(autouse=True)
def _environment_of_its_own(monkeypatch):
    monkeypatch.setattr(registry, "_default", None)
    for name in machine.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(registry, "_made", {n: b for n, b in registry._made.items() if not n.startswith("cupy")})


def test_the_report_says_what_there_is():
    found = machine.report()
    assert found["numpy"]["version"] == np.__version__
    assert found["default_backend"] == "numpy"
    assert found["backends"].keys() == discover().keys()
    assert found["backends"]["cupy"] == {"usable": False, "reason": discover()["cupy"]}
    assert found["backends"]["strict"]["highest_tier"] == "array"
    assert found["packages"]["numba"] is None or found["packages"]["numba"][0].isdigit()
    assert json.loads(machine.as_json(found)) == found


def test_the_text_says_the_same_to_a_reader(capsys):
    assert doctor.main([]) == 0
    shown = capsys.readouterr().out
    assert f"NumPy        {np.__version__} with" in shown
    assert "  numpy      usable: device cpu" in shown
    assert "  cupy       not usable: CuPy is not installed; pip install" in shown
    assert "new arrays   numpy" in shown
    assert "none of the variables that retrograd looks at is set" in shown
    assert machine.text(machine.report()) == shown[: shown.index("operations\n")]


def test_operations_are_counted_by_tier(monkeypatch):
    from retrograd.autograd_core.record import REGISTRY

    served = doctor.report()["backends"]["numpy"]["operations"]
    assert sorted(name for names in served.values() for name in names) == sorted(REGISTRY)
    monkeypatch.setenv("RETROGRAD_KERNELS", "reference")
    assert doctor.report()["backends"]["numpy"]["operations"].keys() == {"reference"}


def test_json_on_the_screen_and_in_a_file(tmp_path, capsys):
    file = tmp_path / "report.json"
    assert doctor.main(["--json", "--out", str(file)]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(file.read_text())
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


def test_a_file_that_cannot_be_written_is_one_line_and_exit_code_1(tmp_path, capsys):
    assert doctor.main(["--out", str(tmp_path / "missing" / "report.json")]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("retrograd doctor: cannot write ")
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_a_folder_is_no_file_and_nothing_half_written_stays(tmp_path, capsys):
    target = tmp_path / "folder"
    target.mkdir()
    assert doctor.main(["--out", str(target)]) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize(("variable", "value"), [("RETROGRAD_BACKEND", "cupy"), ("RETROGRAD_KERNELS", "fastest")])
def test_asking_for_what_is_not_there_is_told_and_exit_code_1(variable, value, monkeypatch, capsys):
    monkeypatch.setenv(variable, value)
    assert doctor.main([]) == 1
    shown = capsys.readouterr().out
    assert f"not usable: {variable}={value!r}" in shown or f"not usable: {variable}={value}" in shown
    assert f"  {variable}={value}" in shown


@pytest.mark.parametrize("arguments", [["--gpu"], ["--gpu", "--backend", "strict"], ["--gpu", "--backend", "auto"]])
def test_without_a_gpu_the_examination_is_one_error(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert doctor.main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("retrograd doctor --gpu: ")
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert not list(tmp_path.iterdir())


def test_a_core_that_computes_wrongly_is_told(monkeypatch):
    cases = dict(arithmetic._cases())
    function, operands, out = cases["divide"]
    wrong = out.copy()
    wrong[2] *= 1 + 1e-11
    monkeypatch.setattr(arithmetic, "_cases", lambda: {**cases, "divide": (function, operands, wrong)})
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else {0}
    assert arithmetic.faults_by_core() == {core: ["divide"] for core in cores}
    found = machine.report()
    assert found["arithmetic"] == {str(core): ["divide"] for core in sorted(cores)}
    assert "computes divide wrongly" in machine.text(found)
