"""Certified maps of models: how they look, turn with depth and agree between prompts, and where the published vectors differ.

    python studies/maps.py MODEL ... --questions FILE --out FOLDER [--layers 0,4,8 ...] [--do chat code ...] [--quick] [--only-page]

MODELs are files or folders that powersteer loads, FILE holds the published questions. Every map is an atlas in FOLDER; the same
command goes on where it was stopped, and several may work on different parts. Every prompt is mapped between some layers, by
default every other one; "every-pair" maps all pairs of all prompts. The page is written at the end; --only-page writes it from
what is there.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from items import UNRELATED, chat, split
from maps_page import write_page
from page import add_arguments, folder_of
from questions import Asked, read
from results import Results, fingerprint, sha256

import powersteer as ps
from powersteer.evaluate.gradients import first_order_changes, score_gradients

FIRST, CODE, SUMS = PROMPTS = ("chat", "code", "sums")
DOES = (*PROMPTS, "published", "every-pair")
QUESTION = "How do I get a red wine stain out of a cotton shirt?"
TEXTS = {CODE: "def mean(values):\n    return sum(values) /", SUMS: "12 + 7 = 19\n25 + 8 = 33\n46 + 9 ="}
RELATIVE, ITERATIONS = 0.35, 5  # norms of the site; of the published algorithm


@dataclass(frozen=True)
class Size:
    """How much is computed."""

    k: int = 12
    tol: float = 1e-2
    sample: int = 12  # most pairs on which the published algorithm is run
    unrelated: int = 4
    questions: int = 8


QUICK = Size(sample=2, unrelated=2, questions=2)


class MapStudy:
    """One model: its maps, and the published algorithm on a sample of pairs."""

    prompts = PROMPTS

    def __init__(
        self, path: str, questions: Path, out: Path, quick: bool = False, layers: Sequence[int] | None = None, reads_only: bool = False
    ) -> None:
        self.size, self.out, self.questions = QUICK if quick else Size(), out, questions
        self.model = ps.load(path, threads=1)
        self.grid = list(range(0, self.model.n_layers, 2) if layers is None else layers)
        self.name = Path(path).stem
        self.asked = Asked(self.model)
        self._kept_gradients: dict[ps.Site, np.ndarray] = {}
        self.results = Results(out / f"{self.name}-published", {
            "model": self.model.name, "sha256": fingerprint(path, self.model),
            "questions sha256": sha256(questions), "powersteer": ps.__version__, "layers": self.grid,
            **asdict(self.size),
        }, reads_only)  # fmt: skip

    def prompt(self, name: str) -> Any:
        if name != FIRST:
            return TEXTS[name]
        return chat(QUESTION) if self.asked.is_chat else f"Question: {QUESTION}\nAnswer:"

    def compute_map(self, name: str, every_pair: bool = False) -> ps.Atlas:
        where = {} if every_pair else {"sources": self.grid, "targets": [*self.grid, "next_token"]}
        return ps.atlas(self.model, [self.prompt(name)], k=self.size.k, tol=self.size.tol, out=self._folder(name, every_pair), **where)

    def _folder(self, name: str, every_pair: bool) -> Path:
        return self.out / f"{self.name}-{name}{'' if every_pair else '-grid'}"

    def load_map(self, name: str, every_pair: bool = False) -> ps.Atlas | None:
        """The map that is there, complete or not."""
        folder = self._folder(name, every_pair)
        return ps.Atlas.load(folder, self.model) if (folder / "atlas.json").exists() else None

    # ---- the published algorithm

    @cached_property
    def sample(self) -> list[tuple[int, int]]:
        """Pairs of the layers, evenly from the list of them by distance."""
        pairs = sorted(combinations(self.grid, 2), key=lambda pair: (pair[1] - pair[0], pair))
        return [pairs[i] for i in np.unique(np.linspace(0, len(pairs) - 1, self.size.sample).round().astype(int))]

    def compare(self) -> None:
        """The published algorithm's vectors beside the certified ones of some pairs, and beside those of another seed."""
        for pair in self.sample:
            self.results.once(f"{pair} vectors", lambda pair=pair: self._vectors_of(pair))
            self.results.once(f"{pair} KL", lambda pair=pair: self._divergences(*self.aligned(pair)))
            self.results.once(f"{pair} content", lambda pair=pair: self._contents(*self.aligned(pair)))

    def certified(self, pair: tuple[int, int]) -> list[ps.SteeringVector]:
        """From the map of the first prompt that has the pair; it is computed if there is none."""
        for atlas in filter(None, (self.load_map(FIRST), self.load_map(FIRST, every_pair=True))):
            if any((p.source, p.target) == pair for p in atlas):
                return atlas.vectors(*pair)
        return self.compute_map(FIRST).vectors(*pair)

    def _vectors_of(self, pair: tuple[int, int]) -> dict[str, Any]:
        J = self.model.jacobian([self.prompt(FIRST)], *pair)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ps.ConvergenceWarning)
            published = J.svd(self.size.k, method="power", iterations=ITERATIONS)
        other_seed = J.svd(self.size.k, tol=self.size.tol, seed=1)
        self.results.vectors(f"{pair} published", lambda: published.vectors)
        ours = self.certified(pair)
        certified = np.array([v.direction for v in ours], np.float64)
        found: dict[str, Any] = {"sigma": [v.sigma for v in ours]}
        for name, result in (("published", published), ("other seed", other_seed)):
            cosines = result.Vh @ certified.T
            found[name] = {
                "sigma": result.S.tolist(), "residual": result.residuals.tolist(), "applications": result.applications,
                "cosine": np.abs(np.diag(cosines)).tolist(), "inside": (cosines**2).sum(1).tolist(),
            }  # fmt: skip
        return found

    def aligned(self, pair: tuple[int, int]) -> tuple[list[ps.SteeringVector], list[ps.SteeringVector]]:
        """The certified and the published vectors at equal length, each published one with the sign of the certified one."""
        certified = [v.relative(RELATIVE) for v in self.certified(pair)]
        published = [v.relative(RELATIVE) for v in self.results.vectors(f"{pair} published", list)]
        return certified, [w if v @ w >= 0 else -1 * w for v, w in zip(certified, published, strict=True)]

    def _divergences(self, *sets: Sequence[ps.SteeringVector]) -> list[list[float]]:
        """Mean KL over unrelated prompts and both signs of every vector."""
        vectors = [v for some in sets for v in some]
        unrelated = [self.asked.text(u) for u in UNRELATED[: self.size.unrelated]]
        kl = [float(x) for x in ps.evaluate.kl(self.model, unrelated, [*vectors, *(-1 * v for v in vectors)])]
        return np.array(kl).reshape(2, len(sets), -1).mean(0).tolist()

    def _contents(self, *sets: Sequence[ps.SteeringVector]) -> list[list[float]]:
        """Change of content to first order of every vector."""
        vectors = [v for some in sets for v in some]
        changes = first_order_changes(self.model, vectors, self._gradients([v.location for v in vectors]))
        return changes.mean(1).reshape(len(sets), -1).tolist()

    def _gradients(self, sites: Sequence[ps.Site]) -> dict[ps.Site, np.ndarray]:
        """Of the content score of some questions, by site; kept for all the sources of the sample."""
        if not self._kept_gradients:
            questions = split(read(self.questions, "survival-instinct"), "validation", self.size.questions, text=lambda q: q.published)
            every = [ps.Site(s, "mlp_out") for s in sorted({s for s, _ in self.sample})]
            self._kept_gradients = dict(score_gradients(self.model, [q.item for q in questions], self.asked.score, every))
        return {site: self._kept_gradients[site] for site in sites}

    @property
    def compared(self) -> list[dict[str, Any]]:
        """What `compare` found, by pair: KL and content are (certified, published)."""
        parts = ("vectors", "KL", "content")
        there = [p for p in self.sample if all(self.results.has(f"{p} {part}") for part in parts)]
        kept = [[self.results.once(f"{p} {part}", dict) for part in parts] for p in there]
        return [{"pair": p, **vectors, "KL": kl, "content": content} for p, (vectors, kl, content) in zip(there, kept, strict=True)]


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", metavar="MODEL", nargs="+")
    parser.add_argument("--questions", type=Path, required=True, metavar="FILE", help="the published questions")
    add_arguments(parser)
    parser.add_argument("--layers", nargs="+", type=_numbers, metavar="0,4,8", help="of each model: prompts are mapped between them")
    parser.add_argument("--do", nargs="+", choices=DOES, default=DOES, help="parts to compute")
    args = parser.parse_args(argv)
    given = args.layers or [None] * len(args.models)
    if len(given) != len(args.models):
        parser.error("--layers takes one list a model")
    studies = [
        MapStudy(path, args.questions, args.out, args.quick, layers, reads_only=args.only_page)
        for path, layers in zip(args.models, given, strict=True)
    ]
    for study in studies if not args.only_page else ():
        for name in args.do:
            if name in PROMPTS:
                study.compute_map(name)
            elif name == "published":
                study.compare()
            else:
                for prompt in PROMPTS:
                    study.compute_map(prompt, every_pair=True)
    write_page(studies, folder_of(args), args.quick)


if __name__ == "__main__":
    main()
