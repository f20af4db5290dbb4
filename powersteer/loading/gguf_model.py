"""GGUF files as models: the architectures of llama.cpp, as tables of the same kind as the families of transformers.

Config keys are the file's own `<architecture>.*` keys and tensors have the file's names, so family.py, config.py and
build.py refuse the same things here, in the words of the file. The changes that llama.cpp's converter makes are part of
the tables: rows of llama's q and k are reordered so that rotary pairs lie side by side, and Gemma's gains have the 1
added.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import BadCheckpoint, UnsupportedModel
from .build import TensorReader, build_spec
from .config import read_hyperparameters
from .families.gemma import GEMMA, GEMMA2, GEMMA3
from .families.llama import LLAMA
from .families.phi import PHI3
from .families.qwen import QWEN2, QWEN3
from .family import Family, Hyperparameters, Key, Linear, NormAt, RopeKeys
from .gguf import GGUF
from .gguf_header import Texts
from .spec import Array, Spec
from .tensor_ref import TensorRef

__all__ = ["gguf_spec"]

_ROPE_FACTORS = "rope_freqs.weight"  # (HS/2,): divisors of the inverse frequencies
# The same for Phi 3's two tables, of short and of long sequences; half as many as rotated dimensions
_LONGROPE = {"short_factor": "rope_factors_short.weight", "long_factor": "rope_factors_long.weight"}
_WIDTH = Key("head_dim", "size", lambda f: f.d_model // f.n_heads)
_KEYS = {
    "embedding_length": Key("d_model", "size"),
    "block_count": Key("n_layers", "size"),
    "attention.head_count": Key("n_heads", "size"),
    "attention.head_count_kv": Key("n_kv_heads", "size", lambda f: f.n_heads),
    "attention.key_length": _WIDTH,
    "attention.value_length": replace(_WIDTH, default=lambda f: f.head_dim),
    "feed_forward_length": Key("d_ff", "size"),
    "vocab_size": Key("n_vocab", "size"),
    "context_length": Key("n_ctx", "size"),
    "attention.layer_norm_rms_epsilon": Key("norm_eps", "number"),
}
_ONLY: dict[str, tuple[Any, ...]] = {
    "expert_count": (0,),
    "expert_used_count": (0,),
    "attention.causal": (True,),
    "attention.sliding_window": (0,),
    "use_parallel_residual": (False,),
    "tensor_data_layout": ("Meta AI original pth",),  # the name that the first converters gave to reordered q and k
}


def _linear(path: str, *slots: str) -> Linear:
    return Linear(path, slots, bias=lambda f: path in f.biased)


_LINEARS = (
    _linear("attn_q", "q"),
    _linear("attn_k", "k"),
    _linear("attn_v", "v"),
    _linear("attn_output", "o"),
    _linear("ffn_gate", "gate"),
    _linear("ffn_up", "up"),
    _linear("ffn_down", "down"),
)
_PRE_NORMS = (NormAt("attn_norm", "norm1"), NormAt("ffn_norm", "norm2"))
_HEAD_NORMS = (NormAt("attn_q_norm", "q_norm", "shared"), NormAt("attn_k_norm", "k_norm", "shared"))
_POST_NORMS = (NormAt("post_attention_norm", "post1"), NormAt("post_ffw_norm", "post2"))


def _architecture(
    family: Family,
    act: str,
    norms: tuple[NormAt, ...] = _PRE_NORMS,
    keys: Mapping[str, Key] | None = None,
    **columns: Any,
) -> Family:
    """A family of transformers as llama.cpp names it: the same block."""
    name = family.model_type.removesuffix("_text")
    prefix = name + "."
    return replace(
        family,
        model_type=name,
        keys={prefix + key: meaning for key, meaning in {**_KEYS, **(keys or {})}.items()},
        only={prefix + key: values for key, values in _ONLY.items() if key not in (keys or {})},
        ignored={},
        strict=True,
        derived={"act": lambda f: act},
        norms=norms,
        layer="blk.{i}.",
        embed="token_embd",
        final_norm="output_norm",
        head=("output",),
        prefixes=("",),
        **{"rope": RopeKeys(), "linears": _LINEARS, **columns},
    )


def _gemma_scale(odd: int) -> Callable[[Hyperparameters, int], float]:
    """The scale of the scores, for which the format has no key: llama.cpp recognises the 27B model by its layers."""
    return lambda f, i: float((f.d_model // f.n_heads if f.n_layers == odd else f.head_dim) ** -0.5)


_GEMMA_ACT = "gelu_pytorch_tanh"
ARCHITECTURES = {
    family.model_type: family
    for family in (
        _architecture(LLAMA, "silu", rope_style="interleaved"),
        _architecture(QWEN2, "silu", sliding=lambda f, i: False),
        _architecture(QWEN3, "silu", _PRE_NORMS + _HEAD_NORMS, sliding=lambda f, i: False),
        _architecture(
            PHI3,
            "silu",
            keys={"attention.sliding_window": Key("window", "count", 0)},
            linears=(
                _linear("attn_qkv", "q", "k", "v"),
                _linear("attn_output", "o"),
                _linear("ffn_up", "gate", "up"),
                _linear("ffn_down", "down"),
            ),
            sliding=lambda f, i: f.window > 0,
            rope=RopeKeys(partial=1.0, round_up=True),
        ),
        _architecture(GEMMA, _GEMMA_ACT, norm_one_plus=False),
        _architecture(
            GEMMA2,
            _GEMMA_ACT,
            _PRE_NORMS + _POST_NORMS,
            keys={
                "attention.sliding_window": Key("window", "size", 4096),
                "attn_logit_softcapping": Key("attn_softcap", "number", 50.0),
                "final_logit_softcapping": Key("logit_softcap", "number", 30.0),
            },
            attn_scale=_gemma_scale(46),
            norm_one_plus=False,
        ),
        _architecture(
            GEMMA3,
            _GEMMA_ACT,
            _PRE_NORMS + _HEAD_NORMS + _POST_NORMS,
            keys={
                "attention.sliding_window": Key("window", "count", 0),
                "attention.sliding_window_pattern": Key("pattern", "size", 6),
                "final_logit_softcapping": Key("logit_softcap", "number", None),
            },
            sliding=lambda f, i: f.window > 0 and (i + 1) % f.pattern != 0,
            attn_scale=_gemma_scale(62),
            norm_one_plus=False,
            rope=GEMMA3.rope,
        ),
    )
}
_THETA = {"gemma3": 1_000_000.0}  # of files without the key; 10000 for the others


def gguf_spec(file: GGUF, finite: bool) -> tuple[Spec, TensorReader, str]:
    """The model of a file, the reader of its tensors, and its architecture. finite: check every weight.

    Raises UnsupportedModel for an architecture, a key or a value that is not supported, BadCheckpoint for a file that
    contradicts itself.
    """
    where = str(file.path)
    family = _architecture_of(file)
    config = _config(file, family)
    longrope = family.model_type == "phi3" and any(name in file.tensors for name in _LONGROPE.values())
    rope = _rope(config, family.model_type, where, longrope)
    hparams = read_hyperparameters(config, family, where)
    turning = rope.pop("dimension_count", hparams.head_dim)
    _check_heads(family, hparams, turning, where)
    _check_vocabulary(file, hparams)
    local = {"rope_type": "default", "rope_theta": rope.pop("freq_base_swa", 10_000.0)}
    if rope["rope_type"] == "yarn":
        rope.setdefault("original_max_position_embeddings", hparams.n_ctx)
    reader = TensorReader(file.tensors, where, finite)
    if turning != hparams.head_dim:
        rope["partial_rotary_factor"] = (turning + 0.5) / hparams.head_dim  # rounded down to an integer later
    if rope["rope_type"] == "longrope":
        rope.update({key: reader.vector(name, (turning // 2,)).tolist() for key, name in _LONGROPE.items()})
    factors = _factors(reader, hparams, rope, where) if _ROPE_FACTORS in file.tensors else None
    parameters = {"full_attention": rope, "sliding_attention": local} if family.model_type == "gemma3" else rope
    spec = build_spec({**config, "rope_parameters": parameters}, family, hparams, reader, where)
    if factors is not None:
        inv_freq, scale = spec.rope[0][:2]
        spec = replace(spec, rope=(((inv_freq / factors).astype(np.float32).astype(np.float64), scale),))
    return spec, reader, family.model_type


def _architecture_of(file: GGUF) -> Family:
    """The family of the file, with the hyperparameters that follow from its list of tensors."""
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
    family = ARCHITECTURES[name]
    tied = "output.weight" not in file.tensors
    biased = frozenset(one.path for one in family.linears if f"blk.0.{one.path}.bias" in file.tensors)
    if name == "qwen2":
        biased |= {"attn_q", "attn_k", "attn_v"}
    return replace(family, derived={**family.derived, "tied": lambda f: tied, "biased": lambda f: biased})


def _config(file: GGUF, family: Family) -> dict[str, Any]:
    """The keys of the architecture. A list of one value for all layers becomes that value."""
    prefix = family.model_type + "."
    config = {key: _plain(value) for key, value in file.fields.items() if key.startswith(prefix)}
    embed: TensorRef | None = file.tensors.get(family.embed + ".weight")
    if embed is not None:
        config.setdefault(prefix + "vocab_size", embed.shape[0])
    return config


def _plain(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    values = value[:4096].tolist()
    return values[0] if 0 < len(value) <= 4096 and len(set(values)) == 1 else values


def _check_heads(family: Family, hparams: Hyperparameters, turning: Any, where: str) -> None:
    partial = family.rope is not None and family.rope.partial is not None
    if turning != hparams.head_dim and not (partial and type(turning) is int and 0 < turning < hparams.head_dim):
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


def _rope(config: dict[str, Any], arch: str, where: str, longrope: bool) -> dict[str, Any]:
    """Remove the rotary keys from the config; returns them as transformers spells them, and the dimension_count.
    longrope: whether the file has Phi 3's tables."""
    prefix = arch + ".rope."
    keys = {key.removeprefix(prefix): config.pop(key) for key in list(config) if key.startswith(prefix)}

    def refuse(key: str, value: Any, why: str) -> UnsupportedModel:
        return UnsupportedModel(
            f"{where} has {prefix}{key} = {value!r}, {why}; load the model's safetensors checkpoint instead"
        )

    rope: dict[str, Any] = {"rope_theta": keys.pop("freq_base", _THETA.get(arch, 10_000.0))}
    for key in ("dimension_count", *(["freq_base_swa"] if arch == "gemma3" else [])):
        if key in keys:
            rope[key] = keys.pop(key)
    keys.pop("scaling.finetuned", None)  # how the model was trained
    kind = keys.pop("scaling.type", "linear")
    factor = keys.pop("scaling.factor", 0) or keys.pop("scale_linear", 0)
    keys.pop("scale_linear", None)
    original = keys.pop("scaling.original_context_length", None)
    attention = keys.pop("scaling.attn_factor", 1)
    if attention != 1 and not longrope:
        raise refuse("scaling.attn_factor", attention, "which is not supported")
    # as in training; llama.cpp itself reads these two for some other architectures only
    betas = {
        key: keys.pop(f"scaling.yarn_{key}") for key in ("beta_fast", "beta_slow") if f"scaling.yarn_{key}" in keys
    }
    for key, value in keys.items():
        raise refuse(key, value, "which is not supported")
    if kind not in ("none", "linear", "yarn"):
        raise refuse("scaling.type", kind, "where none, linear and yarn are supported")
    if longrope:
        original = {} if original is None else {"original_max_position_embeddings": original}
        return {**rope, "rope_type": "longrope", "attention_factor": attention, **original}
    if kind == "none" or not factor:
        return {**rope, "rope_type": "default"}
    if kind == "linear":
        return {**rope, "rope_type": "linear", "factor": factor}
    rope.update(rope_type="yarn", factor=factor, **betas)
    return rope if original is None else {**rope, "original_max_position_embeddings": original}


def _factors(reader: TensorReader, hparams: Hyperparameters, rope: Mapping[str, Any], where: str) -> Array:
    """The divisors of Llama 3's scaling, which the converter computed."""
    if rope["rope_type"] != "default":
        raise UnsupportedModel(
            f"{where} holds {_ROPE_FACTORS} and a rotary scaling of type {rope['rope_type']}; "
            "load the model's safetensors checkpoint instead"
        )
    factors = reader.vector(_ROPE_FACTORS, (hparams.head_dim // 2,)).astype(np.float64)
    if not (factors > 0).all():
        raise BadCheckpoint(f"tensor {_ROPE_FACTORS!r} in {where} is not all positive; the file is damaged")
    return factors
