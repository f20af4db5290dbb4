"""Tiny models through the public API: random weights over the block table, a byte-level tokenizer, no files."""

from __future__ import annotations

import numpy as np
import tokenizers
from random_models import random_model

import powersteer as ps
from powersteer.inputs.tokenizer import Tokenizer
from powersteer.loading import Checkpoint
from powersteer.loading.finite import FiniteWeights
from powersteer.loading.spec import NORMS, Expert, Layer, Norm, Spec
from powersteer.model import model_from_checkpoint

N_VOCAB = 258  # bytes, <s>, </s>
BOS, EOS = 256, 257
TEMPLATE = "{% for m in messages %}{{ m['role'][0] }}:{{ m['content'] }}{{ eos_token }}{% endfor %}a:"


def byte_tokenizer():
    """One token a byte; "<s>" first. The id of a character below 128 is found with `ids`."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    backend = tokenizers.Tokenizer(tokenizers.models.BPE({char: i for i, char in enumerate(alphabet)}, []))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.add_special_tokens(["<s>", "</s>"])
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single=["<s>", "$A"], special_tokens=[("<s>", BOS)]
    )
    return Tokenizer(backend, N_VOCAB, {"bos_token": "<s>", "eos_token": "</s>"}, {"default": TEMPLATE})


def ids(text):
    """Token ids of a text, without <s>."""
    return byte_tokenizer().encode(text)[1:].tolist()


def spec_of(twin):
    """The Spec whose `to_core` gives back a twin's (spec, layers, top)."""

    def part(name, value):
        if name == "experts":
            return tuple(Expert(**weights) for weights in value)
        if name == "shared":
            return Expert(**value)
        return Norm(*value) if name in NORMS else value

    def layer(tensors):
        return Layer(**{name: part(name, value) for name, value in tensors.items()})

    scalars = {name: value for name, value in twin.spec.items() if name != "rope"}
    if "step_min" in scalars:
        scalars["step_limit"] = scalars.pop("step_min"), scalars.pop("step_max")
    top = {name: Norm(*value) if name.endswith("_norm") else value for name, value in twin.top.items()}
    return Spec(**scalars, rope=tuple(twin.spec["rope"]), layers=tuple(map(layer, twin.layers)), **top)


def tiny(dtype="float64", threads=1, words=True, name="tiny", **table):
    """(model, twin): a model, and the same weights for tests/reference.py."""
    twin = random_model(real=np.dtype(dtype), n_vocab=N_VOCAB, **table)
    spec = spec_of(twin)
    identity = {"name": name, "model_type": "llama", "n_layers": spec.n_layers, "d_model": spec.d_model,
                "n_vocab": N_VOCAB, "weights": f"{name}:{sorted(table.items())}"}  # fmt: skip
    checkpoint = Checkpoint(
        spec=spec,
        weights=FiniteWeights(lambda: None, due=False, done=True),
        identity=identity,
        config={"model_type": "llama", "deep": [1]},
        path=None,
        files=(),
        read_tokenizer=lambda: (byte_tokenizer() if words else None, () if words else ("made without a tokenizer",)),
        read_end_ids=lambda: (EOS,),
        quick=True,
    )
    return model_from_checkpoint(checkpoint, dtype, threads), twin


def vector(model, seed=0, scale=1.0, layer=0, site="mlp_out"):
    rng = np.random.default_rng(seed)
    return ps.SteeringVector.from_array(rng.normal(size=model.d_model), layer, site) * scale
