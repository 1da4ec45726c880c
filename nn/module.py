"""Module: a function with parameters. Plain attributes, a call that knows where it stands, and walks over the tree.

There is no registry beside the attributes: a module's parameters, buffers and submodules *are* those of its attributes
that are such, in the order of their first assignment. So nothing can be out of step, and a forgotten
`super().__init__()` does no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, Self, TypeVar

import numpy as np

from ..autograd_core import hooks
from ..autograd_core.context import current
from ..autograd_core.errors import one_frame
from ..autograd_core.tensor import Tensor
from .errors import located, nearest, trimmed
from .options import note, note_all
from .parameter import Parameter

if TYPE_CHECKING:
    from ..backends import Backend
    from .report import GradientReport, Summary
    from .state import Loaded

P = ParamSpec("P")
R = TypeVar("R", covariant=True)
Hooks = dict[int, Callable[..., Any]]


class _Forward(Protocol[P, R]):
    """What a call needs of a module: so `module(x)` has the types of its own `forward`."""

    _pre_hooks: Hooks | None
    _forward_hooks: Hooks | None

    def forward(self, *args: P.args, **kwargs: P.kwargs) -> R: ...


class Module:
    """Base class of all layers and models: assign parameters and submodules to attributes, and write `forward`.

    A list or dict of Modules that is assigned becomes a ModuleList or ModuleDict. `training` says whether the module is
    in training mode (see `train`, `eval`).

    >>> import retrograd as rg
    >>> class Net(rg.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.hidden = rg.nn.Linear(4, 8)
    ...         self.out = rg.nn.Linear(8, 2)
    ...     def forward(self, x):
    ...         return self.out(rg.relu(self.hidden(x)))
    >>> net = Net()
    >>> net(rg.zeros((3, 4))).shape
    (3, 2)
    >>> [name for name, _ in net.named_parameters()]
    ['hidden.weight', 'hidden.bias', 'out.weight', 'out.bias']
    """

    training: bool = True
    _buffers: Mapping[str, bool] = MappingProxyType({})  # name → whether it belongs to the state
    _registrations: int = 0  # counts changes of parameters, buffers and submodules; compiled programs look at it
    _options: tuple[Any, ...] = ()  # what its plain attributes hold; compiled programs look at it (`options.py`)
    _noted: dict[str, Any] | None = None  # the same by name, once a compiled function has called the module
    _pre_hooks: Hooks | None = None
    _forward_hooks: Hooks | None = None

    def __init__(self) -> None:
        pass

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes. Subclasses write it; call the module itself, not `forward`."""
        raise NotImplementedError(f"{type(self).__name__} has no forward method{nearest('forward', vars(type(self)))}")

    def __call__(self: _Forward[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            recorder = current().recorder
            if recorder is not None:
                recorder.entered(self)
            if self._forward_hooks is None and self._pre_hooks is None:
                return self.forward(*args, **kwargs)
            return _call_with_hooks(self, args, kwargs)
        except Exception as error:
            raise located(error, self)  # type: ignore[arg-type]  # noqa: B904  it is the same error

    # -- attributes ---------------------------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        held = self.__dict__.get(name)
        if isinstance(value, _WATCHED) or isinstance(held, _WATCHED):
            from .registration import assign

            try:
                assign(self, name, value, held)
            except Exception as error:
                raise trimmed(error)  # noqa: B904  it is the same error
        else:
            object.__setattr__(self, name, value)
        if self._noted is not None:
            note(self, name, value)

    def _note_options(self) -> None:
        note_all(self)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_noted", "_options")}  # no function has met a copy

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        if name in self._buffers:
            del self._buffers[name]  # type: ignore[attr-defined]  an instance has a dict of its own
        self.__dict__["_registrations"] = self._registrations + 1

    def __getattr__(self, name: str) -> Any:
        # Python comes here only after it found nothing: or a property failed, whose own error says more.
        for cls in type(self).__mro__:
            if isinstance(found := cls.__dict__.get(name), property):
                return found.__get__(self, type(self))
        raise MissingAttribute(self, name)

    @one_frame
    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Make `tensor` part of the module without training it, as `self.name`; `persistent` puts it into the state."""
        from .registration import check_name

        if name not in self._buffers:
            check_name(self, name)
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(
                f"a buffer is a Tensor or None, got {type(tensor).__name__} for {name!r}. Use rg.tensor(...)."
            )
        self.__dict__["_buffers"] = {**self._buffers, name: persistent}
        setattr(self, name, tensor)

    @one_frame
    def register_parameter(self, name: str, parameter: Parameter | None) -> None:
        """The same as assigning to `self.name`, for a name that is computed."""
        from .registration import check_name

        check_name(self, name)
        if parameter is not None and not isinstance(parameter, Parameter):
            raise TypeError(f"expected a Parameter or None for {name!r}, got {type(parameter).__name__}")
        setattr(self, name, parameter)

    @one_frame
    def add_module(self, name: str, module: Module | None) -> None:
        """The same as assigning to `self.name`, for a name that is computed."""
        from .registration import check_name

        check_name(self, name)
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"expected a Module or None for {name!r}, got {type(module).__name__}")
        setattr(self, name, module)

    register_module = add_module

    # -- walks over the tree ------------------------------------------------------------------------------------------

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """(name, module) of the direct submodules, each once, in the order of assignment."""
        seen: set[int] = set()
        for name, child in _children(self):
            if id(child) not in seen:
                seen.add(id(child))
                yield name, child

    def children(self) -> Iterator[Module]:
        """The direct submodules."""
        return (child for _, child in self.named_children())

    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """(dotted name, module) of this module ("") and all below it; a shared one once unless asked otherwise."""
        memo = set() if memo is None else memo
        if self in memo:
            return
        memo.add(self)
        yield prefix, self
        for name, child in _children(self):
            yield from child.named_modules(memo, _joined(prefix, name), remove_duplicate)
        if not remove_duplicate:
            memo.discard(self)  # what remains is the way from the root: it keeps a cycle from running for ever

    def modules(self) -> Iterator[Module]:
        """This module and all below it."""
        return (module for _, module in self.named_modules())

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """(dotted name, parameter), in fixed order; a shared parameter under its first name unless asked otherwise."""
        return _named(self, _own_parameters, prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """The parameters, each once: what an optimizer takes."""
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """(dotted name, buffer), in fixed order."""
        return _named(self, _own_buffers, prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """The buffers, each once."""
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def get_submodule(self, path: str) -> Module:
        """The module at a dotted path. Raises AttributeError with the nearest names if there is none."""
        modules = dict(self.named_modules(remove_duplicate=False))
        if path not in modules:
            raise AttributeError(f"{type(self).__name__} has no module {path!r}{nearest(path, modules)}")
        return modules[path]

    def get_parameter(self, path: str) -> Parameter:
        """The parameter at a dotted path. Raises AttributeError with the nearest names if there is none."""
        parameters = dict(self.named_parameters(remove_duplicate=False))
        if path not in parameters:
            raise AttributeError(f"{type(self).__name__} has no parameter {path!r}{nearest(path, parameters)}")
        return parameters[path]

    def apply(self, function: Callable[[Module], Any]) -> Self:
        """Call `function` on every module below and then on this one, e.g. to initialise; returns the module."""
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    # -- state --------------------------------------------------------------------------------------------------------

    def state_dict(self, prefix: str = "") -> dict[str, Tensor]:
        """Dotted name → detached Tensor that shares memory, for parameters and persistent buffers."""
        from .state import state_dict

        return state_dict(self, prefix)

    @one_frame
    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> Loaded:
        """Copy a state into this module, all of it or, with an error that lists what does not fit, nothing."""
        from .state import load_state_dict

        return load_state_dict(self, state, strict)

    # -- modes and conversions ----------------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Self:
        """Switch training mode on (or off) here and below: dropout drops, batch norm uses its batch."""
        if not isinstance(mode, bool | np.bool_):
            raise TypeError(f"train(mode) expects True or False, got {type(mode).__name__}")
        self.training = bool(mode)
        for child in self.children():
            child.train(mode)
        return self

    def eval(self) -> Self:
        """Switch training mode off here and below."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Switch training of all parameters on or off."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    @one_frame
    def freeze(self, *patterns: str) -> Self:
        """Stop training the parameters whose names match a pattern ("encoder", "*.bias"), all without a pattern.

        >>> import retrograd as rg
        >>> net = rg.nn.Sequential(rg.nn.Linear(4, 8), rg.nn.Linear(8, 2)).freeze("0")
        >>> [name for name, p in net.named_parameters() if p.requires_grad]
        ['1.weight', '1.bias']
        """
        from .registration import matching

        for parameter in matching(self, patterns):
            parameter.requires_grad_(False)
        return self

    @one_frame
    def unfreeze(self, *patterns: str) -> Self:
        """Train the parameters whose names match a pattern again, all without a pattern."""
        from .registration import matching

        for parameter in matching(self, patterns):
            parameter.requires_grad_(True)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Take the gradients of all parameters away, or fill them with zeros."""
        for parameter in self.parameters():
            if set_to_none or parameter.grad is None:
                parameter.grad = None
            else:
                parameter.grad = Tensor(parameter.backend.xp.zeros(parameter.shape, parameter.dtype))

    @one_frame
    def to(self, target: str | Backend | np.dtype | type | None = None, dtype: Any = None) -> Self:
        """Move to a backend ("cupy") or to a floating dtype, in place; integer buffers keep their dtype.

        The Parameter objects stay the same, so an optimizer that was built before goes on working.
        """
        from .conversion import convert

        return convert(self, target, dtype)

    def float(self) -> Self:
        """To float32."""
        return self.to(dtype=np.float32)

    def double(self) -> Self:
        """To float64."""
        return self.to(dtype=np.float64)

    def half(self) -> Self:
        """To float16."""
        return self.to(dtype=np.float16)

    # -- looking at it ------------------------------------------------------------------------------------------------

    def register_forward_pre_hook(self, hook: Callable[[Module, tuple[Any, ...]], Any]) -> hooks.Handle:
        """Call `hook(module, args)` before each forward; what it returns, if not None, replaces the arguments."""
        return _add_hook(self, "_pre_hooks", hook)

    def register_forward_hook(self, hook: Callable[[Module, tuple[Any, ...], Any], Any]) -> hooks.Handle:
        """Call `hook(module, args, output)` after each forward; what it returns, if not None, replaces the output."""
        return _add_hook(self, "_forward_hooks", hook)

    @one_frame
    def summary(self, input_shape: tuple[int, ...] | None = None, sample: Any = None) -> Summary:
        """A table of all layers: output shapes (for an example or a sample), parameters, what is trained."""
        from .report import summary

        return summary(self, input_shape, sample)

    def gradient_report(self) -> GradientReport:
        """A table of the norms of parameters and gradients after `backward()`; names those no gradient reached."""
        from .report import gradient_report

        return gradient_report(self)

    def extra_repr(self) -> str:
        """What stands in the brackets of the repr; subclasses write it."""
        return ""

    def __repr__(self) -> str:
        from .report import tree

        return tree(self)


class MissingAttribute(AttributeError):
    """A name that a module does not have. Its text is made when somebody reads it: `hasattr` never does."""

    def __init__(self, module: Module, missing: str):
        super().__init__()
        self.module, self.missing = module, missing

    def __str__(self) -> str:
        kind = type(self.module).__name__
        known = [n for n in dir(self.module) if not n.startswith("_")]
        return f"{kind} has no attribute {self.missing!r}{nearest(self.missing, known)}"


_WATCHED = (Tensor, Module, list, tuple, dict)


def _joined(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _children(module: Module) -> list[tuple[str, Module]]:
    if any(type(v) in (list, tuple, dict) for v in vars(module).values()):
        from .registration import adopt

        adopt(module)
    return [(name, value) for name, value in vars(module).items() if isinstance(value, Module)]


def _own_parameters(module: Module) -> list[tuple[str, Parameter]]:
    return [(name, value) for name, value in vars(module).items() if isinstance(value, Parameter)]


def _own_buffers(module: Module) -> list[tuple[str, Tensor]]:
    held = vars(module)
    return [(name, held[name]) for name in module._buffers if held[name] is not None]


def _named(
    module: Module, own: Callable[[Module], list[tuple[str, Any]]], prefix: str, recurse: bool, once: bool
) -> Iterator[tuple[str, Any]]:
    seen: set[int] = set()
    modules = module.named_modules(prefix=prefix, remove_duplicate=once) if recurse else [(prefix, module)]
    for path, owner in modules:
        for name, tensor in own(owner):
            if not once or id(tensor) not in seen:
                seen.add(id(tensor))
                yield _joined(path, name), tensor


def _add_hook(module: Module, kind: str, hook: Callable[..., Any]) -> hooks.Handle:
    def changed() -> None:  # programs that were made without the hook, or with it, are no longer right
        module.__dict__["_registrations"] = module._registrations + 1

    return hooks.add(module.__dict__.setdefault(kind, {}), hook, changed)


def _call_with_hooks(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    for hook in list((module._pre_hooks or {}).values()):
        replaced = hook(module, args)
        if replaced is not None:
            args = replaced if isinstance(replaced, tuple) else (replaced,)
    out = module.forward(*args, **kwargs)
    for hook in list((module._forward_hooks or {}).values()):
        replaced = hook(module, args, out)
        out = out if replaced is None else replaced
    return out
