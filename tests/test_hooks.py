"""`vec.hook(hf_model)` against `model.steered(vec)`: logits, greedy tokens through the cache, padding, removal."""

from __future__ import annotations

import contextlib
import copy
import inspect
import warnings

import hf_models
import numpy as np
import pytest
import torch
import transformers

import powersteer as ps

PROMPT = [5, 17, 3, 44, 9, 30, 12]
# The name of the key-value cache, in arguments and outputs: not the same in every transformers of the fifth version
CACHE = "cache" if "cache" in inspect.signature(transformers.LlamaModel.forward).parameters else "past_key_values"
EVERY = ["resid_pre", "attn_out", "resid_mid", "down_proj", "mlp_out", "resid_post"]


def vector(hf, layer, site, seed=0, size=3.0):
    array = np.random.default_rng([seed, layer]).standard_normal(hf.config.hidden_size)
    return ps.SteeringVector.from_array(size * array / np.linalg.norm(array), layer, site)


def logits(hf, tokens, **more):
    with torch.no_grad():
        return hf(torch.tensor([tokens]), **more).logits[0].numpy()


def error(got, want):
    return np.abs(got - want).max() / np.abs(want).max()


def greedy(hf, prompts, n, **more):
    """The tokens that generate appends to each prompt, padded on the left."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    out = hf.generate(ids, attention_mask=mask, max_new_tokens=n, do_sample=False, **more)
    return out[:, longest:].tolist()


def ours(model, prompts, n):
    return [g.tokens[-n:].tolist() for g in model.generate(prompts, max_new_tokens=n, stop=[])]


def hooks_on(hf):
    """transformers leaves hooks of its own behind where hidden states were once asked for."""
    return [hook for m in hf.modules() for hook in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())]


STRUCTURES = ["gpt_neox-sequential", "stablelm-parallel", "granite-biases", "qwen3_moe-some_dense"]


@pytest.mark.parametrize("name", [*hf_models.FAMILIES, *STRUCTURES])
def test_logits_of_every_family_and_site(name, loaded):
    model = loaded(name)
    with hf_models.exact(name) as hf:
        plain = logits(hf, PROMPT)
        registered = hooks_on(hf)
        for layer, site in enumerate([*hf_models.site_names(hf), "resid_post"]):
            vec = vector(hf, layer % 3, site)
            before = vec.direction.tobytes()
            for positions in (None, [2, -1]):
                with vec.hook(hf, positions) as hook:
                    got = logits(hf, PROMPT)
                want = model.steered(vec, positions)(PROMPT)
                assert error(got, want) < 1e-12 < 1e-3 < error(got, plain), (site, positions)
                assert hook.added == (len(PROMPT) if positions is None else 2)
            assert vec.direction.tobytes() == before
        assert np.array_equal(logits(hf, PROMPT), plain)
        assert hooks_on(hf) == registered


@pytest.mark.parametrize("name", hf_models.FAMILIES)
def test_generated_tokens_of_every_family(name, loaded, rng):
    """Past the sliding windows, through the cache, a batch padded on the left."""
    hf, model = hf_models.make(name), loaded(name, "float32")
    prompts = [PROMPT, PROMPT[2:5]]
    vec = vector(hf, 1, str(rng.choice(hf_models.site_names(hf))), size=8.0)
    plain = greedy(hf, prompts, 12)
    for positions in (None, "prompt", "generated", slice(-2, 9), [0, 8, -1]):
        with vec.hook(hf, positions) as hook:
            got = greedy(hf, prompts, 12)
        assert got == ours(model.steered(vec, positions), prompts, 12), positions
        assert hook.added
        if positions is None:
            assert got != plain


@pytest.mark.parametrize("positions", ["prompt", "generated", slice(2, None, 3), slice(-3, -1), 8, [1, -1]])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_does_not_move_positions(positions, side, loaded):
    hf, model = hf_models.make("llama"), loaded("llama", "float32")
    vec = vector(hf, 0, "mlp_out")
    rows = [PROMPT + [8, 9], PROMPT[:6]]
    ids, mask = np.zeros((2, 9), int), np.zeros((2, 9), int)
    for i, row in enumerate(rows):
        at = slice(9 - len(row), None) if side == "left" else slice(len(row))
        ids[i, at], mask[i, at] = row, 1
    ids, mask = torch.tensor(ids), torch.tensor(mask)
    with warnings.catch_warnings(), vec.hook(hf, positions), torch.no_grad():
        warnings.simplefilter("ignore")  # "generated" is nowhere here
        got = hf(ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0)).logits
    for i, row in enumerate(rows):
        with contextlib.suppress(ps.InvalidInput):  # position 8 of six
            want = model.steered(vec, positions)(row)
            assert error(got[i][mask[i] == 1].numpy(), want) < 2e-5


def test_float32_and_half(loaded):
    for dtype, bound in (("float32", 2e-5), ("bfloat16", 0.05), ("float16", 0.01)):
        hf = copy.deepcopy(hf_models.make("qwen3")).to(getattr(torch, dtype))
        vec = vector(hf, 1, "attn_out")
        with vec.hook(hf):
            got = hf(torch.tensor([PROMPT])).logits
        assert got.dtype == hf.dtype
        assert error(got[0].float().detach().numpy(), loaded("qwen3").steered(vec)(PROMPT)) < bound


@pytest.mark.parametrize("positions", [None, [1, -1]])
def test_another_device(positions):
    """Every tensor must be where the activations are: on the meta device, which has shapes only, as on a GPU."""
    hf = copy.deepcopy(hf_models.make("llama")).to("meta")
    for site in EVERY:
        with vector(hf, 1, site).hook(hf, positions) as hook:
            out = hf(torch.tensor([PROMPT], device="meta"))
        assert out.logits.device.type == "meta" and hook.added == (7 if positions is None else 2)


def test_the_base_model_alone_and_several_vectors(loaded):
    hf = hf_models.make("gpt2")
    a, b = vector(hf, 0, "resid_mid"), vector(hf, 2, "down_proj")
    with a.hook(hf.base_model, [1]), b.hook(hf, "prompt"):
        got = logits(hf, PROMPT)
    want = loaded("gpt2").steered(a, [1]).steered(b)(PROMPT)
    assert error(got, want) < 2e-5


def test_blocks_that_return_tuples(loaded):
    """As before transformers 4.54, and as other modules still do."""
    hf = copy.deepcopy(hf_models.make("llama"))
    block, vec = hf.model.layers[1], vector(hf, 1, "resid_post")
    plain = block.forward
    block.forward = lambda *args, **kwargs: (plain(*args, **kwargs), "more")
    with vec.hook(hf, "prompt"):
        undo = block.register_forward_hook(lambda module, args, output: output[0])
        got = logits(hf, PROMPT)
        undo.remove()
    assert error(got, loaded("llama").steered(vec)(PROMPT)) < 2e-5


def test_hidden_states_by_keyword(loaded):
    hf = copy.deepcopy(hf_models.make("llama"))
    block, vec = hf.model.layers[1], vector(hf, 1, "resid_pre")

    class Block(type(block)):
        def __call__(self, x, **more):
            return super().__call__(hidden_states=x, **more)

    block.__class__ = Block
    with vec.hook(hf):
        assert error(logits(hf, PROMPT), loaded("llama").steered(vec)(PROMPT)) < 2e-5


def test_one_cache_does_not_tell_about_another(loaded):
    """Two texts decoded in turns: each counts from its own prompt."""
    hf, model = hf_models.make("llama"), loaded("llama", "float32")
    vec = vector(hf, 1, "mlp_out")
    texts = [PROMPT, PROMPT[:3]]
    caches, got = [None, None], [[], []]
    with vec.hook(hf, "generated"), torch.no_grad():
        for step in range(3):
            for i, text in enumerate(texts):
                ids = torch.tensor([text if step == 0 else [20 + step]])
                out = hf(ids, use_cache=True, **{CACHE: caches[i]})
                caches[i] = out[CACHE]
                got[i].append(out.logits[0, -1].numpy())
    for i, text in enumerate(texts):
        whole = [*text, 21, 22]
        want = model.steered(vec, slice(len(text), None))(whole)[len(text) - 1 :]
        assert error(np.stack(got[i]), want) < 2e-5


def test_more_ways_to_generate(loaded):
    """A static cache, whose mask is made beforehand; a cache that was filled before the hook came."""
    hf, model = hf_models.make("llama"), loaded("llama", "float32")
    vec = vector(hf, 1, "resid_post", size=8.0)
    for positions in (None, "generated", [8, -1]):
        steered = model.steered(vec, positions)
        want = ours(steered, [PROMPT], 9)
        with vec.hook(hf, positions):
            assert greedy(hf, [PROMPT], 9, cache_implementation="static", disable_compile=True) == want
        if positions == "generated":
            cache = hf(torch.tensor([PROMPT[:-1]]))[CACHE]
            with vec.hook(hf, positions):
                assert greedy(hf, [PROMPT], 9, **{CACHE: cache}) == want


def test_beams(loaded):
    """The score of the best beam is its probability under the steered model."""
    hf, vec = hf_models.make("llama"), vector(hf_models.make("llama"), 1, "resid_post", size=8.0)
    for positions, absolute in ((None, None), ("generated", slice(7, None)), ([8, -1], [6, 8])):
        with vec.hook(hf, positions):
            out = hf.generate(torch.tensor([PROMPT, PROMPT[::-1]]), max_new_tokens=5, num_beams=3, do_sample=False,
                              length_penalty=0.0, return_dict_in_generate=True, output_scores=True)  # fmt: skip
        for tokens, score in zip(out.sequences.tolist(), out.sequences_scores.tolist(), strict=True):
            rows = loaded("llama").steered(vec, absolute)(tokens)[6:-1]
            logp = rows - np.log(np.exp(rows).sum(1, keepdims=True))
            assert abs(logp[range(5), tokens[7:]].sum() - score) < 1e-4


def test_without_a_cache(loaded):
    hf, model = hf_models.make("llama"), loaded("llama", "float32")
    vec = vector(hf, 1, "mlp_out", size=8.0)
    for positions in (None, [1, 8]):
        with vec.hook(hf, positions):
            assert greedy(hf, [PROMPT], 6, use_cache=False) == ours(model.steered(vec, positions), [PROMPT], 6)
    for positions in ("generated", "prompt", -1, slice(-3, None)):
        with pytest.raises(ps.InvalidInput, match="where the prompt ends"), vec.hook(hf, positions):
            greedy(hf, [PROMPT], 6, use_cache=False)


def test_prompts_in_pieces():
    hf, vec = hf_models.make("llama"), vector(hf_models.make("llama"), 1, "mlp_out")
    with vec.hook(hf, -1), pytest.raises(ps.InvalidInput, match="where the prompt ends"):
        greedy(hf, [PROMPT], 3, prefill_chunk_size=3)


def test_what_cannot_be_told_is_refused():
    hf, vec = hf_models.make("llama"), vector(hf_models.make("llama"), 1, "mlp_out")
    ids = torch.tensor([PROMPT])
    with vec.hook(hf, [-8]), pytest.raises(ps.InvalidInput, match="no position -8"):
        hf(ids)
    with vec.hook(hf, [6, -1]), pytest.raises(ps.InvalidInput, match="one position twice"):
        hf(ids)
    with vec.hook(hf, 0), pytest.raises(ps.InvalidInput, match="give the attention mask"):
        hf(ids, position_ids=torch.tensor([[0, 1, 2, 0, 1, 2, 3]]))
    with vec.hook(hf, 0), pytest.raises(ps.InvalidInput, match="call the whole model"):
        hf.model.layers[1](torch.zeros(1, 3, 24), position_embeddings=(torch.ones(1, 3, 10), torch.ones(1, 3, 10)))
    hook = vec.hook(hf, 50)
    hf(ids)
    with pytest.warns(UserWarning, match="nothing was steered"):
        hook.remove()
    hook.remove()
    assert "removed" in repr(hook)


@pytest.mark.parametrize(("change", "message"), [
    (dict(layer=3), "no layer 3"),
    (dict(array=np.ones(5)), "5 numbers"),
    (dict(positions="everywhere"), "mean nothing"),
    (dict(positions=[]), "empty"),
    (dict(model="text"), "a transformers model is needed"),
    (dict(name="phi", site="resid_mid"), "no resid_mid"),
    (dict(dtype=torch.float16, array=np.full(24, 1e6)), "too large"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(change, message):
    hf = hf_models.make(change.get("name", "llama"))
    if "dtype" in change:
        hf = copy.deepcopy(hf).to(change["dtype"])
    array = change.get("array", np.ones(hf.config.hidden_size))
    vec = ps.SteeringVector.from_array(array, change.get("layer", 1), change.get("site", "resid_post"))
    with pytest.raises(ps.InvalidInput, match=message):
        vec.hook(change.get("model", hf), change.get("positions"))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in hf.modules())


def test_other_models_are_refused_by_name():
    vec = vector(hf_models.make("llama"), 1, "attn_out")
    config = transformers.BloomConfig(hidden_size=16, n_layer=2, n_head=2, vocab_size=31)
    with pytest.raises(ps.UnsupportedModel, match="'bloom'"):
        vec.hook(transformers.AutoModelForCausalLM.from_config(config))
    hf = copy.deepcopy(hf_models.make("llama"))
    hf.config.unheard_of = 3
    with pytest.raises(ps.UnsupportedModel, match="unheard_of"):
        vec.hook(hf)
    wrapped = torch.nn.ModuleDict({"inner": hf_models.make("llama")})
    wrapped.config = hf_models.make("llama").config
    with pytest.raises(ps.UnsupportedModel, match="no module 'model.layers.1'"):
        vec.hook(wrapped)
    hf = copy.deepcopy(hf_models.make("llama"))
    hf.model.layers[1].attention = hf.model.layers[1].self_attn
    del hf.model.layers[1].self_attn
    with pytest.raises(ps.UnsupportedModel, match="no module 'self_attn'"):
        vec.hook(hf)


def test_a_vector_of_another_family_warns():
    hf = hf_models.make("llama")
    vec = ps.SteeringVector.from_array(np.ones(24), 1, "mlp_out", model_type="qwen3")
    with pytest.warns(ps.ProvenanceWarning, match="qwen3"):
        vec.hook(hf).remove()


def test_how_the_weights_are_kept_does_not_matter():
    """A quantised model's config is read; its activations are plain."""
    hf = copy.deepcopy(hf_models.make("llama"))
    hf.config.quantization_config = {"quant_method": "bitsandbytes"}
    with vector(hf, 1, "mlp_out").hook(hf) as hook:
        logits(hf, PROMPT)
    assert hook.added == len(PROMPT)


# ---- tensors


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_tensors_in_and_out(dtype):
    tensor = torch.linspace(-1, 2, 6, dtype=dtype, requires_grad=True)
    vec = ps.SteeringVector.from_array(tensor, 2, "mlp_out")
    assert vec.direction.dtype == (np.float64 if dtype == torch.float64 else np.float32)
    back = vec.to_torch(dtype=dtype)
    assert back.dtype == dtype and torch.allclose(back, tensor.detach(), rtol=1e-6, atol=0)
    plain = vec.to_torch()
    plain[:] = 0
    assert vec.vector.any() and str(plain.device) == "cpu" and plain.dtype == vec.to_torch().dtype
    assert vec.to_torch(device="meta").device.type == "meta"


def test_tensors_that_are_no_vector():
    for bad in (torch.tensor([True, False]), torch.tensor([1j]), torch.eye(2), torch.zeros(3)):
        with pytest.raises(ps.InvalidInput):
            ps.SteeringVector.from_array(bad, 0, "mlp_out")
