"""Weights of blocks: each type against float32, and quantised GGUF files against llama.cpp and float32 copies.

    python benchmarks/quantised.py                          # the types alone
    python benchmarks/quantised.py smollm2.gguf gemma3.gguf # and these files; llama.cpp where llama-cpp-python is installed
    python benchmarks/quantised.py --only llama FILE ...    # one part

Cases are measured as in speed.py: in rounds, all contestants in each round, the best of the quiet rounds.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from larger_than_memory import processor
from speed import BUSY_SIGN, Work, measure, once, show

import powersteer as ps
from powersteer._core import _core32 as core
from powersteer.loading.blocks import Blocks

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from float32_weights import widened
from random_blocks import random_blocks

N_OUT, N_IN = 4096, 4096  # of the matrix whose products are measured
STEPS = 1 << 16  # tokens that a measured decoder may make
DECODED_ROWS, DECODED_TIMES = 32, 64
PROMPT, DECODED = 128, 64  # tokens
COLUMNS, TOKENS, BELOW_TOP = 12, 64, 2  # of JᵀJ: from layer 2 to the second from the top

# ---- types


def products(matrix: Any, embed: np.ndarray, threads: int) -> dict[str, Work]:
    """name → a product with the matrix: the LM head of a model that is otherwise next to nothing."""
    tiny = {name: np.full((8, N_IN), 1e-3, np.float32) for name in ("q", "k", "v", "gate", "up")}
    tiny |= {name: np.full((N_IN, 8), 1e-3, np.float32) for name in ("o", "down")}
    norm = (np.ones(N_IN, np.float32), None)
    layer = {**tiny, "window": 0, "rope": -1, "attn_scale": 1.0, "norm1": norm, "norm2": norm}
    spec = {"n_layers": 1, "d_model": N_IN, "n_vocab": N_OUT, "n_heads": 1, "n_kv_heads": 1, "head_dim": 8, "d_ff": 8,
            "n_ctx": STEPS, "norm": "rms", "norm_eps": 1e-5, "qk_norm": "none", "parallel": False, "gated": True, "act": "silu",
            "rope_style": "half", "rope_dim": 8, "attn_softcap": 0.0, "logit_softcap": 0.0, "embed_scale": 1.0,
            "resid_scale": 1.0, "logit_scale": 1.0, "rope": []}  # fmt: skip
    model = core.Model(spec, [layer], {"embed": embed, "lm_head": matrix, "final_norm": norm}, threads)
    many = np.arange(64, dtype=np.int32)

    def step(rows: int) -> Work:
        """A token decoded for so many sequences, after a first step that reads their prompts."""
        zeros = np.zeros(rows, np.uint64)
        decoder = core.Decoder(model, [many[i : i + 1] for i in range(rows)], np.full(rows, STEPS, np.int32), [], 0.0, 0, 1.0, zeros)
        decoder.step()
        return decoder.step

    last = (0, core.SITES.index("resid_post"))
    J = core.Jacobian(model, [many], [], last, "logits", [many], [many], False)
    U = np.random.default_rng(0).standard_normal((1, 64 * N_OUT)).astype(np.float32)
    return {
        "1 row": step(1), "4 rows": step(4), "64 rows": lambda: model.forward([many], [], [], "all"),
        "64 rows, transposed": lambda: J.apply_t(U),
    }  # fmt: skip


def decoding(some: Any, pool: ThreadPoolExecutor, threads: int) -> Work:
    """Every thread decodes DECODED_ROWS rows, DECODED_TIMES times, into an array that its L2 cache holds."""

    def one_thread(_: int) -> None:
        out = np.empty((DECODED_ROWS, N_IN), np.float32)
        for _ in range(DECODED_TIMES):
            core.decode_blocks(some, out)

    return lambda: list(pool.map(one_thread, range(threads)))


def types(rounds: int, threads: int) -> None:
    embed = np.random.default_rng(1).standard_normal((N_OUT, N_IN)).astype(np.float32)
    names = ("float32", *core.BLOCK_TYPES)
    rng = np.random.default_rng(0)
    blocks = {name: Blocks(*random_blocks(name, N_OUT, N_IN, rng)) for name in core.BLOCK_TYPES}
    with ThreadPoolExecutor(threads) as pool:
        few = {name: some[:DECODED_ROWS].to_core() for name, some in blocks.items()}
        decode_s = measure({name: decoding(some, pool, threads) for name, some in few.items()}, rounds)
    work = {name: products(blocks[name].to_core() if name in blocks else embed, embed, threads) for name in names}
    seconds = {case: measure({name: work[name][case] for name in names}, rounds, 0.05) for case in work["float32"]}

    print(f"\nproducts of {N_OUT} x {N_IN} weights, time over float32's; decoding by {threads} threads, in cache")
    print(f"{'':<12}{'bits':>6}{'decoded GB/s':>14}{'numbers/ns':>12}" + "".join(f"{case:>21}" for case in seconds))
    for name in names:
        line = f"{name:<12}"
        if name in blocks:
            t, bits = decode_s[name], 8 * blocks[name].nbytes / blocks[name].size
            numbers = threads * DECODED_TIMES * DECODED_ROWS * N_IN
            line += f"{bits:6.2f}"
            line += f"{BUSY_SIGN:>14}{'':12}" if t is None else f"{numbers * bits / 8e9 / t:14.1f}{numbers / t / 1e9:12.1f}"
        else:
            line += f"{32:6}{'':26}"
        for found in seconds.values():
            t, base = found[name], found["float32"]
            line += f"{BUSY_SIGN:>21}" if t is None or base is None else f"{1e3 * t:10.2f} ms {t / base:6.2f}x"
        print(line, flush=True)


# ---- llama.cpp


class LlamaCpp:
    """llama.cpp with a file, through the C functions of llama-cpp-python."""

    def __init__(self, path: str, threads: int) -> None:
        import llama_cpp

        self.c, parameters = llama_cpp, llama_cpp.llama_context_default_params()
        parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = 512
        parameters.n_threads = parameters.n_threads_batch = threads
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
        self.context = llama_cpp.llama_init_from_model(self.model, parameters)
        self.n_vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))

    def generate(self, prompt: list[int], n: int) -> None:
        """n greedy tokens after the prompt."""
        self.c.llama_memory_clear(self.c.llama_get_memory(self.context), True)
        some = prompt
        for _ in range(n):
            tokens = (self.c.llama_token * len(some))(*some)  # which the batch points to
            assert self.c.llama_decode(self.context, self.c.llama_batch_get_one(tokens, len(some))) == 0
            logits = self.c.llama_get_logits_ith(self.context, -1)
            some = [int(np.ctypeslib.as_array(logits, (self.n_vocab,)).argmax())]

    def close(self) -> None:
        self.c.llama_free(self.context)
        self.c.llama_model_free(self.model)


def quiet_llama() -> str | None:
    """Version of llama-cpp-python, whose log is switched off; None if it is not installed."""
    try:
        import llama_cpp
    except ImportError:
        return None
    callback = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(callback, ctypes.c_void_p())
    quiet_llama.callback = callback  # type: ignore[attr-defined]  # it must live as long as the library
    return str(llama_cpp.__version__)


def llama(path: str, rounds: int, threads: int) -> None:
    """Loading, a prompt and a token decoded, against llama.cpp on the same file."""
    name, there = Path(path).name, quiet_llama() is not None
    load: dict[str, Work] = {"powersteer": lambda: ps.load(path, threads=threads)}
    if there:
        load["llama.cpp"] = lambda: LlamaCpp(path, threads).close()
    show(f"{name}: loading", {who: min(once(work).seconds for _ in range(rounds)) for who, work in load.items()})
    model = ps.load(path, threads=threads)
    prompt = np.random.default_rng(0).integers(1000, 20000, PROMPT).tolist()
    say: dict[str, Callable[[list[int], int], object]] = {
        "powersteer": lambda ids, n: model.generate(ids, max_new_tokens=n, stop=[])
    }
    if there:
        say["llama.cpp"] = LlamaCpp(path, threads).generate
    first = measure({name: lambda f=f: f(prompt, 1) for name, f in say.items()}, rounds)
    show(f"{name}: a prompt of {PROMPT} tokens", first, lambda s: f"{PROMPT / s:.0f} tokens/s")
    many = measure({name: lambda f=f: f(prompt[:16], 1 + DECODED) for name, f in say.items()}, rounds)
    one = measure({name: lambda f=f: f(prompt[:16], 1) for name, f in say.items()}, rounds)
    step = {name: None if (a := many[name]) is None or (b := one[name]) is None else (a - b) / DECODED for name in say}
    show(f"{name}: a token decoded", step, lambda s: f"{1 / s:.1f} tokens/s")


def jacobian(path: str, rounds: int, threads: int) -> None:
    """JᵀJ against the same weights in float32."""
    model = ps.load(path, threads=threads)
    top = model.n_layers - BELOW_TOP
    rng = np.random.default_rng(0)
    tokens = rng.integers(1000, 20000, TOKENS).astype(np.int32)
    V = np.linalg.qr(rng.standard_normal((model.d_model, COLUMNS)))[0].astype(np.float32)
    made = {name: some.jacobian(tokens, 2, top) for name, some in (("powersteer", model), ("float32 copy", widened(model)))}
    seconds = measure({name: lambda J=J: J.T @ (J @ V) for name, J in made.items()}, rounds)
    show(f"{Path(path).name}: JᵀJ on {COLUMNS} columns, layers 2–{top}, {TOKENS} tokens", seconds)


OF_FILES = {"llama": llama, "jacobian": jacobian}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help="GGUF files")
    parser.add_argument("--only", choices=["types", *OF_FILES], action="append", help="repeatable; default all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    a = parser.parse_args()
    print(f"{processor()}, {core.instruction_set()}, {a.threads} threads, load {os.getloadavg()[0]:.1f}; "
          f"powersteer {ps.__version__}, llama-cpp-python {quiet_llama()}")  # fmt: skip
    if "types" in (a.only or ["types"]):
        types(a.rounds, a.threads)
    for path in a.files:
        for name in a.only or OF_FILES:
            if name in OF_FILES:
                OF_FILES[name](path, a.rounds, a.threads)


if __name__ == "__main__":
    main()
