"""Config files as vendors write them: their sizes are read, and a model of smaller sizes computes what transformers computes from
the same file."""

from __future__ import annotations

import json
import shutil

import hf_models
import numpy as np
import pytest
from oracles import torch, transformers
from vendor_configs import MULTIMODAL, TEXT

import powersteer as ps
from powersteer.loading.build import _rope_tables
from powersteer.loading.config import family_of, read_hyperparameters
from powersteer.loading.families import FAMILIES
from powersteer.loading.keys_read import OTHER_NAMES
from powersteer.loading.multimodal import text_part
from powersteer.loading.other_names import _HYPERPARAMETERS

LAYERS, HEADS, WIDTH, WINDOW = 6, 4, 40, 5
VISION = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
TOWER = dict(depth=1, hidden_size=16, intermediate_size=16, num_heads=2, num_position_embeddings=4, deepstack_visual_indexes=[])
TOWERS = {
    "gemma3": dict(VISION, model_type="siglip_vision_model"),
    "llava": dict(VISION, model_type="clip_vision_model"),
    "mistral3": dict(VISION, model_type="pixtral", head_dim=8),
    "qwen2_vl": dict(depth=1, embed_dim=16, num_heads=2),
    "qwen2_5_vl": dict(TOWER, model_type="qwen2_5_vl"),
    "qwen3_vl": dict(TOWER, model_type="qwen3_vl"),
    "qwen3_5": dict(TOWER, model_type="qwen3_5"),
    "llama4": dict(VISION, vision_output_dim=16, projector_input_dim=16, projector_output_dim=16, model_type="llama4_vision_model"),
}


def text_of(config):
    """Config of the text model, its family and hyperparameters."""
    part = text_part(config, "config")
    family = family_of(part.config, "config")
    text = part.complete({})
    return text, family, read_hyperparameters(text, family, "config")


@pytest.mark.parametrize("name", [*TEXT, *MULTIMODAL])
def test_files_of_vendors_are_read(name):
    """As they are: nothing is refused, and there is a rotary table for every width of a head."""
    config, family, f = text_of({**TEXT, **MULTIMODAL}[name])
    tables = _rope_tables(config, family, f, "config")
    assert (f.n_layers, bool(tables)) != (0, False) or family.rope is None
    assert all(np.isfinite(table.inv_freq).all() and table.inv_freq.size for table in tables)


def small(family, f):
    """Hyperparameter → a small value, which keeps the ratios that matter."""
    heads = {1: 1, f.n_heads: HEADS}.get(f.n_kv_heads, 2)
    experts = 41 if getattr(f, "d_expert", 0) == f.d_ff else 17  # one key says both
    keys = 2 if f.state_k_heads == f.state_v_heads else 1
    width = HEADS * WIDTH if f.head_dim * f.n_heads == f.d_model else 96
    return {
        "n_layers": LAYERS, "n_heads": HEADS, "n_kv_heads": heads, "head_dim": WIDTH, "d_ff": 41, "n_vocab": 61, "window": WINDOW,
        "d_model": 24 if f.kv_rank else width, "chunk": WINDOW, "temper_length": WINDOW - 1, "n_experts": 8, "d_shared": 29,
        "top_k": min(getattr(f, "top_k", 1), 3), "d_expert": experts, "kv_rank": 11, "q_rank": 9, "nope_head": 16, "rope_head": 8,
        "v_dim": 12, "state_k_dim": 5, "state_v_dim": 7, "state_k_heads": keys, "state_v_heads": 2,
        **({"n_ctx": 64} if family.pos_embed else {}),
    }  # fmt: skip


def shrink(config, family, f):
    """A vendor's config with the sizes of `small`, whatever they are called."""
    sizes = small(family, f)
    names = {**_HYPERPARAMETERS, **{name: key.hyperparameter for name, key in family.keys.items()}}
    names.update({other: names[key] for other, key in OTHER_NAMES.get(family.model_type, {}).items() if key in names})
    out = {"pad_token_id": 0}
    for key, value in config.items():
        if isinstance(value, list) and len(value) == f.n_layers:
            value = value[:LAYERS]
        elif key in ("rope_scaling", "rope_parameters") and isinstance(value, dict):
            value = shrink_rope(value, sizes["rope_head"] if f.kv_rank else WIDTH)
        elif key in OTHERS:
            value = OTHERS[key](value, f)
        elif type(value) is int and value and names.get(key) in sizes:
            value = sizes[names[key]]
        out[key] = value
    return out


OTHERS = {  # key → the small value of one, with the hyperparameters
    "full_attn_idxs": lambda value, f: [i for i in value or [] if i < LAYERS] or value,
    "max_window_layers": lambda value, f: LAYERS if value >= f.n_layers else LAYERS // 2,
    "n_group": lambda value, f: min(value, 4),
    "topk_group": lambda value, f: min(value, 2),
    "rotary_dim": lambda value, f: WIDTH // 4,
    "attention_types": lambda value, f: [[value[0][0], LAYERS // len(value[0][0])]],
    "num_kv_heads": lambda value, f: HEADS if value == f.n_heads else 2,
    "block_multiple_of": lambda value, f: 8,
}


def shrink_rope(values, width):
    values = {key: value[: width // 2] if key.endswith("_factor") and isinstance(value, list) else value for key, value in values.items()}
    if "mrope_section" in values:
        half = int(width * values.get("partial_rotary_factor", 1.0)) // 2
        values["mrope_section"] = [half - 2 * (half // 3), half // 3, half // 3]
    return values


def compare(folder, config, auto, rng):
    """transformers makes a model from this file, and both read it again."""
    (folder / "config.json").write_text(json.dumps(config))
    theirs = transformers.AutoConfig.from_pretrained(folder)
    theirs.get_text_config()._experts_implementation = "eager"  # its kernel does not take such small experts
    hf = auto.from_config(theirs, attn_implementation="eager", dtype=torch.float32).eval().requires_grad_(False)
    hf_models.fill(hf, 0)
    hf.tie_weights()
    hf.save_pretrained(folder / "weights")
    for file in (folder / "weights").glob("*.safetensors*"):
        shutil.copy(file, folder)
    hf = hf.language_model if theirs.model_type == "llama4" else hf  # the whole does not run
    ids = torch.from_numpy(rng.integers(3, 61, (1, 3 * WINDOW)))
    hf(ids)  # some tables are made by the first call
    hf = hf_models.double(hf)
    with hf_models.exactly(hf), torch.no_grad():
        want = hf(ids, use_cache=False).logits[0].numpy()
    got = ps.load(folder, dtype="float64")(ids[0].tolist())
    assert np.abs(got - want).max() < 1e-11 * np.abs(want).max()


@pytest.mark.parametrize("name", TEXT)
def test_a_small_model_of_a_vendors_file_is_that_of_transformers(name, tmp_path, rng):
    config = TEXT[name]
    compare(tmp_path, shrink(config, *text_of(config)[1:]), transformers.AutoModelForCausalLM, rng)


@pytest.mark.parametrize("name", MULTIMODAL)
def test_the_text_model_of_a_vendors_multimodal_file_is_that_of_transformers(name, tmp_path, rng):
    config = {**MULTIMODAL[name], "vision_config": TOWERS[MULTIMODAL[name]["model_type"]]}
    _, family, f = text_of(config)
    if "text_config" in config:
        text = {"num_hidden_layers": f.n_layers, "hidden_size": f.d_model, "num_attention_heads": f.n_heads, "vocab_size": f.n_vocab,
                "num_key_value_heads": f.n_kv_heads, "intermediate_size": f.d_ff, **config["text_config"]}  # fmt: skip
        config["text_config"] = shrink(text, family, f)
        config = {key: value for key, value in config.items() if key != "vocab_size"}
    else:
        config = shrink(config, family, f)
    for key in ("out_hidden_size", "hidden_size"):
        if key == "out_hidden_size" or config["model_type"] == "qwen2_vl":
            config["vision_config"] = {**config["vision_config"], key: small(family, f)["d_model"]}
    compare(tmp_path, config, transformers.AutoModelForImageTextToText, rng)


def test_they_are_of_most_families():
    found = {config["model_type"] for config in TEXT.values()} | {text_of(config)[1].model_type for config in MULTIMODAL.values()}
    assert found <= set(FAMILIES) and len(found) > 39
