"""Finding and opening the matrix library, and leaving no trace of it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from powersteer import show_config
from powersteer._core import _core32
from powersteer._core import blas as _blas

AVX512 = frozenset({"sse4.2", "avx2", "fma", "avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"})


def python(script, **environment):
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60,
                          env={**os.environ, **environment})


@pytest.mark.parametrize("features, vendor, chosen, forced, want", [
    (AVX512, "AuthenticAMD", None, None, "SkylakeX"),
    (AVX512, "GenuineIntel", None, None, None),  # recognised by OpenBLAS itself
    (AVX512 - {"avx512bw"}, "AuthenticAMD", None, None, None),
    (frozenset({"neon"}), "", None, None, None),
    (AVX512, "AuthenticAMD", "Zen", None, None),  # the user's choice stands
    (AVX512, "AuthenticAMD", "Zen", "avx2", None),
    (AVX512, "AuthenticAMD", None, "avx2", "Haswell"),
    (AVX512, "GenuineIntel", None, "portable", "Nehalem"),
    (frozenset({"neon"}), "", None, "portable", None),
])
def test_kernel_choice(features, vendor, chosen, forced, want):
    assert _blas.kernel_choice(features, vendor, chosen, forced) == want


def test_environment_is_put_back(monkeypatch):
    monkeypatch.setenv("POWERSTEER_TEST_A", "before")
    with _blas._environment(POWERSTEER_TEST_A="during", POWERSTEER_TEST_B="during"):
        child = subprocess.run(["env"], capture_output=True, text=True).stdout
        assert "POWERSTEER_TEST_A=during" in child and "POWERSTEER_TEST_B=during" in child  # C sees it as well
    assert os.environ["POWERSTEER_TEST_A"] == "before" and "POWERSTEER_TEST_B" not in os.environ
    assert "POWERSTEER_TEST_B" not in subprocess.run(["env"], capture_output=True, text=True).stdout


def test_import_leaves_no_settings_behind():
    script = "import os; a = dict(os.environ); import powersteer; assert dict(os.environ) == a; os.system('env')"
    done = python(script)
    assert done.returncode == 0, done.stderr
    if "OPENBLAS_NUM_THREADS" not in os.environ:
        assert "OPENBLAS_" not in done.stdout


def test_numpys_own_library_is_left_alone():
    script = (
        "import numpy as np, os, scipy.sparse.linalg, tokenizers; import powersteer; a = np.ones((600, 600));"
        "[a @ a for _ in range(5)]; print(len(os.listdir('/proc/self/task')))"
    )
    with_us, without = python(script), python(script.replace("import powersteer;", ""))
    if with_us.returncode and "/proc" in with_us.stderr:
        pytest.skip("no /proc to count threads in")
    assert with_us.stdout == without.stdout  # as many threads of NumPy's, and none of ours before there is work


def test_a_user_may_name_kernels_and_library():
    info = _core32.blas_info()
    named = python("import powersteer; print(powersteer._core._core32.blas_info()['path'])", POWERSTEER_OPENBLAS=info["path"] + ":scipy_")
    assert named.stdout.strip() == info["path"]
    wrong = python("import powersteer", POWERSTEER_OPENBLAS="/no/such/library.so")
    assert "NotFound" in wrong.stderr and "/no/such/library.so" in wrong.stderr
    prefix = python("import powersteer", POWERSTEER_OPENBLAS=info["path"] + ":wrong_")
    assert "PowersteerError" in prefix.stderr and "wrong_" in prefix.stderr


def test_threads_from_the_environment():
    script = "from powersteer._core.blas import default_threads; print(default_threads())"
    assert python(script, POWERSTEER_NUM_THREADS="3").stdout.strip() == "3"
    assert "POWERSTEER_NUM_THREADS" in python(script, POWERSTEER_NUM_THREADS="0").stderr


def test_show_config(capsys):
    config = show_config()
    printed = capsys.readouterr().out
    assert config["scalar_bytes"] == {"float32": 4, "float64": 8}
    assert "OpenBLAS" in config["openblas"] and all(name in printed for name in config)


@pytest.mark.parametrize("kind", _core32.instruction_sets())
def test_an_instruction_set_is_forced(kind):
    script = "import powersteer; powersteer.show_config(); print('core64', powersteer._core._core64.instruction_set())"
    printed = dict(line.split(maxsplit=1) for line in python(script, POWERSTEER_CPU=kind, OPENBLAS_CORETYPE="").stdout.splitlines())
    assert printed["instruction_set"].strip() == printed["core64"] == kind
    if "sse4.2" in _core32.cpu_features():
        assert printed["openblas_core"] == _blas._KERNELS[kind]


def test_the_best_instruction_set_is_in_use_by_itself():
    script = "import powersteer as ps; print(ps._core._core32.instruction_set(), ps._core._core64.instruction_set())"
    assert python(script, POWERSTEER_CPU="").stdout.split() == [_core32.instruction_sets()[-1]] * 2


@pytest.mark.parametrize("kind", ["avx9", "AVX2", "x" * 10_000, "neon"])
def test_an_instruction_set_that_is_not_there(kind):
    done = python("import powersteer", POWERSTEER_CPU=kind)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode and "InvalidInput: POWERSTEER_CPU is" in last and len(last) < 300
    assert last.endswith("this machine has " + ", ".join(_core32.instruction_sets()))


def test_a_users_kernels_are_used():
    if "avx2" not in _core32.cpu_features():
        pytest.skip("needs a processor on which there is a choice")
    script = "import powersteer._core.blas as b; print(b._core32.blas_info()['corename'])"
    assert python(script, OPENBLAS_CORETYPE="Haswell").stdout.strip() == "Haswell"
