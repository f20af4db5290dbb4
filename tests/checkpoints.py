"""Checkpoint folders that transformers wrote, to load, to damage and to compare."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path

import hf_models
import numpy as np
import random_checkpoints
from oracles import LIVE, safetensors_torch


@cache
def saved(name):
    """The folder in which transformers saved a case of hf_models, or one with the same tensors. Do not change it: take a `copy`."""
    if not LIVE:
        return random_checkpoints.folder(name)
    folder = Path(tempfile.mkdtemp(prefix="powersteer-"))
    atexit.register(shutil.rmtree, folder)
    hf_models.make(name).save_pretrained(folder)
    return folder


def copy(name, to):
    """The same as a folder of its own below `to`."""
    return Path(shutil.copytree(saved(name), to / "model"))


def change_config(folder, **changes):
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))


def change_tensors(folder, change):
    """`change` edits the dict of tensors in place."""
    path = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in safetensors_torch.load_file(path).items()}
    change(tensors)
    safetensors_torch.save_file(tensors, path)


def equal_specs(a, b):
    """Whether two models are the same in every bit."""
    (scalars, layers, top), others = a.to_core(np.float64), b.to_core(np.float64)

    def equal(x, y):
        if isinstance(x, dict):
            return x.keys() == y.keys() and all(equal(x[key], y[key]) for key in x)
        if isinstance(x, (list, tuple)):
            return len(x) == len(y) and all(map(equal, x, y))
        return x is y or (np.asarray(x).dtype == np.asarray(y).dtype and np.array_equal(x, y))

    return equal([scalars, layers, top], list(others))
