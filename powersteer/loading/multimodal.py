"""The text model inside a multimodal checkpoint: its config, its tensors, and a note that the rest is not loaded.

Of the models listed here transformers computes the logits of a text as those of the text model alone; pictures and sounds
only replace rows of its embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import BadCheckpoint
from .families import FAMILIES
from .family import REQUIRED
from .keys_read import FAMILY
from .scaled import QUANTIZATION
from .tensor_ref import TensorRef

__all__ = ["TextPart", "text_part"]

# model_type → the text model's, if its config does not say
_MODELS = {
    "gemma3": "gemma3_text",
    "mistral3": "mistral",
    "llava": "llama",
    "llava_next": "llama",
    "vipllava": "llama",
    "internvl": "qwen2",
}
_EITHER_TIES = ("llava",)  # its LM head is tied if the text_config says so; of the others the config itself does
# prefixes of the text model's tensors, in files and in memory → those of a text model alone
_TEXT = {
    "language_model.model.": "model.",
    "language_model.lm_head.": "lm_head.",
    "model.language_model.": "model.",
    "lm_head.": "lm_head.",
}
_OTHER = ("vision_tower.", "multi_modal_projector.", "image_newline", "model.vision_tower.", "model.multi_modal_projector.",
          "model.image_newline")  # fmt: skip


@dataclass(frozen=True)
class TextPart:
    """config: of the text model. note: what is left out; empty where the checkpoint is a text model."""

    config: dict[str, Any]
    note: str = ""

    def tensors(self, tensors: Mapping[str, TensorRef]) -> Mapping[str, TensorRef]:
        """The text model's tensors, by the names of a text model alone, and those that are neither text nor of a known other part."""
        if not self.note:
            return tensors
        out = {}
        for name, tensor in tensors.items():
            prefix = next((one for one in _TEXT if name.startswith(one)), "")
            if prefix or not name.startswith(_OTHER):
                new = _TEXT.get(prefix, prefix) + name.removeprefix(prefix)
                out[new] = replace(tensor, name=new)
        return out

    def complete(self, tensors: Mapping[str, TensorRef]) -> dict[str, Any]:
        """The config, which says whether the LM head is tied: where it does not by itself, that is so if there is none."""
        return {"tie_word_embeddings": "lm_head.weight" not in tensors, **self.config} if self.note else self.config


def text_part(config: Mapping[str, Any], where: str) -> TextPart:
    """The text model of a config.json, which is the whole of it unless its model_type is one of a multimodal model."""
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in _MODELS:
        return TextPart(dict(config))
    given = config.get("text_config")
    if not isinstance(given, dict):
        raise BadCheckpoint(f"{where} has model_type {kind!r}, and no text_config with the sizes of its text model")
    text = {"model_type": _MODELS[kind], **given}
    if text["model_type"] in FAMILIES:  # sizes that a text model must name have defaults here
        names = [name for name, key in FAMILIES[text["model_type"]].keys.items() if key.default is REQUIRED]
        text = {**{name: FAMILY[text["model_type"]][name] for name in names}, **text}
    outer = {key: config[key] for key in (QUANTIZATION, "tie_word_embeddings", "eos_token_id") if config.get(key) is not None}
    if not (text.pop("tie_word_embeddings", False) and kind in _EITHER_TIES):
        text.update(outer)
    else:
        text.update(outer, tie_word_embeddings=True)
    note = f"this is the text model ({text['model_type']}) of a {kind} model; its other parts, such as the vision tower, are not loaded"
    return TextPart(text, note)
