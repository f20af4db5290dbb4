"""Mutation tests: deliberate bugs, one at a time, that the tests must notice.

    python tools/mutate.py                  every bug of tools/mutations.py; exit code 1 if one survives
    python tools/mutate.py --only NAME ...  some of them; --list names them; --jobs 2 runs two side by side
    python tools/mutate.py --clean          the whole suite on the unchanged copy, which must pass

A worker copies the repository into a temporary folder and builds it there once. For each bug it replaces one text,
compiles what that text reaches (one file of both cores, or all for a header), runs the test files named with the bug
and, if these pass, all the others; then it puts everything back. The repository itself is only read.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

sys.path.insert(0, str(Path(__file__).parent))
from mutations import MUTATIONS, Mutation

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("csrc", "powersteer", "tests", "tools", "docs", "notebooks", "benchmarks", "studies", "conftest.py", "powersteer_pytest.py",
          "setup.py", "pyproject.toml", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "MANIFEST.in")  # fmt: skip
# these say nothing of the arithmetic, and copy, build or browse for minutes; the first needs unchanged texts
LEFT_OUT = ("test_mutations", "test_build", "test_browser", "test_browser_page", "test_jupyterlab", "test_notebooks")
NAMED_SECONDS, REST_SECONDS = 400, 1800  # a bug that hangs is noticed, too
QUIET = {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "POWERSTEER_WERROR": "0"}


def mutated(mutation: Mutation, root: Path) -> str:
    """The file's text with the bug. Raises ValueError if the text to replace is not there as often as it should be."""
    text = (root / mutation.path).read_text(encoding="utf-8")
    if (found := text.count(mutation.old)) != mutation.count:
        raise ValueError(f"{mutation.name}: {mutation.path} has its text {found} times, not {mutation.count}")
    if mutation.old == mutation.new:
        raise ValueError(f"{mutation.name} changes nothing")
    return text.replace(mutation.old, mutation.new)


class Worker:
    """A copy of the repository, built."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "repository"
        self.root.mkdir()
        for name in COPIED:
            if (ROOT / name).is_dir():
                unwanted = shutil.ignore_patterns("*.so", "__pycache__", ".*")
                shutil.copytree(ROOT / name, self.root / name, ignore=unwanted)
            elif (ROOT / name).is_file():
                shutil.copy2(ROOT / name, self.root / name)
        if (ROOT.parent / "shared").exists():  # the tests' trained models lie beside the repository
            (folder / "shared").symlink_to(ROOT.parent / "shared")
        self.commands = self._build()
        self.kept = folder / "kept"
        for path in self._built():
            (self.kept / path.relative_to(self.root)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, self.kept / path.relative_to(self.root))

    def _built(self) -> list[Path]:
        return [*self.root.glob("build/**/*.o"), *self.root.glob("powersteer/_core/*.so")]

    def _build(self) -> list[list[str]]:
        """Builds everything; the compiler's command lines."""
        done = self._run([sys.executable, "setup.py", "build_ext", "--inplace"], 1200)
        if done.returncode:
            raise SystemExit(done.stdout[-3000:])
        commands = [shlex.split(line) for line in done.stdout.splitlines() if " -o " in line and "csrc" in line]
        for command in commands:
            if "-c" not in command:  # setuptools links elsewhere and copies
                out = command.index("-o") + 1
                command[out] = f"powersteer/_core/{Path(command[out]).name}"
        return commands

    def _run(self, command: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
        # a session of its own, so that what a test has started ends with it
        with subprocess.Popen(command, cwd=self.root, env=os.environ | QUIET, text=True, errors="replace",
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True) as process:  # fmt: skip
            code = None
            try:
                out, _ = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                code = 124
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if code:
                out, _ = process.communicate()
        return subprocess.CompletedProcess(command, code or process.returncode, out)

    def reached(self, path: str) -> set[str]:
        """A C file or header, and what includes it."""
        files = {p.relative_to(self.root).as_posix(): p.read_text(encoding="utf-8") for p in self.root.glob("csrc/**/*.[ch]")}
        found, new = set(), {path}
        while new:
            found |= new
            names = tuple(f'{Path(name).name}"' for name in new)  # a name says which: no two headers share one
            new = {name for name, text in files.items() if any(n in text for n in names)} - found
        return found

    def compile(self, path: str) -> str:
        """Compiles what depends on a C file or header. Returns the compiler's complaint, or nothing."""
        reached = self.reached(path)
        compiling = [c for c in self.commands if "-c" in c and reached.intersection(c)]
        linking = [c for c in self.commands if "-c" not in c]
        for command in compiling + linking:
            out = Path(self.root, command[command.index("-o") + 1])
            out.unlink(missing_ok=True)
            done = self._run(command, 600)
            if done.returncode:
                return done.stdout
        return ""

    def restore(self, path: str) -> None:
        shutil.copy2(ROOT / path, self.root / path)
        if path.endswith((".c", ".h")):
            for built in self.kept.rglob("*"):
                target = self.root / built.relative_to(self.kept)
                if built.is_file() and (not target.exists() or built.stat().st_mtime_ns != target.stat().st_mtime_ns):
                    target.unlink(missing_ok=True)
                    shutil.copy2(built, target)

    def test(self, names: list[str], seconds: float) -> str:
        """Runs test files until one fails. Returns which, or nothing."""
        files = [f"tests/{name}.py" for name in names]
        done = self._run(
            [sys.executable, "-m", "pytest", "-x", "-v", "-m", "not slow", "--tb=line", "--color=no", "-p", "no:cacheprovider", *files],
            seconds,
        )
        if done.returncode in (0, 5):  # 5: everything was left out
            return ""
        tests = re.findall(r"^(tests/\S+?::.*?|tests/\S+\.py)(?: (FAILED|ERROR|PASSED|SKIPPED).*)?$", done.stdout, re.M)
        failed = [test for test, state in tests if state in ("FAILED", "ERROR")]
        if done.returncode == 124:
            return f"no end in {seconds:.0f} s: {tests[-1][0] if tests else files[0]}"
        if failed:
            return failed[0]
        return f"exit {done.returncode}: {tests[-1][0] if tests else done.stdout[-300:]}"

    def try_out(self, mutation: Mutation, quick: bool) -> str:
        """What noticed the bug, or nothing. quick: of the test files named with it."""
        text = mutated(mutation, ROOT)
        (self.root / mutation.path).write_text(text, encoding="utf-8")
        try:
            if mutation.path.endswith((".c", ".h")) and (complaint := self.compile(mutation.path)):
                raise SystemExit(f"{mutation.name} does not compile:\n{complaint[-2000:]}")
            named = [f"test_{name}" for name in mutation.tests]
            return self.test(named, NAMED_SECONDS) or ("" if quick else self.test(self.others(named), REST_SECONDS))
        finally:
            self.restore(mutation.path)

    def others(self, named: list[str]) -> list[str]:
        every = sorted(path.stem for path in (self.root / "tests").glob("test_*.py"))
        return [name for name in every if name not in named and name not in LEFT_OUT]


def run(mutations: list[Mutation], jobs: int, quick: bool) -> list[Mutation]:
    """Tries them, printing a line each; returns the survivors."""
    idle: SimpleQueue[Worker] = SimpleQueue()
    survivors = []

    def one(mutation: Mutation) -> None:
        worker, started = idle.get(), time.monotonic()
        try:
            by = worker.try_out(mutation, quick)
        finally:
            idle.put(worker)
        if not by:
            survivors.append(mutation)
        what = f"caught by {by}" if by else "SURVIVED"
        print(f"{mutation.name:34} {time.monotonic() - started:5.0f} s  {what}", flush=True)

    with tempfile.TemporaryDirectory(prefix="powersteer-mutate-") as folder:
        for i in range(jobs):
            (Path(folder) / str(i)).mkdir()
            idle.put(Worker(Path(folder) / str(i)))
        with ThreadPoolExecutor(jobs) as pool:
            for done in [pool.submit(one, mutation) for mutation in mutations]:
                done.result()
    return survivors


def clean() -> None:
    with tempfile.TemporaryDirectory(prefix="powersteer-mutate-") as folder:
        worker = Worker(Path(folder))
        if failed := worker.test(worker.others([]), 2 * REST_SECONDS):
            raise SystemExit(f"the unchanged copy fails: {failed}")
    print("the unchanged copy passes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="names of bugs, or beginnings of names")
    parser.add_argument("--list", action="store_true", help="name them and end")
    parser.add_argument("--quick", action="store_true", help="the test files named with each bug only")
    parser.add_argument("--clean", action="store_true", help="no bug at all: the suite must pass")
    parser.add_argument("--jobs", type=int, default=1, help="copies that work side by side")
    arguments = parser.parse_args()
    chosen = [m for m in MUTATIONS if not arguments.only or m.name.startswith(tuple(arguments.only))]
    if not chosen:
        parser.error(f"there is no bug {arguments.only}")
    for mutation in chosen:
        mutated(mutation, ROOT)
    if arguments.list:
        print("\n".join(f"{m.name:34} {m.path}" for m in chosen))
    elif arguments.clean:
        clean()
    else:
        survivors = run(chosen, min(arguments.jobs, len(chosen)), arguments.quick)
        print(f"{len(chosen) - len(survivors)} of {len(chosen)} caught")
        if survivors:
            raise SystemExit("survived: " + ", ".join(m.name for m in survivors))


if __name__ == "__main__":
    main()
