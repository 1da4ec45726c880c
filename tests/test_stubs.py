"""The type stubs name everything that is there. That they are fresh to the letter, `.ci/stubs.py --check` says."""

import ast
import runpy
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import retrograd as rg
from retrograd.autograd_core import tensor

FACE = Path(rg.__file__).with_suffix(".pyi")
TENSOR = Path(tensor.__file__).with_suffix(".pyi")  # an editable installation has it not below the other
GENERATOR = Path(__file__).parent.parent / ".ci" / "stubs.py"


def generator() -> dict[str, Any]:
    """What the program that writes the stubs defines; it is read anew, and leaves no compiled file."""
    return runpy.run_path(str(GENERATOR))


def class_body() -> list[ast.stmt]:
    """What the stub says of Tensor."""
    body = ast.parse(TENSOR.read_text(encoding="utf-8")).body
    (found,) = [node for node in body if isinstance(node, ast.ClassDef) and node.name == "Tensor"]
    return found.body


def names(body: list[ast.stmt]) -> set[str]:
    """What statements define for the world outside: an import counts only under its own name, as type checkers rule."""
    found = set()
    for node in body:
        if isinstance(node, ast.ImportFrom):
            found |= {alias.name for alias in node.names if alias.asname == alias.name}
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.AnnAssign):
            found.add(ast.unparse(node.target))
        elif isinstance(node, ast.Assign):
            found |= {ast.unparse(target) for target in node.targets}
    return found


def test_every_public_name_of_the_module_is_in_its_stub():
    tools = ("typing", "__future__")  # what the module itself needs
    public = {
        name
        for name, value in vars(rg).items()
        if not name.startswith("_")
        and not isinstance(value, ModuleType)
        and getattr(value, "__module__", "") not in tools
    }
    stub = names(ast.parse(FACE.read_text(encoding="utf-8")).body)
    assert len(public) > 100
    assert public - stub == set()
    assert {"nn", "optim", "data", "train", "testing", "backends", "functional_call", "__version__"} <= stub


def test_the_stub_of_the_module_names_nothing_that_is_not_there():
    stub = names(ast.parse(FACE.read_text(encoding="utf-8")).body)
    assert [name for name in sorted(stub) if not hasattr(rg, name)] == []


def test_every_attribute_of_a_tensor_is_in_its_stub():
    stub = names(class_body())
    public = {name for name in vars(rg.Tensor) if not name.startswith("_")}
    operators = {name for name in vars(rg.Tensor) if callable(getattr(int, name, None) or getattr(list, name, None))}
    assert len(public) > 80
    assert public - stub == set()
    assert {"__add__", "__rtruediv__", "__getitem__", "__iadd__"} <= operators
    assert operators - stub == set()


def test_the_stub_of_tensor_names_nothing_that_is_not_there():
    assert [name for name in sorted(names(class_body())) if not hasattr(rg.Tensor, name)] == []


@pytest.mark.parametrize("name", ["autograd_core/tensor.pyi", "api/__init__.pyi"])
def test_writing_the_stubs_twice_gives_the_same_text(name):
    stubs = generator()["STUBS"]
    once = stubs[name]()
    assert once == stubs[name]()
    assert once == generator()["STUBS"][name]()
    compile(once, name, "exec")
    defined = names(ast.parse(once).body)
    assert "Tensor" in defined


def test_a_record_gives_typed_parameters():
    parameters, record = (generator()[name] for name in ("parameters", "REGISTRY"))
    assert parameters(record["exp"]) == ["x: TensorLike", "/"]
    assert parameters(record["sum"]) == [
        "x: TensorLike",
        "axis: int | tuple[int, ...] | None = None",
        "keepdims: bool = False",
    ]
    assert parameters(record["linear"])[-1] == "bias: TensorLike | None = None"
    assert parameters(record["argmax"])[1] == "axis: int | None = None"
    assert parameters(record["getitem"])[1:] == ["*indices: TensorLike", "template: Any"]


def test_a_builtin_type_hidden_by_a_method_is_spelled_out():
    (method,) = [node for node in class_body() if isinstance(node, ast.FunctionDef) and node.name == "__float__"]
    assert method.returns is not None
    assert ast.unparse(method.returns) == "builtins.float"
