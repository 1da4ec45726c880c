"""A function whose calls are all replays of compiled programs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from ..autograd_core.errors import users_level
from ..autograd_core.recorder import RecordingError


class Replayed:
    """`function`, compiled; where it cannot be, one warning, and eager calls from then on.

    `prepare` makes the program of a new signature without a trace, before the call that needs it. So no call is an
    eager one that is only recorded, and a process that starts in the middle of a run, whose programs are all still to
    be made, computes the same bits.
    """

    def __init__(self, function: Callable[..., Any], compile: bool = True) -> None:
        self.function = self.run = function
        self._prepare: Callable[..., None] | None = None
        if compile:
            from ..autograd_core.compile import compile as compiled

            self.run = compiled(function)
            self._prepare = self.run.prepare

    def __call__(self, *args: Any) -> Any:
        if self._prepare is not None:
            try:
                self._prepare(*args)
            except RecordingError as error:
                if self.run.programs:  # type: ignore[attr-defined]
                    # Some steps were replays. Eager ones from here on would not be those of a resumed run.
                    raise RecordingError(f"{error} Or train with compile=False.") from None
                self.run, self._prepare = self.function, None
                warnings.warn(
                    f"steps run eagerly, compile refused them: {error}", UserWarning, stacklevel=users_level()
                )
        return self.run(*args)
