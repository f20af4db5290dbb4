"""The text model inside a multimodal checkpoint: its config, its tensors, and a note that the rest is not loaded.

Of the models listed here transformers computes the logits of a text as those of the text model alone; pictures and sounds
only replace rows of its embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import BadCheckpoint
from .config import ROPE_PARAMETERS, ROPE_SCALING
from .families import FAMILIES
from .family import REQUIRED
from .keys_read import FAMILY
from .scaled import QUANTIZATION
from .tensor_ref import TensorRef

__all__ = ["TextPart", "text_part"]

# model_type → the text model's, if its config does not say
_MODELS = {
    "gemma3": "gemma3_text",
    "gemma4": "gemma4_text",
    "mistral3": "mistral",
    "llava": "llama",
    "llava_next": "llama",
    "vipllava": "llama",
    "internvl": "qwen2",
    "qwen2_vl": "qwen2_vl_text",
    "qwen2_5_vl": "qwen2_5_vl_text",
    "qwen3_vl": "qwen3_vl_text",
    "qwen3_5": "qwen3_5_text",
    "llama4": "llama4_text",
}
_FLAT = ("qwen2_vl", "qwen2_5_vl")  # files may have the keys of the text_config beside the others
_EITHER_TIES = ("llava", *_FLAT)  # the LM head is tied if the text_config says so; of the others the config itself does
_QWEN2_VL = {
    "vocab_size": 152064, "hidden_size": 8192, "intermediate_size": 29568, "num_hidden_layers": 80, "num_attention_heads": 64,
    "num_key_value_heads": 8, "rms_norm_eps": 1e-5, "rope_theta": 1e6, "max_window_layers": 80,
}  # fmt: skip
# Text models that are one of the families: that family, other defaults of theirs, and keys that they do not read. The three positions
# that turn their heads, of time, row and column, are one number in a text.
_SAME: Mapping[str, tuple[str, Mapping[str, Any], tuple[str, ...]]] = {
    "qwen2_vl_text": ("qwen2", _QWEN2_VL, ()),
    "qwen2_5_vl_text": ("qwen2", _QWEN2_VL, ()),
    "qwen3_vl_text": (
        "qwen3",
        {"max_position_embeddings": 128000, "rope_theta": 5e5},
        ("use_sliding_window", "sliding_window", "max_window_layers", "layer_types"),
    ),
}
# prefixes of the text model's tensors, in files and in memory → those of a text model alone
_TEXT = {
    "language_model.model.": "model.",
    "language_model.lm_head.": "lm_head.",
    "model.language_model.": "model.",
    "lm_head.": "lm_head.",
}
_OTHER = ("vision_tower.", "multi_modal_projector.", "image_newline", "model.vision_tower.", "model.multi_modal_projector.",
          "model.image_newline", "visual.", "model.visual.", "vision_model.", "model.embed_vision.", "model.audio_tower.",
          "model.embed_audio.")  # fmt: skip


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
    if given is None and kind in _FLAT:
        given = {key: value for key, value in config.items() if key not in ("model_type", "architectures", "vision_config")}
    if not isinstance(given, dict):
        raise BadCheckpoint(f"{where} has model_type {kind!r}, and no text_config with the sizes of its text model")
    text = _as_family({"model_type": _MODELS[kind], **given})
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


def _as_family(text: dict[str, Any]) -> dict[str, Any]:
    """A text_config as a config of its family."""
    if text["model_type"] not in _SAME:
        return text
    family, defaults, unread = _SAME[text["model_type"]]
    rope: dict[str, Any] = {}
    for key in (ROPE_SCALING, ROPE_PARAMETERS):
        if isinstance(text.get(key), dict):
            rope[key] = {name: "default" if value == "mrope" else value for name, value in text[key].items()}
    if any("rope_theta" in values for values in rope.values()):
        defaults = {key: value for key, value in defaults.items() if key != "rope_theta"}
    text = {key: value for key, value in text.items() if key not in unread}
    return {**defaults, **text, **rope, "model_type": family}
