"""What the documentation has beside docs/: files that lie elsewhere in the repository, notebooks as pages, pictures of the
plots and the help texts of the command line, which are made while it is built.

    pip install -e '.[docs]' && mkdocs build          # build/site/index.html
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import subprocess
import sys
from html import escape
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
ELSEWHERE = ["CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/*.md", "benchmarks/*.svg"]
COMMANDS = ["demo", "info", "svd", "atlas", "report", "search", "export", "generate", "chat"]


def on_files(files: Files, config: Any) -> Files:
    for path in sorted(p for pattern in ELSEWHERE for p in ROOT.glob(pattern)):
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    made = {**pictures(), "reference/command_line.md": command_line()}
    for path in sorted(ROOT.glob("notebooks/*.ipynb")):
        made |= notebook(path)
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links from a page to a file elsewhere in the repository are links to that file's page. Unless it has none, as a test."""
    here = Path("docs") / page.file.src_uri if (ROOT / "docs" / page.file.src_uri).exists() else Path(page.file.src_uri)

    def moved(match: re.Match[str]) -> str:
        target, anchor = match[1], match[2] or ""
        path = os.path.normpath(here.parent / target)
        uri = Path(path[5:] if path.startswith("docs/") else path)
        if files.get_file_from_path(uri.as_posix()) is None:
            return match[0]
        return f"]({os.path.relpath(uri, Path(page.file.src_uri).parent)}{anchor})"

    return re.sub(r"\]\(([^)#:\s]+\.(?:md|ipynb|svg))(#[^)\s]*)?\)", moved, markdown)


def on_page_content(html: str, page: Any, config: Any, files: Files) -> str:
    """A picture is a link to itself, alone on its page; one much wider than high has the class "wide"."""

    def linked(match: re.Match[str]) -> str:
        name = os.path.normpath(Path(page.file.dest_uri).parent / match[1])
        picture = next(file for file in files if file.dest_uri == name)
        box = re.search(rb'viewBox="[\d.]+ [\d.]+ ([\d.]+) ([\d.]+)"', picture.content_bytes[:2000])
        wide = ' class="wide"' if box and float(box[1]) > 2.2 * float(box[2]) else ""
        return f'<a href="{match[1]}"{wide}>{match[0]}</a>'

    return re.sub(r'<img [^>]*src="([^":]+)"[^>]*>', linked, html)


def notebook(path: Path) -> dict[str, str | bytes]:
    """notebooks/<name>.md, which shows the cells and their kept outputs, and its pictures."""
    parts: list[str] = []
    found: dict[str, str | bytes] = {}
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            data = {kind: "".join(value) for kind, value in output.get("data", {"text/plain": output.get("text")}).items()}
            if "image/png" in data:
                name = f"{path.stem}_{len(found)}.png"
                found[f"notebooks/{name}"] = base64.b64decode(data["image/png"])
                parts.append(f'![Drawn by {escape(source.strip().splitlines()[-1])}]({name})')
            elif "text/html" in data:  # a table, without pandas's own style
                parts.append(re.sub(r"</?div>|<style.*?</style>| (border|class)=\"\w+\"", "", data["text/html"], flags=re.S).strip())
            else:
                parts.append(f"```text\n{data['text/plain'].rstrip()}\n```")
    return {f"notebooks/{path.stem}.md": "\n\n".join(parts) + "\n", **found}


def command_line() -> str:
    """The help of every command."""

    def help_of(*command: str) -> str:
        run = [sys.executable, "-m", "powersteer", *command, "--help"]
        return subprocess.run(run, check=True, capture_output=True, text=True, env={**os.environ, "COLUMNS": "100"}, cwd=ROOT).stdout

    parts = [f"## powersteer {name}\n\n```text\n{help_of(name)}```\n" for name in COMMANDS]
    return f"# Command line\n\n```text\n{help_of()}```\n\n" + "\n".join(parts)


def pictures() -> dict[str, bytes]:
    """reference/<plot>.svg of the built-in model, one for each function of powersteer.plots."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "powersteer"
    import matplotlib.pyplot as plt

    import powersteer as ps

    model, prompts = ps.load("demo"), ["Task: 3 * 4 =", "Task: 7 * 8 ="]
    atlas = ps.atlas(model, prompts, k=4)
    vectors = [atlas.vector(s, 4, 0) for s in range(4)]
    effects = ps.effects(model, prompts, vectors, scales=[0.1, 0.2, 0.4, 0.8], max_new_tokens=0)
    curve = ps.evaluate.curve(lambda v: ps.evaluate.kl(model, prompts, v), vectors[2], [0.1, 0.2, 0.4, 0.8], n_random=8)
    drawn = {
        "sensitivity_map": lambda ax: ps.plots.sensitivity_map(atlas, ax=ax),
        "spectra": lambda ax: ps.plots.spectra(atlas, pairs=[(s, 4) for s in range(4)], ax=ax),
        "cosine_map": lambda ax: ps.plots.cosine_map(vectors, ax=ax),
        "effect_curve": lambda ax: ps.plots.effect_curve(effects.where(source=2), ax=ax),
        "strength_curve": lambda ax: ps.plots.strength_curve(curve, "KL (nats)", ax=ax),
        "violin": lambda ax: ps.plots.violin(effects, ax=ax),
    }
    missing = set(ps.plots.__all__) - set(drawn)
    assert not missing, f"a picture is missing: {missing}"
    found = {}
    for name, draw in drawn.items():
        figure, ax = plt.subplots(figsize=(5.4, 3.8), layout="constrained")
        draw(ax)
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
        plt.close(figure)
        found[f"reference/{name}.svg"] = out.getvalue()
    return found
