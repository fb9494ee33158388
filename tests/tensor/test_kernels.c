/*
 * test_kernels.c - matrix product, packing and choice of kernels, on every instruction set here.
 *
 * Values against double precision over the weights and inputs as the dtype rounds them (error <= K
 * 2^-24 sum |x w|), and the promise of tensor.h bit for bit: rows alone or together, any range of
 * panels, any number of threads; int8 alike on every instruction set. Inputs and outputs end at a
 * guard page. The other operations: test_row_ops.c, test_attend.c.
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

static struct packed_matrix pack(const struct tensor_ops *ops, enum tensor_dtype dtype, uint32_t N,
                                 uint32_t K, const float *w, const float *bias)
{
    struct packed_matrix m;
    assert_int_equal(packed_begin(&m, ops, dtype, N, K, bias != NULL, NULL, NULL), STATUS_OK);
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

/* f32 rows as an operand; of rows that are packed, `packed` owns them, and ends with the last. */
static struct operand operand_of(const struct tensor_ops *ops, enum tensor_dtype dtype,
                                 const float *x, size_t ldx, uint32_t T, uint32_t K,
                                 struct guarded *packed)
{
    size_t stride = tensor_operand_bytes(ops, dtype, K);
    *packed = guarded_alloc(T * stride / sizeof(float));
    if (stride == 0) {
        return (struct operand){.data = x, .stride = ldx * sizeof *x};
    }
    struct guarded row = guarded_alloc(stride / sizeof(float));
    for (uint32_t t = 0; t < T; t++) {
        ops->product[dtype].pack_row(row.at, x + t * ldx, K);
        memcpy((char *)packed->at + t * stride, row.at, stride);
    }
    guarded_free(&row);
    return (struct operand){.data = packed->at, .stride = stride};
}

static void multiply(const struct tensor_ops *ops, float *y, size_t ldy, const float *x, size_t ldx,
                     uint32_t T, const struct packed_matrix *m)
{
    struct guarded packed;
    struct operand o = operand_of(ops, m->dtype, x, ldx, T, m->n_in, &packed);
    ops->product[m->dtype].matmul(y, ldy, &o, 0, T, m, 0, panels_of(m));
    guarded_free(&packed);
}

/* Nearest bf16, ties to even. */
static float to_bf16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000;
    memcpy(&x, &bits, sizeof bits);
    return x;
}

/* The largest size in a group that has n values at most. */
static float group_top(const float *x, uint32_t n)
{
    float top = 0.0f;
    for (uint32_t k = 0; k < n && k < TENSOR_INT8_GROUP; k++) {
        top = fmaxf(top, fabsf(x[k]));
    }
    return top;
}

/* The scale of a group of inputs that has n values at most: 196 levels, 0 among them. */
static float group_scale(const float *x, uint32_t n)
{
    float above = 0.0f;
    float below = 0.0f;
    for (uint32_t k = 0; k < n && k < TENSOR_INT8_GROUP; k++) {
        above = fmaxf(above, x[k]);
        below = fmaxf(below, -x[k]);
    }
    return above / 196.0f + below / 196.0f;
}

/* A row of n inputs as the products of a dtype see it. */
static void round_inputs(const struct tensor_ops *ops, enum tensor_dtype dtype, const float *x,
                         uint32_t n, double *out)
{
    float scale = 0.0f;
    for (uint32_t k = 0; k < n; k++) {
        out[k] = (double)x[k];
        scale = k % TENSOR_INT8_GROUP == 0 ? group_scale(x + k, n - k) : scale;
        if (dtype == TENSOR_BF16 && ops->product[dtype].pack_row != NULL) {
            out[k] = (double)to_bf16(x[k]);
        } else if (dtype == TENSOR_INT8) {
            out[k] = (double)(rintf(x[k] * (1.0f / scale)) * scale);
        }
    }
}

/* Inputs for all shapes of one K. */
struct exact_case {
    uint32_t T, N, K;
    struct guarded x, w, bias;
};

static void exact_begin(struct exact_case *e, uint32_t T, uint32_t N, uint32_t K)
{
    *e = (struct exact_case){.T = T, .N = N, .K = K};
    e->x = guarded_normal((size_t)T * K, 1.0, K + 1);
    e->w = guarded_normal((size_t)N * K, 0.5, K + 2);
    e->bias = guarded_normal(N, 3.0, K + 3);
}

static void exact_end(struct exact_case *e)
{
    guarded_free(&e->x);
    guarded_free(&e->w);
    guarded_free(&e->bias);
}

/* The sum and the sum of sizes of a row of inputs times an output's weights as they are kept. */
static double exact_sum(const double *x, const float *w, uint32_t K, double *magnitude)
{
    double sum = 0.0;
    *magnitude = 0.0;
    for (uint32_t k = 0; k < K; k++) {
        double term = x[k] * (double)w[k];
        sum += term;
        *magnitude += fabs(term);
    }
    return sum;
}

/* The last T rows of x (they end at the guard page) times the first N outputs, on one ISA. */
static void check_product(const struct exact_case *e, const struct tensor_ops *ops,
                          enum tensor_dtype dtype, uint32_t T, uint32_t N, bool with_bias)
{
    uint32_t K = e->K;
    const float *x = e->x.at + (size_t)(e->T - T) * K;
    struct packed_matrix m = pack(ops, dtype, N, K, e->w.at, with_bias ? e->bias.at : NULL);
    struct guarded y = guarded_alloc((size_t)T * N);
    double *rounded = malloc((size_t)T * K * sizeof *rounded);
    float *weights = malloc(K * sizeof *weights);
    assert_non_null(rounded);
    assert_non_null(weights);
    for (size_t t = 0; t < T; t++) {
        round_inputs(ops, dtype, x + t * K, K, rounded + t * K);
    }
    multiply(ops, y.at, N, x, K, T, &m);
    for (size_t n = 0; n < N; n++) {
        packed_get_row(&m, (uint32_t)n, weights);
        for (size_t t = 0; t < T; t++) {
            double magnitude;
            double want = exact_sum(rounded + t * K, weights, K, &magnitude);
            double bias = with_bias ? (double)e->bias.at[n] : 0.0;
            double tol = (K + 4) * F32_UNIT * (magnitude + fabs(bias));
            double got = (double)y.at[t * N + n];
            double diff = fabs(got - (want + bias));
            if (!(diff <= tol)) {
                fail_msg("%s %s T=%u N=%u K=%u [%zu, %zu]: %.9g, want %.9g, off by %.3g > %.3g",
                         ops->isa, tensor_dtype_name(dtype), T, N, K, t, n, got, want + bias, diff,
                         tol);
            }
        }
    }
    free(rounded);
    free(weights);
    guarded_free(&y);
    packed_deinit(&m);
}

static void check_all(const struct exact_case *e, uint32_t T, uint32_t N, bool with_bias)
{
    for (uint32_t i = 0; i < n_isas; i++) {
        for (enum tensor_dtype d = 0; d < TENSOR_DTYPES; d++) {
            if (tensor_dtype_for(d, e->K) == d) {
                check_product(e, isas[i], d, T, N, with_bias);
            }
        }
    }
}

static void products_match_double_precision(void **state)
{
    (void)state;
    static const uint32_t rows[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 17, 33};
    static const uint32_t outs[] = {1, 3, 7, 16, 17, 33, 63, 64, 97, 130};
    static const uint32_t ins[] = {1, 2, 3, 4, 7, 12, 17, 34, 36, 60, 255, 257, 260, 575, 576, 577};
    for (size_t k = 0; k < COUNT(ins); k++) {
        struct exact_case e;
        exact_begin(&e, 33, 130, ins[k]);
        for (size_t t = 0; t < COUNT(rows); t++) {
            /* Long sums: every number of rows with two widths; short ones: with all widths. */
            for (size_t n = ins[k] > 100 ? t % 5 : 0; n<COUNT(outs); n += ins[k]> 100 ? 5 : 1) {
                check_all(&e, rows[t], outs[n], (t + n + k) % 2 == 0);
            }
        }
        exact_end(&e);
    }
    struct exact_case deep;
    exact_begin(&deep, 9, 48, 5636);
    struct exact_case tall;
    exact_begin(&tall, 259, 33, 68);
    check_all(&deep, 9, 48, true);
    check_all(&deep, 1, 48, false);
    check_all(&tall, 259, 33, true);
    exact_end(&deep);
    exact_end(&tall);
}

/* The largest sums there are, where products could saturate 16 bits: weights of a scale of 1 whose
 * fours sum to 164 of either sign, by 8 inputs, and inputs whose bytes are 0 or 196. */
static const float extreme_weights[][8] = {
    {127.0f, 37.0f, 82.0f, 82.0f},                           /* the first pair of each four */
    {127.0f, 0.0f, 41.0f, 41.0f, 37.0f, 0.0f, 41.0f, 41.0f}, /* both */
    {127.0f, -127.0f, 82.0f, -82.0f, 37.0f, -37.0f, 82.0f, -82.0f},
    {-127.0f, -37.0f, -82.0f, -82.0f},
    {-127.0f, 0.0f, -41.0f, -41.0f, -37.0f, 0.0f, -41.0f, -41.0f},
    {-127.0f, 127.0f, -82.0f, 82.0f, -37.0f, 37.0f, -82.0f, 82.0f},
};
static const float extreme_inputs[][2] = {{196.0f, 196.0f}, {-196.0f, -196.0f}, {98.0f, -98.0f},
                                          {-196.0f, 0.0f},  {0.0f, 196.0f},     {0.0f, 0.0f}};

static void int8_extremes_are_exact(void **state)
{
    (void)state;
    enum { K = 512, N = 70, T = COUNT(extreme_inputs), W = COUNT(extreme_weights) };
    struct guarded x = guarded_alloc((size_t)T * K);
    struct guarded w = guarded_alloc((size_t)N * K);
    float y[T * N];
    for (size_t k = 0; k < K; k++) {
        for (size_t t = 0; t < T; t++) {
            x.at[t * K + k] = extreme_inputs[t][k % 2];
        }
        for (size_t n = 0; n < N; n++) {
            w.at[n * K + k] = extreme_weights[n % W][k % 8];
        }
    }
    for (uint32_t i = 0; i < n_isas; i++) {
        struct packed_matrix m = pack(isas[i], TENSOR_INT8, N, K, w.at, NULL);
        multiply(isas[i], y, N, x.at, K, T, &m);
        for (size_t i_y = 0; i_y < (size_t)T * N; i_y++) {
            const float *in = extreme_inputs[i_y / N];
            const float *of = w.at + i_y % N * K;
            float want = 0.0f;
            for (size_t k = 0; k < K; k++) {
                want += in[k % 2] * of[k];
            }
            if (!(y[i_y] == want)) {
                fail_msg("%s: inputs %g %g, weights %g %g ...: %g, not %g", isas[i]->isa,
                         (double)in[0], (double)in[1], (double)of[0], (double)of[1], (double)y[i_y],
                         (double)want);
            }
        }
        packed_deinit(&m);
    }
    guarded_free(&x);
    guarded_free(&w);
}

/* The most that the positive weights, or the negative ones, of four inputs sum to, as kept: those
 * whose products are summed in 16 bits. k: the first of them. */
static int32_t sum_of_four(const struct packed_matrix *m, size_t n, size_t k)
{
    static const size_t of[4] = {0, 1, 4, 5};
    int32_t above = 0;
    int32_t below = 0;
    for (size_t i = 0; i < 4 && k + of[i] < m->n_in; i++) {
        const int8_t q = ((const int8_t *)m->data)[packed_index(m, n, k + of[i])];
        assert_in_range(abs(q), 0, TENSOR_INT8_TOP);
        above += q > 0 ? q : 0;
        below -= q < 0 ? q : 0;
    }
    return above > below ? above : below;
}

/* Whatever the weights. */
static void int8_fours_never_saturate(void **state)
{
    (void)state;
    enum { K = 4092, N = 17 }; /* the last group ends within eight */
    struct guarded w = guarded_normal((size_t)N * K, 1.0, 77);
    for (size_t k = 0; k < K; k++) {
        w.at[k] = 3e38f;                                            /* a sum is infinite */
        w.at[K + k] = k % 64 == 7 ? 1.0f : 0.0f;                    /* fours bind nothing */
        w.at[2 * K + k] = k % 8 == 5 || k % 8 == 7 ? 39.5f : 41.5f; /* rounding adds all it can */
    }
    int32_t most = 0;
    struct packed_matrix m = pack(isas[0], TENSOR_INT8, N, K, w.at, NULL);
    for (size_t n = 0; n < N; n++) {
        for (size_t k = 0; k < K; k += k % 4 == 0 ? 2 : 6) {
            int32_t sum = sum_of_four(&m, n, k);
            most = sum > most ? sum : most;
        }
    }
    assert_int_equal(most, TENSOR_INT8_FOUR + 2);
    packed_deinit(&m);
    guarded_free(&w);
}

/* A product of one output, by the first of K weights and of K inputs alone. */
static float tiny_product(const struct tensor_ops *ops, float x, float w)
{
    enum { K = 68 };
    float inputs[K] = {x};
    float weights[K] = {w};
    float y;
    struct packed_matrix m = pack(ops, TENSOR_INT8, 1, K, weights, NULL);
    multiply(ops, &y, 1, inputs, K, 1, &m);
    packed_deinit(&m);
    return y;
}

/* Values below TENSOR_INT8_LEAST count as zeros; those above do not, though scales are denormal. */
static void int8_of_next_to_nothing_is_nothing(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < n_isas; i++) {
        assert_true(tiny_product(isas[i], 0.9e-36f, 1.0f) == 0.0f);
        assert_true(tiny_product(isas[i], 1.0f, 0.9e-36f) == 0.0f);
        assert_true(tiny_product(isas[i], -1e-38f, 1e-38f) == 0.0f);
        assert_true(fabsf(tiny_product(isas[i], 1.1e-36f, 1.0f) / 1.1e-36f - 1.0f) <= 0.02f);
        assert_true(fabsf(tiny_product(isas[i], 1.0f, -1.1e-36f) / -1.1e-36f - 1.0f) <= 0.02f);
    }
}

/* Every instruction set sums the same whole numbers, and scales and adds them in the same order. */
static void int8_is_alike_everywhere(void **state)
{
    (void)state;
    enum { T = 7, N = 70, K = 1356 };
    struct guarded x = guarded_normal((size_t)T * K, 1.0, 21);
    struct guarded w = guarded_normal((size_t)N * K, 0.5, 22);
    float want[T * N];
    float got[T * N];
    struct packed_matrix m = pack(isas[n_isas - 1], TENSOR_INT8, N, K, w.at, NULL);
    multiply(isas[n_isas - 1], want, N, x.at, K, T, &m);
    packed_deinit(&m);
    for (uint32_t i = 0; i + 1 < n_isas; i++) {
        m = pack(isas[i], TENSOR_INT8, N, K, w.at, NULL);
        multiply(isas[i], got, N, x.at, K, T, &m);
        for (size_t j = 0; j < (size_t)T * N; j++) {
            if (!(got[j] == want[j])) {
                fail_msg("%s [%zu]: %.9g, not %.9g", isas[i]->isa, j, (double)got[j],
                         (double)want[j]);
            }
        }
        packed_deinit(&m);
    }
    guarded_free(&x);
    guarded_free(&w);
}

/* A problem with its answer by one call over everything; the cases below cut it otherwise. */
struct cut_case {
    uint32_t T, N, K;
    size_t ldx, ldy;
    struct guarded x, packed, y, whole;
    struct packed_matrix m;
    struct operand in;
};

static void cut_begin(struct cut_case *c, const struct tensor_ops *ops, enum tensor_dtype dtype,
                      uint32_t T, uint32_t N, uint32_t K)
{
    *c = (struct cut_case){.T = T, .N = N, .K = K, .ldx = K + 3, .ldy = N + 5};
    c->x = guarded_normal((T - 1) * c->ldx + K, 1.0, 11);
    c->y = guarded_alloc((T - 1) * c->ldy + N);
    c->whole = guarded_alloc((T - 1) * c->ldy + N);
    struct guarded w = guarded_normal((size_t)N * K, 0.5, 12);
    struct guarded bias = guarded_normal(N, 3.0, 13);
    c->m = pack(ops, tensor_dtype_for(dtype, K), N, K, w.at, bias.at);
    guarded_free(&w);
    guarded_free(&bias);
    c->in = operand_of(ops, c->m.dtype, c->x.at, c->ldx, T, K, &c->packed);
    ops->product[c->m.dtype].matmul(c->whole.at, c->ldy, &c->in, 0, T, &c->m, 0, panels_of(&c->m));
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
            fail_msg("%s %s T=%u N=%u K=%u: row %zu has other bits (%s %u, %u)", ops->isa,
                     tensor_dtype_name(c->m.dtype), c->T, c->N, c->K, t, what, a, b);
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
    guarded_free(&c->packed);
    guarded_free(&c->x);
    guarded_free(&c->y);
    guarded_free(&c->whole);
    packed_deinit(&c->m);
}

static const struct {
    uint32_t T, N, K;
} cut_shapes[] = {{37, 97, 575}, {5, 577, 4}, {26, 33, 1540}, {14, 200, 260}};

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
            ops->product[c->m.dtype].matmul(c->y.at, c->ldy, &c->in, t,
                                            c->T - t < rows ? c->T - t : rows, &c->m, p,
                                            n_panels - p < panels ? n_panels : p + panels);
        }
    }
    cut_check(c, ops, "rows, panels at a time", rows, panels);
}

static void any_cut_gives_the_same_bits(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < n_isas * TENSOR_DTYPES; i++) {
        const struct tensor_ops *ops = isas[i / TENSOR_DTYPES];
        for (size_t s = 0; s < COUNT(cut_shapes); s++) {
            struct cut_case c;
            cut_begin(&c, ops, i % TENSOR_DTYPES, cut_shapes[s].T, cut_shapes[s].N,
                      cut_shapes[s].K);
            for (uint32_t k = 0; k < COUNT(cut_steps); k++) {
                check_cut(&c, ops, cut_steps[k], panels_of(&c.m));
                check_cut(&c, ops, 1 + k % 3, cut_steps[k]);
            }
            cut_end(&c);
        }
    }
}

static void any_number_of_threads_gives_the_same_bits(void **state)
{
    (void)state;
    /* The last two: more rows than a block has, of any dtype; rows so long that a block has few. */
    static const struct {
        uint32_t T, N, K;
    } shapes[] = {{1, 193, 300},   {2, 193, 300},   {7, 193, 300}, {32, 193, 300},
                  {300, 193, 300}, {1400, 49, 300}, {70, 49, 4400}};
    for (uint32_t threads = 1; threads <= 5; threads++) {
        struct pool *pool = NULL;
        assert_int_equal(pool_create(threads, &pool, NULL), STATUS_OK);
        for (uint32_t i = 0; i < n_isas * TENSOR_DTYPES; i++) {
            const struct tensor_ops *ops = isas[i / TENSOR_DTYPES];
            for (size_t s = 0; s < COUNT(shapes); s++) {
                struct cut_case c;
                cut_begin(&c, ops, i % TENSOR_DTYPES, shapes[s].T, shapes[s].N, shapes[s].K);
                cut_clear(&c);
                tensor_matmul(ops, pool, c.y.at, c.ldy, &c.in, c.T, &c.m);
                cut_check(&c, ops, "threads", threads, 0);
                tensor_matmul(ops, pool, c.y.at, c.ldy, &c.in, 0, &c.m);
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
    for (uint32_t i = 0; i < n_isas * TENSOR_DTYPES; i++) {
        const struct tensor_ops *ops = isas[i / TENSOR_DTYPES];
        struct cut_case c;
        cut_begin(&c, ops, i % TENSOR_DTYPES, 13, 70, 300);
        cut_clear(&c);
        c.x.at[6 * c.ldx + 299] = NAN;
        c.x.at[7 * c.ldx] = i % 2 == 0 ? INFINITY : -INFINITY;
        multiply(ops, c.y.at, c.ldy, c.x.at, c.ldx, c.T, &c.m);
        for (size_t n = 0; n < c.N; n++) {
            assert_true(isnan(c.y.at[6 * c.ldy + n]));
            assert_false(isfinite(c.y.at[7 * c.ldy + n]));
            c.y.at[6 * c.ldy + n] = c.whole.at[6 * c.ldy + n];
            c.y.at[7 * c.ldy + n] = c.whole.at[7 * c.ldy + n];
        }
        cut_check(&c, ops, "bad row", 6, 7);
        cut_end(&c);
    }
}

static void a_bad_weight_spoils_its_output_alone(void **state)
{
    (void)state;
    enum { T = 5, N = 40, K = 300 };
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    struct guarded x = guarded_normal((size_t)T * K, 1.0, 31);
    struct guarded w = guarded_normal((size_t)N * K, 1.0, 32);
    float want[T * N];
    float got[T * N];
    for (uint32_t i = 0; i < n_isas * TENSOR_DTYPES * COUNT(bad); i++) {
        const struct tensor_ops *ops = isas[i / COUNT(bad) / TENSOR_DTYPES];
        enum tensor_dtype dtype = i / COUNT(bad) % TENSOR_DTYPES;
        struct packed_matrix m = pack(ops, dtype, N, K, w.at, NULL);
        multiply(ops, want, N, x.at, K, T, &m);
        packed_deinit(&m);
        const size_t at = 17 * K + 298;
        float good = w.at[at];
        w.at[at] = bad[i % COUNT(bad)];
        m = pack(ops, dtype, N, K, w.at, NULL);
        w.at[at] = good;
        multiply(ops, got, N, x.at, K, T, &m);
        packed_deinit(&m);
        for (size_t t = 0; t < T; t++) {
            assert_false(isfinite(got[t * N + 17]));
            got[t * N + 17] = want[t * N + 17];
        }
        assert_memory_equal(got, want, sizeof got);
    }
    guarded_free(&x);
    guarded_free(&w);
}

/* In memory of another owner: the same bytes, the bias behind them, nothing past packed_memory(),
 * and the memory stays. */
static void check_placed(const struct packed_matrix *whole, const struct tensor_ops *ops,
                         const float *w)
{
    struct packed_matrix m;
    size_t bytes = (size_t)packed_memory(ops, whole->dtype, whole->n_out, whole->n_in);
    char *memory = mem_alloc_aligned(64, bytes + 64);
    assert_non_null(memory);
    assert_int_equal(bytes % 64, 0);
    memset(memory + bytes, 0x5A, 64);
    assert_int_equal(
        packed_begin(&m, ops, whole->dtype, whole->n_out, whole->n_in, true, memory, NULL),
        STATUS_OK);
    packed_put_rows(&m, 0, m.n_out, w);
    packed_put_bias(&m, 0, m.n_out, w);
    assert_ptr_equal(m.data, memory);
    assert_memory_equal(m.data, whole->data, whole->bytes);
    assert_true((char *)m.bias >= memory + m.bytes && (uintptr_t)m.bias % 64 == 0);
    assert_memory_equal(m.bias, w, m.n_out * sizeof *w);
    packed_deinit(&m);
    assert_memory_equal(memory, whole->data, whole->bytes);
    for (size_t i = 0; i < 64; i++) {
        assert_int_equal(memory[bytes + i], 0x5A);
    }
    mem_free(memory);
}

/* What may be lost of weight k of a row of n: of int8 half the scale that its group's largest size,
 * or largest sum of four, asks for; in bf16 a scale is up to 1/128 larger. */
static float rounding_of(enum tensor_dtype dtype, const float *row, uint32_t k, uint32_t n)
{
    if (dtype != TENSOR_INT8) {
        return dtype == TENSOR_F32 ? 0.0f : fabsf(row[k]) / 256.0f;
    }
    uint32_t group = k / TENSOR_INT8_GROUP * TENSOR_INT8_GROUP;
    float scale = group_top(row + group, n - group) / 127.0f;
    for (uint32_t i = group; i < n && i < group + TENSOR_INT8_GROUP; i += i % 4 == 0 ? 2 : 6) {
        bool is_cut = i + 4 >= n; /* the last group ends within eight */
        float four[4] = {row[i], row[i + 1], is_cut ? 0.0f : row[i + 4],
                         is_cut ? 0.0f : row[i + 5]};
        float above = 0.0f;
        float below = 0.0f;
        for (uint32_t j = 0; j < 4; j++) {
            above += fmaxf(four[j], 0.0f);
            below += fmaxf(-four[j], 0.0f);
        }
        scale = fmaxf(scale, fmaxf(above, below) / 164.0f);
    }
    return scale * (1.0f + 1.0f / 128.0f) * 0.5001f;
}

static void check_packing(const struct tensor_ops *ops, enum tensor_dtype dtype, const float *w,
                          uint32_t N, uint32_t K)
{
    struct packed_matrix whole = pack(ops, dtype, N, K, w, NULL);
    assert_int_equal((uintptr_t)whole.data % 64, 0);
    for (uint32_t step = 1; step <= N; step++) {
        struct packed_matrix m;
        assert_int_equal(packed_begin(&m, ops, dtype, N, K, true, NULL, NULL), STATUS_OK);
        for (uint32_t r = 0; r < N; r += step) {
            packed_put_rows(&m, r, N - r < step ? N - r : step, w + (size_t)r * K);
        }
        assert_int_equal(m.bytes, whole.bytes);
        assert_memory_equal(m.data, whole.data, m.bytes);
        packed_deinit(&m);
    }
    check_placed(&whole, ops, w);
    float row[164];
    for (uint32_t r = 0; r < N; r++) {
        const float *want = w + (size_t)r * K;
        packed_get_row(&whole, r, row);
        for (uint32_t k = 0; k < K; k++) {
            assert_true(fabsf(row[k] - want[k]) <= rounding_of(dtype, want, k, K));
        }
    }
    packed_deinit(&whole);
    assert_null(whole.data);
}

static void packing_is_independent_of_how_rows_arrive(void **state)
{
    (void)state;
    const uint32_t N = 83;
    const uint32_t K = 164;
    struct guarded w = guarded_normal((size_t)N * K, 1.0, 5);
    for (uint32_t i = 0; i < n_isas * TENSOR_DTYPES; i++) {
        check_packing(isas[i / TENSOR_DTYPES], i % TENSOR_DTYPES, w.at, N, K);
    }
    guarded_free(&w);
}

static void limits_do_what_they_count(void **state)
{
    (void)state;
    struct guarded x = guarded_normal(256, 1.0, 9);
    x.at[255] = 100.0f;
    for (uint32_t i = 0; i < n_isas; i++) {
        for (enum tensor_dtype d = 0; d < TENSOR_DTYPES; d++) {
            assert_in_range(isas[i]->multiply_add(d, 1000000), 1000000, 1010000);
        }
        assert_true(isas[i]->read(x.at, 256) == 100.0f);
    }
    guarded_free(&x);
}

static void odd_matrices_stay_in_f32(void **state)
{
    (void)state;
    assert_int_equal(tensor_dtype_for(TENSOR_BF16, 577), TENSOR_F32);
    assert_int_equal(tensor_dtype_for(TENSOR_BF16, 578), TENSOR_BF16);
    assert_int_equal(tensor_dtype_for(TENSOR_INT8, 578), TENSOR_F32);
    assert_int_equal(tensor_dtype_for(TENSOR_INT8, 576), TENSOR_INT8);
}

/* Rows lie one behind the other and are packed by several threads. */
static void operand_rows_stay_within_their_bytes(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < n_isas * TENSOR_DTYPES; i++) {
        const struct tensor_ops *ops = isas[i / TENSOR_DTYPES];
        enum tensor_dtype dtype = (enum tensor_dtype)(i % TENSOR_DTYPES);
        uint32_t step = tensor_step_inputs(dtype);
        for (uint32_t K = step; K <= 260 && ops->product[dtype].pack_row != NULL; K += step) {
            struct guarded x = guarded_normal(K, 1.0, K);
            struct guarded row = guarded_alloc(tensor_operand_bytes(ops, dtype, K) / sizeof(float));
            ops->product[dtype].pack_row(row.at, x.at, K);
            guarded_free(&x);
            guarded_free(&row);
        }
    }
}

static void packing_errors(void **state)
{
    (void)state;
    struct packed_matrix m = {.n_out = 7};
    struct error err = ERROR_INIT;
    assert_int_equal(
        packed_begin(&m, isas[0], TENSOR_F32, UINT32_MAX, UINT32_MAX, false, NULL, &err),
        STATUS_NO_MEMORY);
    assert_non_null(strstr(err.message, "4294967295"));
    for (uint64_t n = 1; n <= 2; n++) {
        mem_fail_at(n, false);
        assert_int_equal(packed_begin(&m, isas[0], TENSOR_INT8, 8, 8, true, NULL, &err),
                         STATUS_NO_MEMORY);
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
        cmocka_unit_test(int8_extremes_are_exact),
        cmocka_unit_test(int8_fours_never_saturate),
        cmocka_unit_test(int8_of_next_to_nothing_is_nothing),
        cmocka_unit_test(int8_is_alike_everywhere),
        cmocka_unit_test(a_bad_weight_spoils_its_output_alone),
        cmocka_unit_test(limits_do_what_they_count),
        cmocka_unit_test(odd_matrices_stay_in_f32),
        cmocka_unit_test(packing_is_independent_of_how_rows_arrive),
        cmocka_unit_test(operand_rows_stay_within_their_bytes),
        cmocka_unit_test(packing_errors),
        cmocka_unit_test(large_tables_are_zeroed),
        cmocka_unit_test(kernels_are_chosen_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
