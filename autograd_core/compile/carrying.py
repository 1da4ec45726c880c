"""Functions as text, with everything they reach: what a file must carry to run a record's own code without us.

A function's text is taken from the module that it stands in, as it was written, but for decorators, annotations and
the rest of its docstring. What it names is looked up in that module and carried too: other functions, classes,
constants with the expression that made them. What is left to import is NumPy and the standard library.

Two names stand for objects of the framework: `ops`, the operations on arrays, and `backend`, the array library's few
methods. The file gets small classes in their place, with the entries that the carried functions ask for.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import keyword
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import numpy as np

from ...backends import Backend, get_backend
from ..record import REGISTRY, Record, array_function, raw_ops
from .module_text import Source, Unwritable, bound_names, definitions, imported_value, module_of, node_of, walk

STANDS_FOR = {
    "backend_of": "def backend_of(array):\n    return backend",
    "get_backend": "def get_backend(name):\n    return backend",
}
"""Functions of the framework whose meaning in a file of one array library is shorter than their text."""


class Library:
    """Definitions in the order in which a file needs them, and the names they have in it."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self.taken = {*taken, *dir(builtins), *keyword.kwlist, "np", "ops", "backend", "Backend", "Operations"}
        self.array: Callable[[np.ndarray], str] = literal  # what an array is called
        self.imports: dict[str, None] = {"import numpy as np": None}
        self.texts: list[str] = []
        self.operations: dict[str, str] = {}  # name → expression, for `ops`
        self.methods: dict[str, dict[str, str]] = {"ops": {}, "backend": {}}
        self.packages = {__name__.split(".")[0], *[r.forward.__module__.split(".")[0] for r in REGISTRY.values()]}
        self._names: dict[Any, str] = {}
        self._kept: list[Any] = []  # functions that were written, so that no identity is used twice

    def fresh(self, name: str) -> str:
        """A name that nothing else in the file has."""
        found, n = name, 1
        while found in self.taken:
            n += 1
            found = f"{name}_{n}"
        self.taken.add(found)
        return found

    def imported(self) -> str:
        """The imports, as a file begins with them."""
        plain = sorted(line for line in self.imports if line.startswith("import ") and "numpy" not in line)
        names: dict[str, list[str]] = {}
        for line in sorted(self.imports):
            if line.startswith("from "):
                module, name = line[5:].split(" import ")
                names.setdefault(module, []).append(name)
        plain += [f"from {module} import {', '.join(listed)}" for module, listed in names.items()]
        return "\n".join([*plain, "", "import numpy as np"]).strip()

    def text(self) -> str:
        """All definitions."""
        parts = []
        for text in self.texts:
            if parts and not {text[:4], parts[-1][:4]} & {"def ", "clas", "@"}:
                parts[-1] += "\n" + text  # constants stand together
            else:
                parts.append(text)
        if self.methods["backend"]:
            methods = "\n".join(_indented(text) for text in self.methods["backend"].values())
            parts.append(f'class Backend:\n    """The array library: NumPy."""\n\n    xp = np\n\n{methods}')
            parts.append("backend = Backend()")
        if self._names.get("ops"):
            methods = "".join("\n" + _indented(text) for text in self.methods["ops"].values())
            own = "    backend = backend\n" if self.methods["backend"] else ""
            head = 'class Operations:\n    """Operations on arrays, by name."""\n\n    raw = True\n    xp = np\n'
            parts.append(head + own + methods)
            table = [f"ops.{name} = {text}" for name, text in self.operations.items()]
            parts.append("\n".join(["ops = Operations()", *table]))
        return "\n\n\n".join(part.rstrip() for part in parts)

    # -- values --------------------------------------------------------------------------------------------------------

    def expression(self, value: Any, hint: str = "function") -> str:
        """Text that evaluates to a value; what it names is carried. Raises Unwritable."""
        kind = type(value)
        if value is None or value is Ellipsis or kind in (bool, int, float, bytes, complex):
            return "..." if value is Ellipsis else _number(value)
        if kind is str:
            return repr(value) if '"' in value or "'" in value else f'"{value}"'
        if kind is slice:
            return f"slice({', '.join(self.expression(v) for v in (value.start, value.stop, value.step))})"
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return f"{self.expression(kind)}({', '.join(map(self.expression, value))})"
        if kind in (list, tuple, set):
            inner = ", ".join(map(self.expression, value))
            return {list: f"[{inner}]", tuple: f"({inner}{',' * (len(value) == 1)})", set: f"{{{inner}}}"}[kind]
        if isinstance(value, Mapping):
            return "{" + ", ".join(f"{self.expression(k)}: {self.expression(v)}" for k, v in value.items()) + "}"
        if isinstance(value, np.dtype):
            return f'np.dtype("{value}")'
        if isinstance(value, np.generic):
            return f"np.{kind.__name__}({self.expression(value.item())})"
        if isinstance(value, np.ndarray):
            return self.array(value)
        if isinstance(value, partial):
            given = [value.func, *value.args]
            words = [f"{k}={self.expression(v)}" for k, v in value.keywords.items()]
            self.imports["from functools import partial"] = None
            return f"partial({', '.join([*[self.expression(v, hint) for v in given], *words])})"
        if isinstance(value, Backend):
            return "backend"
        if value is raw_ops(np.ndarray):
            self._names["ops"] = "ops"
            return "ops"
        if isinstance(value, FunctionType) and self._is_ours(value.__module__):
            return self.function(value, hint)
        return self._named(value)

    def _named(self, value: Any) -> str:
        """A function, class or module of NumPy, the standard library or the builtins; a class or constant of ours."""
        if value is np:
            return "np"
        owner, name = getattr(value, "__self__", None), getattr(value, "__name__", None)
        if isinstance(owner, np.ufunc) and name:
            return f"{self._named(owner)}.{name}"
        if name and getattr(builtins, name, None) is value:
            return name
        if name and getattr(np, name, None) is value:
            return f"np.{name}"
        if isinstance(value, np.ufunc | BuiltinFunctionType | FunctionType) and name:
            for part in ("linalg", "fft"):
                if getattr(getattr(np, part), name, None) is value:
                    return f"np.{part}.{name}"
        module = sys.modules.get(getattr(value, "__module__", None) or type(value).__module__)
        if isinstance(module, ModuleType):
            if name is None:  # an object that a module made: by the name it has there
                name = next((k for k, v in vars(module).items() if v is value), None)
            if name and getattr(module, name, None) is value:
                found = self._reference(module, name) if self._is_ours(module.__name__) else None
                if found is None:
                    self.imports[f"from {module.__name__} import {name}"] = None
                return found or name
        raise Unwritable(f"no source text stands for {value!r}")

    # -- functions -----------------------------------------------------------------------------------------------------

    def function(self, function: Callable, hint: str = "function") -> str:
        """The name of a function of ours in the file, which carries it from now on."""
        module = sys.modules[function.__module__]
        node = node_of(function)
        cells = inspect.getclosurevars(function).nonlocals if function.__closure__ else {}
        whole = definitions(module).get(function.__name__) is node
        key = (module.__name__, function.__name__) if whole else id(function)
        if key not in self._names:
            self._kept.append(function)
            self._names[key] = self.fresh(hint if isinstance(node, ast.Lambda) else function.__name__)
            self._define(module, node, self._names[key], cells)
        return self._names[key]

    def operation(self, name: str) -> None:
        """Enter an operation, as `ops` must have it."""
        self._names["ops"] = "ops"
        if name in self.operations:
            return
        rec = REGISTRY.get(name)
        if rec is None:
            if name in vars(type(raw_ops(np.ndarray))):
                self._method("ops", name)
            return
        self.operations[name] = ""  # before its function is carried: that may ask for itself
        self.operations[name] = self._operation(rec)

    def _operation(self, rec: Record) -> str:
        call, several = implementation(rec)
        text = self.expression(call, f"{rec.name}_fast")
        return text if not several or rec.multiple else f"lambda *a, **k: {text}(*a, **k)[0]"

    def _method(self, of: str, name: str) -> None:
        """Enter a method of the array library, or of `ops`, that is no operation."""
        self._names[of] = of
        kind = type(get_backend("numpy")) if of == "backend" else type(raw_ops(np.ndarray))
        method = next((vars(c)[name] for c in kind.__mro__ if name in vars(c)), None)
        if isinstance(method, FunctionType) and name not in self.methods[of]:
            self.methods[of][name] = ""
            self.methods[of][name] = self._written(sys.modules[method.__module__], node_of(method), name, {})

    def _define(self, module: ModuleType, node: ast.AST, name: str, cells: Mapping[str, Any]) -> None:
        self.texts.append(self._written(module, node, name, cells))

    def _written(self, module: ModuleType, node: Any, name: str, cells: Mapping[str, Any]) -> str:
        """The text of a definition under another name, without what a stranger need not read."""
        source = Source(module)
        edits: list[tuple[int, int, str]] = []
        bound = set(bound_names(node)) - set(cells)
        imports = [n for n in walk(node) if isinstance(n, ast.ImportFrom) and self._is_ours(n)]
        inside = {a.asname or a.name: n for n in imports for a in n.names}
        edits += [(*source.lines(n), "") for n in imports]
        decorators = ""
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            at = source.find(node, node.name)
            edits.append((at, at + len(node.name.encode()), name))
            for d in node.decorator_list:
                root = next(n for n in ast.walk(d) if isinstance(n, ast.Name))
                where = definitions(module).get(root.id)
                if isinstance(where, (ast.Import, ast.ImportFrom)) and not self._is_ours(where):
                    self._reference(module, root.id)
                    decorators += f"@{source.of(d)}\n"
        own = getattr(node, "name", None)
        for target in getattr(node, "targets", [getattr(node, "target", None)]):
            if isinstance(target, ast.Name):  # a constant
                edits.append((*source.span(target), name))
        for inner in walk(node):
            edits += source.plain(inner, keep=getattr(node, "body", ()) if isinstance(node, ast.ClassDef) else ())
            if isinstance(inner, ast.Name) and inner.id in inside and isinstance(inner.ctx, ast.Load):
                found = self._imported(module, inside[inner.id], inner.id)
            else:
                found = self._replacement(module, inner, bound, cells, own, name)
            if found is not None:
                edits.append((*source.span(inner), found))
        start, end = source.span(node)
        if isinstance(node, ast.Lambda):
            body, first = source.span(node.body), start + len(b"lambda")
            arguments = source.edited(first, body[0], edits).strip().removesuffix(":").strip()
            text = source.edited(*body, edits)
            return f"def {name}({arguments}):\n    return " + _closed(text)
        start -= node.col_offset
        return decorators + inspect.cleandoc("\n" + source.edited(start, end, edits))

    # -- names ---------------------------------------------------------------------------------------------------------

    def _replacement(
        self, module: ModuleType, node: ast.AST, bound: set[str], cells: Mapping[str, Any], own: str | None, name: str
    ) -> str | None:
        """What must stand in the file instead of a node; None where it stays."""
        if isinstance(node, ast.Attribute):
            return self._attribute(module, node, bound)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
            of, which = node.args[0], node.args[1]
            entry = cells.get(which.id) if isinstance(which, ast.Name) else getattr(which, "value", None)
            if isinstance(of, ast.Name) and of.id == "ops" and isinstance(entry, str):
                self.operation(entry)
        if not isinstance(node, ast.Name) or not isinstance(node.ctx, ast.Load) or node.id in bound:
            return None
        if node.id in cells:
            return self.expression(cells[node.id], node.id)
        if node.id == own:
            return name
        return None if node.id == "REGISTRY" else self._reference(module, node.id)

    def _attribute(self, module: ModuleType, node: ast.Attribute, bound: set[str]) -> str | None:
        of = node.value
        if isinstance(of, ast.Name) and of.id == "ops":
            self.operation(node.attr)
        elif isinstance(of, ast.Subscript) and isinstance(of.value, ast.Name) and of.value.id == "REGISTRY":
            return self.function(getattr(REGISTRY[of.slice.value], node.attr))  # type: ignore[attr-defined]
        elif _is_backend(of):
            self._method("backend", node.attr)
        elif isinstance(of, ast.Name) and of.id not in bound:
            where = definitions(module).get(of.id)
            found = imported_value(module, where, of.id) if isinstance(where, ast.ImportFrom) else None
            if isinstance(found, ModuleType) and self._is_ours(found.__name__):
                return self._reference(found, node.attr)
        return None

    def _reference(self, module: ModuleType, name: str) -> str | None:
        """Carry what a module calls `name`; its name in the file, None where it is the same or a builtin."""
        node = definitions(module).get(name)
        if node is None or (isinstance(node, ast.ImportFrom) and node.module == "__future__"):
            return None
        if isinstance(node, ast.Import):
            alias = next(a for a in node.names if (a.asname or a.name.split(".")[0]) == name)
            if self._is_ours(node):
                raise Unwritable(f"{module.__name__} uses {alias.name} as a whole: a file without it cannot")
            self.imports[f"import {alias.name}" + (f" as {alias.asname}" if alias.asname else "")] = None
            return None
        if isinstance(node, ast.ImportFrom):
            return self._imported(module, node, name)
        key = (module.__name__, name)
        if key not in self._names:
            self._names[key] = self.fresh(name)
            if name in STANDS_FOR:
                self.texts.append(STANDS_FOR[name])
            else:
                self._define(module, node, self._names[key], {})
        return self._names[key]

    def _is_ours(self, origin: str | ast.Import | ast.ImportFrom) -> bool:
        """Whether a module's text is carried, by its name or by the statement that imports it."""
        if isinstance(origin, ast.Import):
            origin = origin.names[0].name
        elif isinstance(origin, ast.ImportFrom):
            origin = __name__ if origin.level else origin.module or ""
        return origin.split(".")[0] in self.packages

    def _imported(self, module: ModuleType, node: ast.ImportFrom, name: str) -> str | None:
        """Carry what a module got under `name` from another one."""
        alias = next(a for a in node.names if (a.asname or a.name) == name)
        if not self._is_ours(node):
            self.imports[f"from {node.module} import {alias.name}" + (f" as {name}" if alias.asname else "")] = None
            return None
        origin = module_of(module, node)
        if isinstance(getattr(origin, alias.name, None), ModuleType):
            return None  # the attribute that is read from it is carried
        return self._reference(origin, alias.name)


def literal(array: np.ndarray) -> str:
    """A small array, written out."""
    if array.size and bool((array == array.flat[0]).all()) and array.ndim:
        return f"np.full({array.shape}, {_number(array.flat[0].item())}, np.{array.dtype})"
    shape = f".reshape({array.shape})" if array.ndim > 1 else ""
    return f"np.array({_number(array.reshape(-1).tolist() if array.ndim else array.item())}, np.{array.dtype}){shape}"


def _number(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_number, value))}]"
    return f'float("{value}")' if isinstance(value, float) and not np.isfinite(value) else repr(value)


def implementation(rec: Record) -> tuple[Any, bool]:
    """What computes a record with NumPy alone on the tier `array`, and whether it gives several values.

    This is `rec.by_hand[np.ndarray]` without the wrapping that only the engine needs.
    """
    if rec.kind not in ("fused", "random"):
        return array_function(rec, np) or partial(rec.forward, np), rec.multiple
    ops = raw_ops(np.ndarray)
    if rec.fast and rec.by_hand[np.ndarray] is not None:
        return partial(rec.fast, ops), rec.multiple or bool(rec.residuals)
    return partial(rec.forward, ops), rec.multiple or (bool(rec.residuals) and rec.kind == "random")


def _is_backend(node: ast.AST) -> bool:
    """Whether an expression is `backend`, `….backend`, `backend_of(…)` or `get_backend(…)`."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in STANDS_FOR
    return getattr(node, "attr", getattr(node, "id", None)) == "backend"


def _closed(text: str) -> str:
    """An expression for one `return`: in brackets if it has several lines, and those moved to where it stands."""
    first, *rest = text.split("\n")
    rest = ["    " + line for line in inspect.cleandoc("\n" + "\n".join(rest)).split("\n")] if rest else []
    text = "\n".join([first, *rest])
    return text if not rest or first[-1] in "[({" else f"({text})"


def _indented(text: str) -> str:
    return "\n".join("    " + line if line else line for line in text.splitlines()) + "\n"
