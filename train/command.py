"""How every `retrograd …` command ends: 0, or one line that says what was wrong and an exit code that is not 0."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
import warnings
from collections.abc import Callable

INTERRUPTED = 130
TABLE = "the table, UTF-8: .csv or .tsv, first row with the names; or .jsonl, an object per line"
KNOWN = (OSError, ValueError, TypeError, RuntimeError, FloatingPointError, ImportError, IndexError)


def add_debug(parser: argparse.ArgumentParser) -> None:
    """The option that shows the traceback of an error."""
    parser.add_argument("--debug", action="store_true", help="show the whole traceback of an error")


def run(name: str, work: Callable[[argparse.Namespace], int | None], options: argparse.Namespace) -> int:
    """Do a command's work; gives its exit code. Warnings are shown as lines too.

    Args:
        name: what the line of an error begins with, such as "retrograd generate".
        work: called with the options; gives an exit code, None is 0.
        options: with an entry `debug`.
    """
    shown = warnings.formatwarning

    def one_line(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        return f"{name}: {' '.join(str(message).split())}\n"

    if not options.debug:
        warnings.formatwarning = one_line
    try:
        return work(options) or 0
    except KeyboardInterrupt:
        sys.stderr.write(f"\n{name}: interrupted\n")
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has enough; the interpreter would complain again when it closes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if options.debug:
            traceback.print_exc()
        else:
            sys.stderr.write(f"{name}: {_one_line(error)}\n")
        return 1
    finally:
        warnings.formatwarning = shown


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    # What no one thought of says little without its kind, and a way to learn more.
    known = isinstance(error, KNOWN)
    return text if known else f"{type(error).__name__}: {text} (--debug shows where)"
