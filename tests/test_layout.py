"""The shape of the source: which file may depend on which, and rules of the C core that a reader would check by eye."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CSRC, PACKAGE = ROOT / "csrc", ROOT / "powersteer"

# Each may include or import those before it, never those after.
C_ORDER = (
    "real instructions status half vec alloc arena rng parallel blas spec linop runtime exponential norm rope mlp wide "
    "tile_kernel tile skinny_kernel skinny linear rows attention batch steer cache moe tape block forward jacobian sample "
    "decoder orth svd svd_krylov svd_power"
).split()
PYTHON_C_ORDER = ["faults", "module", "convert", "model_type", "solver", "jacobian_type", "decoder_type"]
PY_ORDER = (
    "_version errors forks records files progress _core32 _core64 _blas sites spec chat tokens loading prompts positions hooks "
    "controlvector vectors steering svd lockstep jacobian estimate generation model "
    "displacement melbo dct baselines rows response evaluation effects selection jlens report atlas plots demo __init__ cli __main__"
).split()

C_FILES = sorted(CSRC.glob("*.[ch]"))
BINDINGS = sorted((CSRC / "python").glob("*.[ch]"))
PY_FILES = sorted(PACKAGE.rglob("*.py"))


def code(path):
    """Source without comments and strings."""
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\])*"', " ", path.read_text(), flags=re.S)


def name(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", C_FILES, ids=name)
def test_core_includes_point_one_way(path):
    place = C_ORDER.index(path.stem)
    for used in re.findall(r'#include "([^"]+)\.h"', path.read_text()):
        assert C_ORDER.index(used) <= place, f"{path.name} must not include {used}.h"


@pytest.mark.parametrize("path", BINDINGS, ids=name)
def test_bindings_include_one_way(path):
    if path.stem == "module" and path.suffix == ".c":  # assembles the others
        return
    place = PYTHON_C_ORDER.index(path.stem)
    for used in re.findall(r'#include "(\w+)\.h"', path.read_text()):
        assert PYTHON_C_ORDER.index(used) <= place, f"{path.name} must not include {used}.h"


def test_solvers_know_nothing_of_models():
    for stem in ("orth", "svd", "svd_power", "svd_krylov"):
        text = (CSRC / f"{stem}.c").read_text() + (CSRC / f"{stem}.h").read_text()
        assert not re.search(r'#include "(spec|model|forward|jacobian|block|tape)\.h"', text)


@pytest.mark.parametrize("path", PY_FILES, ids=name)
def test_imports_point_one_way(path):
    package = path.parent.name  # one of powersteer's packages counts as one module
    here = path.stem if package == "powersteer" else package
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        inside = node.level == 1 and here == package
        modules = [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]
        for used in modules if not inside else []:
            if used in PY_ORDER:
                assert PY_ORDER.index(used) <= PY_ORDER.index(here), f"{path.name} must not import {used}"


@pytest.mark.parametrize("path", C_FILES, ids=name)
def test_core_manners(path):
    text = code(path)
    assert "Python.h" not in path.read_text(), "only csrc/python/ knows Python"
    assert not re.search(r"\b(printf|fprintf|puts|exit|abort|assert)\s*\(", text), "the core never prints or exits"
    assert not re.search(r"^static (?!const|inline|ALWAYS)[\w ]+\**\w+(\[[^\]]*\])?\s*(=[^=]|;)", text, re.M), "no static state"
    if path.name != "blas.c":
        assert not re.search(r"cblas_|dgesdd", text), "only blas.c knows OpenBLAS"


@pytest.mark.parametrize("path", BINDINGS, ids=name)
def test_binding_manners(path):
    text = code(path)
    for macro in ("THREADS", "CRITICAL_SECTION"):
        assert len(re.findall(rf"Py_BEGIN_(?:ALLOW_)?{macro}", text)) == len(re.findall(rf"Py_END_(?:ALLOW_)?{macro}", text))
    assert text.count("core_begin(&") == text.count("core_end(&"), "every call takes the GIL again"
    if path.stem not in ("convert", "solver"):
        assert not re.search(r"PyArray_(STRIDES|ISBYTESWAPPED|ISALIGNED)", text), "only convert looks at strides and byte order"


@pytest.mark.parametrize("path", [*C_FILES, *BINDINGS, *PY_FILES], ids=name)
def test_files_are_about_one_thing(path):
    assert len(path.read_text().splitlines()) <= 600


def test_readme_begins_with_two_commands():
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)
    assert [kind for kind, _ in blocks[:2]] == ["sh", "sh"]
    run, test = (text.strip() for _, text in blocks[:2])
    assert "\n" not in run and "\n" not in test
    assert run.startswith("python3 -m venv .venv") and run.endswith("powersteer demo")
    assert test.startswith("python3 -m venv .venv") and "pytest" in test


def test_the_readme_has_the_table_of_the_benchmarks():
    marks = re.compile(r"<!-- written by benchmarks/speed.py --write -->\n(.*?)<!-- end -->", re.S)
    (mine,), (theirs,) = (marks.findall((ROOT / name).read_text()) for name in ("README.md", "benchmarks/SPEED.md"))
    assert mine == theirs and mine.count("\n") > 8 and "busy" not in mine
