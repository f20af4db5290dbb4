"""Damage everything that powersteer reads, and every array that enters its C core, and see that it says so.

    python tools/fuzz.py --seconds 60                       # every target for a minute; exit code 1 on a finding
    python tools/fuzz.py --target gguf --seconds 3600

An execution takes a valid input, damages it, and reads it; what still loads is run. Any PowersteerError is an answer; any
other exception, ten seconds of work without an answer or a crash of the process is a finding, kept in tests/fuzz_findings/ as
`<target>-<hash>`, whose files tests/test_fuzz.py reads again for ever. Under POWERSTEER_SANITIZE builds it finds more.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import powersteer as ps
from powersteer.errors import PowersteerError

ROOT = Path(__file__).parent.parent
FINDINGS = ROOT / "tests" / "fuzz_findings"
SLOW = 10  # seconds of the processor
NUMBERS = [0, 1, 2, 7, 255, 256, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**61, 2**63 - 1, 2**63, 2**64 - 1]
VALUES = [None, True, False, 0, -1, 1, 3, 2**31, 2**63, 10**30, 0.5, -1e308, 1e-320, "", "x", "llama", [], [0], [None], {}, {"a": 1}]


# ---- damage


def damage_bytes(data: bytes, rng: random.Random, head: int | None = None) -> bytes:
    """One to three edits, most of them within the first `head` bytes, where the structure is."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(max(1, len(out) if rng.random() < 0.2 or head is None else min(head, len(out))))
        kind = rng.randrange(6)
        if kind == 0:
            out[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            out[at : at + 8] = struct.pack("<Q", rng.choice(NUMBERS))
        elif kind == 2:
            out[at : at + 4] = struct.pack("<I", rng.choice(NUMBERS) & 0xFFFFFFFF)
        elif kind == 3:
            del out[at : at + rng.randint(1, 40)]
        elif kind == 4:
            start = rng.randrange(max(1, len(out)))
            out[at:at] = out[start : start + rng.randint(1, 40)]
        else:
            del out[at:]
    return bytes(out)


def damage_json(data: bytes, rng: random.Random) -> bytes:
    """A value replaced, a key gone, doubled or new; now and then bytes."""
    if rng.random() < 0.2:
        return damage_bytes(data, rng)
    tree = json.loads(data)
    places: list[tuple[object, object]] = []

    def walk(node: object) -> None:
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, child in list(items)[:200]:
            places.append((node, key))
            walk(child)

    walk(tree)
    for _ in range(rng.randint(1, 2)):
        node, key = rng.choice(places)
        if (isinstance(node, dict) and key not in node) or (isinstance(node, list) and key >= len(node)):
            continue  # an edit before took it away
        kind = rng.randrange(4)
        if kind == 0:
            del node[key]
        elif kind == 1 and isinstance(node, dict):
            node[str(key) + rng.choice(["", "_", "s", "_type"])] = rng.choice(VALUES)
        elif kind == 2 and isinstance(node[key], int) and not isinstance(node[key], bool):
            node[key] = rng.choice([node[key] + 1, node[key] - 1, -node[key], node[key] * 2, *NUMBERS])
        else:
            node[key] = rng.choice(VALUES)
    return json.dumps(tree).encode()


def damage_safetensors(data: bytes, rng: random.Random) -> bytes:
    n = int.from_bytes(data[:8], "little")
    if rng.random() < 0.5:
        return damage_bytes(data, rng, 8 + n)
    head = damage_json(data[8 : 8 + n], rng)
    length = len(head) if rng.random() < 0.9 else rng.choice(NUMBERS)
    return length.to_bytes(8, "little") + head + data[8 + n :]


DAMAGE: dict[str, Callable[[bytes, random.Random], bytes]] = {
    ".json": damage_json,
    ".safetensors": damage_safetensors,
    ".gguf": lambda data, rng: damage_bytes(data, rng, 30_000),
}


# ---- targets: a folder of valid files, and what reads it


@dataclass(frozen=True)
class Target:
    make: Callable[[Path], None]  # writes the valid input
    read: Callable[[Path], object]  # reads it, and runs what was read
    weights: dict[str, int]  # how often a file is the one that is damaged, by suffix or name


def run_model(model: ps.Model) -> None:
    ids = [i % model.n_vocab for i in (1, 5, 3)]
    model(ids)
    model.generate([ids], max_new_tokens=3)
    if model.n_layers > 1:
        model.jacobian(ids, 0, model.n_layers - 1).svd(min(2, model.d_model), max_applications=20)
    if model.tokenizer is not None:
        model.to_str_tokens(model.tokens("Q: 12*3\nA:"))


def make_checkpoint(folder: Path) -> None:
    demo = Path(str(ps.load("demo").path))
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(demo / name, folder / name)


def make_vectors(folder: Path) -> None:
    found = ps.load("demo").jacobian("Q: 12*3\nA:", 0, 3).svd(3).vectors
    ps.save_vectors(folder / "v.safetensors", found)


def make_control(folder: Path) -> None:
    model = ps.load("demo")
    ps.save_vectors(folder / "v.gguf", [ps.random_vectors(model, layer, site="resid_post")[0] for layer in (1, 2, 4)])


def make_atlas(folder: Path) -> None:
    model = ps.load("demo")
    made = ps.atlas(model, ["Q: 12*3\nA:"], sources=[0, 2], targets=[3, 4], k=2, out=folder)
    made.effects(1, max_new_tokens=2, n_random=1, progress=False)


def read_atlas(folder: Path) -> None:
    made = ps.Atlas.load(folder)
    made.page_data()
    assert made.S.shape == (5, 5, 2)
    for cell in made:
        made.vectors(cell.source, cell.target)


def make_gguf(folder: Path) -> None:
    sys.path.insert(0, str(ROOT / "tests"))
    import gguf_models
    import gguf_vocabs
    import hf_models
    from test_gguf_tokens import resized

    meta = gguf_vocabs.sentencepiece()
    hf = resized(hf_models.make("qwen2"), len(meta["tokenizer.ggml.tokens"][1]))
    gguf_models.write(folder / "m.gguf", hf, top=meta)


def make_blocks(folder: Path) -> None:
    """A GGUF file of several types of blocks."""
    sys.path.insert(0, str(ROOT / "tests"))
    from test_gguf import IN_PLACE, quantised

    shutil.move(quantised(folder, "llama", IN_PLACE)[0], folder / "m.gguf")
    (folder / "decoded.gguf").unlink()


def make_fp8(folder: Path) -> None:
    sys.path.insert(0, str(ROOT / "tests"))
    from test_scaled import fp8_folder, model_of

    fp8_folder(folder, model_of(hidden_size=64, intermediate_size=96), [32, 64])


TARGETS = {
    "checkpoint": Target(
        make_checkpoint, lambda f: run_model(ps.load(f)),
        {"config.json": 6, "model.safetensors": 6, "tokenizer.json": 3, "tokenizer_config.json": 2, "generation_config.json": 1},
    ),
    "vectors": Target(make_vectors, lambda f: ps.load_vectors(f / "v.safetensors"), {".safetensors": 1}),
    "control": Target(make_control, lambda f: ps.load_vectors(f / "v.gguf"), {".gguf": 1}),
    "gguf": Target(make_gguf, lambda f: run_model(ps.load(f / "m.gguf")), {".gguf": 1}),
    "blocks": Target(make_blocks, lambda f: run_model(ps.load(f / "m.gguf")), {".gguf": 1}),
    "fp8": Target(make_fp8, lambda f: run_model(ps.load(f)), {"config.json": 1, "model.safetensors": 2}),
    "atlas": Target(make_atlas, read_atlas, {".json": 2, ".safetensors": 2}),
}  # fmt: skip


def damage(target: Target, folder: Path, rng: random.Random) -> Path:
    """Damages one file of the folder; returns which."""
    files = sorted(f for f in folder.rglob("*") if f.is_file())
    weight = [target.weights.get(f.name, target.weights.get(f.suffix, 0)) for f in files]
    (file,) = rng.choices(files, weight)
    file.write_bytes(DAMAGE[file.suffix](file.read_bytes(), rng))
    return file


# ---- arrays into C


def random_array(rng: np.random.Generator) -> object:
    """Any shape, type, order, stride and content."""
    shape = tuple(rng.choice([0, 1, 2, 3, 12, 160, 255], size=rng.integers(0, 4)))
    kind = rng.choice(["f4", "f8", "f2", "i4", "i8", "u1", "?", "c8", "O", ">f4", "S3"])
    if kind in ("O", "S3"):
        return np.full(shape, None if kind == "O" else b"abc")
    a = rng.standard_normal(shape)
    if rng.random() < 0.2 and a.size:
        a.flat[rng.integers(a.size)] = rng.choice([np.nan, np.inf, 1e300, -5e-324])
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        a = a.astype(kind)
    form = rng.integers(5)
    if form == 1 and a.ndim:
        a = a[..., ::-1]
    elif form == 2 and a.ndim:
        a = np.broadcast_to(a[..., :1], a.shape)
    elif form == 3:
        a = a.T
    elif form == 4:
        return a.tolist()
    return a


def array_calls(model: ps.Model) -> list[Callable[[object], object]]:
    J = model.jacobian([1, 5, 3], 0, 3)
    matrix = np.eye(12, dtype=np.float32)
    return [
        model, model.tokens, lambda a: model.generate(a, max_new_tokens=2), lambda a: model.run_with_cache(a),
        lambda a: J @ a, lambda a: J.T @ a,
        lambda a: ps.SteeringVector.from_array(a, 1, "mlp_out"), lambda a: model.steered(a), lambda a: ps.svd(a, 2, max_applications=30),
        lambda a: model.jacobian([1, 5, 3], 0, 3, target_positions=a), lambda a: model.jacobian(a, 0, "next_token"),
        lambda a: model.steered(ps.random_vectors(model, 1)[0], positions=a)([1, 2, 3]),
        lambda a: model.generate([1, 2], max_new_tokens=2, seed=a), lambda a: model.generate([1, 2], max_new_tokens=2, stop=a),
        lambda a: ps.svd(matrix, a),
    ]  # fmt: skip


# ---- running


class Slow(Exception):
    pass


def answer(work: Callable[[], object]) -> tuple[str, str]:
    """(what happened, "" or why it is a finding)."""

    def late(*_: object) -> None:
        raise Slow

    signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, SLOW)  # of the processor, so that a busy machine is no finding
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            work()
        return "read", ""
    except (PowersteerError, MemoryError) as error:
        return type(error).__name__, "" if len(str(error)) < 3000 else "its message is very long"
    except Exception as error:  # what else it raises is what is looked for
        return type(error).__name__, f"{type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def fuzz(name: str, seconds: float, seed: int, most: int = 10**9) -> tuple[Counter[str], list[str]]:
    """(outcomes, findings) of one target."""
    rng, outcomes, findings, end = random.Random(f"{name}/{seed}"), Counter[str](), list[str](), time.monotonic() + seconds
    if name == "arrays":
        numbers, calls = np.random.default_rng(seed), array_calls(ps.load("demo"))
        while time.monotonic() < end and sum(outcomes.values()) < most:
            i, a = numbers.integers(len(calls)), random_array(numbers)
            what, why = answer(lambda i=i, a=a: calls[i](a))
            outcomes[what] += 1
            if why:
                findings.append(f"arrays, call {i}: {why} for {a!r:.200}".replace("\n", " "))
        return outcomes, findings
    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as there:
        valid, work = Path(there) / "valid", Path(there) / "work"
        valid.mkdir()
        target.make(valid)
        if answer(lambda: target.read(valid)) != ("read", ""):
            return outcomes, [f"{name}: the valid input is not read"]
        while time.monotonic() < end and sum(outcomes.values()) < most:
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(valid, work)
            file = damage(target, work, rng)
            kept = FINDINGS / f"{name}-{hashlib.sha256(file.read_bytes()).hexdigest()[:12]}"
            if most == 10**9:  # a crash leaves what caused it behind
                keep(kept, file, work)
            what, why = answer(lambda: target.read(work))
            outcomes[what] += 1
            if why:
                keep(kept, file, work)
                findings.append(f"{kept.name}: {why}")
            elif kept.exists():
                shutil.rmtree(kept)
    return outcomes, findings


def keep(kept: Path, file: Path, folder: Path) -> None:
    place = kept / file.relative_to(folder)
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, place)


def replay(kept: Path) -> tuple[str, str]:
    """Read a kept finding again."""
    target = TARGETS[kept.name.partition("-")[0]]
    with tempfile.TemporaryDirectory() as there:
        target.make(Path(there))
        shutil.copytree(kept, there, dirs_exist_ok=True)
        return answer(lambda: target.read(Path(there)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", choices=[*TARGETS, "arrays"], help="default: all, one after the other, each in a process")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target")
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    if a.target is None:
        words = [sys.executable, __file__, "--seconds", str(a.seconds), "--seed", str(a.seed), "--target"]
        codes = [subprocess.run([*words, name], check=False).returncode for name in [*TARGETS, "arrays"]]
        return 1 if any(codes) else 0
    outcomes, findings = fuzz(a.target, a.seconds, a.seed)
    counts = ", ".join(f"{n} {what}" for what, n in outcomes.most_common())
    print(f"{a.target}: {sum(outcomes.values())} executions ({counts}), {len(findings)} findings", flush=True)
    for finding in findings[:20]:
        print(f"  {finding}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
