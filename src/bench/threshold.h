/*
 * threshold.h - --fail-if 'LABEL.COLUMN<VALUE': a gate for CI.
 *
 * The figure is the mean over runs, held against the value for every request size apart; an
 * undefined figure fails too, because a gate that cannot be read must not pass.
 */
#ifndef LLMSCHED_BENCH_THRESHOLD_H
#define LLMSCHED_BENCH_THRESHOLD_H

#include <stdbool.h>

#include "base/status.h"
#include "base/strbuf.h"
#include "bench/scheduler_spec.h"
#include "report/results.h"

enum threshold_op { THRESHOLD_LT, THRESHOLD_LE, THRESHOLD_GT, THRESHOLD_GE };

struct threshold {
    char label[SCHEDULER_LABEL_MAX];
    char column[64];
    enum threshold_op op;
    double value;
};

/* Errors: USAGE for bad syntax, an unknown column (the nearest is named) or a label that is not in
 * the run. */
enum status threshold_parse(const char *text, const struct scheduler_spec *specs, size_t n_specs,
                            struct threshold *out, struct error *err) MUST_USE;

/* Appends a line per failure to out; true when none failed. */
bool threshold_check(const struct threshold *t, const struct results *results, struct strbuf *out);

#endif
