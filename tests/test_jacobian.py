"""Jacobians as linear operators: their entries come from the NumPy twin, differentiated by complex steps."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from scipy.sparse.linalg import LinearOperator, aslinearoperator, svds
from tiny import BOS, N_VOCAB, tiny, vector

import powersteer as ps

PROMPT = [BOS, 7, 3, 250, 40, 7]


@pytest.fixture(scope="module")
def pair():
    return tiny(n_layers=3, ropes=1)


@pytest.fixture(scope="module")
def model(pair):
    return pair[0]


@pytest.fixture(scope="module")
def twin(pair):
    return pair[1]


def close(got, want, tol=1e-9):
    np.testing.assert_allclose(got, want, rtol=tol, atol=tol * max(np.abs(want).max(), 1e-3))


def refer(vec, positions=None):
    return reference.Steer(vec.layer, vec.site, vec.vector, positions)


@pytest.mark.parametrize(
    ("source", "target", "kw", "rows"),
    [((0, "mlp_out"), (2, "mlp_out"), {}, [4, 5]), ((1, "resid_pre"), (1, "resid_post"), {"target_positions": None}, range(6)),
     ((0, "attn_out"), (2, "down_proj"), {"target_positions": [0, -2], "source_positions": slice(0, 3)}, [0, 4]),
     ((1, "mlp_out"), "logits", {}, [5]), ((1, "mlp_out"), "next_token", {}, [5]),
     ((0, "resid_mid"), "next_token", {"target_positions": slice(-2, None)}, [4, 5])],
)  # fmt: skip
def test_dense_jacobian(model, twin, source, target, kw, rows):
    where = {"target": target} if isinstance(target, str) else {"target": target[0], "target_site": target[1]}
    J = model.jacobian(PROMPT, source=source[0], source_site=source[1], **where, **kw)
    sources = None if "source_positions" not in kw else [[0, 1, 2]]
    want = reference.jacobian(twin, [PROMPT], source, target, sources, [list(rows)])
    assert J.shape == want.shape and J.dtype == np.float64 and J.source == source and J.target == target
    assert J.target_positions[0].tolist() == list(rows)
    close(J.dense(), want)


def test_prompts_are_stacked_or_each_averaged(model, twin):
    prompts, rows = [PROMPT, [9, 8, 7]], [[4, 5], [1, 2]]
    for mean in (False, True):
        J = model.jacobian(prompts, 0, 2, reduce="mean" if mean else "stack")
        close(J.dense(), reference.jacobian(twin, prompts, (0, "mlp_out"), (2, "mlp_out"), None, rows, mean=mean))
        assert [p.tolist() for p in J.target_positions] == rows and "2 prompts" in repr(J)
        assert J.base.shape == (J.shape[0],)
    acts = [
        model.run_with_cache(p, [(2, "mlp_out")])[1][2, "mlp_out"][r].mean(0)
        for p, r in zip(prompts, rows, strict=True)
    ]
    close(J.base, np.concatenate(acts))


def test_base_and_linearity(model):
    v = vector(model, 4)
    for target, width in ((2, 24), ("logits", N_VOCAB)):
        J = model.jacobian(PROMPT, 0, target)
        assert J.shape == (width, 12)
        h = 1e-5
        moved, back = (model.steered(v * s).jacobian(PROMPT, 0, target).base for s in (h, -h))
        close((moved - back) / (2 * h), J @ v.vector, 1e-7)
    p = model.jacobian(PROMPT, 0, "next_token").base
    z = model(PROMPT)[-1]
    close(p, np.exp(z - z.max()) / np.exp(z - z.max()).sum())


def test_a_steered_view_linearises_at_the_steered_point(model, twin):
    v = vector(model, 5, layer=1)
    J = model.steered(v, positions=slice(-3, None)).jacobian(PROMPT, 0, 2)
    close(
        J.dense(),
        reference.jacobian(twin, [PROMPT], (0, "mlp_out"), (2, "mlp_out"), None, [[4, 5]], steer=[refer(v, [3, 4, 5])]),
    )
    assert len(J.linearization.steering) == 1 and "steered" in repr(J)


def test_fisher_norm_is_the_kl_divergence(model):
    """KL(p(0) || p(h v)) = h^2/2 |J v|^2 + O(h^3)."""
    v = vector(model, 6, layer=1)
    J = model.jacobian(PROMPT, 1, "next_token")
    p, q = (m.jacobian(PROMPT, 1, "next_token").base for m in (model, model.steered(v * 1e-4)))
    assert (p * np.log(p / q)).sum() / 1e-8 == pytest.approx(0.5 * np.linalg.norm(J @ v.vector) ** 2, rel=1e-2)


def test_products(model):
    J = model.jacobian(PROMPT, 0, 2)
    D, rng = J.dense(), np.random.default_rng(0)
    m, d = J.shape
    v, V, u, U = rng.normal(size=d), rng.normal(size=(d, 5)), rng.normal(size=m), rng.normal(size=(m, 4))
    close(J @ v, D @ v)
    close(J @ V, D @ V)
    close(J.T @ u, D.T @ u)
    close(J.T @ U, D.T @ U)
    close(u @ J, u @ D)
    close(U.T @ J, U.T @ D)
    assert J.T.T is J and J.T.shape == (d, m) and J.T.dtype == J.dtype
    close(J.T.dense(), D.T)
    for strange in (
        V[::-1],
        V[:, ::2],
        np.asfortranarray(V),
        V.astype(np.float32),
        V.astype(">f8"),
        np.arange(3 * d).reshape(d, 3),
        np.zeros((d, 0)),
    ):
        got = J @ strange
        assert got.shape == (m, strange.shape[1]) and got.dtype == np.float64
        np.testing.assert_allclose(got, D @ strange, atol=1e-9 * max(1, np.abs(strange).max(initial=0)))
    frozen = v.copy()
    frozen.flags.writeable = False
    close(J @ frozen, D @ v)
    vec = vector(model)
    close(J @ vec, D @ vec.vector)


def test_products_that_are_refused(model):
    J = model.jacobian(PROMPT, 0, 2)
    for bad in (np.zeros(24), np.zeros((24, 2)), np.zeros((12, 2, 2)), np.zeros((5, 12))):
        with pytest.raises(ps.InvalidInput, match=r"J has shape \(24, 12\), x has shape"):
            J @ bad
    with pytest.raises(ps.InvalidInput, match=r"shape \(12, 24\), x has shape \(12,\)"):
        J.T @ np.zeros(12)
    for bad in (np.zeros(12, complex), np.array(["a"] * 12), np.zeros(12, bool), np.full(12, None)):
        with pytest.raises(ps.InvalidInput, match="dtype"):
            J @ bad


def test_a_number_multiplies_but_is_no_matrix(model):
    J = model.jacobian(PROMPT, 0, 2)
    v = np.ones(12)
    np.testing.assert_array_equal((2 * J) @ v, 2 * (J @ v))
    with pytest.raises(ps.InvalidInput, match="number 3.0"):
        J @ 3.0
    with pytest.raises(ps.InvalidInput, match="number 3.0"):
        3.0 @ J


def test_as_scipy_uses_it(model):
    """svds, products and sums of operators, against the dense matrix."""
    J = model.jacobian(PROMPT, 0, 2)
    D, v = J.dense(), np.random.default_rng(0).normal(size=12)
    assert isinstance(J, LinearOperator) and J.T.T is J
    np.testing.assert_allclose(np.sort(svds(J, k=3)[1]), np.linalg.svd(D)[1][:3][::-1], rtol=1e-10)
    for got, want in [((J.T @ J) @ v, D.T @ D @ v), ((J + J) @ v, 2 * D @ v), (J.H @ (J @ v), D.T @ D @ v), (-J @ v, -D @ v)]:
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12)


def test_scipys_linear_operator(model):
    J = model.jacobian(PROMPT, 0, 2)
    A, D = J.aslinearoperator(), J.dense()
    assert A.shape == J.shape and A.dtype == J.dtype and aslinearoperator(A) is A
    rng = np.random.default_rng(0)
    V, U = rng.normal(size=(12, 3)), rng.normal(size=(24, 3))
    for got, want in [
        (A @ V, D @ V),
        (A @ V[:, 0], D @ V[:, 0]),
        (A.matmat(V), D @ V),
        (A.rmatmat(U), D.T @ U),
        (A.T @ U, D.T @ U),
        (A.H @ U[:, 0], D.T @ U[:, 0]),
        ((A.T @ A) @ V, D.T @ D @ V),
    ]:
        close(got, want)


@pytest.mark.parametrize(
    ("args", "kw", "message"),
    [((2, 0), {}, "does not come before"), ((1, 1), {}, "does not come before"),
     ((1, 1), dict(source_site="resid_post"), "does not come before"),
     ((0, 3), {}, "no layer 3"), ((-1, 2), {}, "no layer -1"), ((0, 2), dict(source_site="mlp"), "no site"),
     (("mlp_out", 2), {}, "cannot read"),
     ((0, "block 2"), {}, "cannot read"), ((0, "tokens"), {}, "did you mean 'next_token'"), ((0.5, 2), {}, "not an integer"),
     ((0, "logits"), dict(target_site="mlp_out"), "no site"),
     ((0, 2), dict(reduce="sum"), "reduce"), ((0, "next_token"), dict(reduce="mean"), "mean"),
     ((0, 2), dict(target_positions=6), "no position 6"),
     ((0, 2), dict(target_positions=[]), "empty"), ((0, 2), dict(source_positions="generated"), "generated"),
     ((0, 2), dict(source_positions=slice(9, None)), "nothing"),
     (("blocks.0.hook_mlp_out", 2), dict(source_site="attn_out"), "disagree")],
)  # fmt: skip
def test_jacobians_that_are_refused(model, args, kw, message):
    with pytest.raises(ps.InvalidInput, match=message):
        model.jacobian(PROMPT, *args, **kw)


def test_source_and_target_as_whole_sites(model):
    J = model.jacobian(PROMPT, "blocks.0.hook_resid_post", (2, "attn_out"))
    assert J.source == (0, "resid_post") and J.target == (2, "attn_out")
    assert np.array_equal(J.dense(), model.jacobian(PROMPT, 0, 2, source_site="resid_post", target_site="attn_out").dense())


def test_positions_are_by_default_the_last_two_or_for_logits_the_last(model):
    assert model.jacobian(PROMPT, 0, 2).target_positions[0].tolist() == [4, 5]
    assert model.jacobian([5], 0, 2).target_positions[0].tolist() == [0]
    for target in ("logits", "next_token"):
        assert model.jacobian(PROMPT, 0, target).target_positions[0].tolist() == [5]
        assert model.jacobian(PROMPT, 0, target, target_positions=slice(-2, None)).target_positions[0].tolist() == [4, 5]
        assert model.jacobian(PROMPT, 0, target, target_positions=None).target_positions[0].tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("method", ["krylov", "power", "dense"])
def test_svd_and_its_vectors(model, method):
    J = model.steered(vector(model, 7, 0.1, layer=1)).jacobian(
        ["abcd", PROMPT], 0, "next_token", source_positions=slice(0, 2)
    )
    svd = J.svd(4, method=method, tol=1e-6, seed=11, **({"iterations": 40} if method == "power" else {}))
    S = np.linalg.svd(J.dense(), compute_uv=False)
    close(svd.S, S[:4], 1e-6)
    assert [v.rank for v in svd.vectors] == [0, 1, 2, 3]
    for i, v in enumerate(svd.vectors):
        assert np.array_equal(v.direction, svd.Vh[i]) and v.scale == 1 and v.method == method and v.seed == 11
        assert v.location == (0, "mlp_out") and v.target == "next_token" and v.reduce == "stack"
        assert v.sigma == svd.S[i] and v.residual == svd.residuals[i] < 1e-6
        assert v.prompts == ("abcd", "".join(model.to_str_tokens(PROMPT))) and v.prompt_tokens[1] == tuple(PROMPT)
        assert v.source_positions == ((0, 1), (0, 1)) and v.target_positions == ((4,), (5,))
        assert (v.model, v.model_type, v.weights) == ("tiny", "llama", model.identity["weights"]) and len(
            v.steering
        ) == 1
    _, caches = J_acts(model, v)
    norms = np.concatenate([c[0, "mlp_out"][:2] for c in caches])
    assert v.site_norm == pytest.approx(np.linalg.norm(norms, axis=1).mean())
    assert v.relative(0.35).scale == pytest.approx(0.35 * v.site_norm)


def J_acts(model, v):
    return model.run_with_cache([list(t) for t in v.prompt_tokens], [(0, "mlp_out")])


def test_vectors_steer_where_they_were_found(model, tmp_path):
    """The first singular vector moves the target by its sigma."""
    svd = model.jacobian(PROMPT, 0, 2).svd(1, tol=1e-8)
    v = svd.vectors[0]
    moved, base = (
        m.run_with_cache(PROMPT, [(2, "mlp_out")])[1][2, "mlp_out"][-2:] for m in (model.steered(v * 1e-6), model)
    )
    assert np.linalg.norm(moved - base) / 1e-6 == pytest.approx(v.sigma, rel=1e-4)
    v.save(tmp_path / "v.safetensors")
    again = ps.SteeringVector.load(tmp_path / "v.safetensors")
    assert np.array_equal(model.steered(again * 2)(PROMPT), model.steered(v * 2)(PROMPT))


def test_svd_arguments(model):
    J = model.jacobian(PROMPT, 0, 2)
    with pytest.raises(ps.InvalidInput, match="k is 13"):
        J.svd(13)
    with pytest.raises(ps.InvalidInput, match="method"):
        J.svd(2, method="lanczos")
    with pytest.warns(ps.ConvergenceWarning):
        J.svd(6, max_applications=12, tol=1e-12)


def test_the_block_fills_a_product_for_every_thread(model):
    """block * rows a vector takes >= 48 * threads, no larger than needed, at most 4."""
    for length, block in [(64, 1), (40, 2), (17, 4), (3, 4)]:
        assert model.jacobian([1] * length, 0, 2).block() == block
    assert model.jacobian([[1] * 64] * 2, 0, 2).block() == 1
    two, _ = tiny(threads=2)
    assert two.jacobian([1] * 64, 0, 1).block() == 2
