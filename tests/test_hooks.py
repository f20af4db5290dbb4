"""`vec.hook(hf_model)` against `model.steered(vec)`: logits, greedy tokens through the cache, padding, removal."""

from __future__ import annotations

import contextlib
import copy
import inspect
import warnings

import hf_models
import numpy as np
import pytest
from oracles import torch, transformers

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
    out = hf.generate(ids, attention_mask=mask, max_new_tokens=n, **{"do_sample": False} | more)
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
        for i, site in enumerate([*hf_models.site_names(hf), "resid_post"]):
            layers = hf_models.layers_with(hf, site)
            vec = vector(hf, layers[i % len(layers)], site)
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
    prompts = [PROMPT, PROMPT[::-1] if name == "llama4_text" else PROMPT[2:5]]  # whose temperatures are those of columns, padding, too
    vec = vector(hf, 1, str(rng.choice(hf_models.site_names(hf, 1))), size=8.0)
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
    (dict(positions="everywhere"), "are not known"),
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
    config = transformers.XGLMConfig(d_model=16, num_layers=2, attention_heads=2, ffn_dim=20, vocab_size=31)
    with pytest.raises(ps.UnsupportedModel, match="'xglm'"):
        vec.hook(transformers.AutoModelForCausalLM.from_config(config))
    hf = copy.deepcopy(hf_models.make("llama"))
    hf.config.attention_chunk_size = 8
    with pytest.raises(ps.UnsupportedModel, match="attention_chunk_size"):
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


# ---- which tokens of which call


PADDED = [PROMPT, PROMPT[2:5]]
SELECTIONS = [None, "prompt", "generated", slice(-2, 9), slice(1, 10, 2), [8, -1], [2, 8]]
RELATIVE = ["prompt", "generated", slice(-2, 9), -1]


@contextlib.contextmanager
def by_hand(hf, vec, positions, lengths):
    """The vector after its block by a hook that counts the columns of one generation, for prompts padded on the left."""
    column = 0
    at = np.arange(64)
    chosen = [{None: at >= 0, "prompt": at < n, "generated": at >= n}[positions] if not isinstance(positions, slice)
              else np.isin(at, at[slice(*(p + n if p is not None and p < 0 else p for p in
                                          (positions.start, positions.stop)), positions.step)])
              for n in lengths]  # fmt: skip

    def add(module, args, output):
        nonlocal column
        x = output[0] if isinstance(output, tuple) else output
        for row, n, mask in zip(x, lengths, chosen, strict=True):
            for j, activation in enumerate(row):
                position = column + j - (max(lengths) - n)
                if position >= 0 and mask[position]:
                    activation += torch.as_tensor(vec.vector, dtype=x.dtype)
        column += x.shape[1]

    handle = hf.base_model.layers[vec.layer].register_forward_hook(add)
    yield
    handle.remove()


def ways(name):
    """Arguments of generate, made anew: a cache is used up."""
    config = hf_models.make(name).config
    static = dict(disable_compile=True)
    return {
        "dynamic": {},
        "static": dict(cache_implementation="static", **static),
        "my own": {CACHE: transformers.DynamicCache(config=config)},
        "my own static": {CACHE: transformers.StaticCache(config=config, max_cache_len=40), **static},
        "sampled": dict(do_sample=True, top_k=1),
    }


def with_attention(hf, kind):
    """The masks of a static cache are numbers to add for one kind, truth values for the other."""
    hf = copy.deepcopy(hf)
    hf.set_attn_implementation(kind)
    return hf


@pytest.mark.parametrize(("name", "attention"), [
    ("llama", "sdpa"), ("mistral", "sdpa"), ("gemma2", "eager"), ("gemma3_text", "sdpa"), ("qwen2-window", "eager"),
    ("mixtral", "eager"),
])  # fmt: skip
@pytest.mark.parametrize("prompts", [[PROMPT], PADDED], ids=["one", "padded"])
def test_every_cache_and_selection(name, attention, prompts, loaded):
    """Past the sliding windows; against this project's generation and against a hook that is written out."""
    hf, model = with_attention(hf_models.make(name), attention), loaded(name, "float32")
    vec = vector(hf, 1, "mlp_out", size=8.0)
    for positions in SELECTIONS:
        want = ours(model.steered(vec, positions), prompts, 9)
        if not isinstance(positions, list):
            with by_hand(hf, vec, positions, [len(p) for p in prompts]):
                assert greedy(hf, prompts, 9) == want, positions
        for way in ways(name):
            with vec.hook(hf, positions):
                assert greedy(hf, prompts, 9, **ways(name)[way]) == want, (way, positions)


def test_several_sequences_of_a_prompt(loaded):
    hf, model = hf_models.make("llama"), loaded("llama", "float32")
    vec = vector(hf, 1, "mlp_out", size=8.0)
    with vec.hook(hf, "generated"):
        got = greedy(hf, PADDED, 6, do_sample=True, top_k=1, num_return_sequences=3)
    assert got == [row for row in ours(model.steered(vec, "generated"), PADDED, 6) for _ in range(3)]


@pytest.mark.parametrize("way", ["assistant", "lookup"])
def test_candidates_are_not_taken_for_the_prompt(way, loaded):
    hf, model = hf_models.make("llama"), loaded("llama", "float32")
    more = dict(assistant_model=copy.deepcopy(hf)) if way == "assistant" else dict(prompt_lookup_num_tokens=3)
    repeated, vec = PROMPT + PROMPT[:4], vector(hf, 1, "mlp_out", size=8.0)
    for positions in (None, [2, 12], slice(5, 13)):
        with vec.hook(hf, positions):
            assert greedy(hf, [repeated], 9, **more) == ours(model.steered(vec, positions), [repeated], 9)
    for positions in RELATIVE:
        for n in (3, 9):  # of 3, the first call may hold all
            with pytest.raises(ps.InvalidInput, match="where the prompt ends"), vec.hook(hf, positions):
                greedy(hf, [repeated], n, **more)


def test_prompts_in_pieces_by_absolute_positions(loaded):
    hf, model = hf_models.make("mistral"), loaded("mistral", "float32")
    vec = vector(hf, 1, "mlp_out", size=8.0)
    want = ours(model.steered(vec, [2, 8]), PADDED, 9)
    for more in ({}, dict(cache_implementation="static", disable_compile=True)):
        with vec.hook(hf, [2, 8]):
            assert greedy(hf, PADDED, 9, prefill_chunk_size=3, **more) == want


@pytest.mark.parametrize("way", ["wrapped", "forward", "in place"])
def test_a_model_that_was_compiled_before(way, loaded):
    """torch.compile keeps what it has compiled, without hooks that come or go later."""
    hf = copy.deepcopy(hf_models.make("llama"))
    run, model = hf, loaded("llama")
    if way == "wrapped":
        run = torch.compile(hf, backend="eager")
    elif way == "forward":
        hf.forward = torch.compile(hf.forward, backend="eager")
    else:
        hf.compile(backend="eager")
    plain = logits(run, PROMPT)
    a, b = vector(hf, 1, "mlp_out"), vector(hf, 2, "resid_pre")
    with a.hook(hf, [2]):
        with b.hook(hf, "prompt"):
            assert error(logits(run, PROMPT), model.steered(a, [2]).steered(b)(PROMPT)) < 2e-5
        assert error(logits(run, PROMPT), model.steered(a, [2])(PROMPT)) < 2e-5
    assert error(logits(run, PROMPT), plain) < 1e-6


def test_the_cache_of_tuples_and_of_copies(loaded):
    """return_dict=False; a cache that is copied while decoding has the same prompt."""
    hf, vec = hf_models.make("llama"), vector(hf_models.make("llama"), 1, "mlp_out")
    got, cache = [], None
    with vec.hook(hf, "generated"), torch.no_grad():
        for tokens in (PROMPT, [21], [22]):
            out = hf(torch.tensor([tokens]), use_cache=True, return_dict=False, **{CACHE: copy.deepcopy(cache)})
            cache = out[1]
            got.append(out[0][0, -1].numpy())
    want = loaded("llama", "float32").steered(vec, slice(7, None))([*PROMPT, 21, 22])[6:]
    assert error(np.stack(got), want) < 2e-5


def test_texts_that_grow_without_a_cache():
    hf, vec = hf_models.make("llama"), vector(hf_models.make("llama"), 1, "mlp_out")
    with vec.hook(hf, -1):
        logits(hf, PROMPT[:4])
        logits(hf, [9, 8])  # another text in between
        logits(hf, PROMPT[:4])
        with pytest.raises(ps.InvalidInput, match="an earlier call and one more"):
            logits(hf, PROMPT[:5])
    with vec.hook(hf, 2), pytest.raises(ps.InvalidInput, match="neither input_ids"):
        hf.base_model()


def masks(lengths, longest):
    """A 2D mask of rows padded on the left, the 4D one of eager attention, and the position_ids that count."""
    kept = torch.arange(longest) >= longest - torch.tensor(lengths)[:, None]
    causal = torch.ones(longest, longest).tril().bool() & kept[:, None, :]
    return kept.long(), causal[:, None], (kept.cumsum(1) - 1).clamp(min=0)


def test_a_mask_that_is_made_already(loaded):
    model = loaded("llama")
    ids = torch.tensor([PROMPT, [0] * 4 + PROMPT[2:5]])
    _, mask, at = masks([7, 3], 7)
    added = torch.where(mask, 0.0, torch.finfo(torch.float32).min)
    for made, attention in ((mask, "sdpa"), (added, "eager")):
        hf = with_attention(hf_models.make("llama"), attention)
        vec = vector(hf, 0, "mlp_out")
        for positions, count in ((-1, 2), ("prompt", 10), ([0, 2], 4), (slice(1, -1), 6)):
            with vec.hook(hf, positions) as hook, torch.no_grad():
                got = hf(ids, attention_mask=made, position_ids=at).logits
            for row, start, prompt in zip(got, (0, 4), (PROMPT, PROMPT[2:5]), strict=True):
                assert error(row[start:].numpy(), model.steered(vec, positions)(prompt)) < 2e-5
            assert hook.added == count
        with vec.hook(hf, 2), pytest.raises(ps.InvalidInput, match="do not count"):
            hf(ids, attention_mask=made, position_ids=torch.arange(7)[None].expand(2, -1))
        with vec.hook(hf, 2), pytest.raises(ps.InvalidInput, match="has shape"):
            hf(ids, attention_mask=made)


class Pages:
    """As of continuous batching: it takes keys and does not say how many it has."""

    def update(self, *args):
        raise AssertionError


@pytest.mark.parametrize(("more", "message"), [
    (lambda c: dict(position_ids=torch.tensor([[0, 1, 2, 5], [0, 1, 2, 3]])), "do not count"),
    (lambda c: dict(position_ids=torch.tensor([[0, 1, 0, 1], [0, 1, 2, 3]]), attention_mask=torch.ones(2, 4)),
     "do not count"),
    (lambda c: dict(position_ids=torch.zeros(3, 2, 4, dtype=int)), "have shape"),
    (lambda c: dict(attention_mask=torch.ones(2, 3)), r"shape \(2, 3\)"),
    (lambda c: dict(cache_position=torch.arange(1, 5)), "cache_position"),
    (lambda c: {CACHE: Pages()}, "a Pages does not say"),
    (lambda c: {CACHE: ((torch.ones(2, 2, 3, 10), torch.ones(2, 2, 3, 10)),)}, "a tuple does not say"),
    (lambda c: {CACHE: c, "more": copy.deepcopy(c)}, "2 caches"),
])  # fmt: skip
def test_calls_that_leave_a_doubt(more, message):
    hf, vec = hf_models.make("llama"), vector(hf_models.make("llama"), 1, "mlp_out")
    arguments = more(transformers.DynamicCache())
    for positions in (2, "prompt"):
        with vec.hook(hf, positions), pytest.raises(ps.InvalidInput, match=message):
            hf(torch.ones(2, 4, dtype=int), **arguments)


def doubtful(cache, mask, change):
    """Arguments of the call after the prompt."""
    mask = torch.cat([mask, torch.ones(2, 1, dtype=int)], 1)
    if change == "no mask":
        mask = None
    elif change == "rows moved":
        cache.reorder_cache(torch.tensor([1, 0]))
        mask = mask.flip(0)
    elif change == "one row":
        cache.batch_select_indices(torch.tensor([0]))
        mask = mask[:1]
    elif change == "cropped":
        cache.crop(-3)
        mask = mask[:, :5]
    tokens = torch.ones(1 if change == "one row" else 2, 2 if change == "two tokens" else 1, dtype=int)
    if change == "two tokens":
        mask = torch.cat([mask, torch.ones(2, 1, dtype=int)], 1)
    return tokens, mask


@pytest.mark.parametrize("change", [None, "no mask", "rows moved", "one row", "cropped", "two tokens"])
@pytest.mark.parametrize("positions", ["generated", [2, 8]])
def test_caches_that_are_continued_in_doubt(change, positions):
    hf, vec = hf_models.make("llama"), vector(hf_models.make("llama"), 1, "mlp_out")
    mask, _, at = masks([7, 5], 7)
    certain = change is None or (positions != "generated" and change not in ("no mask", "rows moved"))
    expected = contextlib.nullcontext() if certain else pytest.raises(ps.InvalidInput, match="cannot determine")
    with expected, vec.hook(hf, positions), torch.no_grad():
        cache = hf(torch.ones(2, 7, dtype=int), attention_mask=mask, position_ids=at, use_cache=True)[CACHE]
        tokens, mask = doubtful(cache, mask, change)
        hf(tokens, attention_mask=mask, **{CACHE: cache})


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
