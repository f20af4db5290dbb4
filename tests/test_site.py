"""The documentation's pages: every public name has its place, every link an end, and code says what exists."""

from __future__ import annotations

import ast
import inspect
import re
from functools import reduce
from pathlib import Path

import pytest
import real_files

import powersteer as ps

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(p for p in DOCS.rglob("*.md") if p.parent.name != "studies")
NAMESPACES = {"powersteer": ps, "powersteer.evaluate": ps.evaluate, "powersteer.plots": ps.plots, "powersteer.testing": ps.testing,
              "powersteer.errors": ps.errors}  # fmt: skip


def python_blocks(path):
    return re.findall(r"^```python\n(.*?)^```$", path.read_text("utf-8"), re.M | re.S)


def test_every_public_name_is_in_the_reference_once():
    listed = [name for page in (DOCS / "reference").glob("*.md") for name in re.findall(r"^::: (\S+)$", page.read_text(), re.M)]
    assert len(listed) == len(set(listed))
    objects = {f"{space}.{n}": getattr(module, n) for space, module in NAMESPACES.items() for n in module.__all__}
    shown = {id(objects[name]) for name in listed if name in objects}
    assert set(listed) <= set(objects), f"not public: {set(listed) - set(objects)}"
    things = {name: value for name, value in objects.items() if not inspect.ismodule(value) and name != "powersteer.__version__"}
    left_out = {name for name, value in things.items() if id(value) not in shown}
    assert not left_out, f"in no page of docs/reference: {left_out}"


def test_links_lead_somewhere():
    for page in [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text("utf-8")):
            made = page.parent.name == "reference" and target.endswith(".svg")  # when the site is built
            assert made or (page.parent / target).exists() or (page.parent / target).name == "command_line.md", f"{page}: {target}"


def test_the_menu_has_every_page():
    menu = set(re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M))
    there = {p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*.md")}
    there |= {f"notebooks/{p.stem}.md" for p in ROOT.glob("notebooks/*.ipynb")}
    made = {"CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/SPEED.md", "reference/command_line.md"}
    assert menu == there | made


@pytest.mark.parametrize("page", [p for p in PAGES if python_blocks(p)], ids=lambda p: p.relative_to(DOCS).as_posix())
def test_code_names_what_there_is(page):
    """Blocks parse, and every ps.<name> and <model>.<name> in them exists."""
    for block in python_blocks(page):
        for node in ast.walk(ast.parse(block)):
            if not isinstance(node, ast.Attribute):
                continue
            path = ast.unparse(node)
            if re.fullmatch(r"ps(\.\w+)+", path):
                reduce(getattr, path.split(".")[1:], ps)
            elif re.fullmatch(r"(model|steered)\.\w+", path):
                getattr(ps.Model, path.split(".")[1])
            elif re.fullmatch(r"(vec|vector)\.\w+", path):
                assert hasattr(ps.SteeringVector, path.split(".")[1]) or path.split(".")[1] in ps.SteeringVector.__dataclass_fields__, path


def test_the_first_example_runs(tmp_path, monkeypatch, capsys):
    """And prints what its comments say, in the README and on the site."""
    monkeypatch.chdir(tmp_path)
    (code,) = python_blocks(DOCS / "index.md")
    assert code == python_blocks(ROOT / "README.md")[0]
    exec(code, {})
    printed = capsys.readouterr().out
    assert all(text in printed for text in re.findall(r"\.text\) +# (.*)$", code, re.M)) and "nats" in printed
    assert ps.SteeringVector.load("v.safetensors").calibration.budget == 1.0


@pytest.mark.long
def test_the_tutorial_runs_on_the_real_model(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib").use("Agg")
    (tmp_path / "smollm2.gguf").symlink_to(real_files.smollm2())
    monkeypatch.chdir(tmp_path)
    names = {}
    shorter = {"max_new_tokens=40": "max_new_tokens=12", "sources=[4, 12, 20], targets=[14, 22, 29]": "sources=[20], targets=[22]"}
    for code in python_blocks(DOCS / "tutorial.md"):
        for text, short in shorter.items():
            code = code.replace(text, short)
        exec(re.sub(r"^model\.play.*$", "", code, flags=re.M), names)  # which needs a notebook
    printed = capsys.readouterr().out
    assert "The eternal quest for a better sleep" in printed and "n = 8" in printed
    assert names["svd"].converged and names["atlas"].S[20, 22].shape == (4,)
    assert names["again"].direction == pytest.approx(names["best"].direction)
