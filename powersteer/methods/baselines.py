"""Vectors to compare with: contrastive, random, and power vectors under the same interface."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInput
from ..inputs.positions import Positions, prompt_positions
from ..inputs.prompts import Ids, Prompts, split
from ..inputs.sites import Site, SiteLike
from ..model.model import _LAST_TWO as LAST_TWO
from ..model.model import Model
from ..vectors.steering_vector import Cost, SteeringVector, rounding
from .displacement import check_count, model_site, unit

__all__ = ["caa", "power_vectors", "random_vectors"]

Array = NDArray[Any]


def caa(
    model: Model,
    positive: Prompts,
    negative: Prompts,
    layer: int | SiteLike,
    site: str | None = None,
    positions: Positions = -1,
    paired: bool = True,
) -> SteeringVector:
    """Contrastive activation addition (Rimsky et al. 2023, arXiv:2312.06681): the mean over pairs of

        activation of positive[i] - activation of negative[i]

    at `positions` of each prompt (several: their mean), by default the last token; published: the token of the answer
    letter, with the published prompts, which close a bracket behind it, position -2. Its norm is the vector's scale.
    layer: with `site`, "resid_post" as published if None; or a whole site.
    paired: the lists must be of one length. False: the mean of one list less that of the other, which for equal lengths
    is the same vector. As published the vector is added after the prompt: `model.steered(v, "generated")`.

    `site_norm` is the mean norm at every position of all prompts, `target_positions` are those that were read.
    Raises InvalidInput for an empty list, unequal lengths of pairs, and mean activations that differ by no more than
    rounding: the direction would be noise.
    """
    started = time.perf_counter()
    place = model_site(model, layer, site, "resid_post")
    good, bad = _Reading(model, positive, place, positions), _Reading(model, negative, place, positions)
    if paired and len(good.means) != len(bad.means):
        raise InvalidInput(
            f"caa: {len(good.means)} positive and {len(bad.means)} negative prompts make no pairs; give as many of "
            "each, or paired=False for the difference of the means"
        )
    difference = np.mean(good.means, 0) - np.mean(bad.means, 0)
    norms = np.concatenate(good.norms + bad.norms)
    length, noise = float(np.linalg.norm(difference)), _noise(model, good, bad)
    if not length > noise:
        raise InvalidInput(
            f"caa: positive and negative prompts have the same mean activation at {place} at the positions read, but for "
            f"rounding (they differ by {length:.3g}, rounding may be {noise:.3g}); do they differ there or before, where "
            'the site\'s attention reaches? A smaller difference needs ps.load(..., dtype="float64")'
        )
    return SteeringVector.from_array(
        difference.astype(model.dtype), place.layer, place.name, method="caa", site_norm=float(norms.mean()),
        target_positions=good.rows + bad.rows, **_provenance(model, good.prompts + bad.prompts, good.tokens + bad.tokens),
        cost=Cost(len(good.means) + len(bad.means), 0, time.perf_counter() - started),
    )  # fmt: skip


def random_vectors(
    model: Model,
    layer: int | SiteLike,
    n: int = 1,
    site: str | None = None,
    seed: int = 0,
    prompts: Prompts | None = None,
) -> list[SteeringVector]:
    """n independent unit vectors, uniform on the sphere, at `site` of `layer` ("mlp_out" if None) or at a whole site.

    The first vectors of a seed do not depend on n. prompts: gives the vectors the site's mean activation norm on them,
    for `relative`. Raises InvalidInput for n < 1 and a site the model does not have.
    """
    started = time.perf_counter()
    place = model_site(model, layer, site, "mlp_out")
    n, seed = check_count(n, "random_vectors: n"), check_count(seed, "random_vectors: seed", least=0)
    known = {"site_norm": None, **_provenance(model, [], [])}
    passes = 0
    if prompts is not None:
        read = _Reading(model, prompts, place, None)
        known = {
            "site_norm": float(np.concatenate(read.norms).mean()), "source_positions": read.rows,
            **_provenance(model, read.prompts, read.tokens),
        }  # fmt: skip
        passes = len(read.means)
    directions = unit(np.random.default_rng(seed).standard_normal((n, model.d_model))).astype(model.dtype)
    cost = Cost(passes, 0, time.perf_counter() - started)
    return [
        SteeringVector(v, place.layer, place.name, method="random", seed=seed, cost=cost, **known) for v in directions
    ]


def power_vectors(
    model: Model,
    prompts: Prompts,
    source: int | SiteLike,
    target: int | SiteLike,
    k: int = 12,
    method: str = "krylov",
    source_site: str | None = None,
    target_site: str | None = None,
    positions: Positions = LAST_TWO,
    source_positions: Positions = None,
    seed: int = 0,
    **svd: Any,
) -> list[SteeringVector]:
    """The vectors of `model.jacobian(...).svd(k, method, ...)`, knowing what they have cost. target: a layer, a whole
    site, "logits" or "next_token", at `positions` (of the heads the last one). svd: `tol`, `iterations`, ... of
    `Jacobian.svd`. Raises and warns as these two."""
    started = time.perf_counter()
    J = model.jacobian(prompts, source, target, source_site, target_site, positions, source_positions)
    result = J.svd(k, method, seed=seed, **svd)
    prompt_count = len(J.prompt_tokens)
    products = (result.applications + result.certificate_applications) * prompt_count
    cost = Cost(prompt_count, products, time.perf_counter() - started)
    return [replace(v, cost=cost) for v in result.vectors]


class _Reading:
    """Prompts and what was read of them at one site: the mean activation (d,) at some positions, all norms (T,)."""

    def __init__(self, model: Model, prompts: Prompts, place: Site, positions: Positions) -> None:
        self.prompts, _ = split(prompts)
        self.tokens: list[Ids] = model.tokens(self.prompts)
        self.rows = [prompt_positions(positions, len(t)) for t in self.tokens]
        self.means: list[Array] = []
        self.norms: list[Array] = []
        for tokens, rows in zip(self.tokens, self.rows, strict=True):
            activation = model.activations(tokens, place).astype(np.float64)
            self.means.append(activation[rows].mean(0))
            self.norms.append(np.linalg.norm(activation, axis=1))


def _noise(model: Model, good: _Reading, bad: _Reading) -> float:
    """How far the two means may be apart by rounding alone."""
    read = [norms[rows] for side in (good, bad) for norms, rows in zip(side.norms, side.rows, strict=True)]
    here, there = (np.sort(np.concatenate(side.rows)) for side in (good, bad))
    # the angles of rotary embeddings are float32, as in transformers: the same tokens, moved on, differ by that
    dtype = model.dtype if np.array_equal(here, there) else np.float32
    return rounding(float(np.concatenate(read).mean()), dtype)


def _provenance(model: Model, prompts: Sequence[Any], tokens: Sequence[Ids]) -> dict[str, Any]:
    """Fields of a vector: the model, its steering, and the prompts, as text as far as it is known."""

    def text(prompt: Any, ids: Ids) -> str:
        if isinstance(prompt, str):
            return prompt
        return "" if model.tokenizer is None else "".join(model.to_str_tokens(ids))

    identity = model.identity
    return {
        "model": identity["name"], "model_type": identity["model_type"], "weights": identity["weights"],
        "steering": model.steering, "prompt_tokens": tokens,
        "prompts": [text(p, t) for p, t in zip(prompts, tokens, strict=True)],
    }  # fmt: skip
