"""Tensor: a thin handle on an array that may know how it was made.

The arithmetic is not written here. Every operation is a record (`record.py`), and registering one attaches its method
and operators to this class. What stands here is what a handle is: its array, its gradient, the node that made it, and
the ways in and out of the world of raw arrays.

For type checkers all members stand in `tensor.pyi`, which `.ci/stubs.py` writes. To them the class in this file is
another one, without the attached members: hence the `type: ignore` where it uses those or meets other modules.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np

from ..backends import BACKEND_BY_TYPE, Backend, backend_of, get_backend
from .context import current, current_backend
from .errors import one_frame
from .promotion import DEFAULT_FLOAT, is_float, scalar_kind

TENSOR_TYPES: set[type] = set()  # Tensor and its subclasses: dispatch tests by exact type, which costs a set lookup


class Tensor:
    """An n-dimensional array with a gradient.

    Attributes: `array` (the backend's raw array, for framework use), `grad` (a Tensor of the same shape or None),
    `requires_grad`, `node` (the graph node that made it; None makes it a *leaf*). Only leaves may be changed in place,
    and only under `no_grad` where they require gradients.

    Make one with `rg.tensor(data)` (copies) or `rg.asarray(array)` (shares memory).

    >>> import retrograd as rg
    >>> x = rg.tensor([1.0, 2.0, 3.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    tensor([2., 4., 6.])
    """

    __slots__ = ("__weakref__", "_hooks", "array", "cell", "grad", "node", "requires_grad")

    array: Any
    grad: Tensor | None
    requires_grad: bool
    node: Any  # graph.Node | None
    # [version of the memory, references to what `data` gave…], shared with views; None where a graph owns the memory
    cell: list[Any] | None
    _hooks: dict[int, Any] | None

    def __init__(self, array: Any, requires_grad: bool = False):
        if type(array) not in BACKEND_BY_TYPE:
            raise TypeError(
                f"Tensor expects a backend's array, got {type(array).__name__}. "
                "Use rg.tensor(data) to make one from data."
            )
        if requires_grad and not is_float(array.dtype):
            raise TypeError(_NOT_FLOAT.format(array.dtype))
        self.array = array
        self.grad = None
        self.requires_grad = requires_grad
        self.node = None
        self.cell = [0]
        self._hooks = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        TENSOR_TYPES.add(cls)

    # -- what it is -------------------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of every axis."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype:
        """The NumPy dtype of the elements."""
        return self.array.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.array.ndim

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.array.size

    @property
    def nbytes(self) -> int:
        """Bytes that the elements take."""
        return self.array.nbytes

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return self.array.dtype.itemsize

    @property
    def backend(self) -> Backend:
        """The backend that holds the array."""
        return backend_of(self.array)

    @property
    def is_leaf(self) -> bool:
        """Whether no operation of a graph made this tensor."""
        return self.node is None

    @property
    def T(self) -> Tensor:
        """The transpose: axes in reversed order."""
        return self.transpose()  # type: ignore[attr-defined]

    @property
    def mT(self) -> Tensor:
        """The transpose of the last two axes."""
        return self.swapaxes(-1, -2)  # type: ignore[attr-defined]

    @property
    def data(self) -> Tensor:
        """A detached tensor that shares memory and version.

        Assigning copies values into this tensor's memory. What `data` gave before keeps the old ones, in memory of its
        own, so that `kept = p.data; p.data = average; …; p.data = kept` puts back what was there, as in PyTorch.
        """
        handle = self.detach()
        if self.cell is not None:
            self.cell[1:] = [*(ref for ref in self.cell[1:] if ref() is not None), weakref.ref(handle)]
        return handle

    @data.setter
    @one_frame
    def data(self, value: Any) -> None:
        from .inplace import replace

        replace(self, value)  # type: ignore[arg-type]

    def __len__(self) -> int:
        if not self.array.ndim:
            raise TypeError("len() of a 0-d tensor: it has one element and no axis")
        return self.array.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))  # type: ignore[index]

    def __contains__(self, value: Any) -> bool:
        return bool((self == value).any())

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        body = np.array2string(backend_of(self.array).to_numpy(self.array), separator=", ", prefix="tensor(")
        dtype = "" if self.dtype in _SILENT_DTYPES else f", dtype={self.dtype}"
        backend = "" if self.backend.name == "numpy" else f", backend={self.backend.name!r}"
        grad = f", from {self.node.name}" if self.node else ", requires_grad=True" if self.requires_grad else ""
        return f"{type(self).__name__.lower()}({body}{dtype}{backend}{grad})"

    def __format__(self, spec: str) -> str:
        return format(self._one("format()"), spec) if spec else str(self)

    # -- out of the graph -------------------------------------------------------------------------------------------

    def numpy(self) -> np.ndarray:
        """The values as a read-only NumPy array: a view where the backend is NumPy. Gradients end here."""
        self._not_in_a_recording("numpy()")
        view = backend_of(self.array).to_numpy(self.array).view()
        view.flags.writeable = False
        return view

    def item(self) -> Any:
        """The one element as a Python number. A tensor of another size raises ValueError."""
        return self._one("item()")

    def tolist(self) -> Any:
        """The values as nested Python lists, a number for a 0-d tensor."""
        self._not_in_a_recording("tolist()")
        return backend_of(self.array).to_numpy(self.array).tolist()

    def detach(self) -> Tensor:
        """The same values in the same memory, outside the graph: no gradient flows through it.

        A detached leaf may be changed in place as the leaf may; a detached result may not, since its graph still needs
        the values.
        """
        recorder = current().recorder
        if recorder is not None and self.node is None:
            # A recording holds the leaf: the handle would not know that it got another array.
            recorder.number(self)  # type: ignore[arg-type]
        out = Tensor(self.array)
        out.cell = self.cell
        return out

    def _one(self, what: str) -> Any:
        self._not_in_a_recording(what)
        if self.array.size != 1:
            raise ValueError(
                f"{what} needs exactly one element, got a tensor of shape {self.shape}. Index or reduce it first."
            )
        return backend_of(self.array).to_numpy(self.array).item()

    def _not_in_a_recording(self, what: str) -> None:
        recorder = current().recorder
        if recorder is not None:
            recorder.refuse_read(what)

    def __bool__(self) -> bool:
        if self.array.size != 1:
            raise ValueError(
                f"the truth of a tensor of shape {self.shape} is ambiguous. "
                "Say which: (t != 0).any() or (t != 0).all()."
            )
        return bool(self._one("bool()"))

    def _number(self, name: str, convert: Callable) -> Any:
        if self.requires_grad:
            raise TypeError(
                f"{name} would drop the gradient of a tensor that requires one. Use .item() or .detach() to say so."
            )
        return convert(self._one(name))

    def __float__(self) -> float:
        return self._number("float()", float)

    def __int__(self) -> int:
        return self._number("int()", int)

    def __complex__(self) -> complex:
        return self._number("complex()", complex)

    def __index__(self) -> int:
        if self.dtype.kind not in "iu":
            raise TypeError(f"only integer tensors can be used as an index, got dtype {self.dtype}")
        what = "an index as a Python number (the end of a slice, of a range; x[i] takes the tensor itself)"
        return self._number(what, int)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if self.requires_grad:
            raise TypeError(
                "np.asarray of a tensor that requires grad would drop its gradient. Use .numpy() or .detach() to say "
                "so, or np.stack / rg.stack to join tensors into one."
            )
        self._not_in_a_recording("np.asarray")
        return np.array(self.numpy(), dtype=dtype, copy=copy)  # not writable unless copied: no version would tell

    def __dlpack__(self, **options: Any) -> Any:
        if self.requires_grad:
            raise TypeError("exporting a tensor that requires grad would drop its gradient. Use .detach() first.")
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()

    # -- the graph --------------------------------------------------------------------------------------------------

    def backward(
        self,
        gradient: Any = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        inputs: Any = None,
    ) -> None:
        """Add d(self)/d(leaf) to `.grad` of every leaf below (or of `inputs` alone).

        `gradient` is the cotangent of `self`, by default 1 for a tensor of one element. The graph is freed on the way
        unless `retain_graph`; `create_graph` makes the gradients themselves differentiable.

        >>> import retrograd as rg
        >>> w = rg.tensor(3.0, requires_grad=True)
        >>> (w**2).backward()
        >>> w.grad.item()
        6.0
        """
        from .backward import backward

        backward((self,), (gradient,), retain_graph, create_graph, inputs)  # type: ignore[arg-type]

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Switch on (or off) that gradients of this leaf are wanted; returns the tensor."""
        if self.node is not None and not requires_grad:
            raise RuntimeError(
                "only a leaf can stop requiring a gradient; use .detach() for the result of an operation"
            )
        if requires_grad and not is_float(self.dtype):
            raise TypeError(_NOT_FLOAT.format(self.dtype))
        self.requires_grad = requires_grad
        return self

    def retain_grad(self) -> None:
        """Keep the gradient of this result in `.grad` too, which otherwise only leaves get."""
        from .hooks import retain_grad

        retain_grad(self)  # type: ignore[arg-type]

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> Any:
        """Call `hook(gradient)` when this tensor's gradient is complete; what it returns replaces the gradient.

        Returns a handle with `remove()`.
        """
        from .hooks import register

        return register(self, hook)  # type: ignore[arg-type]

    # -- copies and conversions -------------------------------------------------------------------------------------

    def to(self, target: Any = None, dtype: Any = None) -> Tensor:
        """To another backend (a name such as "cupy") or dtype; differentiable, and `self` where nothing changes."""
        if isinstance(target, (np.dtype, type)) or (isinstance(target, str) and names_dtype(target)):
            target, dtype = None, target
        out = self
        if target is not None:
            backend = get_backend(target) if isinstance(target, str) else target
            if backend is not self.backend:
                from .dispatch import FUNCTIONS

                out = FUNCTIONS["transfer"](out, backend=backend.name, origin=self.backend.name)
        return out if dtype is None else out.astype(dtype)  # type: ignore[attr-defined]

    def float(self) -> Tensor:
        """As float32."""
        return self.astype(np.float32)  # type: ignore[attr-defined]

    def double(self) -> Tensor:
        """As float64."""
        return self.astype(np.float64)  # type: ignore[attr-defined]

    def half(self) -> Tensor:
        """As float16."""
        return self.astype(np.float16)  # type: ignore[attr-defined]

    def long(self) -> Tensor:
        """As int64."""
        return self.astype(np.int64)  # type: ignore[attr-defined]

    def __deepcopy__(self, memo: dict) -> Tensor:
        if self.node is not None:
            raise RuntimeError(
                "only leaves can be deep-copied: the copy of a result would lose its graph. Use .detach() first."
            )
        self._not_in_a_recording("copy.deepcopy")
        out = type(self).__new__(type(self))
        Tensor.__init__(out, self.array.copy(), self.requires_grad)
        memo[id(self)] = out
        if self.grad is not None:
            out.grad = self.grad.__deepcopy__(memo)
        return out

    def __reduce__(self) -> tuple:
        if self.node is not None:
            raise RuntimeError(
                "only leaves can be pickled: the copy of a result would lose its graph. Use .detach() first."
            )
        self._not_in_a_recording("pickling")
        return _rebuild, (type(self), backend_of(self.array).to_numpy(self.array), self.requires_grad)


TENSOR_TYPES.add(Tensor)
# What an operation takes for an input. Everything but a Tensor is a constant.
TensorLike: TypeAlias = Tensor | np.ndarray | np.generic | float | int | bool | complex | list | tuple

for _name in (
    *("numpy", "item", "tolist", "backward", "requires_grad_", "retain_grad", "register_hook", "to"),
    *("__bool__", "__float__", "__int__", "__complex__", "__index__", "__format__", "__array__", "__iter__"),
):
    setattr(Tensor, _name, one_frame(vars(Tensor)[_name]))
Tensor.__hash__ = object.__hash__  # type: ignore[method-assign]  the same without a call of Python

_SILENT_DTYPES = (np.dtype(np.float32), np.dtype(np.int64), np.dtype(bool))
_NOT_FLOAT = "only floating and complex tensors can require gradients, got dtype {}. Use .astype('float32') first."


def names_dtype(name: str) -> bool:
    """Whether a text is the name of a dtype; else it may be that of a backend."""
    try:
        np.dtype(name)
    except TypeError:
        return False
    return True


def _rebuild(cls: type[Tensor], array: np.ndarray, requires_grad: bool) -> Tensor:
    out = cls.__new__(cls)
    array = array.view(array.dtype.type)  # an unpickled dtype is an object of its own, which the quick ways do not know
    Tensor.__init__(out, current_backend().asarray(array), requires_grad)
    return out


@one_frame
def tensor(data: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """A new leaf with a copy of `data`: numbers, nested lists (of numbers or tensors), an ndarray or a Tensor.

    Python floats become float32, integers int64, booleans bool; an ndarray keeps its dtype. The array is made by the
    current backend.

    >>> import retrograd as rg
    >>> rg.tensor([[1, 2], [3, 4]]).dtype
    dtype('int64')
    >>> rg.tensor([1.0, 2.0]).dtype
    dtype('float32')
    """
    made = asarray(data, dtype, copy=True)
    if not isinstance(data, Tensor):
        made = new_leaf(made)
    if requires_grad:
        made.requires_grad_()
    return made


@one_frame
def asarray(data: Any, dtype: Any = None, copy: bool | None = None) -> Tensor:
    """`data` as a Tensor that shares its memory where it can (`copy=None`); a Tensor is returned as it is.

    >>> import numpy as np, retrograd as rg
    >>> a = np.zeros(2)
    >>> t = rg.asarray(a)
    >>> t.dtype
    dtype('float64')
    """
    if isinstance(data, Tensor):
        if not copy:
            return data if dtype is None else data.astype(dtype)  # type: ignore[attr-defined]
        if current().recorder is not None:
            copied = data.detach().clone()  # type: ignore[attr-defined]
            return copied if dtype is None else copied.astype(dtype)
        return Tensor(data.backend.asarray(data.array, dtype=dtype, copy=True))
    if type(data) in BACKEND_BY_TYPE:
        backend = current_backend() if isinstance(data, np.ndarray) else backend_of(data)
        return Tensor(backend.asarray(data, dtype=dtype, copy=copy))
    return Tensor(current_backend().asarray(host_array(data, dtype), dtype=dtype))


def new_leaf(made: Tensor) -> Tensor:
    """A leaf that was just made of constants, as a recording wants it."""
    recorder = current().recorder
    return made if recorder is None else recorder.brought(made)  # type: ignore[arg-type]


def host_array(data: Any, dtype: Any = None) -> np.ndarray:
    """Numbers or nested sequences as an ndarray, Python floats as the default float (32 bits), complex likewise."""
    if isinstance(data, (list, tuple)):
        data = _without_tensors(data)
    try:
        found = np.asarray(data)
    except ValueError:
        raise ValueError(f"nested lists must be numbers, of equal length on every level; got {_short(data)}") from None
    if found.dtype.kind not in "biufcV":
        raise TypeError(
            f"expected numbers, got {found.dtype} from {_short(data)}. Nested lists must be numbers of equal length."
        )
    if dtype is None and not isinstance(data, (np.ndarray, np.generic)) and not _holds_numpy(data):
        if found.dtype.kind == "f":
            return found.astype(DEFAULT_FLOAT)
        if found.dtype.kind == "c":
            return found.astype(np.complex64)
        if found.size == 0:
            return found.astype(DEFAULT_FLOAT)
    return found


def _without_tensors(data: Any) -> Any:
    if isinstance(data, Tensor):
        return data.__array__()
    return [_without_tensors(d) for d in data] if isinstance(data, (list, tuple)) else data


def _holds_numpy(data: Any) -> bool:
    while isinstance(data, (list, tuple)) and data:
        data = data[0]
    return isinstance(data, (np.ndarray, np.generic)) and scalar_kind(data) is None


def _short(data: Any) -> str:
    text = repr(data)
    return text if len(text) < 60 else text[:57] + "…"
