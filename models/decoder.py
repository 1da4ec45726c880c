"""A language model that reads: a prompt in one go, then one token after the other.

What attention needs of the tokens before, their keys and values, is kept in a cache of fixed size, so that each step
computes one token only, and one compiled program does all steps.

Prompts of different lengths are padded on the left: then all end at the same place, and the next token of each comes
next. The padding is masked out, and the places that the model counts start behind it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd_core.compile import compile as compiled
from ..autograd_core.context import use_backend
from ..autograd_core.tensor import Tensor, asarray
from ..nn import Module


class Decoder:
    """A model with a cache for N sequences of up to `room` tokens, and the step that reads one token of each.

    Its calls belong under `no_grad`, and the model in evaluation mode. Where the room is used up, it forgets the older
    half and reads the other one again.

    Args:
        model: one with `new_cache`, such as GPT2LMHeadModel.
        batch: how many sequences. room: tokens of each, at most the places of the model.

    Example:
        >>> import numpy as np
        >>> import retrograd as rg
        >>> from retrograd.models import GPT2Config, GPT2LMHeadModel
        >>> from retrograd.models.decoder import Decoder
        >>> model = GPT2LMHeadModel(GPT2Config(vocab_size=9, n_positions=8, n_embd=8, n_layer=1, n_head=2)).eval()
        >>> decoder = Decoder(model, batch=1, room=8)
        >>> with rg.no_grad():
        ...     scores = decoder.read_prompts(np.array([[2, 5]]), np.ones((1, 2), int))
        ...     scores = decoder.read_next(scores.argmax(axis=1))
        >>> scores.shape
        (1, 9)
    """

    def __init__(self, model: Any, batch: int, room: int) -> None:
        self.batch, self.room, self.half = batch, room, max(room // 2, 1)
        self.backend, self.dtype = _kind(model)
        cache = model.new_cache(batch, room)

        def read(tokens: Tensor, mask: Tensor, places: Tensor, position: Any) -> Tensor:
            out = model(tokens, mask, places, cache=cache, cache_position=position, logits_to_keep=1)
            return out.logits[:, -1]

        self.read, self.program = read, compiled(read)

    def read_prompts(self, prompts: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Scores of the first new token of each row, (N, V), after the prompts (N, T); of long ones the last half."""
        if prompts.shape[1] > self.room:
            prompts, mask = prompts[:, -self.half :], mask[:, -self.half :]
        length = prompts.shape[1]
        self.tokens, self.seen = (np.pad(array, [(0, 0), (0, self.room - length)]) for array in (prompts, mask))
        self.seen[:, length:] = 1
        self.mask, self.position = self._tensor(self.seen), length
        places = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
        self.place = places[:, -1:] + 1
        return self._host(self.read(self._tensor(prompts), self.mask, self._tensor(places), 0))

    def read_next(self, tokens: np.ndarray, compile: bool = True) -> np.ndarray:
        """Scores of the token after `tokens` (N,), which stand behind all that was read: (N, V)."""
        if self.position == self.room:
            kept = np.concatenate([self.tokens[:, -self.half + 1 :], tokens[:, None]], axis=1)
            return self.read_prompts(kept, np.pad(self.seen[:, -self.half + 1 :], [(0, 0), (0, 1)], constant_values=1))
        self.tokens[:, self.position] = tokens
        read = self.program if compile else self.read
        logits = read(*map(self._tensor, (tokens[:, None], self.mask, self.place, np.int64(self.position))))
        self.position += 1
        self.place = self.place + 1
        return self._host(logits)

    def fits(self, model: Any, batch: int, room: int) -> bool:
        """Whether it is one for such a call."""
        return (self.batch, self.room, self.backend, self.dtype) == (batch, room, *_kind(model))

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return type(None), ()  # a model that is copied or pickled goes without

    def _tensor(self, array: Any) -> Tensor:
        if isinstance(array, Tensor):
            return array
        with use_backend(self.backend):
            return asarray(array)

    def _host(self, logits: Tensor) -> np.ndarray:
        return self.backend.to_numpy(logits.array)


def _kind(model: Module) -> tuple[Any, np.dtype]:
    parameter = next(model.parameters())
    return parameter.backend, parameter.dtype
