"""Mixtures of experts: what is particular to them. That every number is transformers' is tested with the other families
in test_forward, test_torch_func and test_generate."""

from __future__ import annotations

from contextlib import ExitStack
from unittest import mock

import hf_configs
import hf_models
import numpy as np
import pytest
from checkpoints import change_config, change_tensors, copy, saved
from oracles import needs, torch, transformers

import powersteer as ps
from powersteer.errors import BadCheckpoint
from powersteer.loading import load_checkpoint, spec_from_transformers
from powersteer.loading.spec import Norm

CASES = [name for name in hf_models.CASES if hf_models.arguments_of(name).get("num_experts_per_tok")]
FAMILIES = [name for name in CASES if "-" not in name]


def matrices(layer):
    router = [] if layer.router is None else [layer.router]
    return [*router, *(getattr(e, slot) for e in layer.every_expert for slot in ("gate", "up", "down") if getattr(e, slot) is not None)]


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
    layer, parts = 2 if name == "nemotron_h" else 1, hf_models.PARTS.get(name, hf_models.Parts())
    experts = hf.model.layers[layer].get_submodule(parts.beside or parts.mlp).experts
    expert = from_memory.layers[layer].experts[3]
    if name == "nemotron_h":  # no gates
        gate, up, down = None, experts.up_proj[3], experts.down_proj[3]
    elif name == "gpt_oss":
        gate_up, down = experts.gate_up_proj[3], experts.down_proj[3]
        gate, up, down = gate_up.T[::2], gate_up.T[1::2], down.T
    elif name == "llama4_text":
        (gate, up), down = experts.gate_up_proj[3].T.chunk(2), experts.down_proj[3].T
    else:
        (gate, up), down = experts.gate_up_proj[3].chunk(2), experts.down_proj[3]
    np.testing.assert_array_equal(expert.gate, gate)
    np.testing.assert_array_equal(expert.up, up)
    np.testing.assert_array_equal(expert.down, down)
    stored = {tensor.data_ptr(): tensor.nbytes for tensor in hf.state_dict().values()}
    assert from_file.nbytes == sum(stored.values()) + widened(from_file)


def widened(spec):
    """Bytes by which the vectors of a Spec are longer than the float32 that are stored: 1 + w is rounded to float64, and a gain
    that heads share is there for each."""
    norms = {"q_norm": spec.n_heads, "k_norm": spec.n_kv_heads, "o_norm": spec.state_v_heads}
    vectors = [(spec.final_norm.gain, 1)]
    for layer in spec.layers:
        for name, value in vars(layer).items():
            if isinstance(value, Norm) and value.gain is not None:
                shared = (name == "o_norm" and layer.mixer == "delta") or (name in norms and spec.qk_norm == "head")
                vectors.append((value.gain, norms[name] if shared else 1))
        vectors += [] if layer.decay_rate is None else [(layer.decay_rate, 1)]
    return sum(value.nbytes - 4 * value.size // copies for value, copies in vectors)


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

    def record(x, k, dim, **how):
        chosen.append(topk(x, k, dim=dim, **how).indices)
        return topk(x, k, dim=dim, **how)

    def replay(x, k, dim, **how):
        chosen.append(chosen.pop(0))
        return x.gather(dim, chosen[-1]), chosen[-1]

    def patched(function):
        return mock.patch.multiple(torch, topk=function), mock.patch.multiple(torch.Tensor, topk=function)

    with hf_models.exact(name) as double:
        free = frozen = hf_models.jacobian(double, [prompt], source, target, None, rows)
        with ExitStack() as stack:
            for one in patched(record):
                stack.enter_context(one)
            hf_models.run(double, prompt)
        if "phimoe" in name:  # which takes largest values instead
            assert not chosen
        else:
            groups = any(layer.correction is not None for layer in model.spec.layers)  # which two choices of theirs precede
            assert len(chosen) == sum(bool(layer.experts) for layer in model.spec.layers) * (3 if groups else 1)
            with ExitStack() as stack:
                for one in patched(replay):
                    stack.enter_context(one)
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


def test_mxfp4_experts_of_gpt_oss_are_used_as_stored(tmp_path, rng):
    """Rows of gate and up alternate in the blocks, too, and are taken without a copy."""
    needs("transformers")
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    sizes = dict(hf_configs.HEAD, hidden_size=64, intermediate_size=96, sliding_window=5, num_local_experts=3, num_experts_per_tok=2)
    hf = transformers.AutoModelForCausalLM.from_config(transformers.GptOssConfig(**sizes), attn_implementation="eager").eval()
    hf.config._experts_implementation = "eager"
    hf.requires_grad_(False)
    hf_models.fill(hf, 0)
    packed = {}
    for i, layer in enumerate(hf.model.layers):
        for name, rows, columns in (("gate_up_proj", 192, 64), ("down_proj", 64, 96)):
            blocks = torch.from_numpy(rng.integers(0, 256, (3, rows, columns // 32, 16), dtype=np.uint8))
            scales = torch.from_numpy(rng.integers(121, 125, (3, rows, columns // 32), dtype=np.uint8))
            getattr(layer.mlp.experts, name).copy_(convert_moe_packed_tensors(blocks, scales, dtype=torch.float32))
            path = f"model.layers.{i}.mlp.experts.{name}"
            packed |= {path: None, path + "_blocks": blocks, path + "_scales": scales}
    hf.save_pretrained(tmp_path)

    def replace(tensors):
        for name, tensor in packed.items():
            if tensor is None:
                del tensors[name]
            else:
                tensors[name] = tensor

    change_tensors(tmp_path, replace)
    change_config(tmp_path, quantization_config={"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]})
    model, prompt = ps.load(tmp_path), rng.integers(3, 61, 12).tolist()
    want = hf(torch.tensor(prompt)[None]).logits[0].numpy()
    assert np.abs(model(prompt) - want).max() < 2e-5 * np.abs(want).max()
    expert = model.spec.layers[1].experts[2]
    assert {expert.gate.kind, expert.up.kind, expert.down.kind} == {"MXFP4_APART"} and not expert.gate.data.flags.owndata
