"""The logit lens: what the model would say next if it ended at an earlier layer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from .._util.checks import check_count
from ..errors import InvalidInput
from ..inputs.positions import Positions, prompt_positions
from ..inputs.prompts import Prompt, Prompts
from ..inputs.sites import Site, SiteLike
from ..model.model import Model
from .distributions import Array, log_softmax

__all__ = ["LensToken", "LogitLens", "logit_lens"]

_SHOWN, _WIDTH = 5, 14  # tokens in a row of the table, characters of each


class LensToken(NamedTuple):
    """A token and its probability at a site.

    Examples
    --------
    >>> import powersteer as ps
    >>> lens = ps.evaluate.logit_lens(ps.load("demo"), "Q: 3*4\\nA:")
    >>> lens.top(1)[-1][0][0].text
    ' It'
    """

    id: int
    text: str
    """"" if the model has no tokenizer."""
    probability: float


@dataclass(frozen=True, eq=False, repr=False)
class LogitLens:
    """Logits at sites of a prompt, made by `logit_lens`. Its repr is a table of the likeliest tokens at the last position.

    Attributes
    ----------
    sites : list of Site
    positions : (n_positions,) int32
        Positions in the prompt.
    logits : (n_sites, n_positions, n_vocab)

    Examples
    --------
    >>> import powersteer as ps
    >>> lens = ps.evaluate.logit_lens(ps.load("demo"), "Q: 3*4\\nA:", sites=[(1, "resid_mid"), (4, "resid_post")])
    >>> lens.logits.shape
    (2, 1, 255)
    """

    sites: list[Site]
    positions: NDArray[np.int32]
    logits: Array
    _model: Model

    def top(self, k: int = 5) -> list[list[list[LensToken]]]:
        """The k likeliest tokens, the likeliest first, of every site and position: `lens.top()[site][position]`.

        Raises
        ------
        InvalidInput
            For k above the size of the vocabulary.

        Examples
        --------
        >>> import powersteer as ps
        >>> lens = ps.evaluate.logit_lens(ps.load("demo"), "Q: 3*4\\nA:")
        >>> [token.text for token in lens.top(2)[-1][0]]
        [' It', ' Steps:']
        """
        k = check_count(k, "top: k", self._model.n_vocab, "the vocabulary has no more")
        return [[self._likeliest(row, k) for row in site] for site in self.logits]

    def _likeliest(self, logits: Array, k: int) -> list[LensToken]:
        best = np.argsort(-logits, kind="stable")[:k]
        texts = self._model.to_str_tokens(best.tolist()) if self._model.tokenizer else [""] * k
        return list(map(LensToken, best.tolist(), texts, np.exp(log_softmax(logits)[best]).tolist()))

    def __repr__(self) -> str:
        k, wide = min(_SHOWN, self._model.n_vocab), max(len(str(site)) for site in self.sites)
        lines = [f"logit lens at position {self.positions[-1]}, probabilities in percent"]
        for site, logits in zip(self.sites, self.logits, strict=True):
            tokens = self._likeliest(logits[-1], k)
            cells = [f"{repr(t.text) if t.text else t.id!s:.{_WIDTH - 4}} {100 * t.probability:.0f}" for t in tokens]
            lines.append(f"{site!s:{wide}}  " + " ".join(f"{cell:{_WIDTH}}" for cell in cells).rstrip())
        return "\n".join(lines)


@overload
def logit_lens(  # type: ignore[overload-overlap]
    model: Model, prompt: Prompt, sites: SiteLike | Iterable[SiteLike] | None = None, *, positions: Positions = -1
) -> LogitLens: ...
@overload
def logit_lens(
    model: Model, prompt: Sequence[Prompt], sites: SiteLike | Iterable[SiteLike] | None = None, *, positions: Positions = -1
) -> list[LogitLens]: ...
def logit_lens(
    model: Model, prompt: Prompts, sites: SiteLike | Iterable[SiteLike] | None = None, *, positions: Positions = -1
) -> Any:
    """Logits that the model's final norm and unembedding make of an activation.

    At the last layer's `resid_post` they are the model's logits, bit for bit. A scale or soft-cap of the logits is applied.

    Parameters
    ----------
    model : Model
        The model, or a steered view of it, whose activations include the steering.
    prompt : prompt or list of prompts
    sites
        Sites such as "blocks.3.hook_resid_mid" or (5, "resid_post"), one or several; None: `resid_post` of every layer.
    positions
        Positions of the prompt, in the forms of `Model.steered`; by default the last.

    Returns
    -------
    LogitLens, or a list of them.

    Raises
    ------
    InvalidInput
        For a site that the model does not have, no sites, an activation of another width than the residual stream's
        (queries, patterns, ...), and positions that are not in the prompt.

    References
    ----------
    nostalgebraist, "interpreting GPT: the logit lens", 2020.

    Examples
    --------
    >>> import powersteer as ps
    >>> model = ps.load("demo")
    >>> lens = ps.evaluate.logit_lens(model, "Q: 3*4\\nA:")
    >>> len(lens.sites) == model.n_layers, (lens.logits[-1] == model("Q: 3*4\\nA:")[-1]).all()
    (True, np.True_)
    """
    wanted = [Site(layer, "resid_post") for layer in range(model.n_layers)] if sites is None else model._sites(sites)
    if not wanted:
        raise InvalidInput("logit_lens: sites is empty; name at least one, or None for resid_post of every layer")
    _, tokens, is_batch = model._read(prompt)
    rows = [prompt_positions(positions, len(t)) for t in tokens]
    _, acts = model._forward(tokens, wanted, "none")
    lenses = []
    for at, one in zip(rows, acts, strict=True):
        with model._loaded.computing():
            logits = model._loaded.core.lm_head(np.concatenate([x[at] for x in one]))
        lenses.append(LogitLens(wanted, at, logits.reshape(len(wanted), len(at), -1), model))
    return lenses if is_batch else lenses[0]
