"""Sites: every way to write one, and their order."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from powersteer.errors import InvalidInput
from powersteer.inputs.sites import SITES, Site, parse_site, precedes, resolve_site


def test_numbers_are_those_of_the_core():
    assert [Site(0, name).index for name in SITES] == list(range(6))
    assert SITES == ("resid_pre", "attn_out", "resid_mid", "down_proj", "mlp_out", "resid_post")


@pytest.mark.parametrize(("written", "name"), [
    ("blocks.3.hook_resid_pre", "resid_pre"), ("blocks.3.hook_in", "resid_pre"),
    ("blocks.3.hook_attn_out", "attn_out"), ("blocks.3.attn.hook_out", "attn_out"),
    ("blocks.3.hook_resid_mid", "resid_mid"), ("blocks.3.down_proj", "down_proj"),
    ("blocks.3.hook_mlp_out", "mlp_out"), ("blocks.3.mlp.hook_out", "mlp_out"), ("blocks.3.mlp_out", "mlp_out"),
    ("blocks.3.hook_resid_post", "resid_post"), ("blocks.3.hook_out", "resid_post"),
    ((3, "mlp_out"), "mlp_out"), ([3, "hook_mlp_out"], "mlp_out"), ((np.int64(3), "resid_pre"), "resid_pre"),
    (Site(3, "resid_mid"), "resid_mid"),
])  # fmt: skip
def test_ways_to_write_a_site(written, name):
    site = parse_site(written, n_layers=4)
    assert site == (3, name) and isinstance(site, Site) and type(site.layer) is int
    assert parse_site(str(site)) == site


@pytest.mark.parametrize("name", SITES)
def test_a_site_is_a_pair_and_a_dictionary_key(name):
    assert {Site(2, name): 1}[2, name] == 1
    assert str(Site(2, name)) == f"blocks.2.{'' if name == 'down_proj' else 'hook_'}{name}"


@pytest.mark.parametrize(("written", "words"), [
    ("blocks.3.hook_mlpout", "did you mean 'mlp_out'"), ((3, "mlp"), "did you mean 'mlp_out'.*resid_pre, attn_out"),
    ((3, "yyy"), "no site 'yyy': sites are"), ("hook_mlp_out", "cannot read the site"),
    ("blocks.x.hook_out", "cannot read"),
    ("blocks.3", "cannot read"), ("", "cannot read"), (3, "cannot read"), (None, "cannot read"), ((3,), "cannot read"),
    ((3, 4), "cannot read"), (("3", "mlp_out"), "not an integer"), ((3.0, "mlp_out"), "not an integer"),
    ((True, "mlp_out"), "not an integer"), ("blocks.4.hook_out", "no layer 4.*0 to 3"),
    ((-1, "mlp_out"), "no layer -1.*0 to 3"), ("blocks.-1.hook_out", "no layer -1"),
    ("blocks.99999999999.hook_out", "cannot read"), ("blocks.3.hook_out\n", "cannot read"),
])  # fmt: skip
def test_what_is_no_site_is_refused(written, words):
    with pytest.raises(InvalidInput, match=words):
        parse_site(written, n_layers=4)


def test_models_without_a_site():
    with pytest.raises(InvalidInput, match="no resid_mid.*parallel"):
        parse_site("blocks.0.hook_resid_mid", parallel=True)
    assert parse_site((0, "attn_out"), parallel=True) == (0, "attn_out")
    with pytest.raises(InvalidInput, match="before this model's post-norm"):
        parse_site("blocks.0.attn.hook_out", post_norms=True)
    assert parse_site("blocks.0.mlp.hook_out", post_norms=True) == (0, "down_proj")
    assert parse_site("blocks.0.hook_mlp_out", post_norms=True) == (0, "mlp_out")


def test_resolve_site():
    assert resolve_site(3) == (3, "mlp_out")
    assert resolve_site(np.int32(3), default="resid_post") == (3, "resid_post")
    assert resolve_site(3, "hook_attn_out") == (3, "attn_out")
    assert resolve_site("blocks.3.hook_resid_pre") == (3, "resid_pre")
    assert resolve_site((3, "resid_pre"), "resid_pre") == (3, "resid_pre")
    with pytest.raises(InvalidInput, match="disagree"):
        resolve_site("blocks.3.hook_resid_pre", "mlp_out")
    with pytest.raises(InvalidInput, match="no layer 5: .*0 to 4"):
        resolve_site(5, "mlp_out", n_layers=5)
    for wrong in (2.0, None, True, [1]):
        with pytest.raises(InvalidInput, match="not an integer"):
            resolve_site(wrong)


def test_precedes_is_a_strict_order():
    every = [Site(layer, name) for layer in range(3) for name in SITES]
    for parallel in (False, True):
        here = [site for site in every if not (parallel and site.name == "resid_mid")]
        for a, b, c in itertools.product(here, repeat=3):
            assert not (precedes(a, b, parallel) and precedes(b, a, parallel))
            if precedes(a, b, parallel) and precedes(b, c, parallel):
                assert precedes(a, c, parallel)
        for a, b in itertools.combinations(here, 2):
            beside = parallel and a.layer == b.layer and a.name == "attn_out" and b.name in ("down_proj", "mlp_out")
            assert precedes(a, b, parallel) != beside
        assert not any(precedes(site, site, parallel) for site in here)
