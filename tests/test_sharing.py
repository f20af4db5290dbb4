"""Rows that equal a row of another sequence are computed once, and change no bit of the results."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_models import random_model, tables
from test_batch_invariance import CORES, instructions, same  # noqa: F401
from test_core import EVERYWHERE, core_model, ids

import powersteer
from powersteer.inputs.sites import SITES

MANY = st.integers(1, 12) | st.integers(25, 70)


@st.composite
def beginnings(draw, n_vocab):
    """Prompts most of which begin like another one, or equal it."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    prompts = [rng.integers(0, n_vocab, draw(MANY)).astype(np.int32)]
    for _ in range(draw(st.integers(1, 5))):
        other = draw(st.sampled_from(prompts))
        kept = other[: draw(st.integers(0, len(other)))] if draw(st.booleans()) else other
        new = draw(st.integers(0 if len(kept) else 1, 5)) if draw(st.booleans()) or not len(kept) else 0
        prompts.append(np.concatenate([kept, rng.integers(0, n_vocab, new)]).astype(np.int32))
    return prompts


@st.composite
def interventions(draw, table, dtype, n):
    """Up to four for some of n sequences or for all: few vectors, so that several are equal."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    vectors = [rng.normal(size=table["d_model"]).astype(dtype) for _ in range(2)]
    sites = [i for i, name in enumerate(SITES) if name != "resid_mid" or not table["parallel"]]
    ranges = st.sampled_from([EVERYWHERE, np.array([[0, 1]], np.int32), np.array([[3, 5], [30, 34]], np.int32), ids().reshape(0, 2)])
    return [
        (draw(st.integers(0, table["n_layers"] - 1)), draw(st.sampled_from(sites)), draw(st.sampled_from(vectors)).copy(),
         draw(st.integers(-1, n - 1)), draw(ranges))
        for _ in range(draw(st.integers(0, 4)))
    ]  # fmt: skip


def of_sequence(steer, i):
    """The interventions of sequence i, for it alone."""
    return [(layer, site, vector, 0, ranges) for layer, site, vector, s, ranges in steer if s in (-1, i)]


def rows_that_differ(spec, prompts, steer):
    """Number of different rows, summed over layers, by the definition: what a row depends on."""
    total = 0
    for layer in range(spec["n_layers"]):
        rows = set()
        for i, prompt in enumerate(prompts):
            before = [tuple(len(r) == 4 and len(prompt) > r[3] for r in spec["rope"])]
            for p, token in enumerate(prompt.tolist()):
                here = [(at, site, vector.tobytes()) for at, site, vector, _, ranges in of_sequence(steer, i)
                        if at <= layer and any(a <= p < b for a, b in ranges.tolist())]  # fmt: skip
                before.append((token, *here))
                rows.add(tuple(before))
        total += len(rows)
    return total


def random_twin(data, table, dtype):
    table |= {"n_ctx": 128, "window": data.draw(st.sampled_from([0, 3, 33])), "n_layers": data.draw(st.integers(1, 4))}
    return random_model(**table, real=np.dtype(dtype))


@given(table=tables(), dtype=st.sampled_from(list(CORES)), data=st.data())
@settings(max_examples=60, deadline=None)
def test_forward(instructions, table, dtype, data):  # noqa: F811
    """Logits, any number of them, and activations are those of each sequence alone; only rows that differ are computed."""
    twin = random_twin(data, table, dtype)
    prompts = data.draw(beginnings(table["n_vocab"]))
    steer = data.draw(interventions(table, dtype, len(prompts)))
    counts = np.array([data.draw(st.integers(0, len(p))) for p in prompts], np.int32)
    places = [(layer, i) for layer in range(table["n_layers"]) for i, s in enumerate(SITES) if s != "resid_mid" or not table["parallel"]]
    model, other = core_model(twin, CORES[dtype]), core_model(twin, CORES[dtype], 1)
    logits, acts = model.forward(prompts, steer, places, "all")
    assert model.rows_computed == rows_that_differ(twin.spec, prompts, steer)
    some, _ = model.forward(prompts, steer, [], counts)
    last, _ = model.forward(prompts, steer, [], "last")
    for i, prompt in enumerate(prompts):
        alone, alone_acts = other.forward([prompt], of_sequence(steer, i), places, "all")
        assert same(alone[0], logits[i]) and same(alone[0][len(prompt) - counts[i] :], some[i]) and same(alone[0][-1:], last[i])
        assert all(same(a, b) for a, b in zip(alone_acts[0], acts[i], strict=True))


@given(table=tables(), dtype=st.sampled_from(list(CORES)), data=st.data())
@settings(max_examples=30, deadline=None)
def test_decoding(instructions, table, dtype, data):  # noqa: F811
    """A prompt's keys and values, and so every token and logit, are those of the sequence alone."""
    table["ropes"] = 1  # see test_batch_invariance.py
    twin = random_twin(data, table, dtype)
    prompts = data.draw(beginnings(table["n_vocab"]))[:4]
    steer = data.draw(interventions(table, dtype, len(prompts)))
    model = core_model(twin, CORES[dtype])

    def decoded(prompts, steer, seeds):
        capacity = np.array([len(p) + 4 for p in prompts], np.int32)
        decoder = CORES[dtype].Decoder(model, prompts, capacity, steer, 0.9, 0, 1.0, np.array(seeds, np.uint64))
        steps = [(decoder.step(), decoder.logits())]
        computed = decoder.rows_computed
        return steps + [(decoder.step(), decoder.logits()) for _ in range(4)], computed

    among, computed = decoded(prompts, steer, range(len(prompts)))
    assert computed == rows_that_differ(twin.spec, prompts, steer)
    for i, prompt in enumerate(prompts):
        for (token, row), (tokens, rows) in zip(decoded([prompt], of_sequence(steer, i), [i])[0], among, strict=True):
            assert token[0] == tokens[i] and same(row[0], rows[i])


@pytest.mark.parametrize("window", [0, 100])
def test_beyond_a_partial_sum_of_keys(rng, window):
    """Sequences that part where a sum over keys is divided, or near: at 256 keys, and at those of a window."""
    twin = random_model(3, real=np.float32, n_ctx=1024, window=window, ropes=1)
    prompt = rng.integers(0, 23, 640).astype(np.int32)
    prompts = [prompt] + [np.concatenate([prompt[:n], prompt[:70]]) for n in (1, 31, 255, 256, 257, 300, 512, 600)]
    logits, _ = core_model(twin, CORES["float32"]).forward(prompts, [], [], "all")
    for p, got in zip(prompts, logits, strict=True):
        assert same(core_model(twin, CORES["float32"]).forward([p], [], [], "all")[0][0], got)


@pytest.mark.parametrize("n", [3, 30])
def test_the_first_of_equal_sequences_leaves_them(n):
    """Steered from different layers on: those that are still equal stay together, whichever came first."""
    twin = random_model(5, n_layers=4, ropes=1)
    prompt, vector = ids(*range(20)), np.ones(12)
    steer = [(1, 4, vector, 0, EVERYWHERE), (3, 2, vector * 2, 1, EVERYWHERE)]
    model = core_model(twin)
    logits, _ = model.forward([prompt] * n, steer, [], "last")
    assert model.rows_computed == 20 * (1 + 2 + 2 + 3)
    assert all(same(x, logits[2]) for x in logits[2:]) and not same(logits[0], logits[2]) and not same(logits[1], logits[2])


def test_where_it_is_not_finite():
    """The position is that of the sequence, also behind rows of another one."""
    twin = random_model(9, n_layers=3)
    prompts, bad = [ids(1, 2, 3, 4, 5, 6), ids(1, 2, 3, 4, 7, 8)], np.full(12, np.inf)
    for sequence, p, name in ((1, 5, "position 5"), (0, 2, "position 2"), (1, 3, "position 3"), (-1, 4, "position 4")):
        with pytest.raises(powersteer.PowersteerError, match=f"layer 1 at {name}"):
            core_model(twin).forward(prompts, [(1, 3, bad, sequence, np.array([[p, p + 1]], np.int32))], [], "none")


@pytest.mark.parametrize("rows, message", [
    (np.array([1], np.int32), "rows must be a contiguous array of 2"),
    (np.array([1.0, 1.0]), "rows must be a contiguous array of 2"),
    (np.array([1, 4], np.int32), r"rows\[1\] is 4; the prompt has 3 tokens"),
    (np.array([-1, 1], np.int32), r"rows\[0\] is -1"),
])  # fmt: skip
def test_numbers_of_rows_that_do_not_fit(rows, message):
    with pytest.raises(powersteer.InvalidInput, match=message):
        core_model(random_model()).forward([ids(1, 2), ids(1, 2, 3)], [], [], rows)
