"""Build the sdist, the wheel from it, and hold both against the tree.

    python .ci/check_build.py FOLDER
"""

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
WHEEL_LIMIT = 13e6
WHEEL_HOLDS = ["py.typed", "__init__.pyi", "autograd_core/tensor.pyi", "data/mnist/LICENSE.txt"]
WHEEL_HOLDS += ["data/mnist/train-images-idx3-ubyte.gz"]
SDIST_HOLDS = ["conftest.py", "tests/conftest.py", "docs/how_it_works.md", ".ci/run", "README.zh-CN.md"]


def sources() -> set[str]:
    """Where the tree's modules must stand in the wheel."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    folders = project["tool"]["setuptools"]["package-dir"]
    return {
        f"{package.replace('.', '/')}/{path.name}"
        for package, folder in folders.items()
        for path in (CHECKOUT / folder).glob("*.py")
    }


def troubles(wheel: Path, sdist: Path) -> list[str]:
    """What is wrong with the two files."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        licences = [n for n in names if ".dist-info/licenses/" in n]
    with tarfile.open(sdist) as archive:
        packed = {n.partition("/")[2] for n in archive.getnames()}
    modules = {n for n in names if n.endswith(".py")}
    found = [f"the wheel lacks {n}" for n in sorted(sources() - modules)]
    found += [f"the wheel holds {n}, which the tree does not" for n in sorted(modules - sources())]
    found += [f"the wheel lacks {n}" for n in WHEEL_HOLDS if f"retrograd/{n}" not in names]
    found += [f"the wheel holds {n}" for n in sorted(names) if n.split("/")[0] not in ("retrograd", wheel_info(wheel))]
    found += [f"the sdist lacks {n}" for n in SDIST_HOLDS if n not in packed]
    found += [f"the sdist holds {n}" for n in sorted(packed) if n.endswith(".pyc") or n.startswith((".venv", "build/"))]
    if len(licences) < 3:
        found.append(f"the wheel holds {len(licences)} licence files, expected MIT, CC-BY-SA-3.0 and that of MNIST")
    if wheel.stat().st_size > WHEEL_LIMIT:
        found.append(f"the wheel is larger than {WHEEL_LIMIT / 1e6:.0f} MB")
    return found


def wheel_info(wheel: Path) -> str:
    """Name of the metadata folder in it."""
    return "-".join(wheel.name.split("-")[:2]) + ".dist-info"


def main(folder: str) -> int:
    """Build, check, and return the exit code."""
    command = [sys.executable, "-m", "build", "--outdir", folder, str(CHECKOUT)]
    built = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if built.returncode:
        print(built.stdout)
        return 1
    (wheel,), (sdist,) = Path(folder).glob("*.whl"), Path(folder).glob("*.tar.gz")
    for path in (sdist, wheel):
        print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")
    found = troubles(wheel, sdist)
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
