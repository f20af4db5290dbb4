"""What a type checker infers of the public calls: one for a prompt, a list for a list of prompts."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_types_of_one_or_many():
    api = pytest.importorskip("mypy.api")
    report, errors, status = api.run(["--config-file", str(ROOT / "pyproject.toml"), str(ROOT / "tests/typing_check.py")])
    assert status == 0, report + errors
