/*
 * matrix_int.h - results as a matrix: schedulers (by first appearance) x sizes (ascending) x runs.
 */
#ifndef LLMSCHED_REPORT_MATRIX_INT_H
#define LLMSCHED_REPORT_MATRIX_INT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "metrics/stats.h"
#include "report/results.h"

struct matrix {
    const struct results *results;
    const char **schedulers; /* labels, borrowed from the results */
    size_t n_schedulers;
    uint64_t *sizes;
    size_t n_sizes;
    double *scratch; /* 2 x n_runs */
};

/* False: out of memory. */
bool matrix_init(struct matrix *m, const struct results *r);
void matrix_deinit(struct matrix *m);

/* A figure over the runs of one scheduler and size; runs in which it is undefined do not count. */
struct cell {
    double mean;       /* NaN when n == 0 */
    double half_width; /* NaN when n < 2 */
    size_t n;
};
struct cell matrix_cell(const struct matrix *m, size_t scheduler, size_t size, const char *column);

/* The same of a share of the wall time (useful_s, ...), in each run by itself. */
struct cell matrix_share(const struct matrix *m, size_t scheduler, size_t size, const char *column);

/* Ratio of a figure of scheduler a to that of scheduler b, paired by run number. */
struct ratio matrix_ratio(const struct matrix *m, size_t a, size_t b, size_t size,
                          const char *column);

/* The next run of one scheduler and size after run index `after` (start with -1); -1: no more. */
ptrdiff_t matrix_next_run(const struct matrix *m, size_t scheduler, size_t size, ptrdiff_t after);

/* Why no ratio is drawn against a scheduler at this size: its measurement is invalid, or it serves
 * another model; NULL: it may be. Borrowed from the results. */
const char *matrix_no_ratio(const struct matrix *m, size_t scheduler, size_t size);

/* Rows over HTTP show nothing of a server's inside. */
bool matrix_is_remote(const struct matrix *m, size_t scheduler);

/* Fewest successful requests in any run of the cell: what its quantiles stand on. */
uint64_t matrix_samples(const struct matrix *m, size_t scheduler, size_t size);

/* Fewest and most runs in a cell that has any. */
void matrix_run_counts(const struct matrix *m, size_t *fewest, size_t *most);

#endif
