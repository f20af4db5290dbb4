"""The changelog's rule: the newest section says every public name that the last release lacked, and no name of that release
is gone without a warning."""

from __future__ import annotations

import re
import warnings
from functools import reduce
from pathlib import Path

import powersteer as ps

ROOT = Path(__file__).parents[1]
SECTIONS = re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text("utf-8"), flags=re.M)[1:]
HEADER, *RELEASED = (ROOT / "tests/released_names.txt").read_text("utf-8").splitlines()
SPACES = {"": ps, "evaluate.": ps.evaluate, "plots.": ps.plots, "testing.": ps.testing, "errors.": ps.errors}


def numbers(version):
    return tuple(map(int, version.split(".")))


def test_sections_are_the_releases_newest_first():
    titles = [section.partition("\n")[0] for section in SECTIONS]
    versions = titles[titles[0] == "Unreleased" :]
    assert versions[0] == ps.__version__ and sorted(set(versions), key=numbers, reverse=True) == versions
    assert f"names of {ps.__version__}," in HEADER, "tests/released_names.txt is of another release"


def test_every_new_public_name_is_in_the_newest_section():
    bare = {name.rpartition(".")[2] for name in RELEASED}
    new = {name for space in SPACES.values() for name in space.__all__ if name not in bare}
    missing = {name for name in new if not re.search(rf"`[^`]*\b{name}\b[^`]*`", SECTIONS[0])}
    assert not missing, f"CHANGELOG.md does not mention {sorted(missing)}"


def test_every_name_of_the_last_release_is_still_there():
    """Perhaps with a DeprecationWarning; one that is to go has warned for a release, and then left the list."""
    for name in RELEASED:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            reduce(getattr, name.split("."), ps)
