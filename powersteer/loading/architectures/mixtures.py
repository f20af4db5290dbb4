"""Mixtures of experts, whose matrices are stacked: (experts, out, in)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..family import Hyperparameters, Key, NormAt
from ..gguf import GGUF
from ..tensor_ref import TensorRef
from .dense import GRANITE_KEYS
from .shared import EXPERT_KEYS, EXPERTS, HEAD_NORMS, PRE_NORMS, Tensors, architecture, is_local, pattern

__all__ = ["ARCHITECTURES", "SHARED_EXPERT", "SHARED_KEYS", "row_of_gate"]

SHARED_KEYS = {"expert_shared_feed_forward_length": Key("d_shared", "size")}
SHARED_EXPERT = replace(EXPERTS, shared="ffn_{name}_shexp", shared_gate="ffn_gate_inp_shexp")


def _norm_topk(default: bool) -> dict[str, Key]:
    return {"expert_weights_norm": Key("norm_topk", "flag", default)}


def row_of_gate(tensors: Tensors, file: GGUF, f: Hyperparameters) -> Tensors:
    """The gate of the shared expert is a row, which older files have as a vector."""

    def row(one: TensorRef) -> TensorRef:
        return TensorRef(one.name, "F32", (1, *one.shape), one.where, lambda: one.numbers().astype(np.float32)[None])

    return {
        name: row(one) if name.endswith(".ffn_gate_inp_shexp.weight") and len(one.shape) == 1 else one
        for name, one in tensors.items()
    }


ARCHITECTURES = (
    architecture(
        "qwen2moe",
        "qwen2_moe",
        keys={**EXPERT_KEYS, **SHARED_KEYS, **_norm_topk(False)},
        experts=SHARED_EXPERT,
        sliding=lambda f, i: False,
        rest={"arrange": row_of_gate},
    ),
    architecture(
        "qwen3moe",
        "qwen3_moe",
        norms=PRE_NORMS + HEAD_NORMS,
        keys={**EXPERT_KEYS, **_norm_topk(True)},
        experts=EXPERTS,
        sliding=lambda f, i: False,
    ),
    architecture(
        "olmoe",
        "olmoe",
        norms=(*PRE_NORMS, NormAt("attn_q_norm", "q_norm"), NormAt("attn_k_norm", "k_norm")),
        keys={**EXPERT_KEYS, **_norm_topk(False)},
        experts=EXPERTS,
    ),
    architecture(
        "granitemoe",
        "granitemoe",
        keys={**EXPERT_KEYS, **GRANITE_KEYS},
        only={"rope.scaling.finetuned": (True,), "expert_shared_feed_forward_length": (0,)},
        derived={"norm_topk": lambda f: True},
        experts=EXPERTS,
        rope_style="interleaved",
    ),
    # the bounds of its ramp are not rounded
    architecture(
        "gpt-oss",
        "gpt_oss",
        norms=(NormAt("attn_norm", "norm1"), NormAt("post_attention_norm", "norm2")),
        keys={**EXPERT_KEYS, **pattern(2)},
        derived={"norm_topk": lambda f: True, "act_alpha": lambda f: 1.702, "act_limit": lambda f: 7.0},
        experts=replace(EXPERTS, bias=True),
        sinks="attn_sinks.weight",
        sliding=is_local,
        rest={"yarn": {"truncate": False}},
    ),
)
