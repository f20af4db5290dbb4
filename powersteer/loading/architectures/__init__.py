"""The architectures of llama.cpp, as tables of the same kind as the families of transformers.

Config keys are the file's own `<architecture>.*` keys and tensors have the file's names, so family.py, config.py and
build.py refuse the same things here, in the words of the file. The changes that llama.cpp's converter makes are part of
the tables: rows of llama's q and k are reordered so that rotary pairs lie side by side, Gemma's gains have the 1 added, the
decay of a delta rule is stored as -exp(A_log), value heads of Qwen 3.5 are in another order, experts are stacked.
"""

from __future__ import annotations

from . import dense, gpt, hybrid, latent, mixtures
from .shared import Architecture

__all__ = ["ARCHITECTURES", "ARCHITECTURE_OF", "Architecture"]

ARCHITECTURES: dict[str, Architecture] = {
    one.name: one for part in (dense, gpt, mixtures, latent, hybrid) for one in part.ARCHITECTURES
}
# model_type of transformers → the name that llama.cpp has for it
ARCHITECTURE_OF: dict[str, str] = {model_type: one.name for one in ARCHITECTURES.values() for model_type in one.model_types}
