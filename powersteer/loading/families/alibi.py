"""Families that know positions by biases of the scores which grow with the distance (ALiBi): BLOOM, MPT, and the first Falcons;
the later Falcons rotate."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..family import Family, Hyperparameters, Key, Linear, NormAt, RopeKeys
from .shared import PRE_NORMS

__all__ = ["FAMILIES"]

Biases = NDArray[Any]


def _slopes(n_heads: int) -> Biases:
    """2^(-8/n), 2^(-16/n), ... for n heads, a power of two; others take what is missing from those of twice as many."""
    power = 2 ** int(math.log2(n_heads))
    some, more = (2.0 ** (-8 / n * np.arange(1, n + 1)) for n in (power, 2 * power))
    return np.concatenate([some, more[::2]])[:n_heads]


def _bloom_bias(f: Hyperparameters) -> Biases:
    biases: Biases = np.outer(_slopes(f.n_heads), np.arange(f.n_ctx))
    return biases


def _mpt_bias(f: Hyperparameters) -> Biases:
    """Slopes of the next power of two: every second one first."""
    n = 2 ** math.ceil(math.log2(f.n_heads))
    slopes = _slopes(n) if n == f.n_heads else np.concatenate([_slopes(n)[1::2], _slopes(n)[::2]])[: f.n_heads]
    biases: Biases = np.outer(slopes, np.arange(f.n_ctx))
    return biases


def _falcon_bias(f: Hyperparameters) -> Biases | None:
    """In bfloat16, and scaled with the scores."""
    if not f.alibi:
        return None
    biases: Biases = _bfloat16(np.outer(_bfloat16(_slopes(f.n_heads)), np.arange(f.n_ctx))) * f.head_dim**-0.5
    return biases


def _bfloat16(x: Biases) -> Biases:
    """Rounded to the nearest bfloat16, ties to even."""
    bits = x.astype(np.float32).view(np.uint32)
    kept: Biases = (bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)
    return kept.view(np.float32).astype(np.float64)


_EPSILON = {"layer_norm_epsilon": Key("norm_eps", "number", 1e-5)}
_TIED = {"tie_word_embeddings": Key("tied", "flag", True)}

BLOOM = Family(
    model_type="bloom",
    keys={
        "hidden_size": Key("d_model", "size"),
        "n_layer": Key("n_layers", "size"),
        "n_head": Key("n_heads", "size"),
        "vocab_size": Key("n_vocab", "size"),
        **_EPSILON,
        **_TIED,
    },
    aliases={"n_embed": "hidden_size"},
    derived={
        "n_kv_heads": lambda f: f.n_heads,
        "head_dim": lambda f: f.d_model // f.n_heads,
        "d_ff": lambda f: 4 * f.d_model,
        "n_ctx": lambda f: 2048,  # it was trained with
        "act": lambda f: "gelu_new",
    },
    linears=(
        Linear("self_attention.query_key_value", ("q", "k", "v"), bias=True, groups=lambda f: f.n_heads),
        Linear("self_attention.dense", ("o",), bias=True),
        Linear("mlp.dense_h_to_4h", ("up",), bias=True),
        Linear("mlp.dense_4h_to_h", ("down",), bias=True),
    ),
    norms=PRE_NORMS,
    layer="h.{i}.",
    embed="word_embeddings",
    embed_norm="word_embeddings_layernorm",
    final_norm="ln_f",
    prefixes=("transformer.", ""),
    only={"apply_residual_connection_post_layernorm": (False,)},
    ignored={"the order of sums, the same in exact arithmetic": "slow_but_exact"},
    norm="layer",
    norm_bias=True,
    gated=False,
    act_constants=lambda f, stored: (0.79788456,),  # sqrt(2 / pi) to eight digits
    rope=None,
    rope_index=lambda f, i, layer_type: -1,
    key_bias=_bloom_bias,
    adds_residual=("o", "down"),
)

MPT = Family(
    model_type="mpt",
    keys={
        "d_model": Key("d_model", "size"),
        "n_layers": Key("n_layers", "size"),
        "n_heads": Key("n_heads", "size"),
        "vocab_size": Key("n_vocab", "size"),
        "max_seq_len": Key("n_ctx", "size", 2048),
        "attn_config.clip_qkv": Key("clip_qkv", "number", None, null=None),
        "attn_config.softmax_scale": Key("attn_scale", "number", None, null=None),
        **_EPSILON,
        **_TIED,
    },
    nested="attn_config",
    derived={
        "n_kv_heads": lambda f: f.n_heads,
        "head_dim": lambda f: f.d_model // f.n_heads,
        "d_ff": lambda f: 4 * f.d_model,
        "act": lambda f: "gelu",
    },
    linears=(
        Linear("attn.Wqkv", ("q", "k", "v")),
        Linear("attn.out_proj", ("o",)),
        Linear("ffn.up_proj", ("up",)),
        Linear("ffn.down_proj", ("down",)),
    ),
    norms=(NormAt("norm_1", "norm1"), NormAt("norm_2", "norm2")),
    layer="blocks.{i}.",
    embed="wte",
    final_norm="norm_f",
    prefixes=("transformer.", ""),
    # transformers reads none of these: it computes what the values here mean
    only={
        "attn_config.alibi": (True,),
        "attn_config.alibi_bias_max": (8,),
        "attn_config.attn_type": ("multihead_attention",),
        "attn_config.attn_uses_sequence_id": (False,),
        "attn_config.prefix_lm": (False,),
        "attn_config.qk_ln": (False,),
        "expansion_ratio": (4,),
        "logit_scale": (None,),
        "no_bias": (True,),
        "norm_type": ("layernorm", "low_precision_layernorm"),
    },
    ignored={
        "training only": "attn_config.attn_pdrop emb_pdrop embedding_fraction init_device",
        "the kernel that computes attention": "attn_config.attn_impl",
        "there are none beside the biases": "learned_pos_emb",
    },
    norm="layer",
    gated=False,
    clip_qkv=lambda f: f.clip_qkv,
    rope=None,
    rope_index=lambda f, i, layer_type: -1,
    attn_scale=lambda f, i: f.attn_scale or f.head_dim**-0.5,
    key_bias=_mpt_bias,
    adds_residual=("down",),
)


def _is_parallel(f: Hyperparameters) -> bool:
    if f.new and not f.parallel_attn:
        raise ValueError("new_decoder_architecture without parallel_attn is not computed by transformers; correct it")
    if f.n_norms not in (None, 1, 2) or (f.n_norms == 2 and f.parallel_attn and not f.new):
        raise ValueError(f"num_ln_in_parallel_attn = {f.n_norms} is not computed by transformers; correct it")
    return bool(f.parallel_attn)


def _two_norms(f: Hyperparameters) -> bool:
    """Whether the two branches of a parallel block have a norm each."""
    return bool(f.new and f.n_norms in (None, 2))


def _flag(name: str, default: bool) -> Key:
    return Key(name, "flag", default, null=False)


FALCON = Family(
    model_type="falcon",
    keys={
        "hidden_size": Key("d_model", "size"),
        "num_hidden_layers": Key("n_layers", "size"),
        "num_attention_heads": Key("n_heads", "size"),
        "num_kv_heads": Key("n_groups", "size", lambda f: f.n_heads),
        "vocab_size": Key("n_vocab", "size"),
        "ffn_hidden_size": Key("d_ff", "size", lambda f: 4 * f.d_model),
        "max_position_embeddings": Key("n_ctx", "size", 2048),
        "activation": Key("act", "word", "gelu"),
        "alibi": _flag("alibi", False),
        "bias": _flag("use_bias", False),
        "multi_query": _flag("multi_query", True),
        "new_decoder_architecture": _flag("new", False),
        "parallel_attn": _flag("parallel_attn", True),
        "num_ln_in_parallel_attn": Key("n_norms", "size", None, null=None),
        **_EPSILON,
        **_TIED,
    },
    aliases={"n_embed": "hidden_size"},
    derived={
        "n_kv_heads": lambda f: 1 if f.multi_query and not f.new else f.n_groups,
        "head_dim": lambda f: f.d_model // f.n_heads,
        "parallel": _is_parallel,
    },
    linears=(
        Linear(
            "self_attention.query_key_value", ("q", "k", "v"), bias=lambda f: f.use_bias, groups=lambda f: f.n_kv_heads
        ),
        Linear("self_attention.dense", ("o",), bias=lambda f: f.use_bias),
        Linear("mlp.dense_h_to_4h", ("up",), bias=lambda f: f.use_bias),
        Linear("mlp.dense_4h_to_h", ("down",), bias=lambda f: f.use_bias),
    ),
    norms=(
        NormAt("ln_attn", "norm1", when=_two_norms),
        NormAt("ln_mlp", "norm2", when=_two_norms),
        NormAt("input_layernorm", "norm1", when=lambda f: not _two_norms(f)),
        NormAt("post_attention_layernorm", "norm2", when=lambda f: not f.parallel),
    ),
    layer="h.{i}.",
    embed="word_embeddings",
    final_norm="ln_f",
    prefixes=("transformer.", ""),
    norm="layer",
    norm_bias=True,
    gated=False,
    parallel=lambda f: f.parallel,
    rope=RopeKeys(),
    rope_index=lambda f, i, layer_type: -1 if f.alibi else 0,
    key_bias=_falcon_bias,
)

FAMILIES = (BLOOM, MPT, FALCON)
