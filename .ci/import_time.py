"""What `import retrograd` adds to `import numpy`: seconds are printed, modules are counted and gated.

    python .ci/import_time.py
"""

import re
import subprocess
import sys

MOST_MODULES_OF_OTHERS = 25  # standard library and NumPy's own that `import numpy` had not loaded
RUNS = 7


def added_seconds() -> float:
    """Cumulative time of `import retrograd` after NumPy, by -X importtime."""
    code = "import numpy, retrograd"
    done = subprocess.run([sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, check=True)
    return int(re.search(r"\|\s*(\d+) \|\s*retrograd$", done.stderr, re.MULTILINE)[1]) / 1e6


def added_modules() -> list[str]:
    """Names of the modules that it adds."""
    code = "import numpy, sys; old = set(sys.modules); import retrograd; print(*sorted(set(sys.modules) - old))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def main() -> int:
    """Print both and return the exit code."""
    seconds = sorted(added_seconds() for _ in range(RUNS))
    modules = added_modules()
    others = [name for name in modules if name.split(".")[0] != "retrograd"]
    print(f"import retrograd adds {seconds[0]:.3f} s to import numpy (median of {RUNS}: {seconds[RUNS // 2]:.3f} s)")
    print(f"and {len(modules)} modules, {len(others)} of them not ours: {', '.join(others)}")
    if len(others) > MOST_MODULES_OF_OTHERS:
        print(f"that is more than {MOST_MODULES_OF_OTHERS}: import what is heavy where it is used")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
