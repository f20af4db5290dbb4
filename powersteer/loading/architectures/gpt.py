"""Architectures with LayerNorm: GPT-2's kin, StableLM, Phi 2, Cohere, Nemotron, the first OLMo, and those with ALiBi."""

from __future__ import annotations

from typing import Any

from ..family import Key, NormAt, RopeKeys
from .shared import LOGIT_SCALE, PARALLEL, PRE_NORMS, architecture, is_local, pattern, stored

__all__ = ["ARCHITECTURES"]

_LEARNED: dict[str, Any] = {"pos_embed": "position_embd"}
_PART: dict[str, Any] = {"rope": RopeKeys(partial=1.0)}  # as many dimensions turn as the file says
_GELU = "gelu_pytorch_tanh"
_QK_NORMS = (
    NormAt("attn_q_norm", "q_norm", "per_head", when=stored("attn_q_norm.weight"), bias=False),
    NormAt("attn_k_norm", "k_norm", "per_head", when=stored("attn_k_norm.weight"), bias=False),
)
_CLAMP = {"attention.clamp_kqv": Key("clip_qkv", "number", None)}


def _qk_norm(f: Any) -> str:
    return "head" if stored("attn_q_norm.weight")(f) else "none"


ARCHITECTURES = (
    architecture("gpt2", "gpt2", _GELU, **_LEARNED, attn_scale=lambda f, i: f.head_dim**-0.5),
    architecture("starcoder", "gpt_bigcode", _GELU, **_LEARNED, attn_scale=lambda f, i: f.head_dim**-0.5),
    architecture("starcoder2", "starcoder2", _GELU, sliding=lambda f, i: False),
    architecture("gptneox", "gpt_neox", "gelu", keys=PARALLEL, **_PART),
    architecture(
        "stablelm",
        "stablelm",
        norms=(NormAt("attn_norm", "norm1"), NormAt("ffn_norm", "norm2", when=lambda f: not f.parallel), *_QK_NORMS),
        keys=PARALLEL,
        qk_norm=_qk_norm,
        **_PART,
    ),
    architecture(
        "phi2", "phi", _GELU, PRE_NORMS[:1], head_bias=lambda f: "output.bias" in f.present, qk_norm="none", **_PART
    ),
    architecture("command-r", "cohere", norms=PRE_NORMS[:1] + _QK_NORMS, keys=LOGIT_SCALE, qk_norm=_qk_norm),
    architecture("cohere2", "cohere2", norms=PRE_NORMS[:1], keys={**LOGIT_SCALE, **pattern(4)}, sliding=is_local),
    architecture(
        "nemotron",
        "nemotron",
        "relu2",
        ignored={"written beside the one that is used": "nemotron.attention.layer_norm_rms_epsilon"},
        **_PART,
    ),
    architecture("jais2", "jais2", "relu2"),
    architecture("olmo", "olmo", keys=_CLAMP, rope_style="interleaved"),
    # with attn_norm_2 each branch has a norm of its own, and the other is the MLP's
    architecture(
        "falcon",
        "falcon",
        "gelu",
        norms=(
            NormAt("attn_norm_2", "norm1", when=stored("attn_norm_2.weight")),
            NormAt("attn_norm", "norm1", when=lambda f: not stored("attn_norm_2.weight")(f)),
            NormAt("attn_norm", "norm2", when=stored("attn_norm_2.weight")),
        ),
        parallel=True,
        rope_index=lambda f, i, layer_type: 0,
        key_bias=None,
    ),
    architecture("bloom", "bloom", _GELU, embed_norm="token_embd_norm"),
    architecture(
        "mpt", "mpt", "gelu", keys=_CLAMP, only={"attention.max_alibi_bias": (8,)}, attn_scale=lambda f, i: f.head_dim**-0.5
    ),
)
