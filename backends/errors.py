"""The one error of choosing and using a backend."""


class BackendError(RuntimeError):
    """A backend that was asked for is unknown or cannot be used on this machine, or cannot do what it was told."""
