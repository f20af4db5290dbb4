#!/usr/bin/env bash
# Line and branch coverage of csrc/ by the tests, both cores taken together, allocation faults included.
#   tools/coverage.sh [test files]     python and gcovr from PATH, or PYTHON=/path/to/python
# Prints a line a file; details, line by line, in coverage/ beside csrc/ of the copy it names. The repository is only read.
set -euo pipefail
python="$(command -v "${PYTHON:-python3}")"
python="$(cd "$(dirname "$python")" && pwd)/$(basename "$python")" # of a virtual environment: not resolved
root="$(cd "$(dirname "$0")/.." && pwd)"
copy="$(mktemp -d -t powersteer-coverage-XXXX)/repository"
mkdir "$copy"
[ -e "$root/../shared" ] && ln -s "$root/../shared" "$copy/../shared"
(cd "$root" && tar c --exclude='*.so' --exclude=__pycache__ csrc powersteer tests tools conftest.py setup.py pyproject.toml README.md) | tar x -C "$copy"
cd "$copy"
POWERSTEER_FAULTS=1 POWERSTEER_COVERAGE=1 "$python" setup.py -q build_ext --inplace
files=("$@")
if [ $# = 0 ]; then
    files=(tests/test_{faults,arena,blas,blas_rng,core,estimate,forward,generate,jacobian,lockstep,model,moe,orth,rope}.py
           tests/test_{gemm_packed,svd,svd_call,threads,torch_func,vectors}.py)
fi
# CC: the files that some tests compile for themselves count, too; their counters lie in the tests' folders
CC="gcc --coverage -fprofile-update=atomic" "$python" -m pytest -q -m "not slow" -p no:cacheprovider --basetemp "$copy/tmp" "${files[@]}" ||
    echo "some tests have failed: the figures are of what ran"
mkdir coverage
report() { "$python" -m gcovr -r . --filter csrc/ --merge-mode-functions separate --gcov-ignore-parse-errors all "$@" build tmp; }
report --exclude-throw-branches --txt coverage/branches.txt --txt-metric branch --html-details coverage/index.html
report --txt coverage/lines.txt --print-summary
paste <(awk '/^csrc/ {print $1, $2, $3, $4}' coverage/lines.txt) <(awk '/^csrc/ {print $2, $3, $4}' coverage/branches.txt) |
    awk '{printf "%-32s lines %4d/%4d %5s  branches %4d/%4d %5s\n", $1, $3, $2, $4, $6, $5, $7}'
echo "details: $copy/coverage"
