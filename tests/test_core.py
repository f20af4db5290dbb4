"""The C core by itself, over the whole block table, against the NumPy twin."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from random_models import random_model, tables

import powersteer  # opens the matrix library in both cores
from powersteer._core import _core32, _core64
from powersteer.errors import InvalidInput
from powersteer.inputs.sites import SITES, Site, precedes

EVERYWHERE = np.array([[0, 2**31 - 1]], np.int32)


def ids(*tokens):
    return np.array(tokens, np.int32)


def core_model(twin, core=_core64, threads=2):
    return core.Model(twin.spec, twin.layers, twin.top, threads)


def random_prompts(rng, n_vocab, lengths):
    return [rng.integers(0, n_vocab, n).astype(np.int32) for n in lengths]


def some_positions(rng, prompts):
    return [np.sort(rng.choice(len(p), rng.integers(1, len(p) + 1), replace=False)).astype(np.int32) for p in prompts]


def assert_close(got, want, tol):
    scale = max(np.abs(want).max(initial=0), 1e-3)
    assert np.abs(got - want).max(initial=0) <= tol * scale, (np.abs(got - want).max() / scale, tol)


@settings(max_examples=60, deadline=None)
@given(tables(), st.lists(st.integers(1, 7), min_size=1, max_size=3))
def test_forward_of_any_table(table, lengths):
    twin = random_model(**table)
    rng = np.random.default_rng(table["seed"])
    prompts = random_prompts(rng, table["n_vocab"], lengths)
    names = [s for s in SITES if not (table["parallel"] and s == "resid_mid")]
    places = [(layer, SITES.index(s)) for layer in range(table["n_layers"]) for s in names]
    at, site = places[rng.integers(len(places))]
    vector = rng.normal(size=table["d_model"])
    steer = [(at, site, vector, -1, np.array([[1, 3], [5, 6]], np.int32))]
    logits, acts = core_model(twin).forward(prompts, steer, places, "all")
    for i, prompt in enumerate(prompts):
        here = [p for p in (1, 2, 5) if p < len(prompt)]
        want, twin_acts = reference.forward(twin, prompt, [reference.Steer(at, SITES[site], vector, here)])
        assert_close(logits[i], want, 1e-11)
        for (layer, s), got in zip(places, acts[i], strict=True):
            assert_close(got, twin_acts[layer, SITES[s]], 1e-11)


@settings(max_examples=60, deadline=None)
@given(tables(), st.lists(st.integers(1, 6), min_size=1, max_size=2), st.booleans(), st.data())
def test_jacobian_of_any_table(table, lengths, mean, data):
    twin = random_model(**table)
    rng = np.random.default_rng(table["seed"])
    prompts = random_prompts(rng, table["n_vocab"], lengths)
    names = [s for s in SITES if not (table["parallel"] and s == "resid_mid")]
    places = [Site(layer, s) for layer in range(table["n_layers"]) for s in names]
    pairs = [(a, b) for a in places for b in [*places, "logits", "next_token"]
             if isinstance(b, str) or precedes(a, b, table["parallel"])]
    source, target = data.draw(st.sampled_from(pairs))
    mean = mean and target != "next_token"
    sources, targets = some_positions(rng, prompts), some_positions(rng, prompts)
    point = (0, 0, rng.normal(size=table["d_model"]), -1, EVERYWHERE)
    where = target if isinstance(target, str) else (target[0], SITES.index(target[1]))
    J = _core64.Jacobian(core_model(twin), prompts, [point], (source[0], SITES.index(source[1])), where, sources, targets, mean)
    want = reference.jacobian(twin, prompts, source, target, sources, targets, mean, [reference.Steer(0, "resid_pre", point[2])])
    assert J.shape == want.shape
    got = J.apply(np.eye(J.shape[1])).T
    assert_close(got, want, 1e-9)
    assert_close(J.apply_t(np.eye(J.shape[0])), got, 1e-12)  # the transpose, to rounding


TABLES = {
    "sequential": {},
    "parallel": {"parallel": True, "norms": ("norm1",)},
    "post norms": {"qk_norm": "full", "norms": ("post1", "post2"), "softcap": 2.0},
    "chunks": {"chunk": 4, "temper": (0.4, 3, 1), "unturned_alone": True, "qk_norm": "head", "qk_norm_last": True},
    "keys of other layers": {"sharing": 3, "sizes": ({}, {"head_dim": 8, "n_kv_heads": 1, "d_ff": 9}), "qk_norm": "head", "v_norm": True,
                             "d_input": 4, "out_scale": 0.8},
}
SPARSE = {
    "experts and windows": {"n_experts": 5, "dense_layers": (1,), "window": 3},
    "parallel experts of their own norm": {"n_experts": 3, "parallel": True, "norms": ("norm1", "norm2", "post2")},
}


@pytest.mark.parametrize("core", [_core32, _core64])
@pytest.mark.parametrize("table", TABLES)
def test_many_pairs_in_one_sweep(core, table):
    """Each column of a shared sweep has the bits that it has alone, whatever joins and leaves on its way."""
    rng = np.random.default_rng(1)
    real = np.float32 if core.real_size == 4 else np.float64
    twin = random_model(n_layers=5, real=real, **TABLES[table])
    model = core_model(twin, core)
    prompts = random_prompts(rng, 23, (6, 3))
    parallel = TABLES[table].get("parallel", False)
    sites = [(layer, i) for layer in range(5) for i in range(6) if not (parallel and SITES[i] == "resid_mid")]
    sources = [sites[i] for i in rng.choice(len(sites), 7, replace=False)] + [(0, 0)]
    targets = [sites[i] for i in rng.choice(len(sites), 9, replace=False)] + ["next_token", "logits"]
    starts, ends = ([some_positions(rng, prompts) for _ in group] for group in (sources, targets))

    def is_pair(f, t):
        ends = sources[f], targets[t]
        return isinstance(ends[1], str) or precedes(*(Site(layer, SITES[i]) for layer, i in ends), parallel)

    J = core.Jacobian(model, prompts, [], sources, targets, starts, ends, False)
    pairs = [(f, t) for f in range(len(sources)) for t in range(len(targets)) if is_pair(f, t)] * 4
    columns = [
        (f, t, rng.normal(size=12).astype(real), np.zeros(J.shape[t][0], real)) for f, t in map(tuple, rng.permutation(pairs).tolist())
    ]
    assert len(columns) * sum(map(len, prompts)) > core.SWEEP_ROWS  # several groups of one pair, too
    J.apply_each(columns)
    back = [(f, t, np.zeros(12, real), u) for f, t, _, u in columns]
    J.apply_t_each(back)
    alone = {}
    for (f, t, v, u), (_, _, w, _) in zip(columns, back, strict=True):
        if (f, t) not in alone:
            alone[f, t] = core.Jacobian(model, prompts, [], sources[f], targets[t], starts[f], ends[t], False)
            assert alone[f, t].source_norm == J.source_norm[f]
            assert np.array_equal(alone[f, t].base, J.base[t])
        assert np.array_equal(u, alone[f, t].apply(v[None])[0])
        assert np.array_equal(w, alone[f, t].apply_t(u[None])[0])
    V = rng.normal(size=(3, 12)).astype(real)
    for f in range(len(sources)):
        for t, U in enumerate(J.apply_all(f, V)):
            assert (U is not None) == is_pair(f, t)
            if is_pair(f, t):
                assert_close(U, alone[f, t].apply(V), 2e-5 if core.real_size == 4 else 1e-12)
    with pytest.raises(InvalidInput, match="must come before"):
        f, t = next((f, t) for f in range(len(sources)) for t in range(len(targets)) if not is_pair(f, t))
        J.apply_each([(f, t, np.zeros(12, real), np.zeros(J.shape[t][0], real))])


def test_more_columns_than_a_sweep_carries():
    """Streams of 1 MB, of which a sweep carries 256. Between the last two sites of a layer, J is the identity."""
    model = core_model(random_model(n_layers=1, d_model=64, n_ctx=4096, real=np.float32), _core32)
    every, last = np.arange(4096, dtype=np.int32), ids(4095)
    J = _core32.Jacobian(model, [every % 23], [], (0, SITES.index("mlp_out")), (0, SITES.index("resid_post")), [every], [last], False)
    V = np.random.default_rng(0).normal(size=(300, 64)).astype(np.float32)
    assert np.array_equal(J.apply(V[:1]), V[:1])  # whose scratch holds one stream
    assert np.array_equal(J.apply(V), V) and np.array_equal(J.apply_t(V), V)


def test_columns_that_change_while_they_are_read():
    J = _core64.Jacobian(core_model(random_model()), [ids(1, 2, 3)], [], (0, 0), (1, 0), [ids(0)], [ids(2)], False)

    class Clears:
        def __index__(self):
            columns.clear()
            return 0

    U = [np.zeros(12), np.zeros(12)]
    columns = [(Clears(), 0, np.ones(12), U[0]), (0, 0, np.ones(12), U[1])]
    J.apply_each(columns)
    assert not columns and np.array_equal(U[0], U[1]) and np.array_equal(U[0], J.apply(np.ones((1, 12)))[0])


@pytest.mark.parametrize("mean", [False, True])
def test_one_sweep_that_every_target_reads(mean):
    rng = np.random.default_rng(2)
    for table in ({}, {"parallel": True, "norms": ("norm1",)}, {"qk_norm": "full", "norms": ("post1", "post2"), "softcap": 2.0}):
        twin = random_model(n_layers=4, **table)
        sites = [0, 1, 3, 4, 5] if table.get("parallel") else range(6)
        for source in ((0, 0), (1, 1), (1, 4), (2, 5)):
            later = [(t, s) for t in range(source[0], 4) for s in sites if (t, s) > source]
            if table.get("parallel") and source[1] == 1:
                later = [(t, s) for t, s in later if t > source[0] or s == 5]
            targets = [*later, "logits", *([] if mean else ["next_token"])]
            prompts = random_prompts(rng, 23, (6, 3))
            sources, positions = some_positions(rng, prompts), [some_positions(rng, prompts) for _ in targets]
            J = _core64.Jacobian(core_model(twin), prompts, [], source, targets, sources, positions, mean)
            V = rng.normal(size=(200, 12))  # more than one sweep carries
            for t, U in enumerate(J.apply_all(0, V)):
                alone = _core64.Jacobian(core_model(twin), prompts, [], source, targets[t], sources, positions[t], mean)
                assert_close(U, alone.apply(V), 1e-12)


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("core", [_core32, _core64])
@pytest.mark.parametrize("table", [*TABLES, *SPARSE])
def test_one_sweep_that_every_source_reads(core, table, mean):
    """Each cotangent, at each source, has the bits that it has in a sweep of its own, and the part of a prompt those that it has
    without the other prompts."""
    rng = np.random.default_rng(3)
    real = np.float32 if core.real_size == 4 else np.float64
    options = (TABLES | SPARSE)[table]
    twin = random_model(n_layers=3, real=real, **options)
    model, one_thread = core_model(twin, core), core_model(twin, core, threads=1)
    parallel = options.get("parallel", False)
    sources = [(layer, i) for layer in range(3) for i in range(6) if not (parallel and SITES[i] == "resid_mid")]
    sources = [sources[i] for i in rng.permutation(len(sources))]
    sources.append(sources[0])  # one source twice, at other positions
    targets = [s for s in sources if s > (0, 0)][:6] + ["logits", *([] if mean else ["next_token"])]
    prompts = random_prompts(rng, 23, (6, 3, 1))
    starts, ends = ([some_positions(rng, prompts) for _ in group] for group in (sources, targets))
    J = core.Jacobian(model, prompts, [], sources, targets, starts, ends, mean)
    for t, target in enumerate(targets):
        U = rng.normal(size=(120, J.shape[t][0])).astype(real)  # more than pass a layer at a time
        shared, parts = (J.apply_t_all(t, U, per_prompt) for per_prompt in (False, True))
        for f, source in enumerate(sources):
            ordered = isinstance(target, str) or precedes(*(Site(layer, SITES[i]) for layer, i in (source, target)), parallel)
            assert (shared[f] is None) == (parts[f] is None) == (not ordered)
            if not ordered:
                continue
            alone = core.Jacobian(one_thread, prompts, [], source, target, starts[f], ends[t], mean)
            assert np.array_equal(shared[f], alone.apply_t(U)), (source, target)
            if rng.random() < 2 / 3:
                continue
            first = 0
            for p, prompt in enumerate(prompts):
                one = core.Jacobian(model, [prompt], [], source, target, [starts[f][p]], [ends[t][p]], mean)
                last = first + one.shape[0]
                assert np.array_equal(parts[f][:, p], one.apply_t(U[:, first:last])), (source, target, p)
                first = last
            assert first == U.shape[1]
    assert [V.shape for V in J.apply_t_all(len(targets) - 1, U[:0], True)] == [(0, 3, 12)] * len(sources)


@pytest.mark.parametrize("stored", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("core", [_core32, _core64])
@pytest.mark.parametrize("order", ["rows", "columns", "groups", "strided"])
def test_weights_as_stored(core, stored, order):
    """Any dtype and any strides, in wide products (a prompt), transposed ones and narrow ones (a decoded token)."""
    real = np.float32 if core.real_size == 4 else np.float64
    tol = 2e-5 if core.real_size == 4 else 1e-11
    twin = random_model(3, real=real, stored=stored, d_model=80, d_ff=150, head_dim=10, n_vocab=97, n_layers=2)
    for layer in twin.layers:
        for name in ("q", "k", "v", "o", "gate", "up", "down"):
            w = layer[name]
            if order == "columns":
                layer[name] = np.asfortranarray(w)
            elif order == "groups" and name in "qkv":
                wide = np.zeros((w.shape[0] // 10, 30, w.shape[1]), w.dtype)
                wide[:, 10:20] = w.reshape(-1, 10, w.shape[1])
                layer[name] = wide[:, 10:20]
            elif order == "strided":
                wide = np.zeros((w.shape[0] * 2, w.shape[1] * 3), w.dtype)
                wide[::2, ::3] = w
                layer[name] = wide[::2, ::3]
    model = core_model(twin, core)
    prompts = random_prompts(np.random.default_rng(0), 97, (40, 1, 1, 2))
    logits, _ = model.forward(prompts, [], [], "all")
    for prompt, got in zip(prompts, logits, strict=True):
        assert_close(got, reference.forward(twin, prompt)[0], tol)
    every = [np.arange(6, dtype=np.int32)]
    J = core.Jacobian(model, [prompts[0][:6]], [], (0, 0), (1, 5), every, every, False)
    U = np.random.default_rng(1).normal(size=(7, J.shape[0])).astype(real)
    assert_close(J.apply_t(U), U @ J.apply(np.eye(80, dtype=real)).T, 10 * tol)
    for n in (1, 2, 3, 4, 5):  # rows of a product: below and above the narrow kernel's limit
        logits, _ = model.forward(random_prompts(np.random.default_rng(n), 97, (n,)), [], [], "last")
        assert_close(logits[0], reference.forward(twin, random_prompts(np.random.default_rng(n), 97, (n,))[0])[0][-1:], tol)


def test_matrices_wider_than_a_panel():
    """16-bit weights are widened a panel at a time: the panels' products add up, in both directions."""
    twin = random_model(6, stored="bfloat16", d_model=60, d_ff=2500, n_vocab=2300, n_layers=1)
    model = core_model(twin)
    (prompt,) = prompts = random_prompts(np.random.default_rng(0), 2300, (12,))
    want, _ = reference.forward(twin, prompt)
    assert_close(model.forward(prompts, [], [], "all")[0][0], want, 1e-11)
    every = [np.arange(12, dtype=np.int32)]
    J = _core64.Jacobian(model, prompts, [], (0, 0), "logits", every, [every[0][-2:]], False)
    dense = J.apply(np.eye(60)).T
    U = np.random.default_rng(1).normal(size=(5, J.shape[0]))
    assert_close(J.apply_t(U), U @ dense, 1e-11)


@pytest.mark.parametrize("threads", [2, 3])
def test_narrow_products_shared_by_threads(threads):
    twin = random_model(8, d_model=130, d_ff=601, n_layers=1, head_bias=True, n_vocab=530)
    (prompt,) = prompts = random_prompts(np.random.default_rng(0), 530, (4,))
    logits, _ = core_model(twin, threads=threads).forward(prompts, [], [], "all")
    assert_close(logits[0], reference.forward(twin, prompt)[0], 1e-11)


def test_decoding_is_the_forward_pass():
    twin = random_model(5, window=3, n_layers=3)
    model = core_model(twin)
    rng = np.random.default_rng(2)
    prompts = random_prompts(rng, 23, (5, 1, 9))
    vector = rng.normal(size=12)
    steer = [(1, 4, vector, 2, EVERYWHERE), (0, 5, vector, -1, np.array([[7, 9]], np.int32))]
    decoder = _core64.Decoder(model, prompts, ids(20, 20, 20), steer, 0.0, 0, 1.0, np.zeros(3, np.uint64))
    texts = [list(p) for p in prompts]
    for step in range(8):
        tokens = decoder.step()
        want, _ = model.forward([ids(*t) for t in texts], steer, [], "last")
        live = [i for i in range(3) if not (step > 4 and i == 1)]
        for i in live:
            assert_close(decoder.logits()[i], want[i][0], 1e-12)
            assert tokens[i] == want[i][0].argmax()
            texts[i].append(tokens[i])
        assert step <= 4 or tokens[1] == -1
        if step == 4:
            decoder.stop(1)
    with pytest.raises(powersteer.PowersteerError, match="full"):
        for _ in range(20):
            decoder.step()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_of_equal_logits_the_lowest_id_is_chosen(temperature):
    twin = random_model(4, n_vocab=24)
    twin.top["lm_head"][12:] = twin.top["lm_head"][:12]
    decoder = _core64.Decoder(core_model(twin), [ids(5, 2), ids(20)], ids(9, 9), [], temperature, 1, 1.0, np.zeros(2, np.uint64))
    for _ in range(5):
        assert np.array_equal(decoder.step(), decoder.logits().argmax(1))
        assert np.array_equal(decoder.logits()[:, :12], decoder.logits()[:, 12:])


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_thread_counts_agree(threads):
    """The same bits again with the same count, and the same numbers with another."""
    twin = random_model(7, d_model=64, d_ff=96, n_layers=2)
    prompts = random_prompts(np.random.default_rng(0), 23, (30, 17))
    positions = [np.arange(len(p), dtype=np.int32) for p in prompts]
    V = np.random.default_rng(1).normal(size=(9, 64))

    def run(n):
        model = core_model(twin, threads=n)
        J = _core64.Jacobian(model, prompts, [], (0, 0), (1, 5), positions, positions, False)
        U = J.apply(V)
        return model.forward(prompts, [], [], "all")[0][0], U, J.apply_t(U)

    once, again, one = run(threads), run(threads), run(1)
    for a, b, c in zip(once, again, one, strict=True):
        assert np.array_equal(a, b)
        assert_close(a, c, 1e-12)


def test_not_finite_is_refused_by_layer():
    twin = random_model(9, n_layers=3)
    twin.layers[1]["down"][2, 3] = np.nan
    with pytest.raises(powersteer.PowersteerError, match="layer 1.*position 0"):
        core_model(twin).forward([ids(1, 2)], [], [], "all")


BAD_MODELS = {
    "unknown key": (lambda t: t.spec.update(colour=1), "unknown key 'colour'"),
    "missing key": (lambda t: t.spec.pop("d_ff"), "lacks 'd_ff'"),
    "zero size": (lambda t: t.spec.update(d_ff=0), "'d_ff' must be positive"),
    "huge size": (lambda t: t.spec.update(n_ctx=2**40), "'n_ctx' is too large"),
    "kv heads": (lambda t: t.spec.update(n_kv_heads=3), "no multiple"),
    "activation": (lambda t: t.spec.update(act="swish"), "swish"),
    "shape": (lambda t: t.layers[0].update(up=t.layers[0]["up"][1:]), r"up has shape \(19, 12\).*\(20, 12\)"),
    "columns": (lambda t: t.layers[0].update(up=t.layers[0]["up"][:, 1:]), r"up has shape \(20, 11\).*\(20, 12\)"),
    "dtype": (lambda t: t.layers[0].update(up=t.layers[0]["up"].astype(int)), "int64"),
    "byte order": (lambda t: t.layers[0].update(up=t.layers[0]["up"].astype(">f8")), "byte order"),
    "missing weight": (lambda t: t.layers[1].pop("q"), "q is missing"),
    "bias length": (lambda t: t.layers[1].update(q_bias=np.zeros(5)), "q_bias has 5 numbers; 24"),
    "vector dtype": (lambda t: t.layers[1].update(q_bias=np.zeros(24, np.float32)), "q_bias must be"),
    "rope index": (lambda t: t.layers[1].update(rope=2), "rope 2"),
    "layers": (lambda t: t.layers.pop(), "1 layers are given; the spec has 2"),
    "norm alone": (lambda t: t.layers[0].update(q_norm=(np.ones(24), None)), "q_norm and k_norm"),
    "norm kind": (lambda t: t.spec.update(norm=3), "'norm' has a value the core does not know: 3"),
    "flag": (lambda t: t.spec.update(parallel=1), "'parallel' must be True or False"),
    "rope dim odd": (lambda t: t.spec.update(rope_dim=3), "rope_dim = 3 must be even"),
    "rope dim large": (lambda t: t.spec.update(rope_dim=8), "at most head_dim = 6"),
    "negative cap": (lambda t: t.spec.update(attn_softcap=-1.0), "not be negative"),
    "infinite eps": (lambda t: t.spec.update(norm_eps=np.inf), "'norm_eps' is not finite"),
    "rope list": (lambda t: t.spec.update(rope=None), "'rope' must be a list"),
    "rope length": (lambda t: t.spec.update(rope=[(np.ones(3), 1.0)]), "rope_dim/2 = 2"),
    "rope dtype": (lambda t: t.spec.update(rope=[(np.ones(2, np.float32), 1.0)]), "float64"),
    "rope switch": (lambda t: t.spec.update(rope=[(np.ones(2), 1.0, np.ones(2), 0)]), r"rope\[0\] switches after 0"),
    "experts top_k": (lambda t: t.spec.update(n_experts=2, top_k=3, d_expert=4, norm_topk=True), "top_k = 3 must be between"),
    "experts alone": (lambda t: t.layers[0].update(experts=[]), "router and a list of n_experts"),
    "norm tuple": (lambda t: t.layers[0].update(norm1=np.ones(12)), "norm1 must be a tuple"),
    "norm gain": (lambda t: t.layers[0].update(norm1=(np.ones(11), None)), "norm1 has 11 numbers; 12"),
    "layer key": (lambda t: t.layers[0].update(colour=1), "a layer has an unknown key 'colour'"),
    "layer kind": (lambda t: t.layers.__setitem__(0, [1]), "a layer must be a dict, got list"),
    "top key": (lambda t: t.top.update(colour=1), "top has an unknown key 'colour'"),
    "gate of a plain MLP": (lambda t: t.spec.update(gated=False), "a gate is given"),
    "no window": (lambda t: t.layers[0].pop("window"), "lacks 'window' or 'rope'"),
    "negative window": (lambda t: t.layers[0].update(window=-1), "window -1"),
    "window beyond int": (lambda t: t.layers[0].update(window=2**32 + 3), "window 4294967299"),
    "negative chunk": (lambda t: t.layers[0].update(chunk=-1), "chunks of -1 keys"),
    "chunk beyond int": (lambda t: t.layers[0].update(chunk=2**31), "chunks of 2147483648 keys"),
    "temperature": (lambda t: t.spec.update(temper=(0.1, 4, -1)), "'temper' must be a finite rate"),
    "qk-norm that there is not": (lambda t: t.layers[0].update(q_norm=(None, None), k_norm=(None, None)), "q_norm and k_norm"),
    "rope beyond int": (lambda t: t.layers[0].update(rope=2**32), "rope 4294967296"),
    "one dimension": (lambda t: t.layers[0].update(up=np.zeros(240)), r"up has shape \(240,\)"),
    "no array": (lambda t: t.layers[0].update(up=[[1.0]]), "up must be a NumPy array, got list"),
    "unaligned": (lambda t: t.layers[0].update(up=np.ndarray((20, 12), float, bytes(2000), 4)), "up must be aligned"),
}


@pytest.mark.parametrize("case", BAD_MODELS)
def test_bad_models(case):
    spoil, message = BAD_MODELS[case]
    twin = random_model()
    spoil(twin)
    with pytest.raises(powersteer.PowersteerError, match=message):
        core_model(twin)


BAD_CALLS = {
    "token": (lambda m: m.forward([ids(1, 23)], [], [], "all"), "token id 23 .*position 1.* vocabulary of 23"),
    "negative token": (lambda m: m.forward([ids(-1)], [], [], "all"), "token id -1"),
    "empty prompt": (lambda m: m.forward([ids(1), ids()], [], [], "all"), "sequence 1 is empty"),
    "no prompt": (lambda m: m.forward([], [], [], "all"), "no sequence"),
    "too long": (lambda m: m.forward([np.zeros(65, np.int32)], [], [], "all"), "65 tokens; the model's context is 64"),
    "token dtype": (lambda m: m.forward([np.zeros(3)], [], [], "all"), "int32"),
    "site": (lambda m: m.forward([ids(1)], [], [(2, 0)], "all"), "outside the model"),
    "steer": (lambda m: m.forward([ids(1)], [(0, 9, np.zeros(12), -1, EVERYWHERE)], [], "all"), "outside the model"),
    "steer size": (lambda m: m.forward([ids(1)], [(0, 0, np.zeros(11), -1, EVERYWHERE)], [], "all"), "11 numbers; 12"),
    "order": (lambda m: _core64.Jacobian(m, [ids(1)], [], (1, 4), (0, 4), [ids(0)], [ids(0)], False), "before the target"),
    "position": (lambda m: _core64.Jacobian(m, [ids(1)], [], (0, 4), (1, 4), [ids(0)], [ids(1)], False), "position 1"),
    "positions": (lambda m: _core64.Jacobian(m, [ids(1)], [], (0, 4), (1, 4), [ids(0)], [], False), "positions for 0"),
    "capacity": (lambda m: _core64.Decoder(m, [ids(1)], ids(65), [], 0.0, 0, 1.0, np.zeros(1, np.uint64)), "context is 64"),
    "temperature": (lambda m: _core64.Decoder(m, [ids(1)], ids(9), [], -1.0, 0, 1.0, np.zeros(1, np.uint64)), "temperature"),
    "top_p": (lambda m: _core64.Decoder(m, [ids(1)], ids(9), [], 1.0, 0, 0.0, np.zeros(1, np.uint64)), "top_p"),
    "other core": (lambda m: _core32.Jacobian(m, [ids(1)], [], (0, 4), (1, 4), [ids(0)], [ids(0)], False), "this core"),
    "rows": (lambda m: m.forward([ids(1)], [], [], "some"), "rows must be"),
    "no tokens": (lambda m: m.forward(3, [], [], "all"), "tokens must be a list of int32 arrays"),
    "token rows": (lambda m: m.forward([ids(1)[None]], [], [], "all"), r"tokens\[0\] must be a contiguous 1-D"),
    "token strides": (lambda m: m.forward([ids(1, 2, 3)[::2]], [], [], "all"), r"tokens\[0\] must be a contiguous 1-D"),
    "site pair": (lambda m: m.forward([ids(1)], [], [(0, "mlp_out")], "all"), r"a site must be a tuple \(layer, site\)"),
    "no steer": (lambda m: m.forward([ids(1)], None, [], "all"), "steer must be a list"),
    "steer tuple": (lambda m: m.forward([ids(1)], [(0, 0)], [], "all"), "an intervention must be a tuple"),
    "steer ranges": (lambda m: m.forward([ids(1)], [(0, 0, np.zeros(12), -1, ids(0, 1))], [], "all"), r"shape \(n, 2\)"),
    "steer triples": (lambda m: m.forward([ids(1)], [(0, 0, np.zeros(12), -1, ids(0, 1, 2)[None])], [], "all"), r"shape \(n, 2\)"),
    "capacity dtype": (lambda m: decoder(m, capacity=np.array([9])), "capacity must be"),
    "capacity length": (lambda m: decoder(m, capacity=ids(9, 9)), "capacity must be a contiguous array of 1"),
    "seeds": (lambda m: decoder(m, seeds=np.zeros(2, np.uint64)), "seeds must be"),
    "no prompts": (lambda m: decoder(m, prompts=[], capacity=ids(), seeds=np.zeros(0, np.uint64)), "no prompt given"),
    "top_k": (lambda m: decoder(m, top_k=-1), "top_k must not be negative"),
    "stop early": (lambda m: decoder(m).stop(0), "comes after a step"),
    "stop whom": (lambda m: decoder(m).stop(1), "there is no sequence 1"),
    "target text": (lambda m: jacobian(m, target="next token"), "target must be"),
    "target count": (lambda m: jacobian(m, target=[], to=[]), "0 targets"),
    "target positions": (lambda m: jacobian(m, target=[(1, 4)], to=[]), "1 targets need as many"),
    "source positions": (lambda m: jacobian(m, at=[]), "source_positions for 0"),
    "no positions": (lambda m: jacobian(m, at=[ids()]), "no positions given"),
    "V": (lambda m: jacobian(m).apply(np.zeros((2, 11))), r"V must be a float64 array of shape \(n, 12\), got \(2, 11\)"),
    "V dtype": (lambda m: jacobian(m).apply(np.zeros((2, 12), np.float32)), "V must be a float64"),
    "V kind": (lambda m: jacobian(m).apply([1.0]), "got <class 'list'>"),
    "apply_t_all U": (lambda m: jacobian(m).apply_t_all(0, np.zeros(12), False), r"U must be.*got \(12,\)"),
    "apply_t_all target": (lambda m: jacobian(m).apply_t_all(1, np.zeros((1, 12)), False), "there is no target 1"),
    "apply_all V": (lambda m: jacobian(m).apply_all(0, np.zeros(12)), r"got \(12,\)"),
    "apply of several": (lambda m: jacobian(m, [(1, 4), (1, 5)], to=[[ids(0)]] * 2).apply(np.zeros((1, 12))), "apply_each"),
    "no columns": (lambda m: jacobian(m).apply_each(()), "columns must be a list"),
    "column": (lambda m: jacobian(m).apply_each([[0]]), r"a column must be a tuple \(source, target, v, u\)"),
    "column target": (lambda m: jacobian(m).apply_each([(0, 1, np.zeros(12), np.zeros(12))]), "there is no pair of source 0 and target 1"),
    "logits of nothing": (lambda m: decoder(m).logits(), "comes after a step"),
    "column output": (lambda m: jacobian(m).apply_each([(0, 0, np.zeros(12), read_only(12))]), "read-only"),
}


def decoder(model, prompts=(ids(1),), capacity=ids(9), top_k=0, seeds=np.zeros(1, np.uint64)):  # noqa: B008
    return _core64.Decoder(model, list(prompts), capacity, [], 0.0, top_k, 1.0, seeds)


def jacobian(model, target=(1, 4), at=(ids(0),), to=(ids(0),)):  # noqa: B008
    return _core64.Jacobian(model, [ids(1)], [], (0, 4), target, list(at), list(to), False)


def read_only(n):
    array = np.zeros(n)
    array.flags.writeable = False
    return array



@pytest.mark.parametrize("case", BAD_CALLS)
def test_bad_calls(case):
    call, message = BAD_CALLS[case]
    with pytest.raises(powersteer.PowersteerError, match=message):
        call(core_model(random_model()))


def test_a_parallel_block_has_no_middle():
    model = core_model(random_model(parallel=True))
    with pytest.raises(powersteer.PowersteerError, match="resid_mid does not exist"):
        model.forward([ids(1)], [], [(0, 2)], "all")
    for source, target, message in [((0, 2), (1, 4), "resid_mid"), ((0, 0), (1, 2), "resid_mid"), ((0, 1), (0, 4), "not reach")]:
        with pytest.raises(powersteer.PowersteerError, match=message):
            _core64.Jacobian(model, [ids(1)], [], source, target, [ids(0)], [ids(0)], False)


def test_logits_that_are_not_finite():
    twin = random_model(9)
    twin.top["lm_head"][2, 3] = np.inf
    with pytest.raises(powersteer.NumericalError, match="the logits are not finite"):
        core_model(twin).forward([ids(1, 2)], [], [], "all")


def test_norms_without_a_gain():
    """As OLMo's: the same as with a gain of 1 and a bias of 0."""
    given, bare = random_model(3, norm="layer"), random_model(3, norm="layer")
    for layer in given.layers:
        layer["norm1"], layer["norm2"] = (np.ones(12), np.zeros(12)), (np.ones(12), np.zeros(12))
    for layer in bare.layers:
        layer["norm1"] = layer["norm2"] = (None, None)
    every = [np.arange(5, dtype=np.int32)]
    J, K = (
        _core64.Jacobian(core_model(twin), [ids(3, 1, 4, 1, 5)], [], (0, 0), (1, 5), every, every, False)
        for twin in (given, bare)
    )
    V, U = (np.random.default_rng(0).normal(size=(4, n)) for n in (12, 60))
    assert_close(K.base, J.base, 1e-13)
    assert_close(K.apply(V), J.apply(V), 1e-13)
    assert_close(K.apply_t(U), J.apply_t(U), 1e-13)
