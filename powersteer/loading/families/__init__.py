"""The families, one table each, one file a lineage. Every value is checked against transformers by tests/test_loading.py.

Sizes must be in the config; other defaults are those of transformers' config classes.
"""

from __future__ import annotations

from ..family import Family
from . import (
    alibi,
    cohere,
    gemma,
    gemma4,
    glm,
    gpt,
    latent,
    lfm,
    llama,
    mamba,
    mixtures,
    nemotron,
    olmo,
    phi,
    qwen,
    qwen_hybrid,
)

__all__ = ["FAMILIES"]

FAMILIES: dict[str, Family] = {
    family.model_type: family
    for lineage in (llama, nemotron, qwen, olmo, glm, phi, gemma, gemma4, gpt, alibi, cohere, mixtures, latent, lfm, qwen_hybrid, mamba)
    for family in lineage.FAMILIES
}
