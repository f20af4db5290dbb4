"""Gemma: gains around 1, scaled embedding, tanh GELU; from the second on norms after attention and MLP, too."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..family import Key, NormAt, RopeKeys
from .llama import LLAMA
from .shared import ATTENTION_BIAS, HEAD_NORMS, NO_MLP_BIAS, keys, without

__all__ = ["FAMILIES", "GEMMA", "GEMMA2", "GEMMA3"]

_SANDWICH_NORMS = (
    NormAt("input_layernorm", "norm1"),
    NormAt("post_attention_layernorm", "post1"),
    NormAt("pre_feedforward_layernorm", "norm2"),
    NormAt("post_feedforward_layernorm", "post2"),
)
_GEMMA_ACT = ("gelu_pytorch_tanh", None)
_CAUSAL = {"use_bidirectional_attention": (None, False)}


def _gemma_keys(n_ctx: int, act_key: str, n_kv_heads: int) -> dict[str, Key]:
    return {
        **keys(n_ctx=n_ctx, eps=1e-6, tied=True, act="gelu_pytorch_tanh", act_key=act_key),
        "num_key_value_heads": Key("n_kv_heads", "size", n_kv_heads),
        "head_dim": Key("head_dim", "size", 256),
        **ATTENTION_BIAS,
    }


GEMMA = replace(
    LLAMA,
    model_type="gemma",
    keys=_gemma_keys(8192, "hidden_act", 16),
    # the first configs say "gelu" and mean its tanh form, and transformers reads them so
    derived={"mlp_bias": lambda f: False, "act": lambda f: "gelu_pytorch_tanh"},
    only={"hidden_act": ("gelu", "gelu_pytorch_tanh"), "hidden_activation": _GEMMA_ACT, **NO_MLP_BIAS, **_CAUSAL},
    norm_one_plus=True,
    embed_scale=lambda f: float(np.float32(f.d_model**0.5)),  # a float32 buffer in transformers
)

GEMMA2 = replace(
    GEMMA,
    model_type="gemma2",
    keys={
        **_gemma_keys(8192, "hidden_activation", 4),
        "query_pre_attn_scalar": Key("query_scalar", "number", 256),
        "sliding_window": Key("window", "size", 4096, null=None),
        "layer_types": Key("layer_types", "words", None, null=None),
        "attn_logit_softcapping": Key("attn_softcap", "number", 50.0, null=None),
        "final_logit_softcapping": Key("logit_softcap", "number", 30.0, null=None),
    },
    norms=_SANDWICH_NORMS,
    derived={"mlp_bias": lambda f: False},
    only={"hidden_act": _GEMMA_ACT, **NO_MLP_BIAS, **_CAUSAL},
    sliding=lambda f, i: i % 2 == 0,
    attn_scale=lambda f, i: f.query_scalar**-0.5,
    attn_softcap=lambda f: f.attn_softcap,
    logit_softcap=lambda f: f.logit_softcap,
)

GEMMA3 = replace(
    GEMMA2,
    model_type="gemma3_text",
    keys={
        **without(GEMMA2.keys, "attn_logit_softcapping"),
        "max_position_embeddings": Key("n_ctx", "size", 131072),
        "final_logit_softcapping": Key("logit_softcap", "number", None, null=None),
        "sliding_window_pattern": Key("pattern", "size", 6),
    },
    norms=_SANDWICH_NORMS + HEAD_NORMS,
    ignored={
        "left from the second Gemma, applied by nothing": "attn_logit_softcapping",
        "a copy of sliding_window_pattern": "_sliding_window_pattern",
    },
    qk_norm="head",
    rope=RopeKeys(
        by_type={
            "full_attention": ("rope_theta", 1_000_000.0),
            "sliding_attention": ("rope_local_base_freq", 10_000.0),
        }
    ),
    rope_index=lambda f, i, layer_type: 0 if layer_type == "full_attention" else 1,
    sliding=lambda f, i: (i + 1) % f.pattern != 0,
    attn_softcap=lambda f: None,
)

FAMILIES = (GEMMA, GEMMA2, GEMMA3)
