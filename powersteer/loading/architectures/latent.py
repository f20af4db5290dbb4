"""Latent attention: DeepSeek 3 and GLM 4.7 Flash, whose kv_b is stored as two, and MiniCPM 3."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from ...errors import BadCheckpoint
from ..blocks import Array, dense
from ..family import Hyperparameters, Key, NormAt, RopeKeys
from ..gguf import GGUF
from ..tensor_ref import TensorRef
from .shared import EXPERT_KEYS_IF_ANY, EXPERTS, FURTHER, MLP, PRE_NORMS, Tensors, architecture, linear

__all__ = ["ARCHITECTURES"]

_LINEARS = (
    linear("attn_q_a", "q_a", when=lambda f: f.q_rank > 0),
    linear("attn_q_b", "q", when=lambda f: f.q_rank > 0),
    linear("attn_q", "q", when=lambda f: f.q_rank == 0),
    linear("attn_kv_a_mqa", "k"),
    linear("attn_kv_b", "kv_b"),
    linear("attn_output", "o"),
    *MLP,
)
_NORMS = (
    *PRE_NORMS,
    NormAt("attn_q_a_norm", "q_a_norm", when=lambda f: f.q_rank > 0),
    NormAt("attn_kv_a_norm", "kv_norm"),
)
_KEYS = {
    "attention.q_lora_rank": Key("q_rank", "count", 0),
    "attention.kv_lora_rank": Key("kv_rank", "size"),
    "rope.dimension_count": Key("rope_head", "size"),
}


def _nope_head(f: Hyperparameters) -> int:
    if f.rope_head >= f.head_dim:
        raise ValueError(f"{f.rope_head} dimensions turn of keys of {f.head_dim}")
    return int(f.head_dim - f.rope_head)


def _route(f: Hyperparameters) -> str:
    """As llama.cpp, GLM's files are known by their sizes."""
    glm = f.n_layers + f.n_further in (47, 48) and f.n_vocab == 154880
    if f.n_experts and f.gating != 2 and not (f.gating == 0 and glm):
        raise ValueError("its experts are chosen by a softmax (expert_gating_func), as DeepSeek 2 does, which is not supported")
    return "sigmoid"


def _join_kv_b(tensors: Tensors, file: GGUF, f: Hyperparameters) -> Tensors:
    """kv_b from the two parts into which the converter takes it apart: (NH, R, nope) and (NH, v, R)."""
    out = dict(tensors)
    for i in range(f.n_layers):
        names = [f"blk.{i}.attn_{part}_b.weight" for part in "kv"]
        if not all(name in out for name in names):
            continue
        k, v = (out.pop(name) for name in names)
        for one, shape in ((k, (f.n_heads, f.kv_rank, f.nope_head)), (v, (f.n_heads, f.v_dim, f.kv_rank))):
            if one.shape != shape:
                raise BadCheckpoint(
                    f"tensor {one.name!r} in {one.where} has shape {one.shape} where the config says {shape}; "
                    "one of them belongs to another model"
                )
        name = f"blk.{i}.attn_kv_b.weight"
        out[name] = _joined(name, k, v, f.n_heads * (f.nope_head + f.v_dim))
    return out


def _joined(name: str, k: TensorRef, v: TensorRef, n_out: int) -> TensorRef:
    same = k.dtype == v.dtype and k.dtype in ("F16", "BF16", "F64")

    @cache
    def view() -> Array:
        up, down = (dense(one.view()) if same else one.numbers() for one in (k, v))
        up, down = up.reshape(k.shape).swapaxes(1, 2), down.reshape(v.shape)
        return np.concatenate([up, down], 1).reshape(n_out, -1)

    return TensorRef(name, k.dtype if same else "F32", (n_out, v.shape[2]), k.where, view)


ARCHITECTURES = (
    # files of converters before it took kv_b apart have the sizes of heads in the keys without _mla
    architecture(
        "deepseek2",
        "deepseek_v3",
        norms=_NORMS,
        also=("glm4_moe_lite",),
        keys={
            **_KEYS,
            "attention.head_count_kv": Key("n_stored_keys", "size", 1),
            "attention.key_length": Key("stored_key", "size"),
            "attention.value_length": Key("stored_value", "size"),
            "attention.key_length_mla": Key("head_dim", "size", lambda f: f.stored_key),
            "attention.value_length_mla": Key("v_dim", "size", lambda f: f.stored_value),
            **EXPERT_KEYS_IF_ANY,
            **FURTHER,
            "leading_dense_block_count": Key("first_sparse", "count", 0),
            "expert_shared_count": Key("n_shared", "count"),
            "expert_weights_scale": Key("route_scale", "number", 1.0),
            "expert_weights_norm": Key("norm_topk", "flag", False),
            "expert_group_count": Key("n_groups", "size", 1),
            "expert_group_used_count": Key("top_groups", "size", 1),
            "expert_gating_func": Key("gating", "count", 0),
        },
        derived={
            "n_kv_heads": lambda f: f.n_heads,
            "nope_head": _nope_head,
            "latent_eps": lambda f: 1e-6,
            "d_shared": lambda f: f.n_shared * f.d_expert,
            "route": _route,
        },
        linears=_LINEARS,
        experts=replace(
            EXPERTS, when=lambda f, i: f.n_experts > 0 and i >= f.first_sparse, correction="exp_probs_b.bias", shared="ffn_{name}_shexp"
        ),
        rope=RopeKeys(scales_scores=True),
        rope_style="interleaved",
        rest={"log_multiplier": 10.0, "arrange": _join_kv_b},
    ),
    # llama.cpp has the constants of its one size
    architecture(
        "minicpm3",
        "minicpm3",
        norms=_NORMS,
        keys={**_KEYS, "attention.value_length": Key("v_dim", "size", lambda f: f.d_model // f.n_heads)},
        derived={
            "nope_head": _nope_head,
            "latent_eps": lambda f: 1e-6,
            "embedding_multiplier": lambda f: 12.0,
            "scale_depth": lambda f: 1.4,
            "dim_model_base": lambda f: 256,
        },
        linears=_LINEARS,
        rope=RopeKeys(scales_scores=True),
        rest={"longrope": True},
    ),
)
