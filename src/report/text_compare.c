/* text_compare.c - the comparison at the end of a bench. */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "number_int.h"
#include "report/text.h"
#include "text_int.h"

#define CELL_COLUMNS 20

static void mean_cell(struct strbuf *out, struct cell c, int decimals, char mark)
{
    struct strbuf text = {0};
    text_mean(&text, c, decimals, mark);
    text_cell_right(out, strbuf_text(&text), CELL_COLUMNS);
    out->failed = out->failed || text.failed;
    strbuf_deinit(&text);
}

void text_provenance(const struct matrix *m, struct strbuf *out)
{
    const struct results *r = m->results;
    size_t fewest;
    size_t most;
    matrix_run_counts(m, &fewest, &most);
    strbuf_puts(out, "model ");
    text_label(out, r->model.name != NULL && r->model.name[0] != '\0' ? r->model.name : "(unknown)",
               60);
    if (r->model.random_weights) {
        strbuf_puts(out, " (random weights)");
    }
    if (fewest == most) {
        strbuf_printf(out, ", n = %zu run%s per cell", most, most == 1 ? "" : "s");
    } else {
        strbuf_printf(out, ", n = %zu to %zu runs per cell", fewest, most);
    }
    strbuf_puts(out, most < 2    ? " (one run: no intervals)"
                     : most <= 4 ? " (low n: wide intervals)"
                                 : "");
    strbuf_puts(out,
                "\nmean \u00B1 half-width of the 95 % interval (Student's t) over runs; ~ marks a "
                "quantile of too few requests\n");
    if (r->partial) {
        strbuf_puts(out, "PARTIAL: the bench was interrupted, planned runs are missing\n");
    }
    strbuf_putc(out, '\n');
}

static bool is_invalid(const struct matrix *m, size_t s, size_t size)
{
    ptrdiff_t i = -1;
    while ((i = matrix_next_run(m, s, size, i)) >= 0) {
        if (m->results->runs[i].invalid[0] != '\0') {
            return true;
        }
    }
    return false;
}

static void size_table(const struct matrix *m, size_t size, struct strbuf *out)
{
    strbuf_printf(out, "%llu REQUESTS\n", (unsigned long long)m->sizes[size]);
    text_cell_left(out, "scheduler", LABEL_COLUMNS);
    text_cell_right(out, "n", 4);
    text_cell_right(out, "req/s", CELL_COLUMNS);
    text_cell_right(out, "tok/s", CELL_COLUMNS);
    text_cell_right(out, "P95 latency (s)", CELL_COLUMNS);
    strbuf_putc(out, '\n');
    for (size_t s = 0; s < m->n_schedulers; s++) {
        struct cell requests = matrix_cell(m, s, size, "throughput_req_per_sec");
        if (requests.n == 0) {
            continue;
        }
        char n[24];
        snprintf(n, sizeof n, "%zu", requests.n);
        bool shaky = stats_quantile_is_shaky((size_t)matrix_samples(m, s, size), 0.95);
        text_label_cell(out, m->schedulers[s]);
        text_cell_right(out, n, 4);
        mean_cell(out, requests, 2, '\0');
        mean_cell(out, matrix_cell(m, s, size, "throughput_tokens_per_sec"), 1, '\0');
        mean_cell(out, matrix_cell(m, s, size, "latency_p95_s"), 3, shaky ? '~' : '\0');
        strbuf_puts(out, is_invalid(m, s, size) ? "  INVALID\n" : "\n");
    }
    text_unreachable(m, out);
    strbuf_putc(out, '\n');
}

void text_ratios(const struct matrix *m, size_t size, struct strbuf *out)
{
    size_t base = 0;
    while (base < m->n_schedulers && matrix_no_ratio(m, base, size) != NULL) {
        base++;
    }
    if (m->n_schedulers < 2 || base == m->n_schedulers) {
        return;
    }
    strbuf_puts(out, "against ");
    text_label(out, m->schedulers[base], LABEL_COLUMNS);
    strbuf_puts(out, " (ratio of paired runs [95 % interval]):\n");
    for (size_t s = 0; s < m->n_schedulers; s++) {
        if (s == base || matrix_next_run(m, s, size, -1) < 0) {
            continue;
        }
        strbuf_puts(out, "  ");
        text_label_cell(out, m->schedulers[s]);
        const char *why = matrix_no_ratio(m, s, size);
        if (why != NULL) {
            strbuf_puts(out, "  no ratio: ");
            text_label(out, why, 200);
        } else {
            strbuf_puts(out, "  req/s ");
            text_ratio(out, matrix_ratio(m, s, base, size, "throughput_req_per_sec"));
            strbuf_puts(out, "; P95 latency ");
            text_ratio(out, matrix_ratio(m, s, base, size, "latency_p95_s"));
        }
        strbuf_putc(out, '\n');
    }
    strbuf_putc(out, '\n');
}

/* The parts of the wall time; all but the first are losses. */
enum part { PART_USEFUL, PART_PADDING, PART_RECOMPUTE, PART_FILL, PART_IDLE, PART_OVERHEAD, PARTS };

static const struct {
    const char *column;
    const char *name;
} parts[PARTS] = {
    [PART_USEFUL] = {"useful_s", "useful"},
    [PART_PADDING] = {"padding_s", "padding"},
    [PART_RECOMPUTE] = {"recompute_s", "recompute"},
    [PART_FILL] = {"fill_wait_s", "fill wait"},
    [PART_IDLE] = {"idle_s", "idle"},
    [PART_OVERHEAD] = {"overhead_s", "overhead"},
};

/* Mean over runs of each part as a fraction of the wall time; false: not recorded. */
static bool wall_split(const struct matrix *m, size_t scheduler, size_t size, double split[PARTS])
{
    for (enum part p = PART_USEFUL; p < PARTS; p++) {
        split[p] = matrix_share(m, scheduler, size, parts[p].column).mean;
        if (isnan(split[p])) {
            return false;
        }
    }
    /* Without a single step all of it would count as overhead. */
    return split[PART_USEFUL] > 0.0;
}

/* Where a parameter is set: "naive." for a policy's defaults, "big=naive:" for a labelled variant.
 */
static void advise_param(const struct run *run, const char *param, const char *value,
                         struct strbuf *out)
{
    if (run->policy == NULL || run->policy[0] == '\0' || strcmp(run->policy, run->scheduler) == 0) {
        strbuf_puts(out, "--set ");
        text_label(out, run->scheduler, LABEL_COLUMNS);
        strbuf_printf(out, ".%s=%s", param, value);
    } else {
        strbuf_puts(out, "--schedulers ");
        text_label(out, run->scheduler, LABEL_COLUMNS);
        strbuf_putc(out, '=');
        text_label(out, run->policy, LABEL_COLUMNS);
        strbuf_printf(out, ":%s=%s", param, value);
    }
}

static void advise_fill(const struct matrix *m, const struct run *run, struct strbuf *out)
{
    uint64_t in_flight = m->results->settings.max_concurrent;
    char value[32];
    if (in_flight > 0 && run->fill_target > in_flight) {
        snprintf(value, sizeof value, "%llu", (unsigned long long)in_flight);
        advise_param(run, "batch_size", value, out);
        strbuf_printf(out, " or --max-concurrent %llu", (unsigned long long)run->fill_target);
        return;
    }
    double timeout;
    char now[32];
    if (text_param(run->params, "timeout", now, sizeof now) && number_parse_real(now, &timeout)) {
        snprintf(value, sizeof value, "%.3g", timeout / 10.0);
        advise_param(run, "timeout", value, out);
        strbuf_puts(out, " (a batch that cannot fill waits that long)");
    } else {
        strbuf_puts(out, "a smaller batch size or a shorter timeout");
    }
}

static void advise(const struct matrix *m, const struct run *run, enum part loss,
                   struct strbuf *out)
{
    char value[32];
    switch (loss) {
    case PART_FILL:
        advise_fill(m, run, out);
        break;
    case PART_PADDING:
        if (text_param(run->params, "pad", value, sizeof value) && strcmp(value, "true") == 0) {
            advise_param(run, "pad", "false", out);
            strbuf_puts(out, ", or the continuous scheduler");
        } else {
            strbuf_puts(out, "the continuous scheduler, which has no members that are done");
        }
        break;
    case PART_RECOMPUTE:
        strbuf_puts(out, "a larger --kv-blocks, so that nothing is preempted");
        break;
    case PART_IDLE:
        strbuf_puts(out, "a larger --max-concurrent, so that requests are always there");
        break;
    default:
        strbuf_puts(out, "no flag: planning and delivery between steps");
        break;
    }
}

#define SMALL_LOSS 0.02

/* The largest loss of one scheduler over all sizes. */
static void largest_loss(const struct matrix *m, size_t scheduler, struct strbuf *out)
{
    enum part worst = PART_USEFUL;
    double worst_share = 0.0;
    size_t worst_size = 0;
    for (size_t k = 0; k < m->n_sizes; k++) {
        double split[PARTS];
        if (!wall_split(m, scheduler, k, split)) {
            continue;
        }
        for (enum part p = PART_PADDING; p < PARTS; p++) {
            if (split[p] > worst_share + 1e-9) { /* rounding does not move it to another size */
                worst = p;
                worst_share = split[p];
                worst_size = k;
            }
        }
    }
    if (worst == PART_USEFUL) {
        return;
    }
    text_label(out, m->schedulers[scheduler], LABEL_COLUMNS);
    if (worst_share < SMALL_LOSS) {
        strbuf_printf(out, ": no loss of %.0f %% or more\n", SMALL_LOSS * 100.0);
        return;
    }
    const struct run *run = &m->results->runs[matrix_next_run(m, scheduler, worst_size, -1)];
    strbuf_printf(out, ": largest loss: %s, %.1f %% of the wall time at %llu requests; mends it: ",
                  parts[worst].name, worst_share * 100.0, (unsigned long long)m->sizes[worst_size]);
    advise(m, run, worst, out);
    strbuf_putc(out, '\n');
}

void text_losses(const struct matrix *m, struct strbuf *out)
{
    size_t in_process = 0;
    for (size_t s = 0; s < m->n_schedulers; s++) {
        in_process += !matrix_is_remote(m, s);
    }
    if (in_process == 0 && m->n_schedulers > 0) {
        return; /* only servers: where their time went, they do not show */
    }
    strbuf_puts(out, "WHERE THE WALL TIME WENT (%, mean over runs)\n");
    text_cell_left(out, "scheduler", LABEL_COLUMNS);
    text_cell_right(out, "requests", 9);
    for (enum part p = PART_USEFUL; p < PARTS; p++) {
        text_cell_right(out, parts[p].name, 11);
    }
    strbuf_putc(out, '\n');
    for (size_t k = 0; k < m->n_sizes; k++) {
        for (size_t s = 0; s < m->n_schedulers; s++) {
            double split[PARTS];
            if (matrix_next_run(m, s, k, -1) < 0) {
                continue;
            }
            text_label_cell(out, m->schedulers[s]);
            strbuf_printf(out, "%9llu", (unsigned long long)m->sizes[k]);
            if (wall_split(m, s, k, split)) {
                for (enum part p = PART_USEFUL; p < PARTS; p++) {
                    strbuf_printf(out, "%11.1f", split[p] * 100.0);
                }
            } else {
                strbuf_puts(out, matrix_is_remote(m, s) ? "  a server's, not visible over HTTP"
                                                        : "  not recorded");
            }
            strbuf_putc(out, '\n');
        }
    }
    for (size_t s = 0; s < m->n_schedulers; s++) {
        largest_loss(m, s, out);
    }
    strbuf_putc(out, '\n');
}

static const struct run *first_run_of(const struct matrix *m, size_t scheduler)
{
    for (size_t k = 0; k < m->n_sizes; k++) {
        ptrdiff_t i = matrix_next_run(m, scheduler, k, -1);
        if (i >= 0) {
            return &m->results->runs[i];
        }
    }
    return NULL;
}

void text_warnings(const struct matrix *m, struct strbuf *out)
{
    uint64_t in_flight = m->results->settings.max_concurrent;
    size_t before = out->len;
    for (size_t s = 0; s < m->n_schedulers; s++) {
        const struct run *run = first_run_of(m, s);
        if (run == NULL || in_flight == 0 || run->fill_target <= in_flight) {
            continue;
        }
        strbuf_puts(out, "warning: ");
        text_label(out, run->scheduler, LABEL_COLUMNS);
        strbuf_printf(
            out,
            ": batch size %llu exceeds --max-concurrent %llu: it then always waits out the "
            "timeout\n",
            (unsigned long long)run->fill_target, (unsigned long long)in_flight);
    }
    for (size_t i = 0; i < m->results->n_runs; i++) {
        assert(m->results->runs != NULL); /* for the analyser */
        const struct run *run = &m->results->runs[i];
        if (run->summary.failed_requests == 0) {
            continue;
        }
        strbuf_puts(out, "warning: ");
        text_label(out, run->scheduler, LABEL_COLUMNS);
        strbuf_printf(out, ", %llu requests, run %llu: %llu of %llu failed",
                      (unsigned long long)run->request_size, (unsigned long long)run->run_num,
                      (unsigned long long)run->summary.failed_requests,
                      (unsigned long long)run->summary.total_requests);
        if (run_is_remote(run) && run->remote.errors[0] != '\0') {
            strbuf_puts(out, " (");
            text_label(out, run->remote.errors, 200);
            strbuf_putc(out, ')');
        }
        strbuf_puts(out, "; latencies are of the others\n");
    }
    text_remote_warnings(m, out);
    if (out->len > before) {
        strbuf_putc(out, '\n');
    }
}

void text_same_text(const struct matrix *m, struct strbuf *out)
{
    struct text_verdict v;
    results_same_text(m->results, &v);
    if (v.compared == 0) {
        size_t in_process = 0;
        for (size_t s = 0; s < m->n_schedulers; s++) {
            in_process += !matrix_is_remote(m, s);
        }
        strbuf_puts(out, in_process == 0 ? "same text: only servers, whose text is their own\n"
                         : in_process == 1
                             ? "same text: one scheduler, nothing to compare\n"
                             : "same text: no request was answered by two schedulers\n");
    } else if (v.differing == 0) {
        strbuf_printf(out,
                      "same text: all schedulers gave the same text for the same request (%llu "
                      "answers compared)\n",
                      (unsigned long long)v.compared);
    } else {
        strbuf_printf(out,
                      "DIFFERENT TEXT: %llu of %llu answers differ at the same seed (a bug), e.g. ",
                      (unsigned long long)v.differing, (unsigned long long)v.compared);
        text_label(out, v.example, sizeof v.example);
        strbuf_putc(out, '\n');
    }
    text_equal_prefix(m, out);
    strbuf_putc(out, '\n');
}

void text_comparison(const struct results *r, struct strbuf *out)
{
    struct matrix m;
    if (!matrix_init(&m, r)) {
        out->failed = true;
        return;
    }
    locale_t saved = number_locale_begin();
    strbuf_puts(out, "SCHEDULER COMPARISON SUMMARY\n");
    text_provenance(&m, out);
    for (size_t k = 0; k < m.n_sizes; k++) {
        size_table(&m, k, out);
        text_ratios(&m, k, out);
    }
    text_losses(&m, out);
    text_warnings(&m, out);
    text_same_text(&m, out);
    number_locale_end(saved);
    matrix_deinit(&m);
}
