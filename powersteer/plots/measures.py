"""The measures of an effect: labels, values, and means over prompts."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from ..errors import InvalidInput
from ..evaluate.effects import Effect

__all__ = ["MEASURES", "Sample", "means", "measure_label"]

MEASURES = {  # fields of an Effect
    "kl_end": "KL at the prompt's end (nats)",
    "kl_continuation": "KL along the continuation (nats a token)",
    "linearity": "‖ΔF − Jδ‖ / ‖ΔF‖",
    "repetition": "repetition (share of n-grams)",
    "compression": "compression (zlib ratio)",
    "perplexity": "perplexity under the base model",
    "score": "score",
}
Sample = list[tuple[Effect, float]]


def means(records: Iterable[Effect], value: str) -> Sample:
    """Means over prompts: (first record, mean of the finite values) for records that differ only in the prompt."""
    token = _token(value)
    if token is None and value not in MEASURES:
        raise InvalidInput(f"an effect has no {value!r}; it has {', '.join(MEASURES)} and logit_change[token]")
    groups: dict[Any, tuple[Effect, list[float]]] = {}
    for e in records:
        key = (e.vector, e.source, e.site, e.target, e.rank, e.sign, e.scale, e.norm)
        x = getattr(e, value) if token is None else e.logit_change.get(token)
        groups.setdefault(key, (e, []))[1].extend([x] if x is not None and math.isfinite(x) else [])
    return [(e, sum(finite) / len(finite) if finite else math.nan) for e, finite in groups.values()]


def _token(value: str) -> str | None:
    """The token of "logit_change[token]"."""
    return value[len("logit_change[") : -1] if value.startswith("logit_change[") and value.endswith("]") else None


def measure_label(value: str) -> str:
    token = _token(value)
    return MEASURES.get(value, value) if token is None else f"logit of {token!r}, less the mean change (logits)"
