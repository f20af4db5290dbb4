"""powersteer.testing: results compared up to what does not matter, and kept on disk by the content of their arguments."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny

import powersteer as ps
from powersteer import evaluate
from powersteer.testing import Cache, approx
from powersteer.testing import cache as cache_module
from powersteer.testing.content import content_hash

PROMPTS = ["abc", "what? no"]


@pytest.fixture(scope="module")
def model():
    return tiny(n_layers=3)[0]


@pytest.fixture(scope="module")
def J(model):
    return model.jacobian(PROMPTS, 0, 2)


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "kept")


def rotation(rng, n):
    return np.linalg.qr(rng.standard_normal((n, n)))[0]


# ---- approx


def test_metrics_by_their_interval():
    share, same, other = (evaluate.summary(x, "share") for x in ([1, 0, 1, 1], [1, 1, 0, 1], [0, 0, 0, 1]))
    assert (
        share == approx(0.5) and share != approx(0.3) and approx(0.5) == share and 0.5 == approx(share)  # noqa: SIM300
    )
    assert share == approx(share) and share == approx(same) and share == approx(other)  # few prompts tell little
    many = [evaluate.summary(row.values * 10, "share") for row in (share, other)]
    assert many[0] != approx(many[1])
    (line,) = approx(many[1]).differences(many[0])
    assert line.startswith("the difference is 0.5 [") and line.endswith("without 0")
    assert approx(0.3).differences(share) == ["0.3 is not in the interval of 0.75 [0.3006, 0.9544] share (n = 4)"]


def test_metrics_that_repeat_are_equal_beyond_rounding():
    exact = evaluate.summary([2.0, 3.0], "nats")
    for factor, equal in ((1 + 1e-8, True), (1 + 1e-4, False)):
        assert (evaluate.summary([2.0 * factor, 3.0 * factor], "nats") == approx(exact)) is equal


@pytest.mark.parametrize("expected, rel, abs, inside, outside", [
    (0.5, None, 0.1, 0.59, 0.61), (-2.0, 0.1, None, -2.19, -2.21), (-2.0, 0.1, 0.5, -1.5, -1.49), (0, None, 1e-3, 0.9e-3, 1.1e-3),
    (float("inf"), None, 1, float("inf"), 5), (1, 0.5, None, 1.5, float("nan")),
])  # fmt: skip
def test_numbers_by_a_tolerance(expected, rel, abs, inside, outside):
    compared = approx(expected, rel=rel, abs=abs)
    assert compared in (inside, np.float64(inside), evaluate.summary([inside], "nats")) and compared != outside
    assert np.float64(inside) == compared and np.float64(outside) != compared
    assert "differs from" in compared.differences(outside)[0]


@given(
    st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=6).filter(lambda x: max(map(abs, x)) > 1e-3),
    st.floats(0.5, 2),
    st.booleans(),
)
def test_vectors_up_to_sign(numbers, factor, flipped):
    vec = ps.SteeringVector.from_array(np.array(numbers), 3, "mlp_out")
    other = factor * (-vec if flipped else vec)
    apart = abs(factor - 1)
    assert other == approx(vec, rel=apart + 1e-3) and vec == approx(-vec) and -vec == approx(vec)
    assert apart < 2e-3 or other != approx(vec, rel=apart - 1e-3)


def test_vectors_that_are_others(J):
    first, second = J.svd(2).vectors
    assert first != approx(second) and first == approx(dataclasses.replace(first, cost=None, seed=5))
    turned = ps.SteeringVector.from_array(first.direction + 0.02 * second.direction, first.layer, first.site)
    assert turned != approx(first) and turned == approx(first, rel=0.021) and turned == approx(first, abs=0.021)
    (line,) = approx(first).differences(turned)
    assert line.startswith("up to sign the vectors are 0.02 apart, more than 0.01: their cosine is 0.9998")
    elsewhere = dataclasses.replace(first, layer=1)
    assert approx(first).differences(elsewhere) == [
        f"it is of {len(first)} numbers at {elsewhere.location}, not of {len(first)} at {first.location}"
    ]
    assert first != approx(1.0) and approx(first).differences("text") == ["'text' is not a SteeringVector"]


def test_clamps_are_equal_where_they_set_the_same(J):
    a, b = J.svd(k=2).vectors
    assert a.clamp(1.0) == approx(a.clamp(1.0)) and a.clamp(1.0) == approx((-a).clamp(-1.0)) and a.ablate() == approx((-a).ablate())
    for other in (b.clamp(1.0), a.clamp(-1.0), a.clamp(1.1), a.ablate(), a):
        assert a.clamp(1.0) != approx(other) and other != approx(a.clamp(1.0))
    assert a.ablate() != approx(b.ablate())


def test_svds_with_signs_and_clusters_of_their_own(rng):
    """U diag(3, 2, 2, 1) V' has a cluster; a solver may return any basis of it, and any signs."""
    U, V = rotation(rng, 7), rotation(rng, 5)
    svd = ps.svd(U[:, :4] * [3.0, 2, 2, 1] @ V[:4], k=4)
    assert svd.clusters == [(1, 2)] and not svd.cluster_open
    turn = np.eye(4)
    turn[1:3, 1:3] = rotation(rng, 2)
    turn[3, 3] = -1
    turned = dataclasses.replace(svd, U=svd.U @ turn.T, Vh=turn @ svd.Vh)
    assert turned == approx(svd) and svd == approx(turned) and svd == approx(svd, rel=1e-9)
    assert dataclasses.replace(turned, clusters=[]) == approx(svd) and len(svd) == 4
    apart = dataclasses.replace(turned, clusters=[]), dataclasses.replace(svd, clusters=[])
    assert [line.split(" are off")[0] for line in approx(apart[1]).differences(apart[0])] == [
        "right vectors of rank 1", "right vectors of rank 2",
    ]  # fmt: skip
    for sides, said in (
        ({"U": turned.U}, "of ranks 1 to 2, a cluster, do not belong"),
        ({"U": svd.U * [-1, 1, 1, 1]}, "of rank 0 do"),
    ):
        assert said in approx(svd).differences(dataclasses.replace(svd, **sides))[0]


def test_svds_that_are_others(rng):
    U, V = rotation(rng, 6), rotation(rng, 6)
    svd = ps.svd(U[:, :4] * [4.0, 3, 2, 1] @ V[:4], k=3)
    assert approx(svd).differences(dataclasses.replace(svd, S=svd.S + [0, 0.041, 0])) == [
        f"singular value 1 is {svd.S[1] + 0.041:.5g}, not {svd.S[1]:.5g} within 0.04"
    ]
    swapped = dataclasses.replace(svd, Vh=svd.Vh[[1, 0, 2]])
    assert len(approx(svd).differences(swapped)) == 2 and swapped != approx(svd, rel=0.9) and svd != approx([svd])
    left = dataclasses.replace(svd, U=svd.U[:, [0, 2, 1]])
    assert [line.split(" are")[0] for line in approx(svd).differences(left)] == [
        "left vectors of rank 1",
        "left vectors of rank 2",
    ]
    fewer = ps.svd(U[:, :4] * [4.0, 3, 2, 1] @ V[:4], k=2)
    assert approx(svd).differences(fewer) == ["U and Vh are of the shapes ((6, 2), (2, 6)), not ((6, 3), (3, 6))"]


def test_a_cluster_that_goes_on_has_no_subspace(rng):
    """Two of three equal singular values: any plane of the three dimensions may be returned."""
    U, V = rotation(rng, 6), rotation(rng, 6)
    svd = ps.svd(U[:, :4] * [2.0, 1, 1, 1] @ V[:4], k=3)
    assert svd.cluster_open
    other = dataclasses.replace(svd, Vh=np.array([svd.Vh[0], *V[2:4]]), U=np.column_stack([svd.U[:, 0], U[:, 2:4]]))
    assert other == approx(svd) and dataclasses.replace(other, cluster_open=False) == approx(svd)
    closed = [dataclasses.replace(s, cluster_open=False) for s in (other, svd)]
    assert closed[0] != approx(closed[1]) and dataclasses.replace(other, S=svd.S + [0, 0, 0.1]) != approx(svd)


def test_lists_and_what_cannot_be_compared(J):
    vectors = J.svd(3).vectors
    assert (
        [-v for v in vectors] == approx(vectors)
        and vectors == approx(tuple(vectors))
        and vectors[::-1] != approx(vectors)
    )
    assert vectors[:2] != approx(vectors) and approx([1.0, 2.0], abs=0.1).differences([1, 3]) == [
        "[1]: 3 differs from 2.0 by 1, more than 0.1"
    ]
    for wrong, said in (
        ("text", "not 'text'"),
        ([1.0, None], "not None"),
        (np.ones(3), "numpy.testing.assert_allclose compares arrays"),
    ):
        with pytest.raises(ps.InvalidInput, match=said):
            approx(wrong)
    for how in ({"rel": -1}, {"abs": float("nan")}, {"rel": "much"}):
        with pytest.raises(ps.InvalidInput, match="approx: (rel|abs) is .*; it must be a finite number > 0"):
            approx(1.0, **how)
    for a, b in ((1.0, 1.0), (evaluate.summary([1.0], "nats"), 1.0),
                 (evaluate.summary([1, 1], "nats"), evaluate.summary([1, 1, 1], "nats"))):  # fmt: skip
        with pytest.raises(ps.InvalidInput, match="no interval to compare by; give approx a tolerance"):
            assert a == approx(b)
    with pytest.raises(TypeError, match="unhashable"):
        hash(approx(1.0))


# ---- content


def test_equal_content_has_one_hash_and_other_content_another(model, J):
    vec = J.svd(1).vectors[0]
    turned = dataclasses.replace(vec, direction=vec.direction[::-1])  # at the same site, as long, described alike
    values = [
        None, True, 1, 1.0, 2, 1 + 0j, "1", b"1", "0x1.0000000000000p+0", "builtins.len", "", (), {},
             set(), [1, 2], [2, 1], [[1], 2], {1, 2}, {"a": 1}, {"a": 2}, {"b": 1},
        slice(1), slice(1, None), slice(None, 1, 2), np.ones(2), np.ones(2, "f4"), np.ones((2, 1)), np.array([1, 2.0]), -0.0, 0.0,
        model, model.steered(vec), model.steered(2 * vec), model.steered(vec, "prompt"), tiny(n_layers=2)[0],
        J, model.jacobian(PROMPTS[::-1], 0, 2), model.jacobian(PROMPTS, 0, 2, target_positions=-1), model.jacobian(PROMPTS, 1, 2),
        model.jacobian(PROMPTS, 0, "logits"), model.steered(vec).jacobian(PROMPTS, 0, 2), model.steered(-vec).jacobian(PROMPTS, 0, 2),
            model.steered(turned).jacobian(PROMPTS, 0, 2), model.steered(turned), turned,
        vec, 2 * vec, dataclasses.replace(vec, layer=1), dataclasses.replace(vec, prompts=("x", "y")), J.svd(1),
        np.sin, len, ps.svd, ps.caa, J.svd, J.dense, functools.partial(ps.svd, k=1), functools.partial(ps.svd, k=2),
        evaluate.LogitDifference("3", "4"), evaluate.LogitDifference("4", "3"), evaluate.contains("3"), evaluate.contains("4"), int,
    ]  # fmt: skip
    hashes = [content_hash(value) for value in values]
    named = zip(values, hashes, strict=True)
    assert [(a, b) for (a, x), (b, y) in itertools.combinations(named, 2) if x == y] == []
    assert hashes == [content_hash(value) for value in values]
    assert content_hash({"a": 1, "b": 2}) == content_hash({"b": 2, "a": 1}) and content_hash((1, 2)) == content_hash(
        [1, 2]
    )
    assert content_hash(np.True_) == content_hash(True) and content_hash(np.str_("a")) == content_hash("a")
    assert content_hash(np.float64(1)) == content_hash(1.0) and content_hash(np.int32(1)) == content_hash(1)
    assert content_hash(vec) == content_hash(dataclasses.replace(vec, cost=ps.Cost(1, 2, 3.0)))
    assert content_hash(np.ones((2, 3)).T) == content_hash(np.ones((3, 2)))


def test_a_function_is_its_code_and_what_it_closes_over():
    def make(bound, default=1, source="x + y + z"):
        space = {"z": bound}
        exec(
            f"def outer(z):\n    def f(x, y={default}):\n        '''Doc.'''\n        return [{source} for _ in 'a']\n    return f",
            space,
        )
        return space["outer"](bound)

    first = content_hash(make(1))
    assert first == content_hash(make(1)) == content_hash(make(1))
    assert (
        len({first, *(content_hash(f) for f in (make(2), make(1, 2), make(1, 1, "x - y + z"), make(np.ones(2))))}) == 5
    )


def test_a_function_is_the_globals_that_it_reads():
    def make(constant, helper="x + 1", unused=1):
        space = {"__name__": "of_the_user", "CONSTANT": constant, "UNUSED": unused, "np": np, "real": object(), "svd": ps.svd}
        exec(
            "def helper(x):\n    return " + helper + "\n"
            "def even(n):\n    return n == 0 or odd(n - 1)\n"
            "def odd(n):\n    return n != 0 and even(n - 1)\n"
            "def f(x):\n    return [helper(x.real) + CONSTANT + np.sin(x) + odd(3) for _ in x[..., 0]], svd, f, len",
            space,
        )
        return space["f"]

    first = content_hash(make([1]))
    assert first == content_hash(make([1])) == content_hash(make([1], unused=2))
    assert len({first, content_hash(make([2])), content_hash(make([1], "x - 1"))}) == 3
    with pytest.raises(ps.InvalidInput, match="that of <object object at .* is not known"):
        content_hash(make(object()))


def test_a_function_of_another_module_is_its_own_code():
    """What it refers to, its package answers for: such things as locks and loggers."""

    def make(body):
        there, here = {"__name__": "a_package", "lock": object()}, {"__name__": "of_the_user"}
        exec(f"def f(x):\n    return {body}, lock", there)
        here["theirs"] = there["f"]
        exec("def f(x):\n    return theirs(x)", here)
        return here["f"], there["f"]

    mine, theirs = make("x + 1")
    assert content_hash(mine) == content_hash(make("x + 1")[0]) != content_hash(make("x + 2")[0])
    with pytest.raises(ps.InvalidInput, match="is not known"):
        content_hash(theirs)


def test_a_dataclass_of_the_user_is_its_fields_and_methods():
    def kind(body):
        space = {"dataclasses": dataclasses}
        exec(
            f"@dataclasses.dataclass\nclass Score:\n    word: str\n    def __call__(self, p, t):\n        return {body}",
            space,
        )
        return space["Score"]

    assert content_hash(kind("self.word in t")("a")) == content_hash(kind("self.word in t")("a"))
    assert len({content_hash(kind(body)(word)) for body in ("self.word in t", "self.word in p") for word in "ab"}) == 4


@pytest.mark.parametrize(
    "unknown", [iter([1]), object(), sys.stdin, [1, {"a": object()}]], ids=["iterator", "object", "file", "deep"]
)
def test_what_cannot_be_told_by_its_content(unknown, cache):
    with pytest.raises(
        ps.InvalidInput, match="a result is kept by the content of its arguments, and that of .* is not known"
    ):
        cache(len, unknown)


# ---- the cache


@pytest.fixture
def counted(monkeypatch):
    """Number of results that the cache computed, a list of one."""
    calls, write = [0], Cache._write

    def counting(self, stem, value):
        calls[0] += 1
        return write(self, stem, value)

    monkeypatch.setattr(Cache, "_write", counting)
    return calls


def test_every_kind_comes_back_as_it_was(model, J, cache, counted):
    vec = ps.caa(model, PROMPTS[:1], PROMPTS[1:], 1)
    svd = cache(J.svd, k=3, seed=2)
    assert vars(svd).keys() == vars(cache(J.svd, k=3, seed=2)).keys() and counted == [1]
    fresh = J.svd(k=3, seed=2)
    for name in ("U", "S", "Vh", "residuals", "certificate"):
        for other in (fresh, cache(J.svd, k=3, seed=2)):
            np.testing.assert_array_equal(getattr(svd, name), getattr(other, name))
            assert getattr(svd, name).dtype == getattr(other, name).dtype
    plain = [
        f.name
        for f in dataclasses.fields(svd)
        if f.name not in ("U", "S", "Vh", "residuals", "certificate", "history", "seconds")
    ]
    assert all(getattr(svd, name) == getattr(fresh, name) for name in plain if not name.startswith("make"))
    assert [(n, r, s.tolist()) for n, r, s in svd.history] == [(n, r, s.tolist()) for n, r, s in fresh.history]
    assert svd.vectors == fresh.vectors and svd.provenance.keys() == fresh.provenance.keys() and counted == [1]
    assert cache(ps.caa, model, PROMPTS[:1], PROMPTS[1:], 1) == dataclasses.replace(
        vec, cost=cache(ps.caa, model, PROMPTS[:1], PROMPTS[1:], 1).cost
    )
    assert cache(ps.random_vectors, model, 1, k=2) == [
        dataclasses.replace(v, cost=w.cost)
        for v, w in zip(ps.random_vectors(model, 1, k=2), cache(ps.random_vectors, model, 1, k=2), strict=True)
    ]
    np.testing.assert_array_equal(cache(J.dense), J.dense())
    how = {"max_new_tokens": 2, "n_random": 1}
    assert cache(ps.effects, model, PROMPTS, vec, **how).to_json() == ps.effects(model, PROMPTS, vec, **how).to_json()
    assert cache(ps.svd, np.diag([3.0, 2, 1]), k=2).provenance is None and counted == [6]
    assert (
        not [path for path in cache.folder.iterdir() if path.name.startswith(".")]
        and len(list(cache.folder.iterdir())) == 6
    )


def test_other_arguments_are_computed(model, J, cache, counted):
    for n, call in enumerate([
        lambda: cache(J.svd, k=2), lambda: cache(J.svd, k=3), lambda: cache(J.svd, k=2, seed=1),
        lambda: cache(model.steered(J.svd(1).vectors[0]).jacobian(PROMPTS, 0, 2).svd, k=2), lambda: cache(J.dense),
        lambda: cache(tiny(n_layers=3, seed=5)[0].jacobian(PROMPTS, 0, 2).svd, k=2),
    ]):  # fmt: skip
        call(), call()
        assert counted == [n + 1]


def test_another_process_finds_it(cache):
    script = (
        "import sys, numpy, powersteer as ps\n"
        "J = ps.load('demo').jacobian('Q: 3*4', source=1, target=3)\n"
        f"print(ps.testing.Cache({str(cache.folder)!r})(J.svd, k=2).seconds)"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    outs = [
        subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True).stdout
        for _ in "ab"
    ]
    assert outs[0] == outs[1] and len(list(cache.folder.iterdir())) == 1


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b"", lambda b: b[:-3] + bytes([b[-3] ^ 1]) + b[-2:], lambda b: b"no\n" * 99]
)
@pytest.mark.parametrize("keeps", ["svd", "dense"])  # the second gives the same bytes, so the same name, again
def test_a_damaged_file_is_computed_again_with_a_warning(J, cache, counted, damage, keeps):
    call = functools.partial(cache, J.dense) if keeps == "dense" else functools.partial(cache, J.svd, k=1)
    call()
    (file,) = cache.folder.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    with pytest.warns(
        UserWarning, match=r".* was damaged: its result was computed again, and is kept in its place"
    ) as caught:
        call()
    assert caught[0].filename == __file__ and str(file) in str(caught[0].message) and counted == [2]
    call()
    assert counted == [2] and len(list(cache.folder.iterdir())) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, OSError])
def test_an_interruption_leaves_nothing_half_written(J, cache, monkeypatch, counted, error):
    def fails(*args, **kwargs):
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(cache_module.os, "replace", fails)  # after the result was written, before it has its name
        with pytest.raises(error):
            cache(J.dense)
    assert list(cache.folder.iterdir()) == []
    with pytest.raises(error):
        cache(lambda: fails())
    assert list(cache.folder.iterdir()) == []
    np.testing.assert_array_equal(cache(J.dense), J.dense())
    assert len(list(cache.folder.iterdir())) == 1


def test_what_cannot_be_kept(model, J, cache):
    for function, said in ((lambda: J, "Of a Jacobian keep what"), (lambda: [], r"\[\] cannot be kept"), (lambda: "text", "'text'"),
                           (lambda: [1.0], r"\[1.0\] cannot"), (lambda: np.array([None]), "array")):  # fmt: skip
        with pytest.raises(ps.InvalidInput, match=said):
            cache(function)
    with pytest.raises(ps.InvalidInput, match="called with a function and its arguments, not with SVDResult"):
        cache(J.svd(1))
    assert not cache.folder.exists() and repr(cache) == f"Cache({str(cache.folder)!r})"


def test_many_threads_write_one_result(J, cache):
    barrier, found = threading.Barrier(4), []

    def work():
        barrier.wait()
        found.append(cache(J.dense))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and all(np.array_equal(x, J.dense()) for x in found)
    assert [path.name.partition("-")[0] for path in cache.folder.iterdir()] == ["dense"]
