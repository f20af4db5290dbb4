"""The command line, run as a user would: in another process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

STORIES = Path(__file__).parents[1].parent / "shared" / "models" / "stories260K"
PROMPT = "Once upon a time there was a little girl"


def run(*args, code=0):
    done = subprocess.run([sys.executable, "-m", "powersteer", *map(str, args)], capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture(scope="module")
def stories():
    if not STORIES.exists():
        pytest.skip(f"the trained model {STORIES} is not here")
    return STORIES


def test_info(stories):
    facts = json.loads(run("info", stories, "--json").stdout)
    assert (facts["layers"], facts["d_model"], facts["vocabulary"], facts["model_type"]) == (5, 64, 512, "llama")
    assert "d model" in run("info", stories).stdout


def test_svd_then_generate(stories, tmp_path):
    folder = tmp_path / "run"
    done = run("svd", stories, "--prompt", PROMPT, "--source", 1, "--target", 4, "-k", 3, "--save", folder)
    assert "converged" in done.stdout and "residual" in done.stdout
    assert sorted(p.name for p in folder.iterdir()) == ["0.safetensors", "1.safetensors", "2.safetensors", "svd.json"]
    summary = json.loads((folder / "svd.json").read_text())
    assert summary["converged"] and len(summary["sigma"]) == 3 and max(summary["residuals"]) <= 1e-3
    again = json.loads(run("svd", stories, "--prompt", PROMPT, "--source", "blocks.1.hook_mlp_out", "--target", 4, "-k", 3, "--json").stdout)
    assert again["sigma"] == summary["sigma"]
    steered = run("generate", stories, "--prompt", "Once upon a time", "--steer", folder / "0.safetensors", "--relative", 0.5,
                  "--max-new-tokens", 20, "--json")
    plain = run("generate", stories, "--prompt", "Once upon a time", "--max-new-tokens", 20)
    one = json.loads(steered.stdout)["generations"][0]
    assert one["variant"] == "steered" and len(one["tokens"]) <= 20 and one["steering"]
    assert plain.stdout.startswith("Once upon a time")
    both = run("generate", stories, "--prompt", "Once", "--steer", folder / "0.safetensors", "--compare", "--max-new-tokens", 5)
    assert [line for line in both.stdout.splitlines() if line.startswith("---")] == [
        "--- unsteered: Once", "--- steered: Once", "--- steered the other way: Once"]


def test_next_token_and_power(stories):
    fisher = json.loads(run("svd", stories, "--prompt", PROMPT, "--source", 1, "--target", "next_token", "-k", 2, "--json").stdout)
    assert fisher["target"] == "next_token" and fisher["shape"] == [512, 64]
    power = run("svd", stories, "--prompt", PROMPT, "--source", 1, "--target", 4, "--method", "power", "--json")
    assert json.loads(power.stdout)["applications"] == 132 and not json.loads(power.stdout)["converged"]
    assert "warning" in power.stderr


@pytest.mark.parametrize("args, message", [
    (["svd", "{model}", "--prompt", "x", "--source", "9", "--target", "4"], "layer 9"),
    (["svd", "{model}", "--prompt", "x", "--source", "4", "--target", "1"], "before"),
    (["svd", "{model}", "--prompt", PROMPT, "--source", "1", "--target", "4", "-k", "65"], "k"),
    (["svd", "{model}", "--source", "1", "--target", "4"], "no prompt"),
    (["generate", "{model}", "--prompt", "x", "--steer", "missing.safetensors"], "missing.safetensors"),
    (["generate", "{model}", "--prompt", "x", "--max-new-tokens", "5000"], "context"),
    (["generate", "{model}", "--prompt", "x", "--chat"], "chat template"),
    (["info", "/no/such/folder"], "/no/such/folder"),
])
def test_bad_input_is_one_line_and_code_2(stories, args, message):
    done = run(*(a.format(model=stories) for a in args), code=2)
    assert message in done.stderr and done.stderr.count("\n") == 1 and not done.stdout


@pytest.mark.parametrize("command", ["info", "svd", "generate"])
def test_help_has_an_example(command):
    assert "example:\n  powersteer " + command in run(command, "--help").stdout
