"""The columns of the tables in families/, one of which is a family of checkpoints.

A family lists the config keys that it reads and the keys that may have one value only, the names of its tensors, and the
differences of its block from the plainest one. A value that depends on the config is a function of the hyperparameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from numpy.typing import NDArray

__all__ = [
    "REFUSED",
    "REQUIRED",
    "Experts",
    "Family",
    "Hyperparameters",
    "Key",
    "LayerInputs",
    "Linear",
    "Mixer",
    "NormAt",
    "RopeKeys",
    "absent_parts",
    "value_of",
]

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
    # "size": integer > 0 | "size or auto" | "count": >= 0 | "number": > 0 | "flag" | "word" | "words", "flags", "counts": one a layer |
    # "layers" | "limits": [least, most] | "period": of layers, or letters of its layers | "flags or period" |
    # "repeats": [[names, how often], ...]
    kind: str
    default: Any = REQUIRED
    null: Any = REFUSED


@dataclass(frozen=True)
class Linear:
    """A projection of a layer, `<layer>.<path>.weight`: one slot of the block, or several fused along the output.

    Stored (out, in), or (in, out) if transposed. groups: the output is divided into so many equal parts, and in each the
    slots follow each other. The heads of slots that alternate head by head, or group by group, have as many groups.
    """

    path: str
    slots: tuple[str, ...]
    bias: bool | Callable[[Hyperparameters], bool] = False
    groups: int | Callable[[Hyperparameters], int] = 1
    transposed: bool = False
    when: bool | Callable[[Hyperparameters], bool] = True


@dataclass(frozen=True)
class NormAt:
    """A norm of a layer, `<layer>.<path>.weight`, or the name of its module if the family's norms have no weights.

    layout "vector": as it is used; "shared": (HS), one for every head; "per_head": (heads, HS);
    "listed": one module `<path>.norms.<head>` a head.
    """

    path: str
    slot: str
    layout: str = "vector"
    when: bool | Callable[[Hyperparameters], bool] = True
    of_layer: Callable[[Hyperparameters, int], bool] = lambda f, i: True  # whether a layer has it
    bias: bool | None = None  # None: as the family's other norms
    gain: bool | None = None
    one_plus: bool | None = None  # the stored gain is an offset from 1; None: as of the family's other norms


@dataclass(frozen=True)
class Experts:
    """A layer's mixture in the place of its MLP: `<layer>.<router>.weight` (E, C), and of each expert e the matrices
    `<layer>.<path>.<gate>.weight` and so on, or `<layer>.<path>.weight` of a path with {name}. transformers holds them stacked,
    and some files do (see experts.py)."""

    router: str
    path: str  # with {e}
    gate: str | None = "gate_proj"  # None: experts have none
    up: str = "up_proj"
    down: str = "down_proj"
    when: Callable[[Hyperparameters, int], bool] = lambda f, i: True  # whether a layer has one
    bias: bool = False  # of router and experts
    correction: str | None = None  # the tensor that is added to the router's probabilities to choose by
    shared: str | None = None  # the expert that every token takes, of width d_shared
    shared_gate: str | None = None
    shared_gate_up: str | None = None  # one matrix of the shared expert, its gate's rows before the others
    shared_down: str | None = None  # another name than `down`
    beside: str | None = None  # a module that holds the others alone, where no module has the sum with the shared expert
    other_routers: tuple[str, ...] = ("mlp.gate",)  # other names of it: those of transformers' memory
    gate_up_stacks: tuple[str, ...] = ("mlp.experts.gate_up_proj",)  # gate and up of all experts
    gate_stacks: tuple[str, ...] = ()
    up_stacks: tuple[str, ...] = ()
    down_stacks: tuple[str, ...] = ("mlp.experts.down_proj",)
    stacked: bool = False  # files have stacks
    transposed: bool = False  # stacks are (E, in, out), not (E, out, in)
    alternate: bool = False  # rows of gate and up alternate, instead of following each other


@dataclass(frozen=True)
class Mixer:
    """What layers of a type have in the place of attention: projections and norms, in the place of those to q, k, v and o, and
    a convolution `<layer>.<conv>.weight` (channels, 1, taps). A delta rule and a state space also have a rate and a bias of their
    decay. A layer with "none" is an MLP or a mixture alone."""

    kind: str  # "conv" | "delta" | "mamba" | "none"
    linears: tuple[Linear, ...] = ()
    conv: str = ""
    norms: tuple[NormAt, ...] = ()
    conv_slots: tuple[str, ...] = ("q", "k", "v")  # whose channels follow each other, of a delta rule and a state space
    conv_bias: bool | Callable[[Hyperparameters], bool] = False
    log_rate: str = ""  # names of tensors
    decay_bias: str = ""
    skip: str = ""
    minus_rate: str = ""  # in the place of log_rate: the rate itself, negative
    squeezed: bool = False  # the convolution is (channels, taps)


@dataclass(frozen=True)
class LayerInputs:
    """Inputs of layers, made of token and embedding: see csrc/model/layer_input.h. Tensors of all layers, one layer behind the other,
    are `<embed>.weight` (n_vocab or more, L*P), `<proj>.weight` (L*P, C) and `<norm>.weight` (P); each layer has gate, out and post."""

    embed: str
    proj: str
    norm: str
    gate: str
    out: str
    post: str


@dataclass(frozen=True)
class RopeKeys:
    """How a config spells its rotary settings. Either one table, or one a layer type."""

    theta: float = 10_000.0
    theta_key: str = "rope_theta"
    partial: float | None = None  # rotated part of a head without a key; None: always the whole
    partial_key: str = "partial_rotary_factor"
    round_up: bool = False  # a part of an odd number of dimensions is rounded up to an even one
    by_type: Mapping[str, tuple[str | None, float]] = field(default_factory=dict)  # layer type → theta key, if any, and default
    kinds: Mapping[str, str] | None = None  # allowed kinds → the kind that is used; None: any kind, as named
    absent: Mapping[str, Any] = field(default_factory=dict)  # the settings of a config that has none; by_type: of each layer type
    head_dims: Callable[[Hyperparameters], tuple[int, ...]] | None = None  # of heads that turn by each table; None: all the model's
    scales_scores: bool = False  # the square of what mscale_all_dim makes of the factor multiplies the scores
    mscales: bool = False  # longrope whose scales are short_mscale and long_mscale, and whose factors are always the short ones
    keyed: Mapping[tuple[str, str], str] = field(default_factory=dict)  # (kind, key it has) → the kind that is used
    extra: frozenset[str] = frozenset()  # keys of the settings that are read beside those of the kind
    fixed: bool = False  # no key of a config sets them
    width: Callable[[Hyperparameters], int] | None = None  # rotated dimensions of a head, instead of a part
    backwards: bool = False  # heads turn the other way round


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
    mixers: Mapping[str, Mixer] = field(default_factory=dict)  # layer type → what it has instead of attention
    has_mlp: Callable[[Hyperparameters, int], bool] = lambda f, i: True  # whether a layer has an MLP or a mixture
    of_layer: Callable[[Hyperparameters, int], Mapping[str, Any]] = lambda f, i: {}  # hyperparameters that are others in a layer
    keys_of: Callable[[Hyperparameters, int], int] = lambda f, i: i  # the layer whose keys and values a layer sees
    inputs: LayerInputs | None = None  # where f.d_input is positive
    out_scale: str | None = None  # the tensor (1) of a layer that multiplies its output
    embed_norm: str | None = None
    pos_embed: str | None = None
    pos_offset: int = 0  # row of position 0
    head: tuple[str, ...] = ("lm_head",)  # names it goes by
    head_bias: bool | Callable[[Hyperparameters], bool] = False
    act: str | None = None  # of the core, in the place of the config's
    sinks: str | None = None  # the tensor of a layer's attention sinks
    prefixes: tuple[str, ...] = ("model.", "")  # of everything but the head
    not_weights: str | Callable[[Hyperparameters], str] = r"(.*\.)?rotary_emb\.inv_freq"  # tensors in old files that are no parameters
    only: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)  # key → the values it may have here
    ignored: Mapping[str, str] = field(default_factory=dict)  # reason → keys that do not change the logits
    own_code: tuple[str, ...] = ()  # classes of a checkpoint's own code that transformers' class has taken the place of
    aliases: Mapping[str, str] = field(default_factory=dict)  # other name that transformers reads → key
    nested: str | None = None  # key of an object whose keys are written <nested>.<key> here
    # hyperparameters set or overridden at the end; a ValueError says what is wrong with the config
    derived: Mapping[str, Callable[[Hyperparameters], Any]] = field(default_factory=dict)
    strict: bool = False  # refuse every unknown key, because there is no list of the keys that are read
    norm: str = "rms"
    norm_gain: bool | Callable[[Hyperparameters], bool] = True
    norm_bias: bool | Callable[[Hyperparameters], bool] = False
    norm_one_plus: bool = False  # stored gains are offsets from 1
    qk_norm: str | Callable[[Hyperparameters], str] = "none"
    qk_norm_last: bool = False  # it follows the rotation
    clip_qkv: Callable[[Hyperparameters], float | None] = lambda f: None
    gated: bool = True
    # of the activation: tensors of a layer with their shapes, and the constants of csrc/ops/mlp.h from the numbers in them
    act_tensors: Callable[[Hyperparameters], Mapping[str, tuple[int, ...]]] = lambda f: {}
    act_constants: Callable[[Hyperparameters, list[float]], tuple[float, ...]] = lambda f, stored: tuple(stored)
    parallel: bool | Callable[[Hyperparameters], bool] = False
    rope: RopeKeys | None = RopeKeys()
    rope_style: str | Callable[[Hyperparameters], str] = "half"
    rope_index: Callable[[Hyperparameters, int, str], int] = lambda f, i, layer_type: 0
    sliding: Callable[[Hyperparameters, int], bool] = lambda f, i: False  # of a layer if the config lists no layer types
    attn_scale: Callable[[Hyperparameters, int], float] = lambda f, i: f.head_dim**-0.5
    key_bias: Callable[[Hyperparameters], NDArray[Any] | None] | None = None  # (NH, n_ctx), see Spec
    # see Spec; with the rotary settings
    temper: Callable[[Hyperparameters, Mapping[str, Any]], tuple[float, int, int] | None] = lambda f, rotary: None
    tempered: Callable[[Hyperparameters, int], bool] = lambda f, i: True  # whether a layer has it
    attn_softcap: Callable[[Hyperparameters], float | None] = lambda f: None
    logit_softcap: Callable[[Hyperparameters], float | None] = lambda f: None
    embed_scale: Callable[[Hyperparameters], float] = lambda f: 1.0
    resid_scale: Callable[[Hyperparameters], float] = lambda f: 1.0
    logit_scale: Callable[[Hyperparameters], float] = lambda f: 1.0
    adds_residual: tuple[str, ...] = ()  # of "o" and "down": the module around this projection adds the residual stream, too


def absent_parts(family: Family, f: Hyperparameters) -> dict[int, str]:
    """What a layer lacks: layer → "mixer" or "mlp"."""
    alone = {i for i in range(f.n_layers) if f.layer_types and (at := family.mixers.get(f.layer_types[i])) and at.kind == "none"}
    return {i: "mixer" if i in alone else "mlp" for i in range(f.n_layers) if i in alone or not family.has_mlp(f, i)}


def value_of(value: Any, hparams: Hyperparameters) -> Any:
    """The value of a column for a config: constant, or a function of the hyperparameters."""
    return value(hparams) if callable(value) else value
