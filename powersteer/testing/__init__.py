"""Experiments as tests: results compared up to what does not matter, and kept on disk. Public as `powersteer.testing`; the
fixtures and options of the pytest plugin are in `powersteer_pytest`."""

from .cache import Cache
from .tolerance import Approx, approx

__all__ = ["Approx", "Cache", "approx"]
