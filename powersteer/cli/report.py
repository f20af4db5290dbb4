"""`powersteer report`: an atlas folder as one HTML file."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from ..mapping import Atlas
from .arguments import Command, Parser, check_page, nonempty
from .console import print_json


def _arguments(parser: Parser) -> None:
    parser.add_argument("--out", type=nonempty, metavar="FILE", help="default: atlas.html in the folder")


def _report(args: Namespace) -> int:
    atlas = Atlas.load(args.folder)
    path = Path(args.out) if args.out is not None else Path(args.folder) / "atlas.html"
    check_page(path)
    atlas.report(path)
    if args.json:
        print_json({"file": str(path), "bytes": path.stat().st_size, "complete": atlas.complete})
    else:
        print(f"{path}: {atlas!r}")
    return 0


COMMAND = Command(
    summary="An atlas, finished or not, as one HTML file to explore: no server, no network.",
    example="run/ --out atlas.html",
    subject="folder",
    arguments=_arguments,
    run=_report,
    json={"file": "path that was written", "bytes": "its size", "complete": "whether it has every requested pair"},
)
