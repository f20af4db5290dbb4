"""A decoder that goes on from a forward pass along a draft gives what a forward pass and a generation give apart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_models import random_model
from test_batch_invariance import same
from test_core import core_model
from tiny import ids, tiny, vector

import powersteer as ps
from powersteer._core import _core64
from powersteer.evaluate import batched

PROMPTS = [np.array(ids(text), np.int32) for text in ("abc", "what? no", "abc", "abd")]
NEW = 6


@pytest.fixture(scope="module")
def model():
    return tiny(n_layers=3, ropes=1)[0]


@pytest.fixture(scope="module")
def steer(model):
    return [None, vector(model, 1, 2.0, 0), vector(model, 2, 2.0, 1), [vector(model, 3, 2.0, 2, "resid_pre"), vector(model, 1, 1.0, 0)]]


def decoder_of(core, prompts, room=5):
    capacity = np.array([len(p) + room for p in prompts], np.int32)
    return _core64.Decoder(core, prompts, capacity, [], 0.0, 0, 1.0, np.zeros(len(prompts), np.uint64))


def apart(model, steer, drafts, sites, stop=None):
    """(logits and activations, continuations) by the two functions that know nothing of each other."""
    full = [batched.joined(p, d[:-1]) for p, d in zip(PROMPTS, drafts, strict=True)]
    passes = list(batched.forward_rows(model, full, steer, list(map(len, PROMPTS)), sites, list(map(len, drafts))))
    return passes, batched.generate_rows(model, PROMPTS, steer, NEW, stop)


def together(model, steer, drafts, sites, stop=None):
    generated = []
    reported = []
    passes = list(batched.followed_rows(model, PROMPTS, drafts, steer, sites, NEW, stop, generated, reported.append))
    assert sum(reported) == 2 * len(PROMPTS)
    return passes, generated


def check(got, want):
    for (z, acts), (z0, acts0) in zip(got[0], want[0], strict=True):
        assert same(np.ascontiguousarray(z), np.ascontiguousarray(z0)) and acts.keys() == acts0.keys()
        assert all(same(np.ascontiguousarray(acts[site]), np.ascontiguousarray(acts0[site])) for site in acts)
    for g, g0 in zip(got[1], want[1], strict=True):
        assert (g.text, g.tokens.tolist(), g.finish_reason, g.stop, g.steering) == (
            g0.text, g0.tokens.tolist(), g0.finish_reason, g0.stop, g0.steering
        )  # fmt: skip


@pytest.mark.parametrize("most", [128, 1])
@pytest.mark.parametrize("kind", ["base", "own", "strange", "short"])
def test_it_is_both_apart(model, steer, kind, most, monkeypatch):
    """Along any draft, in one batch and in batches of one sequence."""
    drafts = {
        "base": [g.tokens for g in batched.generate_rows(model, PROMPTS, [None] * 4, NEW)],
        "own": [g.tokens for g in batched.generate_rows(model, PROMPTS, steer, NEW)],
        "strange": [np.arange(NEW, dtype=np.int32)] * 4,
        "short": [np.arange(1 + i % 2, dtype=np.int32) for i in range(4)],
    }[kind]
    sites, decoded = model._sites([(1, "mlp_out"), (2, "resid_post")]), []
    want, decode, spans = apart(model, steer, drafts, sites), batched.decode_rows, batched.spans
    monkeypatch.setattr(batched, "spans", lambda costs, budget=2**28: spans(costs, budget, most))
    monkeypatch.setattr(batched, "decode_rows", lambda d, rows: decoded.extend(r.finish_reason for r in rows) or decode(d, rows))
    check(together(model, steer, drafts, sites), want)
    assert len(decoded) == len(PROMPTS) and (kind != "own" or all(decoded))  # nothing is decoded again


def test_a_stop_within_a_draft(model, steer):
    drafts = [g.tokens for g in batched.generate_rows(model, PROMPTS, [None] * 4, NEW, stop=[])]
    stop = [int(drafts[0][2])]
    check(together(model, steer, drafts, [], stop), apart(model, steer, drafts, [], stop))


def test_rotations_that_change_within_a_draft(steer):
    """longrope's depend on the length: a cache of the longer sequence cannot serve the shorter one."""
    model, twin = tiny(n_layers=3, ropes=2)
    after = [table[3] for table in twin.spec["rope"] if len(table) > 2]
    assert any(len(p) <= n < len(p) + NEW - 1 for p in PROMPTS for n in after)
    vectors = [None if v is None else vector(model, i, 2.0, 1) for i, v in enumerate(steer)]
    drafts = [g.tokens for g in batched.generate_rows(model, PROMPTS, [None] * 4, NEW, stop=[])]
    check(together(model, vectors, drafts, []), apart(model, vectors, drafts, []))


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_a_resumed_decoder_is_one_that_was_given_the_tokens(data):
    core = core_model(random_model(data.draw(st.integers(0, 5)), ropes=1))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    prompts = [rng.integers(0, 20, data.draw(st.integers(1, 7))).astype(np.int32) for _ in range(data.draw(st.integers(1, 5)))]
    kept = np.array([data.draw(st.integers(1, len(p))) for p in prompts], np.int32)
    then = rng.integers(0, 20, len(prompts)).astype(np.int32)
    given = [np.append(p[:n], t).astype(np.int32) for p, n, t in zip(prompts, kept, then, strict=True)]
    going, fresh = decoder_of(core, prompts), decoder_of(core, given)
    cut = data.draw(st.integers(0, len(prompts)))
    for first, part in ((0, prompts[:cut]), (cut, prompts[cut:])):
        if part:
            logits, _ = going.feed(first, part, [], "all")
            for z, z0 in zip(logits, core.forward(part, [], [], "all")[0], strict=True):
                assert same(z, z0)
    going.resume(kept, then)
    for _ in range(3):
        assert going.step().tolist() == fresh.step().tolist()
        np.testing.assert_allclose(going.logits(), fresh.logits(), rtol=1e-9, atol=1e-12)


def test_refusals():
    twin = random_model(real=np.float64)
    core = core_model(twin)
    prompts = [np.array([1, 2], np.int32), np.array([3], np.int32)]
    each = lambda *numbers: np.array(numbers, np.int32)  # noqa: E731
    decoder = decoder_of(core, prompts, 2)
    for first, tokens, said in [(-1, prompts, "cannot be fed"), (1, prompts, "cannot be fed"), (3, [], "cannot be fed"),
                                (1, [prompts[0], prompts[0]], "cannot be fed"), (1, [each(1, 2, 3, 4)], "sequence 1 is full"),
                                (0, [], "no sequence"), (0, [each(10**6)], "token")]:  # fmt: skip
        with pytest.raises(ps.InvalidInput, match=said):
            decoder.feed(first, tokens, [], "last")
    with pytest.raises(ps.InvalidInput, match="sequence 0 holds 0 tokens"):
        decoder.resume(each(1, 1), each(1, 1))
    decoder.feed(0, prompts, [], "last")
    for lengths, tokens, said in [
        ((3, 1), (1, 1), "holds 2 tokens, and cannot go on after 3"), ((0, 1), (1, 1), "after 0"), ((-1, 1), (1, 1), "after 0"),
        ((2, 1), (1, 10**6), "with token 1000000"), ((2,), (1, 1), "lengths"),
    ]:  # fmt: skip
        with pytest.raises(ps.InvalidInput, match=said):
            decoder.resume(each(*lengths), each(*tokens))
    decoder.resume(each(2, 1), each(1, -1))
    assert decoder.step().tolist()[1] == -1
    with pytest.raises(ps.InvalidInput, match="that has made a step"):
        decoder.feed(0, prompts, [], "last")


def test_a_core_refuses_a_cache_of_other_rotations():
    twin = random_model(real=np.float64, ropes=2)
    after = max(table[3] for table in twin.spec["rope"] if len(table) > 2)
    decoder = decoder_of(core_model(twin), [np.ones(after + 2, np.int32)])
    decoder.feed(0, [np.ones(after + 2, np.int32)], [], "last")
    with pytest.raises(ps.InvalidInput, match=f"cannot go on after {after} tokens"):
        decoder.resume(np.array([after], np.int32), np.array([1], np.int32))
    decoder.resume(np.array([after + 1], np.int32), np.array([1], np.int32))
