"""The page on training seeds, from tables as benchmarks/study.py writes them."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "studies"))
seeds = pytest.importorskip("seeds", reason="the studies are not in an installed copy")
FIRST = ROOT / "docs/studies/built_in.md"


def test_the_first_seed_is_what_the_page_says():
    table = seeds.accuracies(FIRST)
    assert table["products", "Fisher, first"] == 99.0 and table["recipes", "power, certified"] == 77.5
    assert table["recipes", "random, best draw"] == 71.0 and table["sentences", "unsteered"] == 0.0
    assert len(table) == 3 * len("Fisher certified published MELBO linear exponential CAA random unsteered".split())


def test_the_range_is_over_all_seeds(tmp_path):
    other = tmp_path / "built_in.md"
    other.write_text(re.sub(r"99\.0% \[96\.4", "41.5% [35.0", FIRST.read_text("utf-8")).replace("model `83c9", "model `0123"), "utf-8")
    seeds.write(FIRST, [other, FIRST], tmp_path / "seeds.md")
    page = (tmp_path / "seeds.md").read_text("utf-8")
    assert "| products | Fisher, first | 99.0 | 41.5 | 99.0 | 41.5 to 99.0 |" in page and "seed 1: `0123" in page
    assert "| recipes | random, best draw | 71.0 | 71.0 | 71.0 | 71.0 to 71.0 |" in page


def test_a_page_without_the_table(tmp_path):
    (tmp_path / "other.md").write_text("| a | b |\n", "utf-8")
    with pytest.raises(SystemExit, match="no table of methods"):
        seeds.accuracies(tmp_path / "other.md")
