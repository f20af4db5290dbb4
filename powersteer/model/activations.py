"""Activations of a prompt, looked up by any spelling of a site."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInput, MissingSite, shown
from ..inputs.sites import Site, SiteLike, parse_site

__all__ = ["ActivationCache", "as_read"]

Array = NDArray[Any]


def as_read(site: Site, array: Array) -> Array:
    """What the core captured at a site for one prompt, as a caller reads it: a pattern (T, n_heads, keys of the longest prompt) as
    (n_heads, T, T)."""
    return np.ascontiguousarray(array[:, :, : len(array)].swapaxes(0, 1)) if site.name == "pattern" else array


class ActivationCache(Mapping[Site, Array]):
    """Activations of one prompt by site, made by `Model.run_with_cache`: arrays (T, d_model), and inside attention and MLP of the
    shapes in `powersteer.inputs.sites`.

    A read-only mapping. A key is any spelling of a site: `"blocks.1.hook_mlp_out"`, `(1, "mlp_out")`,
    `(1, "hook_mlp_out")`, `"blocks.1.attn.hook_pattern"`, `(1, "pattern")`.
    Iteration is over `Site`, a tuple (layer, name), in the order of the request.
    A site that is not there raises MissingSite, which is a KeyError, and names the sites that are.

    Examples
    --------
    >>> import powersteer as ps
    >>> logits, acts = ps.load("demo").run_with_cache("Q: 6*8", sites=[(1, "mlp_out"), (4, "resid_post")])
    >>> acts["blocks.1.hook_mlp_out"].shape == acts[1, "mlp_out"].shape == (6, 160)
    True
    >>> list(acts)
    [blocks.1.hook_mlp_out, blocks.4.hook_resid_post]
    >>> "blocks.3.hook_mlp_out" in acts
    False
    """

    def __init__(self, sites: Sequence[Site], activations: Sequence[Array], rules: Mapping[str, Any]) -> None:
        self._by_site, self._rules = dict(zip(sites, activations, strict=True)), dict(rules)

    def __getitem__(self, site: SiteLike) -> Array:
        try:
            return self._by_site[parse_site(site, readable=True, **self._rules)]
        except InvalidInput as error:
            raise MissingSite(str(error)) from None
        except KeyError:
            there = ", ".join(map(str, self)) or "none"
            raise MissingSite(f"there is no activation of {shown(site)}; sites in this cache: {there}") from None

    def __iter__(self) -> Iterator[Site]:
        return iter(self._by_site)

    def __len__(self) -> int:
        return len(self._by_site)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{site}: {array.shape}" for site, array in list(self.items())[:4])
        return f"ActivationCache({{{shapes}{', ...' if len(self) > 4 else ''}}})"
