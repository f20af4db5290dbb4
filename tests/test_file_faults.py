"""Every kind of file that is written: killed at each step, on a full disk, in a folder of somebody else. What is there
afterwards is the old file or the new one, whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="processes, limits and permissions as POSIX has them")

# Runs in a process of its own, which forks one child a fault and looks at the folder afterwards.
SCRIPT = """
import base64, json, os, re, resource, signal, sys, tempfile, zlib
from pathlib import Path
import tiny
import powersteer as ps

model = tiny.tiny(n_layers=3)[0]
what, folder = sys.argv[1], Path(tempfile.mkdtemp(dir=sys.argv[2]))

def vectors():
    old, new = (ps.random_vectors(model, layer, k=2, seed=layer) for layer in (0, 1))
    return [v[0] for v in (old, new)], lambda v, path: v.save(path), ps.SteeringVector.load, lambda v: v.layer

def lists():
    old, new = (ps.random_vectors(model, layer, k=2, seed=layer) for layer in (0, 1))
    return [old, new], lambda v, path: ps.save_vectors(path, v), ps.load_vectors, lambda v: v[1].layer

def gguf():
    old, new = (ps.random_vectors(model, layer)[0] for layer in (1, 2))
    return [old, new], lambda v, path: v.to_gguf(path, model_hint="llama"), ps.load_vectors, lambda v: v[0].layer

def effects():
    made = [ps.effects(model, ["a"], ps.random_vectors(model, 0), scales=s, max_new_tokens=0, n_random=1) for s in (1.0, 2.0)]
    return made, lambda e, path: e.save(path), ps.Effects.load, lambda e: e.settings["scales"]

def report():
    made = [ps.atlas(model, ["ab"], k=k, progress=False) for k in (1, 2)]
    def read(path):  # not its length, which follows from the second of writing: that is in a packed block of the page
        page = path.read_bytes()
        assert page.rstrip().endswith(b"</html>")
        return json.loads(zlib.decompress(base64.b64decode(re.search(rb'id="data-index">(.+?)</', page)[1])))
    return made, lambda a, path: a.report(path), read, lambda page: page["settings"]["k"]

def lens():
    made = [ps.JLens.fit(model, ["ab", "cd"][:n], skip_first=0) for n in (1, 2)]
    return made, lambda j, path: j.save(path), ps.JLens.load, lambda j: j.n_prompts

(old, new), write, read, mark = {f.__name__: f for f in (vectors, lists, gguf, effects, report, lens)}[what]()
path = folder / ("a.gguf" if what == "gguf" else "a.file")
write(new, path)
after, size = mark(read(path)), path.stat().st_size
write(old, path)
before = mark(read(path))
assert before != after

def child(body):
    pid = os.fork()
    if not pid:
        try:
            body()
            write(new, path)
        except OSError as error:
            os._exit(3 if str(path.name) in str(error) else 4)
        os._exit(0)
    return os.waitpid(pid, 0)[1]

def die_at(n):
    'SIGKILL before the n-th of the calls that change the disk'
    calls = iter(range(1, n + 1))
    def counted(call):
        def work(*args, **kwargs):
            if next(calls) == n:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)
        return work
    for name in ("open", "fsync", "replace", "close"):
        setattr(os, name, counted(getattr(os, name)))
    fdopen = os.fdopen
    def opened(fd, mode):
        file = fdopen(fd, mode, buffering=0)
        file_write = file.write
        class Halves:  # a file whose every write is two
            def __enter__(self): return self
            def __exit__(self, *error): file.close()
            def __getattr__(self, name): return getattr(file, name)
            def write(self, data):
                half = len(data) // 2
                for part in (data[:half], data[half:]):
                    counted(lambda: file_write(part))()
                return len(data)
        return Halves()
    os.fdopen = opened

seen = []
for n in range(1, 10000):
    status = child(lambda: die_at(n))
    found = mark(read(path))
    assert found in (before, after), (n, found)
    seen.append(found == after)
    write(old, path)
    if status == 0:
        break
    assert status == signal.SIGKILL, status
assert seen == sorted(seen) and not seen[0] and seen[-1] and seen.count(True) >= 3, seen
left = {p.suffix for p in folder.iterdir()} - {path.suffix}
assert left == {".tmp"}, left
for p in folder.glob(".*.tmp"):
    p.unlink()

content = path.read_bytes()
def limited():
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))
assert os.waitstatus_to_exitcode(child(limited)) == 3  # Python ignores SIGXFSZ

def not_ours():
    real = os.open
    def somebody(*args, **kwargs):  # root may write anywhere; not before, as the package may be in a folder of root's
        if os.geteuid() == 0:
            os.setuid(65534)
        return real(*args, **kwargs)
    os.open = somebody
folder.chmod(0o555)
assert os.waitstatus_to_exitcode(child(not_ours)) == 3
folder.chmod(0o755)
assert path.read_bytes() == content, "the old file has changed"
assert [p.name for p in folder.iterdir()] == [path.name], list(folder.iterdir())
print(len(seen), "faults")
"""


@pytest.mark.parametrize("kind", ["vectors", "lists", "gguf", "effects", "report", "lens"])
def test_whole_or_not_at_all(kind, tmp_path):
    needed = {"report": "plotly", "lens": "torch"}
    if kind in needed:
        pytest.importorskip(needed[kind])
    for place in (tmp_path, *tmp_path.parents):  # an unprivileged child must be able to get there
        if place.owner() == tmp_path.owner() and "pytest" in place.name:
            place.chmod(0o755)
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", SCRIPT, kind, str(tmp_path)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) > 6
