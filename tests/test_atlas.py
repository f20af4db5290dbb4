"""The atlas: the same numbers as pair by pair, whatever happens to the process on the way."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import checkpoints
import dying
import numpy as np
import pytest
import safetensors.numpy
import tiny
from spectra import PUBLISHED, published

import powersteer as ps
from powersteer.mapping import compute as sketches
from powersteer.mapping import plan as planning
from powersteer.mapping.speed import Speed
from powersteer.model.remote import RemoteModel

PROMPTS = [[1, 5, 9, 3, 3, 7], [2, 8, 4, 4]]
K = 3
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:multiprocessing")


@pytest.fixture(scope="module")
def model():
    return tiny.tiny(n_layers=4)[0]


def compute(model, prompts=PROMPTS, **arguments):
    return ps.atlas(model, prompts, **{"k": K, "progress": False, **arguments})


# ---- numbers


@pytest.mark.parametrize("method", ["krylov", "dense", "auto"])
def test_every_pair_as_by_itself(model, method):
    atlas = compute(model, method=method, tol=1e-7, prompt_groups="both")
    assert atlas.complete and len(atlas) == 6 + 4 - 1 + 1
    for group, prompts in zip(atlas.prompt_groups(), [PROMPTS, [PROMPTS[0]], [PROMPTS[1]]], strict=True):
        for source, target in group.pairs:
            want = model.jacobian(prompts, source, target).svd(K, method="dense")
            pair, vec = group.pair(source, target), group.vector(source, target, 1)
            np.testing.assert_allclose(pair.sigma, want.S, rtol=1e-7)
            assert pair.converged and max(pair.residuals) <= 1e-7
            column = group.next_token.S[source] if target == "next_token" else group.S[source, target]
            assert tuple(column) == pair.sigma
            assert abs(vec.direction @ want.Vh[1]) > 1 - 1e-9
            by_itself = want.vectors[1].provenance
            same = ("layer", "site", "target", "prompt_tokens", "target_positions", "source_positions", "weights", "rank")
            assert {name: vec.provenance[name] for name in same} == {name: by_itself[name] for name in same}
            assert vec.site_norm == pytest.approx(by_itself["site_norm"], rel=1e-12)
    assert np.array_equal(atlas.prompt(1).S, atlas.prompt_groups()[2].S, equal_nan=True)
    assert np.array_equal(~np.isnan(atlas.S[..., 0]), np.triu(np.ones((4, 4), bool), 1))


@pytest.mark.parametrize("table", [{"parallel": True, "norms": ("norm1",)}, {"norms": ("post1", "post2")}])
@pytest.mark.parametrize("sites", ["resid_post", ("resid_pre", "blocks.0.hook_resid_post"), ("attn_out", "mlp_out")])
def test_sites_and_blocks(table, sites):
    model, _ = tiny.tiny(n_layers=3, **table)
    if "blocks.0.hook_resid_post" in sites:
        sites = (sites[0], "resid_post")
    atlas = compute(model, sites=sites, target_positions=[0, -1], next_token=False, sources=[0, 1])
    start, end = (sites, sites) if isinstance(sites, str) else sites
    assert atlas.complete and len(atlas)
    for source, target in atlas.pairs:
        want = model.jacobian(PROMPTS, source, target, source_site=start, target_site=end, target_positions=[0, -1]).svd(K, method="dense")
        np.testing.assert_allclose(atlas.pair(source, target).sigma, want.S, rtol=1e-3)
    same_layer = (start, end) in (("resid_pre", "resid_post"), ("attn_out", "mlp_out"))
    assert ((0, 0) in atlas.pairs) == (same_layer and not (table.get("parallel") and start == "attn_out"))

def test_gain_is_the_relative_change_of_the_target(model, tmp_path):
    """A push of a small share of the source's norm moves the target by gain x that share of its own norm, whatever the
    units of the sites; atlases of before the norm was kept have it from their sketches, or not at all."""
    atlas = compute(model, tol=1e-7, sites=("mlp_out", "resid_post"), sketch=2, method="krylov", out=tmp_path)
    for source, target in [(0, 1), (0, 3), (2, 3)]:
        share, push, site = 1e-6, atlas.vector(source, target, 1), (target, "resid_post")
        rows = [acts[-2:] for acts in model.activations(PROMPTS, site)]
        moved = [acts[-2:] for acts in model.steered(push.relative(share)).activations(PROMPTS, site)]
        change = np.linalg.norm(np.concatenate(moved) - np.concatenate(rows)) / np.linalg.norm(np.concatenate(rows))
        assert atlas.gain[source, target, 1] == pytest.approx(change / share, rel=1e-4)
    pair = atlas.pair(1, "next_token")
    assert atlas.next_token.gain[1] == pytest.approx(np.array(pair.sigma) * pair.site_norm)
    assert np.isnan(atlas.gain[3, 0]).all() and np.array_equal(np.isnan(atlas.gain), np.isnan(atlas.S))
    table = atlas.to_pandas().set_index(["source", "target", "rank"])
    assert table.loc[(0, 3, 1), "gain"] == atlas.gain[0, 3, 1]
    for file in tmp_path.glob("cells/*"):
        tensors = safetensors.numpy.load_file(file)
        with safetensors.safe_open(file, framework="numpy") as f:
            (key, text), *_ = f.metadata().items()
        data = json.loads(text)
        for record in data["cells"]:
            del record["base_norm"]
        safetensors.numpy.save_file(tensors, file, {key: json.dumps(data)})
    np.testing.assert_allclose(ps.Atlas.load(tmp_path).gain, atlas.gain, rtol=1e-6)
    for file in tmp_path.glob("sketches/*"):
        file.unlink()
    old = ps.Atlas.load(tmp_path)
    assert np.isnan(old.gain).all() and np.array_equal(old.S, atlas.S, equal_nan=True)
    assert np.array_equal(old.next_token.gain, atlas.next_token.gain, equal_nan=True)
    old.report(tmp_path / "old.html")


def test_of_a_steered_model(model):
    steered = model.steered(tiny.vector(model, scale=3.0), positions="prompt")
    atlas = compute(steered)
    want = steered.jacobian(PROMPTS, 1, 3).svd(K, method="dense").S
    np.testing.assert_allclose(atlas.S[1, 3], want, rtol=1e-3)
    assert atlas.vector(1, 3, 0).steering == steered.steering
    assert steered.steering[0] in atlas.page_data()["reproduce"]["load"]
    assert abs(atlas.S[1, 3] / compute(model).S[1, 3] - 1).max() > 1e-2


def test_fewer_triplets_than_asked_for():
    model, _ = tiny.tiny(n_layers=2, d_model=12)
    atlas = compute(model, k=12, method="krylov")
    assert atlas.complete and np.isfinite(atlas.S[0, 1]).all()


def test_the_sketch_says_how_wrong_it_may_be():
    """On the published spectra: the true value lies within two standard errors nine times in ten, at the least."""
    rng = np.random.default_rng(1)
    for name in PUBLISHED:
        sigma, inside = published(name, 512), []
        for _ in range(60):
            Y = rng.standard_normal((24, len(sigma))) * sigma
            where = {"prompt_group": 0, "source": 0, "target": 1, "site_norm": 1.0, "base_norm": 1.0}
            s = sketches._sketch(where, Y, 12)
            inside += list(np.abs(np.array(s.sigma[:3]) - sigma[:3]) <= 2 * np.array(s.error[:3]))
            assert s.frobenius == pytest.approx(np.linalg.norm(sigma), rel=0.35)
        assert np.mean(inside) >= 0.9


def test_the_seed_decides_the_sketch(model):
    a, b, other = (compute(model, method="sketch", seed=seed, next_token=False) for seed in (1, 1, 2))
    for source, target in a.pairs:
        assert a.sketch(source, target) == b.sketch(source, target) != other.sketch(source, target)


def test_sketch_only(model):
    atlas = compute(model, method="sketch", sketch=24)
    full = compute(model, method="dense")
    assert len(atlas) == 0 and not atlas.complete and np.isnan(atlas.S).all()
    values, errors = atlas.estimate
    there = ~np.isnan(full.S[..., 0])
    assert np.array_equal(there, ~np.isnan(values))
    assert (np.abs(values - full.S[..., 0])[there] <= 4 * errors[there]).all()
    for source, target in atlas.pairs:
        A = model.jacobian(PROMPTS, source, target).dense()
        assert atlas.sketch(source, target).frobenius == pytest.approx(np.linalg.norm(A), rel=0.6)
    with pytest.raises(ps.InvalidInput, match="is not computed yet"):
        atlas.pair(0, 1)


# ---- the plan


def test_the_plan_takes_the_cheaper_way():
    deep, _ = tiny.tiny(n_layers=8)
    small = ps.atlas_plan(deep, PROMPTS, k=12, sources=[0], next_token=False)
    assert {s.kind for s in small.steps} == {"dense"}
    assert small.pairs == 7 and small.seconds > 0
    wide, _ = tiny.tiny(n_layers=3, d_model=96, threads=1)
    plan = ps.atlas_plan(wide, PROMPTS, k=1)
    assert any(s.kind == "krylov" for s in plan.steps) and any(s.kind == "sketch" for s in plan.steps)
    text = str(plan)
    assert f"{plan.pairs} pairs" in text and "GFLOP/s" in text and "krylov" in text
    with pytest.raises(TypeError, match="out"):
        ps.atlas_plan(wide, PROMPTS, out="x")


def test_the_plan_knows_the_disk(model, tmp_path):
    plan = ps.atlas_plan(model, PROMPTS, k=K, method="krylov", prompt_groups="both")
    compute(model, method="krylov", prompt_groups="both", out=tmp_path / "run")
    size = sum(f.stat().st_size for f in (tmp_path / "run").rglob("*") if f.is_file())
    assert 0.5 < plan.disk / size < 2


def test_progress_of_pairs_that_advance_together(model):
    """Every sweep of theirs is reported, and in all what was planned."""
    calls = []
    atlas = compute(model, method="krylov", sketch=0, progress=lambda done, total: calls.append((done, total)))
    totals, done = {total for _, total in calls}, [done for done, _ in calls]
    assert done == sorted(done) and totals == {done[-1]}
    assert len([d for d in done if 0 < d < done[-1]]) > 2 * len({p.source for p in atlas})


def test_units_are_bounded():
    model, _ = tiny.tiny(n_layers=20, threads=1)
    plan = ps.atlas_plan(model, [[1, 2, 3]], k=1, method="krylov")
    sizes = [len(s.unit.targets) for s in plan.of_kind("krylov")]
    assert max(sizes) == planning.MAX_COLUMNS and sum(sizes) == plan.pairs == 19 * 20 // 2 + 20


# ---- never lost


def contents(folder):
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


SCRIPT = """
    import sys, powersteer as ps
    model = ps.load(sys.argv[1], threads=1)
    ps.atlas(model, [[1, 5, 9, 3, 3, 7], [2, 8, 4, 4]], k=3, method="krylov", prompt_groups="both", tol=1e-5, out=sys.argv[2])
"""


def script(*arguments, code=SCRIPT, **options):
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)


@pytest.fixture(scope="module")
def checkpoint():
    return checkpoints.saved("llama")


@pytest.fixture(scope="module")
def undisturbed(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("atlas") / "run"
    process = script(checkpoint, folder)
    assert process.communicate()[1] == "" and process.returncode == 0
    return folder


def test_killed_at_any_moment_and_resumed(checkpoint, undisturbed, tmp_path, rng):
    folder = tmp_path / "run"
    cells = folder / "cells"
    n = len(list((undisturbed / "cells").iterdir()))
    for stop in sorted(rng.choice(np.arange(1, n), 2, replace=False)):
        process = script(checkpoint, folder)
        while process.poll() is None and not (cells.is_dir() and len(list(cells.glob("*.safetensors"))) >= stop):
            time.sleep(0.001)
        process.kill()
        process.communicate()
        half = ps.Atlas.load(folder)  # valid at any moment
        assert all(group.S.shape == (half.n_layers, half.n_layers, 3) for group in half.prompt_groups())
    process = script(checkpoint, folder)
    assert process.communicate()[1] == ""
    mine = {name: data for name, data in contents(folder).items() if not name.endswith(".tmp")}
    assert mine == contents(undisturbed)


def test_resumed_in_units_of_another_size(model, tmp_path, monkeypatch):
    """Pairs are found whatever units they were stored in, and what is missing is computed, no more, to the same bits."""
    whole = compute(model, method="krylov", out=tmp_path)
    before = contents(tmp_path / "cells")
    assert next(iter(before)) == "0-000-1+next_token.safetensors"
    (tmp_path / "cells" / "0-000-1+next_token.safetensors").unlink()
    monkeypatch.setattr(planning, "MAX_COLUMNS", 1)
    finer = compute(model, method="krylov", out=tmp_path)
    assert np.array_equal(finer.S, whole.S, equal_nan=True) and finer.complete
    kept = dict(list(before.items())[1:])
    now = contents(tmp_path / "cells")
    parts = {f"0-000-{target}.safetensors" for target in (1, 2, 3, "next_token")}
    assert now.keys() == kept.keys() | parts and kept.items() <= now.items()
    monkeypatch.undo()
    assert compute(model, method="krylov", out=tmp_path).complete and contents(tmp_path / "cells") == now
    (tmp_path / "cells" / "0-000-2.safetensors").unlink()
    assert not ps.Atlas.load(tmp_path).complete
    assert compute(model, method="krylov", out=tmp_path).complete and contents(tmp_path / "cells") == now


def test_workers_with_their_number(checkpoint, undisturbed, tmp_path, monkeypatch):
    """Units of one pair, for so many workers of a slow machine; the numbers are those of any units."""
    monkeypatch.setattr(planning, "sweep_speed", lambda *sizes: Speed(1e3))
    model = ps.load(checkpoint, threads=1)
    how = {"method": "krylov", "prompt_groups": "both", "tol": 1e-5}
    assert ps.atlas_plan(model, PROMPTS, k=K, workers=64, **how).workers.largest == 1
    with spawn() as executor:
        found = compute(model, executor=executor, workers=64, out=tmp_path, **how)
    want = ps.Atlas.load(undisturbed)
    for mine, other in zip(found.prompt_groups(), want.prompt_groups(), strict=True):
        assert np.array_equal(mine.S, other.S, equal_nan=True) and mine.pairs == other.pairs
        assert np.array_equal(mine.vector(0, 2).direction, other.vector(0, 2).direction)


def test_two_processes_on_one_folder(checkpoint, undisturbed, tmp_path):
    both = [script(checkpoint, tmp_path / "run") for _ in range(2)]
    assert [(p.communicate()[1], p.returncode) for p in both] == [("", 0)] * 2
    assert contents(tmp_path / "run") == contents(undisturbed)


def test_full_disk(checkpoint, tmp_path):
    """No file may grow beyond 1500 bytes: as a disk that is full. An error, and a folder that can be read and resumed."""
    folder = tmp_path / "run"
    code = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n" + (
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))\n" + textwrap.dedent(SCRIPT)
    )
    process = script(checkpoint, folder, code=code)
    error = process.communicate()[1]
    assert process.returncode and "too large" in error
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    assert not list(folder.rglob("*.tmp"))
    if (folder / "atlas.json").exists():
        assert not ps.Atlas.load(folder).complete


def test_interrupted(checkpoint, tmp_path):
    folder = tmp_path / "run"
    process = script(checkpoint, folder)
    while not (folder / "atlas.json").exists():
        time.sleep(0.001)
    time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=20)[1]
    assert process.returncode == 0 or "KeyboardInterrupt" in error
    ps.Atlas.load(folder)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"k": 2}, r"k \(2, there 3\)"),
        ({"tol": 0.1}, r"tol \(0.1, there 0.01\)"),
        ({"seed": 1}, "seed"),
        ({"sites": "resid_post"}, "source_site"),
        ({"prompts": [[1, 2], [2, 8, 4, 4]]}, "prompt 0 has other"),
        ({"prompts": [[1, 2]]}, r"prompts \(1, there 2\)"),
        ({"target_positions": -1}, "target_positions"),
        ({"targets": [3]}, "targets"),
    ],
)
def test_resume_refuses_other_settings(model, tmp_path, change, said):
    compute(model, out=tmp_path)
    before = contents(tmp_path)
    with pytest.raises(ps.InvalidInput, match=said):
        compute(model, out=tmp_path, **change)
    with pytest.raises(ps.InvalidInput, match="already holds this atlas|holds this atlas already"):
        compute(model, out=tmp_path, resume=False)
    assert contents(tmp_path) == before


def test_resume_refuses_another_model(model, tmp_path):
    compute(model, out=tmp_path)
    with pytest.raises(ps.InvalidInput, match=r"model \(.*weights"):
        compute(tiny.tiny(n_layers=4, name="other")[0], out=tmp_path)
    with pytest.raises(ps.InvalidInput, match="steering"):
        compute(model.steered(tiny.vector(model)), out=tmp_path)
    with pytest.raises(ps.InvalidInput, match="another model"):
        ps.Atlas.load(tmp_path, tiny.tiny(n_layers=4, name="other")[0])
    with pytest.raises(ps.NotFound, match="not at None"):
        _ = ps.Atlas.load(tmp_path).model


def test_a_damaged_folder(model, tmp_path):
    atlas = compute(model, out=tmp_path, method="krylov")
    with pytest.raises(ps.NotFound, match=r"no atlas\.json"):
        ps.Atlas.load(tmp_path / "cells")
    part = sorted((tmp_path / "cells").iterdir())[0]
    whole = part.read_bytes()
    for spoiled in (b"", whole[:40], whole[: len(whole) // 2], whole.replace(b'\\"source\\"', b'\\"sourse\\"')):
        part.write_bytes(spoiled)
        with pytest.raises(ps.InvalidInput, match="damaged"):
            len(ps.Atlas.load(tmp_path))
    part.write_bytes(whole.replace(atlas.settings.hash.encode(), b"0" * 16))
    with pytest.raises(ps.InvalidInput, match="other settings"):
        len(ps.Atlas.load(tmp_path))
    part.unlink()
    resumed = compute(model, out=tmp_path, method="krylov")
    assert resumed.complete and part.read_bytes() == whole
    for text in ("{", "[]", "{}", '{"format": "powersteer-atlas-9"}', (tmp_path / "atlas.json").read_text()[:-40]):
        (tmp_path / "atlas.json").write_text(text)
        with pytest.raises(ps.InvalidInput, match=r"atlas\.json"):
            ps.Atlas.load(tmp_path)


# ---- many processes


def spawn(n=2):
    return ProcessPoolExecutor(n, mp_context=multiprocessing.get_context("spawn"))


def test_processes(checkpoint, undisturbed, tmp_path):
    model = ps.load(checkpoint, threads=1)
    with spawn() as executor:
        compute(model, method="krylov", prompt_groups="both", tol=1e-5, executor=executor, out=tmp_path / "run")
    assert contents(tmp_path / "run") == contents(undisturbed)


def test_a_worker_that_dies_has_its_unit_redone(checkpoint, undisturbed, tmp_path):
    model, made = ps.load(checkpoint, threads=1), []

    def executor():
        made.append(spawn(1))
        made[-1].submit(dying.once, str(tmp_path / "flag"))
        return made[-1]

    compute(model, method="krylov", prompt_groups="both", tol=1e-5, executor=executor, out=tmp_path / "run")
    assert contents(tmp_path / "run") == contents(undisturbed)
    assert len(made) == 2
    for one in made:
        one.shutdown()


def test_dask_with_a_worker_killed(checkpoint, undisturbed, tmp_path):
    distributed = pytest.importorskip("distributed")
    model = ps.load(checkpoint, threads=1)
    with (
        distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as cluster,
        distributed.Client(cluster) as client,
    ):
        victim = next(iter(cluster.workers.values()))
        with client.get_executor() as executor:
            executor.submit(os.getpid).result()
            os.kill(victim.pid, signal.SIGKILL)
            compute(model, method="krylov", prompt_groups="both", tol=1e-5, executor=executor, out=tmp_path / "run")
    assert contents(tmp_path / "run") == contents(undisturbed)


def test_an_executor_needs_a_file(model):
    with spawn(1) as executor, pytest.raises(ps.InvalidInput, match="from its file"):
        compute(model, executor=executor)


def test_a_changed_file_is_noticed_by_the_workers(checkpoint):
    other = RemoteModel(str(checkpoint), "float32", 1, tiny.tiny(n_layers=4)[0].identity["weights"])
    with pytest.raises(ps.InvalidInput, match="weights differ"):
        other.load()


def test_workers_steer_too(checkpoint):
    model = ps.load(checkpoint, threads=1)
    steered = model.steered(tiny.vector(model, scale=2.0), positions=slice(1, None))
    with spawn(1) as executor:
        remote = compute(steered, executor=executor)
    assert np.array_equal(remote.S, compute(steered).S, equal_nan=True)
    assert not np.allclose(remote.S[0, 1], compute(model).S[0, 1])


# ---- arguments


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"k": 0}, "k is 0"),
        ({"k": 99}, "at most 12"),
        ({"tol": 2}, "tol is 2"),
        ({"sources": [9]}, "9"),
        ({"sources": [3], "targets": [1], "next_token": False}, "none of the sources"),
        ({"sites": "mlp"}, "mlp"),
        ({"sites": ["a", "b", "c"]}, "two"),
        ({"prompt_groups": "all"}, "prompt_groups is 'all'"),
        ({"method": "power"}, "method is 'power'"),
        ({"method": "sketch", "sketch": 0}, "computes nothing"),
        ({"sketch": -1}, "sketch is -1"),
        ({"prompts": []}, "empty"),
        ({"prompts": [[1] * 99999]}, "context"),
        ({"target_positions": 7}, "7"),
        ({"sources": 3}, "sources is 3"),
    ],
)
def test_refusals(model, arguments, said):
    with pytest.raises(ps.InvalidInput, match=said):
        compute(model, **arguments)


def test_a_file_is_no_folder(model, tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(ps.InvalidInput, match="run' is a file"):
        compute(model, out=tmp_path / "run")
    assert (tmp_path / "run").read_text() == "mine"


def test_questions_out_of_range(model):
    atlas = compute(model, sources=[0, 1])
    with pytest.raises(ps.InvalidInput, match="2 -> 3 was not requested"):
        atlas.pair(2, 3)
    with pytest.raises(ps.InvalidInput, match="rank is 3"):
        atlas.vector(0, 1, 3)
    with pytest.raises(ps.InvalidInput, match="rank is 1.0"):
        atlas.vector(0, 1, 1.0)
    with pytest.raises(ps.InvalidInput, match="k is .*1.5"):
        atlas.effects(1.5)
    with pytest.raises(ps.InvalidInput, match="prompt_groups='both'"):
        atlas.prompt(0)
    alone = compute(model, PROMPTS[:1])
    assert np.array_equal(alone.prompt(0).S, alone.S, equal_nan=True)


def test_vectors_of_many_pairs(model):
    """Those of a source, of a target and of all: in the order of the pairs; their first-order changes are those of each alone."""
    atlas = compute(model, prompt_groups="both").prompt(1)
    ends = [(pair.source, pair.target) for pair in atlas]
    assert len(ends) == 6 + 4

    def found(*pair):
        return [(v.layer, v.target_layer, v.rank) for v in atlas.vectors(*pair)]

    assert found() == [(*pair, k) for pair in ends for k in range(K)]
    assert found(1) == [(*pair, k) for pair in ends if pair[0] == 1 for k in range(K)]
    assert found(None, "next_token") == [(*pair, k) for pair in ends if pair[1] == "next_token" for k in range(K)]
    assert found(None, 0) == []
    score, items = ps.evaluate.LogitDifference(5, 7), [[1, 5, 9], [2, 8, 4, 4]]
    every = ps.evaluate.first_order(model, items, atlas.vectors(), score=score)
    for v, result in zip(atlas.vectors(), every, strict=True):
        assert result.values == ps.evaluate.first_order(model, items, v, score=score).values


def test_tables(model):
    pytest.importorskip("pandas")
    pytest.importorskip("xarray")
    atlas = compute(model)
    frame = atlas.to_pandas()
    assert len(frame) == K * len(atlas) and set(frame.target) == {1, 2, 3, "next_token"}
    row = frame[(frame.source == 1) & (frame.target == 3) & (frame["rank"] == 2)].iloc[0]
    assert row.sigma == atlas.S[1, 3, 2] and row.residual == atlas.residuals[1, 3, 2]
    data = atlas.to_xarray()
    assert float(data.sigma.sel(source=1, target=3, rank=2)) == atlas.S[1, 3, 2]
    assert data.next_token_sigma.shape == (4, K)


def test_on_the_trained_model(stories, tmp_path):
    model = ps.load(stories)
    atlas = compute(model, ["Once upon a time there was a little girl", "The dog ran"], k=12, method="krylov", out=tmp_path)
    loaded = ps.Atlas.load(tmp_path)
    assert loaded.complete and np.array_equal(loaded.S, atlas.S, equal_nan=True)
    assert np.nanmax(loaded.residuals) <= 1e-2 and loaded.model.name == model.name
    assert np.mean([c.applications for c in loaded]) <= 68  # the closing probe included
    want = model.jacobian(loaded.prompts, 1, 4).svd(12, method="dense").S
    np.testing.assert_allclose(loaded.S[1, 4], want, rtol=1e-2)
    assert json.loads(Path(tmp_path / "atlas.json").read_text())["origin"]["version"] == ps.__version__


def test_reprs(model):
    atlas = compute(model, sources=[0, 1], targets=[2, 3])
    assert repr(atlas) == "Atlas('tiny', 2 prompts stacked, k 3, tol 0.01, 6 of 6 pairs)"
    html = atlas._repr_html_()
    assert html.count("<td") == 4 and f'title="{atlas.S[1, 3, 0]:.4g}"' in html
    assert html.count("<td") == compute(model, targets=[])._repr_html_().count("<td")  # the next token alone
    assert "<script>" not in compute(model, ["<script>"], k=1)._repr_html_()


def test_old_names(model):
    with pytest.warns(DeprecationWarning) as warned:
        old = ps.atlas(model, PROMPTS, [0, 1], None, K, positions=-1, views="both")
    said = " ".join(str(w.message) for w in warned)
    assert "pass sources, targets, k by keyword" in said and "'positions' is now" in said and "'views' is now" in said
    new = compute(model, sources=[0, 1], target_positions=-1, prompt_groups="both")
    assert old.settings == new.settings and np.array_equal(old.S, new.S, equal_nan=True)
    for call, want in ((lambda: old.cell(0, 1), new.pair(0, 1)), (lambda: old.view_name, "2 prompts stacked"),
                       (lambda: len(old.views()), 3)):  # fmt: skip
        with pytest.warns(DeprecationWarning, match="is now called"):
            assert call() == want
    with pytest.raises(TypeError, match="both"):
        ps.atlas(model, PROMPTS, positions=-1, target_positions=-1)


def test_files_keep_their_keys(model, tmp_path):
    """Those of the previous release, so that it and this one read each other's folders."""
    atlas = compute(model, out=tmp_path, method="krylov", target_positions=[0, -1])
    settings = json.loads((tmp_path / "atlas.json").read_text())["settings"]
    assert list(settings) == (
        "model steering steering_hash dtype parallel prompts positions views source_site target_site sources targets k tol seed "
        "method sketch max_applications"
    ).split()
    assert settings["views"] == "stacked" and settings["positions"] == [0, -1]
    assert compute(model).settings.to_json()["positions"] == {"slice": [-2, None, None]}
    assert ps.Atlas.load(tmp_path).settings == atlas.settings
    (sketch, *_) = json.loads((tmp_path / "sketches" / "0-000.json").read_text())["sketches"]
    with safetensors.safe_open(next((tmp_path / "cells").iterdir()), framework="numpy") as file:
        (stored, *_) = json.loads(file.metadata()["powersteer-atlas-1"])["cells"]
    assert next(iter(stored)) == next(iter(sketch)) == "view"


# ---- the report


def test_report_shows_what_the_atlas_holds(model, tmp_path):
    pytest.importorskip("plotly")
    atlas = compute(model, prompt_groups="both", method="krylov", out=tmp_path / "run")
    page = atlas.page_data()
    assert [v["name"] for v in page["views"]] == ["2 prompts stacked", "prompt 0", "prompt 1"]
    for group, data in zip(atlas.prompt_groups(), page["views"], strict=True):
        assert {(c["source"], c["target"]): tuple(c["sigma"]) for c in data["cells"]} == {
            pair: group.pair(*pair).sigma for pair in group.pairs
        }
    atlas.report(tmp_path / "atlas.html")
    text = (tmp_path / "atlas.html").read_text("utf-8")
    assert text.startswith("<!doctype html>") and "http-equiv" in text
    sketched = compute(model, method="sketch").page_data()["views"][0]["cells"]
    assert {c["method"] for c in sketched} == {"sketch"} and all(len(c["error"]) == len(c["sigma"]) for c in sketched)
