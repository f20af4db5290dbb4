"""Log-probabilities of continuations, against transformers and by their own rules."""

from __future__ import annotations

import hf_models
import numpy as np
import pytest
import scipy.special
from oracles import torch
from tiny import ids, tiny, vector

import powersteer as ps
from powersteer.model import cost, logprobs

PROMPTS = [[5, 9, 11], [5, 9, 11, 3], [7]]
CONTINUATIONS = [[[3, 8], [4], [3, 8, 8, 1]], [[8]], [[2, 2], [60]]]


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_equal_to_transformers(name, loaded, kept):

    def ask():
        out = []
        with hf_models.exact(name) as hf:
            for prompt, some in zip(PROMPTS, CONTINUATIONS, strict=True):
                for continuation in some:
                    logits = hf(torch.tensor([prompt + continuation])).logits[0, len(prompt) - 1 : -1]
                    out.append(torch.log_softmax(logits, -1)[range(len(continuation)), continuation].numpy())
        return out

    found = [row for rows in loaded(name).logprobs(PROMPTS, CONTINUATIONS) for row in rows]
    for row, expected in zip(found, kept(ask), strict=True):
        assert row.dtype == np.float64
        np.testing.assert_allclose(row, expected, rtol=1e-11, atol=1e-11)


def test_one_prompt_or_several_alone_or_in_batches(monkeypatch):
    model = tiny("float32")[0]
    prompts, some = ["once", "upon a"], [[" a time", "x"], " b"]
    (first, second), third = model.logprobs(prompts, some)
    alone = [model.logprobs(prompts[0], some[0][0]), model.logprobs(prompts[0], ["x"])[0], model.logprobs(prompts[1], " b")]
    for a, b in zip([first, second, third], alone, strict=True):
        assert a.shape and a.tobytes() == b.tobytes()
    batches = []
    monkeypatch.setattr(logprobs, "spans", lambda costs: batches.append(list(cost.spans(costs, 0))) or batches[-1])
    again = model.logprobs(prompts, some)
    assert [len(b) for b in batches] == [3] and again[1].tobytes() == third.tobytes()
    tokens = [model.logprobs(model.tokens(p), ids(c)) for p, c in (("once", " a time"), ("upon a", " b"))]
    assert tokens[0].tobytes() == first.tobytes() and tokens[1].tobytes() == third.tobytes()


def test_a_view_steers_prompt_and_continuation_apart():
    model = tiny()[0]
    prompt, continuation = model.tokens("once"), model.tokens("upon a time")[1:]
    v = vector(model, scale=3, layer=1)
    for positions in (None, "prompt", "generated"):
        view = model.steered(v, positions=positions)
        n = len(prompt)
        at = {None: None, "prompt": slice(0, n), "generated": slice(n, None)}[positions]
        logits = model.steered(v, positions=at)(np.concatenate([prompt, continuation]))[n - 1 : -1]
        expected = scipy.special.log_softmax(logits, axis=1)[range(len(continuation)), continuation]
        np.testing.assert_allclose(view.logprobs(prompt, continuation), expected, rtol=1e-10)


def test_a_chat_goes_on_as_its_rendered_text():
    model = ps.load("demo")
    template = "Q: {{ messages[0].content }}\nA:"
    model.tokenizer.templates["default"] = template
    try:
        found = model.logprobs([{"role": "user", "content": "3*4"}], " It is 12.")
    finally:
        del model.tokenizer.templates["default"]
    assert found.tobytes() == model.logprobs("Q: 3*4\nA:", " It is 12.").tobytes()


@pytest.mark.parametrize(
    "prompt, continuations, message",
    [
        ("once", "", "continuation is empty"),
        ("once", [[1], []], "continuation is empty"),
        ([1, 2], "a", "its continuation 'a' must be token ids"),
        (["once", "upon"], ["a"], "one item for each of the 2 prompts"),
        (["once", "upon"], "ab", "one item for each of the 2 prompts"),
        ("once", [[10**6]], "no token id 1000000"),
        ("once", [[1] * 10_000], "a continuation of 10000 do not fit the context of"),
        ("once", 3, "cannot read"),
    ],
)
def test_bad_continuations_are_refused(prompt, continuations, message):
    with pytest.raises(ps.InvalidInput, match=message):
        tiny()[0].logprobs(prompt, continuations)


@pytest.mark.parametrize("more", ["", " 3*4"])  # tokens follow those of the prompt, or do not
def test_a_text_that_the_tokenizer_joins_with_the_prompt_is_refused(more):
    model = ps.load("demo")
    words = [word for word in model.to_str_tokens(list(range(5, model.n_vocab))) if len(word) > 1]
    word = next(w for w in words if len(model.tokens(w)) == len(model.tokens(w[:1])))
    assert (len(model.tokens(word + more)) > len(model.tokens(word[:1]))) == bool(more)
    with pytest.raises(ps.InvalidInput, match="joins it with the prompt's end"):
        model.logprobs(word[:1], word[1:] + more)
