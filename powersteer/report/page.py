"""Page data -> one HTML file: the parts in this folder, the data and plotly.js, all inlined."""

from __future__ import annotations

import base64
import hashlib
import html
import itertools
import os
import re
import zlib
from importlib.resources import files
from typing import Any

from .._util.atomic import atomic_writer
from ..errors import MissingDependency
from .check import check
from .pack import Block, blocks

__all__ = ["write_report"]

# One scope, in order of dependence.
SCRIPTS = (
    "dom inflate data measures colour state charts heatmap cell diff texts vector filter table main"
).split()
_LEVEL = 6  # of zlib


def write_report(page_data: Any, path: str | os.PathLike[str]) -> None:
    """Write page data, as `Atlas.page_data()` returns, as one self-contained HTML file, all or nothing.

    The page needs no network: everything is in the file, and its content security policy forbids requests. Text of the
    data, prompts and continuations included, only becomes text nodes.
    Raises InvalidInput for data of another shape, MissingDependency without plotly (`powersteer[report]`).
    """
    check(page_data)
    plotly = _plotly().encode()
    script = app_script()
    parts = {
        "title": html.escape(page_data["title"]),
        "policy": _policy(script.encode(), plotly),
        "style": _read("style.css"),
        "script": script,
    }
    data = blocks(page_data)
    first = [next(data), next(data)]  # the index and the first group of prompts: all data of the first map
    rest: list[Block] = [("plotly", plotly)]
    with atomic_writer(path) as file:
        for i, piece in enumerate(re.split(r"\{\{(\w+)\}\}", _read("page.html"))):
            if i % 2 == 0 or piece in parts:
                file.write((piece if i % 2 == 0 else parts[piece]).encode())
                continue
            for block in first if piece == "first" else itertools.chain(rest, data):
                file.write(_element(*block))


def app_script() -> str:
    """The page's own script."""
    body = "\n".join(f"// ---- {name}.js\n{_read(f'{name}.js')}" for name in SCRIPTS)
    return f'"use strict";\n(() => {{\n{body}}})();\n'


def _element(name: str, data: bytes) -> bytes:
    packed = base64.b64encode(zlib.compress(data, _LEVEL))
    return b'<script type="text/plain" id="data-%b">%b</script>\n' % (name.encode(), packed)


def _policy(*scripts: bytes) -> str:
    """Only these scripts run, and nothing is fetched: plotly.js makes its own style element and, for "download as
    PNG", an image from a blob."""
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s).digest()).decode()}'" for s in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _read(name: str) -> str:
    return (files(__package__) / name).read_text("utf-8")


def _plotly() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise MissingDependency("a report needs plotly: pip install 'powersteer[report]'") from None
    return str(get_plotlyjs())
