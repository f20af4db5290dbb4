"""How often a converged SVD has lost a vector: thousands of runs on what is easily lost.

    python benchmarks/svd_losses.py [RUNS]

A run has lost a vector if it says that it has converged and a singular value is off by more than tol * sigma_1. The
bound is that of Clopper and Pearson, at 95%.
"""

import sys
import warnings
from pathlib import Path

import numpy as np
import scipy.stats

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from spectra import Diagonal
from test_svd import LOSABLE, lost

import powersteer as ps

TOLS = (1e-2, 1e-3, 1e-4, 1e-5)


def main(runs: int) -> None:
    warnings.simplefilter("ignore", ps.ConvergenceWarning)
    for name, (sigma, k) in LOSABLE.items():
        results = [ps.svd(Diagonal(sigma), k, tol=TOLS[i % len(TOLS)], seed=i) for i in range(runs)]
        losses, converged = sum(lost(sigma, k, r) for r in results), sum(r.converged for r in results)
        bound = scipy.stats.beta.ppf(0.95, losses + 1, converged - losses)
        spent = np.mean([r.applications for r in results])
        print(f"{name:24} lost {losses} of {converged} (at most {bound:.2%}); {spent:.0f} applications", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4000)
