"""What a run has come to so far: a row of numbers at every report, in order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Row = dict[str, Any]
"""One report: column → number, or None where there was nothing to tell."""


class History:
    """The rows of a run. `history["val_loss"]` is a column without its gaps, `history.rows` all of it.

    Columns: `step` and `epoch` (both counted from 1), `loss` (mean training loss of the steps since the row before),
    `lr` (the rate of the last step), `grad_norm` (before clipping; only where gradients are clipped), `val_loss` and
    `val_<metric>` (where there was a validation), `seconds` (of training so far).

    Example:
        >>> from retrograd.train import History
        >>> history = History([{"step": 1, "loss": 0.5, "val_loss": None}, {"step": 2, "loss": 0.25, "val_loss": 0.3}])
        >>> history["loss"], history["val_loss"], history.best("loss")["step"]
        ([0.5, 0.25], [0.3], 2)
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]] = ()) -> None:
        self.rows: list[Row] = [dict(row) for row in rows]

    @property
    def columns(self) -> list[str]:
        """The names of all columns, in the order in which they came up."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def __getitem__(self, column: str) -> list[Any]:
        if column not in self.columns:
            raise KeyError(f"no row has {column!r}; there are {self.columns}")
        return [row[column] for row in self.rows if row.get(column) is not None]

    def best(self, column: str, mode: str | None = None) -> Row:
        """The row where a column is lowest or highest ("min", "max"; by default as its name says, see `better_is`)."""
        choose = {"min": min, "max": max}[mode or better_is(column)]
        return choose((row for row in self.rows if row.get(column) is not None), key=lambda row: row[column])

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __repr__(self) -> str:
        return f"<History: {len(self)} rows{': ' + line(self.rows[-1]) if self.rows else ''}>"


def better_is(column: str) -> str:
    """ "min" for losses and perplexities, "max" for everything else.

    >>> better_is("val_loss"), better_is("val_accuracy")
    ('min', 'max')
    """
    return "min" if column.endswith(("loss", "perplexity")) else "max"


def line(row: Mapping[str, Any]) -> str:
    """A row as one line for a reader.

    >>> line({"step": 30, "epoch": 1, "loss": 0.31234, "lr": 0.001, "val_loss": None, "seconds": 2.61})
    'step 30  epoch 1  loss 0.3123  lr 1.00e-03  seconds 2.6'
    """
    return "  ".join(f"{name} {_FORMATS.get(name, _number)(value)}" for name, value in row.items() if value is not None)


def _number(value: Any) -> str:
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.3e}"


_FORMATS = {"step": str, "epoch": str, "lr": "{:.2e}".format, "seconds": "{:.1f}".format}
