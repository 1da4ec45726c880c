"""Check the types of the installed package, and of a user's program, with pyright and the settings of pyproject.toml.

    python .ci/check_types.py

Optional libraries need not be there: that one of them is not found is no error, that one of our modules is not is one.
"""

import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
PROGRAMS = [CHECKOUT / ".ci" / name for name in ("typed_user.py", "stubs.py")]  # what they import is the installed one
OPTIONAL = {"cupy", "cupy_backends", "cupyx"}  # the extras cuda12, cuda13
OPTIONAL |= {"autograd", "llvmlite", "matplotlib", "ml_dtypes", "numba", "scipy", "sklearn"}
OPTIONAL |= {"threadpoolctl", "torch", "tqdm"}


def configure(site: Path) -> None:
    """Write the configuration into the folder of the installed package: there its imports are what users see."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    include = ["retrograd", *[os.path.relpath(program, site) for program in PROGRAMS]]
    # Without `exclude` pyright leaves out what lies in a virtual environment, which is where the package is installed.
    settings = project["tool"]["pyright"] | {"include": include, "exclude": ["**/__pycache__"]}
    (site / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")


def is_about_an_optional_library(finding: dict) -> bool:
    """Whether pyright says only that a library of OPTIONAL is not installed."""
    missing = re.match(r'Import "([^".]+)', finding["message"])
    return finding.get("rule") == "reportMissingImports" and missing is not None and missing[1] in OPTIONAL


def main() -> int:
    """Print what pyright finds, a line each, and return the exit code."""
    site = Path(sysconfig.get_path("purelib"))
    configure(site)
    command = [sys.executable, "-m", "pyright", "--project", str(site), "--pythonpath", sys.executable, "--outputjson"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        report = json.loads(done.stdout)
    except json.JSONDecodeError:
        print(done.stdout, done.stderr)
        return 1
    found = [f for f in report["generalDiagnostics"] if not is_about_an_optional_library(f)]
    for finding in found:
        line = finding["range"]["start"]["line"] + 1
        message = " ".join(finding["message"].split())
        print(f"{os.path.relpath(finding['file'], site)}:{line}: {finding.get('rule', 'error')}: {message}")
    analysed = report["summary"]["filesAnalyzed"]
    print(f"pyright {report['version']}: {analysed} files, {len(found)} findings")
    return 1 if found or not analysed else 0


if __name__ == "__main__":
    sys.exit(main())
