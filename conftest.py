"""What holds for every test run: one BLAS thread, the installed package, its own kernel cache, hypothesis without luck,
and a processor that computes correctly.

The suite runs on whatever RETROGRAD_BACKEND names (`numpy` if it is not set), so no test names a backend unless it is
about that backend.
"""

import getpass
import os
import sys
import tempfile
import time
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Workers share the cores. Set before anything imports NumPy, and inherited by the workers.
for _name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ.setdefault(_name, "1")

# Generated kernels are shared by the workers of a run and by runs, but kept out of the user's own cache.
os.environ.setdefault("RETROGRAD_CACHE", str(Path(tempfile.gettempdir(), f"retrograd-tests-{getpass.getuser()}")))

# No deadline and no check of speed: a slow machine is not a failure. `ci` draws the same examples at every run.
_EVERYWHERE = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow], "print_blob": True}
settings.register_profile("ci", derandomize=True, database=None, **_EVERYWHERE)
settings.register_profile("random", **_EVERYWHERE)
settings.load_profile(os.environ.get("RETROGRAD_HYPOTHESIS", "ci"))

CHECKOUT = Path(__file__).resolve().parent


def pytest_configure(config: pytest.Config) -> None:
    """Stop before the first test if these are not the tests of the retrograd that is installed."""
    if not hasattr(config, "workerinput"):
        trouble = _trouble_with_installation()
        if trouble:
            pytest.exit(f"{trouble}. Install the checkout first: python -m pip install -e '.[test]'", returncode=4)


def pytest_report_header() -> str:
    """One line on what is being tested."""
    import retrograd

    where = Path(retrograd.__file__).parent
    return f"retrograd: {where}, backend {os.environ.get('RETROGRAD_BACKEND', 'numpy')}"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave a core that divides wrongly (backends/arithmetic.py): there a test tells nothing about the code."""
    from retrograd.backends.arithmetic import faults

    for wait in (0, 1, 5, 20):
        wrong = faults()
        if not wrong:
            return
        cores = os.sched_getaffinity(0) if hasattr(os, "sched_setaffinity") else set()
        sys.stderr.write(f"this core computes {', '.join(wrong)} wrongly; looking for another before {item.nodeid}\n")
        for core in cores if len(cores) > 1 else ():
            os.sched_setaffinity(0, {core})
            if not faults():
                return
            os.sched_setaffinity(0, cores)
        time.sleep(wait)


def _trouble_with_installation() -> str | None:
    spec = find_spec("retrograd")
    if spec is None or spec.origin is None:
        return "retrograd is not installed here"
    installed = Path(spec.origin).parent
    if installed.is_relative_to(CHECKOUT):
        return None  # editable: the checkout is what is installed
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    for package, folder in project["tool"]["setuptools"]["package-dir"].items():
        for source in (CHECKOUT / folder).glob("*.py"):
            copy = installed.joinpath(*package.split(".")[1:], source.name)
            if not copy.is_file() or copy.read_bytes() != source.read_bytes():
                return f"{source.relative_to(CHECKOUT)} is not the file that is installed in {installed}"
    return None
