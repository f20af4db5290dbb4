"""lm-evaluation-harness: its tasks with powersteer's model against its transformers model and its steered one, from local files."""

from __future__ import annotations

import json
import subprocess
import sys

import hf_models
import numpy as np
import pytest
from oracles import torch, transformers
from test_tokens import byte_fallback, byte_level

import powersteer as ps

pytest.importorskip("lm_eval")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning", "ignore::ResourceWarning"),
]

import lm_eval  # noqa: E402
from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.models.hf_steered import SteeredModel  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

from powersteer.cli.console import guarded  # noqa: E402
from powersteer.harness import HarnessModel  # noqa: E402
from powersteer.harness.__main__ import command  # noqa: E402

DOCS = [
    {"q": "Once upon a time there was", "a": [" a little girl", " a", " little girl. Once"], "y": 1},
    {"q": "there was a girl ", "a": ["upon", "x", "time time"], "y": 0},
    {"q": "a", "a": [".", "..", " "], "y": 2},
    {"q": "Once upon a time. " * 12, "a": [" a", " girl", " é"], "y": 0},  # longer than the context
]
TASKS = {
    "choice": "output_type: multiple_choice\ndoc_to_text: '{{q}}'\ndoc_to_choice: '{{a}}'\ndoc_to_target: y\n"
    "metric_list: [{metric: acc}, {metric: acc_norm}]\n",
    "rolling": "output_type: loglikelihood_rolling\ndoc_to_text: ''\ndoc_to_target: '{{q}}'\n"
    "metric_list: [{metric: word_perplexity}, {metric: bits_per_byte}]\n",
    "until": "output_type: generate_until\ndoc_to_text: '{{q}}'\ndoc_to_target: '{{a[0]}}'\n"
    "generation_kwargs: {until: ['e', 'zzz'], max_gen_toks: 9, do_sample: false}\nmetric_list: [{metric: exact_match}]\n",
}  # fmt: skip


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "docs.jsonl").write_text("\n".join(map(json.dumps, DOCS)))
    for name, text in TASKS.items():
        data = f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {folder / 'docs.jsonl'}}}}}\ntest_split: test\n"
        (folder / f"{name}.yaml").write_text(f"task: {name}\n{data}{text}metadata: {{version: 1}}\n")
    return folder


def checkpoint(folder, name, tokenizer):
    """A random model of hf_models with a vocabulary of the tokenizer's size, saved with it."""
    config = hf_models.config_of(name)
    config.vocab_size = 330
    config.eos_token_id, config.bos_token_id = tokenizer.token_to_id("</s>"), tokenizer.token_to_id("<s>")
    hf = transformers.AutoModelForCausalLM.from_config(config).eval()
    hf_models.fill(hf, 0)
    hf.generation_config.update(eos_token_id=config.eos_token_id, bos_token_id=config.bos_token_id, pad_token_id=0, do_sample=False)
    hf.double().save_pretrained(folder)
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<s>")
    theirs.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {
        "llama": checkpoint(folder / "llama", "llama", byte_fallback(bos="<s>")),
        "gpt2": checkpoint(folder / "gpt2", "gpt2", byte_level()),
        "gemma2": checkpoint(folder / "gemma2", "gemma2", byte_fallback(bos="<s>")),
        "granite": checkpoint(folder / "granite", "granite", byte_level(bos="<s>")),
    }


def evaluated(lm, tasks):
    """{task: [response of every document]}, and the metrics."""
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    found = lm_eval.simple_evaluate(model=lm, tasks=list(TASKS), task_manager=manager, bootstrap_iters=0, batch_size=1)
    samples = {
        task: [item["resps"] for item in sorted(some, key=lambda s: s["doc_id"])] for task, some in found["samples"].items()
    }
    return samples, {task: {k: v for k, v in some.items() if "," in k} for task, some in found["results"].items()}


def numbers(tree):
    """Numbers and texts of nested lists, in order."""
    if isinstance(tree, (list, tuple)):
        return [leaf for item in tree for leaf in numbers(item)]
    return [tree]


def assert_same(ours, theirs, tolerance):
    (samples, metrics), (expected, expected_metrics) = ours, theirs
    assert samples.keys() == expected.keys() == TASKS.keys()
    for task in TASKS:
        mine, want = numbers(samples[task]), numbers(expected[task])
        assert len(mine) == len(want) >= len(DOCS)
        for a, b in zip(mine, want, strict=True):
            assert a == (pytest.approx(b, rel=tolerance, abs=tolerance) if isinstance(b, float) else b)
        for key, value in expected_metrics[task].items():
            assert metrics[task][key] == (pytest.approx(value, rel=tolerance) if isinstance(value, float) else value)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize("dtype, tolerance", [("float64", 2e-6), ("float32", 1e-4)])
def test_the_results_of_the_harness_transformers_model(saved, tasks, name, dtype, tolerance):
    theirs = HFLM(pretrained=str(saved[name]), dtype=dtype, device="cpu", batch_size=1)
    ours = HarnessModel(str(saved[name]), dtype=dtype)
    assert_same(evaluated(ours, tasks), evaluated(theirs, tasks), tolerance)


def entry(d, seed, action="add", coefficient=1.0, **more):
    g = torch.Generator().manual_seed(seed)
    return {"steering_vector": torch.randn(d, generator=g), "steering_coefficient": coefficient, "action": action, **more}


BLOCK = {"llama": "layers.{}", "gpt2": "h.{}", "gemma2": "layers.{}", "granite": "layers.{}"}
MODULES = {"llama": ("mlp", "self_attn"), "gpt2": ("mlp", "attn"), "gemma2": ("mlp", "post_attention_layernorm"),
           "granite": ("mlp", "self_attn")}  # fmt: skip


def steered_file(path, name, d):
    """A file with everything that can be read: blocks and modules in them, adding and clamping, with and without a bias."""
    block, (mlp, attention) = BLOCK[name], MODULES[name]
    bias = torch.linspace(-1, 1, d)
    entries = {
        block.format(0): entry(d, 1, "clamp", -0.7),
        f"{block.format(1)}.{mlp}": entry(d, 2, "add", 0.8, bias=None, head_index=None),
        f"{block.format(1)}.{attention}": entry(d, 3, "clamp", 1.5, bias=bias),
        block.format(2): entry(d, 4),
    }
    del entries[block.format(2)]["steering_coefficient"]  # 1 by default
    if name == "gemma2":
        entries["layers.2.post_feedforward_layernorm"] = entry(d, 5, "clamp", 0.3)
    torch.save(entries, path)
    return path


@pytest.mark.parametrize("name", BLOCK)
def test_the_results_of_the_harness_steered_model(saved, tasks, tmp_path, name):
    plain = HarnessModel(str(saved[name]), dtype="float64")
    file = steered_file(tmp_path / "v.pt", name, plain.model.d_model)
    theirs = SteeredModel(str(saved[name]), str(file), device="cpu", dtype="float64", batch_size=1)
    ours = HarnessModel(str(saved[name]), steer=str(file), dtype="float64")
    expected, found = evaluated(theirs, tasks), evaluated(ours, tasks)
    assert_same(found, expected, 2e-6)
    with pytest.raises(AssertionError):  # the vectors change the results
        assert_same(evaluated(plain, tasks), expected, 1e-3)
    again = tmp_path / "again.pt"
    ps.save_steered(again, ps.load_steered(file, plain.model), plain.model)
    written = SteeredModel(str(saved[name]), str(again), device="cpu", dtype="float64", batch_size=1)
    assert_same(evaluated(written, tasks), expected, 2e-6)


@pytest.mark.parametrize("name", ["gemma2", "granite"])  # a norm behind modules, a factor behind modules
def test_vectors_of_every_site_that_a_file_can_say(saved, tasks, tmp_path, name):
    model = ps.load(saved[name], dtype="float64")
    rng = np.random.default_rng(0)

    def vector(layer, site):
        return 2 * ps.SteeringVector.from_array(rng.normal(size=model.d_model), layer, site)

    vectors = [vector(1, site) for site in ("resid_mid", "resid_post", "mlp_out", "attn_out", "resid_pre")]
    vectors += [vector(0, "resid_post"), vector(2, "down_proj").clamp(), vector(2, "attn_out").ablate()]
    ps.save_steered(tmp_path / "v.pt", vectors, model)
    theirs = SteeredModel(str(saved[name]), str(tmp_path / "v.pt"), device="cpu", dtype="float64", batch_size=1)
    assert_same(evaluated(HarnessModel(model.steered(vectors)), tasks), evaluated(theirs, tasks), 2e-6)


def test_the_command_line(saved, tasks, tmp_path):
    """Strength and positions, as words of the command line."""
    model = ps.load(saved["llama"])
    vec = ps.SteeringVector.from_array(np.arange(model.d_model), 1, "mlp_out", site_norm=3.0)
    vec.save(tmp_path / "v.safetensors")
    words = [
        sys.executable, "-m", "powersteer.harness", "run", "--model", "powersteer", "--tasks", "choice", "--include_path", tasks,
        "--model_args", f"pretrained={saved['llama']},steer={tmp_path / 'v.safetensors'},relative=0.5,positions=generated",
        "--output_path", tmp_path / "out.json", "--log_samples",
    ]  # fmt: skip
    said = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert said.returncode == 0, said.stderr
    (file,) = tmp_path.glob("**/out*.json")
    results = json.loads(file.read_text())
    assert results["config"]["steering"] == ["1.5 × blocks.1.hook_mlp_out at generated (given)"]
    view = model.steered(vec.relative(0.5), positions="generated")
    (samples,) = tmp_path.glob("**/samples*.jsonl")
    rows = sorted(map(json.loads, samples.read_text().splitlines()), key=lambda row: row["doc_id"])
    for doc, row in zip(DOCS[:1], rows, strict=False):
        found = [float(resps[0][0]) for resps in row["resps"]]
        assert found == pytest.approx([x.sum() for x in view.logprobs(doc["q"], [f" {a}" for a in doc["a"]])], rel=1e-5)


def test_an_error_is_one_line_of_the_command(saved, tasks, monkeypatch, capsys):
    arguments = f"pretrained={saved['llama']},scale=3"
    words = ["run", "--model", "powersteer", "--tasks", "choice", "--include_path", str(tasks), "--model_args", arguments]
    monkeypatch.setattr(sys, "argv", ["powersteer.harness", *words])
    assert guarded(command) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "powersteer: scale needs a vector: steer=FILE"


def test_conversations(saved, tmp_path):
    lm = HarnessModel(str(saved["llama"]))
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}>{% endif %}"
    lm.model.tokenizer.templates["default"] = template
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": " So "}]
    assert lm.apply_chat_template(chat) == "<user>Hi<assistant> So >"
    assert lm.apply_chat_template(chat, add_generation_prompt=False) == "<user>Hi<assistant> So"
    assert lm.chat_template(True).startswith("{% for") and lm.chat_template() is None
    assert lm.tokenizer_name == str(saved["llama"]).replace("/", "__")


def request(kind, *arguments):
    return Instance(request_type=kind, doc={}, arguments=arguments, idx=0)


def test_sampling_and_options_of_a_task(saved):
    lm = HarnessModel(str(saved["llama"]), max_length=20)
    sampled = {"until": ["zz"], "max_gen_toks": 6, "do_sample": True, "temperature": 0.9, "top_k": 20, "top_p": 0.9, "seed": 3}
    (text,) = lm.generate_until([request("generate_until", "Once upon", sampled)], disable_tqdm=True)
    made = lm.model.generate("Once upon", max_new_tokens=6, temperature=0.9, top_k=20, top_p=0.9, seed=3)
    assert text == lm.model.tokenizer.decode(made.tokens)
    for options, message in [
        ({"num_beams": 4}, "num_beams=4 for generation; known are temperature"),
        ({"max_gen_toks": 20}, "generates 20 tokens; with a prompt, at most 19"),
    ]:
        with pytest.raises(ps.InvalidInput, match=message):
            lm.generate_until([request("generate_until", "Once", options)], disable_tqdm=True)
    with pytest.raises(ps.InvalidInput, match="a continuation has 40 tokens"):
        lm.loglikelihood([request("loglikelihood", "a", "x" * 40)], disable_tqdm=True)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"scale": 3}, "scale needs a vector"),
        ({"positions": "prompt"}, "positions needs a vector"),
        ({"steer": "v.safetensors", "scale": 1, "relative": 1}, "scale and relative are both"),
        ({"max_length": 10**6}, "max_length"),
        ({"steer": "none.pt"}, "there is no file 'none.pt'"),
        ({"steer": "v.safetensors+none.gguf"}, "none.gguf"),
    ],
)
def test_bad_model_arguments_are_refused(saved, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    ps.SteeringVector.from_array(np.ones(24), 1, "mlp_out").save("v.safetensors")
    with pytest.raises((ps.InvalidInput, ps.NotFound), match=message):
        HarnessModel(str(saved["llama"]), **arguments)
