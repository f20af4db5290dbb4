"""A Spec from hyperparameters and named tensors: every tensor is found, has the right shape and is used; none is left."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import numpy as np

from ..errors import BadCheckpoint, UnsupportedModel
from .blocks import BLOCK_TYPES, Blocks, Matrix, dense
from .config import rope_settings
from .experts import one_by_one, read_experts
from .family import Family, Hyperparameters, Linear, NormAt, value_of
from .rope import RopeTable, rope_table
from .spec import Array, Layer, Norm, Spec
from .tensor_ref import TensorRef, check_finite

__all__ = ["TensorReader", "build_spec", "fingerprint"]

# Activations: name in transformers → name in the core. "gelu_fast", "gelu_accurate" and "gelu_new" are one formula.
_ACTS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "relu": "relu",
    "relu2": "relu2",
}


@dataclass
class TensorReader:
    """The tensors of a checkpoint, and a record of the tensors that were read."""

    tensors: Mapping[str, TensorRef]
    where: str
    finite: bool  # check every weight as it is taken; vectors always are
    used: dict[str, str] = field(default_factory=dict)  # name → name without prefix
    copies: set[str] = field(default_factory=set)  # tensors that repeat another
    prefix: str = ""

    def matrix(self, name: str, shape: tuple[int, ...], prefix: str | None = None) -> Matrix:
        """A weight as stored. Raises BadCheckpoint if it is missing, misshapen or, if that is checked, not finite."""
        tensor = self._take(name, shape, self.prefix if prefix is None else prefix)
        matrix = tensor.view()
        if self.finite:
            check_finite(tensor, matrix)
        return matrix

    def vector(self, name: str, shape: tuple[int, ...], prefix: str | None = None) -> Array:
        """A small tensor, widened to float32 or float64."""
        tensor = self._take(name, shape, self.prefix if prefix is None else prefix)
        check_finite(tensor, tensor.view())
        return tensor.numbers()

    def search(self) -> None:
        """Raise BadCheckpoint if a tensor that was read holds a NaN or an infinity."""
        for name in self.used:
            check_finite(self.tensors[name], self.tensors[name].view())

    def _take(self, name: str, shape: tuple[int, ...], prefix: str) -> TensorRef:
        tensor = self.tensors.get(prefix + name)
        if tensor is None:
            raise BadCheckpoint(
                f"there is no tensor {prefix + name!r} in {self.where}, which its config asks for; "
                "the download is incomplete or the config belongs to another model"
            )
        if tensor.shape != shape:
            raise BadCheckpoint(
                f"tensor {prefix + name!r} in {tensor.where} has shape {tensor.shape} where the config says {shape}; "
                "one of them belongs to another model"
            )
        self.used[tensor.name] = name
        return tensor


def build_spec(config: Mapping[str, Any], family: Family, hparams: Hyperparameters, reader: TensorReader, where: str) -> Spec:
    """The model. where: names the config in messages. Raises BadCheckpoint and UnsupportedModel."""
    f = hparams
    if f.act not in _ACTS:
        raise UnsupportedModel(
            f"{where} has the activation {f.act!r}; supported are {', '.join(_ACTS)}. Use transformers for this model"
        )
    reader.prefix = _find_prefix(family, reader)
    if family.experts is not None:
        prefixes = [reader.prefix + family.layer.format(i=i) for i in range(f.n_layers)]
        reader.tensors = one_by_one(reader.tensors, family.experts, prefixes, f)
    embed = reader.matrix(family.embed + ".weight", (f.n_vocab, f.d_model))
    pos_embed = reader.matrix(family.pos_embed + ".weight", (f.n_ctx, f.d_model)) if family.pos_embed else None
    final_norm = _norm(family, NormAt(family.final_norm, "final"), family.final_norm, f.d_model, 1, reader)
    lm_head, lm_head_bias = _lm_head(family, f, reader, embed)
    layers = tuple(_layer(family, f, reader, i, where) for i in range(f.n_layers))
    _refuse_extra(family, reader)
    tables = _rope_tables(config, family, f, where)
    return Spec(
        n_layers=f.n_layers,
        d_model=f.d_model,
        n_vocab=f.n_vocab,
        n_heads=f.n_heads,
        n_kv_heads=f.n_kv_heads,
        head_dim=f.head_dim,
        d_ff=f.d_ff,
        n_ctx=f.n_ctx,
        n_ctx_why=next((table.limit for table in tables if table.limit), ""),
        norm=family.norm,
        norm_eps=float(f.norm_eps),
        qk_norm=value_of(family.qk_norm, f),
        parallel=bool(value_of(family.parallel, f)),
        gated=family.gated,
        act=_ACTS[f.act],
        rope_style=family.rope_style,
        rope_dim=2 * len(tables[0].inv_freq) if tables else 0,
        attn_softcap=float(family.attn_softcap(f) or 0.0),
        logit_softcap=float(family.logit_softcap(f) or 0.0),
        embed_scale=float(family.embed_scale(f)),
        resid_scale=float(family.resid_scale(f)),
        logit_scale=float(family.logit_scale(f)),
        rope=tuple((table.inv_freq, table.scale, *(table.long or ())) for table in tables),
        layers=layers,
        embed=embed,
        pos_embed=pos_embed,
        final_norm=final_norm,
        lm_head=lm_head,
        lm_head_bias=lm_head_bias,
        **({name: getattr(f, name) for name in ("n_experts", "top_k", "d_expert", "norm_topk")} if f.n_experts else {}),
    )


def fingerprint(reader: TensorReader, model_type: str) -> str:
    """A hash of the weights that were used: names, dtypes, shapes and 256 bytes from the middle of each, of blocks when
    decoded to float32.

    It does not read the whole file, and does not depend on how the checkpoint is split into files.
    """
    digest = sha256(model_type.encode())
    for name, short in sorted(reader.used.items(), key=lambda item: item[1]):
        tensor, matrix = reader.tensors[name], reader.tensors[name].view()
        dtype, middle = "F32" if tensor.dtype in BLOCK_TYPES else tensor.dtype, matrix.size // 2
        if isinstance(matrix, Blocks):  # the rows that hold the middle
            width = matrix.shape[1]
            first = middle // width
            matrix, middle = matrix[first : (middle + 63) // width + 1].decode(), middle - first * width
        sample = matrix.flat[middle : middle + 256 // matrix.itemsize]
        digest.update(f"{short}\0{dtype}\0{tensor.shape}\0".encode() + sample.tobytes())
    return digest.hexdigest()


# ---- tensors ---------------------------------------------------------------------------------------------------------


def _find_prefix(family: Family, reader: TensorReader) -> str:
    for prefix in family.prefixes:
        if prefix + family.embed + ".weight" in reader.tensors:
            return prefix
    return family.prefixes[0]


def _lm_head(family: Family, f: Hyperparameters, reader: TensorReader, embed: Matrix) -> tuple[Matrix, Array | None]:
    """Matrix and bias of the LM head; the matrix of a tied one is the embedding."""
    path = next((path for path in family.head if path + ".weight" in reader.tensors), family.head[0])
    bias = reader.vector(path + ".bias", (f.n_vocab,), prefix="") if family.head_bias else None
    if f.tied and path + ".weight" not in reader.tensors:
        return embed, bias
    head = reader.matrix(path + ".weight", (f.n_vocab, f.d_model), prefix="")
    reader.used[path + ".weight"] = family.head[0] + ".weight"
    if not f.tied:
        return head, bias
    if not _same(head, embed):
        raise BadCheckpoint(
            f"{reader.where} holds {path}.weight, which differs from the embedding that the config ties it to "
            "(tie_word_embeddings); set that to false to use it, or remove the tensor"
        )
    del reader.used[path + ".weight"]
    reader.copies.add(path + ".weight")
    return embed, bias


def _same(a: Matrix, b: Matrix) -> bool:
    """Whether two matrices are stored as the same bits, compared in pieces."""
    if isinstance(a, Blocks) and isinstance(b, Blocks):
        return a.kind == b.kind and _same(a.data, b.data) and np.array_equal(a.factors, b.factors)  # type: ignore[arg-type]
    if isinstance(a, Blocks) or isinstance(b, Blocks):
        return False
    if a.dtype != b.dtype:
        return False
    if a.__array_interface__["data"] == b.__array_interface__["data"] and a.strides == b.strides:
        return True
    bits = np.dtype(f"u{a.dtype.itemsize}")
    step = max(1, (1 << 20) // max(1, a.shape[1]))
    return all(np.array_equal(a[i : i + step].view(bits), b[i : i + step].view(bits)) for i in range(0, len(a), step))


def _layer(family: Family, f: Hyperparameters, reader: TensorReader, i: int, where: str) -> Layer:
    prefix = family.layer.format(i=i)
    slots: dict[str, Any] = {}
    mixture = family.experts if family.experts is not None and family.experts.when(f, i) else None
    if mixture is not None:
        slots["router"], slots["experts"] = read_experts(reader.matrix, mixture, prefix, f)
    for linear in family.linears:
        if mixture is not None and linear.slots[0] in ("gate", "up", "down"):
            continue
        slots.update(_linear(linear, prefix + linear.path, f, reader))
    heads = {"q_norm": f.n_heads, "k_norm": f.n_kv_heads}
    for at in family.norms:
        if value_of(at.when, f):
            width = f.d_model if at.slot not in heads else heads[at.slot] * f.head_dim
            slots[at.slot] = _norm(family, at, prefix + at.path, width, heads.get(at.slot, 1), reader)
    layer_type = _layer_type(family, f, i, where)
    return Layer(
        window=f.window if layer_type == "sliding_attention" else 0,
        rope=family.rope_index(f, i, layer_type),
        attn_scale=float(family.attn_scale(f, i)),
        **slots,
    )


def _layer_type(family: Family, f: Hyperparameters, i: int, where: str) -> str:
    if f.layer_types is None:
        return "sliding_attention" if family.sliding(f, i) else "full_attention"
    layer_type: str = f.layer_types[i]
    if layer_type not in ("full_attention", "sliding_attention"):
        raise UnsupportedModel(
            f"{where} gives layer {i} the type {layer_type!r}; supported are full_attention and sliding_attention. "
            "Use transformers for this model"
        )
    if layer_type == "sliding_attention" and f.window is None:
        raise BadCheckpoint(f"{where} makes layer {i} a sliding_attention without a window in use; correct it")
    return layer_type


def _linear(linear: Linear, path: str, f: Hyperparameters, reader: TensorReader) -> dict[str, Matrix]:
    """The slots of one projection, views of its weight, and their biases."""
    q, kv = f.n_heads * f.head_dim, f.n_kv_heads * f.head_dim
    n_out = {"q": q, "k": kv, "v": kv, "o": f.d_model, "gate": f.d_ff, "up": f.d_ff, "down": f.d_model}
    n_in = {"o": q, "down": f.d_ff}.get(linear.slots[0], f.d_model)
    sizes = [n_out[slot] for slot in linear.slots]
    shape = (n_in, sum(sizes)) if linear.transposed else (sum(sizes), n_in)
    weight = reader.matrix(path + ".weight", shape)
    if linear.transposed:
        weight = dense(weight).T
    slots: dict[str, Matrix] = dict(zip(linear.slots, _split(linear, weight, sizes, f.head_dim), strict=True))
    if value_of(linear.bias, f):
        bias = reader.vector(path + ".bias", (sum(sizes),))
        parts = _split(linear, bias, sizes, f.head_dim)
        slots.update({slot + "_bias": part.reshape(-1) for slot, part in zip(linear.slots, parts, strict=True)})
    return slots


def _split(linear: Linear, array: Matrix, sizes: list[int], head_dim: int) -> list[Any]:
    if linear.layout == "heads":  # (heads * slots * HS, ...): each slot's rows are a group a head
        groups = dense(array).reshape(-1, len(sizes), head_dim, *array.shape[1:])
        return [groups[:, j] for j in range(len(sizes))]
    starts = np.cumsum([0, *sizes])
    return [array[start : start + size] for start, size in zip(starts, sizes, strict=False)]


def _norm(family: Family, at: NormAt, path: str, width: int, heads: int, reader: TensorReader) -> Norm:
    """A norm of `width` numbers, which cover `heads` heads."""

    def part(name: str) -> Array:
        if at.layout == "listed":
            return np.concatenate([reader.vector(f"{path}.norms.{h}.{name}", (width // heads,)) for h in range(heads)])
        if at.layout == "shared":
            return np.tile(reader.vector(f"{path}.{name}", (width // heads,)), heads)
        if at.layout == "per_head":
            return reader.vector(f"{path}.{name}", (heads, width // heads)).reshape(-1)
        return reader.vector(f"{path}.{name}", (width,))

    gain = part("weight")
    if family.norm_one_plus:
        gain = 1 + gain.astype(np.float64)
    with_bias = family.norm_bias if at.bias is None else at.bias
    return Norm(gain, part("bias") if with_bias else None)


def _refuse_extra(family: Family, reader: TensorReader) -> None:
    for name, tensor in reader.tensors.items():
        short = name.removeprefix(reader.prefix)
        if name not in reader.used and name not in reader.copies and not re.fullmatch(family.not_weights, short):
            raise BadCheckpoint(
                f"tensor {name!r} in {tensor.where} does not belong to a {family.model_type} model with this "
                "config; the config belongs to another model, or the tensor should be removed"
            )


# ---- positions -------------------------------------------------------------------------------------------------------


def _rope_tables(config: Mapping[str, Any], family: Family, f: Hyperparameters, where: str) -> list[RopeTable]:
    if family.rope is None:
        return []
    return [
        rope_table(values, name, f.head_dim, f.n_ctx, f.original_positions, family.rope.round_up)
        for values, name in rope_settings(config, family.rope, where)
    ]
