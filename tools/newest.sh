#!/usr/bin/env bash
# The tests with the newest of every package that the extras of the tests pin, in an empty environment: what will a user meet who
# installs today, and is it time to move the pins?
#   tools/newest.sh [file or option of pytest ...]     default: all tests
# PYTHON=python3.11 chooses the Python.
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
work="$(mktemp -d -t powersteer-newest-XXXX)"
trap 'rm -rf "$work"' EXIT
cp -r "$root"/{csrc,powersteer,tests,tools,docs,benchmarks,studies,notebooks,conftest.py,setup.py,pyproject.toml,README.md,CHANGELOG.md} "$work/"
cd "$work"

"${PYTHON:-python3}" -m venv venv
names="$(sed -n '/^\(test\|oracles\) = \[/,/^\]/s/^ *"\([A-Za-z0-9_-]*\)==.*/\1/p' pyproject.toml | sort -u)"
venv/bin/pip install -q --upgrade $names "setuptools>=77"
venv/bin/pip install -q --no-build-isolation -e .
venv/bin/pip list | grep -iE "^($(echo $names | tr ' ' '|')) "
venv/bin/python -m pytest -q -m "not slow" "$@"
