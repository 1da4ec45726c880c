"""rg.save and rg.load: what goes in comes out, and what does not fit says what to change."""

from __future__ import annotations

import os

import numpy as np
import pytest
import retrograd as rg


def test_metadata_comes_back_beside_the_tensors(tmp_path):
    path = tmp_path / "w.safetensors"
    rg.save({"w": rg.ones(2), "a": np.zeros((2, 3))}, path, metadata={"epoch": "3"})
    assert {name: t.shape for name, t in rg.load(path).items()} == {"w": (2,), "a": (2, 3)}
    assert rg.load_metadata(path) == {"epoch": "3"}


def test_an_optimizer_goes_through_a_file(tmp_path):
    def step(optimizer, layer):
        optimizer.zero_grad()
        layer(rg.ones((1, 3))).sum().backward()
        optimizer.step()

    layer, other = rg.nn.Linear(3, 2), rg.nn.Linear(3, 2)
    optimizer = rg.optim.Adam(layer.named_parameters(), lr=0.1)
    step(optimizer, layer)
    tensors, metadata = optimizer.to_arrays()
    rg.save(tensors, tmp_path / "adam.safetensors", metadata)

    other.load_state_dict(layer.state_dict())
    restored = rg.optim.Adam(other.named_parameters())
    path = tmp_path / "adam.safetensors"
    restored.from_arrays(rg.load(path), rg.load_metadata(path))
    step(optimizer, layer)
    step(restored, other)
    np.testing.assert_array_equal(layer.weight.numpy(), other.weight.numpy())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"state": {0: {}}, "param_groups": []}, "flat dict of name to tensor, but 'state' holds a dict"),
        ({"layers": [{"w": 1}]}, "flat dict of name to tensor, but 'layers' holds a list"),
        ({"note": "text"}, "got 'text' for 'note'"),
        ({"w": None}, "got None for 'w'"),
        ([1.0], "save expects a dict of name to tensor"),
    ],
)
def test_what_is_no_flat_dict_is_refused_and_nothing_written(tmp_path, given, said):
    with pytest.raises(TypeError, match=said):
        rg.save(given, tmp_path / "x.safetensors")
    assert os.listdir(tmp_path) == []


def test_a_path_that_is_no_file_says_so(tmp_path):
    for read in (rg.load, rg.load_metadata):
        with pytest.raises(FileNotFoundError, match="there is no such file"):
            read(tmp_path / "none.safetensors")
        with pytest.raises(IsADirectoryError, match="it is a folder; name a file in it"):
            read(tmp_path)
