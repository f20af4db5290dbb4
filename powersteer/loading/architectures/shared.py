"""What many architectures share: keys and tensors of the format.

Tensors are asked for by their file: a projection has a bias if its file has one, and queries, keys and values may be fused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..families import FAMILIES
from ..family import Experts, Family, Hyperparameters, Key, Linear, NormAt, RopeKeys
from ..gguf import GGUF
from ..tensor_ref import TensorRef

__all__ = [
    "ATTENTION",
    "EXPERTS",
    "EXPERT_KEYS",
    "EXPERT_KEYS_IF_ANY",
    "FURTHER",
    "FUSED_MLP",
    "HEAD_NORMS",
    "HEAD_SIZES",
    "LOGIT_SCALE",
    "MLP",
    "PARALLEL",
    "PLAIN_MLP",
    "POST_NORMS",
    "PRE_NORMS",
    "WINDOW",
    "Architecture",
    "Tensors",
    "architecture",
    "is_local",
    "linear",
    "pattern",
    "stored",
]

Tensors = Mapping[str, TensorRef]


@dataclass(frozen=True)
class Architecture:
    """A family of transformers as llama.cpp names it, and what its format has no key for."""

    family: Family  # the same block, with keys and tensors as in files
    model_types: tuple[str, ...]  # families of transformers whose checkpoints are converted to it
    theta: float = 10_000.0  # base of the rotary frequencies in files without the key
    local_theta: float | None = None  # that of layers with a window; None: as the others'
    log_multiplier: float = 0.0  # times yarn_log_multiplier is mscale_all_dim; 0: there is no such key
    mscale: float | None = None  # of files with that key; None: the same
    yarn: Mapping[str, Any] = field(default_factory=dict)  # further settings of that rotary kind
    longrope: bool = False  # its files may have tables for short and for long sequences
    sections: bool = False  # its files say which dimensions turn by a picture's rows and columns; a text's three positions agree
    temperature: str = ""  # key of the rate by which queries grow
    # the tensors with those that are stored in another form put together
    arrange: Callable[[Tensors, GGUF, Hyperparameters], Tensors] = lambda tensors, file, f: tensors

    @property
    def name(self) -> str:
        return self.family.model_type


# ---- keys ------------------------------------------------------------------------------------------------------------

_WIDTH = Key("head_dim", "size", lambda f: f.d_model // f.n_heads)
_SIZES = {
    "embedding_length": Key("d_model", "size"),
    "block_count": Key("n_layers", "size"),
    "attention.head_count": Key("n_heads", "size"),
    "attention.head_count_kv": Key("n_kv_heads", "size", lambda f: f.n_heads),
    "feed_forward_length": Key("d_ff", "size"),
    "vocab_size": Key("n_vocab", "size"),
    "context_length": Key("n_ctx", "size"),
}
HEAD_SIZES = {
    "attention.key_length": _WIDTH,
    "attention.value_length": replace(_WIDTH, default=lambda f: f.head_dim),
}
_EPS = {"rms": "attention.layer_norm_rms_epsilon", "layer": "attention.layer_norm_epsilon"}
WINDOW = {"attention.sliding_window": Key("window", "count", 0)}


def pattern(period: int) -> dict[str, Key]:
    """Which layers have a window: every one but each period-th, or a list."""
    return {**WINDOW, "attention.sliding_window_pattern": Key("pattern", "flags or period", period)}


def is_local(f: Hyperparameters, i: int) -> bool:
    local = f.pattern[i] if isinstance(f.pattern, list) else (i + 1) % f.pattern != 0
    return bool(f.window > 0 and local)


LOGIT_SCALE = {"logit_scale": Key("logit_scale", "number")}
PARALLEL = {"use_parallel_residual": Key("parallel", "flag", True)}
EXPERT_KEYS = {
    "expert_count": Key("n_experts", "size"),
    "expert_used_count": Key("top_k", "size"),
    "expert_feed_forward_length": Key("d_expert", "size", lambda f: f.d_ff),
}
# of an architecture that also has models without
EXPERT_KEYS_IF_ANY = {**EXPERT_KEYS, "expert_count": Key("n_experts", "count", 0), "expert_used_count": Key("top_k", "count", 0)}
# Layers behind the last, which predict further tokens: counted with the others, and left out
FURTHER = {"nextn_predict_layers": Key("n_further", "count", 0)}
_ONLY: dict[str, tuple[Any, ...]] = {
    "expert_count": (0,),
    "expert_used_count": (0,),
    "expert_group_count": (0, 1),
    "expert_group_used_count": (0, 1),
    "expert_gating_func": (0, 1),  # softmax
    "expert_weights_scale": (0, 1),
    "attention.causal": (True,),
    "attention.sliding_window": (0,),
    "use_parallel_residual": (False,),
    "nextn_predict_layers": (0,),
    # the names that the first converters gave to reordered q and k, and Falcon's still gives
    "tensor_data_layout": ("Meta AI original pth", "jploski"),
}


# ---- tensors ---------------------------------------------------------------------------------------------------------


def stored(*names: str) -> Callable[[Hyperparameters], bool]:
    """Whether a layer of the file has one of these tensors."""
    return lambda f: any(name in f.present for name in names)


def linear(path: str, *slots: str, **columns: Any) -> Linear:
    return Linear(path, slots, **{"bias": stored(path + ".bias"), **columns})


def _split(f: Hyperparameters) -> bool:
    return "attn_qkv.weight" not in f.present


ATTENTION = (
    linear("attn_q", "q", when=_split),
    linear("attn_k", "k", when=_split),
    linear("attn_v", "v", when=_split),
    linear("attn_qkv", "q", "k", "v", when=lambda f: not _split(f)),
    linear("attn_output", "o"),
)
MLP = (linear("ffn_gate", "gate"), linear("ffn_up", "up"), linear("ffn_down", "down"))
FUSED_MLP = (linear("ffn_up", "gate", "up"), linear("ffn_down", "down"))
PLAIN_MLP = MLP[1:]
PRE_NORMS = (NormAt("attn_norm", "norm1"), NormAt("ffn_norm", "norm2"))
HEAD_NORMS = (NormAt("attn_q_norm", "q_norm", "shared"), NormAt("attn_k_norm", "k_norm", "shared"))
POST_NORMS = (NormAt("post_attention_norm", "post1"), NormAt("post_ffw_norm", "post2"))
EXPERTS = Experts(
    "ffn_gate_inp",
    "ffn_{name}_exps.{e}",
    gate="gate",
    up="up",
    down="down",
    other_routers=(),
    gate_up_stacks=("ffn_gate_up_exps.weight",),
    gate_stacks=("ffn_gate_exps.weight",),
    up_stacks=("ffn_up_exps.weight",),
    down_stacks=("ffn_down_exps.weight",),
    stacked=True,
)


def _n_layers(f: Hyperparameters) -> int:
    if f.n_further >= f.n_layers:
        raise ValueError(f"all {f.n_layers} blocks predict further tokens (nextn_predict_layers = {f.n_further})")
    return int(f.n_layers - f.n_further)


def _further(f: Hyperparameters) -> str:
    blocks = "|".join(str(f.n_layers + i) for i in range(f.n_further)) or "(?!)"
    return rf"blk\.({blocks})\..*"


def architecture(
    name: str,
    model_type: str,
    act: str = "silu",
    norms: tuple[NormAt, ...] = PRE_NORMS,
    keys: Mapping[str, Key] | None = None,
    only: Mapping[str, tuple[Any, ...]] | None = None,
    derived: Mapping[str, Callable[[Hyperparameters], Any]] | None = None,
    mlp: tuple[Linear, ...] | None = None,
    also: tuple[str, ...] = (),
    rest: Mapping[str, Any] | None = None,
    **columns: Any,
) -> Architecture:
    """An architecture whose block is that of a family of transformers, model_type.

    keys, only, norms: in the format's names, keys without the prefix. mlp: its projections. also: other families that are
    converted to it. rest: columns of Architecture. columns: further ones of the family that differ.
    """
    family = FAMILIES[model_type]
    read = {**_SIZES, **HEAD_SIZES, _EPS[family.norm]: Key("norm_eps", "number"), **(keys or {})}
    fixed = {key: values for key, values in {**_ONLY, **(only or {})}.items() if key not in (keys or {})}
    further = {"n_layers": _n_layers} if "nextn_predict_layers" in read else {}
    plain = {
        "model_type": name,
        "keys": {f"{name}.{key}": meaning for key, meaning in read.items()},
        "only": {f"{name}.{key}": values for key, values in fixed.items()},
        "ignored": {},
        "aliases": {},
        "nested": None,
        "own_code": (),
        "strict": True,
        "derived": {"act": lambda f: act, **further, **(derived or {})},
        "norms": norms,
        "norm_one_plus": False,
        "linears": ATTENTION + ((MLP if family.gated else PLAIN_MLP) if mlp is None else mlp),
        "experts": None,
        "layer": "blk.{i}.",
        "embed": "token_embd",
        "final_norm": "output_norm",
        "head": ("output",),
        "prefixes": ("",),
        "not_weights": _further if further else "(?!)",
        "rope": family.rope and RopeKeys(),
    }
    return Architecture(replace(family, **{**plain, **columns}), (model_type, *also), **(rest or {}))
