"""The text model inside a multimodal one: transformers' logits of the whole, from its folder and from memory."""

from __future__ import annotations

import hf_models
import numpy as np
import pytest
import torch
import transformers
from checkpoints import change_config, change_tensors

import powersteer as ps
from powersteer.errors import BadCheckpoint

VISION = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
# model_type -> (text model, what else its configuration needs)
WHOLE = {
    "gemma3": ("gemma3_text", dict(vision_config=VISION, mm_tokens_per_image=4)),
    "mistral3": ("mistral", dict(vision_config=dict(VISION, model_type="pixtral", head_dim=8))),
    "llava": ("llama", dict(vision_config=dict(VISION, model_type="clip_vision_model"))),
    "internvl": ("qwen2", dict(vision_config=dict(VISION, image_size=[28, 28], patch_size=[14, 14]))),
}


def make(kind, **changes):
    text, more = WHOLE[kind]
    config = transformers.CONFIG_MAPPING[kind](text_config=hf_models.config_of(text).to_dict(), tie_word_embeddings=False, **more | changes)
    hf = transformers.AutoModelForImageTextToText.from_config(config, attn_implementation="eager").eval().requires_grad_(False)
    hf_models.fill(hf, 0)
    return hf


def close(model, hf, prompt):
    want = hf(torch.tensor(prompt)[None]).logits[0].numpy()
    return np.abs(model(prompt) - want).max() < 2e-5 * np.abs(want).max()


@pytest.mark.parametrize("kind", WHOLE)
def test_the_text_model_is_loaded_and_that_is_said(kind, tmp_path, rng):
    hf, prompt = make(kind), rng.integers(3, 61, 9).tolist()
    hf.save_pretrained(tmp_path)
    for model in (ps.from_transformers(hf), ps.load(tmp_path)):
        assert close(model, hf, prompt)
        assert model.identity["model_type"] == WHOLE[kind][0] and model.config["model_type"] == WHOLE[kind][0]
        assert f"of a {kind} model" in model.notes[0] and "not loaded" in model.notes[0]


def test_names_of_files_and_of_memory_are_one_model(tmp_path, rng):
    hf = make("llava")
    hf.save_pretrained(tmp_path)
    before = ps.load(tmp_path).identity["weights"]

    def rename(tensors):
        for name in list(tensors):
            new = name.replace("language_model.model.", "model.language_model.").replace("language_model.lm_head", "lm_head")
            tensors[new] = tensors.pop(name)

    change_tensors(tmp_path, rename)
    assert ps.load(tmp_path).identity["weights"] == before == ps.from_transformers(hf).identity["weights"]


def test_a_head_is_tied_where_there_is_none(tmp_path, rng):
    make("gemma3").save_pretrained(tmp_path)
    change_config(tmp_path, tie_word_embeddings=...)
    config = hf_models.config_of("gemma3_text").to_dict()
    config.pop("tie_word_embeddings")
    change_config(tmp_path, text_config=config)
    untied = ps.load(tmp_path)
    change_tensors(tmp_path, lambda tensors: [tensors.pop(name) for name in list(tensors) if "lm_head" in name])
    tied = ps.load(tmp_path)
    assert untied.spec.lm_head is not untied.spec.embed and tied.spec.lm_head is tied.spec.embed


def test_sizes_that_the_text_config_leaves_out_are_transformers_defaults(tmp_path):
    make("llava").save_pretrained(tmp_path)
    change_config(tmp_path, text_config={"model_type": "llama", "vocab_size": 61})
    with pytest.raises(BadCheckpoint, match=r"embed_tokens.weight'.*\(61, 24\).*\(61, 4096\)"):
        ps.load(tmp_path)


def test_a_tensor_of_an_unknown_part_is_refused(tmp_path):
    make("llava").save_pretrained(tmp_path)
    change_tensors(tmp_path, lambda tensors: tensors.update({"adapter.weight": torch.zeros(3)}))
    with pytest.raises(BadCheckpoint, match="'adapter.weight'.*does not belong"):
        ps.load(tmp_path)
