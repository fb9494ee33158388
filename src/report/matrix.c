/* matrix.c - see matrix_int.h. */
#include "matrix_int.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

static bool has_scheduler(const struct matrix *m, const char *label)
{
    for (size_t i = 0; i < m->n_schedulers; i++) {
        if (strcmp(m->schedulers[i], label) == 0) {
            return true;
        }
    }
    return false;
}

static bool has_size(const struct matrix *m, uint64_t size)
{
    for (size_t i = 0; i < m->n_sizes; i++) {
        if (m->sizes[i] == size) {
            return true;
        }
    }
    return false;
}

static int compare_sizes(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

bool matrix_init(struct matrix *m, const struct results *r)
{
    size_t room = r->n_runs > 0 ? r->n_runs : 1;
    *m = (struct matrix){.results = r,
                         .schedulers = mem_alloc(room, sizeof *m->schedulers),
                         .sizes = mem_alloc(room, sizeof *m->sizes),
                         .scratch = mem_alloc(room, 2 * sizeof *m->scratch)};
    if (m->schedulers == NULL || m->sizes == NULL || m->scratch == NULL) {
        matrix_deinit(m);
        return false;
    }
    for (size_t i = 0; i < r->n_runs; i++) {
        if (!has_scheduler(m, r->runs[i].scheduler)) {
            m->schedulers[m->n_schedulers++] = r->runs[i].scheduler;
        }
        if (!has_size(m, r->runs[i].request_size)) {
            m->sizes[m->n_sizes++] = r->runs[i].request_size;
        }
    }
    if (m->n_sizes > 1) {
        qsort(m->sizes, m->n_sizes, sizeof *m->sizes, compare_sizes);
    }
    return true;
}

void matrix_deinit(struct matrix *m)
{
    mem_free(m->schedulers);
    mem_free(m->sizes);
    mem_free(m->scratch);
    memset(m, 0, sizeof *m);
}

ptrdiff_t matrix_next_run(const struct matrix *m, size_t scheduler, size_t size, ptrdiff_t after)
{
    assert(scheduler < m->n_schedulers && size < m->n_sizes);
    for (size_t i = (size_t)(after + 1); i < m->results->n_runs; i++) {
        const struct run *run = &m->results->runs[i];
        if (run->request_size == m->sizes[size] &&
            strcmp(run->scheduler, m->schedulers[scheduler]) == 0) {
            return (ptrdiff_t)i;
        }
    }
    return -1;
}

static double figure(const struct run *run, const char *column)
{
    double v = (double)NAN;
    bool known = results_figure(run, column, &v);
    assert(known);
    (void)known;
    return v;
}

/* divisor NULL: 1 */
static struct cell cell_of(const struct matrix *m, size_t scheduler, size_t size,
                           const char *column, const char *divisor)
{
    size_t n = 0;
    ptrdiff_t i = -1;
    while ((i = matrix_next_run(m, scheduler, size, i)) >= 0) {
        const struct run *run = &m->results->runs[i];
        double v = figure(run, column) / (divisor != NULL ? figure(run, divisor) : 1.0);
        if (isfinite(v)) {
            m->scratch[n++] = v;
        }
    }
    return (struct cell){.mean = stats_mean(m->scratch, n),
                         .half_width = stats_t95_half_width(m->scratch, n),
                         .n = n};
}

struct cell matrix_cell(const struct matrix *m, size_t scheduler, size_t size, const char *column)
{
    return cell_of(m, scheduler, size, column, NULL);
}

struct cell matrix_share(const struct matrix *m, size_t scheduler, size_t size, const char *column)
{
    return cell_of(m, scheduler, size, column, "wall_time_s");
}

/* The run of a scheduler and size with this number; NULL: none. */
static const struct run *run_numbered(const struct matrix *m, size_t scheduler, size_t size,
                                      uint64_t run_num)
{
    ptrdiff_t i = -1;
    while ((i = matrix_next_run(m, scheduler, size, i)) >= 0) {
        if (m->results->runs[i].run_num == run_num) {
            return &m->results->runs[i];
        }
    }
    return NULL;
}

struct ratio matrix_ratio(const struct matrix *m, size_t a, size_t b, size_t size,
                          const char *column)
{
    double *of_a = m->scratch;
    double *of_b = m->scratch + m->results->n_runs;
    size_t n = 0;
    ptrdiff_t i = -1;
    while ((i = matrix_next_run(m, a, size, i)) >= 0) {
        const struct run *run = &m->results->runs[i];
        const struct run *other = run_numbered(m, b, size, run->run_num);
        double x = figure(run, column);
        double y = other != NULL ? figure(other, column) : (double)NAN;
        if (x > 0.0 && y > 0.0) {
            of_a[n] = x;
            of_b[n] = y;
            n++;
        }
    }
    return stats_paired_ratio(of_a, of_b, n);
}

const char *matrix_no_ratio(const struct matrix *m, size_t scheduler, size_t size)
{
    ptrdiff_t i = -1;
    while ((i = matrix_next_run(m, scheduler, size, i)) >= 0) {
        const struct run *run = &m->results->runs[i];
        if (run->incomparable[0] != '\0') {
            return run->incomparable;
        }
        if (run->invalid[0] != '\0') {
            return "measurement invalid";
        }
    }
    return NULL;
}

bool matrix_is_remote(const struct matrix *m, size_t scheduler)
{
    for (size_t i = 0; i < m->results->n_runs; i++) {
        const struct run *run = &m->results->runs[i];
        if (strcmp(run->scheduler, m->schedulers[scheduler]) == 0) {
            return run_is_remote(run);
        }
    }
    return false;
}

uint64_t matrix_samples(const struct matrix *m, size_t scheduler, size_t size)
{
    uint64_t fewest = UINT64_MAX;
    ptrdiff_t i = -1;
    while ((i = matrix_next_run(m, scheduler, size, i)) >= 0) {
        uint64_t n = m->results->runs[i].summary.successful_requests;
        fewest = n < fewest ? n : fewest;
    }
    return fewest == UINT64_MAX ? 0 : fewest;
}

void matrix_run_counts(const struct matrix *m, size_t *fewest, size_t *most)
{
    *fewest = SIZE_MAX;
    *most = 0;
    for (size_t s = 0; s < m->n_schedulers; s++) {
        for (size_t k = 0; k < m->n_sizes; k++) {
            size_t n = 0;
            ptrdiff_t i = -1;
            while ((i = matrix_next_run(m, s, k, i)) >= 0) {
                n++;
            }
            if (n > 0) {
                *fewest = n < *fewest ? n : *fewest;
                *most = n > *most ? n : *most;
            }
        }
    }
    *fewest = *most > 0 ? *fewest : 0;
}
