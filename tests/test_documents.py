"""Code in the documents runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def blocks(name):
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / name).read_text("utf-8"), re.M | re.S)


@pytest.mark.parametrize("wrong", ["", "2 mlp_out", "3 attn_out"])
def test_the_recipe_that_finds_a_wrong_site(stories, capsys, wrong):
    """A weight of transformers' is changed: the first line above the threshold names its site."""
    pytest.importorskip("transformers")
    (code,) = blocks("CONTRIBUTING.md")
    change = {"": "", "2 mlp_out": "layers[2].mlp.up_proj", "3 attn_out": "layers[3].self_attn.v_proj"}[wrong]
    if change:
        code = code.replace("theirs = {}\n", f"theirs = {{}}\nhf.model.{change}.weight.data *= 1.01\n")
    exec(code.replace('"path/to/checkpoint"', repr(str(stories))), {})
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "token ids agree: True" and len(lines) == 5 * 3 + 1
    apart = [line.rpartition(" ")[0] for line in lines if float(line.split()[-1]) > 1e-5]
    assert apart[:1] == [wrong] * bool(wrong), lines
