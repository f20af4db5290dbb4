"""Files of weights: mapped, never copied; damaged, hostile and foreign ones refused by the name of what is wrong."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from pathlib import Path

import hf_configs
import hf_models
import huggingface_hub
import numpy as np
import pytest
import safetensors.numpy
from checkpoints import change_config, change_tensors, copy, equal_specs, saved
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracles import torch, transformers

import powersteer as ps
from powersteer.errors import BadCheckpoint, InvalidInput, NotFound, PowersteerError, UnsupportedModel
from powersteer.loading import hub, load_checkpoint
from powersteer.loading.blocks import Blocks
from powersteer.loading.safetensors import open_weights
from powersteer.loading.tensor_ref import TensorRef, check_finite


@pytest.mark.parametrize(("change", "error", "words"), [
    (lambda t: t.pop("model.norm.weight"), BadCheckpoint, "no tensor 'model.norm.weight'"),
    (lambda t: t.update({"model.extra": torch.ones(2)}), BadCheckpoint, "'model.extra'.*does not belong"),
    (lambda t: t.update({"model.norm.weight": torch.ones(25)}), BadCheckpoint, r"model.norm.weight.*\(25,\).*\(24,\)"),
    (lambda t: t.update({"model.norm.weight": torch.ones(24, dtype=torch.int32)}), UnsupportedModel, "norm.*I32"),
    (lambda t: t["model.layers.1.mlp.up_proj.weight"][40, 23].fill_(float("nan")), BadCheckpoint, "up_proj.*NaN"),
    (lambda t: t["model.layers.2.self_attn.o_proj.weight"][0, 0].fill_(float("-inf")), BadCheckpoint, "o_proj.*NaN"),
    (lambda t: t["model.layers.0.input_layernorm.weight"][3].fill_(float("inf")), BadCheckpoint, "layernorm.*NaN"),
], ids=["missing", "extra", "misshapen", "integers", "nan", "inf", "norm"])  # fmt: skip
def test_wrong_tensors_are_refused_by_name(tmp_path, change, error, words):
    folder = copy("llama", tmp_path)
    change_tensors(folder, change)
    with pytest.raises(error, match=words) as caught:
        load_checkpoint(folder, check=True)
    assert str(folder) in str(caught.value)


def test_the_search_for_nan_can_be_turned_off_for_matrices_only(tmp_path):
    folder = copy("llama", tmp_path)
    change_tensors(folder, lambda t: t["model.layers.1.mlp.up_proj.weight"][0, 0].fill_(float("nan")))
    load_checkpoint(folder, check=False)
    change_tensors(folder, lambda t: t["model.norm.weight"][0].fill_(float("nan")))
    with pytest.raises(BadCheckpoint, match=r"model\.norm\.weight"):
        load_checkpoint(folder, check=False)


COMPUTATIONS = {
    "forward": lambda model: model([1, 2, 3]),
    "generate": lambda model: model.generate([1, 2, 3], max_new_tokens=1),
    "jacobian": lambda model: model.jacobian([1, 2, 3], 0, 2),
}


@pytest.mark.parametrize("compute", COMPUTATIONS.values(), ids=COMPUTATIONS)
def test_weights_are_searched_when_a_model_first_computes(compute, tmp_path, monkeypatch):
    """Up to a limit, or at load if it is asked for. Without the search an error of the core names the tensor."""
    folder = copy("llama", tmp_path)
    change_tensors(folder, lambda t: t["model.layers.1.mlp.up_proj.weight"][0, 0].fill_(float("nan")))
    with pytest.raises(BadCheckpoint, match="up_proj.*NaN"):
        ps.load(folder, check=True)
    with pytest.raises(ps.InvalidInput, match="check is 'yes'"):
        ps.load(folder, check="yes")
    model = ps.load(folder)
    for _ in range(2):
        with pytest.raises(BadCheckpoint, match=r"^tensor 'model.layers.1.mlp.up_proj.weight' in .* holds NaN"):
            compute(model)
    monkeypatch.setattr("powersteer.loading.finite.CHECK_LIMIT", 1000)
    for check in (None, False):
        with pytest.raises(ps.NumericalError, match=r"is not finite.* The tensor 'model.layers.1.mlp.up_proj.weight' in"):
            compute(ps.load(folder, check=check))


def test_an_error_that_no_weight_is_to_blame_for(tmp_path):
    """The weights are searched once, and the error stays as it is."""
    model = ps.load(copy("llama", tmp_path), check=False)
    weights, searches = model._loaded.checkpoint.weights, []
    search = weights.search
    weights.search = lambda: searches.append(search())
    push = ps.SteeringVector.from_array(np.full(model.d_model, 3e38), 0, "resid_post")
    for _ in range(2):
        with pytest.raises(ps.NumericalError, match="is not finite") as caught:
            model.steered([push, push])([1, 2, 3])
        assert "tensor" not in str(caught.value)
    assert len(searches) == 1


@pytest.mark.parametrize(
    ("name", "dtype"), [("F32", np.float32), ("F64", np.float64), ("F16", np.float16), ("BF16", np.uint16)]
)
def test_finite_check_sees_every_element_and_needs_no_memory(name, dtype):
    bits = {"F32": 0x7F800000, "F64": 0x7FF0000000000000, "F16": 0x7C00, "BF16": 0x7F80}[name]
    kind = np.dtype(f"u{np.dtype(dtype).itemsize}")
    size = (64 << 20) // kind.itemsize
    flat = np.full(size, bits - 1, kind)  # the largest finite number
    tensor = TensorRef("w", name, (size,), "here", lambda: flat.view(dtype))
    tracemalloc.start()
    for shape in ((size,), (size // 64, 64), (2, size // 2), (4, 4, size // 16)):
        check_finite(tensor, flat.view(dtype).reshape(shape))
    check_finite(tensor, flat.view(dtype).reshape(-1, 1024).T)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20
    for at in (0, 1, size // 3, size - 1):
        for value in (bits, bits + 1, bits | 1 << (8 * kind.itemsize - 1)):  # inf, nan, -inf
            broken = flat.copy()
            broken[at] = value
            for shape in ((size,), (size // 64, 64), (2, size // 2)):
                with pytest.raises(BadCheckpoint, match="'w' in here"):
                    check_finite(tensor, broken.view(dtype).reshape(shape))


def test_blocks_are_searched_some_rows_at_a_time():
    data = np.zeros((100_000, 8 * 18), np.uint8)  # 100 MB of numbers
    tensor = TensorRef("w", "Q4_0", (100_000, 256), "here", lambda: Blocks("Q4_0", data))
    tracemalloc.start()
    check_finite(tensor, tensor.view())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20
    for row in (0, 50_001, 99_999):
        data[row, 126:128] = np.frombuffer(np.float16(np.nan).tobytes(), np.uint8)
        data[row, 128:] = 9
        with pytest.raises(BadCheckpoint, match="'w' in here"):
            check_finite(tensor, tensor.view())
        data[row] = 0


def test_a_big_bfloat16_file_stays_mapped(tmp_path):
    """Loading and searching 256 MB allocates next to nothing."""
    config = dict(hf_configs.HEAD, vocab_size=2_000_000, hidden_size=32, head_dim=8, tie_word_embeddings=True)
    small = transformers.LlamaForCausalLM(transformers.LlamaConfig(**dict(config, vocab_size=8))).to(torch.bfloat16)
    small.save_pretrained(tmp_path)
    change_tensors(
        tmp_path, lambda t: t.update({"model.embed_tokens.weight": torch.ones(4_000_000, 32, dtype=torch.bfloat16)})
    )
    change_config(tmp_path, vocab_size=4_000_000)
    tracemalloc.start()
    spec = load_checkpoint(tmp_path).spec
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert spec.nbytes > 256_000_000 and spec.lm_head is spec.embed and peak < 8 << 20


# ---- shards, other formats, the hub ----------------------------------------------------------------------------------


@pytest.fixture
def sharded(tmp_path):
    folder = tmp_path / "sharded"
    hf_models.make("llama").save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    return folder


def change_index(folder, change):
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index["weight_map"])
    path.write_text(json.dumps(index))


def test_shards_are_the_same_model(sharded):
    split, whole = load_checkpoint(sharded), load_checkpoint(saved("llama"))
    assert equal_specs(split.spec, whole.spec) and len(split.files) > 2 and len(whole.files) == 1
    assert split.identity["weights"] == whole.identity["weights"]


@pytest.mark.parametrize("kind", ["one", "shards", "gguf"])
def test_weights_that_are_read_outlive_their_file(kind, tmp_path, sharded):
    """mmap=False: the same bits, and what happens to the file later is of no consequence."""
    gguf_models = pytest.importorskip("gguf_models") if kind == "gguf" else None
    path = {"one": lambda: copy("llama", tmp_path), "shards": lambda: sharded,
            "gguf": lambda: gguf_models.write(tmp_path / "m.gguf", hf_models.make("llama"))}[kind]()  # fmt: skip
    mapped, read = ps.load(path), ps.load(path, mmap=False)
    assert mapped.identity == read.identity
    before = mapped([1, 2, 3])
    for file in mapped._loaded.checkpoint.files:
        file.write_bytes(b"")  # a page of `mapped` is now death
    del mapped
    assert np.array_equal(read([1, 2, 3]), before)
    with pytest.raises(BadCheckpoint, match="download it again"):
        ps.load(path, mmap=False)


@pytest.mark.parametrize(
    "name", ["../x.safetensors", "/etc/passwd", "a/../../b", "C:\\x", "\\\\host\\x", "", "a\0b", "..\\x"]
)
def test_an_index_may_not_lead_out_of_its_folder(sharded, name):
    change_index(sharded, lambda weights: weights.update({"model.norm.weight": name}))
    with pytest.raises(BadCheckpoint, match="not inside its folder"):
        load_checkpoint(sharded)


def test_an_index_must_agree_with_its_shards(sharded):
    keep = (sharded / "model.safetensors.index.json").read_text()
    files = sorted(sharded.glob("model-*.safetensors"))
    for change, error, words in (
        (lambda weights: weights.update({"model.norm.weight": "gone.safetensors"}), NotFound, "gone.safetensors"),
        (lambda weights: weights.update({"model.none": files[0].name}), BadCheckpoint, "'model.none' is not in"),
        (lambda weights: weights.pop("model.norm.weight"), BadCheckpoint, "'model.norm.weight'.*is not in"),
        (lambda weights: weights.update(dict.fromkeys(weights, files[0].name)), BadCheckpoint, "is not in"),
        (lambda weights: weights.update({"model.norm.weight": 3}), BadCheckpoint, "no weight_map"),
    ):
        change_index(sharded, change)
        with pytest.raises(error, match=words):
            load_checkpoint(sharded)
        (sharded / "model.safetensors.index.json").write_text(keep)
    shutil.copy(files[0], files[1])
    with pytest.raises(BadCheckpoint, match=r"is in .* and "):
        load_checkpoint(sharded)


@pytest.mark.parametrize(("file", "error", "words"), [
    ("pytorch_model.bin", UnsupportedModel, "pickled.*save_pretrained"),
    ("model.gguf", UnsupportedModel, "GGUF weights.*give the file: .*model.gguf"),
    ("tf_model.h5", UnsupportedModel, "TensorFlow"),
    ("adapter_config.json", UnsupportedModel, "adapter.*merge"),
    ("model.fp16.safetensors", NotFound, "neither.*model.fp16.safetensors"),
    ("readme.md", NotFound, "neither model.safetensors nor"),
])  # fmt: skip
def test_other_formats_are_refused_with_what_to_do(tmp_path, file, error, words):
    folder = copy("llama", tmp_path)
    (folder / "model.safetensors").unlink()
    (folder / file).write_bytes(b"x")
    with pytest.raises(error, match=words):
        load_checkpoint(folder)


def test_paths_that_are_no_checkpoint(tmp_path):
    for path, error in (
        (tmp_path / "none", NotFound),
        (tmp_path, NotFound),
        ("../none/of/these", NotFound),
        ("a b", NotFound),
    ):
        with pytest.raises(error):
            load_checkpoint(path)
    with pytest.raises(InvalidInput, match="is a file"):
        load_checkpoint(copy("llama", tmp_path) / "model.safetensors")
    with pytest.raises(FileNotFoundError):
        load_checkpoint(tmp_path / "none")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An offline hub cache with org/name, as huggingface_hub lays it out."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    repository = tmp_path / "home" / "hub" / "models--org--name"
    commit = "0123456789abcdef0123456789abcdef01234567"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    snapshot, blobs = repository / "snapshots" / commit, repository / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for i, file in enumerate(sorted(saved("llama").iterdir())):
        shutil.copy(file, blobs / str(i))
        (snapshot / file.name).symlink_to(Path("../../blobs") / str(i))
    return tmp_path / "home"


def test_hub_cache(cache, monkeypatch):
    whole = load_checkpoint(saved("llama"))
    for variable, value in (("HF_HOME", cache), ("HF_HUB_CACHE", cache / "hub")):
        monkeypatch.setenv(variable, str(value))
        found = load_checkpoint("org/name")
        assert equal_specs(found.spec, whole.spec) and found.identity["name"] == "org/name"
        monkeypatch.delenv(variable)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    assert hub.cache_folder() == cache / "huggingface" / "hub"
    with pytest.raises(NotFound, match=r"org/name.*main.*HF_HUB_OFFLINE"):
        load_checkpoint("org/name")
    monkeypatch.setenv("HF_HOME", str(cache))
    assert hub.resolve("org/name", revision="0123456789abcdef0123456789abcdef01234567").is_dir()
    for name in ("org/other", "org/../name", "name", "org/name/x"):
        with pytest.raises(NotFound):
            hub.resolve(name)
    next(cache.glob("hub/models--org--name/snapshots/*/config.json")).unlink()
    with pytest.raises(NotFound, match="no complete model"):
        hub.resolve("org/name")


@pytest.mark.parametrize("revision", ["main", "v1.0", "refs/pr/1", "feature/long-name", "0123456", "snapshot", "f" * 40])
@pytest.mark.parametrize("snapshot", ["0123456789abcdef0123456789abcdef01234567", "0123456", "snapshot", "f" * 40])
@pytest.mark.parametrize("links", [True, False])
def test_a_snapshot_is_found_where_huggingface_hub_finds_it(revision, snapshot, links, cache, monkeypatch):
    """Any name of a snapshot, branches and tags with slashes, and a cache without symbolic links."""
    monkeypatch.setenv("HF_HOME", str(cache))
    repository = cache / "hub" / "models--org--name"
    old = next((repository / "snapshots").iterdir())
    new = old.rename(old.parent / snapshot)
    (repository / "refs" / "main").unlink()
    if not links:
        for file in list(new.iterdir()):
            data = file.read_bytes()
            file.unlink()
            file.write_bytes(data)
    if revision != snapshot:
        reference = repository / "refs" / revision
        reference.parent.mkdir(parents=True, exist_ok=True)
        reference.write_text(snapshot)
    theirs = huggingface_hub.try_to_load_from_cache("org/name", "config.json", cache / "hub", revision)
    assert hub.resolve("org/name", revision) == Path(theirs).parent == new
    with pytest.raises(NotFound, match="'elsewhere'"):
        hub.resolve("org/name", "elsewhere")


def test_the_revision_of_a_hub_id(cache, tmp_path, monkeypatch, capsys):
    """Two commits of a repository in the cache, with other weights; nothing else has revisions."""
    from powersteer.cli import main

    monkeypatch.setenv("HF_HOME", str(cache))
    (first,) = cache.glob("hub/models--org--name/snapshots/*")
    other = shutil.copytree(first, first.parent / ("e" * 40))
    tensors = safetensors.numpy.load_file(first / "model.safetensors")
    (other / "model.safetensors").unlink()
    safetensors.numpy.save_file({name: 2 * w for name, w in tensors.items()}, other / "model.safetensors")
    (first.parents[1] / "refs" / "v2").write_text("e" * 40)
    weights = {revision: ps.load("org/name", revision=revision).identity["weights"] for revision in (None, "main", "v2", "e" * 40)}
    assert weights[None] == weights["main"] != weights["v2"] == weights["e" * 40]
    model = ps.load("org/name", revision="v2")
    assert model.name == "org/name" and model.path == str(other)
    assert main(["info", "org/name", "--revision", "v2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["weights"] == weights["v2"]
    with pytest.raises(NotFound, match="revision 'v3'"):
        ps.load("org/name", revision="v3")
    for path in ("demo", first, first / "model.gguf"):
        with pytest.raises(InvalidInput, match="is no hub id"):
            ps.load(path, revision="main")
    for wrong in ("", 2):
        with pytest.raises(InvalidInput, match="revision is"):
            ps.load("org/name", revision=wrong)


@pytest.mark.parametrize("broken", ["model.safetensors", "config.json"])
def test_a_broken_download_is_not_taken_from_the_cache(broken, cache, monkeypatch):
    """Its link is there before its file."""
    monkeypatch.setenv("HF_HOME", str(cache))
    (file,) = cache.glob(f"hub/models--org--name/snapshots/*/{broken}")
    file.resolve().unlink()
    with pytest.raises(NotFound, match="no complete model"):
        hub.resolve("org/name")


@pytest.mark.parametrize("switch", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_all_shards_must_be_in_the_cache(switch, cache, sharded, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv(switch, "1")
    monkeypatch.setenv("HF_HOME", str(cache))
    (snapshot,) = cache.glob("hub/models--org--name/snapshots/*")
    for file in list(snapshot.iterdir()):
        file.unlink()
    shutil.copytree(sharded, snapshot, dirs_exist_ok=True)
    assert hub.resolve("org/name") == snapshot
    assert load_checkpoint("org/name").identity["name"] == "org/name"
    shards = sorted(snapshot.glob("*.safetensors"))
    shards[-1].unlink()
    with pytest.raises(NotFound, match=f"no complete model.*{switch} forbids"):
        hub.resolve("org/name")


def test_a_cache_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "none"))
    with pytest.raises(NotFound, match="none; HF_HUB_OFFLINE forbids"):
        hub.resolve("org/name")
    monkeypatch.setenv("HF_HUB_CACHE", "$HERE/cache")
    monkeypatch.setenv("HERE", str(tmp_path))
    assert hub.cache_folder() == tmp_path / "cache"


def test_a_download_that_fails_is_one_clear_error(cache, monkeypatch):
    def refuse(name, **kwargs):
        raise ConnectionError(f"cannot reach {name}\nlong trace")

    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(NotFound, match=r"downloading it failed: cannot reach org/new$"):
        hub.resolve("org/new")


@pytest.mark.parametrize("files", [[], ["config.json"], ["model.safetensors"]], ids=str)
def test_a_repository_of_other_files_is_refused_by_its_id(files, cache, tmp_path, monkeypatch):
    def download(name, **kwargs):
        for file in files:
            (tmp_path / file).touch()
        return str(tmp_path)

    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(NotFound, match=r"'org/gguf' on the hub .* lacks config.json or safetensors.*of a repository with GGUF files"):
        hub.resolve("org/gguf")


# ---- hostile files ---------------------------------------------------------------------------------------------------


def write_header(path, header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)


def entry(begin, end, shape=(4,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


@pytest.mark.parametrize(("header", "words"), [
    ({"a": entry(0, 16), "b": entry(8, 24)}, "'b'.*overlaps"),
    ({"a": entry(0, 16), "b": entry(0, 16)}, "overlaps"),
    ({"a": entry(0, 16), "b": entry(20, 36)}, "leaves a gap"),
    ({"a": entry(0, 16), "b": entry(16, 32)}, "24 bytes of tensors where its header describes 32"),
    ({"a": entry(0, 16)}, "truncated or has a tail"),
    ({"a": entry(16, 0)}, "does not fill"),
    ({"a": entry(-16, 0)}, "wrong type"),
    ({"a": entry(0, 2**70, (2**68,))}, "wrong type"),
    ({"a": entry(0, 24, (2**62, 2**62))}, "does not fill"),
    ({"a": entry(0, 24, (3, 3))}, "does not fill"),
    ({"a": entry(0, 24, (True,) * 6)}, "wrong type"),
    ({"a": entry(0, 24.0, (6,))}, "wrong type"),
    ({"a": {"dtype": "F32", "shape": [6]}}, "not dtype, shape and data_offsets"),
    ({"a": {**entry(0, 24, (6,)), "more": 1}}, "not dtype, shape and data_offsets"),
    ({"a": [1]}, "not dtype, shape and data_offsets"),
    ({"a": entry(0, 24, (48,), "F4")}, "F4, which only quantised"),
    ({"a": entry(0, 24, (6,), ["F32"])}, "wrong type"),
    (b'{"a": {}, "a": {}}', "key 'a' twice"),
    (b"[]", "not a JSON object"),
    (b"{", "not valid JSON"),
    (b"\xff" * 8, "not valid JSON"),
    (b"[" * 50_000, "not valid JSON"),
    (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON"),
], ids=lambda x: str(x)[:40])  # fmt: skip
def test_hostile_headers_are_refused(tmp_path, header, words):
    path = tmp_path / "model.safetensors"
    write_header(path, header, bytes(24))
    with pytest.raises(PowersteerError, match=words) as caught:
        open_weights(tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("length", [10**9, 2**63, 2**64 - 1, 100])
def test_a_header_longer_than_its_file_is_refused(tmp_path, length):
    write_header(tmp_path / "model.safetensors", b"{}", bytes(24), length)
    with pytest.raises(BadCheckpoint, match=f"claims {length} bytes"):
        open_weights(tmp_path)


@pytest.mark.parametrize("size", range(0, 40, 3))
def test_a_truncated_file_is_refused(tmp_path, size):
    whole = (saved("llama") / "model.safetensors").read_bytes()
    for cut in (whole[:size], whole[: len(whole) - 1 - size]):
        (tmp_path / "model.safetensors").write_bytes(cut)
        with pytest.raises(BadCheckpoint):
            open_weights(tmp_path)


def test_tensors_that_are_not_aligned_are_still_read_right(tmp_path):
    values = np.arange(6, dtype=np.float32)
    header = json.dumps({"a": entry(0, 24, (2, 3))}).encode()
    for pad in range(4):
        write_header(tmp_path / "model.safetensors", header + b" " * pad, values.tobytes())
        array = open_weights(tmp_path)[0]["a"].view()
        np.testing.assert_array_equal(array, values.reshape(2, 3))
        assert array.flags.aligned


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_mutated_file_is_read_or_refused(tmp_path_factory, data):
    """Whatever bytes change, in the header above all, the answer is a model or one of our exceptions."""
    source = saved("gpt2")
    folder = tmp_path_factory.mktemp("mutated")
    for name in ("config.json", "model.safetensors"):
        content = bytearray((source / name).read_bytes())
        end = len(content) if name == "config.json" else 8 + int.from_bytes(content[:8], "little")
        for _ in range(data.draw(st.integers(0, 3), label=f"changes of {name}")):
            at = data.draw(st.integers(0, end - 1))
            content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
        (folder / name).write_bytes(content)
    try:
        spec = load_checkpoint(folder).spec
    except PowersteerError as error:
        assert str(error)
    else:
        assert len(spec.layers) == spec.n_layers
    finally:
        shutil.rmtree(folder)
