"""Kept answers are what the oracles say, and a test never passes without one."""

from __future__ import annotations

import json

import kept as kept_answers
import numpy as np
import oracles
import pytest

ANSWER = {"logits": np.array([1.0, -2.0]), "tokens": [3, 4], (0, "mlp_out"): np.float32([[0.5]]), "text": "é", "none": None, "kl": 0.25}


def absent():
    oracles.Missing("torch").skip()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder of answers."""
    monkeypatch.setattr(kept_answers, "FOLDER", tmp_path)
    monkeypatch.setattr(kept_answers, "_written", {})
    kept_answers.read.cache_clear()
    yield tmp_path
    kept_answers.read.cache_clear()


def ask(answer, seed=0, tolerance=None):
    return kept_answers.Kept("tests/test_x.py::test_y[a/b]", seed)(answer, tolerance)


@pytest.fixture
def stored(folder, monkeypatch):
    monkeypatch.setattr(kept_answers, "WRITING", True)
    monkeypatch.setattr(kept_answers, "ORACLES", ("numpy",))
    assert ask(lambda: ANSWER) is ANSWER
    kept_answers.write()
    monkeypatch.setattr(kept_answers, "WRITING", False)
    kept_answers.read.cache_clear()
    return folder / "test_x.safetensors"


def test_the_kept_answer_stands_for_an_oracle_that_is_missing(stored):
    back = ask(absent)
    assert back.keys() == ANSWER.keys() and back["logits"].dtype == np.float64 and back[0, "mlp_out"].dtype == np.float32
    assert all(np.array_equal(back[key], ANSWER[key]) for key in ANSWER)
    assert kept_answers.read("test_x")[2]["numpy"] == np.__version__


@pytest.mark.parametrize("change", [
    {"logits": np.array([1.0, -2.0 + 1e-8])}, {"logits": np.array([1.0, np.nan])}, {"logits": np.float32([1, -2])}, {"tokens": [3, 5]},
    {"tokens": [3]}, {"text": "e"}, {"none": 0}, {"kl": 0.25 + 1e-8}, {"more": 1}, {(0, "mlp_out"): np.float32([[0.5001]])},
])  # fmt: skip
def test_a_live_answer_that_differs_fails(stored, change):
    assert ask(lambda: ANSWER | {"logits": np.array([1.0, -2.0 - 1e-13])})["logits"][1] == -2.0 - 1e-13
    with pytest.raises(AssertionError):
        ask(lambda: ANSWER | change)


def test_the_tolerance_can_be_wider(stored):
    ask(lambda: ANSWER | {"logits": np.array([1.0, -2.0 + 1e-8])}, tolerance=1e-7)


@pytest.mark.parametrize("answer", [absent, lambda: ANSWER])
def test_without_a_kept_answer_a_test_fails_and_says_what_writes_it(folder, answer):
    with pytest.raises(pytest.fail.Exception, match=r"python tools/keep.py tests/test_x.py"):
        ask(answer)


def test_another_seed_asks_the_oracle_or_skips(stored):
    assert ask(lambda: 7, seed=1) == 7
    with pytest.raises(oracles.Absent):
        ask(absent, seed=1)


def test_a_missing_module_can_be_named_but_not_asked():
    torch = oracles.oracle("torch_that_is_nowhere")
    assert repr(torch.float32) == "torch_that_is_nowhere.float32"
    for use in (lambda: torch.ones(3), lambda: list(torch.a), lambda: torch.a[0], lambda: bool(torch), lambda: np.asarray(torch.a)):
        with pytest.raises(oracles.Absent, match="live: torch_that_is_nowhere is not installed"):
            use()
    with pytest.raises(oracles.Absent):
        oracles.skip_if_missing({"a": [1, (torch.float32,)]})


def test_what_continuous_integration_asks_for_must_be_installed(monkeypatch):
    monkeypatch.setattr(oracles, "REQUIRED", ["oracles"])
    lines = ["there==1; extra == 'oracles'", "old==2; extra == 'oracles'", "absent==3; extra == 'oracles'", "a>=1", "b==4; extra == 'docs'"]
    monkeypatch.setattr(oracles.importlib.metadata, "requires", lambda name: lines)

    def version(name):
        if name == "absent":
            raise oracles.importlib.metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(oracles.importlib.metadata, "version", version)
    assert oracles.missing_packages() == ["old==2", "absent==3"]


def test_the_files_are_small_and_say_what_made_them():
    files = sorted(kept_answers.FOLDER.glob("*"))
    assert sum(path.stat().st_size for path in files) < 5_000_000
    for path in files:
        if path.suffix == ".safetensors":
            assert (kept_answers.FOLDER.parent / f"{path.stem}.py").exists(), f"{path.name} is of a file of tests that is no more"
            assert kept_answers.read(path.stem)[2].keys() >= {"torch", "transformers", "numpy"}
        else:
            json.loads(path.read_text())
