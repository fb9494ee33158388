/* results_int.h - shared by the files that fill and read struct results. */
#ifndef LLMSCHED_REPORT_RESULTS_INT_H
#define LLMSCHED_REPORT_RESULTS_INT_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "report/results.h"

/* More than any matrix has; keeps the searches over pairs of runs short. */
#define RESULTS_MAX_RUNS 10000
#define RUN_FIELDS_MAX   96
/* A journal or CSV beyond this is refused rather than read into memory. */
#define RESULTS_MAX_FILE_BYTES ((size_t)1 << 30)

/* Rows in order of request_id, as all readers of a run expect; BAD_DATA when one is there twice. */
enum status run_sort_rows(struct run *run, struct error *err) MUST_USE;

/* Index of a run, searched from start on and around; -1: none. */
ptrdiff_t results_find(const struct results *r, const char *scheduler, uint64_t size,
                       uint64_t run_num, size_t start);

/* results_read_csv on texts in memory; metrics may be NULL. The paths are for messages. */
enum status results_parse_csv(const char *summaries, size_t summaries_len, const char *metrics,
                              size_t metrics_len, const char *summaries_path,
                              const char *metrics_path, struct results *out,
                              struct error *err) MUST_USE;

/* Room for one more element in an array of n that only ever grew through here; NULL: no memory
 * (the old array stays). */
void *results_grow(void *array, size_t n, size_t size) MUST_USE;

#endif
