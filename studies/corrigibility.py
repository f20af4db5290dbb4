"""What steering vectors do to answers about corrigibility and survival, by method, at equal side effect.

    python studies/corrigibility.py MODEL --questions FILE --out FOLDER [--quick] [--only-page]

MODEL is a file or folder that powersteer loads. FILE holds the published questions. Results land in FOLDER as they come, and
the same command goes on where it was stopped. The page is written at the end; --only-page writes it from what is there.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from candidates import METHODS, Material
from corrigibility_page import write
from items import UNRELATED, split
from page import add_arguments, folder_of
from questions import Asked, Question, read
from results import Results, fingerprint, sha256
from selection import N_DRAWS, at_budget, both_signs, random_draws

import powersteer as ps

MAIN, OTHER = SETS = ("survival-instinct", "corrigible-neutral-HHH")
BUDGETS = (0.3, 0.1, 1.0)  # nats; the first is that of every choice
POWER, PUBLISHED, PLAIN = "power, certified", "power, published", "unsteered"
CHATTED = ("DCT, linear", "DCT, exponential", "MELBO")  # methods of a model with a chat template only
FAR = 0.35  # length of a vector in activation norms of its site, for changes to first order
HALVING = 4  # every candidate on half of the validation questions, a quarter of them on the others, too


@dataclass(frozen=True)
class Size:
    """How much is computed."""

    jacobian: int = 2
    labelled: int = 24
    validation: int = 16
    test: int = 60
    unrelated: int = len(UNRELATED)
    candidates: int = 12  # vectors of a method
    draws: int = N_DRAWS
    iterations: int = 100  # of MELBO


QUICK = Size(labelled=4, validation=4, test=6, unrelated=3, candidates=4, draws=2, iterations=3)


class Study:
    """One model: what is computed, and kept in the folder."""

    sets, budgets, power, published, plain = SETS, BUDGETS, POWER, PUBLISHED, PLAIN

    def __init__(self, path: str, questions: Path, out: Path, quick: bool, reads_only: bool = False) -> None:
        self.size = QUICK if quick else Size()
        self.model = ps.load(path, threads=1)
        self.asked = Asked(self.model)
        self.published_questions = {name: read(questions, name) for name in SETS}
        self.results = Results(out, {
            "model": self.model.name, "sha256": fingerprint(path, self.model),
            "questions sha256": sha256(questions), "powersteer": ps.__version__, "quick": quick, **asdict(self.size),
        }, reads_only)  # fmt: skip

    # ---- questions and prompts

    def questions(self, part: str, n: int, of: str = MAIN) -> list[Question]:
        return split(self.published_questions[of], part, n, text=lambda q: q.published)

    @cached_property
    def validation(self) -> tuple[list[Question], list[Question]]:
        """The questions that every candidate is asked, and those that the best quarter is asked, too."""
        found = self.questions("validation", self.size.validation)
        half = self.size.validation // 2
        return found[:half], found[half:]

    @cached_property
    def unrelated(self) -> list[str]:
        return [self.asked.text(u) for u in UNRELATED[: self.size.unrelated]]

    @cached_property
    def material(self) -> Material:
        asked, few = self.asked, self.questions("train", self.size.jacobian)
        labelled = self.questions("train", self.size.labelled)
        answers = [(q.corrigible, q.other)[i % 2] for i, q in enumerate(few)]
        orders = asked.both_orders(labelled)
        letters = [letter for _ in labelled for letter in ("AB", "BA")]
        return Material(
            self.model,
            prompts=[asked.letters(*q.item) for q in few],
            texts=[np.concatenate([self.model.tokens(asked.text(q.stem)), asked.words(o)[:-1]]) for q, o in zip(few, answers, strict=True)],
            positive=[prompt + right for prompt, (right, _) in zip(orders, letters, strict=True)],
            negative=[prompt + wrong for prompt, (_, wrong) in zip(orders, letters, strict=True)],
            labelled=[q.item for q in labelled], score=asked.score, n=self.size.candidates, iterations=self.size.iterations,
        )  # fmt: skip

    # ---- candidates

    @property
    def methods(self) -> list[str]:
        """Those that take little time first."""
        every = dict.fromkeys((POWER, "Fisher", "CAA", "pull-back", *self.draws, *METHODS))
        return [name for name in every if self.asked.is_chat or name not in CHATTED]

    @property
    def draws(self) -> list[str]:
        return [f"random, draw {i}" for i in range(self.size.draws)]

    def vectors(self, method: str) -> list[ps.SteeringVector]:
        def make() -> Sequence[ps.SteeringVector]:
            if method in METHODS:
                return [v for i in range(len(METHODS[method].parts(self.material))) for v in self.part(method, i)]
            return random_draws(self.vectors(POWER), self.size.draws)[self.draws.index(method)]

        return self.results.vectors(f"{method} vectors", make)

    def part(self, method: str, i: int) -> list[ps.SteeringVector]:
        """Vectors that a method makes of its part i."""
        how = METHODS[method]
        return self.results.vectors(
            f"{method} vectors, part {i}", lambda: how.make(self.material, how.parts(self.material)[i])
        )

    def candidates(self, method: str) -> list[ps.SteeringVector]:
        """Both signs of each vector at the budget; those that do not reach it are left out."""

        def scaled() -> list[ps.SteeringVector]:
            found = at_budget(self.model, self.unrelated, both_signs(self.vectors(method)), BUDGETS[0])
            return [v for v in found if v is not None]

        return self.results.vectors(f"{method} candidates", scaled)

    # ---- measurements

    def letters(self, key: str, questions: Sequence[Question], vectors: Sequence[Any]) -> dict[str, np.ndarray]:
        def measure() -> dict[str, Any]:
            return {name: table.round(6).tolist() for name, table in self.asked.by_letters(questions, vectors).items()}

        return {name: np.array(table) for name, table in self.results.once(key, measure).items()}

    def choose(self, method: str) -> tuple[int, float] | None:
        """(index of the candidate of the best validation content, that content); None if there are no candidates."""
        if not (candidates := self.candidates(method)):
            return None
        every, more = self.validation
        content = self.letters(f"{method} validation", every, candidates)["content"]
        best = np.argsort(-content.mean(1), kind="stable")[: -(-len(candidates) // HALVING)]
        again = self.letters(f"{method} validation, best quarter", more, [candidates[i] for i in best])["content"]
        means = np.concatenate([content[best], again], 1).mean(1)
        return int(best[means.argmax()]), float(means.max())

    def chosen(self, method: str, budget: float) -> list[ps.SteeringVector]:
        """The chosen vector at a budget; none if it does not reach it."""
        if (choice := self.choose(method)) is None:
            return []
        vector = self.candidates(method)[choice[0]]
        if budget == BUDGETS[0]:
            return [vector]
        return self.results.vectors(
            f"{method} at {budget}", lambda: [v for v in at_budget(self.model, self.unrelated, [vector], budget) if v is not None]
        )

    def test(self, method: str, of: str = MAIN, budget: float = BUDGETS[0], words: bool = True) -> dict[str, np.ndarray]:
        """content, letters and texts (questions,) of the chosen vector, or of the plain model."""
        vectors = [None] if method == PLAIN else self.chosen(method, budget)
        if not vectors:
            return {}
        questions, key = self.questions("test", self.size.test, of), f"{method} test of {of} at {budget}"
        found = {name: table[0] for name, table in self.letters(key, questions, vectors).items()}
        if words:
            kept = self.results.once(f"{key}, texts", lambda: self.asked.by_words(questions, vectors)[0].round(6).tolist())
            found["texts"] = np.array(kept)
        return found

    def plain_validation(self) -> np.ndarray:
        """Content of the questions that every candidate is asked, without steering."""
        return self.letters(f"{PLAIN} validation", self.validation[0], [None])["content"][0]

    def moved(self, method: str) -> np.ndarray:
        """(vectors, 2): change of the mean validation content by each vector and sign at the budget; NaN where it is not
        reached."""
        content = self.letters(f"{method} validation", self.validation[0], self.candidates(method))["content"]
        change = dict(zip(map(_key, self.candidates(method)), (content - self.plain_validation()).mean(1), strict=True))
        return np.array([[change.get(_key(sign * v), np.nan) for sign in (1, -1)] for v in self.vectors(method)])

    def foretell(self, method: str) -> dict[str, list[float]]:
        """Of each power vector what is known of it beforehand, and its linearity at the budget."""

        def measure() -> dict[str, list[float]]:
            vectors, prompts = self.vectors(method), self.material.prompts
            first = {v.layer: v for v in self.vectors("Fisher")}
            scale = {_key(v): v.scale for v in self.candidates(method)}
            known = [scale.get(_key(v)) for v in vectors]
            scaled = [replace(v, scale=s) for v, s in zip(vectors, known, strict=True) if s]
            linear = iter(ps.evaluate.linearity(self.model, prompts, scaled))
            norms = {v.target: np.linalg.norm(self.model.jacobian(prompts, v.layer, v.target).base) for v in vectors}
            return {
                "σ": [v.sigma for v in vectors],
                "gain": [v.sigma * v.site_norm / float(norms[v.target]) for v in vectors],
                "overlap with Fisher": [abs(float(v.direction @ first[v.layer].direction)) for v in vectors],
                "linearity": [float(next(linear)) if s else float("nan") for s in known],
            }

        return self.results.once(f"{method} foretelling", measure)

    def to_first_order(self, folder: Path) -> dict[str, Any]:
        """Of all vectors between layers in an atlas: where, the mean content that they move to first order, at a length of FAR
        of the site's activation norm, and what the atlas knows of them."""

        def measure() -> dict[str, Any]:
            atlas = ps.Atlas.load(folder, self.model)
            vectors = [v for v in atlas.vectors() if not isinstance(v.target, str)]
            items = [q.item for q in self.validation[0]]
            moved = ps.evaluate.first_order(self.model, items, [v.relative(FAR) for v in vectors], score=self.asked.score)
            first = {v.layer: v for v in atlas.vectors(target="next_token") if v.rank == 0}
            where = [(v.layer, v.target.layer, v.rank) for v in vectors]
            norms = {v.layer: self._norms(atlas, v.location) for v in vectors if v.rank == 0}
            return {
                "where": where, "content": [m.value for m in moved], "length": FAR, "norm": [v.site_norm for v in vectors],
                "mean over median norm": {layer: float(x.mean() / np.median(x)) for layer, x in norms.items()},
                "known": {
                    "σ": [v.sigma for v in vectors],
                    "gain": [float(atlas.gain[at]) for at in where],
                    "overlap with Fisher": [
                        abs(float(v.direction @ first[v.layer].direction)) if v.layer in first else float("nan") for v in vectors
                    ],
                },
            }  # fmt: skip

        return self.results.once("to first order", measure)

    def _norms(self, atlas: ps.Atlas, site: ps.Site) -> np.ndarray:
        """Of every token's activation, over the prompts of an atlas."""
        prompts = [p.tokens for p in atlas.settings.prompts]
        return np.concatenate([np.linalg.norm(self.model.activations(tokens, site), axis=-1).ravel() for tokens in prompts])

    # ---- all of it

    def run(self, only: Sequence[str], atlas: Path | None) -> Iterator[str]:
        """Compute what is not there yet; yields what was done. only: these methods alone, at the first budget."""
        for method in only or [PLAIN, *self.methods]:
            for of in SETS:
                self.test(method, of)
            yield method
        if only:
            return
        self.plain_validation()
        for method in (POWER, PUBLISHED):
            self.foretell(method)
        if atlas:
            self.to_first_order(atlas)
        yield "foretelling"
        for budget in BUDGETS[1:]:
            for method in self.methods:
                self.test(method, budget=budget, words=False)
            yield f"{budget} nats"


def _key(v: ps.SteeringVector) -> tuple[Any, ...]:
    """Which of a method's power vectors it is, and its sign."""
    return v.layer, v.target, v.rank, v.scale > 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--questions", type=Path, required=True)
    add_arguments(parser)
    parser.add_argument("--atlas", type=Path, help="folder of an atlas of the model, for its vectors to first order")
    parser.add_argument("--only", nargs="+", default=[], metavar="METHOD", help="these methods alone; several processes may share a folder")
    a = parser.parse_args()
    warnings.simplefilter("ignore", ps.ConvergenceWarning)  # of the published algorithm, whose residuals are told
    study = Study(a.model, a.questions, a.out, a.quick, reads_only=a.only_page)
    if not a.only_page:
        for done in study.run(a.only, a.atlas):
            print(done, flush=True)
    if not a.only:
        study.results.reads_only = True
        name = f"corrigibility_{Path(a.model).stem}"
        write(study, folder_of(a) / f"{name}.md")


if __name__ == "__main__":
    main()
