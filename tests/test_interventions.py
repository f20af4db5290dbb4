"""Vectors that ablate and clamp: forward, generated, differentiated, against transformers with PyTorch's hooks and torch.func
on it in true float64 (hf_models.exact)."""

from __future__ import annotations

import dataclasses
import gc
import json

import hf_models
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import torch
from safetensors.numpy import load_file, save
from tiny import BOS, tiny, vector

import powersteer as ps
from powersteer.cli import main

PROMPT = [5, 17, 3, 44, 9, 30, 12]
PROMPTS = [PROMPT, [7, 2, 51, 8]]
SITES = ("resid_pre", "attn_out", "resid_mid", "down_proj", "mlp_out", "resid_post")
# RMS norms; learned positions, biases; post-norms; norms behind only; parallel, with two norms or one; a residual multiplier;
# a mixture of experts
TRAITS = ["llama", "gpt2", "gemma2", "olmo2", "gpt_neox", "stablelm-parallel", "granite", "qwen3_moe", "granitemoehybrid"]
TRAITS = [name for name in TRAITS if name in hf_models.CASES]
CLAMP = 1.5


def unit(model, rng):
    array = rng.standard_normal(model.d_model)
    return array / np.linalg.norm(array)


def error(got, want):
    return np.abs(got - want).max() / np.abs(want).max()


class Script:
    """Interventions of random directions, as powersteer takes them and as hf_models.hooked does."""

    def __init__(self, model, rng, rows):
        """rows: (layer, site, positions, "add", "ablate" or a coefficient)"""
        self.view, self.hooks = model, []
        for layer, site, positions, what in rows:
            u = unit(model, rng)
            vec = ps.SteeringVector(u, layer, site, scale=CLAMP)
            vec = vec if what == "add" else vec.ablate() if what == "ablate" else vec.clamp(what)
            self.view = self.view.steered(vec, positions)
            number = 0.0 if what == "ablate" else what
            self.hooks.append((layer, site, CLAMP * u, positions) if what == "add" else (layer, site, u, positions, number))


def crowded(layer, site):
    """Several interventions at one site, which do not commute, others before and behind it."""
    return [(layer - 1, "mlp_out", [1, 2, 5], CLAMP), (layer, site, None, "ablate"), (layer, site, [0, 2, 3], "add"),
            (layer, site, [2, 3, 6], -2.0), (layer + 1, "attn_out", None, "ablate")]  # fmt: skip


# ---- forward


@pytest.mark.parametrize("name", TRAITS)
def test_every_site_of_every_trait_is_that_of_transformers(name, loaded, rng):
    model, hf = loaded(name), hf_models.make(name)
    places = [(layer, site) for layer in range(3) for site in hf_models.site_names(hf)]
    for site in hf_models.site_names(hf):
        script = Script(model, rng, crowded(1, site))
        plain = model(PROMPT)
        logits, acts = script.view.run_with_cache(PROMPT)
        with hf_models.exact(name) as double:
            want, there = hf_models.run(double, PROMPT, script.hooks, places)
        assert error(logits, want) < 1e-12 < 1e-3 < error(logits, plain), site
        # with hooks on the attention's output, its activation is what resid_mid was changed by
        skipped = (1, "attn_out") if site == "resid_mid" else None
        assert all(error(acts[place], there[place]) < 1e-12 for place in places if place != skipped), site


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_coefficients_are_what_was_asked_for(site, dtype, loaded, rng):
    """At the positions; elsewhere the activation is untouched. To rounding of an activation of its length."""
    model = loaded("gemma2", dtype)
    vec = ps.SteeringVector(unit(model, rng), 1, site)
    eps = 8 * np.finfo(dtype).eps
    before = model.activations(PROMPT, vec.location).astype(float)
    size = np.linalg.norm(before, axis=1).max()
    for changed, value in ((vec.ablate(), 0.0), (vec.clamp(2.5), 2.5), ((-vec).clamp(2.5), -2.5), ((3 * vec).clamp(), 3.0)):
        after = model.steered(changed, [1, -1]).activations(PROMPT, vec.location).astype(float)
        assert np.abs(after[[1, -1]] @ vec.direction - value).max() < eps * size
        at_right_angles = np.eye(model.d_model) - np.outer(vec.direction, vec.direction)
        assert np.abs((after - before)[[1, -1]] @ at_right_angles).max() < eps * size
        others = [0, 2, 3, 4, 5]
        assert np.array_equal(after[others], before[others])
        assert np.abs(before[[1, -1]] @ vec.direction - value).min() > 1e-3


def test_projections_are_idempotent_and_the_last_clamp_counts(loaded, rng):
    model = loaded("llama")
    vec = ps.SteeringVector(unit(model, rng), 1, "mlp_out")
    once = model.steered(vec.ablate())(PROMPT)
    assert error(model.steered([vec.ablate(), vec.ablate()])(PROMPT), once) < 1e-13
    assert error(model.steered([vec.clamp(3.0), vec.ablate()])(PROMPT), once) < 1e-13
    assert error(model.steered([vec.ablate(), vec.clamp(3.0)])(PROMPT), model.steered(vec.clamp(3.0))(PROMPT)) < 1e-13
    assert error(model.steered([vec.ablate(), 3 * vec])(PROMPT), model.steered(vec.clamp(3.0))(PROMPT)) < 1e-13


def test_order_is_that_of_the_list_and_of_the_views(loaded, kept, rng):
    model = loaded("llama")
    a, b = (ps.SteeringVector(unit(model, rng), 1, "resid_post", scale=4.0) for _ in range(2))
    first, second = model.steered([a, b.ablate()]), model.steered([b.ablate(), a])
    assert error(first(PROMPT), second(PROMPT)) > 1e-3
    assert np.array_equal(model.steered(a).steered(b.ablate())(PROMPT), first(PROMPT))
    assert np.abs(first.activations(PROMPT, b.location) @ b.direction).max() < 1e-12
    wanted = a.direction @ b.direction * 4.0
    assert np.abs(second.activations(PROMPT, b.location) @ b.direction - wanted).max() < 1e-12
    hooks = [(1, "resid_post", a.vector, None), (1, "resid_post", np.array(b.direction), None, 0.0)]

    def ask():
        with hf_models.exact("llama") as double:
            return [hf_models.run(double, PROMPT, one)[0] for one in (hooks, hooks[::-1])]

    for view, want in zip((first, second), kept(ask), strict=True):
        assert error(view(PROMPT), want) < 1e-12


def test_a_direction_that_is_not_quite_of_length_one(loaded, rng):
    """A file of another tool may have one; the projection is exact all the same."""
    model = loaded("llama")
    u = unit(model, rng)
    loose = ps.SteeringVector(u * (1 + 9e-5), 1, "mlp_out")
    acts = model.steered(loose.clamp(2.0)).activations(PROMPT, loose.location)
    assert np.abs(acts @ u - 2.0).max() < 1e-12


# ---- generation


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt_neox"])
def test_greedy_tokens_are_those_of_transformers_with_hooks(name, loaded, rng):
    """Through the cache: at every position by plain hooks, at others by vec.hook."""
    model, hf = loaded(name, "float32"), hf_models.make(name)
    rows = [(1, "resid_post", None, "ablate"), (0, "mlp_out", None, 6.0), (2, "resid_pre", None, "add")]
    script = Script(model, rng, rows)
    ids = torch.tensor([PROMPT])
    with hf_models.hooked(hf, script.hooks):
        want = hf.generate(ids, max_new_tokens=12, do_sample=False)[0, len(PROMPT) :].tolist()
    got = script.view.generate(PROMPT, max_new_tokens=12, stop=[])
    assert got.tokens.tolist() == want != model.generate(PROMPT, max_new_tokens=12, stop=[]).tokens.tolist()
    assert got.steering == script.view.steering and got.steering[0].startswith("ablate blocks.1.hook_resid_post at all")
    vec = ps.SteeringVector(unit(model, rng), 1, "resid_post").clamp(30.0)
    for positions in ("prompt", "generated", slice(-2, 9), [0, 8, -1]):
        with vec.hook(hf, positions) as hook:
            want = hf.generate(ids, max_new_tokens=12, do_sample=False)[0, len(PROMPT) :].tolist()
        assert model.steered(vec, positions).generate(PROMPT, max_new_tokens=12, stop=[]).tokens.tolist() == want
        assert hook.added


def test_each_row_of_a_batch_has_its_own(loaded, rng):
    model = loaded("llama", "float32")
    a, b = (ps.SteeringVector(unit(model, rng), layer, "mlp_out", scale=8.0) for layer in (0, 1))
    view = model.steered(b.clamp(1.0), "generated")
    steer = [a.ablate(), None, [a, a.clamp(-9.0), b], a]
    together = view.generate([PROMPT] * 4, max_new_tokens=10, stop=[], steer=steer)
    for row, own in zip(together, steer, strict=True):
        alone = view.generate(PROMPT, max_new_tokens=10, stop=[], steer=own)
        assert row.tokens.tolist() == alone.tokens.tolist() and row.steering == alone.steering
    assert len({row.tokens.tobytes() for row in together}) > 2
    assert together[2].steering[2] == "clamp blocks.0.hook_mlp_out to -9 at all (given)"


def test_metrics_of_clamped_vectors_are_those_of_views(loaded, rng):
    model = loaded("llama")
    vec = ps.SteeringVector(unit(model, rng), 1, "mlp_out")
    got = ps.evaluate.kl(model, PROMPTS, [vec.ablate(), [vec, vec.clamp(4.0)]])
    for result, view in zip(got, (model.steered(vec.ablate()), model.steered(vec.clamp(4.0))), strict=True):
        want = []
        for prompt in PROMPTS:
            p, q = (torch.log_softmax(torch.tensor(m(prompt)[-1]), -1) for m in (model, view))
            want.append(float((p.exp() * (p - q)).sum()))
        assert result == pytest.approx(np.mean(want), rel=1e-9) and result > 1e-6


# ---- derivatives


def close(J, want, tol=1e-12):
    """The operator's entries, by its columns and by its rows."""
    scale = np.linalg.norm(want)
    assert J.shape == want.shape and scale > 0
    assert np.linalg.norm(J.dense() - want) < tol * scale
    assert np.linalg.norm((J.T @ np.eye(J.shape[0], dtype=J.dtype)).T - want) < tol * scale


@pytest.mark.parametrize("name", TRAITS)
def test_jacobians_are_torch_funcs(name, loaded, rng):
    """A source before, at and behind the interventions of a site; a target at and behind it."""
    model = loaded(name)
    sites = hf_models.site_names(hf_models.make(name))
    for site in sites:
        script = Script(model, rng, crowded(1, site))
        ends = [((0, "attn_out"), (1, site)), ((1, site), (2, str(rng.choice(sites)))), ((0, "mlp_out"), "next_token")]
        for source, target in ends:
            here, rows = [[1, 2, 3, 6]], [[2, 6]]
            with hf_models.exact(name) as double:
                want = hf_models.jacobian(double, [PROMPT], source, target, here, rows, steer=script.hooks)
                added = [hook if len(hook) == 4 else (*hook[:2], 0 * hook[2], hook[3]) for hook in script.hooks]
                without = hf_models.jacobian(double, [PROMPT], source, target, here, rows, steer=added)
            where = {"target": target} if isinstance(target, str) else {"target": target[0], "target_site": target[1]}
            how = {"source": source[0], "source_site": source[1], "source_positions": here[0], "target_positions": rows[0]}
            J = script.view.jacobian(PROMPT, **where, **how)
            close(J, want)
            assert np.linalg.norm(want - without) > 1e-3 * np.linalg.norm(want) or source[0] == 1
            assert J.linearization.steering == script.view.steering


@pytest.mark.parametrize("name", ["llama", "gemma2", "stablelm-parallel"])
def test_several_prompts_sources_and_targets_in_one_sweep(name, loaded, rng):
    """Ranges count from each prompt's end; columns of several pairs pass a site together."""
    model = loaded(name)
    rows = [(0, "mlp_out", [0, -1], 2.0), (1, "resid_pre", slice(-3, None), "ablate"), (1, "down_proj", [-2], "ablate"),
            (2, "resid_post", None, "ablate")]  # fmt: skip
    script = Script(model, rng, rows)
    targets = [(1, "resid_pre"), (2, "down_proj"), (2, "resid_post"), "logits"]

    def ends_of(tokens, target):
        return [len(tokens) - n for n in ((1,) if target == "logits" else (2, 1))]

    J = script.view.jacobians(PROMPTS, (0, "attn_out"), targets, target_positions=[-2, -1])
    dense = J.dense()
    for i, target in enumerate(targets):
        with hf_models.exact(name) as double:
            absolute = [
                [(layer, site, u, [p + len(t) if p < 0 else p for p in at] if isinstance(at, list) else at, *c)
                 for layer, site, u, at, *c in script.hooks] for t in PROMPTS
            ]  # fmt: skip
            want = np.concatenate([
                hf_models.jacobian(double, [t], (0, "attn_out"), target, None, [ends_of(t, target)], steer=hooks)
                for t, hooks in zip(PROMPTS, absolute, strict=True)
            ])  # fmt: skip
        size = np.linalg.norm(want)
        assert np.linalg.norm(dense[i] - want) < 1e-12 * size
        (back,) = J._apply_t([(i, np.eye(len(want)))])
        assert np.linalg.norm(back - want) < 1e-12 * size
        (there,) = J._apply([(i, np.eye(model.d_model))])
        assert np.linalg.norm(there.T - want) < 1e-12 * size


def test_nothing_comes_through_an_ablated_direction_but_what_is_added_behind_it(loaded, rng):
    """The Jacobian at an ablated target has no row along it; a vector added at an ablated source keeps its effect."""
    model = loaded("llama")
    vec = ps.SteeringVector(unit(model, rng), 1, "resid_post")
    view = model.steered(vec.ablate())
    J = view.jacobian(PROMPT, (0, "mlp_out"), vec.location, target_positions=[-1])
    assert np.abs(vec.direction @ J.dense()).max() < 1e-13 < 1e-3 < np.abs(J.dense()).max()
    behind = view.jacobian(PROMPT, vec.location, (2, "resid_post"), target_positions=[-1])
    step = 1e-4
    both = [view.steered(s * step * vec).activations(PROMPT, (2, "resid_post"))[-1] for s in (1, -1)]
    wanted = (both[0] - both[1]) / (2 * step)
    assert np.linalg.norm(behind @ vec.direction - wanted) < 1e-6 * np.linalg.norm(wanted) and np.linalg.norm(wanted) > 1e-2


def test_a_jacobian_keeps_what_it_needs(loaded, rng):
    """The interventions of a view that is gone, with every product as before and the same whatever else a sweep carries."""
    model = loaded("llama", "float32")
    J = Script(model, rng, crowded(1, "resid_mid")).view.jacobian(PROMPT, 0, 2)
    V = rng.standard_normal((model.d_model, 5)).astype(np.float32)
    before = J @ V
    gc.collect()
    junk = [np.full(model.d_model, np.nan, np.float32) for _ in range(1000)]
    assert np.array_equal(J @ V, before) and np.array_equal(J @ V[:, 3], before[:, 3]) and junk


WHAT = st.sampled_from(["add", "ablate", 1.5])


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from(SITES), st.sampled_from([None, [0], [-1], slice(1, -1)]), WHAT),
             min_size=1, max_size=5),
    st.integers(0, 2**31), st.sampled_from(["mlp_out", "resid_post", "next_token"]), st.sampled_from(SITES),
)  # fmt: skip
def test_the_adjoint_identity(rows, seed, target, source):
    """<J v, u> = <v, J'u>, and J v is what central differences of the view say."""
    model, rng = MODEL, np.random.default_rng(seed)
    view = Script(model, rng, rows).view
    prompts = [[BOS, 9, 4, 77], [BOS, 5, 8, 1, 200, 3]]
    end = {"target": target} if target == "next_token" else {"target": 2, "target_site": target}
    J = view.jacobian(prompts, source=0, source_site=source, **end)
    v, u = rng.standard_normal(J.shape[1]), rng.standard_normal(J.shape[0])
    right = v @ (J.T @ u)
    assert abs((J @ v) @ u - right) < 1e-11 * np.linalg.norm(J @ v) * np.linalg.norm(u) + 1e-13
    if target == "next_token":
        return
    pushed = ps.SteeringVector.from_array(v, 0, source)
    step = 1e-5
    either = [view.steered(s * step * pushed).activations(prompts, (2, target)) for s in (1, -1)]
    wanted = np.concatenate([((a - b) / (2 * step))[-2:].ravel() for a, b in zip(*either, strict=True)])
    assert np.linalg.norm(J @ v - wanted) < 1e-5 * np.linalg.norm(wanted) + 1e-7


MODEL, _ = tiny(n_layers=3, ropes=1)


# ---- files, descriptions, hooks in PyTorch


def test_files_keep_operation_and_value(tmp_path, loaded, rng):
    model = loaded("llama")
    vec = ps.SteeringVector(unit(model, rng), 1, "mlp_out", site_norm=3.0)
    vectors = [vec, vec.ablate(), vec.clamp(2.5), vec.relative(0.5).clamp()]
    assert vectors[3].scale == 1.5
    ps.save_vectors(tmp_path / "all.safetensors", vectors)
    back = ps.load_vectors(tmp_path / "all.safetensors")
    assert back == vectors and [v.operation for v in back] == ["add", "clamp", "clamp", "clamp"]
    vec.clamp(2.5).save(tmp_path / "one.safetensors")
    read = ps.SteeringVector.load(tmp_path / "one.safetensors")
    assert np.array_equal(model.steered(read)(PROMPT), model.steered(vec.clamp(2.5))(PROMPT))
    for name in ("bad.gguf", "worse.GGUF"):
        with pytest.raises(ps.InvalidInput, match=r"only be added, and the vector at blocks\.1\.hook_mlp_out clamps"):
            ps.save_vectors(tmp_path / name, [vec.ablate()], model_hint="llama")
        assert not (tmp_path / name).exists()


def test_files_without_an_operation_add(tmp_path, rng):
    """Those of earlier releases."""
    vec = ps.SteeringVector.from_array(rng.standard_normal(8), 1, "mlp_out")
    fields = {name: value for name, value in vec.provenance.items() if name != "operation"}
    path = tmp_path / "old.safetensors"
    path.write_bytes(save({"direction": vec.direction}, {"powersteer-vector-1": json.dumps(fields)}))
    assert ps.SteeringVector.load(path) == vec and vec.operation == "add" and load_file(path).keys() == {"direction"}
    fields["operation"] = "rotate"
    path.write_bytes(save({"direction": vec.direction}, {"powersteer-vector-1": json.dumps(fields)}))
    with pytest.raises(ps.InvalidInput, match="operation is 'rotate'; it must be 'add' or 'clamp'"):
        ps.SteeringVector.load(path)


def test_views_say_what_is_done(loaded, rng):
    model = loaded("llama")
    vec = ps.SteeringVector(unit(model, rng), 1, "mlp_out", method="caa")
    view = model.steered([vec.ablate(), vec.clamp(-2.5)], "prompt").steered(3 * vec)
    assert view.steering == (
        "ablate blocks.1.hook_mlp_out at prompt (caa)", "clamp blocks.1.hook_mlp_out to -2.5 at prompt (caa)",
        "3 × blocks.1.hook_mlp_out at all (caa)",
    )  # fmt: skip
    found = view.jacobian(PROMPT, 1, 2).svd(k=1).vectors[0]
    assert found.steering == view.steering and repr(vec.ablate()) == "SteeringVector(ablate blocks.1.hook_mlp_out, d=24, caa)"
    again = model
    for v, positions in view.interventions:
        again = again.steered(v, positions)
    views = [model, view, model.steered(vec), model.steered(vec.clamp(1.0)), model.steered(vec.clamp(2.0)), model.steered(vec.ablate())]
    assert again.steering_hash == view.steering_hash and len({v.steering_hash for v in views}) == len(views)
    assert (-vec).ablate() == vec.ablate() and str((-vec).ablate().scale) == "0.0"


@pytest.mark.parametrize("name", [*TRAITS, "qwen3_moe-some_dense", "granitemoehybrid", "granitemoehybrid-dense"])
def test_hooks_in_pytorch_do_the_same(name, loaded, rng):
    model = loaded(name)
    with hf_models.exact(name) as hf:
        for site in hf_models.site_names(hf):
            a, b = (ps.SteeringVector(unit(model, rng), 1, site, scale=2.0) for _ in range(2))
            plain = model(PROMPT)
            for positions in (None, [2, -1]):
                order = [a.ablate(), b, a.clamp(-1.5)]
                hooks = [vec.hook(hf, positions) for vec in order]
                with torch.no_grad():
                    got = hf(torch.tensor([PROMPT])).logits[0].numpy()
                for hook in hooks:
                    hook.remove()
                want = model.steered(order, positions)(PROMPT)
                assert error(got, want) < 1e-12 < 1e-3 < error(got, plain), (site, positions)
                assert [hook.added for hook in hooks] == [len(PROMPT) if positions is None else 2] * 3


def test_pytorch_hooks_at_resid_mid_read_the_stream_that_other_hooks_changed(loaded, rng):
    model = loaded("llama")
    vec = ps.SteeringVector(unit(model, rng), 1, "resid_mid").clamp(2.0)
    push = ps.SteeringVector(unit(model, rng), 1, "resid_pre", scale=3.0)
    with hf_models.exact("llama") as hf, vec.hook(hf), push.hook(hf), torch.no_grad():
        got = hf(torch.tensor([PROMPT])).logits[0].numpy()
    assert error(got, model.steered([vec, push])(PROMPT)) < 1e-12


def test_pytorch_hooks_in_half_precision(loaded, rng):
    import copy

    hf = copy.deepcopy(hf_models.make("qwen3")).to(torch.bfloat16)
    vec = ps.SteeringVector(unit(loaded("qwen3"), rng), 1, "resid_mid").clamp(4.0)
    with vec.hook(hf):
        got = hf(torch.tensor([PROMPT])).logits
    assert got.dtype == torch.bfloat16
    assert error(got[0].float().detach().numpy(), loaded("qwen3").steered(vec)(PROMPT)) < 0.05


# ---- what is refused


def test_what_needs_a_vector_that_is_added(loaded, rng):
    model = loaded("llama")
    vec = ps.SteeringVector(unit(model, rng), 1, "mlp_out", site_norm=3.0, target=(2, "mlp_out"))
    for v in (vec.ablate(), vec.clamp(2.5)):
        for use in (lambda v: 2 * v, lambda v: v / 2, lambda v: -v, lambda v: v + vec, lambda v: vec - v, lambda v: v.relative(0.5),
                    lambda v: v.clamp(1.0), lambda v: v.ablate(), lambda v: v @ vec, lambda v: vec.cosine(v), lambda v: v.project(vec),
                    lambda v: vec.orthogonalise([v]), lambda v: v.calibrated(model, PROMPT), lambda v: v.top_tokens(model, PROMPT),
                    lambda v: ps.effects(model, PROMPT, [vec, v], max_new_tokens=0),
                    lambda v: ps.search(model, v, lambda *_: 0.0, validation=PROMPTS[:1], test=PROMPTS[1:]),
                    lambda v: ps.evaluate.linearity(model, PROMPT, v),
                    lambda v: ps.evaluate.curve(lambda vs: ps.evaluate.kl(model, PROMPT, vs), v, [1.0])):  # fmt: skip
            with pytest.raises(ps.InvalidInput, match=r"(ablate|clamp) blocks\.1\.hook_mlp_out.*is not added, and cannot be"):
                use(v)


def test_values_that_are_no_coefficient(loaded, rng):
    model = loaded("llama", "float32")
    vec = ps.SteeringVector(unit(model, rng), 1, "mlp_out")
    for bad in (np.nan, np.inf):
        with pytest.raises(ps.InvalidInput, match="finite"):
            vec.clamp(bad)
    with pytest.raises(ps.InvalidInput, match="too large for float32"):
        model.steered(vec.clamp(1e40))
    with pytest.raises(ps.InvalidInput, match="operation"):
        dataclasses.replace(vec, operation="rotate")
    point = (0, 0, np.ones(model.d_model, np.float32), -1, np.array([[0, 9]], np.int32))
    tokens = [np.array(PROMPT, np.int32)]
    core = model._loaded.core
    with pytest.raises(ps.InvalidInput, match="coefficient is not finite"):
        core.forward(tokens, [(*point, np.nan)], [], "none")
    with pytest.raises(TypeError):
        core.forward(tokens, [(*point, "2")], [], "none")
    assert np.array_equal(core.forward(tokens, [(*point, None)], [], "last")[0], core.forward(tokens, [point], [], "last")[0])


def test_the_command_line(tmp_path, capsys):
    model, prompt, file = ps.load("demo"), "Q: 3*4\nA:", str(tmp_path / "v.safetensors")
    vec = ps.random_vectors(model, 2)[0].clamp(9.0)
    vec.save(file)
    run = ["generate", "demo", "--prompt", prompt, "--steer", file, "--max-new-tokens", "6"]
    assert main([*run, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["generations"]
    assert found["text"] == model.steered(vec).generate(prompt, max_new_tokens=6).text
    assert found["text"] != model.generate(prompt, max_new_tokens=6).text
    assert found["steering"] == ["clamp blocks.2.hook_mlp_out to 9 at all (random)"]
    for more in (["--scale", "2"], ["--relative", "2"], ["--compare"]):
        assert main([*run, *more]) == 2
        assert "is not added, and cannot be" in capsys.readouterr().err


def test_a_clamp_by_a_tiny_models_own_vector_is_rank_one():
    """x' - x is along the direction, and by the same amount whatever x was along it."""
    vec = vector(MODEL, scale=3.0, layer=1, site="resid_post")
    prompt = [BOS, 4, 8]
    x = MODEL.activations(prompt, vec.location)
    y = MODEL.steered(vec.clamp()).activations(prompt, vec.location)
    np.testing.assert_allclose(y, x + np.outer(abs(vec.scale) - x @ vec.direction, vec.direction), rtol=0, atol=1e-12)
