"""Sizes, block table and weights of a model: the Python twin of csrc/ops/spec.h.

Alphabet: L layers, C = d_model, NH query heads, NKV key/value heads, HS = head_dim, F = d_ff, E experts of width FE.

Matrices stay as the checkpoint stores them: views of any strides, dtype float32, float64, float16, or uint16 for the
bits of a bfloat16; or Blocks, if they are quantised. They are (out, in), or (groups, rows, in) where the rows of one
projection are interleaved with others'. Vectors (norms, biases) are small and already widened to float32 or float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..inputs.sites import ABSENT, SITES
from .blocks import Array, Blocks, Matrix

__all__ = ["INPUTS", "LATENT", "MATRICES", "MIXTURE", "NORMS", "STORED", "VECTORS", "Array", "Expert", "Layer", "Norm", "Spec"]

MATRICES = ("q_a", "kv_b", "q", "k", "v", "o", "z", "a", "b", "gate", "up", "down", "in_proj", "in_gate", "in_out")  # that multiply rows
VECTORS = (
    "q_a_bias", "q_bias", "k_bias", "v_bias", "o_bias", "z_bias", "a_bias", "gate_bias", "up_bias", "down_bias", "router_bias",
    "correction", "sinks", "conv", "conv_bias", "decay_rate", "decay_bias", "skip",
)  # fmt: skip
NORMS = ("norm1", "post1", "norm2", "post2", "q_norm", "k_norm", "o_norm", "q_a_norm", "kv_norm", "v_norm", "in_norm", "post_in")
# dtype of an array → the name of what is stored in it
STORED = {"float32": "F32", "float64": "F64", "float16": "F16", "uint16": "BF16"}


@dataclass(frozen=True)
class Norm:
    """Gain as multiplied ("1 + w" is already added) and bias; None means 1 and 0."""

    gain: Array | None = None
    bias: Array | None = None


@dataclass(frozen=True)
class Expert:
    up: Matrix  # (FE, C)
    down: Matrix  # (C, FE)
    gate: Matrix | None = None  # (FE, C)
    gate_bias: Array | None = None
    up_bias: Array | None = None
    down_bias: Array | None = None


@dataclass(frozen=True)
class Layer:
    """One block. It has an MLP (up, down, gate), a mixture (router, experts), or neither. The sizes of q, k, v and o are those of
    attention; a short convolution has (C, C) for each, a delta rule or a state space with NK and NV heads of HK and HV numbers (NK*HK, C),
    (NK*HK, C), (NV*HV, C) and (C, NV*HV). csrc/ops/spec.h says what each mixer computes."""

    window: int  # key j is seen from i if i - window < j <= i; 0: no limit
    rope: int  # index into Spec.rope, -1: no rotation
    attn_scale: float  # scores = attn_scale * q.k
    q: Matrix | None = None  # (NH*HS, C); absent, as k and o, where there is no mixer
    k: Matrix | None = None  # (NKV*HS, C); absent, too, if the layer sees the keys of another
    o: Matrix | None = None  # (C, NH*HS)
    v: Matrix | None = None  # (NKV*HS, C); absent of latent attention, and where values are the keys before norm and rotation
    head_dim: int | None = None  # HS, NKV and F of this layer, None: the model's
    n_kv_heads: int | None = None
    d_ff: int | None = None
    keys_of: int | None = None  # the earlier layer whose keys and values are seen, None: its own
    up: Matrix | None = None  # (F, C)
    down: Matrix | None = None  # (C, F)
    gate: Matrix | None = None  # (F, C)
    router: Matrix | None = None  # (E, C)
    experts: tuple[Expert, ...] = ()
    shared: Expert | None = None  # that every token takes, of width d_shared
    shared_gate: Matrix | None = None  # (1, C)
    router_bias: Array | None = None  # (E)
    correction: Array | None = None  # (E) added to the router's probabilities to choose by
    sinks: Array | None = None  # (NH) score of a key without a value
    norm1: Norm | None = None  # (C)
    post1: Norm | None = None
    norm2: Norm | None = None
    post2: Norm | None = None
    q_norm: Norm | None = None  # (NH*HS)
    k_norm: Norm | None = None  # (NKV*HS)
    v_norm: Norm | None = None  # (NKV*HS), RMS over each head
    q_bias: Array | None = None
    k_bias: Array | None = None
    v_bias: Array | None = None
    o_bias: Array | None = None
    gate_bias: Array | None = None
    up_bias: Array | None = None
    down_bias: Array | None = None
    q_a: Matrix | None = None  # of latent attention, see csrc/ops/latent.h
    kv_b: Matrix | None = None
    q_a_bias: Array | None = None
    q_a_norm: Norm | None = None
    kv_norm: Norm | None = None
    mixer: str = "attention"  # | "conv": a gated short convolution | "delta": the gated delta rule | "mamba": a state space | "none"
    z: Matrix | None = None  # (columns of o, C): gate of what o takes
    a: Matrix | None = None  # (NV, C): decay and strength of a delta rule; steps of a state space, which has no b
    b: Matrix | None = None
    z_bias: Array | None = None
    a_bias: Array | None = None
    conv: Array | None = None  # (conv_taps, channels): the taps of each channel, its own row's last
    conv_bias: Array | None = None  # (channels)
    decay_rate: Array | None = None  # (NV)
    decay_bias: Array | None = None
    skip: Array | None = None  # (NV)
    o_norm: Norm | None = None  # (NV*HV)
    act_constants: tuple[float, ...] = ()  # of the activation: see csrc/ops/mlp.h
    chunk: int = 0  # key j is seen from i if j // chunk = i // chunk; 0: no limit
    tempered: bool = True  # queries have the temperature of their position, if there is one
    in_embed: Matrix | None = None  # (n_vocab, P): of a per-layer input, see csrc/model/layer_input.h
    in_proj: Matrix | None = None  # (P, C)
    in_gate: Matrix | None = None  # (P, C)
    in_out: Matrix | None = None  # (C, P)
    in_norm: Norm | None = None  # (P)
    post_in: Norm | None = None  # (C)
    out_scale: float = 1.0  # multiplies the block's output

    @property
    def every_expert(self) -> tuple[Expert, ...]:
        """The experts and the shared one."""
        return self.experts if self.shared is None else (*self.experts, self.shared)


@dataclass(frozen=True)
class Spec:
    n_layers: int
    d_model: int
    n_vocab: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    d_ff: int
    n_ctx: int  # longest sequence that the checkpoint is made for
    norm: str  # "rms" | "layer"
    norm_eps: float
    qk_norm: str  # "none" | "head" | "full"
    parallel: bool  # attention and MLP both read the block's input
    gated: bool  # h = act(gate) * up, else h = act(up)
    act: str  # "silu" | "gelu" | "gelu_tanh" | "relu" | "relu2" | "silu_clamped" | "xielu"
    rope_style: str  # "half": pairs (i, i + dim/2) | "interleaved": (2i, 2i + 1)
    rope_dim: int  # leading dimensions of a head that are rotated
    attn_softcap: float  # c * tanh(x / c); 0.0: none
    logit_softcap: float
    embed_scale: float
    resid_scale: float  # multiplies the outputs of attention and MLP
    logit_scale: float
    # (inv_freq (rope_dim/2,), scale of cos and sin), and if it changes (..., inv_freq of sequences longer than, this)
    rope: tuple[tuple[NDArray[np.float64], float] | tuple[NDArray[np.float64], float, NDArray[np.float64], int], ...]
    layers: tuple[Layer, ...]
    embed: Matrix  # (n_vocab, C)
    final_norm: Norm
    lm_head: Matrix  # (n_vocab, C)
    pos_embed: Matrix | None = None  # (n_ctx, C)
    lm_head_bias: Array | None = None  # (n_vocab)
    embed_norm: Norm | None = None  # of the embedding, positions included
    qk_norm_last: bool = False  # the qk-norm follows the rotation
    clip_qkv: float = 0.0  # q, k and v are limited to +- this; 0.0: not
    temper: tuple[float, int, int] | None = None  # (rate, length, offset): of position p 1 + rate log(1 + (p + offset) // length)
    key_bias: Array | None = None  # (NH, n_ctx), added to the scores of the key at a position (ALiBi); no weight
    n_experts: int = 0  # E; 0: no layer has a mixture
    top_k: int = 0  # experts a token takes
    d_expert: int = 0  # FE
    n_ctx_why: str = ""  # why the context ends there, if the checkpoint has a reason
    norm_topk: bool = False  # the weights of the chosen experts sum to 1
    d_shared: int = 0  # width of the shared expert
    route: str = "softmax"  # | "sigmoid" | "sparsemixer": see csrc/ops/route.h
    route_scale: float = 1.0  # multiplies the weights of the chosen experts
    route_jitter: float = 0.0  # of "sparsemixer"
    n_groups: int = 1  # groups of experts
    top_groups: int = 1  # groups that a token may choose from
    scale_input: bool = False  # the weight of an expert multiplies its input instead of its output
    q_rank: int = 0  # of latent attention: that of queries, 0: they are not of low rank
    kv_rank: int = 0  # R; 0: there is none, heads have keys and values of their own
    v_dim: int = 0  # VD
    latent_eps: float = 0.0
    conv_taps: int = 0  # of the convolutions in layers without attention; 0: there are none
    state_k_heads: int = 0  # of delta rules and state spaces; 0: there are none
    state_v_heads: int = 0
    state_k_dim: int = 0
    state_v_dim: int = 0
    state_tiled: bool = False  # value head h has key head h % NK instead of h // (NV / NK)
    step_limit: tuple[float, float] = (0.0, math.inf)  # of a state space
    d_input: int = 0  # P, numbers of a per-layer input; 0: there are none
    input_scale: float = 1.0
    input_eps: float = 0.0

    @cached_property
    def absent(self) -> dict[int, str]:
        """What a layer lacks: layer → "mixer" or "mlp"."""
        found = {i: "mlp" for i, layer in enumerate(self.layers) if layer.up is None and layer.router is None}
        return found | {i: "mixer" for i, layer in enumerate(self.layers) if layer.mixer == "none"}

    def sites(self, layer: int) -> list[str]:
        """The sites of a layer at which vectors can act."""
        lacks = ABSENT.get(self.absent.get(layer, ""), ())
        return [site for site in SITES if site not in lacks and not (site == "resid_mid" and self.parallel)]

    @property
    def post_norms(self) -> bool:
        """Whether outputs of attention or MLP are normalised before they are added."""
        return any(layer.post1 is not None or layer.post2 is not None for layer in self.layers[:1])

    def cached(self, layer: Layer) -> int:
        """Numbers that the cache keeps of a token in a layer with attention."""
        if layer.k is None:  # those of another
            return 0
        if self.kv_rank:
            return self.kv_rank + self.rope_dim
        return 2 * (layer.n_kv_heads or self.n_kv_heads) * (layer.head_dim or self.head_dim)

    @property
    def nbytes(self) -> int:
        """Bytes of all weights as stored; a tied head counts once."""
        return sum(n_bytes for _, n_bytes in self.stored.values())

    @property
    def n_params(self) -> int:
        """Number of weights; a tied head counts once."""
        return sum(weight.size for weight in self._once())

    @cached_property
    def stored(self) -> dict[str, tuple[int, int]]:
        """Type of number or block → (how many weights have it, their bytes), the most bytes first. A weight is a matrix or
        a vector; a tied head counts once."""
        found: dict[str, tuple[int, int]] = {}
        for weight in self._once():
            name = weight.kind if isinstance(weight, Blocks) else STORED[str(weight.dtype)]
            count, n_bytes = found.get(name, (0, 0))
            found[name] = count + 1, n_bytes + weight.nbytes
        return dict(sorted(found.items(), key=lambda item: -item[1][1]))

    @property
    def stored_text(self) -> str:
        """`stored` as text, such as "Q4_K 132.1 MB (120), F32 0.3 MB (49)"."""
        return ", ".join(f"{name} {n_bytes / 1e6:.1f} MB ({count})" for name, (count, n_bytes) in self.stored.items())

    def arrays(self) -> Iterator[Matrix]:
        """Every matrix and vector of the model, tied ones as often as they are used."""
        experts = (expert for layer in self.layers for expert in layer.every_expert)
        for owner in (self, *self.layers, *experts):
            for name, value in vars(owner).items():
                if name == "key_bias":
                    continue
                if isinstance(value, (np.ndarray, Blocks)):
                    yield value
                elif isinstance(value, Norm):
                    yield from (part for part in (value.gain, value.bias) if part is not None)

    def _once(self) -> Iterable[Matrix]:
        return {_address(weight): weight for weight in self.arrays()}.values()

    def to_core(self, real: DTypeLike, resident: int | None = None) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]:
        """Arguments (spec, layers, top) of the C core's Model. real: its scalar, float32 or float64. resident: the first layers
        that stay in memory; None: all.

        Matrices are handed over as they are, Blocks as tuples; vectors become contiguous arrays of `real`.
        """
        real = np.dtype(real)
        scalars = {name: getattr(self, name) for name in _SCALARS}
        mixture = {name: getattr(self, name) for name in MIXTURE} if self.n_experts else {}
        states = {name: getattr(self, name) for name in _STATES if getattr(self, name)}
        states |= {name: getattr(self, name) for name in LATENT if self.kv_rank}
        states |= {name: getattr(self, name) for name in INPUTS if self.d_input}
        spec = {**scalars, **mixture, **states, "rope": list(self.rope), **({} if resident is None else {"resident": resident})}
        if self.step_limit != (0.0, math.inf):
            low, high = self.step_limit
            spec |= {"step_min": low} | ({"step_max": high} if math.isfinite(high) else {})
        if self.temper is not None:
            spec["temper"] = self.temper
        layers = [_core_layer(layer, real) for layer in self.layers]
        top: dict[str, Any] = {
            "embed": _core_matrix(self.embed),
            "lm_head": _core_matrix(self.lm_head),
            "final_norm": _core_norm(self.final_norm, real),
        }
        if self.pos_embed is not None:
            top["pos_embed"] = _core_matrix(self.pos_embed)
        if self.embed_norm is not None:
            top["embed_norm"] = _core_norm(self.embed_norm, real)
        if self.key_bias is not None:
            top["key_bias"] = _core_vector(self.key_bias.reshape(-1), real)
        if self.lm_head_bias is not None:
            top["lm_head_bias"] = _core_vector(self.lm_head_bias, real)
        return spec, layers, top


_SCALARS = (
    "n_layers", "d_model", "n_vocab", "n_heads", "n_kv_heads", "head_dim", "d_ff", "n_ctx", "norm", "norm_eps",
    "qk_norm", "parallel", "gated", "act", "rope_style", "rope_dim", "attn_softcap", "logit_softcap", "embed_scale",
    "resid_scale", "logit_scale", "qk_norm_last", "clip_qkv",
)  # fmt: skip
MIXTURE = ("n_experts", "top_k", "d_expert", "norm_topk", "d_shared", "route", "route_scale", "route_jitter", "n_groups",
           "top_groups", "scale_input")  # fmt: skip
LATENT = ("q_rank", "kv_rank", "v_dim", "latent_eps")
INPUTS = ("d_input", "input_scale", "input_eps")
_STATES = ("conv_taps", "state_k_heads", "state_v_heads", "state_k_dim", "state_v_dim", "state_tiled")


_OF_LAYER = ("head_dim", "n_kv_heads", "d_ff", "keys_of", "out_scale")


def _core_layer(layer: Layer, real: np.dtype[Any]) -> dict[str, Any]:
    out: dict[str, Any] = {"window": layer.window, "rope": layer.rope, "attn_scale": layer.attn_scale}
    if layer.act_constants:
        out["act_constants"] = layer.act_constants
    if layer.mixer != "attention":
        out["mixer"] = layer.mixer
    if layer.chunk:
        out["chunk"] = layer.chunk
    if not layer.tempered:
        out["tempered"] = False
    out |= {name: getattr(layer, name) for name in _OF_LAYER if getattr(layer, name) is not None}
    for name in (*MATRICES, "in_embed"):
        if (matrix := getattr(layer, name)) is not None:
            out[name] = _core_matrix(matrix)
    if layer.router is not None:
        out["router"] = _core_matrix(layer.router)
        out["experts"] = [_core_expert(expert, real) for expert in layer.experts]
    if layer.shared is not None:
        out["shared"] = _core_expert(layer.shared, real)
    if layer.shared_gate is not None:
        out["shared_gate"] = _core_matrix(layer.shared_gate)
    for name in VECTORS:
        if (vector := getattr(layer, name)) is not None:
            out[name] = _core_vector(vector, real)
    for name in NORMS:
        if (norm := getattr(layer, name)) is not None:
            out[name] = _core_norm(norm, real)
    return out


def _core_expert(expert: Expert, real: np.dtype[Any]) -> dict[str, Any]:
    parts = {name: value for name, value in vars(expert).items() if value is not None}
    return {name: _core_vector(value, real) if name.endswith("_bias") else _core_matrix(value) for name, value in parts.items()}


def _core_matrix(matrix: Matrix) -> Any:
    return matrix.to_core() if isinstance(matrix, Blocks) else matrix


def _core_norm(norm: Norm, real: np.dtype[Any]) -> tuple[Array | None, Array | None]:
    return (
        None if norm.gain is None else _core_vector(norm.gain, real),
        None if norm.bias is None else _core_vector(norm.bias, real),
    )


def _core_vector(vector: Array, real: np.dtype[Any]) -> Array:
    return np.ascontiguousarray(vector, dtype=real)


def _address(weight: Matrix) -> tuple[int, tuple[int, ...]]:
    array = weight.data if isinstance(weight, Blocks) else weight
    return array.__array_interface__["data"][0], weight.shape
