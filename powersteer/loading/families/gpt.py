"""GPT-2 and its kin: LayerNorm with biases, mostly a plain MLP, learned or partly rotary positions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...errors import shown
from ..family import Family, Hyperparameters, Key, Linear, NormAt, RopeKeys
from .shared import ATTENTION_BIAS, DERIVED_HEADS, HEAD_DIM, LAYER_NORM_EPS, MLP, PRE_NORMS, SIZES, kv_heads, without

__all__ = ["FAMILIES"]

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
    derived=DERIVED_HEADS,
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

GPT_BIGCODE = replace(
    GPT2,
    model_type="gpt_bigcode",
    keys={
        **without(GPT2.keys, "scale_attn_by_inverse_layer_idx"),
        "activation_function": Key("act", "word", "gelu_pytorch_tanh"),
        "multi_query": Key("multi_query", "flag", True),
    },
    derived={**DERIVED_HEADS, "n_kv_heads": lambda f: 1 if f.multi_query else f.n_heads},
    linears=(
        Linear("attn.c_attn", ("q", "k", "v"), bias=True, groups=lambda f: f.n_kv_heads),
        Linear("attn.c_proj", ("o",), bias=True),
        Linear("mlp.c_fc", ("up",), bias=True),
        Linear("mlp.c_proj", ("down",), bias=True),
    ),
    ignored={"the dtype of the softmax": "attention_softmax_in_fp32 scale_attention_softmax_in_fp32"},
    attn_scale=lambda f, i: f.head_dim**-0.5 if f.scale_attn else 1.0,
)


def _attention_types(f: Hyperparameters) -> list[str]:
    """GPT-Neo's layers: "global", or "local" with a window."""
    repeats: list[Any] = [[["global", "local"], 12]] if f.repeats is None else f.repeats
    listed = [name for names, times in repeats for _ in range(times) for name in names]
    if f.attention_layers not in (None, listed) and f.repeats is not None:
        raise ValueError("attention_layers and attention_types disagree; remove one")
    layers = f.attention_layers or listed
    if len(layers) != f.n_layers or not set(layers) <= {"global", "local"}:
        raise ValueError(
            f"attention_types gives {len(layers)} layers {shown(layers)} where {f.n_layers} of global and local are needed"
        )
    return ["sliding_attention" if one == "local" else "full_attention" for one in layers]


GPT_NEO = replace(
    GPT2,
    model_type="gpt_neo",
    keys={
        "hidden_size": Key("d_model", "size"),
        "num_layers": Key("n_layers", "size"),
        "num_heads": Key("n_heads", "size"),
        "vocab_size": Key("n_vocab", "size"),
        "intermediate_size": Key("d_ff", "size", lambda f: 4 * f.d_model),
        "max_position_embeddings": Key("n_ctx", "size", 2048),
        "activation_function": Key("act", "word", "gelu_new"),
        "layer_norm_epsilon": Key("norm_eps", "number", 1e-5),
        "window_size": Key("window", "size", 256),
        "attention_types": Key("repeats", "repeats", None, null=None),
        "attention_layers": Key("attention_layers", "words", None, null=None),
        "tie_word_embeddings": Key("tied", "flag", True),
    },
    derived={
        **DERIVED_HEADS,
        "layer_types": _attention_types,
        "repeats": lambda f: None,  # said by layer_types
        "attention_layers": lambda f: None,
    },
    linears=(
        Linear("attn.attention.q_proj", ("q",)),
        Linear("attn.attention.k_proj", ("k",)),
        Linear("attn.attention.v_proj", ("v",)),
        Linear("attn.attention.out_proj", ("o",), bias=True),
        Linear("mlp.c_fc", ("up",), bias=True),
        Linear("mlp.c_proj", ("down",), bias=True),
    ),
    not_weights=r"h\.\d+\.attn\.attention\.(bias|masked_bias)",
    ignored={"training only": "resid_dropout embed_dropout"},
    attn_scale=lambda f, i: 1.0,
)

GPTJ = replace(
    GPT2,
    model_type="gptj",
    keys={
        **without(GPT2.keys, "scale_attn_weights", "scale_attn_by_inverse_layer_idx"),
        "n_positions": Key("n_ctx", "size", 2048),
        "rotary_dim": Key("rotary_dim", "size", 64),
        "tie_word_embeddings": Key("tied", "flag", False),
    },
    linears=(
        Linear("attn.q_proj", ("q",)),
        Linear("attn.k_proj", ("k",)),
        Linear("attn.v_proj", ("v",)),
        Linear("attn.out_proj", ("o",)),
        Linear("mlp.fc_in", ("up",), bias=True),
        Linear("mlp.fc_out", ("down",), bias=True),
    ),
    norms=(NormAt("ln_1", "norm1"),),
    pos_embed=None,
    head_bias=True,
    ignored={},
    parallel=True,
    rope=RopeKeys(fixed=True, width=lambda f: f.rotary_dim),
    rope_style="interleaved",
    rope_index=lambda f, i, layer_type: 0,
    attn_scale=lambda f, i: f.head_dim**-0.5,
)

CODEGEN = replace(
    GPTJ,
    model_type="codegen",
    # in four parts, one for each of the devices that it was trained on
    linears=(Linear("attn.qkv_proj", ("q", "v", "k"), groups=4), *GPTJ.linears[3:]),
    not_weights=r"h\.\d+\.attn\.causal_mask",
    ignored={"the length is n_positions": "n_ctx"},
)

OPT = replace(
    GPT2,
    model_type="opt",
    keys={
        "hidden_size": Key("d_model", "size"),
        "word_embed_proj_dim": Key("d_model", "size", lambda f: f.d_model),  # another width needs a projection
        "num_hidden_layers": Key("n_layers", "size"),
        "num_attention_heads": Key("n_heads", "size"),
        "ffn_dim": Key("d_ff", "size"),
        "vocab_size": Key("n_vocab", "size"),
        "max_position_embeddings": Key("n_ctx", "size", 2048),
        "activation_function": Key("act", "word", "relu"),
        "enable_bias": Key("use_bias", "flag", True),
        "layer_norm_elementwise_affine": Key("norm_weights", "flag", True),
        "tie_word_embeddings": Key("tied", "flag", True),
    },
    derived={**DERIVED_HEADS, "norm_eps": lambda f: 1e-5},
    linears=(
        Linear("self_attn.q_proj", ("q",), bias=lambda f: f.use_bias),
        Linear("self_attn.k_proj", ("k",), bias=lambda f: f.use_bias),
        Linear("self_attn.v_proj", ("v",), bias=lambda f: f.use_bias),
        Linear("self_attn.out_proj", ("o",), bias=lambda f: f.use_bias),
        Linear("fc1", ("up",), bias=lambda f: f.use_bias),
        Linear("fc2", ("down",), bias=lambda f: f.use_bias),
    ),
    norms=(NormAt("self_attn_layer_norm", "norm1"), NormAt("final_layer_norm", "norm2")),
    layer="layers.{i}.",
    embed="embed_tokens",
    pos_embed="embed_positions",
    pos_offset=2,
    final_norm="final_layer_norm",
    prefixes=("model.decoder.", "decoder.", ""),
    not_weights="(?!)",
    only={"do_layer_norm_before": (True,), "_remove_final_layer_norm": (False,)},
    ignored={"training only": "dropout layerdrop"},
    norm_gain=lambda f: f.norm_weights,
    norm_bias=lambda f: f.norm_weights,
    attn_scale=lambda f, i: f.head_dim**-0.5,
)

GPT_NEOX = Family(
    model_type="gpt_neox",
    keys={
        **SIZES,
        **ATTENTION_BIAS,
        **LAYER_NORM_EPS,
        "attention_bias": Key("attn_bias", "flag", True),
        "hidden_act": Key("act", "word", "gelu"),
        "max_position_embeddings": Key("n_ctx", "size", 2048),
        "tie_word_embeddings": Key("tied", "flag", False),
        "use_parallel_residual": Key("parallel", "flag", True),
    },
    derived=DERIVED_HEADS,
    linears=(
        Linear("attention.query_key_value", ("q", "k", "v"), bias=lambda f: f.attn_bias, groups=lambda f: f.n_heads),
        Linear("attention.dense", ("o",), bias=lambda f: f.attn_bias),
        Linear("mlp.dense_h_to_4h", ("up",), bias=True),
        Linear("mlp.dense_4h_to_h", ("down",), bias=True),
    ),
    norms=PRE_NORMS,
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

STARCODER2 = Family(
    model_type="starcoder2",
    keys={
        **SIZES,
        "num_key_value_heads": Key("n_kv_heads", "size", 2),
        **HEAD_DIM,
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
    norms=PRE_NORMS,
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
        **SIZES,
        **kv_heads(32),
        **LAYER_NORM_EPS,
        "hidden_act": Key("act", "word", "silu"),
        "max_position_embeddings": Key("n_ctx", "size", 4096),
        "tie_word_embeddings": Key("tied", "flag", False),
        "use_qkv_bias": Key("qkv_bias", "flag", False),
        "qk_layernorm": Key("qk_layernorm", "flag", False),
        "use_parallel_residual": Key("parallel", "flag", False),
    },
    derived={"head_dim": DERIVED_HEADS["head_dim"], "mlp_bias": lambda f: False},
    linears=(
        Linear("self_attn.q_proj", ("q",), bias=lambda f: f.qkv_bias),
        Linear("self_attn.k_proj", ("k",), bias=lambda f: f.qkv_bias),
        Linear("self_attn.v_proj", ("v",), bias=lambda f: f.qkv_bias),
        Linear("self_attn.o_proj", ("o",)),
        *MLP,
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

FAMILIES = (GPT2, GPT_BIGCODE, GPT_NEO, GPTJ, CODEGEN, OPT, GPT_NEOX, STARCODER2, STABLELM)
