"""What the methods read of a model: a site, activations of prompts, and the provenance of vectors made from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..inputs.positions import Positions, prompt_positions
from ..inputs.prompts import EncodedPrompt, Prompt
from ..inputs.sites import Site, SiteLike, resolve_site
from ..model.model import Model

__all__ = ["Activations", "Array", "model_fields", "model_site", "unit"]

Array = NDArray[Any]


class Activations:
    """Activations of prompts at one site: by prompt the mean (d,) over `rows`, the positions that are read, and the
    2-norm at every position (T,)."""

    def __init__(self, model: Model, prompts: Sequence[Prompt], site: Site, read_positions: Positions) -> None:
        tokens = [model.tokens(p) for p in prompts]
        self.rows = [prompt_positions(read_positions, len(t)) for t in tokens]
        acts = (model.activations(t, site).astype(np.float64) for t in tokens)
        read = [(a[rows].mean(0), np.linalg.norm(a, axis=1)) for a, rows in zip(acts, self.rows, strict=True)]
        self.means, self.norms = ([part[i] for part in read] for i in (0, 1))
        self.fields = {
            **model_fields(model),
            "site_norm": float(np.concatenate(self.norms).mean()),
            "prompt_tokens": tokens,
            "prompts": [EncodedPrompt(p, t, model).text for p, t in zip(prompts, tokens, strict=True)],
        }


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
