"""Decoder rows from the files of SAELens, written here by safetensors and json in the layouts of its versions 3 and 6."""

from __future__ import annotations

import json

import numpy as np
import pytest
from oracles import safetensors_torch, torch
from tiny import tiny

import powersteer as ps

MODEL = tiny()[0]
N = 11
OLD = {"d_in": MODEL.d_model, "d_sae": N, "dtype": "float32", "hook_name": "blocks.1.hook_resid_pre", "hook_layer": 1,
       "hook_head_index": None, "model_name": "tiny", "normalize_activations": "none", "architecture": "standard"}  # fmt: skip
NEW = {"d_in": MODEL.d_model, "d_sae": N, "dtype": "float32", "architecture": "jumprelu", "normalize_activations": "none",
       "metadata": {"hook_name": "blocks.1.hook_resid_pre", "hook_head_index": None, "sae_lens_version": "6.0.0"}}  # fmt: skip


def write(folder, config, tensors=None, dtype=torch.float32, seed=0):
    """-> W_dec in float64, as it is stored"""
    torch.manual_seed(seed)
    W = torch.randn(N, MODEL.d_model).to(dtype)
    made = {"W_dec": W, "W_enc": W.T.contiguous(), "b_dec": torch.zeros(MODEL.d_model, dtype=dtype)} if tensors is None else tensors
    safetensors_torch.save_file(made, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps(config))
    return W.double().numpy()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("config", [OLD, NEW, {**OLD, "hook_point": OLD["hook_name"], "hook_name": None}])
def test_rows_of_the_decoder(config, dtype, tmp_path):
    W = write(tmp_path, config, dtype=dtype)
    found = ps.sae_vectors(MODEL, tmp_path, [7, 0])
    for v, feature in zip(found, (7, 0), strict=True):
        np.testing.assert_allclose(v.vector, W[feature], rtol=1e-6 if dtype != torch.float64 else 1e-12)
        assert v.rank == feature and v.scale == pytest.approx(np.linalg.norm(W[feature]), rel=1e-6)
        assert (v.location, v.method, v.weights) == ((1, "resid_pre"), "sae", MODEL.identity["weights"])
        assert v.site_norm is None and v.cost.forward == 0
    (only,) = ps.sae_vectors(MODEL, str(tmp_path), 7, prompts=["ab", "xyz"])
    assert np.array_equal(only.vector, found[0].vector) and only.cost.forward == 2 and only.prompts == ("ab", "xyz")
    rows = np.vstack(MODEL.activations(["ab", "xyz"], only.location))
    assert only.relative(0.5).scale == pytest.approx(0.5 * np.linalg.norm(rows, axis=1).mean(), rel=1e-12)
    assert not np.allclose(MODEL.steered(only)("ab"), MODEL("ab"))


def test_a_transcoder_writes_where_its_output_is(tmp_path):
    about = {"hook_name": "blocks.0.hook_resid_mid", "hook_name_out": "blocks.0.hook_mlp_out"}
    write(tmp_path, {**NEW, "architecture": "transcoder", "metadata": about})
    assert ps.sae_vectors(MODEL, tmp_path, 3)[0].location == (0, "mlp_out")


@pytest.mark.parametrize(
    ("change", "features", "message"),
    [
        ({}, N, "a feature is 11; it must be at most 10: the autoencoder has 11"),
        ({}, -1, "a feature is -1"),
        ({}, [], "features are empty"),
        ({"hook_name": "blocks.1.attn.hook_z"}, 0, r"cfg\.json: its hook is 'blocks.1.attn.hook_z': .* neither steered nor differentiated"),
        ({"hook_name": "blocks.9.hook_resid_pre"}, 0, "no layer 9"),
        ({"hook_name": None}, 0, "names no hook"),
        ({"hook_head_index": 3}, 0, "of head 3 alone"),
        ({"normalize_activations": "covariance_whitening"}, 0, "whitened"),
    ],
)
def test_configurations_and_features_that_are_refused(change, features, message, tmp_path):
    write(tmp_path, {**OLD, **change})
    with pytest.raises(ps.InvalidInput, match=message):
        ps.sae_vectors(MODEL, tmp_path, features)


def row_of(value):
    W = torch.ones(N, MODEL.d_model)
    W[2] = value
    return {"W_dec": W}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"W_enc": torch.ones(3, 4)}, r"no matrix W_dec, the decoder; it holds \['W_enc'\]"),
        ({"W_dec": torch.ones(N)}, "no matrix W_dec"),
        ({"W_dec": torch.ones(N, 5)}, "rows of 5 numbers; activations of 'tiny'"),
        (row_of(0.0), "feature 2 in .* is zero or not finite"),
        (row_of(torch.nan), "feature 2 in .* is zero or not finite"),
    ],
)
def test_weights_that_are_refused(tensors, message, tmp_path):
    write(tmp_path, OLD, tensors)
    with pytest.raises(ps.InvalidInput, match=message):
        ps.sae_vectors(MODEL, tmp_path, 2)


def test_files_that_are_not_there_or_damaged(tmp_path):
    with pytest.raises(ps.NotFound, match="no folder"):
        ps.sae_vectors(MODEL, tmp_path / "nowhere", 0)
    with pytest.raises(ps.NotFound, match=r"no cfg\.json"):
        ps.sae_vectors(MODEL, tmp_path, 0)
    write(tmp_path, OLD)
    weights = tmp_path / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(ps.BadCheckpoint, match="truncated"):
        ps.sae_vectors(MODEL, tmp_path, 0)
    weights.unlink()
    with pytest.raises(ps.NotFound, match="sae_weights"):
        ps.sae_vectors(MODEL, tmp_path, 0)
    (tmp_path / "cfg.json").write_text("[1]")
    with pytest.raises(ps.BadCheckpoint, match="not a JSON object"):
        ps.sae_vectors(MODEL, tmp_path, 0)
