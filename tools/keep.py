"""Ask the oracles and keep their answers: what the light tests compare with where PyTorch, transformers, scikit-learn and llama.cpp
are not installed (tests/kept.py). Needs the extras oracles and llama.

    python tools/keep.py                             everything
    python tools/keep.py tests/test_rope.py          the answers of one file of tests; -k NAME: of some of its tests

It writes tests/kept/checkpoints.json, with the config, names and shapes of every random model, and tests/kept/*.safetensors, each
with the versions that gave its answers.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import safetensors.numpy

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests"
UNIMPORTANT = ("transformers_version", "_name_or_path")  # keys of config.json


def checkpoint(name: str) -> dict[str, object]:
    """Config, names and shapes of a case, as transformers saves it."""
    import hf_models

    with tempfile.TemporaryDirectory() as folder:
        hf_models.make(name).save_pretrained(folder)
        config = json.loads((Path(folder) / "config.json").read_text())
        tensors = safetensors.numpy.load_file(Path(folder) / "model.safetensors")
    shapes = {tensor: list(array.shape) for tensor, array in tensors.items()}
    return {"config": {key: value for key, value in config.items() if key not in UNIMPORTANT}, "shapes": shapes}


def write_checkpoints() -> None:
    sys.path.insert(0, str(TESTS))
    import hf_models
    import random_checkpoints

    lines = [f"{json.dumps(name)}: {json.dumps(checkpoint(name), separators=(',', ':'))}" for name in hf_models.CASES]
    random_checkpoints.TABLE.parent.mkdir(exist_ok=True)
    random_checkpoints.TABLE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, help="files of tests; default: all that keep answers")
    parser.add_argument("-k", dest="some", help="only tests of this name, as for pytest; the other answers stay")
    arguments = parser.parse_args()
    write_checkpoints()
    files = arguments.files or [path for path in sorted(TESTS.glob("test_*.py")) if "kept(" in path.read_text()]
    for path in files if not arguments.some else ():
        (TESTS / "kept" / f"{path.stem}.safetensors").unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-m", "not slow", *map(str, files)]
    env = os.environ | {"POWERSTEER_KEEP": "1", "POWERSTEER_TEST_SEED": "0"}
    done = subprocess.run(command + (["-k", arguments.some] if arguments.some else []), cwd=ROOT, env=env)
    for path in sorted((TESTS / "kept").glob("*")):
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1024:.0f} KiB")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
