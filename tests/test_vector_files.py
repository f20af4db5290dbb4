"""Several vectors in one file: safetensors, GGUF control vectors, and repeng's."""

from __future__ import annotations

import dataclasses
import json
import os

import numpy as np
import pytest
import safetensors.numpy

import powersteer as ps
from powersteer.vectors.control_vector import read_control_vector

SV = ps.SteeringVector


def some(n=3, d=5, site="resid_post", **provenance):
    rng = np.random.default_rng(n)
    fields = {"model_type": "llama", "prompts": ("a “b”",), "target": (7, "mlp_out"), **provenance}
    return [SV.from_array(rng.standard_normal(d), i + 1, site, rank=i, **fields) for i in range(n)]


def same(a, b):
    assert [v.provenance for v in a] == [v.provenance for v in b]
    assert [v.direction.tobytes() for v in a] == [v.direction.tobytes() for v in b]


@pytest.mark.parametrize("n", [1, 2, 12])
def test_safetensors_keep_every_vector_and_their_order(n, tmp_path):
    vectors = [v * -0.5 for v in some(n, site="attn_out")[::-1]]
    vectors[0] = dataclasses.replace(vectors[0], direction=vectors[0].direction.astype(np.float32))
    ps.save_vectors(tmp_path / "v.safetensors", vectors)
    same(ps.load_vectors(tmp_path / "v.safetensors"), vectors)
    ps.save_vectors(tmp_path / "w.safetensors", ps.load_vectors(tmp_path / "v.safetensors"))
    assert (tmp_path / "v.safetensors").read_bytes() == (tmp_path / "w.safetensors").read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


def test_one_vector_is_the_same_file_either_way(tmp_path):
    (vec,) = some(1)
    ps.save_vectors(tmp_path / "a", [vec])
    vec.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    same(ps.load_vectors(tmp_path / "b"), [SV.load(tmp_path / "a")])


def test_readers_of_one_vector_say_what_reads_several(tmp_path):
    ps.save_vectors(tmp_path / "v.safetensors", some())
    ps.save_vectors(tmp_path / "v.GGUF", some())
    for read, name in ((SV.load, "v.safetensors"), (SV.from_gguf, "v.GGUF")):
        with pytest.raises(ps.InvalidInput, match=r"powersteer\.load_vectors"):
            read(tmp_path / name)
    assert SV.from_gguf(tmp_path / "v.GGUF", layer=2).rank == 1


@pytest.mark.parametrize("change", [
    lambda t, p: t.pop("direction.1"),
    lambda t, p: p.pop("direction.1"),
    lambda t, p: p.update({"direction.1": 3}),
    lambda t, p: p["direction.1"].update(colour="red"),
    lambda t, p: p["direction.1"].pop("layer"),
    lambda t, p: t.update({"direction.01": t["direction.0"]}),
    lambda t, p: t.update({"direction.9": t.pop("direction.2")}),
    lambda t, p: t.update({"more": t["direction.0"]}),
    lambda t, p: t.update({"direction.1": np.ones(5)}),
])  # fmt: skip
def test_files_that_contradict_themselves(change, tmp_path):
    names = [f"direction.{i}" for i in range(3)]
    tensors = {name: v.direction for name, v in zip(names, some(), strict=True)}
    provenance = {name: json.loads(json.dumps(v.provenance)) for name, v in zip(names, some(), strict=True)}

    def write(name):
        metadata = {"powersteer-vector-1": json.dumps(provenance)}
        (tmp_path / name).write_bytes(safetensors.numpy.save(tensors, metadata))
        return ps.load_vectors(tmp_path / name)

    same(write("good"), some())
    change(tensors, provenance)
    with pytest.raises(ps.InvalidInput):
        write("bad")


def test_gguf_keeps_a_vector_a_block(tmp_path):
    vectors = [*some(2, site="mlp_out"), SV.from_array(np.arange(5.0), 5, "resid_pre", model_type="llama") * -1]
    ps.save_vectors(tmp_path / "v.gguf", vectors[::-1])
    file = read_control_vector(tmp_path / "v.gguf")
    assert list(file.directions) == [1, 2, 4] and file.fields["controlvector.layer_count"] == 3
    back = ps.load_vectors(tmp_path / "v.gguf")
    assert [v.location for v in back] == [(1, "mlp_out"), (2, "mlp_out"), (5, "resid_pre")]
    for a, b in zip(back, vectors, strict=True):
        np.testing.assert_allclose(a.vector, b.vector, rtol=1e-6)
        assert (a.rank, a.prompts, np.sign(a.scale)) == (b.rank, b.prompts, np.sign(b.scale))


@pytest.mark.parametrize(("vectors", "message"), [
    ([], "one SteeringVector or more"),
    ([np.ones(3)], "one SteeringVector or more"),
    (some(2) + some(1, site="mlp_out"), "both added to the output of block 1"),
    (some(1) + some(2, d=6)[1:], "different models"),
    (some(1) + some(2, model_type="qwen3")[1:], "model_hint="),
    (some(1, model_type=None), "model_hint="),
    (some(1) + [v * 0 for v in some(2)[1:]], "zero"),
    (some(1, site="attn_out"), "not the same"),
    (some(1, site="down_proj"), "not the same"),
    (some(1, site="resid_pre"), "block 0"),
    (some(2, site="mlp_out", model_type="gemma4_text")[1:], "in gemma4_text adding at .* is not the same"),
])  # fmt: skip
def test_what_a_gguf_file_cannot_say(vectors, message, tmp_path):
    with pytest.raises(ps.InvalidInput, match=message):
        ps.save_vectors(tmp_path / "v.gguf", vectors)
    assert not list(tmp_path.iterdir())


def test_the_hint_is_for_gguf(tmp_path):
    ps.save_vectors(tmp_path / "v.gguf", some(1, model_type=None), model_hint="gemma")
    assert read_control_vector(tmp_path / "v.gguf").fields["controlvector.model_hint"] == "gemma"
    with pytest.raises(ps.InvalidInput, match="model_hint"):
        ps.save_vectors(tmp_path / "v.safetensors", some(), model_hint="gemma")


def test_a_file_of_many_layers_steers(stories, tmp_path):
    model = ps.load(stories)
    vectors = some(3, d=model.d_model, site="mlp_out")
    ps.save_vectors(tmp_path / "v.gguf", vectors)
    got = model.steered(ps.load_vectors(tmp_path / "v.gguf"))("Once upon")
    np.testing.assert_allclose(got, model.steered(vectors)("Once upon"), rtol=1e-4, atol=1e-4)


# ---- repeng


def export_as_repeng(path, directions, model_type):
    """The calls that repeng's ControlVector.export_gguf makes."""
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(path, "controlvector")
    writer.add_string("controlvector.model_hint", model_type)
    writer.add_uint32("controlvector.layer_count", len(directions))
    for layer in directions:
        writer.add_tensor(f"direction.{layer}", directions[layer])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def directions(layers):
    return {n: np.random.default_rng(n).standard_normal(33).astype(np.float32) for n in layers}


def test_reads_what_repeng_writes(tmp_path):
    """Last layer first, as it trains them."""
    theirs = directions([5, 4, 3, 2, 1])
    export_as_repeng(tmp_path / "v.gguf", theirs, "mistral")
    vectors = ps.load_vectors(tmp_path / "v.gguf")
    assert [v.location for v in vectors] == [(n, "resid_post") for n in (1, 2, 3, 4, 5)]
    assert {(v.model_type, v.method) for v in vectors} == {("mistral", "gguf")}
    for v in vectors:
        np.testing.assert_allclose(v.vector, theirs[v.layer], rtol=1e-6)


@pytest.mark.parametrize("zero", [[2], [1, 3], [1, 2, 3, 5]])
def test_directions_of_zero_are_left_out(zero, tmp_path):
    """They add nothing, in llama.cpp and repeng either."""
    theirs = directions([1, 2, 3, 4, 5])
    for n in zero:
        theirs[n] = np.zeros_like(theirs[n])
    theirs[4][:] = 1e-30  # small is not zero
    export_as_repeng(tmp_path / "v.gguf", theirs, "mistral")
    names = ", ".join(rf"direction\.{n}" for n in zero)
    with pytest.warns(ps.ProvenanceWarning, match=f"{names} is zero and left out"):
        vectors = ps.load_vectors(tmp_path / "v.gguf")
    assert [v.layer for v in vectors] == [n for n in theirs if n not in zero]
    for v in vectors:
        np.testing.assert_allclose(v.vector, theirs[v.layer], rtol=1e-6)
    with pytest.warns(ps.ProvenanceWarning), pytest.raises(ps.InvalidInput, match=f"no vector for layer {zero[0]}"):
        SV.from_gguf(tmp_path / "v.gguf", layer=zero[0])
    with pytest.warns(ps.ProvenanceWarning):
        only = SV.from_gguf(tmp_path / "v.gguf", layer=4 if len(zero) < 4 else None)
    assert only.layer == 4 and only.scale == pytest.approx(1e-30 * 33**0.5, rel=1e-6)


@pytest.mark.parametrize(("value", "message"), [(0.0, "every direction is zero"), (np.nan, r"direction\.2 holds NaN"),
                                                (np.inf, r"direction\.2 holds NaN or infinity")])  # fmt: skip
def test_files_without_a_direction_are_refused(value, message, tmp_path):
    theirs = {n: np.zeros(7, np.float32) for n in (1, 2)}
    theirs[2][3] = value
    export_as_repeng(tmp_path / "v.gguf", theirs, "mistral")
    for read in (ps.load_vectors, SV.from_gguf):
        with pytest.raises(ps.InvalidInput, match=message):
            read(tmp_path / "v.gguf")


def test_layer_0_of_repeng_is_refused(tmp_path):
    export_as_repeng(tmp_path / "v.gguf", directions([0, 1]), "mistral")
    with pytest.raises(ps.InvalidInput, match=r"direction\.0 .* N counts from 1"):
        ps.load_vectors(tmp_path / "v.gguf")


def test_the_gguf_library_reads_what_we_write(tmp_path):
    gguf = pytest.importorskip("gguf")
    ps.save_vectors(tmp_path / "v.gguf", some())
    reader = gguf.GGUFReader(tmp_path / "v.gguf")
    assert [t.name for t in reader.tensors] == ["direction.1", "direction.2", "direction.3"]
    for tensor, vector in zip(reader.tensors, some(), strict=True):
        assert tensor.tensor_type == gguf.GGMLQuantizationType.F32
        np.testing.assert_allclose(tensor.data, vector.vector, rtol=1e-6)
    # repeng takes the last part of these two fields
    assert bytes(reader.get_field("general.architecture").parts[-1]) == b"controlvector"
    assert bytes(reader.get_field("controlvector.model_hint").parts[-1]) == b"llama"


def test_repeng_itself(tmp_path, loaded):
    """Its files, and the same logits where it adds direction.N."""
    if np.__version__ >= "2":
        pytest.skip("repeng 0.4 needs NumPy 1")
    pytest.importorskip("repeng")
    import hf_models
    import torch
    from repeng import ControlModel, ControlVector

    hf, model = hf_models._make.__wrapped__("llama", 0, "float32"), loaded("llama", "float32")
    theirs = {n: v[: model.d_model] for n, v in directions([2, 1]).items()}
    ControlVector("llama", theirs).export_gguf(tmp_path / "theirs.gguf")
    vectors = ps.load_vectors(os.fspath(tmp_path / "theirs.gguf"))
    ps.save_vectors(tmp_path / "ours.gguf", vectors)
    back = ControlVector.import_gguf(tmp_path / "ours.gguf")
    assert back.model_type == "llama" and back.directions.keys() == theirs.keys()
    for n, v in theirs.items():
        np.testing.assert_allclose(back.directions[n], v, rtol=1e-6)
    wrapped = ControlModel(hf, [1, 2])
    wrapped.set_control(back)
    with torch.no_grad():
        want = wrapped(torch.tensor([[5, 17, 3, 44]])).logits[0].numpy()
    np.testing.assert_allclose(model.steered(vectors)([5, 17, 3, 44]), want, rtol=1e-4, atol=1e-4)
