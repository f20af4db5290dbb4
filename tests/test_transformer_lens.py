"""What is computed inside attention and MLP, against TransformerLens's bridge around the same weights. Skipped without
transformer_lens."""

from __future__ import annotations

import copy

import hf_models
import pytest
from oracles import torch
from test_forward import DOUBLE, some_prompts, worst

from powersteer.inputs.sites import READABLE

pytest.importorskip("transformer_lens")
from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

# Its logits of starcoder2 are not transformers', and of experts it names a mixture's input and output as hook_pre and hook_post
NAMES = [name for name in hf_models.FAMILIES if name != "starcoder2"]
LACKS = {
    "gpt2": {"rot_q", "rot_k", "pre_linear"}, "gpt_neox": {"rot_q", "rot_k", "pre_linear"}, "phi": {"pre_linear"},
    "phi3": {"rot_q", "rot_k"}, **{name: {"pre", "pre_linear", "post"} for name in ("mixtral", "qwen3_moe", "olmoe")},
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_equal_to_transformer_lens(name, loaded, rng):
    model, prompt = loaded(name), some_prompts(loaded(name), rng, (13,))[0]
    with hf_models.exact(name) as double, torch.no_grad():
        bridge = build_bridge_from_module(copy.deepcopy(double), type(double).__name__, hf_config=double.config)
        _, theirs = bridge.run_with_cache(torch.tensor([prompt]))
    hooks = [f"blocks.{layer}.{READABLE[site]}" for layer in range(3) for site in READABLE if site not in LACKS.get(name, ())]
    ours = model.run_with_cache(prompt, sites=hooks)[1]
    assert max(worst(ours[hook], theirs[hook][0].numpy()) for hook in hooks) < DOUBLE
