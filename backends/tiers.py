"""How fast a kernel may be: the four tiers, and the one variable that sets the highest of them.

`reference`: a record's forward as written. `array`: hand-written rules and prebound calls of the array library.
`jit`: generated kernels. `vendor`: libraries of the processor's maker. Each is tested against the one before it.
"""

from __future__ import annotations

import os

from .base import Backend
from .errors import BackendError

TIERS = ("reference", "array", "jit", "vendor")


def kernel_tier(backend: Backend | None = None) -> str:
    """The highest tier allowed: RETROGRAD_KERNELS (default `vendor`, the best installed), or less if `backend` says so.

    The variable is read at each call. Raises BackendError if it is not the name of a tier.

    Example:
        >>> from retrograd.backends import kernel_tier
        >>> kernel_tier() in ("reference", "array", "jit", "vendor")
        True
    """
    asked = os.environ.get("RETROGRAD_KERNELS") or TIERS[-1]
    if asked not in TIERS:
        raise BackendError(f"RETROGRAD_KERNELS={asked!r} is not a kernel tier: set it to one of {', '.join(TIERS)}")
    highest = TIERS[-1] if backend is None else backend.highest_tier
    return min(asked, highest, key=TIERS.index)
