"""The shape of the source: which folder may depend on which, and rules of the C core that a reader would check by eye."""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CSRC, PACKAGE = ROOT / "csrc", ROOT / "powersteer"

# A folder may include or import those before it, and itself.
C_ORDER = ["base", "kernels", "ops", "solver", "model", "python"]
PY_ORDER = [
    "_version", "errors", "_core", "_util", "inputs", "linalg", "loading", "vectors", "notebook", "model", "methods", "evaluate",
    "report", "mapping", "plots", "demo", "testing", "__init__", "cli", "harness", "__main__",
]  # fmt: skip

C_FILES = sorted(p for p in CSRC.rglob("*.[ch]") if p.parent.name != "python")
BINDINGS = sorted((CSRC / "python").glob("*.[ch]"))
PY_FILES = sorted(PACKAGE.rglob("*.py"))


def code(path):
    """Source without comments and strings."""
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\])*"', " ", path.read_text(), flags=re.S)


def name(path):
    return str(path.relative_to(ROOT))


def includes(path):
    """Files of csrc/ that a C file includes."""
    return [CSRC / used for used in re.findall(r'#include "([^"]+)"', path.read_text())]


def imports(path):
    """Files of the package that a Python file imports, inside functions too."""
    here = path.parent
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        folder = here.parents[node.level - 2] if node.level > 1 else here
        base = folder.joinpath(*node.module.split(".")) if node.module else folder
        for alias in node.names:
            for candidate in (base / f"{alias.name}.py", base / alias.name / "__init__.py", base.with_suffix(".py"), base / "__init__.py"):
                if candidate.is_file():
                    yield candidate
                    break


def folder(path, root):
    """The folder below root that a file is in, or the file's own name."""
    parts = path.relative_to(root).parts
    return parts[0] if len(parts) > 1 else path.stem


@pytest.mark.parametrize("path", [*C_FILES, *BINDINGS], ids=name)
def test_includes_point_one_way(path):
    place = C_ORDER.index(path.parent.name)
    for used in includes(path):
        assert used.is_file(), f"{name(path)} must include {used.name} by its folder"
        assert C_ORDER.index(used.parent.name) <= place, f"{name(path)} must not include {name(used)}"


@pytest.mark.parametrize("path", sorted((CSRC / "solver").glob("*.[ch]")), ids=name)
def test_solvers_know_nothing_of_models(path):
    allowed = {CSRC / "kernels/blas.h"}
    for used in includes(path):
        assert used.parent.name in ("base", "solver") or used in allowed, f"{name(path)} must not include {name(used)}"


@pytest.mark.parametrize("path", PY_FILES, ids=name)
def test_imports_point_one_way(path):
    place = PY_ORDER.index(folder(path, PACKAGE))
    for used in imports(path):
        assert PY_ORDER.index(folder(used, PACKAGE)) <= place, f"{name(path)} must not import {name(used)}"


@pytest.mark.parametrize("path", PY_FILES, ids=name)
def test_imports_can_be_seen(path):
    """Modules of the package are imported by statements, which the rules above read; only old names are looked up by text."""
    if path != PACKAGE / "_util/deprecated.py":
        assert not re.search(r"\b(import_module|__import__|exec_module)\b", path.read_text())


@pytest.mark.parametrize("files, edges", [(PY_FILES, imports), ([*C_FILES, *BINDINGS], includes)], ids=["python", "c"])
def test_no_file_depends_on_itself(files, edges):
    """No cycles, inside a folder neither. A package's __init__ only names what its files hold."""
    graph = {path: set(edges(path)) for path in files if path.name != "__init__.py"}
    TopologicalSorter(graph).prepare()


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
    lines = path.read_text().splitlines()
    assert len(lines) <= 600 or "Written by tools/" in lines[0]


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
