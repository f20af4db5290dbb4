"""How much of the built-in model's table is luck: the same study on models of other training seeds.

    python tools/train_demo.py runs/seed1 --seed 1
    python tools/train_demo.py runs/seed1 --export runs/seed1/model
    python studies/built_in.py --out runs/built_in_1 --model runs/seed1/model --methods
    python studies/seeds.py runs/built_in_0 runs/built_in_1 [MORE ...]     # writes docs/studies/seeds.md

The first folder is that of the shipped model, of `python studies/built_in.py --out runs/built_in_0`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from built_in import METHODS, POWER, KeptSearch, Sizes, search_key
from page import STUDIES, Page
from results import Missing, Results

__all__ = ["write"]

BEST, PLAIN = "random, best draw", "unsteered"
Accuracies = dict[str, float]  # test accuracy by kind of vectors, in percent


def _searches(results: Results, fork: str) -> dict[str, KeptSearch]:
    try:
        return {method: KeptSearch(results.once(search_key(fork, method), dict)) for method in METHODS}
    except Missing as key:
        raise SystemExit(f"{results.folder} lacks {key}: studies/built_in.py has not run to its end") from None


def _accuracies(found: dict[str, KeptSearch]) -> Accuracies:
    power = found[POWER]
    values = {**{method: f.test for method, f in found.items()}, BEST: max(power.draws), PLAIN: power.unsteered}
    return {name: 100 * float(value) for name, value in values.items()}


def _answer(searches: Sequence[dict[str, dict[str, KeptSearch]]]) -> str:
    """How often each kind of vectors beats the draws of random ones, and the range of its accuracy."""
    every = [found for seed in searches for found in seed.values()]
    parts = []
    for method in METHODS:
        beats = sum(f[method].test.low > max(draw.high for draw in f[POWER].draws) for f in every)
        low, high = (100 * float(of(f[method].test for f in every)) for of in (min, max))
        parts.append(f"{method}: {beats} of {len(every)} ({low:.1f} to {high:.1f}%)")
    return f"Forks, over all seeds, where the interval lies above that of every random draw (range of accuracy): {'; '.join(parts)}."


def write(folders: Sequence[Path], docs: Path) -> None:
    """Write seeds.md from folders of studies/built_in.py, the shipped model's first."""
    results = [Results.of(folder) for folder in folders]
    sizes = [r.settings["sizes"] for r in results]
    if differ := [str(f) for f, size in zip(folders, sizes, strict=True) if size != sizes[0]]:
        raise SystemExit(f"{', '.join(differ)}: of other sizes than {folders[0]}")
    searches = [{fork: _searches(r, fork) for fork in sizes[0]["forks"]} for r in results]
    models = {f"seed {n}": r.settings["weights"][:16] for n, r in enumerate(results)}
    title, quick = "The built-in model's table at other training seeds", sizes[0]["test"] < Sizes.test
    page = Page(title, "python studies/seeds.py FOLDER ...", models, quick, protocol=False)
    page.text(
        f"Test accuracy in percent, of {sizes[0]['test']} questions: each model is trained by `tools/train_demo.py` from another "
        "seed (initialisation, batches, dropout), and `studies/built_in.py` chooses and tests every kind of vector on it as on the "
        "first. Seed 0 is the shipped model.",
        _answer(searches),
    )
    rows = []
    for fork in sizes[0]["forks"]:
        seeds = [_accuracies(seed[fork]) for seed in searches]
        for name in seeds[0]:
            values = [seed[name] for seed in seeds]
            rows.append([fork, name, *(f"{v:.1f}" for v in values), f"{min(values):.1f} to {max(values):.1f}"])
    page.table(["fork", "vectors", *models, "range"], rows)
    page.write(docs / "seeds.md")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="folders of studies/built_in.py, that of the shipped model first")
    parser.add_argument("--docs", type=Path, default=STUDIES, metavar="FOLDER", help="of the page")
    a = parser.parse_args()
    write(a.folders, a.docs)


if __name__ == "__main__":
    main()
