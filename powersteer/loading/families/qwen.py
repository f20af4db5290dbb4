"""Qwen: Llama with biases on queries, keys and values; from the third on norms of queries and keys in their place."""

from __future__ import annotations

from dataclasses import replace

from ..family import Key, Linear
from .llama import LLAMA
from .shared import (
    ATTENTION,
    ATTENTION_BIAS,
    HEAD_NORMS,
    IF_USED,
    MLP,
    NO_MLP_BIAS,
    PRE_NORMS,
    WINDOW_BY_LAYER,
    keys,
    kv_heads,
)

__all__ = ["FAMILIES", "QWEN2", "QWEN3"]

QWEN2 = replace(
    LLAMA,
    model_type="qwen2",
    keys={
        **keys(n_ctx=32768, eps=1e-6, tied=False),
        **kv_heads(32),
        **WINDOW_BY_LAYER,
    },
    linears=(
        Linear("self_attn.q_proj", ("q",), bias=True),
        Linear("self_attn.k_proj", ("k",), bias=True),
        Linear("self_attn.v_proj", ("v",), bias=True),
        Linear("self_attn.o_proj", ("o",)),
        *MLP,
    ),
    derived={"mlp_bias": lambda f: False, **IF_USED},
    only=NO_MLP_BIAS,
    sliding=lambda f, i: f.window is not None and i >= f.max_window_layers,
)

QWEN3 = replace(
    QWEN2,
    model_type="qwen3",
    keys={**QWEN2.keys, "head_dim": Key("head_dim", "size", 128), **ATTENTION_BIAS},
    linears=ATTENTION + MLP,
    norms=PRE_NORMS + HEAD_NORMS,
    only=NO_MLP_BIAS,
    qk_norm="head",
)

FAMILIES = (QWEN2, QWEN3)
