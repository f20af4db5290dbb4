"""A hub id that the cache lacks, downloaded by huggingface_hub from a server of our own."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading

import checkpoints
import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LOAD = "import sys, powersteer as ps; m = ps.load(sys.argv[1]); print(m.n_layers, m.path)"


class Hub(http.server.BaseHTTPRequestHandler):
    """What snapshot_download asks of a hub: the files of a revision, and each of them."""

    folder, asked = None, []

    def do_HEAD(self):
        self.do_GET(body=False)

    def do_GET(self, body=True):
        path = self.path.partition("?")[0]
        self.asked.append(path)
        files = sorted(p.name for p in self.folder.iterdir())
        if path.startswith("/api/models/org/tiny/revision/main") or path == "/api/models/org/tiny":
            siblings = [{"rfilename": name} for name in files]
            return self._send(json.dumps({"id": "org/tiny", "sha": COMMIT, "siblings": siblings}).encode(), body)
        if path.startswith(f"/api/models/org/tiny/tree/{COMMIT}"):
            entries = [{"type": "file", "path": n, "size": (self.folder / n).stat().st_size, "oid": "0" * 40} for n in files]
            return self._send(json.dumps(entries).encode(), body)
        name = path.removeprefix(f"/org/tiny/resolve/{COMMIT}/")
        if name in files:
            return self._send((self.folder / name).read_bytes(), body, "application/octet-stream")
        self.send_error(404)

    def _send(self, data, body, kind="application/json"):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_):
        """Quiet."""


@pytest.fixture
def hub(tmp_path):
    folder = checkpoints.copy("llama", tmp_path)
    (folder / "pytorch_model.bin").write_bytes(b"never asked for")
    handler = type("Here", (Hub,), {"folder": folder, "asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server, handler.asked
    server.shutdown()
    thread.join()
    server.server_close()


def load(server, cache, name="org/tiny", **more):
    env = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and "proxy" not in k.lower()}
    env |= {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HUB_CACHE": str(cache), **more}
    return subprocess.run([sys.executable, "-c", LOAD, name], env=env, capture_output=True, text=True, timeout=120)


@pytest.mark.long
def test_downloaded_once_and_then_offline(hub, tmp_path):
    server, asked = hub
    offline = load(server, tmp_path / "cache", HF_HUB_OFFLINE="1")
    assert offline.returncode and "HF_HUB_OFFLINE forbids" in offline.stderr and not asked
    first = load(server, tmp_path / "cache")
    assert first.returncode == 0, first.stderr
    layers, _, path = first.stdout.strip().partition(" ")
    assert int(layers) > 0 and COMMIT in path and str(tmp_path / "cache") in path
    assert any(name.endswith("model.safetensors") for name in asked) and not any("pytorch_model" in name for name in asked)
    asked.clear()
    again = load(server, tmp_path / "cache")
    assert again.stdout == first.stdout and not asked  # the cache answers; nothing reaches the network
    next((tmp_path / "cache").rglob("model.safetensors")).unlink()  # a download that was broken off is taken up again
    again = load(server, tmp_path / "cache")
    assert again.stdout == first.stdout and asked
    missing = load(server, tmp_path / "cache", "org/absent")
    assert missing.returncode and "org/absent" in missing.stderr and "downloading it failed" in missing.stderr
