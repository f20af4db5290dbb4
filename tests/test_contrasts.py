"""Several layers at once, principal components and probes against scikit-learn, pull-backs against torch.func."""

from __future__ import annotations

import hf_models
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import oracle
from tiny import tiny

import powersteer as ps
from powersteer.methods.logistic import logistic_regression
from powersteer.model.model import Model

PLACE = (1, "resid_post")


@pytest.fixture(scope="module")
def model():
    return tiny()[0]


@pytest.fixture(scope="module")
def decomposition():
    return oracle("sklearn.decomposition")


@pytest.fixture(scope="module")
def linear_model():
    return oracle("sklearn.linear_model")


def prompts(model, rng, n):
    return [rng.integers(0, 256, rng.integers(3, 9)).tolist() for _ in range(n)]


def last(model, some, place=PLACE):
    return np.array([model.activations(p, place)[-1] for p in some])


# ---- several layers


@pytest.mark.parametrize("method", [ps.caa, ps.pca, ps.probe])
def test_layers_share_forward_passes(method, model, rng, monkeypatch):
    good, bad = prompts(model, rng, 5), prompts(model, rng, 5)
    alone = [method(model, good, bad, *place) for place in [(0, None), (1, None), (1, "mlp_out")]]
    passes, forward = [], Model._forward

    def counted(self, tokens, *args, **kwargs):
        passes.append(len(tokens))
        return forward(self, tokens, *args, **kwargs)

    monkeypatch.setattr(Model, "_forward", counted)
    found = method(model, good, bad, [0, "blocks.1.hook_resid_post", (1, "mlp_out")])
    assert sum(passes) == 10 == found[0].cost.forward
    for one, together in zip(alone, found, strict=True):
        assert np.array_equal(one.vector, together.vector) and one.location == together.location
        assert one.site_norm == together.site_norm and one.provenance.keys() == together.provenance.keys()
    assert [v.layer for v in method(model, good, bad, range(2))] == [0, 1]
    assert isinstance(method(model, good, bad, np.int64(1)), ps.SteeringVector)
    assert [v.layer for v in method(model, good, bad, [1])] == [1]


@pytest.mark.parametrize(("layers", "message"), [([], "layers are"), ([1, 1], "each once"), ([0, 7], "no layer 7")])
def test_layers_that_are_refused(layers, message, model):
    with pytest.raises(ps.InvalidInput, match=message):
        ps.caa(model, "ab", "cd", layers)


# ---- principal components


def repengs(PCA, good, bad, method):
    """repeng 0.4.0, `read_representations`, on the activations of positive and negative prompts."""
    h = np.empty((2 * len(good), good.shape[1]))
    h[::2], h[1::2] = good, bad
    if method == "pca_diff":
        train = h[::2] - h[1::2]
    else:
        center = (h[::2] + h[1::2]) / 2
        train = h
        train[::2] -= center
        train[1::2] -= center
    fitted = PCA(n_components=1, whiten=False).fit(train)
    direction = fitted.components_.squeeze(axis=0)
    projected = h @ direction / np.linalg.norm(direction)
    pairs = range(0, len(h), 2)
    smaller = np.mean([projected[i] < projected[i + 1] for i in pairs])
    larger = np.mean([projected[i] > projected[i + 1] for i in pairs])
    return (-direction if smaller > larger else direction), fitted.explained_variance_[0]


@pytest.mark.parametrize("method", ["pca_diff", "pca_center"])
@pytest.mark.parametrize("n", [2, 3, 7, 40])
def test_pca_is_repengs(n, method, model, kept, rng, decomposition):
    good, bad = prompts(model, rng, n), prompts(model, rng, n)
    want, variance = kept(lambda: repengs(decomposition.PCA, last(model, good), last(model, bad), method))
    found = ps.pca(model, good, bad, 1, method=method)
    np.testing.assert_allclose(found.vector, want, rtol=0, atol=1e-9)
    assert found.objective == pytest.approx(variance, rel=1e-9)
    assert (found.scale, found.method, found.location) == (pytest.approx(1, rel=1e-12), method, PLACE)
    turned = ps.pca(model, bad, good, 1, method=method)
    want, _ = kept(lambda: repengs(decomposition.PCA, last(model, bad), last(model, good), method))
    np.testing.assert_allclose(turned.vector, want, rtol=0, atol=1e-9)


def test_pca_of_as_many_larger_as_smaller(model, kept, rng, decomposition):
    """Half of the pairs the other way round: the sign is that of the largest entry, as scikit-learn has it."""
    good, bad = prompts(model, rng, 2), prompts(model, rng, 2)
    both = good + bad, bad + good
    found = ps.pca(model, *both, 1, method="pca_center")
    want, _ = kept(lambda: repengs(decomposition.PCA, last(model, both[0]), last(model, both[1]), "pca_center"))
    np.testing.assert_allclose(found.vector, want, rtol=0, atol=1e-9)
    assert found.direction[np.argmax(np.abs(found.direction))] > 0


@pytest.mark.parametrize(
    ("good", "bad", "how", "message"),
    [
        (["ab"], ["cd"], {}, "but for rounding"),
        (["ab", "x"], ["ab", "x"], {"method": "pca_center"}, "but for rounding"),
        (["ab", "x"], ["ab"], {}, "not pairs"),
        (["ab", "x"], ["cd", "y"], {"method": "umap"}, "'pca_diff' or 'pca_center'"),
        ([], ["cd"], {}, "empty"),
    ],
)
def test_pca_refuses(good, bad, how, message, model):
    with pytest.raises(ps.InvalidInput, match=message):
        ps.pca(model, good, bad, 1, **how)
    assert ps.pca(model, "ab", "cd", 1, method="pca_center").cosine(ps.caa(model, "ab", "cd", 1)) == pytest.approx(1)


# ---- probes


@pytest.mark.parametrize("C", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("sizes", [(3, 3), (2, 9), (60, 40)])
def test_probe_is_scikit_learns(sizes, C, model, kept, rng, linear_model):
    good, bad = (prompts(model, rng, n) for n in sizes)
    X, y = np.vstack([last(model, good), last(model, bad)]), np.repeat([1.0, -1.0], sizes)

    def ask():
        reference = linear_model.LogisticRegression(C=C, tol=1e-13, solver="newton-cholesky", max_iter=1000).fit(X, y)
        return reference.coef_[0], reference.intercept_[0]

    w, b = kept(ask)
    found = ps.probe(model, good, bad, 1, C=C)
    np.testing.assert_allclose(found.vector, w / np.linalg.norm(w), rtol=0, atol=1e-7)
    loss = w @ w / 2 + C * np.logaddexp(0, -y * (X @ w + b)).sum()
    assert found.objective == pytest.approx(-loss, rel=1e-9)
    mine, intercept, _ = logistic_regression(X, y, C)
    assert np.linalg.norm(mine) == pytest.approx(np.linalg.norm(w), rel=1e-7) and intercept == pytest.approx(b, rel=1e-6, abs=1e-7)
    assert np.array_equal(found.vector, ps.probe(model, good, bad, 1, C=C).vector)


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 20), d=st.integers(1, 30), size=st.floats(-3, 3), C=st.floats(-4, 6))
@settings(max_examples=60, deadline=None)
def test_the_gradient_at_the_minimum_is_zero(seed, n, d, size, C):
    rng, C = np.random.default_rng(seed), 10.0**C
    X, y = rng.normal(size=(n, d)) * 10.0**size, np.where(np.arange(n) % 2, 1.0, -1.0)
    w, b, loss = logistic_regression(X, y, C)
    p = 1 / (1 + np.exp(np.minimum(y * (X @ w + b), 700.0)))
    parts = [np.abs(w), C * np.abs(X.T * (y * p)).sum(1), [C * p.sum()]]
    gradient = np.append(w - C * X.T @ (y * p), -C * (y * p).sum())
    assert np.linalg.norm(gradient) <= 1e-6 * np.linalg.norm(np.append(np.add(*parts[:2]), parts[2]))
    assert loss <= C * n * np.log(2) * (1 + 1e-12)


@pytest.mark.parametrize(
    ("good", "bad", "how", "message"),
    [
        (["ab"], ["cd"], {"C": 0.0}, "C is 0.0"),
        (["ab"], ["cd"], {"C": "1"}, "C is '1'"),
        (["ab", "x"], ["x", "ab"], {}, "probe: positive and negative prompts have the same mean"),
    ],
)
def test_probe_refuses(good, bad, how, message, model):
    with pytest.raises(ps.InvalidInput, match=message):
        ps.probe(model, good, bad, 1, **how)


# ---- pull-backs


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "phi"])
@pytest.mark.parametrize("target", [(2, "resid_post"), "logits"])
def test_pull_back_is_torch_funcs(name, target, loaded, kept, rng):
    model, source = loaded(name), (0, "mlp_out")
    some = [rng.integers(0, model.n_vocab, n).tolist() for n in (6, 4)]
    good, bad = ([rng.integers(0, model.n_vocab, 5).tolist() for _ in range(3)] for _ in range(2))
    contrast = (7, 9) if target == "logits" else ps.caa(model, good, bad, target)
    c = np.eye(model.n_vocab)[7] - np.eye(model.n_vocab)[9] if target == "logits" else contrast.vector

    def ask():
        with hf_models.exact(name) as hf:
            J = hf_models.jacobian(hf, some, source, target, target_positions=[[len(p) - 1] for p in some])
        return J.reshape(len(some), -1, model.d_model).mean(0).T @ c

    want = kept(ask)
    found = ps.pull_back(model, some, contrast, source)
    np.testing.assert_allclose(found.vector, want, rtol=0, atol=1e-10 * np.linalg.norm(want))
    assert found.objective == pytest.approx(np.linalg.norm(want), rel=1e-10) and found.scale == pytest.approx(found.objective)
    assert (found.location, found.target, found.method) == (source, target, "pull_back")
    assert found.parents == (("logit 7 - logit 9",) if target == "logits" else (f"{contrast.scale:.6g} × caa",))
    assert found.prompt_tokens == tuple(map(tuple, some)) and found.cost[:2] == (2, 2)


def test_pull_back_is_the_slope_of_steering(model):
    """(F(h v) - F(-h v)) . c / 2 h, at the unit vector along it, is the objective; positions are those of the Jacobian."""
    contrast = ps.caa(model, "abc", "xyz", 1)
    for how in ({}, {"source_positions": -1}, {"source_positions": [0, 2], "target_positions": slice(1, None)}):
        v = ps.pull_back(model, "hello", contrast, 0, **how)
        h, rows = 1e-5, how.get("target_positions", -1)

        def along(scale, v=v, how=how, rows=rows):
            view = model.steered(ps.SteeringVector(v.direction, 0, "mlp_out", scale), how.get("source_positions"))
            return np.atleast_2d(view.activations("hello", contrast.location)[rows]).mean(0) @ contrast.vector

        assert (along(h) - along(-h)) / (2 * h) == pytest.approx(v.objective, rel=1e-6)


@given(a=st.floats(-3, 3), b=st.floats(-3, 3), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_pull_back_is_linear(a, b, seed):
    model = MODEL
    rng = np.random.default_rng(seed)
    x, y = (ps.SteeringVector.from_array(rng.normal(size=model.d_model), *PLACE) for _ in range(2))
    total = ps.SteeringVector.from_array(a * x.vector + (b + 4) * y.vector, *PLACE)
    parts = [ps.pull_back(model, "ab", one, 0).vector for one in (x, y)]
    np.testing.assert_allclose(ps.pull_back(model, "ab", total, 0).vector, a * parts[0] + (b + 4) * parts[1], rtol=0, atol=1e-10)


MODEL = tiny()[0]


@pytest.mark.parametrize(
    ("contrast", "how", "message"),
    [
        ("ab", {}, "not 'ab'"),
        ((5,), {}, "pair of tokens"),
        ((5, 5), {}, "with itself"),
        ((5, 999), {}, "no token id 999"),
        (("a", "bc"), {}, "not one token"),
        (ps.SteeringVector([0.6, 0.8], *PLACE), {}, "activations of this model have"),
        (ps.SteeringVector(np.eye(MODEL.d_model)[0], 0, "resid_pre"), {}, "does not come before"),
        (ps.SteeringVector(np.eye(MODEL.d_model)[0], 1, "resid_post").ablate(), {}, "cannot be pulled back"),
        ((5, 6), {"source_positions": 2, "target_positions": 0}, "no vector at"),
    ],
)
def test_pull_back_refuses(contrast, how, message):
    with pytest.raises(ps.InvalidInput, match=message):
        ps.pull_back(MODEL, "abc", contrast, 0, **how)


def test_every_one_gives_vectors_to_steer_with(model, tmp_path):
    good, bad = ["abc (A", "what? (A", "x (A"], ["abc (B", "what? (B", "yes, x (B"]
    every = [
        *(ps.pca(model, good, bad, 0, method=m) for m in ("pca_diff", "pca_center")),
        ps.probe(model, good, bad, 0), ps.pull_back(model, good + bad, ("A", "B"), 0),
    ]  # fmt: skip
    for vector in every:
        assert vector.weights == model.identity["weights"] and vector.prompts == (*good, *bad)
        assert vector.cost.forward == 6 and vector.cost.seconds > 0
        assert not np.allclose(model.steered(vector.relative(0.5))("abc"), model("abc"))
        vector.save(tmp_path / "v.safetensors")
        assert ps.SteeringVector.load(tmp_path / "v.safetensors") == vector
    bias = ps.random_vectors(model, 0)[0] * 5.0
    view = model.steered(bias)
    assert ps.probe(view, good, bad, 1).steering == view.steering
