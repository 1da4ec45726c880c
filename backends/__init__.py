"""Array backends: what an array library must offer, the shipped ones, and choosing one."""

from .base import Backend
from .errors import BackendError
from .registry import (
    BACKEND_BY_TYPE,
    backend_of,
    default_backend,
    discover,
    get_backend,
    register,
    set_default_backend,
)
from .tiers import TIERS, kernel_tier

__all__ = [
    "BACKEND_BY_TYPE",
    "TIERS",
    "Backend",
    "BackendError",
    "backend_of",
    "default_backend",
    "discover",
    "get_backend",
    "kernel_tier",
    "register",
    "set_default_backend",
]
