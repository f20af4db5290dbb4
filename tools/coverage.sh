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
(cd "$root" && tar c --exclude='*.so' --exclude=__pycache__ csrc powersteer tests tools setup.py pyproject.toml README.md) | tar x -C "$copy"
cd "$copy"
POWERSTEER_FAULTS=1 POWERSTEER_COVERAGE=1 "$python" setup.py -q build_ext --inplace
files=("$@")
if [ $# = 0 ]; then
    files=(tests/test_{faults,core,forward,jacobian,generate,moe,rope,svd,svd_call,orth,blas,model,threads,torch_func,vectors}.py)
fi
"$python" -m pytest -q -p no:cacheprovider "${files[@]}" || echo "some tests have failed: the figures are of what ran"
mkdir coverage
"$python" -m gcovr -r . --filter csrc/ --exclude-unreachable-branches --exclude-throw-branches --merge-mode-functions separate \
    --txt - --txt-metric branch --html-details coverage/index.html build | tee coverage/branches.txt
"$python" -m gcovr -r . --filter csrc/ --merge-mode-functions separate --txt coverage/lines.txt --print-summary build
echo "details: $copy/coverage"
