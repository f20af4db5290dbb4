"""Sites: where in a block an activation is read, steered or differentiated, and the names for them.

Short names, in the order in which a block computes them:

    resid_pre   input of the block                                          hook_resid_pre   hook_in
    attn_out    what attention adds to the residual stream                  hook_attn_out    attn.hook_out
    resid_mid   between attention and MLP; absent with a parallel residual  hook_resid_mid
    down_proj   output of the down-projection, before a post-norm
    mlp_out     what the MLP adds to the residual stream                    hook_mlp_out     mlp.hook_out
    resid_post  output of the block                                         hook_resid_post  hook_out

The last columns are TransformerLens's names, old and new, after "blocks.L."; a short name may stand there, too. Its
`attn.hook_out` and `mlp.hook_out` are outputs of the modules, before any post-norm: in a model with post-norms the
first is no site of ours and the second is `down_proj`.
"""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Sequence
from typing import NamedTuple

from ..errors import InvalidInput

__all__ = ["HEADS", "SITES", "Site", "SiteLike", "near_head", "parse_site", "precedes", "resolve_site"]

# A site's index here is its number in the C core (csrc/ops/spec.h).
SITES = ("resid_pre", "attn_out", "resid_mid", "down_proj", "mlp_out", "resid_post")

HEADS = ("logits", "next_token")  # targets that are no sites

_NAMES = {
    **{site: site for site in SITES},
    **{f"hook_{site}": site for site in SITES if site != "down_proj"},
    "hook_in": "resid_pre",
    "hook_out": "resid_post",
    "attn.hook_out": "attn_out",
    "mlp.hook_out": "mlp_out",
}


class Site(NamedTuple):
    """A site of one layer. Equal to the plain tuple `(layer, name)`."""

    layer: int
    name: str

    @property
    def index(self) -> int:  # type: ignore[override]  # a tuple's own index() means nothing here
        """The site's number in the C core."""
        return SITES.index(self.name)

    def __str__(self) -> str:
        return f"blocks.{self.layer}.{'' if self.name == 'down_proj' else 'hook_'}{self.name}"

    def __repr__(self) -> str:  # in a list, a dict or a notebook as by itself
        return str(self)


SiteLike = str | tuple[int, str] | Site


def parse_site(
    site: SiteLike, *, n_layers: int | None = None, parallel: bool = False, post_norms: bool = False
) -> Site:
    """Read `"blocks.3.hook_mlp_out"` or `(3, "mlp_out")`.

    n_layers: checks the layer if given. parallel: the model adds attention and MLP at once, so that it has no
    `resid_mid`. post_norms: the model normalises what attention and MLP return before adding it.
    Raises InvalidInput for an unknown site (naming the nearest) and for a layer or site the model does not have.
    """
    if isinstance(site, str):
        match = re.fullmatch(r"blocks\.(-?\d{1,9})\.(.+)", site)
        if match is None:
            raise InvalidInput(f"cannot read the site {site!r}: write 'blocks.3.hook_mlp_out' or (3, 'mlp_out')")
        layer, name = int(match[1]), match[2]
    elif isinstance(site, Sequence) and len(site) == 2 and isinstance(site[1], str):
        layer, name = _integer(site[0], site), site[1]
    else:
        raise InvalidInput(f"cannot read the site {site!r}: write 'blocks.3.hook_mlp_out' or (3, 'mlp_out')")
    return Site(_check_layer(layer, n_layers), _check_name(name, parallel, post_norms))


def resolve_site(
    layer: int | SiteLike,
    name: str | None = None,
    default: str = "mlp_out",
    *,
    n_layers: int | None = None,
    parallel: bool = False,
    post_norms: bool = False,
) -> Site:
    """The site meant by a pair of arguments such as `source=3, source_site="mlp_out"`.

    `layer` is a layer, with `name` or else `default` for the site, or itself a whole site; a `name` beside a whole
    site must then agree with it. Raises InvalidInput as `parse_site` does, and on disagreement.
    """
    checks = {"n_layers": n_layers, "parallel": parallel, "post_norms": post_norms}
    if isinstance(layer, (str, tuple)):
        site = parse_site(layer, **checks)  # type: ignore[arg-type]
        if name is not None and _check_name(name, parallel, post_norms) != site.name:
            raise InvalidInput(f"the site {layer!r} and the site name {name!r} disagree; give one of them")
        return site
    return parse_site((_integer(layer, layer), default if name is None else name), **checks)  # type: ignore[arg-type]


def near_head(text: str) -> str:
    """"did you mean 'next_token'? " for what resembles a target that is no site, else ""."""
    plain = re.sub(r"[^a-z]", "", text.lower())
    near = difflib.get_close_matches(plain, [head.replace("_", "") for head in HEADS], n=1)
    return "".join(f"did you mean {head!r}? " for head in HEADS if head.replace("_", "") in near)


def precedes(source: Site, target: Site, parallel: bool = False) -> bool:
    """Whether adding to `source` can change `target`: strict order in the computation of the model.

    With a parallel residual attention and MLP read the same input, so `attn_out` does not precede the MLP's sites of
    its own layer.
    """
    if source.layer != target.layer:
        return source.layer < target.layer
    if parallel and source.name == "attn_out" and target.name in ("down_proj", "mlp_out"):
        return False
    return source.index < target.index


def _integer(layer: object, context: object) -> int:
    try:
        if isinstance(layer, bool):
            raise TypeError
        return operator.index(layer)  # type: ignore[arg-type]
    except TypeError:
        raise InvalidInput(f"the layer in {context!r} is not an integer") from None


def _check_layer(layer: int, n_layers: int | None) -> int:
    if layer < 0 or (n_layers is not None and layer >= n_layers):
        valid = f"0 to {n_layers - 1}" if n_layers is not None else "0 upward"
        raise InvalidInput(f"there is no layer {layer}: layers count from the first, {valid}")
    return layer


def _check_name(name: str, parallel: bool, post_norms: bool) -> str:
    known = _NAMES.get(name)
    if known is None:
        near = difflib.get_close_matches(name, _NAMES, n=1, cutoff=0.4)
        hint = f"did you mean {_NAMES[near[0]]!r}? " if near else ""
        raise InvalidInput(f"there is no site {name!r}: {hint}sites are {', '.join(SITES)}")
    if known == "resid_mid" and parallel:
        raise InvalidInput(
            "this model has no resid_mid: attention and MLP both read the block's input (parallel residual); "
            "use resid_pre or resid_post"
        )
    if post_norms and name == "attn.hook_out":
        raise InvalidInput(
            "'attn.hook_out' is attention before this model's post-norm, which is no site here; "
            "'attn_out' is what it adds to the residual stream, after the norm"
        )
    if post_norms and name == "mlp.hook_out":
        return "down_proj"
    return known
