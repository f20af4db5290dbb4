"""svd: what it takes, what it refuses, and how a run is watched and stopped."""

import gc
import io
import sys
import tracemalloc
import warnings

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import tqdm
from oracles import oracle, torch
from spectra import Counted, Diagonal, planted, published
from tiny import tiny

import powersteer as ps
from powersteer._core import _core32, _core64

pandas = oracle("pandas")

A = np.random.default_rng(0).standard_normal((30, 50))
S = np.linalg.svd(A, compute_uv=False)


class Matvec:
    """The least an operator can be."""

    def __init__(self, matrix):
        self.matrix = matrix
        self.shape = matrix.shape

    def matvec(self, v):
        return self.matrix @ v

    def rmatvec(self, u):
        return self.matrix.T @ u


# ---- inputs ----


@pytest.mark.parametrize(
    "operator",
    [
        A,
        np.asfortranarray(A),
        A.astype(">f8"),
        np.repeat(np.repeat(A, 2, 0), 3, 1)[::2, ::3],
        A[::-1, ::-1][::-1, ::-1],
        np.broadcast_to(A, (2, 30, 50))[1],
        A.tolist(),
        A.view(np.matrix),  # np.matrix(A) warns
        scipy.sparse.csr_array(A),
        scipy.sparse.linalg.aslinearoperator(A),
        Matvec(A),
        Counted(A),
    ],
    ids=lambda x: type(x).__name__,
)
@pytest.mark.parametrize("method", ["krylov", "power", "dense"])
def test_every_kind_of_operator(operator, method):
    options = {"iterations": 60, "oversample": 6} if method == "power" else {}
    r = ps.svd(operator, 4, method=method, tol=1e-4, **options)
    np.testing.assert_allclose(r.S, S[:4], rtol=1e-6)
    assert r.U.shape == (30, 4) and r.Vh.shape == (4, 50)
    assert r.U.dtype == r.S.dtype == r.Vh.dtype == np.float64
    assert r.Vh.flags.c_contiguous and r.U.flags.c_contiguous


def test_strided_input_gives_the_same_bits_and_is_left_alone():
    strided = np.repeat(np.repeat(A, 2, 0), 3, 1)[::2, ::3]
    before = strided.copy()
    x, y = ps.svd(strided, 4), ps.svd(A, 4)
    np.testing.assert_array_equal(x.Vh, y.Vh)
    np.testing.assert_array_equal(strided, before)


@pytest.mark.parametrize(
    "dtype, expected",
    [
        (np.float16, np.float32),
        (np.float32, np.float32),
        (">f4", np.float32),
        (np.int64, np.float64),
        (bool, np.float64),
    ],
)
def test_the_core_follows_the_dtype(dtype, expected):
    B = (A > 0.5).astype(dtype) if dtype is bool else (A * 8).astype(dtype)
    r = ps.svd(B, 3)
    assert r.S.dtype == expected
    np.testing.assert_allclose(r.S, np.linalg.svd(B.astype(np.float64), compute_uv=False)[:3], rtol=1e-4)
    assert ps.svd(scipy.sparse.linalg.aslinearoperator(B.astype(expected)), 3).S.dtype == expected


def test_the_block_an_operator_asks_for_is_used():
    widths = []

    class Wide(Counted):
        def block(self):
            return 3

        def apply(self, V):
            widths.append(len(V))
            return super().apply(V)

    ps.svd(Wide(A), 4)
    assert widths[0] == 3
    widths.clear()
    ps.svd(Wide(A), 4, block=2)
    assert widths[0] == 2


def test_dense_uses_what_is_cheaper():
    for matrix, cost in ((A, (0, 30)), (A.T, (30, 0))):
        op = Counted(matrix)
        r = ps.svd(op, 4, method="dense")
        assert (op.forward, op.back) == cost and r.applications == 30
    assert ps.svd(A, 4, method="dense").applications == 0

    class Known(Counted):
        def dense(self):
            return self.A

    op = Known(A)
    ps.svd(op, 4, method="dense")
    assert op.applications == 0


# ---- refusals ----


@pytest.mark.parametrize(
    "options, words",
    [
        ({"k": 0}, "k is 0"), ({"k": 31}, "(30, 50)"), ({"k": 2.0}, "2.0"), ({"k": True}, "True"), ({"k": "3"}, "'3'"),
        ({"tol": 0}, "tol"), ({"tol": np.nan}, "tol"), ({"tol": np.inf}, "tol"), ({"tol": "x"}, "tol"),
        ({"tol": np.complex128(1)}, "tol"), ({"method": np.array(["power", "dense"])}, "method"),
        ({"iterations": np.array([5, 5])}, "iterations"),
        ({"seed": -1}, "seed"), ({"seed": 2**64}, "seed"), ({"seed": 0.5}, "seed"), ({"method": "lanczos"}, "krylov"),
        ({"iterations": 3}, "power"), ({"oversample": 1}, "power"), ({"block": 0}, "block"), ({"block": 1.5}, "block"),
        ({"max_applications": 5}, "max_applications"), ({"max_applications": 0}, "max_applications"),
        ({"method": "power", "iterations": 0}, "iterations"), ({"method": "power", "oversample": -1}, "oversample"),
        ({"method": "power", "oversample": 28}, "oversample"), ({"method": "power", "block": 2}, "block"),
        ({"method": "dense", "max_applications": 100}, "max_applications"), ({"progress": 3}, "progress"),
    ],
)  # fmt: skip
def test_arguments_outside_their_domain(options, words):
    with pytest.raises(ps.InvalidInput) as e:
        ps.svd(A, **{"k": 3, **options})
    assert words in str(e.value)
    assert isinstance(e.value, ValueError) and isinstance(e.value, ps.PowersteerError)


@pytest.mark.parametrize(
    "operator",
    [A[0], np.zeros((0, 3)), np.zeros((3, 0)), np.zeros((2, 2, 2)), A * 1j, A.astype(object),
     A.astype("M8[s]"), "matrix", None, 3, object(), np.ma.masked_greater(A, 0),
     scipy.sparse.linalg.aslinearoperator(A * 1j)],
)  # fmt: skip
def test_what_is_no_real_operator(operator):
    with pytest.raises(ps.InvalidInput, match="svd"):
        ps.svd(operator, 1)


class Graded(scipy.sparse.linalg.LinearOperator):
    """A subclass that knows J alone."""

    def __init__(self):
        super().__init__(np.float64, A.shape)

    def _matvec(self, v):
        return A @ v


def scipys(matvec=lambda v: A @ v, rmatvec=None):
    return scipy.sparse.linalg.LinearOperator(A.shape, dtype=np.float64, matvec=matvec, rmatvec=rmatvec)


@pytest.mark.parametrize(
    "operator",
    [torch.tensor(A, requires_grad=True), torch.tensor(A).bfloat16(), torch.tensor(A).to_sparse(),
     torch.empty(3, 4, device="meta"), [torch.tensor([1.0, 2.0], requires_grad=True)], [[1.0, 2.0], [3.0]],
     [["a"]], [], pandas.DataFrame([["a", 1.0]]), scipy.sparse.csr_array(A * 1j), scipys(), Graded(),
     scipys(lambda v: A[:3] @ v, lambda u: A.T @ u)],
    ids=lambda x: type(x).__name__,
)  # fmt: skip
@pytest.mark.parametrize("method", ["krylov", "power"])
def test_foreign_errors_are_ours(operator, method):
    with pytest.raises(ps.InvalidInput, match="svd: "):
        ps.svd(operator, 1, method=method)


def test_frames_and_sparse_arrays_are_read():
    for operator in (pandas.DataFrame(A), torch.tensor(A), *(getattr(scipy.sparse, f"{kind}_array")(A)
                     for kind in ("csr", "csc", "coo", "lil", "dia", "bsr"))):  # fmt: skip
        np.testing.assert_allclose(ps.svd(operator, 3, tol=1e-6).S, S[:3])


@pytest.mark.parametrize("error", [ValueError, TypeError, NotImplementedError, ZeroDivisionError, ps.InvalidInput])
@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("method", ["krylov", "power"])
def test_what_the_operator_raises_passes_through(error, wrapped, method):
    raised = error("of the user")

    def fail(u):
        raise raised

    op = Matvec(A)
    op.rmatvec = fail
    with pytest.raises(error) as e:
        ps.svd(scipys(rmatvec=fail) if wrapped else op, 2, method=method)
    assert e.value is raised


@pytest.mark.parametrize("result", [None, [1.0], np.ones((2, 2)), "word", torch.ones(30, requires_grad=True),
                                    [[1.0], [1.0, 2.0]], scipy.sparse.csr_array(A)])  # fmt: skip
def test_matvec_of_the_wrong_kind(result):
    op = Matvec(A)
    op.matvec = lambda v: result
    for method in ("krylov", "power", "dense"):
        op.rmatvec = op.matvec
        with pytest.raises(ps.InvalidInput, match="svd: "):
            ps.svd(op, 2, method=method)


def test_products_beyond_the_dtype_are_refused():
    op = Matvec(A)
    op.dtype = np.float32
    op.matvec = lambda v: A @ v * 1e300
    with pytest.raises(ps.NumericalError, match="infinity"):
        ps.svd(op, 2)


@pytest.mark.parametrize("block", [0, 1.5, None])
def test_the_block_that_an_operator_asks_for_is_checked(block):
    op = Counted(A)
    op.block = lambda: block
    with pytest.raises(ps.InvalidInput, match="block"):
        ps.svd(op, 2)


@pytest.mark.parametrize("answer", [lambda y: y[:, :-1], lambda y: y[:-1], lambda y: y * 1j, lambda y: y.astype(object),
                                    lambda y: None, lambda y: y[0, 0]])  # fmt: skip
@pytest.mark.parametrize("method", ["krylov", "power", "dense"])
def test_products_of_the_wrong_kind(answer, method):
    class Odd(Counted):
        def apply_t(self, U):
            return answer(super().apply_t(U))

    with pytest.raises(ps.InvalidInput, match="Odd"):
        ps.svd(Odd(A), 3, method=method)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("method", ["krylov", "power", "dense"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nan_and_infinity_are_refused(bad, method, dtype):
    B = A.astype(dtype)
    B[7, 9] = bad
    with pytest.raises(ps.NumericalError, match="NaN or infinity") as e, np.errstate(all="ignore"):
        ps.svd(B, 3, method=method)
    assert isinstance(e.value, ArithmeticError)


def test_the_message_counts_the_applications():
    class Late(Counted):
        def apply_t(self, U):
            return super().apply_t(U) * (np.nan if self.back == 4 else 1)

    with pytest.raises(ps.NumericalError, match=r"apply_t .*application 8\b"):
        ps.svd(Late(A.T), 3)


@pytest.mark.parametrize("core, dtype", [(_core32, np.float32), (_core64, np.float64)])
def test_the_core_checks_for_itself(core, dtype):
    class Short(Counted):
        def apply_t(self, U):
            return super().apply_t(U)[:, 1:]

    class More(Counted):
        def apply(self, V):
            return np.repeat(super().apply(V), 2, axis=0)

    class Other(Counted):
        def apply_t(self, U):
            return super().apply_t(U).astype(np.float64 if dtype == np.float32 else np.float32)

    good = Counted(A.astype(dtype))
    cases = [
        ((good, (30, 50), 3, 1, 1e-3, 100, 0, 5), "max_basis"),
        ((good, (30, 50), 3, 0, 1e-3, 100, 0, 30), "block"),
        ((good, (30, 50), 3, 1, float("nan"), 100, 0, 30), "tol"),
        ((good, (-30, 50), 3, 1, 1e-3, 100, 0, 30), "rows"),
        ((good, (30, 50), 0, 1, 1e-3, 100, 0, 30), "k = 0"),
        ((good, (30, 50), 3, 1, 1e-3, 5, 0, 30), "max_applications = 5 is not enough"),
        ((More(A.astype(dtype)), (30, 50), 3, 1, 1e-3, 100, 0, 30), "returned 2 rows for 1 vectors"),
        ((good, (30, 50), 31, 1, 1e-3, 100, 0, 30), "k = 31"),
        ((Short(A.astype(dtype)), (30, 50), 3, 1, 1e-3, 100, 0, 30), r"shape \(n, 50\), got \(1, 49\)"),
        ((Other(A), (30, 50), 3, 1, 1e-3, 100, 0, 30), f"must be a {np.dtype(dtype)} array"),
    ]
    for args, words in cases:
        with pytest.raises(ps.InvalidInput, match=words):
            core.svd_krylov(*args, None)
    for args, words in [((31, 0, 5, 0), "k = 31"), ((3, 28, 5, 0), "oversample = 28"), ((3, 0, 0, 0), "iterations"),
                        ((3, -1, 5, 0), "oversample must not be negative")]:  # fmt: skip
        with pytest.raises(ps.InvalidInput, match=words):
            core.svd_power(good, (30, 50), *args, 1e-3, 100, 30)
    with pytest.raises(AttributeError):
        core.svd_krylov(object(), (30, 50), 3, 1, 1e-3, 100, 0, 30, None)
    with pytest.raises((MemoryError, ValueError)):
        core.svd_krylov(good, (2**62, 2**62), 3, 1, 1e-3, 100, 0, 2**62, None)


# ---- watching and stopping ----


@pytest.mark.parametrize("method", ["krylov", "power"])
def test_progress_sees_what_history_keeps(method):
    seen = []
    r = ps.svd(A, 3, method=method, tol=0.5, progress=lambda *entry: seen.append(entry))
    assert len(seen) == len(r.history) > 2
    for (n, worst, sigma), (m, w, s) in zip(seen, r.history, strict=True):
        assert (n, worst) == (m, w)
        np.testing.assert_array_equal(sigma, s)
    spent, worst, sigma = r.history[-1]
    assert spent == r.applications and worst == r.residuals.max()
    np.testing.assert_allclose(sigma, r.S)
    assert [n for n, _, _ in r.history] == sorted(n for n, _, _ in r.history)
    if method == "krylov":
        assert r.history[0][1] == np.inf and len(r.history[0][2]) == 1


@pytest.mark.parametrize("method", ["krylov", "power"])
@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["progress", "apply", "apply_t"])
def test_an_exception_stops_the_run_at_once(method, error, where):
    calls = []

    def fail():
        calls.append(1)
        if len(calls) == 3:
            raise error("stop")

    class Failing(Counted):
        def apply(self, V):
            if where == "apply":
                fail()
            return super().apply(V)

        def apply_t(self, U):
            if where == "apply_t":
                fail()
            return super().apply_t(U)

    op = Failing(A)
    with pytest.raises(error):
        ps.svd(op, 3, method=method, progress=(lambda *_: fail()) if where == "progress" else False)
    assert len(calls) == 3
    np.testing.assert_allclose(ps.svd(Counted(A), 3, tol=1e-6).S, S[:3])


def test_stopped_runs_leak_nothing():
    op = Diagonal(published("Qwen3-8B, code"))

    def stop(applications, *_):
        if applications > 30:
            raise StopAsyncIteration

    def run():
        for _ in range(5):
            with pytest.raises(StopAsyncIteration):
                ps.svd(op, 12, progress=stop)
        gc.collect()

    run()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    run()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 20_000  # one run's history alone is larger than what may stay


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("kind", [Terminal, io.StringIO])
def test_progress_line(monkeypatch, kind):
    out = kind()
    monkeypatch.setattr(sys, "stderr", out)
    result = ps.svd(A, 3, progress=True)
    last = out.getvalue().split("\r")[-1]
    assert last.endswith("\n") and f"{result.applications} applications" in last
    assert f"residual {result.residuals.max():.1e}, tol 1e-03" in last


@pytest.mark.parametrize("error", [KeyboardInterrupt, KeyError])
def test_progress_line_ends_with_the_run(monkeypatch, error):
    class Failing(Counted):
        def apply_t(self, U):
            raise error

    out = Terminal()
    monkeypatch.setattr(sys, "stderr", out)
    with pytest.raises(error):
        ps.svd(Failing(A), 3, progress=True)
    assert out.getvalue().endswith("\n") and not tqdm.tqdm._instances


def test_the_warning_points_at_the_callers_line():
    J = tiny()[0].jacobian([1, 2, 3], 0, 1)
    for call in (lambda: ps.svd(A, 3, method="power", tol=1e-9), lambda: J.svd(3, method="power", tol=1e-12)):
        with pytest.warns(ps.ConvergenceWarning) as record:
            call()
        assert [w.filename for w in record] == [__file__]


def test_a_result_reads_well():
    r = ps.svd(planted(20, 15, [3, 2, 2, 1]), 3, tol=1e-6)
    text = str(r)
    assert "SVD of (20, 15) by krylov: converged at tol 1e-06" in text
    assert len(text.splitlines()) == 5
    assert text.splitlines()[3].endswith("a") and text.splitlines()[4].endswith("a")
    assert repr(r) == "SVDResult(k=3 of a map (20, 15), krylov, converged at tol 1e-06, sigma 3 to 2)"
    assert r._repr_html_().count("<tr>") == 4 and "converged at tol 1e-06" in r._repr_html_()
    with pytest.warns(ps.ConvergenceWarning):
        text = str(ps.svd(A, 3, method="power"))
    assert "NOT CONVERGED" in text and "+ 3 for the certificate" in text
    for show in (str, type(r)._repr_html_):
        assert "goes on beyond k" in show(ps.svd(np.eye(5), 2))


def test_vectors_belong_to_jacobians():
    r = ps.svd(A, 3)
    with pytest.raises(ps.InvalidInput, match="rows of Vh"):
        _ = r.vectors
    assert r.provenance is None


def test_warnings_say_what_to_raise():
    cases = [
        ({"max_applications": 20}, "max_applications (now 20)"),
        ({"method": "power"}, "iterations"),
        ({"tol": 1e-18}, "raise tol"),
    ]
    for options, words in cases:
        with pytest.warns(ps.ConvergenceWarning) as record:
            ps.svd(A, 5, **options)
        assert words in str(record[0].message)
        assert record[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ps.svd(A, 5)
