"""What the methods read of a model: a site, activations of prompts, and the provenance of vectors made from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..inputs.positions import Positions, prompt_positions
from ..inputs.prompts import EncodedPrompt, Ids, Prompt
from ..inputs.sites import Site, SiteLike, resolve_site
from ..model.model import Model

__all__ = ["Activations", "Array", "model_fields", "model_site", "unit"]

Array = NDArray[Any]


class Activations:
    """Activations of prompts at one site: by prompt the mean (d,) over `rows`, the positions that are read, and the
    2-norm at every position (T,)."""

    def __init__(self, model: Model, prompts: Sequence[Prompt], site: Site, read_positions: Positions) -> None:
        self.tokens: list[Ids] = model.tokens(list(prompts))
        self.rows = [prompt_positions(read_positions, len(t)) for t in self.tokens]
        self.means: list[Array] = []
        self.norms: list[Array] = []
        for tokens, rows in zip(self.tokens, self.rows, strict=True):
            activation = model.activations(tokens, site).astype(np.float64)
            self.means.append(activation[rows].mean(0))
            self.norms.append(np.linalg.norm(activation, axis=1))
        self.fields = {
            **model_fields(model),
            "site_norm": float(np.concatenate(self.norms).mean()),
            "prompt_tokens": self.tokens,
            "prompts": [EncodedPrompt(p, t, model.tokenizer).text for p, t in zip(prompts, self.tokens, strict=True)],
        }


def model_fields(model: Model) -> dict[str, Any]:
    """Fields of a vector that name the model and its steering."""
    identity = model.identity
    return {
        "model": identity["name"],
        "model_type": identity["model_type"],
        "weights": identity["weights"],
        "steering": model.steering,
    }


def model_site(model: Model, layer: int | SiteLike, name: str | None, default: str) -> Site:
    """The site of a model given by a layer and a name (`default` for None), or by a whole site."""
    spec = model.spec
    return resolve_site(
        layer, name, default, n_layers=spec.n_layers, parallel=spec.parallel, post_norms=spec.post_norms
    )


def unit(x: Array) -> Array:
    """Each row divided by its 2-norm."""
    rows: Array = x / np.linalg.norm(x, axis=-1, keepdims=True)
    return rows
