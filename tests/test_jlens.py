"""Jacobian lenses: computed as their definition says (by PyTorch, on transformers' own code), read and written."""

from __future__ import annotations

import builtins
import os
import pickle

import hf_models
import numpy as np
import pytest
from oracles import torch

import powersteer as ps

PROMPTS = [[5, 17, 3, 44, 9, 30, 12, 8], [7, 21, 2, 50, 33]]
SKIP = 2


def by_definition(hf, tokens, layer, skip):
    """The estimator of anthropics/jacobian-lens, row by row: a one-hot cotangent at every valid position at once, the
    gradient at the block's output, its mean over the valid positions."""
    kept = {}

    def keep(i):
        def hook(module, args, output):
            output.requires_grad_(True)
            output.retain_grad()
            kept[i] = output

        return hook

    blocks = hf_models.blocks(hf)
    handles = [blocks[i].register_forward_hook(keep(i)) for i in (layer, len(blocks) - 1)]
    hf(torch.tensor([tokens]), use_cache=False)
    for handle in handles:
        handle.remove()
    source, target = kept[layer], kept[len(blocks) - 1]
    valid = torch.arange(skip, len(tokens) - 1)
    J = []
    for dim in range(target.shape[-1]):
        cotangent = torch.zeros_like(target)
        cotangent[0, valid, dim] = 1
        (grad,) = torch.autograd.grad(target, source, cotangent, retain_graph=True)
        J.append(grad[0, valid].mean(0))
    return torch.stack(J).numpy()


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "stablelm-parallel", "qwen3_moe"])
def test_fit_is_the_definition(name, loaded):
    lens = ps.JLens.fit(loaded(name), PROMPTS, skip_first=SKIP)
    assert list(lens) == [0, 1] and lens.n_prompts == 2 and lens.d_model == loaded(name).d_model
    with hf_models.exact(name) as hf:
        for layer in lens:
            want = np.mean([by_definition(hf, p, layer, SKIP) for p in PROMPTS], axis=0)
            assert np.abs(lens[layer].dense() - want).max() < 1e-11 * np.abs(want).max()


def test_settings_of_a_fit(loaded):
    model = loaded("llama")
    cut = ps.JLens.fit(model, PROMPTS[0], layers=[1], skip_first=SKIP, max_tokens=6)
    same = ps.JLens.fit(model, [PROMPTS[0][:6]], layers=[1], skip_first=SKIP)
    assert list(cut) == [1] and np.array_equal(cut[1].dense(), same[1].dense())
    for arguments, message in [
        (dict(prompts=PROMPTS), "prompt 0 has 8 tokens"),
        (dict(prompts=[PROMPTS[0], PROMPTS[1][:3]], skip_first=2), "prompt 1 has 3 tokens"),
        (dict(prompts=PROMPTS, skip_first=SKIP, layers=[2]), "does not come before"),
        (dict(prompts=PROMPTS, skip_first=SKIP, layers=[]), "a layer before the last"),
        (dict(prompts=PROMPTS, skip_first=-1), "skip_first >= 0"),
    ]:
        with pytest.raises(ps.InvalidInput, match=message):
            ps.JLens.fit(model, **arguments)


def test_what_is_written_is_what_the_original_loads(tmp_path, loaded):
    model = loaded("llama")
    lens = ps.JLens.fit(model, PROMPTS, skip_first=SKIP)
    lens.save(tmp_path / "lens.pt")
    content = torch.load(tmp_path / "lens.pt", map_location="cpu", weights_only=True)
    assert list(content) == ["J", "n_prompts", "source_layers", "d_model", "metadata"]
    assert (content["n_prompts"], content["source_layers"], content["d_model"]) == (2, [0, 1], model.d_model)
    assert content["metadata"]["target_layer"] == 2 and content["metadata"]["skip_first"] == SKIP
    for layer, J in content["J"].items():
        assert J.dtype == torch.float16
        np.testing.assert_allclose(J.float().numpy(), lens[layer].dense(), rtol=1e-3, atol=1e-6)
    assert os.listdir(tmp_path) == ["lens.pt"]
    ps.JLens.load(tmp_path / "lens.pt").save(tmp_path / "again.pt")
    again = torch.load(tmp_path / "again.pt", weights_only=True)
    assert all(torch.equal(again["J"][layer], J) for layer, J in content["J"].items())


def theirs(path, d=9, layers=(0, 2, 5), dtype=torch.float16, **changes):
    """A file as JacobianLens.save writes it."""
    g = torch.Generator().manual_seed(0)
    J = {layer: torch.randn(d, d, generator=g).to(dtype) for layer in layers}
    torch.save({"J": J, "n_prompts": 100, "source_layers": sorted(J), "d_model": d, **changes}, path)
    return J


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_file_of_the_original(dtype, tmp_path):
    J = theirs(tmp_path / "lens.pt", dtype=dtype)
    lens = ps.JLens.load(tmp_path / "lens.pt")
    assert list(lens) == [0, 2, 5] and (lens.n_prompts, lens.d_model) == (100, 9)
    assert 2 in lens and 3 not in lens and len(lens) == 3 and "100 prompts" in repr(lens)
    one, exact = lens[2], J[2].double().numpy()
    x = np.random.default_rng(0).standard_normal((9, 4))
    assert np.array_equal(one.dense(), exact) and one.shape == (9, 9)
    np.testing.assert_allclose(one @ x, exact @ x, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(one.T @ x, exact.T @ x, rtol=1e-5, atol=1e-5)
    singular = np.linalg.svd(exact)
    np.testing.assert_allclose(ps.svd(one, 9, method="dense").S, singular[1], rtol=1e-5)
    result = one.svd(3)
    np.testing.assert_allclose(result.S, singular[1][:3], rtol=1e-3)
    vec = result.vectors[0]
    assert vec.location == (2, "resid_post") and vec.rank == 0 and vec.reduce == "mean"
    assert vec.model is None and vec.target is None  # the file does not say
    assert abs(abs(singular[2][0] @ vec.direction) - 1) < 1e-3
    with pytest.raises(ps.InvalidInput, match=r"no layer 3; it has \[0, 2, 5\]"):
        lens[3]


def test_vectors_of_our_lens_know_their_model(tmp_path, loaded):
    model = loaded("llama", "float32")
    ps.JLens.fit(model, PROMPTS, skip_first=SKIP).save(tmp_path / "lens.pt")
    vec = ps.JLens.load(tmp_path / "lens.pt")[1].svd(2).vectors[1]
    identity = model.identity
    assert (vec.model, vec.model_type, vec.weights) == (identity["name"], "llama", identity["weights"])
    assert vec.target == (2, "resid_post")
    vec.save(tmp_path / "v.safetensors")
    model.steered(ps.SteeringVector.load(tmp_path / "v.safetensors"))(PROMPTS[0])


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (builtins.open, (os.fspath(self.path), "w"))


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_pickles_are_not_executed(save, tmp_path):
    save({"J": {0: torch.eye(3)}, "n_prompts": Touch(tmp_path / "touched")}, tmp_path / "lens.pt")
    with pytest.raises(ps.InvalidInput, match="cannot read"):
        ps.JLens.load(tmp_path / "lens.pt")
    assert os.listdir(tmp_path) == ["lens.pt"]


@pytest.mark.parametrize(("changes", "message"), [
    (dict(J=3), "no dictionary 'J'"),
    (dict(J={}), "no dictionary 'J'"),
    (dict(d_model=8), r"it must be \(8, 8\)"),
    (dict(d_model="9"), "d_model is '9'"),
    (dict(n_prompts=0), "n_prompts 0"),
    (dict(n_prompts=True), "n_prompts True"),
    (dict(source_layers=[0, 2]), r"source_layers \[0, 2\]"),
    (dict(source_layers=4), "source_layers 4"),
    (dict(J={"0": torch.eye(9)}, source_layers=["0"]), "the layer '0'"),
    (dict(J={-1: torch.eye(9)}, source_layers=[-1]), "the layer -1"),
    (dict(J={0: torch.eye(9)[:4]}, source_layers=[0]), r"\(4, 9\)"),
    (dict(J={0: torch.eye(9, dtype=torch.int32)}, source_layers=[0]), "int32"),
    (dict(J={0: [1.0]}, source_layers=[0]), "list"),
    (dict(jacobian_sum={}), "checkpoint"),
])  # fmt: skip
def test_files_that_are_no_lens(changes, message, tmp_path):
    theirs(tmp_path / "lens.pt", **changes)
    with pytest.raises(ps.InvalidInput, match=message):
        ps.JLens.load(tmp_path / "lens.pt")


def test_damaged_files(tmp_path, rng):
    path = tmp_path / "lens.pt"
    with pytest.raises(ps.NotFound):
        ps.JLens.load(path)
    theirs(path)
    data = path.read_bytes()
    for blob in (b"", b"PK", data[: len(data) // 2], data[:-1], b"GGUF" + data, data.replace(b"PK", b"KP")):
        path.write_bytes(blob)
        with pytest.raises(ps.InvalidInput, match="cannot read"):
            ps.JLens.load(path)
    for _ in range(60):
        bad = bytearray(data)
        for at in rng.integers(0, len(bad), 5):
            bad[at] = rng.integers(256)
        path.write_bytes(bad)
        try:
            lens = ps.JLens.load(path)
            assert all(lens[layer].dense().shape == (9, 9) for layer in lens)
        except ps.InvalidInput:
            continue


def test_numbers_that_do_not_fit(tmp_path):
    theirs(tmp_path / "lens.pt", J={0: torch.full((9, 9), torch.nan)}, source_layers=[0])
    lens = ps.JLens.load(tmp_path / "lens.pt")
    with pytest.raises(ps.InvalidInput, match="NaN or infinity at layer 0"):
        lens[0]
    for bad in (1e6, np.nan):
        with pytest.raises(ps.InvalidInput, match="beyond float16"):
            ps.JLens({1: np.full((2, 2), bad)}, 1).save(tmp_path / "out.pt")
    assert not (tmp_path / "out.pt").exists()


def test_without_pytorch(tmp_path, monkeypatch):
    theirs(tmp_path / "lens.pt")
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    vec = ps.SteeringVector.from_array(np.ones(3), 1, "mlp_out")
    for act in (
        lambda: ps.JLens.load(tmp_path / "lens.pt"),
        lambda: ps.JLens({0: np.eye(2)}, 1).save(tmp_path / "x.pt"),
        vec.to_torch,
        lambda: vec.hook(object()),
    ):
        with pytest.raises(ps.MissingDependency, match="pip install torch"):
            act()
