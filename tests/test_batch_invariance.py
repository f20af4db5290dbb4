"""A sequence's numbers have the same bits alone and among others: with any number of rows and threads, any layout and
dtype of the weights, by every instruction set that this machine has."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from c_core import DTYPES, Core, Weight
from hypothesis import given, settings
from hypothesis import strategies as st
from random_models import random_model, tables
from test_blocks import models as block_models
from test_core import EVERYWHERE, core_model, random_prompts
from test_gemm_packed import SCRATCH, TYPES, Call, stored
from tiny import tiny, vector

import powersteer as ps
from powersteer._core import _core32, _core64
from powersteer.inputs.sites import SITES

SETS = _core32.instruction_sets()
CORES = {"float32": _core32, "float64": _core64}
ROWS = st.integers(1, 6) | st.integers(7, 30) | st.integers(180, 260)


@pytest.fixture(params=SETS, scope="module")
def instructions(request):
    used = _core32.instruction_set()
    for core in CORES.values():
        core.use_instructions(request.param)
    yield request.param
    for core in CORES.values():
        core.use_instructions(used)


@pytest.fixture(scope="module", params=list(DTYPES))
def kernels(request, tmp_path_factory):
    return Core(tmp_path_factory.mktemp("invariance"), request.param)


def same(got, want):
    return got.dtype == want.dtype and got.tobytes() == want.tobytes()


@pytest.mark.long  # it compiles C
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_few_rows_and_many(kernels, data):
    """A row alone against many: of gemm_packed.h over both layouts of a weight, and of gemv.h."""
    draw = data.draw
    M, N, K = draw(st.integers(1, 60)), draw(st.integers(1, 70)), draw(st.integers(0, 80) | st.integers(240, 1700))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    name = draw(st.sampled_from(list(TYPES)))
    W, _ = stored(rng.standard_normal((N, K)), name)
    X = rng.standard_normal((M, K)).astype(kernels.dtype)
    bias = rng.standard_normal(N).astype(kernels.dtype) if draw(st.booleans()) else None
    pointer = None if bias is None else bias.ctypes.data
    scratch, size = np.empty(SCRATCH, kernels.dtype), ctypes.c_size_t

    def packed(kind, X, B):
        Y = np.full((len(X), N), np.nan, kernels.dtype)
        call = Call(len(X), N, K, X.ctypes.data, K, TYPES[name], B.ctypes.data, B.strides[1] // B.itemsize, B.strides[0] // B.itemsize,
                    pointer, 0, Y.ctypes.data, N)  # fmt: skip
        kernels.lib.gemm_packed(kind, ctypes.byref(call), kernels.pointer(scratch))
        return Y

    def gemv(kind, X, o, n):
        Y = np.full((len(X), n + 1), 7, kernels.dtype)
        weight = Weight(W.ctypes.data, TYPES[name], N, K, N, 0, K, 1)
        kernels.lib.gemv(kind, ctypes.byref(weight), size(o), size(n), size(len(X)), kernels.pointer(X), size(K),
                         ctypes.c_void_p(bias[o:].ctypes.data if pointer else None), kernels.pointer(Y), size(n + 1),
                         kernels.pointer(scratch))  # fmt: skip
        assert np.all(Y[:, n] == 7)
        return Y[:, :n]

    for kind in range(kernels.lib.cpu_best() + 1):
        whole, dots = packed(kind, X, W), gemv(kind, X, 0, N)
        assert same(packed(kind, X, np.asfortranarray(W)), whole)
        bound = 2 * K * np.finfo(kernels.dtype).eps * (1 + np.abs(whole).max())  # of sums in two orders
        np.testing.assert_allclose(dots, whole, rtol=0, atol=bound)
        for n in (1, 2, draw(st.integers(1, M))):
            first, o = draw(st.integers(0, max(M - n, 0))), draw(st.integers(0, N - 1))
            part = np.ascontiguousarray(X[first : first + n])
            assert same(packed(kind, part, W), whole[first : first + n])
            assert same(gemv(kind, part, o, N - o), dots[first : first + n, o:])


@pytest.mark.long  # it compiles C
@given(K=st.integers(0, 90), n=st.integers(1, 200), beyond=st.integers(0, 9), seed=st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_a_row_times_the_rows_of_a_matrix(kernels, K, n, beyond, seed):
    rng, size = np.random.default_rng(seed), ctypes.c_size_t
    x, W = (rng.standard_normal(shape).astype(kernels.dtype) for shape in [K, (K, n + beyond)])
    for kind in range(kernels.lib.cpu_best() + 1):
        y = np.full(n + 1, 7, kernels.dtype)
        kernels.lib.gemv_t(kind, size(K), size(n), kernels.pointer(x), kernels.pointer(W), size(n + beyond), kernels.pointer(y))
        error = 2 * K * np.finfo(kernels.dtype).eps * np.abs(x) @ np.abs(W[:, :n])
        assert y[n] == 7
        assert np.all(np.abs(y[:n] - x.astype(float) @ W[:, :n].astype(float)) <= error)


def turned(twin):
    """The same weights with their inputs far apart, as GPT-2's files have them."""
    def turn(holder):
        for key, value in holder.items():
            if isinstance(value, np.ndarray) and value.ndim == 2:
                holder[key] = np.asfortranarray(value)
            elif key == "experts":
                for expert in value:
                    turn(expert)

    for layer in twin.layers:
        turn(layer)
    turn(twin.top)
    return twin


@given(table=tables(), lengths=st.lists(ROWS, min_size=2, max_size=4), data=st.data())
@settings(max_examples=25, deadline=None)
def test_any_model(instructions, table, lengths, data):
    dtype = data.draw(st.sampled_from(list(CORES)))
    table |= {"n_ctx": 512, "d_model": data.draw(st.sampled_from([7, 33, 300])), "d_ff": data.draw(st.sampled_from([5, 64, 270]))}
    twin = random_model(**table, real=np.dtype(dtype), stored=data.draw(st.sampled_from([None, np.float16, "bfloat16"])))
    if data.draw(st.booleans()):
        twin = turned(twin)
    rng = np.random.default_rng(table["seed"])
    prompts = random_prompts(rng, table["n_vocab"], lengths)
    places = [(table["n_layers"] - 1, SITES.index(s)) for s in ("attn_out", "mlp_out", "resid_post")]
    steer = [(0, SITES.index("resid_pre"), rng.normal(size=table["d_model"]).astype(dtype), -1, EVERYWHERE)]
    model, other = (core_model(twin, CORES[dtype], threads) for threads in data.draw(st.sampled_from([(1, 2), (2, 3), (2, 2)])))
    logits, acts = model.forward(prompts, steer, places, "all")
    last, _ = model.forward(prompts, steer, [], "last")
    for i, prompt in enumerate(prompts):
        alone, alone_acts = other.forward([prompt], steer, places, "all")
        assert same(alone[0], logits[i])
        assert same(last[i].reshape(-1), logits[i][-1])
        assert all(same(a, b) for a, b in zip(alone_acts[0], acts[i], strict=True))

    def decoded(chosen):
        seeds = np.array([5 + i for i in chosen], np.uint64)
        capacity = np.array([lengths[i] + 4 for i in chosen], np.int32)
        decoder = CORES[dtype].Decoder(model, [prompts[i] for i in chosen], capacity, steer, 0.9, 0, 1.0, seeds)
        return [(decoder.step(), np.array(decoder.logits())) for _ in range(4)]

    among = decoded(range(len(prompts)))
    for i in range(len(prompts)):
        for (token, row), (tokens, rows) in zip(decoded([i]), among, strict=True):
            assert token[0] == tokens[i] and same(row[0], rows[i])


@pytest.mark.parametrize("dtype", list(CORES))
@pytest.mark.parametrize("kind", [None, np.float16, "bfloat16", "Q4_1", "Q4_K", "Q8_0", "F8_E4M3", "MXFP4_APART"])
def test_a_step_of_any_number_of_rows(instructions, dtype, kind):
    """A row's logits alone and among others: each bit"""
    core = CORES[dtype]
    if isinstance(kind, str) and kind != "bfloat16":
        model = block_models([kind], dtype)[0]
    else:
        twin = random_model(1, real=np.dtype(dtype), stored=kind, d_model=130, d_ff=900, n_heads=2, n_kv_heads=1, head_dim=65, rope_dim=4)
        model = core_model(twin, core, 2)
    prompts = random_prompts(np.random.default_rng(4), 23, [1 + i % 3 for i in range(100)])

    def decoded(chosen):
        capacity = np.array([len(prompts[i]) + 3 for i in chosen], np.int32)
        decoder = core.Decoder(model, [prompts[i] for i in chosen], capacity, [], 0.9, 0, 1.0, np.array(chosen, np.uint64))
        return [(decoder.step(), np.array(decoder.logits())) for _ in range(3)]

    for i in (0, 37, 99):
        alone = decoded([i])
        for rows in (2, 4, 5, 7, 16, 40, 100):
            at = rows // 3
            for (token, row), (tokens, logits) in zip(alone, decoded([(i - at + j) % 100 for j in range(rows)]), strict=True):
                assert token[0] == tokens[at] and same(row[0], logits[at]), (i, rows)


@given(table=tables(), columns=st.integers(2, 9), data=st.data())
@settings(max_examples=15, deadline=None)
def test_a_column_of_a_jacobian(instructions, table, columns, data):
    """J v alone and in a block; the transpose promises nothing, as its products go through the BLAS."""
    dtype = data.draw(st.sampled_from(list(CORES)))
    table |= {"d_model": data.draw(st.sampled_from([7, 300]))}
    twin = random_model(**table, real=np.dtype(dtype))
    prompts = random_prompts(np.random.default_rng(table["seed"]), table["n_vocab"], (3, 11))
    rows = [np.arange(len(p), dtype=np.int32) for p in prompts]
    last = (table["n_layers"] - 1, SITES.index("resid_post"))
    J = CORES[dtype].Jacobian(core_model(twin, CORES[dtype]), prompts, [], (0, SITES.index("resid_pre")), last, rows, rows, False)
    V = np.random.default_rng(columns).normal(size=(columns, table["d_model"])).astype(dtype)
    together = J.apply(V)
    for i in range(columns):
        assert same(J.apply(V[i : i + 1])[0], together[i])


@pytest.mark.parametrize("dtype", list(DTYPES))
def test_the_public_calls(instructions, dtype, rng):
    """A prompt, a generation and its steering, in lists of any length."""
    model, _ = tiny(dtype, threads=2, n_layers=2, d_model=300, d_ff=310, n_ctx=512, norms=("norm1", "norm2"))
    prompts = [rng.integers(0, 256, n).tolist() for n in (1, 3, 4, 5, 40, 220)]
    steer = [None, vector(model, 1), vector(model, 2), None, vector(model, 3), None]
    site = (1, "attn_out")
    logits, acts = model(prompts), model.activations(prompts, site)
    options = {"max_new_tokens": 5, "temperature": 1.1, "stop": []}
    out = model.generate(prompts[2:], steer=steer[2:], seed=9, **options)
    for i, prompt in enumerate(prompts):
        assert same(model(prompt), logits[i]) and same(model(prompts[: i + 1])[i], logits[i])
        assert same(model.activations(prompt, site), acts[i])
    for i, prompt in enumerate(prompts[2:]):
        alone = model.generate([prompt], steer=[steer[2 + i]], seed=[9 + i], **options)[0]
        assert alone.tokens.tolist() == out[i].tokens.tolist()
    vectors = [v for v in steer if v is not None]
    few, all_ = (ps.effects(model, prompts[2:4], v, scales=1.0, max_new_tokens=2, n_random=0) for v in (vectors[:1], vectors))
    assert [(e.kl_end, e.kl_continuation, e.text) for e in few] == [(e.kl_end, e.kl_continuation, e.text) for e in all_ if e.vector == 0]
