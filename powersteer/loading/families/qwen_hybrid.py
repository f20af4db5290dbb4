"""Qwen's hybrids: in three of four layers the gated delta rule in the place of attention, in the others a gate on its heads."""

from __future__ import annotations

from dataclasses import replace

from ..family import Hyperparameters, Key, Linear, Mixer, NormAt, RopeKeys
from .llama import LLAMA
from .mixtures import QWEN2_MOE
from .shared import ATTENTION_BIAS, HEAD_NORMS, MLP, NO_MLP_BIAS, PRE_NORMS, keys, kv_heads, without

__all__ = ["FAMILIES", "QWEN3_5", "QWEN3_NEXT"]


def _layer_types(f: Hyperparameters) -> list[str]:
    if f.layer_types is not None:
        return list(f.layer_types)
    return ["linear_attention" if (i + 1) % f.interval else "full_attention" for i in range(f.n_layers)]


_KEYS = {
    **without(keys(n_ctx=32768, eps=1e-6, tied=False), "hidden_act"),
    "head_dim": Key("head_dim", "size", 256),
    **ATTENTION_BIAS,
    "linear_conv_kernel_dim": Key("conv_taps", "size", 4),
    "linear_key_head_dim": Key("state_k_dim", "size", 128),
    "linear_value_head_dim": Key("state_v_dim", "size", 128),
    "linear_num_key_heads": Key("state_k_heads", "size", 16),
    "linear_num_value_heads": Key("state_v_heads", "size", 32),
    "layer_types": Key("layer_types", "words", None, null=None),
    "full_attention_interval": Key("interval", "size", 4),
}
_DELTA = Mixer(
    "delta",
    linears=(
        Linear("linear_attn.in_proj_qkv", ("q", "k", "v")),
        Linear("linear_attn.in_proj_z", ("z",)),
        Linear("linear_attn.in_proj_b", ("b",)),
        Linear("linear_attn.in_proj_a", ("a",)),
        Linear("linear_attn.out_proj", ("o",)),
    ),
    norms=(NormAt("linear_attn.norm", "o_norm", "shared", one_plus=False),),
    conv="linear_attn.conv1d",
    log_rate="linear_attn.A_log",
    decay_bias="linear_attn.dt_bias",
)

QWEN3_5 = replace(
    LLAMA,
    model_type="qwen3_5_text",
    keys={**_KEYS, **kv_heads(4)},
    linears=(
        Linear("self_attn.q_proj", ("q", "z"), bias=lambda f: f.attn_bias, groups=lambda f: f.n_heads),
        Linear("self_attn.k_proj", ("k",), bias=lambda f: f.attn_bias),
        Linear("self_attn.v_proj", ("v",), bias=lambda f: f.attn_bias),
        Linear("self_attn.o_proj", ("o",), bias=lambda f: f.attn_bias),
        *MLP,
    ),
    mixers={"linear_attention": _DELTA},
    norms=PRE_NORMS + HEAD_NORMS,
    derived={"mlp_bias": lambda f: False, "layer_types": _layer_types, "act": lambda f: "silu"},
    only={**NO_MLP_BIAS, "hidden_act": ("silu",)},  # also the activation behind the convolution
    prefixes=("model.", "model.language_model.", ""),
    not_weights=r"mtp\..*|visual\..*|(.*\.)?rotary_emb\.inv_freq",
    norm_one_plus=True,
    qk_norm="head",
    rope=RopeKeys(partial=0.25),
)

# A mixture with a shared expert; queries, keys, values and gates of the delta rule stand beside each other for each key head
QWEN3_NEXT = replace(
    QWEN3_5,
    model_type="qwen3_next",
    keys={
        **_KEYS,
        **kv_heads(2),
        "num_experts": Key("n_experts", "size", 512),
        **{name: QWEN2_MOE.keys[name] for name in ("num_local_experts", "decoder_sparse_step", "mlp_only_layers")},
        "num_experts_per_tok": Key("top_k", "size", 10),
        "norm_topk_prob": Key("norm_topk", "flag", True),
        "moe_intermediate_size": Key("d_expert", "size", 512),
        "shared_expert_intermediate_size": Key("d_shared", "size", 512),
    },
    mixers={
        "linear_attention": replace(
            _DELTA,
            linears=(
                Linear("linear_attn.in_proj_qkvz", ("q", "k", "v", "z"), groups=lambda f: f.state_k_heads),
                Linear("linear_attn.in_proj_ba", ("b", "a"), groups=lambda f: f.state_k_heads),
                Linear("linear_attn.out_proj", ("o",)),
            ),
        )
    },
    experts=QWEN2_MOE.experts,
    ignored=QWEN2_MOE.ignored,
)

FAMILIES = (QWEN3_5, QWEN3_NEXT)
