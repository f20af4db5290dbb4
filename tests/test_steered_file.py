"""Vector files of lm-evaluation-harness's `steered` model: what is read, written and refused. That both sides compute the
same is tested in test_harness.py, where the harness is installed."""

from __future__ import annotations

import checkpoints
import numpy as np
import pytest
from oracles import torch

import powersteer as ps

V = torch.arange(1.0, 25.0)


@pytest.fixture(scope="module")
def model():
    return ps.load(checkpoints.saved("llama"))


def unit():
    return V.numpy() / np.linalg.norm(V.numpy())


def test_what_is_read(model, tmp_path):
    clamp = {"steering_vector": torch.nn.Parameter(V), "steering_coefficient": 2, "action": "clamp"}
    torch.save(
        {
            "layers.1.mlp": {"steering_vector": V.half(), "steering_coefficient": -0.5, "action": "add", "bias": None},
            "layers.0": clamp,
            "layers.2.self_attn": {**clamp, "bias": torch.ones(24)},
        },
        tmp_path / "v.pt",
    )
    mlp, block, attention = ps.load_steered(tmp_path / "v.pt", model)
    assert [v.location for v in (mlp, block, attention)] == [(1, "mlp_out"), (0, "resid_post"), (2, "attn_out")]
    np.testing.assert_allclose(mlp.vector, -0.5 * V.numpy(), rtol=1e-6)
    assert (block.operation, block.scale, mlp.operation) == ("clamp", 2.0, "add")
    assert attention.scale == pytest.approx(2 + unit().sum(), rel=1e-6)
    np.testing.assert_allclose(block.direction, unit(), rtol=1e-6)


def test_what_is_written_is_read_again(model, tmp_path):
    def vector(layer, site, scale):
        return scale * ps.SteeringVector.from_array(V.numpy() / V.norm().item(), layer, site)

    a, b, c = vector(1, "mlp_out", 3.0), vector(1, "mlp_out", -1.0), vector(2, "resid_pre", 2.0)
    d = vector(0, "attn_out", 1.0).clamp(-4.0)
    ps.save_steered(tmp_path / "v.pt", [a, c, b, d], model)
    added, moved, clamps = ps.load_steered(tmp_path / "v.pt", model)
    np.testing.assert_allclose(added.vector, a.vector + b.vector, rtol=1e-6)
    assert moved.location == (1, "resid_post") and clamps.scale == -4.0 and clamps.operation == "clamp"
    np.testing.assert_allclose(moved.vector, c.vector, rtol=1e-6)
    assert torch.load(tmp_path / "v.pt").keys() == {"layers.1.mlp", "layers.1", "layers.0.self_attn"}


ENTRY = {"steering_vector": V, "steering_coefficient": 1.0, "action": "add"}


@pytest.mark.parametrize(
    "entries, message",
    [
        ({"layers.3": ENTRY}, "module 'layers.3' is no site of this model; those that are: layers.0, layers.0.mlp"),
        ({"embed_tokens": ENTRY}, "module 'embed_tokens' is no site"),
        ({"layers.0": {**ENTRY, "action": "scale"}}, "module 'layers.0': action is 'scale'"),
        ({"layers.0": {**ENTRY, "head_index": 0}}, "head_index is 0; a vector of one attention head"),
        ({"layers.0": {**ENTRY, "bias": V}}, "a bias belongs to 'clamp'"),
        ({"layers.0": {**ENTRY, "action": "clamp", "bias": V[:3]}}, "bias has shape"),
        ({"layers.0": {**ENTRY, "steering_vector": [1.0]}}, "must be tensors"),
        ({"layers.0": {**ENTRY, "steering_coefficient": "x"}}, "steering_coefficient a number"),
        ({"layers.0": {**ENTRY, "more": 1}}, r"an entry needs steering_vector and action, and knows .*'more'"),
        ({"layers.0": {"action": "add"}}, "an entry needs steering_vector and action"),
        ({"layers.0": V}, "an entry needs steering_vector and action"),
        ({"layers.0": {**ENTRY, "steering_vector": 0 * V}}, "is not zero"),
        ([1], "it holds a list"),
        ({}, "it holds a dict"),
    ],
)
def test_files_that_cannot_be_vectors_are_refused(model, tmp_path, entries, message):
    torch.save(entries, tmp_path / "v.pt")
    with pytest.raises(ps.InvalidInput, match=message):
        ps.load_steered(tmp_path / "v.pt", model)


class Evil:
    def __reduce__(self):
        return (open, ("ran", "w"))


def test_no_code_of_a_file_runs(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"layers.0": Evil()}, "v.pt")
    with pytest.raises(ps.InvalidInput, match="cannot read 'v.pt' as a PyTorch file"):
        ps.load_steered("v.pt", model)
    assert not (tmp_path / "ran").exists()
    (tmp_path / "w.pt").write_bytes((tmp_path / "v.pt").read_bytes()[:100])
    with pytest.raises(ps.InvalidInput, match="cannot read 'w.pt'"):
        ps.load_steered("w.pt", model)
    (tmp_path / "v.csv").write_text("loader,action\n")
    with pytest.raises(ps.InvalidInput, match="derive_steer_config"):
        ps.load_steered("v.csv", model)
    with pytest.raises(ps.NotFound, match="there is no file 'x.pt'"):
        ps.load_steered("x.pt", model)


def vectors_at(*places):
    return [ps.SteeringVector.from_array(V.numpy(), *place) for place in places]


@pytest.mark.parametrize(
    "name, make, message",
    [
        ("v.pt", lambda: [], "one SteeringVector or more"),
        ("v.pt", lambda: [1], "one SteeringVector or more"),
        ("v.safetensors", lambda: vectors_at((1, "mlp_out")), "ends in .pt or .pth"),
        ("v.pt", lambda: vectors_at((0, "resid_pre")), "not at the output of a module"),
        ("v.pt", lambda: vectors_at((9, "mlp_out")), "not at the output of a module"),
        ("v.pt", lambda: [v.clamp() for v in vectors_at((1, "resid_mid"))], "not at the output of a module"),
        ("v.pt", lambda: [v.clamp() for v in vectors_at((1, "mlp_out"), (1, "down_proj"))], "act on one module, 'layers.1.mlp'"),
    ],
)
def test_what_a_file_cannot_say_is_refused(model, tmp_path, name, make, message):
    with pytest.raises(ps.InvalidInput, match=message):
        ps.save_steered(tmp_path / name, make(), model)
    assert not list(tmp_path.iterdir())
