/* stats.c - see stats.h. */
#include "metrics/stats.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    /* NaN goes last, so that the order is total and a caller can see it there. */
    if (isnan(x) || isnan(y)) {
        return (int)isnan(x) - (int)isnan(y);
    }
    return (x > y) - (x < y);
}

void stats_sort(double *values, size_t n)
{
    if (n > 1) {
        qsort(values, n, sizeof *values, compare);
    }
}

double stats_quantile_sorted(const double *sorted, size_t n, double q)
{
    assert(q >= 0.0 && q <= 1.0);
    if (n == 0 || isnan(sorted[n - 1])) {
        return (double)NAN;
    }
    double h = (double)(n - 1) * q;
    size_t lo = (size_t)h;
    double frac = h - (double)lo;
    if (lo + 1 >= n) {
        return sorted[n - 1];
    }
    /* A sample of +inf (a failure) may stand on the right: inf * 0 would make NaN of it. */
    return frac > 0.0 ? sorted[lo] + frac * (sorted[lo + 1] - sorted[lo]) : sorted[lo];
}

double stats_mean(const double *values, size_t n)
{
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) {
        sum += values[i];
    }
    return n > 0 ? sum / (double)n : (double)NAN;
}

double stats_stddev(const double *values, size_t n)
{
    if (n < 2) {
        return (double)NAN;
    }
    double mean = stats_mean(values, n);
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) {
        sum += (values[i] - mean) * (values[i] - mean);
    }
    return sqrt(sum / (double)(n - 1));
}

/* 0.975 quantile of Student's t for 1..30 degrees of freedom (any statistics text's table). */
static const double t975[] = {12.706205, 4.302653, 3.182446, 2.776445, 2.570582, 2.446912,
                              2.364624,  2.306004, 2.262157, 2.228139, 2.200985, 2.178813,
                              2.160369,  2.144787, 2.131450, 2.119905, 2.109816, 2.100922,
                              2.093024,  2.085963, 2.079614, 2.073873, 2.068658, 2.063899,
                              2.059539,  2.055529, 2.051831, 2.048407, 2.045230, 2.042272};

#define T_TABLE_ROWS (sizeof t975 / sizeof t975[0])

double stats_t975(size_t df)
{
    assert(df >= 1);
    if (df <= T_TABLE_ROWS) {
        return t975[df - 1];
    }
    /* Expansion around the normal quantile (Abramowitz and Stegun 26.7.5): below 1e-6 here. */
    const double z = 1.959963984540054;
    double n = (double)df;
    double z3 = z * z * z;
    double z5 = z3 * z * z;
    double z7 = z5 * z * z;
    double g1 = (z3 + z) / 4.0;
    double g2 = (5.0 * z5 + 16.0 * z3 + 3.0 * z) / 96.0;
    double g3 = (3.0 * z7 + 19.0 * z5 + 17.0 * z3 - 15.0 * z) / 384.0;
    double z9 = z7 * z * z;
    double g4 = (79.0 * z9 + 776.0 * z7 + 1482.0 * z5 - 1920.0 * z3 - 945.0 * z) / 92160.0;
    return z + (g1 + (g2 + (g3 + g4 / n) / n) / n) / n;
}

double stats_t95_half_width(const double *values, size_t n)
{
    if (n < 2) {
        return (double)NAN;
    }
    return stats_t975(n - 1) * stats_stddev(values, n) / sqrt((double)n);
}

struct ratio stats_paired_ratio(const double *a, const double *b, size_t n)
{
    struct ratio r = {.mean = (double)NAN, .low = (double)NAN, .high = (double)NAN, .n = n};
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) {
        sum += log(a[i] / b[i]);
    }
    double mean = sum / (double)n;
    if (n > 0) {
        r.mean = exp(mean);
    }
    if (n >= 2) {
        double squares = 0.0;
        for (size_t i = 0; i < n; i++) {
            double d = log(a[i] / b[i]) - mean;
            squares += d * d;
        }
        double half = stats_t975(n - 1) * sqrt(squares / (double)(n - 1)) / sqrt((double)n);
        r.low = exp(mean - half);
        r.high = exp(mean + half);
    }
    return r;
}

bool stats_quantile_is_shaky(size_t n, double q)
{
    /* Fewer than this many samples: the largest of them lies below the quantile with more than 1 %
     * probability (q^n > 0.01). */
    return !((double)n >= log(0.01) / log(q));
}
