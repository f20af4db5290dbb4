"""Operators with known singular values, counting their applications."""

import numpy as np

# sigma_k / sigma_1, k = 1..12: medians over layer pairs of the published dashboard data; and the exponent behind them
PUBLISHED = {
    "Qwen3-8B, code": ([1, 0.84, 0.75, 0.70, 0.65, 0.61, 0.59, 0.55, 0.53, 0.50, 0.48, 0.45], -0.32),
    "Qwen3-1.7B, arithmetic": ([1, 0.75, 0.54, 0.47, 0.42, 0.39, 0.35, 0.33, 0.31, 0.30, 0.29, 0.27], -0.52),
}


def published(name, d=2048):
    """d singular values, descending: the twelve, then k^exponent continued from the twelfth."""
    top, exponent = PUBLISHED[name]
    tail = top[-1] * (np.arange(13, d + 1) / 12) ** exponent
    return np.sort(np.concatenate([top, tail]))[::-1]


def with_copies(sigma, rank, copies):
    """sigma[rank] occurring `copies` times, same length."""
    return np.sort(np.concatenate([sigma, np.repeat(sigma[rank], copies - 1)]))[::-1][: len(sigma)]


class Diagonal:
    """diag(sigma): the singular vectors are the unit vectors, and no start knows them."""

    def __init__(self, sigma, dtype=np.float64):
        self.sigma = np.asarray(sigma, dtype)
        self.shape, self.dtype = (len(sigma), len(sigma)), np.dtype(dtype)
        self.applications = 0

    def apply(self, V):
        self.applications += len(V)
        return V * self.sigma

    apply_t = apply


class Counted:
    """A matrix by its products on rows."""

    def __init__(self, A, dtype=None):
        self.A = np.asarray(A, dtype)
        self.shape, self.dtype = self.A.shape, self.A.dtype
        self.forward = self.back = 0

    def apply(self, V):
        self.forward += len(V)
        return V @ self.A.T

    def apply_t(self, U):
        self.back += len(U)
        return U @ self.A

    @property
    def applications(self):
        return self.forward + self.back


def planted(m, d, sigma, seed=0, dtype=np.float64):
    """(m, d) with singular values sigma (at most min(m, d)) and random singular vectors."""
    g = np.random.default_rng(seed)
    r = len(sigma)
    U, V = (np.linalg.qr(g.standard_normal((n, r)))[0] for n in (m, d))
    return ((U * np.asarray(sigma, float)) @ V.T).astype(dtype)


def certificate(A, U, S, Vh):
    """|J v - sigma u| and |J'u - sigma v| over sigma_1 in float64, (k, 2)"""
    A, U, S, Vh = (np.asarray(x, np.float64) for x in (A, U, S, Vh))
    left, right = A @ Vh.T - U * S, A.T @ U - Vh.T * S
    return np.stack([np.linalg.norm(left, axis=0), np.linalg.norm(right, axis=0)], axis=1) / S[0]


def defect(rows):
    rows = np.asarray(rows, np.float64)
    return np.abs(rows @ rows.T - np.eye(len(rows))).max()
