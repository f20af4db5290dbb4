"""What many families share: keys of their configs, and the names of Llama's tensors."""

from __future__ import annotations

from collections.abc import Mapping

from ..family import Key, Linear, NormAt

__all__ = [
    "ATTENTION",
    "ATTENTION_BIAS",
    "DERIVED_HEADS",
    "HEAD_DIM",
    "HEAD_NORMS",
    "IF_USED",
    "KV_HEADS",
    "LAYER_NORM_EPS",
    "LAYER_TYPES",
    "MLP",
    "MLP_BIAS",
    "NO_ATTENTION_BIAS",
    "NO_MLP_BIAS",
    "PLAIN_MLP",
    "PRE_NORMS",
    "SIZES",
    "UNBIASED",
    "WINDOW",
    "WINDOW_BY_LAYER",
    "head_dim",
    "keys",
    "kv_heads",
    "without",
]

SIZES = {
    "hidden_size": Key("d_model", "size"),
    "num_hidden_layers": Key("n_layers", "size"),
    "num_attention_heads": Key("n_heads", "size"),
    "intermediate_size": Key("d_ff", "size"),
    "vocab_size": Key("n_vocab", "size"),
}


def kv_heads(default: int) -> dict[str, Key]:
    return {"num_key_value_heads": Key("n_kv_heads", "size", default, null=lambda f: f.n_heads)}


def head_dim(default: int) -> dict[str, Key]:
    return {"head_dim": Key("head_dim", "size", default, null=lambda f: f.d_model // f.n_heads)}


KV_HEADS = {"num_key_value_heads": Key("n_kv_heads", "size", lambda f: f.n_heads)}
HEAD_DIM = {"head_dim": Key("head_dim", "size", lambda f: f.d_model // f.n_heads)}
DERIVED_HEADS = {"n_kv_heads": lambda f: f.n_heads, "head_dim": lambda f: f.d_model // f.n_heads}
ATTENTION_BIAS = {"attention_bias": Key("attn_bias", "flag", False)}
MLP_BIAS = {"mlp_bias": Key("mlp_bias", "flag", False)}
LAYER_TYPES = {"layer_types": Key("layer_types", "words", None, null=None)}
WINDOW = {"sliding_window": Key("window", "size", 4096, null=None)}
NO_ATTENTION_BIAS = {"attention_bias": (False, None)}
NO_MLP_BIAS = {"mlp_bias": (False, None)}
LAYER_NORM_EPS = {"layer_norm_eps": Key("norm_eps", "number", 1e-5)}
WINDOW_BY_LAYER = {
    "use_sliding_window": Key("use_window", "flag", False),
    "sliding_window": Key("window", "size", 4096, null=None),
    "max_window_layers": Key("max_window_layers", "count", 28),
    "layer_types": Key("layer_types", "words", None, null=None),
}


def keys(n_ctx: int, eps: float, tied: bool, act: str = "silu", act_key: str = "hidden_act") -> dict[str, Key]:
    """The keys nearly all families share, with their defaults."""
    return {
        **SIZES,
        **KV_HEADS,
        **HEAD_DIM,
        act_key: Key("act", "word", act),
        "max_position_embeddings": Key("n_ctx", "size", n_ctx),
        "rms_norm_eps": Key("norm_eps", "number", eps),
        "tie_word_embeddings": Key("tied", "flag", tied),
    }


def without(table: Mapping[str, Key], *names: str) -> dict[str, Key]:
    return {name: key for name, key in table.items() if name not in names}


ATTENTION = (
    Linear("self_attn.q_proj", ("q",), bias=lambda f: f.attn_bias),
    Linear("self_attn.k_proj", ("k",), bias=lambda f: f.attn_bias),
    Linear("self_attn.v_proj", ("v",), bias=lambda f: f.attn_bias),
    Linear("self_attn.o_proj", ("o",), bias=lambda f: f.attn_bias),
)
MLP = (
    Linear("mlp.gate_proj", ("gate",), bias=lambda f: f.mlp_bias),
    Linear("mlp.up_proj", ("up",), bias=lambda f: f.mlp_bias),
    Linear("mlp.down_proj", ("down",), bias=lambda f: f.mlp_bias),
)
PLAIN_MLP = MLP[1:]  # without a gate
PRE_NORMS = (NormAt("input_layernorm", "norm1"), NormAt("post_attention_layernorm", "norm2"))
HEAD_NORMS = (NormAt("self_attn.q_norm", "q_norm", "shared"), NormAt("self_attn.k_norm", "k_norm", "shared"))

UNBIASED = {"attn_bias": lambda f: False, "mlp_bias": lambda f: False}
IF_USED = {"window": lambda f: f.window if f.use_window else None}
