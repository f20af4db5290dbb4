"""Nothing grows; and a leak would be seen. tests/leaks.py is the long run."""

import sys

import leaks
import pytest

pytestmark = [pytest.mark.long, pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")]
KEPT = []


@pytest.fixture(scope="module")
def operations():
    return leaks.operations()


@pytest.mark.parametrize("name", ["load and forward", "patterns and lens", "jacobian", "svd", "svds in lockstep", "refused",
                                  "steered generation", "abandoned stream", "interrupted svd", "interrupted svds in lockstep",
                                  "interrupted generation"])  # fmt: skip
def test_no_growth(operations, name):
    python, process = leaks.growth(operations[name], 40, 40)
    assert python < 4000  # caches and counters of Python, spread over few calls
    assert process < 50_000


@pytest.mark.parametrize("work", [lambda i: KEPT.append(bytes(100_000)), lambda i: KEPT.append([i] * 100_000)])
def test_a_leak_is_growth(work):
    assert max(leaks.growth(work, 40, 5)) > 50_000
    KEPT.clear()


def test_interruptions_happen(operations):
    assert any(operations["interrupted svd"](i) for i in range(20))
