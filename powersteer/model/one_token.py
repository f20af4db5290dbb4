"""The one token that a text is."""

from __future__ import annotations

from ..errors import InvalidInput
from ..inputs.prompts import token_ids
from .loaded import LoadedModel

__all__ = ["token_id"]


def token_id(model: LoadedModel, token: str | int) -> int:
    """The one token of a text that continues other text.

    Parameters
    ----------
    model
        The model whose tokenizer is used.
    token
        A text as it continues other text (" yes" for a word), or a token id, which is returned after a check.

    Raises
    ------
    InvalidInput
        For a text of several tokens, or an id outside of the vocabulary.

    Examples
    --------
    >>> import powersteer as ps
    >>> model = ps.load("demo")
    >>> model.to_str_tokens([ps.evaluate.token_id(model, "7")])
    ['7']
    """
    if not isinstance(token, str):
        return int(token_ids([token], model.n_vocab)[0])
    tokenizer = model._need_tokenizer(f"find the token {token!r}")
    for before in ("\n", "a"):
        alone, both = tokenizer.encode(before).tolist(), tokenizer.encode(before + token).tolist()
        if len(both) == len(alone) + 1 and both[:-1] == alone:
            if "".join(model.to_str_tokens(both[-1:])).strip() != token.strip():
                raise InvalidInput(f"{token!r} is unknown to the tokenizer of {model.name!r}; give another text, or a token id")
            return int(both[-1])
    raise InvalidInput(f"{token!r} is not one token of {model.name!r}; give its first token's id, or a shorter text")
