"""Fixtures that the whole suite shares."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_folder() -> Callable[[str], Path]:
    """`data_folder("text/names.txt")` is the path of a data set below RETROGRAD_DATA; skips where it is not there."""
    root = os.environ.get("RETROGRAD_DATA")

    def find(name: str) -> Path:
        if not root:
            pytest.skip(f"{name}: RETROGRAD_DATA names no folder with data sets")
        path = Path(root).expanduser().resolve() / name
        if not path.exists():
            pytest.skip(f"{name} is not in RETROGRAD_DATA ({root})")
        return path

    return find
