"""`retrograd generate --model DIR --prompt TEXT`: a language model goes on with a text, as it comes."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from . import command

NAME = "retrograd generate"
LENGTH = 200


def main(argv: list[str] | None = None) -> int:
    """Read the options, write prompt and continuation to the standard output; 0, or 1 with one line of error."""
    parser = argparse.ArgumentParser(
        prog=NAME,
        description="Go on with a text. The folder holds a GPT-2 (config.json, model.safetensors) and its tokenizer: "
        "tokenizer.json, vocab.json with merges.txt, or a vocab.json of characters.",
    )
    add = parser.add_argument
    add("--model", metavar="DIR", required=True, help="the folder with the model")
    add("--prompt", metavar="TEXT", required=True, help="the beginning of the text")
    add("--max-new-tokens", metavar="N", type=int, default=LENGTH, help=f"tokens to make at most (default {LENGTH})")
    add("--temperature", metavar="T", type=float, default=0.0, help="0 takes the likeliest token (default), 1 draws")
    add("--top-k", metavar="K", type=int, help="draw among the K likeliest tokens")
    add("--top-p", metavar="P", type=float, help="draw among the likeliest tokens of probability P together")
    add("--repetition-penalty", metavar="R", type=float, default=1.0, help="above 1: fewer repetitions (default 1)")
    add("--stop", metavar="TEXT", action="append", default=[], help="end at this text; may be given several times")
    add("--seed", metavar="N", type=int, help="of the draws: the same seed gives the same text")
    add("--no-compile", action="store_true", help="run step by step, not as a compiled program")
    command.add_debug(parser)
    return command.run(NAME, _generate, parser.parse_args(argv))


def _generate(options: argparse.Namespace) -> None:
    from ..data import load_tokenizer
    from ..models import GPT2LMHeadModel, generate

    if not options.prompt:
        raise ValueError("--prompt is empty: give the beginning of the text, one character at least")
    tokenizer = load_tokenizer(options.model)
    prompt = tokenizer(options.prompt)["input_ids"]
    model = GPT2LMHeadModel.from_pretrained(options.model, strict=True)  # with weights missing it would talk nonsense
    if tokenizer.vocab_size > model.config.vocab_size:
        raise ValueError(
            f"{options.model}: the tokenizer has {tokenizer.vocab_size} tokens and the model "
            f"{model.config.vocab_size}: they do not belong together"
        )
    beginning = iter([options.prompt])  # shown when the first token is there: an error is then no longer likely

    def show(row: int, piece: str) -> None:
        sys.stdout.write(next(beginning, "") + piece)
        sys.stdout.flush()

    generate(
        model,
        prompt,
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        repetition_penalty=options.repetition_penalty,
        stop_ids=_ends(tokenizer, model.config),
        stop=options.stop,
        decode=tokenizer.decode,
        stream=show,
        seed=options.seed,
        slide=True,
        compile=not options.no_compile,
    )
    show(0, "\n")


def _ends(tokenizer: Any, config: Any) -> list[int]:
    """The tokens at which a text ends: the tokenizer's, or those that the config names."""
    named = config.eos_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id
    listed = named if isinstance(named, list) else [named]
    # A config may still name the end of GPT-2's own vocabulary, which a smaller one does not have.
    return [end for end in listed if end is not None and end < config.vocab_size]
