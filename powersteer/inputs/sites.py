"""Sites: where in a block an activation is read, steered or differentiated, and the names for them.

Short names, in the order in which a block computes them:

    resid_pre   input of the block                                          hook_resid_pre   hook_in
    attn_out    what attention adds to the residual stream, or the mixer    hook_attn_out    attn.hook_out
                in its place: a short convolution, a delta rule, a state space
    resid_mid   between attention and MLP; absent with a parallel residual  hook_resid_mid
    down_proj   output of the down-projection, before a post-norm
    mlp_out     what the MLP adds to the residual stream                    hook_mlp_out     mlp.hook_out
    resid_post  output of the block                                         hook_resid_post  hook_out

The last columns are TransformerLens's names, old and new, after "blocks.L."; a short name may stand there, too. Its
`attn.hook_out` and `mlp.hook_out` are outputs of the modules, before any post-norm: in a model with post-norms the
first is not available and the second is `down_proj`.

Inside attention and MLP activations can be read, but neither steered nor differentiated. T positions, n_kv heads of keys and values:

    q           (T, n_heads, d_head)  queries before qk-norm and rotation                  attn.hook_q
    k, v        (T, n_kv, d_head)     keys before qk-norm and rotation, values             attn.hook_k  attn.hook_v
    rot_q       (T, n_heads, d_head)  queries as the scores take them: after qk-norm and   attn.hook_rot_q
    rot_k       (T, n_kv, d_head)     rotation, in a layer that has them; keys             attn.hook_rot_k
    pattern     (n_heads, T, T)       attention of each query to each key; rows sum to 1   attn.hook_pattern
    z           (T, n_heads, d_head)  what each head gives to the output projection        attn.hook_z
    pre         (T, d_mlp)            what the activation function takes (a gate's, too)   mlp.hook_pre
    pre_linear  (T, d_mlp)            what multiplies its result in a gated MLP            mlp.hook_pre_linear
    post        (T, d_mlp)            what the down-projection takes                       mlp.hook_post

A layer that sees the keys and values of an earlier one (Gemma 4) has no `k`, `v` and `rot_k` of its own. Where layers have inputs
that are made of token and embedding, the embedding is `resid_pre` of layer 0: what is added there changes those inputs, too, and
Jacobians from there go through them. To every other site they are constants. They enter behind the MLP: `resid_post` is not
`resid_mid + mlp_out` there.

A layer with a mixture of experts has no `pre`, `pre_linear` and `post`, one without attention none of `q` to `z`. A layer that is
a mixer alone has no `resid_mid`, `down_proj` and `mlp_out`, one that is an MLP or a mixture alone no `attn_out` and `resid_mid`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .._util.checks import as_integer
from ..errors import InvalidInput, shown

__all__ = ["ABSENT", "HEADS", "READABLE", "SITES", "Site", "SiteLike", "near_head", "parse_site", "precedes", "resolve_site"]

# A site's index here is its number in the C core (csrc/ops/spec.h), in SITES + READABLE.
SITES = ("resid_pre", "attn_out", "resid_mid", "down_proj", "mlp_out", "resid_post")

# What can be read, but neither steered nor differentiated, with TransformerLens's name
READABLE = {
    **{name: f"attn.hook_{name}" for name in ("q", "k", "v", "rot_q", "rot_k", "pattern", "z")},
    **{name: f"mlp.hook_{name}" for name in ("pre", "pre_linear", "post")},
}

# What a layer may lack: the sites that are then absent
ABSENT = {"mixer": ("attn_out", "resid_mid"), "mlp": ("resid_mid", "down_proj", "mlp_out")}
_LACKS = {
    "mixer": "layer {} is an MLP or a mixture alone: it has no {}, and what it adds to resid_pre is mlp_out",
    "mlp": "layer {} has no MLP: it has no {}, and what it adds to resid_pre is attn_out",
}

HEADS = ("logits", "next_token")  # targets at the LM head, given in place of a site

_NAMES = {
    **{site: site for site in SITES},
    **{f"hook_{site}": site for site in SITES if site != "down_proj"},
    "hook_in": "resid_pre",
    "hook_out": "resid_post",
    "attn.hook_out": "attn_out",
    "mlp.hook_out": "mlp_out",
    **{name: name for name in READABLE},
    **{hook: name for name, hook in READABLE.items()},
}


class Site(NamedTuple):
    """A site of one layer, equal to the plain tuple `(layer, name)`.

    `str` of it is TransformerLens's name where there is one.

    Attributes
    ----------
    layer : int
        0-based layer.
    name : str
        Short name: `resid_pre`, `attn_out`, `resid_mid`, `down_proj`, `mlp_out` or `resid_post`, or of an activation that
        can only be read: `q`, `k`, `v`, `rot_q`, `rot_k`, `pattern`, `z`, `pre`, `pre_linear` or `post`.

    Examples
    --------
    >>> from powersteer.inputs.sites import Site
    >>> Site(3, "mlp_out") == (3, "mlp_out"), str(Site(3, "mlp_out"))
    (True, 'blocks.3.hook_mlp_out')
    """

    layer: int
    name: str

    @property
    def index(self) -> int:  # type: ignore[override]  # replaces tuple.index()
        """The site's number in the C core."""
        return (*SITES, *READABLE).index(self.name)

    def __str__(self) -> str:
        named = READABLE.get(self.name) or ("down_proj" if self.name == "down_proj" else f"hook_{self.name}")
        return f"blocks.{self.layer}.{named}"

    def __repr__(self) -> str:  # the same in a list, a dict and a notebook
        return str(self)


SiteLike = str | tuple[int, str] | Site


def parse_site(
    site: SiteLike,
    *,
    n_layers: int | None = None,
    parallel: bool = False,
    post_norms: bool = False,
    absent: Mapping[int, str] | None = None,
    readable: bool = False,
) -> Site:
    """Read a site in any of its spellings. Raises InvalidInput for one that does not exist in a model with `n_layers` layers
    (None: any number), with a `parallel` residual, with `post_norms` on the outputs of attention and MLP, or with layers that
    lack their "mixer" or "mlp" (`absent`), and unless `readable` for an activation that can only be read.

    Examples
    --------
    >>> from powersteer.inputs.sites import parse_site
    >>> parse_site("blocks.3.mlp.hook_out"), parse_site((3, "resid_post"))
    (blocks.3.hook_mlp_out, blocks.3.hook_resid_post)
    """
    if isinstance(site, str) and (match := re.fullmatch(r"blocks\.(-?\d{1,9})\.(.+)", site)):
        layer, name = int(match[1]), match[2]
    elif isinstance(site, Sequence) and not isinstance(site, str) and len(site) == 2 and isinstance(site[1], str):
        layer, name = _integer(site[0], site), site[1]
    else:
        raise InvalidInput(f"cannot read the site {shown(site)}: write 'blocks.3.hook_mlp_out' or (3, 'mlp_out')")
    if layer < 0 or (n_layers is not None and layer >= n_layers):
        valid = f"0 to {n_layers - 1}" if n_layers is not None else "0 upward"
        raise InvalidInput(f"there is no layer {layer}: layers count from the first, {valid}")
    known = _check_name(name, parallel, post_norms)
    if known in READABLE and not readable:
        raise InvalidInput(
            f"{READABLE[known]!r} can be read by run_with_cache, but neither steered nor differentiated: sites are {', '.join(SITES)}"
        )
    if absent and known in ABSENT.get(lack := absent.get(layer, ""), ()):
        raise InvalidInput(_LACKS[lack].format(layer, known))
    return Site(layer, known)


def resolve_site(layer: int | SiteLike, name: str | None = None, default: str = "mlp_out", **rules: Any) -> Site:
    """The site of a pair of arguments such as `source=3, source_site="mlp_out"`. `layer` may be a whole site. Raises
    InvalidInput as `parse_site`, which `rules` are of, and if `layer` and `name` disagree.

    Examples
    --------
    >>> from powersteer.inputs.sites import resolve_site
    >>> resolve_site(3), resolve_site("blocks.3.hook_resid_mid", "resid_mid")
    (blocks.3.hook_mlp_out, blocks.3.hook_resid_mid)
    """
    if not isinstance(layer, (str, tuple)):
        return parse_site((_integer(layer, layer), default if name is None else name), **rules)
    site = parse_site(layer, **rules)
    if name is not None and parse_site((site.layer, name), **rules) != site:
        raise InvalidInput(f"the site {layer!r} and the site name {name!r} disagree; give one of them")
    return site


def near_head(text: str) -> str:
    """"did you mean 'next_token'? " for a text that resembles a target at the LM head, else ""."""
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
    if (number := as_integer(layer)) is None:
        raise InvalidInput(f"the layer in {context!r} is not an integer")
    return number


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
            "'attn.hook_out' is attention before this model's post-norm, which is not available; "
            "use 'attn_out', which attention adds to the residual stream after the norm"
        )
    return "down_proj" if post_norms and name == "mlp.hook_out" else known
