"""Every allocation of the core and of its bindings fails once: a MemoryError, nothing leaked, everything usable.

The core must be built with POWERSTEER_FAULTS=1 (see csrc/base/alloc.h), as .ci/run does under the sanitizers:

    POWERSTEER_FAULTS=1 python setup.py build_ext --inplace --force && pytest tests/test_faults.py
"""

from __future__ import annotations

import gc
import importlib.util
import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import scipy_openblas32
from tiny import tiny, vector

import powersteer as ps
from powersteer._core import _core32, _core64

CORES = {"float32": _core32, "float64": _core64}
PROMPTS = [[1, 7, 3, 250], [9, 8]]
SMALL = dict(n_layers=2, d_model=8, d_ff=12, n_heads=2, n_kv_heads=1, head_dim=4, rope_dim=4, n_ctx=32)
MIXTURE = dict(SMALL, n_experts=3, top_k=2)
HYBRID = dict(SMALL, mixers=("delta", "conv"), ropes=1)

pytestmark = pytest.mark.skipif(
    not hasattr(_core32, "fail_allocation"), reason="the core was built without POWERSTEER_FAULTS=1"
)


def bits(result):
    """Every number of a result, as bytes."""
    if isinstance(result, (list, tuple)):
        return b"".join(map(bits, result))
    if isinstance(result, dict):
        return b"".join(bits(value) for _, value in sorted(result.items()))
    return np.ascontiguousarray(result).tobytes()


@dataclass
class Everything:
    """A model and what is made of it once: the objects that must survive their failures."""

    dtype: str
    table: dict[str, Any] = field(default_factory=dict)
    threads: int = 1

    def __post_init__(self):
        self.model, self.twin = tiny(self.dtype, threads=self.threads, **self.table)
        self.steered = self.model.steered([vector(self.model, 1), vector(self.model, 2, layer=1)], slice(1, None))
        self.J = self.model.jacobian(PROMPTS, 0, 1)
        self.head = self.steered.jacobian(PROMPTS, 0, target="next_token")
        self.many = self.model.jacobians(PROMPTS, 0, [1, "next_token"])
        self.gradients = self.steered.jacobians(PROMPTS, [0, 1], ["logits"])
        self.pairs = self._pairs()
        rng = np.random.default_rng(0)
        self.V, self.U = rng.normal(size=(self.J.shape[1], 3)), rng.normal(size=(self.J.shape[0], 3))
        self.W = rng.normal(size=(3, self.model.d_model)).astype(self.dtype)

    def _pairs(self):
        core = CORES[self.dtype]
        prompts, (first, last) = [np.array(p, np.int32) for p in PROMPTS], np.array([[0], [1]], np.int32)
        return core.Jacobian(self.model._loaded.core, prompts, [], [(0, 4), (1, 1)], [(1, 4), "next_token"], [[first] * 2] * 2,
                             [[last] * 2] * 2, False)  # fmt: skip

    def load(self):
        return self.model(PROMPTS[0]), tiny(self.dtype, threads=self.threads, **self.table)[0](PROMPTS[0])

    def forward(self):
        return self.steered(PROMPTS)

    def capture(self):
        logits, acts = self.steered.run_with_cache(PROMPTS)
        return logits, [list(one.values()) for one in acts]

    def inside(self):
        _, acts = self.steered.run_with_cache(PROMPTS, sites=[(0, "pattern"), (1, "rot_k")])
        return [list(one.values()) for one in acts]

    def lens(self):
        return [lens.logits for lens in ps.evaluate.logit_lens(self.steered, PROMPTS)]

    def jacobian(self):
        J = self.steered.jacobian(PROMPTS, 0, 1, reduce="mean", target_site="resid_post")
        return J.base, J @ self.V

    def head_jacobian(self):
        return self.model.jacobian(PROMPTS, 0, target="next_token").base

    def apply(self):
        return self.J @ self.V, self.head @ self.V

    def apply_t(self):
        return self.J.T @ self.U, self.head.T @ np.ones(self.head.shape[0])

    def apply_all(self):
        return self.many.apply_all(self.W)

    def apply_t_all(self):
        U = np.ones((2, 2 * self.model.n_vocab), self.dtype)
        return [out for per_prompt in (False, True) for out in self.gradients.apply_t_all(U, per_prompt=per_prompt)]

    def pairs_jacobian(self):
        J = self._pairs()
        return J.base, J.source_norm

    def apply_pairs(self):
        pairs = [(1, 1), (0, 1), (1, 0), (0, 0), (0, 1)]
        out = [(np.zeros_like(self.W[0]), np.zeros(self.pairs.shape[t][0], self.dtype)) for _, t in pairs]
        self.pairs.apply_each([(f, t, self.W[0], u) for (f, t), (_, u) in zip(pairs, out, strict=True)])
        self.pairs.apply_t_each([(f, t, v, u) for (f, t), (v, u) in zip(pairs, out, strict=True)])
        return out

    def lockstep(self):
        return [(r.S, r.Vh, r.U) for r in self.many.svd(2)]

    def krylov(self):
        r = self.J.svd(2, block=2)
        return r.S, r.U, r.Vh, r.residuals

    def power(self):
        r = self.J.svd(2, method="power", tol=1.0, iterations=2)
        return r.S, r.U, r.Vh, r.residuals

    def matrix_svd(self):
        r = ps.svd(np.arange(30, dtype=self.dtype).reshape(6, 5) % 7, 2)
        return r.S, r.U, r.Vh

    def generate(self):
        out = self.steered.generate(PROMPTS, max_new_tokens=3, temperature=1.1, top_k=50, top_p=0.9, seed=5, stop=[])
        return [g.tokens for g in out]


OPERATIONS = [name for name in vars(Everything) if not name.startswith("_") and callable(getattr(Everything, name))]


def fail_each(core, operation, must_raise=True):
    """Runs an operation with its first allocation failing, then its second, until all of them succeed. Returns how
    many failures there were."""
    wanted = bits(operation())  # what is kept from one call to the next exists now
    gc.collect()
    gc.freeze()  # collections look at what is new only
    _, alive = core.fail_allocation(0)

    def leaks():
        if core.fail_allocation(0)[1] > alive:
            gc.collect()  # a traceback may hold its frames in a cycle
        return core.fail_allocation(0)[1] > alive

    n = 0
    while True:
        n += 1
        core.fail_allocation(n)
        raised = False
        try:
            result = bits(operation())
        except MemoryError as error:
            raised = True
            assert isinstance(error, ps.OutOfMemory) or type(error) is MemoryError
        made, _ = core.fail_allocation(0)
        if made < n:  # the n-th never came
            assert not raised and result == wanted
            break
        assert raised or not must_raise, f"allocation {n} of {made} failed and nobody said so"
        assert raised or result == wanted
        assert bits(operation()) == wanted, f"after allocation {n} failed the objects give something else"
        assert not leaks(), f"a leak after allocation {n} failed"
    assert not leaks()
    gc.unfreeze()
    return n - 1


@pytest.fixture(scope="module", params=["float32", "float64"])
def everything(request):
    return Everything(request.param, SMALL)


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_allocation_fails_once(everything, name):
    core = CORES[everything.dtype]
    failures = fail_each(core, getattr(everything, name))
    print(f"{name}: {failures} allocations")
    assert failures > 3


@pytest.mark.parametrize("name", ["load", "forward", "jacobian", "apply", "apply_t", "generate"])
def test_a_mixture(name):
    assert fail_each(_core32, getattr(Everything("float32", MIXTURE), name)) > 3


@pytest.mark.parametrize("name", ["load", "forward", "jacobian", "apply", "apply_t", "generate"])
def test_a_hybrid(name):
    assert fail_each(_core32, getattr(Everything("float32", HYBRID), name)) > 3


@pytest.mark.parametrize("table", [SMALL, HYBRID], ids=["attention", "states"])
def test_a_decoder_goes_on_where_it_failed(table):
    """step() that fails has not happened: the next one gives the same token."""
    model, _ = tiny("float64", **table)
    core = model._loaded.core
    prompts = [np.array(p, np.int32) for p in PROMPTS]
    capacity, seeds = np.full(2, 12, np.int32), np.array([3, 4], np.uint64)

    def decoder():
        return _core64.Decoder(core, prompts, capacity, [], 0.9, 0, 1.0, seeds)

    plain = decoder()
    wanted = [plain.step().tolist() for _ in range(4)]
    failing, failures = decoder(), 0
    for tokens in wanted:
        n = 0
        while True:
            n += 1
            _core64.fail_allocation(n)
            try:
                got = failing.step().tolist()
            except MemoryError:
                failures += 1
                continue
            finally:
                _core64.fail_allocation(0)
            assert got == tokens
            break
    assert failures > 12


@pytest.mark.parametrize("core", [_core32, _core64])
def test_runs_that_failed_do_not_go_on(core):
    """A step that fails in one run leaves the others advanced and that one not: no call uses them again."""
    X = np.ones((1, 4), np.float64 if core is _core64 else np.float32)
    n = 0
    while True:
        n += 1
        runs = core.KrylovRuns([(4, 4, 1, 1, 100, 4)] * 2, 1e-3, 0, 1)
        runs.supply([(0, X), (1, X)])
        core.fail_allocation(n)
        try:
            runs.supply([(0, X), (1, X)])
        except MemoryError:
            pass
        else:
            break
        finally:
            core.fail_allocation(0)
        try:
            runs.requests()
        except ps.InvalidInput as error:
            assert "failed" in str(error)
        else:
            assert n <= 4  # of the call, before a run has advanced
    assert n > 5


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts the threads in /proc")
def test_a_pool_of_fewer_threads():
    """Threads that cannot be started are done without, and change no bit."""
    table = dict(SMALL, n_layers=1, d_model=64, d_ff=256, head_dim=32)
    prompts = [[i % 250 for i in range(30)]] * 4
    before = len(os.listdir("/proc/self/task"))

    def everything():
        model, _ = tiny("float32", threads=4, **table)
        logits = model(prompts)
        workers.append(len(os.listdir("/proc/self/task")) - before)
        return logits

    workers = []
    fail_each(_core32, everything, must_raise=False)
    assert {0, 1, 2, 3} == set(workers)


def test_opening_the_library():
    spec = importlib.util.spec_from_file_location("powersteer._core._core32", _core32.__file__)
    core = importlib.util.module_from_spec(spec)  # another one, with no library yet
    spec.loader.exec_module(core)
    path = f"{scipy_openblas32.get_lib_dir()}/{scipy_openblas32.get_library(fullname=True)}"
    core.fail_allocation(1)
    with pytest.raises(ps.OutOfMemory):
        core.blas_open(path, "scipy_")
    assert not core.blas_info()["opened"]
    core.fail_allocation(0)
    core.blas_open(path, "scipy_")
    assert core.blas_info()["opened"]
