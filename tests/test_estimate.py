"""What is said beforehand against what is allocated."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny import tiny

from powersteer.model.cost import pass_flops

TOKENS = list(range(1, 20))
POSITIONS = 8 * 1024  # bytes of rows' positions and of rotations, which are not counted


@pytest.mark.parametrize("source, target, source_site", [(0, 1, "mlp_out"), (0, 1, "resid_pre"), (0, "next_token", "mlp_out")])
def test_tape(source, target, source_site):
    model, _ = tiny()
    said = model.estimate(TOKENS, source, target, source_site=source_site)
    held = model.jacobian(TOKENS, source, target, source_site=source_site).nbytes
    assert said.weights == model.spec.nbytes and said.flops > 0
    assert 0 <= held - said.tape <= POSITIONS


def test_tape_with_experts():
    model, _ = tiny(n_experts=5, top_k=2)
    said, held = model.estimate(TOKENS, 0, 1).tape, model.jacobian(TOKENS, 0, 1).nbytes
    assert 0 <= held - said <= POSITIONS


def test_application_is_counted_in_full():
    """The operations of a dense block: two a weight and row, and attention's four products. The target's layer has keys and values
    of all rows, and the rest of the target rows."""
    model, _ = tiny()
    n, spec = len(TOKENS), model.spec
    layer = spec.layers[1]
    weights = sum(w.size for w in (layer.q, layer.k, layer.v, layer.o, layer.gate, layer.up, layer.down) if w is not None)
    block = 2 * weights * n + 4 * n**2 * spec.n_heads * spec.head_dim
    keys = layer.k.size + layer.v.size
    end = 2 * keys * n + 2 * (weights - keys) * 2 + 8 * n * 2 * spec.n_heads * spec.head_dim
    assert pass_flops(spec, [n], 1, 1) == block and model.estimate(TOKENS, 0, 1).flops == end
    assert model.estimate(TOKENS, 0, 1, source_site="resid_pre").flops == block + end
    assert model.estimate(TOKENS, 0, 1, target_positions=None).flops == block
    assert model.estimate(TOKENS, 0, "logits").flops - 2 * spec.n_vocab * spec.d_model < end


def test_text_and_forward_only():
    model, _ = tiny()
    said = model.estimate([TOKENS, TOKENS[:3]])
    assert said.tape == said.sweep == said.basis == 0 and said.peak == said.forward > np.asarray(model(TOKENS)).nbytes
    assert "weights" in str(said) and "GFLOP" in str(model.estimate(TOKENS, 0, 1))


# Peaks of resident memory, each from a reset; a small run before touches what stays. The many tokens fill a layer with one vector.
PEAKS = """
import json, sys
sys.path[:0] = [{tests!r}]
from pathlib import Path
import numpy as np
from tiny import tiny

from powersteer.model.cost import pass_flops

def peak(run):
    def resident(field):
        text = Path("/proc/self/status").read_text()
        return 1024 * int(text.split(field + ":")[1].split()[0])
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    kept = run()
    return resident("VmHWM") - before, kept

model, _ = tiny(dtype="float32", d_model=64, d_ff=512, n_ctx=4096, ropes=1, **{table!r})
many = np.arange(3000) % 250
for tokens in (many[:20], many):
    said = model.estimate(tokens, 0, 1, positions=None)
    forward, _ = peak(lambda: model(tokens))
    record, J = peak(lambda: model.jacobian(tokens, 0, 1, positions=None))
    v = np.ones((64, 12), np.float32)
    product, _ = peak(lambda: J @ v)
print(json.dumps([[model.estimate(tokens).peak, forward], [said.tape + said.forward, record], [said.sweep, product]]))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are read from Linux's /proc")
@pytest.mark.parametrize("table", [{}, {"n_experts": 4, "top_k": 4, "dense_layers": (0,)}], ids=["dense", "experts"])
def test_peaks(table):
    """Forward pass, Jacobian and product take no more than is counted, and not much less: buffers for the widest layer
    are not all written by the others."""
    script = PEAKS.format(tests=str(Path(__file__).parent), table=table)
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}  # what is freed is given back at once
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=env)
    for said, taken in json.loads(done.stdout):
        assert said / (1.8 if table else 1.25) <= taken <= 1.02 * said + 2e5, done.stdout
