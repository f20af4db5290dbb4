"""docs/pictures/overview.svg, the picture of the README: a map, and what vectors do to a decision, both of the built-in model.

    python tools/overview.py            # the shares are those of docs/studies/built_in.md
"""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import powersteer as ps
from powersteer.demo.forks import questions

ROOT = Path(__file__).parents[1]
SHOWN = {"unsteered": "unsteered", "random, best of 5 × 120": "random", "power vectors, best of 120": "power, certified",
         "first next-token vector": "Fisher, first"}  # fmt: skip


def shares(fork: str) -> dict[str, tuple[float, float, float]]:
    """Test accuracy in percent with its interval, for each row of SHOWN; of random draws the best."""
    found: dict[str, tuple[float, float, float]] = {}
    for line in (ROOT / "docs/studies/built_in.md").read_text(encoding="utf-8").splitlines():
        cells = [c.strip() for c in line.split("|")]
        if len(cells) < 8 or cells[1] != fork or not (figures := re.search(r"([\d.]+)% \[([\d.]+), ([\d.]+)\]", line)):
            continue
        share = tuple(float(f) for f in figures.groups())
        for label, method in SHOWN.items():
            if cells[2].startswith(method):
                found[label] = max(found.get(label, (-1.0, 0.0, 0.0)), share)  # type: ignore[type-var]
    return {label: found[label] for label in SHOWN}


def main() -> None:
    model = ps.load("demo")
    prompts = [q.prompt for q in questions("products", "validation", 4)]
    plt.rcParams.update({"svg.hashsalt": "powersteer", "font.size": 9})
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.3), layout="constrained", width_ratios=(1.35, 1))
    ps.plots.sensitivity_map(ps.atlas(model, prompts, k=2), ax=left)
    for text in left.texts:  # the caption, whose place the title takes
        text.set_visible(False)
    left.set_title("how far a layer moves a later one: σ", loc="left", pad=6)
    rows = shares("products")
    y = np.arange(len(rows))[::-1]
    middle, low, high = np.array(list(rows.values())).T
    colours = ["#90a4ae", "#90a4ae", "#ff8a65", "#ff5722"]
    right.barh(y, middle, xerr=(middle - low, high - middle), color=colours, ecolor="#37474f", capsize=3)
    right.set(yticks=y, yticklabels=list(rows), xlim=(0, 100), xlabel="% of 200 multiplications answered right")
    right.set_title("a guess becomes a calculation")
    right.spines[["top", "right"]].set_visible(False)
    figure.savefig(ROOT / "docs/pictures/overview.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
