"""Llama and its kin: RMSNorm before attention and MLP, rotary positions, a gated MLP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..family import Family, Hyperparameters, Key, Linear, NormAt, RopeKeys
from .shared import (
    ATTENTION,
    ATTENTION_BIAS,
    IF_USED,
    LAYER_TYPES,
    MLP,
    MLP_BIAS,
    NO_ATTENTION_BIAS,
    NO_MLP_BIAS,
    PRE_NORMS,
    UNBIASED,
    WINDOW_BY_LAYER,
    head_dim,
    keys,
    kv_heads,
    without,
)

__all__ = ["FAMILIES", "LLAMA", "MISTRAL"]

LLAMA = Family(
    model_type="llama",
    keys={**keys(n_ctx=2048, eps=1e-6, tied=False), **ATTENTION_BIAS, **MLP_BIAS},
    linears=ATTENTION + MLP,
    norms=PRE_NORMS,
    layer="layers.{i}.",
    embed="embed_tokens",
    final_norm="norm",
    only={"rope_interleaved": (False, None)},
)

MISTRAL = replace(
    LLAMA,
    model_type="mistral",
    keys={
        **keys(n_ctx=131072, eps=1e-6, tied=False),
        **kv_heads(8),
        "sliding_window": Key("window", "size", 4096, null=None),
    },
    derived=UNBIASED,
    only={**NO_ATTENTION_BIAS, **NO_MLP_BIAS},
    sliding=lambda f, i: f.window is not None,
)

SMOLLM3 = replace(
    LLAMA,
    model_type="smollm3",
    keys={
        **keys(n_ctx=32768, eps=1e-6, tied=True),
        **kv_heads(4),
        **ATTENTION_BIAS,
        **MLP_BIAS,
        **without(WINDOW_BY_LAYER, "max_window_layers"),
        "sliding_window": Key("window", "size", None, null=None),
        "no_rope_layer_interval": Key("no_rope_interval", "size", 4),
        "no_rope_layers": Key("has_rope", "flags", None, null=None),
    },
    derived=IF_USED,
    only={},
    rope=RopeKeys(theta=2_000_000.0),
    rope_index=lambda f, i, layer_type: 0 if _has_rope(f, i) else -1,
    sliding=lambda f, i: f.window is not None and not _has_rope(f, i),
)


def _has_rope(f: Hyperparameters, i: int) -> bool:
    """SmolLM3 leaves one layer in `no_rope_layer_interval` without positions."""
    return bool(f.has_rope[i] if f.has_rope is not None else (i + 1) % f.no_rope_interval)


GRANITE = replace(
    LLAMA,
    model_type="granite",
    keys={
        **LLAMA.keys,
        "embedding_multiplier": Key("embedding_multiplier", "number", 1.0),
        "residual_multiplier": Key("residual_multiplier", "number", 1.0),
        "attention_multiplier": Key("attention_multiplier", "number", 1.0),
        "logits_scaling": Key("logits_scaling", "number", 1.0),
    },
    only={},
    embed_scale=lambda f: f.embedding_multiplier,
    resid_scale=lambda f: f.residual_multiplier,
    attn_scale=lambda f, i: f.attention_multiplier,
    logit_scale=lambda f: 1.0 / f.logits_scaling,
)

MINISTRAL = replace(MISTRAL, model_type="ministral", keys={**MISTRAL.keys, **LAYER_TYPES})


def _temperature(f: Hyperparameters, rotary: Mapping[str, Any]) -> tuple[float, int, int]:
    """Queries grow with the number of original contexts before them."""
    rate, length = rotary.get("llama_4_scaling_beta"), rotary.get("original_max_position_embeddings")
    if not isinstance(rate, (int, float)) or type(length) is not int or length < 1:
        raise ValueError(f"llama_4_scaling_beta = {rate!r} and original_max_position_embeddings = {length!r} must be numbers")
    return float(rate), length, 0


MINISTRAL3 = replace(
    MISTRAL,
    model_type="ministral3",
    keys={
        **keys(n_ctx=262144, eps=1e-5, tied=False),
        **kv_heads(8),
        **head_dim(128),
        "sliding_window": Key("window", "size", None, null=None),
    },
    rope=RopeKeys(
        extra=frozenset({"llama_4_scaling_beta"}),
        absent={
            "rope_type": "yarn",
            "type": "yarn",
            "rope_theta": 1_000_000.0,
            "max_position_embeddings": 262144,
            "factor": 16.0,
            "original_max_position_embeddings": 16384,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
            "llama_4_scaling_beta": 0.1,
        },
    ),
    temper=_temperature,
)

SEED_OSS = replace(
    LLAMA,
    model_type="seed_oss",
    keys={
        **keys(n_ctx=524288, eps=1e-6, tied=False),
        **kv_heads(8),
        **head_dim(128),
        "attention_bias": Key("attn_bias", "flag", True),
        "attention_out_bias": Key("out_bias", "flag", False),
        **MLP_BIAS,
    },
    linears=(*ATTENTION[:3], Linear("self_attn.o_proj", ("o",), bias=lambda f: f.out_bias), *MLP),
    only={},
)

ERNIE4_5 = replace(
    LLAMA,
    model_type="ernie4_5",
    keys={
        **keys(n_ctx=131072, eps=1e-5, tied=True),
        **kv_heads(2),
        **head_dim(128),
        "use_bias": Key("use_bias", "flag", False, null=False),
    },
    derived={"attn_bias": lambda f: f.use_bias, "mlp_bias": lambda f: f.use_bias},
    only={},
    rope=RopeKeys(theta=500_000.0),
    rope_style="interleaved",
)

HELIUM = replace(
    LLAMA,
    model_type="helium",
    keys={
        **keys(n_ctx=4096, eps=1e-8, tied=False),
        "num_key_value_heads": Key("n_kv_heads", "size", 20),
        "head_dim": Key("head_dim", "size", 128),
        **ATTENTION_BIAS,
        **MLP_BIAS,
    },
    linears=(*ATTENTION[:3], Linear("self_attn.o_proj", ("o",)), *MLP),
    only={},
    rope=RopeKeys(theta=100_000.0),
    rope_style="interleaved",
)

HUNYUAN = replace(
    LLAMA,
    model_type="hunyuan_v1_dense",
    keys={**keys(n_ctx=2048, eps=1e-5, tied=False), **ATTENTION_BIAS},
    norms=(
        *PRE_NORMS,
        NormAt("self_attn.query_layernorm", "q_norm", "shared"),
        NormAt("self_attn.key_layernorm", "k_norm", "shared"),
    ),
    derived={"mlp_bias": lambda f: False},
    only=NO_MLP_BIAS,
    ignored={"a token id": "eod_token_id"},
    qk_norm="head",
    qk_norm_last=True,
    rope=RopeKeys(keyed={("dynamic", "alpha"): "ntk_alpha"}),
)

FAMILIES = (LLAMA, MISTRAL, MINISTRAL, MINISTRAL3, SMOLLM3, GRANITE, SEED_OSS, ERNIE4_5, HELIUM, HUNYUAN)
