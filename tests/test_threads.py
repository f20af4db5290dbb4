"""Many Python threads, Ctrl-C, fork: what an extension can get wrong about the process it lives in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tiny import tiny, vector

from powersteer.errors import InvalidInput

PROMPTS = [[1, 7, 3, 250, 40, 7], [9, 8], list(range(40))]


def everything(model):
    """A bit of each kind of work; as bytes, so that equal means equal bits."""
    J = model.jacobian(PROMPTS, 0, 2)
    sampled = model.generate(PROMPTS, max_new_tokens=6, temperature=1.2, seed=3, stop=[])
    parts = [*model(PROMPTS), J.dense(), J.T @ np.ones(J.shape[0]), J.svd(k=3).Vh, *(out.tokens for out in sampled)]
    return [np.asarray(part).tobytes() for part in parts]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sixteen_threads_on_one_model(dtype):
    """The same bits as alone, whoever has the pool."""
    model, _ = tiny(dtype, threads=2, n_layers=3, d_model=36, d_ff=64)
    views = [model, model.steered(vector(model, 1)), model.steered(vector(model, 2, site="resid_post"))]
    alone = [everything(view) for view in views]
    start = threading.Barrier(16)

    def work(i):
        start.wait()
        return all(everything(views[(i + k) % 3]) == alone[(i + k) % 3] for k in range(4))

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(work, range(16)))


def test_a_decoder_is_of_one_thread_at_a_time():
    """What is called while a step works is refused, and the step is as if it had been alone."""
    model, _ = tiny("float32", n_layers=4, d_model=96, d_ff=256, n_ctx=2048)
    prompt, seed = np.arange(1500, dtype=np.int32) % 250, np.zeros(1, np.uint64)

    def decoder():
        core = model._loaded
        return core.module.Decoder(core.core, [prompt], np.array([1600], np.int32), [], 0.0, 0, 1.0, seed)

    alone, shared, said = decoder(), decoder(), ""
    assert alone.step().shape == (1,)
    with ThreadPoolExecutor(1) as other:
        step = other.submit(shared.step)
        while "another thread" not in said:  # it has not begun
            assert not step.done()
            with pytest.raises(InvalidInput) as caught:
                shared.logits()
            said = str(caught.value)
        for call in (shared.step, lambda: shared.stop(0)):
            with pytest.raises(InvalidInput, match="another thread"):
                call()
    assert np.array_equal(shared.logits(), alone.logits()) and shared.step() == alone.step()


# A model that is busy for seconds in each kind of call, in a process of its own.
BIG = """
    import os, signal, sys, threading, time
    sys.path.insert(0, {tests!r})
    import numpy as np
    from tiny import tiny
    model, _ = tiny("float32", threads=2, n_layers=6, d_model=384, n_heads=4, n_kv_heads=4, head_dim=96, d_ff=1024,
                    n_ctx=2048, rope_dim=32)
    prompt = [i % 250 for i in range(1500)]
    J = model.jacobian(prompt[:300], 0, 5)
"""


def script(body):
    source = textwrap.dedent(BIG).format(tests=str(Path(__file__).parent)) + textwrap.dedent(body)
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", source], stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def finished(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


@pytest.mark.long
def test_the_gil_is_released():
    """Another thread goes on while a call works: its longest pause is a small part of the call."""
    out = finished(script("""
        U = np.ones((J.shape[0], 12), np.float32)
        calls = dict(forward=lambda: model(prompt), jacobian=lambda: model.jacobian(prompt, 0, 5),
                     apply=lambda: J @ np.ones((384, 12), np.float32), transpose=lambda: J.T @ U,
                     generate=lambda: model.generate(prompt, 1, stop=[]),
                     svd=lambda: J.svd(k=2, method="power", iterations=3))
        for name, call in calls.items():
            ticks, done = [], threading.Event()
            def tick():
                while not done.is_set():
                    ticks.append(time.perf_counter())
                    time.sleep(0.001)
            thread = threading.Thread(target=tick)
            thread.start()
            begin = time.perf_counter()
            call()
            took = time.perf_counter() - begin
            done.set()
            thread.join()
            print(name, took, max(np.diff(ticks)))
    """))
    rows = [line.split() for line in out.splitlines()]
    assert len(rows) == 6
    for name, took, pause in rows:
        assert float(took) > 0.1, (name, took)  # else it shows nothing
        assert float(pause) < 0.5 * float(took) + 0.05, out


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_ctrl_c_is_answered_within_a_second():
    """KeyboardInterrupt, and everything still works afterwards. The second is of a machine that has time for us: on a
    busy one the call is tried again, twice."""
    best = {}
    for _ in range(3):
        for name, waited in interrupt_everything().items():
            best[name] = min(waited, best.get(name, waited))
        if max(best.values()) < 1:
            break
    print(best)
    assert len(best) == 9 and max(best.values()) < 1, best


def interrupt_everything():
    """Seconds from the signal to KeyboardInterrupt, by call."""
    process = script("""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        before = J @ np.ones(384)
        several = model.jacobians(prompt, [0, 1, 2, 3, 4], [5])
        calls = {
            "forward": lambda: model([prompt] * 40),
            "jacobian": lambda: model.jacobian([prompt] * 20, 0, 5),
            "apply": lambda: J @ np.ones((384, 384)),
            "transpose": lambda: J.T @ np.ones((J.shape[0], 384)),
            "all sources": lambda: several.apply_t_all(np.ones((384, J.shape[0]))),
            "krylov": lambda: J.svd(k=64, tol=1e-9),
            "power": lambda: J.svd(k=12, method="power", iterations=500),
            "dense": lambda: J.svd(k=3, method="dense"),
            "generate": lambda: model.generate([prompt] * 40, 500, stop=[]),
        }
        for name, call in calls.items():
            try:
                print(name, flush=True)
                call()
                print("finished too soon", flush=True)
            except KeyboardInterrupt:
                print(time.time(), flush=True)
        assert np.array_equal(J @ np.ones(384), before)
        assert len(model.generate([1, 2], 3, stop=[]).tokens) == 3
        print("usable")
    """)
    waited = {}
    while (name := process.stdout.readline().strip()) not in ("usable", ""):
        time.sleep(0.5)  # well within the call
        sent = time.time()
        os.kill(process.pid, signal.SIGINT)
        answer = process.stdout.readline()
        assert answer != "finished too soon\n", name
        waited[name] = round(float(answer) - sent, 2)
    finished(process)
    assert name == "usable"
    return waited


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_fork_after_use():
    """A child that was forked when the pool had threads makes its own; the parent's go on."""
    out = finished(script("""
        import warnings
        warnings.simplefilter("ignore")  # Python's own, about forking with threads
        V = np.random.default_rng(0).normal(size=(384, 8))
        before = [model(prompt[:200]), J @ V, model.generate([1, 2], 5, stop=[]).tokens]
        def same():
            after = [model(prompt[:200]), J @ V, model.generate([1, 2], 5, stop=[]).tokens]
            return all(np.array_equal(a, b) for a, b in zip(before, after))
        for _ in range(2):
            child = os.fork()
            if child == 0:
                grandchild = os.fork()
                ok = same()
                if grandchild:
                    ok = ok and os.waitpid(grandchild, 0)[1] == 0
                os._exit(0 if ok else 1)
            assert same()
            assert os.waitpid(child, 0)[1] == 0
        print("same")
    """))
    assert out == "same\n"


def test_a_subinterpreter_is_refused():
    """Whatever Python calls its module of them. NumPy refuses by itself, without a name, where it is loaded already."""
    code = """
        try:
            import _interpreters as interpreters
        except ImportError:
            import _xxsubinterpreters as interpreters
        try:
            print(interpreters.run_string(interpreters.create(), "import powersteer"))
        except interpreters.RunFailedError as error:
            print(error)
    """
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "ImportError" in done.stdout and "interpreter" in done.stdout, done.stdout
