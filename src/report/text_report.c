/* text_report.c - benchmark_report.txt: everything, and what it cannot conclude. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "number_int.h"
#include "report/text.h"
#include "text_int.h"

/* The figures of the report, in columns of two tables per size. */
struct figure {
    const char *column;
    const char *title;
    double unit;
    int decimals;
    double quantile; /* 0: not a quantile of requests */
};

static const struct figure speed_figures[] = {
    {"throughput_req_per_sec", "req/s", 1.0, 2, 0.0},
    {"throughput_tokens_per_sec", "tok/s", 1.0, 1, 0.0},
    {"mean_batch_size", "batch size", 1.0, 2, 0.0},
    {"batch_efficiency", "efficiency (%)", 100.0, 1, 0.0},
};
static const struct figure latency_figures[] = {
    {"latency_p50_s", "P50 (s)", 1.0, 3, 0.50},
    {"latency_p95_s", "P95 (s)", 1.0, 3, 0.95},
    {"latency_p99_s", "P99 (s)", 1.0, 3, 0.99},
    {"latency_avg_s", "avg (s)", 1.0, 3, 0.0},
};
static const struct figure wait_figures[] = {
    {"ttft_p50_s", "TTFT P50 (s)", 1.0, 3, 0.50},
    {"ttft_p95_s", "TTFT P95 (s)", 1.0, 3, 0.95},
    {"tpot_p50_s", "TPOT P50 (ms)", 1e3, 3, 0.50},
    {"queue_p50_s", "queue P50 (s)", 1.0, 3, 0.50},
};
#define TABLE_FIGURES  4
#define FIGURE_COLUMNS 19

static void figure_cell(const struct matrix *m, size_t s, size_t size, const struct figure *f,
                        struct strbuf *out)
{
    struct cell c = matrix_cell(m, s, size, f->column);
    c.mean *= f->unit;
    c.half_width *= f->unit;
    size_t samples = (size_t)matrix_samples(m, s, size);
    bool shaky = f->quantile > 0.0 && stats_quantile_is_shaky(samples, f->quantile);
    struct strbuf text = {0};
    text_mean(&text, c, f->decimals, shaky ? '~' : '\0');
    text_cell_right(out, strbuf_text(&text), FIGURE_COLUMNS);
    out->failed = out->failed || text.failed;
    strbuf_deinit(&text);
}

static void figure_table(const struct matrix *m, size_t size, const struct figure *figures,
                         struct strbuf *out)
{
    text_cell_left(out, "scheduler", LABEL_COLUMNS);
    for (size_t i = 0; i < TABLE_FIGURES; i++) {
        text_cell_right(out, figures[i].title, FIGURE_COLUMNS);
    }
    strbuf_putc(out, '\n');
    for (size_t s = 0; s < m->n_schedulers; s++) {
        if (matrix_next_run(m, s, size, -1) < 0) {
            continue;
        }
        text_label_cell(out, m->schedulers[s]);
        for (size_t i = 0; i < TABLE_FIGURES; i++) {
            figure_cell(m, s, size, &figures[i], out);
        }
        strbuf_putc(out, '\n');
    }
    strbuf_putc(out, '\n');
}

/* Index of the scheduler with the best mean, or -1; skip (or SIZE_MAX) is left out. */
static ptrdiff_t best_of(const struct matrix *m, size_t size, const char *column, bool high,
                         size_t skip)
{
    ptrdiff_t best = -1;
    double best_mean = 0.0;
    for (size_t s = 0; s < m->n_schedulers; s++) {
        bool out = s == skip || matrix_no_ratio(m, s, size) != NULL;
        double mean = out ? (double)NAN : matrix_cell(m, s, size, column).mean;
        if (!isnan(mean) && (best < 0 || (high ? mean > best_mean : mean < best_mean))) {
            best = (ptrdiff_t)s;
            best_mean = mean;
        }
    }
    return best;
}

static void best_line(const struct matrix *m, size_t size, const char *title, const char *column,
                      bool high, struct strbuf *out)
{
    ptrdiff_t best = best_of(m, size, column, high, SIZE_MAX);
    if (best < 0) {
        return;
    }
    strbuf_printf(out, "  %-24s", title);
    text_label(out, m->schedulers[best], LABEL_COLUMNS);
    ptrdiff_t second = best_of(m, size, column, high, (size_t)best);
    if (second >= 0) {
        struct ratio r = matrix_ratio(m, (size_t)best, (size_t)second, size, column);
        strbuf_puts(out, "; against ");
        text_label(out, m->schedulers[second], LABEL_COLUMNS);
        strbuf_puts(out, ", the next: ");
        text_ratio(out, r);
    }
    strbuf_putc(out, '\n');
}

static void best_of_each(const struct matrix *m, size_t size, struct strbuf *out)
{
    if (m->n_schedulers < 2) {
        return;
    }
    strbuf_puts(out, "best of each, by the mean over runs:\n");
    best_line(m, size, "highest req/s", "throughput_req_per_sec", true, out);
    best_line(m, size, "highest tok/s", "throughput_tokens_per_sec", true, out);
    best_line(m, size, "lowest P50 latency", "latency_p50_s", false, out);
    best_line(m, size, "lowest P95 latency", "latency_p95_s", false, out);
    best_line(m, size, "lowest TTFT P50", "ttft_p50_s", false, out);
    strbuf_putc(out, '\n');
}

static void put_text(struct strbuf *out, const char *name, const char *text)
{
    if (text != NULL && text[0] != '\0') {
        strbuf_printf(out, "%-16s", name);
        text_label(out, text, 400);
        strbuf_putc(out, '\n');
    }
}

static void put_count(struct strbuf *out, const char *name, uint64_t n)
{
    if (n > 0 && n != COUNT_UNKNOWN) {
        strbuf_printf(out, "%-16s%llu\n", name, (unsigned long long)n);
    }
}

static void set_up(const struct matrix *m, struct strbuf *out)
{
    const struct results *r = m->results;
    put_text(out, "model path", r->model.path);
    put_text(out, "architecture", r->model.architecture);
    put_text(out, "format", r->model.format);
    put_text(out, "arithmetic", r->model.dtype);
    put_text(out, "kv-dtype", r->model.kv_dtype);
    put_text(out, "device", r->settings.device);
    put_text(out, "processor", r->environment.cpu);
    put_text(out, "kernels", r->environment.isa);
    put_count(out, "threads", r->environment.threads);
    put_text(out, "system", r->environment.kernel);
    put_text(out, "compiler", r->environment.compiler);
    put_text(out, "commit", r->environment.commit);
    put_text(out, "started", r->environment.started_at);
    put_text(out, "command", r->environment.command_line);
    put_text(out, "workload", r->settings.workload);
    put_count(out, "max-concurrent", r->settings.max_concurrent);
    put_count(out, "max-new-tokens", r->settings.max_new_tokens);
    put_count(out, "kv-blocks", r->settings.kv_blocks);
    uint64_t low = UINT64_MAX;
    uint64_t high = 0;
    for (size_t i = 0; i < r->n_runs; i++) {
        low = r->runs[i].seed < low ? r->runs[i].seed : low;
        high = r->runs[i].seed > high ? r->runs[i].seed : high;
    }
    if (r->n_runs > 0) {
        strbuf_printf(out, "%-16s%llu to %llu (each run's, the same for every scheduler)\n",
                      "seeds", (unsigned long long)low, (unsigned long long)high);
    }
    strbuf_puts(out, "\nSCHEDULERS\n");
    for (size_t s = 0; s < m->n_schedulers; s++) {
        ptrdiff_t i = -1;
        for (size_t k = 0; k < m->n_sizes && i < 0; k++) {
            i = matrix_next_run(m, s, k, -1);
        }
        const struct run *run = &r->runs[i];
        text_label_cell(out, run->scheduler);
        strbuf_puts(out, "  ");
        text_label(out, run->policy[0] != '\0' ? run->policy : run->scheduler, LABEL_COLUMNS);
        strbuf_puts(out, "  ");
        text_label(out, run->params, 400);
        strbuf_putc(out, '\n');
    }
    text_servers(m, out);
    strbuf_putc(out, '\n');
}

static void cannot_conclude(const struct matrix *m, struct strbuf *out)
{
    const struct results *r = m->results;
    size_t fewest;
    size_t most;
    matrix_run_counts(m, &fewest, &most);
    struct text_verdict v;
    results_same_text(r, &v);
    strbuf_puts(out, "WHAT THIS CANNOT CONCLUDE\n");
    if (fewest < 2) {
        strbuf_puts(out,
                    "- Cells with one run have no interval: a difference there may be noise.\n");
    }
    if (most >= 2 && fewest <= 4) {
        strbuf_printf(
            out,
            "- n is low (%zu runs): intervals use t = %.2f and are wide; more --runs narrow "
            "them.\n",
            fewest < 2 ? most : fewest, stats_t975((fewest < 2 ? most : fewest) - 1));
    }
    strbuf_puts(
        out, "- Intervals cover what varied between these runs, not another day, machine or model; "
             "they are not\n  corrected for the number of comparisons.\n"
             "- \"cannot tell apart\" means that the interval of the ratio holds 1: it is no proof "
             "that the two are equal.\n");
    if (r->settings.max_concurrent > 0) {
        strbuf_printf(
            out,
            "- The load is a closed loop of %llu requests in flight: it slows down with the "
            "server, so it says\n  nothing about latency at a given arrival rate, nor about "
            "overload.\n",
            (unsigned long long)r->settings.max_concurrent);
    }
    strbuf_puts(out,
                "- Quantiles marked ~ stand on too few requests: the true one may lie beyond the "
                "largest seen.\n");
    if (r->model.random_weights) {
        strbuf_puts(out, "- Random weights: costs are real, texts and lengths are not.\n");
    }
    text_remote_limits(m, out);
    if (v.differing > 0) {
        strbuf_puts(out, "- Texts differ between schedulers, so their work differs too.\n");
    }
    if (r->partial) {
        strbuf_puts(out,
                    "- Planned runs are missing (interrupted): complete them with --resume.\n");
    }
}

void text_report(const struct results *r, struct strbuf *out)
{
    struct matrix m;
    if (!matrix_init(&m, r)) {
        out->failed = true;
        return;
    }
    locale_t saved = number_locale_begin();
    strbuf_puts(out, "SCHEDULER BENCHMARK REPORT\n");
    text_provenance(&m, out);
    set_up(&m, out);
    for (size_t k = 0; k < m.n_sizes; k++) {
        strbuf_printf(out, "%llu REQUESTS\n", (unsigned long long)m.sizes[k]);
        figure_table(&m, k, speed_figures, out);
        strbuf_puts(out, "latency, from arrival to last delivery\n");
        figure_table(&m, k, latency_figures, out);
        strbuf_puts(out, "waiting and token times\n");
        figure_table(&m, k, wait_figures, out);
        best_of_each(&m, k, out);
        text_ratios(&m, k, out);
    }
    text_losses(&m, out);
    text_warnings(&m, out);
    text_same_text(&m, out);
    cannot_conclude(&m, out);
    number_locale_end(saved);
    matrix_deinit(&m);
}
