/* threshold.c - see threshold.h. */
#include "bench/threshold.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const op_texts[] = {"<", "<=", ">", ">="};

static bool is_column(const char *name)
{
    for (const char *const *c = results_figure_names(); *c != NULL; c++) {
        if (strcmp(*c, name) == 0) {
            return true;
        }
    }
    return false;
}

enum status threshold_parse(const char *text, const struct scheduler_spec *specs, size_t n_specs,
                            struct threshold *out, struct error *err)
{
    struct threshold t = {0};
    size_t at = strcspn(text, "<>");
    const char *dot = memrchr(text, '.', at);
    if (text[at] == '\0' || dot == NULL || dot == text) {
        return error_set(err, STATUS_USAGE, -1,
                         "--fail-if '%s': expected 'SCHEDULER.COLUMN<VALUE' (or <=, >, >=), as in "
                         "'dynamic.throughput_req_per_sec<5'",
                         text);
    }
    bool or_equal = text[at + 1] == '=';
    t.op = text[at] == '<' ? (or_equal ? THRESHOLD_LE : THRESHOLD_LT)
                           : (or_equal ? THRESHOLD_GE : THRESHOLD_GT);
    const char *number = text + at + (or_equal ? 2 : 1);
    char *end;
    t.value = strtod(number, &end);
    if (end == number || end[strspn(end, " ")] != '\0' || !isfinite(t.value)) {
        return error_set(err, STATUS_USAGE, -1, "--fail-if '%s': \"%s\" is not a number", text,
                         number);
    }
    size_t column_len = (size_t)(text + at - dot) - 1;
    while (column_len > 0 && dot[column_len] == ' ') {
        column_len--;
    }
    snprintf(t.label, sizeof t.label, "%.*s", (int)(dot - text), text);
    snprintf(t.column, sizeof t.column, "%.*s", (int)column_len, dot + 1);
    if (!is_column(t.column)) {
        return error_set(err, STATUS_USAGE, -1,
                         "--fail-if '%s': benchmark_summaries.csv has no numeric column \"%s\" "
                         "(docs/METRICS.md lists them)",
                         text, t.column);
    }
    for (size_t i = 0; i < n_specs; i++) {
        if (strcmp(specs[i].label, t.label) == 0) {
            *out = t;
            return STATUS_OK;
        }
    }
    return error_set(err, STATUS_USAGE, -1,
                     "--fail-if '%s': no scheduler of this run is called \"%s\"", text, t.label);
}

static bool is_failing(const struct threshold *t, double figure)
{
    switch (t->op) {
    case THRESHOLD_LT:
        return !(figure >= t->value);
    case THRESHOLD_LE:
        return !(figure > t->value);
    case THRESHOLD_GT:
        return !(figure <= t->value);
    case THRESHOLD_GE:
        return !(figure < t->value);
    }
    return true;
}

/* Mean of the figure over the label's runs of one size; NaN when undefined in any. */
static double mean_figure(const struct threshold *t, const struct results *r, uint64_t size,
                          size_t *n)
{
    double sum = 0;
    *n = 0;
    for (size_t i = 0; i < r->n_runs; i++) {
        const struct run *run = &r->runs[i];
        double value;
        if (run->request_size == size && strcmp(run->scheduler, t->label) == 0 &&
            results_figure(run, t->column, &value)) {
            sum += value;
            (*n)++;
        }
    }
    return *n > 0 ? sum / (double)*n : (double)NAN;
}

bool threshold_check(const struct threshold *t, const struct results *r, struct strbuf *out)
{
    bool passed = true;
    bool seen = false;
    for (size_t i = 0; i < r->n_runs; i++) {
        bool first_of_size = true;
        for (size_t j = 0; j < i; j++) {
            first_of_size = first_of_size && r->runs[j].request_size != r->runs[i].request_size;
        }
        size_t n;
        double figure = first_of_size ? mean_figure(t, r, r->runs[i].request_size, &n) : 0;
        if (!first_of_size || n == 0) {
            continue;
        }
        seen = true;
        if (is_failing(t, figure)) {
            passed = false;
            strbuf_printf(out,
                          "threshold failed: %s.%s = %.6g with %llu requests, fails if %s %.6g\n",
                          t->label, t->column, figure, (unsigned long long)r->runs[i].request_size,
                          op_texts[t->op], t->value);
        }
    }
    if (!seen) {
        strbuf_printf(out, "threshold failed: %s.%s has no finished run\n", t->label, t->column);
    }
    return passed && seen;
}
