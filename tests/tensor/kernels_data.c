/*
 * kernels_data.c - shapes and random values of bench_kernels, and the check of its products.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "tensor/bf16.h"
#include "tensor/kernels_int.h"

#define WEIGHT_STEP 8 /* a row of weights begins so many values after the one before it */
#define WEIGHT_SEED 1000
#define F32_UNIT    0x1p-24

const struct shape shapes[N_SHAPES] = {
    {"qkv      960 x  576", 960, 576},   {"o        576 x  576", 576, 576},
    {"gate,up 3072 x  576", 3072, 576},  {"down     576 x 1536", 576, 1536},
    {"head   49152 x  576", 49152, 576},
};

uint32_t shape_of(uint32_t matrix)
{
    return matrix + 1 < N_MATRICES ? matrix % (N_SHAPES - 1) : N_SHAPES - 1;
}

void fail(const char *what)
{
    fprintf(stderr, "bench_kernels: %s\n", what);
    exit(1);
}

void *must_alloc(size_t bytes)
{
    void *p = mem_alloc_aligned(64, bytes);
    if (p == NULL) {
        fail("no memory");
    }
    return p;
}

static void fill_normal(float *out, uint32_t n, uint64_t seed)
{
    struct rng r = rng_stream(seed, 1);
    for (uint32_t k = 0; k < n; k++) {
        out[k] = (float)rng_normal(&r);
    }
}

const float *weight_row(uint32_t row)
{
    static float values[WIDEST_IN + WEIGHT_ROWS * WEIGHT_STEP];
    static bool is_filled;
    if (!is_filled) {
        fill_normal(values, sizeof values / sizeof values[0], WEIGHT_SEED);
        is_filled = true;
    }
    return values + (size_t)(row % WEIGHT_ROWS) * WEIGHT_STEP;
}

void fill_inputs(float *out, uint32_t n, uint32_t t)
{
    fill_normal(out, n, t);
}

float to_bf16(float x)
{
    return bf16_to_f32(bf16_from_f32(x));
}

/* From the first to the last. */
struct sample sample_of(const struct shape *s, uint32_t n_rows)
{
    struct sample of = {.n_rows = n_rows < SAMPLE_ROWS ? n_rows : SAMPLE_ROWS};
    for (uint32_t i = 0; i < of.n_rows; i++) {
        of.rows[i] = of.n_rows > 1 ? i * (n_rows - 1) / (of.n_rows - 1) : 0;
    }
    for (uint32_t i = 0; i < SAMPLE_OUTS; i++) {
        of.outs[i] = i * (s->n_out - 1) / (SAMPLE_OUTS - 1);
    }
    return of;
}

double share_of_bound(double got, double want, double magnitude, uint32_t n_in)
{
    double share = fabs(got - want) / (n_in * F32_UNIT * magnitude);
    return isfinite(share) ? share : (double)INFINITY;
}

/* The sampled rows of inputs as a product of ops sees them. */
static float *sample_inputs(const struct tensor_ops *ops, enum tensor_dtype dtype,
                            const struct sample *of, uint32_t n_in)
{
    float *x = must_alloc((size_t)of->n_rows * n_in * sizeof *x);
    for (uint32_t i = 0; i < of->n_rows; i++) {
        float *row = x + (size_t)i * n_in;
        fill_inputs(row, n_in, of->rows[i]);
        for (uint32_t k = 0; k < n_in; k++) {
            bool is_rounded = dtype == TENSOR_BF16 && ops->product[dtype].pack_row != NULL;
            row[k] = is_rounded ? to_bf16(row[k]) : row[k];
        }
    }
    return x;
}

/* y[n_rows][SAMPLE_OUTS] = x times w on the reference instruction set. */
static void reference_product(const struct tensor_ops *reference, float *y, const float *x,
                              uint32_t n_rows, const struct packed_matrix *w)
{
    size_t bytes = tensor_operand_bytes(reference, w->dtype, w->n_in);
    struct operand in = {.data = x, .stride = w->n_in * sizeof *x};
    char *packed = NULL;
    if (bytes > 0) {
        packed = must_alloc(n_rows * bytes);
        for (size_t t = 0; t < n_rows; t++) {
            reference->product[w->dtype].pack_row(packed + t * bytes, x + t * w->n_in, w->n_in);
        }
        in = (struct operand){.data = packed, .stride = bytes};
    }
    reference->product[w->dtype].matmul(y, SAMPLE_OUTS, &in, 0, n_rows, w, 0,
                                        SAMPLE_OUTS / w->panel);
    mem_free(packed);
}

static double magnitude_of(const float *x, const float *w, uint32_t n)
{
    double sum = 0.0;
    for (uint32_t k = 0; k < n; k++) {
        sum += fabs((double)x[k] * (double)w[k]);
    }
    return sum;
}

double reference_error(const struct tensor_ops *ops, enum tensor_dtype dtype, const struct shape *s,
                       uint32_t n_rows, const float *y)
{
    const struct tensor_ops *reference = NULL;
    struct packed_matrix w;
    struct sample of = sample_of(s, n_rows);
    float want[SAMPLE_ROWS * SAMPLE_OUTS];
    if (tensor_select("reference", &reference, NULL) != STATUS_OK ||
        packed_begin(&w, reference, dtype, SAMPLE_OUTS, s->n_in, false, NULL, NULL) != STATUS_OK) {
        fail("no reference");
    }
    for (uint32_t i = 0; i < SAMPLE_OUTS; i++) {
        packed_put_rows(&w, i, 1, weight_row(of.outs[i]));
    }
    float *x = sample_inputs(ops, dtype, &of, s->n_in);
    reference_product(reference, want, x, of.n_rows, &w);
    double worst = 0.0;
    float weights[WIDEST_IN];
    for (uint32_t i = 0; i < SAMPLE_OUTS; i++) {
        packed_get_row(&w, i, weights);
        for (uint32_t t = 0; t < of.n_rows; t++) {
            double magnitude = magnitude_of(x + (size_t)t * s->n_in, weights, s->n_in);
            float got = y[(size_t)of.rows[t] * s->n_out + of.outs[i]];
            worst = fmax(worst, share_of_bound((double)got, (double)want[t * SAMPLE_OUTS + i],
                                               magnitude, s->n_in));
        }
    }
    mem_free(x);
    packed_deinit(&w);
    return worst;
}
