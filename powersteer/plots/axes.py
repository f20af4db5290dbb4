"""Axes, colours, colour bars and headings, shared by all plots."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InvalidInput, MissingDependency
from ..inputs.prompts import user_turn
from ..mapping.settings import NEXT_TOKEN

if TYPE_CHECKING:
    from matplotlib.axes import Axes
else:
    Axes = Any  # matplotlib is imported when the first figure is drawn

__all__ = [
    "AROUND_ZERO", "COLOURS", "GREY", "PER_UNIT", "Axes", "PairKey", "axes_for", "colour_bars", "heading", "plain_text",
    "require_type", "ticks",
]  # fmt: skip

PairKey = tuple[int, int | str]  # source, target
COLOURS = "cividis"
AROUND_ZERO = "PuOr"
GREY = "0.45"
_BAR, _GAP, _TITLE = 0.13, 0.1, 0.5  # inches: width of a colour bar, free space beside it, height of a title
_LARGEST = 0.6  # largest share of the axes' room for bars or title
PER_UNIT = {"layer": "target units per unit of v", NEXT_TOKEN: "√nats per unit of v", "logits": "logits per unit of v"}


def require_type(value: Any, kind: type, where: str, wanted: str) -> None:
    """Raise InvalidInput for a value of another type."""
    if not isinstance(value, kind):
        raise InvalidInput(f"{where} must be {wanted}; got {type(value).__name__}")


def axes_for(ax: Axes | None) -> Axes:
    """`ax`, or the axes of a new figure. Raises MissingDependency without matplotlib."""
    try:
        from matplotlib import pyplot
    except ImportError:
        raise MissingDependency("plots need matplotlib: pip install 'powersteer[plots]'") from None
    return pyplot.subplots(layout="constrained")[1] if ax is None else ax


def colour_bars(ax: Axes, bars: Sequence[tuple[Any, str]]) -> None:
    """Colour bars with their labels, and room for the title, all inside the original position of the axes, so that no
    neighbour in a grid of subplots is covered, with any layout engine."""
    from mpl_toolkits.axes_grid1 import Size, make_axes_locatable

    room = make_axes_locatable(ax)
    sizes, gap = [], _GAP  # inches
    for mesh, label in bars:
        own = room.append_axes("right", size=_BAR, pad=gap)
        ax.figure.colorbar(mesh, cax=own).set_label(plain_text(label), fontsize="small")
        own.tick_params(labelsize="small")
        sizes += [gap, _BAR]
        gap = _GAP + (own.get_tightbbox().x1 - own.get_window_extent().x1) / ax.figure.dpi  # its numbers and label
    sizes.append(gap)
    size = ax.get_position(original=True).size  # fractions of the figure
    width, height = np.multiply(size, ax.figure.bbox.size) / ax.figure.dpi
    spared = min(1.0, _LARGEST * width / sum(sizes))
    across = [Size.Fixed(spared * size) for size in sizes]
    room.set_horizontal([*room.get_horizontal()[:1], *across])
    room.set_vertical([*room.get_vertical(), Size.Fixed(min(_TITLE, _LARGEST * height))])


def ticks(setter: Callable[..., Any], places: Sequence[float], labels: Sequence[str], **how: Any) -> None:
    """At most about twenty ticks, the last one included."""
    step = math.ceil(len(places) / 20)
    some = range((len(places) - 1) % step, len(places), step)
    setter([places[i] for i in some], [plain_text(labels[i]) for i in some], fontsize="small", **how)


def heading(ax: Axes, title: str, model: Any, prompts: Iterable[str], *facts: str, of: str = "") -> None:
    """The title, and the small print under it: model, facts and prompts, after the words `of`."""
    texts = [" ".join(user_turn(p).split()) for p in dict.fromkeys(prompts)]
    first = texts[0] if texts else ""
    prompt = f"“{first if len(first) <= 60 else first[:59] + '…'}”" if first else "prompts given as tokens"
    more = f" and {len(texts) - 1} more" if len(texts) > 1 else ""
    note = " · ".join(filter(None, [str(model), *facts])) + f"\n{of}{prompt}{more}"
    ax.set_title(plain_text(title), loc="left", fontsize="medium", pad=22)
    ax.annotate(plain_text(note), (0, 1), (0, 4), "axes fraction", textcoords="offset points", fontsize=6.5, va="bottom",
                color=GREY, linespacing=1.3)  # fmt: skip


def plain_text(text: str) -> str:
    """Text that matplotlib does not read as mathematics."""
    return text.replace("$", r"\$")
