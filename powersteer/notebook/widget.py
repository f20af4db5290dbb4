"""The widget: what the kernel and the page in play.js tell each other. Imports anywidget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anywidget
import traitlets

__all__ = ["View"]

_HERE = Path(__file__).parent

View: Any = type(
    "View",
    (anywidget.AnyWidget,),
    {
        "_esm": (_HERE / "play.js").read_text("utf-8"),
        "_css": (_HERE / "play.css").read_text("utf-8"),
        "sliders": traitlets.List().tag(sync=True),  # label and limit of each
        "strengths": traitlets.List().tag(sync=True),  # set by the page
        "seen": traitlets.Dict().tag(sync=True),  # a Comparison
        "error": traitlets.Unicode().tag(sync=True),
    },
)
