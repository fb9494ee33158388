/*
 * plot_int.h - data files, scripts and the gnuplot process behind plot.h.
 *
 * Text from results reaches a script only through plot_text: in single quotes, of letters, digits
 * and harmless punctuation, with gnuplot's enhanced text off. Every axis range is computed here, so
 * that data without a single point still draw.
 */
#ifndef LLMSCHED_REPORT_PLOT_INT_H
#define LLMSCHED_REPORT_PLOT_INT_H

#include <stddef.h>

#include "base/status.h"
#include "base/strbuf.h"
#include "matrix_int.h"

/* More than these cannot be told apart on 1000 pixels. */
#define PLOT_MAX_SCHEDULERS   24
#define PLOT_MAX_SIZES        64
#define PLOT_LABEL_CHARACTERS 40

/* The columns of figures.dat after x, size and n: a mean and a half-width each. */
enum plot_metric {
    PLOT_REQUESTS,
    PLOT_TOKENS,
    PLOT_P50,
    PLOT_P95,
    PLOT_P99,
    PLOT_AVG,
    PLOT_TTFT,
    PLOT_USEFUL, /* useful compute, % of the wall time */
    PLOT_METRICS
};

/* What the axes and captions need to know of the data. */
struct plot_extent {
    double max_mean[PLOT_METRICS];
    double max_end[PLOT_METRICS]; /* of the error bars */
    size_t known[PLOT_METRICS];   /* cells in which it is */
    double max_latency;           /* over all rows */
    size_t fewest_rows;           /* per box */
    size_t most_rows;
};

/* figures.dat, boxes.dat and outliers.dat as texts; fills the extent. */
void plot_figures(const struct matrix *m, struct strbuf *out, struct plot_extent *extent);
void plot_boxes(const struct matrix *m, struct strbuf *boxes, struct strbuf *outliers,
                struct plot_extent *extent);

enum plot_chart { CHART_THROUGHPUT, CHART_LATENCY, CHART_DISTRIBUTION, CHART_BARS, CHARTS };
const char *plot_chart_name(enum plot_chart chart); /* without a suffix */
void plot_script(const struct matrix *m, enum plot_chart chart, const struct plot_extent *extent,
                 struct strbuf *out);

/* A name as a single-quoted gnuplot string. */
void plot_text(struct strbuf *out, const char *name, size_t max_characters);

/* Runs gnuplot on <name>.gp in folder, which leaves <name>.png.tmp there. */
enum status plot_run_gnuplot(const char *folder, const char *name, struct error *err) MUST_USE;

#endif
