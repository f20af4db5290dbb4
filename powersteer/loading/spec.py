"""Sizes, block table and weights of a model: the Python twin of csrc/ops/spec.h.

Alphabet: L layers, C = d_model, NH query heads, NKV key/value heads, HS = head_dim, F = d_ff, E experts of width FE.

Matrices stay as the checkpoint stores them: views of any strides, dtype float32, float64, float16, or uint16 for the
bits of a bfloat16; or Blocks, if they are quantised. They are (out, in), or (groups, rows, in) where the rows of one
projection are interleaved with others'. Vectors (norms, biases) are small and already widened to float32 or float64.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .blocks import Array, Blocks, Matrix

__all__ = ["MATRICES", "NORMS", "STORED", "VECTORS", "Array", "Expert", "Layer", "Norm", "Spec"]

MATRICES = ("q", "k", "v", "o", "gate", "up", "down")
VECTORS = ("q_bias", "k_bias", "v_bias", "o_bias", "gate_bias", "up_bias", "down_bias")
NORMS = ("norm1", "post1", "norm2", "post2", "q_norm", "k_norm")
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


@dataclass(frozen=True)
class Layer:
    """One block. It has an MLP (up, down, gate) or a mixture (router, experts)."""

    window: int  # key j is seen from i if i - window < j <= i; 0: no limit
    rope: int  # index into Spec.rope, -1: no rotation
    attn_scale: float  # scores = attn_scale * q.k
    q: Matrix  # (NH*HS, C)
    k: Matrix  # (NKV*HS, C)
    v: Matrix  # (NKV*HS, C)
    o: Matrix  # (C, NH*HS)
    up: Matrix | None = None  # (F, C)
    down: Matrix | None = None  # (C, F)
    gate: Matrix | None = None  # (F, C)
    router: Matrix | None = None  # (E, C)
    experts: tuple[Expert, ...] = ()
    norm1: Norm | None = None  # (C)
    post1: Norm | None = None
    norm2: Norm | None = None
    post2: Norm | None = None
    q_norm: Norm | None = None  # (NH*HS)
    k_norm: Norm | None = None  # (NKV*HS)
    q_bias: Array | None = None
    k_bias: Array | None = None
    v_bias: Array | None = None
    o_bias: Array | None = None
    gate_bias: Array | None = None
    up_bias: Array | None = None
    down_bias: Array | None = None


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
    act: str  # "silu" | "gelu" | "gelu_tanh" | "relu" | "relu2"
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
    n_experts: int = 0  # E; 0: no layer has a mixture
    top_k: int = 0  # experts a token takes
    d_expert: int = 0  # FE
    n_ctx_why: str = ""  # why the context ends there, if the checkpoint has a reason
    norm_topk: bool = False  # the weights of the chosen experts sum to 1

    @property
    def post_norms(self) -> bool:
        """Whether outputs of attention or MLP are normalised before they are added."""
        return any(layer.post1 is not None or layer.post2 is not None for layer in self.layers[:1])

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
        experts = (expert for layer in self.layers for expert in layer.experts)
        for owner in (self, *self.layers, *experts):
            for value in vars(owner).values():
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
        mixture = {name: getattr(self, name) for name in _MIXTURE} if self.n_experts else {}
        spec = {**scalars, **mixture, "rope": list(self.rope), **({} if resident is None else {"resident": resident})}
        layers = [_core_layer(layer, real) for layer in self.layers]
        top: dict[str, Any] = {
            "embed": _core_matrix(self.embed),
            "lm_head": _core_matrix(self.lm_head),
            "final_norm": _core_norm(self.final_norm, real),
        }
        if self.pos_embed is not None:
            top["pos_embed"] = _core_matrix(self.pos_embed)
        if self.lm_head_bias is not None:
            top["lm_head_bias"] = _core_vector(self.lm_head_bias, real)
        return spec, layers, top


_SCALARS = (
    "n_layers", "d_model", "n_vocab", "n_heads", "n_kv_heads", "head_dim", "d_ff", "n_ctx", "norm", "norm_eps",
    "qk_norm", "parallel", "gated", "act", "rope_style", "rope_dim", "attn_softcap", "logit_softcap", "embed_scale",
    "resid_scale", "logit_scale",
)  # fmt: skip
_MIXTURE = ("n_experts", "top_k", "d_expert", "norm_topk")


def _core_layer(layer: Layer, real: np.dtype[Any]) -> dict[str, Any]:
    out: dict[str, Any] = {"window": layer.window, "rope": layer.rope, "attn_scale": layer.attn_scale}
    for name in MATRICES:
        if (matrix := getattr(layer, name)) is not None:
            out[name] = _core_matrix(matrix)
    if layer.router is not None:
        out["router"] = _core_matrix(layer.router)
        out["experts"] = [
            {name: _core_matrix(matrix) for name, matrix in vars(expert).items() if matrix is not None}
            for expert in layer.experts
        ]
    for name in VECTORS:
        if (vector := getattr(layer, name)) is not None:
            out[name] = _core_vector(vector, real)
    for name in NORMS:
        if (norm := getattr(layer, name)) is not None:
            out[name] = _core_norm(norm, real)
    return out


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
