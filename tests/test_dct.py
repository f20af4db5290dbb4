"""Deep causal transcoding against torch.func and LAPACK, and the published alternation written out in PyTorch."""

from __future__ import annotations

import contextlib

import hf_models
import numpy as np
import pytest
from oracles import torch
from tiny import tiny

import powersteer as ps
from powersteer.methods.dct import orthonormal, rank

ROWS = slice(-3, None)


@contextlib.contextmanager
def slice_of(name, prompts, source, target):
    """Yields D: v (d,) at the input of block `source` -> mean change (d,) of hidden_states[target], in float64."""
    with hf_models.exact(name) as hf:

        def states(v):
            (handle,) = hf_models.watch(hf, source, "resid_pre", lambda x: x + v)
            try:
                runs = [hf(torch.tensor([p]), output_hidden_states=True, use_cache=False) for p in prompts]
            finally:
                handle.remove()
            return torch.stack([run.hidden_states[target][0, ROWS].mean(0) for run in runs]).mean(0)

        zero = states(torch.zeros(hf.config.hidden_size, dtype=torch.float64))
        yield lambda v: states(v) - zero


def some_prompts(model, rng):
    return [rng.integers(0, model.n_vocab, n).tolist() for n in (8, 5, 2)]


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_linear_is_lapacks_of_pytorchs_mean_jacobian(name, loaded, kept, rng):
    model = loaded(name)
    prompts = some_prompts(model, rng)

    def ask():
        with slice_of(name, prompts, 1, 2) as D:
            return torch.func.jacrev(D)(torch.zeros(model.d_model, dtype=torch.float64)).numpy()

    J = kept(ask)
    _, S, Vh = np.linalg.svd(J)
    found = ps.dct(model, prompts, 1, 2, k=4, tol=1e-9)
    np.testing.assert_allclose([v.sigma for v in found], S[:4], rtol=1e-10)
    assert (S[:4] - S[1:5]).min() > 1e-3 * S[0]  # so that each vector is determined
    assert np.abs(np.sum([v.direction for v in found] * Vh[:4], 1)).min() > 1 - 1e-12
    columns = Vh[:, :4].T  # what the published code keeps
    assert np.abs(np.sum([v.direction for v in found] * columns, 1)).max() < 0.99
    for i, v in enumerate(found):
        assert (v.location, v.target, v.rank, v.scale) == ((1, "resid_pre"), (2, "resid_pre"), i, 1.0)
        assert v.method == "dct-linear" and v.residual < 1e-9 and v.reduce == "mean"
        assert v.target_positions == ((5, 6, 7), (2, 3, 4), (0, 1))
        assert v.cost.forward == 3 and v.cost.products % 3 == 0 and v.cost.products >= 3 * 8


def published(D, V, U, radius, iterations):
    """The released ExponentialDCT.fit on columns, with a QR that keeps signs. -> (V, U, u'D(R v) by iteration)"""
    history = []
    for _ in range(iterations):
        V, r = torch.linalg.qr(V)
        V = V * r.diagonal().sign()
        outputs, inputs = [], []
        for u, v in zip(U.T, V.T, strict=True):
            output, vjp = torch.func.vjp(D, radius * v)
            outputs.append(output)
            inputs.append(radius * vjp(u)[0])
        history.append([(u @ out).item() for u, out in zip(U.T, outputs, strict=True)])
        U = torch.nn.functional.normalize(torch.stack(outputs, 1), dim=0)
        V = torch.nn.functional.normalize(torch.stack(inputs, 1), dim=0)
    return V, U, np.array(history)


@pytest.mark.parametrize("init", ["random", "jacobian"])
def test_exponential_is_the_published_alternation(init, loaded, kept, rng):
    model = loaded("llama")
    prompts = some_prompts(model, rng)
    n, radius, iterations = 4, 3.0, 5
    seen = np.full((iterations, n), np.nan)
    found = ps.dct(
        model, prompts, 0, 2, k=n, method="exponential", radius=radius, iterations=iterations, init=init, tol=1e-9,
        seed=3, progress=lambda i, step, value: seen.__setitem__((step, i), value),
    )  # fmt: skip
    random = np.random.default_rng(3).standard_normal((2, n, model.d_model))
    linear = np.array([v.direction for v in ps.dct(model, prompts, 0, 2, k=n, tol=1e-9, seed=3)]).T

    def ask():
        with slice_of("llama", prompts, 0, 2) as D:
            if init == "random":
                V, U = (torch.nn.functional.normalize(torch.tensor(x.T), dim=0) for x in random)
            else:
                V = torch.tensor(linear)
                U = torch.nn.functional.normalize(torch.stack([D(radius * v) for v in V.T], 1), dim=0)
            V, U, history = published(D, V, U, radius, iterations)
            gains = (torch.stack([D(radius * v) for v in V.T], 1) * U).sum(0)
            alphas = torch.linalg.solve((U.T @ U) * torch.expm1(V.T @ V), gains)
        return V.numpy(), history, gains.numpy(), torch.argsort(alphas**2, descending=True).numpy()

    V, history, gains, order = kept(ask, 1e-7)
    np.testing.assert_allclose(seen, history, rtol=1e-7)
    assert np.abs([v.vector for v in found] - radius * V.T[order]).max() < 1e-7 * radius
    np.testing.assert_allclose([v.objective for v in found], gains[order], rtol=1e-7)
    assert {v.method for v in found} == {"dct-exponential"} and found[0].scale == pytest.approx(radius)
    if init == "random":
        assert found[0].cost[:2] == (3 * (1 + n * (iterations + 1)), 3 * n * iterations)


def test_small_radius_gives_the_linear_form():
    """D(R v) ~ R J v: the alternation is then subspace iteration for J's singular vectors."""
    model, _ = tiny(n_layers=3)
    linear = ps.dct(model, ["abcd", "xyz"], 0, 2, k=2, tol=1e-8)
    curved = ps.dct(
        model, ["abcd", "xyz"], 0, 2, k=2, method="exponential", radius=1e-5, iterations=200, init="random", progress=True
    )
    for a, b in zip(linear, curved, strict=True):
        assert abs(a.direction @ b.direction) > 0.999
        assert b.objective == pytest.approx(1e-5 * a.sigma, rel=1e-3)


def test_calibrated_radius_has_the_ratio(loaded, rng):
    model = loaded("llama")
    prompts = some_prompts(model, rng)
    # the MLP's output alone: no residual stream that stays linear
    where = {"source_site": "resid_pre", "target_site": "mlp_out", "samples": 6, "seed": 2}
    for ratio in (0.1, 0.5):
        radius = ps.calibrated_radius(model, prompts, 0, 1, ratio=ratio, **where)
        V = np.random.default_rng(2).standard_normal((6, model.d_model))
        V /= np.linalg.norm(V, axis=1, keepdims=True)
        site, end, off = (0, "resid_pre"), (1, "mlp_out"), []

        def mean(view, end=end):
            return np.mean([a[ROWS].mean(0) for a in view.activations(prompts, end)], 0)

        tiny_step = 1e-5
        for v in V:
            vector = ps.SteeringVector.from_array(v, *site)
            linear = (mean(model.steered(vector * tiny_step)) - mean(model.steered(vector * -tiny_step))) / 2e-5
            moved = mean(model.steered(vector * radius)) - mean(model)
            off.append(np.sum((moved - radius * linear) ** 2) / np.sum((radius * linear) ** 2))
        assert np.sqrt(np.mean(off)) == pytest.approx(ratio, rel=1e-2)
    with pytest.raises(ps.InvalidInput, match="calibrated_radius: the ratio is .* choose another ratio"):
        ps.calibrated_radius(model, prompts, 0, 1, ratio=1e6, **where)


def test_orthonormal_keeps_sides():
    rows = orthonormal(np.array([[2.0, 0, 0], [5.0, 3, 0], [-1.0, 1, -4]]))
    np.testing.assert_allclose(rows, np.diag([1.0, 1, -1]), atol=1e-15)


def test_rank_by_hand():
    """Orthonormal factors: alpha_i = gain_i / (e - 1). Two that are one share theirs."""
    moved = np.array([[1.0, 9, 0], [0, -3, 9]])
    gains, order = rank(np.eye(3)[:2], np.eye(3)[1:], moved)
    assert gains.tolist() == [1, -3] and order.tolist() == [1, 0]
    same = np.eye(3)[[0, 0, 1]]
    gains, order = rank(same, same, np.array([[1.0, 0, 0], [1, 0, 0], [0, 0.9, 0]]))
    assert gains.tolist() == [1, 1, 0.9] and order.tolist() == [2, 0, 1]


def test_rank_of_factors_that_differ_by_rounding():
    """As many processors would have it: which of two equal factors is larger by a bit must not show."""
    _, order = rank(np.eye(4), np.eye(4), np.diag([1, 1 + 1e-13, 2, -1 - 2e-13]))
    assert order.tolist() == [2, 0, 1, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "quadratic"}, "method is 'quadratic'"),
        ({"method": "exponential", "init": "zeros"}, "init is 'zeros'"),
        ({"method": "exponential", "radius": 0.0}, "radius is 0"),
        ({"method": "exponential", "iterations": 0}, "iterations is 0"),
        ({"radius": 1.0}, "belong to method='exponential'"),
        ({"iterations": 3}, "belong to method='exponential'"),
        ({"k": 13}, "k is 13; it must be at most 12"),
        ({"k": 0}, "k is 0"),
        ({"seed": 0.5}, "seed is 0.5"),
        ({"tol": 0}, "tol is 0"),
        ({"prompts": []}, "empty"),
        ({"source": 1, "target": 0}, "does not come before"),
        ({"target": "logits"}, "cannot read the site 'logits'"),
        ({"method": "exponential", "source_positions": [3], "target_positions": [0]}, "does not move"),
    ],
)
def test_refuses(arguments, message):
    model, _ = tiny()
    given = {"prompts": "abc", "source": 0, "target": 1, "k": 2, **arguments}
    with pytest.raises(ps.InvalidInput, match=message):
        ps.dct(model, **given)
