"""MELBO against its PyTorch version, written out on the same weights with torch.optim and autograd, in float64."""

from __future__ import annotations

import hf_models
import numpy as np
import pytest
from oracles import torch
from tiny import tiny

import powersteer as ps
from powersteer.methods.melbo import objective


def published(name, prompts, source, target, n, radius, steps, lr, power, q, orthogonal, positions, seed):
    """The released algorithm: a bias on the down-projection of block `source`, hidden_states[target], AdamW; with the
    post's norm of each position. -> (vectors (n, d), losses (n, steps), the last one after each vector's end)"""
    rng = np.random.default_rng(seed)
    found, losses = [], []
    with hf_models.exact(name) as hf:
        bias = torch.zeros(hf.config.hidden_size, dtype=torch.float64, requires_grad=True)

        def project(x):
            for u in found:
                x = x - (x @ u) * u / radius**2
            return x

        def targets():
            (handle,) = hf_models.watch(hf, source, "down_proj", lambda x: x + bias)
            try:
                runs = [hf(torch.tensor([p]), output_hidden_states=True).hidden_states[target][0] for p in prompts]
            finally:
                handle.remove()
            return [z[positions] for z in runs]

        base = [z.detach() for z in targets()]

        def loss():
            return -sum(
                (z - z0).norm(dim=1).pow(power).sum().pow(1 / q) for z, z0 in zip(targets(), base, strict=True)
            )

        for _ in range(n):
            start = torch.tensor(rng.standard_normal(len(bias)))
            bias.data = radius * torch.nn.functional.normalize(project(start) if orthogonal else start, dim=0)
            adam = torch.optim.AdamW([bias], lr=lr, betas=(0.9, 0.98), weight_decay=0.0, amsgrad=True)
            one = []
            for _ in range(steps):
                adam.zero_grad()
                value = loss()
                value.backward()
                with torch.no_grad():
                    grad = project(bias.grad) if orthogonal else bias.grad
                    bias.grad = grad - (grad @ bias) * bias / radius**2
                adam.step()
                with torch.no_grad():
                    moved = project(bias.data) if orthogonal else bias.data
                    bias.data = radius * torch.nn.functional.normalize(moved, dim=0)
                one.append(value.item())
            losses.append([*one, loss().item()])
            found.append(bias.detach().clone())
    return torch.stack(found).numpy(), np.array(losses)


@pytest.mark.parametrize(
    ("name", "power", "q", "orthogonal", "positions"),
    [
        ("llama", 2.0, None, True, slice(None)),
        ("llama", 3.0, 1.5, False, slice(-2, None)),
        ("gemma2", 2.0, 1.0, True, slice(-3, None)),
        ("gpt2", 1.0, 4.0, True, slice(None)),
    ],
)
def test_the_published_trajectory(name, power, q, orthogonal, positions, loaded, kept, rng):
    model = loaded(name)
    prompts = [rng.integers(0, model.n_vocab, n).tolist() for n in (8, 5)]
    n, steps, radius, lr, seed = 3, 12, 2.5, 0.05, 4
    arguments = dict(k=n, radius=radius, iterations=steps, lr=lr, power=power, q=q, orthogonal=orthogonal)
    settings = n, radius, steps, lr, power, q or power, orthogonal, positions, seed
    want, losses = kept(lambda: published(name, prompts, 0, 2, *settings), 1e-8)
    seen = np.full((n, steps + 1), np.nan)
    found = ps.melbo(
        model, prompts, 0, 2, **arguments, target_positions=positions, seed=seed,
        progress=lambda i, step, value: seen.__setitem__((i, step), value),
    )  # fmt: skip
    np.testing.assert_allclose(seen, -losses, rtol=1e-10)
    assert np.abs([v.vector for v in found] - want).max() < 1e-8 * radius
    assert (seen[:, -1] > seen[:, 0]).all()  # it climbs
    for i, v in enumerate(found):
        assert v.location == (0, "down_proj") and v.target == (2, "resid_pre") and v.method == "melbo"
        assert v.scale == pytest.approx(radius, rel=1e-12) and v.objective == seen[i, -1]
        assert v.cost[:2] == (2 * (1 + n * (steps + 1)), 2 * n * steps)
    inner = np.array([v.direction for v in found]) @ np.array([v.direction for v in found]).T - np.eye(n)
    assert (np.abs(inner).max() < 1e-12) == orthogonal


def test_objective_by_hand():
    z = np.array([[3.0, 4.0], [0.0, 0.0], [0.0, 2.0]])
    value, gradient = objective(z, np.array([2]), 2.0, 2.0)  # two prompts: |(3, 4)| + |(0, 2)|
    assert value == 7
    np.testing.assert_allclose(gradient, [[0.6, 0.8], [0, 0], [0, 1]], rtol=1e-15)
    value, gradient = objective(z, np.array([], dtype=int), 1.0, 1.0)  # one prompt: 5 + 0 + 2, and no NaN from 0 / 0
    assert value == 7
    np.testing.assert_allclose(gradient, [[0.6, 0.8], [0, 0], [0, 1]], rtol=1e-15)
    value, gradient = objective(z, np.array([], dtype=int), 4.0, 1.0)  # 625 + 16
    assert value == 641
    np.testing.assert_allclose(gradient, [[300, 400], [0, 0], [0, 32]], rtol=1e-14)


def test_small_vectors_find_the_first_power_vector():
    """D(v) ~ J v for a small v: the maximum of |J v| on the sphere."""
    model, _ = tiny(n_layers=3)
    J = model.jacobian(["abcd", "xy"], 0, 2, source_site="mlp_out", target_site="resid_pre", target_positions=None)
    first = J.svd(1, tol=1e-8).vectors[0]
    found = ps.melbo(model, ["abcd", "xy"], 0, 2, radius=1e-5, iterations=150, lr=1e-6, q=1.0, source_site="mlp_out")[0]
    assert abs(found.direction @ first.direction) > 0.999
    assert found.objective == pytest.approx((1e-5 * first.sigma) ** 2, rel=1e-2)


def test_defaults_and_sites():
    model, _ = tiny(n_layers=3)
    norm = model.jacobian("abc", 0, 2, source_site="down_proj", target_site="resid_pre").source_norm
    steps = []
    default = ps.melbo(model, "abc", 0, 2, iterations=2, progress=lambda *seen: steps.append(seen[:2]))
    assert len(default) == 1 and default[0].scale == pytest.approx(0.35 * norm)
    assert steps == [(0, 0), (0, 1), (0, 2)]
    whole = ps.melbo(model, "abc", "blocks.0.down_proj", (2, "resid_pre"), iterations=2, lr=1e-3 * 0.35 * norm)
    np.testing.assert_allclose(whole[0].vector, default[0].vector, rtol=1e-12)
    again = ps.melbo(model, "abc", 0, 2, iterations=2, progress=True)[0]
    assert np.array_equal(again.vector, default[0].vector)
    assert not np.allclose(ps.melbo(model, "abc", 0, 2, iterations=2, seed=1)[0].vector, again.vector)
    view = model.steered(again)
    assert ps.melbo(view, "abc", 0, 2, iterations=1)[0].steering == view.steering
    here = ps.melbo(model, "abc", 0, 2, iterations=1, source_positions=[0, 2])[0]
    assert here.source_positions == ((0, 2),)
    single = ps.melbo(tiny("float32", n_layers=3)[0], "abc", 0, 2, iterations=2)[0]
    assert single.direction.dtype == np.float32
    np.testing.assert_allclose(single.direction, again.direction, atol=2e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "k is 0"),
        ({"k": 13}, "k is 13; it must be at most 12: .*orthogonal"),
        ({"k": True}, "k is True"),
        ({"radius": 0}, "radius is 0"),
        ({"radius": -1.0}, "radius is -1"),
        ({"radius": np.inf}, "radius is inf"),
        ({"iterations": 0}, "iterations is 0"),
        ({"lr": 0.0}, "lr is 0"),
        ({"lr": "1"}, "lr is '1'"),
        ({"power": 0}, "power is 0"),
        ({"q": -2}, "q is -2"),
        ({"seed": -1}, "seed is -1"),
        ({"prompts": []}, "empty"),
        ({"source": 2, "target": 1}, "does not come before"),
        ({"source": 1, "target": 1}, "blocks.1.down_proj does not come before the target blocks.1.hook_resid_pre"),
        ({"target": 3}, "no layer 3"),
        ({"target": "next_token"}, "cannot read the site 'next_token'"),
        ({"source_positions": [3], "target_positions": [0, 1]}, "does not move"),
    ],
)
def test_refuses(arguments, message):
    model, _ = tiny(n_layers=3)
    given = {"prompts": "abc", "source": 0, "target": 2, "iterations": 1, **arguments}
    with pytest.raises(ps.InvalidInput, match=message):
        ps.melbo(model, **given)


def test_as_many_vectors_as_numbers():
    model, _ = tiny(n_layers=3)
    V = np.array([v.direction for v in ps.melbo(model, "ab", 0, 2, k=12, iterations=1)])
    np.testing.assert_allclose(V @ V.T, np.eye(12), atol=1e-9)
    assert len(ps.melbo(model, "ab", 0, 2, k=13, iterations=1, orthogonal=False)) == 13
