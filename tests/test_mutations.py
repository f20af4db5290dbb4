"""The table of tools/mutate.py: every deliberate bug still has its place in the sources. Running them takes hours."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))
mutate = pytest.importorskip("mutate", reason="the tools are not in an installed copy")


def test_every_bug_can_be_made():
    for mutation in mutate.MUTATIONS:
        assert mutate.mutated(mutation, ROOT) != (ROOT / mutation.path).read_text(encoding="utf-8")


def test_a_text_that_is_gone_or_repeated_is_an_error():
    first = mutate.MUTATIONS[0]
    with pytest.raises(ValueError, match="0 times, not 1"):
        mutate.mutated(first._replace(old="no such text"), ROOT)
    with pytest.raises(ValueError, match="times, not 1"):
        mutate.mutated(first._replace(old="\n"), ROOT)
    with pytest.raises(ValueError, match="changes nothing"):
        mutate.mutated(first._replace(new=first.old), ROOT)


def test_names_and_test_files():
    names = Counter(mutation.name for mutation in mutate.MUTATIONS)
    assert max(names.values()) == 1
    assert all((ROOT / f"tests/test_{name}.py").is_file() for mutation in mutate.MUTATIONS for name in mutation.tests)
    kinds = Counter(mutation.path.split("/")[0] for mutation in mutate.MUTATIONS)
    assert kinds["csrc"] >= 60 and kinds["powersteer"] >= 20
