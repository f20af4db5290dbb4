"""Figures of studies: SVG files whose bytes follow from what is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from powersteer._util.atomic import atomic_writer

__all__ = ["COLOURS", "axes", "heat", "save"]

COLOURS = "cividis"
_STYLE = {"svg.hashsalt": "powersteer", "svg.fonttype": "path", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}


def axes(rows: int, columns: int, width: float = 4.0, height: float = 3.2) -> tuple[Any, np.ndarray]:
    """A figure and its axes (rows, columns), each of a size in inches."""
    plt.rcParams.update(_STYLE)
    return plt.subplots(rows, columns, figsize=(columns * width, rows * height), squeeze=False, layout="constrained")


def heat(figure: Any, ax: Any, values: np.ndarray, title: str, logarithmic: bool = True, **limits: float) -> None:
    """A matrix as colours, with its bar; NaN stays grey."""
    from matplotlib.colors import LogNorm, Normalize

    norm = (LogNorm if logarithmic else Normalize)(limits.get("vmin", np.nanmin(values)), limits.get("vmax", np.nanmax(values)))
    ax.set_facecolor("0.9")
    figure.colorbar(ax.imshow(values, norm=norm, cmap=COLOURS, interpolation="none"), ax=ax, shrink=0.85)
    ax.set_title(title, fontsize="medium", loc="left")


def save(figure: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_writer(path) as file:
        figure.savefig(file, format="svg", metadata={"Date": None})
    plt.close(figure)
    return path
