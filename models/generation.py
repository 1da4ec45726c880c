"""Text from a language model: the prompt is read in one go, then one token after the other is chosen and read.

Reading is the model's part (`decoder`), choosing happens on the host (`sampling`); here is what goes on between them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import numpy as np

from ..autograd_core.context import no_grad
from ..autograd_core.operations.random import Generator, default_generator
from ..backends import random
from ..nn import Module
from . import sampling
from .decoder import Decoder
from .text_stream import TextStream

Reason = Literal["length", "stop_id", "stop_string"]
ROOM = 64  # caches grow in steps of so many tokens, so that prompts of about one length share a program


class Generated(NamedTuple):
    """What came after N prompts.

    Attributes:
        tokens: for each prompt the numbers of the new tokens; the one that ended it, if one did, is the last.
        texts: for each prompt the new text, up to and without the stop string; None where no `decode` was given.
        reasons: why each ended: "length" (max_new_tokens), "stop_id" or "stop_string".
    """

    tokens: list[list[int]]
    texts: list[str] | None
    reasons: list[Reason]


def generate(
    model: Module,
    input_ids: Any,
    attention_mask: Any = None,
    *,
    max_new_tokens: int,
    token_type_ids: Any = None,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float = 1.0,
    stop_ids: int | Sequence[int] | None = None,
    stop: Sequence[str] | None = None,
    decode: Callable[[list[int]], str] | None = None,
    stream: Callable[[int, Any], Any] | None = None,
    seed: int | None = None,
    generator: Generator | None = None,
    slide: bool = False,
    compile: bool = True,
) -> Generated:
    """Continue prompts with a causal language model.

    Args:
        model: such as GPT2LMHeadModel: one with `new_cache`. Dropout is switched off meanwhile.
        input_ids: (N, T) token numbers, or (T,) for one prompt; shorter prompts padded on the left.
        attention_mask: (N, T), 1 for tokens and 0 for padding; None: there is no padding.
        token_type_ids: not read; here so that all that a tokenizer gives may be handed on. (GPT-2's own gives none to
            transformers, where the model would add the embeddings of words 0 and 1.)
        max_new_tokens: how many tokens to make at most; with the prompt no more than the model has places for, unless
            it may `slide`.
        temperature: 0 takes the likeliest token each time (greedy); otherwise tokens are drawn by their probability
            after division of the scores by it: 1 as the model says, lower is safer.
        top_k: draw among the k likeliest tokens. top_p: among the likeliest that have this probability together.
        repetition_penalty: above 1 makes tokens less likely that were there before, in the prompt too.
        stop_ids: tokens at which a text ends, such as the tokenizer's eos_token_id; None where there is none.
        stop: strings at which it ends; needs `decode`.
        decode: gives the text of a list of token numbers, such as `tokenizer.decode`.
        stream: called as soon as something is there, with the number of the prompt and the new text, or without
            `decode` the new token.
        seed: of the draws; the same seed gives the same text. generator: draws from its stream instead; with neither
            they come from the default stream, see `rg.manual_seed`.
        slide: where the model's places are used up, go on with the latest half of the text as the prompt; what was
            before is forgotten.
        compile: run the steps as one compiled program, made at the first call and kept for the next with as many
            prompts of about the same length; False runs them eagerly.
    Raises:
        TypeError, ValueError: arguments that are out of range or do not fit, or more tokens than the model has places.

    Example:
        >>> import retrograd as rg
        >>> from retrograd.models import GPT2Config, GPT2LMHeadModel, generate
        >>> _ = rg.manual_seed(0)
        >>> model = GPT2LMHeadModel(GPT2Config(vocab_size=9, n_positions=32, n_embd=8, n_layer=1, n_head=2))
        >>> out = generate(model, [[2, 5, 3]], max_new_tokens=6, temperature=1.0, seed=0)
        >>> len(out.tokens[0]), out.reasons
        (6, ['length'])
        >>> tokenizer = rg.data.CharTokenizer.from_text("to be or not: i")
        >>> prompts = tokenizer(["to be", "not"], padding_side="left")
        >>> out = generate(model, **prompts, max_new_tokens=6, decode=tokenizer.decode)
        >>> [len(text) for text in out.texts]
        [6, 6]
    """
    prompts, mask = _prompts(input_ids, attention_mask)
    stop = () if stop is None else stop
    _check(model, temperature, top_k, top_p, repetition_penalty, max_new_tokens, stop, decode)
    places = model.config.max_position_embeddings
    if not slide:
        _check_length(prompts.shape[1], max_new_tokens, places)
    stop_ids = () if stop_ids is None else (stop_ids,) if isinstance(stop_ids, int) else stop_ids
    rows = [
        _Row(i, ids[seen == 1], stop_ids, stop, decode, stream)
        for i, (ids, seen) in enumerate(zip(prompts, mask, strict=True))
    ]
    uniform = _uniform(len(rows), seed, generator)
    room = min(-(-(prompts.shape[1] + max_new_tokens) // ROOM) * ROOM, places)
    with _evaluating(model), no_grad(), _decoder(model, len(rows), room) as decoder:
        logits = decoder.read_prompts(prompts, mask)
        for step in range(max_new_tokens):
            if repetition_penalty != 1:
                logits = sampling.penalize_repetition(logits, [row.seen for row in rows], repetition_penalty)
            chosen = _choose(logits, temperature, top_k, top_p, uniform)
            for row, token in zip(rows, chosen.tolist(), strict=True):
                row.push(token)
            if step == max_new_tokens - 1 or all(row.reason for row in rows):
                break
            logits = decoder.read_next(chosen, compile)
    for row in rows:
        row.finish()
    texts = None if decode is None else [row.text.text for row in rows if row.text is not None]
    return Generated([row.tokens for row in rows], texts, [row.reason or "length" for row in rows])


# -- choosing ---------------------------------------------------------------------------------------------------------


def _choose(
    logits: np.ndarray, temperature: float, top_k: int | None, top_p: float | None, uniform: Callable[[], np.ndarray]
) -> np.ndarray:
    """The next token of each row, (N,) int64."""
    if not np.isfinite(logits.max(axis=-1)).all():
        raise ValueError("the model gave scores that are not finite: its weights are damaged, or training diverged")
    if temperature == 0:
        return sampling.greedy(logits)
    logits = sampling.apply_temperature(logits, temperature)
    if top_k is not None:
        logits = sampling.keep_top_k(logits, top_k)
    if top_p is not None:
        logits = sampling.keep_top_p(logits, top_p)
    return sampling.draw(logits, uniform())


def _uniform(n: int, seed: int | None, generator: Generator | None) -> Callable[[], np.ndarray]:
    """A function that gives n new numbers in [0, 1) at each call."""
    if seed is not None and generator is not None:
        raise TypeError("give a seed or a generator, not both")
    source = generator or (default_generator() if seed is None else Generator(seed))
    return lambda: random.uniform(**source.reserve(n), shape=(n,), dtype=np.float64)


class _Row:
    """One sequence: its tokens, whether it has ended and why, and what is shown of it."""

    def __init__(
        self,
        number: int,
        prompt: np.ndarray,
        stop_ids: Sequence[int],
        stop: Sequence[str],
        decode: Callable[[list[int]], str] | None,
        stream: Callable[[int, Any], Any] | None,
    ) -> None:
        self.number, self.stream = number, stream
        self.tokens: list[int] = []
        self.seen: list[int] = prompt.tolist()
        self.reason: Reason | None = None
        self.stop_ids = frozenset(stop_ids)
        self.text = None if decode is None else TextStream(decode, stop)

    def push(self, token: int) -> None:
        if self.reason:
            return
        self.tokens.append(token)
        self.seen.append(token)
        if token in self.stop_ids:
            self.reason = "stop_id"
            return
        if self.text is None:
            self._show(token)
            return
        self._show(self.text.push(token))
        if self.text.stopped:
            self.reason = "stop_string"

    def finish(self) -> None:
        if self.text is not None:
            self._show(self.text.finish())

    def _show(self, piece: Any) -> None:
        if self.stream is not None and piece != "":
            self.stream(self.number, piece)


# -- the model meanwhile ----------------------------------------------------------------------------------------------


@contextmanager
def _decoder(model: Module, batch: int, room: int) -> Iterator[Decoder]:
    """The decoder that the model's latest call left, if it serves this one too: its program is ready.

    It is taken from the model meanwhile: a call in another thread makes its own.
    """
    known = vars(model).pop("_decoder", None)
    decoder = known if known is not None and known.fits(model, batch, room) else Decoder(model, batch, room)
    yield decoder
    vars(model)["_decoder"] = decoder


@contextmanager
def _evaluating(model: Module) -> Iterator[None]:
    """The model in evaluation mode, and when the last of the calls that use it is done, every module as it was."""
    with _lock:
        calls, training = _in_use.get(id(model), (0, []))
        if not calls:
            training = [module for module in model.modules() if module.training]
            model.eval()
        _in_use[id(model)] = calls + 1, training
    try:
        yield
    finally:
        with _lock:
            calls, training = _in_use.pop(id(model))
            if calls > 1:
                _in_use[id(model)] = calls - 1, training
            else:
                for module in training:
                    module.training = True


_lock = threading.Lock()
_in_use: dict[int, tuple[int, list[Module]]] = {}  # id of a model → how many calls, and what was in training mode


# -- arguments --------------------------------------------------------------------------------------------------------


def _prompts(input_ids: Any, attention_mask: Any) -> tuple[np.ndarray, np.ndarray]:
    """Prompts and mask as (N, T) int64 on the host."""
    try:
        ids = _array(input_ids)
        mask = np.ones_like(ids) if attention_mask is None else _array(attention_mask)
    except ValueError:
        raise ValueError(
            "the prompts have different lengths: pad them on the left, tokenizer(texts, padding_side='left'), and give "
            "the attention_mask"
        ) from None
    if ids.ndim != 2 or not ids.size or ids.dtype.kind not in "iu":
        raise ValueError(
            f"expected token numbers (N, T), at least one for each prompt, got {ids.dtype} of shape {ids.shape}"
        )
    if mask.shape != ids.shape:
        raise ValueError(f"expected an attention_mask of the tokens' shape {ids.shape}, got {mask.shape}")
    mask = (mask != 0).astype(np.int64)
    if not mask[:, -1].all() or (np.diff(mask, axis=1) < 0).any():
        raise ValueError("prompts must be padded on the left: tokenizer(texts, padding_side='left')")
    return ids.astype(np.int64), mask


def _array(values: Any) -> np.ndarray:
    array = np.asarray(values.numpy() if hasattr(values, "numpy") else values)
    return array[None] if array.ndim == 1 else array


def _check(
    model: Module,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    repetition_penalty: float,
    max_new_tokens: int,
    stop: Sequence[str],
    decode: Callable[[list[int]], str] | None,
) -> None:
    if not hasattr(model, "new_cache"):
        raise TypeError(
            "generate needs a causal language model with new_cache, such as GPT2LMHeadModel, got "
            f"{type(model).__name__}"
        )
    whole, number = (int, np.integer), (int, float, np.number)
    for name, value, kind, good, expected in (
        ("max_new_tokens", max_new_tokens, whole, lambda v: v >= 1, "a whole number of at least 1"),
        ("temperature", temperature, number, lambda v: 0 <= v < np.inf, "0 (greedy) or more"),
        ("top_k", top_k, (*whole, type(None)), lambda v: v is None or v >= 1, "a whole number of at least 1"),
        ("top_p", top_p, (*number, type(None)), lambda v: v is None or 0 < v <= 1, "above 0 and at most 1"),
        ("repetition_penalty", repetition_penalty, number, lambda v: 0 < v < np.inf, "above 0"),
    ):
        if not isinstance(value, kind) or not good(value):
            raise ValueError(f"{name} must be {expected}, got {value!r}")
    if isinstance(stop, str):
        raise TypeError(f"stop is a list of strings, got the text {stop!r}; write [{stop!r}]")
    if not all(stop):
        raise ValueError("a stop string must not be empty")
    if stop and decode is None:
        raise TypeError("stop strings need decode=…, which gives the text of token numbers, such as tokenizer.decode")


def _check_length(length: int, new: int, places: int) -> None:
    if length + new > places:
        raise ValueError(
            f"a prompt of {length} tokens and {new} new ones are more than the {places} places that the model has: at "
            f"most {max(places - length, 0)} can follow, or say slide=True to let it forget the beginning"
        )
