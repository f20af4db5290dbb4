"""Arithmetic of vectors of one site: identities of linear algebra, and what is kept of the provenance."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import powersteer as ps

SV = ps.SteeringVector


def vector(rng, d=6, dtype=np.float64, **fields):
    return SV.from_array(rng.normal(size=d).astype(dtype), 3, "mlp_out", **fields)


@given(seed=st.integers(0, 2**32 - 1), d=st.integers(2, 40), n=st.integers(1, 5), factor=st.floats(-1e3, 1e3))
@settings(max_examples=80, deadline=None)
def test_projections_split_a_vector(seed, d, n, factor):
    assume(n < d and abs(factor) > 1e-3)
    rng = np.random.default_rng(seed)
    a, others = factor * vector(rng, d), [vector(rng, d) for _ in range(n)]
    inside, outside = a.project(others), a.orthogonalise(others)
    np.testing.assert_allclose((inside + outside).vector, a.vector, rtol=0, atol=1e-12 * abs(a.scale))
    want = np.linalg.lstsq(np.array([v.vector for v in others]).T, a.vector, rcond=None)[0]
    np.testing.assert_allclose(inside.vector, want @ np.array([v.vector for v in others]), rtol=0, atol=1e-9 * abs(a.scale))
    assert max(abs(outside @ v) / v.scale for v in others) < 1e-12 * abs(a.scale) and abs(outside.cosine(inside)) < 1e-10
    again = outside.orthogonalise([-2.5 * others[0], *others, others[0]])  # scales and repetitions do not matter
    np.testing.assert_allclose(again.vector, outside.vector, rtol=0, atol=1e-11 * abs(a.scale))
    assert abs(inside @ inside + outside @ outside - a @ a) < 1e-10 * (a @ a)


@given(seed=st.integers(0, 2**32 - 1), d=st.integers(1, 40), s=st.floats(-1e6, 1e6), single=st.booleans())
@settings(max_examples=80, deadline=None)
def test_dot_products_and_angles(seed, d, s, single):
    assume(abs(s) > 1e-6)
    rng = np.random.default_rng(seed)
    dtype = np.float32 if single else np.float64
    a, b = vector(rng, d, dtype), s * vector(rng, d, dtype)
    x, y = (np.asarray(v, np.float64) for v in (a, b))
    tolerance = (1e-6 if single else 1e-14) * a.scale * abs(b.scale)
    assert a @ b == pytest.approx(x @ y, rel=0, abs=tolerance) and a @ b == b @ a
    assert a.cosine(b) == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y), abs=1e-6 if single else 1e-12)
    assert a.cosine(b) == b.cosine(a) == -a.cosine(-b) == (3 * a).cosine(b) and abs(a.cosine(b)) <= 1
    assert a.cosine(a) == pytest.approx(1, abs=1e-12) and isinstance(a @ b, float) and isinstance(a.cosine(b), float)


def test_what_results_keep(rng):
    known = dict(site_norm=2.5, model="m", model_type="llama", weights="w", prompts=("x",), target="logits", rank=4, sigma=2.0,
                 residual=1e-4, objective=3.0, seed=5, cost=(1, 2, 3.0), calibration=(1.0, 1.0, 2, 0, "all", 9))  # fmt: skip
    a, b = vector(rng, method="krylov", **known), -0.5 * vector(rng, method="caa", **{**known, "rank": None})
    short = (f"{a.scale:.6g} × krylov 4", f"{b.scale:.6g} × caa")
    for made, method in [(a + b, "sum"), (a.project(b), "projection"), (a.orthogonalise([b]), "orthogonalised")]:
        assert (made.method, made.parents, made.location) == (method, short, (3, "mlp_out"))
        kept = ("site_norm", "model", "model_type", "weights")
        assert all(getattr(made, name) == known[name] for name in kept)
        dropped = {f.name: f.default for f in dataclasses.fields(SV)[4:] if f.name not in (*kept, "method", "parents")}
        assert {name: getattr(made, name) for name in dropped} == dropped
    assert (a - b).parents == (short[0], f"{-b.scale:.6g} × caa")
    assert (a + b + b).parents == (f"{(a + b).scale:.6g} × sum", short[1])
    other = dataclasses.replace(b, weights="v", site_norm=1.0)
    for combined in (lambda: a + other, lambda: a.project(other), lambda: a.project([b, other])):
        with pytest.warns(ps.ProvenanceWarning, match="made with different models"):
            assert combined().weights is None
    with pytest.warns(ps.ProvenanceWarning):
        assert a.project(other).site_norm is None


def test_a_factor_keeps_all_but_the_calibration(rng):
    a = vector(rng, site_norm=2.0, sigma=3.0, parents=("1 × caa",), calibration=(1.0, 1.0, 2, 0, "all", 9))
    for scaled in (2 * a, a / 2, -a, a.relative(0.5)):
        assert scaled.calibration is None and scaled.sigma == 3.0 and scaled.parents == ("1 × caa",)
        assert dataclasses.replace(scaled, scale=a.scale, calibration=a.calibration) == a


def test_other_sites_are_refused(rng):
    a = vector(rng)
    for other in (SV.from_array(np.ones(6), 4, "mlp_out"), SV.from_array(np.ones(6), 3, "resid_post"), vector(rng, 5)):
        for call, message in [(lambda b: a @ b, "no dot product"), (a.cosine, "no angle"), (a.project, "cannot be projected"),
                              (a.orthogonalise, "cannot be projected"), (lambda b: a.project([a, b]), "cannot be projected"),
                              (lambda b: a - b, "do not add up")]:  # fmt: skip
            with pytest.raises(ps.InvalidInput, match=rf"vectors at blocks\.3\.hook_mlp_out \(6\) and .*{message}"):
                call(other)


def test_what_is_nothing_or_no_vector(rng):
    a, b = vector(rng), vector(rng)
    right = a.orthogonalise(b)
    for call in (lambda: right.project(b), lambda: a.orthogonalise(-3 * a), lambda: a.orthogonalise([a, b])):
        with pytest.raises(ps.InvalidInput, match=r"nothing but rounding is left of .* \((projection|orthogonalised)\)"):
            call()
    with pytest.raises(ps.InvalidInput, match="a scale is 0"):
        a.cosine(0 * b)
    with pytest.raises(ps.InvalidInput, match="list is empty"):
        a.project([])
    for stranger in (None, 3.0, "v", np.ones(6)):
        with pytest.raises(ps.InvalidInput, match="is not a SteeringVector"):
            a.cosine(stranger)
        with pytest.raises(TypeError):
            a @ stranger
