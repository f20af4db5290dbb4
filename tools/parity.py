"""Measure how far powersteer is from transformers, for every case of tests/hf_models.py, and write docs/parity.md.

    python tools/parity.py [case ...]      named cases are measured and printed, nothing is written
"""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import hf_models  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

import powersteer as ps  # noqa: E402
from powersteer._util.atomic import write_text  # noqa: E402

LENGTHS = (13, 1, 64, 3)  # of the prompts: ragged, beyond every window, the whole context
LAST = 2

HEADER = """\
# Parity with transformers

Written by `python tools/parity.py`. Do not edit.

Each row is a small random model of a family (3 or 4 layers, 61 tokens, every weight, gain and bias away from its
neutral value) or of a family with what its config can change; `tests/hf_configs.py` has the configs by the names in the
first column. The reference is transformers' own code run in float64 throughout, except that
rotary angles keep their rounding to float32, which is part of what a checkpoint means. The errors are the worst over
four prompts of 13, 1, 64 and 3 tokens, relative to the largest value:

- logits, float64 and float32: powersteer's, in the dtype of the computation.
- PyTorch float32: those of transformers itself as it is usually run, for comparison.
- sites: the worst activation of all sites of all layers in float64, and which it is.
- Jacobian, float64 and float32: every entry of d(resid_post of layer 2) / d(mlp_out of layer 0, or its attn_out) at positions 1 and 8 of
  nine tokens, the source moved at every position, against torch.func; the Frobenius norm of the difference over the
  norm. With experts the routing is frozen on both sides.

Versions: transformers {transformers}, PyTorch {torch}, NumPy {numpy}, Python {python}, {machine}. Seed 0.

| model | logits float64 | logits float32 | PyTorch float32 | sites float64 | worst site | Jacobian float64 | Jacobian float32 |
|---|---|---|---|---|---|---|---|
"""


@dataclass
class Row:
    name: str
    double: float
    single: float
    pytorch: float
    sites: float
    worst_site: str
    jacobian: float
    jacobian_single: float

    def __str__(self) -> str:
        e = "{:.1e}".format
        return (
            f"| {self.name} | {e(self.double)} | {e(self.single)} | {e(self.pytorch)} | {e(self.sites)} "
            f"| {self.worst_site} | {e(self.jacobian)} | {e(self.jacobian_single)} |"
        )


def error(got: np.ndarray, want: np.ndarray) -> float:
    if got.shape != want.shape or not np.isfinite(want).all():
        raise ValueError(f"shapes {got.shape} and {want.shape}, or an oracle that is not finite")
    return float(np.abs(got - want).max() / np.abs(want).max())


def measure(name: str) -> Row:
    hf = hf_models.make(name)
    double, single = (ps.from_transformers(hf, dtype=dtype, threads=1) for dtype in ("float64", "float32"))
    rng = np.random.default_rng(0)
    places = [(layer, site) for layer in range(double.n_layers) for site in hf_models.site_names(hf, layer)]
    row = Row(name, 0, 0, 0, 0, "", 0, 0)
    for n in LENGTHS:
        prompt = rng.integers(0, double.n_vocab, min(n, double.n_ctx)).tolist()
        with hf_models.exact(name) as oracle:
            want, sites = hf_models.run(oracle, prompt, capture=places)
        logits, acts = double.run_with_cache(prompt)
        row.double = max(row.double, error(logits, want))
        row.single = max(row.single, error(single(prompt), want))
        row.pytorch = max(row.pytorch, error(hf_models.run(hf, prompt)[0], want))
        for place in places:
            if (far := error(acts[place], sites[place])) > row.sites:
                row.sites, row.worst_site = far, f"blocks.{place[0]}.{place[1]}"
    prompt, rows = rng.integers(0, double.n_vocab, 9).tolist(), [1, 8]
    site = "mlp_out" if "mlp_out" in hf_models.site_names(hf, 0) else "attn_out"
    with hf_models.exact(name) as oracle:
        want = hf_models.jacobian(oracle, [prompt], (0, site), (LAST, "resid_post"), None, [rows])
    how = dict(source=0, source_site=site, target=LAST, target_site="resid_post", target_positions=rows)
    far = [np.linalg.norm(m.jacobian(prompt, **how).dense() - want) / np.linalg.norm(want) for m in (double, single)]
    row.jacobian, row.jacobian_single = map(float, far)
    return row


def main(names: list[str]) -> None:
    rows = []
    for name in names or hf_models.CASES:
        rows.append(measure(name))
        print(rows[-1], flush=True)
    versions = dict(transformers=transformers.__version__, torch=torch.__version__, numpy=np.__version__,
                    python=platform.python_version(), machine=platform.machine())  # fmt: skip
    worst = Row("**worst**", *(max(getattr(r, key) for r in rows) for key in ("double", "single", "pytorch", "sites")),
                "", *(max(getattr(r, key) for r in rows) for key in ("jacobian", "jacobian_single")))  # fmt: skip
    print(worst)
    if not names:
        (ROOT / "docs").mkdir(exist_ok=True)
        text = HEADER.format(**versions) + "".join(f"{row}\n" for row in [*rows, worst])
        write_text(ROOT / "docs" / "parity.md", text)


if __name__ == "__main__":
    main(sys.argv[1:])
