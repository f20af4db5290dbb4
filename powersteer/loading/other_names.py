"""Keys of a config.json that the code of its family does not read, but whose names suggest a hyperparameter.

Vendors write them for other tools. A key that agrees with the hyperparameter is a comment; one that disagrees is refused,
because either the key or the weights belong to another model. The names are the keys of other families for the same
hyperparameter, and the names below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..errors import BadCheckpoint, UnsupportedModel, shown
from .families import FAMILIES
from .family import Family, Hyperparameters, RopeKeys, value_of

__all__ = ["check_names", "names_something"]

# hyperparameter → its names outside of the families
_ELSEWHERE = {
    "d_model": "d_model dim model_dim embed_dim embedding_dim",
    "n_layers": "n_layers num_layers",
    "n_heads": "n_heads num_heads",
    "n_kv_heads": "n_kv_heads num_kv_heads n_head_kv num_query_groups",
    "head_dim": "d_head head_size size_per_head kv_channels attention_head_dim attention_head_size",
    "d_ff": "d_ff ffn_dim ffn_hidden_size feed_forward_dim",
    "n_vocab": "n_vocab padded_vocab_size",
    "n_ctx": "n_ctx max_seq_len max_seq_length max_sequence_length context_length max_context_length",
    "act": "act_fn activation activation_fn",
    "norm_eps": "norm_eps layernorm_epsilon rms_norm_epsilon",
    "window": "sliding_window_size window_size attention_window sliding_window_length",
    "n_experts": "n_experts n_routed_experts moe_num_experts",
    "top_k": "num_experts_per_token experts_per_token moe_top_k",
    "tied": "tie_embeddings tied_embeddings tie_word_embedding",
    "attn_softcap": "attn_logit_softcap attn_logits_soft_cap",
    "logit_softcap": "final_logit_softcap logits_soft_cap",
    "parallel": "parallel_residual parallel_attn use_parallel_attn",
    "qk_norm": "qk_norm use_qk_norm qk_layernorm",
}
# Values of what a family computes without a key for it.
_DOES: Mapping[str, Callable[[Family, Hyperparameters], Any]] = {
    "n_experts": lambda family, f: f.n_experts,
    "window": lambda family, f: f.window,
    "parallel": lambda family, f: bool(value_of(family.parallel, f)),
    "qk_norm": lambda family, f: value_of(family.qk_norm, f) != "none",
    "attn_softcap": lambda family, f: family.attn_softcap(f),
    "logit_softcap": lambda family, f: family.logit_softcap(f),
    "embedding_multiplier": lambda family, f: family.embed_scale(f),
    "residual_multiplier": lambda family, f: family.resid_scale(f),
    "attention_multiplier": lambda family, f: family.attn_scale(f, 0),
    "query_scalar": lambda family, f: family.attn_scale(f, 0) ** -2,
    "logits_scaling": lambda family, f: 1 / family.logit_scale(f),
    "logit_scale": lambda family, f: family.logit_scale(f),
}
# hyperparameters that only say where another one applies
_SWITCHES = ("scale_attn", "scale_by_layer", "use_window", "sparse_step", "dense_layers", "pattern", "max_window_layers",
             "has_rope", "no_rope_interval", "layer_types", "original_positions", "chunk", "mixture_layers", "tempers", "temper_length",
             "temper_rate")  # fmt: skip
_THETA = "rope_theta rotary_emb_base rotary_base rope_base rope_freq_base"
_PARTIAL = "partial_rotary_factor rotary_pct rotary_percent rope_pct rope_percent"
_WIDTH = "rotary_dim rotary_ndims rope_dim"


def _hyperparameters() -> dict[str, str]:
    """Name → its hyperparameter."""
    keys = [item for family in FAMILIES.values() for item in family.keys.items()]
    found = {name: key.hyperparameter for name, key in keys if key.hyperparameter not in _SWITCHES}
    found.update({name: one for one, names in _ELSEWHERE.items() for name in names.split()})
    return found


_HYPERPARAMETERS = _hyperparameters()
_ROPE: Mapping[str, Callable[[Mapping[str, Any], Hyperparameters], Any]] = {
    **dict.fromkeys(_THETA.split(), lambda values, f: values["rope_theta"]),
    **dict.fromkeys(_PARTIAL.split(), lambda values, f: values["partial_rotary_factor"]),
    **dict.fromkeys(_WIDTH.split(), lambda values, f: int(f.head_dim * values["partial_rotary_factor"])),
}  # fmt: skip


def names_something(name: str) -> bool:
    return name in _HYPERPARAMETERS or name in _ROPE


def check_names(
    config: Mapping[str, Any], names: Iterable[str], family: Family, hparams: Hyperparameters, rope: Callable[[], list[Any]], where: str
) -> None:
    """Raise if one of these keys of a config disagrees with the hyperparameters.

    rope: returns the rotary dictionaries of the family as `rope_settings` does.
    """
    for name in names:
        given = config[name]
        used: list[Any] | None
        if name in _ROPE:
            used = [_ROPE[name](values, hparams) for values, _ in (rope() if family.rope else [])]
            key = _rope_key(name, family.rope)
        else:
            hyperparameter = _HYPERPARAMETERS[name]
            used = _used(config, hyperparameter, family, hparams)
            if used and hyperparameter == "n_ctx":  # a length may count what rotary scaling adds
                factors = [values.get("factor") for values, _ in (rope() if family.rope else [])]
                used += [used[0] * factor for factor in factors if isinstance(factor, (int, float))]
            key = next((one for one, meaning in family.keys.items() if meaning.hyperparameter == hyperparameter), "")
        if used is None or any(_agree(given, one) for one in used):
            continue
        says = f"{where} has {name} = {shown(given)}, which a {family.model_type} model does not read, and "
        if key and name in _WIDTH.split():  # used holds widths, the key a fraction
            raise BadCheckpoint(says + f"its {key} makes {shown(used[0])} of {hparams.head_dim} dimensions turn; correct one of them")
        if key:
            raise BadCheckpoint(says + f"{key} = {shown(used[0])}{'' if key in config else ' by default'}; remove one")
        raise UnsupportedModel(
            says + f"{'does without' if not used or not used[0] else f'computes with {shown(used[0])}'}; "
            "if the model was made without it, too, remove it from the config"
        )


def _used(config: Mapping[str, Any], hyperparameter: str, family: Family, hparams: Hyperparameters) -> list[Any] | None:
    """Values of a hyperparameter: the one in use, and that of its key, which may not be in use. None: not used."""
    keys = [config[name] for name, key in family.keys.items() if key.hyperparameter == hyperparameter and name in config]
    if hyperparameter in _DOES:
        return [_DOES[hyperparameter](family, hparams), *keys]
    return [getattr(hparams, hyperparameter), *keys] if hasattr(hparams, hyperparameter) else None


def _rope_key(name: str, rope: RopeKeys | None) -> str:
    if rope is None:
        return ""
    return rope.theta_key if name in _THETA.split() else rope.partial_key


def _agree(given: Any, used: Any) -> bool:
    if isinstance(given, float) or isinstance(used, float):
        return isinstance(given, (int, float)) and isinstance(used, (int, float)) and abs(given - used) <= 1e-6 * abs(used)
    return bool(given == used or (not given and not used))
