"""powersteer beside JAX, PyTorch, transformers and llama.cpp: the same random Llama of 125M shapes, in one run.

    python benchmarks/speed.py                 # pip install '.[bench]'; prints tables, writes benchmarks/*.svg
    python benchmarks/speed.py --only decode --llama FOLDER    # one part; where llama-cpp-python is installed
    python benchmarks/speed.py --write         # puts the table of this run into SPEED.md and README.md

Every case is measured in rounds, all contestants in each round; a figure is the best of its rounds, a ratio is between
the bests. The machine's other work is watched: where it took more than `BUSY` of the processors in a round the round does
not count, and a case without three quiet rounds, though it was tried three times as often, prints no ratio.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from atlas import K, Published, make_model, residual

import powersteer as ps

HERE = Path(__file__).parent
SOURCE, TARGET, TOKENS, COLUMNS, ROWS = 3, 9, 64, 12, 2
BUSY, QUIET_ROUNDS = 0.15, 3
Work = Callable[[], object]


# ---- measuring


def cpu_seconds() -> float:
    """All processors' busy time since boot, in seconds."""
    fields = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


@dataclass
class Round:
    seconds: float
    others: float  # share of the processors that other processes took


def once(work: Work, least: float = 0.25) -> Round:
    """Seconds a call, over as many as take `least` seconds."""
    n, processors = 0, len(os.sched_getaffinity(0))
    started, own, busy = time.perf_counter(), time.process_time(), cpu_seconds()
    while time.perf_counter() - started < least:
        work()
        n += 1
    wall = time.perf_counter() - started
    others = (cpu_seconds() - busy) - (time.process_time() - own)
    return Round(wall / n, max(0.0, others) / wall / processors)


def measure(contestants: dict[str, Work], rounds: int, least: float = 0.25) -> dict[str, float | None]:
    """Best seconds a call of each, of quiet rounds of at least `least` seconds; None where there were too few of them."""
    for work in contestants.values():
        work()  # compiled, allocated, in the caches
    quiet: dict[str, list[float]] = {name: [] for name in contestants}
    for i in range(3 * rounds):
        if i >= rounds and all(len(some) >= QUIET_ROUNDS for some in quiet.values()):
            break
        for name, work in contestants.items():
            r = once(work, least)
            if r.others <= BUSY:
                quiet[name].append(r.seconds)
    return {name: min(seconds) if len(seconds) >= QUIET_ROUNDS else None for name, seconds in quiet.items()}


TABLE: dict[str, dict[str, float | None]] = {}  # case -> contestant -> seconds, the first contestant being ours
BUSY_SIGN = "busy"


def show(title: str, seconds: dict[str, float | None], note: Callable[[float], str] = lambda s: "") -> None:
    """Times, and each peer's over ours."""
    print(f"\n{title}", flush=True)
    TABLE[title] = seconds
    (_, ours), *_ = seconds.items()
    for name, s in seconds.items():
        if s is None:
            print(f"  {name:<34} the machine was busy")
        else:
            ratio = f"{s / ours:6.2f}x" if ours else ""
            print(f"  {name:<34} {1e3 * s:9.2f} ms {ratio:>8}  {note(s)}", flush=True)


# ---- the peers: layers SOURCE+1 .. TARGET of the same model, as a function of what is added to SOURCE's MLP output


def rotary(n: int, dim: int, base: float = 10000.0) -> tuple[np.ndarray, np.ndarray]:
    angles = np.outer(np.arange(n), base ** (-np.arange(0, dim, 2) / dim))
    angles = np.concatenate([angles, angles], 1)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def slice_function(
    hf: Any, h: np.ndarray, xp: Any, array: Callable[[np.ndarray], Any]
) -> tuple[Callable[..., Any], Any]:
    """(F, layers): F(v (d,), layers) -> MLP output (ROWS * d,) of layer TARGET at the last positions, from the residual
    stream h (T, d) behind layer SOURCE. xp: torch or jax.numpy, with softmax, silu and rsqrt."""
    names = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj",
             "mlp.down_proj", "input_layernorm", "post_attention_layernorm")  # fmt: skip
    layers = [
        [array(layer.get_submodule(name).weight.detach().numpy()) for name in names]
        for layer in hf.model.layers[SOURCE + 1 : TARGET + 1]
    ]
    heads, eps = hf.config.num_attention_heads, hf.config.rms_norm_eps
    T, d = h.shape
    cos, sin = (array(x) for x in rotary(T, d // heads))
    mask, start = array(np.triu(np.full((T, T), -np.inf, np.float32), 1)), array(h)

    def norm(x: Any, w: Any) -> Any:
        return x * xp.rsqrt((x * x).mean(-1)[..., None] + eps) * w

    def split(x: Any) -> Any:
        return xp.swapaxes(x.reshape(T, heads, d // heads), 0, 1)

    def turn(x: Any) -> Any:
        half = x.shape[-1] // 2
        return x * cos + xp.concatenate([-x[..., half:], x[..., :half]], -1) * sin

    def apply(v: Any, layers: Any = layers) -> Any:
        x, out = start + v, None
        for q, k, w, o, gate, up, down, norm1, norm2 in layers:
            y = norm(x, norm1)
            scores = turn(split(y @ q.T)) @ xp.swapaxes(turn(split(y @ k.T)), 1, 2) * (d // heads) ** -0.5 + mask
            mixed = xp.softmax(scores, -1) @ split(y @ w.T)
            x = x + xp.swapaxes(mixed, 0, 1).reshape(T, d) @ o.T
            y = norm(x, norm2)
            out = (xp.silu(y @ gate.T) * (y @ up.T)) @ down.T
            x = x + out
        return out[-ROWS:].reshape(-1)

    return apply, layers


def torch_namespace() -> Any:
    class Names:
        rsqrt, swapaxes, concatenate, softmax = torch.rsqrt, torch.swapaxes, torch.concatenate, torch.softmax
        silu = staticmethod(torch.nn.functional.silu)

    return Names


def torch_both(hf: Any, h: np.ndarray, V: np.ndarray) -> Work:
    """J'J V by torch.func, columns side by side."""
    F, _ = slice_function(hf, h, torch_namespace(), torch.tensor)
    zero, columns = torch.zeros(h.shape[1]), torch.tensor(V.T)

    def work() -> torch.Tensor:
        pushed = torch.func.vmap(lambda v: torch.func.jvp(F, (zero,), (v,))[1])(columns)
        _, pull = torch.func.vjp(F, zero)
        return torch.func.vmap(lambda u: pull(u)[0])(pushed)

    return work


def jax_both(hf: Any, h: np.ndarray, V: np.ndarray) -> Work:
    """The same by JAX: linearize and transpose, compiled."""
    import jax
    import jax.numpy as jnp

    class Names:
        swapaxes, concatenate = jnp.swapaxes, jnp.concatenate
        rsqrt, softmax, silu = jax.lax.rsqrt, jax.nn.softmax, jax.nn.silu

    F, layers = slice_function(hf, h, Names, jnp.asarray)
    zero, columns = jnp.zeros(h.shape[1]), jnp.asarray(V.T)

    @jax.jit
    def both(columns: Any, layers: Any) -> Any:  # weights as arguments: XLA would fold constants for minutes
        _, push = jax.linearize(lambda v: F(v, layers), zero)
        transpose = jax.linear_transpose(push, zero)
        return jax.vmap(lambda u: transpose(u)[0])(jax.vmap(push)(columns))

    return lambda: both(columns, layers).block_until_ready()


# ---- cases


@dataclass
class Setup:
    hf: Any
    model: ps.Model
    bf16: ps.Model
    tokens: np.ndarray
    folder: Path
    rounds: int
    threads: int

    @cached_property
    def published(self) -> tuple[float, float]:
        """(seconds, largest residual) of the published algorithm, run once."""
        _, V, took = Published(self.hf, torch.tensor(self.tokens)[None].long(), SOURCE, TARGET).run(self.model.d_model)
        return took, residual(self.model.jacobian(self.tokens, SOURCE, TARGET), V)

    def residual_stream(self, tokens: np.ndarray) -> np.ndarray:
        return np.asarray(self.model.activations(tokens, (SOURCE, "resid_post")))


def flops(model: ps.Model, T: int, layers: int) -> float:
    """Of one tangent through whole layers: products only, 2 a multiply-add, attention's square included."""
    d, f = model.d_model, model.spec.d_ff
    return layers * (2 * T * (4 * d * d + 3 * d * f) + 4 * T * T * d)


def limit(threads: int) -> float:
    """GFLOPS of a large sgemm by PyTorch: what the machine can do."""
    torch.set_num_threads(threads)
    A = torch.randn(2048, 2048)
    return 2 * 2048**3 / min(once(lambda: A @ A, 0.5).seconds for _ in range(5)) / 1e9


def jacobian(s: Setup) -> None:
    rng = np.random.default_rng(0)
    peak = limit(s.threads)
    for T in (TOKENS, 8):
        tokens = s.tokens[:T]
        V = np.linalg.qr(rng.standard_normal((s.model.d_model, COLUMNS)))[0].astype(np.float32)
        J, B = (m.jacobian(tokens, SOURCE, TARGET) for m in (s.model, s.bf16))
        h = s.residual_stream(tokens)
        work: dict[str, Work] = {"powersteer": lambda J=J, V=V: J.T @ (J @ V),
                                 "powersteer, bf16 weights": lambda B=B, V=V: B.T @ (B @ V)}  # fmt: skip
        work["torch.func"], work["JAX, jit"] = torch_both(s.hf, h, V), jax_both(s.hf, h, V)
        ours, peer = J.T @ (J @ V), np.asarray(work["torch.func"]()).T
        assert np.abs(ours - peer).max() < 1e-3 * np.abs(ours).max(), "torch.func computes something else"
        count = 2 * COLUMNS * flops(s.model, T, TARGET - SOURCE)

        seconds = measure(work, s.rounds)
        peak = max(peak, limit(s.threads))  # it depends on what else the machine does

        def note(t: float, count: float = count, peak: float = peak) -> str:
            return f"{count / t / 1e9:6.0f} GFLOPS unpruned = {100 * count / t / 1e9 / peak:.0f}% of {peak:.0f}"

        show(f"JᵀJ on {COLUMNS} columns, layers {SOURCE}–{TARGET}, {T} tokens", seconds, note)


def triplets(s: Setup) -> None:
    """To the published algorithm's own residual, and to 1e-3."""
    J = s.model.jacobian(s.tokens, SOURCE, TARGET)
    took, reached = s.published
    work: dict[str, Work] = {f"{tol:.0e}": lambda tol=tol: J.svd(K, tol=tol) for tol in (reached, 1e-2, 1e-3)}
    for tol, seconds in measure(work, s.rounds).items():
        peers = {"powersteer": seconds, "published algorithm": took}
        show(f"top {K} triplets, layers {SOURCE}–{TARGET}, to residual {tol} (published: {reached:.0e})", peers)


def forward(s: Setup) -> None:
    ids = torch.tensor(s.tokens)[None].long()

    def theirs() -> object:
        with torch.no_grad():
            return s.hf(ids, use_cache=False).logits

    work: dict[str, Work] = {"powersteer": lambda: s.model(s.tokens), "powersteer, bf16 weights": lambda: s.bf16(s.tokens),
                             "transformers": theirs}  # fmt: skip
    for name, llama in llamas(s).items():
        work[name] = lambda llama=llama: (llama.reset(), llama.eval(s.tokens.tolist()))
    show(f"forward pass, {TOKENS} tokens", measure(work, s.rounds))


def decode(s: Setup) -> None:
    """A greedy token after TOKENS, and a step of 24 rows: the time of 1 + 32 tokens less that of 1, a step."""
    prompt, steps = s.tokens.tolist(), 32
    rows = [replace(v.relative(0.2), weights=None) for v in ps.random_vectors(s.model, SOURCE, k=24, prompts=[prompt])]
    mask = torch.ones(1, TOKENS, dtype=torch.long)

    def theirs(n: int) -> object:
        with torch.no_grad():
            return s.hf.generate(
                torch.tensor([prompt]), attention_mask=mask, max_new_tokens=n, min_new_tokens=n, do_sample=False
            )

    def llama_says(llama: Any, n: int) -> object:
        llama.reset()
        llama.eval(prompt)
        for _ in range(n - 1):
            llama.eval([int(np.argmax(llama.scores[llama.n_tokens - 1]))])
        return None

    say: dict[str, Callable[[int], object]] = {
        "powersteer": lambda n: s.model.generate(prompt, max_new_tokens=n, stop=[]),
        "powersteer, bf16 weights": lambda n: s.bf16.generate(prompt, max_new_tokens=n, stop=[]),
        "24 rows": lambda n: s.model.generate([prompt] * 24, max_new_tokens=n, stop=[], steer=rows),
        "24 rows, bf16 weights": lambda n: s.bf16.generate([prompt] * 24, max_new_tokens=n, stop=[], steer=rows),
        "transformers": theirs,
    }
    for name, llama in llamas(s).items():
        say[name] = lambda n, llama=llama: llama_says(llama, n)
    long = measure({name: lambda f=f: f(1 + steps) for name, f in say.items()}, s.rounds)
    short = measure({name: lambda f=f: f(1) for name, f in say.items()}, s.rounds)
    a_step = {
        name: None if (a := long[name]) is None or (b := short[name]) is None else (a - b) / steps for name in say
    }
    many, many_bf16 = a_step.pop("24 rows"), a_step.pop("24 rows, bf16 weights")
    show("a token decoded", a_step)
    weights, limit = sum(p.numel() for p in s.hf.parameters()), read_bandwidth(s.threads)  # the embedding is the head, too
    for name, size in (("powersteer", 4), ("powersteer, bf16 weights", 2)):
        if t := a_step[name]:
            print(f"  {name}: weights read at {size * weights / t / 1e9:.1f} GB/s; a sum by PyTorch reads at {limit:.1f}")
    show("24 differently steered rows, a token each", {"powersteer": many, "powersteer, bf16 weights": many_bf16})
    if (one := a_step["powersteer"]) and many:
        print(f"  {24 * one / many:.1f}x the throughput of one row")


def read_bandwidth(threads: int) -> float:
    """GB/s at which all threads sum 512 MiB: what decoding is bound by."""
    torch.set_num_threads(threads)
    x = torch.ones(2**27)
    return 2**29 / min(once(lambda: x.sum(), 0.5).seconds for _ in range(5)) / 1e9


def llamas(s: Setup) -> dict[str, Any]:
    """llama.cpp on GGUF files of the same weights, where llama-cpp-python is installed."""
    try:
        from llama_cpp import Llama
    except ImportError:
        return {}
    sys.path.insert(0, str(HERE.parent / "tests"))
    import gguf
    import gguf_models

    kinds = {"F32": gguf.GGMLQuantizationType.F32, "BF16": gguf.GGMLQuantizationType.BF16}
    made = {}
    for name, kind in kinds.items():
        path = s.folder / f"{name}.gguf"
        if not path.exists():
            gguf_models.write(path, s.hf, kind)
        made[f"llama.cpp {name}"] = Llama(
            str(path), n_ctx=512, n_threads=s.threads, n_threads_batch=s.threads, verbose=False
        )
    return made


def scaling(s: Setup) -> None:
    """Seconds of J'J against columns, tokens, layers and width, and as a plot."""
    rng = np.random.default_rng(0)

    def case(columns: int, T: int, layers: int, width: int) -> Work:
        model, heads = s.model, width // 64
        if width != model.d_model:
            model = ps.from_transformers(make_model(
                TARGET + 1, 0.4, hidden_size=width, intermediate_size=4 * width, num_attention_heads=heads,
                num_key_value_heads=heads, vocab_size=64,
            ))  # fmt: skip
        J = model.jacobian(np.arange(T) % 64, TARGET - layers, TARGET)
        V = rng.standard_normal((width, columns)).astype(np.float32)
        return lambda: J.T @ (J @ V)

    axes: dict[str, tuple[int, Sequence[int]]] = {  # name -> (usual, tried)
        "columns": (COLUMNS, (1, 2, 4, 8, 12, 24, 48)),
        "tokens": (TOKENS, (8, 16, 32, 64, 128, 256)),
        "layers": (TARGET - SOURCE, (1, 2, 4, 6, 8)),
        "width": (s.model.d_model, (256, 512, 768, 1024)),
    }
    usual = {name: one for name, (one, _) in axes.items()}
    figure, plots = new_figure(len(axes))
    print("\nJ'J, milliseconds")
    for plot, (name, (_, tried)) in zip(plots, axes.items(), strict=True):
        seconds = [measure({"": case(*(usual | {name: x}).values())}, s.rounds)[""] for x in tried]
        said = ", ".join(f"{x}: {BUSY_SIGN if t is None else f'{1e3 * t:.1f}'}" for x, t in zip(tried, seconds, strict=True))
        print(f"  {name:<8} {said}", flush=True)
        plot.plot(tried, [np.nan if t is None else 1e3 * t for t in seconds], "o-")
        plot.set(xlabel=name, ylabel="ms of J'J" if plot is plots[0] else "", xscale="log", yscale="log")
        plot.minorticks_off()
        plot.set_xticks(tried, list(map(str, tried)))
    figure.savefig(HERE / "scaling.svg")


def certificates(s: Setup) -> None:
    """Seconds to a largest residual of 12 triplets: the published algorithm, powersteer's power iteration and Krylov; as a
    plot."""
    J = s.model.jacobian(s.tokens, SOURCE, TARGET)
    points = {
        "published, 5 iterations": [s.published],
        "power": [timed(lambda n=n: J.svd(K, method="power", iterations=n)) for n in (1, 2, 3, 5, 8, 12, 20)],
        "krylov": [timed(lambda tol=tol: J.svd(K, tol=tol)) for tol in (0.3, 0.1, 3e-2, 1e-2, 1e-3, 1e-4, 1e-5)],
    }
    figure, (plot,) = new_figure(1)
    print(f"\nthe largest residual of {K} triplets after seconds")
    for name, curve in points.items():
        print(f"  {name:<24} " + ", ".join(f"{reached:.0e}: {seconds:.1f}" for seconds, reached in curve), flush=True)
        plot.plot(*zip(*curve, strict=True), "o-", label=name)
    plot.set(xlabel="seconds", ylabel="largest residual over σ₁", xscale="log", yscale="log")
    plot.legend()
    figure.savefig(HERE / "residuals.svg")


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """(seconds, largest residual) of an SVD."""
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ps.ConvergenceWarning)  # what it reached is what is asked
        result = work()
    return time.perf_counter() - started, float(result.residuals.max())


def new_figure(n: int) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, plots = plt.subplots(1, n, figsize=(max(4 * n, 6), 3.4), layout="constrained", squeeze=False)
    return figure, plots[0]


def overhead(s: Setup) -> None:
    """A call of Python on a model so small that nothing else counts."""
    tiny = make_model(2, 0.4, hidden_size=16, intermediate_size=16, num_attention_heads=1, num_key_value_heads=1, vocab_size=32)
    model = ps.from_transformers(tiny.to(torch.float32))
    J = model.jacobian([1, 2], 0, 1)
    (u, v), tokens = (np.ones(n, np.float32) for n in J.shape), np.array([1, 2], np.int32)
    seconds = measure({"J @ v": lambda: J @ v, "J.T @ u": lambda: J.T @ u, "model(tokens)": lambda: model(tokens)}, s.rounds)
    print("\na call on a model of 2 layers and width 16, 1 or 2 tokens")
    for name, t in seconds.items():
        print(f"  {name:<34} " + (BUSY_SIGN if t is None else f"{1e6 * t:6.0f} us"))


# ---- the table

COLUMN = ("powersteer", "powersteer, bf16 weights", "torch.func", "JAX, jit", "published algorithm", "transformers",
          "llama.cpp F32", "llama.cpp BF16")  # fmt: skip
MARKS = ("<!-- written by benchmarks/speed.py --write -->", "<!-- end -->")


def table() -> str:
    """Markdown: our times, and theirs over ours of the same weights' (llama.cpp BF16: over our bf16)."""

    def cell(row: dict[str, float | None], name: str) -> str:
        if name not in row:
            return ""
        t, ours = row[name], row.get("powersteer, bf16 weights" if name == "llama.cpp BF16" else "powersteer")
        if t is None or not ours:
            return BUSY_SIGN
        return f"{1e3 * t:.0f} ms" if name.startswith("powersteer") else f"{t / ours:.2f}×"

    head = [c.replace("powersteer, ", "") for c in COLUMN]
    lines = [["", *head], ["---"] * (1 + len(head))]
    lines += [[title, *(cell(row, name) for name in COLUMN)] for title, row in TABLE.items()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_table() -> None:
    for path in (HERE / "SPEED.md", HERE.parent / "README.md"):
        before, _, rest = path.read_text().partition(MARKS[0])
        _, _, after = rest.partition(MARKS[1])
        path.write_text(f"{before}{MARKS[0]}\n{table()}\n{MARKS[1]}{after}")


CASES: dict[str, Callable[[Setup], None]] = {
    "jacobian": jacobian, "triplets": triplets, "forward": forward, "decode": decode, "overhead": overhead,
    "scaling": scaling, "certificates": certificates,
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(CASES), action="append", help="repeatable; default all")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--write", action="store_true", help="the table into SPEED.md and README.md")
    parser.add_argument("--llama", metavar="FOLDER", help="where llama-cpp-python is, if not in this environment")
    a = parser.parse_args(argv)
    if a.llama:
        sys.path.append(a.llama)
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    hf = make_model(12, 0.4)
    with tempfile.TemporaryDirectory() as folder:
        bf16 = Path(folder) / "bf16"
        (hf.to(torch.bfloat16)).save_pretrained(bf16)
        hf = hf.to(torch.float32)  # the same numbers for all
        tokens = np.random.default_rng(0).integers(3, 32000, TOKENS).astype(np.int32)
        setup = Setup(hf, ps.from_transformers(hf), ps.load(bf16), tokens, Path(folder), a.rounds, threads)
        print(
            f"{threads} threads, load {os.getloadavg()[0]:.1f}; powersteer {ps.__version__}, PyTorch {torch.__version__}"
        )
        for name in a.only or CASES:
            CASES[name](setup)
    if a.write:
        write_table()


if __name__ == "__main__":
    main()
