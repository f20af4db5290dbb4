"""The choice of a token from given logits: against a sort in NumPy, the sets that transformers keeps, and the frequencies
of the distribution. The model says whatever its head's bias is."""

from __future__ import annotations

import time

import numpy as np
import pytest
import reference
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import torch, transformers
from random_models import random_model

from powersteer._core import _core32, _core64

CORES = {np.float64: _core64, np.float32: _core32}
PART = 16384  # tokens of a row that are one task in csrc/model/sample.c


def uniform(seed):
    """The first number of the stream of `seed`: Philox 2x64-10 (Salmon et al. 2011), in Python's integers."""
    mask, key, x0, x1 = 2**64 - 1, int(seed), 0, 0
    for _ in range(10):
        product = 0xD2B74407B1CE6E93 * x0
        x0, x1 = product >> 64 ^ key ^ x1, product & mask
        key = key + 0x9E3779B97F4A7C15 & mask
    return (x0 >> 11) * 2.0**-53


def speaker(logits, threads=2):
    """A core model whose logits are these after any prompt."""
    real = logits.dtype.type
    twin = random_model(0, real=real, n_layers=1, n_vocab=len(logits), scale=0.0, head_bias=True, ropes=1)
    twin.top["lm_head"][:] = 0
    twin.top["lm_head_bias"] = logits
    return CORES[real].Model(twin.spec, twin.layers, twin.top, threads)


def draw(logits, seeds, temperature, top_k=0, top_p=1.0, threads=2):
    """(len(seeds),) one token of each seed."""
    n, prompt = len(seeds), np.zeros(1, np.int32)
    decoder = CORES[logits.dtype.type].Decoder(
        speaker(logits, threads), [prompt] * n, np.full(n, 2, np.int32), [], float(temperature), top_k, float(top_p),
        np.asarray(seeds, np.uint64),
    )  # fmt: skip
    tokens = decoder.step()
    assert np.array_equal(decoder.logits(), np.tile(logits, (n, 1)))
    return tokens


def check(logits, seeds, temperature, top_k=0, top_p=1.0):
    """Every token is the one at u in the running sum of the kept probabilities, or within rounding of it."""
    order = np.argsort(-logits.astype(np.float64), kind="stable")
    rank = np.argsort(order)
    kept = logits.astype(np.float64)[order][: top_k or None]
    with np.errstate(over="ignore"):  # at a temperature of almost 0
        weight = np.exp((kept - kept[0]) / temperature)
    edges = np.concatenate([[0], np.cumsum(weight)]) / weight.sum()
    nucleus = edges[np.argmax(edges[1:] >= top_p) + 1] if top_p < 1 else 1.0
    error = 1e-12 if logits.dtype == np.float64 else 3e-6
    for token, seed in zip(draw(logits, seeds, temperature, top_k, top_p).tolist(), seeds, strict=True):
        assert rank[token] < len(kept), f"token {token} is beyond top_k"
        low, high = edges[rank[token]], edges[rank[token] + 1]
        assert low < high and low < nucleus + error, f"token {token} is not in the nucleus"
        assert low - error <= uniform(seed) * nucleus <= high + error


def geometric(n):
    """Each half as far from the largest as the one before: no interval of equal width separates them."""
    return -(0.5 ** (np.arange(n) % 120))


KINDS = {
    "normal": lambda g, n: g.normal(size=n),
    "peaked": lambda g, n: 8 * g.normal(size=n),
    "flat": lambda g, n: 1e-3 * g.normal(size=n),
    "equal": lambda g, n: np.full(n, 3.25),
    "ties": lambda g, n: g.integers(-3, 3, n).astype(float),
    "two": lambda g, n: np.where(np.arange(n) % 3 == 1, 0.5, -0.5),
    "outlier": lambda g, n: np.where(np.arange(n) == n // 2, 40, g.normal(size=n)),
    "outlier below": lambda g, n: np.where(np.arange(n) == n // 2, -1e6, g.normal(size=n)),
    "geometric": lambda g, n: g.permutation(geometric(n)),
    "far apart": lambda g, n: g.normal(size=n) * 10.0 ** g.integers(-20, 20, n),
    "ends of the range": lambda g, n: np.where(g.integers(0, 2, n) == 1, 3e38, -3e38) * g.uniform(0.5, 1, n),
    "denormal": lambda g, n: g.integers(0, 99, n) * 1.5e-45,
}  # fmt: skip


@pytest.mark.parametrize("real", CORES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 2, 300, PART + 1])
def test_the_law_of_a_draw(kind, n, real, rng):
    """As a sort of all tokens would choose, whatever the logits and the temperature."""
    logits = KINDS[kind](rng, n).astype(real)
    for temperature, top_k, top_p in [
        (1, 0, 1), (1, 0, 0.9), (0.3, 0, 0.5), (1, 0, 1e-9), (1, 0, 1 - 1e-9), (1, min(n, 40), 1), (2, n // 2, 0.95),
        (1e-6, 0, 0.9), (1e6, 0, 0.3), (1e-300, 0, 1), (1e308, 0, 0.7), (1, n, 0.9), (5, n - 1, 1), (1, n + 1, 1),
    ]:  # fmt: skip
        if real is np.float32 and (kind, temperature) in (("ends of the range", 1e308), ("denormal", 1e-300)):
            continue  # 1 / temperature is beyond float
        check(logits, rng.integers(0, 2**63, 10).tolist(), temperature, top_k, top_p)


@given(st.lists(st.integers(-40, 40), min_size=1, max_size=90), st.sampled_from([1e-3, 0.4, 1.0, 7.0]),
       st.integers(0, 90), st.floats(1e-6, 1), st.integers(0, 2**63))  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_any_small_vocabulary(values, temperature, top_k, top_p, seed):
    check(np.array(values) / 8, [seed + i for i in range(6)], temperature, top_k, top_p)


EXTREME = sorted(range(50_000), key=uniform)[-12:]  # seeds that draw the last tokens of the nucleus


@pytest.mark.parametrize("temperature", [0.05, 0.7, 1.0, 3.0, 50.0])
@pytest.mark.parametrize("top_p", [1e-6, 0.1, 0.5, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("top_k", [0, 1, 60])
def test_what_is_kept_is_what_transformers_keeps(temperature, top_p, top_k, kept, rng):
    """The draws reach the last of the kept tokens, and none beyond."""
    logits = 3 * rng.normal(size=200)

    def ask():
        left = torch.from_numpy(logits)[None]
        for warper in [transformers.TemperatureLogitsWarper(temperature), *([transformers.TopKLogitsWarper(top_k)] if top_k else []),
                       *([transformers.TopPLogitsWarper(top_p)] if top_p < 1 else [])]:  # fmt: skip
            left = warper(None, left)
        return torch.softmax(left, -1)[0].numpy()

    p = kept(ask)
    left = np.flatnonzero(p)
    order = np.argsort(-logits, kind="stable")[: len(left)]
    assert set(order) == set(left)
    below = np.cumsum(p[order]) - p[order]
    seeds = [*EXTREME, *rng.integers(0, 2**63, 600).tolist()]
    want = [order[np.searchsorted(below, uniform(s), "right") - 1] for s in seeds]
    assert draw(logits, seeds, temperature, top_k, top_p).tolist() == want
    assert order[-1] in want or p[order[-1]] < 1e-4


@pytest.mark.parametrize("how", [{}, {"top_p": 0.8}, {"top_k": 12}, {"top_k": 30, "top_p": 0.9}])
@pytest.mark.parametrize("real", CORES)
def test_frequencies(how, real, rng):
    """Pearson's chi-square of 8,000 draws."""
    logits = (1.5 * rng.normal(size=50)).astype(real)
    p = reference.sampling(logits.astype(np.float64), 1.3, **how)
    drawn = np.bincount(draw(logits, rng.integers(0, 2**63, 8_000), 1.3, **how), minlength=50)
    assert not drawn[p == 0].any()
    assert scipy.stats.chisquare(drawn[p > 0], 8_000 * p[p > 0] / p.sum()).pvalue > 1e-4


@pytest.mark.parametrize("how", [(0.0, 0, 1.0), (1.0, 0, 1.0), (1.0, 0, 0.9), (0.8, 3000, 0.9)])
def test_threads_and_other_rows_change_nothing(how, rng):
    """A vocabulary of several parts: each row alone on one thread, and all of them on up to five."""
    logits = rng.normal(size=2 * PART + 77).astype(np.float32)
    seeds = rng.integers(0, 2**63, 9).tolist()
    alone = [draw(logits, [seed], *how, threads=1)[0] for seed in seeds]
    assert how[0] == 0 or len(set(alone)) > 6
    for threads in (1, 2, 5):
        assert draw(logits, seeds, *how, threads=threads).tolist() == alone
        assert draw(logits, seeds[::-1], *how, threads=threads).tolist() == alone[::-1]


@pytest.mark.parametrize("first", [0, 1, 63, PART - 1, PART, 2 * PART + 5])
def test_the_first_of_the_largest_logits(first, rng):
    logits = rng.uniform(-2, -1, 2 * PART + 9)
    logits[[first, *rng.integers(first, len(logits), 5)]] = -0.5
    for how in [(0,), (1, 1), (1, 0, 1e-9), (1e-9, 1), (0.5, 5, 1e-5)]:
        assert draw(logits, [1, 2], *how).tolist() == [first, first]


def test_each_step_draws_anew(rng):
    """The n-th token of a sequence takes the n-th number of its stream."""
    decoder = _core64.Decoder(speaker(rng.normal(size=400)), [np.zeros(1, np.int32)] * 2, np.full(2, 9, np.int32), [], 1.0,
                              0, 0.95, np.array([3, 4], np.uint64))  # fmt: skip
    steps = np.array([decoder.step() for _ in range(8)]).T
    assert all(len(set(row)) > 3 for row in steps.tolist()) and steps[0].tolist() != steps[1].tolist()


@pytest.mark.slow
def test_a_draw_costs_little_beside_a_step(rng):
    """150,000 tokens, width 128: a sort of the vocabulary takes several times as long as the rest of the step. Processor
    time of one thread, steps by turns, the fastest of each, printed."""
    twin = random_model(0, real=np.float32, n_vocab=150_000, d_model=128, d_ff=512, n_layers=2, ropes=1)
    model = _core32.Model(twin.spec, twin.layers, twin.top, 1)
    hows = {"greedy": (0.0, 0, 1.0), "temperature": (1.0, 0, 1.0), "top_p": (1.0, 0, 0.9), "top_k": (1.0, 50, 0.9)}
    prompt, seconds = np.zeros(3, np.int32), {name: [] for name in hows}
    decoders = {
        name: _core32.Decoder(model, [prompt], np.full(1, 50, np.int32), [], *how, np.zeros(1, np.uint64))
        for name, how in hows.items()
    }
    for _ in range(40):
        for name, decoder in decoders.items():
            started = time.thread_time()
            decoder.step()
            seconds[name].append(time.thread_time() - started)
    for name, times in seconds.items():
        ratio = min(times) / min(seconds["greedy"])
        print(f"{name}: {1e3 * min(times):.2f} ms, {ratio:.2f} of greedy")
        assert ratio < 1.3


