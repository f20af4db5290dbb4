"""The families: one table each. Every value is checked against transformers by tests/test_loading.py.

Sizes must be in the config; other defaults are those of transformers' config classes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .family import Experts, Family, Hyperparameters, Key, Linear, NormAt, RopeKeys

__all__ = ["FAMILIES"]

_SIZES = {
    "hidden_size": Key("d_model", "size"),
    "num_hidden_layers": Key("n_layers", "size"),
    "num_attention_heads": Key("n_heads", "size"),
    "intermediate_size": Key("d_ff", "size"),
    "vocab_size": Key("n_vocab", "size"),
}


def _kv_heads(default: int) -> dict[str, Key]:
    return {"num_key_value_heads": Key("n_kv_heads", "size", default, null=lambda f: f.n_heads)}


_KV_HEADS = {"num_key_value_heads": Key("n_kv_heads", "size", lambda f: f.n_heads)}
_HEAD_DIM = {"head_dim": Key("head_dim", "size", lambda f: f.d_model // f.n_heads)}
_DERIVED_HEADS = {"n_kv_heads": lambda f: f.n_heads, "head_dim": lambda f: f.d_model // f.n_heads}
_ATTENTION_BIAS = {"attention_bias": Key("attn_bias", "flag", False)}
_MLP_BIAS = {"mlp_bias": Key("mlp_bias", "flag", False)}
_WINDOW_BY_LAYER = {
    "use_sliding_window": Key("use_window", "flag", False),
    "sliding_window": Key("window", "size", 4096, null=None),
    "max_window_layers": Key("max_window_layers", "count", 28),
    "layer_types": Key("layer_types", "words", None, null=None),
}
_NO_ATTENTION_BIAS = {"attention_bias": (False, None)}
_NO_MLP_BIAS = {"mlp_bias": (False, None)}
_CAUSAL = {"use_bidirectional_attention": (None, False)}


def _keys(n_ctx: int, eps: float, tied: bool, act: str = "silu", act_key: str = "hidden_act") -> dict[str, Key]:
    """The keys nearly all families share, with their defaults."""
    return {
        **_SIZES,
        **_KV_HEADS,
        **_HEAD_DIM,
        act_key: Key("act", "word", act),
        "max_position_embeddings": Key("n_ctx", "size", n_ctx),
        "rms_norm_eps": Key("norm_eps", "number", eps),
        "tie_word_embeddings": Key("tied", "flag", tied),
    }


def _without(keys: dict[str, Key], *names: str) -> dict[str, Key]:
    return {name: key for name, key in keys.items() if name not in names}


# ---- Llama and its kin: RMSNorm before attention and MLP, rotary, gated ----------------------------------------------

_ATTENTION = (
    Linear("self_attn.q_proj", ("q",), bias=lambda f: f.attn_bias),
    Linear("self_attn.k_proj", ("k",), bias=lambda f: f.attn_bias),
    Linear("self_attn.v_proj", ("v",), bias=lambda f: f.attn_bias),
    Linear("self_attn.o_proj", ("o",), bias=lambda f: f.attn_bias),
)
_MLP = (
    Linear("mlp.gate_proj", ("gate",), bias=lambda f: f.mlp_bias),
    Linear("mlp.up_proj", ("up",), bias=lambda f: f.mlp_bias),
    Linear("mlp.down_proj", ("down",), bias=lambda f: f.mlp_bias),
)
_PRE_NORMS = (NormAt("input_layernorm", "norm1"), NormAt("post_attention_layernorm", "norm2"))
_HEAD_NORMS = (NormAt("self_attn.q_norm", "q_norm", "shared"), NormAt("self_attn.k_norm", "k_norm", "shared"))

LLAMA = Family(
    model_type="llama",
    keys={**_keys(n_ctx=2048, eps=1e-6, tied=False), **_ATTENTION_BIAS, **_MLP_BIAS},
    linears=_ATTENTION + _MLP,
    norms=_PRE_NORMS,
    layer="layers.{i}.",
    embed="embed_tokens",
    final_norm="norm",
    only={"rope_interleaved": (False, None)},
)

_UNBIASED = {"attn_bias": lambda f: False, "mlp_bias": lambda f: False}
_IF_USED = {"window": lambda f: f.window if f.use_window else None}

MISTRAL = replace(
    LLAMA,
    model_type="mistral",
    keys={
        **_keys(n_ctx=131072, eps=1e-6, tied=False),
        **_kv_heads(8),
        "sliding_window": Key("window", "size", 4096, null=None),
    },
    derived=_UNBIASED,
    only={**_NO_ATTENTION_BIAS, **_NO_MLP_BIAS},
    sliding=lambda f, i: f.window is not None,
)

QWEN2 = replace(
    LLAMA,
    model_type="qwen2",
    keys={
        **_keys(n_ctx=32768, eps=1e-6, tied=False),
        **_kv_heads(32),
        **_WINDOW_BY_LAYER,
    },
    linears=(
        Linear("self_attn.q_proj", ("q",), bias=True),
        Linear("self_attn.k_proj", ("k",), bias=True),
        Linear("self_attn.v_proj", ("v",), bias=True),
        Linear("self_attn.o_proj", ("o",)),
        *_MLP,
    ),
    derived={"mlp_bias": lambda f: False, **_IF_USED},
    only=_NO_MLP_BIAS,
    sliding=lambda f, i: f.window is not None and i >= f.max_window_layers,
)

QWEN3 = replace(
    QWEN2,
    model_type="qwen3",
    keys={**QWEN2.keys, "head_dim": Key("head_dim", "size", 128), **_ATTENTION_BIAS},
    linears=_ATTENTION + _MLP,
    norms=_PRE_NORMS + _HEAD_NORMS,
    only=_NO_MLP_BIAS,
    qk_norm="head",
)

SMOLLM3 = replace(
    LLAMA,
    model_type="smollm3",
    keys={
        **_keys(n_ctx=32768, eps=1e-6, tied=True),
        **_kv_heads(4),
        **_ATTENTION_BIAS,
        **_MLP_BIAS,
        **_without(_WINDOW_BY_LAYER, "max_window_layers"),
        "sliding_window": Key("window", "size", None, null=None),
        "no_rope_layer_interval": Key("no_rope_interval", "size", 4),
        "no_rope_layers": Key("has_rope", "flags", None, null=None),
    },
    derived=_IF_USED,
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

OLMO2 = replace(
    LLAMA,
    model_type="olmo2",
    keys={**_keys(n_ctx=2048, eps=1e-5, tied=False), **_ATTENTION_BIAS},
    norms=(
        NormAt("post_attention_layernorm", "post1"),
        NormAt("post_feedforward_layernorm", "post2"),
        NormAt("self_attn.q_norm", "q_norm"),
        NormAt("self_attn.k_norm", "k_norm"),
    ),
    derived={"mlp_bias": lambda f: False},
    only=_NO_MLP_BIAS,
    qk_norm="full",
)

PHI3 = replace(
    LLAMA,
    model_type="phi3",
    keys={
        **_keys(n_ctx=4096, eps=1e-5, tied=False),
        "original_max_position_embeddings": Key("original_positions", "size", 4096),
        "sliding_window": Key("window", "size", None, null=None),
    },
    linears=(
        Linear("self_attn.qkv_proj", ("q", "k", "v")),
        Linear("self_attn.o_proj", ("o",)),
        Linear("mlp.gate_up_proj", ("gate", "up")),
        Linear("mlp.down_proj", ("down",)),
    ),
    only={**_NO_ATTENTION_BIAS, **_NO_MLP_BIAS, "lm_head_bias": (False, None)},
    rope=RopeKeys(
        partial=1.0,
        round_up=True,
        kinds={"default": "default", "longrope": "longrope", "su": "longrope", "yarn": "longrope"},
    ),
    sliding=lambda f, i: f.window is not None,
)

# ---- mixtures of experts ---------------------------------------------------------------------------------------------

_QWEN_EXPERTS = Experts("mlp.gate", "mlp.experts.{e}", gate="gate_proj", up="up_proj", down="down_proj")
_MIXTRAL_EXPERTS = Experts("block_sparse_moe.gate", "block_sparse_moe.experts.{e}", gate="w1", up="w3", down="w2")
_NO_SHARED_EXPERT = {"shared_expert_intermediate_size": (0, None)}
_ROUTER_TRAINING = {"of the router's training": "output_router_logits router_aux_loss_coef router_jitter_noise"}


def _expert_keys(number: int, top_k: int) -> dict[str, Key]:
    return {
        "num_experts": Key("n_experts", "size", number),
        "num_local_experts": Key("n_experts", "size", lambda f: f.n_experts),  # the same
        "num_experts_per_tok": Key("top_k", "size", top_k),
    }


MIXTRAL = replace(
    MISTRAL,
    model_type="mixtral",
    keys={
        **MISTRAL.keys,
        "rms_norm_eps": Key("norm_eps", "number", 1e-5),
        "sliding_window": Key("window", "size", None, null=None),
        **_expert_keys(8, 2),
    },
    linears=_ATTENTION,
    experts=_MIXTRAL_EXPERTS,
    derived={**_UNBIASED, "d_expert": lambda f: f.d_ff, "norm_topk": lambda f: True},
    ignored=_ROUTER_TRAINING,
    rope=RopeKeys(theta=1_000_000.0),
)

QWEN3_MOE = replace(
    QWEN3,
    model_type="qwen3_moe",
    keys={
        **_without(dict(QWEN3.keys), "max_window_layers", "layer_types"),
        **_kv_heads(4),
        **_HEAD_DIM,
        **_expert_keys(128, 8),
        "norm_topk_prob": Key("norm_topk", "flag", False),
        "moe_intermediate_size": Key("d_expert", "size", 768),
        "decoder_sparse_step": Key("sparse_step", "size", 1),
        "mlp_only_layers": Key("dense_layers", "layers", lambda f: []),
    },
    experts=replace(_QWEN_EXPERTS, when=lambda f, i: i not in f.dense_layers and (i + 1) % f.sparse_step == 0),
    only={**_NO_MLP_BIAS, "qkv_bias": (False, None), "use_qk_norm": (True, None), **_NO_SHARED_EXPERT},
    ignored=_ROUTER_TRAINING,
    sliding=lambda f, i: f.window is not None,
)

OLMOE = replace(
    LLAMA,
    model_type="olmoe",
    keys={
        **_without(_keys(n_ctx=4096, eps=1e-5, tied=False), "head_dim"),
        **_ATTENTION_BIAS,
        **_expert_keys(64, 8),
        "norm_topk_prob": Key("norm_topk", "flag", False),
    },
    linears=_ATTENTION,
    norms=(*_PRE_NORMS, NormAt("self_attn.q_norm", "q_norm"), NormAt("self_attn.k_norm", "k_norm")),
    experts=_QWEN_EXPERTS,
    derived={"head_dim": _DERIVED_HEADS["head_dim"], "d_expert": lambda f: f.d_ff},
    only={"clip_qkv": (None,)},
    ignored=_ROUTER_TRAINING,
    qk_norm="full",
)

# ---- Gemma: gains around 1, scaled embedding, tanh GELU, from the second on norms after the sub-layers, too ----------

_SANDWICH_NORMS = (
    NormAt("input_layernorm", "norm1"),
    NormAt("post_attention_layernorm", "post1"),
    NormAt("pre_feedforward_layernorm", "norm2"),
    NormAt("post_feedforward_layernorm", "post2"),
)
_GEMMA_ACT = ("gelu_pytorch_tanh", None)


def _gemma_keys(n_ctx: int, act_key: str, n_kv_heads: int) -> dict[str, Key]:
    return {
        **_keys(n_ctx=n_ctx, eps=1e-6, tied=True, act="gelu_pytorch_tanh", act_key=act_key),
        "num_key_value_heads": Key("n_kv_heads", "size", n_kv_heads),
        "head_dim": Key("head_dim", "size", 256),
        **_ATTENTION_BIAS,
    }


GEMMA = replace(
    LLAMA,
    model_type="gemma",
    keys=_gemma_keys(8192, "hidden_act", 16),
    # the first configs say "gelu" and mean its tanh form, and transformers reads them so
    derived={"mlp_bias": lambda f: False, "act": lambda f: "gelu_pytorch_tanh"},
    only={"hidden_act": ("gelu", "gelu_pytorch_tanh"), "hidden_activation": _GEMMA_ACT, **_NO_MLP_BIAS, **_CAUSAL},
    norm_one_plus=True,
    embed_scale=lambda f: float(np.float32(f.d_model**0.5)),  # a float32 buffer in transformers
)

GEMMA2 = replace(
    GEMMA,
    model_type="gemma2",
    keys={
        **_gemma_keys(8192, "hidden_activation", 4),
        "query_pre_attn_scalar": Key("query_scalar", "number", 256),
        "sliding_window": Key("window", "size", 4096, null=None),
        "layer_types": Key("layer_types", "words", None, null=None),
        "attn_logit_softcapping": Key("attn_softcap", "number", 50.0, null=None),
        "final_logit_softcapping": Key("logit_softcap", "number", 30.0, null=None),
    },
    norms=_SANDWICH_NORMS,
    derived={"mlp_bias": lambda f: False},
    only={"hidden_act": _GEMMA_ACT, **_NO_MLP_BIAS, **_CAUSAL},
    sliding=lambda f, i: i % 2 == 0,
    attn_scale=lambda f, i: f.query_scalar**-0.5,
    attn_softcap=lambda f: f.attn_softcap,
    logit_softcap=lambda f: f.logit_softcap,
)

GEMMA3 = replace(
    GEMMA2,
    model_type="gemma3_text",
    keys={
        **_without(dict(GEMMA2.keys), "attn_logit_softcapping"),
        "max_position_embeddings": Key("n_ctx", "size", 131072),
        "final_logit_softcapping": Key("logit_softcap", "number", None, null=None),
        "sliding_window_pattern": Key("pattern", "size", 6),
    },
    norms=_SANDWICH_NORMS + _HEAD_NORMS,
    ignored={
        "left from the second Gemma, applied by nothing": "attn_logit_softcapping",
        "a copy of sliding_window_pattern": "_sliding_window_pattern",
    },
    qk_norm="head",
    rope=RopeKeys(
        by_type={
            "full_attention": ("rope_theta", 1_000_000.0),
            "sliding_attention": ("rope_local_base_freq", 10_000.0),
        }
    ),
    rope_index=lambda f, i, layer_type: 0 if layer_type == "full_attention" else 1,
    sliding=lambda f, i: (i + 1) % f.pattern != 0,
    attn_softcap=lambda f: None,
)

# ---- LayerNorm families ----------------------------------------------------------------------------------------------

_LAYER_NORM_EPS = {"layer_norm_eps": Key("norm_eps", "number", 1e-5)}

GPT2 = Family(
    model_type="gpt2",
    keys={
        "n_embd": Key("d_model", "size"),
        "n_layer": Key("n_layers", "size"),
        "n_head": Key("n_heads", "size"),
        "vocab_size": Key("n_vocab", "size"),
        "n_inner": Key("d_ff", "size", lambda f: 4 * f.d_model),
        "n_positions": Key("n_ctx", "size", 1024),
        "activation_function": Key("act", "word", "gelu_new"),
        "layer_norm_epsilon": Key("norm_eps", "number", 1e-5),
        "scale_attn_weights": Key("scale_attn", "flag", True),
        "scale_attn_by_inverse_layer_idx": Key("scale_by_layer", "flag", False),
        "tie_word_embeddings": Key("tied", "flag", True),
    },
    derived=_DERIVED_HEADS,
    linears=(
        Linear("attn.c_attn", ("q", "k", "v"), bias=True, transposed=True),
        Linear("attn.c_proj", ("o",), bias=True, transposed=True),
        Linear("mlp.c_fc", ("up",), bias=True, transposed=True),
        Linear("mlp.c_proj", ("down",), bias=True, transposed=True),
    ),
    norms=(NormAt("ln_1", "norm1"), NormAt("ln_2", "norm2")),
    layer="h.{i}.",
    embed="wte",
    pos_embed="wpe",
    final_norm="ln_f",
    prefixes=("transformer.", ""),
    not_weights=r"h\.\d+\.attn\.(bias|masked_bias)",  # the causal mask
    ignored={
        "order of two products, the same in exact arithmetic": "reorder_and_upcast_attn",
        "another head than the language model's": (
            "summary_type summary_use_proj summary_activation summary_proj_to_labels summary_first_dropout"
        ),
    },
    norm="layer",
    norm_bias=True,
    gated=False,
    rope=None,
    rope_index=lambda f, i, layer_type: -1,
    attn_scale=lambda f, i: (f.head_dim**-0.5 if f.scale_attn else 1.0) / (i + 1 if f.scale_by_layer else 1),
)

GPT_NEOX = Family(
    model_type="gpt_neox",
    keys={
        **_SIZES,
        **_ATTENTION_BIAS,
        **_LAYER_NORM_EPS,
        "attention_bias": Key("attn_bias", "flag", True),
        "hidden_act": Key("act", "word", "gelu"),
        "max_position_embeddings": Key("n_ctx", "size", 2048),
        "tie_word_embeddings": Key("tied", "flag", False),
        "use_parallel_residual": Key("parallel", "flag", True),
    },
    derived=_DERIVED_HEADS,
    linears=(
        Linear("attention.query_key_value", ("q", "k", "v"), bias=lambda f: f.attn_bias, layout="heads"),
        Linear("attention.dense", ("o",), bias=lambda f: f.attn_bias),
        Linear("mlp.dense_h_to_4h", ("up",), bias=True),
        Linear("mlp.dense_4h_to_h", ("down",), bias=True),
    ),
    norms=_PRE_NORMS,
    layer="layers.{i}.",
    embed="embed_in",
    final_norm="final_layer_norm",
    head=("lm_head", "embed_out"),
    prefixes=("gpt_neox.", ""),
    not_weights=r"layers\.\d+\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)",
    norm="layer",
    norm_bias=True,
    gated=False,
    parallel=lambda f: f.parallel,
    rope=RopeKeys(theta_key="rotary_emb_base", partial=0.25, partial_key="rotary_pct", round_up=True),
)

PHI = Family(
    model_type="phi",
    keys={
        **_SIZES,
        **_KV_HEADS,
        **_HEAD_DIM,
        **_LAYER_NORM_EPS,
        "hidden_act": Key("act", "word", "gelu_new"),
        "max_position_embeddings": Key("n_ctx", "size", 2048),
        "tie_word_embeddings": Key("tied", "flag", False),
        "qk_layernorm": Key("qk_layernorm", "flag", False),
    },
    linears=(
        Linear("self_attn.q_proj", ("q",), bias=True),
        Linear("self_attn.k_proj", ("k",), bias=True),
        Linear("self_attn.v_proj", ("v",), bias=True),
        Linear("self_attn.dense", ("o",), bias=True),
        Linear("mlp.fc1", ("up",), bias=True),
        Linear("mlp.fc2", ("down",), bias=True),
    ),
    norms=(
        NormAt("input_layernorm", "norm1"),
        NormAt("self_attn.q_layernorm", "q_norm", "shared", when=lambda f: f.qk_layernorm),
        NormAt("self_attn.k_layernorm", "k_norm", "shared", when=lambda f: f.qk_layernorm),
    ),
    layer="layers.{i}.",
    embed="embed_tokens",
    final_norm="final_layernorm",
    head_bias=True,
    norm="layer",
    norm_bias=True,
    qk_norm=lambda f: "head" if f.qk_layernorm else "none",
    gated=False,
    parallel=True,
    rope=RopeKeys(partial=0.5),
)

STARCODER2 = Family(
    model_type="starcoder2",
    keys={
        **_SIZES,
        "num_key_value_heads": Key("n_kv_heads", "size", 2),
        **_HEAD_DIM,
        "hidden_act": Key("act", "word", "gelu_pytorch_tanh"),
        "max_position_embeddings": Key("n_ctx", "size", 4096),
        "norm_epsilon": Key("norm_eps", "number", 1e-5),
        "use_bias": Key("use_bias", "flag", True),
        "sliding_window": Key("window", "size", None, null=None),
        "tie_word_embeddings": Key("tied", "flag", True),
    },
    linears=(
        Linear("self_attn.q_proj", ("q",), bias=lambda f: f.use_bias),
        Linear("self_attn.k_proj", ("k",), bias=lambda f: f.use_bias),
        Linear("self_attn.v_proj", ("v",), bias=lambda f: f.use_bias),
        Linear("self_attn.o_proj", ("o",), bias=lambda f: f.use_bias),
        Linear("mlp.c_fc", ("up",), bias=lambda f: f.use_bias),
        Linear("mlp.c_proj", ("down",), bias=lambda f: f.use_bias),
    ),
    norms=_PRE_NORMS,
    layer="layers.{i}.",
    embed="embed_tokens",
    final_norm="norm",
    only={"mlp_type": ("default",), "norm_type": ("layer_norm",), "scale_attn_weights": (True,)},
    ignored={"of another code: their values differ from what is computed": "activation_function layer_norm_epsilon"},
    norm="layer",
    norm_bias=True,
    gated=False,
    sliding=lambda f, i: f.window is not None,
)

STABLELM = Family(
    model_type="stablelm",
    keys={
        **_SIZES,
        **_kv_heads(32),
        **_LAYER_NORM_EPS,
        "hidden_act": Key("act", "word", "silu"),
        "max_position_embeddings": Key("n_ctx", "size", 4096),
        "tie_word_embeddings": Key("tied", "flag", False),
        "use_qkv_bias": Key("qkv_bias", "flag", False),
        "qk_layernorm": Key("qk_layernorm", "flag", False),
        "use_parallel_residual": Key("parallel", "flag", False),
    },
    derived={"head_dim": _DERIVED_HEADS["head_dim"], "mlp_bias": lambda f: False},
    linears=(
        Linear("self_attn.q_proj", ("q",), bias=lambda f: f.qkv_bias),
        Linear("self_attn.k_proj", ("k",), bias=lambda f: f.qkv_bias),
        Linear("self_attn.v_proj", ("v",), bias=lambda f: f.qkv_bias),
        Linear("self_attn.o_proj", ("o",)),
        *_MLP,
    ),
    norms=(
        NormAt("input_layernorm", "norm1"),
        NormAt("post_attention_layernorm", "norm2", when=lambda f: not f.parallel),
        NormAt("self_attn.q_layernorm", "q_norm", "listed", when=lambda f: f.qk_layernorm, bias=False),
        NormAt("self_attn.k_layernorm", "k_norm", "listed", when=lambda f: f.qk_layernorm, bias=False),
    ),
    layer="layers.{i}.",
    embed="embed_tokens",
    final_norm="norm",
    norm="layer",
    norm_bias=True,
    qk_norm=lambda f: "head" if f.qk_layernorm else "none",
    parallel=lambda f: f.parallel,
    rope=RopeKeys(partial=0.25),
)

COHERE = replace(
    LLAMA,
    model_type="cohere",
    keys={
        **_without(_keys(n_ctx=8192, eps=1e-5, tied=True), "rms_norm_eps"),
        **_LAYER_NORM_EPS,
        **_ATTENTION_BIAS,
        "logit_scale": Key("logit_scale", "number", 0.0625),
        "use_qk_norm": Key("use_qk_norm", "flag", False),
    },
    norms=(
        NormAt("input_layernorm", "norm1"),
        NormAt("self_attn.q_norm", "q_norm", "per_head", when=lambda f: f.use_qk_norm),
        NormAt("self_attn.k_norm", "k_norm", "per_head", when=lambda f: f.use_qk_norm),
    ),
    derived={"mlp_bias": lambda f: False},
    only=_NO_MLP_BIAS,
    norm="layer",
    qk_norm=lambda f: "head" if f.use_qk_norm else "none",
    parallel=True,
    rope=RopeKeys(theta=500_000.0),
    rope_style="interleaved",
    logit_scale=lambda f: f.logit_scale,
)

FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        LLAMA, MISTRAL, QWEN2, QWEN3, SMOLLM3, GRANITE, OLMO2, PHI3, GEMMA, GEMMA2, GEMMA3,
        MIXTRAL, QWEN3_MOE, OLMOE, GPT2, GPT_NEOX, PHI, STARCODER2, STABLELM, COHERE,
    )
}  # fmt: skip
