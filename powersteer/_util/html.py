"""HTML for notebooks: escaped, without scripts or external files, readable in both colour schemes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["heat_map", "paragraphs", "table"]


def table(header: Sequence[str], rows: Iterable[Sequence[object]], caption: str = "") -> str:
    """A table with a header row; a caption above it."""
    head = "".join(f"<th>{escape(str(cell))}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table>{_caption(caption)}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def paragraphs(pairs: Iterable[tuple[str, str]]) -> str:
    """Labelled texts with their newlines and spaces."""
    text = '<dd style="white-space: pre-wrap">'
    return f"<dl>{''.join(f'<dt><b>{escape(label)}</b></dt>{text}{escape(value)}</dd>' for label, value in pairs)}</dl>"


def heat_map(values: NDArray[Any], rows: Sequence[object], columns: Sequence[object], caption: str = "") -> str:
    """A coloured cell for each of (len(rows), len(columns)) values, with the value as its tooltip; empty for NaN."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)

    def cell(value: float) -> str:
        if not math.isfinite(value):
            return "<td></td>"
        share = (value - low) / (high - low) if high > low else 1.0
        style = f"background: rgba(31, 119, 180, {0.08 + 0.92 * share:.2f}); min-width: 1em"
        return f'<td style="{style}" title="{value:.4g}"></td>'

    head = "".join(f"<th>{escape(str(column))}</th>" for column in columns)
    body = "".join(
        f"<tr><th>{escape(str(label))}</th>{''.join(map(cell, line))}</tr>"
        for label, line in zip(rows, values.tolist(), strict=True)
    )
    return f"<table>{_caption(caption)}<thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>"


def _caption(text: str) -> str:
    return f'<caption style="text-align: left">{escape(text)}</caption>' if text else ""
