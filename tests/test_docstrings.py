"""Every public name has an example that doctest runs. Those that lack one yet are listed in without_examples.txt: write it
with `python tests/test_docstrings.py > tests/without_examples.txt`, and never add to it."""

from __future__ import annotations

import doctest
import inspect
import re
import sys
import typing
from pathlib import Path

import pytest

import powersteer as ps

WITHOUT = Path(__file__).with_name("without_examples.txt")
MODULES = {"": ps, "errors.": ps.errors, "evaluate.": ps.evaluate, "plots.": ps.plots, "testing.": ps.testing}


def is_ours(thing):
    return getattr(thing, "__module__", "").startswith("powersteer")


def functions(kind):
    """(name, function) of the public methods of a class that are ours, inherited ones included."""
    for name in dir(kind):
        value = inspect.getattr_static(kind, name)
        function = inspect.unwrap(getattr(value, "__func__", value))
        if not name.startswith("_") and inspect.isfunction(function) and is_ours(function):
            yield name, function


def public():
    """{name below powersteer: function or class}, a thing with several names once."""
    things = {prefix + name: getattr(module, name) for prefix, module in MODULES.items() for name in module.__all__}
    found = {name: thing for name, thing in things.items() if callable(thing) and is_ours(thing)}
    kinds = [(name, thing) for name, thing in found.items() if inspect.isclass(thing)]
    for name, kind in sorted(kinds, key=lambda item: len(item[1].__mro__)):  # a base before what inherits from it
        found |= {f"{name}.{method}": function for method, function in functions(kind)}
    return {name: thing for i, (name, thing) in enumerate(found.items()) if thing not in list(found.values())[:i]}


PUBLIC = public()


def has_examples(thing):
    text = inspect.getdoc(thing) or ""
    tests = doctest.DocTestFinder(recurse=False).find(thing, name="it")
    return bool(re.search(r"^Examples\n-{8}$", text, re.M)) and any(test.examples for test in tests)


def without_examples():
    return sorted(name for name, thing in PUBLIC.items() if not has_examples(thing))


def test_every_public_name_has_examples():
    listed, lacking = WITHOUT.read_text().split(), without_examples()
    assert sorted(set(lacking) - set(listed)) == [], "these lack examples"
    assert sorted(set(listed) - set(lacking)) == [], "take these off the list: they have examples, or are gone"


def classes(hint):
    """Classes of ours in a type, at any depth."""
    if inspect.isclass(hint) and is_ours(hint):
        yield hint
    for part in typing.get_args(hint):
        yield from classes(part)


def returned(thing):
    """Annotations of what a function, or a property of a class, returns."""
    if inspect.isclass(thing):
        return [v.fget.__annotations__.get("return", "") for v in vars(thing).values() if isinstance(v, property)]
    return [inspect.unwrap(thing).__annotations__.get("return", "")]


@pytest.mark.parametrize("name", PUBLIC)
def test_what_it_returns_can_be_imported(name):
    known = [vars(module)[public] for module in (ps, ps.evaluate, ps.testing) for public in module.__all__]
    space = vars(sys.modules[PUBLIC[name].__module__])
    words = re.findall(r"\w+", " ".join(map(str, returned(PUBLIC[name]))))
    found = [kind for word in words for kind in classes(space.get(word)) if not kind.__module__.startswith("powersteer.loading")]
    assert [kind for kind in found if kind not in known] == []


if __name__ == "__main__":
    print("\n".join(without_examples()))
