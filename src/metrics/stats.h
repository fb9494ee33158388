/*
 * stats.h - quantiles and intervals. NaN in means NaN out; n is always at hand for printing.
 */
#ifndef LLMSCHED_METRICS_STATS_H
#define LLMSCHED_METRICS_STATS_H

#include <stdbool.h>
#include <stddef.h>

/* Type-7 quantile (Hyndman and Fan 1996) of n sorted values; NaN when n == 0. q in [0, 1]. */
double stats_quantile_sorted(const double *sorted, size_t n, double q);
void stats_sort(double *values, size_t n);
double stats_mean(const double *values, size_t n);
double stats_stddev(const double *values, size_t n); /* n - 1; NaN when n < 2 */

/* Half-width of the 95 % Student-t interval of the mean; NaN when n < 2. */
double stats_t95_half_width(const double *values, size_t n);
/* Two-sided 97.5 % point of Student's t with df degrees of freedom, df >= 1. */
double stats_t975(size_t df);

/* Ratio a/b of paired runs: the geometric mean of a_i / b_i and its 95 % Student-t interval, both
 * by way of logarithms, so that a/b and b/a agree and no end is negative. All a_i, b_i > 0. low and
 * high are NaN when n < 2, mean too when n == 0. */
struct ratio {
    double mean;
    double low;
    double high;
    size_t n;
};
struct ratio stats_paired_ratio(const double *a, const double *b, size_t n);

/* True when n samples are too few for quantile q: n < ln(0.01) / ln(q). Reports mark it
 * with '~'. */
bool stats_quantile_is_shaky(size_t n, double q);

#endif
