"""The random checkpoints of hf_models, made without PyTorch: numbers for each tensor of a file, and the files themselves, from
the configs, names and shapes in kept/checkpoints.json, which tools/keep.py writes."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
import zlib
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import oracles
import pytest
import safetensors.numpy

TABLE = Path(__file__).parent / "kept" / "checkpoints.json"
GEMMA = ("gemma", "gemma2", "gemma3_text")
ONE_PLUS = (*GEMMA, "nemotron", "qwen3_5_text", "qwen3_next")  # gains are stored as gain - 1
TRANSPOSED = ("gpt2",)  # matrices are stored (in, out)
SETTINGS = {"act_fn.beta": 0.5, "act_fn.eps": -1e-6}  # buffers of xIELU, not trained


def is_gain_or_bias_of_a_norm(name):
    return "norm" in name or ".ln_" in name


def numbers(family, name, shape, seed=0):
    """A tensor in float32: nothing is 0 or 1, and every term of a block is of order one."""
    z = np.asarray(np.random.default_rng([seed, zlib.crc32(name.encode())]).standard_normal(shape))
    setting = next((value for end, value in SETTINGS.items() if name.endswith(end)), None)
    if setting is not None:
        z = np.full(shape, setting)
    elif is_gain_or_bias_of_a_norm(name):
        around = 0.0 if family in ONE_PLUS and "linear_attn" not in name else 1.0
        if family == "gemma4_text" and name.endswith(("q_norm.weight", "k_norm.weight")):
            around = 0.5  # scores are not divided by the root of the head's width
        z = 0.3 * z + around if name.endswith("weight") else 0.1 * z
    elif name.endswith(("mamba.D", "mixer.D")):
        z = 0.3 * z + 1
    elif "act_fn" in name or name.endswith("e_score_correction_bias"):
        z = 0.3 * z
    elif name.endswith("layer_scalar"):
        z = 0.1 * z + 0.8
    elif len(shape) == 1:
        z = 0.15 * z
    elif any(word in name for word in ("embed", "wte", "wpe")):
        scaled = family in (*GEMMA, "gemma4_text") and "per_layer" not in name  # it is multiplied by sqrt(d_model)
        z = 0.06 * z if scaled else 0.3 * z
    else:
        z = 1.3 * z / shape[0 if family in TRANSPOSED else -1] ** 0.5  # of a convolution: the number of taps
        if name.endswith((".gate.weight", "router.weight")):
            z = 3 * z  # a router that decides
    return z.astype(np.float32)


@cache
def table():
    """case of hf_models -> {"config": config.json, "shapes": {tensor: shape}}"""
    return json.loads(TABLE.read_text())


def state(name, seed=0):
    """tensor -> array, of a case of hf_models."""
    if name not in table():
        pytest.fail(f"{TABLE.name} has no {name!r}; write it with: python tools/keep.py")
    entry = table()[name]
    family = entry["config"]["model_type"]
    return {tensor: numbers(family, tensor, shape, seed) for tensor, shape in entry["shapes"].items()}


@cache
def folder(name):
    """A checkpoint folder of a case of hf_models. Do not change it."""
    out = Path(tempfile.mkdtemp(prefix="powersteer-"))
    atexit.register(shutil.rmtree, out)
    safetensors.numpy.save_file(state(name), out / "model.safetensors")
    (out / "config.json").write_text(json.dumps(table()[name]["config"]))
    return out


class Parameter:
    """What the tests do with a parameter, on an array."""

    def __init__(self, data):
        self.data = data

    shape, ndim, dtype = (property(lambda self, name=name: getattr(self.data, name)) for name in ("shape", "ndim", "dtype"))
    detach = float = double = lambda self: self

    def numpy(self):
        return self.data


class Config(SimpleNamespace):
    """config.json; what else a config of transformers has is not here."""

    __hash__ = object.__hash__

    def __getattr__(self, name):
        if name in ("to_dict", "layer_types", "hidden_size", "num_hidden_layers"):  # by the last two, GPT-2's other names, too
            oracles.transformers.skip()
        raise AttributeError(name)


class Plain:
    """The config and parameters of a case, in place of a transformers model that cannot be made; a test that asks for more is
    skipped."""

    def __init__(self, name):
        self.config = Config()
        vars(self.config).update(table()[name]["config"])
        self.tensors = {tensor: Parameter(array) for tensor, array in state(name).items()}

    def named_parameters(self):
        return self.tensors.items()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        oracles.transformers.skip()

    def __call__(self, *args, **kwargs):
        oracles.transformers.skip()
