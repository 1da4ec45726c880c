"""Optimizer: parameter groups, a state per parameter, and the step, for update rules that are pure functions.

A rule is three functions. `init(p, hyper)` gives the arrays that it keeps beside a parameter. `scalars(step, hyper)`
does all arithmetic on numbers, in double precision on the host, for that parameter's step (1, 2, …); a number that an
option switches off is left out, so that names say which form of the rule is meant. `update(ops, p, g, state, scalars)`
is the mathematics on arrays, written with operations: the same function runs in place on raw arrays in a plain step,
and on Tensors where the step is being recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from operator import is_
from typing import Any

from ..autograd_core.context import current, enable_grad, no_grad
from ..autograd_core.errors import describe, one_frame
from ..autograd_core.inplace import overwrite
from ..autograd_core.record import raw_ops, tensor_ops
from ..autograd_core.tensor import Tensor, new_leaf
from ..backends import backend_of
from .flat import Flat
from .groups import Group, check_disjoint, complete, group_of, groups_of
from .noting import NotingOps
from .program import NotElementwise, Program, build, fits

Params = Iterable[Tensor] | Iterable[tuple[str, Tensor]] | Iterable[Mapping[str, Any]] | Mapping[str, Any]


class Optimizer:
    """Base class: a subclass hands its options to `__init__` and writes `init`, `scalars`, `update` (and `check`).

    `param_groups` is a list of dicts: "params" and the options, which may be changed at any time. `state` maps a
    parameter to its dict: "step", how often it was updated, and the Tensors that `init` made. Parameters without a
    gradient are left out of a step.

    `elementwise` says that `update` treats every element for itself: then it runs in place, block by block, and a
    compiled step updates all parameters of a group at once.

    >>> import retrograd as rg
    >>> from retrograd.optim.optimizer import zeros_like
    >>> class Signum(rg.optim.Optimizer):  # Bernstein et al., "signSGD", 2018: a step against the sign of the momentum
    ...     def __init__(self, params, lr=1e-4, beta=0.9):
    ...         super().__init__(params, {"lr": lr, "beta": beta})
    ...     @staticmethod
    ...     def init(p, hyper):
    ...         return {"momentum": zeros_like(p)}
    ...     @staticmethod
    ...     def scalars(step, hyper):
    ...         return {"lr": hyper["lr"], "keep": hyper["beta"], "take": 1 - hyper["beta"]}
    ...     @staticmethod
    ...     def update(ops, p, g, state, scalars):
    ...         m = ops.add(ops.multiply(state["momentum"], scalars["keep"]), ops.multiply(g, scalars["take"]))
    ...         return ops.subtract(p, ops.multiply(ops.sign(m), scalars["lr"])), {"momentum": m}
    >>> w = rg.tensor([1.0, -1.0], requires_grad=True)
    >>> opt = Signum([w], lr=0.5)
    >>> rg.sum(w * w).backward()
    >>> opt.step()
    >>> w
    tensor([ 0.5, -0.5], requires_grad=True)
    """

    elementwise = True

    @one_frame
    def __init__(self, params: Params, defaults: Mapping[str, Any]):
        self.defaults = dict(defaults)
        self.state: dict[Tensor, dict[str, Any]] = {}
        self.param_groups: list[Group] = [complete(g, self.defaults, self.check) for g in groups_of(params)]
        check_disjoint(self.param_groups)
        self._programs: dict[tuple[tuple[str, ...], tuple[str, ...]], Program | None] = {}
        self._flats: list[Flat] = []
        self._stepped: set[int] = set()  # ids of parameters that recorded steps changed
        self._slots: dict[tuple[Any, ...], dict[str, Tensor]] = {}

    @staticmethod
    def check(hyper: Mapping[str, Any]) -> None:
        """Raise ValueError where an option is out of range."""

    @staticmethod
    def init(p: Any, hyper: Mapping[str, Any]) -> dict[str, Any]:
        """Name → raw array, what the rule keeps for the raw array `p`."""
        return {}

    @staticmethod
    def scalars(step: int, hyper: Mapping[str, Any]) -> dict[str, float]:
        """Name → number, what the rule needs in the parameter's `step`-th update."""
        raise NotImplementedError

    @staticmethod
    def update(ops: Any, p: Any, g: Any, state: dict[str, Any], scalars: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """The new parameter and the new state, from the old ones and the gradient."""
        raise NotImplementedError

    @one_frame
    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Train further parameters: `{"params": [...], "lr": ...}`; options that it does not name are the defaults."""
        groups = [*self.param_groups, complete(group_of(group), self.defaults, self.check)]
        check_disjoint(groups)
        self.param_groups = groups

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Take the gradients of all parameters away, or fill them with zeros."""
        for group in self.param_groups:
            for p in group["params"]:
                if set_to_none or p.grad is None:
                    p.grad = None
                else:
                    p.grad = new_leaf(Tensor(p.backend.xp.zeros(p.shape, p.dtype)))

    @one_frame
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; returns what `closure`, which is called first, returned."""
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        if current().recorder is not None:
            self._step_recorded()
            return loss
        for group in self.param_groups:
            numbers: dict[int, dict[str, float]] = {}  # step → scalars: nearly always one entry
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state.get(p)
                if not state:
                    state = self._begin(p, group)
                state["step"] = step = state["step"] + 1
                scalars = numbers.get(step)
                if scalars is None:
                    scalars = numbers[step] = self._numbers(step, group)
                self._apply(p, state, scalars, group)
        return loss

    def _begin(self, p: Tensor, group: Group) -> dict[str, Any]:
        """Give a parameter what the rule keeps for it; also after an option was switched on."""
        state = self.state.setdefault(p, {})
        state.setdefault("step", 0)
        for name, array in self.init(p.array, group).items():
            state.setdefault(name, Tensor(array))
        return state

    def _apply(self, p: Tensor, state: dict[str, Any], scalars: dict[str, float], group: Group) -> None:
        key = (tuple(state), tuple(scalars))
        if key not in self._programs:
            self._begin(p, group)
            key = (tuple(state), key[1])
            self._programs[key] = self._build(key[0][1:], key[1])
        program = self._programs[key]
        gradient = p.grad
        arrays = [p.array, gradient.array, *[t.array for n, t in state.items() if n != "step"]]  # type: ignore[union-attr]
        if program is not None and fits(arrays) and arrays[1].shape == arrays[0].shape:
            program.run(arrays, list(scalars.values()))
        else:
            self._apply_as_written(p, state, scalars)
        p.cell[0] += 1  # type: ignore[index]

    def _build(self, states: tuple[str, ...], scalars: tuple[str, ...]) -> Program | None:
        if not self.elementwise:
            return None
        try:
            return build(self.update, states, scalars)
        except NotElementwise:
            return None

    def _apply_as_written(self, p: Tensor, state: dict[str, Any], scalars: dict[str, float]) -> None:
        tensors = {n: t for n, t in state.items() if n != "step"}
        for name, t in {"the gradient": p.grad, **tensors}.items():
            if type(t.array) is not type(p.array) or (t.shape != p.shape and name == "the gradient"):
                raise TypeError(
                    f"{type(self).__name__}: the parameter is a {describe(p)}, but {name} a {describe(t)}. After a "
                    "module was moved, make a new optimizer or load its state into one."
                )
        old = {n: t.array for n, t in tensors.items()}
        new, kept = self.update(raw_ops(type(p.array)), p.array, p.grad.array, old, dict(scalars))  # type: ignore[union-attr]
        p.array[...] = new
        for name, array in kept.items():
            if array is not old[name]:
                old[name][...] = array

    def _step_recorded(self) -> None:
        """The step as operations on Tensors; numbers are 0-d Tensors, which a host call fills before every replay."""
        recorder = current().recorder
        turn = recorder.stepped(self)  # type: ignore[union-attr]  several steps of one recording have numbers of their own
        for number, group in enumerate(self.param_groups):
            cohorts: dict[int, list[Tensor]] = {}  # parameters of equal step count share their numbers
            for p in group["params"]:
                if p.grad is not None:
                    cohorts.setdefault(self._begin(p, group)["step"], []).append(p)
            self._stepped.update(id(p) for parameters in cohorts.values() for p in parameters)
            for cohort, parameters in enumerate(cohorts.values()):
                states = [self.state[p] for p in parameters]
                slots = {  # of equal numbers, for each dtype and backend
                    (p.dtype, p.backend): self._slots.setdefault((number, cohort, p.dtype, p.backend.name, turn), {})
                    for p in parameters
                }
                advance = partial(self._advance, number, states, slots)
                kept = [(s, name, s[name]) for s in states for name in s if name != "step"]
                recorder.host(advance, partial(self._holds, parameters, states, *zip(*kept, strict=True)))  # type: ignore[union-attr]
                advance()
                names = self._numbers(states[0]["step"], group)
                for p, gradient, tensors in self._pieces(parameters):
                    numbers = slots[p.dtype, p.backend]
                    self._update_recorded(p, gradient, tensors, {name: numbers[name] for name in names})

    def _advance(self, number: int, states: list[dict[str, Any]], slots: dict[Any, dict[str, Tensor]]) -> None:
        """Count a step of the parameters of these states, and compute the rule's numbers for it."""
        for state in states:
            state["step"] += 1
        scalars = self._numbers(states[0]["step"], self.param_groups[number])
        for (dtype, backend), numbers in slots.items():
            for name, value in scalars.items():
                if name not in numbers:
                    numbers[name] = Tensor(backend.asarray(0.0, dtype=dtype))
                numbers[name].array.fill(value)  # one that an option switches off stays: programs made before read it

    def _holds(
        self, parameters: list[Tensor], states: list[dict[str, Any]], holders: Any = (), names: Any = (), held: Any = ()
    ) -> bool:
        """Whether these are still the parameters' states, with what they `held` under these names, and the parameters
        have been updated equally often, and so share the rule's numbers."""
        same = all(map(is_, map(self.state.get, parameters), states))  # without Python: asked before each run
        if not same or not all(map(is_, map(dict.get, holders, names), held)):
            return False
        return [state["step"] for state in states].count(states[0]["step"]) == len(states)

    def structure(self) -> tuple[Any, ...]:
        """What a compiled step took for granted: the number of parameters of each group, and which options are on."""
        return tuple(
            [
                (len(group["params"]), *[bool(v) for v in group.values() if type(v) not in (list, dict)])
                for group in self.param_groups
            ]
        )

    def named_numbers(self) -> Iterator[tuple[str, Tensor]]:
        """(name, 0-d Tensor) of what `_advance` fills before each run of a compiled step: "Adam.step_size", with the
        numbers of group, cohort and step, and the dtype, where there are several."""
        varying = [len(set(column)) > 1 for column in zip(*self._slots, strict=True)]
        for key, slots in self._slots.items():
            place = [str(k) for k, several in zip(key, varying, strict=True) if several]
            for name, tensor in slots.items():
                yield ".".join([type(self).__name__, *place, name]), tensor

    def host_state(self) -> Any:
        """The step counts, so that calls which shall leave no trace can put them back."""
        return {p: state["step"] for p, state in self.state.items()}

    def restore_host_state(self, state: Any) -> None:
        """Put back what `host_state` gave; parameters that were not there stand before their first step."""
        for p, kept in self.state.items():
            kept["step"] = state.get(p, 0)

    def flatten(self) -> None:
        """Lay the parameters that recorded steps changed together end to end, where the rule allows it (`flat.py`)."""
        if not self.elementwise:
            return
        cohorts: dict[Any, list[Tensor]] = {}
        for number, group in enumerate(self.param_groups):
            for p in group["params"]:
                state = self.state.get(p)
                if state is not None and id(p) in self._stepped and p.node is None:
                    cohorts.setdefault((number, state["step"], p.dtype, p.backend.name, tuple(state)), []).append(p)
        placed = {id(p) for flat in self._flats for p in flat.parameters}
        for parameters in cohorts.values():
            if len(parameters) > 1 and not any(id(p) in placed for p in parameters):
                self._flats.append(Flat(parameters, [self.state[p] for p in parameters]))

    def _pieces(self, parameters: list[Tensor]) -> Iterator[tuple[Tensor, Tensor, dict[str, Tensor]]]:
        """(parameter, gradient, states) to be updated: one piece for all where there is one, else each for itself."""
        for flat in self._flats:
            if flat.holds(parameters, [self.state[p] for p in parameters]):
                yield flat.parameter, flat.gradient(), flat.states
                return
        for p in parameters:
            yield p, p.grad, {n: t for n, t in self.state[p].items() if n != "step"}  # type: ignore[misc]

    def _update_recorded(
        self, p: Tensor, gradient: Tensor, states: dict[str, Tensor], slots: dict[str, Tensor]
    ) -> None:
        if self._update_noted(p, gradient, states, slots):
            return
        with no_grad():
            new, kept = self.update(tensor_ops, p.detach(), gradient, states, dict(slots))
            overwrite(p, new)
            for name, tensor in kept.items():
                if tensor is not states[name]:
                    overwrite(states[name], tensor)

    def _update_noted(self, p: Tensor, gradient: Tensor, states: dict[str, Tensor], slots: dict[str, Tensor]) -> bool:
        """The same with the numbers from the rule's program, which works in place; False where it has none."""
        arrays = [p.array, gradient.array, *[t.array for t in states.values()]]
        key = (("step", *states), tuple(slots))
        if key not in self._programs:
            self._programs[key] = self._build(tuple(states), key[1])
        program = self._programs[key]
        if program is None or not fits(arrays) or gradient.shape != p.shape or current().anomaly:
            return False
        recorder: Any = current().recorder
        try:
            new, kept = self.update(NotingOps(recorder), p.detach(), gradient, states, dict(slots))
        except NotElementwise:
            return False
        recorder.assign(p, new)
        for name, tensor in kept.items():
            if tensor is not states[name]:
                recorder.assign(states[name], tensor)
                states[name].cell[0] += 1  # type: ignore[index]
        program.run(arrays, [t.array.item() for t in slots.values()])
        p.cell[0] += 1  # type: ignore[index]
        return True

    def _numbers(self, step: int, group: Group) -> dict[str, float]:
        return {name: float(value) for name, value in self.scalars(step, group).items()}

    # -- state --------------------------------------------------------------------------------------------------------

    @one_frame
    def state_dict(self, model: Any = None) -> dict[str, Any]:
        """{"state": {key: {"step": …, name: Tensor}}, "param_groups": [options with "params": [keys]]}.

        Keys are positions, as in PyTorch, or names: those of `model.named_parameters()` if a model is given, or those
        that the optimizer was built with. The Tensors share memory with the optimizer.
        """
        from .state import state_dict

        return state_dict(self, model)

    @one_frame
    def load_state_dict(self, state: Mapping[str, Any], model: Any = None) -> None:
        """Take over a state that `state_dict` gave, for the same parameters; an error changes nothing."""
        from .state import load_state_dict

        load_state_dict(self, state, model)

    @one_frame
    def to_arrays(self, model: Any = None) -> tuple[dict[str, Tensor], dict[str, str]]:
        """The state for a file: `rg.save(*)` takes a flat dict, "encoder.weight/exp_avg" → Tensor, and text.

        >>> import retrograd as rg
        >>> layer = rg.nn.Linear(2, 1, bias=False)
        >>> opt = rg.optim.SGD(layer.named_parameters(), momentum=0.9)
        >>> rg.sum(layer(rg.ones((1, 2)))).backward()
        >>> opt.step()
        >>> tensors, metadata = opt.to_arrays()
        >>> sorted(tensors)
        ['weight/momentum_buffer', 'weight/step']
        """
        from .state import to_arrays

        return to_arrays(self, model)

    @one_frame
    def from_arrays(self, tensors: Mapping[str, Any], metadata: Mapping[str, str], model: Any = None) -> None:
        """Take over a state that `to_arrays` gave; an error changes nothing."""
        from .state import from_arrays

        from_arrays(self, tensors, metadata, model)

    def __getstate__(self) -> dict[str, Any]:
        made_again = {"_programs": {}, "_slots": {}, "_flats": [], "_stepped": set()}
        return self.__dict__ | made_again

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for number, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {number}")
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key not in ("params", "param_names")]
        return "\n".join([*lines, ")"])


def zeros_like(p: Any) -> Any:
    """A raw array of zeros of the shape and dtype of `p`."""
    return backend_of(p).xp.zeros(p.shape, p.dtype)


def nonnegative(hyper: Mapping[str, Any], *names: str) -> None:
    """Raise ValueError for an option that is negative or no number."""
    for name in names:
        if not float(hyper[name]) >= 0:
            raise ValueError(f"{name} must be at least 0, got {hyper[name]}")
