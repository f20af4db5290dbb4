"""Checkpoints to models: safetensors folders, hub ids, GGUF files, and models that transformers has loaded."""

from .checkpoint import Checkpoint, load_checkpoint, spec_from_transformers

__all__ = ["Checkpoint", "load_checkpoint", "spec_from_transformers"]
