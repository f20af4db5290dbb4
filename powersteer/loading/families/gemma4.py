"""Gemma 4: layers of two sizes, keys and values that later layers see, too, inputs of layers, experts beside the MLP."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..family import Hyperparameters, Key, LayerInputs, NormAt, RopeKeys
from .gemma import GEMMA3
from .shared import ATTENTION, ATTENTION_BIAS, HEAD_NORMS, MLP, NO_MLP_BIAS, keys

__all__ = ["FAMILIES", "GEMMA4"]

_FULL, _SLIDING = "full_attention", "sliding_attention"


def _layer_types(f: Hyperparameters) -> list[str]:
    types = f.layer_types or [_FULL if (i + 1) % 6 == 0 else _SLIDING for i in range(f.n_layers)]
    return [*types[:-1], _FULL]  # as transformers says the last one must be


def _layer_sizes(f: Hyperparameters) -> dict[int, dict[str, int]]:
    """Heads of each layer that has others than the config's: listed, or, in older configs, of all with full attention."""
    names = {"head_dim": "head_dim", "num_key_value_heads": "n_kv_heads"}
    if f.layer_sizes is None:
        of_full = {"head_dim": f.global_head_dim}
        if f.keys_are_values and f.global_kv_heads is not None:
            of_full["n_kv_heads"] = f.global_kv_heads
        sizes = {i: of_full for i, layer_type in enumerate(f.layer_types) if layer_type == _FULL}
    else:
        if unknown := sorted({key for one in f.layer_sizes.values() for key in one} - names.keys()):
            raise ValueError(f"per_layer_config has the key {unknown[0]!r}; supported are {' and '.join(names)}")
        sizes = {int(i): {names[key]: size for key, size in one.items()} for i, one in f.layer_sizes.items()}
    for layer_type in (_FULL, _SLIDING):
        if len({str(sorted(sizes.get(i, {}).items())) for i in range(f.n_layers) if f.layer_types[i] == layer_type}) > 1:
            raise ValueError(f"layers of {layer_type} have heads of several sizes, which this family's rotary tables do not")
    return sizes


def _head_dims(f: Hyperparameters) -> tuple[int, ...]:
    """Of each type's layers, which are alike."""
    of_types = {layer_type: f.layer_sizes.get(i, {}).get("head_dim", f.head_dim) for i, layer_type in enumerate(f.layer_types)}
    return tuple(of_types.get(layer_type, f.head_dim) for layer_type in (_FULL, _SLIDING))


def _keys_of(f: Hyperparameters, i: int) -> int:
    """The last layers see the keys of the last one of their type before them."""
    own = f.n_layers - f.n_sharing
    return i if i < own else max(j for j in range(own) if f.layer_types[j] == f.layer_types[i])


def _n_sharing(f: Hyperparameters) -> int:
    own = f.layer_types[: f.n_layers - f.n_sharing]
    if set(own) != set(f.layer_types):
        raise ValueError(f"num_kv_shared_layers = {f.n_sharing} leaves no layer of each type whose keys the last layers see")
    return int(f.n_sharing)


def _share(f: Hyperparameters) -> float:
    if f.d_input and f.n_vocab_inputs < f.n_vocab:
        raise ValueError(f"inputs of layers have {f.n_vocab_inputs} tokens of {f.n_vocab} (vocab_size_per_layer_input)")
    return float(2.0**-0.5)  # of both, token and embedding, in an input


def _not_weights(f: Hyperparameters) -> str:
    """Keys and values that files hold of layers that see those of others"""
    layers = "|".join(str(i) for i in range(f.n_layers) if _keys_of(f, i) != i)
    return rf"(.*\.)?rotary_emb\.inv_freq|layers\.({layers})\.self_attn\.[kv]_(proj|norm)\..*"


def _of_layer(f: Hyperparameters, i: int) -> dict[str, Any]:
    wide = f.double_wide and _keys_of(f, i) != i
    return {
        **f.layer_sizes.get(i, {}),
        **({"d_ff": 2 * f.d_ff} if wide else {}),
        "keys_are_values": f.keys_are_values and f.layer_types[i] == _FULL,
    }


GEMMA4 = replace(
    GEMMA3,
    model_type="gemma4_text",
    keys={
        **keys(n_ctx=131072, eps=1e-6, tied=True, act="gelu_pytorch_tanh", act_key="hidden_activation"),
        "num_key_value_heads": Key("n_kv_heads", "size", 4),
        "head_dim": Key("head_dim", "size", 256),
        **ATTENTION_BIAS,
        "sliding_window": Key("window", "size", 512),
        "layer_types": Key("layer_types", "words", None, null=None),
        "final_logit_softcapping": Key("logit_softcap", "number", None, null=None),
        "attention_k_eq_v": Key("keys_are_values", "flag", False),
        "global_head_dim": Key("global_head_dim", "size", 512),
        "num_global_key_value_heads": Key("global_kv_heads", "size", None, null=None),
        "per_layer_config": Key("layer_sizes", "sizes", None, null=None),
        "num_kv_shared_layers": Key("n_sharing", "count", 0),
        "use_double_wide_mlp": Key("double_wide", "flag", False),
        "hidden_size_per_layer_input": Key("d_input", "count", 256),
        "vocab_size_per_layer_input": Key("n_vocab_inputs", "size", 262144),
    },
    linears=(
        *(linear if linear.slots != ("v",) else replace(linear, when=lambda f: not f.keys_are_values) for linear in ATTENTION),
        *MLP,
    ),
    norms=(*GEMMA3.norms[:-2], *HEAD_NORMS, NormAt("self_attn.v_norm", "v_norm", gain=False)),
    norm_one_plus=False,
    derived={
        "mlp_bias": lambda f: False,
        "layer_types": _layer_types,
        "layer_sizes": _layer_sizes,
        "n_sharing": _n_sharing,
        # the norm of what is made of the embedding times d_model**-0.5, which the epsilon therefore belongs to
        "input_eps": lambda f: f.norm_eps * f.d_model,
        "input_share": _share,
        "input_scale": lambda f: float(np.float32(f.d_input**0.5)) * f.input_share,
    },
    only={**NO_MLP_BIAS, "use_bidirectional_attention": (None, "vision"), "enable_moe_block": (False,)},
    ignored={"of experts, without which no layer is": "num_experts top_k_experts moe_intermediate_size"},
    not_weights=_not_weights,
    rope=RopeKeys(
        by_type={_FULL: (None, 1_000_000.0), _SLIDING: (None, 10_000.0)},
        absent={_FULL: {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1_000_000.0}, _SLIDING: {}},
        head_dims=_head_dims,
    ),
    attn_scale=lambda f, i: 1.0,
    of_layer=_of_layer,
    keys_of=_keys_of,
    inputs=LayerInputs(
        embed="embed_tokens_per_layer",
        proj="per_layer_model_projection",
        norm="per_layer_projection_norm",
        gate="per_layer_input_gate",
        out="per_layer_projection",
        post="post_per_layer_input_norm",
    ),
    out_scale="layer_scalar",
)

FAMILIES = (GEMMA4,)
