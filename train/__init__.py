"""Above the layers: what a training run needs."""

from . import metrics

__all__ = ["metrics"]
