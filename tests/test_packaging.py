"""What is installed is what the tree holds: packages, metadata, the shape of the tree, the cost of an import."""

import ast
import importlib
import importlib.metadata
import importlib.resources
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = PROJECT["tool"]["setuptools"]["packages"]
FOLDERS = {name: CHECKOUT / path for name, path in PROJECT["tool"]["setuptools"]["package-dir"].items()}
ROOMS = {path.relative_to(CHECKOUT).parts[0] for path in FOLDERS.values()}
NOT_PACKAGED = {"tests", "docs", ".ci"}
# A module may be about one optional library and import it at its top; only what needs that library imports the module.
NEEDS = {"retrograd.backends.kernels.compiled": "numba"}


def python_files(*, packaged: bool) -> list[Path]:
    """Sources of the packages, or all others of the tree."""
    inside = {path for folder in FOLDERS.values() for path in folder.glob("*.py")}
    if packaged:
        return sorted(inside)
    found = set(CHECKOUT.glob("*.py"))
    for name in ROOMS | NOT_PACKAGED:
        found.update((CHECKOUT / name).rglob("*.py"))
    return sorted(found - inside)


MODULES = sorted(
    package if path.stem == "__init__" else f"{package}.{path.stem}"
    for package, folder in FOLDERS.items()
    for path in folder.glob("*.py")
    if path.stem != "__main__"
)


def run(code: str, *options: str) -> str:
    """What a fresh interpreter prints for `code`."""
    done = subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_packages_are_the_folders_with_an_init():
    inits = [path for room in ROOMS for path in (CHECKOUT / room).rglob("__init__.py")]
    assert set(FOLDERS.values()) == {path.parent for path in inits}
    assert sorted(PACKAGES) == sorted(FOLDERS)


def test_every_top_level_folder_is_mapped_or_known():
    folders = {p.name for p in CHECKOUT.iterdir() if p.is_dir() and any(p.glob("*.py"))}
    assert folders - NOT_PACKAGED == ROOMS


def test_the_root_holds_no_python_file_but_conftest():
    # An __init__.py would make pytest import the checkout as a second package; a folder retrograd would shadow ours.
    assert [p.name for p in CHECKOUT.glob("*.py")] == ["conftest.py"]
    assert not (CHECKOUT / "retrograd").exists()


def test_no_file_is_a_drawer():
    drawers = {"utils", "util", "helpers", "misc", "common"}
    found = [p.relative_to(CHECKOUT).as_posix() for p in [*python_files(packaged=True), *python_files(packaged=False)]]
    assert [p for p in found if Path(p).stem in drawers and p != "nn/utils.py"] == []


@pytest.mark.parametrize("module", MODULES)
def test_module_imports(module: str):
    if module in NEEDS:
        pytest.importorskip(NEEDS[module])
    importlib.import_module(module)


@pytest.mark.parametrize("path", python_files(packaged=True), ids=lambda p: p.relative_to(CHECKOUT).as_posix())
def test_imports_between_folders_are_relative(path: Path):
    """So the layers can be checked: `import retrograd` from below would load the whole face."""
    absolute = path.relative_to(CHECKOUT).parts[0] in {"api", "examples", "benchmarks"}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import) and not absolute:
            assert not any(a.name.split(".")[0] == "retrograd" for a in node.names), f"{path.name}:{node.lineno}"
        if isinstance(node, ast.ImportFrom) and not absolute:
            assert (node.module or "").split(".")[0] != "retrograd" or node.level, f"{path.name}:{node.lineno}"
        if isinstance(node, ast.ImportFrom) and path.parent.name == "api":
            assert not node.level or path.name == "__main__.py", f"{path.name}:{node.lineno}: absolute in api/"


def test_the_distribution_is_typed_and_carries_its_data():
    files = importlib.resources.files
    assert files("retrograd").joinpath("py.typed").is_file()
    for name in ("train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz", "LICENSE.txt"):
        assert files("retrograd.data").joinpath("mnist", name).is_file(), name


def test_metadata():
    found = importlib.metadata.metadata("retrograd")
    assert found["License-Expression"] == "MIT AND CC-BY-SA-3.0"
    assert found["Requires-Python"] == ">=3.11"
    required = [r for r in importlib.metadata.requires("retrograd") or [] if "extra ==" not in r]
    assert [re.split(r"[<>=~!\s]", r)[0] for r in required] == ["numpy"]
    assert {"LICENSE", "data/mnist/LICENSE.txt"} <= set(found.get_all("License-File") or [])
    script = next(iter(importlib.metadata.entry_points(group="console_scripts", name="retrograd")))
    assert script.value == "retrograd.__main__:main"
    assert callable(script.load())


def test_version_is_that_of_the_distribution():
    rg = importlib.import_module("retrograd")
    assert rg.__version__ == importlib.metadata.version("retrograd") == PROJECT["project"]["version"]


def test_import_loads_nothing_before_it_is_used():
    """Counts instead of seconds: what is heavy or has effects stays out until somebody asks for it."""
    added = run("import numpy, sys; old = set(sys.modules); import retrograd; print(*set(sys.modules) - old)").split()
    roots = {name.split(".")[0] for name in added}
    assert "retrograd" in roots
    heavy = {"asyncio", "concurrent", "http", "ssl", "subprocess", "multiprocessing", "unittest", "logging", "email"}
    heavy |= {"cupy", "numba", "torch", "scipy", "matplotlib", "tqdm", "hypothesis", "pytest"}
    assert sorted(roots & heavy) == []
    rooms = {f"retrograd.{name}" for name in ("testing", "benchmarks", "examples", "train", "__main__")}
    assert sorted(rooms & set(added)) == []


def test_import_warns_of_nothing_and_prints_nothing():
    assert run("import retrograd", "-W", "error", "-I") == ""
