"""GGUF files as models: hyperparameters and rotary settings from the metadata of a file, by the tables of architectures/."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import BadCheckpoint, UnsupportedModel
from .architectures import ARCHITECTURES, Architecture
from .build import TensorReader, build_spec
from .config import read_hyperparameters
from .family import Family, Hyperparameters
from .gguf import GGUF
from .gguf_header import Texts
from .spec import Array, Spec
from .tensor_ref import TensorRef

__all__ = ["gguf_spec"]

_ROPE_FACTORS = "rope_freqs.weight"  # (HS/2,): divisors of the inverse frequencies
# The same for a longrope's two tables, of short and of long sequences; half as many as rotated dimensions
_LONGROPE = {"short_factor": "rope_factors_short.weight", "long_factor": "rope_factors_long.weight"}
# key of the format → of transformers
_YARN = {"yarn_beta_fast": "beta_fast", "yarn_beta_slow": "beta_slow", "yarn_attn_factor": "attention_factor"}


def gguf_spec(file: GGUF, finite: bool) -> tuple[Spec, TensorReader, str]:
    """The model of a file, the reader of its tensors, and its architecture. finite: check every weight.

    Raises UnsupportedModel for an architecture, a key or a value that is not supported, BadCheckpoint for a file that
    contradicts itself.
    """
    where = str(file.path)
    arch = _architecture_of(file)
    family = arch.family
    config = _config(file, family)
    longrope = arch.longrope and any(name in file.tensors for name in _LONGROPE.values())
    rope, local = _rope(config, arch, where, longrope)
    hparams = read_hyperparameters(config, family, where)
    turning = rope.pop("dimension_count", hparams.rope_head or hparams.head_dim)
    _check_heads(family, hparams, turning, where)
    _check_vocabulary(file, hparams)
    if rope["rope_type"] == "yarn":
        rope.setdefault("original_max_position_embeddings", hparams.n_ctx)
    tensors = arch.arrange(file.tensors, file, hparams)
    reader = TensorReader(tensors, where, finite)
    if turning != (hparams.rope_head or hparams.head_dim):
        for one in (rope, local):
            one["partial_rotary_factor"] = (turning + 0.5) / hparams.head_dim  # rounded down to an integer later
    if rope["rope_type"] == "longrope":
        rope.update({key: reader.vector(name, (turning // 2,)).tolist() for key, name in _LONGROPE.items()})
    factors = _factors(reader, turning, rope, where) if _ROPE_FACTORS in file.tensors else None
    by_type = family.rope is not None and family.rope.by_type
    parameters = {"full_attention": rope, "sliding_attention": local} if by_type else rope
    config = {**config, "rope_parameters": parameters} if family.rope is not None else config
    spec = build_spec(config, family, hparams, reader, where)
    if factors is not None:
        inv_freq, scale = spec.rope[0][:2]
        spec = replace(spec, rope=(((inv_freq / factors).astype(np.float32).astype(np.float64), scale), *spec.rope[1:]))
    return spec, reader, arch.name


def _architecture_of(file: GGUF) -> Architecture:
    """The architecture of the file, with the hyperparameters that follow from its list of tensors."""
    where, name = str(file.path), file.fields.get("general.architecture")
    if not isinstance(name, str):
        raise BadCheckpoint(f"{where} has no general.architecture; is it a model?")
    kind, parts = (_plain(file.fields.get(key)) for key in ("general.type", "split.count"))
    if kind not in (None, "model"):
        raise UnsupportedModel(f"{where} has general.type = {kind!r}; give the file of a model")
    if parts not in (None, 0, 1):
        raise UnsupportedModel(
            f"{where} is one of several files of a model (split.count = {parts!r}); "
            "join them with llama.cpp's llama-gguf-split --merge"
        )
    if name not in ARCHITECTURES:
        raise UnsupportedModel(
            f"{where} has general.architecture = {name!r}; GGUF files of {', '.join(ARCHITECTURES)} can be loaded. "
            "Load the model's safetensors checkpoint instead, which more families support"
        )
    arch = ARCHITECTURES[name]
    tied = "output.weight" not in file.tensors
    present = frozenset(one.split(".", 2)[2] if one.startswith("blk.") and one.count(".") > 1 else one for one in file.tensors)
    derived = {"tied": lambda f: tied, "present": lambda f: present, **arch.family.derived}
    return replace(arch, family=replace(arch.family, derived=derived))


def _config(file: GGUF, family: Family) -> dict[str, Any]:
    """The keys of the architecture. A list of one value for all layers becomes that value, unless a list is needed."""
    prefix = family.model_type + "."
    lists = {key for key, meaning in family.keys.items() if meaning.kind in ("flags", "counts", "flags or period")}
    config = {key: _plain(value, key in lists) for key, value in file.fields.items() if key.startswith(prefix)}
    blocks = config.get(prefix + "block_count")
    if type(blocks) is int and blocks > len(file.tensors):  # before anything is listed by block
        raise BadCheckpoint(
            f"{file.path} has {prefix}block_count = {blocks} and {len(file.tensors)} tensors; the file is damaged, get another copy"
        )
    embed: TensorRef | None = file.tensors.get(family.embed + ".weight")
    if embed is not None:
        config.setdefault(prefix + "vocab_size", embed.shape[0])
    return config


def _plain(value: Any, is_list: bool = False) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    values = value[:4096].tolist()
    return values[0] if not is_list and 0 < len(value) <= 4096 and len(set(values)) == 1 else values


def _check_heads(family: Family, hparams: Hyperparameters, turning: Any, where: str) -> None:
    partial = family.rope is not None and family.rope.partial is not None
    whole = hparams.rope_head or hparams.head_dim
    if turning != whole and not (partial and type(turning) is int and 0 < turning < whole):
        raise UnsupportedModel(
            f"{where} has {family.model_type}.rope.dimension_count = {turning!r}, a part of a head of {hparams.head_dim}; "
            "load the model's safetensors checkpoint instead"
        )
    if (hparams.n_heads * hparams.head_dim) > 1 << 24:
        raise BadCheckpoint(f"{where} has {hparams.n_heads} heads of {hparams.head_dim}; the file is damaged")


def _check_vocabulary(file: GGUF, hparams: Hyperparameters) -> None:
    tokens = file.fields.get("tokenizer.ggml.tokens")
    if isinstance(tokens, Texts) and len(tokens) != hparams.n_vocab:
        raise BadCheckpoint(
            f"{file.path} lists {len(tokens)} tokens (tokenizer.ggml.tokens) for a model of {hparams.n_vocab}; "
            "it was put together from two models, get another copy"
        )


# ---- positions -------------------------------------------------------------------------------------------------------


def _rope(config: dict[str, Any], arch: Architecture, where: str, longrope: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Remove the rotary keys from the config; returns them as transformers spells them, with the dimension_count: those of all
    layers, or of those without a window, and those of layers with one. longrope: whether the file has its tables."""
    prefix, family = arch.name + ".rope.", arch.family
    names = [key for key in config if key.startswith(prefix) and key not in family.keys and key not in family.only]
    keys = {key.removeprefix(prefix): config.pop(key) for key in names}

    def refuse(key: str, value: Any, why: str) -> UnsupportedModel:
        return UnsupportedModel(
            f"{where} has {prefix}{key} = {value!r}, {why}; load the model's safetensors checkpoint instead"
        )

    rope: dict[str, Any] = {"rope_theta": keys.pop("freq_base", arch.theta)}
    theta = rope["rope_theta"] if arch.local_theta is None else arch.local_theta
    local = {"rope_type": "default", "rope_theta": theta}
    if "freq_base_swa" in keys:
        local["rope_theta"] = keys.pop("freq_base_swa")
        if not (family.rope and family.rope.by_type) and local["rope_theta"] != rope["rope_theta"]:
            raise refuse("freq_base_swa", local["rope_theta"], "another base than that of the other layers")
    if "dimension_count" in keys:
        rope["dimension_count"] = keys.pop("dimension_count")
    if arch.sections:
        keys.pop("dimension_sections", None)
    if (rate := config.pop(f"{arch.name}.{arch.temperature}", None)) is not None:
        rope["llama_4_scaling_beta"] = rate
    keys.pop("scaling.finetuned", None)  # how the model was trained
    kind = keys.pop("scaling.type", "linear")
    factor = keys.pop("scaling.factor", 0) or keys.pop("scale_linear", 0)
    keys.pop("scale_linear", None)
    original = keys.pop("scaling.original_context_length", None)
    attention = keys.pop("scaling.attn_factor", 1)
    if attention != 1 and not longrope:
        raise refuse("scaling.attn_factor", attention, "which is not supported")
    # as in training; llama.cpp itself reads these for some other architectures only
    yarn = {name: keys.pop(f"scaling.{key}") for key, name in _YARN.items() if f"scaling.{key}" in keys}
    if arch.log_multiplier and (multiplier := keys.pop("scaling.yarn_log_multiplier", 0)):
        yarn["mscale_all_dim"] = multiplier * arch.log_multiplier
        yarn["mscale"] = yarn["mscale_all_dim"] if arch.mscale is None else arch.mscale
    for key, value in keys.items():
        raise refuse(key, value, "which is not supported")
    if kind not in ("none", "linear", "yarn") and not (kind == "longrope" and longrope):
        raise refuse("scaling.type", kind, "where none, linear and yarn are supported")
    if longrope:
        original = {} if original is None else {"original_max_position_embeddings": original}
        return {**rope, "rope_type": "longrope", "attention_factor": attention, **original}, local
    if kind == "none" or not factor:
        return {**rope, "rope_type": "default"}, local
    if kind == "linear":
        return {**rope, "rope_type": "linear", "factor": factor}, local
    rope.update(rope_type="yarn", factor=factor, **arch.yarn, **yarn)
    return rope if original is None else {**rope, "original_max_position_embeddings": original}, local


def _factors(reader: TensorReader, turning: int, rope: Mapping[str, Any], where: str) -> Array:
    """The divisors of Llama 3's scaling, which the converter computed."""
    if rope["rope_type"] != "default":
        raise UnsupportedModel(
            f"{where} holds {_ROPE_FACTORS} and a rotary scaling of type {rope['rope_type']}; "
            "load the model's safetensors checkpoint instead"
        )
    factors = reader.vector(_ROPE_FACTORS, (turning // 2,)).astype(np.float64)
    if not (factors > 0).all():
        raise BadCheckpoint(f"tensor {_ROPE_FACTORS!r} in {where} is not all positive; the file is damaged")
    return factors
