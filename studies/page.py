"""Pages of studies: markdown with a head that says where the figures come from."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import powersteer as ps
from powersteer._util.atomic import write_text

__all__ = ["STUDIES", "Page", "add_arguments", "cell", "folder_of"]

STUDIES = Path(__file__).parents[1] / "docs/studies"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where results and the page go, and how much is computed: the same of all studies."""
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="of the results; a run goes on with what is there")
    parser.add_argument("--docs", type=Path, metavar="FOLDER", help="of the page; by default docs/studies, and that of --out with --quick")
    parser.add_argument("--only-page", action="store_true", help="compute nothing, and write the page from what is there")
    parser.add_argument("--quick", action="store_true", help="the same code on little: its figures mean nothing")


def folder_of(args: argparse.Namespace) -> Path:
    """Of the page."""
    return args.docs or (args.out if args.quick else STUDIES)


def cell(value: Any) -> str:
    """A metric with its interval, shares in percent; other values as they are."""
    if isinstance(value, ps.MetricResult):
        low, high, middle = value.low, value.high, value.value
        if value.unit.endswith("share"):
            return f"{100 * middle:.0f}% [{100 * low:.0f}, {100 * high:.0f}]"
        return f"{middle:+.2f} [{low:+.2f}, {high:+.2f}]"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


class Page:
    """Text that grows, and is written whole at the end."""

    def __init__(self, title: str, command: str, settings: dict[str, Any], quick: bool = False, protocol: bool = True) -> None:
        files = "; ".join(f"{k}: `{v}`" for k, v in settings.items())
        self.lines = [
            f"# {title}", "", f"Written by `{command}` with powersteer {ps.__version__} on {platform.machine()}. {files}.",
            *(["Methods, splits and what counts as yes: [PROTOCOL.md](PROTOCOL.md)."] if protocol else []), "",
        ]  # fmt: skip
        if quick:
            self.text("**Written by a quick run: no figure here means anything.**")

    def section(self, title: str) -> None:
        self.lines += [f"## {title}", ""]

    def text(self, *paragraphs: str) -> None:
        for paragraph in paragraphs:
            self.lines += [paragraph, ""]

    def table(self, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        self.lines += ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
        self.lines += ["| " + " | ".join(cell(v).replace("|", "\\|").replace("\n", " ") for v in row) + " |" for row in rows]
        self.lines.append("")

    def picture(self, path: Path, alt: str, page: Path) -> None:
        self.lines += [f"![{alt}]({path.relative_to(page.parent)})", ""]

    def write(self, path: Path) -> None:
        write_text(path, "\n".join(self.lines).rstrip() + "\n")
