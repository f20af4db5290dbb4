#!/usr/bin/env bash
# The packages as a user gets them: sdist and wheel, checked by twine; then the sdist, built and run in an empty environment of
# each Python given, far from the repository.
#   tools/package.sh [python3.10 python3.13 ...]     default: python3; leaves both files in dist/
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
work="$(mktemp -d -t powersteer-package-XXXX)"
trap 'rm -rf "$work"' EXIT
[ $# -gt 0 ] || set -- python3

"$1" -m venv "$work/tools"
"$work/tools/bin/pip" install -q build twine
rm -rf "$root/dist"
(cd "$root" && "$work/tools/bin/python" -m build -q --outdir "$root/dist" .)
"$work/tools/bin/twine" check --strict "$root"/dist/*

for python in "$@"; do
    "$python" -m venv "$work/user"
    (
        cd "$work"
        user/bin/pip install -q "$root"/dist/*.tar.gz
        user/bin/python -c 'import platform, powersteer as ps; print(platform.python_version(), ps.__file__); ps.show_config()'
        user/bin/powersteer demo --json > demo.json
        user/bin/python -c 'import json; print(sorted(json.load(open("demo.json"))))'
    )
    rm -rf "$work/user"
done
