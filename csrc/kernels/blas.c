#include "kernels/blas.h"
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/arena.h"

#ifdef _WIN32
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#else
#include <dlfcn.h>
#endif

#ifndef PS_BLAS_MAX
#define PS_BLAS_MAX INT_MAX /* the largest size that the library takes; tests make it small */
#endif

enum { ROW_MAJOR = 101, NO_TRANS = 111, TRANS = 112 }; /* of CBLAS's enums */

#ifdef PS_DOUBLE
#define CBLAS(f) "cblas_d" f
#else
#define CBLAS(f) "cblas_s" f
#endif

typedef void gemm_fn(int order, int ta, int tb, int M, int N, int K, real alpha, const real *A, int lda, const real *B,
                     int ldb, real beta, real *C, int ldc);
/* Fortran: every argument by address; the last one is the hidden length of jobz, which compilers pass and ignore */
typedef void gesdd_fn(const char *jobz, const int *m, const int *n, double *A, const int *lda, double *s, double *U,
                      const int *ldu, double *Vt, const int *ldvt, double *work, const int *lwork, int *iwork, int *info,
                      size_t jobz_length);
typedef char *text_fn(void);
typedef void threads_fn(int n);

struct blas {
    void *library;
    gemm_fn *gemm;
    gesdd_fn *dgesdd;
    const char *config, *corename;
};

#ifdef _WIN32
static void *library_open(const char *path, ps_status *st) {
    wchar_t wide[4096];
    if (!MultiByteToWideChar(CP_UTF8, 0, path, -1, wide, (int)COUNT(wide))) wide[0] = 0;
    HMODULE h = LoadLibraryW(wide);
    if (!h) ps_fail(st, PS_ERR_SYSTEM, "cannot load the library %.160s: Windows error %lu", path, GetLastError());
    return (void *)h;
}
static void library_close(void *h) { (void)h; } /* its threads outlive any handle */
static void library_symbol(void *h, const char *name, void *slot) {
    FARPROC p = GetProcAddress((HMODULE)h, name);
    memcpy(slot, &p, sizeof p);
}
#else
#ifndef RTLD_NODELETE
#define RTLD_NODELETE 0
#endif
static void *library_open(const char *path, ps_status *st) {
    /* LOCAL keeps its symbols apart from those of other copies. NODELETE, because its fork handlers stay registered after
     * dlclose. */
    void *h = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!h) {
        const char *why = dlerror();
        ps_fail(st, PS_ERR_SYSTEM, "cannot load the library %.120s: %.100s", path, why ? why : "no reason given");
    }
    return h;
}
static void library_close(void *h) { dlclose(h); }
static void library_symbol(void *h, const char *name, void *slot) {
    void *p = dlsym(h, name);
    memcpy(slot, &p, sizeof p); /* ISO C has no cast from an object pointer to a function pointer */
}
#endif

/* Sets *slot to the address of the function prefix+name, NULL if there is none. */
static void find(const blas *b, const char *prefix, const char *name, void *slot) {
    char full[128];
    int n = snprintf(full, sizeof full, "%s%s", prefix, name);
    memset(slot, 0, sizeof(void *));
    if (n > 0 && (size_t)n < sizeof full) library_symbol(b->library, full, slot);
}

/* Fills in the functions of the library that is open. */
static ps_code bind(blas *b, const char *path, const char *prefix, ps_status *st) {
    text_fn *config, *corename;
    threads_fn *set_num_threads;
    const struct {
        const char *name;
        void *slot;
    } needed[] = {{CBLAS("gemm"), &b->gemm},
                  {"dgesdd_", &b->dgesdd}, {"openblas_set_num_threads", &set_num_threads}};
    for (size_t i = 0; i < COUNT(needed); i++) {
        void *found;
        find(b, prefix, needed[i].name, needed[i].slot);
        memcpy(&found, needed[i].slot, sizeof found);
        if (!found)
            return ps_fail(st, PS_ERR_SYSTEM,
                           "the library %.140s lacks %s%s: it is not an OpenBLAS with the prefix \"%s\"", path, prefix,
                           needed[i].name, prefix);
    }
    find(b, prefix, "openblas_get_config", &config);
    find(b, prefix, "openblas_get_corename", &corename);
    b->config = config ? config() : "";
    b->corename = corename ? corename() : "";
    if (strstr(b->config, "USE64BITINT"))
        return ps_fail(st, PS_ERR_SYSTEM,
                       "the library %.140s takes 64-bit integers; one with 32-bit integers is needed", path);
    set_num_threads(1);
    return PS_OK;
}

ps_code blas_open(blas **out, const char *path, const char *prefix, ps_status *st) {
    blas *b = ps_calloc(1, sizeof *b);
    if (!b) return ps_fail(st, PS_ERR_MEMORY, "out of memory");
    b->library = library_open(path, st);
    if (!b->library || bind(b, path, prefix, st)) {
        blas_close(b);
        return st->code;
    }
    *out = b;
    return PS_OK;
}

void blas_close(blas *b) {
    if (b && b->library) library_close(b->library);
    ps_free(b);
}

const char *blas_config(const blas *b) { return b->config; }
const char *blas_corename(const blas *b) { return b->corename; }

/* For what the library does not take: K = 0, or a leading dimension beyond its int. */
static void gemm_plain(int ta, int tb, size_t M, size_t N, size_t K, real alpha, const real *A, size_t lda,
                       const real *B, size_t ldb, real beta, real *C, size_t ldc) {
    for (size_t i = 0; i < M; i++)
        for (size_t j = 0; j < N; j++) {
            double sum = 0;
            for (size_t k = 0; k < K; k++)
                sum += (double)(ta ? A[k * lda + i] : A[i * lda + k]) * (double)(tb ? B[j * ldb + k] : B[k * ldb + j]);
            real *c = C + i * ldc + j;
            *c = (real)((double)alpha * sum + (beta == 0 ? 0 : (double)beta * (double)*c));
        }
}

void gemm(const blas *b, char ta, char tb, size_t M, size_t N, size_t K, real alpha, const real *A, size_t lda,
          const real *B, size_t ldb, real beta, real *C, size_t ldc) {
    const size_t max = PS_BLAS_MAX;
    int at = ta == 't', bt = tb == 't';
    if (!M || !N) return;
    if (!K || lda > max || ldb > max || ldc > max) {
        gemm_plain(at, bt, M, N, K, alpha, A, lda, B, ldb, beta, C, ldc);
        return;
    }
    for (size_t i = 0; i < M; i += max)
        for (size_t j = 0; j < N; j += max)
            for (size_t k = 0; k < K; k += max) {
                int m = (int)(M - i < max ? M - i : max), n = (int)(N - j < max ? N - j : max);
                int depth = (int)(K - k < max ? K - k : max);
                b->gemm(ROW_MAJOR, at ? TRANS : NO_TRANS, bt ? TRANS : NO_TRANS, m, n, depth, alpha,
                        A + (at ? k * lda + i : i * lda + k), (int)lda, B + (bt ? j * ldb + k : k * ldb + j), (int)ldb,
                        k ? 1 : beta, C + i * ldc + j, (int)ldc);
            }
}

ps_code small_svd(const blas *b, size_t m, size_t n, double *A, double *U, double *s, double *Vt, ps_status *st) {
    size_t r = m < n ? m : n;
    arena scratch = {0};
    double *work, best;
    int *iwork, rows, cols, small, lwork = -1, info = 0;
    if (!r) return PS_OK;
    if (m > INT_MAX || n > INT_MAX)
        return ps_fail(st, PS_ERR_OVERFLOW, "an SVD of %zu x %zu is beyond LAPACK's integers", m, n);
    /* LAPACK is column-major and so reads the row-major A (m, n) as A' (n, m). It returns A' = V S U' with V and U' by
     * columns, which by rows are Vt and U. */
    rows = (int)n, cols = (int)m, small = (int)r;
    b->dgesdd("S", &rows, &cols, A, &rows, s, Vt, &rows, U, &small, &best, &lwork, &small, &info, 1);
    if (info || !(best >= 1 && best < INT_MAX))
        return ps_fail(st, PS_ERR_OVERFLOW, "LAPACK refuses an SVD of %zu x %zu", m, n);
    lwork = (int)best;
    arena_slice table[] = {SLICE(work, (size_t)lwork), SLICE(iwork, 8, r)};
    if (arena_make(&scratch, table, COUNT(table), st)) return st->code;
    b->dgesdd("S", &rows, &cols, A, &rows, s, Vt, &rows, U, &small, work, &lwork, iwork, &info, 1);
    arena_free(&scratch);
    if (info) return ps_fail(st, PS_ERR_NONFINITE, "LAPACK's SVD of a %zu x %zu matrix did not converge", m, n);
    return PS_OK;
}
