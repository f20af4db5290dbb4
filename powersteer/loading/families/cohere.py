"""Cohere: parallel blocks under one LayerNorm without bias, interleaved rotary positions."""

from __future__ import annotations

from dataclasses import replace

from ..family import Key, NormAt, RopeKeys
from .llama import LLAMA
from .shared import ATTENTION_BIAS, DERIVED_HEADS, LAYER_NORM_EPS, LAYER_TYPES, NO_MLP_BIAS, WINDOW, keys, without

__all__ = ["FAMILIES"]

COHERE = replace(
    LLAMA,
    model_type="cohere",
    keys={
        **without(keys(n_ctx=8192, eps=1e-5, tied=True), "rms_norm_eps"),
        **LAYER_NORM_EPS,
        **ATTENTION_BIAS,
        "logit_scale": Key("logit_scale", "number", 0.0625),
        "use_qk_norm": Key("use_qk_norm", "flag", False),
    },
    norms=(
        NormAt("input_layernorm", "norm1"),
        NormAt("self_attn.q_norm", "q_norm", "per_head", when=lambda f: f.use_qk_norm),
        NormAt("self_attn.k_norm", "k_norm", "per_head", when=lambda f: f.use_qk_norm),
    ),
    derived={"mlp_bias": lambda f: False},
    only=NO_MLP_BIAS,
    norm="layer",
    qk_norm=lambda f: "head" if f.use_qk_norm else "none",
    parallel=True,
    rope=RopeKeys(theta=500_000.0),
    rope_style="interleaved",
    logit_scale=lambda f: f.logit_scale,
)

COHERE2 = replace(
    COHERE,
    model_type="cohere2",
    keys={
        **without(COHERE.keys, "use_qk_norm", "head_dim"),
        **WINDOW,
        "sliding_window_pattern": Key("pattern", "size", 4),
        **LAYER_TYPES,
    },
    norms=(NormAt("input_layernorm", "norm1"),),
    derived={**COHERE.derived, "head_dim": DERIVED_HEADS["head_dim"]},
    qk_norm="none",
    rope=RopeKeys(),
    rope_index=lambda f, i, layer_type: 0 if layer_type == "sliding_attention" else -1,
    sliding=lambda f, i: f.window is not None and (i + 1) % f.pattern != 0,
)

FAMILIES = (COHERE, COHERE2)
