"""Above the layers: the training loop, what happens beside it, checkpoints that resume exactly, logs and metrics."""

from ..autograd_core.errors import CheckpointError
from . import logs, metrics
from .batches import supervised
from .callbacks import Callback, Checkpoints, EarlyStopping, Schedule
from .checkpoint import CheckpointWarning, find_checkpoint
from .history import History
from .trainer import Trainer

__all__ = [
    "Callback",
    "CheckpointError",
    "CheckpointWarning",
    "Checkpoints",
    "EarlyStopping",
    "History",
    "Schedule",
    "Trainer",
    "find_checkpoint",
    "logs",
    "metrics",
    "supervised",
]
