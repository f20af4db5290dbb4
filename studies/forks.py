"""Decision forks of a chat model: which vectors turn them, at equal side effect, in text that stays coherent.

    python studies/forks.py MODEL --out FOLDER                 # the whole study, into FOLDER and docs/studies/forks.md
    python studies/forks.py MODEL --out FOLDER --phase main    # the main table alone; then "positions", "budgets", "again"
    python studies/forks.py MODEL --out FOLDER --budget 0.1    # another side effect from the choice on, and a page of its own
    python studies/forks.py MODEL --out FOLDER --quick         # the same code on little; its figures mean nothing

Stopped at any moment, it goes on from what the folder holds.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from fork_kinds import KINDS, Kind, Side
from items import UNRELATED, chat, split
from page import add_arguments, folder_of
from results import Results, metric, settings_of
from selection import at_budget, both_signs, random_draws

import powersteer as ps
from powersteer.evaluate import coherent, score_table
from powersteer.evaluate.scores import Score

__all__ = [
    "FOUND", "FULL", "MAIN", "METHODS", "PHASES", "POSITIONS", "QUICK", "RANDOM", "Fork", "Setup", "Sizes", "run",
]  # fmt: skip

BUDGETS = (0.1, 1.0)  # nats: of the chosen vectors, besides that of the choice
POSITIONS: dict[str, Any] = {"everywhere": None, "prompt": "prompt", "last of prompt": -1, "generated": "generated"}
FOUND, RANDOM = ("Fisher", "power", "CAA"), ("random 0", "random 1", "random 2")
METHODS = (*FOUND, *RANDOM)
PHASES = ("main", "positions", "budgets", "again")
_RESAMPLES = 2000
_ALONG = 8  # tokens of the plain answer along which "generated" is calibrated, and of an answer that CAA reads


class Setup(NamedTuple):
    """Where a chosen vector is added, and how strongly; `again` for a second test, on prompts that the first one left."""

    where: str = "everywhere"
    kl: float | None = None  # nats; None: that of the choice
    again: bool = False


MAIN = Setup()


@dataclass(frozen=True)
class Sizes:
    """How much is computed. Layers and pairs are those of a model of 30 layers; others take the same depths."""

    budget: float = 0.3  # nats, of the choice and the main table
    kinds: int = len(KINDS)
    phrasings: int = 5
    topics: int = 8  # of the train split, each sampled
    samples: int = 4
    jacobian: int = 2
    validation: int = 8
    plain: int = 40  # validation topics whose unsteered answers say what is coherent and which side is rarer
    test: int = 100
    short_test: int = 40  # at other positions and budgets
    tokens: int = 24
    unrelated: int = 6  # of the 12 prompts, for candidates; the chosen ones are scaled on all
    draws: int = 3
    layers: tuple[int, ...] = (4, 8, 12, 16, 20)
    pairs: tuple[tuple[int, int], ...] = ((4, 26), (10, 20), (10, 26), (16, 26))


FULL = Sizes()
QUICK = Sizes(
    kinds=2, phrasings=2, topics=2, samples=2, validation=2, plain=3, test=3, short_test=2, tokens=6, unrelated=2, layers=(8,),
    pairs=((4, 26),),
)  # fmt: skip


@dataclass
class Fork:
    """One kind on one model: everything that is computed of it is kept in the folder of results."""

    model: ps.Model
    results: Results
    kind: Kind
    sizes: Sizes

    def _once(self, key: str, compute: Callable[[], Any]) -> Any:
        return self.results.once(f"{self.kind.name}.{key}", compute)

    def prompts(self, split_name: str, n: int, phrasing: str | None = None) -> list[Any]:
        """Prompts of the first topics of a split, in the chosen phrasing unless another is given."""
        template = self.chosen_phrasing()["phrasing"] if phrasing is None else phrasing
        return [chat(template.format(topic)) for topic in split(self.kind.topics, split_name, n)]

    # ---- which phrasing, which side, and what is coherent

    def sampled(self, phrasing: str) -> dict[str, Any]:
        """Sampled answers of train topics: their texts, tokens and sides, and the entropy of the first token."""

        def compute() -> dict[str, Any]:
            prompts = self.prompts("train", self.sizes.topics, phrasing)
            logits = [self.model(p)[-1].astype(np.float64) for p in prompts]
            logs = [z - z.max() - math.log(np.exp(z - z.max()).sum()) for z in logits]
            rows = [p for p in prompts for _ in range(self.sizes.samples)]
            made = self.model.generate(rows, max_new_tokens=self.sizes.tokens, temperature=1.0, seed=0)
            return {
                "phrasing": phrasing,
                "entropy": float(np.mean([-(np.exp(z) * z).sum() for z in logs])),
                "texts": [g.text for g in made],
                "tokens": [g.tokens.tolist() for g in made],
                "rates": [float(np.mean([side.rule(g.text or "") for g in made])) for side in self.kind.sides],
            }

        return self._once(f"sampled {self.kind.phrasings.index(phrasing)}", compute)

    def all_sampled(self) -> list[dict[str, Any]]:
        return [self.sampled(phrasing) for phrasing in self.kind.phrasings[: self.sizes.phrasings]]

    def chosen_phrasing(self) -> dict[str, Any]:
        """The phrasing whose rarer side is the most frequent one among samples."""
        return max(self.all_sampled(), key=lambda one: min(one["rates"]))

    def is_fork(self) -> bool:
        return any(0.05 <= one["rates"][0] <= 0.95 for one in self.all_sampled())

    def plain(self) -> dict[str, Any]:
        """Limits of a coherent text, and the side that unsteered greedy answers take less often, on validation topics."""

        def compute() -> dict[str, Any]:
            made = self.model.generate(self.prompts("validation", self.sizes.plain), max_new_tokens=self.sizes.tokens)
            read = [ps.evaluate.perplexity(self.model, [g.prompt_tokens], continuation=[g]) for g in made]
            rates = [float(np.mean([side.rule(g.text or "") for g in made])) for side in self.kind.sides]
            return {
                "repetition": float(np.percentile([ps.evaluate.repetition(g).value for g in made], 95)),
                "perplexity": float(np.percentile([float(p) for p in read], 95)),
                "rates": rates, "wanted": int(rates[1] < rates[0]), "texts": [g.text for g in made],
            }  # fmt: skip

        return self._once("plain", compute)

    def wanted(self) -> Side:
        return self.kind.sides[self.plain()["wanted"]]

    def score(self, score: Score | None = None) -> Score:
        """The wanted side's score, of coherent texts."""
        limits = self.plain()
        return coherent(score or self.wanted().score, repetition=limits["repetition"], perplexity=limits["perplexity"])

    # ---- candidates and the choice among them

    def candidates(self, method: str) -> list[ps.SteeringVector]:
        """Vectors of a method, under both signs, at the budget; those that reach it."""
        if method.startswith("random"):  # the same for all kinds
            return self.results.vectors(method, lambda: self._scaled(both_signs(self._random(int(method.split()[1])))))
        return self.results.vectors(f"{self.kind.name}.{method}", lambda: self._scaled(both_signs(self.found(method))))

    def _scaled(self, vectors: Sequence[ps.SteeringVector]) -> list[ps.SteeringVector]:
        prompts = [chat(text) for text in UNRELATED[: self.sizes.unrelated]]
        return [v for v in at_budget(self.model, prompts, vectors, self.sizes.budget) if v is not None] if vectors else []

    def _layer(self, of_30: int) -> int:
        return round(of_30 * (self.model.n_layers - 1) / 29)

    def found(self, method: str) -> list[ps.SteeringVector]:
        """Vectors of a method as it gives them."""
        layers = list(dict.fromkeys(map(self._layer, self.sizes.layers)))
        if method == "CAA":
            return self._contrast(layers)
        prompts = self.prompts("train", self.sizes.jacobian)
        if method == "Fisher":
            return [r.vectors[0] for r in self.model.jacobians(prompts, layers, ["next_token"]).svd(1, tol=1e-2)]
        pairs = [(self._layer(source), self._layer(target)) for source, target in self.sizes.pairs]
        return [v for pair in pairs for v in ps.power_vectors(self.model, prompts, *pair, k=2, tol=1e-2)]

    def _contrast(self, layers: list[int]) -> list[ps.SteeringVector]:
        """CAA of the sampled answers' first tokens, labelled by their sides; none if one side was never sampled."""
        sample, wanted = self.chosen_phrasing(), self.wanted()
        other = next(side for side in self.kind.sides if side is not wanted)
        prompts = [self.model.tokens(p) for p in self.prompts("train", self.sizes.topics) for _ in range(self.sizes.samples)]
        begun = [np.concatenate([p, t[:_ALONG]]).astype(np.int32) for p, t in zip(prompts, sample["tokens"], strict=True)]
        good, bad = ([b for b, text in zip(begun, sample["texts"], strict=True) if side.rule(text)] for side in (wanted, other))
        if not good or not bad:
            return []
        return ps.caa(self.model, good, bad, layers, read_positions=slice(-_ALONG, None), paired=False)

    def _random(self, draw: int) -> list[ps.SteeringVector]:
        sites = [ps.random_vectors(self.model, self._layer(source))[0] for source, _ in self.sizes.pairs for _ in range(2)]
        return random_draws(sites, self.sizes.draws)[draw]

    def offered(self, method: str) -> int:
        """How many vectors with their signs a method offers."""
        pairs, layers = 4 * len(self.sizes.pairs), 2 * len(self.sizes.layers)
        return layers if method in ("Fisher", "CAA") else pairs

    def chosen(self, method: str) -> tuple[ps.SteeringVector, float] | None:
        """The candidate of the best validation score, the first of several, and that score."""
        vectors = self.candidates(method)
        if not vectors:
            return None

        def compute() -> list[float]:
            items = self.prompts("validation", self.sizes.validation)
            return score_table(self.model, items, vectors, self.score(), self.sizes.tokens).mean(1).tolist()

        scores = self._once(f"choice {method}", compute)
        best = int(np.argmax(scores))
        return vectors[best], scores[best]

    # ---- texts on test prompts, and their rates

    def key(self, method: str, setup: Setup = MAIN) -> str:
        """Under which the texts of a method are kept."""
        return f"{method} {setup.where} {self.sizes.budget if setup.kl is None else setup.kl}" + (" again" if setup.again else "")

    def kept(self, method: str, setup: Setup = MAIN) -> dict[str, Any] | None:
        """What `tested` has kept; None if that was not run, or there is no vector."""
        return self.tested(method, setup) if self.has(method, setup) else None

    def has(self, method: str, setup: Setup = MAIN) -> bool:
        """Whether `tested` was run."""
        return self.results.has(f"{self.kind.name}.test {self.key(method, setup)}")

    def scaled(self, method: str, setup: Setup = MAIN) -> ps.SteeringVector | None:
        """The chosen vector at a budget on all unrelated prompts, added at some positions."""
        chosen = self.chosen(method)
        if chosen is None:
            return None
        kl = self.sizes.budget if setup.kl is None else setup.kl
        along = _ALONG if setup.where == "generated" else 0
        prompts = [chat(text) for text in (UNRELATED if self.sizes.test > 3 else UNRELATED[: self.sizes.unrelated])]

        def compute() -> list[ps.SteeringVector]:
            return [v for v in at_budget(self.model, prompts, [chosen[0]], kl, POSITIONS[setup.where], along) if v is not None]

        return next(iter(self.results.vectors(f"{self.kind.name}.chosen {self.key(method, setup._replace(again=False))}", compute)), None)

    def part(self, setup: Setup) -> slice:
        """Of the test prompts: all of them, the first ones, or the others."""
        short = self.sizes.short_test
        return slice(0, self.sizes.test) if setup == MAIN else slice(short, self.sizes.test) if setup.again else slice(0, short)

    def tested(self, method: str, setup: Setup = MAIN) -> dict[str, Any] | None:
        """Raw and coherent scores and texts of test prompts; "unsteered" and "forced" are methods here. None: no vector."""

        def compute() -> dict[str, Any] | None:
            items, wanted = self.prompts("test", self.sizes.test)[self.part(setup)], self.wanted()
            score, vector = wanted.score, None
            if method == "forced":
                opening = self.model.tokenizer.encode(wanted.opening, add_special=False)
                items, score = [np.concatenate([self.model.tokens(p), opening]).astype(np.int32) for p in items], wanted.opened
            elif method != "unsteered" and (vector := self.scaled(method, setup)) is None:
                return None
            made: list[ps.Generation] = []
            (counted,) = score_table(
                self.model, items, [vector], self.score(score), self.sizes.tokens, positions=POSITIONS[setup.where], made=made
            )
            return {
                "coherent": counted.tolist(), "raw": [float(score(None, g.text or "")) for g in made], "texts": [g.text for g in made],
                "repetition": float(np.mean([ps.evaluate.repetition(g).value for g in made])),
            }  # fmt: skip

        return self._once(f"test {self.key(method, setup)}", compute)

    def share(self, method: str, setup: Setup = MAIN, which: str = "coherent") -> ps.MetricResult | None:
        """A rate on test prompts with its Wilson interval; of unsteered texts, on the same prompts as the others."""
        plain = method == "unsteered"
        got = self.kept(method, MAIN if plain else setup)
        return metric(got[which][self.part(setup)] if plain else got[which], "share") if got else None

    def stems(self, setup: Setup = MAIN) -> list[tuple[str, str]]:
        """Family and stem of every test prompt."""
        return [self.kind.stem(topic) for topic in split(self.kind.topics, "test", self.sizes.test)[self.part(setup)]]

    def share_by_stem(self, method: str, setup: Setup = MAIN) -> ps.MetricResult | None:
        """A rate with the interval of a bootstrap over stems, whose prompts are alike."""
        rate = self.share(method, setup)
        if rate is None:
            return None
        of, values = np.unique(self.stems(setup), axis=0, return_inverse=True)[1].ravel(), np.array(rate.values)
        hits, sizes = np.bincount(of, values), np.bincount(of)
        draws = np.random.default_rng(0).integers(0, len(sizes), (_RESAMPLES, len(sizes)))
        low, high = np.quantile(hits[draws].sum(1) / sizes[draws].sum(1), [0.025, 0.975])
        return replace(rate, low=float(low), high=float(high), interval="bootstrap over stems")

    def beats(self, method: str, setup: Setup = MAIN, which: str = "coherent") -> bool | None:
        """Whether a rate lies above the unsteered one and those of all random draws, with intervals that do not overlap. None: not
        measured."""
        mine, *others = (self.share(m, setup, which) for m in (method, "unsteered", *RANDOM))
        if mine is None or any(other is None for other in others):
            return None
        return all(mine.low > other.high for other in others if other is not None)

    def passed(self) -> list[tuple[str, Setup]]:
        """(method, setup) of what beats unsteered and random texts at other positions and budgets."""
        return [(m, setup) for setups in self.elsewhere.values() for setup in setups for m in FOUND if self.beats(m, setup)]

    @property
    def elsewhere(self) -> dict[str, list[Setup]]:
        """By phase, the setups beside that of the main table."""
        return {
            "positions": [Setup(where) for where in list(POSITIONS)[1:]],
            "budgets": [Setup(kl=kl) for kl in BUDGETS if kl != self.sizes.budget],
        }

    def conditions(self, phase: str) -> list[tuple[str, Setup]]:
        """(method, setup) of everything that a phase tests; `again`, of what passed elsewhere, with the random draws beside."""
        if phase == "main":
            return [(method, MAIN) for method in ("unsteered", *METHODS, "forced")]
        if phase == "again":
            passed = self.passed()
            beside = [(method, setup) for setup in dict.fromkeys(setup for _, setup in passed) for method in RANDOM]
            return [(method, setup._replace(again=True)) for method, setup in (*passed, *beside)]
        return [(method, setup) for setup in self.elsewhere[phase] for method in METHODS]


def run(model: ps.Model, results: Results, sizes: Sizes, phases: Iterable[str] = PHASES, kinds: Iterable[str] = ()) -> list[Fork]:
    """Compute what is missing, of some kinds or of all, the main table first. Returns the forks of all kinds."""
    forks = [Fork(model, results, kind, sizes) for kind in KINDS[: sizes.kinds]]
    for phase in phases:
        for fork in [fork for fork in forks if not kinds or fork.kind.name in kinds]:
            for method, setup in fork.conditions(phase):
                fork.tested(method, setup)
                print(f"{time.strftime('%H:%M:%S')} {fork.kind.name}: {fork.key(method, setup)}", flush=True)
    return forks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--phase", choices=PHASES, action="append", help="compute only this (again for more)")
    parser.add_argument("--kind", choices=[kind.name for kind in KINDS], action="append", help="compute only this fork (again for more)")
    parser.add_argument("--budget", type=float, default=FULL.budget, help="side effect of the choice and the main table, in nats")
    parser.add_argument("--threads", type=int, default=1)
    add_arguments(parser)
    args = parser.parse_args()
    from forks_page import write_page

    sizes = replace(QUICK if args.quick else FULL, budget=args.budget)
    model = ps.load(args.model, threads=args.threads)
    results = Results(args.out, settings_of(args.model, model, sizes), reads_only=args.only_page)
    phases = () if args.only_page else args.phase or PHASES
    forks = run(model, results, sizes, phases, args.kind or ())
    name = "forks" if args.budget == FULL.budget else f"forks_{args.budget}_nats"
    write_page(forks, folder_of(args) / f"{name}.md")


if __name__ == "__main__":
    main()
