"""How an error reaches the user: with the path of the module it passed through, and without the framework's frames.

An exception that leaves `Module.__call__` learns one name on every level, so that the outermost module leaves the whole
path in it, `encoder.layer.3.attention`. Nothing here runs unless something failed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..autograd_core.errors import full_traceback, is_ours, users_part

if TYPE_CHECKING:
    from .module import Module


def refusal(kind: type[Exception], text: str) -> Exception:
    """An error whose text says everything: passing through modules it gets their path in front."""
    error = kind(text)
    error.explained = True  # type: ignore[attr-defined]
    return error


def located(error: Exception, module: Module) -> Exception:
    """`error` as it leaves a call of `module`: its path one name longer, its traceback without our frames."""
    _extend_path(error, module)
    return trimmed(error)


def trimmed(error: Exception) -> Exception:
    """`error` without our frames, but the first below each of the user's."""
    return error if full_traceback() else error.with_traceback(users_part(error.__traceback__))


def nearest(name: str, names: Iterable[str]) -> str:
    """The names that are spelled most like `name`, as the end of a sentence; empty where none is."""
    import difflib

    close = difflib.get_close_matches(name, list(names), 3, 0.65)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""


def _extend_path(error: Exception, module: Module) -> None:
    inner, path, text = getattr(error, "passed", (None, "", None))
    if inner is None:
        text = error.args[0] if _has_our_text(error) else None
        kind = type(module).__name__
    else:
        kind = path.rpartition(" (")[2].rstrip(")")
        path = path.rpartition(" (")[0]
        name = next((n for n, m in module.named_modules() if m is inner), None)
        path = f"{name}.{path}".rstrip(".") if name else path
    where = f"{path} ({kind})"
    error.passed = (module, where, text)  # type: ignore[attr-defined]
    shown = where if path else kind
    if text is not None:
        error.args = (f"{shown}: {text}",)
        return
    notes = [n for n in getattr(error, "__notes__", ()) if not n.startswith(_NOTE)]
    error.__notes__ = [*notes, f"{_NOTE}{shown}"]


_NOTE = "in the module "


def _has_our_text(error: Exception) -> bool:
    """Only a text of ours is rewritten: what stands in another error's arguments is its maker's business."""
    if len(error.args) != 1 or not isinstance(error.args[0], str):
        return False
    deepest = error.__traceback__
    while deepest is not None and deepest.tb_next is not None:
        deepest = deepest.tb_next
    raised_here = deepest is not None and is_ours(deepest.tb_frame.f_globals.get("__name__", ""))
    return getattr(error, "explained", False) or (
        raised_here and type(error) in (ValueError, TypeError, IndexError, RuntimeError)
    )
