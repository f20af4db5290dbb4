"""Fixtures shared by the tests. Every random number comes from the seed that the header prints, or from hypothesis,
which prints its own reproduction."""

from __future__ import annotations

import os
import signal
import zlib
from functools import cache
from pathlib import Path

import kept as kept_answers
import numpy as np
import oracles
import pytest

from powersteer.errors import MissingDependency

SEED = int(os.environ.get("POWERSTEER_TEST_SEED", "0"))
STORIES = Path(__file__).parents[1].parent / "shared/models/stories260K"

# Modules of the tests hold no examples; some run when they are imported
collect_ignore = [path.name for path in Path(__file__).parent.glob("*.py") if not path.name.startswith("test_")]
if not (Path(__file__).parents[1] / "studies").is_dir():  # a source distribution has the tests, not the studies
    collect_ignore += [path.name for path in Path(__file__).parent.glob("test_studies*.py")]

# A shell starts what runs in the background with SIGINT ignored, and the tests raise it
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header():
    return f"seed: {SEED} (POWERSTEER_TEST_SEED)"


def pytest_sessionstart(session):
    if missing := oracles.missing_packages():
        raise pytest.UsageError(f"POWERSTEER_LIVE: not installed: {', '.join(missing)}")


def pytest_runtest_setup(item):
    oracles.Missing.testing = True
    if hasattr(item, "callspec"):
        oracles.skip_if_missing(item.callspec.params)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """A test that meets a package which is not installed is skipped, but not where all must be."""
    try:
        return (yield)
    except MissingDependency as error:
        if oracles.REQUIRED:
            raise
        pytest.skip(f"live: {error}")


def pytest_sessionfinish(session):
    kept_answers.write()


@pytest.fixture
def rng(request):
    """Random numbers of this test's own: the same whatever runs before it."""
    print(f"seed {SEED}")
    return np.random.default_rng([SEED, zlib.crc32(request.node.nodeid.encode())])


@pytest.fixture
def kept(request):
    """kept(ask): an oracle's answer, asked or kept (kept.py)."""
    return kept_answers.Kept(request.node.nodeid, SEED)


@pytest.fixture(scope="session")
def loaded():
    """loaded(name, dtype, stored): the powersteer model of a case of hf_models, sharing its weights."""
    import hf_models
    import random_checkpoints

    import powersteer as ps

    @cache
    def load(name, dtype="float64", stored="float32"):
        if not oracles.LIVE and stored == "float32":
            return ps.load(random_checkpoints.folder(name), dtype=dtype, threads=2)
        return ps.from_transformers(hf_models.make(name, stored=stored), dtype=dtype, threads=2)

    return load


@pytest.fixture(scope="session")
def stories():
    """The folder of a small trained model (Llama, 260 thousand weights, tokenizer)."""
    if not STORIES.is_dir():
        pytest.skip(f"the trained model is not there: {STORIES}")
    return STORIES
