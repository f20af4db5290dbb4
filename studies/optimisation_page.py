"""The page of effect against compute."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from figures import axes, save
from page import Page
from results import metric

import powersteer as ps

__all__ = ["REST", "write_page"]

_METHOD = """Every method offers {offered} vectors from one prompt: singular vectors are made {made} at a time, at the cost of all, and
the first are taken; MELBO's cost is that of {offered} ascents. The two displacements (Euclidean, in the model's units: of
the target block's input at all positions, which MELBO maximises, and of its MLP's output at the last two, whose Jacobian
power vectors are of) and the KL of the next token are those of vectors as long as 0.35 of the source's mean activation; the
score is that at 0.3 nats of KL on unrelated prompts: the share of answers on the rarer side of the fork, or the content
score in nats. Vector and sign are chosen on validation items, once for each measure, and the figures are means over test
items with 95% intervals (bootstrap; Wilson for shares). The first token's activation can be a hundred times as long as the
others', and most of MELBO's displacement is its: the same vectors' displacement without it is reported beside. Passes: forward
passes of the prompt plus products with J or its transpose, all vectors together. Seconds: of one core, float32.
MELBO's ascents start from random directions and are not kept orthogonal, as published; fewer iterations are the same runs,
looked at on the way."""

REST = "first token left out"  # of MELBO's target
MEASURES = {  # of `Study._effects` and `Study._score`: what it is, and its unit
    "block input": ("MELBO's target moves", "units"), REST: ("MELBO's target moves, but for its first token", "units"),
    "MLP output": ("power's target moves", "units"), "KL": ("KL, nats", "nats"), "score": ("score", "score"),
}  # fmt: skip
SERIES = ("power published", "power certified", "MELBO", "power to MELBO's target", "Fisher")
POWER, OWN = "power certified, 0.01", "power to MELBO's target"


def write_page(study: Any, docs: Path) -> None:
    path, s = docs / "optimisation.md", study.results.settings
    page = Page(
        "Parity with optimisation", f"python studies/optimisation.py {s['model']}.gguf --questions FILE --out FOLDER",
        {"model": s["sha256"], "questions": s["questions sha256"], "vectors a method": s["offered"], "validation items": s["validation"],
         "test items": s["test"], "seed": 0}, s["quick"],
    )  # fmt: skip
    tables = {case.name: found for case in study.cases if (found := _figures(study, case))}
    page.section("Answers")
    page.text(*(_answer(name, found) for name, found in tables.items()), _to_the_end(study))
    lacking = {case.name: [label for label in study.labels if label not in tables.get(case.name, {})] for case in study.cases}
    if missing := [f"{name}: {', '.join(labels)}" for name, labels in lacking.items() if labels]:
        page.text(f"Not run: {'; '.join(missing)}.")
    page.section("What was done")
    page.text(_METHOD.replace("\n", " ").format(offered=s["offered"], made=s["k"]))
    for name, found in tables.items():
        page.section(name)
        shown = [m for m in MEASURES if any(m in row for row in found.values())]
        head = ("vectors", "passes", "seconds", *(MEASURES[m][0] for m in shown))
        page.table(head, [_row(label, row, shown) for label, row in found.items()])
    page.picture(_draw(tables, docs), "effect against passes, a row of panels a case", path)
    page.write(path)


def _figures(study: Any, case: Any) -> dict[str, dict[str, Any]]:
    """By the label of a set of vectors: its cost, and its measures on test items."""
    found: dict[str, dict[str, Any]] = {}
    for label in study.labels:
        if not study.results.has(f"{case.name}, {label}, effects"):
            continue
        kept = study.results.once(f"{case.name}, {label}, effects", dict)
        row = {m: metric(kept[m]["test"], MEASURES[m][1]) for m in MEASURES if m in kept}
        if study.results.has(f"{case.name}, {label}, {REST}"):
            row[REST] = metric(study.results.once(f"{case.name}, {label}, {REST}", list), MEASURES[REST][1])
        if study.results.has(f"{case.name}, {label}, score"):
            values = study.results.once(f"{case.name}, {label}, score", dict)["test"]
            row["score"] = _score(values)
        cost = kept["cost"] or {"forward": 0, "products": 0, "seconds": 0.0}
        found[label] = {"passes": cost["forward"] + cost["products"], "seconds": cost["seconds"], **row}
    if found and study.results.has(f"{case.name}, plain"):
        values = study.results.once(f"{case.name}, plain", list)
        found["unsteered"] = {"passes": 0, "seconds": 0.0, "score": _score(values)}
    return found


def _score(values: Sequence[float]) -> ps.MetricResult:
    return metric(values, "share" if set(values) <= {0.0, 1.0} else "nats")


def _row(label: str, row: dict[str, Any], shown: Sequence[str]) -> list[Any]:
    return [label, row["passes"], f"{row['seconds']:.1f}", *(row.get(m, "") for m in shown)]


def _short(m: ps.MetricResult) -> str:
    digits = 0 if m.unit.endswith("share") else 2
    scale = 100 if m.unit.endswith("share") else 1
    low, middle, high = (f"{scale * x:.{digits}f}" for x in (m.low, m.value, m.high))
    return f"{middle}{'%' if scale > 1 else ''} [{low}, {high}]"


def _answer(name: str, found: dict[str, dict[str, Any]]) -> str:
    climbed = [label for label in found if label.startswith("MELBO")]
    if not climbed or POWER not in found:
        return f"**{name}**: no vectors of MELBO are there to compare with."
    melbo = max(climbed, key=lambda label: found[label]["passes"])
    theirs = found[melbo]
    draws = [row for label, row in found.items() if label.startswith("random")]
    parts, holds, fails, moot = [], [], [], []
    for m, (words, _) in MEASURES.items():
        ours = found.get(OWN if m in ("block input", REST) else POWER, {})  # each measure's own target
        if m in ours and m in theirs:
            best = max((row[m] for row in draws if m in row), default=None)
            random = "" if best is None else f", random {_short(best)}"
            parts.append(f"{words} {_short(ours[m])} against {_short(theirs[m])}{random}")
            nothing = best is not None and max(ours[m].low, theirs[m].low) <= best.value
            (moot if nothing else holds if ours[m].value >= theirs[m].low else fails).append(words)
    ratio = theirs["passes"] / max(found[label]["passes"] for label in (POWER, OWN) if label in found)
    text = (
        f"**{name}**: power vectors, certified to 1e-2, took {found[POWER]['passes']} passes and {found[POWER]['seconds']:.1f} s; {melbo} "
        f"iterations took {theirs['passes']} passes and {theirs['seconds']:.0f} s. The best of each (for "
        f"MELBO's target that of power vectors of this target, {found.get(OWN, found[POWER])['passes']} passes): {'; '.join(parts)}."
    )
    told = (("is inside MELBO's interval or above for", holds), ("is below it for", fails))
    verdict = " and ".join(f"{how} {', '.join(words)}" for how, words in told if words)
    tenth = "the protocol's tenth is reached" if ratio >= 10 else "the protocol's tenth is not reached"
    text += f" At 1/{ratio:.1f} of the passes ({tenth}) power {verdict}." if verdict else ""
    return text + (f" Neither differs from the best of the random draws by {', '.join(moot)}." if moot else "")


def _to_the_end(study: Any) -> str:
    case, last = study.cases[0], study.size.last
    before = max(study.size.climbed)
    gains = []
    for i in range(study.size.to_the_end):
        on_the_way = {v.cost.products: v.objective for v in study.kept(f"{case.name}, MELBO from start {i}")}
        if last in on_the_way and before in on_the_way:
            gains.append(on_the_way[last] / on_the_way[before])
    if not gains:
        return ""
    return (
        f"MELBO stopped at {before} iterations; {len(gains)} of its vectors went on to the published {last} and moved the target on "
        f"its own prompt {' and '.join(f'{gain:.2f}' for gain in gains)} times as far by then, for "
        f"{last / before:.1f} times the passes."
    )


def _draw(tables: dict[str, dict[str, dict[str, Any]]], docs: Path) -> Path:
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    figure, grid = axes(max(len(tables), 1), len(MEASURES), 3.4, 2.8)
    for row, title, (name, found) in zip(grid, (True, *(False for _ in tables)), tables.items(), strict=False):
        for ax, (m, (words, _)) in zip(row, MEASURES.items(), strict=True):
            for series in SERIES:
                points = sorted((r["passes"], r[m]) for label, r in found.items() if label.split(",")[0] == series and m in r)
                if points:
                    x, y = [p for p, _ in points], np.array([[v.value, v.value - v.low, v.high - v.value] for _, v in points]).T
                    ax.errorbar(x, y[0], np.maximum(y[1:], 0), marker="o", markersize=3, linewidth=1, elinewidth=0.7, label=series)
            for label, r in found.items():
                if label.startswith(("random", "unsteered")) and m in r:
                    ax.axhline(r[m].value, color="0.6", linewidth=0.8, linestyle="--" if label == "unsteered" else ":")
            ax.set(xscale="log", xlabel="passes", title=words if title else "")
            ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.xaxis.set_major_formatter(ScalarFormatter())
            ax.xaxis.set_minor_formatter(NullFormatter())
            ax.set_visible(any(m in r for r in found.values()))
        row[0].set_ylabel(name)
    grid[0, 0].legend(frameon=False, fontsize="x-small")
    return save(figure, docs / "optimisation.svg")
