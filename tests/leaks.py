"""Does anything grow? Loads, passes, Jacobians, SVDs, interrupted runs and abandoned streams, over and over.

    python tests/leaks.py --times 1000     # exit code 1 if Python's memory or the process's grows
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import signal
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np

import powersteer as ps

PROMPT = "Q: 12*3\nA:"


def resident() -> int:
    """Bytes that this process has in memory, what malloc keeps for later given back."""
    gc.collect()
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def interrupted(work: Callable[[], object], seconds: float) -> bool:
    """Runs `work` under a timer that interrupts it as Ctrl-C does; whether it did."""
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        work()
    except KeyboardInterrupt:
        return True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return False


def operations() -> dict[str, Callable[[int], object]]:
    """name -> work(i)"""
    model = ps.load("demo")
    J, many = model.jacobian(PROMPT, 0, 3), model.jacobians(PROMPT, 0, [1, 2, "next_token"])
    vec = J.svd(2).vectors[0]
    long = [i % 90 for i in range(200)]

    def refused(i: int) -> None:
        try:
            model.jacobian([10**6 + i], 0, 3)
        except ps.PowersteerError:
            return
        raise AssertionError("a token beyond the vocabulary was taken")

    def abandoned(i: int) -> None:
        next(iter(model.generate(PROMPT, max_new_tokens=5, stream=True)))

    return {
        "load and forward": lambda i: ps.load("demo")(PROMPT),
        "patterns and lens": lambda i: (model.activations(PROMPT, (1, "pattern")), ps.evaluate.logit_lens(model, PROMPT)),
        "jacobian": lambda i: model.jacobian(PROMPT, i % 3, 3) @ np.ones((model.d_model, 2), np.float32),
        "svd": lambda i: J.svd(3, seed=i),
        "svds in lockstep": lambda i: many.svd(2, seed=i, tol=0.1),
        "refused": refused,
        "steered generation": lambda i: model.steered(vec.relative(0.1)).generate([PROMPT, "Q:"], max_new_tokens=3),
        "abandoned stream": abandoned,
        "interrupted svd": lambda i: interrupted(lambda: model.jacobian(long, 0, 4).svd(12, tol=1e-6), 0.001 + i % 20 / 1000),
        "interrupted svds in lockstep": lambda i: interrupted(lambda: many.svd(12, tol=1e-6), 0.001 + i % 20 / 1000),
        "interrupted generation": lambda i: interrupted(
            lambda: model.generate([long] * 4, max_new_tokens=8, stop=[]), 0.001 + i % 20 / 1000
        ),
    }


def growth(work: Callable[[int], object], times: int, warm: int) -> tuple[float, float]:
    """(Python's bytes, resident bytes) that a call adds, after `warm` calls."""
    for i in range(warm):
        work(i)
    tracemalloc.start()
    gc.collect()
    python, before = tracemalloc.get_traced_memory()[0], resident()
    for i in range(times):
        work(i)
    after = resident()
    python = tracemalloc.get_traced_memory()[0] - python
    tracemalloc.stop()
    return python / times, (after - before) / times


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=1000)
    parser.add_argument("--limit", type=float, default=1000, help="bytes a call may add (default 1000)")
    a = parser.parse_args()
    worst = 0.0
    for name, work in operations().items():
        python, process = growth(work, a.times, max(20, a.times // 5))
        worst = max(worst, python, process)
        print(f"{name:<24} {python:9.1f} bytes of Python's and {process:9.1f} resident a call", flush=True)
    return int(worst > a.limit)


if __name__ == "__main__":
    sys.exit(main())
