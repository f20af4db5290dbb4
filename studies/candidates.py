"""The steering vectors that each method offers, twelve a method, from one set of prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import powersteer as ps
from powersteer.evaluate.gradients import score_gradients

__all__ = ["METHODS", "Material", "pairs"]

RANKS, SOURCES = 2, 4  # vectors of a pair; sources of MELBO and DCT
PAIRS = {  # by the number of layers
    30: ((4, 14), (4, 26), (10, 20), (10, 26), (16, 26), (20, 28)),
    18: ((2, 8), (2, 15), (6, 12), (6, 15), (10, 15), (12, 16)),
}
Vectors = list[ps.SteeringVector]


@dataclass(frozen=True)
class Material:
    """What the methods make vectors of."""

    model: ps.Model
    prompts: Sequence[Any]  # for Jacobians, MELBO and DCT
    texts: Sequence[Any]  # up to the last token of answers in words
    positive: Sequence[Any]  # pairs that show the behaviour and do not, for CAA
    negative: Sequence[Any]
    labelled: Sequence[Any]  # items of the score
    score: ps.evaluate.LogitScore
    n: int = 12  # vectors of a method
    iterations: int = 100  # of MELBO

    @property
    def pairs(self) -> list[tuple[int, int]]:
        return pairs(self.model)[: self.n // RANKS]

    @property
    def layers(self) -> list[int]:
        """n layers from the first source of the power vectors to the last target less two, or all that there are."""
        first, last = pairs(self.model)[0][0], pairs(self.model)[-1][1] - 2
        return np.unique(np.linspace(first, max(first, last), self.n).round().astype(int)).tolist()

    @property
    def spans(self) -> list[tuple[int, int]]:
        """Sources of the power vectors, each with its nearest target, for the methods that offer several vectors a source."""
        nearest = {s: (s, t) for s, t in sorted(pairs(self.model), key=lambda pair: -pair[1])}
        return [nearest[s] for s in sorted(nearest)][:SOURCES]


def pairs(model: ps.Model) -> list[tuple[int, int]]:
    """The pairs of layers of the power vectors; those of a model of another depth lie at the same depths of 30."""
    n = model.n_layers
    scaled = [(round(s * n / 30), min(round(t * n / 30), n - 1)) for s, t in PAIRS[30]]
    return list(PAIRS.get(n) or dict.fromkeys((s, t) for s, t in scaled if s < t))


@dataclass(frozen=True)
class Method:
    """How vectors are made: in parts that do not depend on each other, each from something such as a pair of layers."""

    parts: Callable[[Material], Sequence[Any]]
    make: Callable[[Material, Any], Vectors]


def certified(m: Material, pair: tuple[int, int]) -> Vectors:
    return ps.power_vectors(m.model, m.prompts, *pair, k=RANKS, tol=1e-2)


def published(m: Material, pair: tuple[int, int]) -> Vectors:
    return ps.power_vectors(m.model, m.prompts, *pair, k=m.n, method="power", iterations=5)[:RANKS]


def fisher(m: Material, layer: int) -> Vectors:
    return ps.power_vectors(m.model, m.prompts, layer, "next_token", k=1, tol=1e-2)


def fisher_of_texts(m: Material, layer: int) -> Vectors:
    return ps.power_vectors(m.model, m.texts, layer, "next_token", k=1, tol=1e-2)


def melbo(m: Material, pair: tuple[int, int]) -> Vectors:
    return ps.melbo(m.model, m.prompts, *pair, k=m.n // SOURCES, iterations=m.iterations, source_site="mlp_out")


def dct_linear(m: Material, pair: tuple[int, int]) -> Vectors:
    return ps.dct(m.model, m.prompts, *pair, k=m.n // SOURCES, source_site="mlp_out", tol=1e-2)


def dct_exponential(m: Material, pair: tuple[int, int]) -> Vectors:
    return ps.dct(m.model, m.prompts, *pair, k=m.n // SOURCES, source_site="mlp_out", method="exponential")


def caa(m: Material, layers: Sequence[int]) -> Vectors:
    return ps.caa(m.model, m.positive, m.negative, layers)


def pull_back(m: Material, layers: Sequence[int]) -> Vectors:
    sites = [ps.Site(layer, "mlp_out") for layer in layers]
    gradients = score_gradients(m.model, m.labelled, m.score, sites)
    return [ps.SteeringVector.from_array(gradients[s].mean(0), s.layer, s.name, method="pull_back") for s in sites]


PAIR, LAYER, SPAN, AT_ONCE = (lambda m: m.pairs), (lambda m: m.layers), (lambda m: m.spans), (lambda m: [m.layers])
METHODS = {
    "power, certified": Method(PAIR, certified),
    "power, published": Method(PAIR, published),
    "Fisher": Method(LAYER, fisher),
    "Fisher of texts": Method(LAYER, fisher_of_texts),
    "CAA": Method(AT_ONCE, caa),
    "pull-back": Method(AT_ONCE, pull_back),
    "DCT, linear": Method(SPAN, dct_linear),
    "DCT, exponential": Method(SPAN, dct_exponential),
    "MELBO": Method(SPAN, melbo),
}
