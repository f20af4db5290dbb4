"""What is computed inside attention and MLP, against transformers in true float64 (hf_models.exact): queries, keys, values, patterns,
the heads' outputs and the MLP's hidden activations; and the logit lens."""

from __future__ import annotations

import contextlib

import hf_models
import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import torch
from random_models import random_model, tables
from test_core import core_model
from test_forward import DOUBLE, SINGLE, some_prompts, worst

import powersteer as ps
from powersteer._core import _core32, _core64
from powersteer.errors import InvalidInput, MissingSite
from powersteer.inputs.sites import READABLE, SITES, Site, parse_site


def readable(hf):
    """The places that exist in a model"""
    _, pre, linear = hf_models.INNER.get(hf_models.family_of(hf), (0, "mlp.gate_proj", "mlp.up_proj"))
    places = []
    for layer, block in enumerate(hf_models.blocks(hf)):
        dense = hf_models.module_at(block, pre) is not None and not hf_models.is_mixture(hf, layer)
        of_keys = ("k", "v", "rot_k") if hf_models.sees_other_keys(block) else ()
        names = ["q", "k", "v", "rot_q", "rot_k", "pattern", "z"] * hf_models.has_attention(hf, layer)
        names += ["pre", *["pre_linear"] * (linear is not None), "post"] * dense
        places += [(layer, name) for name in names if name not in of_keys]
    return places


@pytest.mark.parametrize("name", [name for name in hf_models.CASES if name != "falcon-alibi"])  # there PyTorch has the softmax
def test_everything_inside(name, loaded, rng):
    hf, model = hf_models.make(name), loaded(name)
    prompts = some_prompts(model, rng, (13, 1, 40))
    branch = hf_models.near(hf, 1, "attn_out")
    steer = [(*branch, rng.normal(size=model.d_model), None), (0, "resid_pre", rng.normal(size=model.d_model), [0, 4])]
    view = model.steered(ps.SteeringVector.from_array(steer[0][2], *branch))
    view = view.steered(ps.SteeringVector.from_array(steer[1][2], 0, "resid_pre"), positions=[0, 4])
    places = readable(hf)
    _, caches = model.run_with_cache(prompts, sites=places)
    cases = [(prompt, cache, ()) for prompt, cache in zip(prompts, caches, strict=True)]
    cases.append((prompts[0], view.run_with_cache(prompts[0], sites=places)[1], steer))
    for prompt, cache, interventions in cases:
        with hf_models.exact(name) as double:
            want = hf_models.inside(double, prompt, interventions)
        assert list(cache) == places and set(want) == set(places)
        assert max(worst(cache[place], want[place]) for place in places) < DOUBLE
    of = [layer for layer, inner in places if inner == "z"][-1]
    assert worst(cases[-1][1][of, "z"], caches[0][of, "z"]) > 1e-3  # it was steered
    assert worst(loaded(name, "float32").activations(prompts[2], (of, "pattern")), caches[2][of, "pattern"]) < SINGLE


@pytest.mark.parametrize("name", ["gemma2", "qwen3", "gpt2"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_batch_has_the_bits_of_its_prompts_alone(name, dtype, loaded, rng):
    """Prompts that share rows, which are computed once, and one that does not."""
    model = loaded(name, dtype)
    first = some_prompts(model, rng, (50,))[0]
    prompts = [first, first[:7], [*first[:33], first[0], first[1]], first, first[::-1][:20]]
    before = model._loaded.core.rows_computed
    logits, caches = model.run_with_cache(prompts, sites=readable(hf_models.make(name)))
    assert model._loaded.core.rows_computed - before < model.n_layers * sum(map(len, prompts))
    for prompt, own, cache in zip(prompts, logits, caches, strict=True):
        alone, lone = model.run_with_cache(prompt, sites=list(cache))
        assert np.array_equal(own, alone)
        for place in cache:
            assert np.array_equal(cache[place], lone[place]) and cache[place].flags.c_contiguous, place


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_patterns_weight_the_values(data):
    """Over the whole block table: P = softmax(cap(scale rot_q rot_k')) of the keys in the window, z = P v, each head with the keys
    and values of its group; longer than a block of queries and one before the window's first block of keys."""
    twin = random_model(**data.draw(tables()) | {"n_ctx": 80})
    n = data.draw(st.sampled_from([1, 20, 80]))
    ids = np.random.default_rng(n).integers(0, twin.spec["n_vocab"], n)
    names = ("rot_q", "rot_k", "v", "pattern", "z")
    for layer, of in enumerate(twin.layers):
        if of.get("mixer", "attention") != "attention":
            continue
        sites = [(of.get("keys_of", layer) if name in ("rot_k", "v") else layer, Site(layer, name).index) for name in names]
        _, (acts,) = core_model(twin, _core64).forward([np.array(ids, np.int32)], [], sites, "none")
        q, k, v, pattern, z = acts
        k, v = (np.repeat(x, q.shape[1] // x.shape[1], 1) for x in (k, v))
        scores, cap = of["attn_scale"] * np.einsum("ihd,jhd->ihj", q, k), twin.spec["attn_softcap"]
        scores = cap * np.tanh(scores / cap) if cap else scores
        if "key_bias" in twin.top:
            scores = scores + twin.top["key_bias"].reshape(scores.shape[1], -1)[:, : len(ids)]
        i, j = np.arange(len(ids))[:, None], np.arange(len(ids))
        seen = (j <= i) & (j > i - (of["window"] or len(ids))) & (j // (of.get("chunk") or 80) == i // (of.get("chunk") or 80))
        scores = np.where(seen[:, None], scores, -np.inf)
        sinks = np.full(q.shape[1], -np.inf) if of.get("sinks") is None else np.asarray(of["sinks"])
        beside = np.broadcast_to(sinks[:, None], (len(ids), len(sinks), 1))
        assert np.abs(pattern - scipy.special.softmax(np.concatenate([scores, beside], -1), -1)[..., :-1]).max() < DOUBLE
        if of.get("z") is None:  # of gated heads z is what the gates leave
            assert np.abs(z - np.einsum("ihj,jhd->ihd", pattern, v)).max() < DOUBLE * (1 + np.abs(v).max())


def test_captures_of_one_place_twice(loaded, rng):
    """The core spreads shared rows in place in the last of them."""
    core, ids = loaded("llama")._loaded.core, np.arange(3, 12, dtype=np.int32)
    pattern = Site(1, "pattern").index
    _, acts = core.forward([ids[:5], ids, ids], [], [(1, pattern)] * 3, "none")
    for rows, captured in zip((5, 9, 9), acts, strict=True):
        _, ((alone,),) = core.forward([ids[:rows]], [], [(1, pattern)], "none")
        for one in captured:
            assert np.array_equal(one[..., :rows], alone) and not one[..., rows:].any()


def test_patterns_of_a_decoder_s_cache(loaded, rng):
    """A decoder is fed prompts of which one shares the other's rows: the keys are those of its cache, which is longer."""
    model = loaded("gemma2")
    first, second = some_prompts(model, rng, (20, 9))
    prompts = [np.array(p, np.int32) for p in (first, first[:11] + second)]
    module, core = model._loaded.module, model._loaded.core
    decoder = module.Decoder(core, prompts, np.array([30, 30], np.int32), [], 0.0, 0, 1.0, np.zeros(2, np.uint64))
    sites = [(layer, Site(layer, name).index) for layer in range(model.n_layers) for name in ("pattern", "rot_k", "z")]
    wanted, got = core.forward(prompts, [], sites, "none")[1], decoder.feed(0, prompts, sites, "none")[1]
    for want, have in zip(wanted, got, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(want, have, strict=True))


def test_default_sites_are_those_that_can_be_steered(loaded):
    assert {name for _, name in loaded("llama").run_with_cache([3, 4])[1]} == set(SITES)


@pytest.mark.parametrize(("name", "hook"), [
    *[(name, f"blocks.2.attn.hook_{name}") for name in ("q", "k", "v", "rot_q", "rot_k", "pattern", "z")],
    *[(name, f"blocks.2.mlp.hook_{name}") for name in ("pre", "pre_linear", "post")],
])  # fmt: skip
def test_names_are_transformerlens_s(name, hook, loaded):
    site = parse_site(hook, readable=True)
    assert site == (2, name) == parse_site((2, name), readable=True) and str(site) == hook
    cache = loaded("llama").run_with_cache([5, 6, 7], sites=[hook])[1]
    assert cache[hook] is cache[2, name] and hook in cache and list(map(str, cache)) == [hook]
    with pytest.raises(MissingSite, match=f"no activation of .*sites in this cache: {hook}"):
        cache[1, name]


def test_numbers_are_those_of_the_core():
    for core in (_core32, _core64):
        assert tuple(READABLE) == core.READABLE
    assert [Site(0, name).index for name in READABLE] == list(range(len(SITES), len(SITES) + len(READABLE)))


def test_what_can_only_be_read_is_refused_elsewhere(loaded):
    model = loaded("llama")
    words = "'attn.hook_z' can be read by run_with_cache, but neither steered nor differentiated: sites are resid_pre"
    for use in (
        lambda: ps.SteeringVector.from_array(np.ones(model.d_model), 1, "z"),
        lambda: model.jacobian([3, 4], source=(0, "z"), target=2),
        lambda: model.jacobian([3, 4], source=0, target="blocks.2.attn.hook_z"),
        lambda: model.estimate([3, 4], source=0, target=(2, "z")),
        lambda: ps.evaluate.logit_lens(model, [3, 4], sites=[(1, "z")]),
    ):
        with pytest.raises(InvalidInput, match=words):
            use()
    core, site, vector = model._loaded.core, Site(1, "z").index, np.ones(model.d_model)
    with pytest.raises(InvalidInput, match="intervention at .1, 12. lies outside the model: 3 layers, 6 sites"):
        core.forward([np.array([3], np.int32)], [(1, site, vector, -1, np.array([[0, 1]], np.int32))], [], "none")
    with pytest.raises(InvalidInput, match="a site .1, 16. lies outside the model: 3 layers, 16 sites"):
        core.forward([np.array([3], np.int32)], [], [(1, 16)], "none")


@pytest.mark.parametrize(("name", "site", "words"), [
    ("gpt2", (1, "pre_linear"), "mlp.hook_pre_linear does not exist in layer 1: the MLP has no gate; use mlp.hook_pre"),
    ("mixtral", (0, "post"), "layer 0 has a mixture of experts.*not available"),
    ("qwen3_moe-some_dense", (1, "pre"), "layer 1 has a mixture of experts"),
])  # fmt: skip
def test_models_without_one(name, site, words, loaded):
    with pytest.raises(InvalidInput, match=words):
        loaded(name).run_with_cache([3, 4], sites=[site])
    assert loaded("qwen3_moe-some_dense").activations([3, 4], (0, "post")).shape == (2, 41)


# ---- the logit lens


@pytest.mark.parametrize("name", hf_models.CASES)
def test_logit_lens(name, loaded, rng):
    """lm_head(norm(x)) of transformers' own modules, with its scale and soft-cap, on its own hidden states."""
    model = loaded(name)
    prompt = some_prompts(model, rng, (12,))[0]
    lens = ps.evaluate.logit_lens(model, prompt, positions=None)
    assert lens.sites == [(layer, "resid_post") for layer in range(model.n_layers)]
    for i, layer in enumerate(range(model.n_layers)):
        with hf_models.exact(name) as double, torch.no_grad():
            x = torch.as_tensor(hf_models.run(double, prompt, capture=[(layer, "resid_post")])[1][layer, "resid_post"])
            with ends_with(hf_models.blocks(double)[-1], x[None]):
                want = hf_models.run(double, prompt)[0]
        assert worst(lens.logits[i], want) < DOUBLE
    assert np.array_equal(lens.logits[-1], model(prompt))  # bit for bit: the same product


@contextlib.contextmanager
def ends_with(block, x):
    """The block gives x, whatever it computes."""
    handle = block.register_forward_hook(lambda _, __, out: (x, *out[1:]) if isinstance(out, tuple) else x)
    yield
    handle.remove()


def test_logit_lens_of_sites_positions_and_prompts(loaded, rng):
    model = loaded("gemma2")
    v = ps.SteeringVector.from_array(rng.normal(size=model.d_model), 0, "mlp_out")
    prompts = some_prompts(model, rng, (9, 12))
    view, sites = model.steered(v), ["blocks.0.hook_resid_mid", (1, "mlp_out"), (2, "resid_post")]
    both = ps.evaluate.logit_lens(view, prompts, sites=sites, positions=[-1, 2])
    for prompt, lens in zip(prompts, both, strict=True):
        alone = ps.evaluate.logit_lens(view, prompt, sites, positions=[2, -1])
        assert lens.positions.tolist() == [2, len(prompt) - 1] and np.array_equal(lens.logits, alone.logits)
        assert np.array_equal(lens.logits[2], view(prompt)[lens.positions]) and lens.sites == [(0, "resid_mid"), *sites[1:]]
        one = ps.evaluate.logit_lens(view, prompt, (1, "mlp_out"))
        assert one.logits.shape == (1, 1, model.n_vocab) and worst(one.logits[0, 0], lens.logits[1, 1]) < DOUBLE
        assert worst(ps.evaluate.logit_lens(model, prompt).logits[2], view(prompt)[-1:]) > 1e-3


def test_top_tokens_of_the_lens():
    model = ps.load("demo")
    lens = ps.evaluate.logit_lens(model, "Q: 3*4\nA:", positions=[0, -1])
    p = scipy.special.softmax(lens.logits.astype(np.float64), axis=-1)
    top = lens.top(3)
    for site, position in np.ndindex(*p.shape[:2]):
        tokens = top[site][position]
        assert [t.id for t in tokens] == np.argsort(-p[site, position])[:3].tolist()
        assert np.allclose([t.probability for t in tokens], np.sort(p[site, position])[::-1][:3])
        assert [t.text for t in tokens] == model.to_str_tokens([t.id for t in tokens])
    lines = repr(lens).splitlines()
    assert len(lines) == 1 + model.n_layers and lines[0] == f"logit lens at position {lens.positions[-1]}, probabilities in percent"
    assert lines[-1].startswith(f"blocks.{model.n_layers - 1}.hook_resid_post  ' It' {100 * top[-1][-1][0].probability:.0f} ")


def test_a_lens_without_a_tokenizer_names_ids(loaded):
    lens = ps.evaluate.logit_lens(loaded("llama"), [3, 4], sites=(0, "resid_post"))
    best = lens.top(1)[0][0][0]
    assert best.text == "" and repr(lens).splitlines()[1].startswith(f"blocks.0.hook_resid_post  {best.id} ")


def test_what_the_lens_refuses(loaded):
    model = loaded("llama")
    for use, words in (
        (lambda: ps.evaluate.logit_lens(model, [3, 4], sites=[]), "logit_lens: sites is empty"),
        (lambda: ps.evaluate.logit_lens(model, [3, 4], positions=2), "no position 2 in a sequence of 2"),
        (lambda: ps.evaluate.logit_lens(model, [3, 4], sites=[(9, "resid_post")]), "no layer 9"),
        (lambda: ps.evaluate.logit_lens(model, [3, 4]).top(1000), "top: k is 1000; it must be at most 61"),
    ):
        with pytest.raises(InvalidInput, match=words):
            use()
    for x, words in ((np.ones((2, 3)), "x"), (np.full((1, model.d_model), np.nan), "not finite")):
        with pytest.raises(ps.PowersteerError, match=words):
            model._loaded.core.lm_head(x)
    x = np.ones((2, model.d_model))
    model._loaded.core.lm_head(x)
    assert (x == 1).all()  # the core works on a copy
