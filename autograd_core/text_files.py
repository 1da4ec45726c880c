"""Small text files beside the tensors, such as configurations and vocabularies: written whole or not at all."""

from __future__ import annotations

import json
import os
from typing import Any

from ..backends.whole_files import whole_file

Path = str | os.PathLike[str]


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically: afterwards the file is either the old one or complete.

    Raises OSError where the file system refuses; the old file, if any, is untouched then.
    """
    with whole_file(path) as file:
        file.write(text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically. Raises TypeError for what JSON cannot hold."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, line ends as they are.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: it is not UTF-8; says where.
    """
    with open(path, "rb") as file:
        content = file.read()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{os.fspath(path)}: expected UTF-8 text, but line {line} has the byte {content[error.start]:#04x} "
            "where none may be. Save the file as UTF-8."
        ) from None


def read_json(path: Path, kind: type = dict) -> Any:
    """The value in a JSON file, which must be of that kind. Raises as `read_text`, and ValueError for anything else."""
    text = read_text(path)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{os.fspath(path)}: expected JSON, but {error or 'it is nested too deep'}") from None
    if not isinstance(value, kind):
        names = {dict: "an object, {…}", list: "an array, […]"}
        raise ValueError(
            f"{os.fspath(path)}: expected {names.get(kind, kind.__name__)}, got a {type(value).__name__} in the JSON"
        )
    return value
