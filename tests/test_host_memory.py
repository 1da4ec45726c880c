"""Memory that arrays leave is kept for the next ones, until it is asked back; what the user set for it stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from retrograd.backends import host_memory

pytestmark = pytest.mark.skipif(
    host_memory._library() is None or not Path("/proc/self/statm").exists(), reason="about glibc on Linux"
)
PROGRAM = """
import numpy as np, retrograd as rg
from pathlib import Path

def held():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 >> 20

before = held()
arrays = [np.ones(1 << 20) for _ in range(25)]  # 200 MB
del arrays
after = held()
rg.get_backend("numpy").empty_cache()
print(after - before, held() - before)
"""


def held(tmp_path, **variables):
    """MB that a process holds after 200 MB were freed, and after they were asked back."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_") and k != "GLIBC_TUNABLES"}
    run = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(run, env=kept | variables, cwd=tmp_path, capture_output=True, text=True, check=True)
    return [int(n) for n in done.stdout.split()]


def test_freed_memory_is_kept_until_it_is_asked_back(tmp_path):
    kept, given = held(tmp_path)
    assert kept > 150
    assert given < 50


def test_the_users_settings_stay(tmp_path):
    kept, _ = held(tmp_path, MALLOC_TRIM_THRESHOLD_="131072", MALLOC_MMAP_THRESHOLD_="131072")
    assert kept < 50
