"""What messages say: the reason, and what to do instead."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import checkpoints
import pytest
import tiny

import powersteer as ps
from powersteer.inputs.prompts import title
from powersteer.inputs.sites import near_head
from powersteer.loading.hub import BUILT_IN

ROOT = Path(__file__).parents[1]
CHAT = [{"role": "system", "content": "You are a poet."}, {"role": "user", "content": "Sing."}]


def folder_of(tmp_path, *names):
    folder = tmp_path / "model"
    shutil.copytree(checkpoints.saved("llama"), folder)
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    for name in names:
        (folder / name).write_bytes(b"x")
    return folder


@pytest.mark.parametrize("config", [True, False])
def test_a_folder_with_a_gguf_file_names_the_file(tmp_path, config):
    folder = folder_of(tmp_path, "b-Q8_0.gguf", "a-Q4_K_M.gguf", "mmproj-a.gguf", "pytorch_model.bin")
    if not config:
        (folder / "config.json").unlink()
    with pytest.raises(ps.UnsupportedModel, match="give the file: .*a-Q4_K_M.gguf, or another of its 2") as caught:
        ps.load(folder)
    assert str(folder / "a-Q4_K_M.gguf") in str(caught.value) and "not read" not in str(caught.value)


def test_why_there_is_no_tokenizer(tmp_path):
    folder = tmp_path / "bare"
    shutil.copytree(checkpoints.saved("llama"), folder)
    for file in folder.glob("*token*"):
        file.unlink()
    (folder / "tokenizer.model").write_bytes(b"x")
    model = ps.load(folder)
    (note,) = model.notes
    assert model.tokenizer is None and "tokenizer.model" in note and "see notes" in repr(model)
    for call in (model, model.tokens, model.to_str_tokens, lambda p: model.jacobian(p, 0, 1), lambda p: ps.atlas(model, p)):
        for prompt in ("text", CHAT, ["text", "more"]):
            with pytest.raises(ps.InvalidInput, match=r"without a tokenizer .*only tokenizer\.model"):
                call(prompt)
    assert model([1, 2]).shape[0] == 2
    said = subprocess.run([sys.executable, "-m", "powersteer", "info", folder], capture_output=True, text=True, timeout=120)
    assert said.returncode == 0 and note in said.stdout


def test_a_model_with_a_tokenizer_has_no_notes():
    assert ps.load("demo").notes == () and "notes" not in repr(ps.load("demo"))


def test_an_unbuilt_checkout(tmp_path):
    shutil.copytree(ROOT / "powersteer", tmp_path / "powersteer", ignore=shutil.ignore_patterns("_core*.so", "__pycache__"))
    for words in (["-c", "import powersteer"], ["-m", "powersteer", "--version"]):
        done = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, timeout=120)
        last = done.stderr.strip().splitlines()[-1]
        assert done.returncode == 1 and "_core32 is not built" in last and "build_ext --inplace" in last
        assert "circular" not in done.stderr


@pytest.mark.parametrize("wrong", ["nexttoken", "next-token", "Next_Token", "next_tokens", "nexttok"])
def test_targets_that_were_nearly_right(wrong):
    model, _ = tiny.tiny(n_layers=3)
    atlas = ps.atlas(model, [[1, 2, 3]], k=1, progress=False)
    for call in (
        lambda: model.jacobian([1, 2], 0, wrong),
        lambda: model.jacobians([1, 2], 0, [1, wrong]),
        lambda: ps.atlas(model, [[1, 2, 3]], targets=[wrong], progress=False),
        lambda: atlas.pair(0, wrong),
        lambda: atlas.vector(0, wrong, 0),
    ):
        with pytest.raises(ps.InvalidInput, match="did you mean 'next_token'"):
            call()
    assert near_head("logit") and not near_head("mlp_out") and not near_head("blocks.1.hook_mlp_out")


def test_why_a_pair_is_not_in_an_atlas():
    model, _ = tiny.tiny(n_layers=4)
    atlas = ps.atlas(model, [[1, 2, 3]], k=1, sources=[0, 3], targets=[1, 3], progress=False)
    for pair, why in (
        ((3, 1), r"cannot exist: the source blocks\.3\.hook_mlp_out does not come before the target blocks\.1\.hook_mlp_out"),
        ((3, 3), "cannot exist: the source"),
        ((0, 4), "cannot exist: 'tiny' has no layer 4; its layers are 0 to 3"),
        ((-1, 3), "cannot exist: .*no layer -1"),
        ((0, 2), "was not requested.*sources are 0, 3, its targets 1, 3, next_token"),
        ((1, "next_token"), "was not requested"),
        ((0, "logits"), "no target 'logits'"),
    ):
        for call in (atlas.pair, atlas.vectors, atlas.sketch, lambda *p: atlas.search(len, validation=["a"], test=["b"], pairs=[p])):
            with pytest.raises(ps.InvalidInput, match=why):
                call(*pair)


def test_what_a_parallel_block_cannot_do():
    model, _ = tiny.tiny(n_layers=3, parallel=True, norms=("norm1",))
    atlas = ps.atlas(model, [[1, 2, 3]], k=1, sites=("attn_out", "mlp_out"), progress=False)
    with pytest.raises(ps.InvalidInput, match="1 -> 1 cannot exist"):
        atlas.pair(1, 1)


def test_a_model_keeps_its_name(tmp_path):
    made = ps.atlas(ps.load("demo"), "Q: 1", sources=[3], k=1, out=tmp_path / "run", progress=False)
    again = ps.Atlas.load(tmp_path / "run")
    assert made.model_name == again.model_name == again.model.name == again.vector(3, 4, 0).model == "demo"
    assert ps.load(BUILT_IN["demo"]).name == "demo"
    ps.atlas(again.model, "Q: 1", sources=[3], k=1, out=tmp_path / "run", progress=False)  # of the same settings
    snapshot = tmp_path / "models--org--small" / "snapshots" / "0123456789abcdef"
    shutil.copytree(checkpoints.saved("llama"), snapshot)
    assert ps.load(snapshot).name == "org/small" and ps.load(checkpoints.saved("llama")).name != "org/small"


def test_a_target_is_printed_as_a_site_is():
    model, _ = tiny.tiny(n_layers=3)
    J = model.jacobian([1, 2, 3], 0, 2)
    for text in map(str, (J, J.svd(1).vectors[0], [J.target], {"target": J.target}, J.svd(1).provenance)):
        assert "blocks.2.hook_mlp_out" in text and "(2, 'mlp_out')" not in text and "Site(" not in text
    assert J.target == (2, "mlp_out")


def test_what_a_search_says_is_of_test_prompts():
    model, _ = tiny.tiny(n_layers=3)
    found = ps.search(model, ps.random_vectors(model, 0, k=2), ps.evaluate.contains("."), validation=["a", "b"], test=["c", "d", "e"],
                      n_random=3, max_new_tokens=3)  # fmt: skip
    lines = {line.split()[0]: line for line in str(found).splitlines()}
    assert "validation" in lines["chosen"]
    best = found.random_best
    assert best.value == found.random_range[1] and f"test {best}: the best of 3 draws" in lines["random"]
    assert f"[{best.low:.4g}, {best.high:.4g}]" in lines["random"] and "n = 3" in lines["random"]


def test_the_title_of_a_prompt():
    assert title("text") == "text" and title([1, 2]) == "" and title(CHAT) == "Sing."
    longer = [*CHAT, {"role": "assistant", "content": "La."}, {"role": "user", "content": "More."}]
    assert title(longer) == "More." and title(CHAT[:1]) == "You are a poet."
    assert title([{"role": "user", "content": [{"type": "text", "text": "Look."}, {"type": "image"}]}]) == "Look."
