"""From nothing to a language model: a small GPT that reads Shakespeare letter by letter, and then writes.

    retrograd fetch tinyshakespeare --to DIR && export RETROGRAD_DATA=DIR
    python -m retrograd.examples.gpt                       # 2,000 steps, some minutes
    python -m retrograd.examples.gpt --resume              # goes on where it was interrupted, with the same bits
    python -m retrograd.examples.gpt --resume --steps 4000 --lr 1e-3        # what is given anew holds from here on
    python -m retrograd.examples.gpt --data any_text.txt --out my_gpt
    retrograd generate --model gpt_results --prompt "ROMEO:" --temperature 0.8

Read it from the bottom: `main` reads the command line, `run` is the walk, and each step is a function above it. The
sizes are those that nanoGPT gives for a CPU (Karpathy, 2022), the learning rate is three times as high.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import retrograd as rg
from retrograd.autograd_core.text_files import read_json, write_json
from retrograd.data import CharTokenizer, DataLoader, TokenWindows, read_text, tiny_shakespeare
from retrograd.models import GPT2Config, GPT2LMHeadModel, generate
from retrograd.nn import functional as F
from retrograd.train import Callback, Checkpoints, History, Trainer, command, find_checkpoint

NAME = "gpt"
HELD_OUT = 0.1  # the end of the text, for validation
WARM_UP = 100  # steps in which the rate rises; then it falls to a tenth
BETAS, WEIGHT_DECAY, CLIP = (0.9, 0.99), 0.1, 1.0
LOG_EVERY = 25  # steps
SAMPLE, FINAL_SAMPLE, TEMPERATURE = 200, 500, 0.8
OPTIONS = "options.json"  # among the checkpoints: those of the run
FIXED = ("seed", "batch", "context", "layers", "heads", "width")  # what a run that goes on cannot change


# -- the text ---------------------------------------------------------------------------------------------------------


class Text(NamedTuple):
    """A text as batches (tokens, labels), each (B, T): labels are the letters that follow."""

    tokenizer: CharTokenizer
    train: DataLoader
    validation: DataLoader


def read(options: argparse.Namespace) -> Text:
    """Nine tenths of the text in windows that begin anywhere, in random order; the last tenth window after window."""
    text = read_text(options.data) if options.data else tiny_shakespeare()
    split, context = int(len(text) * (1 - HELD_OUT)), options.context
    shortest = math.ceil(max((context + 1) / HELD_OUT, (context + options.batch) / (1 - HELD_OUT))) + 1
    if len(text) < shortest:
        raise ValueError(
            f"{options.data} has {len(text)} characters; windows of {context} in batches of {options.batch} need at "
            f"least {shortest}: give a longer text, or a smaller --context"
        )
    tokenizer = CharTokenizer.from_text(text)
    tokens = np.array(tokenizer.encode(text))
    return Text(
        tokenizer,
        DataLoader(TokenWindows(tokens[:split], context), options.batch, True, options.seed, drop_last=True),
        DataLoader(TokenWindows(tokens[split:], context, stride=context), 64),
    )


# -- the model and how it learns --------------------------------------------------------------------------------------


def new_model(tokenizer: CharTokenizer, options: argparse.Namespace) -> GPT2LMHeadModel:
    """A GPT-2 with random weights, small, and without biases."""
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=tokenizer.vocab_size,
            n_positions=options.context,
            n_embd=options.width,
            n_layer=options.layers,
            n_head=options.heads,
            resid_pdrop=options.dropout,
            embd_pdrop=options.dropout,
            attn_pdrop=options.dropout,
            bias=False,
            bos_token_id=None,
            eos_token_id=None,
        )
    )


def next_letter_loss(model: GPT2LMHeadModel, batch: tuple[rg.Tensor, rg.Tensor]) -> tuple[Any, ...]:
    """(cross-entropy of the scores at every place against the letter that follows, scores, letters)."""
    tokens, labels = batch
    scores = model(tokens).logits
    return F.cross_entropy(scores.reshape(-1, scores.shape[-1]), labels.reshape(-1)), scores, labels


def new_trainer(model: GPT2LMHeadModel, options: argparse.Namespace, callbacks: list[Callback]) -> Trainer:
    """AdamW that lets matrices decay and scales of norms not; the rate rises, and falls along a cosine."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = rg.optim.AdamW(groups, lr=options.lr, betas=BETAS)
    schedule = rg.optim.lr_scheduler.WarmupCosineLR(
        optimizer, min(WARM_UP, options.steps - 1), options.steps, eta_min=options.lr / 10
    )
    return Trainer(
        model,
        optimizer,
        next_letter_loss,
        schedule=schedule,
        clip_grad_norm=CLIP,
        callbacks=[*callbacks, Rate(schedule, options.lr)],
        log=options.out / "log.csv",
        log_every=LOG_EVERY,
        checkpoints=Checkpoints(checkpoint_folder(options), every=options.validate_every),
    )


class Rate(Callback):
    """The rate of this command line, also where a run goes on: its checkpoint brings the one that it was saved with."""

    def __init__(self, schedule: rg.optim.lr_scheduler.LRScheduler, lr: float) -> None:
        self.schedule, self.lr = schedule, lr

    def on_fit_start(self, trainer: Trainer) -> None:
        state = self.schedule.state_dict()
        self.schedule.load_state_dict({**state, "base_lrs": [self.lr] * len(state["base_lrs"])})


def checkpoint_folder(options: argparse.Namespace) -> Path:
    """Where the run is kept, to go on from."""
    return options.out / "checkpoints"


# -- what is shown ----------------------------------------------------------------------------------------------------


class Samples(Callback):
    """After each validation: how many letters a second are learnt from, and what the model writes by now."""

    def __init__(self, tokenizer: CharTokenizer, letters: int) -> None:
        self.tokenizer, self.letters = tokenizer, letters

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.validated_at == trainer.step:
            rate = tokens_per_second(trainer.history, self.letters)
            print(f"{rate:,.0f} tokens a second. It writes:\n\n{written(trainer.model, self.tokenizer, SAMPLE)}\n")


def written(model: Any, tokenizer: CharTokenizer, letters: int, seed: int = 0) -> str:
    """What the model writes at the beginning of a line. Its draws are its own: training does not notice."""
    start = "\n" if "\n" in tokenizer.vocabulary else next(iter(tokenizer.vocabulary))
    prompt = tokenizer.encode(start)
    out = generate(model, prompt, max_new_tokens=letters, temperature=TEMPERATURE, seed=seed, slide=True)
    return tokenizer.decode(out.tokens[0])


def tokens_per_second(history: History, tokens: int) -> float:
    """The median over the rows of a run whose steps take so many tokens each. The first steps, which are compiled
    meanwhile, hardly count in it."""
    marks = [(0, 0.0), *((row["step"], row["seconds"]) for row in history)]
    return statistics.median((b[0] - a[0]) * tokens / (b[1] - a[1]) for a, b in pairwise(marks) if b[0] > a[0])


def loss_table(history: History) -> str:
    """The losses at every validation, in Markdown."""
    lines = ["| step | training loss | validation loss |", "|---:|---:|---:|"]
    loss = math.nan
    for row in history:
        loss = loss if row["loss"] is None else row["loss"]  # none where the row before is of the same step
        if row["val_loss"] is not None:
            lines.append(f"| {row['step']:,} | {loss:.4f} | {row['val_loss']:.4f} |")
    return "\n".join(lines)


def draw(history: History, path: Path) -> None:
    """Write the loss curve as a picture, or say why not."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no picture: matplotlib is not installed (the extra `examples` has it)")
        return
    figure = Figure((6, 3.5), layout="tight")
    axes = figure.subplots()
    for column, style, label in (
        ("loss", "-", f"training, mean of {LOG_EVERY} steps"),
        ("val_loss", "o-", "validation, all of it"),
    ):
        rows = [row for row in history if row[column] is not None]
        axes.plot([row["step"] for row in rows], [row[column] for row in rows], style, markersize=4, label=label)
    axes.set(xlabel="step", ylabel="cross-entropy a letter")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=100)
    print(f"loss curve in {path}")


# -- the walk ---------------------------------------------------------------------------------------------------------


def run(options: argparse.Namespace) -> None:
    """Read, train, save, write."""
    if not options.resume and any(checkpoint_folder(options).glob("step-*")):
        raise FileExistsError(
            f"{options.out} holds an earlier run: --resume goes on with it; for a new one name another folder with "
            "--out, or delete this one"
        )
    rg.manual_seed(options.seed)
    text = read(options)
    model = new_model(text.tokenizer, options)
    letters = options.batch * options.context
    parameters = sum(p.size for p in model.parameters())
    print(
        f"{len(text.train.dataset) + options.context:,} letters to learn from, {text.tokenizer.vocab_size} different; "
        f"{parameters:,} parameters, {letters} letters a step, backend {rg.current_backend().name}"
    )

    trainer = new_trainer(model, options, [Samples(text.tokenizer, letters)])
    checkpoint_folder(options).mkdir(parents=True, exist_ok=True)
    write_json(checkpoint_folder(options) / OPTIONS, kept(options))
    try:
        history = trainer.fit(
            text.train,
            steps=options.steps,
            validation=text.validation,
            validate_every=options.validate_every,
            resume=options.resume,
        )
    except KeyboardInterrupt:
        print(f"\ninterrupted after step {trainer.step}; {what_is_kept(options)}", file=sys.stderr)
        raise

    model.save_pretrained(options.out)
    text.tokenizer.save_pretrained(options.out)
    print(f"\n{loss_table(history)}\n")
    print(f"validation loss {history['val_loss'][-1]:.4f} over {len(text.validation.dataset):,} windows, ", end="")
    print(f"{tokens_per_second(history, letters):,.0f} tokens a second")
    draw(history, options.out / "loss.png")
    print(f"model in {options.out}: retrograd generate --model {options.out} --prompt … goes on with a text\n")
    print(written(model, text.tokenizer, FINAL_SAMPLE))


def what_is_kept(options: argparse.Namespace) -> str:
    """In words, where an interrupted run can go on."""
    try:
        return f"--resume goes on from {find_checkpoint(checkpoint_folder(options), 'last').name}"
    except rg.train.CheckpointError:
        return "nothing was saved yet"


def kept(options: argparse.Namespace) -> dict[str, Any]:
    """The options of a run, for the next --resume."""
    numbers = {name: getattr(options, name) for name in (*FIXED, "steps", "validate_every", "lr", "dropout")}
    return {**numbers, "data": options.data and str(options.data.resolve())}


def resumed(options: argparse.Namespace, argv: list[str] | None) -> argparse.Namespace:
    """With --resume: the options that the run had, and in their place those that the command line gives anew."""
    path = checkpoint_folder(options) / OPTIONS
    if not options.resume or not path.is_file():
        return options
    before = read_json(path)
    options = parse(argv, before)
    changes = {
        name: f"--{name.replace('_', '-')} {value} (before: {before[name]})"
        for name, value in kept(options).items()
        if value != before[name]
    }
    if refused := [change for name, change in changes.items() if name in FIXED]:
        raise ValueError(f"--resume cannot change {', '.join(refused)}: leave it out, or begin anew with another --out")
    if changes:
        print(f"goes on with {', '.join(changes.values())}")
    return options


def parse(argv: list[str] | None, defaults: Mapping[str, Any] | None = None) -> argparse.Namespace:
    """The command line; `defaults` for what it does not say."""

    def positive(text: str) -> int:
        if not text.isdecimal() or int(text) < 1:
            raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
        return int(text)

    parser = argparse.ArgumentParser(prog=f"python -m retrograd.examples.{NAME}", description="Learn to write.")
    add = parser.add_argument
    add("--data", metavar="FILE", type=Path, help="the text to learn, UTF-8 (default: tiny Shakespeare)")
    add("--out", metavar="DIR", type=Path, default=Path("gpt_results"), help="for model, checkpoints and log")
    add("--resume", action="store_true", help="go on with the run in --out: with its options, but those given anew")
    add("--seed", type=int, default=0, help="of weights, order of the windows, and dropout (default: 0)")
    for name, default, text in (
        ("steps", 2000, "batches to learn from"),
        ("batch", 12, "windows in a batch"),
        ("context", 64, "letters in a window, the farthest that the model looks back"),
        ("layers", 4, "blocks of attention and feed forward"),
        ("heads", 4, "of attention in each block"),
        ("width", 128, "numbers that stand for a letter inside"),
        ("validate-every", 250, "steps between two validations, samples and checkpoints"),
    ):
        add(f"--{name}", metavar="N", type=positive, default=default, help=f"{text} (default: {default})")
    add("--lr", type=float, default=3e-3, help="the highest learning rate (default: 3e-3)")
    add("--dropout", type=float, default=0.0, help="the share that is dropped (default: 0)")
    command.add_debug(parser)
    parser.set_defaults(**(defaults or {}))
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """0 if all went well; 1 with one line of error, 130 after Ctrl-C."""
    return command.run(NAME, lambda options: run(resumed(options, argv)), parse(argv))


if __name__ == "__main__":
    sys.exit(main())
