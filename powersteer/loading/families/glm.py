"""GLM: half of each head turns, in neighbouring pairs; gate and up are one projection; GLM 4 of 2025 adds norms after
attention and MLP."""

from __future__ import annotations

from dataclasses import replace

from ..family import Key, Linear, NormAt, RopeKeys
from .llama import LLAMA
from .shared import ATTENTION, NO_MLP_BIAS, keys, kv_heads

__all__ = ["FAMILIES"]

GLM = replace(
    LLAMA,
    model_type="glm",
    keys={
        **keys(n_ctx=131072, eps=1.5625e-07, tied=False),
        **kv_heads(2),
        "head_dim": Key("head_dim", "size", 128),
        "attention_bias": Key("attn_bias", "flag", True),
    },
    linears=(
        *ATTENTION[:3],
        Linear("self_attn.o_proj", ("o",)),
        Linear("mlp.gate_up_proj", ("gate", "up")),
        Linear("mlp.down_proj", ("down",)),
    ),
    only=NO_MLP_BIAS,
    rope=RopeKeys(partial=0.5),
    rope_style="interleaved",
)

GLM4 = replace(
    GLM,
    model_type="glm4",
    norms=(
        NormAt("input_layernorm", "norm1"),
        NormAt("post_self_attn_layernorm", "post1"),
        NormAt("post_attention_layernorm", "norm2"),
        NormAt("post_mlp_layernorm", "post2"),
    ),
)

FAMILIES = (GLM, GLM4)
