"""What every family computes, against transformers in true float64 (hf_models.exact) and against the NumPy twin: the
logits and every site, of several prompts at once, steered and not."""

from __future__ import annotations

import hf_models
import numpy as np
import pytest
import reference

import powersteer as ps
from powersteer._core import _core32
from powersteer.loading import spec_from_transformers

# Relative to the largest value. Rounding alone: measured 2e-14 in float64 and 5e-6 in float32 on these models.
DOUBLE, SINGLE = 1e-12, 2e-5


def worst(got, want):
    assert got.shape == want.shape and np.isfinite(want).all()
    return np.abs(got - want).max() / np.abs(want).max()


def some_prompts(model, rng, lengths=(13, 1, 64, 3)):
    """Ragged; longer than every window, up to the whole context; a single token."""
    lengths = [min(n, model.n_ctx) for n in lengths]
    return [rng.integers(0, model.n_vocab, n).tolist() for n in lengths]


def places(hf):
    return [(layer, site) for layer in range(hf.config.num_hidden_layers) for site in hf_models.site_names(hf, layer)]


@pytest.mark.parametrize("name", hf_models.CASES)
def test_logits_and_every_site(name, loaded, rng):
    hf, model = hf_models.make(name), loaded(name)
    twin = reference.Twin(*spec_from_transformers(hf).spec.to_core(np.float64))
    prompts = some_prompts(model, rng)
    logits, acts = model.run_with_cache(prompts)
    single = loaded(name, "float32")(prompts)
    for i, prompt in enumerate(prompts):
        with hf_models.exact(name) as double:
            want, sites = hf_models.run(double, prompt, capture=places(hf))
        assert worst(logits[i], want) < DOUBLE
        assert set(acts[i]) == set(sites)
        assert max(worst(acts[i][place], sites[place]) for place in sites) < DOUBLE
        assert worst(reference.forward(twin, prompt)[0], want) < DOUBLE  # so that what rests on the twin rests on this
        assert single[i].dtype == np.float32
        theirs = hf_models.run(hf, prompt)[0]  # as PyTorch really runs it
        assert worst(single[i], want) < max(SINGLE, 2 * worst(theirs, want))
        assert worst(single[i], theirs) < max(SINGLE, 3 * worst(theirs, want))


def test_float32_is_better_than_pytorchs(loaded, rng):
    """Over all families, by the root mean square of the errors of the logits."""
    ratios = {}
    for name in hf_models.FAMILIES:
        model = loaded(name, "float32")
        errors = []
        for prompt in some_prompts(model, rng, (13, 30, 64)):
            with hf_models.exact(name) as double:
                want = hf_models.run(double, prompt)[0]
            theirs = hf_models.run(hf_models.make(name), prompt)[0]
            errors.append([np.sqrt(np.mean((got - want) ** 2)) for got in (model(prompt), theirs)])
        ours, theirs = np.sum(errors, 0)
        ratios[name] = ours / theirs
    print({name: round(float(ratio), 2) for name, ratio in ratios.items()})
    portable = _core32.instruction_set() == "portable"  # without fused multiply-add, where PyTorch may have it
    assert np.exp(np.mean(np.log(list(ratios.values())))) < (1.1 if portable else 1)


@pytest.mark.parametrize("stored", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox", "gemma2", "phi3"])
def test_16_bit_weights_are_used_as_stored(name, stored, loaded, rng):
    model = loaded(name, stored=stored)
    prompts = some_prompts(model, rng, (20, 1))
    for prompt, logits in zip(prompts, model(prompts), strict=True):
        with hf_models.exact(name, stored=stored) as double:
            assert worst(logits, hf_models.run(double, prompt)[0]) < DOUBLE


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox", "gemma3_text", "lfm2", "qwen3_5_text"])
def test_a_batch_is_its_prompts_one_by_one(name, dtype, loaded, rng):
    model = loaded(name, dtype)
    prompts = some_prompts(model, rng)
    together, sites = model.run_with_cache(prompts)
    for prompt, logits, acts in zip(prompts, together, sites, strict=True):
        alone, alone_acts = model.run_with_cache(prompt)
        tol = DOUBLE if dtype == "float64" else SINGLE  # products of other shapes round otherwise
        assert worst(logits, alone) < tol
        assert all(worst(acts[place], alone_acts[place]) < tol for place in acts)
    again, _ = model.run_with_cache(prompts)
    assert all(np.array_equal(a, b) for a, b in zip(together, again, strict=True))


@pytest.mark.parametrize("name", [*hf_models.FAMILIES, "stablelm-parallel", "gpt_neox-sequential"])
def test_steering_at_every_site(name, loaded, rng):
    """One vector at three positions of a site, another at every position of another layer; every site downstream."""
    model = loaded(name)
    prompt = some_prompts(model, rng, (13,))[0]
    chosen = [0, 4, 11]
    hf = hf_models.make(name)
    other = hf_models.near(hf, 1, "mlp_out")
    for site in hf_models.site_names(hf):
        layer = int(rng.choice(hf_models.layers_with(hf, site)))
        v, w = rng.normal(size=(2, model.d_model))
        steered = model.steered(ps.SteeringVector.from_array(v, layer, site), positions=chosen)
        steered = steered.steered(ps.SteeringVector.from_array(w, *other))
        logits, acts = steered.run_with_cache(prompt)
        with hf_models.exact(name) as double:
            steer = [(layer, site, v, chosen), (*other, w, None)]
            want, sites = hf_models.run(double, prompt, steer, places(double))
        if site == "resid_mid":  # steered through attn_out there
            sites.pop((layer, "attn_out"))
        assert worst(logits, want) < DOUBLE
        assert max(worst(acts[place], sites[place]) for place in sites) < DOUBLE
        assert worst(model(prompt), want) > 1e-3  # it did something


def test_a_zero_vector_changes_no_bit(loaded, rng):
    for name in hf_models.FAMILIES:
        model = loaded(name, "float32")
        prompt = some_prompts(model, rng, (13,))[0]
        for site in hf_models.site_names(hf_models.make(name), 1):
            zero = ps.SteeringVector.from_array(rng.normal(size=model.d_model), 1, site) * 0
            assert np.array_equal(model.steered(zero)(prompt), model(prompt))


def test_weights_are_not_written_to(rng):
    hf = hf_models.make("llama")
    before = {name: p.numpy().copy() for name, p in hf.named_parameters()}
    model = ps.from_transformers(hf)
    prompt = some_prompts(model, rng, (9,))[0]
    vector = ps.SteeringVector.from_array(np.ones(model.d_model), 0, "resid_pre")
    model.steered(vector)(prompt)
    model.jacobian(prompt, 0, 2).svd(k=2)
    model.generate(prompt, max_new_tokens=4)
    assert all(np.array_equal(p.numpy(), before[name]) for name, p in hf.named_parameters())
