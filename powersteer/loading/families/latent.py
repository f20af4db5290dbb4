"""Latent attention: DeepSeek 3, and what has taken its attention over."""

from __future__ import annotations

from dataclasses import replace

from ..family import Experts, Hyperparameters, Key, Linear, NormAt, RopeKeys
from .llama import LLAMA
from .shared import ATTENTION_BIAS, MLP, MLP_BIAS, NO_MLP_BIAS, PRE_NORMS, keys, without

__all__ = ["FAMILIES"]


def _sizes(q_rank: int, kv_rank: int, nope: int, rope: int, value: int | None) -> dict[str, Key]:
    return {
        "q_lora_rank": Key("q_rank", "size", q_rank, null=0),
        "kv_lora_rank": Key("kv_rank", "size", kv_rank),
        "qk_nope_head_dim": Key("nope_head", "size", nope),
        "qk_rope_head_dim": Key("rope_head", "size", rope),
        "v_head_dim": Key("v_dim", "size", value or _even_share, null=_even_share),
    }


def _even_share(f: Hyperparameters) -> int:
    return int(f.d_model // f.n_heads)


_ATTENTION = (
    Linear("self_attn.q_a_proj", ("q_a",), bias=lambda f: f.attn_bias, when=lambda f: f.q_rank > 0),
    Linear("self_attn.q_b_proj", ("q",), when=lambda f: f.q_rank > 0),
    Linear("self_attn.q_proj", ("q",), when=lambda f: f.q_rank == 0),
    Linear("self_attn.kv_a_proj_with_mqa", ("k",), bias=lambda f: f.attn_bias),
    Linear("self_attn.kv_b_proj", ("kv_b",)),
    Linear("self_attn.o_proj", ("o",), bias=lambda f: f.attn_bias),
)
_NORMS = (
    *PRE_NORMS,
    NormAt("self_attn.q_a_layernorm", "q_a_norm", when=lambda f: f.q_rank > 0),
    NormAt("self_attn.kv_a_layernorm", "kv_norm"),
)
_HEAD_DIM = {"head_dim": lambda f: f.nope_head + f.rope_head, "latent_eps": lambda f: 1e-6}
_NO_HEAD_DIM = {"made of qk_nope_head_dim and qk_rope_head_dim": "head_dim"}
_EXPERTS = Experts(
    "mlp.gate", "mlp.experts.{e}", correction="mlp.gate.e_score_correction_bias", shared="mlp.shared_experts"
)
_SIGMOIDS = {
    "d_shared": lambda f: f.n_shared * f.d_expert,
    "route": lambda f: "sigmoid",
    "mlp_bias": lambda f: False,
}


def _expert_keys(number: int, width: int, scale: float, groups: int, top_groups: int, top_k: int) -> dict[str, Key]:
    return {
        "n_routed_experts": Key("n_experts", "size", number),
        "n_shared_experts": Key("n_shared", "size", 1),
        "moe_intermediate_size": Key("d_expert", "size", width),
        "routed_scaling_factor": Key("route_scale", "number", scale),
        "n_group": Key("n_groups", "size", groups),
        "topk_group": Key("top_groups", "size", top_groups),
        "num_experts_per_tok": Key("top_k", "size", top_k),
        "norm_topk_prob": Key("norm_topk", "flag", True),
        "rope_interleave": Key("rope_interleaved", "flag", True),
    }


DEEPSEEK_V3 = replace(
    LLAMA,
    model_type="deepseek_v3",
    keys={
        **without(keys(n_ctx=4096, eps=1e-6, tied=False), "head_dim"),
        "num_key_value_heads": Key("n_kv_heads", "size", 128, null=lambda f: f.n_heads),
        **ATTENTION_BIAS,
        **_sizes(1536, 512, 128, 64, 128),
        **_expert_keys(256, 2048, 2.5, 8, 4, 8),
        "first_k_dense_replace": Key("first_sparse", "count", 3),
        "num_mtp_layers": Key("n_further", "count", 1),
    },
    linears=_ATTENTION + MLP,
    norms=_NORMS,
    experts=replace(_EXPERTS, when=lambda f, i: i >= f.first_sparse),
    derived={**_HEAD_DIM, **_SIGMOIDS},
    only={**NO_MLP_BIAS, "scoring_func": ("sigmoid",), "topk_method": ("noaux_tc",), "moe_layer_freq": (1,)},
    ignored={**_NO_HEAD_DIM, "of the router's training": "output_router_logits"},
    # the layers behind the last, which predict further tokens
    not_weights=lambda f: r"layers\.(" + "|".join(str(f.n_layers + i) for i in range(f.n_further)) + r")\..*|.*rotary_emb\.inv_freq",
    rope=RopeKeys(scales_scores=True),
    rope_style=lambda f: "interleaved" if f.rope_interleaved else "half",
)

GLM4_MOE_LITE = replace(
    DEEPSEEK_V3,
    model_type="glm4_moe_lite",
    keys={
        **without(keys(n_ctx=202752, eps=1e-5, tied=False), "head_dim"),
        "num_key_value_heads": Key("n_kv_heads", "size", 20),
        **ATTENTION_BIAS,
        **_sizes(768, 512, 192, 64, 256),
        **_expert_keys(64, 1536, 1.8, 1, 1, 4),
        "mlp_layer_types": Key("mlp_types", "words", None, null=None),
    },
    experts=replace(_EXPERTS, when=lambda f, i: f.mlp_types[i] == "sparse"),
    derived={
        **DEEPSEEK_V3.derived,
        "mlp_types": lambda f: ["dense", *["sparse"] * (f.n_layers - 1)] if f.mlp_types is None else f.mlp_types,
    },
    ignored={"of the router's training": "output_router_logits"},
    only={**DEEPSEEK_V3.only, "first_k_dense_replace": (1,)},
    not_weights=lambda f: rf"layers\.{f.n_layers}\..*|.*rotary_emb\.inv_freq",  # one layer predicts further tokens
)

MINICPM3 = replace(
    LLAMA,
    model_type="minicpm3",
    keys={
        **without(keys(n_ctx=32768, eps=1e-5, tied=True), "head_dim"),
        "num_key_value_heads": Key("n_kv_heads", "size", 40, null=lambda f: f.n_heads),
        **ATTENTION_BIAS,
        **MLP_BIAS,
        **_sizes(768, 256, 64, 32, None),
        "scale_emb": Key("embedding_multiplier", "number", 12),
        "scale_depth": Key("scale_depth", "number", 1.4, null=lambda f: f.n_layers**0.5),
        "dim_model_base": Key("dim_model_base", "size", 256, null=lambda f: f.d_model),
    },
    linears=_ATTENTION + MLP,
    norms=_NORMS,
    derived=_HEAD_DIM,
    only={},
    ignored=_NO_HEAD_DIM,
    rope=RopeKeys(scales_scores=True),
    embed_scale=lambda f: f.embedding_multiplier,
    resid_scale=lambda f: f.scale_depth / f.n_layers**0.5,
    logit_scale=lambda f: f.dim_model_base / f.d_model,
)

FAMILIES = (DEEPSEEK_V3, GLM4_MOE_LITE, MINICPM3)
