"""A Spec from hyperparameters and named tensors: every tensor is found, has the right shape and is used; none is left."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import pairwise, repeat
from typing import Any

import numpy as np

from ..errors import BadCheckpoint, UnsupportedModel
from .blocks import BLOCK_TYPES, Blocks, Matrix, dense
from .config import rope_settings
from .experts import one_by_one, read_experts
from .family import Family, Hyperparameters, Linear, Mixer, NormAt, value_of
from .rope import RopeTable, rope_table, score_scale
from .spec import INPUTS, LATENT, MIXTURE, Array, Layer, Norm, Spec
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
    "xielu": "xielu",
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
    if f.act not in _ACTS or (f.act == "xielu" and not family.act_tensors(f)):  # whose numbers are tensors
        raise UnsupportedModel(
            f"{where} has the activation {f.act!r}; supported are {', '.join(_ACTS)}. Use transformers for this model"
        )
    if f.kv_rank and f.n_heads != f.n_kv_heads:
        raise BadCheckpoint(f"{where}: {f.n_heads} heads have {f.n_kv_heads} keys made of a latent vector; correct it")
    reader.prefix = _find_prefix(family, reader)
    if family.experts is not None:
        prefixes = [reader.prefix + family.layer.format(i=i) for i in range(f.n_layers) if family.experts.when(f, i)]
        reader.tensors = one_by_one(reader.tensors, family.experts, prefixes, f)
    embed = reader.matrix(family.embed + ".weight", (f.n_vocab, f.d_model))
    pos_embed = None
    if family.pos_embed:
        pos_embed = reader.matrix(family.pos_embed + ".weight", (f.n_ctx + family.pos_offset, f.d_model))[family.pos_offset :]
    embed_norm = _top_norm(family, family.embed_norm, f, reader) if family.embed_norm else None
    final_norm = _top_norm(family, family.final_norm, f, reader)
    lm_head, lm_head_bias = _lm_head(family, f, reader, embed)
    scores = 1.0
    if family.rope is not None and family.rope.scales_scores:
        scores = score_scale(*rope_settings(config, family.rope, where)[0])
    inputs = _layer_inputs(family, f, reader, where)
    layers = tuple(_layer(family, f, reader, i, where, scores, next(inputs)) for i in range(f.n_layers))
    _refuse_extra(family, f, reader)
    tables = _rope_tables(config, family, f, where)
    return Spec(
        n_layers=f.n_layers,
        d_model=f.d_model,
        n_vocab=f.n_vocab,
        n_heads=f.n_heads,
        n_kv_heads=1 if f.kv_rank else f.n_kv_heads,
        head_dim=f.head_dim,
        d_ff=f.d_ff,
        n_ctx=f.n_ctx,
        n_ctx_why=next((table.limit for table in tables if table.limit), ""),
        norm=family.norm,
        norm_eps=float(f.norm_eps),
        qk_norm=value_of(family.qk_norm, f),
        parallel=bool(value_of(family.parallel, f)),
        gated=family.gated,
        act=family.act or _ACTS[f.act],
        rope_style=value_of(family.rope_style, f),
        rope_dim=2 * max((len(table.inv_freq) for table in tables), default=0),
        attn_softcap=float(family.attn_softcap(f) or 0.0),
        logit_softcap=float(family.logit_softcap(f) or 0.0),
        embed_scale=float(family.embed_scale(f)),
        resid_scale=float(family.resid_scale(f)),
        logit_scale=float(family.logit_scale(f)),
        rope=tuple((table.inv_freq, table.scale, *(table.long or ())) for table in tables),
        layers=layers,
        embed=embed,
        pos_embed=pos_embed,
        embed_norm=embed_norm,
        qk_norm_last=family.qk_norm_last,
        clip_qkv=float(family.clip_qkv(f) or 0.0),
        temper=_temper(config, family, f, where),
        key_bias=_key_bias(family, f, where),
        final_norm=final_norm,
        lm_head=lm_head,
        lm_head_bias=lm_head_bias,
        **({name: getattr(f, name) for name in _STATE_SIZES} if family.mixers else {}),
        step_limit=f.step_limit,
        **{name: getattr(f, name) for name in LATENT if f.kv_rank},
        **{name: getattr(f, name) for name in INPUTS if f.d_input},
        **{name: getattr(f, name) for name in MIXTURE if f.n_experts and hasattr(f, name)},
    )


def _temper(config: Mapping[str, Any], family: Family, f: Hyperparameters, where: str) -> tuple[float, int, int] | None:
    if family.rope is None:
        return None
    settings, name = rope_settings(config, family.rope, where)[0]
    try:
        return family.temper(f, settings)
    except ValueError as error:
        raise BadCheckpoint(f"{name}: {error}; correct it") from None


def _key_bias(family: Family, f: Hyperparameters, where: str) -> Array | None:
    if family.key_bias is None:
        return None
    if f.n_heads * f.n_ctx > 2**27:
        raise BadCheckpoint(f"{where}: a context of {f.n_ctx} is too long for the position biases of {f.n_heads} heads; correct it")
    return family.key_bias(f)


_STATE_SIZES = ("conv_taps", "state_k_heads", "state_v_heads", "state_k_dim", "state_v_dim", "state_tiled")


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
    bias = reader.vector(path + ".bias", (f.n_vocab,), prefix="") if value_of(family.head_bias, f) else None
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


def _layer_inputs(family: Family, f: Hyperparameters, reader: TensorReader, where: str) -> Iterator[dict[str, Any]]:
    """What a layer's own input is made of, for each layer: columns and rows of the tensors of all layers."""
    names, P = family.inputs, f.d_input
    if names is None or not P:
        yield from repeat({})
        return
    embed = dense(reader.matrix(names.embed + ".weight", (f.n_vocab_inputs, f.n_layers * P)))
    proj = reader.matrix(names.proj + ".weight", (f.n_layers * P, f.d_model))
    norm = _norm(family, NormAt(names.norm, "in_norm"), names.norm, P, 1, f, reader)
    if norm.gain is not None:
        norm = Norm(norm.gain.astype(np.float64) * f.input_share)
    for i in range(f.n_layers):
        columns = slice(i * P, (i + 1) * P)
        yield {"in_embed": embed[: f.n_vocab, columns], "in_proj": proj[columns], "in_norm": norm}


def _layer(
    family: Family, f: Hyperparameters, reader: TensorReader, i: int, where: str, scores: float, inputs: Mapping[str, Any]
) -> Layer:
    prefix = family.layer.format(i=i)
    own, keys_of = family.of_layer(f, i), family.keys_of(f, i)
    f = Hyperparameters(**{**vars(f), **own})
    slots: dict[str, Any] = {**inputs, **{name: own[name] for name in _SIZES if name in own}}
    if inputs and family.inputs is not None:
        slots["in_gate"] = reader.matrix(f"{prefix}{family.inputs.gate}.weight", (f.d_input, f.d_model))
        slots["in_out"] = reader.matrix(f"{prefix}{family.inputs.out}.weight", (f.d_model, f.d_input))
        slots["post_in"] = _norm(family, NormAt(family.inputs.post, "post_in"), prefix + family.inputs.post, f.d_model, 1, f, reader)
    if family.out_scale is not None:
        slots["out_scale"] = float(reader.vector(prefix + family.out_scale, (1,)).item())
    mixture = family.experts if family.experts is not None and family.experts.when(f, i) else None
    if mixture is not None:
        slots.update(read_experts(reader, mixture, prefix, f))
    constants = [float(reader.vector(prefix + path, shape).item()) for path, shape in family.act_tensors(f).items()]
    layer_type = _layer_type(family, f, i, where)
    mixer = family.mixers.get(layer_type)
    absent = _absent(family, f, i, mixer, mixture is not None)
    linears, norms = family.linears, family.norms
    if mixer is not None:
        linears = tuple(linear for linear in linears if linear.slots[0] not in _OF_ATTENTION) + mixer.linears
        norms = tuple(at for at in norms if at.slot not in _OF_ATTENTION) + mixer.norms
        slots.update(_recurrence(mixer, prefix, f, reader))
    if keys_of != i:
        slots["keys_of"] = keys_of
        absent |= _OF_KEYS
    for linear in linears:
        if linear.slots[0] not in absent and value_of(linear.when, f):
            slots.update(_linear(linear, prefix + linear.path, f, mixer, reader))
    widths = {"q_norm": (f.n_heads, f.head_dim), "k_norm": (f.n_kv_heads, f.head_dim),
              "v_norm": (f.n_kv_heads, f.head_dim), "o_norm": (f.state_v_heads, f.state_v_dim),
              "q_a_norm": (1, f.q_rank), "kv_norm": (1, f.kv_rank)}  # fmt: skip
    for at in norms:
        if at.slot not in absent and value_of(at.when, f) and at.of_layer(f, i):
            n, width = widths.get(at.slot, (1, f.d_model))
            slots[at.slot] = _norm(family, at, prefix + at.path, n * width, n, f, reader)
    if family.sinks is not None:
        slots["sinks"] = reader.vector(prefix + family.sinks, (f.n_heads,))
    return Layer(
        window=f.window if layer_type == "sliding_attention" else 0,
        chunk=f.chunk if layer_type == "chunked_attention" else 0,
        tempered=family.tempered(f, i),
        rope=-1 if mixer is not None else family.rope_index(f, i, layer_type),
        attn_scale=float(family.attn_scale(f, i)) * scores,
        act_constants=family.act_constants(f, constants),
        **slots,
    )


def _absent(family: Family, f: Hyperparameters, i: int, mixer: Mixer | None, mixture: bool) -> set[str]:
    """Slots that a layer of this family has not, though others have: those of what it lacks."""
    absent: set[str] = set()
    if mixer is not None and mixer.kind == "none":
        absent |= {"norm1", "post1"}
    if not family.has_mlp(f, i):
        absent |= {"gate", "up", "down", "norm2", "post2"}
    return absent | ({"gate", "up", "down"} if mixture else set())


def _layer_type(family: Family, f: Hyperparameters, i: int, where: str) -> str:
    if f.layer_types is None:
        return "sliding_attention" if family.sliding(f, i) else "full_attention"
    layer_type: str = f.layer_types[i]
    limited = {"sliding_attention": "window", "chunked_attention": "chunk"}
    known = ("full_attention", *(name for name, size in limited.items() if hasattr(f, size)), *family.mixers)
    if layer_type not in known:
        raise UnsupportedModel(
            f"{where} gives layer {i} the type {layer_type!r}; supported are {', '.join(known[:-1])} and {known[-1]}. "
            "Use transformers for this model"
        )
    if (size := limited.get(layer_type)) and getattr(f, size) is None:
        names = ", ".join(name for name, key in family.keys.items() if key.hyperparameter == size)
        raise BadCheckpoint(f"{where} makes layer {i} a {layer_type} without a {size} in use; correct its layer_types or {names or size}")
    return layer_type


_SIZES = ("head_dim", "n_kv_heads", "d_ff")
_OF_KEYS = {"k", "v", "k_norm", "v_norm"}
# slots that a mixer has of its own
_OF_ATTENTION = ("q", "k", "v", "o", "z", "a", "b", "q_norm", "k_norm")


def _recurrence(mixer: Mixer, prefix: str, f: Hyperparameters, reader: TensorReader) -> dict[str, Any]:
    """What a mixer has besides projections and norms."""
    slots: dict[str, Any] = {"mixer": mixer.kind}
    if mixer.kind == "none":
        return slots
    widths = dict(zip("qkv", _widths(f, mixer), strict=False))
    order = mixer.conv_slots if mixer.kind != "conv" else ("q",)
    ends = dict(zip(order, np.cumsum([widths[slot] for slot in order]).tolist(), strict=True))
    channels = ends[order[-1]]
    at = np.concatenate([np.arange(ends[slot] - widths[slot], ends[slot]) for slot in "qkv" if slot in order])  # of q, k and v
    taps = reader.vector(f"{prefix}{mixer.conv}.weight", (channels, f.conv_taps) if mixer.squeezed else (channels, 1, f.conv_taps))
    slots["conv"] = np.ascontiguousarray(taps.reshape(channels, -1)[at].T)
    if value_of(mixer.conv_bias, f):
        slots["conv_bias"] = reader.vector(f"{prefix}{mixer.conv}.bias", (channels,))[at]
    if mixer.skip:
        slots["skip"] = reader.vector(prefix + mixer.skip, (f.state_v_heads,))
    if mixer.kind != "conv":
        rate = reader.vector(prefix + (mixer.minus_rate or mixer.log_rate), (f.state_v_heads,)).astype(np.float64)
        with np.errstate(over="ignore"):
            slots["decay_rate"] = -rate if mixer.minus_rate else np.exp(rate)
        slots["decay_bias"] = reader.vector(prefix + mixer.decay_bias, (f.state_v_heads,))
    return slots


def _widths(f: Hyperparameters, mixer: Mixer | None) -> tuple[int, int, int, int]:
    """Outputs of q, k and v, inputs of o."""
    if mixer is None:
        q, kv = f.n_heads * f.head_dim, f.n_kv_heads * f.head_dim
        return q, kv, kv, q
    if mixer.kind == "conv":
        return (f.d_model,) * 4
    key, value = f.state_k_heads * f.state_k_dim, f.state_v_heads * f.state_v_dim
    return key, key, value, value


def _shapes(f: Hyperparameters, mixer: Mixer | None) -> dict[str, tuple[int, int]]:
    """(n_out, n_in) of a layer's projections."""
    q, k, v, heads = _widths(f, mixer)
    C, F, NV = f.d_model, f.d_ff, f.state_v_heads
    shapes = {"q": (q, C), "k": (k, C), "v": (v, C), "o": (C, heads), "z": (heads, C), "a": (NV, C), "b": (NV, C),
              "gate": (F, C), "up": (F, C), "down": (C, F)}  # fmt: skip
    if mixer is not None or not f.kv_rank:
        return shapes
    return shapes | {
        "q_a": (f.q_rank, C),
        "q": (q, f.q_rank or C),
        "k": (f.kv_rank + f.rope_head, C),
        "kv_b": (f.n_heads * (f.nope_head + f.v_dim), f.kv_rank),
        "o": (C, f.n_heads * f.v_dim),
    }


def _linear(linear: Linear, path: str, f: Hyperparameters, mixer: Mixer | None, reader: TensorReader) -> dict[str, Matrix]:
    """The slots of one projection, views of its weight, and their biases."""
    shapes = _shapes(f, mixer)
    sizes, n_in = [shapes[slot][0] for slot in linear.slots], shapes[linear.slots[0]][1]
    shape = (n_in, sum(sizes)) if linear.transposed else (sum(sizes), n_in)
    weight = reader.matrix(path + ".weight", shape)
    if linear.transposed:
        weight = dense(weight).T
    groups = value_of(linear.groups, f)
    if any(size % groups for size in sizes):
        raise BadCheckpoint(f"{reader.where}: {sizes} rows of {path} are not {groups} equal groups; correct its config")
    slots: dict[str, Matrix] = dict(zip(linear.slots, _split(weight, sizes, groups), strict=True))
    if value_of(linear.bias, f):
        bias = reader.vector(path + ".bias", (sum(sizes),))
        parts = _split(bias, sizes, groups)
        slots.update({slot + "_bias": part.reshape(-1) for slot, part in zip(linear.slots, parts, strict=True)})
    return slots


def _split(array: Matrix, sizes: list[int], groups: int) -> list[Any]:
    """The rows of each slot, (size, ...); of more than one group (groups, size / groups, ...)."""
    starts = np.cumsum([0, *sizes]) // groups
    if groups > 1:
        parts = dense(array).reshape(groups, -1, *array.shape[1:])
        return [parts[:, start:end] for start, end in pairwise(starts)]
    return [array[start:end] for start, end in pairwise(starts)]


def _top_norm(family: Family, path: str, f: Hyperparameters, reader: TensorReader) -> Norm:
    return _norm(family, NormAt(path, "top"), path, f.d_model, 1, f, reader)


def _norm(family: Family, at: NormAt, path: str, width: int, heads: int, f: Hyperparameters, reader: TensorReader) -> Norm:
    """A norm of `width` numbers, which cover `heads` heads."""

    def part(name: str) -> Array:
        if at.layout == "listed":
            return np.concatenate([reader.vector(f"{path}.norms.{h}.{name}", (width // heads,)) for h in range(heads)])
        if at.layout == "shared":
            return np.tile(reader.vector(f"{path}.{name}", (width // heads,)), heads)
        if at.layout == "per_head":
            return reader.vector(f"{path}.{name}", (heads, width // heads)).reshape(-1)
        return reader.vector(f"{path}.{name}", (width,))

    if not value_of(family.norm_gain if at.gain is None else at.gain, f):
        return Norm()
    gain = part("weight")
    if family.norm_one_plus if at.one_plus is None else at.one_plus:
        gain = 1 + gain.astype(np.float64)
    with_bias = value_of(family.norm_bias if at.bias is None else at.bias, f)
    return Norm(gain, part("bias") if with_bias else None)


def _refuse_extra(family: Family, f: Hyperparameters, reader: TensorReader) -> None:
    not_weights = value_of(family.not_weights, f)
    for name, tensor in reader.tensors.items():
        short = name.removeprefix(reader.prefix)
        if name not in reader.used and name not in reader.copies and not re.fullmatch(not_weights, short):
            raise BadCheckpoint(
                f"tensor {name!r} in {tensor.where} does not belong to a {family.model_type} model with this "
                "config; the config belongs to another model, or the tensor should be removed"
            )


# ---- positions -------------------------------------------------------------------------------------------------------


def _rope_tables(config: Mapping[str, Any], family: Family, f: Hyperparameters, where: str) -> list[RopeTable]:
    if family.rope is None:
        return []
    settings = rope_settings(config, family.rope, where)
    widths = family.rope.head_dims(f) if family.rope.head_dims else [f.rope_head or f.head_dim] * len(settings)
    tables = [
        rope_table(
            {key: value for key, value in values.items() if key not in family.rope.extra},
            name,
            width,
            f.n_ctx,
            f.original_positions,
            family.rope.round_up,
            family.rope.width(f) if family.rope.width else None,
        )
        for (values, name), width in zip(settings, widths, strict=True)
    ]
    return [table.reversed() for table in tables] if family.rope.backwards else tables
