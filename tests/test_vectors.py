"""Steering vectors: arithmetic, what they refuse, and their files."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle
import struct

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import powersteer as ps
from powersteer.vectors.control_vector import read_control_vector, write_control_vector

SV = ps.SteeringVector
PROVENANCE = dict(
    site_norm=2.5, method="krylov", model="org/name", model_type="llama", weights="abc", target=(7, "resid_post"),
    prompts=("Once “upon”", "a\n"), prompt_tokens=((1, 2, 3), (4,)), source_positions=((0, 1, 2), (0,)),
    target_positions=((1, 2), (0,)), reduce="stack", steering=("2 × blocks.0.hook_mlp_out at all (krylov)",),
    rank=3, sigma=8.25, residual=1e-5, seed=7, objective=-2.5,
    cost=(6, 40, 0.25), parents=("2 × caa", "-1 × krylov 0"), calibration=(0.5, 0.5, 3, 8, "all", 21),
)  # fmt: skip


def unit(d=6, seed=0, dtype=np.float32):
    v = np.random.default_rng(seed).normal(size=d)
    return (v / np.linalg.norm(v)).astype(dtype)


def full(**changes):
    return SV(**{"direction": unit(), "layer": 3, "site": "mlp_out", "scale": -1.5, **PROVENANCE, **changes})


# ---- arithmetic


def test_arithmetic_changes_the_scale_only():
    v = SV(unit(), 3, "mlp_out")
    for w, scale in [
        (v * 4.0, 4),
        (4 * v, 4),
        (v / 2, 0.5),
        (-v, -1),
        (np.float32(3) * v, 3),
        (v * np.float64(-2), -2),
        (v * 0, 0),
    ]:
        assert w.scale == scale
        assert w.direction is not None and np.array_equal(w.direction, v.direction)
        np.testing.assert_allclose(w.vector, scale * unit(), rtol=1e-6)
    assert v.scale == 1.0


def test_sums_join_vectors_of_one_site():
    a, b = SV(unit(seed=1), 3, "mlp_out", 2.0, **PROVENANCE), SV(unit(seed=2), 3, "mlp_out", 3.0, **PROVENANCE)
    for joined, wanted in [(a + b, a.vector + b.vector), (a - b, a.vector - b.vector)]:
        np.testing.assert_allclose(joined.vector, wanted, rtol=1e-5, atol=1e-6)
        assert (joined.method, joined.model, joined.weights, joined.site_norm) == ("sum", "org/name", "abc", 2.5)
        assert joined.rank is None and joined.sigma is None and joined.residual is None and joined.prompts == ()
    assert (a + dataclasses.replace(b, site_norm=9.0, model="other")).site_norm is None
    for other in (SV(unit(), 4, "mlp_out"), SV(unit(), 3, "resid_post"), SV(unit(7), 3, "mlp_out")):
        with pytest.raises(ps.InvalidInput, match="steer with both"):
            a + other
    for scale in (1e-20, 1.0, 1e20):  # 0.1 + 0.2 is not 0.3
        for v in (a * scale, dataclasses.replace(a, direction=a.direction.astype(np.float32), scale=scale)):
            with pytest.raises(ps.InvalidInput, match=r"nothing but rounding.*not be zero"):
                0.1 * v + 0.2 * v - 0.3 * v
            assert (0.1 * v + 0.2 * v - 0.3001 * v).scale == pytest.approx(1e-4 * abs(v.scale), rel=1e-2)
    silent = dataclasses.replace(a, site_norm=0.0)
    with pytest.raises(ps.InvalidInput, match=r"activation at blocks\.3\.hook_mlp_out is zero"):
        silent.relative(0.3)
    with pytest.raises(ps.InvalidInput, match="not be zero"):
        a - a


def test_equality_is_one_answer():
    """Of every field, and of nothing else."""
    v, other = full(), {
        "direction": unit(seed=9), "layer": 4, "site": "attn_out", "scale": 1.5, "operation": "clamp", "site_norm": 2.0,
        "method": "power", "model": "x", "model_type": "x", "weights": "x", "target": "logits", "prompts": ("x",), "prompt_tokens": ((9,),),
        "source_positions": ((9,),), "target_positions": ((9,),), "reduce": "mean", "steering": (), "rank": 4,
        "sigma": 1.0, "residual": 1.0, "objective": 1.0, "seed": 8, "cost": (1, 1, 1.0), "version": "0",
        "parents": ("x",), "calibration": (0.5, 0.5, 3, 8, "-1", 21),
    }  # fmt: skip
    assert other.keys() == {f.name for f in dataclasses.fields(SV)}
    assert (v == full()) is True and (v != full()) is False and hash(v) == hash(full()) and len({v, full()}) == 1
    assert v in [full()] and full(scale=0.0) == full(scale=-0.0) and hash(full(scale=0.0)) == hash(full(scale=-0.0))
    for name, value in other.items():
        assert (v == full(**{name: value})) is False and (v != full(**{name: value})) is True, name
    assert (v == full(direction=unit(7))) is False
    signed = (SV(np.array([sign, 1.0]), 0, "mlp_out") for sign in (0.0, -0.0))
    assert len(set(signed)) == 1
    for stranger in (3, None, "v", v.vector, v.provenance):
        assert (v == stranger) is False and (v != stranger) is True and (stranger == v) is False
    assert 2 * np.asarray(v) == pytest.approx(np.asarray(2 * v))


def test_html_of_a_notebook():
    html = full(model="<b>&")._repr_html_()
    assert html.startswith("<table>") and "&lt;b&gt;&amp;" in html and "<b>&" not in html
    assert "sigma</td><td>8.25" in html and "target</td><td>blocks.7.hook_resid_post" in html
    assert "objective" not in full(objective=None)._repr_html_()


def test_spellings_of_the_previous_release(tmp_path):
    v = full()
    with pytest.warns(DeprecationWarning, match="now called location") as caught:
        assert v.place == v.location == (3, "mlp_out")
    assert caught[0].filename == __file__
    with pytest.warns(DeprecationWarning, match="by keyword"):
        v.to_gguf(tmp_path / "a.gguf", "gemma")
    with pytest.warns(DeprecationWarning, match="by keyword"):
        ps.save_vectors(tmp_path / "b.gguf", [v], "gemma")
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


def test_relative_is_a_fraction_of_the_sites_norm():
    v = full()
    assert v.relative(0.35).scale == pytest.approx(-0.35 * 2.5)  # the sign of -1.5 stays, its size does not
    assert (-v).relative(0.35).scale == pytest.approx(0.35 * 2.5)
    assert (-v).relative(-0.35).scale == pytest.approx(-0.35 * 2.5)
    with pytest.raises(ps.InvalidInput, match="does not know its site's activation norm"):
        full(site_norm=None).relative(0.35)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_a_scale_must_be_finite(bad):
    v = full()
    for act in (lambda: v * bad, lambda: bad * v, lambda: v / bad, lambda: v.relative(bad), lambda: full(scale=bad)):
        with pytest.raises(ps.InvalidInput, match=r"finite|scale"):
            act()
    with pytest.raises(ps.InvalidInput, match="divided by 0"):
        v / 0


@pytest.mark.parametrize("other", ["2", None, np.ones(6), [1.0], 1j])
def test_only_numbers_scale(other):
    for act in (
        lambda: full() * other,
        lambda: other * full(),
        lambda: full() / other,
        lambda: full() + other,
        lambda: full() - other,
    ):
        with pytest.raises(TypeError):
            act()


def test_immutable():
    source = unit()
    v = SV(source, 3, "mlp_out")
    source[:] = 0
    assert np.linalg.norm(v.direction) == pytest.approx(1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        v.scale = 2
    with pytest.raises(ValueError, match="read-only"):
        v.direction[0] = 1
    for twin in (copy.deepcopy(full()), pickle.loads(pickle.dumps(full()))):
        assert twin.provenance == full().provenance and np.array_equal(twin.direction, full().direction)


def test_arrays():
    x = np.array([3.0, 4.0])
    v = SV.from_array(x, 2, "attn_out")
    assert v.scale == 5 and v.direction.tolist() == [0.6, 0.8] and v.method == "given"
    assert np.array_equal(np.asarray(v), x) and np.asarray(v, dtype=np.float32).dtype == np.float32
    assert len(v) == 2
    assert SV.from_array(x, "blocks.2.hook_attn_out").location == (2, "attn_out") == v.location
    assert SV.from_array(x.astype(np.float16), 2, "attn_out").direction.dtype == np.float32
    assert SV.from_array([3, 4], 2, "attn_out").direction.dtype == np.float64
    assert SV.from_array(x[::-1], 2, "attn_out").direction.tolist() == [0.8, 0.6]
    assert SV.from_array(x.astype(">f8"), 2, "attn_out").direction.tolist() == [0.6, 0.8]


@pytest.mark.parametrize(
    ("array", "message"),
    [(np.zeros(3), "not zero"), ([1.0, math.nan], "finite"), ([math.inf, 0.0], "finite"),
     (np.ones((2, 2)), r"\(2, 2\)"),
     (np.float64(1), "shape"), ([1j], "real"), (["a"], "real"), ([True, False], "real"), ([], "not zero")],
)  # fmt: skip
def test_arrays_that_are_no_vector(array, message):
    with pytest.raises(ps.InvalidInput, match=message):
        SV.from_array(array, 0, "mlp_out")


@pytest.mark.parametrize(
    "changes",
    [{"direction": 2 * unit()}, {"direction": unit().astype(complex)}, {"direction": np.full(6, np.nan)},
     {"direction": unit()[None]},
     {"layer": -1}, {"layer": 1.0}, {"layer": True}, {"site": "mlp"}, {"site": 3}, {"scale": "4"}, {"scale": None},
     {"site_norm": math.nan},
     {"method": None}, {"model": 3}, {"target": (1, "nowhere")}, {"target": "somewhere"}, {"target": 4},
     {"prompts": "text"},
     {"prompt_tokens": ((1, "a"),)}, {"prompt_tokens": (1,)}, {"rank": -1}, {"rank": 1.5}, {"sigma": math.inf},
     {"residual": "small"},
     {"seed": -1}, {"source_positions": ((-1,),)}, {"prompts": ("\ud800",)}, {"scale": 10**400}, {"parents": "x"},
     {"calibration": (1.0, 1.0)}, {"calibration": (math.nan, 1.0, 2, 0, "all", 9)}, {"calibration": (1.0, 1.0, -2, 0, "all", 9)}],
)  # fmt: skip
def test_fields_of_the_wrong_kind(changes):
    with pytest.raises(ps.InvalidInput):
        dataclasses.replace(full(), **changes)


def test_repr_names_the_place_and_the_certificate():
    text = repr(full())
    for part in ("-1.5", "blocks.3.hook_mlp_out", "rank 3", "8.25", "blocks.7.hook_resid_post", "krylov"):
        assert part in text
    assert "next_token" in repr(full(target="next_token"))


# ---- safetensors

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
naturals = st.integers(0, 2**40)
finite = st.floats(allow_nan=False, allow_infinity=False)
rows = st.lists(st.lists(naturals, max_size=3).map(tuple), max_size=2).map(tuple)


@st.composite
def vectors(draw):
    def perhaps(strategy):
        return draw(st.none() | strategy)

    target = st.sampled_from(["logits", "next_token"]) | st.tuples(naturals, st.sampled_from(["mlp_out", "down_proj"]))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    return SV(
        direction=unit(draw(st.integers(1, 9)), draw(st.integers(0, 99)), dtype),
        layer=draw(naturals),
        site=draw(st.sampled_from(["resid_pre", "mlp_out", "resid_post"])),
        scale=draw(finite),
        site_norm=perhaps(finite),
        method=draw(texts),
        model=perhaps(texts),
        model_type=perhaps(texts),
        weights=perhaps(texts),
        target=perhaps(target),
        prompts=draw(st.lists(texts, max_size=2)),
        prompt_tokens=draw(rows),
        source_positions=draw(rows),
        target_positions=draw(rows),
        reduce=perhaps(texts),
        steering=draw(st.lists(texts, max_size=2)),
        rank=perhaps(naturals),
        sigma=perhaps(finite),
        residual=perhaps(finite),
        seed=perhaps(st.integers(0, 2**64 - 1)),
        parents=draw(st.lists(texts, max_size=2)),
        calibration=perhaps(st.tuples(finite, finite, naturals, naturals, texts, naturals)),
        version=draw(texts),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("vectors")


@settings(max_examples=60, deadline=None)
@given(v=vectors())
def test_files_come_back_bit_by_bit(folder, v):
    v.save(folder / "v.safetensors")
    w = SV.load(str(folder / "v.safetensors"))
    assert w.provenance == v.provenance
    assert w.direction.dtype == v.direction.dtype and w.direction.tobytes() == v.direction.tobytes()
    assert w.scale.hex() == v.scale.hex()
    w.save(folder / "w.safetensors")
    assert (folder / "w.safetensors").read_bytes() == (folder / "v.safetensors").read_bytes()


def test_a_file_is_plain_safetensors_with_json(tmp_path):
    full().save(tmp_path / "v.safetensors")
    assert list(tmp_path.iterdir()) == [tmp_path / "v.safetensors"]  # no temporary file left
    data = (tmp_path / "v.safetensors").read_bytes()
    assert np.array_equal(safetensors.numpy.load(data)["direction"], unit())
    header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
    assert json.loads(header["__metadata__"]["powersteer-vector-1"])["sigma"] == 8.25


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file"):
        SV.load(tmp_path / "v.safetensors")
    with pytest.raises(FileNotFoundError, match="no file"):
        SV.from_gguf(tmp_path)
    with pytest.raises(ps.NotFound, match="no folder"):
        full().save(tmp_path / "nowhere" / "v.safetensors")


def write(path, tensors=None, provenance=None, key="powersteer-vector-1"):
    text = provenance if isinstance(provenance, str) else json.dumps({**full().provenance, **(provenance or {})})
    path.write_bytes(safetensors.numpy.save({"direction": unit()} if tensors is None else tensors, {key: text}))
    return path


def test_the_handmade_file_is_a_good_one(tmp_path):
    assert SV.load(write(tmp_path / "v")).provenance == full().provenance


@pytest.mark.parametrize(
    ("change", "message"),
    [(dict(tensors={"weight": unit()}), "'weight'"), (dict(tensors={"direction": unit(), "more": unit()}), "more"),
     (dict(tensors={"direction": unit().astype(np.int32)}), "dtype I32"),
     (dict(tensors={"direction": unit().astype(np.float16)}), "F16"),
     (dict(tensors={"direction": unit()[None]}), "direction"), (dict(tensors={"direction": 3 * unit()}), "direction"),
     (dict(tensors={"direction": np.full(3, np.nan, np.float32)}), "direction"),
     (dict(tensors={"direction": np.zeros(0, np.float32)}), "direction"),
     (dict(key="powersteer-vector-9"), "not a powersteer vector"), (dict(provenance="{"), "not JSON"),
     (dict(provenance="[]"), "list"),
     (dict(provenance="[" * 100_000), "not JSON"), (dict(provenance='{"layer": NaN, "site": "mlp_out"}'), "NaN"),
     (dict(provenance='{"layer": 3}'), "lacks"),
     (dict(provenance={"scale": 1e400}), "Infinity|finite|NaN|not JSON"),
     (dict(provenance={"colour": "red"}), "colour"), (dict(provenance={"direction": [1]}), "does not know"),
     (dict(provenance={"layer": "3"}), "layer"), (dict(provenance={"site": "mlp_in"}), "no site 'mlp_in'"),
     (dict(provenance={"target": [1, 2, 3]}), "target"),
     (dict(provenance={"prompts": [1]}), "prompts")],
)  # fmt: skip
def test_files_that_contradict_themselves(tmp_path, change, message):
    path = write(tmp_path / "v", **change)
    with pytest.raises(ps.InvalidInput, match=message):
        SV.load(path)


def mutate(data, blob):
    """Some bytes changed, and perhaps the end cut off or something appended."""
    blob = bytearray(blob)
    for _ in range(data.draw(st.integers(0, 6))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.none() | st.integers(0, len(blob)))
    return bytes(blob[:cut]) + data.draw(st.binary(max_size=4))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_mutated_safetensors_are_read_or_refused(folder, data):
    path = folder / "m.safetensors"
    full().save(path)
    path.write_bytes(mutate(data, path.read_bytes()))
    try:
        v = SV.load(path)
    except ps.PowersteerError:
        return
    assert np.isfinite(v.vector).all()


# ---- GGUF


@pytest.mark.parametrize(
    ("layer", "site", "block"),
    [(3, "resid_post", 3), (3, "mlp_out", 3), (1, "mlp_out", 1), (3, "resid_pre", 2), (2, "resid_pre", 1)],
)
def test_gguf_holds_what_is_added_to_a_blocks_output(tmp_path, layer, site, block):
    v = full(layer=layer, site=site)
    v.to_gguf(tmp_path / "v.gguf")
    file = read_control_vector(tmp_path / "v.gguf")
    assert list(file.directions) == [block]
    assert np.array_equal(file.directions[block], v.vector)
    assert file.fields["general.architecture"] == "controlvector" and file.fields["controlvector.model_hint"] == "llama"
    w = SV.from_gguf(tmp_path / "v.gguf")
    assert w.location == (layer, site) and w.rank == 3 and w.prompts == v.prompts
    assert w.scale == pytest.approx(v.scale) and w.scale < 0
    np.testing.assert_allclose(w.direction, v.direction, rtol=1e-6)
    np.testing.assert_allclose(w.vector, v.vector, rtol=1e-6)


@pytest.mark.parametrize(
    ("layer", "site", "message"),
    [(0, "mlp_out", "block 0"), (0, "resid_post", "block 0"), (1, "resid_pre", "block 0"), (0, "resid_pre", "block 0"),
     (3, "attn_out", "not the same"), (3, "resid_mid", "not the same"), (3, "down_proj", "not the same")],
)  # fmt: skip
def test_gguf_refuses_what_llama_cpp_cannot_do(tmp_path, layer, site, message):
    with pytest.raises(ps.InvalidInput, match=message):
        full(layer=layer, site=site).to_gguf(tmp_path / "v.gguf")
    assert not list(tmp_path.iterdir())


def test_gguf_needs_a_model_type_and_a_vector(tmp_path):
    with pytest.raises(ps.InvalidInput, match="model_hint="):
        full(model_type=None).to_gguf(tmp_path / "v.gguf")
    with pytest.raises(ps.InvalidInput, match="zero"):
        (full() * 0).to_gguf(tmp_path / "v.gguf")
    full(model_type=None).to_gguf(tmp_path / "v.gguf", model_hint="qwen3")
    assert read_control_vector(tmp_path / "v.gguf").fields["controlvector.model_hint"] == "qwen3"


def test_gguf_of_another_tool(tmp_path):
    a, b = np.array([3, 4], np.float32), np.array([0, -2], np.float32)
    write_control_vector(tmp_path / "v.gguf", {5: a, 1: b}, {"controlvector.model_hint": "mistral"})
    v = SV.from_gguf(tmp_path / "v.gguf", layer=1)
    assert v.location == (1, "resid_post") and v.vector.tolist() == [0, -2] and v.model_type == "mistral"
    with pytest.raises(ps.InvalidInput, match=r"layers \[1, 5\]"):
        SV.from_gguf(tmp_path / "v.gguf")
    with pytest.raises(ps.InvalidInput, match="no vector for layer 2"):
        SV.from_gguf(tmp_path / "v.gguf", layer=2)


def test_gguf_agrees_with_the_gguf_library(tmp_path):
    gguf = pytest.importorskip("gguf")
    full().to_gguf(tmp_path / "ours.gguf")
    reader = gguf.GGUFReader(tmp_path / "ours.gguf")
    (tensor,) = reader.tensors
    assert tensor.name == "direction.3" and tensor.tensor_type == gguf.GGMLQuantizationType.F32
    assert np.array_equal(tensor.data, full().vector)
    assert reader.fields["controlvector.layer_count"].contents() == 1
    assert reader.fields["general.architecture"].contents() == "controlvector"

    writer = gguf.GGUFWriter(tmp_path / "theirs.gguf", "controlvector")  # as repeng writes one
    writer.add_string("controlvector.model_hint", "llama")
    writer.add_uint32("controlvector.layer_count", 2)
    writer.add_array("controlvector.names", ["a", "b"])
    writer.add_array("controlvector.sizes", [1, 2, 3])
    writer.add_float64("controlvector.half", 0.5)
    for layer, d in ((1, 5), (2, 5)):
        writer.add_tensor(f"direction.{layer}", 2 * unit(d, layer))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    for layer in (1, 2):
        v = SV.from_gguf(tmp_path / "theirs.gguf", layer=layer)
        assert v.scale == pytest.approx(2) and np.array_equal(v.direction.round(5), unit(5, layer).round(5))


@pytest.mark.parametrize(
    ("blob", "message"),
    [(b"", "header"), (b"GGUF" + bytes(30), "version 0"), (b"GGML" + bytes(30), "begin with GGUF"),
     (b"GGUF" + struct.pack("<IQQ", 3, 0, 0), "no tensor"), (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0), "beyond"),
     (b"GGUF" + struct.pack("<IQQ", 3, 1, 2**60), "beyond"),
     (b"GGUF" + struct.pack("<IQQQ", 3, 1, 1, 2**62), "beyond"),
     (b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + struct.pack("<Q1sIIQ", 1, b"a", 9, 8, 2**60), "beyond"),
     (b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + struct.pack("<Q1sIIQ", 1, b"a", 9, 6, 2**60), "beyond"),
     (b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + struct.pack("<Q1sIIQ", 1, b"a", 9, 9, 1), "array of the value type 9"),
     (b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + struct.pack("<Q1sI", 1, b"\xff", 4), "UTF-8"),
     (b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + struct.pack("<Q6sIQIQ", 6, b"weight", 1, 1, 0, 0), "is this a model"),
     (b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + struct.pack("<Q11sIQIQ", 11, b"direction.0", 1, 1, 0, 0) + bytes(64),
     "counts from 1"),
     (b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + struct.pack("<Q11sIQIQ", 11, b"direction.1", 1, 2**62, 0, 0),
     "beyond"),
     (b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + struct.pack("<Q11sIQIQ", 11, b"direction.1", 1, 1, 0, 2**63),
     "beyond"),
     (b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + struct.pack("<Q11sIQIQ", 11, b"direction.1", 1, 1, 1, 0), "GGML type 1"),
     (b"GGUF" + struct.pack("<IQQ", 3, 2, 0) + struct.pack("<Q11sIQIQ", 11, b"direction.1", 1, 2, 0, 0)
      + struct.pack("<Q11sIQIQ", 11, b"direction.2", 1, 2, 0, 4) + bytes(64), "overlap"),
     (b"GGUF" + struct.pack("<IQQ", 3, 1, 2) + struct.pack("<Q1sII", 1, b"a", 4, 1) * 2 + bytes(64), "key 'a' twice"),
     (b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + struct.pack("<Q11sIQQIQ", 11, b"direction.1", 2, 1, 1, 0, 0),
     "2 dimensions")],
)  # fmt: skip
def test_gguf_files_that_are_refused(tmp_path, blob, message):
    (tmp_path / "v.gguf").write_bytes(blob)
    with pytest.raises(ps.InvalidInput, match=message):
        SV.from_gguf(tmp_path / "v.gguf")


def test_gguf_with_one_layer_twice(tmp_path):
    write_control_vector(tmp_path / "v.gguf", {1: np.ones(2), 11: np.ones(2)}, {})
    blob = (tmp_path / "v.gguf").read_bytes()
    (tmp_path / "v.gguf").write_bytes(blob.replace(b"direction.11", b"direction.01"))
    with pytest.raises(ps.InvalidInput, match=r"direction\.1 twice"):
        SV.from_gguf(tmp_path / "v.gguf")


def test_gguf_with_a_false_provenance(tmp_path):
    for provenance in (
        {"layer": 4, "site": "mlp_out"},
        {"layer": "x", "site": "mlp_out"},
        {"layer": 3},
        {"layer": 3, "site": "mlp_out", "scale": "a"},
    ):
        fields = {"powersteer.vector.3": json.dumps(provenance)}
        write_control_vector(tmp_path / "v.gguf", {3: np.ones(4)}, fields)
        with pytest.raises(ps.InvalidInput):
            SV.from_gguf(tmp_path / "v.gguf")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_mutated_gguf_is_read_or_refused(folder, data):
    path = folder / "m.gguf"
    full().to_gguf(path)
    path.write_bytes(mutate(data, path.read_bytes()))
    try:
        v = SV.from_gguf(path)
    except ps.PowersteerError:
        return
    assert np.isfinite(v.direction).all()
