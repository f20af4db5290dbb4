"""Liquid's LFM: in most layers a gated short convolution in the place of attention."""

from __future__ import annotations

from dataclasses import replace

from ..family import Hyperparameters, Key, Linear, Mixer, NormAt, RopeKeys
from .llama import LLAMA
from .shared import HEAD_DIM, SIZES, kv_heads

__all__ = ["FAMILIES", "LFM2"]


def _d_ff(f: Hyperparameters) -> int:
    """The width that blocks have: two thirds of the one in the config, times a factor, rounded up."""
    if not f.adjusts_d_ff:
        return int(f.d_ff)
    width = int(2 * f.d_ff / 3)
    if f.d_ff_factor is None:
        return width
    return int(f.d_ff_multiple * -(-int(f.d_ff_factor * width) // f.d_ff_multiple))


def _layer_types(f: Hyperparameters) -> list[str]:
    if f.layer_types is not None:
        return list(f.layer_types)
    attends = range(f.n_layers) if f.attention_layers is None else f.attention_layers
    return ["full_attention" if i in attends else "conv" for i in range(f.n_layers)]


LFM2 = replace(
    LLAMA,
    model_type="lfm2",
    keys={
        **SIZES,
        **kv_heads(8),
        **HEAD_DIM,
        "intermediate_size": Key("d_ff", "size", 12288),
        "block_ff_dim": Key("d_ff", "size", lambda f: f.d_ff),
        "block_auto_adjust_ff_dim": Key("adjusts_d_ff", "flag", True),
        "block_ffn_dim_multiplier": Key("d_ff_factor", "number", 1.0, null=None),
        "block_multiple_of": Key("d_ff_multiple", "size", 256),
        "max_position_embeddings": Key("n_ctx", "size", 128_000),
        "norm_eps": Key("norm_eps", "number", 1e-5),
        "tie_word_embeddings": Key("tied", "flag", True),
        "tie_embedding": Key("tied", "flag", lambda f: f.tied),
        "conv_bias": Key("conv_bias", "flag", False),
        "conv_L_cache": Key("conv_taps", "size", 3),
        "layer_types": Key("layer_types", "words", None, null=None),
        "full_attn_idxs": Key("attention_layers", "layers", None, null=None),
    },
    linears=(
        Linear("self_attn.q_proj", ("q",)),
        Linear("self_attn.k_proj", ("k",)),
        Linear("self_attn.v_proj", ("v",)),
        Linear("self_attn.out_proj", ("o",)),
        Linear("feed_forward.w1", ("gate",)),
        Linear("feed_forward.w3", ("up",)),
        Linear("feed_forward.w2", ("down",)),
    ),
    mixers={
        "conv": Mixer(
            "conv",
            linears=(
                Linear("conv.in_proj", ("k", "q", "v"), bias=lambda f: f.conv_bias),
                Linear("conv.out_proj", ("o",), bias=lambda f: f.conv_bias),
            ),
            conv="conv.conv",
            conv_bias=lambda f: f.conv_bias,
        )
    },
    norms=(
        NormAt("operator_norm", "norm1"),
        NormAt("ffn_norm", "norm2"),
        NormAt("self_attn.q_layernorm", "q_norm", "shared"),
        NormAt("self_attn.k_layernorm", "k_norm", "shared"),
    ),
    final_norm="embedding_norm",
    derived={
        "d_ff": _d_ff,
        "layer_types": _layer_types,
        "attention_layers": lambda f: [i for i, kind in enumerate(f.layer_types) if kind == "full_attention"],
        "act": lambda f: "silu",
    },
    only={},
    qk_norm="head",
    rope=RopeKeys(theta=1_000_000.0),
)

FAMILIES = (LFM2,)
