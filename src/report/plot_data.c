/* plot_data.c - the numbers behind the charts, tab-separated, one block per scheduler. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "number_int.h"
#include "plot_int.h"
#include "text_int.h"

static const char *const metric_columns[PLOT_METRICS] = {
    [PLOT_REQUESTS] = "throughput_req_per_sec",
    [PLOT_TOKENS] = "throughput_tokens_per_sec",
    [PLOT_P50] = "latency_p50_s",
    [PLOT_P95] = "latency_p95_s",
    [PLOT_P99] = "latency_p99_s",
    [PLOT_AVG] = "latency_avg_s",
    [PLOT_TTFT] = "ttft_p50_s",
    [PLOT_USEFUL] = "useful_s",
};

static void put_number(struct strbuf *out, double v)
{
    strbuf_putc(out, '\t');
    if (isfinite(v)) {
        number_append(out, v);
    } else {
        strbuf_puts(out, "NaN");
    }
}

static struct cell metric_cell(const struct matrix *m, size_t s, size_t k, enum plot_metric metric)
{
    if (metric != PLOT_USEFUL) {
        return matrix_cell(m, s, k, metric_columns[metric]);
    }
    struct cell c = matrix_share(m, s, k, metric_columns[metric]);
    c.mean *= 100.0;
    c.half_width *= 100.0;
    return c;
}

static void note_extent(struct plot_extent *extent, enum plot_metric metric, struct cell c)
{
    extent->known[metric] += c.n > 0;
    double end = isfinite(c.half_width) ? c.mean + c.half_width : c.mean;
    if (c.mean > extent->max_mean[metric]) {
        extent->max_mean[metric] = c.mean;
    }
    if (end > extent->max_end[metric]) {
        extent->max_end[metric] = end;
    }
}

static void block_title(const struct matrix *m, size_t s, struct strbuf *out)
{
    strbuf_puts(out, s == 0 ? "# scheduler " : "\n\n# scheduler ");
    text_label(out, m->schedulers[s], PLOT_LABEL_CHARACTERS);
    strbuf_putc(out, '\n');
}

void plot_figures(const struct matrix *m, struct strbuf *out, struct plot_extent *extent)
{
    strbuf_puts(out, "# x\tsize\tn");
    for (enum plot_metric i = PLOT_REQUESTS; i < PLOT_METRICS; i++) {
        strbuf_printf(out, "\t%s\thalf_width", metric_columns[i]);
    }
    strbuf_puts(out, "\n# useful_s: in % of the wall time\n");
    for (size_t s = 0; s < m->n_schedulers; s++) {
        block_title(m, s, out);
        for (size_t k = 0; k < m->n_sizes; k++) {
            size_t n = matrix_cell(m, s, k, metric_columns[PLOT_REQUESTS]).n;
            strbuf_printf(out, "%zu\t%llu\t%zu", k, (unsigned long long)m->sizes[k], n);
            for (enum plot_metric i = PLOT_REQUESTS; i < PLOT_METRICS; i++) {
                struct cell c = metric_cell(m, s, k, i);
                note_extent(extent, i, c);
                put_number(out, c.mean);
                put_number(out, c.half_width);
            }
            strbuf_putc(out, '\n');
        }
    }
}

/* Latencies of the successful requests of all runs of a cell, sorted; NULL: none, or no memory. */
static double *cell_latencies(const struct matrix *m, size_t s, size_t k, size_t *n,
                              struct strbuf *out)
{
    size_t room = 0;
    *n = 0;
    ptrdiff_t i = -1;
    while ((i = matrix_next_run(m, s, k, i)) >= 0) {
        room += m->results->runs[i].n_rows;
    }
    double *values = room > 0 ? mem_alloc(room, sizeof *values) : NULL;
    if (values == NULL) {
        out->failed = out->failed || room > 0;
        return NULL;
    }
    while ((i = matrix_next_run(m, s, k, i)) >= 0) {
        const struct run *run = &m->results->runs[i];
        for (size_t row = 0; row < run->n_rows; row++) {
            if (run->rows[row].status == RECORD_OK && !isnan(run->rows[row].latency_s)) {
                values[(*n)++] = run->rows[row].latency_s;
            }
        }
    }
    stats_sort(values, *n);
    return values;
}

/* Box and whiskers of one cell: quartiles, and the furthest samples within 1.5 interquartile ranges
 * of the box (Tukey). Samples beyond go to outliers. */
static void put_box(size_t k, const double *values, size_t n, struct strbuf *boxes,
                    struct strbuf *outliers)
{
    double q1 = stats_quantile_sorted(values, n, 0.25);
    double q3 = stats_quantile_sorted(values, n, 0.75);
    double reach = 1.5 * (q3 - q1);
    double low = q1;
    double high = q3;
    for (size_t i = 0; i < n; i++) {
        if (values[i] < q1 - reach || values[i] > q3 + reach) {
            strbuf_printf(outliers, "%zu", k);
            put_number(outliers, values[i]);
            strbuf_putc(outliers, '\n');
        } else {
            low = values[i] < low ? values[i] : low;
            high = values[i] > high ? values[i] : high;
        }
    }
    strbuf_printf(boxes, "%zu", k);
    put_number(boxes, low);
    put_number(boxes, q1);
    put_number(boxes, stats_quantile_sorted(values, n, 0.5));
    put_number(boxes, q3);
    put_number(boxes, high);
    strbuf_printf(boxes, "\t%zu\n", n);
}

void plot_boxes(const struct matrix *m, struct strbuf *boxes, struct strbuf *outliers,
                struct plot_extent *extent)
{
    strbuf_puts(boxes, "# x\twhisker_low\tq1\tmedian\tq3\twhisker_high\tn (latency in s)\n");
    strbuf_puts(outliers, "# x\tlatency_s beyond the whiskers\n");
    extent->fewest_rows = SIZE_MAX;
    for (size_t s = 0; s < m->n_schedulers; s++) {
        block_title(m, s, boxes);
        block_title(m, s, outliers);
        /* A block is never empty, or gnuplot would count its neighbours wrongly. */
        strbuf_puts(outliers, "NaN\tNaN\n");
        for (size_t k = 0; k < m->n_sizes; k++) {
            size_t n;
            double *values = cell_latencies(m, s, k, &n, boxes);
            if (n > 0) {
                put_box(k, values, n, boxes, outliers);
                extent->fewest_rows = n < extent->fewest_rows ? n : extent->fewest_rows;
                extent->most_rows = n > extent->most_rows ? n : extent->most_rows;
                if (values[n - 1] > extent->max_latency) {
                    extent->max_latency = values[n - 1];
                }
            } else {
                strbuf_printf(boxes, "%zu\tNaN\tNaN\tNaN\tNaN\tNaN\t0\n", k);
            }
            mem_free(values);
        }
    }
}
