"""The text model inside a multimodal one: transformers' logits of the whole, from its folder and from memory."""

from __future__ import annotations

import json

import hf_models
import numpy as np
import pytest
from checkpoints import change_config, change_tensors
from oracles import torch, transformers

import powersteer as ps
from powersteer.errors import BadCheckpoint
from powersteer.loading.config import family_of, read_hyperparameters, rope_settings
from powersteer.loading.multimodal import text_part

VISION = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
TOWER = dict(depth=1, hidden_size=16, intermediate_size=16, num_heads=2, out_hidden_size=24)
# model_type -> (text model, what else its configuration needs)
WHOLE = {
    "gemma3": ("gemma3_text", dict(vision_config=VISION, mm_tokens_per_image=4)),
    "gemma4": ("gemma4_text", dict(vision_config=dict(VISION, num_key_value_heads=2, head_dim=8), audio_config=None)),
    "mistral3": ("mistral", dict(vision_config=dict(VISION, model_type="pixtral", head_dim=8))),
    "llava": ("llama", dict(vision_config=dict(VISION, model_type="clip_vision_model"))),
    "internvl": ("qwen2", dict(vision_config=dict(VISION, image_size=[28, 28], patch_size=[14, 14]))),
    "llava_next": ("mistral", dict(vision_config=dict(VISION, model_type="clip_vision_model"), image_grid_pinpoints=[[28, 28]])),
    "vipllava": ("llama", dict(vision_config=dict(VISION, model_type="clip_vision_model"), vision_feature_layers=[0, 1])),
    "qwen2_vl": ("qwen2-window", dict(vision_config=dict(depth=1, embed_dim=16, hidden_size=24, num_heads=2))),
    "qwen2_5_vl": ("qwen2", dict(vision_config=TOWER)),
    "qwen3_vl": ("qwen3-biases", dict(vision_config=dict(TOWER, num_position_embeddings=4, deepstack_visual_indexes=[]))),
    "qwen3_5": ("qwen3_5_text", dict(vision_config=dict(TOWER, num_position_embeddings=4))),
    "llama4": ("llama4_text", dict(vision_config=dict(VISION, vision_output_dim=16, projector_input_dim=16, projector_output_dim=16))),
}
TEXT = {"qwen2_vl": "qwen2_vl_text", "qwen2_5_vl": "qwen2_5_vl_text", "qwen3_vl": "qwen3_vl_text"}  # by transformers' own name
MROPE = {"qwen2_vl": dict(type="mrope", mrope_section=[1, 1, 1]), "qwen2_5_vl": dict(rope_type="default", mrope_section=[1, 0, 2]),
         "qwen3_vl": dict(rope_type="default", mrope_section=[2, 2, 1], mrope_interleaved=True)}


def text_config(kind):
    config = hf_models.config_of(WHOLE[kind][0]).to_dict()
    if kind in MROPE:
        config["rope_parameters"] = MROPE[kind] | {"rope_theta": 100.0}
    return config | {"model_type": TEXT.get(kind, config["model_type"])}


def make(kind, **changes):
    _, more = WHOLE[kind]
    config = transformers.CONFIG_MAPPING[kind](text_config=text_config(kind), tie_word_embeddings=False, **more | changes)
    hf = transformers.AutoModelForImageTextToText.from_config(config, attn_implementation="eager").eval().requires_grad_(False)
    hf_models.fill(hf, 0)
    return hf


def close(model, hf, prompt):
    if hf.config.model_type == "llama4":  # the whole expects of its text model what that does not return
        hf = hf.language_model
    want = hf(torch.tensor(prompt)[None]).logits[0].numpy()
    return np.abs(model(prompt) - want).max() < 2e-5 * np.abs(want).max()


@pytest.mark.parametrize("kind", WHOLE)
def test_the_text_model_is_loaded_and_that_is_said(kind, tmp_path, rng):
    hf, prompt = make(kind), rng.integers(3, 61, 9).tolist()
    hf.save_pretrained(tmp_path)
    for model in (ps.from_transformers(hf), ps.load(tmp_path)):
        assert close(model, hf, prompt)
        assert model.identity["model_type"] == model.config["model_type"] == WHOLE[kind][0].split("-")[0]
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


@pytest.mark.parametrize("kind", TEXT)
def test_what_a_text_config_leaves_out_is_transformers_default(kind):
    theirs = transformers.CONFIG_MAPPING[TEXT[kind]]().to_dict()
    part = text_part({"model_type": kind, "text_config": {}}, "config")
    family = family_of(part.config, "config")
    ours, want = (read_hyperparameters(part.complete({}) | given, family, "config") for given in ({}, named(theirs, family)))
    for one in (ours, want):
        one.layer_types = one.layer_types or ["full_attention"] * one.n_layers
    assert vars(ours) == vars(want) | {"tied": True}
    tables = (rope_settings(config, family.rope, "config") for config in (part.config, {"rope_parameters": theirs["rope_parameters"]}))
    assert len({(values["rope_theta"], values["rope_type"]) for (values, _), in tables}) == 1


def named(config, family):
    return {key: value for key, value in config.items() if key in family.keys}


def test_a_flat_config_may_have_a_text_config_beside(tmp_path, rng):
    """As transformers of the fourth version saved it: the text_config is what counts."""
    hf, prompt = make("qwen2_5_vl"), rng.integers(3, 61, 9).tolist()
    hf.save_pretrained(tmp_path)
    change_config(tmp_path, hidden_size=999, rope_scaling={"type": "mrope", "mrope_section": [1, 0, 2]})
    assert close(ps.load(tmp_path), hf, prompt)


def test_the_text_model_of_qwen3_5_alone_has_the_names_of_the_whole(tmp_path, rng):
    """In vendors' files, beside the predictor of several tokens, which is not loaded."""
    hf, prompt = make("qwen3_5"), rng.integers(3, 61, 9).tolist()
    hf.save_pretrained(tmp_path)
    change_tensors(tmp_path, lambda tensors: tensors.update({"mtp.fc.weight": torch.zeros(3, 3)}))
    assert close(ps.load(tmp_path), hf, prompt)
    (tmp_path / "config.json").write_text(json.dumps(text_config("qwen3_5")))
    change_tensors(tmp_path, lambda tensors: [tensors.pop(name) for name in list(tensors) if ".visual." in name])
    model = ps.load(tmp_path)
    assert close(model, hf, prompt) and not any("vision" in note for note in model.notes)
