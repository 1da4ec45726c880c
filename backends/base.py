"""What an array library must offer to stand under retrograd.

A backend is one object per array library and device. Whatever NumPy and CuPy spell alike is called through its
namespace `xp`; the methods here are only for what they spell differently, or do not have at all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from . import blas, random

Array = Any
"""An array of some backend. Its type is `backend.array_type`, which the type checker cannot know."""


class Backend(ABC):
    """One array library on one device.

    A backend of your own subclasses this, sets `name`, `array_type` and `xp`, implements the abstract methods, and
    proves itself with `retrograd.testing.check_backend(backend)`. The other methods have defaults that are right for a
    library without device memory and without threads of its own.

    Attributes:
        name: what `get_backend` calls it, with the device where there are several: `"numpy"`, `"cupy:1"`.
        array_type: the exact type of its arrays. Operations find their backend by it.
        xp: the namespace of array functions, spelled as in NumPy (`xp.exp`, `xp.sum`, `xp.float32`).
        kernels: hot kernels that this backend does faster than the reference, by the name of the operation's record.
        highest_tier: the fastest tier of kernels that the backend may serve, whatever RETROGRAD_KERNELS allows.
        shares_array_type: True where other backends have the same array type (devices of one library); then
            `of_array` says which of them holds an array.

    Example:
        >>> from retrograd.backends import get_backend
        >>> backend = get_backend("numpy")
        >>> backend.xp.sqrt(backend.asarray([1.0, 4.0, 9.0]))
        array([1., 2., 3.])
    """

    name: str
    array_type: type
    xp: Any
    kernels: Mapping[str, Callable[..., Any]] = MappingProxyType({})
    highest_tier: str = "vendor"
    shares_array_type: bool = False

    def __repr__(self) -> str:
        return f"<retrograd backend {self.name!r}>"

    # -- conversion ----------------------------------------------------------------------------------------------------

    @abstractmethod
    def asarray(self, data: Any, dtype: Any = None, copy: bool | None = None) -> Array:
        """The one way in: an array of this backend from an ndarray, a list, a scalar or an array of its own.

        Args:
            data: numbers in any of those forms.
            dtype: the wanted dtype; by default that of the data, as NumPy reads it.
            copy: True always copies, None copies only where it must, False raises ValueError where it would have to.
        Raises:
            TypeError: the data is not numbers (objects, text, dates), or belongs to another backend.
            ValueError: a ragged list; or a copy is needed and `copy` is False.
        """

    @abstractmethod
    def to_numpy(self, array: Array) -> np.ndarray:
        """The one way out. On the CPU the same memory, from a device a copy; waits for the device."""

    def wrap(self, value: Any) -> Array:
        """A result of `xp` as an array: NumPy scalars (what NumPy's reductions give) become 0-d arrays."""
        return value if type(value) is self.array_type else self.asarray(value)

    def of_array(self, array: Array) -> Backend:
        """The backend that holds this array of `array_type`: this one, or its sister for another device."""
        return self

    # -- what array libraries spell differently ------------------------------------------------------------------------

    @abstractmethod
    def shares_memory(self, a: Array, b: Array) -> bool:
        """Whether two arrays have a byte in common. May say True where only their bounds overlap, never a false no."""

    @abstractmethod
    def scatter_add(self, target: Array, index: Any, value: Any) -> None:
        """`target[index] += value` in place, where an element named twice by `index` receives both values.

        Args:
            target: array that is changed.
            index: whatever `target[index]` accepts; arrays in it are this backend's.
            value: array or Python scalar that broadcasts to the shape of `target[index]`.
        """

    # -- generated kernels ---------------------------------------------------------------------------------------------

    def generates(self) -> bool:
        """Whether `build` can make kernels here and now: the tier `jit` is allowed, and what compiles is installed."""
        return False

    def build(self, descriptions: Sequence[Any]) -> dict[str, Callable[..., None] | None]:
        """Kernels of fused groups, by the key of their description: functions (first row, row behind the last,
        *arrays). None where there is no kernel; the array library then computes the group step by step.

        Args:
            descriptions: `backends.kernels.description.Description`s.
        """
        return dict.fromkeys([d.key for d in descriptions])

    def fuses(self) -> bool:
        """Whether a program's fused groups can be bound by `bind`; else its steps run one by one."""
        return False

    def bind(self, groups: Sequence[tuple[Any, int, Sequence[Array]]], scratch: Any) -> list[list[Any] | None]:
        """The calls, (function, arguments), that compute each group (description, rows, arrays); None where nothing
        can: its steps run one by one then. `scratch` lends memory."""
        return [None for _ in groups]

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """An array without values, for a program's own use."""
        return self.xp.empty(shape, dtype)

    # -- random numbers: functions of (key, counter), the same on every backend ----------------------------------------

    def bits(self, key: int, counter: int, n: int) -> Array:
        """n words of 64 random bits, (n,) uint64: those of `numpy.random.Philox(key=key, counter=counter)`."""
        return self.asarray(random.bits(key, counter, n))

    def uniform(self, key: int, counter: int, shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
        """Numbers in [0, 1) of a floating dtype: the same bits on every backend. See `backends.random.uniform`."""
        return self.asarray(random.uniform(key, counter, shape, dtype))

    def normal(self, key: int, counter: int, shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
        """Standard normal numbers: equal on every backend to 4 units in the last place of float64, then cast."""
        return self.asarray(random.normal(key, counter, shape, dtype))

    # -- the device ----------------------------------------------------------------------------------------------------

    def synchronize(self) -> None:  # noqa: B027 (doing nothing is right for most libraries)
        """Wait until everything that was asked of the device is done. Nothing to do where calls are synchronous."""

    def memory(self) -> dict[str, int]:
        """Bytes of the device's memory: `used` by arrays, `held` by the pool, `free`, `total`. {} where unknown."""
        return {}

    def empty_cache(self) -> None:  # noqa: B027 (likewise)
        """Give unused memory of the pool back to the device."""

    @property
    def num_threads(self) -> int:
        """How many CPU threads matrix products use; by default those of NumPy, which work on the host is done with."""
        return blas.num_threads()

    def set_num_threads(self, n: int) -> None:
        """Use n CPU threads for matrix products.

        Raises:
            ValueError: n is not a positive integer.
            BackendError: the library cannot be told.
        """
        blas.set_num_threads(n)

    def describe(self) -> dict[str, Any]:
        """Versions, device, BLAS and threads, in values that JSON can hold; for `retrograd doctor`."""
        return {"name": self.name, "array_type": f"{self.array_type.__module__}.{self.array_type.__qualname__}"}
