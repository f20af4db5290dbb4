"""The pytest plugin, in runs of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLUGIN = ("-p", "powersteer_pytest", "-p", "no:randomly")
pytest_plugins = ["pytester"]


@pytest.fixture
def run(pytester, monkeypatch):
    """run(text of a test file, *options): the result of a run in a process of its own if there are workers, else in this."""
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.delenv("PYTEST_XDIST_WORKER_COUNT", raising=False)  # of the workers that this may run in
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)

    def run(text, *options, subprocess=False):
        pytester.makepyfile(test_it=text)
        return (pytester.runpytest_subprocess if subprocess else pytester.runpytest_inprocess)(*PLUGIN, *options)

    return run


def example():
    (code,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs/pytest.md").read_text("utf-8"), re.M | re.S)
    return code


METRICS = """
    import powersteer as ps, pytest
    share = ps.evaluate.summary([1, 0, 1, 1], "share")
    low = ps.evaluate.summary([0, 0, 0, 1], "share")
"""


# ---- the document


def test_the_experiment_of_the_document(run, pytester):
    """It passes, again from what it kept, and its table is the one that the document shows, but for figures that may differ."""
    assert len(example().splitlines()) <= 30
    text = (ROOT / "docs/pytest.md").read_text("utf-8")
    (shown,) = re.findall(r"^```text\n(.*?)^```$", text, re.M | re.S)
    for _ in "ab":
        result = run(example())
        result.assert_outcomes(passed=2)
        line = next(line for line in result.outlines if line.startswith("products worked out"))
        head = next(line for line in result.outlines if line.startswith("measured "))
        numbers = re.compile(r"-?\d+\.?\d*(e-?\d+)?")
        assert [numbers.sub("#", x).split() for x in (head, line.replace("test_it.py", "test_products.py"))] == [
            numbers.sub("#", x).split() for x in shown.splitlines()[-2:]
        ]
    kept = sorted(path.name.split("-")[0] for path in pytester.path.glob(".pytest_cache/d/powersteer/*"))
    assert kept == ["svd", "svd"]


def test_the_documents_name_every_option_and_fixture(run):
    text = (ROOT / "docs/pytest.md").read_text("utf-8")
    names = set(re.findall(r"--powersteer-\w+", run("", "--help").stdout.str()))
    assert len(names) == 3 and all(f"`{name}" in text for name in names)
    fixtures = run("", "--fixtures", "-v").stdout.str()
    assert all(name in fixtures and f"| `{name}` |" in text for name in ("powersteer_model", "powersteer_cache", "measured"))
    assert "powersteer_slow" in run("", "--markers").stdout.str() and "@pytest.mark.powersteer_slow" in text


# ---- other projects


def test_other_runs_import_nothing(run):
    result = run("""
        import sys
        def test_it():
            assert "powersteer_pytest" in sys.modules
            assert not {name.partition(".")[0] for name in sys.modules} & {"powersteer", "numpy", "scipy"}
    """, subprocess=True)  # fmt: skip
    result.assert_outcomes(passed=1)
    assert not [line for line in result.outlines if "powersteer" in line and not line.startswith("plugins: ")]


@pytest.mark.long
def test_the_entry_point_loads_it(run, pytester, monkeypatch):
    """As an installed copy has it, and `-p` of the same name loads it no second time."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    (points,) = re.findall(r'^\[project.entry-points.pytest11\]\n(\w+) = "(\w+)"', text, re.M)
    assert points[0] == points[1] and f'py-modules = ["{points[1]}"]' in text
    info = pytester.mkdir("powersteer_of_the_test-1.0.dist-info")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: powersteer-of-the-test\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[pytest11]\n{} = {}\n".format(*points))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(pytester.path), str(ROOT)]))
    pytester.makepyfile(test_it="def test_it(measured): measured('it', 1)")
    for options, how in (((), {"passed": 1}), (PLUGIN, {"passed": 1}), (["-p", f"no:{points[0]}"], {"errors": 1})):
        pytester.runpytest_subprocess(*options).assert_outcomes(**how)


def test_names_of_other_projects_win(run):
    run("""
        import pytest
        @pytest.fixture
        def measured():
            return 5
        @pytest.fixture(scope="session")
        def powersteer_model():
            return "mine"
        def test_it(measured, powersteer_model):
            assert (measured, powersteer_model) == (5, "mine")
    """).assert_outcomes(passed=1)  # fmt: skip


# ---- the model


def test_the_model_is_loaded_once(run, pytester):
    text = """
        import os, pytest
        from powersteer._core.blas import default_threads
        ids = []
        @pytest.mark.parametrize("i", range(3))
        def test_it(powersteer_model, i):
            ids.append(id(powersteer_model))
            assert len(set(ids)) == 1 and powersteer_model.d_model == 160 and powersteer_model.path.endswith(NAME)
            assert powersteer_model.threads == max(1, default_threads() // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
    """
    run(text.replace("NAME", "'demo_model'")).assert_outcomes(passed=3)
    folder = pytester.path / "copied"
    folder.symlink_to(ROOT / "powersteer/demo/demo_model")
    run(text.replace("NAME", "'copied'"), "--powersteer-model", "copied").assert_outcomes(passed=3)
    pytester.makeini("[pytest]\npowersteer_model = copied")
    run(text.replace("NAME", "'copied'")).assert_outcomes(passed=3)
    run(text.replace("NAME", "'demo_model'"), "--powersteer-model=demo").assert_outcomes(passed=3)


def test_a_model_that_cannot_be_loaded(run):
    result = run("def test_it(powersteer_model): pass", "--powersteer-model=./missing")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*UsageError: --powersteer-model ./missing: *missing*"])


@pytest.mark.parametrize("option, said", [
    ("--powersteer-model=", "ERROR: --powersteer-model is empty; give a folder, a .gguf file, a hub id or \"demo\""),
    ("--powersteer-cache=", "ERROR: --powersteer-cache is '', which is not a folder"),
    ("--powersteer-cache=test_it.py", "ERROR: --powersteer-cache is 'test_it.py', which is not a folder"),
])  # fmt: skip
def test_wrong_options(run, option, said):
    result = run("def test_it(): pass", option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([said.replace("[", "[[]")])


# ---- the cache

KEEPS = """
    import numpy as np
    def compute():
        with open("calls", "a") as file:
            file.write("x")
        return np.ones(3)
    def test_it(powersteer_cache):
        assert (powersteer_cache(compute) == 1).all() and (powersteer_cache(compute) == 1).all()
"""


def test_where_results_are_kept(run, pytester):
    calls = pytester.path / "calls"
    for options, n in (((), 1), ((), 1), (("--cache-clear",), 2), (("--powersteer-cache=a/b",), 3), (("--powersteer-cache=a/b",), 3),
                       (("-p", "no:cacheprovider"), 4), (("-p", "no:cacheprovider"), 5)):  # fmt: skip
        run(KEEPS, *options).assert_outcomes(passed=1)
        assert len(calls.read_text()) == n, options
    assert len(list(pytester.path.glob("a/b/compute-*.array.npy"))) == 1


@pytest.mark.long
def test_an_interrupted_fixture_leaves_nothing(run, pytester):
    text = """
        import numpy as np, os, pytest, signal
        def compute():
            if not os.path.exists("again"):
                os.kill(os.getpid(), signal.SIGINT)
            return np.ones(3)
        @pytest.fixture(scope="session")
        def ones(powersteer_cache):
            return powersteer_cache(compute)
        def test_it(ones):
            assert ones.sum() == 3
    """
    result = run(text, "--powersteer-cache=kept", subprocess=True)
    assert result.ret == pytest.ExitCode.INTERRUPTED and not (pytester.path / "kept").exists()
    (pytester.path / "again").touch()
    run(text, "--powersteer-cache=kept").assert_outcomes(passed=1)
    assert len(list(pytester.path.glob("kept/*"))) == 1


# ---- slow experiments


def test_slow_experiments_are_skipped_unless_wanted(run):
    text = """
        import pytest
        @pytest.mark.powersteer_slow
        def test_slow(): pass
        def test_quick(): pass
    """
    result = run(text, "--strict-markers", "-rs")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*a slow experiment: give --powersteer-slow to run it"])
    run(text, "--strict-markers", "--powersteer-slow").assert_outcomes(passed=2)


# ---- the table

MEASURES = METRICS + """
    @pytest.fixture
    def before(measured):
        measured("in a fixture", 3)
    def test_one(measured, before):
        assert measured("share", share, random=low) is share
        assert measured("loss", 0.25) == 0.25 and measured("of one", ps.evaluate.summary([2.0], "nats"), random=0.5) == 2
    def test_fails(measured):
        assert measured("low", low) > 0.5
"""
TABLE = [
    "=* powersteer: measured =*",
    r"measured      value  95% interval      unit   n  random                 test",
    r"in a fixture  3                                                         test_it.py::test_one",
    r"share         0.75   \[0.3006, 0.9544\]  share  4  0.25 \[0.04559, 0.6994\]  test_it.py::test_one",
    r"loss          0.25                                                      test_it.py::test_one",
    r"of one        2                        nats   1  0.5                    test_it.py::test_one",
    r"low           0.25   \[0.04559, 0.6994\]  share  4                         test_it.py::test_fails",
]


def table(result):
    lines = result.outlines
    start = next(i for i, line in enumerate(lines) if "powersteer: measured" in line)
    return lines[start : start + len(TABLE)]


def test_the_table(run, pytester):
    result = run(MEASURES, "--junitxml=report.xml")
    result.assert_outcomes(passed=1, failed=1)
    found = table(result)
    assert all(re.fullmatch(re.sub(" +", " +", want), line) for want, line in zip(TABLE, found, strict=True)), found
    at = found[1].index("95%")
    assert found[3][at - 2 : at + 1] == "  [" and found[3].index("test_it") == found[1].index("test", 20) == found[2].index("test_it")
    properties = ElementTree.parse(pytester.path / "report.xml").findall(".//property")
    of_share = next(p.get("value") for p in properties if p.get("name") == "powersteer: share")
    assert json.loads(of_share)["value"] == 0.75 and json.loads(of_share)["random"]["n"] == 4
    assert "powersteer: measured" not in run("def test_it(measured): pass").stdout.str()


@pytest.mark.long
def test_workers(run):
    """Their lines are in the table; they share the cores."""
    pytest.importorskip("xdist")
    result = run(MEASURES + """
    def test_cores(powersteer_model):
        from powersteer._core.blas import default_threads
        assert powersteer_model.threads == max(1, default_threads() // 2)
    """, "-n2", subprocess=True)  # fmt: skip
    result.assert_outcomes(passed=2, failed=1)
    assert sorted(table(result)[2:]) == sorted(table(run(MEASURES))[2:])


def test_a_test_that_is_run_again_has_its_last_lines(run, pytester):
    """As plugins do that rerun failed tests: another report of the same test."""
    pytester.makeconftest("""
        from _pytest.runner import runtestprotocol
        def pytest_runtest_protocol(item, nextitem):
            for _ in "ab":
                item.user_properties.clear()
                for report in runtestprotocol(item, nextitem=nextitem, log=False):
                    item.ihook.pytest_runtest_logreport(report=report)
            return True
    """)  # fmt: skip
    out = run(METRICS + "    def test_it(measured): measured('share', share)\n").outlines
    assert sum(line.startswith("share ") for line in out) == 1


@pytest.mark.parametrize("given, said", [("'0.5'", "not '0.5'"), ("None", "not None"), ("[share]", r"not [MetricResult(*"),
                                         ("low, random='x'", "not 'x'")])  # fmt: skip
def test_what_cannot_be_measured(run, given, said):
    result = run(METRICS + f"    def test_it(measured): measured('a', {given})\n")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"*InvalidInput: measured takes a metric or a number, {said.replace('[', '[[]')}*"])


# ---- failed assertions


def test_a_failed_comparison_says_what_differs(run):
    result = run(METRICS + """
    def test_number(): assert share == ps.testing.approx(0.1)
    def test_turned(): assert ps.testing.approx(0.5, abs=0.1) == share
    def test_same(): assert share != ps.testing.approx(0.5)
    """)  # fmt: skip
    result.assert_outcomes(failed=3)
    result.stdout.fnmatch_lines([
        "E *assert MetricResult(0.75 *) == approx(0.1)", "*0.1 is not in the interval of 0.75 [[]*",
        "*0.75 [[]0.3006, 0.9544] share (n = 4) differs from 0.5 by 0.25, more than 0.1",
    ])  # fmt: skip


def test_a_failed_comparison_of_results_says_what_to_write(run):
    result = run("""
    import dataclasses, numpy as np, powersteer as ps
    svd = ps.svd(np.diag([3.0, 2, 1]), k=2)
    vec = ps.SteeringVector.from_array([3.0, 4], 1, "mlp_out")
    def test_svd(): assert svd == dataclasses.replace(svd)
    def test_vector(): assert vec == dataclasses.replace(vec, seed=1)
    def test_array(): assert svd.S.tolist() == [1.0]
    """)  # fmt: skip
    result.assert_outcomes(failed=3)
    result.stdout.fnmatch_lines(["E *svd == ps.testing.approx(other)", "E *vec == ps.testing.approx(other)"])
    explained = [line for line in result.outlines if line.startswith("E ")]  # the summary says it again where CI is set
    assert sum("ps.testing.approx" in line for line in explained) == 2


def test_the_import_needs_the_standard_library_alone():
    """Beside pytest: it is imported by every run in an environment that has powersteer."""
    script = (
        "import sys, pytest\n"
        "before = set(sys.modules); import powersteer_pytest\n"
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)))"
    )
    found = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert "powersteer_pytest" in found and set(found) <= {"powersteer_pytest", "pytest", "_pytest"}
