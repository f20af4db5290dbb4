"""The command line, run as a user would: in another process."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import warnings
from argparse import Namespace

import numpy as np
import pytest
from oracles import needs

import powersteer as ps
from powersteer.cli import COMMANDS, main
from powersteer.cli.arguments import command_parser, read_prompts

PROMPT = "Once upon a time there was a little girl"
COMMAND = [sys.executable, "-m", "powersteer"]


def run(*args, code=0, **options):
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "timeout": 600} | options
    done = subprocess.run([*COMMAND, *map(str, args)], **options)
    assert done.returncode == code, done.stderr
    return done


def one_line(text):
    return text.count("\n") == 1 and text.startswith("powersteer: ")


@pytest.fixture
def svd(stories):
    return ["svd", stories, "--prompt", PROMPT, "--source", 1, "--target", 4, "-k", 3]


def test_info(stories):
    facts = json.loads(run("info", stories, "--json").stdout)
    assert (facts["layers"], facts["d_model"], facts["vocabulary"], facts["model_type"]) == (5, 64, 512, "llama")
    stored = facts["stored_as"]
    assert sum(one["bytes"] for one in stored.values()) == facts["weight_bytes"] and stored["F32"]["count"] > 0
    text = run("info", stories).stdout
    assert "d model" in text and f"F32 {stored['F32']['bytes'] / 1e6:.1f} MB ({stored['F32']['count']})" in text


def test_svd_then_generate(stories, svd, tmp_path):
    folder = tmp_path / "deep" / "run"
    done = run(*svd, "--out", folder)
    assert "converged" in done.stdout and "residual" in done.stdout and not done.stderr
    assert sorted(p.name for p in folder.iterdir()) == ["0.safetensors", "1.safetensors", "2.safetensors", "svd.json"]
    summary = json.loads((folder / "svd.json").read_text())
    assert summary["converged"] and len(summary["sigma"]) == 3 and max(summary["residuals"]) <= 1e-3
    again = run(*svd, "--source", "blocks.1.hook_mlp_out", "--target-positions", "-2:", "--json")  # the default, spelled out
    assert json.loads(again.stdout)["sigma"] == summary["sigma"]
    prompt = ["--prompt", "Once upon a time", "--max-new-tokens", 20]
    steered = run("generate", stories, *prompt, "--steer", folder / "0.safetensors", "--relative", 0.5, "--json")
    one = json.loads(steered.stdout)["generations"][0]
    assert one["variant"] == "steered" and len(one["tokens"]) <= 20 and one["steering"]
    assert run("generate", stories, *prompt).stdout.startswith("Once upon a time")
    both = run("generate", stories, *prompt, "--steer", folder / "0.safetensors", "--scale", -3, "--compare")
    assert [line for line in both.stdout.splitlines() if line.startswith("---")] == [
        "--- unsteered: Once upon a time",
        "--- steered: Once upon a time",
        "--- steered the other way: Once upon a time",
    ]


def test_next_token_and_power(svd):
    fisher = json.loads(run(*svd, "--target", "next_token", "--json").stdout)
    assert fisher["target"] == "next_token" and fisher["shape"] == [512, 64]
    power = run(*svd, "-k", 12, "--method", "power", "--json")
    assert json.loads(power.stdout)["applications"] == 132 and not json.loads(power.stdout)["converged"]
    assert one_line(power.stderr) and "warning" in power.stderr


def test_a_missed_tolerance_is_code_1(svd):
    missed = run(*svd, "--max-applications", 20, "--json", code=1)
    assert not json.loads(missed.stdout)["converged"] and "Raise max_applications" in missed.stderr


@pytest.mark.parametrize(("positions", "chosen"), [("-2:", [-2, -1]), ("-1", [-1]), ("0,-1", [0, -1]), (":2", [0, 1])])
def test_positions_may_begin_with_a_dash(svd, capsys, positions, chosen):
    assert main([*map(str, svd), "--target-positions", positions, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    length = len(found["prompt_tokens"][0])
    assert found["positions"] == [[i % length for i in chosen]]


def test_a_prompt_may_begin_with_a_dash(stories, capsys):
    assert main(["generate", str(stories), "--prompt", "--- no", "--stop", "-", "--max-new-tokens", "2"]) == 0
    assert capsys.readouterr().out.startswith("--- no")


def test_top_k_beyond_the_vocabulary_is_all_of_it(stories, capsys):
    for k in ("0", HUGE):
        main(["generate", str(stories), "--prompt", "x", "--temperature", "1", "--max-new-tokens", "9", "--top-k", k])
    whole, beyond = capsys.readouterr().out.splitlines()
    assert whole == beyond


HUGE = "1" + 30 * "0"
GOOD = ["--prompt", PROMPT, "--source", "1", "--target", "4"]


@pytest.mark.parametrize(("args", "words"), [
    ([], "no command.*info, svd, .*generate, chat, search, export"),
    (["--json"], "no argument --json"),
    (["inof"], "'inof': did you mean info"),
    (["frobnicate"], "'frobnicate': commands are demo, info, .*generate"),
    (["info"], "required: model; see powersteer info --help"),
    (["info", "/no/such/folder"], "/no/such/folder"),
    (["info", "{model}", "more"], "unrecognized arguments: more"),
    (["info", "{model}", "--dtype", "float16"], "--dtype.*'float32', 'float64'"),
    (["info", "{model}", "--threads", "0"], "threads is 0"),
    (["svd", "{model}", "--prompt", "x"], "required: --source, --target"),
    (["svd", "{model}", *GOOD, "--sorce", "1"], "--sorce: did you mean --source"),
    (["svd", "{model}", *GOOD, "--prom=x"], "--prom: did you mean --prompt"),
    (["svd", "{model}", *GOOD, "--tol"], "argument --tol: its value is missing"),
    (["svd", "{model}", *GOOD, "--target-positions", "--json"], "argument --target-positions: its value is missing"),
    (["svd", "{model}", *GOOD, "--target-positions", "1:2:3:4"], "argument --target-positions: '1:2:3:4'.*-2:"),
    (["svd", "{model}", *GOOD, "--target-positions", "-99:-98"], "-99"),
    (["svd", "{model}", *GOOD, "--source", "²"], "argument --source: '²'.*a layer .3."),
    (["svd", "{model}", *GOOD, "--source", "1\n2"], "argument --source"),
    (["svd", "{model}", *GOOD, "-k", "three"], "argument -k: 'three' is not a whole number"),
    (["svd", "{model}", *GOOD, "-k", "-3"], "k is -3; it must be an integer >= 1"),
    (["svd", "{model}", *GOOD, "--tol", "small"], "argument --tol: 'small' is not a number"),
    (["svd", "{model}", *GOOD, "--tol", "nan"], "tol is nan; it must be a finite number > 0"),
    (["svd", "{model}", *GOOD, "--method", "magic"], "--method.*'krylov', 'power', 'dense'"),
    (["svd", "{model}", *GOOD, "--method", "dense", "--iterations", "7"], "iterations"),
    (["svd", "{model}", *GOOD, "-k", "129"], "k is 129; it must be at most 64"),
    (["svd", "{model}", "--prompt", "x", "--source", "9", "--target", "4"], "layer 9"),
    (["svd", "{model}", "--prompt", "x", "--source", "4", "--target", "1"], "before"),
    (["svd", "{model}", "--source", "1", "--target", "4"], "no prompt"),
    (["svd", "{model}", *GOOD, "-k", HUGE], f"k is {HUGE}; it must be at most"),
    (["svd", "{model}", *GOOD, "--method", "power", "--iterations", HUGE], "iterations is 1.*at most"),
    (["svd", "{model}", *GOOD, "--threads", HUGE], "threads is 1.*at most 4096"),
    (["svd", "{model}", *GOOD, "--source", "blocks.1.hook_mlp_out", "--source-site", "resid_pre"], "'blocks.1.hook_mlp_out'"),
    (["svd", "{model}", *GOOD, "--out", "/sys/run"], "--out.*/sys/run"),
    (["svd", "{model}", *GOOD, "--out", ""], "--out: the name of the folder is empty"),
    (["svd", "{model}", *GOOD, "--out", "{model}/config.json"], "--out.*config.json"),
    (["generate", "{model}", "--prompt", "x", "--steer", "missing.safetensors"], "missing.safetensors"),
    (["generate", "{model}", "--prompt", "x", "--relative", "1"], "--relative needs a vector"),
    (["generate", "{model}", "--prompt", "x", "--scale", "0"], "--scale needs a vector"),
    (["generate", "{model}", "--prompt", "x", "--positions", "-2:"], "--positions needs a vector"),
    (["generate", "{model}", "--prompt", "x", "--compare"], "--compare needs a vector"),
    (["generate", "{model}", "--prompt", "x", "--scale", "1", "--relative", "1"], "--relative.*--scale"),
    (["generate", "{model}", "--prompt", "x", "--max-new-tokens", "5000"], "context"),
    (["generate", "{model}", "--prompt", "x", "--seed", "-1"], "seed is -1"),
    (["generate", "{model}", "--prompt", "x", "--chat"], "chat template"),
    (["generate", "{model}", "--prompt-file", "{model}"], "cannot read the prompt file"),
    (["generate", "{model}", "--prompt", ""], "--prompt is empty"),
    (["svd", "{model}", *GOOD, "--prompt", "  "], "--prompt is empty"),
    (["atlas", "{model}", "--prompt", "", "--out", "run"], "--prompt is empty"),
    (["atlas", "{model}", "--prompt", "x", "--out", ""], "argument --out: the name is empty"),
    (["info", ""], "argument model: the name is empty"),
    (["report", ""], "argument folder: the name is empty"),
    (["demo", "--atlas", ""], "argument --atlas: the name is empty"),
    (["demo", "--atlas", "/no/such/folder/a.html"], "no folder '/no/such/folder'"),
    (["demo", "--atlas", "{model}"], "it is a folder"),
    (["svd", "{model}", "--prompts", "/no/such.jsonl", *GOOD[2:]], "cannot read the prompts /no/such.jsonl"),
    (["svd", "{model}", *GOOD, "--prompts", "p.jsonl"], "by --prompts FILE, or by --prompt"),
    (["svd", "{model}", *GOOD, "--target", "nexttoken"], "argument --target: 'nexttoken' is not a target: did you mean 'next_token'"),
    (["export", "v.safetensors"], "required: --out"),
    (["export", "v.safetensors", "--out", "v.txt"], "v.txt: its name must end in .gguf or .safetensors"),
    (["export", "/no/such.safetensors", "--out", "v.gguf"], "/no/such.safetensors"),
    (["export", "{model}", "--out", "v.gguf"], "neither an atlas .*nor"),
    (["export", "{model}", "--out", "v.gguf", "--source", "1"], "choose from an atlas"),
    (["search", "{model}", "--wanted", "(", "--validation", "v", "--test", "t"], "no regular expression"),
    (["search", "{model}", "--wanted", "x", "--validation", "/no/v.jsonl", "--test", "t"], "cannot read the prompts /no/v.jsonl"),
])  # fmt: skip
def test_bad_input_is_one_line_and_code_2(stories, capsys, args, words):
    if args[:2] == ["demo", "--atlas"] and args[2]:
        needs("plotly")
    code = main([a.format(model=stories) for a in args])
    out, err = capsys.readouterr()
    assert code == 2 and not out and one_line(err)
    assert re.search(words, err), err


def test_refused_by_the_process_too(stories):
    done = run("svd", stories, "--source", "²", code=2)
    assert one_line(done.stderr) and not done.stdout


@pytest.mark.parametrize(("words", "old", "new"), [
    (["svd", "{model}", *GOOD, "-k", "1", "--out", "{tmp}"], "--save", "--out"),
    (["svd", "{model}", *GOOD, "-k", "1", "--target-positions", "-1"], "--positions", "--target-positions"),
    (["svd", "{model}", *GOOD, "-k", "1", "--target-positions=-1"], "--positions", "--target-positions"),
    (["atlas", "{model}", "--prompt", "x", "--dry-run", "--prompt-groups", "each"], "--views", "--prompt-groups"),
    (["atlas", "{model}", "--prompt", "x", "--dry-run", "--max-new-tokens", "3"], "--new-tokens", "--max-new-tokens"),
    (["export", "{tmp}", "--out", "{tmp}/v.gguf", "--prompt-group", "0"], "--view", "--prompt-group"),
])  # fmt: skip
def test_an_old_spelling_is_read_with_a_warning(stories, capsys, tmp_path, words, old, new):
    ps.random_vectors(ps.load(stories), 2)[0].save(tmp_path / "0.safetensors")
    outputs = []
    for spelling in (new, old):
        args = [re.sub(f"^{new}(?==|$)", spelling, word).format(model=stories, tmp=tmp_path) for word in words]
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            assert main(args) == 0
        out, err = capsys.readouterr()
        outputs.append(out.count("\n"))
        assert err.count("\n") == (spelling == old) and (spelling == new or err == f"powersteer: warning: {old} is now called {new}\n")
    assert outputs[0] == outputs[1] > 0


# ---- where the output goes


def test_an_ascii_terminal(stories):
    env = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    said = run("generate", stories, "--prompt", "é → 中", "--max-new-tokens", 3, env=env)
    assert said.stdout.startswith(r"\xe9 \u2192 \u4e2d") and not said.stderr
    made = run("generate", stories, "--prompt", "é → 中", "--max-new-tokens", 3, "--json", env=env)
    assert json.loads(made.stdout)["generations"][0]["prompt"] == "é → 中"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full is Linux's")
@pytest.mark.parametrize("args", [["svd", "--help"], ["--version"], ["info", "{model}"], ["info", "{model}", "--json"]])
def test_a_full_disk(stories, args):
    with open("/dev/full", "w") as full:
        done = run(*(a.format(model=stories) for a in args), code=2, stdout=full)
    assert one_line(done.stderr) and "standard output: No space left" in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
@pytest.mark.parametrize("args", [["svd", "--help"], ["info", "{model}"]])
def test_a_reader_that_has_gone(stories, args):
    read, write = os.pipe()
    os.close(read)
    try:
        done = run(*(a.format(model=stories) for a in args), code=141, stdout=write)
    finally:
        os.close(write)
    assert done.stderr == ""


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c(stories):
    prompts = [word for _ in range(200) for word in ("--prompt", "Once upon a time")]  # more than a pipe holds
    args = [*COMMAND, "generate", str(stories), *prompts, "--max-new-tokens", "400"]
    with subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.read(3) == "---"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err == "powersteer: interrupted\n"


def test_what_was_computed_is_shown_if_it_cannot_be_saved(svd, monkeypatch, capsys, tmp_path):
    def full(path, text):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("powersteer.cli.svd.write_text", full)
    assert main([*map(str, svd), "--out", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert "converged" in out and "saved" not in out and one_line(err) and "--out" in err and "No space" in err


# ---- help


def example(command):
    """The line after "example:", which is what a user copies."""
    lines = run(command, "--help").stdout.splitlines()
    return lines[lines.index("example:") + 1].strip()


def test_help_lists_the_commands():
    text = run("--help").stdout
    assert all(f"  {name} " in text and command.summary in text for name, command in COMMANDS.items())


def test_examples_work(stories, tmp_path):
    """Copied from the help, in one folder, in the order of the list."""
    needs("plotly")
    (tmp_path / "validation.jsonl").write_text('"Once upon a time"\n"The dog"\n')
    (tmp_path / "test.jsonl").write_text('"One day"\n"The cat"\n')
    chatty = shutil.copytree(stories, tmp_path / "stories260K")
    (chatty / "chat_template.jinja").write_text("{{ messages[-1].content }}")
    for name in COMMANDS:
        words = shlex.split(example(name))
        assert words[:2] == ["powersteer", name]
        run(*(str(chatty) if word == "path/to/model" else word for word in words[1:]), cwd=tmp_path, stdin=subprocess.DEVNULL)
    assert (tmp_path / "run" / "svd.json").exists() and (tmp_path / "v.gguf").exists()


def keys(value):
    for key, inner in value.items():
        yield key
        if isinstance(inner, list) and inner and isinstance(inner[0], dict):
            yield from (f"{key}.{deeper}" for deeper in inner[0])


@pytest.mark.parametrize("args", [["info"], ["svd", *GOOD], ["generate", "--prompt", "x", "--max-new-tokens", "1"]])
def test_json_is_what_the_help_says(stories, capsys, args):
    assert main([args[0], str(stories), *args[1:], "--json"]) == 0
    assert list(keys(json.loads(capsys.readouterr().out))) == list(COMMANDS[args[0]].json)
    with pytest.raises(SystemExit):
        command_parser(args[0], COMMANDS[args[0]]).read(["--help"])
    text = capsys.readouterr().out
    assert all(f"  {key} " in text for key in COMMANDS[args[0]].json)


def test_atlas(stories, tmp_path):
    needs("plotly")
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('"Once upon a time"\n\n{"prompt": "The dog"}\n')
    words = ["atlas", stories, "--prompts", prompts, "--sources", "0-1,3", "--targets", "2,4", "-k", 3]
    plan = json.loads(run(*words, "--dry-run", "--json").stdout)
    assert plan["pairs"] == 8 and plan["seconds"] > 0 and not (tmp_path / "run").exists()
    said = run(*words, "--dry-run", "--effects", 2, "--scales", "0.5").stdout
    assert re.search(r"effects +16 vectors, 160 continuations of about \d", said)  # 8 pairs, 3 sources of 8 draws; signs, prompts
    longer = json.loads(run(*words, "--dry-run", "--effects", 2, "--scales", "0.5", "--json").stdout)
    assert longer["seconds"] > longer["effects_seconds"] > 0 and plan["effects_seconds"] is None
    for wrong, error in ((("--effects", 4), "--effects is 4; a pair has 3"), (("--effects", 1, "--scales", "0"), "--scales is 0")):
        assert error in run(*words, "--out", tmp_path / "run", *wrong, code=2).stderr and not (tmp_path / "run").exists()
    made = json.loads(run(*words, "--out", tmp_path / "run", "--json").stdout)
    assert made["pairs"] == made["converged"] == 8 and made["worst_residual"] <= 1e-2
    assert {(c["source"], c["target"]) for c in made["cells"]} == {
        (0, 2), (0, 4), (0, "next_token"), (1, 2), (1, 4), (1, "next_token"), (3, 4), (3, "next_token")
    }  # fmt: skip
    atlas = ps.Atlas.load(tmp_path / "run")
    assert atlas.complete and atlas.prompts == ["Once upon a time", "The dog"]
    tried = run(*words, "--out", tmp_path / "run", "--workers", 2, "--effects", 1, "--scales", "0.5,2", "--max-new-tokens", 5)
    shown = tried.stdout  # the cells were all there
    effects = ps.Atlas.load(tmp_path / "run").kept_effects
    assert len(effects) == 8 * 2 * 2 * 2 and {e.scale for e in effects} == {0.5, 2.0} and all(e.text for e in effects)
    assert "8 of 8 pairs" in shown and f"{atlas.S[1, 4, 0]:8.3g}" in shown
    page = json.loads(run("report", tmp_path / "run", "--json").stdout)
    assert page == {"file": str(tmp_path / "run" / "atlas.html"), "bytes": os.path.getsize(page["file"]), "complete": True}
    again = run(*words, "--out", tmp_path / "other", "--workers", 2, "--threads", 1, "--json")
    np.testing.assert_allclose(
        [c["sigma"] for c in json.loads(again.stdout)["cells"]], [c["sigma"] for c in made["cells"]], rtol=1e-2
    )


@pytest.mark.parametrize(
    "line, said",
    [("{", "line 1 is not JSON"), ("3", "line 1 must be"), ('{"prompt": "a", "messages": [1]}', "line 1 must be"), ("", "no prompt"),
     ('""', "line 1 is empty"), ('{"prompt": " "}', "line 1 is empty")],
)
def test_atlas_refuses_prompts(tmp_path, line, said):
    prompts = tmp_path / "p.jsonl"
    prompts.write_text(line + "\n")
    with pytest.raises(ps.InvalidInput, match=said):
        read_prompts(Namespace(prompts=str(prompts), prompt=[], prompt_file=[], chat=False))


# ---- vectors: files, atlas folders, search


@pytest.fixture(scope="module")
def mapped(stories, tmp_path_factory):
    """(folder of an atlas, its atlas)"""
    folder = tmp_path_factory.mktemp("vectors") / "run"
    return folder, ps.atlas(ps.load(stories), [PROMPT], sources=[1, 2], k=3, out=folder, progress=False)


def generated(capsys, stories, *words):
    args = ["generate", stories, "--prompt", PROMPT, "--max-new-tokens", 8, *words, "--json"]
    assert main(list(map(str, args))) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)["generations"]


def test_steering_by_any_file_of_vectors(stories, mapped, capsys, tmp_path):
    model, atlas = ps.load(stories), mapped[1]
    vectors = [atlas.vector(1, 4, 0) * 2.0, atlas.vector(2, 4, 0) * -3.0]
    wanted = model.steered(vectors).generate(PROMPT, max_new_tokens=8).text
    for name in ("v.gguf", "v.safetensors"):
        ps.save_vectors(tmp_path / name, vectors)
        (said,) = generated(capsys, stories, "--steer", tmp_path / name)
        assert said["text"] == wanted != model.generate(PROMPT, max_new_tokens=8).text and len(said["steering"]) == 2
    vectors[0].save(tmp_path / "a.safetensors")
    vectors[1].save(tmp_path / "b.safetensors")
    (said,) = generated(capsys, stories, "--steer", tmp_path / "a.safetensors", "--steer", tmp_path / "b.safetensors")
    assert said["text"] == wanted


def test_relative_measures_the_norm_that_a_file_lacks(stories, capsys, tmp_path):
    model = ps.load(stories)
    bare = ps.SteeringVector.from_array(np.arange(1.0, 65.0), 2, "resid_post", model_type="llama")
    bare.to_gguf(tmp_path / "v.gguf")
    (said,) = generated(capsys, stories, "--steer", tmp_path / "v.gguf", "--relative", 0.5)
    norm = np.linalg.norm(model.activations(PROMPT, (2, "resid_post")), axis=1).mean()
    assert f"{0.5 * norm:.3g}" in f"{float(said['steering'][0].split()[0]):.3g}"


def test_prompts_from_a_file(stories, svd, capsys, tmp_path):
    (tmp_path / "p.jsonl").write_text(f'{json.dumps(PROMPT)}\n{{"prompt": "The dog"}}\n')
    args = ["generate", str(stories), "--prompts", str(tmp_path / "p.jsonl"), "--max-new-tokens", "2", "--json"]
    assert main(args) == 0
    assert [g["prompt"] for g in json.loads(capsys.readouterr().out)["generations"]] == [PROMPT, "The dog"]
    words = list(map(str, svd))
    at = words.index("--prompt")
    found = []
    for given in (["--prompts", str(tmp_path / "p.jsonl")], ["--prompt", PROMPT, "--prompt", "The dog"]):
        assert main([*words[:at], *given, *words[at + 2 :], "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out)["sigma"])
    assert found[0] == found[1]


def test_export(stories, mapped, capsys, tmp_path):
    folder, atlas = mapped
    words = ["export", str(folder), "--source", "1", "--target", "4"]
    assert main([*words, "--rank", "0", "--relative", "0.5", "--out", str(tmp_path / "v.gguf"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert list(keys(said)) == list(COMMANDS["export"].json) and said["vectors"][0]["target"] == "blocks.4.hook_mlp_out"
    (got,), want = ps.load_vectors(tmp_path / "v.gguf"), atlas.vector(1, 4, 0).relative(0.5)
    np.testing.assert_allclose(got.vector, want.vector, rtol=1e-6)
    assert (got.location, got.target, got.rank, got.weights) == (want.location, want.target, 0, want.weights)
    assert main([*words[:-1], "next_token", "--out", str(tmp_path / "all.safetensors")]) == 0
    assert [v.rank for v in ps.load_vectors(tmp_path / "all.safetensors")] == [0, 1, 2]
    assert main(["export", str(tmp_path / "v.gguf"), "--out", str(tmp_path / "w.safetensors")]) == 0  # and back
    np.testing.assert_array_equal(ps.SteeringVector.load(tmp_path / "w.safetensors").vector, got.vector)
    assert main(["export", str(tmp_path / "all.safetensors"), "--out", str(tmp_path / "one.safetensors"), "--rank", "1-2"]) == 0
    assert [v.rank for v in ps.load_vectors(tmp_path / "one.safetensors")] == [1, 2]
    capsys.readouterr()
    for wrong, why in (
        ([str(folder)], "choose a pair of it by --source LAYER and --target"),
        (["--source", "4", "--target", "1"], "4 -> 1 cannot exist"),
        (["--target", "nexttoken"], "did you mean 'next_token'"),
        (["--rank", "3"], "rank is 3"),
        (["--rank", "0-1"], "export their sum"),  # of the same block
        (["--prompt-group", "1"], "--prompt-group is 1"),
    ):
        args = [*(words[:2] if wrong == [str(folder)] else [*words, *wrong]), "--out", "x.gguf"]
        assert main(args) == 2 and why in capsys.readouterr().err


def test_search(stories, mapped, capsys, tmp_path):
    folder, atlas = mapped
    validation, test = ["Once upon a time", "The dog", "Lily"], ["One day", "The cat", "Tom"]
    for name, prompts in (("v", validation), ("t", test)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, prompts)))
    words = ["--wanted", "was|her", "--validation", tmp_path / "v.jsonl", "--test", tmp_path / "t.jsonl", "--scales", "1",
             "--n-random", 2, "--max-new-tokens", 6]  # fmt: skip
    want = atlas.search(ps.evaluate.contains("was|her"), validation=validation, test=test, k=1, scales=[1.0], n_random=2, max_new_tokens=6)
    args = list(map(str, ["search", folder, "--rank", 0, *words, "--out", tmp_path / "found.safetensors"]))
    assert main([*args, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert set(said) == set(COMMANDS["search"].json)
    assert (said["validation"], said["test"]["value"]) == (want.chosen[0].candidate.score, want.test.value)
    assert [r["value"] for r in said["random"]] == [r.test.value for r in want.random]
    np.testing.assert_array_equal(ps.SteeringVector.load(tmp_path / "found.safetensors").vector, want.vector.vector)
    assert main(args) == 0
    shown = capsys.readouterr().out
    assert shown.strip() == str(want) and "validation" in shown and "random      test" in shown
    score = ps.evaluate.coherent(ps.evaluate.contains("was|her"), perplexity=5.0, repetition=0.5)
    want = atlas.search(score, validation=validation, test=test, k=1, scales=[1.0], n_random=2, max_new_tokens=6)
    assert main([*args[:-2], "--perplexity", "5", "--repetition", "0.5", "--json"]) == 0
    limited = json.loads(capsys.readouterr().out)
    assert (limited["test"]["value"], limited["raw"]["value"]) == (want.test.value, want.chosen[0].raw.value)
    assert said["raw"] is None and limited["validation"] == want.chosen[0].candidate.score
    ps.save_vectors(tmp_path / "some.safetensors", [atlas.vector(1, 4, r) for r in range(3)])
    assert main(list(map(str, ["search", tmp_path / "some.safetensors", *words]))) == 2
    assert "--model" in capsys.readouterr().err
    assert main(list(map(str, ["search", tmp_path / "some.safetensors", "--model", stories, *words, "--json"]))) == 0
    assert json.loads(capsys.readouterr().out)["source"] == 1


def test_search_by_logits_with_a_screen(stories, mapped, capsys, tmp_path):
    folder, atlas = mapped
    validation, test = ["Once upon a time", "The dog", "Lily"], ["One day", "The cat", "Tom"]
    for name, prompts in (("v", validation), ("t", test)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, prompts)))
    files = ["search", folder, "--validation", tmp_path / "v.jsonl", "--test", tmp_path / "t.jsonl", "--n-random", 1]
    words = [*files, "--prefer", " was", "--over", " her"]
    score = ps.evaluate.LogitDifference(" was", " her")
    want = atlas.search(score, validation=validation, test=test, n_random=1, screen=4)
    assert main(list(map(str, [*words, "--screen", 4, "--json"]))) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["validation"], said["test"]["value"]) == (want.chosen[0].candidate.score, want.test.value)
    assert said["screen_correlation"] == dict(zip(("value", "n"), want.screen_correlation, strict=True)) and want.rounds == ((4, 3),)
    assert main(list(map(str, [*words, "--screen", 4, "--workers", 2]))) == 0
    assert capsys.readouterr().out.strip() == str(want)
    for more, value in ((["--screen", 1], {"value": None, "n": 1}), ([], None)):
        assert main(list(map(str, [*words, *more, "--json"]))) == 0
        assert json.loads(capsys.readouterr().out)["screen_correlation"] == value
    assert main(list(map(str, [*words, "--workers", -1]))) == 2 and "--workers is -1" in capsys.readouterr().err
    for wrong, why in (([], "give either --wanted"), (["--prefer", "a"], "give either --wanted"),
                       (["--wanted", "a", "--over", "a"], "give either --wanted"), (["--wanted", "a", "--screen", 2], "has no gradient"),
                       (["--prefer", " was", "--over", " her", "--perplexity", 5], "--perplexity is a limit of texts"),
                       (["--prefer", " was", "--over", " xyz"], "not one token")):  # fmt: skip
        assert main(list(map(str, [*files, *wrong]))) == 2
        assert why in capsys.readouterr().err


def test_a_demo_without_plotly_stops_at_once(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    assert main(["demo", "--atlas", str(tmp_path / "a.html")]) == 2
    out, err = capsys.readouterr()
    assert not out and one_line(err) and "powersteer[report]" in err
