/* text.c - the block of one run, and the pieces that all texts are made of. */
#include "report/text.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "number_int.h"
#include "text_int.h"

/* Characters that hide, reorder or fake what stands around them. */
static bool is_deceptive(uint32_t c)
{
    return c < 0x20 || (c >= 0x7F && c < 0xA0) || c == 0xAD || c == 0x61C ||
           (c >= 0x200B && c <= 0x200F) || (c >= 0x2028 && c <= 0x202E) ||
           (c >= 0x2060 && c <= 0x206F) || c == 0xFEFF || c >= 0xE0000;
}

void text_label(struct strbuf *out, const char *label, size_t max_columns)
{
    size_t n = strlen(label);
    size_t columns = 0;
    size_t cut = 0; /* length of out when max_columns - 3 were used */
    size_t i = 0;
    while (i < n) {
        if (columns + 3 == max_columns) {
            cut = out->len;
        }
        if (columns == max_columns) {
            if (!out->failed) {
                out->len = cut;
                strbuf_puts(out, "...");
            }
            return;
        }
        size_t len = utf8_sequence(label + i, n - i);
        if (len == 0) {
            len = utf8_invalid_run(label + i, n - i);
            strbuf_puts(out, UTF8_REPLACEMENT);
        } else if (is_deceptive(utf8_decode(label + i, len))) {
            strbuf_putc(out, '?');
        } else {
            strbuf_append(out, label + i, len);
        }
        i += len;
        columns++;
    }
}

static size_t characters(const char *text)
{
    size_t n = 0;
    for (; *text != '\0'; text++) {
        n += ((unsigned char)*text & 0xC0) != 0x80;
    }
    return n;
}

static void spaces(struct strbuf *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        strbuf_putc(out, ' ');
    }
}

void text_cell_left(struct strbuf *out, const char *text, size_t width)
{
    size_t n = characters(text);
    strbuf_puts(out, text);
    spaces(out, n < width ? width - n : 0);
}

void text_cell_right(struct strbuf *out, const char *text, size_t width)
{
    size_t n = characters(text);
    spaces(out, n < width ? width - n : 0);
    strbuf_puts(out, text);
}

void text_label_cell(struct strbuf *out, const char *label)
{
    struct strbuf safe = {0};
    text_label(&safe, label, LABEL_COLUMNS);
    text_cell_left(out, strbuf_text(&safe), LABEL_COLUMNS);
    out->failed = out->failed || safe.failed;
    strbuf_deinit(&safe);
}

void text_mean(struct strbuf *out, struct cell c, int decimals, char mark)
{
    if (c.n == 0) {
        strbuf_puts(out, "-");
        return;
    }
    strbuf_printf(out, "%.*f", decimals, c.mean);
    if (mark != '\0') {
        strbuf_putc(out, mark);
    }
    if (c.n > 1) {
        strbuf_printf(out, " \u00B1 %.*f", decimals, c.half_width);
    }
}

void text_ratio(struct strbuf *out, struct ratio r)
{
    if (r.n == 0) {
        strbuf_puts(out, "no pair of runs");
    } else if (r.n == 1) {
        strbuf_printf(out, "%.2fx (one pair: no verdict)", r.mean);
    } else {
        const char *verdict = r.low > 1.0 ? "higher" : r.high < 1.0 ? "lower" : "cannot tell apart";
        strbuf_printf(out, "%.2fx [%.2f, %.2f] %s", r.mean, r.low, r.high, verdict);
    }
}

bool text_param(const char *params, const char *name, char *value, size_t size)
{
    size_t n = strlen(name);
    const char *p = params;
    while (p != NULL && *p != '\0') {
        p += strspn(p, " ");
        size_t word = strcspn(p, " ");
        if (word > n && strncmp(p, name, n) == 0 && p[n] == '=') {
            snprintf(value, size, "%.*s", (int)(word - n - 1), p + n + 1);
            return true;
        }
        p += word;
    }
    return false;
}

static void quantile(struct strbuf *out, const char *name, double v, double unit, uint64_t n,
                     double q)
{
    if (isnan(v)) {
        strbuf_printf(out, "  %s -", name);
    } else {
        strbuf_printf(out, "  %s %.3f%s", name, v * unit,
                      stats_quantile_is_shaky((size_t)n, q) ? "~" : "");
    }
}

static void plain(struct strbuf *out, const char *name, double v, double unit)
{
    if (isnan(v)) {
        strbuf_printf(out, "  %s -", name);
    } else {
        strbuf_printf(out, "  %s %.3f", name, v * unit);
    }
}

static void figures_line(struct strbuf *out, const char *title, const struct latency_figures *f,
                         double unit, uint64_t n)
{
    strbuf_printf(out, "  %-13s", title);
    quantile(out, "P50", f->p50_s, unit, n, 0.50);
    quantile(out, "P95", f->p95_s, unit, n, 0.95);
    quantile(out, "P99", f->p99_s, unit, n, 0.99);
    plain(out, "avg", f->avg_s, unit);
    plain(out, "min", f->min_s, unit);
    plain(out, "max", f->max_s, unit);
    strbuf_putc(out, '\n');
}

/* The quantiles of a user: who got no answer waited for ever. */
static void with_failures_line(struct strbuf *out, const struct run *run)
{
    if (run->summary.failed_requests == 0 || run->n_rows == 0) {
        return;
    }
    double *values = mem_alloc(run->n_rows, sizeof *values);
    if (values == NULL) {
        out->failed = true;
        return;
    }
    for (size_t i = 0; i < run->n_rows; i++) {
        const struct request_row *row = &run->rows[i];
        bool answered = row->status == RECORD_OK && !isnan(row->latency_s);
        values[i] = answered ? row->latency_s : (double)INFINITY;
    }
    stats_sort(values, run->n_rows);
    strbuf_printf(out, "  %-13s", "with failures");
    quantile(out, "P50", stats_quantile_sorted(values, run->n_rows, 0.50), 1.0, run->n_rows, 0.50);
    quantile(out, "P95", stats_quantile_sorted(values, run->n_rows, 0.95), 1.0, run->n_rows, 0.95);
    quantile(out, "P99", stats_quantile_sorted(values, run->n_rows, 0.99), 1.0, run->n_rows, 0.99);
    strbuf_puts(out, "  (latency in s; a failed request counts as infinite)\n");
    mem_free(values);
}

static void title_line(const struct run *run, struct strbuf *out)
{
    struct strbuf label = {0};
    text_label(&label, run->scheduler, 60);
    for (size_t i = 0; i < label.len; i++) {
        label.data[i] =
            (char)((unsigned char)label.data[i] < 0x80 ? toupper((unsigned char)label.data[i])
                                                       : label.data[i]);
    }
    strbuf_printf(out, "%s SCHEDULER - Run %llu\n", strbuf_text(&label),
                  (unsigned long long)run->run_num);
    out->failed = out->failed || label.failed;
    strbuf_deinit(&label);
}

static void engine_lines(const struct run_summary *s, struct strbuf *out)
{
    if (isnan(s->mean_batch_size)) {
        return; /* nothing ran, or a server's steps, which are not ours to see */
    }
    strbuf_printf(out, "  %-13s  mean size %.2f  efficiency %.1f %%  padding %llu tokens\n",
                  "batches", s->mean_batch_size, s->batch_efficiency * 100.0,
                  (unsigned long long)s->padding_tokens);
    strbuf_printf(out, "  %-13s  peak %llu blocks  preemptions %llu  recomputed %llu tokens\n",
                  "KV cache", (unsigned long long)s->kv_peak_blocks,
                  (unsigned long long)s->preemptions, (unsigned long long)s->recomputed_tokens);
    if (s->wall_time_s > 0.0 && !isnan(s->useful_s)) {
        double percent = 100.0 / s->wall_time_s;
        strbuf_printf(
            out,
            "  %-13s  useful %.1f %%  padding %.1f %%  recompute %.1f %%  fill wait %.1f %%"
            "  idle %.1f %%  overhead %.1f %%\n",
            "wall time", s->useful_s * percent, s->padding_s * percent, s->recompute_s * percent,
            s->fill_wait_s * percent, s->idle_s * percent, s->overhead_s * percent);
    }
}

void text_run_block(const struct run *run, struct strbuf *out)
{
    locale_t saved = number_locale_begin();
    const struct run_summary *s = &run->summary;
    uint64_t n = s->successful_requests;
    title_line(run, out);
    strbuf_printf(out, "  %-13s  total %llu  successful %llu  failed %llu  wall time %.3f s\n",
                  "requests", (unsigned long long)s->total_requests, (unsigned long long)n,
                  (unsigned long long)s->failed_requests, s->wall_time_s);
    strbuf_printf(out, "  %-13s  %.2f requests/s  %.1f tokens/s\n", "throughput",
                  s->throughput_req_per_sec, s->throughput_tokens_per_sec);
    figures_line(out, "latency (s)", &s->latency, 1.0, n);
    with_failures_line(out, run);
    figures_line(out, "TTFT (s)", &s->ttft, 1.0, n);
    if (s->tpot_samples > 0) {
        figures_line(out, "TPOT (ms)", &s->tpot, 1e3, s->tpot_samples);
    } else {
        strbuf_printf(out, "  %-13s  undefined: no answer came in more than one piece\n",
                      "TPOT (ms)");
    }
    if (run_is_remote(run)) {
        text_remote_lines(run, out);
    } else {
        figures_line(out, "queue (s)", &s->queue, 1.0, n);
        engine_lines(s, out);
    }
    number_locale_end(saved);
}
