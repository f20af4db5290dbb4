"""Phi: parallel blocks with LayerNorm; the third is a Llama whose projections are fused."""

from __future__ import annotations

from dataclasses import replace

from ..family import Family, Key, Linear, NormAt, RopeKeys
from .llama import LLAMA
from .shared import HEAD_DIM, KV_HEADS, LAYER_NORM_EPS, NO_ATTENTION_BIAS, NO_MLP_BIAS, SIZES, keys

__all__ = ["FAMILIES", "PHI3"]

PHI = Family(
    model_type="phi",
    keys={
        **SIZES,
        **KV_HEADS,
        **HEAD_DIM,
        **LAYER_NORM_EPS,
        "hidden_act": Key("act", "word", "gelu_new"),
        "max_position_embeddings": Key("n_ctx", "size", 2048),
        "tie_word_embeddings": Key("tied", "flag", False),
        "qk_layernorm": Key("qk_layernorm", "flag", False),
    },
    linears=(
        Linear("self_attn.q_proj", ("q",), bias=True),
        Linear("self_attn.k_proj", ("k",), bias=True),
        Linear("self_attn.v_proj", ("v",), bias=True),
        Linear("self_attn.dense", ("o",), bias=True),
        Linear("mlp.fc1", ("up",), bias=True),
        Linear("mlp.fc2", ("down",), bias=True),
    ),
    norms=(
        NormAt("input_layernorm", "norm1"),
        NormAt("self_attn.q_layernorm", "q_norm", "shared", when=lambda f: f.qk_layernorm),
        NormAt("self_attn.k_layernorm", "k_norm", "shared", when=lambda f: f.qk_layernorm),
    ),
    layer="layers.{i}.",
    embed="embed_tokens",
    final_norm="final_layernorm",
    head_bias=True,
    norm="layer",
    norm_bias=True,
    qk_norm=lambda f: "head" if f.qk_layernorm else "none",
    gated=False,
    parallel=True,
    rope=RopeKeys(partial=0.5),
)

PHI3 = replace(
    LLAMA,
    model_type="phi3",
    keys={
        **keys(n_ctx=4096, eps=1e-5, tied=False),
        "original_max_position_embeddings": Key("original_positions", "size", 4096),
        "sliding_window": Key("window", "size", None, null=None),
    },
    linears=(
        Linear("self_attn.qkv_proj", ("q", "k", "v")),
        Linear("self_attn.o_proj", ("o",)),
        Linear("mlp.gate_up_proj", ("gate", "up")),
        Linear("mlp.down_proj", ("down",)),
    ),
    only={**NO_ATTENTION_BIAS, **NO_MLP_BIAS, "lm_head_bias": (False, None)},
    rope=RopeKeys(
        partial=1.0,
        round_up=True,
        kinds={"default": "default", "longrope": "longrope", "su": "longrope", "yarn": "longrope"},
    ),
    sliding=lambda f, i: f.window is not None,
)

FAMILIES = (PHI, PHI3)
