"""The figures of one model's maps, from what is there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from map_measures import additive_rest, agreement, shared, spans, turning

import powersteer as ps

__all__ = ["SPAN", "Findings", "factor"]

SPAN = 5  # first right singular vectors of a pair
_FEWEST = 4  # pairs of layers that two maps must share to be compared


class Findings:
    """Maps by prompt, of all pairs or on the grid; those of the first prompt together; published vectors by rank."""

    def __init__(self, study: Any) -> None:
        self.study = study
        grids, every = ({name: m for name in study.prompts if (m := study.load_map(name, whole))} for whole in (False, True))
        self.all_maps: dict[str, ps.Atlas] = {**grids, **{f"{name}, all pairs": m for name, m in every.items()}}
        self.first = [of["chat"] for of in (every, grids) if "chat" in of]
        larger = {name: max((of[name] for of in (every, grids) if name in of), key=len) for name in {**grids, **every}}
        self.maps = {name: larger[name] for name in study.prompts if name in larger}
        self.spans = {name: spans(atlas, SPAN) for name, atlas in self.maps.items()}
        self.first_spans = {pair: V for atlas in self.first[::-1] for pair, V in spans(atlas, SPAN).items()}
        self.chance = SPAN / study.model.d_model
        self.turning = turning(self.first_spans)
        self.ranks = [row for one in study.compared for row in _by_rank(one)]
        self.neighbours = [x for one in study.compared for x in _neighbours(one)]

    def array(self, of: str) -> np.ndarray:
        """(source, target) of the first rank, from the maps of the first prompt."""
        arrays = [getattr(atlas, of)[:, :, 0] for atlas in self.first]
        return arrays[0] if len(arrays) == 1 else np.where(np.isnan(arrays[0]), arrays[1], arrays[0])

    def share(self, of: str, lag: int) -> float:
        return float(np.mean(self.turning[of][lag]))

    def share_of_next_token(self, source: int, target: int) -> float:
        """Between the spans towards a layer and towards the next token; NaN where one is not there."""
        found = self.first_spans
        there = (source, target) in found and (source, "next_token") in found
        return float(shared(found[source, target], found[source, "next_token"])) if there else float("nan")

    def shares_of_next_token(self, sources: Iterable[int], target: int) -> list[float]:
        """Of the sources that have both."""
        found = [self.share_of_next_token(s, target) for s in sources]
        return [x for x in found if np.isfinite(x)]

    def between_targets(self) -> tuple[int, list[int], np.ndarray]:
        """(source, targets, shares between them) of the source with the most targets; of several the deepest."""
        targets: dict[int, list[int]] = {}
        for s, t in self.first_spans:
            if not isinstance(t, str):
                targets.setdefault(s, []).append(t)
        source = max(targets, key=lambda s: (len(targets[s]), s))
        columns = sorted(targets[source])
        rows = [[float(shared(self.first_spans[source, a], self.first_spans[source, b])) for b in columns] for a in columns]
        return source, columns, np.array(rows)

    def agreements(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Of every two prompts: how far their maps agree."""
        return {pair: found for pair in combinations(self.maps, 2) if (found := self._between(*pair))}

    def _between(self, a: str, b: str) -> dict[str, Any]:
        sigma = [_log_first(self.maps[name]) for name in (a, b)]
        both = [{pair: x for pair, x in one.items() if pair in other} for one, other in (sigma, sigma[::-1])]
        layers = [{pair: x for pair, x in one.items() if not isinstance(pair[1], str)} for one in both]
        if len(layers[0]) < _FEWEST:
            return {}
        token = [{pair: x for pair, x in one.items() if isinstance(pair[1], str)} for one in both]
        ends = len({s for s, _ in layers[0]}) + len({t for _, t in layers[0]})
        rest = agreement(*map(additive_rest, layers)) if len(layers[0]) >= 2 * ends else None  # else hardly anything is left
        return {
            "pairs": len(layers[0]), "σ₁": agreement(*layers), "σ₁ without layers": rest, "next token": agreement(*token),
            "spans": float(np.mean([shared(self.spans[a][p], self.spans[b][p]) for p in layers[0]])),
        }  # fmt: skip


def factor(logs: Sequence[float]) -> float:
    """The median ratio of the larger to the smaller, from logarithms of ratios."""
    return float(np.exp(np.median(np.abs(logs))))


def _log_first(atlas: ps.Atlas) -> dict[tuple[int, int | str], float]:
    return {(p.source, p.target): float(np.log(p.sigma[0])) for p in atlas}


def _by_rank(one: dict[str, Any]) -> list[dict[str, float]]:
    """Of one pair, rank by rank: published against certified."""
    published, rows = one["published"], []
    for rank, cosine in enumerate(published["cosine"]):
        certified, other = one["KL"][0][rank], one["KL"][1][rank]
        content = [of[rank] for of in one["content"]]
        apart = min(abs(content[0] - content[1]), abs(content[0] + content[1]))  # a sign is arbitrary
        rows.append({
            "rank": rank, "cosine": cosine, "inside": published["inside"][rank], "residual": published["residual"][rank],
            "sigma": published["sigma"][rank] / one["sigma"][rank], "other seed": one["other seed"]["cosine"][rank],
            "KL": float(np.log(other / certified)), "content": apart, "size": abs(content[0]),
        })  # fmt: skip
    return rows


def _neighbours(one: dict[str, Any]) -> list[dict[str, float]]:
    """Of one pair, certified vectors against those of the next rank, whose sign is arbitrary."""
    kl, content = np.array(one["KL"][0]), np.array(one["content"][0])
    differ = np.minimum(abs(np.diff(content)), abs(content[1:] + content[:-1]))
    return [{"KL": float(k), "content": float(c)} for k, c in zip(np.diff(np.log(kl)), differ, strict=True)]
