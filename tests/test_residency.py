"""Models larger than memory: what is known of the memory, which layers stay in it, and that hints change no result."""

from __future__ import annotations

import hf_models
import numpy as np
import pytest
import tiny

import powersteer as ps
from powersteer._core import memory
from powersteer.model import model_from_checkpoint, residency

GB = 10**9


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Files of a system with 8 GB free, and a function that writes more of them."""

    def write(**files):
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    for name, file in {"_MEMINFO": "meminfo", "_OWN": "own", "_CGROUPS": "groups"}.items():
        monkeypatch.setattr(memory, name, tmp_path / file)
    write(meminfo=f"MemTotal: {16 * GB // 1024} kB\nMemAvailable: {8 * GB // 1024} kB\n")
    return write


def test_memory_of_the_machine(machine):
    assert memory.available_bytes() == pytest.approx(8 * GB, rel=1e-6)
    machine(meminfo="nothing here\n")
    assert memory.available_bytes() is None


def test_memory_of_a_control_group(machine):
    machine(own="0::/a/b\n", groups__a__b__memory_dot_max="max\n", groups__a__memory_dot_max=f"{3 * GB}\n",
            groups__a__memory_dot_stat=f"anon {GB}\nfile {GB // 2}\n")  # fmt: skip
    assert memory.available_bytes() == 2 * GB  # of the group around; cached files can be taken back
    machine(own="5:memory,cpu:/c\n0::/\n", groups__memory__c__memory_dot_limit_in_bytes=f"{GB}\n",
            groups__memory__c__memory_dot_stat="total_rss 1000\n")  # fmt: skip
    assert memory.available_bytes() == GB - 1000


def test_layers_that_stay(monkeypatch):
    model, _ = tiny.tiny(n_layers=6)
    sizes = list(residency.layer_bytes(model.spec))
    assert len(sizes) == 7 and sum(sizes[:6]) < model.spec.nbytes and sizes[6] == model.spec.lm_head.nbytes > 0
    for free, stay in ((None, 7), (model.spec.nbytes / 0.7 + 1, 7), (sum(sizes[:3]) / 0.7 + 1, 3), (0, 0)):
        monkeypatch.setattr(residency, "available_bytes", lambda free=free: free)
        assert residency.resident_layers(model.spec) == stay
    assert residency.streamed_bytes(model.spec, 7, 0, 6) == 0
    assert residency.streamed_bytes(model.spec, 3, 0, 6) == sum(sizes[3:])
    assert residency.streamed_bytes(model.spec, 3, 3, 5) == 0  # these three fit as well
    assert residency.streamed_bytes(model.spec, 2, 1, 4) == sum(sizes[2:5])


def test_files_of_the_system_that_may_not_be_read(machine, tmp_path, monkeypatch):
    (tmp_path / "meminfo").unlink()
    (tmp_path / "meminfo").mkdir()
    assert memory.available_bytes() is None


def test_weights_that_are_not_mapped_are_in_memory(monkeypatch):
    """They cannot be read from the file again, however little memory they leave."""
    monkeypatch.setattr(residency, "available_bytes", lambda: 0)
    assert ps.load("demo").estimate([1, 2]).streamed > 0
    model = ps.load("demo", mmap=False)
    assert model.estimate([1, 2]).streamed == 0 and model._loaded.resident == model.n_layers + 1
    shared = ps.from_transformers(hf_models.make("llama"))
    assert shared.estimate([1, 2]).streamed == 0 and shared._loaded.resident == shared.n_layers + 1


def test_hints_change_no_result(tmp_path, monkeypatch):
    """The demo is mapped from its file; every layer is read ahead and given back."""
    ids = [[1, 5, 4, 13, 17], [1, 5, 4]]

    def results(model):
        J = model.jacobian(ids, 1, "next_token")
        V = np.random.default_rng(0).standard_normal((model.d_model, 3)).astype(np.float32)
        many = model.jacobians(ids, 0, [2, 4]).svd(2, tol=1e-2)
        tokens = model.generate(ids[0], max_new_tokens=4).tokens
        return [*model(ids), J @ V, J.T @ (J @ V), *(r.Vh for r in many), np.asarray(tokens)]

    whole = ps.load("demo", threads=2)
    monkeypatch.setattr(residency, "available_bytes", lambda: 0)
    streamed = ps.load("demo", threads=2)
    for a, b in zip(results(whole), results(streamed), strict=True):
        assert np.array_equal(a, b)
    assert whole.estimate(ids).streamed == 0 < streamed.estimate(ids).streamed
    cost = streamed.estimate(ids, 1, 3)
    assert 0 < cost.streamed < streamed.estimate(ids).streamed and "each pass reads" in str(cost)


@pytest.mark.parametrize("n_tokens", [1, 40])
def test_hints_about_experts(n_tokens, monkeypatch):
    """They are read ahead if the tokens are enough to use all of them."""
    whole, _ = tiny.tiny(n_experts=5, top_k=2)
    monkeypatch.setattr(residency, "available_bytes", lambda: 0)
    streamed = model_from_checkpoint(whole._loaded.checkpoint, whole.dtype, 2)
    assert streamed._loaded.resident == 0 < whole._loaded.resident
    ids = np.arange(n_tokens)
    assert np.array_equal(whole(ids), streamed(ids))
    V = np.ones((whole.d_model, 2), whole.dtype)
    assert np.array_equal(*(J.T @ (J @ V) for J in (model.jacobian(ids, 0, 1) for model in (whole, streamed))))


def test_the_plan_of_a_model_that_streams(monkeypatch):
    """Every unit reads its layers again: dense ones a block of columns at a time, Krylov ones once a step for all pairs."""
    ids = [[1, 5, 4, 13, 17]]
    assert ps.atlas_plan(ps.load("demo", threads=1), ids, k=2).disk_rate == np.inf
    monkeypatch.setattr(residency, "available_bytes", lambda: 0)
    model = ps.load("demo", threads=1)
    plans = {method: ps.atlas_plan(model, ids, k=2, method=method, sketch=4) for method in ("dense", "krylov")}
    for method, plan in plans.items():
        assert all(step.read > 0 for step in plan.steps) and 0 < plan.disk_rate < np.inf
        assert "are read from its file" in str(plan)
        assert plan.seconds >= sum(step.read for step in plan.of_kind(method)) / plan.disk_rate
    streamed = model.estimate(ids, 0, "next_token").streamed
    (whole,) = (step for step in plans["dense"].steps if step.unit.source == 0)
    assert whole.read == 2 * streamed  # the forward pass, and one sweep of all 160 columns of 5 positions
    pairs = plans["krylov"].pairs
    (first, *_) = (step for step in plans["krylov"].of_kind("krylov") if step.unit.source == 0)
    assert first.read == int((1 + 7.5 * 2) * streamed * len(first.unit.targets) / pairs)
