"""The page of the maps: what was found in sentences, tables and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from figures import axes, heat, save
from map_measures import decay
from maps_findings import SPAN, Findings, factor
from page import Page

__all__ = ["write_page"]

LAGS = (1, 2, 4, 8, 16)
RANKS = (2, 3, 5, 8, 12)
SPECTRA = {  # sigma_k / sigma_1, k = 1..12: medians over layer pairs of the published dashboard data
    "published, Qwen3-8B, code": (1, 0.84, 0.75, 0.70, 0.65, 0.61, 0.59, 0.55, 0.53, 0.50, 0.48, 0.45),
    "published, Qwen3-1.7B, arithmetic": (1, 0.75, 0.54, 0.47, 0.42, 0.39, 0.35, 0.33, 0.31, 0.30, 0.29, 0.27),
}
GROUPS = ((0.9, 1.01), (0.5, 0.9), (0.0, 0.5))  # of |cos| between published and certified vectors
FEW = 5  # no mean of fewer is told in a sentence
LOW = GROUPS[-1][1]
CORRELATED = ("σ₁", "σ₁ without layers", "next token")


def write_page(studies: Sequence[Any], docs: Path, quick: bool = False) -> None:
    path = docs / "maps.md"
    names = " ".join(f"{study.name}.gguf" for study in studies)
    layers = " ".join(",".join(map(str, study.grid)) for study in studies)
    page = Page(
        "The map itself", f"python studies/maps.py {names} --questions FILE --out FOLDER --layers {layers}",
        {study.name: study.results.settings["sha256"] for study in studies}
        | {"tolerance": studies[0].size.tol, "vectors a pair": studies[0].size.k, "seed": 0}, quick,
    )  # fmt: skip
    findings = [Findings(study) for study in studies if study.load_map("chat") or study.load_map("chat", every_pair=True)]
    page.section("Answers")
    page.text(*(_answer(found) for found in findings))
    page.text(
        "Not measured: maps of unquantised weights, which were not to be had for these models. A map says what a model is "
        "sensitive to, to first order, on one prompt; it says nothing about whether a steered text is good."
    )
    _sizes(page, findings)
    page.section("Pictures")
    page.text(
        "Rows are sources, columns targets. Grey: not computed. Gain: the relative change of the target, to first order, by a "
        f"vector as long as the source's mean activation. Shared: of the spans of the first {SPAN} right singular vectors."
    )
    for found in findings:
        for drawn, alt in ((_draw_maps(found, docs), "σ₁, gain, next token"), (_draw_turning(found, docs), "shares of subspaces")):
            page.picture(drawn, f"{found.study.name}: {alt}", path)
    _turning(page, findings)
    _spectra(page, findings, docs, path)
    _published(page, findings, docs, path)
    _prompts(page, findings)
    page.write(path)


# ---- in sentences


def _answer(found: Findings) -> str:
    results = [p for atlas in found.all_maps.values() for p in atlas]
    loose, n = sum(not p.converged for p in results), found.study.model.n_layers
    certified = f"{loose} of {len(results)} results not certified" if loose else f"all {len(results)} results certified"
    there = sum(not isinstance(t, str) for _, t in found.first_spans)
    about = f"{there} of {n * (n - 1) // 2} pairs of the first prompt; {certified} to {found.study.size.tol:g}"
    parts = (_how_it_turns(found), _next_token(found), _spectrum(found), _of_published(found), _of_prompts(found))
    return f"**{found.study.name}** ({about}). {' '.join(filter(None, parts))}"


def _how_it_turns(found: Findings) -> str:
    told = {
        of: ", ".join(f"{found.share(of, lag):.0%} at {lag}" for lag in LAGS if len(lags.get(lag, ())) >= FEW)
        for of, lags in found.turning.items()
    }  # fmt: skip
    if not all(told.values()):
        return ""
    return (
        f"Singular spaces turn with depth: over the pairs that are there, the first {SPAN} vectors of one source towards two targets share "
        f"{told['targets']} layers' distance; those of two sources towards one target {told['sources']} layers' "
        f"distance (chance {found.chance:.1%})."
    )


def _next_token(found: Findings) -> str:
    n = found.study.model.n_layers
    early = range(n // 3)
    depths = (range(n - 3, n), range(n // 3, 2 * n // 3))
    late, middle = ([x for t in of for x in found.shares_of_next_token(early, t)] for of in depths)
    if len(late) < FEW or len(middle) < FEW:
        return ""
    return (
        f"From sources in the first third, the spaces towards the last three layers share {np.mean(late):.0%} with the next token's, those "
        f"towards the middle third {np.mean(middle):.0%}."
    )


def _spectrum(found: Findings) -> str:
    s = decay(found.first[0])
    return f"The median spectrum falls to {s[1]:.2f}, {s[4]:.2f} and {s[-1]:.2f} of σ₁ at ranks 2, 5 and {len(s)}."


def _of_published(found: Findings) -> str:
    if not found.ranks:
        return "The published algorithm was not run on any pair."
    early, late = ([r["cosine"] >= GROUPS[0][0] for r in found.ranks if (r["rank"] < SPAN) == first] for first in (True, False))
    low = [r for r in found.ranks if r["cosine"] < LOW]
    text = (
        f"Of the published algorithm's vectors ({len(found.study.compared)} of {len(found.study.sample)} pairs were run), "
        f"{np.mean(early):.0%} of ranks 1 to {SPAN} and {np.mean(late):.0%} of the later ones have a cosine of at least 0.9 "
        f"with the certified vector of their rank, {len(low) / len(found.ranks):.0%} of all one below {LOW} "
        "(certified vectors of another seed: "
        f"{np.mean([r['other seed'] < LOW for r in found.ranks]):.0%})"
    )
    if not low:
        return f"{text}."
    here, there = factor([r["KL"] for r in low]), factor([n["KL"] for n in found.neighbours])
    than = "about as much as" if abs(np.log(here / there)) < np.log(1.15) else "less than" if here < there else "more than"
    return (
        f"{text}. These {len(low)} differ from the certified ones in KL at equal length by a median factor of {here:.2f}, "
        f"{than} certified vectors of neighbouring ranks differ from each other ({there:.2f}), and lie to "
        f"{np.mean([r['inside'] for r in low]):.0%} within the certified space."
    )


def _of_prompts(found: Findings) -> str:
    agreements = found.agreements()
    if not agreements:
        return "Maps of other prompts are not there."
    parts = []
    for (a, b), f in agreements.items():
        rest = f["σ₁ without layers"] and f"{_interval(f['σ₁ without layers'])} without every source's and target's mean, "
        parts.append(f"{a} and {b}: r = {f['σ₁'][0]:.2f} of log σ₁, {rest or ''}{f['spans']:.0%} of the first {SPAN} vectors' space")
    sizes, directions = (f["σ₁"][0] > 0.7 for f in agreements.values()), (f["spans"] < 0.2 for f in agreements.values())
    verdict = ": the maps agree in size and hardly in direction" if all(sizes) and all(directions) else ""
    return f"Between prompts ({'; '.join(parts)}){verdict}."


def _interval(values: tuple[float, float, float, int] | None) -> str:
    return "too few pairs" if values is None else f"{values[0]:.2f} [{values[1]:.2f}, {values[2]:.2f}]"


# ---- in tables


def _sizes(page: Page, findings: Sequence[Findings]) -> None:
    page.section("What is there")
    study = findings[0].study
    shown = {name: study.prompt(name) for name in study.prompts}
    quoted = (f"{name} “{text if isinstance(text, str) else text[0]['content']}”" for name, text in shown.items())
    page.text(f"Prompts: {'; '.join(quoted)}.".replace("\n", " ⏎ "))
    rows = []
    for found in findings:
        for name, atlas in found.all_maps.items():
            of_layers = [pair for pair in atlas.pairs if not isinstance(pair[1], str)]
            there = sum(not isinstance(p.target, str) for p in atlas)
            rows.append([
                found.study.name, name, len(atlas.settings.prompts[0].tokens), f"{there} of {len(of_layers)}",
                f"{len(atlas) - there} of {len(atlas.sources)}", sum(not p.converged for p in atlas),
                max((max(p.residuals) for p in atlas), default=float("nan")),
                _sources([p.source for p in atlas], found.study.model.n_layers),
            ])  # fmt: skip
    page.table(
        ("model", "prompt", "tokens", "pairs of layers", "next token", "not certified", "largest residual", "sources"), rows
    )


def _sources(layers: Sequence[int], n_layers: int) -> str:
    return "all" if len(set(layers)) >= n_layers else ", ".join(map(str, sorted(set(layers))))


def _turning(page: Page, findings: Sequence[Findings]) -> None:
    page.section("How singular spaces turn with depth")
    page.text(
        f"Mean share of the span of the first {SPAN} right singular vectors that lies in the other pair's span: the mean squared "
        "cosine of "
        'the principal angles (how many pairs of pairs). "Targets apart": one source; "sources apart": one target. Chance: of random spans.'
    )
    rows = [
        [found.study.name, f"{of} apart", *(f"{found.share(of, lag):.2f} ({len(lags[lag])})" if lags.get(lag) else "" for lag in LAGS),
         f"{found.chance:.3f}"]
        for found in findings for of, lags in found.turning.items()
    ]  # fmt: skip
    page.table(("model", "pairs", *(f"{lag} layer{'s' * (lag > 1)}" for lag in LAGS), "chance"), rows)


def _spectra(page: Page, findings: Sequence[Findings], docs: Path, path: Path) -> None:
    page.section("Spectra")
    page.text(
        "Median over pairs of layers of σ at each rank, over σ₁. The published medians are those of other models, from the data of "
        "the dashboard beside the post “Power Steering” (2026)."
    )
    named = ((f"{f.study.name}, {name}", atlas) for f in findings for name, atlas in f.all_maps.items())
    lines = {name: decay(atlas) for name, atlas in named if np.isfinite(atlas.S).any()}
    every = {**lines, **{name: np.array(values) for name, values in SPECTRA.items()}}
    page.table(("model, prompt", *map(str, RANKS)), [[name, *(f"{s[k - 1]:.2f}" for k in RANKS)] for name, s in every.items()])
    figure, ((ax,),) = axes(1, 1, 6, 3.4)
    for name, s in every.items():
        ax.plot(range(1, len(s) + 1), s, "--" if name in SPECTRA else "-", marker=".", label=name)
    ax.set(xlabel="rank", ylabel="σ / σ₁", ylim=(0, 1.03))
    ax.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    page.picture(save(figure, docs / "maps_spectra.svg"), "singular values by rank, of each model and prompt", path)


def _published(page: Page, findings: Sequence[Findings], docs: Path, path: Path) -> None:
    there = [found for found in findings if found.ranks]
    if not there:
        return
    page.section("The published algorithm's vectors")
    page.text(
        "Five steps of block power iteration with 12 vectors, against the certified ones of the same pairs: cosine with the "
        "certified vector of the same rank (beside it that of another certified run with another seed: vectors of nearly equal σ "
        "are determined only together), share within the span of all certified vectors, residual over σ₁; medians over pairs."
    )
    columns = ("cosine", "other seed", "inside", "residual", "sigma")
    page.table(("model", "rank", r"\|cos\|", "another seed", "within the 12", "residual", "σ / certified σ"), [
        [found.study.name, rank + 1, *(f"{np.median([r[what] for r in found.ranks if r['rank'] == rank]):.3g}" for what in columns)]
        for found in there for rank in range(found.study.size.k)
    ])  # fmt: skip
    page.text(
        "What the difference does, at 0.35 of the site's norm: the factor between the KL of a published vector and that of the "
        "certified one of its rank (median of the larger over the smaller; KL is the mean over both signs and the unrelated "
        "prompts), and by how much the content score of survival-instinct questions differs, to first order, beside how far the "
        "certified vector moves it."
    )
    rows = [row for found in there for row in _groups(found)]
    page.table(("model", "vectors", "n", "KL factor", "content differs, nats", "content moves, nats"), rows)
    page.picture(_draw_cosines(there, docs), "cosines by rank", path)


def _groups(found: Findings) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for low, high in GROUPS:
        some = [r for r in found.ranks if low <= r["cosine"] < high]
        if some:
            content = [f"{np.median([r[what] for r in some]):.3f}" for what in ("content", "size")]
            kl = f"{factor([r['KL'] for r in some]):.2f}"
            rows.append([found.study.name, f"|cos| {low:g} to {min(high, 1):g}", len(some), kl, *content])
    near = found.neighbours
    content = f"{np.median([n['content'] for n in near]):.3f}"
    return [*rows, [found.study.name, "certified, next rank", len(near), f"{factor([n['KL'] for n in near]):.2f}", content, ""]]


def _prompts(page: Page, findings: Sequence[Findings]) -> None:
    rows = [
        [found.study.name, f"{a}, {b}", f["pairs"], *(_interval(f[what]) for what in CORRELATED), f"{f['spans']:.2f}",
         f"{found.chance:.3f}"]
        for found in findings for (a, b), f in found.agreements().items()
    ]  # fmt: skip
    if not rows:
        return
    page.section("Agreement between prompts")
    page.text(
        "Pearson correlations of log σ₁ over the pairs of layers of both maps, as they are and without a constant for every source "
        "and every "
        'target (what is left says whether the maps agree beyond "early sources move more"), and of the next token\'s log σ₁ over '
        "sources, with 95% "
        f"intervals by bootstrap over sources; and the mean share of the first {SPAN} vectors' space of the same pair."
    )
    page.table(("model", "prompts", "pairs", "log σ₁", "without layers", "next token", "shared space", "chance"), rows)


# ---- in pictures


def _draw_maps(found: Findings, docs: Path) -> Path:
    figure, ((sigma, gain, token),) = axes(1, 3)
    heat(figure, sigma, found.array("S"), "σ₁, target units per unit")
    heat(figure, gain, found.array("gain"), "gain of the first vector")
    for ax in (sigma, gain):
        ax.set(xlabel="target layer", ylabel="source layer")
    for name, atlas in found.all_maps.items():
        values = atlas.next_token.gain[:, 0]
        there = np.flatnonzero(np.isfinite(values))
        token.plot(there, values[there], marker=".", label=name)
    token.set(xlabel="source layer", yscale="log")
    token.set_title("next token: gain, √nats", fontsize="medium", loc="left")
    token.legend(frameon=False)
    return save(figure, docs / f"maps_{found.study.name}.svg")


def _draw_turning(found: Findings, docs: Path) -> Path:
    figure, ((lines, by_target, to_token),) = axes(1, 3)
    for (of, lags), style in zip(found.turning.items(), ("-", "--"), strict=True):
        lines.plot(list(lags), [np.mean(v) for v in lags.values()], style, marker=".", label=f"{of} apart")
    lines.axhline(found.chance, color="0.5", linestyle=":", label="chance")
    lines.set(xlabel="layers apart", ylim=(0, 1))
    lines.set_title(f"shared of the first {SPAN}", fontsize="medium", loc="left")
    lines.legend(frameon=False)
    source, targets, table = found.between_targets()
    heat(figure, by_target, table, f"between targets, source {source}", logarithmic=False, vmin=0.0, vmax=1.0)
    step = max(1, len(targets) // 8)
    by_target.set_xticks(range(0, len(targets), step), targets[::step])
    by_target.set_yticks(range(0, len(targets), step), targets[::step])
    n = found.study.model.n_layers
    next_token = np.array([[found.share_of_next_token(s, t) for t in range(n)] for s in range(n)])
    heat(figure, to_token, next_token, "with the next token's space", logarithmic=False, vmin=0.0, vmax=1.0)
    to_token.set(xlabel="target layer", ylabel="source layer")
    return save(figure, docs / f"maps_{found.study.name}_turning.svg")


def _draw_cosines(findings: Sequence[Findings], docs: Path) -> Path:
    figure, (row,) = axes(1, len(findings))
    for ax, found in zip(row, findings, strict=True):
        for what, marker, label in (("cosine", "o", "published"), ("other seed", "x", "another seed")):
            ranks, values = ([r[key] + add for r in found.ranks] for key, add in (("rank", 1), (what, 0.0)))
            ax.plot(ranks, values, marker, markersize=4, alpha=0.5, label=label)
        ax.set(xlabel="rank", ylabel="|cos| with the certified vector", ylim=(0, 1.03))
        ax.set_title(found.study.name, fontsize="medium", loc="left")
        ax.legend(frameon=False)
    return save(figure, docs / "maps_published.svg")
