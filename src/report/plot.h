/*
 * plot.h - the four PNG charts, by gnuplot; scripts and data stay in <dir>/plot-data/.
 */
#ifndef LLMSCHED_REPORT_PLOT_H
#define LLMSCHED_REPORT_PLOT_H

#include "base/status.h"
#include "report/results.h"

/*
 * Draws throughput_comparison.png, latency_comparison.png, latency_distribution.png (needs rows;
 * without any, an older one is removed) and scheduler_comparison_bars.png into dir, which is made.
 * At most 24 schedulers and 64 sizes. Text from results never reaches gnuplot as code.
 * Errors: NOT_FOUND (gnuplot is missing: how to install it), IO, BAD_DATA (nothing to draw, or too
 * much).
 */
enum status plot_all(const struct results *r, const char *dir, struct error *err) MUST_USE;

#endif
