"""Figures of the study of corrigibility: means with intervals of what lies in its folder."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from correlations import Correlation, correlation
from results import Missing, metric

import powersteer as ps

if TYPE_CHECKING:
    from corrigibility import Study

__all__ = ["UNIT", "Figures"]

T = TypeVar("T")
UNITS = {"content": "nats", "letters": "nats", "texts": "nats a token"}
UNIT = "1"  # a length
OUTLIER = 3.0  # mean over median norm of a site's tokens


class Figures:
    """Of each method, by the kind of score, the set of questions and the side effect; None where there is no figure. What is
    not named is content, the set that is chosen on, and the budget of the choice."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.main, self.other = study.sets
        self.kl, self.plain, self.power = study.budgets[0], study.plain, study.power
        self._tests: dict[tuple[Any, ...], dict[str, np.ndarray] | None] = {}

    def there(self, compute: Callable[[], T]) -> T | None:
        """The result; None for one that is not in the folder."""
        try:
            return compute()
        except Missing:
            return None

    def values(self, method: str, kind: str = "content", of: str | None = None, kl: float | None = None) -> np.ndarray | None:
        """(questions,)"""
        key = method, of or self.main, kl or self.kl, kind == "texts"
        if key not in self._tests:
            self._tests[key] = self.there(lambda: self.study.test(*key))
        found = self._tests[key]
        return found.get(kind) if found else None

    def mean(self, method: str, kind: str = "content", of: str | None = None, kl: float | None = None) -> Any:
        values = self.values(method, kind, of, kl)
        return None if values is None else metric(values, UNITS[kind])

    def share(self, method: str, of: str | None = None, kl: float | None = None, kind: str = "content") -> Any:
        values = self.values(method, kind, of, kl)
        return None if values is None else metric((values > 0).astype(float), "share")

    def shift(self, method: str, kind: str = "content", of: str | None = None, kl: float | None = None) -> Any:
        """Paired difference to the plain model."""
        here, plain = self.values(method, kind, of, kl), self.values(self.plain, kind, of)
        return None if here is None or plain is None else metric(here - plain, UNITS[kind])

    def shift_by_wording(self, method: str, of: str | None = None) -> dict[str, Any]:
        """The shift of content, apart for questions whose corrigible option begins with Yes, with No, and otherwise."""
        each = np.subtract(self.values(method, of=of), self.values(self.plain, of=of))
        words = np.array([q.wording for q in self.study.questions("test", self.study.size.test, of or self.main)])
        return {w: metric(each[words == w], "nats") if (words == w).sum() > 1 else None for w in ("Yes", "No", "otherwise")}

    def difference(self, a: str, b: str, kind: str = "content") -> Any:
        """Paired difference of two methods that have test figures."""
        return metric(np.subtract(self.values(a, kind), self.values(b, kind)), UNITS[kind])

    @cached_property
    def methods(self) -> list[str]:
        """With test figures, without the random draws."""
        return [m for m in self.study.methods if m not in self.study.draws and self.mean(m) is not None]

    @cached_property
    def draws(self) -> list[str]:
        return [d for d in self.study.draws if self.mean(d) is not None]

    @cached_property
    def best_draw(self) -> str:
        return self.best_draw_by("content")

    def best_draw_by(self, kind: str) -> str:
        """The one that tests best."""
        return max(self.draws, key=lambda d: self.mean(d, kind).value)

    def beats_random(self, method: str, kind: str = "content") -> bool:
        """Above all draws, and the interval of the difference to the best one is above 0."""
        return bool(self.difference(method, self.best_draw_by(kind), kind).low > 0)

    # ---- of the chosen vectors, and of what it was chosen from

    def where(self, method: str) -> str:
        (v,) = self.study.chosen(method, self.kl)
        target = v.target if isinstance(v.target, str) or v.target is None else v.target[0]
        there = str(v.layer) if target is None else f"{v.layer} → {str(target).replace('_', ' ')}"
        rank = "" if v.rank is None or isinstance(v.target, str) else f", vector {v.rank + 1}"
        return f"{there}{rank}, {'+' if v.scale > 0 else '−'}"

    def counted(self, method: str) -> str:
        return f"{len(self.study.candidates(method))} of {2 * len(self.study.vectors(method))}"

    def cost(self, method: str) -> str:
        calls = {v.cost for v in self.study.vectors(method)}
        if method in self.draws:
            return "none"
        if None in calls:  # of gradients: each labelled question in both orders
            calls = {ps.Cost(2 * self.study.size.labelled, 2 * self.study.size.labelled, 0.0)}
        return f"{sum(c.forward for c in calls)} + {sum(c.products for c in calls)}"

    def size_moved(self, method: str) -> np.ndarray:
        """(vectors,) mean over signs of the absolute shift of validation content."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of vectors that reach the budget with neither sign
            return np.asarray(np.nanmean(np.abs(self.study.moved(method)), axis=1))

    def moved_by_sign(self, method: str, i: int) -> str:
        """Shift of validation content by the vector i with + and with −."""
        return " / ".join("–" if np.isnan(x) else f"{x:+.2f}" for x in self.study.moved(method)[i])

    def foretold(self, method: str) -> dict[str, Correlation | None] | None:
        """Correlation of what the map knows of the power vectors with how far they move content."""
        if (known := self.there(lambda: self.study.foretell(method))) is None:
            return None
        size, groups = self.size_moved(method), self.groups(method)
        return {name: correlation(x, size, groups) for name, x in known.items()}

    @cached_property
    def first_order(self) -> dict[str, Any] | None:
        """What vectors of a map move to first order: `Study.to_first_order`, with correlations in place of what is known, at the
        length of a share of the norm and at unit length. Sources where one token has nearly all of the norm are left out."""
        if (found := self.there(lambda: self.study.to_first_order(Path()))) is None:
            return None
        left_out = [int(layer) for layer, ratio in found["mean over median norm"].items() if ratio > OUTLIER]
        keep = [i for i, (source, *_) in enumerate(found["where"]) if source not in left_out]
        where = [found["where"][i] for i in keep]
        groups = [at[0] for at in where]  # targets of one source have much of their vectors in common
        size, norm = np.abs(found["content"])[keep], np.array(found["norm"])[keep]
        known = {
            length: {name: correlation(np.array(x)[keep], y, groups) for name, x in found["known"].items()}
            for length, y in ((f"{found['length']} norms", size), (UNIT, size / (found["length"] * norm)))
        }
        return {"where": where, "size": size, "known": known, "pairs": len({tuple(at[:2]) for at in where}), "left out": left_out,
                "length": found["length"]}  # fmt: skip

    def groups(self, method: str) -> list[Hashable]:
        return [(v.layer, v.target) for v in self.study.vectors(method)]
