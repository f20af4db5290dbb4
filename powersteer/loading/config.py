"""Hyperparameters from config.json: every key that transformers reads is read, ignored for a reason, or refused by name.

keys_read.py, written from the source of transformers by tools/config_keys.py, lists these keys. Other keys have no effect.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import BadCheckpoint, UnsupportedModel, shown
from .families import FAMILIES
from .family import REFUSED, REQUIRED, Family, Hyperparameters, Key, RopeKeys, value_of
from .keys_read import EVERY, FAMILY, MODELS, OTHER_NAMES
from .other_names import check_names, names_something
from .rope import TURNS_ALL

__all__ = ["HARMLESS", "ONLY", "family_of", "read_hyperparameters", "rope_settings"]

# Keys that transformers reads in any family and that do not change the logits of a sequence: reason → keys.
HARMLESS: Mapping[str, str] = {
    "origin of the file": (
        "architectures model_type transformers_version transformers_weights _name_or_path name_or_path _commit_hash"
    ),
    "the type of the weights is that of their file": "dtype torch_dtype",
    "training only": (
        "initializer_range initializer_factor init_std attention_dropout hidden_dropout classifier_dropout resid_pdrop "
        "embd_pdrop attn_pdrop residual_dropout embedding_dropout gradient_checkpointing"
    ),
    "the order of sums, the same in exact arithmetic": "pretraining_tp chunk_size_feed_forward",
    "values that a call returns, or the kernels that compute them": (
        "use_cache output_attentions _output_attentions output_hidden_states return_dict is_decoder attn_implementation "
        "_attn_implementation _attn_implementation_internal experts_implementation _experts_implementation "
        "_experts_implementation_internal"
    ),
    "heads and tasks other than the next token": "id2label label2id num_labels problem_type",
    "token ids, read with the tokenizer": "bos_token_id eos_token_id pad_token_id sep_token_id",
}
# Keys of any config that may have only the values at which they do not change the logits.
ONLY: Mapping[str, tuple[Any, ...]] = {
    "add_cross_attention": (False,),
    "per_layer_config": ({}, None),
    "quantization_config": (None,),
    "compression_config": (None,),
    "quantization": (None,),  # of MLX
}
_REMEDIES = {
    "quantization_config": "load an unquantised checkpoint of this model",
    "compression_config": "load an uncompressed checkpoint of this model",
    "quantization": "load an unquantised checkpoint of this model",
}

ROPE_SCALING, ROPE_PARAMETERS = "rope_scaling", "rope_parameters"


def family_of(config: Mapping[str, Any], where: str) -> Family:
    """The family of a config. Raises UnsupportedModel for a family that is not supported, BadCheckpoint if there is none."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise BadCheckpoint(f"{where} has no model_type; is it the config of a transformers model?")
    if model_type not in FAMILIES:
        hint = "; of this model only the text part can be loaded" if "text_config" in config else ""
        raise UnsupportedModel(
            f"{where} has model_type {model_type!r}, a family that is not supported{hint}; "
            f"supported are {', '.join(FAMILIES)}"
        )
    _refuse_own_code(config, model_type, where)
    return FAMILIES[model_type]


def _refuse_own_code(config: Mapping[str, Any], model_type: str, where: str) -> None:
    """Refuse a config whose auto_map names code of the checkpoint for another class than transformers has for this
    family. For the same class transformers runs its own code, and so does powersteer."""
    own = config.get("auto_map")
    if not isinstance(own, dict):
        return
    named = own.get("AutoModelForCausalLM") or config.get("architectures") or []
    if named in FAMILIES[model_type].own_code:
        return
    classes = [str(name).rpartition(".")[2] for name in (named if isinstance(named, list) else [named])]
    plain = [name.lower().replace("_", "") for name in (MODELS[model_type], *classes)]  # MPT's own is MPTForCausalLM
    if classes and plain[0] not in plain[1:]:
        raise UnsupportedModel(
            f"{where} has model_type {model_type!r}, but its auto_map says that its own code defines {shown(classes[0])} "
            f"where that family has {MODELS[model_type]}; such code is not run"
        )


def read_hyperparameters(config: Mapping[str, Any], family: Family, where: str) -> Hyperparameters:
    """The hyperparameters of a config. Raises UnsupportedModel for a key or value that is not supported, BadCheckpoint
    for one that is missing or of the wrong type; the message names key, value and file."""
    config = _renamed({key: _decoded(value) for key, value in _flat(config, family, where).items()}, family, where)
    names = _refuse_unknown(config, family, where)
    hparams = Hyperparameters(
        layer_types=None, window=None, original_positions=None, n_experts=0, d_shared=0, kv_rank=0, q_rank=0, rope_head=None,
        state_k_heads=0, state_v_heads=0, state_k_dim=0, state_v_dim=0, state_tiled=False,
        step_limit=(0.0, math.inf), d_input=0,
    )  # fmt: skip
    read: dict[str, str] = {}  # hyperparameter → the key that set it
    for name, key in family.keys.items():
        value = _read(config, name, key, hparams, where)
        if name in config and value != getattr(hparams, key.hyperparameter, value) and key.hyperparameter in read:
            first = read[key.hyperparameter]
            raise BadCheckpoint(f"{where} has {first} = {config[first]!r} and {name} = {value!r}; remove one")
        if name in config:
            read[key.hyperparameter] = name
        setattr(hparams, key.hyperparameter, value)
    for hyperparameter, function in family.derived.items():
        try:
            setattr(hparams, hyperparameter, function(hparams))
        except ValueError as error:
            raise BadCheckpoint(f"{where}: {error}") from None
    if not hparams.kv_rank and hparams.n_heads % hparams.n_kv_heads:
        raise BadCheckpoint(
            f"{where}: {hparams.n_heads} heads cannot share {hparams.n_kv_heads} keys and values; correct it"
        )
    if hparams.state_k_heads and hparams.state_v_heads % hparams.state_k_heads:
        raise BadCheckpoint(
            f"{where}: {hparams.state_v_heads} value heads of linear attention cannot share {hparams.state_k_heads} keys; correct it"
        )
    if hparams.head_dim < 1:
        raise BadCheckpoint(f"{where}: {hparams.n_heads} heads do not fit in {hparams.d_model} dimensions; correct it")
    if hparams.n_experts and not 0 < hparams.top_k <= hparams.n_experts:
        raise BadCheckpoint(f"{where}: a token cannot take {hparams.top_k} of {hparams.n_experts} experts; correct it")
    groups, chosen, n = getattr(hparams, "n_groups", 1), getattr(hparams, "top_groups", 1), hparams.n_experts
    if n and (n % groups or chosen > groups or hparams.top_k > n // groups * chosen):
        raise BadCheckpoint(
            f"{where}: a token cannot take {hparams.top_k} experts of {chosen} of {groups} groups of {n} experts; correct it"
        )
    for name, key in family.keys.items():
        value = getattr(hparams, key.hyperparameter)
        if key.kind in _BY_LAYER and isinstance(value, list) and len(value) != hparams.n_layers:
            raise BadCheckpoint(f"{where} lists {len(value)} {name} for {hparams.n_layers} layers; correct it")
    check_names(config, names, family, hparams, lambda: rope_settings(config, family.rope or RopeKeys(), where), where)
    return hparams


def _flat(config: Mapping[str, Any], family: Family, where: str) -> Mapping[str, Any]:
    """The config with the keys of the family's nested object beside the others."""
    inner = config.get(family.nested) if family.nested else None
    if inner is None:
        return {key: value for key, value in config.items() if key != family.nested}
    if not isinstance(inner, dict):
        raise BadCheckpoint(f"{where} has {family.nested!r} = {_short(inner)} where an object is needed; correct it")
    outer = {key: value for key, value in config.items() if key != family.nested}
    return {**outer, **{f"{family.nested}.{key}": value for key, value in inner.items()}}


def _decoded(value: Any) -> Any:
    """The value with the numbers that are no JSON, which transformers writes as {"__float__": "Infinity"}."""
    if isinstance(value, list):
        return [_decoded(one) for one in value]
    tagged = isinstance(value, dict) and value.keys() == {"__float__"} and value["__float__"] in ("Infinity", "-Infinity", "NaN")
    return float(value["__float__"]) if tagged else value


def _renamed(config: Mapping[str, Any], family: Family, where: str) -> Mapping[str, Any]:
    """The config with every alias that transformers has for a key replaced by that key."""
    config = dict(config)
    names = {} if family.strict else OTHER_NAMES.get(family.model_type, {})
    for name, key in {**names, **family.aliases}.items():
        if name in config and name not in family.keys:
            value = config.pop(name)
            if config.setdefault(key, value) != value:
                raise BadCheckpoint(f"{where} has {key} = {config[key]!r} and {name} = {value!r}; remove one")
    return config


def _refuse_unknown(config: Mapping[str, Any], family: Family, where: str) -> list[str]:
    """Refuse keys that transformers reads and powersteer does not, unless the value is transformers' default.

    Other keys have no effect. Returns those whose name suggests a hyperparameter: their values must agree with it."""
    allowed = {**{key: values for key, values in ONLY.items() if key not in family.keys}, **family.only}
    known = {*family.keys, *allowed, *_rope_keys(family.rope)}
    for reasons in (HARMLESS, family.ignored):
        known.update(key for keys in reasons.values() for key in keys.split())
    read = {} if family.strict else {**EVERY, **FAMILY[family.model_type]}
    read.update({f"{family.nested}.{key}": value for key, value in read.items()} if family.nested else {})
    known.update({f"{family.nested}.{key}" for key in known} if family.nested else ())
    names = []
    for key, value in config.items():
        if key in allowed and value not in allowed[key]:
            remedy = _REMEDIES.get(key, "use transformers for this model")
            raise UnsupportedModel(
                f"{where} has {key!r} = {_short(value)}, which is not supported "
                f"(only {' or '.join(_short(one) for one in allowed[key])}); {remedy}"
            )
        if key in known or (key in read and read[key] is not ... and value == read[key]):
            continue
        if not family.strict and value is not None and names_something(key):
            names.append(key)
        elif family.strict or key in read:
            raise UnsupportedModel(
                f"{where} has the key {key!r} = {_short(value)}, unknown for model_type {family.model_type!r}: it may "
                "change what the model computes. If you know that it does not, remove it from the config"
            )
    return names


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


# ---- plain keys ------------------------------------------------------------------------------------------------------


def _read(config: Mapping[str, Any], name: str, key: Key, hparams: Hyperparameters, where: str) -> Any:
    if name not in config:
        if key.default is REQUIRED:
            raise BadCheckpoint(f"{where} has no {name!r}, and no other value can be assumed for it; add it")
        return value_of(key.default, hparams)
    value = config[name]
    if value is None:
        if key.null is not REFUSED:
            return value_of(key.null, hparams)
        if callable(key.default):
            return key.default(hparams)
    valid, needed = _KINDS[key.kind]
    if not valid(value):
        raise BadCheckpoint(f"{where} has {name!r} = {_short(value)} where {needed} is needed; correct it")
    return value


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value > 0


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 < value < 2**31


def _is_limits(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and all(type(one) in (int, float) for one in value)


def _is_list(value: Any, valid: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(map(valid, value))


def _is_repeat(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and _is_list(value[0], lambda one: isinstance(one, str)) and type(value[1]) is int


def _is_sizes(value: Any) -> bool:
    """{layer: {key: size}}"""
    return isinstance(value, dict) and all(
        isinstance(sizes, dict) and str(layer).isdecimal() and all(map(_is_size, sizes.values())) for layer, sizes in value.items()
    )


_BY_LAYER = ("words", "flags", "flags or period", "counts")  # kinds of lists with one value a layer
_KINDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {  # kind → (whether a value is valid, what is needed)
    "size": (_is_size, "a positive integer"),
    "size or auto": (lambda value: value == "auto" or _is_size(value), "a positive integer or \"auto\""),
    "limits": (_is_limits, "a list of two numbers"),
    "count": (lambda value: type(value) is int and 0 <= value < 2**31, "an integer, 0 or more,"),
    "number": (_is_number, "a positive number"),
    "flag": (lambda value: isinstance(value, bool), "true or false"),
    "word": (lambda value: isinstance(value, str), "a name"),
    "words": (lambda value: _is_list(value, lambda one: isinstance(one, str)), "a list of names"),
    "flags": (lambda value: _is_list(value, lambda one: one in (0, 1)), "a list of 0 and 1"),
    "layers": (lambda value: _is_list(value, lambda one: type(one) is int), "a list of integers"),
    "period": (
        lambda value: (type(value) is int and value >= 0) or (isinstance(value, str) and value != ""),
        "an integer, 0 or more, or a pattern of letters",
    ),
    "flags or period": (
        lambda value: (type(value) is int and value > 0) or _is_list(value, lambda one: one in (0, 1)),
        "a positive integer or a list of true and false",
    ),
    "counts": (lambda value: _is_list(value, lambda one: type(one) is int and 0 <= one < 2**31), "a list of integers, 0 or more,"),
    "repeats": (lambda value: _is_list(value, _is_repeat), "a list of [names, how often]"),
    "sizes": (_is_sizes, "an object of positive integers for each layer"),
}

# ---- rotary keys -----------------------------------------------------------------------------------------------------


def _rope_keys(rope: RopeKeys | None) -> set[str]:
    if rope is None or rope.fixed:
        return set()
    thetas = {key for key, _ in rope.by_type.values() if key} or {rope.theta_key}
    return {ROPE_SCALING, ROPE_PARAMETERS, rope.partial_key, *thetas}


def rope_settings(config: Mapping[str, Any], rope: RopeKeys, where: str) -> list[tuple[dict[str, Any], str]]:
    """The rotary dictionaries of a config with defaults filled in, each with its name for messages: one, or one a layer type.

    Old configs have rope_theta and rope_scaling, new ones rope_parameters; partial_rotary_factor is beside or inside.
    """
    config = {} if rope.fixed else config
    old, new = config.get(ROPE_SCALING) or {}, config.get(ROPE_PARAMETERS) or {}
    for name, value in ((ROPE_SCALING, old), (ROPE_PARAMETERS, new)):
        if not isinstance(value, dict):
            raise BadCheckpoint(f"{where} has {name!r} = {_short(value)} where an object is needed; correct it")
    if not rope.by_type:
        if old and new and old != new:
            raise BadCheckpoint(f"{where} has rope_scaling and rope_parameters, and they differ; remove one")
        name = f"{where}: {ROPE_SCALING if old else ROPE_PARAMETERS}"
        return [_complete(config, rope, old or new or rope.absent, rope.theta_key, rope.theta, name)]
    new = new if old or new else rope.absent
    if unknown := sorted(new.keys() - rope.by_type.keys()):
        raise UnsupportedModel(f"{where}: rope_parameters has the key {unknown[0]!r}, not a layer type; remove it")
    settings = []
    for layer_type, (theta_key, theta) in rope.by_type.items():
        values = new.get(layer_type) or {}
        if layer_type == "full_attention" and old:  # the old key is for these layers only
            if values and values != old:
                raise BadCheckpoint(f"{where} has rope_scaling and rope_parameters, and they differ; remove one")
            values = old
        name = f"{where}: rope parameters of {layer_type}"
        settings.append(_complete(config, rope, values, theta_key, theta, name))
    return settings


def _complete(
    config: Mapping[str, Any], rope: RopeKeys, given: Any, theta_key: str | None, theta: float, name: str
) -> tuple[dict[str, Any], str]:
    if not isinstance(given, Mapping):
        raise BadCheckpoint(f"{name} is {_short(given)} where an object is needed; correct it")
    # null means absent; for truncate transformers takes it for false
    values = {key: value for key, value in given.items() if value is not None or key == "truncate"}
    if "type" in values and values.setdefault("rope_type", values["type"]) != values["type"]:
        raise BadCheckpoint(f"{name} has type and rope_type, and they differ; remove one")
    partial = 1.0 if rope.partial is None else rope.partial
    for key, outer, default in (("rope_theta", theta_key, theta), ("partial_rotary_factor", rope.partial_key, partial)):
        beside = config.get(outer) if outer else None
        if beside is not None and values.setdefault(key, beside) != beside:
            raise BadCheckpoint(f"{name} has {key} = {values[key]!r}, and beside it {outer} = {beside!r}; remove one")
        values.setdefault(key, default)
    if rope.partial is None and values["partial_rotary_factor"] != 1 and values.get("rope_type") not in TURNS_ALL:
        raise UnsupportedModel(
            f"{name} turns a part of a head (partial_rotary_factor = {values['partial_rotary_factor']!r}), "
            "which this family does not support; correct the config"
        )
    kind = values.setdefault("rope_type", "default")
    for (plain, key), other in rope.keyed.items():
        if kind == plain and values.get(key):
            kind = values["rope_type"] = other
            values.pop("type", None)
    if rope.kinds is not None:
        if not isinstance(kind, str) or kind not in rope.kinds:
            raise UnsupportedModel(f"{name} names the rotary kind {kind!r}; this family has {', '.join(rope.kinds)}")
        values["rope_type"] = rope.kinds[kind]
        values.pop("type", None)
    if rope.mscales and kind == "longrope":
        scales = [values.pop(key, None) for key in ("short_mscale", "long_mscale")]
        if scales[0] is None or scales[0] != scales[1]:
            raise UnsupportedModel(f"{name} has short_mscale, long_mscale = {scales}, where two equal numbers are supported")
        values.update(attention_factor=scales[0], long_factor=values.get("short_factor"))
    return values, name
