"""What the methods read of a model: a site, activations of prompts, and the provenance of vectors made from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..inputs.positions import Positions, prompt_positions
from ..inputs.prompts import Prompt
from ..inputs.sites import Site, SiteLike, resolve_site
from ..model.model import Model

__all__ = ["Activations", "Array", "model_fields", "model_site", "unit"]

Array = NDArray[Any]


class Activations:
    """Activations of prompts at several sites, from one forward pass of each.

    Attributes
    ----------
    rows
        By prompt, the positions that are read.
    means, norms
        By site and prompt, the mean (d,) over `rows`, and the 2-norm at every position (T,).
    """

    def __init__(self, model: Model, prompts: Sequence[Prompt], sites: Sequence[Site], read_positions: Positions) -> None:
        encoded, tokens, _ = model._read(list(prompts))
        self.rows = [prompt_positions(read_positions, len(t)) for t in tokens]
        self.means: dict[Site, list[Array]] = {site: [] for site in sites}
        self.norms: dict[Site, list[Array]] = {site: [] for site in sites}
        for t, rows in zip(tokens, self.rows, strict=True):
            _, (acts,) = model._forward([t], sites, "none")
            for site, act in zip(sites, acts, strict=True):
                exact = act.astype(np.float64)
                self.means[site].append(exact[rows].mean(0))
                self.norms[site].append(np.linalg.norm(exact, axis=1))
        self._fields = {
            **model_fields(model),
            "prompt_tokens": tokens,
            "prompts": [prompt.text for prompt in encoded],
        }

    def fields(self, site: Site) -> dict[str, Any]:
        """Provenance of a vector at one of the sites."""
        return {**self._fields, "site_norm": float(np.concatenate(self.norms[site]).mean())}


def model_fields(model: Model) -> dict[str, Any]:
    """Fields of a vector that name the model and its steering."""
    identity = model.identity
    return {"model": model.name, **{key: identity[key] for key in ("model_type", "weights")}, "steering": model.steering}


def model_site(model: Model, layer: int | SiteLike, name: str | None, default: str) -> Site:
    """The site of a model given by a layer and a name (`default` for None), or by a whole site."""
    return resolve_site(layer, name, default, **model._site_rules)


def unit(x: Array) -> Array:
    """Each row divided by its 2-norm."""
    return np.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True))
