"""A short run of tools/fuzz.py, and everything that a long one ever found."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))
import fuzz

FOUND = sorted(fuzz.FINDINGS.glob("*")) if fuzz.FINDINGS.is_dir() else []


@pytest.mark.parametrize(("name", "executions"), [
    ("checkpoint", 60), ("vectors", 200), ("control", 200), ("gguf", 40), ("blocks", 40), ("fp8", 60), ("atlas", 60), ("arrays", 300),
])  # fmt: skip
def test_damage_is_answered(name, executions):
    outcomes, findings = fuzz.fuzz(name, 60, seed=0, most=executions)
    assert not findings
    assert sum(outcomes.values()) == executions and len(outcomes) > 1


@pytest.mark.parametrize("kept", FOUND, ids=lambda p: p.name)
def test_what_was_found(kept):
    assert fuzz.replay(kept)[1] == ""


def test_a_message_does_not_write_out_what_is_long():
    """What the arrays found: the text of a list of millions took 15 seconds, to be cut to 80 characters."""

    class Long(list):
        def __repr__(self):
            raise AssertionError("written out")

    model, long = fuzz.ps.load("demo"), [Long([0.5])] * 1000
    for call in (model.steered, lambda a: model.jacobian([1, 2], 0, 3, target_positions=a),
                 lambda a: model.generate([1], max_new_tokens=1, seed=a)):  # fmt: skip
        with pytest.raises(fuzz.ps.InvalidInput) as caught:
            call(long)
        assert len(str(caught.value)) < 1000


def test_it_notices(monkeypatch):
    """A reader that raises something else, or never ends, is a finding."""
    assert fuzz.answer(lambda: 1 / 0)[1].startswith("ZeroDivisionError")
    monkeypatch.setattr(fuzz, "SLOW", 1)
    assert fuzz.answer(lambda: next(x for x in iter(int, 1) if x))[1].startswith("Slow")
