"""The page on the built-in model: what each kind of vector does to its forks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from built_in import EFFECT_SCALES, METHODS, POWER, SCALES, SIGNED, Fork, Sizes
from correlations import correlation
from figures import axes, save
from page import Page

import powersteer as ps

__all__ = ["write_page"]

RANKS = {"1-5": range(5), "6-12": range(5, 12)}
PUBLISHED = "power, published"
HALF = 0.5  # of the validation questions: a vector that does something
Rows = list[list[Any]]

_METHOD = """Vectors come from eight questions of a fork, layers, rank, sign and scale are chosen on {validation} validation questions,
figures are of {test} test questions that neither the search nor the training saw, with 95% intervals. A question counts if
the whole alternative answer is right. Scales are fractions of the mean activation norm of the site. Shares are of vectors that
answer half of the validation questions they were tried on, at some sign and scale."""
_FORKS = """The model answers three kinds of questions ("forks") in one of two ways: *products* with a guess or in steps, *recipes* with
a refusal or an answer, *sentences* with a copy or a translation (`powersteer/demo/demo_model/README.md`). *Power* vectors are
those of two layers, *Fisher* vectors those of the next token."""


def write_page(forks: Sequence[Fork], folder: Path) -> None:
    """Write built_in.md and its pictures."""
    path, sizes = folder / "built_in.md", forks[0].sizes
    settings = {"model": forks[0].model.identity["weights"][:16], "seed of random vectors": 0}
    title, command = "What steering does to the built-in model", "python studies/built_in.py --out FOLDER"
    page = Page(title, command, settings, quick=sizes.test < Sizes.test, protocol=False)
    page.text(_METHOD.replace("\n", " ").format(validation=sizes.validation, test=sizes.test), _FORKS.replace("\n", " "))
    page.section("Methods")
    page.table(["fork", "vectors", "n", "forward passes + products", "seconds", "test accuracy", "share", "layers", "rank", "scale"],
               _methods(forks))  # fmt: skip
    page.picture(_draw_cost(forks, folder / "built_in_cost.svg"), "accuracy against cost", path)
    page.text("Random vectors are as many as the power vectors, at their sites, signs and norms, each draw choosing its own best.")
    page.section("Does certifying vectors 6 to 12 change what they do?")
    page.table(["fork", "ranks", "worst residual", "published", "median cosine", "share that solves half", "published"],
               _certified(forks))  # fmt: skip
    page.section("Do both signs matter?")
    page.table(["fork", "vectors", "only +", "only −", "both signs"], [_signs(f) for f in forks])
    page.section("Does a relative scale beat an absolute one?")
    page.text("The share of vectors that solve half, at the one scale that suits most of them.")
    page.table(["fork", "site norms", "best relative scale", "best single length"], [_scales(f) for f in forks])
    page.section("How linear are the effects?")
    page.text("|ΔF − Jδ| / |ΔF| at the vector's target: median (quartiles) over power vectors.")
    page.table(["fork", *(f"scale {s:g}" for s in EFFECT_SCALES)],
               [[f.name, *(f"{m:.2f} ({low:.2f}–{high:.2f})" for low, m, high in _linearity(f))] for f in forks])  # fmt: skip
    page.picture(_draw_linearity(forks, folder / "built_in_linearity.svg"),
                 "share of an effect that is not linear, by scale and fork", path)  # fmt: skip
    page.section("Does anything predict which vector flips the behaviour?")
    page.text(
        "KL at the end and nonlinearity (|ΔF − Jδ| / |ΔF|): of the next token and of the target, at 0.35 of the site's norm. Presence "
        "ratio: mean |a·v| over the site's activations a, over that of random unit vectors. Fisher overlap: |cosine| with the layer's "
        "first Fisher vector."
    )
    page.text("Spearman's ρ with the best validation score, over power vectors, with 95% bootstrap intervals over pairs of layers.")
    predictors = {f.name: _predictors(f) for f in forks}
    page.table(["fork", *predictors[forks[0].name]], [[name, *row.values()] for name, row in predictors.items()])
    page.section("Does the Fisher vector need a search?")
    page.text(f"Accuracy (%) of the first Fisher vector on {sizes.grid} test questions, by layer and signed scale.")
    page.table(["fork", "layer", *(f"{s:+g}" for s in SIGNED)],
               [[f.name, layer, *(f"{100 * x:.0f}" for x in row)] for f in forks for layer, row in enumerate(f.fisher_grid())])  # fmt: skip
    page.write(path)


def _cost(vectors: Sequence[ps.SteeringVector]) -> tuple[int, int, float]:
    """Forward passes, products with J or J', seconds: of the calls that made the vectors, each counted once."""
    calls = {v.cost for v in vectors if v.cost is not None}
    return sum(c.forward for c in calls), sum(c.products for c in calls), sum(c.seconds for c in calls)


def _percent(m: ps.MetricResult) -> str:
    return f"{100 * m.value:.1f}% [{100 * m.low:.1f}, {100 * m.high:.1f}]"


def _share(passing: Sequence[bool]) -> ps.MetricResult:
    return ps.evaluate.summary(np.asarray(passing, float), "share")


def _passing(f: Fork, method: str) -> list[bool]:
    return [score >= HALF for _, score in sorted(f.found(method).best().items())]


def _methods(forks: Sequence[Fork]) -> Rows:
    rows: Rows = []
    for f in forks:
        for name in METHODS:
            found, vectors = f.found(name), f.vectors(name)
            (forward, products, seconds), c = _cost(vectors), found.chosen
            where = c["layer"] if c["target"] is None else f"{c['layer']} → {c['target']}"
            rows.append([f.name, name, len(vectors), f"{forward} + {products}", f"{seconds:.1f}", _percent(found.test),
                         f"{100 * found.share.value:.0f}%", where, "" if c["rank"] is None else c["rank"],
                         f"{c['sign'] * c['scale']:+g}"])  # fmt: skip
        found = f.found(POWER)
        share = f"{100 * found.random_share.value:.1f}% of all"
        for draw, (c, test) in enumerate(zip(found.random, found.draws, strict=True)):
            rows.append([f.name, f"random, draw {draw}", len(f.vectors(POWER)), "0 + 0", "0", _percent(test), share, c["layer"],
                         c["rank"], f"{c['sign'] * c['scale']:+g}"])  # fmt: skip
        rows.append([f.name, "unsteered", "", "", "", _percent(found.unsteered), "", "", "", ""])
    return rows


def _certified(forks: Sequence[Fork]) -> Rows:
    rows: Rows = []
    for f in forks:
        ours, theirs = f.vectors(POWER), f.vectors(PUBLISHED)
        for name, ranks in RANKS.items():
            index = [i for i, v in enumerate(ours) if v.rank in ranks]
            cosine = np.median([abs(float(ours[i].direction @ theirs[i].direction)) for i in index])
            residuals = [f"{max(v[i].residual for i in index):.1e}" for v in (ours, theirs)]
            shares = [_share([_passing(f, method)[i] for i in index]) for method in (POWER, PUBLISHED)]
            rows.append([f.name, name, *residuals, f"{cosine:.3f}", *shares])
    return rows


def _signs(f: Fork) -> list[Any]:
    plus, minus = (f.found(POWER).best(lambda sign, _, s=s: sign == s) for s in (1, -1))
    passing = [(plus[i] >= HALF, minus[i] >= HALF) for i in plus]
    return [f.name, len(passing), *(passing.count(kind) for kind in ((True, False), (False, True), (True, True)))]


def _scales(f: Fork) -> list[Any]:
    """One scale for all vectors: relative to each site's norm, or one length everywhere."""
    norms = [v.site_norm for v in f.vectors(POWER)]
    row: list[Any] = [f.name, f"{min(norms):.2g} to {max(norms):.2g}"]
    for found in (f.found(POWER), f.at_one_length()):
        at = [[x >= HALF for x in found.best(lambda _, scale, s=s: scale == s).values()] for s in SCALES]
        row.append(_share(max(at, key=sum)))
    return row


def _linearity(f: Fork) -> np.ndarray:
    """(scales, 3) quartiles over vectors, signs and prompts."""
    return np.array([np.nanquantile(np.ravel(at), [0.25, 0.5, 0.75]) for at in f.effects()["linearity"]])


def _predictors(f: Fork) -> dict[str, str]:
    """Spearman's rho between what is known of a vector beforehand and its best validation score."""
    vectors, best = f.vectors(POWER), f.found(POWER).best()
    linearity, kl = (np.mean(f.effects()[name][EFFECT_SCALES.index(0.35)], axis=1) for name in ("linearity", "kl_end"))
    fisher = f.vectors("Fisher, first")
    columns: dict[str, Any] = {
        "σ": [v.sigma for v in vectors], "σ × site norm": [v.sigma * v.site_norm for v in vectors], "KL at the end": kl,
        "nonlinearity": linearity, "presence ratio": f.presence(),
        "Fisher overlap": [abs(float(v.direction @ fisher[v.layer].direction)) for v in vectors],
    }  # fmt: skip
    scores = np.array([best[i] for i in range(len(vectors))])
    if (scores > 0).sum() < 5:  # too few vectors do anything at all
        return dict.fromkeys(columns, "–")
    pairs = [(v.layer, v.target_layer) for v in vectors]
    return {name: str(correlation(x, scores, pairs)) for name, x in columns.items()}


def _draw_cost(forks: Sequence[Fork], path: Path) -> Path:
    figure, ((*panels,),) = axes(1, len(forks))
    for ax, f in zip(panels, forks, strict=True):
        for name in METHODS:
            forward, products, _ = _cost(f.vectors(name))
            m = f.found(name).test
            ax.errorbar(forward + products, m.value, [[m.value - m.low], [m.high - m.value]], fmt="o", capsize=3, label=name)
        values = [draw.value for draw in f.found(POWER).draws]
        ax.axhspan(min(values), max(values), color="0.85", label="random draws")
        ax.set(xscale="log", title=f.name, xlabel="forward passes and products (prompts × vectors)", ylim=(-0.03, 1.03))
    panels[0].set_ylabel("test accuracy, 95% interval")
    panels[-1].legend(fontsize=7, loc="lower right")
    return save(figure, path)


def _draw_linearity(forks: Sequence[Fork], path: Path) -> Path:
    figure, ((ax,),) = axes(1, 1, 5.0, 3.6)
    for f in forks:
        low, middle, high = _linearity(f).T
        (line,) = ax.plot(EFFECT_SCALES, middle, "o-", label=f.name)
        ax.fill_between(EFFECT_SCALES, low, high, color=line.get_color(), alpha=0.15)
    ax.set(xscale="log", xlabel="scale, in site norms", ylabel="|ΔF − Jδ| / |ΔF|, median and quartiles")
    ax.legend()
    return save(figure, path)
