/*
 * test_kernels.c - matrix product, packing and choice of kernels, on every instruction set here.
 *
 * Values against double precision (error <= K 2^-24 sum |x w|), and the promise of tensor.h bit for
 * bit: rows alone or together, any range of panels, any number of threads. Inputs and outputs end
 * at a guard page. The other operations: test_row_ops.c, test_attend.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "base/mem.h"
#include "tensor/tensor.h"
#include "tensor/tensor_test.h"

#define MAX_ISAS 8

static const struct tensor_ops *isas[MAX_ISAS];
static uint32_t n_isas;

static struct packed_matrix pack(const struct tensor_ops *ops, uint32_t N, uint32_t K,
                                 const float *w, const float *bias)
{
    struct packed_matrix m;
    assert_int_equal(packed_begin(&m, ops, TENSOR_F32, N, K, bias != NULL, NULL), STATUS_OK);
    packed_put_rows(&m, 0, N, w);
    if (bias != NULL) {
        packed_put_bias(&m, 0, N, bias);
    }
    return m;
}

static uint32_t panels_of(const struct packed_matrix *m)
{
    return (m->n_out + m->panel - 1) / m->panel;
}

/* Inputs for all shapes of one K, with the double-precision answers: sums and sums of |terms|. */
struct exact_case {
    uint32_t T, N, K;
    struct guarded x, w, bias;
    double *sum, *magnitude;
};

static void exact_begin(struct exact_case *e, uint32_t T, uint32_t N, uint32_t K)
{
    *e = (struct exact_case){.T = T, .N = N, .K = K};
    e->x = guarded_normal((size_t)T * K, 1.0, K + 1);
    e->w = guarded_normal((size_t)N * K, 0.5, K + 2);
    e->bias = guarded_normal(N, 3.0, K + 3);
    e->sum = malloc((size_t)T * N * 2 * sizeof *e->sum);
    assert_non_null(e->sum);
    e->magnitude = e->sum + (size_t)T * N;
    for (size_t t = 0; t < T; t++) {
        for (size_t n = 0; n < N; n++) {
            double sum = 0.0;
            double magnitude = 0.0;
            for (size_t k = 0; k < K; k++) {
                double term = (double)e->x.at[t * K + k] * (double)e->w.at[n * K + k];
                sum += term;
                magnitude += fabs(term);
            }
            e->sum[t * N + n] = sum;
            e->magnitude[t * N + n] = magnitude;
        }
    }
}

static void exact_end(struct exact_case *e)
{
    free(e->sum);
    guarded_free(&e->x);
    guarded_free(&e->w);
    guarded_free(&e->bias);
}

/* The last T rows of x (they end at the guard page) times the first N outputs, on one ISA. */
static void check_product(const struct exact_case *e, const struct tensor_ops *ops, uint32_t T,
                          uint32_t N, bool with_bias)
{
    uint32_t K = e->K;
    size_t skipped = e->T - T;
    struct packed_matrix m = pack(ops, N, K, e->w.at, with_bias ? e->bias.at : NULL);
    struct guarded y = guarded_alloc((size_t)T * N);
    ops->matmul_f32(y.at, N, e->x.at + skipped * K, K, T, &m, 0, panels_of(&m));
    for (size_t t = 0; t < T; t++) {
        for (size_t n = 0; n < N; n++) {
            size_t i = (t + skipped) * e->N + n;
            double bias = with_bias ? (double)e->bias.at[n] : 0.0;
            double tol = (K + 1) * F32_UNIT * (e->magnitude[i] + fabs(bias));
            double got = (double)y.at[t * N + n];
            double diff = fabs(got - (e->sum[i] + bias));
            if (!(diff <= tol)) {
                fail_msg("%s T=%u N=%u K=%u [%zu, %zu]: %.9g, want %.9g, off by %.3g > %.3g",
                         ops->isa, T, N, K, t, n, got, e->sum[i] + bias, diff, tol);
            }
        }
    }
    guarded_free(&y);
    packed_deinit(&m);
}

static void products_match_double_precision(void **state)
{
    (void)state;
    static const uint32_t rows[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 17, 33};
    static const uint32_t outs[] = {1, 3, 7, 16, 17, 33, 63, 64, 97, 130};
    static const uint32_t ins[] = {1, 3, 7, 17, 33, 255, 257, 575, 577};
    for (size_t k = 0; k < COUNT(ins); k++) {
        struct exact_case e;
        exact_begin(&e, 33, 130, ins[k]);
        for (size_t t = 0; t < COUNT(rows); t++) {
            /* Long sums: every number of rows with two widths; short ones: with all widths. */
            for (size_t n = ins[k] > 100 ? t % 5 : 0; n<COUNT(outs); n += ins[k]> 100 ? 5 : 1) {
                for (uint32_t i = 0; i < n_isas; i++) {
                    check_product(&e, isas[i], rows[t], outs[n], (t + n + k) % 2 == 0);
                }
            }
        }
        exact_end(&e);
    }
    struct exact_case deep;
    exact_begin(&deep, 9, 48, 5633);
    struct exact_case tall;
    exact_begin(&tall, 259, 33, 65);
    for (uint32_t i = 0; i < n_isas; i++) {
        check_product(&deep, isas[i], 9, 48, true);
        check_product(&deep, isas[i], 1, 48, false);
        check_product(&tall, isas[i], 259, 33, true);
    }
    exact_end(&deep);
    exact_end(&tall);
}

/* A problem with its answer by one call over everything; the cases below cut it otherwise. */
struct cut_case {
    uint32_t T, N, K;
    size_t ldx, ldy;
    struct guarded x, y, whole;
    struct packed_matrix m;
};

static void cut_begin(struct cut_case *c, const struct tensor_ops *ops, uint32_t T, uint32_t N,
                      uint32_t K)
{
    *c = (struct cut_case){.T = T, .N = N, .K = K, .ldx = K + 3, .ldy = N + 5};
    c->x = guarded_normal((T - 1) * c->ldx + K, 1.0, 11);
    c->y = guarded_alloc((T - 1) * c->ldy + N);
    c->whole = guarded_alloc((T - 1) * c->ldy + N);
    struct guarded w = guarded_normal((size_t)N * K, 0.5, 12);
    struct guarded bias = guarded_normal(N, 3.0, 13);
    c->m = pack(ops, N, K, w.at, bias.at);
    guarded_free(&w);
    guarded_free(&bias);
    ops->matmul_f32(c->whole.at, c->ldy, c->x.at, c->ldx, T, &c->m, 0, panels_of(&c->m));
}

static void cut_clear(struct cut_case *c)
{
    memset(c->y.at, 0xFF, ((c->T - 1) * c->ldy + c->N) * sizeof(float));
}

/* Also: what lies between the rows of y is not written. */
static void cut_check(const struct cut_case *c, const struct tensor_ops *ops, const char *what,
                      uint32_t a, uint32_t b)
{
    for (size_t t = 0; t < c->T; t++) {
        if (memcmp(c->y.at + t * c->ldy, c->whole.at + t * c->ldy, c->N * sizeof(float)) != 0) {
            fail_msg("%s T=%u N=%u K=%u: row %zu has other bits (%s %u, %u)", ops->isa, c->T, c->N,
                     c->K, t, what, a, b);
        }
        for (size_t n = c->N; n < c->ldy && t + 1 < c->T; n++) {
            uint32_t bits;
            memcpy(&bits, c->y.at + t * c->ldy + n, sizeof bits);
            assert_int_equal(bits, UINT32_MAX);
        }
    }
}

static void cut_end(struct cut_case *c)
{
    guarded_free(&c->x);
    guarded_free(&c->y);
    guarded_free(&c->whole);
    packed_deinit(&c->m);
}

static const struct {
    uint32_t T, N, K;
} cut_shapes[] = {{37, 97, 575}, {5, 577, 1}, {26, 33, 1537}, {14, 200, 257}};

/* Rows (and panels) at a time. */
static const uint32_t cut_steps[] = {1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 25};

/* Computes y again in pieces of so many rows and panels. */
static void check_cut(struct cut_case *c, const struct tensor_ops *ops, uint32_t rows,
                      uint32_t panels)
{
    uint32_t n_panels = panels_of(&c->m);
    cut_clear(c);
    for (uint32_t p = 0; p < n_panels; p += panels) {
        for (uint32_t t = 0; t < c->T; t += rows) {
            ops->matmul_f32(c->y.at + t * c->ldy, c->ldy, c->x.at + t * c->ldx, c->ldx,
                            c->T - t < rows ? c->T - t : rows, &c->m, p,
                            n_panels - p < panels ? n_panels : p + panels);
        }
    }
    cut_check(c, ops, "rows, panels at a time", rows, panels);
}

static void any_cut_gives_the_same_bits(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < n_isas; i++) {
        for (size_t s = 0; s < COUNT(cut_shapes); s++) {
            struct cut_case c;
            cut_begin(&c, isas[i], cut_shapes[s].T, cut_shapes[s].N, cut_shapes[s].K);
            for (uint32_t k = 0; k < COUNT(cut_steps); k++) {
                check_cut(&c, isas[i], cut_steps[k], panels_of(&c.m));
                check_cut(&c, isas[i], 1 + k % 3, cut_steps[k]);
            }
            cut_end(&c);
        }
    }
}

static void any_number_of_threads_gives_the_same_bits(void **state)
{
    (void)state;
    static const uint32_t rows[] = {1, 2, 7, 32, 300};
    for (uint32_t threads = 1; threads <= 5; threads++) {
        struct pool *pool = NULL;
        assert_int_equal(pool_create(threads, &pool, NULL), STATUS_OK);
        for (uint32_t i = 0; i < n_isas; i++) {
            for (size_t r = 0; r < COUNT(rows); r++) {
                struct cut_case c;
                cut_begin(&c, isas[i], rows[r], 193, 301);
                cut_clear(&c);
                tensor_matmul(isas[i], pool, c.y.at, c.ldy, c.x.at, c.ldx, rows[r], &c.m);
                cut_check(&c, isas[i], "threads", threads, 0);
                tensor_matmul(isas[i], pool, c.y.at, c.ldy, c.x.at, c.ldx, 0, &c.m);
                cut_end(&c);
            }
        }
        pool_destroy(pool);
    }
}

/* NaN in one row stays in that row; infinities do not disturb their neighbours. */
static void a_bad_row_stays_alone(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < n_isas; i++) {
        struct cut_case c;
        cut_begin(&c, isas[i], 13, 70, 300);
        cut_clear(&c);
        c.x.at[6 * c.ldx + 299] = NAN;
        c.x.at[7 * c.ldx] = INFINITY;
        isas[i]->matmul_f32(c.y.at, c.ldy, c.x.at, c.ldx, c.T, &c.m, 0, panels_of(&c.m));
        for (size_t n = 0; n < c.N; n++) {
            assert_true(isnan(c.y.at[6 * c.ldy + n]));
            assert_false(isfinite(c.y.at[7 * c.ldy + n]));
            c.y.at[6 * c.ldy + n] = c.whole.at[6 * c.ldy + n];
            c.y.at[7 * c.ldy + n] = c.whole.at[7 * c.ldy + n];
        }
        cut_check(&c, isas[i], "bad row", 6, 7);
        cut_end(&c);
    }
}

static void packing_is_independent_of_how_rows_arrive(void **state)
{
    (void)state;
    const uint32_t N = 83;
    const uint32_t K = 19;
    struct guarded w = guarded_normal((size_t)N * K, 1.0, 5);
    struct guarded row = guarded_alloc(K);
    for (uint32_t i = 0; i < n_isas; i++) {
        struct packed_matrix whole = pack(isas[i], N, K, w.at, NULL);
        assert_int_equal((uintptr_t)whole.data % 64, 0);
        for (uint32_t step = 1; step <= N; step++) {
            struct packed_matrix m;
            assert_int_equal(packed_begin(&m, isas[i], TENSOR_F32, N, K, true, NULL), STATUS_OK);
            for (uint32_t r = 0; r < N; r += step) {
                packed_put_rows(&m, r, N - r < step ? N - r : step, w.at + (size_t)r * K);
            }
            assert_int_equal(m.bytes, whole.bytes);
            assert_memory_equal(m.data, whole.data, m.bytes);
            packed_deinit(&m);
        }
        for (uint32_t r = 0; r < N; r++) {
            packed_get_row(&whole, r, row.at);
            assert_memory_equal(row.at, w.at + (size_t)r * K, K * sizeof(float));
        }
        packed_deinit(&whole);
        assert_null(whole.data);
    }
    guarded_free(&w);
    guarded_free(&row);
}

static void packing_errors(void **state)
{
    (void)state;
    struct packed_matrix m = {.n_out = 7};
    struct error err = ERROR_INIT;
    assert_int_equal(packed_begin(&m, isas[0], TENSOR_F32, UINT32_MAX, UINT32_MAX, false, &err),
                     STATUS_NO_MEMORY);
    assert_non_null(strstr(err.message, "4294967295"));
    assert_int_equal(packed_begin(&m, isas[0], (enum tensor_dtype)99, 8, 8, false, &err),
                     STATUS_UNSUPPORTED);
    for (uint64_t n = 1; n <= 2; n++) {
        mem_fail_at(n, false);
        assert_int_equal(packed_begin(&m, isas[0], TENSOR_F32, 8, 8, true, &err), STATUS_NO_MEMORY);
    }
    mem_fail_at(0, false);
    assert_int_equal(m.n_out, 7); /* untouched */
}

/* Around the sizes at which huge pages are asked for: zeroed, aligned, as long as promised. */
static void large_tables_are_zeroed(void **state)
{
    (void)state;
    const size_t mib = (size_t)1 << 20;
    const size_t sizes[] = {1, mib - 1, mib, 2 * mib + 1, 3 * mib + 5, 9 * mib};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        unsigned char *p = mem_alloc_table(sizes[i]);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 64, 0);
        for (size_t b = 0; b < sizes[i]; b++) {
            if (p[b] != 0) {
                fail_msg("byte %zu of %zu is %u", b, sizes[i], p[b]);
            }
            p[b] = 0xA5;
        }
        mem_free(p);
        mem_fail_at(1, false);
        assert_null(mem_alloc_table(sizes[i]));
    }
    assert_null(mem_alloc_table(0));
    assert_null(mem_alloc_table(SIZE_MAX));
}

static void kernels_are_chosen_by_name(void **state)
{
    (void)state;
    const struct tensor_ops *ops = NULL;
    struct error err = ERROR_INIT;
    assert_int_equal(tensor_select(NULL, &ops, &err), STATUS_OK);
    assert_ptr_equal(ops, isas[0]);
    for (uint32_t i = 0; i < n_isas; i++) {
        assert_int_equal(tensor_select(isas[i]->isa, &ops, &err), STATUS_OK);
        assert_ptr_equal(ops, isas[i]);
    }
    assert_string_equal(isas[n_isas - 1]->isa, "reference");
    assert_int_equal(tensor_select("sse", &ops, &err), STATUS_UNSUPPORTED);
    assert_non_null(strstr(err.message, "\"sse\""));
    assert_non_null(strstr(err.message, "reference"));
    assert_ptr_equal(ops, isas[n_isas - 1]);
    const struct tensor_ops *first[1] = {NULL};
    assert_int_equal(tensor_available(first, 1), n_isas);
    assert_ptr_equal(first[0], isas[0]);
}

int main(void)
{
    n_isas = tensor_available(isas, MAX_ISAS);
    for (uint32_t i = 0; i < n_isas; i++) {
        printf("instruction set run here: %s\n", isas[i]->isa);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_match_double_precision),
        cmocka_unit_test(any_cut_gives_the_same_bits),
        cmocka_unit_test(any_number_of_threads_gives_the_same_bits),
        cmocka_unit_test(a_bad_row_stays_alone),
        cmocka_unit_test(packing_is_independent_of_how_rows_arrive),
        cmocka_unit_test(packing_errors),
        cmocka_unit_test(large_tables_are_zeroed),
        cmocka_unit_test(kernels_are_chosen_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
