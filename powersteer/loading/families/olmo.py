"""OLMo: the first has norms without weights before attention and MLP; from the second on they follow them, and queries and
keys have norms, of all heads at once (EXAONE 4: of each head)."""

from __future__ import annotations

from dataclasses import replace

from ..family import Hyperparameters, Key, NormAt, RopeKeys
from .llama import LLAMA
from .shared import (
    ATTENTION_BIAS,
    HEAD_NORMS,
    LAYER_TYPES,
    NO_ATTENTION_BIAS,
    NO_MLP_BIAS,
    UNBIASED,
    WINDOW,
    keys,
    without,
)

__all__ = ["FAMILIES"]

_POST_NORMS = (NormAt("post_attention_layernorm", "post1"), NormAt("post_feedforward_layernorm", "post2"))

OLMO = replace(
    LLAMA,
    model_type="olmo",
    keys={
        **without(keys(n_ctx=2048, eps=1e-5, tied=False), "rms_norm_eps"),
        **ATTENTION_BIAS,
        "clip_qkv": Key("clip_qkv", "number", None, null=None),
    },
    derived={"mlp_bias": lambda f: False, "norm_eps": lambda f: 1e-5},
    only=NO_MLP_BIAS,
    norm="layer",
    norm_gain=False,
    clip_qkv=lambda f: f.clip_qkv,
)

OLMO2 = replace(
    LLAMA,
    model_type="olmo2",
    keys={**keys(n_ctx=2048, eps=1e-5, tied=False), **ATTENTION_BIAS},
    norms=(
        *_POST_NORMS,
        NormAt("self_attn.q_norm", "q_norm"),
        NormAt("self_attn.k_norm", "k_norm"),
    ),
    derived={"mlp_bias": lambda f: False},
    only=NO_MLP_BIAS,
    qk_norm="full",
)

OLMO3 = replace(
    OLMO2,
    model_type="olmo3",
    keys={**OLMO2.keys, **WINDOW, **LAYER_TYPES},
    rope=RopeKeys(by_type={"full_attention": ("rope_theta", 500_000.0), "sliding_attention": (None, 500_000.0)}),
    rope_index=lambda f, i, layer_type: 0 if layer_type == "full_attention" else 1,
    sliding=lambda f, i: f.window is not None and (i + 1) % 4 != 0,
)


def _is_local(f: Hyperparameters, i: int) -> bool:
    """sliding_window_pattern: every how many layers there is one without a window, or letters, L for a window."""
    if isinstance(f.pattern, str):
        return bool(f.pattern[i % len(f.pattern)] == "L")
    return bool(f.pattern and (i + 1) % f.pattern)


EXAONE4 = replace(
    LLAMA,
    model_type="exaone4",
    keys={
        **keys(n_ctx=2048, eps=1e-5, tied=False),
        "num_key_value_heads": Key("n_kv_heads", "size", 32),
        **WINDOW,
        "sliding_window_pattern": Key("pattern", "period", 4, null=0),
        **LAYER_TYPES,
    },
    norms=_POST_NORMS + HEAD_NORMS,
    derived=UNBIASED,
    only={**NO_ATTENTION_BIAS, **NO_MLP_BIAS},
    qk_norm="head",
    rope_index=lambda f, i, layer_type: 0 if f.window is None or layer_type == "sliding_attention" else -1,
    sliding=lambda f, i: f.window is not None and _is_local(f, i),
)

FAMILIES = (OLMO, OLMO2, OLMO3, EXAONE4)
