"""CAA against PyTorch on the same weights, random vectors against the uniform distribution, power vectors, costs."""

from __future__ import annotations

import hf_models
import numpy as np
import pytest
from oracles import torch, transformers
from tiny import tiny

import powersteer as ps


@pytest.fixture(scope="module")
def model():
    return tiny()[0]


GOOD, BAD = ["abc (A", "what? (A", "x (A"], ["abc (B", "what? (B", "yes, x (B"]


# ---- contrastive vectors


@pytest.mark.parametrize("position", [-1, -2])
def test_caa_is_pytorchs(position, loaded, kept, rng):
    """hidden_states[l + 1] is the output of block l."""
    model, layer = loaded("llama"), 1
    good, bad = ([rng.integers(0, model.n_vocab, n).tolist() for n in (9, 4, 6)] for _ in range(2))

    def hidden(hf, tokens):
        return hf(torch.tensor([tokens]), output_hidden_states=True).hidden_states[layer + 1][0, position]

    def ask():
        with hf_models.exact("llama") as hf, torch.no_grad():
            return torch.stack([hidden(hf, p) - hidden(hf, n) for p, n in zip(good, bad, strict=True)]).mean(0).numpy()

    want = kept(ask)
    found = ps.caa(model, good, bad, layer, read_positions=position)
    np.testing.assert_allclose(found.vector, want, rtol=0, atol=1e-12 * np.linalg.norm(want))
    assert found.location == (layer, "resid_post") and found.method == "caa"
    assert found.scale == pytest.approx(np.linalg.norm(want), rel=1e-12)
    assert found.target_positions == tuple((len(p) + position,) for p in good + bad)
    single = ps.caa(loaded("llama", "float32"), good, bad, layer, read_positions=position)
    assert single.direction.dtype == np.float32
    np.testing.assert_allclose(single.vector, want, rtol=0, atol=1e-4 * np.linalg.norm(want))


def test_caa_by_hand(model):
    """One pair, two positions, any site: the difference of two means. site_norm is over all positions of all prompts."""
    found = ps.caa(model, "abcd", "wxyz!", 0, "mlp_out", read_positions=[1, -1])
    a, b = (model.run_with_cache(t)[1][0, "mlp_out"] for t in ("abcd", "wxyz!"))
    np.testing.assert_allclose(found.vector, (a[1] + a[-1]) / 2 - (b[1] + b[-1]) / 2, rtol=1e-12)
    assert found.site_norm == pytest.approx(np.linalg.norm(np.vstack([a, b]), axis=1).mean(), rel=1e-12)
    assert found.prompts == ("abcd", "wxyz!") and found.prompt_tokens[1] == tuple(model.tokens("wxyz!").tolist())
    assert found.cost[:2] == (2, 0)
    assert np.array_equal(ps.caa(model, "abcd", "wxyz!", "blocks.0.hook_mlp_out", read_positions=[1, -1]).vector, found.vector)


def test_caa_unpaired(model):
    pairs, lists = ps.caa(model, GOOD, BAD, 1), ps.caa(model, GOOD, BAD, 1, paired=False)
    assert np.array_equal(pairs.vector, lists.vector)
    assert np.array_equal(ps.caa(model, BAD, GOOD, 1).vector, -pairs.vector)
    fewer = ps.caa(model, GOOD, BAD[:1], 1, paired=False)
    last = [np.array([model.activations(p, (1, "resid_post"))[-1] for p in some]) for some in (GOOD, BAD[:1])]
    np.testing.assert_allclose(fewer.vector, last[0].mean(0) - last[1].mean(0), rtol=1e-12)


def test_caa_of_a_steered_model_sees_the_steering(model):
    bias = ps.random_vectors(model, 0)[0]
    view = model.steered(bias * 5.0)
    assert not np.allclose(ps.caa(view, GOOD, BAD, 1).vector, ps.caa(model, GOOD, BAD, 1).vector)
    assert ps.caa(view, GOOD, BAD, 1).steering == view.steering


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((GOOD, BAD[:2], 1), "3 positive and 2 negative"),
        ((GOOD, GOOD, 1), "same mean activation"),
        (([], BAD, 1), "empty"),
        ((GOOD, [], 1), "empty"),
        ((GOOD, BAD, 2), "no layer 2"),
        ((GOOD, BAD, 1, "resid"), "no site 'resid'"),
    ],
)
def test_caa_refuses(model, arguments, message):
    with pytest.raises(ps.InvalidInput, match=message):
        ps.caa(model, *arguments)


def test_caa_refuses_positions(model):
    with pytest.raises(ps.InvalidInput, match="no position 99"):
        ps.caa(model, GOOD, BAD, 1, read_positions=99)


# ---- differences that are rounding


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["gpt_neox", "phi", "cohere", "stablelm-parallel"])
def test_caa_of_a_parallel_block_needs_other_tokens(name, dtype, loaded, rng):
    """Its first MLP sees only the token itself."""
    model = loaded(name, dtype)
    good, bad = ([[*rng.integers(0, model.n_vocab, n).tolist(), 7] for n in lengths] for lengths in ((3, 9), (11, 2)))
    for site in ("mlp_out", "resid_pre"):
        with pytest.raises(ps.InvalidInput, match="but for rounding"):
            ps.caa(model, good, bad, 0, site)
    assert ps.caa(model, good, bad, 0, "attn_out").scale > 1e-3


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_caa_of_prompts_that_end_alike(dtype, rng):
    """No attention of six layers with a window of 3 reaches back to where they differ; the products' shapes and the
    rotations are others, so that the activations differ by rounding."""
    torch.manual_seed(int(rng.integers(2**31)))
    hf = transformers.MistralForCausalLM(transformers.MistralConfig(
        hidden_size=256, num_attention_heads=4, num_key_value_heads=2, intermediate_size=700, num_hidden_layers=6,
        vocab_size=300, max_position_embeddings=256, sliding_window=3,
    ))  # fmt: skip
    model = ps.from_transformers(hf, dtype=dtype, threads=2)
    end = rng.integers(0, 300, 40).tolist()
    good, bad = [[*rng.integers(0, 300, 7).tolist(), *end]], [[*rng.integers(0, 300, 120).tolist(), *end]]
    a, b = (model.activations(p[0], (5, "mlp_out"))[-1] for p in (good, bad))
    assert np.any(a != b)
    for site in hf_models.site_names(hf):
        for layer in range(6):
            with pytest.raises(ps.InvalidInput, match="but for rounding"):
                ps.caa(model, good, bad, layer, site)
    assert ps.caa(model, good, bad, 5, read_positions=-40).scale > 1e-3


def test_caa_of_the_same_prompts_in_another_order(loaded, rng):
    model = loaded("llama", "float32")
    prompts = [rng.integers(0, model.n_vocab, n).tolist() for n in (3, 8, 5, 6, 9)]
    with pytest.raises(ps.InvalidInput, match="but for rounding"):
        ps.caa(model, prompts, prompts[::-1], 2)


@pytest.mark.parametrize(("dtype", "size", "refused"), [("float32", 1e-4, False), ("float32", 1e-6, True), ("float64", 1e-6, False)])
def test_caa_of_small_differences(dtype, size, refused, rng):
    """Two tokens whose embeddings differ by this part of their norm."""
    hf = hf_models._make.__wrapped__("llama", 0, "float32")
    row = hf.model.embed_tokens.weight.detach().double()[7].numpy()
    off = rng.normal(size=len(row))
    off *= size * np.linalg.norm(row) / np.linalg.norm(off)
    with torch.no_grad():
        hf.model.embed_tokens.weight[8] = torch.from_numpy(row + off).float()
    exact = hf.model.embed_tokens.weight.detach().double().numpy()
    model = ps.from_transformers(hf, dtype=dtype, threads=2)
    if refused:
        with pytest.raises(ps.InvalidInput, match=r'but for rounding.*dtype="float64"'):
            ps.caa(model, [[1, 8]], [[1, 7]], 0, "resid_pre")
    else:
        found = ps.caa(model, [[1, 8]], [[1, 7]], 0, "resid_pre")
        np.testing.assert_allclose(found.vector, exact[8] - exact[7], atol=1e-2 * found.scale)


def test_no_method_gives_vectors_of_rounding(model):
    """Where the source comes after the target, J is zero; where the radius is tiny, so is what moves."""
    later = {"target_positions": [0], "source_positions": [2]}
    result = model.jacobian(GOOD, 0, 1, target_positions=[0], source_positions=[2]).svd(2)
    assert not result.S.any()
    for call in (lambda: result.vectors, lambda: ps.power_vectors(model, GOOD, 0, 1, k=2, **later),
                 lambda: ps.dct(model, GOOD, 0, 1, k=2, **later)):  # fmt: skip
        with pytest.raises(ps.InvalidInput, match="zero to rounding"):
            call()
    for call in (ps.melbo, lambda *a, **k: ps.dct(*a, method="exponential", **k)):
        with pytest.raises(ps.InvalidInput, match="does not move.*but for rounding"):
            call(model, GOOD, 0, 1, k=1, radius=1e-16)
        assert call(model, GOOD, 0, 1, k=1, radius=1e-9, iterations=1)


def test_a_certain_next_token_has_no_directions(rng):
    """Its probability is 1 to rounding, whatever is added."""
    hf = hf_models._make.__wrapped__("llama", 0, "float32")
    with torch.no_grad():
        hf.lm_head.weight.mul_(1e4)
    model = ps.from_transformers(hf, threads=2)
    prompt = rng.integers(0, model.n_vocab, 6).tolist()
    assert model(prompt)[-1].max() - np.sort(model(prompt)[-1])[-2] > 100
    with pytest.raises(ps.InvalidInput, match="zero to rounding"):
        ps.power_vectors(model, [prompt], 1, "next_token", k=2)


# ---- random vectors


def test_random_vectors_are_uniform(model):
    d, n = model.d_model, 20_000
    V = np.array([v.vector for v in ps.random_vectors(model, 1, k=n, seed=3)])
    np.testing.assert_allclose(np.linalg.norm(V, axis=1), 1, rtol=1e-12)
    assert np.abs(V.mean(0)).max() < 5 / np.sqrt(n * d)
    moment = V.T @ V * d / n  # of the uniform distribution: I; an entry's deviation is at most sqrt(2 / n)
    assert np.abs(moment - np.eye(d)).max() < 5 * np.sqrt(2 / n)


def test_random_vectors_by_seed_and_number(model):
    some = ps.random_vectors(model, 1, k=5, site="attn_out", seed=7)
    assert [v.location for v in some] == [(1, "attn_out")] * 5 and {v.method for v in some} == {"random"}
    assert np.array_equal(ps.random_vectors(model, "blocks.1.hook_attn_out", k=2, seed=7)[1].vector, some[1].vector)
    assert not np.array_equal(ps.random_vectors(model, 1, site="attn_out", seed=8)[0].vector, some[0].vector)
    assert some[0].seed == 7 and some[0].site_norm is None
    with pytest.raises(ps.InvalidInput, match="does not know its site's activation norm"):
        some[0].relative(1)


def test_random_vectors_with_prompts_are_relative(model):
    found = ps.random_vectors(model, 1, k=2, prompts=GOOD)[1]
    rows = np.vstack(model.activations(GOOD, (1, "mlp_out")))
    assert found.relative(0.5).scale == pytest.approx(0.5 * np.linalg.norm(rows, axis=1).mean(), rel=1e-12)
    assert found.site_norm == pytest.approx(model.jacobian(GOOD, 1, "logits").source_norm, rel=1e-12)  # power vectors'
    assert found.prompts == tuple(GOOD) and found.cost.forward == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "k is 0"),
        ({"k": 1.5}, "k is 1.5"),
        ({"seed": -1}, "seed is -1"),
        ({"site": "nowhere"}, "no site"),
        ({"prompts": []}, "empty"),
    ],
)
def test_random_vectors_refuse(model, arguments, message):
    with pytest.raises(ps.InvalidInput, match=message):
        ps.random_vectors(model, 1, **arguments)


# ---- power vectors, and what all have in common


def test_power_vectors_are_the_svds(model):
    for target in (1, "next_token", "blocks.1.hook_resid_post"):
        result = model.jacobian(GOOD, 0, target).svd(3, seed=5)
        found = ps.power_vectors(model, GOOD, 0, target, k=3, seed=5)
        for a, b in zip(found, result.vectors, strict=True):
            assert np.array_equal(a.vector, b.vector)
            assert (a.sigma, a.rank, a.target, a.target_positions) == (b.sigma, b.rank, b.target, b.target_positions)
        assert found[0].cost[:2] == (3, 3 * (result.applications + result.certificate_applications))
    assert ps.power_vectors(model, "ab", 0, 1, k=2, method="power", iterations=2, tol=1.0)[0].method == "power"


def test_every_method_gives_vectors_to_steer_with(model, tmp_path):
    every = [
        ps.caa(model, GOOD, BAD, 0),
        *ps.random_vectors(model, 0, k=2, prompts=GOOD),
        *ps.power_vectors(model, GOOD, 0, 1, k=2),
        *ps.melbo(model, GOOD, 0, 1, k=2, iterations=2),
        *ps.dct(model, GOOD, 0, 1, k=2),
        *ps.dct(model, GOOD, 0, 1, k=2, method="exponential", iterations=1),
    ]
    for vector in every:
        assert isinstance(vector, ps.SteeringVector) and len(vector) == model.d_model
        assert vector.weights == model.identity["weights"] and vector.prompts[: len(GOOD)] == tuple(GOOD)
        assert vector.cost.forward >= 3 and vector.cost.seconds > 0
        steered = model.steered(vector.relative(0.5))
        assert not np.allclose(steered("abc"), model("abc"))
        vector.save(tmp_path / "v.safetensors")
        assert ps.SteeringVector.load(tmp_path / "v.safetensors").provenance == vector.provenance


def test_activations(model):
    _, acts = model.run_with_cache(GOOD, [(1, "attn_out")])
    for a, b in zip(model.activations(GOOD, "blocks.1.hook_attn_out"), acts, strict=True):
        assert np.array_equal(a, b[1, "attn_out"])
    assert np.array_equal(model.activations(GOOD[0], (1, "attn_out")), acts[0][1, "attn_out"])


@pytest.mark.parametrize(
    ("name", "first", "more", "old", "new"),
    [
        ("caa", (GOOD, BAD, 0), (), {"positions": -2}, {"read_positions": -2}),
        ("caa", (GOOD, BAD, 0), (None, -2), {}, {"read_positions": -2}),
        ("random_vectors", (0,), (), {"n": 2}, {"k": 2}),
        ("random_vectors", (0,), (2, "attn_out", 7), {}, {"k": 2, "site": "attn_out", "seed": 7}),
        ("power_vectors", ("ab", 0, 1), (2, "power"), {"tol": 1.0}, {"k": 2, "method": "power", "tol": 1.0}),
        ("power_vectors", ("ab", 0, 1), (), {"k": 2, "positions": -1}, {"k": 2, "target_positions": -1}),
        ("melbo", ("ab", 0, 1), (2, 1.5, 3), {}, {"k": 2, "radius": 1.5, "iterations": 3}),
        ("melbo", ("ab", 0, 1), (), {"n": 2, "steps": 3, "positions": -1}, {"k": 2, "iterations": 3, "target_positions": -1}),
        ("dct", ("ab", 0, 1), (2, "exponential", 1.0, 3), {}, {"k": 2, "method": "exponential", "radius": 1.0, "iterations": 3}),
        ("dct", ("ab", 0, 1), (), {"n": 2, "positions": -1}, {"k": 2, "target_positions": -1}),
    ],
)  # fmt: skip
def test_spellings_of_the_previous_release(name, first, more, old, new, model):
    with pytest.warns(DeprecationWarning) as caught:
        found = getattr(ps, name)(model, *first, *more, **old)
    wanted = getattr(ps, name)(model, *first, **new)
    assert np.array_equal(np.atleast_2d(found), np.atleast_2d(wanted))
    assert {w.filename for w in caught} == {__file__}


def test_modules_do_not_hide_functions():
    """`powersteer.baselines` of the previous release forwards to powersteer.methods."""
    for name in ("caa", "power_vectors", "random_vectors", "calibrated_radius", "JLens"):
        assert getattr(ps.methods, name) is getattr(ps, name)
