"""Weights of blocks: their numbers against the gguf library, PyTorch and transformers, to the bit, and products with them
against products with the decoded weights; by every instruction set that this machine has."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from c_core import Core, Weight
from hypothesis import given, settings
from hypothesis import strategies as st
from random_blocks import decoded, random_blocks
from random_models import random_model
from test_core import EVERYWHERE, random_prompts

from powersteer._core import _core32, _core64
from powersteer.errors import InvalidInput
from powersteer.inputs.sites import SITES

CORES = {"float32": _core32, "float64": _core64}
TYPES = _core32.BLOCK_TYPES
GGUF = [name for name, (_, _, factor_bytes) in TYPES.items() if not factor_bytes]
SETS = _core32.instruction_sets()
# zeros, the smallest and largest subnormal numbers, the smallest and largest normal ones, infinities, NaN
EXTREME = np.array([0, 0x8000, 1, 0x8001, 0x3FF, 0x83FF, 0x400, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00, 0x7E00, 0xFE00], np.uint16)
RUN = _core32.BLOCK_RUN


@pytest.fixture(params=SETS, scope="module")
def instructions(request):
    used = _core32.instruction_set()
    for core in CORES.values():
        core.use_instructions(request.param)
    yield request.param
    for core in CORES.values():
        core.use_instructions(used)


def oracle(blocks, n_in):
    """The numbers by programs that nobody here wrote"""
    name, data, factors, run = blocks
    if name == "F8_E4M3":
        torch = pytest.importorskip("torch")
        factor = torch.from_numpy(factors).repeat_interleave(run, 1)[:, :n_in]
        return (torch.from_numpy(data).view(torch.float8_e4m3fn).float() * factor).numpy()
    if name == "MXFP4_APART":
        torch = pytest.importorskip("torch")
        mxfp4 = pytest.importorskip("transformers.integrations.mxfp4")
        packed = torch.from_numpy(data.reshape(1, len(data), -1, 16).copy())
        return mxfp4.convert_moe_packed_tensors(packed, torch.from_numpy(factors[None].copy()), dtype=torch.float32)[0].T.numpy()
    gguf = pytest.importorskip("gguf")
    with np.errstate(all="ignore"):
        return gguf.dequantize(np.ascontiguousarray(data), gguf.GGMLQuantizationType[name])


def assert_same_bits(got, want):
    """The bits of every number; of a NaN nothing else."""
    assert got.dtype == want.dtype == np.float32 and got.shape == want.shape
    nan = np.isnan(want)
    assert np.array_equal(np.isnan(got), nan)
    assert np.array_equal(got.view(np.uint32)[~nan], np.ascontiguousarray(want).view(np.uint32)[~nan])


# ---- numbers


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("dtype", CORES)
@pytest.mark.parametrize("factors", [None, EXTREME, np.arange(1 << 16, dtype=np.uint16)], ids=["usual", "extreme", "any"])
def test_numbers(instructions, dtype, name, factors):
    blocks = random_blocks(name, 150, 768, np.random.default_rng(3), factors)
    assert_same_bits(decoded(blocks, 768, CORES[dtype]), oracle(blocks, 768))


@pytest.mark.parametrize("name", ["MXFP4", "MXFP4_APART"])
def test_every_power_and_level_of_fp4(instructions, name):
    """All 256 exponents, from the subnormal numbers to what the type cannot hold, with all pairs of levels"""
    pairs = np.tile(np.arange(256, dtype=np.uint8).reshape(16, 16), (256, 1, 1))
    powers = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 16, 1)
    if name == "MXFP4":
        blocks = (name, np.concatenate([powers[..., None], pairs], axis=2).reshape(256, -1), None, 0)
    else:
        blocks = (name, pairs.reshape(256, -1), powers, 32)
    assert_same_bits(decoded(blocks, 512), oracle(blocks, 512))


@pytest.mark.parametrize("factor", [1.0, -0.0, 3e38, 1e-45, np.inf, np.nan])
def test_every_number_of_e4m3(instructions, factor):
    blocks = ("F8_E4M3", np.arange(256, dtype=np.uint8)[None], np.full((1, 2), factor, np.float32), 128)
    assert_same_bits(decoded(blocks, 256), oracle(blocks, 256))


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_rows_apart(instructions, data):
    """Rows of any length with any stride, also backwards"""
    draw, core = data.draw, CORES[data.draw(st.sampled_from(list(CORES)))]
    name = draw(st.sampled_from(list(TYPES)))
    numbers, size, _ = TYPES[name]
    unit = max(numbers, RUN)
    n_in, more = unit * draw(st.integers(1, 9)), unit * draw(st.integers(0, 2))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    wide = random_blocks(name, draw(st.integers(1, 9)), n_in + more, rng, EXTREME)
    step, start = draw(st.sampled_from([1, 2, -1, -3])), draw(st.integers(0, more // unit)) * unit
    run = wide[3] or 1
    start -= start % (run * unit // np.gcd(run, unit)) if wide[3] else 0
    first, row = start // numbers * size, n_in // numbers * size
    factors = None if wide[2] is None else wide[2][::step, start // run :]
    blocks = (name, wide[1][::step, first : first + row], factors, wide[3])
    assert_same_bits(decoded(blocks, n_in, core), decoded(wide, n_in + more, core)[::step, start : start + n_in])


DECODER = ctypes.CFUNCTYPE(
    None, ctypes.POINTER(Weight), ctypes.c_size_t, ctypes.c_size_t, ctypes.c_size_t, ctypes.POINTER(ctypes.c_float)
)


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    kernels = Core(tmp_path_factory.mktemp("blocks"), "float32")
    kernels.lib.blocks_decoder.restype = ctypes.c_void_p
    return kernels


@pytest.mark.long
@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_parts_of_rows(kernels, data):
    """Any whole runs of a row, and nothing beyond them"""
    draw = data.draw
    name = draw(st.sampled_from(list(TYPES)))
    n_in = 256 * draw(st.integers(1, 4))
    blocks = random_blocks(name, 4, n_in, np.random.default_rng(draw(st.integers(0, 2**32))), EXTREME)
    _, array, factors, run = blocks
    lies_apart = (None, 0, 0) if factors is None else (factors.ctypes.data, factors.shape[1], run)
    w = Weight(array.ctypes.data, 4 + list(TYPES).index(name), 4, n_in, 2, 2 * n_in, n_in, 1, *lies_apart)
    o, i = draw(st.integers(0, 3)), RUN * draw(st.integers(0, n_in // RUN - 1))
    n = RUN * draw(st.integers(0, (n_in - i) // RUN))
    want = decoded(blocks, n_in)[o, i : i + n]
    for kind in range(kernels.lib.cpu_best() + 1):
        out = np.full(n + 1, 7, np.float32)
        DECODER(kernels.lib.blocks_decoder(kind))(w, o, i, n, out.ctypes.data_as(ctypes.POINTER(ctypes.c_float)))
        assert_same_bits(out[:n], want)
        assert out[n] == 7


# ---- products

MATRICES = ("q", "k", "v", "o", "gate", "up", "down", "router", "embed", "lm_head", "pos_embed")


def twins(names, seed=0, **table):
    """Two models (spec, layers, top) with the same weights: as blocks, and decoded. names: the types, by turns."""
    twin = random_model(seed, real=np.float32, d_model=256, n_heads=8, n_kv_heads=2, head_dim=32, d_ff=512, rope_dim=8, n_ctx=400,
                        **table)  # fmt: skip
    rng, count = np.random.default_rng(seed), 0

    def both(weights):
        nonlocal count
        stored, plain = dict(weights), dict(weights)
        for name in [n for n in MATRICES if n in weights]:
            n_out, n_in = weights[name].shape
            stored[name] = random_blocks(names[count % len(names)], n_out, n_in, rng)
            plain[name] = decoded(stored[name], n_in)
            count += 1
        if "experts" in weights:
            stored["experts"], plain["experts"] = map(list, zip(*map(both, weights["experts"]), strict=True))
        return stored, plain

    layers, (top, plain_top) = [both(layer) for layer in twin.layers], both(twin.top)
    return (twin.spec, [a for a, _ in layers], top), (twin.spec, [b for _, b in layers], plain_top)


def in_real(model, dtype):
    """The model's vectors in this dtype. The matrices stay as they are stored."""
    def cast(value):
        if isinstance(value, np.ndarray) and value.ndim == 1:
            return value.astype(dtype)
        if isinstance(value, dict):
            return {key: cast(one) for key, one in value.items()}
        if isinstance(value, (tuple, list)) and not isinstance(value[0], str):
            return type(value)(map(cast, value))
        return value

    spec, layers, top = model
    return spec, cast(layers), cast(top)


def models(names, dtype, threads=2, **table):
    return [CORES[dtype].Model(*in_real(one, dtype), threads) for one in twins(names, **table)]


def same(got, want):
    return got.dtype == want.dtype and got.tobytes() == want.tobytes() and np.isfinite(want).all()


@pytest.mark.parametrize("dtype", CORES)
@pytest.mark.parametrize("name", [[name] for name in TYPES] + [list(TYPES)], ids=[*TYPES, "all"])
def test_forward(instructions, dtype, name):
    """Products of few rows, which are dot products, and of many, which pack the weight: each bit"""
    blocks, plain = models(name, dtype)
    rng, places = np.random.default_rng(1), [(1, SITES.index("attn_out")), (1, SITES.index("mlp_out"))]
    for rows in (1, 2, 3, 4, 5, 37, 300):
        prompt = random_prompts(rng, 23, [rows])
        (logits, acts), (want, want_acts) = (m.forward(prompt, [], places, "all") for m in (blocks, plain))
        assert same(logits[0], want[0]) and all(map(same, acts[0], want_acts[0])), rows


@pytest.mark.parametrize("dtype", CORES)
@pytest.mark.parametrize("n", [1, 2, 5, 13])
def test_decoding(instructions, dtype, n):
    """One row is multiplied as it is decoded, more from a buffer: each bit, also of a step of any other number of rows."""
    lengths = [7, 1, 3, 2, 4, 2, 1, 5, 1, 1, 2, 1, 3][:n]
    prompts, seeds = random_prompts(np.random.default_rng(2), 23, lengths), np.arange(n, dtype=np.uint64)
    capacity = np.array(lengths, np.int32) + np.int32(5)
    runs = []
    for model in models(list(TYPES), dtype, ropes=1, window=3, learned_positions=True):
        decoder = CORES[dtype].Decoder(model, prompts, capacity, [], 0.8, 0, 1.0, seeds)
        runs.append([(decoder.step().tolist(), np.array(decoder.logits())) for _ in range(5)])
    for (tokens, logits), (want_tokens, want) in zip(*runs, strict=True):
        assert tokens == want_tokens and same(logits, want)


@pytest.mark.parametrize("dtype", CORES)
def test_experts(instructions, dtype):
    blocks, plain = models(list(TYPES), dtype, n_experts=3, top_k=2, biases=False)
    prompt = random_prompts(np.random.default_rng(3), 23, [30])
    assert same(blocks.forward(prompt, [], [], "all")[0][0], plain.forward(prompt, [], [], "all")[0][0])


@pytest.mark.parametrize("dtype", CORES)
@pytest.mark.parametrize("columns", [3, 120, 300])
@pytest.mark.parametrize("turn", range(3))
def test_jacobians(instructions, dtype, columns, turn):
    """JVPs and VJPs, few and many: each bit"""
    names = list(TYPES)[5 * turn :] + list(TYPES)[: 5 * turn]
    rng = np.random.default_rng(4)
    prompts, at = random_prompts(rng, 23, [6]), [np.arange(6, dtype=np.int32)]
    steer = [(0, 0, rng.normal(size=256).astype(dtype), -1, EVERYWHERE)]
    last = SITES.index("resid_post")
    one, other = (CORES[dtype].Jacobian(m, prompts, steer, (0, 0), (1, last), at, at, False) for m in models(names, dtype, act="gelu"))
    U, V = (rng.normal(size=(columns, n)).astype(dtype) for n in one.shape)
    assert same(one.apply(V), other.apply(V))
    assert same(one.apply_t(U), other.apply_t(U))


@pytest.mark.parametrize("name", TYPES)
def test_groups_of_rows(instructions, name):
    """The rows of q, k and v of each head follow each other in one matrix, as some families store them"""
    if TYPES[name][2]:
        pytest.skip("factors that lie apart are of one group")
    (spec, layers, top), (_, plain_layers, plain_top) = twins([name])
    kind, data, _, _ = fused = random_blocks(name, 3 * 256, 256, np.random.default_rng(5))
    numbers = decoded(fused, 256).reshape(8, 3, 32, 256)
    spec = spec | {"n_kv_heads": 8}
    for layer in (*layers, *plain_layers):
        for part, key in enumerate("qkv"):
            is_plain = isinstance(layer["o"], np.ndarray)
            layer[key] = numbers[:, part] if is_plain else (kind, data.reshape(8, 3, 32, -1)[:, part], None, 0)
            layer[f"{key}_bias"] = np.zeros(256, np.float32)
    one, other = _core32.Model(spec, layers, top, 2), _core32.Model(spec, plain_layers, plain_top, 2)
    for rows in (1, 3, 20):
        prompt = random_prompts(np.random.default_rng(6), 23, [rows])
        assert same(one.forward(prompt, [], [], "all")[0][0], other.forward(prompt, [], [], "all")[0][0])


# ---- refusals


def weights(name, n_out=256, n_in=256):
    return list(random_blocks(name, n_out, n_in, np.random.default_rng(0)))


def changed(name, index, change):
    blocks = weights(name)
    blocks[index] = change(blocks[index])
    return tuple(blocks)


def misaligned(array):
    raw = np.zeros(array.nbytes + 1, np.uint8)
    return raw[1:].view(array.dtype).reshape(array.shape)


REFUSED = {
    "type": changed("Q4_K", 0, lambda _: "Q4_X"),
    "a type that the core decodes with another": changed("Q4_K", 0, lambda _: "Q5_K"),
    "plain type": changed("Q4_K", 0, lambda _: "F32"),
    "end early": changed("Q4_K", 1, lambda d: d[:, :-1]),
    "a block too few": changed("Q4_0", 1, lambda d: d[:, :-18]),
    "a block too many": changed("Q4_0", 1, lambda d: np.pad(d, ((0, 0), (0, 18)))),
    "rows": changed("Q6_K", 1, lambda d: d[:-1]),
    "one dimension": changed("Q6_K", 1, lambda d: d[0]),
    "dtype": changed("Q8_0", 1, lambda d: d.view(np.int8)),
    "bytes apart": changed("Q8_0", 1, lambda d: np.repeat(d, 2, axis=1)[:, ::2]),
    "rows between blocks": changed("Q8_0", 1, lambda d: np.pad(d, ((0, 0), (0, 1)))[:, :-1]),
    "no array": changed("Q8_0", 1, lambda d: d.tolist()),
    "factors where there are none": changed("Q8_0", 2, lambda _: np.ones((256, 8), np.float32)),
    "no factors": changed("F8_E4M3", 2, lambda _: None),
    "a list of factors": changed("F8_E4M3", 2, lambda f: f.tolist()),
    "factors of another dtype": changed("F8_E4M3", 2, lambda f: f.astype(np.float64)),
    "factors of the other type": changed("MXFP4_APART", 2, lambda f: f.astype(np.float32)),
    "factors of other rows": changed("F8_E4M3", 2, lambda f: f[:-1]),
    "too few factors": changed("MXFP4_APART", 2, lambda f: f[:, :-1]),
    "factors apart": changed("F8_E4M3", 2, lambda f: np.repeat(f, 2, axis=1)[:, ::2]),
    "factors out of line": changed("F8_E4M3", 2, misaligned),
    "one dimension of factors": changed("MXFP4_APART", 2, lambda f: f[0]),
    "no run": changed("F8_E4M3", 3, lambda _: 0),
    "a run of part of a run": changed("F8_E4M3", 3, lambda _: 48),
    "a negative run": changed("F8_E4M3", 3, lambda _: -32),
    "a run that is no number": changed("F8_E4M3", 3, lambda _: "32"),
    "too short": tuple(weights("Q8_0"))[:3],
    "too long": (*weights("Q8_0"), 1),
    "no type": changed("Q8_0", 0, lambda _: None),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("dtype", CORES)
def test_refused(dtype, what):
    (spec, layers, top), _ = twins(["Q8_0"])
    layers[1]["o"] = REFUSED[what]
    with pytest.raises(InvalidInput, match=r"weight o\b"):
        CORES[dtype].Model(*in_real((spec, layers, top), dtype), 1)


@pytest.mark.parametrize("name, n_in", [("Q4_K", 128), ("Q8_0", 48), ("F8_E4M3", 16), ("Q6_K", 320)])
def test_rows_that_are_no_whole_blocks(name, n_in):
    numbers, size, _ = TYPES[name]
    blocks = (name, np.zeros((2, n_in * size // numbers), np.uint8), np.ones((2, 1), np.float32) if name == "F8_E4M3" else None, 32)
    with pytest.raises(InvalidInput, match="to decode"):
        _core32.decode_blocks(blocks, np.empty((2, n_in), np.float32))


@pytest.mark.parametrize("out", [np.empty((4, 32)), np.empty((4, 64), np.float32)[:, ::2], np.empty(32, np.float32),
                                 np.broadcast_to(np.float32(0), (4, 32)), np.empty((3, 32), np.float32),
                                 np.empty((4, 32), ">f4")])  # fmt: skip
def test_out_must_hold_the_numbers(out):
    with pytest.raises(InvalidInput, match=r"out|to decode"):
        _core32.decode_blocks(random_blocks("Q8_0", 4, 32, np.random.default_rng(0)), out)
