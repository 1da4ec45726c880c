"""Checks for others to use: is this array library a backend, is this operation right?"""

from .backend_conformance import ConformanceError, backend_checks, check_backend, run_checks

__all__ = ["ConformanceError", "backend_checks", "check_backend", "run_checks"]
