"""GGUF files of every architecture beside those of test_gguf.py: what transformers gives comes out, and what the block table
cannot say is refused."""

import copy

import gguf
import gguf_architectures
import gguf_converted
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Q
from gguf_architectures import MODELS
from gguf_models import random_blocks
from llama_judge import llama_logits
from oracles import torch
from test_gguf import TOKENS, error

import powersteer as ps
from powersteer.errors import BadCheckpoint, UnsupportedModel
from powersteer.loading import load_checkpoint
from powersteer.loading.architectures import ARCHITECTURE_OF, ARCHITECTURES
from powersteer.loading.blocks import Blocks
from powersteer.loading.families import FAMILIES
from powersteer.vectors.control_vector import read_control_vector

F, U, S, B, A = "float32", "uint32", "string", "bool", "array"
# Numbers that the converter rounds to float32 after it has computed with them: 1 + gain, exp(A_log), divisors of frequencies, and
# a scale in the metadata
ROUNDED = {"nemotron": 1e-6, "qwen35": 1e-5, "qwen35-values": 1e-5, "qwen3next": 1e-5, "apertus": 1e-8, "olmo2-yarn": 1e-7}


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("architectures"), {}

    def file(name):
        if name not in made:
            made[name] = gguf_converted.write(folder / f"{name}.gguf", name, gguf_architectures.make(name))
        return made[name]

    return file


def logits_of_transformers(name):
    return ps.from_transformers(gguf_architectures.make(name), dtype=np.float64)(TOKENS)


@pytest.mark.parametrize("name", MODELS)
def test_what_transformers_gives(name, files):
    """From the same weights; test_forward.py compares these families with transformers itself."""
    ours = ps.load(files(name), dtype=np.float64)
    assert error(ours(TOKENS), logits_of_transformers(name)) < ROUNDED.get(name, 1e-14)
    assert ours.identity["model_type"] == gguf_converted.architecture(name)


def test_every_architecture_is_tested():
    others = {"llama", "qwen2", "qwen3", "phi3", "gemma", "gemma2", "gemma3"}  # in test_gguf.py
    assert {gguf_converted.architecture(name) for name in MODELS} | others == set(ARCHITECTURES)
    assert set(ARCHITECTURES) <= set(gguf.MODEL_ARCH_NAMES.values()) and ARCHITECTURE_OF.keys() <= FAMILIES.keys()
    assert ARCHITECTURE_OF["gpt_oss"] == "gpt-oss" and ARCHITECTURE_OF["olmo2"] == ARCHITECTURE_OF["olmo3"] == "olmo2"


def test_a_control_vector_names_the_architecture(tmp_path):
    for model_type, hint in (("gpt_oss", "gpt-oss"), ("qwen3_5_text", "qwen35"), ("opt", "opt")):
        ps.SteeringVector.from_array([3.0, 4.0], 1, "resid_post", model_type=model_type).to_gguf(tmp_path / "v.gguf")
        assert read_control_vector(tmp_path / "v.gguf").fields["controlvector.model_hint"] == hint
        assert ps.load_vectors(tmp_path / "v.gguf")[0].model_type == model_type


def test_steering_and_jacobian_of_a_hybrid(files):
    ours = ps.load(files("qwen35-values"), dtype=np.float64)
    theirs = ps.from_transformers(gguf_architectures.make("qwen35-values"), dtype=np.float64)
    found = [m.jacobian(TOKENS, source=(0, "resid_post"), target=(2, "resid_post")).svd(3).S for m in (ours, theirs)]
    np.testing.assert_allclose(*found, rtol=1e-5)
    assert ours.spec.state_tiled and not theirs.spec.state_tiled


# ---- other forms of the same tensors ---------------------------------------------------------------------------------


def fuse_qkv(tensors):
    for i in range(3):
        for kind in ("weight", "bias"):
            parts = [tensors.pop(f"blk.{i}.attn_{one}.{kind}") for one in "qkv"]
            tensors[f"blk.{i}.attn_qkv.{kind}"] = np.concatenate(parts)


def fuse_gate_up(tensors):
    for i in range(3):
        parts = [tensors.pop(f"blk.{i}.ffn_{one}_exps.weight") for one in ("gate", "up")]
        tensors[f"blk.{i}.ffn_gate_up_exps.weight"] = np.concatenate(parts, 1)


def flat_gates(tensors):
    for i in range(3):
        tensors[f"blk.{i}.ffn_gate_inp_shexp.weight"] = tensors[f"blk.{i}.ffn_gate_inp_shexp.weight"][0]


def whole_kv_b(tensors):
    for i in range(3):
        k, v = (tensors.pop(f"blk.{i}.attn_{one}_b.weight") for one in "kv")
        tensors[f"blk.{i}.attn_kv_b.weight"] = np.concatenate([k.swapaxes(1, 2), v], 1).reshape(-1, v.shape[2])


def a_further_block(tensors):
    for name in [name for name in tensors if name.startswith("blk.1.")]:
        tensors[name.replace("blk.1.", "blk.3.")] = tensors[name] + 1
    tensors["blk.3.nextn.eh_proj.weight"] = np.ones((24, 48), np.float32)


FORMS = [
    ("seed_oss", fuse_qkv, {}),
    ("llama-mixtral", fuse_gate_up, {}),
    ("qwen2moe", fuse_gate_up, {}),
    ("qwen2moe", flat_gates, {}),
    ("qwen3next", flat_gates, {}),
    ("deepseek2", whole_kv_b, {"attention.key_length_mla": None, "attention.value_length_mla": None, "attention.head_count_kv": (U, 4),
                               "attention.key_length": (U, 9), "attention.value_length": (U, 7)}),
    ("qwen35", a_further_block, {"block_count": (U, 4), "nextn_predict_layers": (U, 1),
                                 "attention.recurrent_layers": (A, [True, False, True, False])}),
    ("glm4", a_further_block, {"block_count": (U, 4), "nextn_predict_layers": (U, 1)}),
    ("qwen35", lambda tensors: None, {"attention.recurrent_layers": None, "full_attention_interval": (U, 2)}),
    ("gpt-oss", lambda tensors: None, {"attention.sliding_window_pattern": (A, [True, False, True])}),
    ("gpt-oss", lambda tensors: None, {"attention.sliding_window_pattern": (U, 2)}),
    ("exaone4-no_window", lambda tensors: None, {"attention.sliding_window_pattern": (A, [True, True, True])}),
    ("cohere2", lambda tensors: None, {"attention.sliding_window_pattern": None}),
]  # fmt: skip


@pytest.mark.parametrize("name, change, meta", FORMS, ids=[f"{i}-{one[0]}" for i, one in enumerate(FORMS)])
def test_forms_that_files_have(name, change, meta, tmp_path):
    path = gguf_converted.write(tmp_path / "m.gguf", name, gguf_architectures.make(name), meta, change)
    assert error(ps.load(path, dtype=np.float64)(TOKENS), logits_of_transformers(name)) < ROUNDED.get(name, 1e-14)


NORMED = [("stablelm", dict(qk_layernorm=True)), ("command-r", dict(use_qk_norm=True, num_hidden_layers=64))]


@pytest.mark.parametrize("name, changes", NORMED)
def test_norms_of_heads(name, changes, kept, tmp_path):
    """Of the larger StableLM and Command R, which the converter stacks."""
    hf = gguf_architectures.build(MODELS[name][0], changes)

    def stack(tensors):
        for i, layer in enumerate(hf.model.layers):
            for part in "qk":
                norm = getattr(layer.self_attn, f"{part}_layernorm", None) or getattr(layer.self_attn, f"{part}_norm")
                gains = [one.weight for one in norm.norms] if hasattr(norm, "norms") else list(norm.weight)
                tensors[f"blk.{i}.attn_{part}_norm.weight"] = torch.stack(gains).float().numpy()

    path = gguf_converted.write(tmp_path / "m.gguf", name, hf, change=stack, skip=r".*[qk]_(layer)?norm.*")
    wanted = ps.from_transformers(hf, dtype=np.float64)(TOKENS)
    assert error(ps.load(path, dtype=np.float64)(TOKENS), wanted) < 1e-14
    assert error(kept(lambda: llama_logits(path, TOKENS)), wanted) < 1e-5


# ---- quantised experts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, kind", [("gpt-oss", Q.MXFP4), ("qwen3moe", Q.Q4_K), ("qwen3moe", Q.Q8_0)])
def test_quantised_experts_stay_as_they_are(name, kind, tmp_path):
    """Each is rows of its stack, in place, and gives the bits that its decoded weights give."""
    family, changes = MODELS[name]
    width = gguf.GGML_QUANT_SIZES[kind][0]
    sizes = dict(hidden_size=width, intermediate_size=width) | ({} if name == "gpt-oss" else dict(moe_intermediate_size=width))
    hf = gguf_architectures.build(family, {**changes, **sizes})
    arch = gguf_converted.architecture(name)
    stacks = {key: one.shape for key, one in gguf_converted.tensors_of(hf, arch).items() if key.endswith("exps.weight")}
    raw = {key: (random_blocks(shape, kind, i), kind) for i, (key, shape) in enumerate(stacks.items())}

    def decoded(tensors):
        tensors.update({key: gguf.dequantize(data, kind) for key, (data, _) in raw.items()})

    ours = ps.load(gguf_converted.write(tmp_path / "m.gguf", name, hf, raw=raw), dtype=np.float64)
    theirs = ps.load(gguf_converted.write(tmp_path / "d.gguf", name, hf, change=decoded), dtype=np.float64)
    np.testing.assert_array_equal(ours(TOKENS), theirs(TOKENS))
    experts = [expert for layer in ours.spec.layers for expert in layer.experts]
    assert all(isinstance(one, Blocks) and not one.data.flags.owndata for x in experts for one in (x.gate, x.up, x.down))
    assert ours.spec.stored[kind.name][0] == 3 * len(experts)


def test_a_latent_matrix_is_joined_in_its_own_type(tmp_path):
    path = gguf_converted.write(tmp_path / "m.gguf", "deepseek2", gguf_architectures.make("deepseek2"), kind=Q.F16)
    assert {layer.kv_b.dtype for layer in ps.load(path).spec.layers} == {np.dtype(np.float16)}


# ---- refusals --------------------------------------------------------------------------------------------------------

REFUSED = [
    ("deepseek2", {"expert_gating_func": (U, 1)}, BadCheckpoint, "chosen by a softmax.*DeepSeek 2"),
    ("deepseek2", {"expert_gating_func": None}, BadCheckpoint, "chosen by a softmax"),
    ("deepseek2", {"rope.dimension_count": (U, 9)}, BadCheckpoint, "9 dimensions turn of keys of 9"),
    ("deepseek2", {"attention.value_length_mla": (U, 6)}, BadCheckpoint, r"'blk.0.attn_v_b.weight'.*\(4, 7, 11\).*\(4, 6, 11\)"),
    ("deepseek2", {"attention.temperature_scale": (F, 0.1)}, UnsupportedModel, "deepseek2.attention.temperature_scale"),
    ("deepseek2", {"rope.scaling.yarn_ext_factor": (F, 0.5)}, UnsupportedModel, "yarn_ext_factor = 0.5"),
    ("qwen35", {"nextn_predict_layers": (U, 3)}, BadCheckpoint, "all 3 blocks predict"),
    ("qwen35", {"attention.recurrent_layers": (A, [True, False])}, BadCheckpoint, "lists 2 qwen35.attention.recurrent_layers for 3"),
    ("qwen35", {"block_count": (U, 2**31 - 1)}, BadCheckpoint, "block_count = 2147483647 and 42 tensors"),
    ("qwen35", {"ssm.inner_size": (U, 25)}, BadCheckpoint, "25 values"),
    ("qwen35", {"ssm.time_step_rank": None}, BadCheckpoint, "no 'qwen35.ssm.time_step_rank'"),
    ("qwen35", {"ssm.group_count": (U, 3)}, BadCheckpoint, "4 value heads of linear attention cannot share 3"),
    ("qwen3moe", {"rope.dimension_sections": (A, [4, 4, 2, 0])}, UnsupportedModel, "dimension_sections"),
    ("lfm2", {"attention.head_count_kv": (A, [0, 2, 1])}, BadCheckpoint, r"\[0, 2, 1\].*0 or one other"),
    ("lfm2", {"attention.head_count_kv": (U, 2)}, BadCheckpoint, "a list of integers"),
    ("lfm2", {"attention.head_count_kv": (A, [0, 2])}, BadCheckpoint, "lists 2 lfm2.attention.head_count_kv for 3 layers"),
    ("granite", {"rope.scaling.finetuned": (B, False)}, UnsupportedModel, "granite.rope.scaling.finetuned' = False"),
    ("granitemoe", {"expert_shared_feed_forward_length": (U, 8)}, UnsupportedModel, "expert_shared_feed_forward_length' = 8"),
    ("qwen3moe", {"expert_gating_func": (U, 2)}, UnsupportedModel, "expert_gating_func' = 2"),
    ("qwen3moe", {"expert_count": None}, BadCheckpoint, "no 'qwen3moe.expert_count'"),
    ("qwen3moe", {"expert_count": (U, 5)}, BadCheckpoint, r"ffn_(gate|up)_exps.*\(6, 17, 24\).*\(5, 17, 24\)|ffn_gate_inp"),
    ("mpt", {"attention.max_alibi_bias": (F, 0.0)}, UnsupportedModel, "max_alibi_bias' = 0.0"),
    ("exaone4", {"attention.sliding_window_pattern": (A, [True] * 3)}, BadCheckpoint, "lists 3 exaone4.attention.sliding_window_pattern"),
    ("gpt-oss", {"rope.freq_base_swa": (F, 7.0)}, UnsupportedModel, "freq_base_swa = 7.0, another base"),
    ("seed_oss", {"attention.value_length": (U, 8)}, BadCheckpoint, "key_length = 10 and .*value_length = 8"),
]  # fmt: skip


@pytest.mark.parametrize("name, meta, kind, message", REFUSED, ids=[f"{one[0]} {next(iter(one[1]))}" for one in REFUSED])
def test_metadata_that_is_refused(name, meta, kind, message, tmp_path):
    path = gguf_converted.write(tmp_path / "m.gguf", name, gguf_architectures.make(name), meta)
    with pytest.raises(kind, match=message):
        load_checkpoint(path)


def test_the_numbers_of_an_activation_are_needed(tmp_path):
    for change in (None, ("array", [0.5, 0.5])):
        path = gguf_converted.write(tmp_path / "m.gguf", "apertus", gguf_architectures.make("apertus"), top={"xielu.beta": change})
        with pytest.raises(BadCheckpoint, match=r"lacks xielu.beta, a list of 3 numbers"):
            load_checkpoint(path)


TENSORS = [
    ("qwen3moe", "blk.1.ffn_down_exps.weight", "no tensor 'blk.1.ffn_down_exps.weight'"),
    ("deepseek2", "blk.2.exp_probs_b.bias", "no tensor 'blk.2.exp_probs_b.bias'"),
    ("deepseek2", "blk.2.attn_k_b.weight", "no tensor 'blk.2.attn_kv_b.weight'"),
    ("qwen35", "blk.2.ssm_a", "no tensor 'blk.2.ssm_a'"),
    ("gpt-oss", "blk.0.attn_sinks.weight", "no tensor 'blk.0.attn_sinks.weight'"),
]


@pytest.mark.parametrize("name, tensor, message", TENSORS, ids=[one[1] for one in TENSORS])
def test_missing_tensors(name, tensor, message, tmp_path):
    hf = copy.copy(gguf_architectures.make(name))
    with pytest.raises(BadCheckpoint, match=message):
        load_checkpoint(gguf_converted.write(tmp_path / "m.gguf", name, hf, change=lambda tensors: tensors.pop(tensor)))
