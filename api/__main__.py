"""`retrograd …` and `python -m retrograd …`: every command in one table."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module

# command → (module with a main(argv) that returns an exit code, what it does)
COMMANDS: dict[str, tuple[str, str]] = {
    "doctor": (
        "retrograd.testing.doctor",
        "what is installed, which backends work and why the others do not; --gpu checks a device",
    ),
    "fetch": ("retrograd.data.fetch", "get a data set or checkpoint by name into a folder that you name"),
    "finetune": ("retrograd.train.finetune", "teach a published BERT to sort texts into classes, by a table of yours"),
    "predict": ("retrograd.train.predict", "the class of each text in a table, by a model that finetune made"),
    "generate": ("retrograd.train.generate", "go on with a text: a language model writes, token by token"),
}


def main(argv: list[str] | None = None) -> int:
    """Run the command named by the first argument; gives the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: retrograd COMMAND …\n")
        for name, (_, text) in COMMANDS.items():
            print(f"  {name:10} {text}")
        return 0 if arguments else 2
    if arguments[0] not in COMMANDS:
        print(f"retrograd: no command {arguments[0]!r}; there are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    run: Callable[[list[str]], int] = import_module(COMMANDS[arguments[0]][0]).main
    return run(arguments[1:])


if __name__ == "__main__":
    sys.exit(main())
