"""The notebooks run as they are, and keep their outputs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import real_files

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


def test_they_are_there():
    assert [n.stem for n in NOTEBOOKS] == ["01_quickstart", "02_atlas", "03_decision_forks", "04_your_model", "05_real_model"]


@pytest.mark.parametrize(
    "path", [pytest.param(p, marks=pytest.mark.slow) if p.stem == "05_real_model" else p for p in NOTEBOOKS], ids=lambda p: p.stem
)
def test_runs(path, tmp_path, monkeypatch):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path))
    monkeypatch.delenv("POWERSTEER_MODEL", raising=False)
    if path.stem == "05_real_model":
        monkeypatch.setenv("POWERSTEER_CHAT_MODEL", str(real_files.smollm2()))
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=1200, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            assert output.get("name") != "stderr", output["text"]  # no warning in a reader's face


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_can_be_read_without_running(path):
    notebook = json.loads(path.read_text("utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert len(outputs) >= len(code) // 2 and all(output["output_type"] != "error" for output in outputs)
    assert "/home/" not in path.read_text("utf-8") and "/tmp/" not in path.read_text("utf-8")
