#!/usr/bin/env bash
# The C core under the sanitizers, each in a copy of its own; the repository is only read. With GCC; for half an hour.
#   tools/sanitize.sh [memory] [threads] [leaks]     python from PATH, or PYTHON=/path/to/python; default all three
#   memory: AddressSanitizer and UndefinedBehaviorSanitizer, the whole suite but for browsers and notebooks
#   threads: ThreadSanitizer, the tests of threads
#   leaks: a hundred of everything with LeakSanitizer (tests/leaks.py, which alone watches for growth, a thousand times)
set -euo pipefail
python="$(command -v "${PYTHON:-python3}")"
python="$(cd "$(dirname "$python")" && pwd)/$(basename "$python")" # of a virtual environment: not resolved
root="$(cd "$(dirname "$0")/.." && pwd)"
work="$(mktemp -d -t powersteer-sanitize-XXXX)"
trap 'rm -rf "$work"' EXIT

build() { # sanitizers -> the copy is the current folder
    local copy="$work/$1/repository"
    mkdir -p "$copy"
    [ ! -e "$root/../shared" ] || ln -s "$root/../shared" "$copy/../shared"
    (cd "$root" && tar c --exclude='*.so' --exclude=__pycache__ --exclude='.venv*' --exclude=./build .) | tar x -C "$copy"
    cd "$copy"
    POWERSTEER_FAULTS=1 POWERSTEER_SANITIZE="$1" "$python" setup.py -q build_ext --inplace
}

# Python is not instrumented, so the runtime has to be there first
runtime() { for name in "$@"; do gcc -print-file-name="lib$name.so"; done | tr '\n' ' '; }

memory() {
    build address,undefined
    LD_PRELOAD="$(runtime asan ubsan)" ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 PYTHONMALLOC=malloc \
        PYTHONPATH="$PWD" "$python" -m pytest -q -m "not slow" -p no:cacheprovider \
        --ignore tests/test_leaks.py --ignore tests/test_browser.py --ignore tests/test_notebooks.py
}

threads() {
    build thread
    # What is found goes to files, as pytest keeps the output. NumPy's own BLAS is not instrumented: it gets one thread.
    # Nothing here is as quick as Ctrl-C has to be.
    local ok=0
    LD_PRELOAD="$(runtime tsan)" PYTHONPATH="$PWD" OPENBLAS_NUM_THREADS=1 \
        TSAN_OPTIONS="die_after_fork=0:log_path=$PWD/found" \
        "$python" -m pytest -q -m "not slow" -p no:cacheprovider tests/test_threads.py tests/test_core.py -k "not ctrl_c" || ok=1
    cat found.* 2> /dev/null && ok=1
    return "$ok"
}

leaks() {
    build address
    # Python and its libraries keep what they made at import: a leak is ours if csrc/ has part in its allocation
    LD_PRELOAD="$(runtime asan)" ASAN_OPTIONS=detect_leaks=1:quarantine_size_mb=0 LSAN_OPTIONS="exitcode=0:log_path=$PWD/found" \
        PYTHONMALLOC=malloc PYTHONPATH="$PWD" "$python" tests/leaks.py --times 100 --limit inf
    ls found.* > /dev/null # the sanitizer has looked
    ! awk 'BEGIN { RS = "" } /csrc\// { print; n = 1 } END { exit !n }' found.*
}

for part in "${@:-memory threads leaks}"; do for one in $part; do (trap 'echo "$one: exit code $?"' EXIT; "$one"); done; done
