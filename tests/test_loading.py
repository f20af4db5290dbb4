"""Models from folders and from transformers: config.json against transformers' own config classes, slots of a Spec
against the tensors they come from, and configs that must be refused. What models compute is tested elsewhere."""

from __future__ import annotations

from copy import deepcopy

import hf_models
import numpy as np
import pytest
from checkpoints import change_config, change_tensors, copy, equal_specs, saved
from oracles import needs, torch, transformers
from random_checkpoints import ONE_PLUS

from powersteer.errors import BadCheckpoint, InvalidInput, UnsupportedModel
from powersteer.loading import load_checkpoint, spec_from_transformers
from powersteer.loading.config import HARMLESS, ONLY, read_hyperparameters, rope_settings
from powersteer.loading.families import FAMILIES
from powersteer.loading.family import REQUIRED
from powersteer.loading.spec import MATRICES, NORMS

# The odd one dimension that turns in this case is no model: transformers broadcasts it into a wider head.
CASES = [name for name in hf_models.CASES if name != "stablelm-qk_norm"]

# ---- configs ---------------------------------------------------------------------------------------------------------


def config_class(family):
    return transformers.models.auto.configuration_auto.CONFIG_MAPPING[family.model_type]


def small(family):
    """The keys that have no default. These heads can share any family's default number of keys."""
    n_heads = 40 if family.model_type == "helium" else 32
    sizes = {"d_model": 256, "n_layers": 24, "n_heads": n_heads, "d_ff": 72, "n_vocab": 99}
    return {name: sizes[key.hyperparameter] for name, key in family.keys.items() if key.default is REQUIRED}


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_defaults_are_those_of_transformers(family):
    bare = small(family)
    full = config_class(family)(**bare).to_dict()
    ours, theirs = (vars(read_hyperparameters(config, family, "config")) for config in (bare, full))
    if "layer_types" in full and ours["layer_types"] is None:  # written out there
        sliding = [family.sliding(read_hyperparameters(bare, family, "config"), i) for i in range(ours["n_layers"])]
        ours["layer_types"] = ["sliding_attention" if one else "full_attention" for one in sliding]
    if "has_rope" in ours:
        facts = read_hyperparameters(bare, family, "config")
        ours["has_rope"] = [family.rope_index(facts, i, "") + 1 for i in range(ours["n_layers"])]
    assert ours == theirs
    if family.rope is not None:
        ours, theirs = (rope_settings(config, family.rope, "config") for config in (bare, full))
        assert [values for values, _ in ours] == [values for values, _ in theirs]


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_every_key_of_transformers_is_known(family):
    full = config_class(family)(**small(family)).to_dict()
    read_hyperparameters(full, family, "config")  # a key that transformers adds fails here until someone looks at it


def test_no_key_is_both_read_and_harmless():
    for family in FAMILIES.values():
        harmless = " ".join([*HARMLESS.values(), *family.ignored.values()]).split()
        assert not set(harmless) & {*family.keys, *family.only, *ONLY}
        assert len(set(harmless)) == len(harmless)


REFUSED = [
    ("llama", {"hidden_act": "xielu"}, UnsupportedModel, "activation 'xielu'"),
    ("llama", {"hidden_act": 3}, BadCheckpoint, "'hidden_act' = 3 where a name"),
    ("llama", {"attention_bias": "yes"}, BadCheckpoint, "'attention_bias' = 'yes' where true or false"),
    ("llama", {"attention_bias": True}, BadCheckpoint, "no tensor 'model.layers.0.self_attn.q_proj.bias'"),
    ("llama-biases", {"mlp_bias": False}, BadCheckpoint, "mlp.*bias.*does not belong"),
    ("llama", {"quantization_config": {"quant_method": "gptq"}}, UnsupportedModel, "quantization_config.*unquantised"),
    ("llama", {"is_encoder_decoder": True}, UnsupportedModel, "is_encoder_decoder"),
    ("llama", {"hidden_size": ...}, BadCheckpoint, "no 'hidden_size'"),
    ("llama", {"num_attention_heads": 0}, BadCheckpoint, "'num_attention_heads' = 0 where a positive integer"),
    ("llama", {"num_attention_heads": 4.0}, BadCheckpoint, "'num_attention_heads' = 4.0 where a positive integer"),
    ("llama", {"num_key_value_heads": 3}, BadCheckpoint, "4 heads cannot share 3"),
    ("llama", {"num_hidden_layers": 2}, BadCheckpoint, "'model.layers.2.*does not belong to a llama model"),
    ("llama", {"num_hidden_layers": 4}, BadCheckpoint, "no tensor 'model.layers.3"),
    ("llama", {"vocab_size": 62}, BadCheckpoint, r"embed_tokens.weight.*\(61, 24\).*\(62, 24\)"),
    ("llama", {"head_dim": 12}, BadCheckpoint, r"q_proj.weight.*\(40, 24\).*\(48, 24\)"),
    ("llama", {"rms_norm_eps": "1e-5"}, BadCheckpoint, "'rms_norm_eps' = '1e-5' where a positive number"),
    ("llama", {"rms_norm_eps": float("nan")}, BadCheckpoint, "rms_norm_eps"),
    ("llama", {"model_type": "mamba"}, UnsupportedModel, "'mamba', a family that is not supported.*llama"),
    ("llama", {"model_type": "paligemma", "text_config": {}}, UnsupportedModel, "only the text part"),
    ("llama", {"model_type": "gemma3"}, BadCheckpoint, "no text_config"),
    ("llama", {"model_type": "llava", "text_config": {"model_type": "bert"}}, UnsupportedModel, "'bert'"),
    ("llama", {"model_type": ...}, BadCheckpoint, "no model_type"),
    ("llama", {"partial_rotary_factor": 0.5}, UnsupportedModel, "'partial_rotary_factor' = 0.5|turns a part"),
    (
        "llama",
        {"rope_parameters": {"rope_type": "quadratic", "rope_theta": 1e4}},
        UnsupportedModel,
        "'quadratic'",
    ),
    ("llama", {"rope_parameters": {"rope_type": "linear"}}, BadCheckpoint, "factor = None"),
    ("llama", {"rope_parameters": {"type": "yarn", "rope_type": "linear"}}, BadCheckpoint, "type and rope_type"),
    ("llama", {"rope_parameters": {"rope_theta": 1.0}}, BadCheckpoint, "must exceed 1"),
    ("llama", {"rope_parameters": {"rope_theta": 2e4}, "rope_theta": 1e4}, BadCheckpoint, "20000.0, and beside it"),
    ("llama", {"rope_parameters": [1]}, BadCheckpoint, "an object is needed"),
    ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0}}, BadCheckpoint, "differ; remove one"),
    ("gpt_neox", {"rope_parameters": {"partial_rotary_factor": 0.01}}, UnsupportedModel, "turns 0 of 8"),
    (
        "phi3",
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0}},
        UnsupportedModel,
        "'linear'; this family has",
    ),
    ("mistral", {"sliding_window": 0}, BadCheckpoint, "'sliding_window' = 0"),
    ("mistral", {"mlp_bias": True}, UnsupportedModel, "'mlp_bias' = True"),
    ("mistral", {"layer_types": ["full_attention"] * 3}, UnsupportedModel, "layer_types"),
    ("qwen3", {"layer_types": ["sliding_attention"] * 3}, BadCheckpoint, "without a window in use"),
    ("qwen3", {"layer_types": ["chunked_attention"] * 3}, UnsupportedModel, "'chunked_attention'"),
    ("qwen3", {"layer_types": ["full_attention"] * 2}, BadCheckpoint, "lists 2 layer_types for 3"),
    ("smollm3", {"no_rope_layers": [1, 2, 0]}, BadCheckpoint, "a list of 0 and 1"),
    ("gpt2", {"add_cross_attention": True}, UnsupportedModel, "add_cross_attention"),
    ("gpt2", {"n_positions": 65}, BadCheckpoint, r"wpe.weight.*\(64, 20\).*\(65, 20\)"),
    ("gpt2", {"tie_word_embeddings": False}, BadCheckpoint, "no tensor 'lm_head.weight'"),
    ("gemma", {"hidden_act": "silu"}, UnsupportedModel, "'hidden_act' = 'silu'"),
    ("gemma2", {"use_bidirectional_attention": True}, UnsupportedModel, "use_bidirectional_attention"),
    ("gemma3_text", {"rope_parameters": {"linear_attention": {}}}, UnsupportedModel, "not a layer type"),
    ("starcoder2", {"norm_type": "rms_norm"}, UnsupportedModel, "norm_type"),
    ("ministral3", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, BadCheckpoint, "llama_4_scaling_beta = None"),
    ("bloom", {"apply_residual_connection_post_layernorm": True}, UnsupportedModel, "apply_residual_connection"),
    ("bloom", {"n_embed": 32}, BadCheckpoint, "hidden_size = 24 and n_embed = 32; remove one"),
    ("opt", {"do_layer_norm_before": False}, UnsupportedModel, "do_layer_norm_before"),
    ("opt", {"word_embed_proj_dim": 12}, BadCheckpoint, "hidden_size = 24 and word_embed_proj_dim = 12; remove one"),
    ("mpt", {"attn_config": {"alibi": False}}, UnsupportedModel, "'attn_config.alibi' = False"),
    ("mpt", {"attn_config": {"attn_type": "multiquery_attention"}}, UnsupportedModel, "attn_type"),
    ("mpt", {"attn_config": 3}, BadCheckpoint, "'attn_config' = 3 where an object"),
    ("mpt", {"clip_qkv": 8.0}, BadCheckpoint, "clip_qkv = 8.0, which a mpt model does not read"),
    ("falcon", {"new_decoder_architecture": True, "parallel_attn": False}, BadCheckpoint, "without parallel_attn"),
    ("falcon", {"num_ln_in_parallel_attn": 3}, BadCheckpoint, "num_ln_in_parallel_attn = 3"),
    ("gptj", {"rotary_dim": 7}, UnsupportedModel, "turns 7 of 6"),
    ("gpt_neo", {"attention_types": [[["global"], 3]], "attention_layers": ["global", "local", "local"]}, BadCheckpoint, "disagree"),
    ("gpt_neo", {"attention_types": [[["global"], 2]], "attention_layers": None}, BadCheckpoint, "2 layers.*where 3"),
    ("exaone4", {"sliding_window_pattern": -1}, BadCheckpoint, "an integer, 0 or more, or a pattern"),
    ("olmoe", {"clip_qkv": 8.0}, UnsupportedModel, "'clip_qkv' = 8.0"),
    ("olmoe", {"head_dim": 12}, UnsupportedModel, "head_dim"),
    ("mixtral", {"num_experts_per_tok": 6}, BadCheckpoint, "cannot take 6 of 5"),
    ("mixtral", {"num_experts_per_tok": 0}, BadCheckpoint, "'num_experts_per_tok' = 0"),
    ("mixtral", {"num_experts": 4}, BadCheckpoint, "num_experts = 4 and num_local_experts = 5; remove one"),
    ("mixtral", {"num_local_experts": 4}, BadCheckpoint, r"gate.weight.*\(5, 24\).*\(4, 24\)"),
    ("mixtral", {"num_local_experts": 6}, BadCheckpoint, r"gate.weight.*\(5, 24\).*\(6, 24\)"),
    ("mixtral", {"norm_topk_prob": False}, UnsupportedModel, "norm_topk_prob"),
    ("qwen3_moe", {"mlp_only_layers": [1]}, BadCheckpoint, "no tensor 'model.layers.1.mlp.gate_proj.weight'"),
    ("qwen3_moe", {"mlp_only_layers": [True]}, BadCheckpoint, "mlp_only_layers.*a list of integers"),
    ("qwen3_moe", {"decoder_sparse_step": 0}, BadCheckpoint, "decoder_sparse_step"),
    ("qwen3_moe", {"shared_expert_intermediate_size": 8}, UnsupportedModel, "shared_expert_intermediate_size"),
    ("qwen2_moe", {"shared_expert_intermediate_size": 8}, BadCheckpoint, r"shared_expert.gate_proj.weight.*\(29, 24\).*\(8, 24\)"),
    ("qwen2_moe", {"qkv_bias": False}, BadCheckpoint, "_proj.bias.*does not belong"),
    ("granitemoe", {"mlp_bias": True}, UnsupportedModel, "'mlp_bias' = True"),
    ("granitemoe", {"num_local_experts": 4}, BadCheckpoint, r"input_linear.weight.*\(5, 82, 24\).*\(4, 82, 24\)"),
    ("phimoe", {"num_experts_per_tok": 3}, UnsupportedModel, "num_experts_per_tok"),
    ("phimoe", {"lm_head_bias": True}, BadCheckpoint, "no tensor 'lm_head.bias'"),
    ("phimoe", {"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 3, "long_factor": [1.0] * 3,
                                    "short_mscale": 1.0, "long_mscale": 1.5}}, UnsupportedModel, "two equal numbers"),
    ("gpt_oss", {"hidden_act": "gelu"}, UnsupportedModel, "'hidden_act' = 'gelu'"),
    ("gpt_oss", {"num_local_experts": 4}, BadCheckpoint, r"gate_up_proj'.*\(5, 24, 82\).*\(4, 24, 82\)"),
    ("gpt_oss", {"sliding_window": None}, BadCheckpoint, "'sliding_window' = None"),
    ("deepseek_v3", {"scoring_func": "softmax"}, UnsupportedModel, "scoring_func"),
    ("deepseek_v3", {"num_key_value_heads": 2}, BadCheckpoint, "4 heads have 2 keys"),
    ("deepseek_v3", {"topk_group": 1}, BadCheckpoint, "1 of 4 groups of 8 experts"),
    ("deepseek_v3", {"n_group": 3}, BadCheckpoint, "2 of 3 groups of 8 experts"),
    ("deepseek_v3", {"kv_lora_rank": 12}, BadCheckpoint, r"kv_a_proj_with_mqa.weight.*\(15, 24\).*\(16, 24\)"),
    ("deepseek_v3", {"first_k_dense_replace": 2}, BadCheckpoint, "no tensor 'model.layers.1.mlp.gate_proj.weight'"),
    ("deepseek_v3", {"num_hidden_layers": 1}, BadCheckpoint, "'model.layers.2.*does not belong"),
    ("glm4_moe_lite", {"mlp_layer_types": ["dense"]}, BadCheckpoint, "lists 1 mlp_layer_types for 3"),
    ("minicpm3", {"scale_emb": 0}, BadCheckpoint, "'scale_emb' = 0"),
]


@pytest.mark.parametrize(("name", "changes", "error", "words"), REFUSED, ids=lambda x: str(x)[:40])
def test_a_config_that_is_not_understood_is_refused_by_name(tmp_path, name, changes, error, words):
    folder = copy(name, tmp_path)
    change_config(folder, **changes)
    with pytest.raises(error, match=words) as caught:
        load_checkpoint(folder)
    assert str(folder) in str(caught.value)


ACCEPTED = [
    ("llama", {"torch_dtype": "float32", "dtype": "bfloat16", "pretraining_tp": 2, "attention_dropout": 0.1}),
    ("llama", {"num_labels": 3, "temperature": 0.6, "unsloth_version": "1", "_attn_implementation_autoset": True}),
    ("llama", {"quantization_config": None, "mlp_bias": ..., "hidden_act": ..., "tie_word_embeddings": ...}),
    ("mistral", {"attention_bias": False, "mlp_bias": False}),
    ("qwen2", {"use_mrope": False, "max_window_layers": 0}),
    ("gemma", {"hidden_act": "gelu", "hidden_activation": None}),
    ("gemma2", {"hidden_act": "gelu_pytorch_tanh", "cache_implementation": "hybrid", "layer_types": ...}),
    ("gpt2", {"n_ctx": 64, "task_specific_params": {"a": 1}, "reorder_and_upcast_attn": True}),
    ("starcoder2", {"norm_type": "layer_norm", "mlp_type": "default", "attention_softmax_in_fp32": True}),
    ("olmoe", {"clip_qkv": None, "output_router_logits": True, "router_aux_loss_coef": 0.5}),
    ("mixtral", {"router_jitter_noise": 0.1, "num_experts": 5, "num_local_experts": ...}),
    ("qwen3_moe", {"num_experts": 6, "max_window_layers": 48, "mlp_only_layers": None, "sliding_window": 5,
                   "shared_expert_intermediate_size": 0, "qkv_bias": False, "use_qk_norm": True}),
    ("phi3", {"lm_head_bias": False, "full_attn_mod": 1, "interpolate_factor": 1, "auto_map": {"a": "b"}}),
    ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 2]}}),
    ("llama", {"clip_qkv": 8.0, "softermax": 8}),
]


@pytest.mark.parametrize(("name", "changes"), ACCEPTED, ids=lambda x: str(x)[:40])
def test_keys_that_change_nothing_change_nothing(tmp_path, name, changes):
    folder = copy(name, tmp_path)
    change_config(folder, **changes)
    assert equal_specs(load_checkpoint(folder).spec, load_checkpoint(saved(name)).spec)


ROPE_SPELLINGS = [
    ("llama", {"rope_theta": 100.0}, {"rope_theta": 100.0, "rope_type": "default"}),
    ("llama", {"rope_theta": 100, "rope_scaling": {"type": "linear", "factor": 2.0}},
     {"rope_theta": 100, "rope_type": "linear", "factor": 2.0}),
    ("llama", {"rope_theta": 100.0, "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                                     "original_max_position_embeddings": 16, "rope_type": "llama3"}},
     {"rope_theta": 100.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
      "original_max_position_embeddings": 16, "rope_type": "llama3"}),
    ("gpt_neox", {"rotary_emb_base": 50, "rotary_pct": 0.5}, {"rope_theta": 50, "partial_rotary_factor": 0.5}),
    ("phi", {"partial_rotary_factor": 0.75, "rope_theta": 50.0}, {"rope_theta": 50.0, "partial_rotary_factor": 0.75}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "old", "new"), ROPE_SPELLINGS, ids=lambda x: str(x)[:40])
def test_old_and_new_rotary_keys_mean_the_same(tmp_path, name, old, new):
    folder = copy(name, tmp_path)
    change_config(folder, rope_parameters=new)
    modern = load_checkpoint(folder).spec
    change_config(folder, rope_parameters=..., **old)
    assert equal_specs(load_checkpoint(folder).spec, modern)


def test_gemma3_old_rotary_keys(tmp_path):
    folder = copy("gemma3_text", tmp_path)
    nested = {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
              "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}  # fmt: skip
    change_config(folder, rope_parameters=nested)
    modern = load_checkpoint(folder).spec
    change_config(
        folder,
        rope_parameters=...,
        rope_theta=1e6,
        rope_local_base_freq=1e4,
        rope_scaling={"rope_type": "linear", "factor": 8.0},
    )
    assert equal_specs(load_checkpoint(folder).spec, modern)
    assert len(modern.rope) == 2 and not np.array_equal(modern.rope[0][0], modern.rope[1][0])


@pytest.mark.parametrize(("text", "words"), [
    (b"{", "not valid JSON"), (b"[]", "not a JSON object"), (b"\xff\xfe", "not valid JSON"),
    (b"[" * 100_000, "not valid JSON"),
    (b'{"model_type": "llama", "model_type": "gpt2"}', "key 'model_type' twice"),
])  # fmt: skip
def test_a_damaged_config_is_refused(tmp_path, text, words):
    folder = copy("llama", tmp_path)
    (folder / "config.json").write_bytes(text)
    with pytest.raises(BadCheckpoint, match=words):
        load_checkpoint(folder)


# ---- tensors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_file_and_loaded_model_give_the_same_spec(name):
    hf = hf_models.make(name)
    from_file, from_memory = load_checkpoint(saved(name)), spec_from_transformers(hf)
    assert equal_specs(from_file.spec, from_memory.spec)
    assert from_file.identity["weights"] == from_memory.identity["weights"]
    if from_file.spec.qk_norm != "head":  # there the gain that heads share stands once for each
        buffers = sum(b.numel() for key, b in hf.named_buffers() if key in hf.state_dict() and "act_fn" not in key)
        n = hf.num_parameters() + buffers - (2 * hf.config.hidden_size if name.startswith("opt") else 0)  # positions that no token has
        assert from_file.spec.n_params == n
        rates = sum(layer.decay_rate.size for layer in from_file.spec.layers if layer.decay_rate is not None)  # widened, too
        assert name.split("-")[0] in ONE_PLUS or from_file.spec.nbytes == 4 * (n + rates)  # their gains are 1 + w, widened


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox", "phi3"])
def test_weights_are_views_of_the_file_and_of_the_model(name):
    spec = load_checkpoint(saved(name)).spec
    hf = hf_models.make(name)
    parameters = [p.numpy() for p in hf.parameters()]
    shared = spec_from_transformers(hf).spec
    for layer, mine in zip(spec.layers, shared.layers, strict=True):
        for slot in MATRICES:
            if getattr(layer, slot) is not None:
                assert not getattr(layer, slot).flags.owndata and not getattr(layer, slot).flags.writeable
                assert any(np.shares_memory(getattr(mine, slot), p) for p in parameters)


def test_slots_hold_the_rows_they_should():
    hf = hf_models.make("gpt_neox")
    layer = spec_from_transformers(hf).spec.layers[1]
    fused = hf.gpt_neox.layers[1].attention.query_key_value
    heads, size = 3, 8
    for j, slot in enumerate(("q", "k", "v")):
        rows = [fused.weight.numpy()[(h * 3 + j) * size : (h * 3 + j + 1) * size] for h in range(heads)]
        np.testing.assert_array_equal(getattr(layer, slot), np.stack(rows))
        bias = [fused.bias.numpy()[(h * 3 + j) * size : (h * 3 + j + 1) * size] for h in range(heads)]
        np.testing.assert_array_equal(getattr(layer, slot + "_bias"), np.concatenate(bias))
    hf = hf_models.make("gpt2")
    layer = spec_from_transformers(hf).spec.layers[0]
    np.testing.assert_array_equal(layer.k, hf.transformer.h[0].attn.c_attn.weight.numpy()[:, 20:40].T)
    hf = hf_models.make("phi3")
    layer = spec_from_transformers(hf).spec.layers[0]
    np.testing.assert_array_equal(layer.up, hf.model.layers[0].mlp.gate_up_proj.weight.numpy()[41:])


def test_gemma_gains_are_offsets_from_one():
    hf = hf_models.make("gemma")
    spec = spec_from_transformers(hf).spec
    np.testing.assert_allclose(spec.final_norm.gain, 1 + hf.model.norm.weight.double().numpy(), rtol=1e-15)
    assert spec.embed_scale == np.float32(24**0.5)


@pytest.mark.parametrize("real", [np.float32, np.float64])
def test_core_arguments(real):
    spec, layers, top = load_checkpoint(saved("qwen3-biases")).spec.to_core(real)
    assert spec["qk_norm"] == "head" and isinstance(spec["rope"], list) and "layers" not in spec
    layer = layers[2]
    assert layer["q"].shape == (40, 24) and layer["q_bias"].shape == (40,) and layer["q_norm"][0].shape == (40,)
    assert "up_bias" not in layer and "post1" not in layer and layer["norm1"][1] is None
    for value in (layer["q_bias"], *(layer[norm][0] for norm in NORMS if norm in layer), top["final_norm"][0]):
        assert value.dtype == real and value.flags.c_contiguous
    assert layer["q"].dtype == np.float32  # as stored


@pytest.mark.parametrize(("dtype", "numpy"), [
    (torch.bfloat16, np.uint16), (torch.float16, np.float16), (torch.float64, np.float64),
])  # fmt: skip
def test_weights_stay_as_stored(tmp_path, dtype, numpy):
    hf = deepcopy(hf_models.make("llama-biases")).to(dtype)
    hf.save_pretrained(tmp_path)
    q = hf.model.layers[0].self_attn.q_proj
    for spec in (load_checkpoint(tmp_path).spec, spec_from_transformers(hf).spec):
        assert spec.layers[0].q.dtype == numpy
        widened = spec.layers[0].q
        if dtype == torch.bfloat16:
            widened = (widened.astype(np.uint32) << 16).view(np.float32)
        np.testing.assert_array_equal(widened, q.weight.detach().double().numpy())
        np.testing.assert_array_equal(spec.layers[0].q_bias, q.bias.detach().double().numpy())


def test_prefixes_masks_and_copies_of_a_tied_head_do_not_matter(tmp_path):
    folder = copy("gpt2", tmp_path)

    def rename(tensors):
        for name in list(tensors):
            tensors[name.removeprefix("transformer.")] = tensors.pop(name)
        tensors["h.1.attn.bias"] = torch.ones(1, 1, 64, 64, dtype=torch.uint8)
        tensors["h.1.attn.masked_bias"] = torch.tensor(-1e4)
        tensors["lm_head.weight"] = tensors["wte.weight"].clone()

    change_tensors(folder, rename)
    changed, whole = load_checkpoint(folder), load_checkpoint(saved("gpt2"))
    assert equal_specs(changed.spec, whole.spec) and changed.identity["weights"] == whole.identity["weights"]
    change_tensors(folder, lambda tensors: tensors["lm_head.weight"].mul_(2))
    with pytest.raises(BadCheckpoint, match=r"lm_head.weight, which differs from the embedding"):
        load_checkpoint(folder)


@pytest.mark.parametrize("name", ["lm_head.weight", "embed_out.weight"])
def test_both_names_of_a_head(tmp_path, name):
    folder = copy("gpt_neox", tmp_path)

    def rename(tensors):
        tensors[name] = tensors.pop("lm_head.weight" if "lm_head.weight" in tensors else "embed_out.weight")
        tensors["gpt_neox.layers.0.attention.bias"] = torch.ones(1, 1, 64, 64)  # the causal mask of old files

    change_tensors(folder, rename)
    changed, whole = load_checkpoint(folder), load_checkpoint(saved("gpt_neox"))
    assert equal_specs(changed.spec, whole.spec) and changed.identity["weights"] == whole.identity["weights"]


# ---- loaded models ---------------------------------------------------------------------------------------------------


def test_what_is_no_model_on_the_cpu_is_refused():
    with pytest.raises(InvalidInput, match="a transformers model is needed, not dict"):
        spec_from_transformers({})
    config = hf_models.make("llama").config
    with torch.device("meta"):
        ghost = transformers.LlamaForCausalLM(config)
    with pytest.raises(InvalidInput, match="is on meta"):
        spec_from_transformers(ghost)
    with pytest.raises(BadCheckpoint, match="no tensor 'lm_head.weight' in LlamaModel"):
        spec_from_transformers(transformers.LlamaModel(config))
    bert = transformers.BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9, is_decoder=True
    )
    with pytest.raises(UnsupportedModel, match="'bert'"):
        spec_from_transformers(transformers.BertLMHeadModel(bert))


def test_a_model_outlives_its_owner():
    needs("transformers")
    hf = type(hf_models.make("llama"))(hf_models.make("llama").config)
    expected = hf.model.layers[0].self_attn.q_proj.weight.detach().clone().numpy()
    spec = spec_from_transformers(hf).spec
    del hf
    np.testing.assert_array_equal(spec.layers[0].q, expected)


def test_identity_tells_weights_apart(tmp_path):
    folder = copy("llama", tmp_path)
    before = load_checkpoint(folder).identity
    assert before == {**load_checkpoint(saved("llama")).identity, "name": "model"}
    assert (
        before["model_type"] == "llama"
        and before["n_layers"] == 3
        and before["d_model"] == 24
        and before["n_vocab"] == 61
    )
    change_tensors(folder, lambda t: t["model.layers.2.mlp.gate_proj.weight"].mul_(1.001))
    assert load_checkpoint(folder).identity["weights"] != before["weights"]


def test_end_tokens_come_from_the_first_file_that_names_them(tmp_path):
    folder = copy("llama", tmp_path)
    (folder / "generation_config.json").unlink(missing_ok=True)
    assert load_checkpoint(folder).eos_ids == (2,)
    (folder / "generation_config.json").write_text('{"eos_token_id": [5, 2, 5]}')
    assert load_checkpoint(folder).eos_ids == (5, 2)
    change_config(folder, eos_token_id=None)
    (folder / "generation_config.json").write_text("{}")
    assert load_checkpoint(folder).eos_ids == ()
    (folder / "generation_config.json").write_text("[]")
    with pytest.raises(BadCheckpoint, match=r"generation_config\.json"):
        load_checkpoint(folder)


def test_a_checkpoint_without_tokenizer_says_so():
    checkpoint = load_checkpoint(saved("llama"))
    assert checkpoint.tokenizer is None and "no tokenizer.json" in checkpoint.notes[0]
