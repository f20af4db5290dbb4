"""The columns of the table in families.py, one row of which is a family of checkpoints.

A family lists the config keys that it reads and the keys that may have one value only, the names of its tensors, and the
differences of its block from the plainest one. A value that depends on the config is a function of the hyperparameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

__all__ = ["REFUSED", "REQUIRED", "Experts", "Family", "Hyperparameters", "Key", "Linear", "NormAt", "RopeKeys", "value_of"]

Hyperparameters = SimpleNamespace  # name → value
REQUIRED: Any = object()
REFUSED: Any = object()


@dataclass(frozen=True)
class Key:
    """A config key that sets a hyperparameter.

    default: the value that transformers assumes if the key is missing. null: the value that it assumes for null; unless
    given, null means the default if that is a function, and is refused otherwise. Functions get the hyperparameters that
    are read so far.
    """

    hyperparameter: str
    kind: str  # "size": integer > 0 | "count": >= 0 | "number": > 0 | "flag" | "word" | "words", "flags": one a layer | "layers"
    default: Any = REQUIRED
    null: Any = REFUSED


@dataclass(frozen=True)
class Linear:
    """A projection of a layer, `<layer>.<path>.weight`: one slot of the block, or several fused along the output.

    Stored (out, in), or (in, out) if transposed. layout "rows": the slots follow each other; "heads": they alternate
    head by head.
    """

    path: str
    slots: tuple[str, ...]
    bias: bool | Callable[[Hyperparameters], bool] = False
    layout: str = "rows"
    transposed: bool = False


@dataclass(frozen=True)
class NormAt:
    """A norm of a layer, `<layer>.<path>.weight`.

    layout "vector": as it is used; "shared": (HS), one for every head; "per_head": (heads, HS);
    "listed": one module `<path>.norms.<head>` a head.
    """

    path: str
    slot: str
    layout: str = "vector"
    when: bool | Callable[[Hyperparameters], bool] = True
    bias: bool | None = None  # None: as the family's other norms


@dataclass(frozen=True)
class Experts:
    """A layer's mixture in the place of its MLP: `<layer>.<router>.weight` (E, C), and of each expert e the matrices
    `<layer>.<path>.<gate>.weight` and so on. transformers holds them stacked in memory (see experts.py)."""

    router: str
    path: str  # with {e}
    gate: str
    up: str
    down: str
    when: Callable[[Hyperparameters, int], bool] = lambda f, i: True  # whether a layer has one


@dataclass(frozen=True)
class RopeKeys:
    """How a config spells its rotary settings. Either one table, or one a layer type."""

    theta: float = 10_000.0
    theta_key: str = "rope_theta"
    partial: float | None = None  # rotated part of a head without a key; None: always the whole
    partial_key: str = "partial_rotary_factor"
    round_up: bool = False  # a part of an odd number of dimensions is rounded up to an even one
    by_type: Mapping[str, tuple[str, float]] = field(default_factory=dict)  # layer type → theta key and default
    kinds: Mapping[str, str] | None = None  # allowed kinds → the kind that is used; None: any kind, as named


@dataclass(frozen=True)
class Family:
    model_type: str
    keys: Mapping[str, Key]
    linears: tuple[Linear, ...]
    norms: tuple[NormAt, ...]
    layer: str  # prefix of a layer's tensors, with {i}
    embed: str
    final_norm: str
    experts: Experts | None = None  # a layer that has them lacks the linears of an MLP
    pos_embed: str | None = None
    head: tuple[str, ...] = ("lm_head",)  # names it goes by
    head_bias: bool = False
    prefixes: tuple[str, ...] = ("model.", "")  # of everything but the head
    not_weights: str = r"(.*\.)?rotary_emb\.inv_freq"  # tensors in old files that are no parameters
    only: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)  # key → the values it may have here
    ignored: Mapping[str, str] = field(default_factory=dict)  # reason → keys that do not change the logits
    derived: Mapping[str, Callable[[Hyperparameters], Any]] = field(default_factory=dict)  # hyperparameters set or overridden at the end
    strict: bool = False  # refuse every unknown key, because there is no list of the keys that are read
    norm: str = "rms"
    norm_bias: bool = False
    norm_one_plus: bool = False  # stored gains are offsets from 1
    qk_norm: str | Callable[[Hyperparameters], str] = "none"
    gated: bool = True
    parallel: bool | Callable[[Hyperparameters], bool] = False
    rope: RopeKeys | None = RopeKeys()
    rope_style: str = "half"
    rope_index: Callable[[Hyperparameters, int, str], int] = lambda f, i, layer_type: 0
    sliding: Callable[[Hyperparameters, int], bool] = lambda f, i: False  # of a layer if the config lists no layer types
    attn_scale: Callable[[Hyperparameters, int], float] = lambda f, i: f.head_dim**-0.5
    attn_softcap: Callable[[Hyperparameters], float | None] = lambda f: None
    logit_softcap: Callable[[Hyperparameters], float | None] = lambda f: None
    embed_scale: Callable[[Hyperparameters], float] = lambda f: 1.0
    resid_scale: Callable[[Hyperparameters], float] = lambda f: 1.0
    logit_scale: Callable[[Hyperparameters], float] = lambda f: 1.0


def value_of(value: Any, hparams: Hyperparameters) -> Any:
    """The value of a column for a config: constant, or a function of the hyperparameters."""
    return value(hparams) if callable(value) else value
