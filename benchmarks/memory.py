"""Peak memory against the size of a bfloat16 checkpoint with random weights.

    python benchmarks/memory.py --gigabytes 1.2 --tokens 64

Writes a Llama-shaped checkpoint to a temporary folder, then in a fresh process loads it, runs a forward pass, and takes a
Jacobian from one layer to the next with one application of J and of its transpose. Prints the resident memory that is the
file's own pages (clean, shared, given back under pressure) and the peak of everything else. Linux only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

SHAPES = {  # of a layer of well-known models: d_model, d_ff, heads, key/value heads, head_dim
    "1b": (2048, 8192, 32, 8, 64),
    "8b": (4096, 14336, 32, 8, 128),
}


def write_checkpoint(folder: Path, shape: str, gigabytes: float, n_vocab: int = 32000) -> int:
    """Layers until the file has the size wanted. The header is written by hand: the weights are streamed, never held."""
    d, f, heads, kv, hs = SHAPES[shape]
    layer = {"self_attn.q_proj": (heads * hs, d), "self_attn.k_proj": (kv * hs, d), "self_attn.v_proj": (kv * hs, d),
             "self_attn.o_proj": (d, heads * hs), "mlp.gate_proj": (f, d), "mlp.up_proj": (f, d), "mlp.down_proj": (d, f),
             "input_layernorm": (d,), "post_attention_layernorm": (d,)}
    tensors = {"model.embed_tokens.weight": (n_vocab, d), "model.norm.weight": (d,)}
    n_layers = max(2, round((gigabytes * 1e9 / 2 - n_vocab * d) / sum(int(np.prod(s)) for s in layer.values())))
    tensors |= {f"model.layers.{i}.{name}.weight": s for i in range(n_layers) for name, s in layer.items()}
    header, at = {}, 0
    for name, s in tensors.items():
        size = 2 * int(np.prod(s))
        header[name] = {"dtype": "BF16", "shape": s, "data_offsets": [at, at + size]}
        at += size
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": d, "intermediate_size": f,
              "num_hidden_layers": n_layers, "num_attention_heads": heads, "num_key_value_heads": kv, "head_dim": hs,
              "vocab_size": n_vocab, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
              "hidden_act": "silu", "tie_word_embeddings": True, "torch_dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(config))
    pool = np.random.default_rng(0).standard_normal(1 << 24, dtype=np.float32)  # drawn once: 16 GB would take minutes
    with open(folder / "model.safetensors", "wb") as out:
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        out.write(len(text).to_bytes(8, "little") + text)
        for s in tensors.values():
            left = int(np.prod(s))
            while left:
                n = min(left, 1 << 24)
                x = np.ones(n, np.float32) if len(s) == 1 else pool[:n] / np.sqrt(s[-1], dtype=np.float32)
                out.write((x.view(np.uint32) >> 16).astype(np.uint16).tobytes())
                left -= n
    return n_layers


def resident() -> dict[str, int]:
    lines = Path("/proc/self/status").read_text().splitlines()
    return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith("Rss")}


def measure(folder: str, tokens: int) -> None:
    """Run in the fresh process: prints one JSON object."""
    import powersteer as ps

    before, peak, done = resident()["RssAnon"], [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            peak[0] = max(peak[0], resident()["RssAnon"])

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    start = time.perf_counter()
    model = ps.load(folder)
    loaded = time.perf_counter()
    prompt = np.arange(1, tokens + 1)
    logits = model(prompt)
    forward = time.perf_counter()
    J = model.jacobian([prompt.tolist()], 0, 1)
    u = J @ np.ones(model.d_model, np.float32)
    v = J.T @ u
    finished = time.perf_counter()
    done.set()
    watcher.join()
    assert np.isfinite(logits).all() and np.isfinite(v).all()
    print(json.dumps({
        "weights": model.spec.nbytes, "before": before, "peak": peak[0], "file_pages": resident()["RssFile"], "tape": J.nbytes,
        "logits": logits.nbytes, "load_s": loaded - start, "forward_s": forward - loaded, "jacobian_s": finished - forward,
    }))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=1.2)
    parser.add_argument("--shape", choices=SHAPES, default="1b")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--measure", metavar="FOLDER", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        return measure(args.measure, args.tokens)
    with tempfile.TemporaryDirectory() as folder:
        n_layers = write_checkpoint(Path(folder), args.shape, args.gigabytes)
        command = [sys.executable, __file__, "--measure", folder, "--tokens", str(args.tokens)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        size = (Path(folder) / "model.safetensors").stat().st_size
    own = found["peak"] - found["before"]
    print(f"{args.shape} layers x {n_layers}, {args.tokens} tokens, file {size / 1e9:.2f} GB")
    print(f"file pages resident   {found['file_pages'] / 1e9:7.3f} GB")
    parts = f"logits {found['logits'] / 1e9:.3f}, tape {found['tape'] / 1e9:.3f}"
    print(f"peak beyond them      {own / 1e9:7.3f} GB  = {own / size:.1%} of the file ({parts})")
    print(f"load {found['load_s']:.1f} s, forward {found['forward_s']:.1f} s, Jacobian with one J and one J' {found['jacobian_s']:.1f} s")


if __name__ == "__main__":
    main()
