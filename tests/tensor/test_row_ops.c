/*
 * test_row_ops.c - norms, activations, additions and rotations on every instruction set here,
 * against double precision, at odd lengths, at a guard page, and with NaN and infinities.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "tensor/tensor.h"
#include "tensor/tensor_test.h"

#define MAX_ISAS 8

static const struct tensor_ops *isas[MAX_ISAS];
static uint32_t n_isas;

static const uint32_t lengths[] = {1,  2,  3,  7,   8,   15,  16,  17,  31,   33,
                                   63, 64, 65, 127, 129, 575, 576, 577, 1025, 4099};

static void check_near(const char *isa, const char *op, uint32_t n, size_t i, float got,
                       double want, double tol)
{
    double diff = fabs((double)got - want);
    if (!(diff <= tol)) {
        fail_msg("%s %s n=%u [%zu]: %.9g, want %.9g, off by %.3g > %.3g", isa, op, n, i,
                 (double)got, want, diff, tol);
    }
}

/* The same row elsewhere in memory (other alignment) must give the same bits. */
static void norms_match_double_precision(void **state)
{
    (void)state;
    const float eps = 1e-5f;
    for (size_t l = 0; l < COUNT(lengths); l++) {
        uint32_t n = lengths[l];
        struct guarded x = guarded_normal(n, 2.0, n);
        struct guarded w = guarded_normal(n, 1.0, n + 1);
        struct guarded b = guarded_normal(n, 1.0, n + 2);
        struct guarded y = guarded_alloc(n);
        struct guarded moved = guarded_normal(2 * (size_t)n + 3, 1.0, 1);
        double mean = 0.0;
        double squares = 0.0;
        double variance = 0.0;
        double largest = 0.0;
        for (uint32_t i = 0; i < n; i++) {
            x.at[i] += 10.0f;
            mean += (double)x.at[i] / n;
            squares += (double)x.at[i] * (double)x.at[i] / n;
            largest = fmax(largest, fabs((double)x.at[i]));
        }
        for (uint32_t i = 0; i < n; i++) {
            variance += ((double)x.at[i] - mean) * ((double)x.at[i] - mean) / n;
        }
        double rms_inv = 1.0 / sqrt(squares + (double)eps);
        double layer_inv = 1.0 / sqrt(variance + (double)eps);
        memcpy(moved.at + 1, x.at, n * sizeof(float));
        for (uint32_t a = 0; a < n_isas; a++) {
            const struct tensor_ops *ops = isas[a];
            /* Sums of n terms; the relative error of a variance is at most twice that of its terms.
             */
            double relative = (n + 16) * F32_UNIT;
            ops->rms_norm(y.at, x.at, w.at, n, eps);
            for (uint32_t i = 0; i < n; i++) {
                double want = (double)x.at[i] * rms_inv * (double)w.at[i];
                check_near(ops->isa, "rms_norm", n, i, y.at[i], want, relative * fabs(want));
            }
            ops->rms_norm(moved.at + 1 + n, moved.at + 1, w.at, n, eps);
            assert_memory_equal(moved.at + 1 + n, y.at, n * sizeof(float));
            for (int with_bias = 0; with_bias < 2; with_bias++) {
                ops->layer_norm(y.at, x.at, w.at, with_bias ? b.at : NULL, n, eps);
                for (uint32_t i = 0; i < n; i++) {
                    double want = ((double)x.at[i] - mean) * layer_inv * (double)w.at[i] +
                                  (with_bias ? (double)b.at[i] : 0.0);
                    double shift = largest * layer_inv * fabs((double)w.at[i]);
                    double tol = relative * (shift + fabs(want) + fabs((double)b.at[i])) *
                                 (1 + largest * layer_inv * F32_UNIT * n);
                    check_near(ops->isa, "layer_norm", n, i, y.at[i], want, tol);
                }
                ops->layer_norm(moved.at + 1 + n, moved.at + 1, w.at, with_bias ? b.at : NULL, n,
                                eps);
                assert_memory_equal(moved.at + 1 + n, y.at, n * sizeof(float));
            }
        }
        guarded_free(&x);
        guarded_free(&w);
        guarded_free(&b);
        guarded_free(&y);
        guarded_free(&moved);
    }
}

static double exact_silu(double x)
{
    return x / (1.0 + exp(-x));
}

static double exact_gelu_tanh(double x)
{
    double u = 0.79788456080286535588 * (x + 0.044715 * x * x * x);
    return x / (1.0 + exp(-2.0 * u)); /* = 0.5 x (1 + tanh u), without cancellation */
}

static double exact_gelu_erf(double x)
{
    return 0.5 * x * erfc(-x * 0.70710678118654752440);
}

static double exact_relu(double x)
{
    return x < 0.0 ? 0.0 : x;
}

/* Allowed: relative * |exact| + absolute. The plain tanh loses the left tail, hence its own bound.
 */
static const struct activation {
    const char *name;
    size_t offset;
    double (*exact)(double);
    double relative, absolute;
} activations[] = {
    {"silu", offsetof(struct tensor_ops, silu), exact_silu, 5 * F32_UNIT, 1e-36},
    {"gelu_tanh", offsetof(struct tensor_ops, gelu_tanh), exact_gelu_tanh, 4 * F32_UNIT, 4e-7},
    {"gelu_erf", offsetof(struct tensor_ops, gelu_erf), exact_gelu_erf, 6 * F32_UNIT, 3e-7},
    {"relu", offsetof(struct tensor_ops, relu), exact_relu, 0.0, 0.0},
};

typedef void (*row_fn)(float *x, uint32_t n);

static row_fn activation_of(const struct tensor_ops *ops, const struct activation *a)
{
    row_fn fn;
    memcpy(&fn, (const char *)ops + a->offset, sizeof fn);
    return fn;
}

/* Every 4099th float from -100 to 100, by its bits, and the largest error is printed. */
static void activations_match_double_precision(void **state)
{
    (void)state;
    enum { N = 1021 };
    struct guarded x = guarded_alloc(N);
    struct guarded y = guarded_alloc(N);
    for (uint32_t a = 0; a < n_isas; a++) {
        for (size_t k = 0; k < COUNT(activations); k++) {
            const struct activation *act = &activations[k];
            double worst = 0.0;
            double worst_relative = 0.0;
            uint32_t bits = 0;
            while (bits < 0x42c80000u) {
                for (uint32_t i = 0; i < N; i++) {
                    uint32_t signed_bits = bits | (i % 2 == 0 ? 0u : 0x80000000u);
                    memcpy(x.at + i, &signed_bits, sizeof(float));
                    bits += i % 2 == 0 ? 0 : 4099;
                }
                memcpy(y.at, x.at, N * sizeof(float));
                activation_of(isas[a], act)(y.at, N);
                for (uint32_t i = 0; i < N; i++) {
                    double want = act->exact((double)x.at[i]);
                    double diff = fabs((double)y.at[i] - want);
                    check_near(isas[a]->isa, act->name, N, i, y.at[i], want,
                               act->relative * fabs(want) + act->absolute);
                    worst = fmax(worst, diff);
                    worst_relative =
                        fmax(worst_relative, fabs(want) > 1e-30 ? diff / fabs(want) : 0.0);
                }
            }
            printf("%-9s %-9s largest error %.2g, relative %.2g (%.1f ulp)\n", isas[a]->isa,
                   act->name, worst, worst_relative, worst_relative / (2 * F32_UNIT));
        }
    }
    guarded_free(&x);
    guarded_free(&y);
}

/* Any length, any alignment, any neighbours: the same bits as the element alone. */
static void elements_do_not_depend_on_their_place(void **state)
{
    (void)state;
    for (uint32_t a = 0; a < n_isas; a++) {
        for (size_t l = 0; l < COUNT(lengths); l++) {
            uint32_t n = lengths[l];
            struct guarded x = guarded_normal(n, 4.0, n);
            struct guarded up = guarded_normal(n, 4.0, n + 1);
            struct guarded y = guarded_alloc(n);
            for (size_t k = 0; k < COUNT(activations) + 2; k++) {
                memcpy(y.at, x.at, n * sizeof(float));
                if (k == COUNT(activations)) {
                    isas[a]->silu_mul(y.at, up.at, n);
                } else if (k == COUNT(activations) + 1) {
                    isas[a]->add(y.at, up.at, n);
                } else {
                    activation_of(isas[a], &activations[k])(y.at, n);
                }
                for (uint32_t i = 0; i < n; i++) {
                    float alone = x.at[i];
                    if (k == COUNT(activations)) {
                        isas[a]->silu_mul(&alone, up.at + i, 1);
                        double want = exact_silu((double)x.at[i]) * (double)up.at[i];
                        check_near(isas[a]->isa, "silu_mul", n, i, y.at[i], want,
                                   6 * F32_UNIT * fabs(want));
                    } else if (k == COUNT(activations) + 1) {
                        isas[a]->add(&alone, up.at + i, 1);
                        float sum = x.at[i] + up.at[i];
                        assert_memory_equal(&sum, &alone, sizeof sum);
                    } else {
                        activation_of(isas[a], &activations[k])(&alone, 1);
                    }
                    assert_memory_equal(&alone, y.at + i, sizeof alone);
                }
            }
            guarded_free(&x);
            guarded_free(&up);
            guarded_free(&y);
        }
    }
}

static void nan_and_infinities_are_sensible(void **state)
{
    (void)state;
    for (uint32_t a = 0; a < n_isas; a++) {
        for (size_t k = 0; k < COUNT(activations); k++) {
            float x[9] = {NAN, INFINITY, -1e30f, 1e30f, -200.0f, 0.0f, -0.0f, 1e-40f, -89.5f};
            activation_of(isas[a], &activations[k])(x, 9);
            assert_true(isnan(x[0]));
            assert_true(isinf(x[1]) && x[1] > 0);
            assert_true(x[2] == 0.0f);
            assert_true(x[3] == 1e30f);
            assert_true(fabsf(x[4]) < 1e-30f);
            assert_true(x[5] == 0.0f && x[6] == 0.0f);
            assert_true(x[7] >= 0.0f && x[7] <= 1e-40f);
            assert_true(fabsf(x[8]) < 1e-30f);
        }
        float row[5] = {1.0f, 2.0f, NAN, 4.0f, 5.0f};
        float ones[5] = {1.0f, 1.0f, 1.0f, 1.0f, 1.0f};
        float y[5];
        isas[a]->rms_norm(y, row, ones, 5, 1e-5f);
        assert_true(isnan(y[0]) && isnan(y[4]));
        isas[a]->layer_norm(y, row, ones, NULL, 5, 1e-5f);
        assert_true(isnan(y[0]) && isnan(y[4]));
        float zeros[5] = {0};
        isas[a]->layer_norm(y, zeros, ones, NULL, 5, 1e-5f);
        assert_true(y[0] == 0.0f && y[4] == 0.0f);
    }
}

static void rope_matches_double_precision(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {2, 6, 10, 16, 18, 32, 34, 64, 66, 80, 96, 128, 130};
    for (uint32_t a = 0; a < n_isas; a++) {
        for (size_t s = 0; s < COUNT(sizes); s++) {
            uint32_t D = sizes[s];
            uint32_t heads = 1 + (uint32_t)s % 4;
            size_t n = (size_t)heads * D;
            struct guarded x = guarded_normal(n, 1.0, s);
            struct guarded c = guarded_normal(D / 2, 1.0, s + 1);
            struct guarded sn = guarded_normal(D / 2, 1.0, s + 2);
            struct guarded y = guarded_alloc(n);
            memcpy(y.at, x.at, n * sizeof(float));
            isas[a]->rope(y.at, heads, D, c.at, sn.at);
            for (size_t i = 0; i < n; i++) {
                size_t d = i % D;
                size_t half = D / 2;
                double cd = (double)c.at[d % half];
                double sd = (double)sn.at[d % half];
                double self = (double)x.at[i];
                double pair = d < half ? -(double)x.at[i + half] : (double)x.at[i - half];
                check_near(isas[a]->isa, "rope", D, i, y.at[i], self * cd + pair * sd,
                           3 * F32_UNIT * (fabs(self * cd) + fabs(pair * sd)));
            }
            guarded_free(&x);
            guarded_free(&c);
            guarded_free(&sn);
            guarded_free(&y);
        }
    }
}

int main(void)
{
    n_isas = tensor_available(isas, MAX_ISAS);
    for (uint32_t i = 0; i < n_isas; i++) {
        printf("instruction set run here: %s\n", isas[i]->isa);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(norms_match_double_precision),
        cmocka_unit_test(activations_match_double_precision),
        cmocka_unit_test(elements_do_not_depend_on_their_place),
        cmocka_unit_test(nan_and_infinities_are_sensible),
        cmocka_unit_test(rope_matches_double_precision),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
