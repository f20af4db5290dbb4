"""Mixtures of experts."""

from __future__ import annotations

from dataclasses import replace

from ..family import Experts, Hyperparameters, Key, Linear, NormAt, RopeKeys
from .llama import GRANITE, LLAMA, MISTRAL
from .qwen import QWEN2, QWEN3
from .shared import (
    ATTENTION,
    ATTENTION_BIAS,
    DERIVED_HEADS,
    HEAD_DIM,
    MLP,
    NO_MLP_BIAS,
    PRE_NORMS,
    UNBIASED,
    keys,
    kv_heads,
    without,
)

__all__ = ["FAMILIES", "QWEN2_MOE"]

_QWEN_EXPERTS = Experts("mlp.gate", "mlp.experts.{e}")
_MIXTRAL_EXPERTS = Experts("block_sparse_moe.gate", "block_sparse_moe.experts.{e}", gate="w1", up="w3", down="w2")
_NO_SHARED_EXPERT = {"shared_expert_intermediate_size": (0, None)}
_ROUTER_TRAINING = {"of the router's training": "output_router_logits router_aux_loss_coef router_jitter_noise"}


def _expert_keys(number: int, top_k: int) -> dict[str, Key]:
    return {
        "num_experts": Key("n_experts", "size", number),
        "num_local_experts": Key("n_experts", "size", lambda f: f.n_experts),  # the same
        "num_experts_per_tok": Key("top_k", "size", top_k),
    }


_DENSE_LAYERS = {
    "decoder_sparse_step": Key("sparse_step", "size", 1),
    "mlp_only_layers": Key("dense_layers", "layers", lambda f: []),
}


def _is_sparse(f: Hyperparameters, i: int) -> bool:
    return i not in f.dense_layers and (i + 1) % f.sparse_step == 0


MIXTRAL = replace(
    MISTRAL,
    model_type="mixtral",
    keys={
        **MISTRAL.keys,
        "rms_norm_eps": Key("norm_eps", "number", 1e-5),
        "sliding_window": Key("window", "size", None, null=None),
        **_expert_keys(8, 2),
    },
    linears=ATTENTION,
    experts=_MIXTRAL_EXPERTS,
    derived={**UNBIASED, "d_expert": lambda f: f.d_ff, "norm_topk": lambda f: True},
    ignored=_ROUTER_TRAINING,
    rope=RopeKeys(theta=1_000_000.0),
)

QWEN3_MOE = replace(
    QWEN3,
    model_type="qwen3_moe",
    keys={
        **without(QWEN3.keys, "max_window_layers", "layer_types"),
        **kv_heads(4),
        **HEAD_DIM,
        **_expert_keys(128, 8),
        "norm_topk_prob": Key("norm_topk", "flag", False),
        "moe_intermediate_size": Key("d_expert", "size", 768),
        **_DENSE_LAYERS,
    },
    experts=replace(_QWEN_EXPERTS, when=_is_sparse),
    only={**NO_MLP_BIAS, "qkv_bias": (False, None), "use_qk_norm": (True, None), **_NO_SHARED_EXPERT},
    ignored=_ROUTER_TRAINING,
    sliding=lambda f, i: f.window is not None,
)

OLMOE = replace(
    LLAMA,
    model_type="olmoe",
    keys={
        **without(keys(n_ctx=4096, eps=1e-5, tied=False), "head_dim"),
        **ATTENTION_BIAS,
        **_expert_keys(64, 8),
        "norm_topk_prob": Key("norm_topk", "flag", False),
    },
    linears=ATTENTION,
    norms=(*PRE_NORMS, NormAt("self_attn.q_norm", "q_norm"), NormAt("self_attn.k_norm", "k_norm")),
    experts=_QWEN_EXPERTS,
    derived={"head_dim": DERIVED_HEADS["head_dim"], "d_expert": lambda f: f.d_ff},
    only={"clip_qkv": (None,)},
    ignored=_ROUTER_TRAINING,
    qk_norm="full",
)

# A shared expert beside the others, with a gate of its own
QWEN2_MOE = replace(
    QWEN2,
    model_type="qwen2_moe",
    keys={
        **QWEN2.keys,
        **kv_heads(16),
        **_expert_keys(60, 4),
        "sliding_window": Key("window", "count", 4096, null=None),
        "norm_topk_prob": Key("norm_topk", "flag", False),
        "moe_intermediate_size": Key("d_expert", "size", 1408),
        "shared_expert_intermediate_size": Key("d_shared", "size", 5632),
        "qkv_bias": Key("qkv_bias", "flag", True),
        **_DENSE_LAYERS,
    },
    linears=(
        Linear("self_attn.q_proj", ("q",), bias=lambda f: f.qkv_bias),
        Linear("self_attn.k_proj", ("k",), bias=lambda f: f.qkv_bias),
        Linear("self_attn.v_proj", ("v",), bias=lambda f: f.qkv_bias),
        Linear("self_attn.o_proj", ("o",)),
        *MLP,
    ),
    experts=replace(_QWEN_EXPERTS, when=_is_sparse, shared="mlp.shared_expert", shared_gate="mlp.shared_expert_gate"),
    derived={"mlp_bias": lambda f: False, "window": lambda f: (f.window or None) if f.use_window else None},
    ignored=_ROUTER_TRAINING,
    sliding=lambda f, i: f.window is not None and i % 2 == 0 and i < f.max_window_layers,
)

# The softmax over the chosen experts alone is the share of each among them
GRANITEMOE = replace(
    GRANITE,
    model_type="granitemoe",
    keys={
        **without(GRANITE.keys, "mlp_bias"),
        "num_local_experts": Key("n_experts", "size", 8),
        "num_experts_per_tok": Key("top_k", "size", 2),
    },
    linears=ATTENTION,
    experts=Experts(
        "block_sparse_moe.router.layer",
        "block_sparse_moe.experts.{e}",
        other_routers=("block_sparse_moe.router",),
        gate_up_stacks=("block_sparse_moe.input_linear.weight", "block_sparse_moe.experts.gate_up_proj"),
        down_stacks=("block_sparse_moe.output_linear.weight", "block_sparse_moe.experts.down_proj"),
        stacked=True,
    ),
    derived={"d_expert": lambda f: f.d_ff, "norm_topk": lambda f: True},
    only=NO_MLP_BIAS,
    ignored=_ROUTER_TRAINING,
)

PHIMOE = replace(
    LLAMA,
    model_type="phimoe",
    keys={
        **keys(n_ctx=131072, eps=1e-5, tied=False),
        **kv_heads(8),
        **ATTENTION_BIAS,
        "sliding_window": Key("window", "size", None, null=None),
        "num_local_experts": Key("n_experts", "size", 16),
        "num_experts_per_tok": Key("top_k", "size", 2),
        "router_jitter_noise": Key("route_jitter", "number", 0.01),
        "lm_head_bias": Key("head_bias", "flag", False),
    },
    linears=ATTENTION,
    experts=replace(_MIXTRAL_EXPERTS, other_routers=("mlp.router",)),
    derived={
        "d_expert": lambda f: f.d_ff,
        "norm_topk": lambda f: False,
        "route": lambda f: "sparsemixer",
    },
    only={**NO_MLP_BIAS, "num_experts_per_tok": (2,)},
    ignored={
        "of the router's training": "output_router_logits router_aux_loss_coef input_jitter_noise",
        "where the second of two equal scales begins": "original_max_position_embeddings",
    },
    head_bias=lambda f: f.head_bias,
    own_code=("modeling_phimoe.PhiMoEForCausalLM",),
    norm="layer",
    norm_bias=True,
    rope=RopeKeys(theta=1_000_000.0, kinds={"default": "default", "longrope": "longrope"}, mscales=True),
    sliding=lambda f, i: f.window is not None,
)

# The scores of a sink take part in the softmax of attention, router and experts have biases, and the experts an activation of
# their own: (up + 1) gate / (1 + exp(-alpha gate)), gate and up limited
GPT_OSS = replace(
    LLAMA,
    model_type="gpt_oss",
    keys={
        **keys(n_ctx=131072, eps=1e-5, tied=False),
        **kv_heads(8),
        "head_dim": Key("head_dim", "size", 64, null=lambda f: f.d_model // f.n_heads),
        "attention_bias": Key("attn_bias", "flag", True),
        "sliding_window": Key("window", "size", 128),
        "layer_types": Key("layer_types", "words", None, null=None),
        "num_local_experts": Key("n_experts", "size", 128),
        "num_experts_per_tok": Key("top_k", "size", 4),
        "swiglu_alpha": Key("act_alpha", "number", 1.702),
        "swiglu_limit": Key("act_limit", "number", 7.0),
    },
    linears=ATTENTION,
    experts=Experts(
        "mlp.router", "mlp.experts.{e}", other_routers=(), bias=True, stacked=True, transposed=True, alternate=True
    ),
    derived={"d_expert": lambda f: f.d_ff, "norm_topk": lambda f: True},
    only={"hidden_act": ("silu",), **NO_MLP_BIAS},
    ignored=_ROUTER_TRAINING,
    act="silu_clamped",
    act_constants=lambda f, stored: (f.act_alpha, f.act_limit),
    sinks="self_attn.sinks",
    rope=RopeKeys(
        theta=150_000.0,
        absent={
            "rope_type": "yarn",
            "factor": 32.0,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "truncate": False,
            "original_max_position_embeddings": 4096,
        },
    ),
    sliding=lambda f, i: i % 2 == 0,
)



def _has_rope(f: Hyperparameters) -> list[bool]:
    return [bool(one) for one in f.has_rope or [(i + 1) % f.no_rope_interval for i in range(f.n_layers)]]


def _layer_types(f: Hyperparameters) -> list[str]:
    if f.layer_types is not None:
        return list(f.layer_types)
    return ["chunked_attention" if rotates and f.chunk is not None else "full_attention" for rotates in f.has_rope]


def _mixture_layers(f: Hyperparameters) -> list[int]:
    return list(range(f.sparse_step - 1, f.n_layers, f.sparse_step)) if f.mixture_layers is None else f.mixture_layers


# Layers with rotary positions see their own chunk of the text and have norms of queries and keys, behind the rotation and
# without weights; those without see everything, and their queries a temperature. Shares are sigmoids, of the experts' inputs.
def _l2_norm(slot: str) -> NormAt:
    return NormAt("self_attn.qk_norm", slot, when=lambda f: f.use_qk_norm, of_layer=lambda f, i: bool(f.has_rope[i]), gain=False)


LLAMA4 = replace(
    LLAMA,
    model_type="llama4_text",
    keys={
        **keys(n_ctx=131072, eps=1e-5, tied=False),
        **kv_heads(8),
        "head_dim": Key("head_dim", "size", 128),
        **ATTENTION_BIAS,
        "intermediate_size": Key("d_expert", "size", 8192),
        "intermediate_size_mlp": Key("d_ff", "size", 16384),
        "num_local_experts": Key("n_experts", "size", 16),
        "num_experts_per_tok": Key("top_k", "size", 1),
        "moe_layers": Key("mixture_layers", "layers", None, null=None),
        "interleave_moe_layer_step": Key("sparse_step", "size", 1),
        "use_qk_norm": Key("use_qk_norm", "flag", True),
        "no_rope_layers": Key("has_rope", "flags", None, null=None),
        "no_rope_layer_interval": Key("no_rope_interval", "size", 4),
        "attention_chunk_size": Key("chunk", "size", 8192, null=None),
        "layer_types": Key("layer_types", "words", None, null=None),
        "attn_temperature_tuning": Key("tempers", "flag", True),
        "floor_scale": Key("temper_length", "size", 8192),
        "attn_scale": Key("temper_rate", "number", 0.1),
    },
    linears=(
        *ATTENTION,
        Linear("feed_forward.gate_proj", ("gate",)),
        Linear("feed_forward.up_proj", ("up",)),
        Linear("feed_forward.down_proj", ("down",)),
    ),
    norms=(*PRE_NORMS, _l2_norm("q_norm"), _l2_norm("k_norm")),
    experts=Experts(
        "feed_forward.router",
        "feed_forward.experts.{e}",
        when=lambda f, i: i in f.mixture_layers,
        shared="feed_forward.shared_expert",
        other_routers=(),
        gate_up_stacks=("feed_forward.experts.gate_up_proj",),
        down_stacks=("feed_forward.experts.down_proj",),
        stacked=True,
        transposed=True,
    ),
    derived={
        "has_rope": _has_rope,
        "layer_types": _layer_types,
        "mixture_layers": _mixture_layers,
        "d_shared": lambda f: f.d_expert,
        "norm_topk": lambda f: False,
        "route": lambda f: "sigmoid",
        "scale_input": lambda f: True,
    },
    only={},
    ignored=_ROUTER_TRAINING,
    qk_norm=lambda f: "head" if f.use_qk_norm else "none",
    qk_norm_last=True,
    rope=RopeKeys(theta=500_000.0),
    rope_style="interleaved",
    rope_index=lambda f, i, layer_type: 0 if f.has_rope[i] else -1,
    temper=lambda f, rotary: (f.temper_rate, f.temper_length, 1) if f.tempers else None,
    tempered=lambda f, i: not f.has_rope[i],
)

FAMILIES = (MIXTRAL, QWEN3_MOE, OLMOE, QWEN2_MOE, GRANITEMOE, PHIMOE, GPT_OSS, LLAMA4)
