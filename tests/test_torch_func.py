"""Jacobians entry by entry against torch.func on transformers' own code, in true float64 (hf_models.exact)."""

from __future__ import annotations

import hf_models
import numpy as np
import pytest
import reference

import powersteer as ps
from powersteer.loading import spec_from_transformers

# Frobenius norms, relative. Rounding alone: measured 1e-14 in float64 and 4e-6 in float32 on these models.
DOUBLE, SINGLE = 1e-12, 1e-4


def close(J, want, tol=DOUBLE):
    """The operator's entries, column by column and row by row."""
    assert J.shape == want.shape and np.isfinite(want).all()
    scale = np.linalg.norm(want)
    assert scale > 0
    assert np.linalg.norm(J.dense() - want) < tol * scale
    assert np.linalg.norm((J.T @ np.eye(J.shape[0], dtype=J.dtype)).T - want) < tol * scale


def arguments(source, target):
    where = {"target": target} if isinstance(target, str) else {"target": target[0], "target_site": target[1]}
    return {"source": source[0], "source_site": source[1], **where}


def random_prompts(model, rng, lengths):
    return [rng.integers(0, model.n_vocab, min(n, model.n_ctx)).tolist() for n in lengths]


@pytest.mark.parametrize("name", ["gemma2", "gpt_neox", "stablelm-parallel"])
def test_every_ordered_pair_of_sites(name, loaded, rng):
    """Post-norms; a parallel block; one whose branches share a norm. A pair is refused exactly where the target does
    not depend on the source, or is the source."""
    hf, model = hf_models.make(name), loaded(name)
    twin = reference.Twin(*spec_from_transformers(hf).spec.to_core(np.float64))
    places = [(layer, site) for layer in range(2) for site in hf_models.site_names(hf)]
    prompt = random_prompts(model, rng, (9,))[0]
    rows, here = [3, 8], [1, 2, 5, 8]
    refused = 0
    for source in places:
        for target in places:
            depends = np.any(reference.jacobian(twin, [prompt], source, target, [here], [rows]))
            if source == target or not depends:
                refused += 1
                with pytest.raises(ps.InvalidInput, match="does not come before"):
                    model.jacobian(prompt, **arguments(source, target))
                continue
            with hf_models.exact(name) as double:
                want = hf_models.jacobian(double, [prompt], source, target, [here], [rows])
            close(model.jacobian(prompt, **arguments(source, target), target_positions=rows, source_positions=here), want)
    n = len(places)
    assert refused == n * (n + 1) // 2 + (4 if "resid_mid" not in hf_models.site_names(hf) else 0)


@pytest.mark.parametrize("name", hf_models.CASES)
def test_every_family(name, loaded, rng):
    """Two prompts of unequal length, explicit positions, random sites two layers apart."""
    hf, model = hf_models.make(name), loaded(name)
    prompts = random_prompts(model, rng, (12, 4))
    source, target = ((layer, str(rng.choice(hf_models.site_names(hf, layer)))) for layer in (0, 2))
    here, rows = [0, 2, -1], [1, -2, -1]
    absolute = [[[p % len(t) for p in some] for t in prompts] for some in (here, rows)]
    with hf_models.exact(name) as double:
        want = hf_models.jacobian(double, prompts, source, target, *absolute)
    how = {"target_positions": rows, "source_positions": here, **arguments(source, target)}
    close(model.jacobian(prompts, **how), want)
    close(loaded(name, "float32").jacobian(prompts, **how), want, SINGLE)


@pytest.mark.parametrize("name", [*hf_models.FAMILIES, "gemma3_text-softcap"])
def test_the_head(name, loaded, rng):
    """logits, and the Fisher target: J_F = D (J - 1 p'J) has the metric of 2 sqrt(p)."""
    model = loaded(name)
    prompts = random_prompts(model, rng, (9, 5))
    source = (1, str(rng.choice(hf_models.site_names(hf_models.make(name), 1))))
    for target in ("logits", "next_token"):
        with hf_models.exact(name) as double:
            last = hf_models.jacobian(double, prompts, source, target)
            three = hf_models.jacobian(double, prompts[:1], source, target, None, [[0, 4, 8]])
        if target == "next_token":
            p = model.jacobian(prompts, **arguments(source, target)).base
            assert np.isclose(p.sum(), len(prompts))
            assert np.abs(np.sqrt(p) @ last).max() < DOUBLE * np.linalg.norm(last)  # sum p stays 1
        close(model.jacobian(prompts, **arguments(source, target)), last)
        close(model.jacobian(prompts[0], **arguments(source, target), target_positions=[0, 4, 8]), three)


@pytest.mark.parametrize("name", hf_models.FAMILIES)
def test_the_gradient_at_every_source(name, loaded, rng):
    """One cotangent of the logits of two prompts, read at several sources."""
    hf, model = hf_models.make(name), loaded(name)
    prompts, here = random_prompts(model, rng, (7, 4)), [0, -1]
    sources = [(layer, str(site)) for layer in (1, 0) for site in rng.choice(hf_models.site_names(hf, layer), 2, replace=False)]
    J = model.jacobians(prompts, sources, ["logits"], source_positions=here)
    U = rng.normal(size=(3, 2 * model.n_vocab))
    for source, shared, parts in zip(sources, J.apply_t_all(U), J.apply_t_all(U, per_prompt=True), strict=True):
        with hf_models.exact(name) as double:
            matrix = hf_models.jacobian(double, prompts, source, "logits", [[p % len(t) for p in here] for t in prompts])
        each = [U[:, i * model.n_vocab :][:, : model.n_vocab] @ J for i, J in enumerate(np.split(matrix, 2))]
        for got, want in ((shared, U @ matrix), (parts, np.stack(each, 1))):
            assert np.linalg.norm(got - want) < DOUBLE * np.linalg.norm(want)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox", "gemma2"])
def test_mean_over_positions(name, loaded, rng):
    model = loaded(name)
    prompts = random_prompts(model, rng, (11, 3))
    for target in ((2, "mlp_out"), "logits"):
        with hf_models.exact(name) as double:
            every = [range(len(t)) for t in prompts]
            want = hf_models.jacobian(double, prompts, (0, "attn_out"), target, None, every, mean=True)
        close(model.jacobian(prompts, **arguments((0, "attn_out"), target), target_positions=None, reduce="mean"), want)


@pytest.mark.parametrize("name", hf_models.FAMILIES)
def test_at_a_steered_point(name, loaded, rng):
    """Vectors before, at and behind the source move the point of linearisation."""
    hf, model = hf_models.make(name), loaded(name)
    prompt, source = random_prompts(model, rng, (10,))[0], hf_models.near(hf, 1, "mlp_out")
    steer = [(0, "resid_pre", [1, 2, 3]), (*source, None), (*hf_models.near(hf, 2, "attn_out"), [9])]
    vectors = rng.normal(size=(3, model.d_model))
    view = model
    for (layer, site, positions), v in zip(steer, vectors, strict=True):
        view = view.steered(ps.SteeringVector.from_array(v, layer, site), positions=positions)
    hooks = [(layer, site, v, positions) for (layer, site, positions), v in zip(steer, vectors, strict=True)]
    for target in ((2, "resid_post"), "next_token"):
        rows = [[8, 9]]
        with hf_models.exact(name) as double:
            want = hf_models.jacobian(double, [prompt], source, target, None, rows, steer=hooks)
            plain = hf_models.jacobian(double, [prompt], source, target, None, rows)
        close(view.jacobian(prompt, **arguments(source, target), target_positions=rows[0]), want)
        assert np.linalg.norm(want - plain) > 1e-3 * np.linalg.norm(plain)


def test_singular_values_are_lapacks_of_pytorchs_jacobian(loaded, rng):
    model = loaded("llama")
    prompts = random_prompts(model, rng, (12, 7))
    rows = [[len(t) - 2, len(t) - 1] for t in prompts]
    with hf_models.exact("llama") as double:
        want = hf_models.jacobian(double, prompts, (0, "mlp_out"), (2, "mlp_out"), None, rows)
    U, S, Vh = np.linalg.svd(want, full_matrices=False)
    found = model.jacobian(prompts, 0, 2).svd(k=5, tol=1e-10)
    assert found.converged
    np.testing.assert_allclose(found.S, S[:5], rtol=1e-10)
    gaps = S[:5] - S[1:6]
    assert gaps.min() > 1e-3 * S[0]  # so that each vector is determined
    assert np.abs(np.sum(found.Vh * Vh[:5], 1)).min() > 1 - 1e-12
    assert np.abs(np.sum(found.U * U[:, :5], 0)).min() > 1 - 1e-12
