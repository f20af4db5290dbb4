"""Architectures with other blocks than attention in some layers: Qwen's gated delta rule, and LFM's short convolution."""

from __future__ import annotations

from ..family import Hyperparameters, Key, Linear, Mixer, NormAt, RopeKeys
from .mixtures import SHARED_EXPERT, SHARED_KEYS, row_of_gate
from .shared import EXPERT_KEYS, FURTHER, HEAD_NORMS, MLP, PRE_NORMS, architecture, linear, stored

__all__ = ["ARCHITECTURES"]

# ---- Qwen ------------------------------------------------------------------------------------------------------------


def _recurrent(f: Hyperparameters) -> list[bool]:
    """Which layers have the delta rule; those behind the last have attention."""
    if f.recurrent is None:
        return [(i + 1) % f.interval != 0 for i in range(f.n_layers)]
    return list(f.recurrent[: f.n_layers])


def _v_dim(f: Hyperparameters) -> int:
    if f.inner_size % f.state_v_heads:
        raise ValueError(f"{f.inner_size} values (ssm.inner_size) are not those of {f.state_v_heads} heads (ssm.time_step_rank)")
    return int(f.inner_size // f.state_v_heads)


_KEYS = {
    **FURTHER,
    "attention.recurrent_layers": Key("recurrent", "flags", None),
    "full_attention_interval": Key("interval", "size", 4),
    "ssm.conv_kernel": Key("conv_taps", "size"),
    "ssm.state_size": Key("state_k_dim", "size"),
    "ssm.group_count": Key("state_k_heads", "size"),
    "ssm.time_step_rank": Key("state_v_heads", "size"),
    "ssm.inner_size": Key("inner_size", "size"),
}
_DERIVED = {
    "recurrent": _recurrent,
    "layer_types": lambda f: ["linear_attention" if one else "full_attention" for one in f.recurrent],
    "state_v_dim": _v_dim,
}
_NORMS = (NormAt("attn_norm", "norm1"), NormAt("post_attention_norm", "norm2"), *HEAD_NORMS)
_ATTENTION = (
    linear("attn_q", "q", "z", groups=lambda f: f.n_heads),
    linear("attn_k", "k"),
    linear("attn_v", "v"),
    linear("attn_output", "o"),
)


def _delta(*gates: Linear) -> Mixer:
    return Mixer(
        "delta",
        linears=(
            linear("ssm_in", "q", "k", "v", "z", groups=lambda f: f.state_k_heads, when=stored("ssm_in.weight")),
            linear("attn_qkv", "q", "k", "v", when=stored("attn_qkv.weight")),
            linear("attn_gate", "z", when=stored("attn_gate.weight")),
            *gates,
            linear("ssm_out", "o"),
        ),
        norms=(NormAt("ssm_norm", "o_norm", "shared"),),
        conv="ssm_conv1d",
        minus_rate="ssm_a",
        decay_bias="ssm_dt.bias",
        squeezed=True,
    )


# ---- LFM -------------------------------------------------------------------------------------------------------------


def _n_kv_heads(f: Hyperparameters) -> int:
    found = sorted({n for n in f.counts if n})
    if len(found) != 1:
        raise ValueError(f"attention.head_count_kv = {f.counts} where layers have 0 or one other number")
    return int(found[0])


ARCHITECTURES = (
    architecture(
        "qwen35",
        "qwen3_5_text",
        norms=_NORMS,
        keys=_KEYS,
        derived={**_DERIVED, "state_tiled": lambda f: True},
        linears=_ATTENTION + MLP,
        mixers={"linear_attention": _delta(linear("ssm_beta", "b"), linear("ssm_alpha", "a"))},
        rope=RopeKeys(partial=1.0),
        rest={"sections": True},
    ),
    architecture(
        "qwen3next",
        "qwen3_next",
        norms=_NORMS,
        keys={**_KEYS, **EXPERT_KEYS, **SHARED_KEYS},
        derived={**_DERIVED, "norm_topk": lambda f: True},
        linears=_ATTENTION + MLP,
        mixers={"linear_attention": _delta(linear("ssm_ba", "b", "a", groups=lambda f: f.state_k_heads))},
        experts=SHARED_EXPERT,
        rope=RopeKeys(partial=1.0),
        rest={"arrange": row_of_gate},
    ),
    architecture(
        "lfm2",
        "lfm2",
        norms=PRE_NORMS + HEAD_NORMS,
        keys={"attention.head_count_kv": Key("counts", "counts"), "shortconv.l_cache": Key("conv_taps", "size")},
        derived={
            "n_kv_heads": _n_kv_heads,
            "layer_types": lambda f: ["full_attention" if n else "conv" for n in f.counts],
        },
        mixers={
            "conv": Mixer(
                "conv",
                linears=(linear("shortconv.in_proj", "k", "q", "v"), linear("shortconv.out_proj", "o")),
                conv="shortconv.conv",
                squeezed=True,
            )
        },
        final_norm="token_embd_norm",
        rest={"theta": 1_000_000.0},
    ),
)
