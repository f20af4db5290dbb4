"""Every family, in every variant of hf_models, on a short prompt: logits, sites, steering and Jacobians are those of transformers
in true float64, asked or kept (kept.py). Longer prompts, batches and dense Jacobians are in test_forward and test_torch_func,
greedy tokens in test_generate; those ask PyTorch."""

from __future__ import annotations

import hf_models
import numpy as np
import oracles
import pytest
import random_checkpoints
import safetensors.numpy
from checkpoints import saved

import powersteer as ps
from powersteer.inputs.sites import SITES
from powersteer.loading.families import FAMILIES

DOUBLE, SINGLE = 1e-12, 2e-5  # as in test_forward


def sketch(x):
    """A random sum of the rows of x: an error in any row shows in it, but for one chance in infinitely many."""
    return np.random.default_rng(0).normal(size=len(x)) @ x


def worst(got, want):
    assert got.shape == want.shape and np.isfinite(want).all()
    return np.abs(got - want).max() / np.abs(want).max()


def test_every_family_has_a_case():
    there = {entry["config"]["model_type"] for entry in random_checkpoints.table().values()}
    lacking = set(FAMILIES) - there
    assert not lacking, f"add {sorted(lacking)} to BASE in tests/hf_models.py, then: python tools/keep.py"


@pytest.mark.parametrize("name", hf_models.CASES)
def test_its_file_is_as_transformers_saves_it(name):
    """The checkpoint that the light tests load: names, shapes, and every number; the config in what powersteer reads."""
    if not oracles.LIVE:
        oracles.transformers.skip()
    theirs, ours = saved(name), random_checkpoints.folder(name)
    want, got = (safetensors.numpy.load_file(folder / "model.safetensors") for folder in (theirs, ours))
    assert want.keys() == got.keys() and all(np.array_equal(got[key], want[key]) for key in want), "run: python tools/keep.py"
    a, b = ps.load(theirs, dtype="float64"), ps.load(ours, dtype="float64")
    assert np.array_equal(a([3, 1, 4, 1, 5, 9]), b([3, 1, 4, 1, 5, 9])), "run: python tools/keep.py"


@pytest.mark.parametrize("name", hf_models.CASES)
def test_logits_and_sites(name, loaded, kept, rng):
    model = loaded(name)
    prompts = [rng.integers(0, model.n_vocab, n).tolist() for n in (13, 3)]
    places = [(layer, site) for layer in range(model.n_layers) for site in model.spec.sites(layer)]

    def ask():
        with hf_models.exact(name) as hf:
            runs = [hf_models.run(hf, prompt, capture=places) for prompt in prompts]
        return {"logits": [sketch(logits) for logits, _ in runs], "places": places,
                "sites": np.stack([sketch(runs[0][1][place]) for place in places])}  # fmt: skip

    want = kept(ask)
    logits, acts = model.run_with_cache(prompts)
    assert set(acts[0]) == set(places) == set(map(tuple, want["places"]))
    for got, single, theirs in zip(logits, loaded(name, "float32")(prompts), want["logits"], strict=True):
        assert worst(sketch(got), theirs) < DOUBLE and worst(sketch(single.astype(np.float64)), theirs) < SINGLE
    assert max(worst(sketch(acts[0][place]), x) for place, x in zip(places, want["sites"], strict=True)) < DOUBLE


@pytest.mark.parametrize("name", hf_models.CASES)
def test_steering(name, loaded, kept, rng):
    """A vector at three positions of each site, in a random layer: the last position's logits."""
    model = loaded(name)
    prompt, chosen = rng.integers(0, model.n_vocab, 9).tolist(), [0, 4, 7]
    layers = {site: [layer for layer in range(model.n_layers) if site in model.spec.sites(layer)] for site in SITES}
    vectors = [(int(rng.choice(some)), site, rng.normal(size=model.d_model)) for site, some in layers.items() if some]

    def ask():
        with hf_models.exact(name) as hf:
            return np.stack([hf_models.run(hf, prompt, [(*vector, chosen)])[0][-1] for vector in vectors])

    for (layer, site, v), want in zip(vectors, kept(ask), strict=True):
        steered = model.steered(ps.SteeringVector.from_array(v, layer, site), positions=chosen)
        assert worst(steered(prompt)[-1], want) < DOUBLE


@pytest.mark.parametrize("name", hf_models.CASES)
def test_jacobians(name, loaded, kept, rng):
    """J v and u J of two prompts, from a random site of layer 0 to one of layer 2 and to the next token's distribution."""
    model = loaded(name)
    prompts = [rng.integers(0, model.n_vocab, n).tolist() for n in (9, 4)]
    source, target = ((layer, str(rng.choice(model.spec.sites(layer)))) for layer in (0, 2))
    where = {"source": source[0], "source_site": source[1]}
    operators = [model.jacobian(prompts, **where, target=target[0], target_site=target[1], target_positions=[1, -1]),
                 model.jacobian(prompts, **where, target="next_token")]  # fmt: skip
    pairs = [(rng.normal(size=J.shape[1]), rng.normal(size=J.shape[0])) for J in operators]

    def ask():
        with hf_models.exact(name) as hf:
            matrices = [hf_models.jacobian(hf, prompts, source, target, None, [[1, len(t) - 1] for t in prompts]),
                        hf_models.jacobian(hf, prompts, source, "next_token")]  # fmt: skip
        return [[J @ v, u @ J] for J, (v, u) in zip(matrices, pairs, strict=True)]

    for J, (v, u), (product, transposed) in zip(operators, pairs, kept(ask), strict=True):
        assert worst(J @ v, product) < DOUBLE and worst(J.T @ u, transposed) < DOUBLE


@pytest.mark.parametrize("name", hf_models.FAMILIES)
def test_inside(name, loaded, kept, rng):
    """Queries, keys, values, patterns and the MLP's activations, of a steered prompt."""
    model, prompt = loaded(name), rng.integers(0, 20, 8).tolist()
    v = rng.normal(size=model.d_model)

    def flat(x):
        return sketch(x.reshape(len(x), -1))

    def ask():
        with hf_models.exact(name) as hf:
            found = hf_models.inside(hf, prompt, [(1, "attn_out", v, None)])
        return {"places": list(found), "values": np.concatenate([flat(x) for x in found.values()])}

    want = kept(ask)
    places = [tuple(place) for place in want["places"]]
    _, acts = model.steered(ps.SteeringVector.from_array(v, 1, "attn_out")).run_with_cache(prompt, sites=places)
    mine = [flat(acts[place]) for place in places]
    for place, got, theirs in zip(places, mine, np.split(want["values"], np.cumsum([len(x) for x in mine])[:-1]), strict=True):
        assert worst(got, theirs) < DOUBLE, place
