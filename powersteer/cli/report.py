"""`powersteer report`: an atlas folder as one HTML file."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from ..mapping import Atlas
from .arguments import Argument, Command, check_page, nonempty
from .console import json_object, print_result


def _report(args: Namespace) -> int:
    atlas = Atlas.load(args.folder)
    path = Path(args.out) if args.out is not None else Path(args.folder) / "atlas.html"
    check_page(path)
    atlas.report(path)
    return print_result(args.json, json_object(COMMAND.json, path, atlas), f"{path}: {atlas!r}")


COMMAND = Command(
    summary="An atlas, finished or not, as one HTML file to explore: no server, no network.",
    example="run/ --out atlas.html",
    has_model=False,
    arguments=(
        Argument("folder", type=nonempty, help="of an atlas, with its atlas.json"),
        Argument("--out", type=nonempty, metavar="FILE", help="default: atlas.html in the folder"),
    ),
    run=_report,
    json={
        "file": ("path that was written", lambda path, _: str(path)),
        "bytes": ("its size", lambda path, _: path.stat().st_size),
        "complete": "whether it has every requested pair",
    },
)
