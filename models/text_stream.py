"""A text that comes token by token: what may be shown already, and where it ends.

A token can be a part of a character, and the end of what is there can be the beginning of a stop string. Both are held
back until more is known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

_INCOMPLETE = "\ufffd"  # what decoders give for bytes that are no character yet


class TextStream:
    """The growing text of one sequence.

    Args:
        decode: gives the text of a list of token numbers.
        stop: strings at which the text ends; they are not part of it.

    Attributes:
        tokens: what was pushed. text: what may be shown so far. stopped: whether a stop string came.

    >>> from retrograd.models import TextStream
    >>> stream = TextStream(lambda ids: "".join(map(chr, ids)), stop=["END"])
    >>> [stream.push(ord(letter)) for letter in "an E? END!"]
    ['a', 'n', ' ', '', 'E?', ' ', '', '', '', '']
    >>> stream.text, stream.stopped
    ('an E? ', True)
    """

    def __init__(self, decode: Callable[[list[int]], str], stop: Sequence[str] = ()) -> None:
        self.decode, self.stop = decode, tuple(stop)
        self.tokens: list[int] = []
        self.text = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """Take the next token; gives the text that may be shown now beyond what was."""
        self.tokens.append(token)
        return "" if self.stopped else self._show(final=False)

    def finish(self) -> str:
        """There is no more: gives what was held back."""
        return "" if self.stopped else self._show(final=True)

    def _show(self, final: bool) -> str:
        whole = self.decode(self.tokens)
        ends = [place for stop in self.stop if (place := whole.find(stop)) >= 0]
        self.stopped = bool(ends)
        if ends:
            shown = whole[: min(ends)]
        elif final:
            shown = whole
        else:
            shown = whole.rstrip(_INCOMPLETE)
            shown = shown[: len(shown) - max((_begun(shown, stop) for stop in self.stop), default=0)]
        piece = shown[len(self.text) :]
        self.text += piece
        return piece


def _begun(text: str, stop: str) -> int:
    """How many characters at the end of a text are the beginning of a stop string."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
