"""Workloads of the benchmarks, ours beside the rivals': the same numbers, the products they say, a bound for each."""

import json

import numpy as np
import pytest
from retrograd.benchmarks import adapters, bounds, journal, measure, runs, suite
from retrograd.benchmarks.__main__ import main

OURS = ["--smoke", "--ours", "retrograd", "--ours", "retrograd-numpy"]


def test_smoke_runs_a_workload_of_every_file(tmp_path, monkeypatch):
    """Eager and compiled with NumPy alone; the other workloads and generated kernels are left to the command itself."""
    monkeypatch.setenv("RETROGRAD_KERNELS", "array")
    file = tmp_path / "smoke.json"
    chosen = list({work.file: work.name for work in suite.load(smoke=True) if "autograd" in work.peers}.values())
    arguments = [argument for name in chosen for argument in ("--workload", name)]
    assert main([*OURS, *arguments, "--peer", "autograd", "--json", str(file)]) == 0
    rows = journal.read(file)
    assert list(dict.fromkeys(row["settings"]["workload"] for row in rows)) == chosen
    assert {row["settings"]["ours"] for row in rows} == {"retrograd", "retrograd-numpy"}
    assert {row["status"] for row in rows} <= {"timed", "not installed"}


def test_our_models_compute_the_same_eager_and_compiled():
    """The workloads that no rival has a step for but PyTorch."""
    works = [work for work in suite.load(smoke=True) if "autograd" not in work.peers]
    rows = runs.timings(
        works, ["retrograd-numpy"], subjects=["retrograd"], threads=1, protocol=measure.SMOKE, show=lambda _: None
    )
    assert [(row["settings"]["workload"], row["status"]) for row in rows] == [(work.name, "timed") for work in works]
    assert {work.name for work in works} == {"finetune-lora", "finetune-full", "decode-gpt2"}


def test_a_step_of_decoding_gives_what_generate_gives():
    from retrograd import models
    from retrograd.benchmarks import decode_step

    size = decode_step.WORKLOADS["decode-gpt2"] | decode_step.SMOKE["decode-gpt2"]
    arrays = decode_step.data(size, np.random.default_rng(0))
    step = decode_step.with_retrograd(size, arrays)
    tokens = [step()[0].item() for _ in range(2 * size["new"])]
    model = decode_step.retrograd_model(size, arrays)
    assert tokens == 2 * models.generate(model, arrays["prompt"], max_new_tokens=size["new"]).tokens[0]


def test_published_weights_fit_the_step(tmp_path, monkeypatch):
    """As if a checkpoint lay there: every weight but the classifier's is the file's."""
    import retrograd as rg
    from retrograd.benchmarks import finetune_step

    size = finetune_step.WORKLOADS["finetune-lora"] | finetune_step.SMOKE["finetune-lora"] | {"published": True}
    drawn = finetune_step.data(size | {"published": False}, np.random.default_rng(0))
    own = {n: a for n, a in finetune_step.parameters(drawn | {}).items() if n.startswith("classifier") or "lora" in n}
    stored = {n: a + 1 for n, a in drawn.items() if "." in n and n not in own}
    rg.save({finetune_step.published_name(n): rg.tensor(a) for n, a in stored.items()}, tmp_path / "model.safetensors")
    monkeypatch.setenv("RETROGRAD_MINILM", str(tmp_path))
    found = finetune_step.data(size, np.random.default_rng(0))
    for name, array in (drawn | stored).items():
        assert np.array_equal(found[name], array), name


@pytest.mark.parity
@pytest.mark.parametrize("rival", ["torch", "autograd", "mygrad", "jax"])
def test_every_rival_computes_the_same(tmp_path, monkeypatch, rival):
    """`torch.compile` takes a quarter of a minute for each workload, and tinygrad needs a compiler: not here."""
    pytest.importorskip(rival)
    monkeypatch.setenv("RETROGRAD_KERNELS", "array")
    file = tmp_path / "smoke.json"
    assert main([*OURS, "--peer", rival, "--json", str(file)]) == 0
    rows = journal.read(file)
    assert {row["status"] for row in rows} <= {"timed", "not written"}
    assert all(row["reason"] for row in rows if row["status"] == "not written")
    assert sum(row["status"] == "timed" for row in rows) > 15


def test_every_file_of_workloads_has_what_the_frame_reads():
    assert len(set(suite.names())) == len(suite.names())
    for work in suite.load(smoke=True):
        assert work.peers[0] == "retrograd"
        assert set(suite.DEFAULT_PEERS) <= set(work.peers)
        assert set(work.peers) <= adapters.ADAPTERS.keys()
        assert not set(work.peers) & set(work.reasons)
        assert all(np.isfinite(array).all() for array in work.arrays.values())
        assert 0 < work.tolerance <= 1e-3
        json.dumps(work.size)


def test_matrix_products_have_the_shapes_they_say():
    shapes = [(2, 3, 4, "nn"), (2, 3, 4, "nt"), (2, 3, 4, "tn")]
    assert [c.shape for c in adapters.numpy_products(shapes)()] == [(2, 4)] * 3
    flags = [(a.flags.c_contiguous, b.flags.c_contiguous) for a, b, _ in adapters.operands(shapes)]
    assert flags == [(True, True)] * 3


def test_every_bound_is_of_a_workload_and_a_variant_that_exist():
    for table, columns in ((bounds.STEPS, set(suite.SUBJECTS)), (bounds.FIRST_REPLAY, {"cold", "warm"})):
        assert set(table) <= set(suite.names())
        assert all(set(row) <= columns for row in table.values())


def test_a_slower_blas_beneath_us_widens_the_bound():
    known = {"workload": "gpt-128", "ours": "retrograd-jit", "peer": "torch", "block": 0.1}
    row = {"settings": known, "status": "timed"}
    assert bounds.step_bound(row | {"gemm": {"ratio": 1.2}}) == 0.95
    assert bounds.step_bound(row | {"gemm": {"ratio": 0.5}}) == 1.9
    assert bounds.step_bound(row | {"settings": known | {"workload": "ops-add", "ours": "retrograd"}}) == 1.0
    for other in ({"status": "disturbed"}, {"settings": known | {"peer": "jax"}}, {"settings": known | {"block": 0}}):
        assert bounds.step_bound(row | other) is None
