"""A model of quantised weights with the same weights in float32."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import powersteer as ps
from powersteer.loading.blocks import Blocks
from powersteer.loading.spec import MATRICES
from powersteer.model.construct import model_from_checkpoint


def widened(model: ps.Model) -> ps.Model:
    """The model with its matrices of blocks decoded; it has no experts."""
    spec, done = model.spec, {}

    def wide(matrix: Any) -> Any:
        if not isinstance(matrix, Blocks):
            return matrix
        if id(matrix) not in done:  # a tied head stays tied
            done[id(matrix)] = matrix.decode()
        return done[id(matrix)]

    layers = tuple(replace(layer, **{name: wide(getattr(layer, name)) for name in MATRICES}) for layer in spec.layers)
    spec = replace(spec, embed=wide(spec.embed), lm_head=wide(spec.lm_head), layers=layers)
    checkpoint = replace(model._loaded.checkpoint, spec=spec)
    return model_from_checkpoint(checkpoint, model.dtype, model.threads)
