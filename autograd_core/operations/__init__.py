"""The operations, one file per family. Importing this package defines them all."""

from . import (  # noqa: F401
    activation,
    arithmetic,
    comparison,
    contraction,
    creation,
    exponential,
    familiar,
    indexing,
    joining,
    loss,
    movement,
    random,
    reduction,
    softmax,
    trigonometric,
)
