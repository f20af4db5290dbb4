"""Metadata and tensors of the models of gguf_architectures.py as llama.cpp's converter makes them from checkpoints. Names come
from the gguf library, the changes to tensors from the converter's code."""

from __future__ import annotations

import re

import gguf
import numpy as np
from gguf_architectures import MODELS
from gguf_models import interleaved, write_file

U, F, S, B, A = "uint32", "float32", "string", "bool", "array"
# architecture → what the converter does to tensors, below
INTERLEAVED = ("llama", "mistral3", "smollm3", "granite", "granitemoe", "arcee", "olmo")
ONE_ADDED = ("nemotron", "qwen35", "qwen3next")


def architecture(name):
    """The architecture of an entry of MODELS, which is called by it and a feature."""
    return next(one for one in sorted(gguf.MODEL_ARCH_NAMES.values(), key=len, reverse=True) if (name + "-").startswith(one + "-"))


# ---- tensors ---------------------------------------------------------------------------------------------------------


def regrouped(array, groups, sizes):
    """Rows of several projections, which follow each other in each group, each in one piece."""
    parts = np.split(array.reshape(groups, -1, *array.shape[1:]), np.cumsum(sizes)[:-1] // groups, axis=1)
    return np.concatenate([part.reshape(-1, *array.shape[1:]) for part in parts])


def tiled(array, axis, k_heads, width):
    """Heads of values, which are together by the head of keys that they have, in its turn."""
    shape = array.shape
    split = array.reshape(*shape[:axis], k_heads, -1, width, *shape[axis + 1 :])
    return split.swapaxes(axis, axis + 1).reshape(shape)


def stacks(name, array, alternate):
    """gate and up of all experts, which are one tensor, apart."""
    both = (slice(0, None, 2), slice(1, None, 2)) if alternate else np.split(np.arange(array.shape[1]), 2)
    parts = zip(("gate_proj", "up_proj"), both, strict=True)
    return {name.replace("gate_up_proj", part): array[:, rows] for part, rows in parts}


def delta(name, array, c, arch):
    """Tensors of the gated delta rule."""
    keys, values, width = c.linear_num_key_heads, c.linear_num_value_heads, c.linear_value_head_dim
    K, V = keys * c.linear_key_head_dim, values * width
    if name.endswith("A_log"):
        array = -np.exp(array)
    if "in_proj_qkvz" in name:
        qkvz = regrouped(array, keys, [K, K, V, V])
        qkv, z = qkvz[: 2 * K + V], qkvz[2 * K + V :]
        return {name.replace("in_proj_qkvz", "in_proj_qkv"): qkv, name.replace("in_proj_qkvz", "in_proj_z"): z}
    array = array.squeeze(1) if "conv1d" in name else array
    if arch == "qwen35":
        if "in_proj_qkv" in name or "conv1d" in name:
            array = np.concatenate([array[: 2 * K], tiled(array[2 * K :], 0, keys, width)])
        elif "in_proj_z" in name:
            array = tiled(array, 0, keys, width)
        elif any(part in name for part in ("in_proj_a", "in_proj_b", "A_log", "dt_bias")):
            array = tiled(array, 0, keys, 1)
        elif "out_proj" in name:
            array = tiled(array, 1, keys, width)
    return {name.replace(".dt_bias", ".dt_proj.bias"): array}


def changed(name, array, hf, arch):
    """name → array of what becomes of a parameter, named as transformers names it."""
    c = hf.config
    heads = getattr(c, "num_attention_heads", None)
    if arch in INTERLEAVED and (part := re.search(r"\.([qk])_proj\.", name)):
        array = interleaved(array, heads if part[1] == "q" else c.num_key_value_heads)
    if arch in ONE_ADDED and name.endswith("norm.weight") and "linear_attn" not in name:
        array = array + np.float32(1)
    if "linear_attn" in name:
        return delta(name, array, c, arch)
    if arch == "gpt2" and name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
        array = array.T
    if arch in ("bloom", "gptneox") and "query_key_value" in name:
        array = regrouped(array, c.num_attention_heads, [c.hidden_size] * 3)
    if arch == "falcon" and "query_key_value" in name:
        groups = c.num_kv_heads if c.new_decoder_architecture else 1
        kv = c.hidden_size // heads * groups
        array = regrouped(array, groups, [c.hidden_size, kv, kv])
    if name.endswith("kv_b_proj.weight") and arch == "deepseek2":
        kv_b = array.reshape(heads, -1, c.kv_lora_rank)
        k, v = kv_b[:, : c.qk_nope_head_dim].swapaxes(1, 2), kv_b[:, c.qk_nope_head_dim :]
        return {name.replace("kv_b", "k_b"): k, name.replace("kv_b", "v_b"): v}
    if "conv.conv" in name:
        array = array.squeeze(1)
    if name.endswith(".sinks"):
        name += ".weight"
    if "experts." in name or "input_linear" in name or "output_linear" in name:
        return experts(name, array, arch)
    name = name.replace("block_sparse_moe.router.weight", "block_sparse_moe.router.layer.weight")
    return {name.replace("e_score_correction_bias", "e_score_correction.bias"): array}


def experts(name, array, arch):
    if arch == "gpt-oss" and not name.endswith("_bias"):
        array = array.swapaxes(1, 2)
    kind = ".bias" if name.endswith("_bias") else ".weight"
    name = name.removesuffix("_bias").removesuffix(".weight").replace("input_linear", "experts.gate_up_proj") + kind
    name = name.replace("output_linear", "experts.down_proj").replace("block_sparse_moe.experts", "mlp.experts")
    return stacks(name, array, arch == "gpt-oss") if "gate_up_proj" in name and "experts" in name else {name: array}


def tensors_of(hf, arch, skip="(?!)"):
    """name → float32 array. skip: parameters to leave out, a pattern."""
    number = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == arch)
    names = gguf.get_tensor_name_map(number, hf.config.num_hidden_layers)
    buffers = [(name, buffer) for name, buffer in hf.named_buffers() if name.endswith("e_score_correction_bias")]
    out = {}
    for theirs, parameter in [*hf.named_parameters(), *buffers]:
        if ".act_fn." in theirs or re.fullmatch(skip, theirs):
            continue  # the first are metadata
        for name, array in changed(theirs, parameter.detach().float().numpy(), hf, arch).items():
            name = name.removeprefix("transformer.") if arch == "bloom" else name
            ours = names.get_name(name, try_suffixes=(".weight", ".bias"))
            assert ours, f"the gguf library has no name for {name}"
            out[ours] = np.ascontiguousarray(array)
    return out | rope_tensors(hf)


def rope_tensors(hf):
    rope = hf.config.rope_parameters if getattr(hf.config, "rope_parameters", None) else {}
    if rope.get("rope_type") != "llama3":
        return {}
    plain = rope["rope_theta"] ** -(np.arange(0, hf.config.head_dim, 2) / hf.config.head_dim)
    return {"rope_freqs.weight": (plain / hf.base_model.rotary_emb.inv_freq.double().numpy()).astype(np.float32)}


# ---- metadata --------------------------------------------------------------------------------------------------------

_SAME = {  # key → (type, names in configs, the first of which counts)
    "vocab_size": (U, "vocab_size"),
    "block_count": (U, "num_hidden_layers"),
    "context_length": (U, "max_position_embeddings n_positions max_seq_len"),
    "embedding_length": (U, "hidden_size"),
    "feed_forward_length": (U, "intermediate_size ffn_hidden_size n_inner"),
    "attention.head_count": (U, "num_attention_heads"),
    "attention.head_count_kv": (U, "num_key_value_heads"),
    "attention.key_length": (U, "head_dim"),
    "attention.value_length": (U, "head_dim"),
    "attention.layer_norm_rms_epsilon": (F, "rms_norm_eps"),
    "attention.layer_norm_epsilon": (F, "layer_norm_eps layer_norm_epsilon norm_epsilon norm_eps"),
    "expert_count": (U, "num_local_experts num_experts n_routed_experts"),
    "expert_used_count": (U, "num_experts_per_tok"),
    "expert_group_count": (U, "n_group"),
    "expert_group_used_count": (U, "topk_group"),
    "expert_feed_forward_length": (U, "moe_intermediate_size"),
    "expert_shared_feed_forward_length": (U, "shared_expert_intermediate_size"),
    "attention.sliding_window": (U, "sliding_window"),
    "use_parallel_residual": (B, "use_parallel_residual"),
    "logit_scale": (F, "logit_scale logits_scaling"),
    "attention.scale": (F, "attention_multiplier"),
    "embedding_scale": (F, "embedding_multiplier"),
    "residual_scale": (F, "residual_multiplier"),
    "attention.clamp_kqv": (F, "clip_qkv"),
    "shortconv.l_cache": (U, "conv_L_cache"),
    "ssm.conv_kernel": (U, "linear_conv_kernel_dim"),
    "ssm.state_size": (U, "linear_key_head_dim"),
    "ssm.group_count": (U, "linear_num_key_heads"),
    "ssm.time_step_rank": (U, "linear_num_value_heads"),
}  # fmt: skip


def metadata_of(hf, arch):
    """key without the architecture → (GGUF type, value)"""
    c = hf.config
    meta = {}
    for key, (kind, names) in _SAME.items():
        value = next((value for name in names.split() if (value := getattr(c, name, None)) is not None), None)
        if value is not None and (value or kind == B):
            meta[key] = (kind, value)
    meta.setdefault("feed_forward_length", (U, 4 * c.hidden_size))
    types = getattr(c, "layer_types", None)
    if types and "sliding_attention" in types and arch != "gpt-oss":
        meta["attention.sliding_window_pattern"] = (A, [one == "sliding_attention" for one in types])
    meta |= rope_of(c, arch) | OTHERS.get(arch, lambda c: {})(c)
    return {key: value for key, value in meta.items() if value is not None}


def rope_of(c, arch):
    rope = getattr(c, "rope_parameters", None)
    if not rope:
        return {}
    meta, full = {}, rope.get("full_attention", rope)
    meta["rope.freq_base"] = (F, full["rope_theta"])
    if full is not rope:
        meta["rope.freq_base_swa"] = (F, rope["sliding_attention"]["rope_theta"])
    head_dim = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    meta["rope.dimension_count"] = (U, int(head_dim * full.get("partial_rotary_factor", 1)))
    if full["rope_type"] == "yarn":
        meta["rope.scaling.type"] = (S, "yarn")
        meta["rope.scaling.factor"] = (F, full["factor"])
        meta["rope.scaling.original_context_length"] = (U, full["original_max_position_embeddings"])
        names = {"beta_fast": "yarn_beta_fast", "beta_slow": "yarn_beta_slow", "attention_factor": "yarn_attn_factor"}
        meta |= {f"rope.scaling.{ours}": (F, full[theirs]) for theirs, ours in names.items() if theirs in full}
        if full.get("mscale_all_dim"):
            meta["rope.scaling.yarn_log_multiplier"] = (F, full["mscale_all_dim"] * (0.1 if arch == "deepseek2" else 1))
    return meta


def _latent(c):
    meta = {
        "attention.q_lora_rank": c.q_lora_rank and (U, c.q_lora_rank),
        "attention.kv_lora_rank": (U, c.kv_lora_rank),
        "attention.key_length": (U, c.qk_nope_head_dim + c.qk_rope_head_dim),
        "attention.value_length": None,
        "rope.dimension_count": (U, c.qk_rope_head_dim),
        "logit_scale": None,
    }
    if not hasattr(c, "n_routed_experts"):
        return meta
    return meta | {
        "attention.head_count_kv": (U, 1),
        "attention.key_length": (U, c.kv_lora_rank + c.qk_rope_head_dim),
        "attention.value_length": (U, c.kv_lora_rank),
        "attention.key_length_mla": (U, c.qk_nope_head_dim + c.qk_rope_head_dim),
        "attention.value_length_mla": (U, c.v_head_dim),
        "leading_dense_block_count": (U, getattr(c, "first_k_dense_replace", 1)),
        "expert_shared_count": (U, c.n_shared_experts),
        "expert_weights_scale": (F, c.routed_scaling_factor),
        "expert_weights_norm": (B, c.norm_topk_prob),
        "expert_gating_func": (U, 2),
    }


def _delta(c):
    recurrent = [one == "linear_attention" for one in c.layer_types]
    sections = {"rope.dimension_sections": (A, [11, 11, 10, 0])} if c.model_type == "qwen3_5_text" else {}
    return sections | {
        "ssm.inner_size": (U, c.linear_value_head_dim * c.linear_num_value_heads),
        "attention.recurrent_layers": (A, recurrent),
        "full_attention_interval": (U, getattr(c, "full_attention_interval", 4)),
    }


def _mpt(c):
    clip = c.attn_config.clip_qkv
    clip = {"attention.clamp_kqv": (F, clip)} if clip else {}
    return {"attention.layer_norm_epsilon": (F, 1e-5), "attention.max_alibi_bias": (F, 8.0), **clip}


OTHERS = {
    "mistral3": lambda c: {"attention.temperature_scale": (F, c.rope_parameters["llama_4_scaling_beta"])},
    "falcon": lambda c: {
        "attention.head_count_kv": (U, c.num_kv_heads if c.new_decoder_architecture else 1), "tensor_data_layout": (S, "jploski")},
    "starcoder": lambda c: {"attention.head_count_kv": (U, 1)},
    "bloom": lambda c: {"context_length": (U, 64), "attention.head_count_kv": (U, c.n_head)},
    "mpt": _mpt,
    "olmo": lambda c: {"attention.layer_norm_epsilon": (F, 1e-5)},
    "gpt-oss": lambda c: {"expert_feed_forward_length": (U, c.intermediate_size)},
    "deepseek2": _latent,
    "minicpm3": _latent,
    "qwen35": _delta,
    "qwen3next": _delta,
    "lfm2": lambda c: {
        "attention.head_count_kv": (A, [0 if one == "conv" else c.num_key_value_heads for one in c.layer_types]),
        "feed_forward_length": (U, c.block_multiple_of * -(-int(2 * c.intermediate_size / 3) // c.block_multiple_of)),
        "attention.layer_norm_rms_epsilon": (F, c.norm_eps), "attention.layer_norm_epsilon": None},
}  # fmt: skip


def write(path, name, hf, meta=None, change=lambda tensors: None, top=None, skip="(?!)", **file):
    """The file of an entry of MODELS. meta, top: keys of the architecture and whole ones to replace, None to leave one out.
    change: edits the tensors."""
    arch = architecture(name)
    keys = {f"{arch}.{key}": value for key, value in {**metadata_of(hf, arch), **(meta or {})}.items()}
    if arch == "apertus":
        keys |= {f"xielu.{part}": (A, [float(getattr(layer.mlp.act_fn, part)) for layer in hf.model.layers])
                 for part in ("alpha_p", "alpha_n", "beta", "eps")}  # fmt: skip
    tensors = tensors_of(hf, arch, skip)
    change(tensors)
    return write_file(path, arch, {**keys, "tokenizer.ggml.model": (S, "none"), **(top or {})}, tensors, **file)


assert {architecture(name) for name in MODELS} <= set(gguf.MODEL_ARCH_NAMES.values())
