"""The evidence on the built-in model: what each kind of vector does to its three forks, and at what cost.

    python benchmarks/study.py            # writes docs/studies/built_in.md and its pictures
    python benchmarks/study.py --model FOLDER --methods --out FOLDER    # the first table only, of another training seed

Vectors come from eight validation questions of a fork, without labels but for CAA. Every method is searched in the same
way (both signs, the same scales, the same validation questions) and its choice is tested on the same test questions.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import spearmanr

import powersteer as ps
from powersteer.demo import story as demo
from powersteer.demo.forks import FORKS, questions

K, DRAWS, HALF = 12, 5, 0.5
RANKS = {"1-5": range(5), "6-12": range(5, K)}
SCALES = (0.18, 0.35, 0.7, 1.0, 1.4, 2.0)
EFFECT_SCALES = (0.05, 0.1, 0.2, 0.35, 0.7, 1.4)
DOCS = Path(__file__).parent.parent / "docs"
Vectors = list[ps.SteeringVector]


@dataclass
class Fork:
    """A fork's questions, and what the methods need of it."""

    model: ps.Model
    name: str
    n_validation: int = 32
    n_test: int = 200
    found: dict[str, ps.SearchResult] = field(default_factory=dict)
    vectors: dict[str, Vectors] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.asked = questions(self.name, "validation", self.n_validation)
        self.unseen = questions(self.name, "test", self.n_test)
        self.prompts, self.tests = [q.prompt for q in self.asked], [q.prompt for q in self.unseen]
        self.score = demo.Solved.of([*self.asked, *self.unseen])
        self.few = self.prompts[: demo.JACOBIAN]

    def search(self, vectors: Vectors, random: int = 0) -> ps.SearchResult:
        """Every candidate on eight validation questions, the best quarter on all."""
        return ps.search(self.model, vectors, self.score, validation=self.prompts, test=self.tests, scales=SCALES, n_random=random,
                         max_new_tokens=demo.ANSWER, halving=4)  # fmt: skip


# ---- methods: vectors of a fork


def pairs(model: ps.Model) -> list[tuple[int, int]]:
    return [(s, t) for t in range(model.n_layers) for s in range(t)]


def power(f: Fork, **svd) -> Vectors:
    return [v for s, t in pairs(f.model) for v in ps.power_vectors(f.model, f.few, s, t, k=K, target_positions=demo.LAST, **svd)]


def fisher(f: Fork) -> Vectors:
    return [v for s in range(f.model.n_layers) for v in ps.power_vectors(f.model, f.few, s, "next_token", k=1)]


def caa(f: Fork) -> Vectors:
    """Contrast: the question after another one that was answered in the one way or the other."""
    earlier = questions(f.name, "train", demo.JACOBIAN)
    good, bad = (
        [q.prompt + answer + "\n" + prompt for (q, answer), prompt in zip(answers, f.few, strict=True)]
        for answers in ([(q, q.alternative) for q in earlier], [(q, q.default) for q in earlier])
    )
    return [ps.caa(f.model, good, bad, layer) for layer in range(f.model.n_layers)]


def melbo(f: Fork) -> Vectors:
    last = f.model.n_layers - 1
    return [v for s in range(last) for v in ps.melbo(f.model, f.few, s, last, k=6, iterations=100, target_positions=demo.LAST)]


def dct(f: Fork, method: str) -> Vectors:
    last = f.model.n_layers - 1
    return [v for s in range(last) for v in ps.dct(f.model, f.few, s, last, k=K, method=method, target_positions=demo.LAST)]


METHODS: dict[str, Callable[[Fork], Vectors]] = {
    "Fisher, first": fisher,
    "power, certified": lambda f: power(f, tol=1e-2),
    "power, published": lambda f: power(f, method="power", iterations=5),
    "MELBO": melbo,
    "DCT, linear": lambda f: dct(f, "linear"),
    "DCT, exponential": lambda f: dct(f, "exponential"),
    "CAA (labels)": caa,
}


def cost(vectors: Vectors) -> tuple[int, int, float]:
    """Forward passes, products with J or J', seconds: of the calls that made the vectors, each counted once."""
    calls = {v.cost for v in vectors}
    return sum(c.forward for c in calls), sum(c.products for c in calls), sum(c.seconds for c in calls)


# ---- what the searches say


def best_by_vector(found: ps.SearchResult, keep: Callable[[object], bool] = lambda c: True) -> dict[int, float]:
    """Best validation score of every vector over its signs and scales."""
    best: dict[int, float] = {}
    for c in found.ranked:
        if keep(c):
            best[c.index] = max(best.get(c.index, 0.0), c.score)
    return best


def share(values: Sequence[bool]) -> str:
    low, high = ps.evaluate.wilson(sum(values), len(values))
    return f"{100 * np.mean(values):.0f}% [{100 * low:.0f}, {100 * high:.0f}]"


def percent(m: ps.evaluate.MetricResult) -> str:
    return f"{100 * m.value:.1f}% [{100 * m.low:.1f}, {100 * m.high:.1f}]"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def methods_table(forks: Sequence[Fork]) -> str:
    rows = []
    for f in forks:
        for name, vectors in f.vectors.items():
            found, (forward, products, seconds) = f.found[name], cost(vectors)
            c = found.chosen[0].candidate
            target = c.vector.target if isinstance(c.vector.target, str) else (c.vector.target or ("",))[0]
            where = f"{c.vector.layer} → {target}" if target != "" else c.vector.layer
            rank = "" if c.vector.rank is None else c.vector.rank
            rows.append([f.name, name, len(vectors), f"{forward} + {products}", f"{seconds:.1f}", percent(found.test),
                         f"{100 * found.share.value:.0f}%", where, rank, f"{c.sign * c.scale:+g}"])  # fmt: skip
        found = f.found["power, certified"]
        for draw, r in enumerate(found.random):
            rows.append([f.name, f"random, draw {draw}", len(f.vectors["power, certified"]), "0 + 0", "0", percent(r.test),
                         f"{100 * found.random_share.value:.0f}%", r.candidate.vector.layer, r.candidate.vector.rank,
                         f"{r.candidate.sign * r.candidate.scale:+g}"])  # fmt: skip
        rows.append([f.name, "unsteered", "", "", "", percent(found.unsteered[1]), "", "", "", ""])
    head = ["fork", "vectors", "n", "forward passes + products", "seconds", "test accuracy", "share", "layers", "rank", "scale"]
    return table(head, rows)


def certified_table(forks: Sequence[Fork]) -> str:
    rows = []
    for f in forks:
        ours, theirs = f.vectors["power, certified"], f.vectors["power, published"]
        scores = [best_by_vector(f.found[name]) for name in ("power, certified", "power, published")]
        for name, ranks in RANKS.items():
            index = [i for i, v in enumerate(ours) if v.rank in ranks]
            cosines = [abs(float(ours[i].direction @ theirs[i].direction)) for i in index]
            residuals = [np.max([v[i].residual for i in index]) for v in (ours, theirs)]
            rows.append([f.name, name, *(f"{r:.1e}" for r in residuals), f"{np.median(cosines):.3f}",
                         *(share([s[i] >= HALF for i in index]) for s in scores)])  # fmt: skip
    head = ["fork", "ranks", "worst residual", "published", "median cosine", "share that solves half", "published"]
    return table(head, rows)


def signs_table(forks: Sequence[Fork]) -> str:
    rows = []
    for f in forks:
        found = f.found["power, certified"]
        plus, minus = (best_by_vector(found, lambda c, s=s: c.sign == s) for s in (1, -1))
        passing = [(plus[i] >= HALF, minus[i] >= HALF) for i in plus]
        counts = [passing.count(kind) for kind in ((True, False), (False, True), (True, True))]
        rows.append([f.name, len(passing), *counts])
    return table(["fork", "vectors", "only +", "only −", "both signs"], rows)


def scales_table(forks: Sequence[Fork]) -> str:
    """One scale for all vectors: relative to each site's norm, or one length everywhere."""
    rows = []
    for f in forks:
        vectors = f.vectors["power, certified"]
        common = math.exp(np.mean([math.log(v.site_norm) for v in vectors]))
        absolute = f.search([replace(v, site_norm=common) for v in vectors])
        row = [f.name, f"{min(v.site_norm for v in vectors):.2g} to {max(v.site_norm for v in vectors):.2g}"]
        for found in (f.found["power, certified"], absolute):
            at = {s: best_by_vector(found, lambda c, s=s: c.scale == s) for s in SCALES}
            best = max(at, key=lambda s: sum(x >= HALF for x in at[s].values()))
            row.append(share([x >= HALF for x in at[best].values()]))
        rows.append(row)
    return table(["fork", "site norms", "best relative scale", "best single length"], rows)


def effects_of(f: Fork) -> ps.Effects:
    return ps.effects(f.model, f.few[:2], f.vectors["power, certified"], scales=EFFECT_SCALES, max_new_tokens=0, n_random=0)


def linearity_table(measured: dict[str, ps.Effects]) -> str:
    rows = []
    for name, e in measured.items():
        quartiles = [np.nanquantile([x.linearity for x in e.where(scale=s)], [0.25, 0.5, 0.75]) for s in EFFECT_SCALES]
        rows.append([name, *(f"{m:.2f} ({low:.2f}–{high:.2f})" for low, m, high in quartiles)])
    return table(["fork", *(f"scale {s:g}" for s in EFFECT_SCALES)], rows)


def predictors_table(forks: Sequence[Fork], measured: dict[str, ps.Effects]) -> str:
    """Spearman's rho between what is known of a vector beforehand and its best validation score."""
    rows = []
    for f in forks:
        vectors, best = f.vectors["power, certified"], best_by_vector(f.found["power, certified"])
        here = measured[f.name].where(scale=0.35)
        by = {i: [e for e in here if e.vector == i] for i in range(len(vectors))}
        columns = {
            "σ": [v.sigma for v in vectors],
            "σ × site norm": [v.sigma * v.site_norm for v in vectors],
            "KL at the end": [np.mean([e.kl_end for e in by[i]]) for i in by],
            "nonlinearity": [np.mean([e.linearity for e in by[i]]) for i in by],
            "presence ratio": [m.value for m in ps.evaluate.presence_ratio(f.model, f.few, vectors)],
            "Fisher overlap": [abs(float(v.direction @ f.vectors["Fisher, first"][v.layer].direction)) for v in vectors],
        }
        scores = np.array([best[i] for i in range(len(vectors))])
        rows.append([f.name, *(correlation(np.array(x), scores) for x in columns.values())])
    return table(["fork", *columns], rows)


def correlation(x: np.ndarray, y: np.ndarray) -> str:
    if (y > 0).sum() < 5:
        return "–"  # too few vectors do anything at all
    rng = np.random.default_rng(0)
    draws = rng.integers(0, len(x), (1000, len(x)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # resamples without any variation
        low, high = np.nanquantile([spearmanr(x[d], y[d]).statistic for d in draws], [0.025, 0.975])
    return f"{spearmanr(x, y).statistic:+.2f} [{low:+.2f}, {high:+.2f}]"


def fisher_grid(f: Fork, n: int = 100) -> np.ndarray:
    """(layers, signed scales) accuracy on test questions, without any choice."""
    signed = [sign * s for sign in (-1, 1) for s in sorted(SCALES, reverse=sign < 0)]
    vectors = [v.relative(s) for v in f.vectors["Fisher, first"] for s in signed]
    found = ps.evaluate.accuracy(f.model, f.tests[:n], vectors, score=f.score, max_new_tokens=demo.ANSWER)
    return np.array([m.value for m in found]).reshape(-1, len(signed))


def fisher_table(grids: dict[str, np.ndarray]) -> str:
    signed = [sign * s for sign in (-1, 1) for s in sorted(SCALES, reverse=sign < 0)]
    rows = [[name, layer, *(f"{100 * x:.0f}" for x in row)] for name, grid in grids.items() for layer, row in enumerate(grid)]
    return table(["fork", "layer", *(f"{s:+g}" for s in signed)], rows)


# ---- plots


def plot_cost(forks: Sequence[Fork], path: Path) -> None:
    figure, grid = plt.subplots(1, len(forks), figsize=(4 * len(forks), 3.6), sharey=True, squeeze=False, layout="constrained")
    axes = grid[0]
    for ax, f in zip(axes, forks, strict=True):
        for name, vectors in f.vectors.items():
            forward, products, _ = cost(vectors)
            m = f.found[name].test
            ax.errorbar(forward + products, m.value, [[m.value - m.low], [m.high - m.value]], fmt="o", capsize=3, label=name)
        values = [r.test.value for r in f.found["power, certified"].random]
        ax.axhspan(min(values), max(values), color="0.85", label="random draws")
        ax.set(xscale="log", title=f.name, xlabel="forward passes and products (prompts × vectors)", ylim=(-0.03, 1.03))
    axes[0].set_ylabel("test accuracy, 95% interval")
    axes[-1].legend(fontsize=7, loc="lower right")
    figure.savefig(path)
    plt.close(figure)


def plot_linearity(measured: dict[str, ps.Effects], path: Path) -> None:
    figure, ax = plt.subplots(figsize=(5, 3.6), layout="constrained")
    for name, e in measured.items():
        low, middle, high = np.transpose(
            [np.nanquantile([x.linearity for x in e.where(scale=s)], [0.25, 0.5, 0.75]) for s in EFFECT_SCALES]
        )
        (line,) = ax.plot(EFFECT_SCALES, middle, "o-", label=name)
        ax.fill_between(EFFECT_SCALES, low, high, color=line.get_color(), alpha=0.15)
    ax.set(xscale="log", xlabel="scale, in site norms", ylabel="|ΔF − Jδ| / |ΔF|, median and quartiles")
    ax.legend()
    figure.savefig(path)
    plt.close(figure)


# ---- the page


HEAD = """# What steering does to the built-in model

Written by `python benchmarks/study.py` in {minutes:.0f} minutes; model `{weights}`, powersteer {version}. Vectors come from eight
questions of a fork, layers, rank, sign and scale are chosen on {n_validation} validation questions, figures are of {n_test} test questions
that neither the search nor the training saw, with 95% intervals. A question counts if the whole alternative answer is right.
Scales are fractions of the mean activation norm of the site. Shares are of vectors that answer half of the validation
questions they were tried on, at some sign and scale.

The model answers three kinds of questions ("forks") in one of two ways: *products* with a guess or in steps, *recipes* with a refusal
or an answer, *sentences* with a copy or a translation (`powersteer/demo/demo_model/README.md`). *Power* vectors are
those of two layers, *Fisher* vectors those of the next token.

## Methods

{methods}
![accuracy against cost](built_in_cost.svg)

Random vectors are as many as the power vectors, at their sites, signs and norms, each draw choosing its own best.
"""
REST = """
## Does certifying vectors 6 to 12 change what they do?

{certified}
## Do both signs matter?

{signs}
## Does a relative scale beat an absolute one?

The share of vectors that solve half, at the one scale that suits most of them.

{scales}
## How linear are the effects?

|ΔF − Jδ| / |ΔF| at the vector's target: median (quartiles) over power vectors.

{linearity}
![share of an effect that is not linear, by scale and fork](built_in_linearity.svg)

## Does anything predict which vector flips the behaviour?

Spearman's ρ with the best validation score, over power vectors, with 95% bootstrap intervals.

{predictors}
## Does the Fisher vector need a search?

Accuracy (%) of the first Fisher vector on 100 test questions, by layer and signed scale.

{fisher}"""


def rest_of(forks: Sequence[Fork], pictures: Path) -> str:
    """The page after the table of methods."""
    measured = {f.name: effects_of(f) for f in forks}
    plot_linearity(measured, pictures / "built_in_linearity.svg")
    return REST.format(
        certified=certified_table(forks), signs=signs_table(forks), scales=scales_table(forks), linearity=linearity_table(measured),
        predictors=predictors_table(forks, measured), fisher=fisher_table({f.name: fisher_grid(f) for f in forks}),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--out", type=Path, default=DOCS / "studies", help="folder of built_in.md")
    parser.add_argument("--validation", type=int, default=32)
    parser.add_argument("--test", type=int, default=200)
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--methods", action="store_true", help="the table of methods only")
    parser.add_argument("--fork", choices=list(FORKS), action="append", help="repeatable; default all")
    a = parser.parse_args()
    warnings.simplefilter("ignore", ps.ConvergenceWarning)
    began, model = time.perf_counter(), ps.load(a.model)
    forks = [Fork(model, name, a.validation, a.test) for name in a.fork or FORKS]
    for f in forks:
        for name, make in METHODS.items():
            f.vectors[name] = make(f)
            f.found[name] = f.search(f.vectors[name], a.draws if name == "power, certified" else 0)
            print(f"{time.perf_counter() - began:6.0f} s  {f.name:<10} {name:<18} {percent(f.found[name].test)}", flush=True)
    a.out.mkdir(parents=True, exist_ok=True)
    plot_cost(forks, a.out / "built_in_cost.svg")
    rest = "" if a.methods else rest_of(forks, a.out)
    head = HEAD.format(
        weights=model.identity["weights"][:16], version=ps.__version__, n_validation=a.validation, n_test=a.test,
        methods=methods_table(forks), minutes=(time.perf_counter() - began) / 60,
    )  # fmt: skip
    (a.out / "built_in.md").write_text(head + rest, encoding="utf-8")


if __name__ == "__main__":
    main()
