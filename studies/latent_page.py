"""The page of the study of latent behaviours, from what its folder holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from figures import axes, save
from latent import BUDGETS, DISTANCES, PROMPTS, QUICK, Latent
from page import Page

__all__ = ["verdict", "write_page"]

_SHOWN = 3  # texts of a cluster


def verdict(rows: Sequence[dict[str, Any]], prompts: int) -> bool:
    """Whether the map's coherent latent clusters exceed those of random vectors, halves against halves, on at least two of three
    prompts; rows: of one distance, with the demand of coherence."""
    return sum(row["half map"] > row["half random"] for row in rows) * 3 >= 2 * prompts


def write_page(studies: Sequence[Latent], path: Path) -> None:
    """Write the page, and its plot beside it, from the prompts that are complete."""
    done, left = [s for s in studies if s.done()], [PROMPTS[s.index] for s in studies if not s.done()]
    settings = studies[0].results.settings
    page = Page("Latent behaviours", "python studies/latent.py MODEL --out FOLDER", {
        **{k: settings[k] for k in ("model", "SHA-256")},
        "seeds": f"0 to {studies[0].sizes.samples - 1} of samples, 0 of Krylov and of random vectors",
    }, studies[0].sizes == QUICK)  # fmt: skip
    if left:
        page.text(f"**Not run to the end: {', '.join(f'“{p}”' for p in left)}.** The same command goes on where it stopped.")
    if done:
        counts = {s.index: s.counts() for s in done}
        page.text(_answer(done, counts))
        plot = path.with_suffix(".svg")
        _draw(done, plot)
        page.picture(plot, "texts of each prompt by their activations", path)
        _counts(page, done, counts)
        _texts(page, done)
    page.write(path)


def _answer(studies: Sequence[Latent], counts: dict[int, list[dict[str, Any]]]) -> str:
    """The opening paragraph, by the protocol's rule."""
    sizes, lines = studies[0].sizes, []
    for name, title in DISTANCES.items():
        rows = {i: {row["coherent"]: row for row in some if row["distance"] == name} for i, some in counts.items()}
        strict = [rows[s.index][True] for s in studies]
        yes = verdict(strict, len(studies))
        each = "; ".join(
            f"“{PROMPTS[s.index]}” {row['half map']:.3g} against {row['half random']:.3g}" for s, row in zip(studies, strict, strict=True)
        )
        whole = sum(row["map"] for row in strict), sum(rows[s.index][False]["map"] for s in studies)
        lines.append(
            f"By {title}, coherent latent clusters of half of the map's vectors against those of half of the random ones: {each}. "
            f"More than degeneration by the protocol's rule (more of them on at least two of three prompts): **{'yes' if yes else 'no'}**. "
            f"The whole map has {whole[0]} coherent latent clusters over all prompts, and {whole[1]} when incoherent texts count."
        )
    n = {k: len({t["vector"] for t in studies[0].steered(k)}) for k in ("map", "random")}
    lines.insert(0, (
        f"Greedy texts of {sizes.tokens} tokens under {n['map']} vectors of a map and {n['random']} random ones at the same sites, both "
        f"signs, at {' and '.join(f'{b:g}' for b in BUDGETS)} nats, beside {sizes.samples} samples of the plain model at temperature 1. "
        "A cluster is latent if it holds texts of two vectors and no sample and no random vector's text."
    ))  # fmt: skip
    lines.append(
        f"One model, {len(studies)} prompts, {2 * len(studies)} comparisons, and no interval: a difference of one or two clusters means "
        "little."
    )
    return " ".join(lines)


def _counts(page: Page, studies: Sequence[Latent], counts: dict[int, list[dict[str, Any]]]) -> None:
    page.section("Latent clusters")
    page.text(
        "Halves: half of the vectors (the first of every pair, or the second) against one half of the random ones, means over the halves. "
        "Whole: all vectors of the map against all random ones, and the two exchanged. A text of a single vector makes no latent cluster."
    )  # fmt: skip
    rows = [
        [PROMPTS[s.index], DISTANCES[row["distance"]], "coherent" if row["coherent"] else "all", f"{row['half map']:.3g}",
         f"{row['half random']:.3g}", row["map"], row["random"]] for s in studies for row in counts[s.index]
    ]  # fmt: skip
    page.table(("prompt", "distance", "texts", "half of the map", "half of random", "whole map", "random, exchanged"), rows)
    page.text("How many texts are coherent, and how many different ones there are:")
    rows = []
    for s in studies:
        texts, coherent = s.texts(), s.coherent()
        for kind in ("sample", "map", "random"):
            mine = [i for i, one in enumerate(texts) if one["kind"] == kind]
            share = "–" if kind == "sample" else f"{100 * coherent[mine].mean():.0f}%"
            rows.append([PROMPTS[s.index], kind, len(mine), len({texts[i]["text"] for i in mine}), share])
    page.table(("prompt", "texts of", "texts", "different", "coherent"), rows)


def _texts(page: Page, studies: Sequence[Latent]) -> None:
    page.section("All latent clusters of the map")
    page.text(f"Up to {_SHOWN} texts of each, of different vectors first; ✓: coherent. Source → target, rank from 0, sign and budget.")
    for s in studies:
        for name, title in DISTANCES.items():
            found = s.found(name)
            page.text(f"**“{PROMPTS[s.index]}”**, by {title}: {len(found)} clusters.")
            rows = []
            for n, cluster in enumerate(found, 1):
                first = {one["vector"]: one for one in reversed(cluster)}.values()
                shown = [*first, *(one for one in cluster if all(one is not f for f in first))][:_SHOWN]
                rows += [[f"{n} of {len(cluster)} texts" if i == 0 else "", one["about"], "✓" if one["coherent"] else "", one["text"]]
                         for i, one in enumerate(shown)]  # fmt: skip
            if rows:
                page.table(("cluster", "vector", "", "text"), rows)


def _draw(studies: Sequence[Latent], path: Path) -> None:
    """First two principal components of the embeddings, a panel for each prompt."""
    figure, (panels,) = axes(1, len(studies), 4, 3.6)
    colours = {"sample": ("lightgray", 4), "random": ("tab:orange", 8), "map": ("tab:blue", 8)}
    for s, panel in zip(studies, panels, strict=True):
        X, texts = s.embeddings().astype(np.float64), s.texts()
        X = X / np.linalg.norm(X, axis=1, keepdims=True)
        X -= X.mean(0)
        at = X @ np.linalg.svd(X, full_matrices=False)[2][:2].T
        kind, tokens = np.array([t["kind"] for t in texts]), [tuple(t["tokens"]) for t in texts]
        for name, (colour, size) in colours.items():
            label = {"sample": "samples", "random": "random vectors", "map": "vectors of the map"}[name]
            panel.scatter(*at[kind == name].T, s=size, color=colour, label=label)
        inside = {(tuple(t["tokens"]), t["about"]) for cluster in s.found("activations") for t in cluster}
        ringed = [i for i, t in enumerate(texts) if (tokens[i], t.get("about")) in inside]
        panel.scatter(*at[ringed].T, s=40, facecolors="none", edgecolors="tab:red", lw=0.8, label="in a latent cluster")
        panel.set(title=PROMPTS[s.index], xticks=[], yticks=[])
    panels[0].legend(fontsize=6)
    save(figure, path)
