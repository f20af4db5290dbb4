"""What is said beforehand against what is allocated."""

from __future__ import annotations

import numpy as np
import pytest
from tiny import tiny

TOKENS = list(range(1, 20))


@pytest.mark.parametrize("source, target, source_site", [(0, 1, "mlp_out"), (0, 1, "resid_pre"), (0, "next_token", "mlp_out")])
def test_tape(source, target, source_site):
    model, _ = tiny()
    said = model.estimate(TOKENS, source, target, source_site)
    held = model.jacobian(TOKENS, source, target, source_site).nbytes
    assert said.weights == model.spec.nbytes and said.flops > 0
    assert said.tape <= held <= said.tape * 1.1 + 64 * 1024  # slices start on 64-byte boundaries; positions, base values


def test_tape_with_experts():
    model, _ = tiny(n_experts=5, top_k=2)
    said, held = model.estimate(TOKENS, 0, 1).tape, model.jacobian(TOKENS, 0, 1).nbytes
    assert said * 0.9 <= held <= said * 1.1 + 64 * 1024


def test_application_is_counted_in_full():
    """The operations of a dense block: two a weight and row, and attention's four products."""
    model, _ = tiny()
    said = model.estimate(TOKENS, 0, 1)
    layer = model.spec.layers[1]
    weights = sum(w.size for w in (layer.q, layer.k, layer.v, layer.o, layer.gate, layer.up, layer.down) if w is not None)
    attention = 4 * len(TOKENS) ** 2 * model.spec.n_heads * model.spec.head_dim
    assert said.flops == 2 * weights * len(TOKENS) + attention


def test_text_and_forward_only():
    model, _ = tiny()
    said = model.estimate([TOKENS, TOKENS[:3]])
    assert said.tape == said.sweep == said.basis == 0 and said.peak == said.forward > np.asarray(model(TOKENS)).nbytes
    assert "weights" in str(said) and "GFLOP" in str(model.estimate(TOKENS, 0, 1))
