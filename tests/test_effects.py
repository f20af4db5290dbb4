"""ps.effects: every figure is what ps.evaluate says of the same vector alone, and random vectors get the same norms and signs."""

from __future__ import annotations

import dataclasses
import math
import pickle

import numpy as np
import pytest
from test_html import Reader
from tiny import ids, tiny

import powersteer as ps
from powersteer import evaluate
from powersteer.evaluate import effects as module
from powersteer.evaluate import target_response
from powersteer.evaluate.effects import random_vector

PROMPTS = ["abc", "what? no"]
N = 5


@pytest.fixture(scope="module")
def model():
    return tiny(n_layers=3, ropes=1)[0]  # no factors that change with the length: one pass serves prompt and continuation


@pytest.fixture(scope="module")
def vectors(model):
    near = model.jacobian(PROMPTS, 0, 2).svd(2).vectors
    return [*near, model.jacobian(PROMPTS, 1, "next_token").svd(1).vectors[0], ps.caa(model, PROMPTS[:1], PROMPTS[1:], 1)]


@pytest.fixture(scope="module")
def found(model, vectors):
    return ps.effects(model, PROMPTS, vectors, scales=(0.4, 1.5), max_new_tokens=N, tokens=["y"], n_random=2, score=lambda p, t: len(t))


def test_every_figure(model, vectors, found):
    assert len(found) == len(vectors) * 2 * 2 * 2 and len(found.random) == 3 * 2 * 2 * 2 * 2 and len(found.base) == 2
    said = [g.tokens for g in model.generate(PROMPTS, max_new_tokens=N)]
    for e in found:
        v, p = vectors[e.vector].relative(e.sign * e.scale), PROMPTS[e.prompt]
        assert (e.source, e.site, e.norm) == (v.layer, v.site, pytest.approx(abs(v.scale), rel=1e-9))
        assert e.kl_end == pytest.approx(evaluate.kl(model, [p], v).value, rel=1e-6)
        along = evaluate.kl(model, [p], v, continuation=[said[e.prompt]])
        assert e.kl_continuation == pytest.approx(along.value, rel=1e-6)
        moved = (model.steered(v)(p)[-1] - model(p)[-1]).astype(float)
        assert e.logit_change["y"] == pytest.approx(moved[ids("y")[0]] - moved.mean(), rel=1e-6, abs=1e-9)
        one = model.generate(p, max_new_tokens=N, steer=v)
        assert e.text == one.text and e.score == len(one.text)
        assert e.repetition == evaluate.repetition(one, 4).value
        assert e.perplexity == pytest.approx(evaluate.perplexity(model, [p], continuation=[one]).value, rel=1e-6)
        if v.target is None:
            assert math.isnan(e.linearity) and e.target == "caa"
        else:
            assert e.linearity == pytest.approx(evaluate.linearity(model, [p], v).value, rel=1e-5)


def test_base_and_random_vectors(model, vectors, found):
    assert [b.text for b in found.base] == [g.text for g in model.generate(PROMPTS, max_new_tokens=N)]
    assert all(b.kl_end == b.kl_continuation == b.norm == 0.0 for b in found.base)
    assert {(r.source, r.site, r.sign, round(r.norm, 9)) for r in found.random} == {
        (e.source, e.site, e.sign, round(e.norm, 9)) for e in found
    }
    fewer = ps.effects(model, PROMPTS, vectors[:1], scales=(0.4, 1.5), max_new_tokens=0, n_random=2)
    ends = {(r.rank, r.sign, r.scale, r.prompt): r.kl_end for r in found.random if r.source == 0}
    for r in fewer.random:  # depends on the seed, the site and the draw alone
        assert ends[r.rank, r.sign, r.scale, r.prompt] == pytest.approx(r.kl_end, rel=1e-6)
    other = ps.effects(model, PROMPTS, vectors[:1], max_new_tokens=0, n_random=1, seed=1)
    assert other.random[0].kl_end != fewer.random[0].kl_end


def test_random_directions_are_their_own_for_every_site_and_draw(model):
    at = [ps.SteeringVector.from_array(np.ones(model.d_model), *place) for place in ((1, "mlp_out"), (1, "attn_out"), (2, "mlp_out"))]
    rows = np.array([random_vector(like, *key).direction for like in at for key in ((0, 0), (0, 1), (1, 0))])
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-12)
    np.fill_diagonal(overlaps := np.abs(rows @ rows.T), 0)
    assert overlaps.max() < 0.999 and np.array_equal(rows[0], random_vector(at[0], 0, 0).direction)


def test_several_sites_targets_and_a_turned_vector(model):
    """Each is held against its own target, along itself; random vectors are at its own site."""
    far, near = (model.jacobian(PROMPTS, 0, target).svd(1).vectors[0] for target in (2, 1))
    beside = model.jacobian(PROMPTS, 0, 2, source_site="attn_out").svd(1).vectors[0]
    vecs = [far, near * -1, beside]
    found = ps.effects(model, PROMPTS, vecs, max_new_tokens=0, n_random=1)
    for e in found:
        v = vecs[e.vector].relative(e.sign * e.scale)
        assert e.kl_end == pytest.approx(evaluate.kl(model, [PROMPTS[e.prompt]], v).value, rel=1e-6)
        assert e.linearity == pytest.approx(evaluate.linearity(model, [PROMPTS[e.prompt]], v).value, rel=1e-6)
    some = found.where(site="attn_out")
    assert {e.vector for e in some} == {2} and {r.site for r in some.random} == {"attn_out"} and len(some.random) == 2 * 2 * 2


def test_scales_and_signs_may_be_one_or_an_array(model, vectors):
    how = {"max_new_tokens": 0, "n_random": 0}
    one = ps.effects(model, PROMPTS, vectors[0], scales=0.5, signs=-1, **how)
    assert one.to_json() == ps.effects(model, PROMPTS, vectors[0], scales=[0.5], signs=[-1], **how).to_json()
    both = ps.effects(model, PROMPTS, vectors[0], scales=np.array([0.5, 1.0]), **how)
    assert both.settings["scales"] == [0.5, 1.0] and both.settings["signs"] == [1, -1] and len(both) == 8


def test_the_same_bits_and_a_file(model, vectors, found, tmp_path):
    again = ps.effects(model, PROMPTS, vectors, scales=(0.4, 1.5), max_new_tokens=N, tokens=["y"], n_random=2, score=lambda p, t: len(t))
    assert again.to_json() == found.to_json()
    found.save(tmp_path / "e.json")
    loaded = ps.Effects.load(tmp_path / "e.json")
    assert loaded.to_json() == found.to_json() and repr(loaded) == repr(found)
    with pytest.raises(ps.NotFound):
        ps.Effects.load(tmp_path / "none.json")
    for text in ("{", "[]", '{"format": "x"}', '{"format": "powersteer-effects-1"}'):
        with pytest.raises(ps.InvalidInput, match="cannot read effects of this version"):
            ps.Effects.from_json(text)


def test_without_continuations(model, vectors):
    quick = ps.effects(model, PROMPTS, vectors[0], max_new_tokens=0, n_random=0)
    assert not quick.random and {e.text for e in quick} == {""} and all(e.score is None for e in quick)
    assert all(math.isnan(e.kl_continuation) and math.isnan(e.perplexity) and e.kl_end > 0 for e in quick)


def test_one_token_may_stand_alone(model, vectors):
    quick = ps.effects(model, PROMPTS, vectors[0], max_new_tokens=0, n_random=0, tokens="y")
    assert {tuple(e.logit_change) for e in quick} == {("y",)}


def test_a_table_is_no_record(found):
    assert found[0] is found.effects[0] and found[-1] is found.effects[-1] and found[1:3] == found.effects[1:3]
    assert max(found, key=lambda e: e.kl_end) in found
    with pytest.raises(AttributeError, match=rf"a table of {len(found)} records, .* write effects\[0\].kl_end, or ps.evaluate.summary"):
        assert found.kl_end < 1
    with pytest.raises(AttributeError, match="Effects has no attribute 'kl'"):
        assert found.kl < 1
    assert pickle.loads(pickle.dumps(found)).to_json() == found.to_json()


def test_where(found):
    some = found.where(source=0, sign=1, scale=[0.4], rank=lambda r: r > 0)
    assert len(some) == 2 and {(e.source, e.rank, e.sign, e.scale) for e in some} == {(0, 1, 1, 0.4)}
    assert {(r.source, r.sign, r.scale) for r in some.random} == {(0, 1, 0.4)} and len(some.base) == 2
    assert {e.prompt for e in found.where(prompt=1).base} == {1}
    with pytest.raises(ps.InvalidInput, match="has no 'layer'"):
        found.where(layer=0)


def test_as_a_table(found):
    pytest.importorskip("pandas")
    frame = found.to_pandas()
    assert len(frame) == len(found) + len(found.random) + 2 and "logit_change[y]" in frame
    assert set(frame.target) == {2, "next_token", "caa", "random", "base"} and len(found.to_dicts()) == len(found)


def test_vectors_without_a_norm_take_that_of_the_prompts(model):
    vec = ps.SteeringVector.from_array(np.arange(1.0, model.d_model + 1), 1, "mlp_out")
    e, _ = ps.effects(model, PROMPTS, vec, scales=[0.5], signs=[1], max_new_tokens=0, n_random=0)
    want = np.concatenate([np.linalg.norm(model.activations(p, (1, "mlp_out")), axis=1) for p in PROMPTS]).mean()
    assert e.norm == pytest.approx(0.5 * want, rel=1e-9) and e.target == "given"
    (e,) = ps.effects(model, ["a"], dataclasses.replace(vec, site_norm=7.0), scales=[0.5], signs=[1], max_new_tokens=0, n_random=0)
    assert e.norm == 3.5


@pytest.mark.parametrize(("change", "said"), [
    ({"vectors": [1]}, "one SteeringVector or more"),
    ({"signs": (0,)}, "signs are"),
    ({"signs": ()}, "signs are"),
    ({"signs": (1, 1)}, "signs are"),
    ({"signs": ([1],)}, "signs are"),
    ({"scales": ()}, "scales are"),
    ({"scales": "a"}, "a scale is 'a'"),
    ({"seed": -1}, "seed is -1"),
    ({"tokens": 5.5}, "cannot read 5.5"),
    ({"score": "yes"}, "a score is a function"),
    ({"score": lambda p, t: 1, "max_new_tokens": 0}, "max_new_tokens is 0"),
    ({"score": evaluate.LogitDifference(1, 2)}, "a score is a function"),
    ({"scales": (float("nan"),)}, "a scale is nan"),
    ({"max_new_tokens": -1}, "max_new_tokens is -1"),
    ({"n_random": True}, "n_random is True"),
    ({"tokens": ["yes"]}, "not one token"),
    ({"prompts": []}, "empty"),
    ({"score": lambda p, t: None}, "finite number"),
])  # fmt: skip
def test_refusals(model, vectors, change, said):
    how = {"prompts": PROMPTS, "vectors": vectors[:1], "max_new_tokens": 1, "n_random": 0, **change}
    with pytest.raises(ps.InvalidInput, match=said):
        ps.effects(model, **how)


def test_texts_are_scored_where_there_are_any(vectors):
    with pytest.raises(ps.InvalidInput, match="cannot score texts"):
        ps.effects(tiny(n_layers=3, ropes=1, words=False)[0], [[1, 2]], vectors[0], score=lambda p, t: 1, n_random=0)


def test_in_a_notebook(found):
    """A row for each of the first records, every text escaped."""
    first = dataclasses.replace(found.effects[0], text="<b>&")
    read = Reader(dataclasses.replace(found, effects=(first, *found.effects[1:]))._repr_html_())
    assert read.tags.count("tr") == 1 + len(found) and "b" not in read.tags and "<b>&" in read.texts
    assert repr(found) == (
        "Effects(32 of 4 vectors on 2 prompts, 48 of random vectors; scales [0.4, 1.5], signs [1, -1])"
    ) and repr(found) in read.texts
    many = dataclasses.replace(found, effects=found.effects * 2)
    assert Reader(many._repr_html_()).tags.count("tr") == 1 + 40 and "24 more" in many._repr_html_()


def test_old_calls(model, vectors):
    want = ps.effects(model, PROMPTS, vectors[0], scales=0.4, max_new_tokens=0, n_random=2)
    with pytest.warns(DeprecationWarning, match="'random' is now called 'n_random'"):
        assert ps.effects(model, PROMPTS, vectors[0], scales=0.4, max_new_tokens=0, random=2).to_json() == want.to_json()
    with pytest.raises(TypeError, match="both 'n_random' and its old name"):
        ps.effects(model, PROMPTS, vectors[0], max_new_tokens=0, random=2, n_random=2)


def test_nothing_is_computed_twice(model, vectors, monkeypatch):
    """The base is decoded once, each site's Jacobian shares one linearisation a prompt, and equal continuations are read once."""
    decoded, read, made = [], [], []
    generate, forward, linearise = module.generate_rows, module.forward_rows, target_response.linearise
    monkeypatch.setattr(module, "generate_rows", lambda m, p, steer, *a, **k: decoded.extend(steer) or generate(m, p, steer, *a, **k))
    monkeypatch.setattr(module, "forward_rows", lambda m, t, *a, **k: read.extend(x.tobytes() for x in t) or forward(m, t, *a, **k))
    monkeypatch.setattr(target_response, "linearise", lambda *a, **k: made.append(a[2]) or linearise(*a, **k))
    how = {"max_new_tokens": N, "tokens": (), "score": None, "stop": None, "seed": 0, "temperature": 0.0, "samples": 0}
    baseline, more = module.Baseline(model, PROMPTS, **how), {"scales": [0.01, 1.5], "signs": [1, -1], "n_random": 1, "progress": False}
    first = baseline.effects(vectors, **more)
    assert decoded == [None] * len(PROMPTS) and [[site.layer for site, _ in groups] for groups in made] == [[0, 1]] * len(PROMPTS)
    own = [np.append(g.prompt_tokens, g.tokens[:-1]).astype(np.int32).tobytes() for g in model.generate(PROMPTS, max_new_tokens=N)]
    assert 0 < len(read) == len(set(read)) < len(first) + len(first.random) and not {*read} & {*own}
    assert {b.text for b in first.base} & {e.text for e in first}  # some equal the base's
    again = baseline.effects(vectors, **more)
    assert decoded == [None] * len(PROMPTS) and len(read) == len(set(read)) and again.to_json() == first.to_json()
    assert first.to_json() == ps.effects(model, PROMPTS, vectors, scales=[0.01, 1.5], n_random=1, max_new_tokens=N).to_json()
