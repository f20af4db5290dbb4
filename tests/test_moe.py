"""Mixtures of experts: what is particular to them. That every number is transformers' is tested with the other families
in test_forward, test_torch_func and test_generate."""

from __future__ import annotations

from unittest import mock

import hf_models
import numpy as np
import pytest
import torch
from checkpoints import change_tensors, copy, saved

import powersteer as ps
from powersteer.errors import BadCheckpoint
from powersteer.loading import load_checkpoint, spec_from_transformers

CASES = [name for name in hf_models.CASES if name.split("-")[0] in ("mixtral", "qwen3_moe", "olmoe")]
FAMILIES = [name for name in CASES if "-" not in name]


def matrices(layer):
    return [layer.router, *(getattr(e, slot) for e in layer.experts for slot in ("gate", "up", "down"))]


@pytest.mark.parametrize("name", FAMILIES)
def test_weights_are_views_of_the_file_and_of_the_stacks(name):
    hf = hf_models.make(name)
    from_file, from_memory = load_checkpoint(saved(name)).spec, spec_from_transformers(hf).spec
    parameters = [p.numpy() for p in hf.parameters()]
    for mine, shared in zip(from_file.layers, from_memory.layers, strict=True):
        for on_disk, stacked in zip(matrices(mine), matrices(shared), strict=True):
            assert not on_disk.flags.owndata and not on_disk.flags.writeable
            assert any(np.shares_memory(stacked, p) for p in parameters)
            np.testing.assert_array_equal(on_disk, stacked)
    experts = hf.model.layers[1].mlp.experts
    expert = from_memory.layers[1].experts[3]
    width = experts.gate_up_proj.shape[1] // 2
    np.testing.assert_array_equal(expert.gate, experts.gate_up_proj[3, :width])
    np.testing.assert_array_equal(expert.up, experts.gate_up_proj[3, width:])
    np.testing.assert_array_equal(expert.down, experts.down_proj[3])
    assert from_file.nbytes == 4 * hf.num_parameters() - 4 * extra_of_shared_gains(hf, from_file)


def extra_of_shared_gains(hf, spec):
    """A gain that heads share stands once for each in a Spec: what hf holds less, negative."""
    if spec.qk_norm != "head":
        return 0
    heads = spec.n_heads + spec.n_kv_heads - 2
    return -spec.n_layers * heads * spec.head_dim


def test_dense_layers_among_sparse_ones():
    spec = load_checkpoint(saved("qwen3_moe-some_dense")).spec
    assert [len(layer.experts) for layer in spec.layers] == [0, 6, 0, 0]
    assert [layer.up is None for layer in spec.layers] == [False, True, False, False]
    assert (spec.n_experts, spec.top_k, spec.d_expert, spec.d_ff, spec.norm_topk) == (6, 3, 17, 41, False)
    assert "n_experts" not in load_checkpoint(saved("llama")).spec.to_core(np.float64)[0]


@pytest.mark.parametrize("name", FAMILIES)
def test_stacks_are_read_from_files_too(tmp_path, name):
    """Some tools save what is in memory."""
    folder = copy(name, tmp_path)
    state = {key: tensor.detach().clone() for key, tensor in hf_models.make(name).state_dict().items()}

    def replace(tensors):
        tensors.clear()
        tensors.update(state)

    change_tensors(folder, replace)
    assert load_checkpoint(folder).identity["weights"] == load_checkpoint(saved(name)).identity["weights"]


def test_damaged_experts_are_named(tmp_path):
    folder = copy("mixtral", tmp_path)
    name = "model.layers.1.block_sparse_moe.experts.4.w3.weight"
    change_tensors(folder, lambda tensors: tensors[name].view(-1)[7].fill_(float("nan")))
    with pytest.raises(BadCheckpoint, match=rf"{name}.*NaN"):
        load_checkpoint(folder, check=True)
    change_tensors(folder, lambda tensors: tensors.pop(name))
    with pytest.raises(BadCheckpoint, match=rf"no tensor '{name}'"):
        load_checkpoint(folder)
    change_tensors(folder, lambda t: t.update({"model.layers.1.mlp.experts.down_proj": torch.zeros(5, 41, 24)}))
    with pytest.raises(BadCheckpoint, match=r"down_proj'.*\(5, 41, 24\).*\(5, 24, 41\)"):
        load_checkpoint(folder)


@pytest.mark.parametrize("name", CASES)
def test_the_jacobian_freezes_the_routing(name, loaded, rng):
    """torch.func with the experts of every token held fixed: the same, and so is what it does by itself."""
    model = loaded(name)
    prompt = rng.integers(0, model.n_vocab, 9).tolist()
    source, target, rows = (0, "resid_pre"), (2, "resid_post"), [[2, 8]]
    chosen, topk = [], torch.topk

    def record(x, k, dim):
        chosen.append(topk(x, k, dim=dim).indices)
        return topk(x, k, dim=dim)

    def replay(x, k, dim):
        chosen.append(chosen.pop(0))
        return x.gather(dim, chosen[-1]), chosen[-1]

    with hf_models.exact(name) as double:
        free = hf_models.jacobian(double, [prompt], source, target, None, rows)
        with mock.patch.object(torch, "topk", record):
            hf_models.run(double, prompt)
        assert len(chosen) == sum(bool(layer.experts) for layer in model.spec.layers)
        with mock.patch.object(torch, "topk", replay):
            frozen = hf_models.jacobian(double, [prompt], source, target, None, rows)
    J = model.jacobian(prompt, source=0, source_site="resid_pre", target=2, target_site="resid_post", target_positions=rows[0])
    scale = np.linalg.norm(frozen)
    assert np.linalg.norm(free - frozen) < 1e-13 * scale
    assert np.linalg.norm(J.dense() - frozen) < 1e-12 * scale


@pytest.mark.parametrize("stored", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", FAMILIES)
def test_16_bit_experts_are_used_as_stored(name, stored, loaded, rng):
    prompt = rng.integers(0, 61, 20).tolist()
    with hf_models.exact(name, stored=stored) as double:
        want = hf_models.run(double, prompt)[0]
    assert np.abs(loaded(name, stored=stored)(prompt) - want).max() < 1e-12 * np.abs(want).max()


def test_svd_of_a_mixture(loaded, rng):
    model = loaded("qwen3_moe")
    J = model.jacobian(rng.integers(0, 61, 9).tolist(), 0, 2)
    found = J.svd(k=4, tol=1e-10)
    assert found.converged
    np.testing.assert_allclose(found.S, np.linalg.svd(J.dense(), compute_uv=False)[:4], rtol=1e-9)


def test_an_estimate_counts_the_experts_a_token_takes(loaded):
    """Three layers are taped: their weights that a row meets, the share of each expert that was chosen."""
    model = loaded("mixtral")
    said = model.estimate(list(range(20)), 0, 2, source_site="resid_pre", target_positions=None)
    every = sum(array.size for layer in model.spec.layers for array in matrices(layer))
    one = sum(array.size for layer in model.spec.layers for array in matrices(layer)[1:4])
    attention = sum(m.size for layer in model.spec.layers for m in (layer.q, layer.k, layer.v, layer.o))
    routers = sum(layer.router.size for layer in model.spec.layers)
    assert every == routers + 5 * one and said.weights == model.spec.nbytes
    assert said.flops == 2 * 20 * (attention + routers + 2 * one) + 3 * 4 * 20**2 * 24


def test_a_saved_model_loads_by_its_folder(rng):
    prompt = rng.integers(0, 61, 9).tolist()
    for name in FAMILIES:
        model = ps.load(saved(name), dtype="float64")
        with hf_models.exact(name) as double:
            want = hf_models.run(double, prompt)[0]
        assert np.abs(model(prompt) - want).max() < 1e-12 * np.abs(want).max()
