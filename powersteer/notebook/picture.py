"""A comparison as HTML without scripts, for a notebook that nobody runs."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from .._util.html import table
from .session import Comparison

__all__ = ["picture"]

_MARK = "background: rgba(240, 140, 20, 0.3); color: inherit"


def picture(seen: Comparison, labels: Sequence[str]) -> str:
    """The strengths, both texts with the part that differs marked, KL divergences and next tokens."""
    strengths = [(label, f"{strength:+.2f}") for label, strength in zip(labels, seen.strengths, strict=True)]
    texts = [
        ("prompt", escape(seen.prompt)),
        *((name, _marked(getattr(seen, name), seen.parts_at)) for name in ("plain", "steered")),
    ]
    shown = "".join(f'<dt><b>{name}</b></dt><dd style="white-space: pre-wrap">{text}</dd>' for name, text in texts)
    html = table(("vector", "strength"), strengths) + f"<dl>{shown}</dl>"
    if seen.kl is not None:
        tokens = [(repr(t.text), f"{t.plain:.3f}", f"{t.steered:.3f}") for t in seen.next_tokens]
        caption = (
            f"KL {seen.kl:.3g} nats at the prompt's end, {seen.mean_kl:.3g} on average over the plain continuation"
        )
        html += table(("next token", "plain", "steered"), tokens, caption)
    return html


def _marked(text: str, at: int | None) -> str:
    """Text from `at` on as marked."""
    return escape(text) if at is None else f'{escape(text[:at])}<mark style="{_MARK}">{escape(text[at:])}</mark>'
