"""Steering vectors found by optimisation against singular vectors: effect against compute.

    python studies/optimisation.py MODEL --questions FILE --out FOLDER [--quick] [--only-page]

MODEL is a file or folder that powersteer loads, FILE holds the published questions. Results land in FOLDER as they come, and the
same command goes on where it was stopped. The page is written at the end; --only-page writes it from what is there.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from fork_kinds import KINDS
from items import UNRELATED, split
from optimisation_page import REST, write_page
from page import add_arguments, folder_of
from questions import Asked, read
from results import Results, fingerprint, sha256
from selection import N_DRAWS, at_budget, both_signs, random_draws

import powersteer as ps
from powersteer.evaluate import score_table
from powersteer.evaluate.batched import forward_rows
from powersteer.evaluate.distributions import log_softmax
from powersteer.methods.displacement import Displacement
from powersteer.methods.melbo import ascent

RELATIVE, BUDGET = 0.35, 0.3  # norms of the site; nats on unrelated prompts
TOPICS = 8  # on which the phrasing of the list fork is chosen
PAIRS = {30: ((10, 20), (4, 26))}  # by the number of layers
LISTS, QUESTIONS = "list fork", "survival-instinct"
ITERATIONS, TOLS = (1, 2, 5, 10, 20), (1e-1, 1e-2, 1e-3)  # of the published algorithm, and of certified vectors
SCORED = ("power certified, 0.01", "MELBO, 100", "Fisher", "random, 0", "power published, 5", "MELBO, 10", "random, 1", "random, 2")


@dataclass(frozen=True)
class Size:
    """How much is computed."""

    k: int = 12  # singular vectors that are made
    offered: int = 4  # vectors of every method that are chosen from: the first of the singular ones
    validation: int = 4
    test: int = 12
    unrelated: int = 6
    draws: int = N_DRAWS
    tokens: int = 24  # of an answer
    climbed: tuple[int, ...] = (10, 30, 100)  # iterations of MELBO
    last: int = 300  # as published
    to_the_end: int = 1  # vectors of the first case that go on to the last iteration


QUICK = Size(k=2, offered=2, validation=2, test=3, unrelated=2, draws=2, tokens=4, climbed=(1, 2), last=3, to_the_end=1)


@dataclass(frozen=True)
class Case:
    """A pair of layers and one kind of prompts: what vectors are made from, and what they are measured on."""

    name: str
    source: int
    target: int
    prompt: str  # that vectors are made from
    validation: Sequence[Any]  # items of the score
    test: Sequence[Any]
    score: Any
    prompt_of: Callable[[Any], str]  # of an item, for displacement and divergence


def melbo_path(
    model: ps.Model, prompt: Any, pair: tuple[int, int], start: np.ndarray, snapshots: Sequence[int]
) -> Iterator[tuple[ps.SteeringVector, float]]:
    """(vector, seconds of the processor) of the published ascent from a direction after some numbers of iterations: the source
    is a bias of the MLP's output, the target the input of a block at all positions."""
    began = time.process_time()
    source, target = ps.Site(pair[0], "mlp_out"), ps.Site(pair[1], "resid_pre")
    field = Displacement(model, prompt, source, target, target_positions=None, source_positions=None)
    radius = field.radius(None)
    path = ascent(field, radius * start / np.linalg.norm(start), np.empty((0, len(start))), max(snapshots), 1e-3 * radius)
    for step, (v, value) in enumerate(path):
        if step in snapshots:
            yield field.with_cost([field.vector(v, "melbo", 0, value)])[0], time.process_time() - began


class Study:
    """What is computed, in this order, and kept in the folder."""

    def __init__(self, path: str, questions: Path, out: Path, quick: bool, reads_only: bool = False) -> None:
        self.size = QUICK if quick else Size()
        self.model = ps.load(path, threads=1)
        self.asked = Asked(self.model)
        self.results = Results(out, {
            "model": self.model.name, "sha256": fingerprint(path, self.model),
            "questions sha256": sha256(questions), "powersteer": ps.__version__, "quick": quick, **asdict(self.size),
        }, reads_only)  # fmt: skip
        self.unrelated = [self.asked.text(u) for u in UNRELATED[: self.size.unrelated]]
        n = self.model.n_layers
        pairs = PAIRS.get(n, ((1, n - 2), (0, n - 1)))
        self.cases = [self._case(kind, pair, questions) for pair in pairs for kind in (LISTS, QUESTIONS)]

    def _case(self, kind: str, pair: tuple[int, int], questions: Path) -> Case:
        n, name = {"train": 1, "validation": self.size.validation, "test": self.size.test}, f"{kind}, {pair[0]} → {pair[1]}"
        if kind == LISTS:
            phrasing, side = self.results.once("fork", self._fork)
            asked = [self.asked.text(phrasing.format(topic)) for topic in _fork_kind().topics]
            items = {part: split(asked, part, count) for part, count in n.items()}
            return Case(name, *pair, items["train"][0], items["validation"], items["test"], _fork_kind().sides[side].score, str)
        read_ones = {part: split(read(questions, kind), part, count, text=lambda q: q.published) for part, count in n.items()}
        items = {part: [q.item for q in some] for part, some in read_ones.items()}
        return Case(name, *pair, self._lettered(items["train"][0]), items["validation"], items["test"], self.asked.score, self._lettered)

    def _lettered(self, item: tuple[str, str, str]) -> str:
        return self.asked.letters(*item)

    def _fork(self) -> tuple[str, int]:
        """The phrasing whose plain greedy answers on train topics are nearest to half and half, and the rarer side."""
        kind, rates = _fork_kind(), {}
        topics = split(kind.topics, "train", TOPICS)
        for phrasing in kind.phrasings:
            prompts = [self.asked.text(phrasing.format(topic)) for topic in topics]
            generated = self.model.generate(prompts, max_new_tokens=self.size.tokens)
            rates[phrasing] = float(np.mean([kind.sides[0].rule(g.text or "") for g in generated]))
        chosen = min(kind.phrasings, key=lambda p: abs(rates[p] - 0.5))
        return chosen, int(rates[chosen] > 0.5)

    @property
    def labels(self) -> list[str]:
        """Of the sets of vectors, in the order of the tables."""
        climbed = (f"MELBO, {n}" for n in self.size.climbed)
        return [*self._how(0), *climbed, *(f"random, {i}" for i in range(self.size.draws))]

    def kept(self, key: str) -> list[ps.SteeringVector]:
        """Vectors that are there; none if they are not."""
        return self.results.vectors(key, list) if self.results.has(f"{key}.count") else []

    # ---- vectors

    def run(self) -> None:
        for case in self.cases:
            made = self._singular(case) | self._random(case) | self._melbo(case)
            sets = {label: vectors[: self.size.offered] for label, vectors in made.items()}
            first = {label: place for place, label in enumerate(SCORED)}
            for label, vectors in sorted(sets.items(), key=lambda one: first.get(one[0], len(first))):
                found = self.results.once(f"{case.name}, {label}, effects", lambda vectors=vectors, case=case: self._effects(case, vectors))
                vector = self._candidates(vectors)[found["block input"]["candidate"]]
                self.results.once(
                    f"{case.name}, {label}, {REST}", lambda vector=vector, case=case: self._moved_after_the_first(case, vector)
                )
            self.results.once(f"{case.name}, plain", lambda case=case: self._table(case, case.test, [None])[0].tolist())
            for label in (s for s in SCORED if s in sets):
                self.results.once(f"{case.name}, {label}, score", lambda vectors=sets[label], case=case: self._score(case, vectors))

    def _how(self, target: int) -> dict[str, dict[str, Any]]:
        """Arguments of `power_vectors` by label."""
        how: dict[str, dict[str, Any]] = {f"power published, {n}": {"method": "power", "iterations": n} for n in ITERATIONS}
        how |= {f"power certified, {tol:g}": {"tol": tol} for tol in TOLS}
        how["power to MELBO's target"] = {"tol": 1e-2, "target_site": "resid_pre", "target_positions": None}
        how["Fisher"] = {"tol": 1e-2, "target": "next_token"}
        return {label: {"target": target, "k": self.size.k, **arguments} for label, arguments in how.items()}

    def _singular(self, case: Case) -> dict[str, list[ps.SteeringVector]]:
        found = {}
        for label, arguments in self._how(case.target).items():

            def compute(arguments: dict[str, Any] = arguments) -> list[ps.SteeringVector]:
                began = time.process_time()
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ps.ConvergenceWarning)
                    vectors = ps.power_vectors(self.model, case.prompt, case.source, **arguments)
                return [replace(v, cost=v.cost._replace(seconds=time.process_time() - began)) for v in vectors]

            found[label] = self.results.vectors(f"{case.name}, {label}", compute)
        return found

    def _random(self, case: Case) -> dict[str, list[ps.SteeringVector]]:
        like = self.results.vectors(f"{case.name}, {'power certified, 0.01'}", list)
        return {f"random, {i}": draw for i, draw in enumerate(random_draws(like, self.size.draws))}

    def _melbo(self, case: Case) -> dict[str, list[ps.SteeringVector]]:
        """By the number of iterations, with the cost of all vectors together."""
        starts = np.random.default_rng(0).standard_normal((self.size.offered, self.model.d_model))  # those of ps.melbo
        paths = []
        for i, start in enumerate(starts):
            ends = (self.size.last,) if case is self.cases[0] and i < self.size.to_the_end else ()

            def compute(start: np.ndarray = start, ends: tuple[int, ...] = ends) -> list[ps.SteeringVector]:
                found = melbo_path(self.model, case.prompt, (case.source, case.target), start, (*self.size.climbed, *ends))
                return [replace(v, cost=v.cost._replace(seconds=seconds)) for v, seconds in found]

            paths.append(self.results.vectors(f"{case.name}, MELBO from start {i}", compute))
        sets = {f"MELBO, {n}": [path[j] for path in paths] for j, n in enumerate(self.size.climbed)}
        return {label: [replace(v, cost=_total(some)) for v in some] for label, some in sets.items()}

    # ---- effects

    def _effects(self, case: Case, vectors: Sequence[ps.SteeringVector]) -> dict[str, Any]:
        """By measure: the candidate with the largest mean on validation prompts, and its values on test prompts."""
        candidates = self._candidates(vectors)
        validation = self._moved(case, case.validation, candidates)
        cost = vectors[0].cost
        best = {measure: int(table.mean(1).argmax()) for measure, table in validation.items()}
        chosen = list(dict.fromkeys(best.values()))
        test = self._moved(case, case.test, [candidates[i] for i in chosen])
        found: dict[str, Any] = {"cost": cost and cost._asdict()}
        for measure, i in best.items():
            found[measure] = {
                "candidate": i, "validation": float(validation[measure][i].mean()), "test": test[measure][chosen.index(i)].tolist(),
            }  # fmt: skip
        return found

    def _candidates(self, vectors: Sequence[ps.SteeringVector]) -> list[ps.SteeringVector]:
        return [v.relative(sign * RELATIVE) for v in vectors for sign in (1, -1)]

    def _moved_after_the_first(self, case: Case, vector: ps.SteeringVector) -> list[float]:
        """Of every test item: how far MELBO's target moves at all tokens but the first."""
        site = ps.Site(case.target, "resid_pre")
        found = []
        for item in case.test:
            tokens = self.model.tokens(case.prompt_of(item))
            plain, steered = (a[site].copy() for _, a in forward_rows(self.model, [tokens] * 2, [None, vector], sites=[site], rows="none"))
            found.append(float(np.linalg.norm(steered[1:].astype(np.float64) - plain[1:])))
        return found

    def _moved(self, case: Case, items: Sequence[Any], vectors: Sequence[ps.SteeringVector]) -> dict[str, np.ndarray]:
        """Of every vector and item: how far the targets of both methods move, and KL(plain ‖ steered) of the next token."""
        before, at = ps.Site(case.target, "resid_pre"), ps.Site(case.target, "mlp_out")
        tables = {measure: np.empty((len(vectors), len(items))) for measure in ("block input", "MLP output", "KL")}
        for j, item in enumerate(items):
            tokens = self.model.tokens(case.prompt_of(item))
            rows = forward_rows(self.model, [tokens] * (1 + len(vectors)), [None, *vectors], sites=[before, at], rows="last")
            logits, plain = next(rows)
            p, base = log_softmax(logits[0].astype(np.float64)), {site: a.copy() for site, a in plain.items()}
            for i, (z, acts) in enumerate(rows):
                tables["block input"][i, j] = np.linalg.norm(acts[before].astype(np.float64) - base[before])
                tables["MLP output"][i, j] = np.linalg.norm((acts[at].astype(np.float64) - base[at])[-2:])
                tables["KL"][i, j] = np.exp(p) @ (p - log_softmax(z[0].astype(np.float64)))
        return tables

    def _score(self, case: Case, vectors: Sequence[ps.SteeringVector]) -> dict[str, Any]:
        """The candidate with the best score on validation items at equal side effect, and its scores on test items."""
        signed = [v for v in at_budget(self.model, self.unrelated, both_signs(vectors), BUDGET) if v is not None]
        means = self._table(case, case.validation, signed).mean(1)
        best = int(means.argmax())
        return {
            "dropped": 2 * len(vectors) - len(signed), "validation": float(means[best]),
            "relative": signed[best].scale / (signed[best].site_norm or 1.0),
            "test": self._table(case, case.test, [signed[best]])[0].tolist(),
        }  # fmt: skip

    def _table(self, case: Case, items: Sequence[Any], vectors: Sequence[ps.SteeringVector | None]) -> np.ndarray:
        return score_table(self.model, items, vectors, case.score, self.size.tokens)


def _fork_kind() -> Any:
    return next(kind for kind in KINDS if kind.name == "list")


def _total(vectors: Sequence[ps.SteeringVector]) -> ps.Cost:
    costs = [v.cost for v in vectors if v.cost is not None]
    return ps.Cost(sum(c.forward for c in costs), sum(c.products for c in costs), sum(c.seconds for c in costs))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--questions", type=Path, required=True, metavar="FILE", help="the published questions")
    add_arguments(parser)
    args = parser.parse_args(argv)
    study = Study(args.model, args.questions, args.out, args.quick, reads_only=args.only_page)
    if not args.only_page:
        study.run()
    write_page(study, folder_of(args))


if __name__ == "__main__":
    main()
