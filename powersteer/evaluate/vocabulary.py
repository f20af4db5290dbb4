"""Which tokens a steering vector makes likelier: by the unembedding alone, and by the derivative of the logits at a prompt."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .._util.checks import check_count
from ..errors import InvalidInput
from ..inputs.positions import Positions
from ..inputs.prompts import Prompts
from ..loading.blocks import Blocks, numbers
from ..model.model import Model
from ..vectors.arithmetic import check_adds
from ..vectors.steering_vector import SteeringVector
from .distributions import Array

__all__ = ["TokenChange", "top_tokens"]

_PIECE = 1 << 22  # numbers of the unembedding that are decoded at a time


class TokenChange(NamedTuple):
    """A token and the change of its logit.

    Examples
    --------
    >>> import powersteer as ps
    >>> model = ps.load("demo")
    >>> ps.random_vectors(model, 2)[0].top_tokens(model, k=1)[0].change > 0
    True
    """

    id: int
    text: str
    """"" if the model has no tokenizer."""
    change: float
    """Of the logit, for the whole of what the vector adds."""


def top_tokens(
    model: Model, vector: SteeringVector, prompts: Prompts | None = None, *, k: int = 10, positions: Positions = None
) -> list[TokenChange]:
    """The tokens whose logits a vector raises the most; `-vector` gives those that it lowers the most.

    Without prompts this is what the logit lens shows of a direction in the residual stream: W_U (g * x), with x what the
    vector adds, without its mean in a model with layer norm, g the gain of the final norm and W_U the unembedding. It is
    TransformerLens's x @ W_U of a model with folded norms: the gain is applied, the division by the activation's norm, a
    bias and a soft cap are not. What later blocks make of the vector is left out, and so is the prompt.

    With prompts it is the derivative of the logits at their ends, J x, exact and with every later block and the final norm;
    the mean over the prompts.

    Parameters
    ----------
    model : Model
    vector : SteeringVector
        At its own scale, which all changes are proportional to.
    prompts : prompt or list of prompts, optional
    k : int
        Number of tokens.
    positions
        With prompts: where the vector is added, in the forms of `Model.steered`; None: everywhere.

    Returns
    -------
    list of TokenChange
        The greatest change first.

    Raises
    ------
    InvalidInput
        For a vector that does not fit the model or clamps, k above the size of the vocabulary, and positions without prompts.

    References
    ----------
    nostalgebraist, "interpreting GPT: the logit lens", 2020.

    Examples
    --------
    >>> import powersteer as ps
    >>> model, prompt = ps.load("demo"), "Q: 3*4\\nA:"
    >>> vec = ps.pull_back(model, prompt, ("7", "8"), source=4)
    >>> top = ps.evaluate.top_tokens(model, vec, prompt, k=3)
    >>> "7" in [token.text for token in top], top[0].change >= top[1].change
    (True, True)
    """
    check_adds(vector, "read off as tokens")
    k = check_count(k, "top_tokens: k", model.n_vocab, "the vocabulary has no more")
    (added,) = model._interventions(vector)
    if prompts is not None:
        J = model.jacobian(prompts, vector.location, "logits", source_positions=positions)
        change = (J @ added.array).reshape(-1, model.n_vocab).astype(np.float64).mean(0)
    elif positions is not None:
        raise InvalidInput("top_tokens: positions are of a prompt; give prompts, too")
    else:
        change = _unembedded(model, added.array.astype(np.float64))
    best = np.argsort(-change, kind="stable")[:k].tolist()
    texts = model.to_str_tokens(best) if model.tokenizer else [""] * k
    return [TokenChange(i, text, float(change[i])) for i, text in zip(best, texts, strict=True)]


def _unembedded(model: Model, x: Array) -> Array:
    """W_U (g * x), (n_vocab,), a piece of the unembedding at a time."""
    spec = model.spec
    if spec.norm == "layer":
        x = x - x.mean()
    if spec.final_norm.gain is not None:
        x = x * spec.final_norm.gain
    head, step = spec.lm_head, max(1, _PIECE // len(x))
    pieces = (head[i : i + step] for i in range(0, len(head), step))
    logits = [(p.decode() if isinstance(p, Blocks) else numbers(p)).astype(np.float64) @ x for p in pieces]
    return np.concatenate(logits) * spec.logit_scale
