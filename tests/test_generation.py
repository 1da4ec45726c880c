"""Generation: one program for all positions, padding nobody sees, stopping, streaming, and transformers' tokens."""

import copy
import pickle
import threading

import numpy as np
import pytest
import retrograd as rg
from retrograd.data import CharTokenizer, Tokenizer
from retrograd.models import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel, add_lora, generate, merge_lora


def gpt(seed: int = 0, **changes) -> GPT2LMHeadModel:
    rg.manual_seed(seed)
    sizes = {"vocab_size": 60, "n_positions": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.2}
    return GPT2LMHeadModel(GPT2Config(**(sizes | changes)))


def prompts(*lengths: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random prompts of those lengths, padded on the left with 0, and the mask."""
    rng = np.random.default_rng(seed)
    ids, mask = (np.zeros((len(lengths), max(lengths)), np.int64) for _ in range(2))
    for row, ones, length in zip(ids, mask, lengths, strict=True):
        row[-length:], ones[-length:] = rng.integers(1, 60, length), 1
    return ids, mask


def letters(ids: list[int]) -> str:
    return "".join(chr(ord("A") + i) for i in ids)


def by_hand(model: GPT2LMHeadModel, prompt: list[int], n: int) -> list[int]:
    """Greedy tokens without a cache: the whole sequence is read again for each."""
    tokens = list(prompt)
    with rg.no_grad():
        model.eval()
        for _ in range(n):
            tokens.append(int(model(rg.tensor([tokens])).logits.numpy()[0, -1].argmax()))
    return tokens[len(prompt) :]


@pytest.mark.parametrize("compile", [False, True])
def test_greedy_gives_what_reading_everything_again_gives(compile: bool) -> None:
    model = gpt()
    out = generate(model, [[3, 1, 4]], max_new_tokens=30, compile=compile)
    assert out.tokens == [by_hand(model, [3, 1, 4], 30)]
    assert len(set(out.tokens[0])) > 3
    assert (out.texts, out.reasons) == (None, ["length"])


def test_one_program_for_all_positions_kept_for_the_next_call() -> None:
    model = gpt()
    generate(model, prompts(4, 4)[0], max_new_tokens=40)
    decoder = model._decoder
    assert len(decoder.program.programs) == 1
    one = generate(model, prompts(9, 5)[0], max_new_tokens=20)
    assert model._decoder is decoder
    assert len(decoder.program.programs) == 1
    assert one.tokens == generate(model, prompts(9, 5)[0], max_new_tokens=20, compile=False).tokens
    generate(model, prompts(9)[0], max_new_tokens=2)
    assert model._decoder is not decoder


@pytest.mark.parametrize("compile", [False, True])
def test_prompts_padded_on_the_left_go_on_as_they_do_alone(compile: bool) -> None:
    model = gpt()
    ids, mask = prompts(2, 7, 5)
    together = generate(model, ids, mask, max_new_tokens=25, compile=compile)
    for row, ones, tokens in zip(ids, mask, together.tokens, strict=True):
        assert tokens == generate(model, row[ones == 1], max_new_tokens=25, compile=False).tokens[0]
    again = generate(model, rg.tensor(ids), rg.tensor(mask), max_new_tokens=25, compile=compile)
    assert again.tokens == together.tokens


def test_all_that_a_tokenizer_gives() -> None:
    model, tokenizer = gpt(), CharTokenizer.from_text("to be or not")
    batch = tokenizer(["to be", "not"], padding_side="left")
    assert batch["token_type_ids"].shape == batch["input_ids"].shape
    expected = [generate(model, tokenizer.encode(text), max_new_tokens=9).tokens[0] for text in ("to be", "not")]
    assert generate(model, **batch, max_new_tokens=9).tokens == expected
    assert generate(model, **tokenizer("to be"), max_new_tokens=9).tokens == expected[:1]
    pairs = batch | {"token_type_ids": np.ones_like(batch["token_type_ids"])}
    assert generate(model, **pairs, max_new_tokens=9).tokens == expected
    with pytest.raises(ValueError, match="padded on the left"):
        generate(model, **tokenizer(["to be", "not"]), max_new_tokens=9)


def test_a_seed_decides_and_the_default_stream_where_none_is_given() -> None:
    model, ids = gpt(), prompts(3, 3)[0]

    def run(**arguments) -> list[list[int]]:
        return generate(model, ids, max_new_tokens=12, temperature=1.5, **arguments).tokens

    assert run(seed=4) == run(seed=4) == run(seed=4, compile=False) == run(generator=rg.Generator(4)) != run(seed=5)
    assert run(seed=4)[0] != run(seed=4)[1]
    rg.manual_seed(4)
    assert run() == run(seed=4)
    with pytest.raises(TypeError, match="a seed or a generator, not both"):
        run(seed=1, generator=rg.Generator(1))


def test_top_k_of_one_and_a_cold_temperature_are_greedy() -> None:
    model = gpt()
    expected = generate(model, [5, 6], max_new_tokens=15).tokens
    assert generate(model, [5, 6], max_new_tokens=15, temperature=1.0, top_k=1, seed=0).tokens == expected
    assert generate(model, [5, 6], max_new_tokens=15, temperature=1.0, top_p=1e-6, seed=0).tokens == expected
    assert generate(model, [5, 6], max_new_tokens=15, temperature=1e-4, seed=0).tokens == expected
    assert generate(model, [5, 6], max_new_tokens=15, temperature=3.0, seed=0).tokens != expected


def test_a_great_penalty_lets_nothing_come_twice() -> None:
    ids = [7, 8, 9]
    tokens = generate(gpt(), [ids], max_new_tokens=40, repetition_penalty=1e6).tokens[0]
    assert len({*ids, *tokens}) == 43
    assert len(set(generate(gpt(), [ids], max_new_tokens=40).tokens[0])) < 40


def test_stopping_at_a_token_and_at_a_string() -> None:
    model, ids = gpt(), prompts(3, 3)[0]
    plain = generate(model, ids, max_new_tokens=20, decode=letters)
    first = plain.tokens[0]
    end = first[4]
    n = first.index(end) + 1
    out = generate(model, ids, max_new_tokens=20, stop_ids=[end], decode=letters)
    assert (out.tokens[0], out.reasons[0]) == (first[:n], "stop_id")
    other = plain.tokens[1]
    assert out.tokens[1] == (other[: other.index(end) + 1] if end in other else other)
    stop = letters(first[3:5])
    place = plain.texts[0].index(stop)
    out = generate(model, ids, max_new_tokens=20, stop=[stop], decode=letters)
    assert out.reasons[0] == "stop_string"
    assert out.texts[0] == plain.texts[0][:place]
    assert out.tokens[0] == first[: place + 2]
    assert generate(model, ids, max_new_tokens=20, stop_ids=end).tokens[0] == first[:n]
    never = generate(model, ids, max_new_tokens=20, stop_ids=None, stop=None)  # an eos_token_id that there is not
    assert never.reasons == ["length"] * len(never.tokens)


def test_it_ends_when_all_have_ended() -> None:
    model, ids = gpt(), prompts(3, 3)[0]
    plain = generate(model, ids, max_new_tokens=20)
    ends = [tokens[2] for tokens in plain.tokens]
    reads = []
    model.register_forward_hook(lambda *_: reads.append(1))
    out = generate(model, ids, max_new_tokens=20, stop_ids=ends, compile=False)
    assert out.reasons == ["stop_id"] * 2
    assert len(reads) == max(map(len, out.tokens)) <= 3


def test_streaming_gives_the_text_piece_by_piece() -> None:
    model, ids = gpt(), prompts(3, 5)
    shown = {0: [], 1: []}
    out = generate(model, *ids, max_new_tokens=9, decode=letters, stream=lambda row, piece: shown[row].append(piece))
    assert ["".join(pieces) for pieces in shown.values()] == out.texts == [letters(tokens) for tokens in out.tokens]
    assert len(shown[0]) == 9
    tokens = []
    out = generate(model, [1, 2], max_new_tokens=5, stream=lambda row, token: tokens.append((row, token)))
    assert tokens == [(0, token) for token in out.tokens[0]]
    # What might have been the beginning of a stop string comes when it turns out to be none.
    last = letters(generate(model, [1, 2], max_new_tokens=5).tokens[0])[-1]
    pieces = []
    out = generate(
        model, [1, 2], max_new_tokens=5, decode=letters, stop=[last + "!"], stream=lambda _, piece: pieces.append(piece)
    )
    assert ("".join(pieces), pieces[-1], out.reasons) == (out.texts[0], last, ["length"])


def test_the_model_is_left_as_it_was() -> None:
    model = gpt().train()
    model.transformer.ln_f.eval()
    modes = [module.training for module in model.modules()]
    names = list(model.state_dict())
    expected = generate(model, [1, 2], max_new_tokens=8, compile=False).tokens
    assert [module.training for module in model.modules()] == modes
    assert list(model.state_dict()) == names
    assert all(p.grad is None for p in model.parameters())
    generate(model, [1, 2], max_new_tokens=8)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert generate(other, [1, 2], max_new_tokens=8).tokens == expected
    with pytest.raises(ZeroDivisionError):
        generate(model, [1, 2], max_new_tokens=8, stream=lambda *_: 1 / 0)
    assert [module.training for module in model.modules()] == modes


def test_new_weights_are_seen_by_the_kept_program() -> None:
    model, other = gpt(0), gpt(1)
    generate(model, [1, 2], max_new_tokens=12)
    model.load_state_dict(other.state_dict())
    expected = generate(other, [1, 2], max_new_tokens=12, compile=False).tokens
    assert generate(model, [1, 2], max_new_tokens=12).tokens == expected
    adapted = add_lora(model, rank=2, targets=["c_attn"])
    with rg.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.copy_(rg.ones_like(parameter) * 0.2)
    changed = generate(adapted, [1, 2], max_new_tokens=12, compile=False).tokens
    assert generate(adapted, [1, 2], max_new_tokens=12).tokens == changed != expected
    assert generate(merge_lora(adapted), [1, 2], max_new_tokens=12).tokens == changed
    model.double()
    assert len(generate(model, [1, 2], max_new_tokens=12).tokens[0]) == 12


def test_two_threads_with_one_model() -> None:
    model = gpt()
    expected = {n: generate(model, [n, n], max_new_tokens=15, compile=False).tokens for n in (1, 2)}
    found = {}
    threads = [
        threading.Thread(target=lambda n=n: found.update({n: generate(model, [n, n], max_new_tokens=15).tokens}))
        for n in expected
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected
    assert model.training


def test_a_call_that_ends_does_not_switch_dropout_on_in_one_that_goes_on() -> None:
    model = gpt()
    expected = generate(model, [1, 2], max_new_tokens=9, compile=False).tokens

    def meanwhile(*_) -> None:
        generate(model, [3], max_new_tokens=2, compile=False)
        assert not model.training

    assert generate(model, [1, 2], max_new_tokens=9, compile=False, stream=meanwhile).tokens == expected
    assert model.training


@pytest.mark.parametrize("compile", [False, True])
def test_a_text_longer_than_the_model_slides_on(compile: bool) -> None:
    model = gpt(n_positions=8)
    ids, mask = prompts(3, 5)
    out = generate(model, ids, mask, max_new_tokens=17, slide=True, compile=compile).tokens
    for row, ones, found in zip(ids, mask, out, strict=True):
        # Reads up to 8 tokens; when they are used up, the last 4 of all.
        kept, expected = row[ones == 1].tolist(), []
        width = len(row)
        for _ in range(17):
            expected += by_hand(model, kept, 1)
            kept, width = (kept + expected[-1:], width + 1) if width < 8 else ((kept + expected[-1:])[-4:], 4)
        assert found == expected
    long = list(range(1, 21))
    assert generate(model, long, max_new_tokens=5, slide=True).tokens == [by_hand(model, long[-4:], 5)]


@pytest.mark.parametrize(
    ("arguments", "error", "expected"),
    [
        ({"input_ids": [[1, 2], [3]]}, ValueError, "different lengths: pad them on the left"),
        ({"input_ids": []}, ValueError, r"token numbers \(N, T\), at least one"),
        ({"input_ids": [[0.5]]}, ValueError, r"got float64 of shape \(1, 1\)"),
        ({"input_ids": [[99]]}, IndexError, "99"),
        ({"attention_mask": [[1, 1]]}, ValueError, r"attention_mask of the tokens' shape \(1, 3\), got \(1, 2\)"),
        ({"attention_mask": [[1, 1, 0]]}, ValueError, "padded on the left"),
        ({"attention_mask": [[1, 0, 1]]}, ValueError, "padded on the left"),
        ({"max_new_tokens": 0}, ValueError, "max_new_tokens must be a whole number of at least 1, got 0"),
        ({"max_new_tokens": 94}, ValueError, r"prompt of 3 tokens and 94 new ones .* 96 places .* at most 93 can"),
        ({"temperature": -1.0}, ValueError, r"temperature must be 0 \(greedy\) or more, got -1.0"),
        ({"top_k": 0}, ValueError, "top_k must be a whole number of at least 1"),
        ({"max_new_tokens": 2.5}, ValueError, "max_new_tokens must be a whole number of at least 1, got 2.5"),
        ({"temperature": "hot"}, ValueError, "temperature must be 0 .greedy. or more, got 'hot'"),
        ({"top_p": 1.1}, ValueError, "top_p must be above 0 and at most 1"),
        ({"repetition_penalty": 0.0}, ValueError, "repetition_penalty must be above 0"),
        ({"stop": "ab"}, TypeError, r"write \['ab'\]"),
        ({"stop": ["ab"]}, TypeError, "stop strings need decode"),
        ({"stop": [""], "decode": letters}, ValueError, "must not be empty"),
    ],
)
def test_wrong_arguments(arguments: dict, error: type[Exception], expected: str) -> None:
    given = {"input_ids": [[1, 2, 3]], "max_new_tokens": 2} | arguments
    with pytest.raises(error, match=expected):
        generate(gpt(), **given)


def test_models_that_do_not_continue_and_weights_that_are_damaged() -> None:
    config = BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    with pytest.raises(
        TypeError, match="needs a causal language model with new_cache, such as GPT2LMHeadModel, got Bert"
    ):
        generate(BertModel(config), [1], max_new_tokens=1)
    model = gpt()
    with rg.no_grad():
        model.transformer.ln_f.bias[0] = np.nan
    with pytest.raises(ValueError, match="scores that are not finite"):
        generate(model, [1], max_new_tokens=1)


# -- against transformers ---------------------------------------------------------------------------------------------


def agreed(ours: list[int], theirs, prompt: list[int], torch, length: int) -> int:
    """How many greedy tokens are the same, up to a step where the two best scores lie within 1e-3: then it ends."""
    with torch.no_grad():
        scores = theirs(torch.tensor([prompt + ours])).logits[0, len(prompt) - 1 : -1]
    best = scores.topk(2).values
    for n, (token, row, (first, second)) in enumerate(zip(ours, scores, best, strict=True)):
        if first - second < 1e-3:
            return n
        assert token == row.argmax(), f"step {n} of {length}"
    return length


@pytest.mark.parity
@pytest.mark.parametrize("seed", range(2))
def test_two_hundred_greedy_tokens_are_those_of_transformers(seed: int, tmp_path, record_property) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    # Narrow initial weights would make every score alike; these give a varied text with few near ties.
    model = gpt(seed, vocab_size=300, n_positions=256, n_embd=64, n_layer=3, initializer_range=0.25)
    model.save_pretrained(tmp_path)
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path).eval()
    ids, mask = prompts(11, 4, 7, seed=seed)
    out = generate(model, ids, mask, max_new_tokens=200)
    counts = []
    for row, ones, tokens in zip(ids, mask, out.tokens, strict=True):
        prompt = row[ones == 1]
        assert len(tokens) == 200
        own = theirs.generate(
            torch.tensor(prompt[None]), max_new_tokens=200, do_sample=False, pad_token_id=0, eos_token_id=None
        )[0, len(prompt) :].tolist()
        same = next((n for n, pair in enumerate(zip(tokens, own, strict=True)) if pair[0] != pair[1]), 200)
        counts.append(agreed(tokens, theirs, prompt.tolist(), torch, 200))
        assert same >= counts[-1]
    record_property("greedy tokens compared before a near tie", counts)
    assert min(counts) >= 20
    assert sum(counts) >= 300
    assert len(set(out.tokens[0])) > 5


@pytest.mark.parity
def test_left_padding_and_penalty_as_in_transformers(tmp_path) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    model = gpt(5, vocab_size=300, n_positions=128, initializer_range=0.25)
    model.save_pretrained(tmp_path)
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path).eval()
    ids, mask = prompts(9, 3, 6, seed=5)
    for penalty in (1.0, 1.2):
        ours = generate(model, ids, mask, max_new_tokens=40, repetition_penalty=penalty).tokens
        own = theirs.generate(
            torch.tensor(ids),
            attention_mask=torch.tensor(mask),
            max_new_tokens=40,
            do_sample=False,
            repetition_penalty=penalty,
            pad_token_id=0,
            eos_token_id=None,
        )[:, ids.shape[1] :].tolist()
        assert ours == own


@pytest.mark.parity
def test_a_tokenizer_that_tells_sentences_apart_as_in_transformers(tmp_path) -> None:
    """A GPT-2 with the vocabulary of a BERT: its tokenizer gives token_type_ids, which are handed on with the rest."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    model = gpt(5, n_positions=64, initializer_range=0.25)
    model.save_pretrained(tmp_path)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "film", "was", "good", "##ish", "bad"]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary))
    texts = ["the film was goodish", "bad film"]
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path).eval()
    tokenizer = transformers.BertTokenizerFast(str(tmp_path / "vocab.txt"), padding_side="left")
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    assert "token_type_ids" in batch
    own = theirs.generate(
        batch["input_ids"],
        attention_mask=batch["attention_mask"],
        max_new_tokens=20,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=None,
    )[:, batch["input_ids"].shape[1] :].tolist()
    assert generate(model, **batch, max_new_tokens=20).tokens == own
    ours = Tokenizer.from_pretrained(tmp_path)(texts, padding_side="left")
    assert generate(model, **ours, max_new_tokens=20).tokens == own
    assert torch.equal(torch.tensor(ours["token_type_ids"]), batch["token_type_ids"])
