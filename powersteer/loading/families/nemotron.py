"""Llamas whose MLP has no gate: squared ReLU, or Apertus' xIELU with numbers that were learned."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log1p

from ..family import Hyperparameters, Key, Linear, NormAt, RopeKeys
from .llama import LLAMA
from .shared import (
    ATTENTION,
    ATTENTION_BIAS,
    HEAD_NORMS,
    LAYER_NORM_EPS,
    MLP_BIAS,
    NO_MLP_BIAS,
    PLAIN_MLP,
    PRE_NORMS,
    keys,
    without,
)

__all__ = ["FAMILIES"]

ARCEE = replace(
    LLAMA,
    model_type="arcee",
    keys={**keys(n_ctx=4096, eps=1e-5, tied=False, act="relu2"), **ATTENTION_BIAS, **MLP_BIAS},
    linears=ATTENTION + PLAIN_MLP,
    only={},
    gated=False,
)

NEMOTRON = replace(
    ARCEE,
    model_type="nemotron",
    keys={**without(ARCEE.keys, "rms_norm_eps"), "norm_eps": Key("norm_eps", "number", 1e-5)},
    norm="layer",
    norm_bias=True,
    norm_one_plus=True,
    rope=RopeKeys(partial=0.5),
)

JAIS2 = replace(
    ARCEE,
    model_type="jais2",
    keys={
        **without(keys(n_ctx=8192, eps=1e-5, tied=False, act="relu2"), "rms_norm_eps"),
        **LAYER_NORM_EPS,
        "attention_bias": Key("attn_bias", "flag", True),
        "mlp_bias": Key("mlp_bias", "flag", True),
    },
    norm="layer",
    norm_bias=True,
)

NANOCHAT = replace(
    ARCEE,
    model_type="nanochat",
    keys={
        **without(keys(n_ctx=2048, eps=1e-6, tied=False, act="relu2"), "head_dim"),
        **ATTENTION_BIAS,
        "final_logit_softcapping": Key("logit_softcap", "number", 15.0, null=None),
    },
    linears=(*ATTENTION, Linear("mlp.fc1", ("up",)), Linear("mlp.fc2", ("down",))),
    norms=PRE_NORMS + HEAD_NORMS,
    embed_norm="norm",  # the same module as the last norm; without weights there is nothing to share
    derived={"mlp_bias": lambda f: False, "head_dim": lambda f: f.d_model // f.n_heads},
    only=NO_MLP_BIAS,
    norm_gain=False,
    qk_norm="head",
    qk_norm_last=True,
    rope=RopeKeys(backwards=True),
    logit_softcap=lambda f: f.logit_softcap,
)


def _softplus(x: float) -> float:
    return x if x > 20 else log1p(exp(x))


def _xielu(f: Hyperparameters, stored: list[float]) -> tuple[float, ...]:
    """Of x > 0 the factor of x^2, of x < 0 that of exp(x) - 1 - x, of both that of x, and the last x < 0 that exp sees."""
    if not stored:
        return ()
    positive, negative, linear, last = stored
    return _softplus(positive), linear + _softplus(negative), linear, last


APERTUS = replace(
    ARCEE,
    model_type="apertus",
    keys={**keys(n_ctx=65536, eps=1e-5, tied=False, act="xielu"), **ATTENTION_BIAS},
    linears=(*ATTENTION, Linear("mlp.up_proj", ("up",)), Linear("mlp.down_proj", ("down",))),
    norms=(NormAt("attention_layernorm", "norm1"), NormAt("feedforward_layernorm", "norm2"), *HEAD_NORMS),
    derived={"mlp_bias": lambda f: False},
    only=NO_MLP_BIAS,
    qk_norm="head",
    act_tensors=lambda f: (
        {"mlp.act_fn.alpha_p": (1,), "mlp.act_fn.alpha_n": (1,), "mlp.act_fn.beta": (), "mlp.act_fn.eps": ()}
        if f.act == "xielu"
        else {}
    ),
    act_constants=_xielu,
    rope=RopeKeys(
        theta=12_000_000.0,
        absent={
            "rope_type": "llama3",
            "rope_theta": 12_000_000.0,
            "factor": 8.0,
            "original_max_position_embeddings": 8192,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
        },
    ),
)

FAMILIES = (ARCEE, NEMOTRON, JAIS2, NANOCHAT, APERTUS)
