"""Methods of a steering vector that run a model. Their code belongs to `powersteer.evaluate`, which is built on this folder
and provides it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from ..inputs.positions import Positions
from ..inputs.prompts import Prompts

__all__ = ["WithModel", "provide"]

V = TypeVar("V", bound="WithModel")
_PROVIDED: dict[str, Callable[..., Any]] = {}


def provide(**functions: Callable[..., Any]) -> None:
    """The functions that the methods call: calibrate(model, prompts, vector, ...) and top_tokens(model, vector, prompts, ...)."""
    _PROVIDED.update(functions)


class WithModel:
    """`calibrated` and `top_tokens` of `SteeringVector`."""

    if TYPE_CHECKING:
        scale: float

    def calibrated(
        self: V, model: Any, prompts: Prompts, *, kl: float = 1.0, positions: Positions = None, continuation: int = 0
    ) -> V:
        """This vector, with its present sign, at the scale at which its mean KL divergence reaches a budget, to 1%.

        Parameters
        ----------
        model, prompts, kl, positions, continuation
            As for `evaluate.calibrate`, which takes many vectors at once.

        Returns
        -------
        SteeringVector
            Its `calibration` says what was reached, where, and in how many passes.

        Raises
        ------
        InvalidInput
            As `evaluate.calibrate`: if no scale reaches the budget, and for an argument outside its domain.

        Examples
        --------
        >>> import powersteer as ps
        >>> model, prompt = ps.load("demo"), "Q: 3*4\\nA:"
        >>> vec = ps.random_vectors(model, 2)[0].calibrated(model, prompt, kl=0.2)
        >>> round(float(ps.evaluate.kl(model, prompt, vec)), 2), vec.calibration.budget
        (0.2, 0.2)
        """
        result: V = _PROVIDED["calibrate"](model, prompts, self, kl=kl, positions=positions, continuation=continuation)
        return result

    def top_tokens(self, model: Any, prompts: Prompts | None = None, *, k: int = 10, positions: Positions = None) -> list[Any]:
        """The tokens whose logits this vector raises the most.

        Parameters
        ----------
        model, prompts, k, positions
            As for `evaluate.top_tokens`: without prompts by the unembedding alone, with prompts by the exact derivative.

        Returns
        -------
        list of evaluate.TokenChange
            The greatest change first.

        Raises
        ------
        InvalidInput
            As `evaluate.top_tokens`.

        Examples
        --------
        >>> import powersteer as ps
        >>> model = ps.load("demo")
        >>> len(ps.random_vectors(model, 2)[0].top_tokens(model, "Q: 3*4\\nA:", k=3))
        3
        """
        result: list[Any] = _PROVIDED["top_tokens"](model, self, prompts, k=k, positions=positions)
        return result
