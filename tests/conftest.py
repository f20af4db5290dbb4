"""Fixtures shared by the tests. Every random number comes from the seed that the header prints, or from hypothesis,
which prints its own reproduction."""

from __future__ import annotations

import os
import signal
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest

SEED = int(os.environ.get("POWERSTEER_TEST_SEED", "0"))
STORIES = Path(__file__).parents[1].parent / "shared/models/stories260K"

# Modules of the tests hold no examples; some run when they are imported
collect_ignore = [path.name for path in Path(__file__).parent.glob("*.py") if not path.name.startswith("test_")]

# A shell starts what runs in the background with SIGINT ignored, and the tests raise it
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header():
    return f"seed: {SEED} (POWERSTEER_TEST_SEED)"


@pytest.fixture
def rng(request):
    """Random numbers of this test's own: the same whatever runs before it."""
    print(f"seed {SEED}")
    return np.random.default_rng([SEED, zlib.crc32(request.node.nodeid.encode())])


@pytest.fixture(scope="session")
def loaded():
    """loaded(name, dtype, stored): the powersteer model of a case of hf_models, sharing its weights."""
    import hf_models

    import powersteer as ps

    @cache
    def load(name, dtype="float64", stored="float32"):
        return ps.from_transformers(hf_models.make(name, stored=stored), dtype=dtype, threads=2)

    return load


@pytest.fixture(scope="session")
def stories():
    """The folder of a small trained model (Llama, 260 thousand weights, tokenizer)."""
    if not STORIES.is_dir():
        pytest.skip(f"the trained model is not there: {STORIES}")
    return STORIES
