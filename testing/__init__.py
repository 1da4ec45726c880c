"""Checks for others to use: is this array library a backend, is this gradient or this operation right?"""

from .backend_conformance import ConformanceError, backend_checks, check_backend, run_checks
from .gradcheck import GradientError, check_gradient, check_second_order
from .record_case import RecordError
from .records import check_record

__all__ = [
    "ConformanceError",
    "GradientError",
    "RecordError",
    "backend_checks",
    "check_backend",
    "check_gradient",
    "check_record",
    "check_second_order",
    "run_checks",
]
