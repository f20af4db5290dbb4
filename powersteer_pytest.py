"""The pytest plugin: a model and a cache as fixtures, a marker for slow experiments, a table of what was measured.

pytest imports this file in every run of an environment that has powersteer, so it imports nothing but pytest: powersteer itself
is imported when a fixture is used. docs/pytest.md explains it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

if TYPE_CHECKING:
    from powersteer import Model
    from powersteer.testing import Cache

T = TypeVar("T", bound=float)
PROPERTY = "powersteer: "  # the name of a report's property begins so, its value is JSON; junit.xml shows them, too
_HINTS = {
    "SVDResult": "two SVDs are equal only if they are one object; compare the numbers: svd == ps.testing.approx(other)",
    "SteeringVector": "vectors are equal if all their fields are, cost and version, too; compare what is added, up to sign: "
                      "vec == ps.testing.approx(other)",
    "Effects": "two tables are equal only if they are one object; compare a.to_json() == b.to_json(), or single records",
}  # fmt: skip
_COLUMNS = ("measured", "value", "95% interval", "unit", "n", "random", "test")
_OPTIONS: dict[str, dict[str, Any]] = {
    "--powersteer-model": {"metavar": "MODEL", "help": "the model of the fixture powersteer_model: a folder, a .gguf file, a hub id "
                           "or demo (default: powersteer_model of the configuration file, or else demo)"},
    "--powersteer-cache": {"metavar": "FOLDER", "help": "where the fixture powersteer_cache keeps results (default: in pytest's own "
                           "cache, which --cache-clear empties)"},
    "--powersteer-slow": {"action": "store_true", "help": "run tests that are marked powersteer_slow, too"},
}  # fmt: skip


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("powersteer", "experiments on steered language models")
    for name, how in _OPTIONS.items():
        group.addoption(name, **how)
    parser.addini("powersteer_model", "the model of the fixture powersteer_model, unless --powersteer-model is given", default="demo")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "powersteer_slow: a slow experiment, skipped unless --powersteer-slow is given")
    if not _model_name(config):
        raise pytest.UsageError('--powersteer-model is empty; give a folder, a .gguf file, a hub id or "demo"')
    folder = config.getoption("powersteer_cache")
    if folder is not None and (not folder or (Path(folder).exists() and not Path(folder).is_dir())):
        raise pytest.UsageError(f"--powersteer-cache is {folder!r}, which is not a folder")
    config.pluginmanager.register(_Summary(), "powersteer-summary")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("powersteer_slow"):
        skip = pytest.mark.skip(reason="a slow experiment: give --powersteer-slow to run it")
        for item in items:
            if item.get_closest_marker("powersteer_slow"):
                item.add_marker(skip)


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Lines below a failed comparison with `ps.testing.approx`, and below one that wants it."""
    if op != "==":
        return None
    for expected, actual in ((right, left), (left, right)):
        if type(expected).__module__ == "powersteer.testing.tolerance":
            return [f"{actual!r} == {expected!r}", *expected.differences(actual)]  # type: ignore[attr-defined]
    name = type(left).__name__
    if type(left) is type(right) and type(left).__module__.startswith("powersteer.") and name in _HINTS:
        return [f"{left!r} == {right!r}", _HINTS[name]]
    return None


def _model_name(config: pytest.Config) -> str:
    given = config.getoption("powersteer_model")
    return str(config.getini("powersteer_model") if given is None else given)


# ---- fixtures


@pytest.fixture(scope="session")
def powersteer_model(pytestconfig: pytest.Config) -> Model:
    """The model of --powersteer-model, loaded once. Processes of pytest-xdist share the processor's cores."""
    import powersteer as ps
    from powersteer._core.blas import default_threads

    name, workers = _model_name(pytestconfig), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    try:
        return ps.load(name, threads=max(1, default_threads() // workers))
    except ps.PowersteerError as error:
        raise pytest.UsageError(f"--powersteer-model {name}: {error}") from None


@pytest.fixture(scope="session")
def powersteer_cache(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """powersteer_cache(function, *args, **kwargs) is the function's result, computed once and kept on disk by the content of
    the arguments: SVDs and matrices of Jacobians, steering vectors, effects, arrays. See powersteer.testing.Cache."""
    from powersteer.testing import Cache

    if (folder := pytestconfig.getoption("powersteer_cache")) is not None:
        return Cache(folder)
    kept = getattr(pytestconfig, "cache", None)  # None with -p no:cacheprovider
    return Cache(tmp_path_factory.mktemp("powersteer") if kept is None else kept.mkdir("powersteer"))


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """measured(name, result, random=None) returns the result, a MetricResult or a number, and shows it in the summary with its
    interval, beside that of a random vector: assert measured("accuracy", acc, random=of_random) > 0.5"""

    def record(name: str, result: T, *, random: float | None = None) -> T:
        entry = {**_entry(result), "random": None if random is None else _entry(random)}
        request.node.user_properties.append((PROPERTY + str(name), json.dumps(entry)))
        return result

    return record


def _entry(result: Any) -> dict[str, Any]:
    """What the table shows of a result, ready for JSON."""
    if not isinstance(result, Real):
        from powersteer.errors import InvalidInput, shown

        raise InvalidInput(
            f"measured takes a metric or a number, not {shown(result)}; of a search: found.test, random=found.random_best"
        )
    known = {name: getattr(result, name, None) for name in ("low", "high", "n", "unit")}
    return {"value": float(result), **known} if None not in known.values() else {"value": float(result)}


# ---- summary


class _Summary:
    """Collects what tests measured, also in the workers of pytest-xdist, whose reports come here."""

    def __init__(self) -> None:
        self.rows: dict[str, list[tuple[str, ...]]] = {}  # by test; one that is run again replaces its own

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown" and (rows := list(_rows(report))):
            self.rows[report.nodeid] = rows

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        rows = [row for of_test in self.rows.values() for row in of_test]
        if not rows:
            return
        shown = [i for i, _ in enumerate(_COLUMNS) if any(row[i] for row in rows)]
        widths = {i: max(len(row[i]) for row in (_COLUMNS, *rows)) for i in shown}
        terminalreporter.section("powersteer: measured")
        for row in (_COLUMNS, *rows):
            terminalreporter.line("  ".join(row[i].ljust(widths[i]) for i in shown).rstrip())


def _rows(report: pytest.TestReport) -> Iterator[tuple[str, ...]]:
    for name, text in report.user_properties:
        if name.startswith(PROPERTY):
            entry = json.loads(str(text))
            random = entry["random"]
            beside = "" if random is None else f"{random['value']:.4g} {_interval(random)}".strip()
            figures = f"{entry['value']:.4g}", _interval(entry), entry.get("unit", ""), str(entry.get("n", ""))
            yield name.removeprefix(PROPERTY), *figures, beside, report.nodeid


def _interval(entry: dict[str, Any]) -> str:
    known = "low" in entry and not math.isnan(entry["low"])
    return f"[{entry['low']:.4g}, {entry['high']:.4g}]" if known else ""
