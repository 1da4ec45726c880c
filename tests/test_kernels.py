"""Descriptions, the source made of them, and the cache: what is damaged or missing costs time, never a number."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
from retrograd.backends.kernels.description import Description, Operand, Reduction, Statement, Store
from retrograd.backends.kernels.expressions import Unsupported, cost, names, substitute, translate
from retrograd.backends.kernels.numba_generator import plain, signature, source
from retrograd.backends.kernels.numpy_generator import instructions
from retrograd.backends.kernels.scratch import Scratch
from retrograd.backends.kernels.stages import Stages, overwrites_what_it_needs

F = "float32"
needs_numba = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="needs Numba")


def array(name, axes, written=False, dtype=F, contiguous=True):
    return Operand(name, dtype, axes, contiguous, written)


SOFTMAX = Description(
    2,
    1,
    (array("x", (0, 1)), array("y", (0, 1), written=True)),
    (
        Reduction("m", "max", "x", F),
        Statement("d", "x - m", ("x", "m"), F, F),
        Statement("e", "exp(d)", ("d",), F, F),
        Reduction("s", "sum", "e", F),
        Statement("p", "e / s", ("e", "s"), F, F),
    ),
    (Store("y", "p"),),
)
SUMS = Description(
    2,
    1,
    (array("x", (0, 1)), array("b", (1,)), array("c", (1,), True), array("t", (), True), array("a", (), True)),
    (Statement("z", "x + b", ("x", "b"), F, F),),
    (Store("c", "z", "columns"), Store("t", "z", "total"), Store("a", "z", "mean")),
)


def softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def test_equal_descriptions_have_equal_keys():
    assert SOFTMAX.key == SOFTMAX._replace(axes=2).key != SUMS.key


def test_a_row_program_run_as_python():
    x = np.random.default_rng(0).standard_normal((3, 5)).astype(F)
    y = np.empty_like(x)
    plain(SOFTMAX)(0, 3, x, y)
    np.testing.assert_allclose(y, softmax(x), rtol=1e-6)


def test_a_range_of_rows():
    x = np.random.default_rng(0).standard_normal((4, 5)).astype(F)
    y = np.zeros_like(x)
    plain(SOFTMAX)(1, 3, x, y)
    np.testing.assert_allclose(y[1:3], softmax(x)[1:3], rtol=1e-6)
    assert not y[[0, 3]].any()


def test_sums_over_rows_and_over_everything():
    x, b = np.arange(6, dtype=F).reshape(2, 3), np.ones(3, F)
    c, t, a = np.empty(3, F), np.empty((), F), np.empty((), F)
    plain(SUMS)(0, 2, x, b, c, t, a)
    assert [c.tolist(), t, a] == [[5, 7, 9], 21, 3.5]


@pytest.mark.parametrize("shape", [(3, 5), (40, 1), (40, 10), (40, 64), (40, 65), (5000, 10)])
@pytest.mark.parametrize("kind", ["max", "min"])
def test_extremes_of_short_and_long_rows_with_numpy(kind, shape):
    extremes = Description(
        2, 1, (array("x", (0, 1)), array("m", (0,), True)), (Reduction("v", kind, "x", F),), (Store("m", "v"),)
    )
    x = np.random.default_rng(0).standard_normal(shape).astype(F)
    x[1, 0] = np.nan
    out = np.empty(shape[0], F)
    for call, places in instructions(extremes, [x, out], Scratch()):
        call(*places)
    np.testing.assert_array_equal(out, getattr(np, kind)(x, axis=1))


def test_what_was_expensive_is_kept_and_what_was_cheap_is_computed_again():
    stages = Stages(SOFTMAX)
    assert (stages.count, stages.scratch) == (3, {"e"})
    text = source(SOFTMAX, "kernel_of_softmax")
    assert text.count("exp(d)") == 1
    assert "e_row[i1] = e" in text
    compile(text, "kernel", "exec")


def test_a_value_that_is_stored_is_read_back():
    operands = (*SOFTMAX.operands, array("z", (0, 1), True))
    both = SOFTMAX._replace(operands=operands, stores=(*SOFTMAX.stores, Store("z", "e")))
    assert not Stages(both).scratch
    assert "e = z[i0, i1]" in source(both, "k")


def test_writing_over_what_a_later_loop_reads_is_noticed():
    assert not overwrites_what_it_needs(SOFTMAX)
    early = SOFTMAX._replace(
        operands=(array("x", (0, 1), True),), stores=(Store("x", "e"),),
        body=(*SOFTMAX.body[:4], Statement("q", "x / s", ("x", "s"), F, F)),
    )
    late = early._replace(operands=(*early.operands, array("y", (0, 1), True)), stores=(*early.stores, Store("y", "q")))
    assert overwrites_what_it_needs(late)


def test_the_signature_names_rank_layout_and_dtype():
    operands = (array("x", (0, 1), contiguous=False), array("i", (1,), dtype="bool"), *SUMS.operands[2:4])
    expected = "void(int64, int64, float32[:, :], boolean[::1], float32[::1], Array(float32, 0, 'C'))"
    assert signature(SUMS._replace(operands=operands)) == expected


EXPRESSIONS = {
    "x * 2 + 1": "x * np.float32(2.0) + np.float32(1.0)",
    "max(x, 0)": "maximum(x, np.float32(0.0))",
    "x if x > 0 else y": "where(x > np.float32(0.0), x, y)",
    "x ** 2": "x * x",
    "x ** 0.5": "np.sqrt(x)",
    "1 / (1 + exp(-x))": "np.float32(1.0) / (np.float32(1.0) + exp(-x))",
}


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_expressions(text):
    assert translate(text, F) == EXPRESSIONS[text]


@pytest.mark.parametrize("text", ["x ** y", "x // y", "gamma(x)", "x @ y", "x ** 2.5", "'text'"])
def test_what_no_kernel_can_hold(text):
    with pytest.raises(Unsupported):
        translate(text, F)


def test_names_costs_and_substitution():
    assert set(names("max(x, y) * x")) == {"x", "y"}
    assert cost("exp(x)") > cost("x / y") > cost("x + y")
    assert substitute("x * beta + x", {"beta": "2.0"}) == "x * 2.0 + x"
    assert substitute("x - y", {"x": "a + b", "y": "x"}) == "a + b - x"


PROGRAM = """
import numpy as np, sys, warnings
warnings.simplefilter("default")
sys.path.insert(0, {tests!r})
from test_kernels import SOFTMAX, softmax
from retrograd.backends import get_backend
x = np.random.default_rng(0).standard_normal((7, 5)).astype("float32")
y = np.zeros_like(x)
kernel = get_backend("numpy").build([SOFTMAX])[SOFTMAX.key]
kernel(0, 7, x, y)
np.testing.assert_allclose(y, softmax(x), rtol=1e-5)
print("right")
"""


def start(cache, **environment):
    tests = os.path.dirname(os.path.abspath(__file__))
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(tests=tests)],
        env=dict(os.environ) | {"RETROGRAD_CACHE": str(cache)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, errors = process.communicate(timeout=120)
    assert (process.returncode, out.strip()) == (0, "right"), errors
    return errors


@needs_numba
def test_the_cache(tmp_path):
    assert "compiling 1 kernel" in finish(start(tmp_path))
    folder = tmp_path / "kernels"
    assert folder.stat().st_mode & 0o777 == 0o700
    again = finish(start(tmp_path))
    assert "compiling" not in again
    assert "Warning" not in again
    for file in folder.glob("__pycache__/*.nb*"):  # in the middle of machine code, which would end the process
        code = bytearray(file.read_bytes())
        code[len(code) // 5 :: 7] = bytes(len(code[len(code) // 5 :: 7]))
        file.write_bytes(code)
    assert finish(start(tmp_path)).count("RuntimeWarning: a damaged entry") == 1
    assert "Warning" not in finish(start(tmp_path))
    assert not list(folder.glob("*.part"))


def test_code_is_used_only_as_it_was_compiled(tmp_path):
    from retrograd.backends.kernels import cache

    source, code = tmp_path / "kernel_a.py", tmp_path / "__pycache__"
    code.mkdir()
    index, data = code / "kernel_a.kernel_a-10.py311.nbi", code / "kernel_a.kernel_a-10.py311.1.nbc"

    def put(text: bytes) -> None:
        index.write_bytes(b"index")
        data.write_bytes(text)

    put(b"one")
    assert not cache.compiled(source)  # whoever wrote it was ended before it was whole
    assert not cache.forget(source)
    put(b"one")
    cache.put_seal(source)
    put(b"two")
    assert not cache.compiled(source)
    cache.put_seal(source)  # by another process, which compiled it at the same time
    assert cache.compiled(source)
    put(b"one")
    assert cache.compiled(source)
    for damage in (b"", b"on", b"onf"):
        put(damage)
        assert not cache.compiled(source)
    index.unlink()
    data.unlink()
    assert not cache.compiled(source)
    assert cache.forget(source)
    assert not list(code.iterdir())


@needs_numba
def test_two_processes_that_compile_the_same_do_not_disturb_each_other(tmp_path):
    processes = [start(tmp_path) for _ in range(2)]
    assert all("Warning" not in finish(p) for p in processes)


@needs_numba
def test_a_folder_that_cannot_be_made_is_one_warning(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    assert finish(start(file)).count("RuntimeWarning: the kernel cache cannot be used") == 1


@needs_numba
def test_a_file_that_cannot_be_written_is_one_warning(monkeypatch, tmp_path):
    from retrograd.backends.kernels import build

    monkeypatch.setenv("RETROGRAD_CACHE", str(tmp_path))
    monkeypatch.setattr(build, "_built", {})
    monkeypatch.setattr(build, "_warned", set())
    (tmp_path / "kernels" / f"{build.cache.name_of(SUMS)}.py").mkdir(parents=True)
    with pytest.warns(RuntimeWarning, match="the kernel cache cannot be used"):
        assert build.build([SUMS])[SUMS.key] is not None


@needs_numba
def test_code_lies_beside_its_source_wherever_the_user_has_numba_keep_its_own(monkeypatch, tmp_path):
    import numba
    from retrograd.backends.kernels import build

    monkeypatch.setenv("RETROGRAD_CACHE", str(tmp_path))
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "users"))
    monkeypatch.setattr(build, "_built", {})
    assert build.build([SUMS])[SUMS.key] is not None
    assert build.cache.compiled(tmp_path / "kernels" / f"{build.cache.name_of(SUMS)}.py")
    assert str(tmp_path / "users") == numba.config.CACHE_DIR
    assert not (tmp_path / "users").exists()


@needs_numba
def test_a_kernel_that_does_not_compile_is_one_warning_and_none(monkeypatch, tmp_path):
    from retrograd.backends.kernels import build

    monkeypatch.setenv("RETROGRAD_CACHE", str(tmp_path))
    monkeypatch.setattr(build, "_built", {})
    monkeypatch.setattr(build, "_warned", set())
    wrong = SUMS._replace(body=(Statement("z", "x + b + unknown", ("x", "b"), F, F),))
    with pytest.warns(RuntimeWarning, match="NumPy computes instead"):
        assert build.build([wrong]) == {wrong.key: None}


@needs_numba
def test_a_program_whose_kernels_do_not_compile_runs_with_numpy(monkeypatch):
    import retrograd as rg
    from retrograd.backends.numpy_backend import NumpyBackend

    monkeypatch.setattr(NumpyBackend, "generates", lambda self: True)
    monkeypatch.setattr(NumpyBackend, "build", lambda self, descriptions: {d.key: None for d in descriptions})
    with rg.use_backend("numpy"):
        f = rg.compile(lambda x: rg.softmax(rg.exp(x) * 2 + 1))
        x = rg.tensor([[1.0, 2.0], [0.0, 1.0]])
        for _ in range(5):
            np.testing.assert_allclose(f(x).numpy(), softmax(np.exp(x.numpy()) * 2 + 1), rtol=1e-5)


def test_importing_retrograd_does_not_import_numba():
    code = "import sys, retrograd as rg; rg.ones(1).exp(); print('numba' in sys.modules, 'llvmlite' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
