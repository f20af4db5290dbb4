"""Oracles that the light test command does not install. A test that comes to use one that is missing is skipped, or takes
the answer that was kept (kept.py)."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os

import pytest
from packaging.requirements import Requirement

# Extras whose packages must be there, as in CI: then no test is skipped because one is missing
REQUIRED = os.environ.get("POWERSTEER_LIVE", "").replace(",", " ").split()


class Absent(pytest.skip.Exception):
    """Skips the test that asks an oracle that is not installed."""


class Missing:
    """A module that is not installed, or what it has: it can be named, and at import called; a test that asks it is skipped."""

    testing = False  # whether a test runs

    def __init__(self, name):
        self._name = name

    def __getattr__(self, name):
        if name.startswith("__") and name != "__version__":
            raise AttributeError(name)
        return Missing(f"{self._name}.{name}")

    def __repr__(self):
        return self._name

    def __mro_entries__(self, bases):
        return ()

    def skip(self):
        package = self._name.split(".")[0]
        raise Absent(f"live: {package} is not installed; CONTRIBUTING.md says how", allow_module_level=True)

    def __call__(self, *args, **kwargs):
        return self.skip() if Missing.testing else Missing(f"{self._name}()")

    def _ask(self, *args):
        self.skip()

    __getitem__ = __setitem__ = __iter__ = __enter__ = __len__ = __bool__ = __float__ = __index__ = __array__ = __add__ = __mul__ = _ask


def needs(name):
    """Skips a test that uses a package which is not installed."""
    if not importlib.util.find_spec(name):
        Missing(name).skip()


def skip_if_missing(value):
    """Skips a test if one of its parameters is of a module that is not installed."""
    if isinstance(value, Missing):
        value.skip()
    if isinstance(value, (list, tuple, dict)):
        for one in value.values() if isinstance(value, dict) else value:
            skip_if_missing(one)


def oracle(name):
    """The module of this name, or what stands for it where its package is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if str(error.name).split(".")[0] not in (name.split(".")[0], "torch"):
            raise
        return Missing(name)


def missing_packages():
    """What the extras of POWERSTEER_LIVE ask for and is not installed, or is there in another version."""
    out = []
    for text in importlib.metadata.requires("powersteer") if REQUIRED else ():
        requirement = Requirement(text)
        if not any(requirement.marker and requirement.marker.evaluate({"extra": extra}) for extra in REQUIRED):
            continue
        try:
            fits = requirement.specifier.contains(importlib.metadata.version(requirement.name), prereleases=True)
        except importlib.metadata.PackageNotFoundError:
            fits = False
        if not fits:
            out.append(str(requirement).split(";")[0].strip())
    return out


LIVE = all(importlib.util.find_spec(name) for name in ("torch", "transformers"))
MODULES = {"torch": "torch", "transformers": "transformers", "safetensors_torch": "safetensors.torch"}


def __getattr__(name):
    """`from oracles import torch` and the like, imported when a file of tests does so."""
    if name in MODULES:
        return oracle(MODULES[name])
    raise AttributeError(name)
