"""JSON Lines: a table of which every line is an object, {"text": "dull", "label": 0}, and every field a column."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

ENDING = ".jsonl"
KINDS: dict[type, str] = {str: "a text", int: "a whole number", bool: "true or false"}  # what a cell may be
HALF = re.compile("[\ud800-\udfff]")  # of a character: JSON can spell it where a text was cut, UTF-8 cannot


def json_columns(text: str, columns: Sequence[str], name: str) -> dict[str, list[str]]:
    """Named fields of the objects in a text, one in each line that is not empty: name → one text per object.

    Whole numbers, true and false become texts too, as they are written.

    Args:
        name: of the file, for errors.
    Raises:
        ValueError: a line that is no object, a field that is missing, that holds something else, or another kind of
            value than in the line before it; no line at all. Says where.

    Example:
        >>> from retrograd.data.json_lines import json_columns
        >>> json_columns('{"text": "dull", "stars": 1}\\n{"text": "good", "stars": 5}\\n', ["stars"], "reviews.jsonl")
        {'stars': ['1', '5']}
    """
    found: dict[str, list[str]] = {column: [] for column in columns}
    kinds: dict[str, type] = {}
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines: a text may hold what it takes for line ends
        if not line.strip():
            continue
        where = f"{name}: line {number}"
        row = _object(line, where)
        for column in columns:
            if column not in row:
                raise ValueError(f"{where} has no field {column!r}. Its fields are {', '.join(map(repr, row))}")
            kind = type(row[column])
            if kind not in KINDS:
                raise ValueError(
                    f"{where}: expected {', '.join(KINDS.values())} in the field {column!r}, "
                    f"got {json.dumps(row[column]):.60}"
                )
            if kinds.setdefault(column, kind) is not kind:
                raise ValueError(
                    f"{where} has {KINDS[kind]} in the field {column!r}, the lines before it {KINDS[kinds[column]]}"
                )
            cell = row[column] if kind is str else json.dumps(row[column])
            if HALF.search(cell):
                raise ValueError(f"{where} has half a character (a surrogate alone) in the field {column!r}")
            found[column].append(cell)
    if not all(found.values()):
        raise ValueError(f"{name} has no rows: expected one object per line, with the fields {', '.join(columns)}")
    return found


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is no JSON: {error or 'it is nested too deep'}") from None
    if not isinstance(row, dict):
        raise ValueError(f"{where}: expected an object, {{…}}, with a field for each column, got {line.strip():.60}")
    return row
