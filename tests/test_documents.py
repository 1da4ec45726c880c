"""Every Python snippet of the documents runs, in order, in one fresh interpreter per document; links lead somewhere.

A block fenced as `python` that begins with `>>>` is checked as a doctest; any other is executed. This file is also the
program that runs one document: python tests/test_documents.py docs/how_it_works.md
"""

import doctest
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
READMES = [CHECKOUT / "README.md", CHECKOUT / "README.zh-CN.md"]
DOCUMENTS = sorted([*CHECKOUT.glob("*.md"), *(CHECKOUT / "docs").rglob("*.md")])


def fences(text: str) -> list[tuple[str, int, str]]:
    """The fenced blocks of a Markdown text: (language, number of the first line inside, what is inside)."""
    found, start, language = [], None, ""
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        if line.startswith("```"):
            if start is None:
                start, language = number + 1, line[3:].strip()
            else:
                found.append((language, start, "\n".join(lines[start - 1 : number - 1]) + "\n"))
                start = None
    assert start is None, f"the block that begins at line {start} is not closed"
    return found


def python_blocks(path: Path) -> list[tuple[int, str]]:
    """(first line, code) of the Python blocks of a document."""
    return [(line, code) for language, line, code in fences(path.read_text(encoding="utf-8")) if language == "python"]


def run_document(path: Path) -> None:
    """Run its Python blocks in one namespace; raises what a block raises."""
    namespace = {"__name__": "__main__"}
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for line, code in python_blocks(path):
        if code.startswith(">>>"):
            test = doctest.DocTestParser().get_doctest(code, namespace, path.name, str(path), line - 1)
            failures, _ = runner.run(test, clear_globs=False)
            if failures:
                raise SystemExit(f"{path.name}: the block at line {line} does not show what it does")
            namespace = test.globs
        else:
            exec(compile("\n" * (line - 1) + code, str(path), "exec"), namespace)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.relative_to(CHECKOUT).as_posix())
def test_snippets_run(path: Path, tmp_path: Path):
    if not python_blocks(path):
        pytest.skip("holds no Python")
    if os.environ.get("RETROGRAD_BACKEND", "numpy") != "numpy":
        pytest.skip("documents show what NumPy gives")
    command = [sys.executable, "-X", "utf8", "-W", "error", __file__, str(path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, encoding="utf-8")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.relative_to(CHECKOUT).as_posix())
def test_links_lead_somewhere(path: Path):
    prose = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    targets = [t.partition("#")[0] for t in re.findall(r"\]\(([^)\s]+)\)", prose)]
    local = [t for t in targets if t and "://" not in t]
    assert [t for t in local if not (path.parent / t).exists()] == []


def test_readmes_begin_with_the_same_two_commands_of_one_line():
    first_two = [[code for _, _, code in fences(p.read_text(encoding="utf-8"))[:2]] for p in READMES]
    assert first_two[0] == first_two[1]
    main, tests = first_two[0]
    assert main.count("\n") == tests.count("\n") == 1
    assert "retrograd.examples.mnist" in main
    assert "pytest" in tests


def test_readmes_show_the_same_code():
    without_comments = [[re.sub(r"\s*#.*", "", code) for _, code in python_blocks(p)] for p in READMES]
    assert without_comments[0] == without_comments[1]


@pytest.mark.parametrize("readme", READMES, ids=lambda p: p.name)
def test_readme_says_which_folder_is_which_import_name(readme: Path):
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    text = readme.read_text(encoding="utf-8")
    for package, folder in project["tool"]["setuptools"]["package-dir"].items():
        if package.count(".") < 2:
            assert re.search(rf"^\| `{folder}/` \| `{package}` \|", text, re.MULTILINE), folder


if __name__ == "__main__":
    run_document(Path(sys.argv[1]))
