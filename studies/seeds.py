"""How much of the built-in model's table is luck: the same study on models of other training seeds.

    python tools/train_demo.py runs/seed1 --seed 1
    python tools/train_demo.py runs/seed1 --export runs/seed1/model
    python benchmarks/study.py --model runs/seed1/model --methods --out runs/seed1/study
    python studies/seeds.py runs/seed1/study/built_in.md [MORE ...]     # writes docs/studies/seeds.md

The first seed's figures are those of docs/studies/built_in.md.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from page import Page

__all__ = ["accuracies", "rows", "write"]

DOCS = Path(__file__).parent.parent / "docs"
Table = dict[tuple[str, str], float]  # (fork, vectors) -> test accuracy, in percent


def accuracies(path: Path) -> Table:
    """The table of methods of a page of benchmarks/study.py, with the best random draw in place of the draws."""
    found: Table = {}
    section = path.read_text("utf-8").partition("## Methods")[2].partition("\n## ")[0]
    for fork, vectors, accuracy in re.findall(r"^\| (\w+) \| ([^|]+?) \|(?:[^|]*\|){3} ([\d.]+)% \[", section, re.M):
        key = fork, re.sub(r", draw \d+", ", best draw", vectors)
        found[key] = max(float(accuracy), found.get(key, 0.0))
    if not found:
        raise SystemExit(f"{path} has no table of methods; benchmarks/study.py writes one")
    return found


def rows(tables: Sequence[Table]) -> list[list[str]]:
    """Fork, vectors, the accuracy of every seed, and the smallest and largest."""
    found = []
    for key in tables[0]:
        values = [table[key] for table in tables if key in table]
        each = [f"{table[key]:.1f}" if key in table else "" for table in tables]
        found.append([*key, *each, f"{min(values):.1f} to {max(values):.1f}"])
    return found


def write(first: Path, others: Sequence[Path], out: Path) -> None:
    """Write the page."""
    tables = [accuracies(path) for path in (first, *others)]
    pages = [re.search(r"model `(\w+)`", path.read_text("utf-8")) for path in (first, *others)]
    models = {f"seed {n}": page.group(1) if page else "" for n, page in enumerate(pages)}
    page = Page("The built-in model's table at other training seeds", "python studies/seeds.py RESULTS.md ...", models)
    page.text(
        "Test accuracy in percent: each model is trained by `tools/train_demo.py` from another seed (initialisation, batches, "
        "dropout), and `benchmarks/study.py` chooses and tests every kind of vector on it as on the first. Seed 0 is the shipped model."
    )
    page.table(["fork", "vectors", *models, "range"], rows(tables))
    page.write(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+", help="pages of benchmarks/study.py, one a further seed")
    parser.add_argument("--first", type=Path, default=DOCS / "studies/built_in.md", help="that of the first seed")
    parser.add_argument("--out", type=Path, default=DOCS / "studies" / "seeds.md")
    a = parser.parse_args()
    write(a.first, a.results, a.out)


if __name__ == "__main__":
    main()
