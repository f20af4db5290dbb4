"""The progress line: there wherever it was requested, by every call that takes one."""

from __future__ import annotations

import io
import itertools
import subprocess
import sys

import pytest
import tiny

import powersteer as ps

PROMPTS = [[1, 5, 9, 3, 3, 7], [2, 8, 4, 4]]
SMALL = {"max_new_tokens": 2, "n_random": 1, "scales": [1.0]}


@pytest.fixture(scope="module")
def model():
    return tiny.tiny(n_layers=3)[0]


def calls(model):
    atlas = ps.atlas(model, PROMPTS, k=2, progress=False)
    vec = atlas.vector(0, 2, 0)
    words = ps.evaluate.LogitDifference("a", "b")
    return {
        "svd": lambda p: model.jacobian(PROMPTS, 0, 2).svd(2, progress=p),
        "atlas": lambda p: ps.atlas(model, PROMPTS, k=2, progress=p),
        "effects of an atlas": lambda p: atlas.effects(1, progress=p, resume=False, **SMALL),
        "effects": lambda p: ps.effects(model, PROMPTS, vec, progress=p, **SMALL),
        "search": lambda p: ps.search(model, vec, words, validation=["x", "y"], test=["z", "w"], n_random=1, progress=p),
        "melbo": lambda p: ps.melbo(model, PROMPTS, 0, 2, k=1, iterations=2, progress=p),
        "dct": lambda p: ps.dct(model, PROMPTS, 0, 2, k=1, method="exponential", iterations=2, progress=p),
    }


NAMES = ["svd", "atlas", "effects of an atlas", "effects", "search", "melbo", "dct"]


@pytest.mark.parametrize("name", NAMES)
def test_it_is_seen_in_a_pipe(model, monkeypatch, name):
    call, out = calls(model)[name], io.StringIO()  # no terminal
    monkeypatch.setattr(sys, "stderr", out)
    call(False)
    assert not out.getvalue()
    call(True)
    lines = out.getvalue().split("\r")
    assert len(lines) > 1 and lines[-1].endswith("\n") and ("100%" in lines[-1] or name == "svd")


@pytest.mark.parametrize("name", NAMES)
def test_a_callable_gets_all_of_it(model, capsys, name):
    seen = []
    calls(model)[name](lambda *given: seen.append(given))
    assert seen and not capsys.readouterr().err
    if name in ("atlas", "effects of an atlas", "effects", "search"):
        assert all(a[0] <= b[0] for a, b in itertools.pairwise(seen))
        assert {len(s) for s in seen} == {2} and seen[-1][0] == seen[-1][1] > 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("wrong", [None, 1, "yes"])
def test_anything_else_is_refused(model, name, wrong):
    with pytest.raises(ps.InvalidInput, match="progress"):
        calls(model)[name](wrong)


def test_in_a_notebook_without_widgets_it_is_text():
    """tqdm itself warns there, which would be the first thing that a user sees."""
    code = (
        "import sys, types, warnings; warnings.simplefilter('error')\n"
        "fake = types.ModuleType('IPython'); sys.modules['IPython'] = fake\n"
        "fake.get_ipython = lambda: types.SimpleNamespace(config={'IPKernelApp': 1})\n"
        "sys.modules['ipywidgets'] = None\n"
        "import numpy as np, powersteer as ps\n"
        "ps.svd(np.diag([3.0, 2, 1]), 1, progress=True)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "applications" in done.stderr, done.stderr
