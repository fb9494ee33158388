/* Quantiles against numpy and a brute force, Student's t against known values, NaN never passes. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "metrics/stats.h"

#define NEAR(actual, expected, tolerance)                                                          \
    do {                                                                                           \
        double a_ = (actual);                                                                      \
        double e_ = (expected);                                                                    \
        if (!(fabs(a_ - e_) <= (tolerance))) {                                                     \
            fail_msg("%s = %.17g, expected %.17g", #actual, a_, e_);                               \
        }                                                                                          \
    } while (0)

/* numpy.quantile([3.1,0.2,9.75,4.4,4.4,1.0,7.125], q, method='linear'), numpy 1.24 */
static void test_quantile_equals_numpy(void **state)
{
    (void)state;
    static const struct {
        double q;
        double expected;
    } golden[] = {{0.0, 0.2},
                  {0.25, 2.05},
                  {0.5, 4.4},
                  {0.9, 8.174999999999999},
                  {0.95, 8.962499999999999},
                  {0.99, 9.5925},
                  {1.0, 9.75}};
    double v[] = {3.1, 0.2, 9.75, 4.4, 4.4, 1.0, 7.125};
    stats_sort(v, 7);
    for (size_t i = 0; i < sizeof golden / sizeof golden[0]; i++) {
        NEAR(stats_quantile_sorted(v, 7, golden[i].q), golden[i].expected, 1e-12);
    }
}

/* The value at position (n-1)q, found by counting instead of sorting. */
static double by_counting(const double *v, size_t n, size_t rank)
{
    for (size_t i = 0; i < n; i++) {
        size_t below = 0;
        size_t equal = 0;
        for (size_t k = 0; k < n; k++) {
            below += v[k] < v[i];
            equal += v[k] == v[i];
        }
        if (below <= rank && rank < below + equal) {
            return v[i];
        }
    }
    return (double)NAN;
}

static void test_quantile_equals_brute_force(void **state)
{
    (void)state;
    struct rng rng = rng_stream(7, 1);
    for (int round = 0; round < 300; round++) {
        double v[40] = {0};
        double sorted[40];
        size_t n = (size_t)rng_between(&rng, 1, 40);
        for (size_t i = 0; i < n; i++) {
            v[i] = (double)rng_below(&rng, 20) * 0.25; /* ties */
        }
        memcpy(sorted, v, sizeof v);
        stats_sort(sorted, n);
        double q = rng_real(&rng);
        double h = (double)(n - 1) * q;
        size_t lo = (size_t)floor(h);
        size_t hi = lo + 1 < n ? lo + 1 : lo;
        double a = by_counting(v, n, lo);
        double b = by_counting(v, n, hi);
        NEAR(stats_quantile_sorted(sorted, n, q), a + (h - (double)lo) * (b - a), 1e-12);
    }
}

static void test_undefined_is_nan(void **state)
{
    (void)state;
    double none[1] = {1.0};
    assert_true(isnan(stats_quantile_sorted(none, 0, 0.5)));
    assert_true(isnan(stats_mean(none, 0)));
    assert_true(isnan(stats_stddev(none, 1)));
    assert_true(isnan(stats_t95_half_width(none, 1)));
    assert_true(isnan(stats_paired_ratio(none, none, 0).mean));
    double with_nan[] = {2.0, (double)NAN, 1.0};
    assert_true(isnan(stats_mean(with_nan, 3)));
    assert_true(isnan(stats_t95_half_width(with_nan, 3)));
    stats_sort(with_nan, 3);
    assert_true(with_nan[0] == 1.0 && with_nan[1] == 2.0 && isnan(with_nan[2]));
    assert_true(isnan(stats_quantile_sorted(with_nan, 3, 0.0)));
}

static void test_infinity_is_a_value(void **state)
{
    (void)state;
    double v[] = {1.0, 2.0, (double)INFINITY};
    NEAR(stats_quantile_sorted(v, 3, 0.5), 2.0, 0.0);
    assert_true(isinf(stats_quantile_sorted(v, 3, 0.51)));
    assert_true(isinf(stats_quantile_sorted(v, 3, 1.0)));
}

static void test_student_t(void **state)
{
    (void)state;
    static const struct {
        size_t df;
        double expected; /* root of the regularised incomplete beta function, 30 digits */
    } golden[] = {{1, 12.7062047362},  {2, 4.30265272975},   {5, 2.57058183564},
                  {30, 2.04227245630}, {31, 2.03951344640},  {40, 2.02107539031},
                  {60, 2.00029782201}, {100, 1.98397151845}, {1000, 1.96233908082}};
    for (size_t i = 0; i < sizeof golden / sizeof golden[0]; i++) {
        NEAR(stats_t975(golden[i].df), golden[i].expected, 1e-6);
    }
    for (size_t df = 2; df < 200; df++) {
        assert_true(stats_t975(df) < stats_t975(df - 1));
    }
}

static void test_interval(void **state)
{
    (void)state;
    double v[] = {10.0, 12.0, 14.0};
    NEAR(stats_mean(v, 3), 12.0, 1e-12);
    NEAR(stats_stddev(v, 3), 2.0, 1e-12);
    NEAR(stats_t95_half_width(v, 3), 4.302653 * 2.0 / sqrt(3.0), 1e-6);
}

static void test_paired_ratio(void **state)
{
    (void)state;
    double a[] = {2.0, 6.0, 4.0};
    double b[] = {1.0, 2.0, 2.0}; /* ratios 2, 3, 2 */
    struct ratio r = stats_paired_ratio(a, b, 3);
    NEAR(r.mean, cbrt(12.0), 1e-12);
    /* Logarithms of the ratios: deviation ln(3/2) / sqrt 3. */
    double half = 4.302653 * log(1.5) / sqrt(3.0) / sqrt(3.0);
    NEAR(r.low, cbrt(12.0) * exp(-half), 1e-6);
    NEAR(r.high, cbrt(12.0) * exp(half), 1e-6);
    assert_int_equal(r.n, 3);
    struct ratio inverse = stats_paired_ratio(b, a, 3);
    NEAR(inverse.mean * r.mean, 1.0, 1e-12);
    NEAR(inverse.low * r.high, 1.0, 1e-12);
    r = stats_paired_ratio(a, b, 1);
    NEAR(r.mean, 2.0, 0.0);
    assert_true(isnan(r.low) && isnan(r.high));
}

static void test_too_few_for_a_quantile(void **state)
{
    (void)state;
    assert_true(stats_quantile_is_shaky(458, 0.99));
    assert_false(stats_quantile_is_shaky(459, 0.99));
    assert_true(stats_quantile_is_shaky(89, 0.95));
    assert_false(stats_quantile_is_shaky(90, 0.95));
    assert_true(stats_quantile_is_shaky(6, 0.50));
    assert_false(stats_quantile_is_shaky(7, 0.50));
    assert_true(stats_quantile_is_shaky(0, 0.50));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quantile_equals_numpy),
        cmocka_unit_test(test_quantile_equals_brute_force),
        cmocka_unit_test(test_undefined_is_nan),
        cmocka_unit_test(test_infinity_is_a_value),
        cmocka_unit_test(test_student_t),
        cmocka_unit_test(test_interval),
        cmocka_unit_test(test_paired_ratio),
        cmocka_unit_test(test_too_few_for_a_quantile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
