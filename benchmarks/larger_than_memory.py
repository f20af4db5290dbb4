"""A quantised model that is larger than the memory it may use.

    python benchmarks/larger_than_memory.py model.gguf --gigabytes 3       # as root: it makes a control group

Writes a random model of an 8B Llama's shapes, mixed as llama.cpp's Q4_K_M (5 GB), if there is no such file. Then each task runs
in a process of its own, without a page of the file in memory at its start, in a control group of so many gigabytes. Printed
are its seconds, the bytes it read, its peak of anonymous memory beside what Model.estimate foresees, and the peak of the
group, which counts pages of the file as well. The first task reads the file from one end to the other: the least that a pass
over it can take. --resident N: the first N layers stay in memory, of the others the system is told when it can drop them,
and which it should read next; 33, with the LM head: all stay, no hints are given. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from resource import RUSAGE_SELF, getrusage

import numpy as np

D, F, LAYERS, HEADS, KV_HEADS, VOCABULARY, CONTEXT = 4096, 14336, 32, 32, 8, 128256, 8192
TOKENS, SOURCE, TARGET, TOLERANCE = 16, 8, 12, 0.1  # spectra of random models are flat, so that finer ones take long


# ---- the file


def blocks_of(kind: str, n_in: int, n_blocks: int, rng: np.random.Generator) -> np.ndarray:
    """(n_blocks, bytes) of random blocks whose numbers have the mean 0 and the size 1/sqrt(n_in)."""
    if kind == "Q4_K":  # d scale q - dmin min: as many steps of the one as of the other, so that q = 7.5 means 0
        blocks = rng.integers(0, 256, (n_blocks, 144), dtype=np.uint8)
        blocks[:, 8:12] = blocks[:, 4:8]
        blocks[:, 12:16] = (blocks[:, 12:16] & 15) * 17
        d = 1 / np.sqrt(n_in) / (np.sqrt((63 * 64 * 127 / 6) / 64) * np.sqrt(255 / 12))  # root mean squares of both factors
        blocks[:, :4] = np.array([d, 7.5 * d], np.float16).view(np.uint8)
    else:  # Q6_K: d scale (q - 32)
        blocks = rng.integers(0, 256, (n_blocks, 210), dtype=np.uint8)
        d = 1 / np.sqrt(n_in) / (np.sqrt((256**2 - 1) / 12) * np.sqrt((64**2 - 1) / 12))
        blocks[:, 208:] = np.array([d], np.float16).view(np.uint8)
    return blocks


def more_bits(layer: int) -> bool:
    """Whether Q4_K_M stores the layer's v and down in Q6_K."""
    return layer < LAYERS // 8 or layer >= 7 * LAYERS // 8 or (layer - LAYERS // 8) % 3 == 2


def tensors() -> dict[str, tuple[tuple[int, ...], str]]:
    """name → (shape, type)"""
    found: dict[str, tuple[tuple[int, ...], str]] = {"token_embd": ((VOCABULARY, D), "Q4_K")}
    kv = D // HEADS * KV_HEADS
    for i in range(LAYERS):
        some = "Q6_K" if more_bits(i) else "Q4_K"
        layer = {"attn_norm": ((D,), "F32"), "attn_q": ((D, D), "Q4_K"), "attn_k": ((kv, D), "Q4_K"), "attn_v": ((kv, D), some),
                 "attn_output": ((D, D), "Q4_K"), "ffn_norm": ((D,), "F32"), "ffn_gate": ((F, D), "Q4_K"),
                 "ffn_up": ((F, D), "Q4_K"), "ffn_down": ((D, F), some)}  # fmt: skip
        found |= {f"blk.{i}.{name}": tensor for name, tensor in layer.items()}
    return found | {"output_norm": ((D,), "F32"), "output": ((VOCABULARY, D), "Q6_K")}


def write_model(path: Path) -> None:
    """The tensors are written one after the other, never held."""
    import gguf

    out = gguf.GGUFWriter(path, "llama")
    out.add_block_count(LAYERS)
    out.add_context_length(CONTEXT)
    out.add_embedding_length(D)
    out.add_feed_forward_length(F)
    out.add_head_count(HEADS)
    out.add_head_count_kv(KV_HEADS)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_rope_dimension_count(D // HEADS)
    out.add_rope_freq_base(500000.0)
    out.add_vocab_size(VOCABULARY)
    out.add_tokenizer_model("none")
    sizes = {}
    for name, (shape, kind) in tensors().items():
        numbers, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
        sizes[name] = int(np.prod(shape)) // numbers * size
        out.add_tensor_info(name + ".weight", shape, np.dtype(np.float32), sizes[name], gguf.GGMLQuantizationType[kind])
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_ti_data_to_file()
    rng = np.random.default_rng(0)
    pools = {(kind, n_in): blocks_of(kind, n_in, 1 << 17, rng) for kind in ("Q4_K", "Q6_K") for n_in in (D, F)}
    for name, (shape, kind) in tensors().items():
        if kind == "F32":
            out.write_tensor_data(np.ones(shape, np.float32))
        else:  # from anywhere in blocks that are drawn once: drawing 5 GB would take a minute
            pool = pools[kind, shape[-1]]
            out.write_tensor_data(np.resize(pool[rng.integers(len(pool) // 2) :], sizes[name]))
    out.close()


# ---- the tasks, each in a process of its own


def read_through(path: str) -> str:
    with open(path, "rb", buffering=0) as file:
        buffer = bytearray(1 << 22)
        while file.readinto(buffer):
            pass
    return ""


def info(path: str) -> str:
    from powersteer.cli import main

    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        assert main(["info", path]) == 0
    return ""


def forward(path: str) -> str:
    import powersteer as ps

    logits = ps.load(path)(prompt())
    assert np.isfinite(logits).all()
    return ""


def sigma(path: str) -> str:
    import powersteer as ps

    result = ps.load(path).jacobian(prompt(), SOURCE, TARGET).svd(k=1, tol=TOLERANCE)
    return f"{result.S[0]:.5g}, {result.applications} products"


def prompt() -> np.ndarray:
    return np.arange(1, TOKENS + 1) * 997 % VOCABULARY


TASKS: dict[str, tuple[str, Callable[[str], str]]] = {
    "read": ("the file, read from end to end", read_through),
    "info": ("powersteer info", info),
    "forward": (f"forward pass of {TOKENS} tokens", forward),
    "sigma": (f"sigma_1 of layers {SOURCE} to {TARGET}, to {TOLERANCE:.0%}", sigma),
}


def anonymous() -> int:
    """Bytes of this process's memory that are not pages of files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))


def bytes_read() -> int:
    """Bytes that this process had read from the disk."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


def keep_resident(n: int) -> None:
    """Models keep their first n layers in memory, whatever powersteer would choose."""
    from powersteer._core import _core32 as core

    make = core.Model
    core.Model = lambda spec, *others: make({**spec, "resident": n}, *others)


def child(task: str, path: str, resident: int | None) -> None:
    """Runs the task and prints one JSON object."""
    if task != "read":
        import powersteer as ps  # before the clock: it is the same for any model

        if resident is not None:
            keep_resident(resident)
    peak, done = [anonymous()], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], anonymous())

    watcher = threading.Thread(target=watch)
    before, read = anonymous(), bytes_read()
    watcher.start()
    started = time.perf_counter()
    result = TASKS[task][1](path)
    seconds = time.perf_counter() - started
    done.set()
    watcher.join()
    read, faults = bytes_read() - read, getrusage(RUSAGE_SELF).ru_majflt
    foreseen = None
    if task in ("forward", "sigma"):
        ends = {"source": SOURCE, "target": TARGET, "k": 1} if task == "sigma" else {}
        foreseen = ps.load(path).estimate(prompt(), **ends).peak
    print(json.dumps({"result": result, "seconds": seconds, "read": read, "faults": faults, "own": peak[0] - before,
                      "foreseen": foreseen}))  # fmt: skip


# ---- a control group


@dataclass
class Group:
    """A memory control group of version 1 or 2."""

    folder: Path
    limit_file: str
    peak_file: str

    @classmethod
    def make(cls, limit: int) -> Group:
        root, name = Path("/sys/fs/cgroup"), f"powersteer-{os.getpid()}"
        if (root / "memory").is_dir():
            group = cls(root / "memory" / name, "memory.limit_in_bytes", "memory.max_usage_in_bytes")
        else:
            group = cls(root / name, "memory.max", "memory.peak")
        group.folder.mkdir()
        (group.folder / group.limit_file).write_text(str(limit))
        return group

    def run(self, command: Sequence[str]) -> str:
        """What a process in the group prints."""
        join = f'echo $$ > "{self.folder}/cgroup.procs" && exec "$@"'
        return subprocess.run(["sh", "-c", join, "sh", *command], check=True, stdout=subprocess.PIPE, text=True).stdout

    @property
    def peak(self) -> int:
        return int((self.folder / self.peak_file).read_text())

    def remove(self) -> None:
        self.folder.rmdir()


def forget(path: Path) -> None:
    """Pages of the file leave memory, but for those that a process has mapped."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--gigabytes", type=float, default=3.0, help="of memory, the file's pages included")
    parser.add_argument("--task", choices=TASKS, action="append", help="of all, may be given again")
    parser.add_argument("--resident", type=int, metavar="N", help="layers that stay in memory; default: as powersteer chooses")
    parser.add_argument("--child", choices=TASKS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return child(args.child, str(args.model), args.resident)
    if not args.model.exists():
        started = time.perf_counter()
        write_model(args.model)
        print(f"written in {time.perf_counter() - started:.0f} s")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that the task ends and its group is removed
    size = args.model.stat().st_size
    print(f"{processor()}; file {size / 1e9:.2f} GB, memory {args.gigabytes:g} GB")
    print(f"{'':<34}{'seconds':>8}{'read GB':>9}{'faults':>8}{'own MB':>8}{'foreseen':>9}{'group MB':>9}")
    for task in args.task or TASKS:
        forget(args.model)
        group = Group.make(int(args.gigabytes * 1e9))
        try:
            flags = [] if args.resident is None else ["--resident", str(args.resident)]
            found = json.loads(group.run([sys.executable, __file__, str(args.model), "--child", task, *flags]))
            peak = group.peak
        finally:
            group.remove()
        foreseen = "" if found["foreseen"] is None else f"{found['foreseen'] / 1e6:.0f}"
        print(f"{TASKS[task][0]:<34}{found['seconds']:8.1f}{found['read'] / 1e9:9.2f}{found['faults']:8}"
              f"{found['own'] / 1e6:8.0f}{foreseen:>9}{peak / 1e6:9.0f}  {found['result']}", flush=True)  # fmt: skip


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), "unknown processor")


if __name__ == "__main__":
    main()
