"""Which keys of a config.json matter: the table against the source that it was written from, and every key of it, at
odd values, against what transformers then computes. Never may the two differ in silence."""

from __future__ import annotations

import dataclasses
import json
import sys
import warnings
from pathlib import Path

import hf_models
import numpy as np
import pytest
from checkpoints import change_config, copy, equal_specs, saved
from oracles import torch, transformers

import powersteer as ps
from powersteer.errors import BadCheckpoint, PowersteerError, UnsupportedModel
from powersteer.loading import load_checkpoint, rope
from powersteer.loading.config import HARMLESS, ONLY, family_of, read_hyperparameters
from powersteer.loading.families import FAMILIES
from powersteer.loading.keys_read import EVERY, FAMILY, ROPE, TRANSFORMERS
from powersteer.loading.other_names import names_something

transformers.utils.logging.disable_progress_bar()
ROOT = Path(__file__).parents[1]
NEW = tuple(name for name in FAMILIES if name in hf_models.FAMILIES)


def keys_of(family):
    return {**EVERY, **FAMILY[family]}


# ---- the table -------------------------------------------------------------------------------------------------------


def test_the_table_is_what_transformers_reads():
    if transformers.__version__ != TRANSFORMERS:
        pytest.skip(f"the table is of transformers {TRANSFORMERS}; installed is {transformers.__version__}")
    sys.path.insert(0, str(ROOT / "tools"))
    tool = pytest.importorskip("config_keys", reason="the tools are not in an installed copy")
    assert tool.TABLE.read_text(encoding="utf-8") == tool.written(tool.table(FAMILIES))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_table_has_every_field_of_the_configuration(family):
    """By the class itself instead of its source."""
    if transformers.__version__ != TRANSFORMERS:
        pytest.skip(f"the table is of transformers {TRANSFORMERS}; installed is {transformers.__version__}")
    cls = transformers.models.auto.configuration_auto.CONFIG_MAPPING[family]
    assert {field.name for field in dataclasses.fields(cls)} | set(cls.attribute_map) <= set(keys_of(family))


def test_nothing_is_called_harmless_that_nothing_reads():
    read = set().union(EVERY, *FAMILY.values())
    assert set(" ".join(HARMLESS.values()).split()) <= read
    for name, family in FAMILIES.items():
        plain = {key.removeprefix(f"{family.nested}.") for key in family.keys}
        assert plain - set(keys_of(name)) <= {"num_local_experts"}, name  # another name of num_experts
        for key in " ".join(family.ignored.values()).split():
            assert key.removeprefix(f"{family.nested}.") in read or names_something(key), (name, key)


def test_every_rotary_key_that_is_read_is_understood():
    for kind, (_, keys) in rope.ROPE_KINDS.items():
        assert set(ROPE.get(kind, ())) <= keys | rope._COMMON, kind
    ropes = [family.rope for family in FAMILIES.values() if family.rope is not None]
    of_families = {key for one in ropes for key in (*one.extra, *(key for _, key in one.keyed))}
    whatever = {"original_max_position_embeddings", *rope._IDLE, "short_mscale", "long_mscale"}  # a family may read these whatever the kind
    assert set(ROPE[""]) <= rope._COMMON | {"full_attention", "sliding_attention"} | of_families | whatever


# ---- keys that nothing reads -----------------------------------------------------------------------------------------


def run_theirs(folder, prompt):
    """transformers' logits, at once and in two parts with a cache, of a folder; None if it cannot load or run it."""
    settings = {"dtype": torch.float32}
    if FAMILIES[json.loads((folder / "config.json").read_text())["model_type"]].experts:
        settings["experts_implementation"] = "eager"  # its kernel does not take such small experts
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            hf = transformers.AutoModelForCausalLM.from_pretrained(folder, **settings).eval()
            ids = torch.tensor([prompt])
            whole = hf(ids, use_cache=False, return_dict=True).logits[0].numpy()
            first = hf(ids[:, :7], use_cache=True, return_dict=True)
            cache = first.get("past_key_values", first.get("cache"))
            name = "cache" if "cache" in first else "past_key_values"
            behind = {"position_ids": torch.arange(7, len(prompt))[None]} if hf.config.model_type == "bamba" else {}  # it counts from 0
            second = hf(ids[:, 7:], use_cache=True, return_dict=True, **{name: cache}, **behind)
        except Exception:
            return None
        return whole, torch.cat([first.logits, second.logits], 1)[0].numpy()


def close(a, b):
    return a.shape == b.shape and np.abs(a - b).max() <= 5e-4 * np.abs(b).max()


def word(rng):
    return "".join(rng.choice(list("abcdefghij_klmnopqrstuvwxyz"), 14))


@pytest.mark.parametrize("family", NEW)
def test_a_key_that_nothing_reads_changes_nothing(family, tmp_path, rng):
    folder, want = copy(family, tmp_path), load_checkpoint(saved(family)).spec
    prompt = rng.integers(3, want.n_vocab, 12).tolist()
    before = run_theirs(folder, prompt)[0]
    news = {word(rng): value for value in (8, 0.5, True, None, "text", [1, 2], {"a": None})}
    assert not any(key in keys_of(family) or names_something(key) for key in news)
    change_config(folder, **news)
    np.testing.assert_array_equal(run_theirs(folder, prompt)[0], before)
    assert equal_specs(load_checkpoint(folder).spec, want)
    assert close(ps.load(folder)(prompt), before)


# ---- keys that are read ----------------------------------------------------------------------------------------------


def odd_values(value):
    """Values that are not the one a config has, or that it has none."""
    if isinstance(value, bool):
        return [not value, None, 3]
    if isinstance(value, int):
        return [value + 1, 2 * value + 2, 0, None]
    if isinstance(value, float):
        return [value * 1.5 + 0.1, 0.0, None]
    if isinstance(value, str):
        return ["relu", "odd", None]
    if isinstance(value, list):
        return [value[::-1], [], None]
    if isinstance(value, dict):
        return [{}, {**value, "factor": 2.0}, {**value, "rope_type": "linear", "factor": 3.0}]
    return [3, True, False, 0.5, "odd", [1], {"1": 2}]


def changes(family):
    config = json.loads((saved(family) / "config.json").read_text())
    for key in {**keys_of(family), **dict.fromkeys(FAMILIES[family].only), **dict.fromkeys(ONLY)}:
        for value in odd_values(config.get(key)):
            if key != "model_type" and (key not in config or config[key] != value):
                yield key, value


def judge(family, key, value, folder, prompt):
    """How a change ends: refused, or agreed. Fails if a model loads and computes something else than transformers."""
    (folder / "config.json").write_text((saved(family) / "config.json").read_text())
    change_config(folder, **{key: value})
    try:
        model = ps.load(folder)
    except PowersteerError as error:
        said = str(error)
        # a size is refused by what does not fit to it, an activation by its name
        fits = ("tensor", "heads", "layers", "experts", "activation", "rope", "sliding_attention")
        assert any(word in said for word in (key, *fits)), (key, value, said)
        return "refused"
    theirs = run_theirs(folder, prompt)
    if theirs is None:
        return "they fail"
    assert all(close(model(prompt), logits) for logits in theirs), (family, key, value)
    return "agreed"


@pytest.mark.parametrize("family", NEW)
def test_a_key_that_is_read_never_differs_in_silence(family, tmp_path, rng):
    """Some, at random; all of them in the slow sweep."""
    folder, every = copy(family, tmp_path), list(changes(family))
    prompt = rng.integers(3, 61, 12).tolist()
    for i in rng.permutation(len(every))[:8]:
        judge(family, *every[i], folder, prompt)


@pytest.mark.parametrize("name", [name for name in hf_models.VARIANTS if name.startswith(("llama-", "phi3-longrope"))])
def test_a_rotary_key_never_differs_in_silence(name, tmp_path, rng):
    """Keys of the kind, of other kinds, and of none, at odd values."""
    settings = hf_models.VARIANTS[name].get("rope_parameters", {"rope_type": "default", "rope_theta": 100.0})
    folder, prompt = copy(name, tmp_path), rng.integers(3, 61, 12).tolist()
    keys = [*sorted({key for keys in ROPE.values() for key in keys}), "finetuned", "mrope_section", "base", "alpha"]
    every = [(key, value) for key in keys for value in odd_values(settings.get(key, 1.0)) if value != settings.get(key)]
    for i in rng.permutation(len(every))[:15]:
        judge(name, "rope_parameters", {**settings, every[i][0]: every[i][1]}, folder, prompt)


@pytest.mark.slow
@pytest.mark.parametrize("family", NEW)
def test_no_key_that_is_read_differs_in_silence(family, tmp_path, rng):
    """A minute a family."""
    folder, prompt = copy(family, tmp_path), rng.integers(3, 61, 12).tolist()
    ends = [judge(family, key, value, folder, prompt) for key, value in changes(family)]
    print(family, {end: ends.count(end) for end in set(ends)})
    assert ends.count("refused") > 50 and ends.count("agreed") > 20


# ---- files of vendors ------------------------------------------------------------------------------------------------

# What they have beyond the keys of every file, as they write it. test_loading.py knows that a plain file is read right.
VENDORS = [
    ("gpt2", "gpt2-medium", {"n_ctx": 64, "n_special": 0, "predict_special_tokens": True, "output_past": True,
                             "summary_type": "cls_index", "task_specific_params": {"text-generation": {"max_length": 50}}}),
    ("gpt2", "a retrained GPT-2", {"n_ctx": 64, "hidden_size": 20, "gradient_checkpointing": False, "dropout": 0.1}),
    ("gpt_neox", "gpt-neox-20b", {"attention_probs_dropout_prob": 0, "hidden_dropout_prob": 0, "rotary_emb_base": 10000,
                                  "rotary_pct": 0.5, "use_parallel_residual": True, "rope_parameters": ...}),
    ("gpt_neox", "Pythia, saved again", {"rope_theta": 10000, "partial_rotary_factor": 0.5, "rotary_emb_base": 10000,
                                         "rotary_pct": 0.5, "rope_scaling": None, "rope_parameters": ...}),
    ("llama", "a Llama of 2023", {"max_sequence_length": 64, "pad_token_id": -1, "pretraining_tp": 1}),
    ("llama", "a Vicuna of 16k", {"max_sequence_length": 256,
                                  "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}}),
    ("llama", "Llama 3.2 of unsloth", {"unsloth_fixed": True, "unsloth_version": "2024.9", "mlp_bias": False}),
    ("llama", "SmolLM", {"is_llama_config": True, "rope_interleaved": False, "transformers.js_config": {"dtype": "q4"}}),
    ("llama", "YaRN, with code of its own", {
        "auto_map": {"AutoModelForCausalLM": "modeling_llama_together_yarn.LlamaForCausalLM"},
        "architectures": ["LlamaForCausalLM"], "rope_theta": 10000.0, "rope_parameters": ...,
        "rope_scaling": {"factor": 16.0, "original_max_position_embeddings": 4, "type": "yarn", "finetuned": True}}),
    ("mistral", "Mistral of unsloth", {"unsloth_fixed": True, "max_seq_len": None, "_flash_attn_2_enabled": True}),
    ("mistral", "another converter", {"sliding_window_size": 5, "context_window_size": 768, "prefill_chunk_size": 128}),
    ("qwen2", "Qwen 2.5", {"use_mrope": False, "seq_length": 8192, "quantization": None}),
    ("qwen3_moe", "Qwen3-30B-A3B", {"max_window_layers": 48, "shared_expert_intermediate_size": None}),
    ("gemma", "a first Gemma", {"hidden_act": "gelu", "hidden_activation": None}),
    ("gemma2", "gemma-2-9b-it", {"sliding_window_size": 5, "cache_implementation": "hybrid"}),
    ("gemma3_text", "gemma-3-1b of unsloth", {"unsloth_fixed": True, "cache_implementation": "hybrid"}),
    ("smollm3", "SmolLM3", {"max_window_layers": 28, "pretraining_tp": 2, "architectures": ["SmolLM3ForCausalLM"]}),
    ("olmoe", "OLMoE", {"clip_qkv": None, "norm_topk_prob": False, "head_dim": 6}),
    ("phi", "phi-2", {"auto_map": {"AutoConfig": "configuration_phi.PhiConfig",
                                   "AutoModelForCausalLM": "modeling_phi.PhiForCausalLM"},
                      "architectures": ["PhiForCausalLM"], "rotary_dim": 4, "pretraining_tp": 1}),
    ("phi3", "Phi-4-mini", {"full_attn_mod": 1, "interpolate_factor": 1, "lm_head_bias": False, "mlp_bias": False}),
    ("starcoder2", "StarCoder2", {"activation_function": "gelu", "layer_norm_epsilon": 1e-5, "mlp_type": "default",
                                  "norm_type": "layer_norm", "attention_softmax_in_fp32": True}),
    ("stablelm", "StableLM 2", {"norm_eps": 3e-3, "rotary_scaling_factor": 1.0, "rope_pct": 0.67}),
    ("cohere", "Command R", {"model_max_length": 131072, "pretraining_tp": 1}),
    ("bloom", "bloom-560m", {"n_embed": 24, "hidden_size": ..., "num_attention_heads": 3, "n_head": ..., "seq_length": 2048,
                             "n_inner": None, "offset_alibi": 100, "attention_softmax_in_fp32": True, "masked_softmax_fusion": True,
                             "bias_dropout_fusion": True, "skip_bias_add": True, "skip_bias_add_qkv": False, "unk_token_id": 0}),
    ("mpt", "mpt-7b", {"attn_config": {"alibi": True, "alibi_bias_max": 8, "attn_impl": "torch", "attn_pdrop": 0,
                                       "attn_type": "multihead_attention", "attn_uses_sequence_id": False, "clip_qkv": None,
                                       "prefix_lm": False, "qk_ln": False, "softmax_scale": None},
                       "auto_map": {"AutoModelForCausalLM": "modeling_mpt.MPTForCausalLM"}, "architectures": ["MPTForCausalLM"],
                       "init_config": {"name": "kaiming_normal_", "init_std": 0.02}, "verbose": 0, "learned_pos_emb": True,
                       "tokenizer_name": "EleutherAI/gpt-neox-20b", "norm_type": "low_precision_layernorm"}),
    ("falcon", "falcon-7b", {"apply_residual_connection_post_layernorm": False, "num_kv_heads": 4,
                             "auto_map": {"AutoModelForCausalLM": "modeling_falcon.FalconForCausalLM"},
                             "architectures": ["FalconForCausalLM"]}),
    ("gptj", "gpt-j-6b", {"rotary": True, "scale_attn_weights": True, "gradient_checkpointing": False, "summary_type": "cls_index",
                          "summary_first_dropout": 0.1, "task_specific_params": {"text-generation": {"do_sample": True}}}),
    ("gpt_neo", "gpt-neo-125M", {"attention_types": [[["global", "local"], 1], [["local"], 1]], "embed_dropout": 0, "resid_dropout": 0,
                                 "attention_layers": ["global", "local", "local"], "gradient_checkpointing": False}),
    ("gpt_bigcode", "StarCoder", {"inference_runner": 0, "max_batch_size": None, "max_sequence_length": None, "scale_attn_weights": True,
                                  "validate_runner_input": True, "pre_allocate_kv_cache": False, "summary_type": "cls_index"}),
    ("opt", "opt-125m", {"activation_dropout": 0.0, "prefix": "</s>", "word_embed_proj_dim": 24, "init_std": 0.02}),
    ("hunyuan_v1_dense", "Hunyuan-7B", {
        "attention_head_dim": 10, "use_qk_norm": True, "use_cla": False, "norm_type": "rms", "rope_theta": 10000.0, "rope_parameters": ...,
        "rope_scaling": {"type": "dynamic", "alpha": 1000.0, "factor": 1.0, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0,
                         "mscale_all_dim": 0.0}}),
    ("ministral3", "Devstral 2", {"rope_parameters": {
        "type": "yarn", "rope_type": "yarn", "rope_theta": 1e6, "factor": 64.0, "original_max_position_embeddings": 4, "beta_fast": 4.0,
        "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 0.0, "llama_4_scaling_beta": 0.0}}),
    ("exaone4", "EXAONE 4.0", {"sliding_window_pattern": "LLG", "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
                               "head_dim": 6, "rope_theta": 1000000, "rope_parameters": ..., "rope_scaling": {
                                   "factor": 16.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "rope_type": "llama3",
                                   "original_max_position_embeddings": 16}}),
    ("cohere2", "Command R7B", {"use_qk_norm": False, "rotary_pct": 1.0, "position_embedding_type": "rope_gptj", "layer_switch": 2,
                                "order_of_interleaved_layers": "local_attn_first", "use_parallel_block": True, "head_dim": 6}),
    ("nemotron", "Minitron", {"partial_rotary_factor": 0.6, "rope_theta": 10000.0, "rope_parameters": ..., "rope_scaling": None}),
    ("ernie4_5", "ERNIE-4.5-0.3B", {"compression_ratio": 1.0, "rope_scaling": None, "rope_theta": 500000.0, "rope_parameters": ...}),
    ("apertus", "Apertus-8B", {"mlp_bias": False, "qk_norm": True, "post_norm": False}),
    ("granite", "Granite 3", {"num_experts": 0, "sliding_window": None, "head_dim": 6}),
    ("qwen2_moe", "Qwen1.5-MoE-A2.7B", {"max_window_layers": 21, "sliding_window": 32768, "use_sliding_window": False, "layer_types": ...,
                                        "qkv_bias": ..., "output_router_logits": False, "router_aux_loss_coef": 0.001}),
    ("granitemoe", "Granite 3.1 MoE", {"rope_scaling": None, "router_aux_loss_coef": 0.0, "attention_dropout": 0.1}),
    ("phimoe", "Phi-3.5-MoE", {"auto_map": {"AutoConfig": "configuration_phimoe.PhiMoEConfig",
                                            "AutoModelForCausalLM": "modeling_phimoe.PhiMoEForCausalLM"},
                               "architectures": ["PhiMoEForCausalLM"], "hidden_dropout": 0.0, "input_jitter_noise": 0.01}),
    ("gpt_oss", "gpt-oss-20b", {
        "experts_per_token": 2, "initial_context_length": 4096, "rope_theta": 150000, "rope_parameters": ...,
        "rope_scaling": {"beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0, "original_max_position_embeddings": 4096,
                         "rope_type": "yarn", "truncate": False}}),
    ("deepseek_v3", "DeepSeek-V3", {
        "auto_map": {"AutoModelForCausalLM": "modeling_deepseek.DeepseekV3ForCausalLM"}, "head_dim": ..., "qk_head_dim": ...,
        "scoring_func": "sigmoid", "topk_method": "noaux_tc", "moe_layer_freq": 1, "ep_size": 1, "aux_loss_alpha": 0.001, "seq_aux": True,
        "num_nextn_predict_layers": 1, "rope_theta": 10000, "rope_parameters": ...,
        "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 1.0, "mscale_all_dim": 1.0,
                         "original_max_position_embeddings": 4096, "type": "yarn"}}),
    ("glm4_moe_lite", "GLM-4.7-Flash", {"first_k_dense_replace": 1, "num_nextn_predict_layers": 1, "partial_rotary_factor": 1.0,
                                        "topk_method": "noaux_tc", "mlp_layer_types": ..., "rope_scaling": None}),
    ("minicpm3", "MiniCPM3-4B", {"auto_map": {"AutoModelForCausalLM": "modeling_minicpm.MiniCPM3ForCausalLM"}, "head_dim": ...,
                                 "qk_head_dim": ..., "architectures": ["MiniCPM3ForCausalLM"]}),
]  # fmt: skip


@pytest.mark.parametrize(("family", "of", "keys"), VENDORS, ids=[of for _, of, _ in VENDORS])
def test_files_of_vendors_load_as_transformers_loads_them(family, of, keys, tmp_path, rng):
    folder = copy(family, tmp_path)
    change_config(folder, **keys)
    model, prompt = ps.load(folder), rng.integers(3, 61, 12).tolist()
    assert all(close(model(prompt), logits) for logits in run_theirs(folder, prompt))


CONTRADICTIONS = [
    ("gemma2", {"sliding_window_size": 6}, BadCheckpoint, "sliding_window_size = 6.*sliding_window = 5; remove one"),
    ("llama", {"max_sequence_length": 2048}, BadCheckpoint, "max_sequence_length = 2048.*max_position_embeddings = 64"),
    ("llama", {"n_positions": 32}, BadCheckpoint, "n_positions = 32.*max_position_embeddings = 64"),
    ("llama", {"num_heads": 5}, BadCheckpoint, "num_heads = 5.*num_attention_heads = 4"),
    ("llama", {"layer_norm_eps": 1e-5}, BadCheckpoint, "layer_norm_eps = 1e-05.*rms_norm_eps = 0.003"),
    ("llama", {"activation_function": "gelu"}, BadCheckpoint, "activation_function = 'gelu'.*hidden_act = 'silu'"),
    ("llama", {"rotary_dim": 4}, BadCheckpoint, "rotary_dim = 4.*10"),
    ("llama", {"rope_base": 500000}, BadCheckpoint, "rope_base = 500000.*rope_theta = 10000"),
    ("llama", {"final_logit_softcapping": 30.0}, UnsupportedModel, "final_logit_softcapping = 30.0.*does without"),
    ("llama", {"use_parallel_residual": True}, UnsupportedModel, "use_parallel_residual = True.*does without"),
    ("llama", {"num_experts": 8}, UnsupportedModel, "num_experts = 8.*does without"),
    ("llama", {"residual_multiplier": 0.2}, UnsupportedModel, "residual_multiplier = 0.2.*computes with 1.0"),
    ("llama", {"sliding_window_size": 4096}, UnsupportedModel, "sliding_window_size = 4096.*does without"),
    ("llama", {"sliding_window": 16}, UnsupportedModel, "sliding_window = 16.*does without"),
    ("llama", {"is_causal": False}, UnsupportedModel, "'is_causal' = False"),
    ("llama", {"attention_chunk_size": 8}, UnsupportedModel, "'attention_chunk_size' = 8"),
    ("llama", {"quantization": {"group_size": 64, "bits": 4}}, UnsupportedModel, "'quantization'.*unquantised"),
    ("llama", {"rope_parameters": {"rope_type": "default", "factor": 8.0}}, UnsupportedModel, "'factor' = 8.0"),
    ("llama", {"rope_parameters": {"rope_type": "default", "base": 5e5}}, BadCheckpoint, "rope_theta = .* and base"),
    ("mixtral", {"norm_topk_prob": False}, UnsupportedModel, "norm_topk_prob = False"),
    ("olmoe", {"head_dim": 12}, UnsupportedModel, "head_dim = 12"),
    ("gpt_neox", {"rope_theta": 5e5}, BadCheckpoint, "rope_theta = 500000.0.*rotary_emb_base = 10000"),
    ("gpt2", {"hidden_size": 24}, BadCheckpoint, "n_embd = 20 and hidden_size = 24; remove one"),
    ("gpt2", {"n_ctx": 32}, BadCheckpoint, "n_ctx = 32.*n_positions = 64"),
    ("gpt2", {"rotary_dim": 4}, UnsupportedModel, "rotary_dim = 4.*does without"),
    ("llama", {"auto_map": {"AutoModelForCausalLM": "modeling_x.XForCausalLM"}}, UnsupportedModel, "XForCausalLM"),
    ("llama", {"auto_map": {"AutoConfig": "c.C"}, "architectures": ["Bidirectional"]}, UnsupportedModel, "'Bidirec"),
]  # fmt: skip


@pytest.mark.parametrize(("family", "keys", "error", "words"), CONTRADICTIONS, ids=lambda x: str(x)[:50])
def test_what_names_something_must_agree_with_it(family, keys, error, words, tmp_path):
    folder = copy(family, tmp_path)
    change_config(folder, **keys)
    with pytest.raises(error, match=words) as caught:
        load_checkpoint(folder)
    assert str(folder) in str(caught.value)


def test_another_name_of_a_key_alone_is_that_key(tmp_path):
    """GPT-2's configuration calls n_embd hidden_size, and so on."""
    folder = copy("gpt2", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    names = {"hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head",
             "max_position_embeddings": "n_positions"}  # fmt: skip
    change_config(folder, **{name: config[key] for name, key in names.items()}, **dict.fromkeys(names.values(), ...))
    assert equal_specs(load_checkpoint(folder).spec, load_checkpoint(saved("gpt2")).spec)


def test_a_window_that_is_not_in_use_may_be_named_twice():
    """Of files for other code that writes the window out, too."""
    config = {"model_type": "qwen2", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 9,
              "intermediate_size": 64, "num_key_value_heads": 4, "sliding_window": 32, "use_sliding_window": False}  # fmt: skip
    family = family_of(config, "config")
    for window in (32, None):
        assert read_hyperparameters({**config, "sliding_window_size": window}, family, "config").window is None
    with pytest.raises(BadCheckpoint, match="sliding_window_size = 16"):
        read_hyperparameters({**config, "sliding_window_size": 16}, family, "config")
