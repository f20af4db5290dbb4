"""The model's API: prompts, activations, steering, generation, Jacobians. Numbers come from the NumPy twin."""

from __future__ import annotations

import dataclasses
import threading
import warnings

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import BOS, EOS, N_VOCAB, ids, tiny, vector

import powersteer as ps
from powersteer.inputs.sites import parse_site
from powersteer.vectors.interventions import core_steering

PROMPT = [BOS, 7, 3, 250, 40, 7]
CHAT = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def pair():
    return tiny(n_layers=3, ropes=1)


@pytest.fixture(scope="module")
def model(pair):
    return pair[0]


@pytest.fixture(scope="module")
def twin(pair):
    return pair[1]


def close(got, want, tol=1e-9):
    np.testing.assert_allclose(got, want, rtol=tol, atol=tol * max(np.abs(want).max(), 1e-3))


def refer(vec, positions=None):
    return reference.Steer(vec.layer, vec.site, vec.vector, positions)


# ---- the model itself


def test_facts(model):
    assert (model.n_layers, model.d_model, model.n_vocab, model.n_ctx) == (3, 12, N_VOCAB, 64)
    assert model.dtype == np.float64 and model.threads == 1 and model.name == "tiny" and model.end_tokens == {EOS}
    assert model.identity["model_type"] == "llama" and model.steering == ()
    for part in ("tiny", "3 layers", "float64"):
        assert part in repr(model)


def test_a_model_cannot_be_changed(model):
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.dtype = np.float32
    with pytest.raises((AttributeError, TypeError)):
        model.colour = "red"
    model.config["deep"].append(2)
    model.identity["name"] = "other"
    assert model.config["deep"] == [1] and model.name == "tiny"


@pytest.mark.parametrize("dtype", [None, "float32", np.float32, np.dtype("f4"), "float64", float])
def test_dtypes(dtype):
    from powersteer.model import model_from_checkpoint

    model, _ = tiny()
    made = model_from_checkpoint(model._loaded.checkpoint, dtype, 1)
    assert made(PROMPT).dtype == made.dtype == (np.float64 if dtype in ("float64", float) else np.float32)
    close(made(PROMPT), model(PROMPT), 1e-12 if made.dtype == np.float64 else 1e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", np.complex64, int, "nonsense", object()])
def test_dtypes_that_are_refused_before_anything_is_read(dtype):
    with pytest.raises(ps.InvalidInput, match="float32 or float64"):
        ps.load("no/such/model", dtype=dtype)


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2", True])
def test_threads_that_are_refused(threads):
    with pytest.raises(ps.InvalidInput, match="threads"):
        tiny(threads=threads)


def test_default_threads():
    assert tiny(threads=None)[0].threads >= 1


# ---- prompts


def test_tokens_of_every_kind_of_prompt(model):
    assert model.tokens("ab").tolist() == [BOS, *ids("ab")]
    assert model.tokens("<s>ab").tolist() == [BOS, *ids("ab")]  # the start token once
    assert model.tokens(CHAT).tolist() == [BOS, *ids("u:hi"), EOS, *ids("a:")]
    assert model.tokens(CHAT, add_generation_prompt=False) is not None
    for form in (
        [1, 2],
        (1, 2),
        np.array([1, 2]),
        np.array([1, 2], np.uint8),
        [np.int64(1), 2],
        np.array([0, 1, 0, 2])[1::2],
    ):
        tokens = model.tokens(form)
        assert tokens.dtype == np.int32 and tokens.tolist() == [1, 2]
    assert model.to_str_tokens("ab") == ["<s>", "a", "b"]


def test_a_list_of_prompts_gives_a_list(model):
    several = ["ab", CHAT, [1, 2], np.array([3])]
    assert [t.tolist() for t in model.tokens(several)] == [model.tokens(p).tolist() for p in several]
    assert [t.tolist() for t in model.tokens([[1, 2]])] == [[1, 2]]
    assert [t.tolist() for t in model.tokens([CHAT])] == [model.tokens(CHAT).tolist()]
    assert model.to_str_tokens(["a", "b"]) == [["<s>", "a"], ["<s>", "b"]]
    logits = model(several)
    assert isinstance(logits, list)
    for prompt, got in zip(several, logits, strict=True):
        close(got, model(prompt), 1e-12)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [([], "empty"), ((), "empty"), ([[]], "empty"), (["a", []], "empty"), (np.zeros(0, int), "empty"),
     (None, "NoneType"), (3, "int"),
     ({"role": "user"}, "dict"), ([1.5], "cannot read 1.5"), ([True], "cannot read True"), (["a", 1], "mixes"),
     ([1, [1]], "mixes"),
     ([CHAT[0], "a"], "mixes"), ([0, N_VOCAB], rf"no token id {N_VOCAB} \(position 1\)"), ([-1], "no token id -1"),
     ([10**30], "no token id"),
     (np.array([[1, 2]]), r"shape \(1, 2\)"), (np.array([1.0]), "float64"), ([None], "cannot read None"),
     (b"ab", "bytes")],
)  # fmt: skip
def test_what_is_no_prompt(model, prompt, message):
    for act in (model.tokens, model, lambda p: model.generate(p, max_new_tokens=1), lambda p: model.jacobian(p, 0, 2)):
        with pytest.raises(ps.InvalidInput, match=message):
            act(prompt)


def test_template_variables_are_for_chats_only(model):
    with pytest.raises(ps.InvalidInput, match="enable_thinking"):
        model.tokens("ab", enable_thinking=True)


def test_a_prompt_longer_than_the_context(model):
    assert model([1] * 64).shape == (64, N_VOCAB)
    for act in (model, model.run_with_cache, lambda p: model.generate(p, max_new_tokens=1), lambda p: model.jacobian(p, 0, 2)):
        with pytest.raises(ps.InvalidInput, match="65 tokens; the context of 'tiny' has 64"):
            act([1] * 65)
    with pytest.raises(ps.InvalidInput, match="prompt 1 has 65"):
        model([[1], [1] * 65])


def test_without_a_tokenizer():
    model, _ = tiny(words=False)
    assert model.tokens([1, 2]).tolist() == [1, 2]
    out = model.generate([1, 2], max_new_tokens=3)
    assert out.text is None and len(out.tokens) == 3
    for act in (
        lambda: model("a"),
        lambda: model(CHAT),
        lambda: model.to_str_tokens([1]),
        lambda: model.generate([1], max_new_tokens=4, stop="a"),
        lambda: model.generate([1], max_new_tokens=4, stream=True),
    ):
        with pytest.raises(ps.InvalidInput, match="without a tokenizer"):
            act()
    assert model.jacobian([1, 2], 0, 1).linearization.prompts == ("",)


def test_no_tokenizer_is_built_for_token_ids():
    """It can take seconds and more memory than the weights; the prompts' text is for the vectors."""
    model = ps.load("demo", threads=1)
    ids = model.tokens("Q: 3*4")
    model = ps.load("demo", threads=1)
    J = model.jacobian(ids, 1, 3)
    results = [J.svd(k=2), *model.jacobians(ids, 1, [2, 3]).svd(k=1)]
    assert np.isfinite(model(ids)).all() and model.estimate(ids, 1, 3).tape and str([J, J.linearization, results, *results])
    assert "_words" not in vars(model._loaded.checkpoint)
    text = "".join(model.to_str_tokens(ids))
    assert all(r.vectors[0].prompts == r.provenance["prompts"] == (text,) for r in results)
    assert J.linearization.prompts == (text,)


# ---- forward


def test_logits_and_every_activation(model, twin):
    want, acts = reference.forward(twin, PROMPT)
    close(model(PROMPT), want)
    logits, cache = model.run_with_cache(PROMPT)
    close(logits, want)
    assert cache.keys() == acts.keys()
    for place, act in acts.items():
        close(cache[place], act)


def test_sites_by_any_name(model):
    _, cache = model.run_with_cache(
        PROMPT, sites=["blocks.1.hook_mlp_out", (2, "resid_post"), "blocks.2.hook_out", (0, "hook_attn_out")]
    )
    assert list(cache) == [(1, "mlp_out"), (2, "resid_post"), (0, "attn_out")]
    assert all(act.shape == (6, 12) for act in cache.values())
    for one in ("blocks.1.hook_mlp_out", (1, "mlp_out"), (np.int64(1), "mlp_out"), [1, "hook_mlp_out"], parse_site((1, "mlp_out"))):
        assert list(model.run_with_cache(PROMPT, sites=one)[1]) == [(1, "mlp_out")]
    assert model.run_with_cache(PROMPT, sites=[])[1] == {}
    logits, caches = model.run_with_cache([PROMPT, [1]], sites=[(1, "mlp_out")])
    assert [len(z) for z in logits] == [6, 1] and caches[1][1, "mlp_out"].shape == (1, 12)


@pytest.mark.parametrize(
    ("sites", "message"),
    [
        (["blocks.3.hook_mlp_out"], "no layer 3"),
        ([(0, "mlp")], "did you mean"),
        ([3], "cannot read"),
        (3, "cannot read"),
        (1.5, "cannot read"),
        (["mlp_out"], "cannot read"),
    ],
)
def test_sites_that_are_not_there(model, sites, message):
    with pytest.raises(ps.InvalidInput, match=message):
        model.run_with_cache(PROMPT, sites=sites)


def test_a_parallel_model_has_no_resid_mid():
    model, _ = tiny(parallel=True)
    assert {site for _, site in model.run_with_cache(PROMPT)[1]} == set(reference.SITES) - {"resid_mid"}
    for act in (
        lambda: model.run_with_cache(PROMPT, [(0, "resid_mid")]),
        lambda: model.jacobian(PROMPT, (0, "resid_mid"), 1),
        lambda: model.steered(vector(model, site="resid_mid")),
    ):
        with pytest.raises(ps.InvalidInput, match="resid_mid"):
            act()


# ---- steering


@pytest.mark.parametrize("site", reference.SITES)
@pytest.mark.parametrize(
    ("positions", "rows"),
    [(None, None), ("all", None), ("prompt", None), (slice(-2, None), [4, 5]), ([0, -1], [0, 5]), (3, [3])],
)
def test_steering_adds_the_vector_there(model, twin, site, positions, rows):
    v = vector(model, layer=1, site=site) * 0.7
    logits, acts = model.steered(v, positions=positions).run_with_cache(PROMPT)
    want, want_acts = reference.forward(twin, PROMPT, [refer(v, rows)])
    close(logits, want)
    for place, act in want_acts.items():
        close(acts[place], act)


def test_steering_accumulates_and_leaves_the_model_alone(model, twin):
    a, b = vector(model, 1), vector(model, 2, layer=2, site="resid_pre")
    before = model(PROMPT)
    view = model.steered(a, positions=[1])
    both = view.steered([b, a], positions="prompt")
    close(both(PROMPT), reference.forward(twin, PROMPT, [refer(a, [1]), refer(b), refer(a)])[0])
    close(view(PROMPT), reference.forward(twin, PROMPT, [refer(a, [1])])[0])
    assert np.array_equal(model(PROMPT), before)
    assert len(both.steering) == 3 and "blocks.0.hook_mlp_out at [1]" in both.steering[0]
    assert "steered by 3" in repr(both) and both.tokenizer is model.tokenizer and isinstance(both, ps.Model)


@pytest.mark.parametrize("positions", [None, "prompt", -1, slice(-2, None), [0, 1]])
def test_every_prompt_of_a_batch_is_steered_at_its_own_positions(model, positions):
    view = model.steered(vector(model), positions=positions)
    prompts = [PROMPT, [5, 6], [7, 8, 9]]
    for prompt, got in zip(prompts, view(prompts), strict=True):
        close(got, view(prompt), 1e-12)
        assert np.abs(got - model(prompt)).max() > 1e-3
    J = view.jacobian(prompts, 1, 2)
    close(J.dense(), np.concatenate([view.jacobian(p, 1, 2).dense() for p in prompts]), 1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_zero_vector_changes_no_bit(dtype):
    model, _ = tiny(dtype)
    zero = model.steered([vector(model) * 0, vector(model, layer=1, site="resid_post") * 0])
    assert np.array_equal(zero(PROMPT), model(PROMPT))
    assert np.array_equal(zero.generate(PROMPT, max_new_tokens=8).tokens, model.generate(PROMPT, max_new_tokens=8).tokens)


def test_generated_positions_are_not_in_a_prompt(model):
    assert np.array_equal(model.steered(vector(model), positions="generated")(PROMPT), model(PROMPT))
    with pytest.raises(ps.InvalidInput, match="no position 6"):  # but what never comes is refused
        model.steered(vector(model), positions=[6])(PROMPT)


def test_the_cores_interventions_of_one_row(model):
    items = model._interventions(vector(model), "prompt") + model._interventions(vector(model, 1))
    one, every = core_steering(items, [3, 2], [5, 6], row=1)
    assert (one[3], one[4].tolist()) == (1, [[0, 2]]) and every[3] == 1
    assert [s[3] for s in core_steering(items, [3, 2], [5, 6])] == [0, 1, -1]


def test_vectors_that_do_not_fit(model):
    small = ps.SteeringVector.from_array(np.ones(11), 0, "mlp_out")
    far = ps.SteeringVector.from_array(np.ones(12), 3, "mlp_out")
    for bad, message in [
        (small, "11 numbers; activations of this model have 12"),
        (far, "no layer 3"),
        (np.ones(12), "from_array"),
        ([], "empty"),
        (None, "SteeringVector"),
        ([vector(model), None], "SteeringVector"),
    ]:
        with pytest.raises(ps.InvalidInput, match=message):
            model.steered(bad)
        if bad is not None and not (isinstance(bad, list) and not bad):
            with pytest.raises(ps.InvalidInput, match=message):
                model.generate(PROMPT, max_new_tokens=1, steer=bad)
    with pytest.raises(ps.InvalidInput, match="too large for float32"):
        tiny("float32")[0].steered(vector(model) * 1e300)
    with pytest.raises(ps.InvalidInput, match="are not known"):
        model.steered(vector(model), positions="last")


def test_a_vector_of_another_model_is_used_with_a_warning(model):
    mine = dataclasses.replace(vector(model), weights=model.identity["weights"])
    other = dataclasses.replace(mine, weights="other", model="org/other")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.steered(mine)
        model.steered(vector(model))  # one that says nothing
    with pytest.warns(ps.ProvenanceWarning, match="org/other") as caught:
        steered = model.steered(other)
    assert caught[0].filename == __file__
    assert np.array_equal(steered(PROMPT), model.steered(mine)(PROMPT))


# ---- generation


@pytest.mark.parametrize(
    ("positions", "rows"),
    [
        (None, slice(None)),
        ("prompt", slice(0, 6)),
        ("generated", slice(6, None)),
        (slice(4, None), slice(4, None)),
        ([2, 7, 9], [2, 7, 9]),
    ],
)
def test_greedy_with_the_cache_says_what_it_says_without(model, twin, positions, rows):
    """The prompt counts the same rows whether they come at once or one by one."""
    v = vector(model, 3, layer=1) * 1.5
    tokens = list(PROMPT)
    for _ in range(12):
        here = [p for p in np.arange(64)[rows] if p < len(tokens)]
        tokens.append(int(reference.forward(twin, tokens, [refer(v, here)] if here else [])[0][-1].argmax()))
    out = model.steered(v, positions=positions).generate(PROMPT, max_new_tokens=12, stop=[])
    assert out.tokens.tolist() == tokens[6:] and out.prompt_tokens.tolist() == PROMPT
    assert out.finish_reason == "length" and out.stop is None and out.tokens.dtype == np.int32
    assert len(out.steering) == 1
    plain = model.generate(PROMPT, max_new_tokens=12, stop=[])
    assert plain.tokens.tolist() == reference.greedy(twin, PROMPT, 12) != tokens[6:] and plain.steering == ()


def test_text_is_what_the_tokens_say(model):
    out = model.generate("abc", max_new_tokens=20, stop=[])
    whole = model.tokenizer.decode([*out.prompt_tokens, *out.tokens])
    assert "abc" + out.text == whole


def same(a, b):
    return (
        a.tokens.tolist() == b.tokens.tolist()
        and a.text == b.text
        and a.seed == b.seed
        and a.finish_reason == b.finish_reason
    )


def test_a_batch_says_what_its_rows_say_alone(model):
    prompts = ["abc", PROMPT, "x", CHAT]
    for how in ({}, {"temperature": 1.3, "top_k": 40, "top_p": 0.9}):
        together = model.generate(prompts, max_new_tokens=10, seed=5, **how)
        assert isinstance(together, list)
        for i, (prompt, out) in enumerate(zip(prompts, together, strict=True)):
            assert same(out, model.generate(prompt, max_new_tokens=10, seed=5 + i, **how))
        for seeds in ([1, 1, 2**64 - 1, 0], (3, 2, 1, 0)):
            rows = model.generate(prompts, max_new_tokens=10, seed=seeds, **how)
            assert all(
                same(out, model.generate(p, max_new_tokens=10, seed=s, **how)) for p, s, out in zip(prompts, seeds, rows, strict=True)
            )
    assert model.generate(["a", "a"], max_new_tokens=1, seed=2**64 - 1)[1].seed == 0


def test_one_intervention_a_row(model):
    a, b = vector(model, 1, 2.0), vector(model, 2, 2.0, layer=1)
    view = model.steered(b, positions="prompt")
    alone = [view.steered(a), view, view.steered([a, -b])]
    rows = view.generate([PROMPT] * 3, max_new_tokens=10, steer=[a, None, [a, -b]], seed=[0, 0, 0])
    for single, out in zip(alone, rows, strict=True):
        assert same(out, single.generate(PROMPT, max_new_tokens=10)) and out.steering == single.generate(PROMPT, max_new_tokens=10).steering
    assert len({tuple(out.tokens) for out in rows}) == 3
    assert same(model.generate(PROMPT, max_new_tokens=10, steer=a), model.steered(a).generate(PROMPT, max_new_tokens=10))
    assert same(model.generate(PROMPT, max_new_tokens=10, steer=[a, b]), model.steered([a, b]).generate(PROMPT, max_new_tokens=10))
    assert all(
        same(out, model.steered(a).generate(PROMPT, max_new_tokens=10))
        for out in model.generate([PROMPT] * 2, max_new_tokens=10, steer=a, seed=[0, 0])
    )
    for bad in ([a], [a, None, b, b], "ab"):
        with pytest.raises(ps.InvalidInput, match="each of the 3 prompts"):
            model.generate([PROMPT] * 3, max_new_tokens=1, steer=bad)
    with pytest.raises(ps.InvalidInput, match="SteeringVector"):
        model.generate(PROMPT, max_new_tokens=1, steer=[a, None])


def test_sampling(model):
    runs = [model.generate(PROMPT, max_new_tokens=12, temperature=1.0, seed=s).tokens.tolist() for s in (0, 0, 1, 2)]
    assert runs[0] == runs[1] and len({tuple(r) for r in runs}) == 3
    greedy = model.generate(PROMPT, max_new_tokens=12).tokens.tolist()
    assert model.generate(PROMPT, max_new_tokens=12, temperature=2.0, top_k=1, seed=9).tokens.tolist() == greedy
    assert model.generate(PROMPT, max_new_tokens=12, temperature=2.0, top_p=1e-9, seed=9).tokens.tolist() == greedy
    assert (
        model.generate([PROMPT] * 2, max_new_tokens=12, temperature=1.5)[0].tokens.tolist()
        != model.generate([PROMPT] * 2, max_new_tokens=12, temperature=1.5)[1].tokens.tolist()
    )


@pytest.mark.parametrize(
    "how",
    [
        {"temperature": 0.7},
        {"temperature": 1.0, "top_k": 5},
        {"temperature": 1.0, "top_p": 0.5},
        {"temperature": 1.5, "top_k": 9, "top_p": 0.7},
    ],
)
def test_sampled_tokens_follow_their_distribution(model, twin, how):
    n = 4000
    drawn = np.bincount([out.tokens[0] for out in model.generate([[BOS, 9]] * n, max_new_tokens=1, stop=[], **how)], minlength=N_VOCAB)
    p = reference.sampling(reference.forward(twin, [BOS, 9])[0][-1], **how)
    assert not drawn[p == 0].any()
    error = (drawn / n - p) / np.sqrt(np.maximum(p, 1 / n) / n)
    assert np.abs(error).max() < 5


def test_stop_tokens(model):
    free = model.generate(PROMPT, max_new_tokens=12, stop=[])
    third = int(free.tokens[2])
    first = free.tokens.tolist().index(third)
    out = model.generate(PROMPT, max_new_tokens=12, stop=[third])
    assert (out.finish_reason, out.stop) == ("stop", third) and out.tokens.tolist() == free.tokens[: first + 1].tolist()
    assert out.text == model.generate(PROMPT, max_new_tokens=first, stop=[]).text if first else out.text == ""  # without the stop
    assert same(model.generate(PROMPT, max_new_tokens=12, stop=third), out) and same(
        model.generate(PROMPT, max_new_tokens=12, stop=np.array([third])), out
    )


def test_the_models_end_tokens_stop_by_default():
    """A vector at the last site that makes the end token win, where it would not."""
    model, twin = tiny()
    twin.top["lm_head"][EOS] *= 9
    prompt = next([BOS, i] for i in range(99) if model([BOS, i])[-1, EOS] < 0)
    push = ps.SteeringVector.from_array(1e3 * twin.top["final_norm"][0] * twin.top["lm_head"][EOS], 1, "resid_post")
    view = model.steered(push, positions="generated")
    out = view.generate(prompt, max_new_tokens=12)
    assert out.finish_reason == "stop" and out.stop == EOS and out.tokens[-1] == EOS and len(out.tokens) == 2
    assert "</s>" not in out.text
    for stop in ([], ["zzzz"], 5):
        assert len(view.generate(prompt, max_new_tokens=12, stop=stop).tokens) == 12
    assert same(view.generate(prompt, max_new_tokens=12, stop=["zzzz", *model.end_tokens]), out)
    assert view.generate(prompt, max_new_tokens=12, stop="</s>").stop == EOS  # a special token is never text, but means itself
    rows = model.generate([prompt] * 2, max_new_tokens=12, steer=[push, None])
    assert len(rows[0].tokens) == 1 and same(rows[1], model.generate(prompt, max_new_tokens=12, seed=1))


def test_stop_strings(model):
    free = model.generate(PROMPT, max_new_tokens=30, stop=[])
    text = free.text
    stop = text[3:6]
    at = text.find(stop)
    out = model.generate(PROMPT, max_new_tokens=30, stop=["never said", stop])
    assert out.finish_reason == "stop" and out.stop == stop and out.text == text[:at]
    assert out.tokens.tolist() == free.tokens[: len(out.tokens)].tolist()
    assert same(model.generate(PROMPT, max_new_tokens=30, stop=stop), out)


@pytest.mark.parametrize(
    ("stop", "message"),
    [
        ("", "empty"),
        (["a", ""], "empty"),
        ([N_VOCAB], "no token id"),
        ([-1], "no token id"),
        ([1.5], "cannot read"),
        ([None], "cannot read"),
    ],
)
def test_stops_that_are_refused(model, stop, message):
    with pytest.raises(ps.InvalidInput, match=message):
        model.generate(PROMPT, max_new_tokens=4, stop=stop)


def test_streaming(model):
    out = model.generate("abc", max_new_tokens=20, temperature=1.0, seed=3)
    stream = model.generate("abc", max_new_tokens=20, temperature=1.0, seed=3, stream=True)
    with pytest.raises(ps.InvalidInput, match="not finished"):
        stream.result  # noqa: B018
    assert "".join(stream) == out.text and same(stream.result, out)
    several = model.generate(["abc", "x"], max_new_tokens=20, temperature=1.0, stream=True)
    pieces = list(several)
    for i, row in enumerate(several.result):
        assert "".join(piece for at, piece in pieces if at == i) == row.text
    assert [
        same(a, b) for a, b in zip(several.result, model.generate(["abc", "x"], max_new_tokens=20, temperature=1.0), strict=True)
    ] == [True, True]


def test_a_stream_checks_its_arguments_at_once(model):
    with pytest.raises(ps.InvalidInput, match="max_new_tokens"):
        model.generate("abc", max_new_tokens=0, stream=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [(dict(max_new_tokens=0), "max_new_tokens"), (dict(max_new_tokens=1.5), "max_new_tokens"),
     (dict(max_new_tokens=True), "max_new_tokens"),
     (dict(max_new_tokens=59), "6 tokens and 59 new ones do not fit the context of 64.*at most 58"),
     (dict(max_new_tokens=10**12), "context of 64"),
     (dict(temperature=-1), "temperature"), (dict(temperature=float("nan")), "temperature"),
     (dict(temperature=float("inf")), "temperature"),
     (dict(temperature="hot"), "temperature"), (dict(top_k=-1), "top_k"), (dict(top_k=1.5), "top_k"),
     (dict(top_p=0), "top_p"), (dict(top_p=1.1), "top_p"),
     (dict(top_p=float("nan")), "top_p"), (dict(top_p=None), "top_p"), (dict(seed=-1), "seed"),
     (dict(seed=2**64), "seed"), (dict(seed=0.5), "seed"), (dict(seed=[1, 2]), "2 seeds for 1"),
     (dict(seed="a"), "seed")],
)  # fmt: skip
def test_generation_arguments(model, change, message):
    with pytest.raises(ps.InvalidInput, match=message):
        model.generate(PROMPT, **{"max_new_tokens": 4, **change})


def test_the_context_can_be_filled(model):
    assert len(model.generate(PROMPT, max_new_tokens=58, stop=[]).tokens) == 58


# ---- many threads


def test_views_work_in_many_threads_at_once(model):
    v = [vector(model, s, 3.0) for s in range(4)]
    wanted = [
        (
            model.steered(x)(PROMPT),
            model.steered(x).generate(PROMPT, max_new_tokens=8).tokens,
            model.steered(x).jacobian(PROMPT, 0, 2).dense(),
        )
        for x in v
    ]
    J = model.jacobian(PROMPT, 0, 2)
    dense, wrong = J.dense(), []

    def work(i):
        view = model.steered(v[i])
        for _ in range(5):
            got = (view(PROMPT), view.generate(PROMPT, max_new_tokens=8).tokens, view.jacobian(PROMPT, 0, 2).dense())
            if not all(map(np.array_equal, got, wanted[i])) or not np.array_equal(J.dense(), dense):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_steering_of_any_batch(data):
    """Random vectors, sites, positions and prompts: one batch, against the twin one by one."""
    model, twin = tiny(seed=data.draw(st.integers(0, 3)), parallel=data.draw(st.booleans()))
    sites = [s for s in reference.SITES if not (model.spec.parallel and s == "resid_mid")]
    prompts = data.draw(st.lists(st.lists(st.integers(0, N_VOCAB - 1), min_size=2, max_size=6), min_size=1, max_size=3))
    view, steer = model, []
    for _ in range(data.draw(st.integers(0, 3))):
        v = vector(
            model, data.draw(st.integers(0, 9)), 1.0, data.draw(st.integers(0, 1)), data.draw(st.sampled_from(sites))
        )
        positions = data.draw(
            st.sampled_from([None, "prompt", "generated", slice(-2, None), slice(1, None), [-1], 0, [0, 1]])
        )
        view = view.steered(v, positions=positions)
        rows = (
            {"prompt": slice(None), "generated": []}.get(positions, positions)
            if isinstance(positions, str)
            else positions
        )
        steer.append(reference.Steer(v.layer, v.site, v.vector, rows))
    for prompt, got in zip(prompts, view(prompts), strict=True):
        close(got, reference.forward(twin, prompt, steer)[0], 1e-8)


def test_spellings_of_the_previous_release(model):
    """Positional options and `positions` for target rows give the same results, with a warning each."""
    J = model.jacobian(PROMPT, 0, 2, source_site="resid_pre", target_site="resid_post", target_positions=[1])
    with pytest.warns(DeprecationWarning, match="'positions' is now called 'target_positions'"):
        old = model.jacobian(PROMPT, 0, 2, source_site="resid_pre", target_site="resid_post", positions=[1])
    assert np.array_equal(old.dense(), J.dense())
    with pytest.warns(DeprecationWarning, match="target_positions by keyword"):
        assert np.array_equal(model.jacobian(PROMPT, 0, 2, "resid_pre", "resid_post", [1]).dense(), J.dense())
    with pytest.warns(DeprecationWarning, match="target_positions"):
        assert J.positions == J.target_positions
    with pytest.warns(DeprecationWarning, match="linearization"):
        assert J.subject is J.linearization
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        J.nonsense  # noqa: B018
    for name in ("jacobians", "estimate"):
        with pytest.warns(DeprecationWarning, match="'positions' is now called 'target_positions'"):
            getattr(model, name)(PROMPT, 0, [2] if name == "jacobians" else 2, positions=[1])
    with pytest.warns(DeprecationWarning, match="method by keyword"):
        assert np.array_equal(J.svd(2, "dense").S, J.svd(2, method="dense").S)
    with pytest.warns(DeprecationWarning, match="method by keyword"):
        assert np.array_equal(ps.svd(J, 2, "dense").S, J.svd(2, method="dense").S)
    with pytest.warns(DeprecationWarning, match="tol by keyword"):
        model.jacobians(PROMPT, 0, [2]).svd(2, 1e-2)
    with pytest.warns(DeprecationWarning, match="max_new_tokens by keyword"):
        assert same(model.generate(PROMPT, 4), model.generate(PROMPT, max_new_tokens=4))
    with pytest.warns(DeprecationWarning, match="dtype, threads by keyword"):
        assert ps.load("demo", "float64", 1).dtype == np.float64
    with pytest.raises(TypeError, match="both"):
        model.jacobian(PROMPT, 0, 2, positions=[1], target_positions=[1])


def test_activations_by_any_spelling_of_a_site(model):
    _, acts = model.run_with_cache(PROMPT)
    for key in ("blocks.1.hook_mlp_out", "blocks.1.mlp.hook_out", (1, "mlp_out"), (1, "hook_mlp_out"), [1, "mlp_out"]):
        assert acts[key] is acts[1, "mlp_out"] and key in acts
    assert list(acts) == [(layer, site) for layer in range(3) for site in reference.SITES] and len(acts) == len(list(acts))
    assert dict(acts)[1, "mlp_out"] is acts[1, "mlp_out"] and acts.get("blocks.9.hook_mlp_out") is None
    some = model.run_with_cache(PROMPT, sites=[(0, "attn_out"), (2, "resid_pre")])[1]
    assert "blocks.1.hook_mlp_out" not in some and "no site" not in some and 3 not in some
    with pytest.raises(KeyError) as caught:
        some["blocks.1.hook_mlp_out"]
    assert str(caught.value) == (
        "there is no activation of 'blocks.1.hook_mlp_out'; sites in this cache: blocks.0.hook_attn_out, blocks.2.hook_resid_pre"
    )
    with pytest.raises(ps.InvalidInput, match="did you mean 'mlp_out'"):
        some["blocks.1.hook_mlpout"]
    with pytest.raises(KeyError, match="no layer 3"):
        some[3, "mlp_out"]


def test_cache_of_a_model_with_post_norms():
    """TransformerLens's mlp.hook_out is before the post-norm: our down_proj."""
    model, _ = tiny(norms=("norm1", "post1", "norm2", "post2"))
    acts = model.run_with_cache(PROMPT)[1]
    assert np.array_equal(acts["blocks.1.mlp.hook_out"], model.activations(PROMPT, "blocks.1.mlp.hook_out"))
    assert acts["blocks.1.mlp.hook_out"] is acts[1, "down_proj"] is not acts[1, "mlp_out"]


def test_pictures_for_notebooks(model):
    view = model.steered(vector(model))
    assert "<table>" in view._repr_html_() and "tiny" in view._repr_html_() and view.steering[0] in view._repr_html_()
    out = view.generate("a <b> & c", max_new_tokens=3, stop=[])
    assert "a &lt;b&gt; &amp; c" in out._repr_html_() and view.steering[0] in out._repr_html_()
    assert "steering" not in model.generate("a", max_new_tokens=1)._repr_html_()
    long = model.generate("a", max_new_tokens=60, stop=[])
    assert "\n" not in repr(long) and repr(long).startswith("Generation(") and "60 tokens" in repr(long)
    words, _ = tiny(words=False)
    out = words.generate([1, 2], max_new_tokens=1)
    assert "[1, 2]" in out._repr_html_() and "None" not in repr(out)
