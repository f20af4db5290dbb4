"""Oracles' answers, kept in kept/*.safetensors, a file for each file of tests: `kept(ask)` in a test returns what `ask()` does
where its oracle is installed, and fails if the kept answer differs beyond rounding; elsewhere it returns the kept one.

An answer is made of arrays, numbers, texts, lists, and dicts. Each file says which versions gave its answers; tools/keep.py
writes them."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from functools import cache
from pathlib import Path

import numpy as np
import oracles
import pytest
import safetensors
import safetensors.numpy

FOLDER = Path(__file__).parent / "kept"
ORACLES = ("torch", "transformers", "tokenizers", "scikit-learn", "llama-cpp-python", "numpy")
WRITING = os.environ.get("POWERSTEER_KEEP") == "1"
TOLERANCE = {"float64": 1e-10, "float32": 2e-5}  # of a kept answer, relative to its largest number
_written: dict[str, dict[str, object]] = {}


def flatten(answer, name, arrays):
    """What JSON can say of an answer; its arrays go into `arrays`."""
    if isinstance(answer, (np.ndarray, np.generic)):
        arrays[name] = np.asarray(answer, order="C")
        return {"array": name}
    if isinstance(answer, dict):
        return {"dict": [[list(k) if isinstance(k, tuple) else k, flatten(v, f"{name}/{i}", arrays)]
                         for i, (k, v) in enumerate(answer.items())]}  # fmt: skip
    if isinstance(answer, (list, tuple)):
        return [flatten(one, f"{name}/{i}", arrays) for i, one in enumerate(answer)]
    assert answer is None or isinstance(answer, (str, int, float)), f"an answer cannot hold {type(answer).__name__}"
    return answer


def restore(tree, arrays):
    """The answer that was flattened; tuples are lists, but in keys."""
    if isinstance(tree, dict) and "array" in tree:
        return arrays[tree["array"]]
    if isinstance(tree, dict):
        return {tuple(k) if isinstance(k, list) else k: restore(v, arrays) for k, v in tree["dict"]}
    return [restore(one, arrays) for one in tree] if isinstance(tree, list) else tree


@cache
def read(module):
    """(answers, arrays, versions) of a file of tests."""
    path = FOLDER / f"{module}.safetensors"
    if not path.exists():
        return {}, {}, {}
    with safetensors.safe_open(path, "numpy") as file:
        meta = file.metadata()
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    return json.loads(meta["answers"]), arrays, json.loads(meta["versions"])


def write():
    """Put what this session asked oracles into the files, at the end of the session."""
    for module, new in _written.items():
        old, arrays, _ = read(module)
        answers = {key: restore(tree, arrays) for key, tree in old.items()} | new
        trees, arrays, versions = {}, {}, {"python": platform.python_version()}
        for key in sorted(answers):
            trees[key] = flatten(answers[key], key, arrays)
        for name in ORACLES:
            versions[name] = importlib.metadata.version(name)
        meta = {"answers": json.dumps(trees, separators=(",", ":")), "versions": json.dumps(versions), "seed": "0"}
        safetensors.numpy.save_file(arrays, FOLDER / f"{module}.safetensors", meta)


def check_same(live, stored, key, tolerance):
    """Fails if a live answer differs from the kept one beyond rounding."""
    if isinstance(live, (np.ndarray, np.generic)):
        live, stored = np.asarray(live), np.asarray(stored)
        assert live.shape == stored.shape and live.dtype == stored.dtype, f"{key}: {live.dtype} {live.shape} is new"
        limit = tolerance if tolerance is not None else TOLERANCE.get(str(live.dtype), 0)
        scale = np.abs(stored).max(initial=0)
        same = np.array_equal(live, stored) or np.abs(live - stored).max() <= limit * scale
        assert same, f"{key}: the kept answer differs from the live one"
    elif isinstance(live, dict):
        assert list(live) == list(stored), f"{key}: other keys than those kept"
        for name in live:
            check_same(live[name], stored[name], f"{key}[{name}]", tolerance)
    elif isinstance(live, (list, tuple)):
        assert isinstance(stored, list) and len(live) == len(stored), f"{key}: {len(live)} instead of those kept"
        for i, (one, other) in enumerate(zip(live, stored, strict=True)):
            check_same(one, other, f"{key}[{i}]", tolerance)
    else:
        near = isinstance(live, float) and np.isclose(live, stored, rtol=tolerance or 1e-10, atol=0)
        assert live == stored or near, f"{key}: {live!r} is new; kept is {stored!r}"


class Kept:
    """The answers of one test, by the order in which it asks."""

    def __init__(self, nodeid, seed):
        path, _, self.test = nodeid.partition("::")
        self.module, self.seed, self.asked = Path(path).stem, seed, 0

    def __call__(self, ask, tolerance=None):
        """What ask() returns, or what it returned when the oracle was last run. tolerance: relative to the largest number."""
        key, self.asked = f"{self.test}/{self.asked}", self.asked + 1
        try:
            live = ask()
        except oracles.Absent:
            if self.seed != 0:
                raise  # kept are the answers for seed 0
            live = None
        if live is not None and self.seed != 0:
            return live
        if live is not None and WRITING:
            _written.setdefault(self.module, {})[key] = live
            return live
        answers, arrays, _ = read(self.module)
        if key not in answers:
            pytest.fail(f"no answer of an oracle is kept for {key}; write it with: python tools/keep.py tests/{self.module}.py")
        stored = restore(answers[key], arrays)
        if live is None:
            return stored
        check_same(live, stored, key, tolerance)
        return live
