"""Doctests of powersteer/: `ps`, `np` and the built-in model are there, files go to a temporary folder."""

from __future__ import annotations

import doctest
import importlib.util

import numpy as np
import pytest

import powersteer as ps

NEEDS = {"powersteer/harness": "lm_eval", "powersteer/notebook/widget.py": "anywidget"}  # extras that these import
collect_ignore = [path for path, module in NEEDS.items() if not importlib.util.find_spec(module)]


@pytest.fixture(scope="session")
def _demo():
    return ps.load("demo")


@pytest.fixture(autouse=True)
def _examples(request, doctest_namespace):
    """For examples alone: a test asks for what it needs."""
    if isinstance(request.node, pytest.DoctestItem):
        doctest_namespace.update(ps=ps, np=np, model=request.getfixturevalue("_demo"))
        request.getfixturevalue("monkeypatch").chdir(request.getfixturevalue("tmp_path"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """An example that needs an extra which is not installed is skipped."""
    try:
        return (yield)
    except doctest.UnexpectedException as error:
        if isinstance(error.exc_info[1], ps.MissingDependency):
            pytest.skip(str(error.exc_info[1]))
        raise
