"""GGUF files of tiny transformers models, converted as llama.cpp's converter does it."""

from __future__ import annotations

import math
import re

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Q
from oracles import torch

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.qkv_proj": "attn_qkv",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
GEMMA2 = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


FULL = "full_attention"


def architecture(hf):
    return hf.config.model_type.removesuffix("_text")


def gguf_name(name, arch):
    names = NAMES | (GEMMA2 if arch in ("gemma2", "gemma3") else {})
    module, _, kind = name.rpartition(".")
    layer = re.fullmatch(r"model\.layers\.(\d+)\.(.*)", module)
    return f"blk.{layer[1]}.{names[layer[2]]}.{kind}" if layer else f"{names[module]}.{kind}"


def interleaved(rows, n_heads):
    """Rows i and i + HS/2 of each head side by side."""
    return rows.reshape(n_heads, 2, -1, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def tensors_of(hf):
    """name → float32 array, as the converter has them before it rounds or quantises."""
    config, arch = hf.config, architecture(hf)
    out = {}
    for name, parameter in hf.named_parameters():
        array = parameter.detach().float().numpy()
        if arch == "llama" and ".self_attn.q_proj." in name:
            array = interleaved(array, config.num_attention_heads)
        if arch == "llama" and ".self_attn.k_proj." in name:
            array = interleaved(array, config.num_key_value_heads)
        if arch.startswith("gemma") and "norm" in name:
            array = array + np.float32(1)
        out[gguf_name(name, arch)] = np.ascontiguousarray(array)
    parameters = config.rope_parameters
    if parameters.get("rope_type") == "llama3":
        plain = parameters["rope_theta"] ** -(np.arange(0, config.head_dim, 2) / config.head_dim)
        scaled = hf.base_model.rotary_emb.inv_freq.double().numpy()
        out["rope_freqs.weight"] = (plain / scaled).astype(np.float32)
    if parameters.get("rope_type") == "longrope":
        for kind in ("short", "long"):
            out[f"rope_factors_{kind}.weight"] = np.array(parameters[f"{kind}_factor"], np.float32)
    return out


def metadata_of(hf):
    """key without the architecture → (GGUF type, value)"""
    c, arch = hf.config, architecture(hf)
    head_dim = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    rope = c.rope_parameters.get("full_attention", c.rope_parameters)
    u, f, s = "uint32", "float32", "string"
    meta = {
        "vocab_size": (u, c.vocab_size),
        "context_length": (u, c.max_position_embeddings),
        "embedding_length": (u, c.hidden_size),
        "block_count": (u, c.num_hidden_layers),
        "feed_forward_length": (u, c.intermediate_size),
        "attention.head_count": (u, c.num_attention_heads),
        "attention.head_count_kv": (u, c.num_key_value_heads),
        "attention.key_length": (u, head_dim),
        "attention.value_length": (u, head_dim),
        "attention.layer_norm_rms_epsilon": (f, c.rms_norm_eps),
        "rope.dimension_count": (u, head_dim),
        "rope.freq_base": (f, rope["rope_theta"]),
    }
    if rope["rope_type"] in ("linear", "yarn"):
        meta["rope.scaling.type"] = (s, rope["rope_type"])
        meta["rope.scaling.factor"] = (f, rope["factor"])
    if rope["rope_type"] == "yarn":
        meta["rope.scaling.original_context_length"] = (u, rope["original_max_position_embeddings"])
        meta |= {f"rope.scaling.yarn_{key}": (f, rope[key]) for key in ("beta_fast", "beta_slow") if key in rope}
    if arch == "phi3":
        original = c.original_max_position_embeddings
        meta["rope.dimension_count"] = (u, int(head_dim * rope.get("partial_rotary_factor", 1)))
        meta["rope.scaling.original_context_length"] = (u, original)
        meta["attention.sliding_window"] = (u, c.sliding_window or 0)
        if rope["rope_type"] == "longrope" and c.max_position_embeddings > original:
            longer = c.max_position_embeddings / original
            meta["rope.scaling.attn_factor"] = (f, math.sqrt(1 + math.log(longer) / math.log(original)))
    if arch == "gemma2":
        meta["attention.sliding_window"] = (u, c.sliding_window)
        meta["attn_logit_softcapping"] = (f, c.attn_logit_softcapping)
        meta["final_logit_softcapping"] = (f, c.final_logit_softcapping)
    if arch == "gemma3":
        meta["attention.sliding_window"] = (u, c.sliding_window)
        meta["attention.sliding_window_pattern"] = (u, (c.layer_types + [FULL]).index(FULL) + 1)
        meta["rope.freq_base_swa"] = (f, c.rope_parameters["sliding_attention"]["rope_theta"])
        if c.final_logit_softcapping:
            meta["final_logit_softcapping"] = (f, c.final_logit_softcapping)
    return meta


def write(path, hf, kind=Q.F32, meta=None, top=None, change=lambda tensors: None, raw=None):
    """meta: architecture keys to replace, None to leave one out. top: further whole keys. change: edits the tensors.
    kind: of the matrices. raw: name → (bytes, kind) of tensors that are quantised already."""
    arch, tensors = architecture(hf), tensors_of(hf)
    keys = {f"{arch}.{key}": value for key, value in {**metadata_of(hf), **(meta or {})}.items()}
    change(tensors)
    return write_file(path, arch, {**keys, "tokenizer.ggml.model": ("string", "none"), **(top or {})}, tensors, kind, raw)


def write_file(path, arch, keys, tensors, kind=Q.F32, raw=None):
    """keys: key → (GGUF type, value), or None to leave it out."""
    writer = gguf.GGUFWriter(path, arch)
    for key, value in keys.items():
        if value is not None:
            getattr(writer, "add_" + value[0])(key, value[1])
    for name, array in tensors.items():
        if raw and name in raw:
            writer.add_tensor(name, *raw[name][:1], raw_dtype=raw[name][1])
        elif array.ndim == 1 or kind == Q.F32:
            writer.add_tensor(name, array)
        else:
            writer.add_tensor(name, gguf.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def random_blocks(shape, kind, seed):
    """Bytes of a tensor of a quantised type: random but for its scales."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (*shape[:-1], shape[-1] // block, size), dtype=np.uint8)
    at, scale = SCALES.get(kind, ((0,), 2e-4))
    for first in at:
        blocks[..., first : first + 2] = np.frombuffer(np.float16(scale).tobytes(), np.uint8)
    if kind == Q.MXFP4:
        blocks[..., 0] = 120
    return blocks.reshape(*shape[:-1], -1)


# type → (where its scales, float16, lie in a block, their value) if that is not the first bytes, 2e-4
SCALES = {
    **dict.fromkeys((Q.Q4_0, Q.Q5_0, Q.IQ4_NL), ((0,), 2e-3)),
    **dict.fromkeys((Q.Q4_1, Q.Q5_1), ((0, 2), 2e-3)),
    **dict.fromkeys((Q.Q4_K, Q.Q5_K), ((0, 2), 2e-4)),
    Q.Q2_K: ((80, 82), 2e-4),
    Q.Q3_K: ((108,), 2e-4),
    Q.Q6_K: ((208,), 2e-4),
    Q.TQ2_0: ((64,), 2e-2),
    Q.MXFP4: ((), 0),
}


def put(hf, name, array):
    """Replace the parameter that is called `name` in GGUF, undoing the converter's changes."""
    arch, config = architecture(hf), hf.config
    for theirs, parameter in hf.named_parameters():
        if gguf_name(theirs, arch) == name:
            heads = {"q": config.num_attention_heads, "k": config.num_key_value_heads}
            if arch == "llama" and (proj := re.search(r"\.([qk])_proj\.", theirs)):
                array = array.reshape(heads[proj[1]], -1, 2, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)
            parameter.data = torch.from_numpy(np.array(array)).to(parameter.dtype)
            return
    raise KeyError(name)
