"""Dense architectures with RMSNorm and a rotary table: Llama's kin, Qwen, Gemma, Phi 3, OLMo, GLM."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ...errors import BadCheckpoint
from ..families import FAMILIES
from ..family import Hyperparameters, Key, NormAt, RopeKeys
from ..gguf import GGUF
from ..tensor_ref import TensorRef
from .shared import (
    ATTENTION,
    EXPERT_KEYS_IF_ANY,
    EXPERTS,
    FURTHER,
    FUSED_MLP,
    HEAD_NORMS,
    MLP,
    POST_NORMS,
    PRE_NORMS,
    WINDOW,
    Tensors,
    architecture,
    is_local,
    pattern,
)

__all__ = ["ARCHITECTURES", "GRANITE_KEYS"]

_NORMS_BEHIND = (*POST_NORMS, NormAt("attn_q_norm", "q_norm"), NormAt("attn_k_norm", "k_norm"))
_SECOND_NORM = (NormAt("attn_norm", "norm1"), NormAt("post_attention_norm", "norm2"))
_NO_WINDOW: dict[str, Any] = {"sliding": lambda f, i: False}
GRANITE_KEYS = {
    "attention.scale": Key("attention_multiplier", "number", lambda f: f.head_dim**-0.5),
    "embedding_scale": Key("embedding_multiplier", "number", 1.0),
    "residual_scale": Key("residual_multiplier", "number", 1.0),
    "logit_scale": Key("logits_scaling", "number"),
}

LLAMAS = (
    # the format has no key for Mistral's windows
    architecture(
        "llama",
        "llama",
        also=("mistral", "ministral", "mixtral"),
        keys=EXPERT_KEYS_IF_ANY,
        derived={"norm_topk": lambda f: True},
        experts=replace(EXPERTS, when=lambda f, i: f.n_experts > 0),
        rope_style="interleaved",
    ),
    architecture(
        "mistral3",
        "ministral3",
        rope_style="interleaved",
        rope=RopeKeys(extra=frozenset({"llama_4_scaling_beta"})),
        temper=lambda f, rotary: FAMILIES["ministral3"].temper(f, rotary) if "llama_4_scaling_beta" in rotary else None,
        rest={"log_multiplier": 1.0, "mscale": 1.0, "temperature": "attention.temperature_scale"},
        **_NO_WINDOW,
    ),
    architecture(
        "smollm3",
        "smollm3",
        derived={"has_rope": lambda f: None, "no_rope_interval": lambda f: 4},
        rope_style="interleaved",
        rest={"theta": 2_000_000.0},
        **_NO_WINDOW,
    ),
    architecture("granite", "granite", keys=GRANITE_KEYS, only={"rope.scaling.finetuned": (True,)}, rope_style="interleaved"),
    architecture("arcee", "arcee", "relu2", rope_style="interleaved"),
    architecture("ernie4_5", "ernie4_5"),
    architecture("seed_oss", "seed_oss", norms=_SECOND_NORM),
    architecture("hunyuan-dense", "hunyuan_v1_dense", norms=PRE_NORMS + HEAD_NORMS),
)


# ---- Apertus ---------------------------------------------------------------------------------------------------------

_XIELU = ("alpha_p", "alpha_n", "beta", "eps")


def _numbers_of_layers(tensors: Tensors, file: GGUF, f: Hyperparameters) -> Tensors:
    """The numbers of the activation, which are metadata, as tensors of layers."""
    out = dict(tensors)
    for name in _XIELU:
        numbers = file.fields.get("xielu." + name)
        if not isinstance(numbers, np.ndarray) or numbers.dtype.kind != "f" or len(numbers) != f.n_layers:
            raise BadCheckpoint(f"{file.path} lacks xielu.{name}, a list of {f.n_layers} numbers; get another copy")
        for i, number in enumerate(numbers):
            out[f"blk.{i}.xielu.{name}"] = _constant(f"blk.{i}.xielu.{name}", float(number), str(file.path))
    return out


def _constant(name: str, number: float, where: str) -> TensorRef:
    return TensorRef(name, "F64", (1,), where, lambda: np.array([number]))


APERTUS = architecture(
    "apertus",
    "apertus",
    "xielu",
    norms=PRE_NORMS + HEAD_NORMS,
    act_tensors=lambda f: {f"xielu.{name}": (1,) for name in _XIELU},
    rest={"arrange": _numbers_of_layers},
)

# ---- Qwen, OLMo, GLM, Phi --------------------------------------------------------------------------------------------

_BIASED = tuple(replace(one, bias=True) if one.path != "attn_output" else one for one in ATTENTION)
OTHERS = (
    architecture("qwen2", "qwen2", linears=(*_BIASED, *MLP), **_NO_WINDOW),
    architecture("qwen3", "qwen3", norms=PRE_NORMS + HEAD_NORMS, **_NO_WINDOW),
    architecture(
        "olmo2",
        "olmo3",
        norms=_NORMS_BEHIND,
        keys=pattern(4),
        also=("olmo2",),
        rope=FAMILIES["olmo3"].rope,
        sliding=is_local,
    ),
    architecture(
        "exaone4",
        "exaone4",
        norms=POST_NORMS + HEAD_NORMS,
        keys={**pattern(4), **FURTHER},
        rope_index=lambda f, i, layer_type: 0 if not f.window or layer_type == "sliding_attention" else -1,
        sliding=is_local,
    ),
    architecture("chatglm", "glm", mlp=FUSED_MLP, rope=RopeKeys(partial=1.0)),
    architecture("glm4", "glm4", norms=PRE_NORMS + POST_NORMS, keys=FURTHER, mlp=FUSED_MLP, rope=RopeKeys(partial=1.0)),
    architecture(
        "phi3",
        "phi3",
        keys=WINDOW,
        mlp=FUSED_MLP,
        sliding=lambda f, i: f.window > 0,
        rope=RopeKeys(partial=1.0, round_up=True),
        rest={"longrope": True},
    ),
)

# ---- Gemma -----------------------------------------------------------------------------------------------------------


def _gemma_scale(odd: int) -> Callable[[Hyperparameters, int], float]:
    """The scale of the scores, for which the format has no key: llama.cpp recognises the 27B model by its layers."""
    return lambda f, i: float((f.d_model // f.n_heads if f.n_layers == odd else f.head_dim) ** -0.5)


def _softcap(part: str, default: float | None) -> Mapping[str, Key]:
    return {f"{part}_logit_softcapping": Key({"attn": "attn_softcap", "final": "logit_softcap"}[part], "number", default)}


_GEMMA_ACT = "gelu_pytorch_tanh"
GEMMAS = (
    architecture("gemma", "gemma", _GEMMA_ACT),
    architecture(
        "gemma2",
        "gemma2",
        _GEMMA_ACT,
        PRE_NORMS + POST_NORMS,
        keys={
            "attention.sliding_window": Key("window", "size", 4096),
            **_softcap("attn", 50.0),
            **_softcap("final", 30.0),
        },
        attn_scale=_gemma_scale(46),
    ),
    architecture(
        "gemma3",
        "gemma3_text",
        _GEMMA_ACT,
        PRE_NORMS + HEAD_NORMS + POST_NORMS,
        keys={**pattern(6), **_softcap("final", None)},
        sliding=is_local,
        attn_scale=_gemma_scale(62),
        rope=FAMILIES["gemma3_text"].rope,
        rest={"theta": 1_000_000.0, "local_theta": 10_000.0},
    ),
)

ARCHITECTURES = (*LLAMAS, APERTUS, *OTHERS, *GEMMAS)
