"""Run the examples in the docstrings of the installed package.

    python .ci/doctests.py [module ...]

An example that imports retrograd is for users: it runs as if typed into a fresh interpreter. The others show internal
functions and see the names of their module.

pytest's own collection is not used, because it may import a module a second time under another name. Functions that
are made from operation records live in no module's source, so everything reachable from a module's names is looked at.
"""

import doctest
import importlib
import pkgutil
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import retrograd


def module_names() -> list[str]:
    """All modules of the installed package but those that are run as programs."""
    found = [m.name for m in pkgutil.walk_packages(retrograd.__path__, "retrograd.")]
    return ["retrograd"] + [name for name in found if not name.endswith("__main__")]


def documented(thing: Any, seen: set[int]) -> Iterator[Any]:
    """What has examples, of a module or class and of what it contains, whatever made it."""
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if ">>>" in (getattr(thing, "__doc__", None) or ""):
        yield thing
    if isinstance(thing, type | ModuleType):
        for value in list(vars(thing).values()):
            value = getattr(value, "__func__", value)  # of a class or static method
            if not isinstance(value, ModuleType) and home(value).split(".")[0] == "retrograd":
                yield from documented(value, seen)


def home(value: Any) -> str:
    """The module that defines a function, class or property; "" for what is none of these."""
    if isinstance(value, ModuleType):
        return value.__name__
    value = value.fget if isinstance(value, property) else value
    return str(getattr(value, "__module__", "")) if callable(value) else ""


def name_of(thing: Any) -> str:
    """Where a reader finds it."""
    inner = thing.fget if isinstance(thing, property) else thing
    return home(thing) + ("" if isinstance(thing, ModuleType) else f".{inner.__qualname__}")


def names_for(thing: Any) -> dict[str, Any]:
    """What an example can use without importing it."""
    if "import retrograd" in thing.__doc__:
        return {"__name__": "__main__"}
    return dict(vars(sys.modules[home(thing)]))


def main(names: list[str]) -> int:
    """Run them all; returns the exit code."""
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    seen: set[int] = set()
    texts: set[str] = set()
    for module in names or module_names():
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError as error:  # an extra that is not installed is no failure, a module of ours is one
            if (error.name or "").partition(".")[0] == "retrograd":
                raise
            print(f"{module} is left out: {error.name} is not installed")
            continue
        for thing in documented(found, seen):
            if thing.__doc__ not in texts:  # an operation is a function, a method and an operator with one text
                texts.add(thing.__doc__)
                runner.run(parser.get_doctest(thing.__doc__, names_for(thing), name_of(thing), None, None))
    failed, tried = runner.summarize(verbose=False)
    print(f"{tried} examples in {len(texts)} docstrings, {failed} failed")
    return 1 if failed or not tried else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
