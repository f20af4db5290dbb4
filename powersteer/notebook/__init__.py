"""Steering by sliders in a notebook (`pip install 'powersteer[notebook]'`); `Model.play` starts it."""

from .play import Play
from .session import Comparison, TokenShare

__all__ = ["Comparison", "Play", "TokenShare"]
