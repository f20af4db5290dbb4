"""What each kind of vector does to the three forks of the built-in model, and at what cost.

    python studies/built_in.py --out runs/built_in                          # and writes docs/studies/built_in.md
    python studies/built_in.py --out runs/seed1 --model FOLDER --methods    # the first table only, of another training seed

Vectors come from eight validation questions of a fork, without labels but for CAA. Every method is searched in the same
way (both signs, the same scales, the same validation questions) and its choice is tested on the same test questions.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from page import add_arguments, folder_of
from results import Results

import powersteer as ps
from powersteer.demo import story as demo
from powersteer.demo.forks import FORKS, questions

__all__ = ["EFFECT_SCALES", "METHODS", "POWER", "SIGNED", "Fork", "KeptSearch", "Sizes", "forks_of", "run", "run_methods", "search_key"]

SCALES = (0.18, 0.35, 0.7, 1.0, 1.4, 2.0)
SIGNED = tuple(sign * s for sign in (-1, 1) for s in sorted(SCALES, reverse=sign < 0))
EFFECT_SCALES = (0.05, 0.1, 0.2, 0.35, 0.7, 1.4)
POWER = "power, certified"
Vectors = list[ps.SteeringVector]


@dataclass(frozen=True)
class Sizes:
    """How much is asked of every fork."""

    forks: tuple[str, ...] = tuple(FORKS)
    validation: int = 32
    test: int = 200
    grid: int = 100  # test questions of the Fisher vectors without a choice
    draws: int = 5
    k: int = 12  # singular vectors of a pair of layers
    iterations: int = 100  # of MELBO


QUICK = Sizes(forks=("products",), validation=9, test=3, grid=2, draws=2, k=6, iterations=2)


class KeptSearch:
    """What is kept of a search."""

    def __init__(self, kept: dict[str, Any]) -> None:
        self.ranked: list[tuple[int, int, float, float]] = kept["ranked"]  # vector, sign, scale, validation score
        self.chosen: dict[str, Any] = kept["chosen"]  # layer, target, rank, sign, scale, and the result on test questions
        self.random: list[dict[str, Any]] = kept["random"]  # the same of each draw
        self.test = ps.MetricResult(**self.chosen["test"])
        self.unsteered, self.share = (ps.MetricResult(**kept[name]) for name in ("unsteered", "share"))
        self.random_share = kept["random share"] and ps.MetricResult(**kept["random share"])
        self.draws = [ps.MetricResult(**draw["test"]) for draw in self.random]

    def best(self, keep: Callable[[int, float], bool] = lambda sign, scale: True) -> dict[int, float]:
        """Best validation score of every vector over the signs and scales that are kept."""
        best: dict[int, float] = {}
        for index, sign, scale, score in self.ranked:
            if keep(sign, scale):
                best[index] = max(best.get(index, 0.0), score)
        return best


def _selection(found: ps.Selection) -> dict[str, Any]:
    c, v = found.candidate, found.candidate.vector
    target = v.target if v.target is None or isinstance(v.target, str) else v.target[0]
    return {"layer": v.layer, "target": target, "rank": v.rank, "sign": c.sign, "scale": c.scale, "test": asdict(found.test)}


def search_key(fork: str, method: str) -> str:
    """Where the search among a method's vectors is kept."""
    return f"{fork}.search {method}"


class Fork:
    """One fork on one model, with what was computed of it."""

    def __init__(self, model: ps.Model, results: Results, name: str, sizes: Sizes) -> None:
        self.model, self.results, self.name, self.sizes = model, results, name, sizes
        asked, unseen = questions(name, "validation", sizes.validation), questions(name, "test", sizes.test)
        self.prompts, self.tests = [q.prompt for q in asked], [q.prompt for q in unseen]
        self.score = demo.Solved.of([*asked, *unseen])
        self.few = self.prompts[: demo.JACOBIAN]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        return [(s, t) for t in range(self.model.n_layers) for s in range(t)]

    def vectors(self, method: str) -> Vectors:
        return self.results.vectors(f"{self.name}.vectors {method}", lambda: METHODS[method](self))

    def has(self, method: str) -> bool:
        return self.results.has(search_key(self.name, method))

    def found(self, method: str) -> KeptSearch:
        """The search among a method's vectors; among the certified power vectors, that among random ones beside it."""
        draws = self.sizes.draws if method == POWER else 0
        return KeptSearch(self.results.once(search_key(self.name, method), lambda: self._search(self.vectors(method), draws)))

    def at_one_length(self) -> KeptSearch:
        """The search among power vectors whose scales are of one length, the geometric mean of the sites' norms."""
        vectors = self.vectors(POWER)
        common = math.exp(np.mean([math.log(v.site_norm) for v in vectors]))
        made = [replace(v, site_norm=common) for v in vectors]
        return KeptSearch(self.results.once(search_key(self.name, "one length"), lambda: self._search(made)))

    def _search(self, vectors: Vectors, draws: int = 0) -> dict[str, Any]:
        """Every candidate on eight validation questions, the best quarter on all."""
        found = ps.search(self.model, vectors, self.score, validation=self.prompts, test=self.tests, scales=SCALES,
                          n_random=draws, max_new_tokens=demo.ANSWER, halving=4)  # fmt: skip
        return {
            "ranked": [[c.index, c.sign, c.scale, c.score] for c in found.ranked],
            "chosen": _selection(found.chosen[0]), "random": [_selection(r) for r in found.random],
            "unsteered": asdict(found.unsteered[1]), "share": asdict(found.share),
            "random share": None if found.random_share is None else asdict(found.random_share),
        }  # fmt: skip

    def effects(self) -> dict[str, Any]:
        """(scales, vectors, values) of |dF - J delta| / |dF|, and of the KL of the next token, of the power vectors."""

        def compute() -> dict[str, Any]:
            vectors = self.vectors(POWER)
            measured = ps.effects(self.model, self.few[:2], vectors, scales=EFFECT_SCALES, max_new_tokens=0, n_random=0)
            by = {s: [[e for e in measured.where(scale=s) if e.vector == i] for i in range(len(vectors))] for s in EFFECT_SCALES}
            return {name: [[[getattr(e, name) for e in of] for of in by[s]] for s in EFFECT_SCALES] for name in ("linearity", "kl_end")}

        return self.results.once(f"{self.name}.effects", compute)

    def presence(self) -> list[float]:
        """Presence ratio of every power vector."""
        return self.results.once(
            f"{self.name}.presence",
            lambda: [m.value for m in ps.evaluate.presence_ratio(self.model, self.few, self.vectors(POWER))],
        )

    def fisher_grid(self) -> list[list[float]]:
        """Accuracy of each layer's first Fisher vector at all signed scales on test questions, without any choice."""

        def compute() -> list[list[float]]:
            vectors = [v.relative(s) for v in self.vectors("Fisher, first") for s in SIGNED]
            tests = self.tests[: self.sizes.grid]
            found = ps.evaluate.accuracy(self.model, tests, vectors, score=self.score, max_new_tokens=demo.ANSWER)
            return np.reshape([m.value for m in found], (-1, len(SIGNED))).tolist()

        return self.results.once(f"{self.name}.grid", compute)


# ---- vectors of a fork, by method


def _power(f: Fork, **svd: Any) -> Vectors:
    k = f.sizes.k
    return [v for s, t in f.pairs for v in ps.power_vectors(f.model, f.few, s, t, k=k, target_positions=demo.LAST, **svd)]


def _fisher(f: Fork) -> Vectors:
    return [v for s in range(f.model.n_layers) for v in ps.power_vectors(f.model, f.few, s, "next_token", k=1)]


def _caa(f: Fork) -> Vectors:
    """Contrast: the question after another one that was answered in the one way or the other."""
    earlier = questions(f.name, "train", demo.JACOBIAN)
    good, bad = (
        [q.prompt + answer + "\n" + prompt for (q, answer), prompt in zip(answers, f.few, strict=True)]
        for answers in ([(q, q.alternative) for q in earlier], [(q, q.default) for q in earlier])
    )
    return [ps.caa(f.model, good, bad, layer) for layer in range(f.model.n_layers)]


def _melbo(f: Fork) -> Vectors:
    last, n = f.model.n_layers - 1, f.sizes.iterations
    return [v for s in range(last) for v in ps.melbo(f.model, f.few, s, last, k=6, iterations=n, target_positions=demo.LAST)]


def _dct(f: Fork, method: str) -> Vectors:
    last, k = f.model.n_layers - 1, f.sizes.k
    return [v for s in range(last) for v in ps.dct(f.model, f.few, s, last, k=k, method=method, target_positions=demo.LAST)]


METHODS: dict[str, Callable[[Fork], Vectors]] = {
    "Fisher, first": _fisher,
    POWER: lambda f: _power(f, tol=1e-2),
    "power, published": lambda f: _power(f, method="power", iterations=5),
    "MELBO": _melbo,
    "DCT, linear": lambda f: _dct(f, "linear"),
    "DCT, exponential": lambda f: _dct(f, "exponential"),
    "CAA (labels)": _caa,
}


# ---- the command


def forks_of(model: ps.Model, folder: str | Path, sizes: Sizes, reads_only: bool = False) -> list[Fork]:
    """The forks of a model, over the results in a folder."""
    settings = {"weights": model.identity["weights"], "powersteer": ps.__version__, "sizes": asdict(sizes)}
    results = Results(folder, settings, reads_only)
    return [Fork(model, results, name, sizes) for name in sizes.forks]


def run_methods(forks: list[Fork]) -> None:
    """Compute what the table of methods lacks."""
    for fork in forks:
        for method in METHODS:
            if not fork.has(method):
                print(f"{time.strftime('%H:%M:%S')} {fork.name}: {method}: test {fork.found(method).test}", flush=True)


def run(forks: list[Fork]) -> None:
    """Compute what the whole page lacks."""
    run_methods(forks)
    for fork in forks:
        for measure in (fork.at_one_length, fork.effects, fork.presence, fork.fisher_grid):
            measure()
            print(f"{time.strftime('%H:%M:%S')} {fork.name}: {measure.__name__}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--methods", action="store_true", help="compute the table of methods, and write no page")
    parser.add_argument("--threads", type=int, default=1)
    add_arguments(parser)
    a = parser.parse_args()
    if a.model != "demo" and not (a.docs or a.methods):
        parser.error("give --docs: docs/studies/built_in.md is of the built-in model; or --methods, for the page on seeds")
    from built_in_page import write_page

    warnings.simplefilter("ignore", ps.ConvergenceWarning)
    forks = forks_of(ps.load(a.model, threads=a.threads), a.out, QUICK if a.quick else Sizes(), reads_only=a.only_page)
    if a.methods:
        run_methods(forks)
        return
    if not a.only_page:
        run(forks)
    write_page(forks, folder_of(a))


if __name__ == "__main__":
    main()
