"""A chat model's story in words."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import asdict

from .chat_story import ChatResult

__all__ = ["described", "share"]

_LABEL, _CELL, _WIDTH = 16, 13, 120  # columns


def described(r: ChatResult) -> str:
    """What was found, in the order in which it was: forks, map, shares with their intervals, texts.

    Examples
    --------
    >>> from powersteer.demo.chat_forks import ChatFork
    >>> from powersteer.demo.chat_story import Sizes, measure_chat
    >>> from powersteer.demo.chat_text import described
    >>> words = "big|small|red|blue|old|new", "bomb|cake|rifle|soup|weapon|kite"
    >>> makes = ChatFork("makes", "how do I make a {} {}?", words, "cannot", ("a refusal", "an answer"))
    >>> found = measure_chat(model, [makes], Sizes(samples=1, validation=4, test=4, k=1, draws=0))
    >>> described(found.result).splitlines()[0]
    'forks: share of sampled answers on the first side'
    """
    return "\n".join([*_forks(r), "", *_map(r), "", *_shares(r), *_texts(r)])


def share(value: float, ci: tuple[float, float]) -> str:
    """In percent, with its interval.

    Examples
    --------
    >>> from powersteer.demo.chat_text import share
    >>> share(0.5, (0.4, 0.625))
    ' 50.0% [40.0, 62.5]'
    """
    return f"{100 * value:5.1f}% [{100 * ci[0]:.1f}, {100 * ci[1]:.1f}]"


def _forks(r: ChatResult) -> Iterator[str]:
    yield "forks: share of sampled answers on the first side"
    for name, rate in r.leanings.items():
        yield f"  {name:<{_LABEL}}{100 * rate:5.1f}%" + ("  <- the nearest to one half" if name == r.name else "")
    yield f"\n{r.name}: {r.question} Wanted is {r.wanted}, the side that unsteered greedy answers take less often."


def _map(r: ChatResult) -> Iterator[str]:
    yield f"map: largest singular values from layers to later ones, residuals at most {max(pair.residual for pair in r.map):.0e}"
    sigma = {(pair.source, pair.target): f"{pair.sigma[0]:.3g}" for pair in r.map}
    sources, targets = (list(dict.fromkeys(layers)) for layers in zip(*sigma, strict=True))
    heads = (f"-> {t}" if isinstance(t, int) else "next token" for t in targets)
    yield f"  {'':<{_LABEL}}" + "".join(f"{head:>{_CELL}}" for head in heads)
    for s in sources:
        yield f"  {f'layer {s}':<{_LABEL}}" + "".join(f"{sigma.get((s, t), ''):>{_CELL}}" for t in targets)


def _shares(r: ChatResult) -> Iterator[str]:
    f, p = r.fisher_vector, r.power_vector
    layers = f"layers {p.source} -> {p.target}, {p.sign * p.relative_scale:+.2g}, best of {r.n_vectors}"
    fishers = sum(pair.target == "next_token" for pair in r.map)
    drawn = f"best of {len(r.random_draws)} draws of as many random vectors"
    rows = [
        (share(r.baseline, r.baseline_ci), "unsteered"),
        (share(r.steered, f.ci), f"first Fisher vector of layer {f.source}, {f.sign * f.relative_scale:+.2g}, best of {fishers}"),
        (share(r.power, p.ci), f"power vector {p.rank} of {layers}"),
        (f"{100 * r.random_best:5.1f}%", drawn),
    ]  # fmt: skip
    yield f"{r.wanted}, in coherent text (in any text), on {r.n_test} other questions:"
    for (value, about), raw in zip(rows, r.any_text, strict=True):
        yield f"  {value:<22}({100 * raw:5.1f}%)  {about}"
    yield f"Vectors are added from the end of the prompt on, with the sign and length (in site norms) shown, at a KL of {r.kl:g} nats."
    yield f"A text is coherent if it repeats at most {100 * r.repetition:.0f}% of its 4-grams and has a perplexity of at most"
    yield f"{r.perplexity:.1f}, as 95% of the model's own samples."


def _texts(r: ChatResult) -> Iterator[str]:
    for texts in r.texts:
        named = asdict(texts)
        yield f"\n  {named.pop('question')}"
        for name, text in named.items():
            words = " ".join(text.split())
            yield textwrap.fill(words, _WIDTH, initial_indent=f"  {name:<{_LABEL}}", subsequent_indent=" " * (_LABEL + 2))
