"""How commands end: their exit code, and one line for an error or a warning."""

import argparse
import warnings
from collections.abc import Callable

import pytest
from retrograd.train import command


def ended(work: Callable, debug: bool = False) -> int:
    return command.run("retrograd work", work, argparse.Namespace(debug=debug))


def raises(error: BaseException) -> Callable:
    def work(options: argparse.Namespace) -> None:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("two\nlines"), "two lines"),
        (OSError(28, "No space left on device", "a/b"), "a/b: No space left on device"),
        (FloatingPointError("the loss is nan"), "the loss is nan"),
        (ValueError(), "ValueError"),
        (KeyError("x"), "KeyError: 'x' (--debug shows where)"),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero (--debug shows where)"),
    ],
)
def test_an_error_is_one_line(capsys: pytest.CaptureFixture[str], error: Exception, line: str) -> None:
    assert ended(raises(error)) == 1
    assert capsys.readouterr() == ("", f"retrograd work: {line}\n")
    assert ended(raises(error), debug=True) == 1
    assert capsys.readouterr().err.startswith("Traceback")


def test_a_warning_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def work(options: argparse.Namespace) -> None:
        warnings.warn("damaged,\npassed over", UserWarning, stacklevel=1)

    before = warnings.formatwarning
    for debug, expected in ((False, "retrograd work: damaged, passed over\n"), (True, "test_command.py:")):
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            # pytest keeps warnings to itself; here they go where they go without it.
            warnings.showwarning = lambda *details: __import__("sys").stderr.write(warnings.formatwarning(*details[:4]))
            assert ended(work, debug) == 0
        assert expected in capsys.readouterr().err
    assert warnings.formatwarning is before


def test_an_interruption(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(raises(KeyboardInterrupt())) == command.INTERRUPTED == 130
    assert capsys.readouterr().err == "\nretrograd work: interrupted\n"
