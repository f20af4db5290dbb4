"""Log-probabilities of given continuations, in batches under a memory budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import scipy.special
from numpy.typing import NDArray

from ..errors import InvalidInput, shown
from ..inputs.prompts import EncodedPrompt, Ids, is_text, token_ids
from .cost import forward_costs, spans
from .loaded import LoadedModel

__all__ = ["Continuation", "Forward", "continuation_ids", "token_logprobs"]

Array = NDArray[Any]
Continuation = str | Sequence[int] | NDArray[np.integer[Any]]
Forward = Callable[[list[Ids], Sequence[int], Sequence[int]], Sequence[Array]]  # tokens, rows and prompt_lengths -> logits


def continuation_ids(model: LoadedModel, prompt: EncodedPrompt, continuation: Continuation) -> Ids:
    """Token ids (n,), n >= 1, of a continuation of a prompt. Those of a text are the tokens of both together behind the
    prompt's. Raises InvalidInput for an empty one, and for a text that cannot follow the prompt's tokens."""
    if not len(continuation):
        raise InvalidInput("a continuation is empty; it needs at least one token")
    if not isinstance(continuation, str):
        ids = token_ids(continuation, model.n_vocab)
    elif not is_text(prompt.given):
        raise InvalidInput(f"the prompt is token ids, so that its continuation {shown(continuation)} must be token ids, too")
    else:
        tokenizer = model._need_tokenizer("read a continuation of text")
        text = prompt.given if isinstance(prompt.given, str) else tokenizer.render(prompt.given)  # type: ignore[arg-type]
        both, n = tokenizer.encode(text + continuation), len(prompt.ids)
        if len(both) <= n or not np.array_equal(both[:n], prompt.ids):
            raise InvalidInput(
                f"the continuation {shown(continuation)} does not begin with a token of its own: the tokenizer joins it with "
                "the prompt's end; move the prompt's last space or word to the continuation, or give token ids"
            )
        ids = both[n:]
    if len(prompt.ids) + len(ids) - 1 > model.n_ctx:
        raise InvalidInput(
            f"a prompt of {len(prompt.ids)} tokens and a continuation of {len(ids)} do not fit the context of {model._context}"
        )
    return ids


def token_logprobs(
    model: LoadedModel, forward: Forward, prompts: Sequence[Ids], continuations: Sequence[Ids]
) -> Iterator[tuple[Array, Array]]:
    """Of each prompt with its continuation: log-probabilities (n,) of the continuation's tokens, in nats and float64, and the
    likeliest token (n,) in the place of each. Pairs that begin alike should follow each other: they share that work."""
    full = [np.concatenate([p, c[:-1]]).astype(np.int32, copy=False) for p, c in zip(prompts, continuations, strict=True)]
    lengths, counts = [len(p) for p in prompts], [len(c) for c in continuations]
    for part in spans(forward_costs(model, list(map(len, full)), counts)):
        for logits, tokens in zip(forward(full[part], counts[part], lengths[part]), continuations[part], strict=True):
            own = np.take_along_axis(logits, tokens[:, None], axis=1)[:, 0].astype(np.float64)
            yield own - scipy.special.logsumexp(logits.astype(np.float64), axis=1), logits.argmax(axis=1)
