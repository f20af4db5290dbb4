"""config.json as facts: every key that transformers reads is read, known to change nothing, or refused by name.

What it reads is in keys_read.py, written from its source by tools/config_keys.py. A key outside changes nothing.
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

__all__ = ["HARMLESS", "ONLY", "family_of", "read_facts", "rope_settings"]

# Keys that transformers reads in any family, and that do not change what the model computes from tokens to logits.
HARMLESS: Mapping[str, str] = {
    "where the file comes from": (
        "architectures model_type transformers_version transformers_weights _name_or_path name_or_path _commit_hash"
    ),
    "the type of the weights is that of their file": "dtype torch_dtype",
    "training only": (
        "initializer_range initializer_factor init_std attention_dropout hidden_dropout classifier_dropout resid_pdrop "
        "embd_pdrop attn_pdrop residual_dropout embedding_dropout gradient_checkpointing"
    ),
    "the order of sums, the same in exact arithmetic": "pretraining_tp chunk_size_feed_forward",
    "what a call returns, or with which kernels it is run": (
        "use_cache output_attentions _output_attentions output_hidden_states return_dict is_decoder attn_implementation "
        "_attn_implementation _attn_implementation_internal experts_implementation _experts_implementation "
        "_experts_implementation_internal"
    ),
    "heads and tasks other than the next token": "id2label label2id num_labels problem_type",
    "token ids, read with the tokenizer": "bos_token_id eos_token_id pad_token_id sep_token_id",
}
# Keys any config may have that would change it, at the values where they do not.
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
    """The family a config belongs to. Raises UnsupportedModel if it is none of ours, BadCheckpoint if it says none."""
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
    """auto_map names code in the checkpoint's folder. Where that defines the class that transformers has for this
    family, transformers takes its own, as we do; another class is another model."""
    own = config.get("auto_map")
    if not isinstance(own, dict):
        return
    named = own.get("AutoModelForCausalLM") or config.get("architectures") or []
    classes = [str(name).rpartition(".")[2] for name in (named if isinstance(named, list) else [named])]
    if classes and MODELS[model_type] not in classes:
        raise UnsupportedModel(
            f"{where} has model_type {model_type!r}, but its auto_map says that its own code defines {shown(classes[0])} "
            f"where that family has {MODELS[model_type]}; such code is not run"
        )


def read_facts(config: Mapping[str, Any], family: Family, where: str) -> Hyperparameters:
    """The facts of a config. Raises UnsupportedModel for a key or value that is not understood, BadCheckpoint for
    one that is missing or of the wrong type; the message names key, value and file."""
    config = _renamed(config, family, where)
    names = _refuse_unknown(config, family, where)
    facts = Hyperparameters(layer_types=None, window=None, original_positions=None, n_experts=0)
    read: dict[str, str] = {}  # fact → the key it is from
    for name, key in family.keys.items():
        value = _read(config, name, key, facts, where)
        if name in config and value != getattr(facts, key.fact, value) and key.fact in read:
            first = read[key.fact]
            raise BadCheckpoint(f"{where} has {first} = {config[first]!r} and {name} = {value!r}; remove one")
        if name in config:
            read[key.fact] = name
        setattr(facts, key.fact, value)
    for fact, function in family.derived.items():
        setattr(facts, fact, function(facts))
    if facts.n_heads % facts.n_kv_heads:
        raise BadCheckpoint(
            f"{where}: {facts.n_heads} heads cannot share {facts.n_kv_heads} keys and values; correct it"
        )
    if facts.head_dim < 1:
        raise BadCheckpoint(f"{where}: {facts.n_heads} heads do not fit in {facts.d_model} dimensions; correct it")
    if facts.n_experts and facts.top_k > facts.n_experts:
        raise BadCheckpoint(f"{where}: a token cannot take {facts.top_k} of {facts.n_experts} experts; correct it")
    for name, key in family.keys.items():
        value = getattr(facts, key.fact)
        if key.kind in ("words", "flags") and value is not None and len(value) != facts.n_layers:
            raise BadCheckpoint(f"{where} lists {len(value)} {name} for {facts.n_layers} layers; correct it")
    check_names(config, names, family, facts, lambda: rope_settings(config, family.rope or RopeKeys(), where), where)
    return facts


def _renamed(config: Mapping[str, Any], family: Family, where: str) -> Mapping[str, Any]:
    """With the names that transformers has for the same key replaced by that key."""
    config = dict(config)
    for name, key in {} if family.strict else OTHER_NAMES.get(family.model_type, {}).items():
        if name in config and name not in family.keys:
            value = config.pop(name)
            if config.setdefault(key, value) != value:
                raise BadCheckpoint(f"{where} has {key} = {config[key]!r} and {name} = {value!r}; remove one")
    return config


def _refuse_unknown(config: Mapping[str, Any], family: Family, where: str) -> list[str]:
    """Refuses a key that transformers reads and we do not, unless it has the value that it takes without the key.
    Any other changes nothing. Returns those that name something we use: they must agree with it."""
    allowed = {**ONLY, **family.only}
    known = {*family.keys, *allowed, *_rope_keys(family.rope)}
    for reasons in (HARMLESS, family.ignored):
        known.update(key for keys in reasons.values() for key in keys.split())
    read = {} if family.strict else {**EVERY, **FAMILY[family.model_type]}
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


def _read(config: Mapping[str, Any], name: str, key: Key, facts: Hyperparameters, where: str) -> Any:
    if name not in config:
        if key.default is REQUIRED:
            raise BadCheckpoint(f"{where} has no {name!r}, and no other value can be assumed for it; add it")
        return value_of(key.default, facts)
    value = config[name]
    if value is None:
        if key.null is not REFUSED:
            return value_of(key.null, facts)
        if callable(key.default):
            return key.default(facts)
    if not _KINDS[key.kind](value):
        raise BadCheckpoint(f"{where} has {name!r} = {_short(value)} where {_NEEDED[key.kind]} is needed; correct it")
    return value


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value > 0


_KINDS: Mapping[str, Callable[[Any], bool]] = {
    "size": lambda value: type(value) is int and 0 < value < 2**31,
    "count": lambda value: type(value) is int and 0 <= value < 2**31,
    "number": _is_number,
    "flag": lambda value: isinstance(value, bool),
    "word": lambda value: isinstance(value, str),
    "words": lambda value: isinstance(value, list) and all(isinstance(one, str) for one in value),
    "flags": lambda value: isinstance(value, list) and all(one in (0, 1) for one in value),
    "layers": lambda value: isinstance(value, list) and all(type(one) is int for one in value),
}
_NEEDED = {
    "size": "a positive integer",
    "count": "an integer, 0 or more,",
    "number": "a positive number",
    "flag": "true or false",
    "word": "a name",
    "words": "a list of names",
    "flags": "a list of 0 and 1",
    "layers": "a list of integers",
}

# ---- rotary keys -----------------------------------------------------------------------------------------------------


def _rope_keys(rope: RopeKeys | None) -> set[str]:
    if rope is None:
        return set()
    thetas = {key for key, _ in rope.by_type.values()} or {rope.theta_key}
    return {ROPE_SCALING, ROPE_PARAMETERS, rope.partial_key, *thetas}


def rope_settings(config: Mapping[str, Any], rope: RopeKeys, where: str) -> list[tuple[dict[str, Any], str]]:
    """The rotary dictionaries of a config, complete, each with its name for messages: one, or one a layer type.

    Old configs have rope_theta and rope_scaling, new ones rope_parameters; partial_rotary_factor is beside or inside.
    """
    old, new = config.get(ROPE_SCALING) or {}, config.get(ROPE_PARAMETERS) or {}
    for name, value in ((ROPE_SCALING, old), (ROPE_PARAMETERS, new)):
        if not isinstance(value, dict):
            raise BadCheckpoint(f"{where} has {name!r} = {_short(value)} where an object is needed; correct it")
    if not rope.by_type:
        if old and new and old != new:
            raise BadCheckpoint(f"{where} has rope_scaling and rope_parameters, and they differ; remove one")
        name = f"{where}: {ROPE_SCALING if old else ROPE_PARAMETERS}"
        return [_complete(config, rope, old or new, rope.theta_key, rope.theta, name)]
    if unknown := sorted(new.keys() - rope.by_type.keys()):
        raise UnsupportedModel(f"{where}: rope_parameters has the key {unknown[0]!r}, no layer type; remove it")
    settings = []
    for layer_type, (theta_key, theta) in rope.by_type.items():
        values = new.get(layer_type) or {}
        if layer_type == "full_attention" and old:  # the old key only ever meant these layers
            if values and values != old:
                raise BadCheckpoint(f"{where} has rope_scaling and rope_parameters, and they differ; remove one")
            values = old
        name = f"{where}: rope parameters of {layer_type}"
        settings.append(_complete(config, rope, values, theta_key, theta, name))
    return settings


def _complete(
    config: Mapping[str, Any], rope: RopeKeys, given: Any, theta_key: str, theta: float, name: str
) -> tuple[dict[str, Any], str]:
    if not isinstance(given, dict):
        raise BadCheckpoint(f"{name} is {_short(given)} where an object is needed; correct it")
    # null is no value, except that transformers takes it for false here
    values = {key: value for key, value in given.items() if value is not None or key == "truncate"}
    if "type" in values and values.setdefault("rope_type", values["type"]) != values["type"]:
        raise BadCheckpoint(f"{name} has type and rope_type, and they differ; remove one")
    partial = 1.0 if rope.partial is None else rope.partial
    for key, outer, default in (("rope_theta", theta_key, theta), ("partial_rotary_factor", rope.partial_key, partial)):
        beside = config.get(outer)
        if beside is not None and values.setdefault(key, beside) != beside:
            raise BadCheckpoint(f"{name} has {key} = {values[key]!r}, and beside it {outer} = {beside!r}; remove one")
        values.setdefault(key, default)
    if rope.partial is None and values["partial_rotary_factor"] != 1:
        raise UnsupportedModel(
            f"{name} turns a part of a head (partial_rotary_factor = {values['partial_rotary_factor']!r}), "
            "which this family does not do; correct the config"
        )
    kind = values.setdefault("rope_type", "default")
    if rope.kinds is not None:
        if not isinstance(kind, str) or kind not in rope.kinds:
            raise UnsupportedModel(f"{name} names the rotary kind {kind!r}; this family has {', '.join(rope.kinds)}")
        values["rope_type"] = rope.kinds[kind]
        values.pop("type", None)
    return values, name
