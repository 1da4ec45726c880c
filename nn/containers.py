"""Modules made of modules: in a row, in a list, in a dict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Generic, Self, TypeVar, overload

from ..autograd_core.errors import one_frame
from .errors import nearest
from .module import Module
from .parameter import Parameter
from .registration import check_name

T = TypeVar("T", Module, Parameter)


class _Numbered(Module, Generic[T]):
    """Items under the names "0", "1", …, used like a list."""

    _kind: type = Module

    def _named(self) -> list[tuple[str, T]]:
        return [(name, value) for name, value in vars(self).items() if isinstance(value, self._kind)]

    def _items(self) -> list[T]:
        return [value for value in vars(self).values() if isinstance(value, self._kind)]

    def _name_at(self, index: int) -> str:
        names = [name for name, _ in self._named()]
        if not -len(names) <= index < len(names):
            raise IndexError(f"{type(self).__name__} has {len(names)} items, none at {index}")
        return names[index]

    def _put(self, name: str, item: Any) -> None:
        if not isinstance(item, self._kind):
            hint = " (a class: make an instance of it)" if isinstance(item, type) else ""
            raise TypeError(
                f"{type(self).__name__} holds {self._kind.__name__}s, got {type(item).__name__}{hint} at {name!r}"
            )
        setattr(self, name, item)

    def _refill(self, items: Iterable[T]) -> None:
        for name, _ in self._named():
            delattr(self, name)
        for number, item in enumerate(items):
            self._put(str(number), item)

    def __len__(self) -> int:
        return len(self._items())

    def __iter__(self) -> Iterator[T]:
        return iter(self._items())

    def __contains__(self, item: object) -> bool:
        return any(i is item for i in self._items())

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    @one_frame
    def __getitem__(self, index: int | slice) -> T | Self:
        if isinstance(index, slice):
            return self._like(self._named()[index])
        return getattr(self, self._name_at(index))

    def _like(self, named: list[tuple[str, T]]) -> Self:
        return type(self)(item for _, item in named)  # type: ignore[call-arg]

    @one_frame
    def __setitem__(self, index: int, item: T) -> None:
        self._put(self._name_at(index), item)

    @one_frame
    def __delitem__(self, index: int | slice) -> None:
        names = [name for name, _ in self._named()]
        removed = {self._name_at(index)} if isinstance(index, int) else set(names[index])
        if all(name.isdigit() for name in names):
            self._refill([item for name, item in self._named() if name not in removed])
        else:
            for name in removed:
                delattr(self, name)

    @one_frame
    def append(self, item: T) -> Self:
        """Add an item at the end; returns the container."""
        self._put(str(len(self)), item)
        return self

    @one_frame
    def extend(self, items: Iterable[T]) -> Self:
        """Add several items at the end."""
        for item in list(items):
            self.append(item)
        return self

    @one_frame
    def insert(self, index: int, item: T) -> Self:
        """Put an item before position `index`; those behind it are renumbered."""
        items = self._items()
        items.insert(index, item)
        self._refill(items)
        return self

    def pop(self, index: int = -1) -> T:
        """Take an item out; those behind it are renumbered."""
        item = self[index]
        del self[index if index >= 0 else len(self) + index]
        return item

    def __add__(self, other: Iterable[T]) -> Self:
        return self._like([*self._named(), *[("", item) for item in other]])

    def __iadd__(self, other: Iterable[T]) -> Self:
        return self.extend(other)


class Sequential(_Numbered[Module]):
    """Modules in a row, each called on what the one before it gave.

    Takes modules (named "0", "1", …) or one dict of names and modules. Index it by position, slice it into a Sequential
    that shares the modules.

    >>> import retrograd as rg
    >>> from retrograd import nn
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    >>> net(rg.zeros((64, 28, 28))).shape
    (64, 10)
    >>> net[1].weight.shape, len(net[1:])
    ((128, 784), 3)
    """

    @one_frame
    def __init__(self, *modules: Module | Mapping[str, Module]):
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            for name, module in modules[0].items():
                check_name(self, name)
                self._put(name, module)
            return
        if len(modules) == 1 and isinstance(modules[0], list | tuple):
            raise TypeError("Sequential takes modules one by one: write Sequential(*modules) to unpack a list")
        for number, module in enumerate(modules):
            self._put(str(number), module)

    def _like(self, named: list[tuple[str, Module]]) -> Self:
        if all(name.isdigit() or not name for name, _ in named):
            return type(self)(*[module for _, module in named])
        return type(self)(dict(named))

    def forward(self, x: Any) -> Any:
        """The modules applied to x from the first to the last."""
        for module in self._items():
            x = module(x)
        return x


class ModuleList(_Numbered[Module]):
    """A list of modules that are found for training and saving. It is not called: write the loop over it yourself.

    >>> from retrograd import nn
    >>> layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
    >>> [name for name, _ in layers.append(nn.ReLU()).named_children()]
    ['0', '1', '2', '3']
    """

    @one_frame
    def __init__(self, modules: Iterable[Module] = ()):
        super().__init__()
        self.extend(modules)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Refused: a list of modules does not say how they are connected."""
        raise TypeError(
            f"a {type(self).__name__} is not called: call its items, or use nn.Sequential for modules in a row"
        )


class ParameterList(_Numbered[Parameter]):
    """A list of parameters that are found for training and saving; what is no Parameter becomes one.

    >>> import retrograd as rg
    >>> scales = rg.nn.ParameterList([rg.ones(2), rg.zeros(3)])
    >>> [(name, p.shape) for name, p in scales.named_parameters()]
    [('0', (2,)), ('1', (3,))]
    """

    _kind = Parameter

    @one_frame
    def __init__(self, parameters: Iterable[Any] = ()):
        super().__init__()
        self.extend(p if isinstance(p, Parameter) else Parameter(p) for p in parameters)

    def extra_repr(self) -> str:
        return ", ".join(f"{p.dtype} {p.shape}" for p in self)


class _Keyed(Module, Generic[T]):
    """Items under names, used like a dict."""

    _kind: type = Module

    def _named(self) -> dict[str, T]:
        return {name: value for name, value in vars(self).items() if isinstance(value, self._kind)}

    @one_frame
    def __getitem__(self, name: str) -> T:
        items = self._named()
        if name not in items:
            raise KeyError(f"no item {name!r}{nearest(str(name), items)}")
        return items[name]

    @one_frame
    def __setitem__(self, name: str, item: T) -> None:
        if not isinstance(item, self._kind):
            raise TypeError(
                f"{type(self).__name__} holds {self._kind.__name__}s, got {type(item).__name__} for {name!r}"
            )
        check_name(self, name)
        setattr(self, name, item)

    @one_frame
    def __delitem__(self, name: str) -> None:
        self[name]
        delattr(self, name)

    def __len__(self) -> int:
        return len(self._named())

    def __iter__(self) -> Iterator[str]:
        return iter(self._named())

    def __contains__(self, name: object) -> bool:
        return name in self._named()

    def keys(self) -> Iterable[str]:
        """The names, in the order of insertion."""
        return self._named().keys()

    def values(self) -> Iterable[T]:
        """The items."""
        return self._named().values()

    def items(self) -> Iterable[tuple[str, T]]:
        """Pairs of name and item."""
        return self._named().items()

    @one_frame
    def update(self, items: Mapping[str, T] | Iterable[tuple[str, T]]) -> None:
        """Add all of `items`, replacing those of the same name."""
        for name, item in dict(items).items():
            self[name] = item

    def pop(self, name: str) -> T:
        """Take the item of that name out."""
        item = self[name]
        del self[name]
        return item


class ModuleDict(_Keyed[Module]):
    """Modules by name, found for training and saving.

    >>> from retrograd import nn
    >>> heads = nn.ModuleDict({"digit": nn.Linear(8, 10), "parity": nn.Linear(8, 2)})
    >>> "digit" in heads, len(heads)
    (True, 2)
    """

    @one_frame
    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] = ()):
        super().__init__()
        self.update(modules)


class ParameterDict(_Keyed[Parameter]):
    """Parameters by name, found for training and saving.

    >>> import retrograd as rg
    >>> weights = rg.nn.ParameterDict({"inner": rg.ones(2)})
    >>> weights["inner"].requires_grad
    True
    """

    _kind = Parameter

    @one_frame
    def __init__(self, parameters: Mapping[str, Any] | Iterable[tuple[str, Any]] = ()):
        super().__init__()
        self.update({n: p if isinstance(p, Parameter) else Parameter(p) for n, p in dict(parameters).items()})

    def extra_repr(self) -> str:
        return ", ".join(f"{name}: {p.dtype} {p.shape}" for name, p in self.items())
