/* text_int.h - pieces that the console texts and the report share. Callers set the C locale. */
#ifndef LLMSCHED_REPORT_TEXT_INT_H
#define LLMSCHED_REPORT_TEXT_INT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/strbuf.h"
#include "matrix_int.h"
#include "report/results.h"

#define LABEL_COLUMNS 20

/* A name from a file, fit for a terminal and a table: valid UTF-8 without control or direction
 * characters, cut to max_columns characters with a closing "...". */
void text_label(struct strbuf *out, const char *label, size_t max_columns);

/* text (a label of at most width characters, or a figure) padded to width characters. */
void text_cell_left(struct strbuf *out, const char *text, size_t width);
void text_cell_right(struct strbuf *out, const char *text, size_t width);
/* A label padded to LABEL_COLUMNS. */
void text_label_cell(struct strbuf *out, const char *label);

/* "7.79 ± 0.31", "7.79" for one run, "-" where undefined; mark: '~' or 0, behind the mean. */
void text_mean(struct strbuf *out, struct cell c, int decimals, char mark);

/* "1.23x [1.10, 1.36]: higher", "... cannot tell apart", "1.23x (one pair: no verdict)". */
void text_ratio(struct strbuf *out, struct ratio r);

/* Sections; each ends with an empty line. */
void text_provenance(const struct matrix *m, struct strbuf *out);
void text_ratios(const struct matrix *m, size_t size, struct strbuf *out);
void text_losses(const struct matrix *m, struct strbuf *out);
void text_warnings(const struct matrix *m, struct strbuf *out);
void text_same_text(const struct matrix *m, struct strbuf *out);
/* A line per server that did not answer; the report's section about all of them; what rows over
 * HTTP cannot tell. */
void text_unreachable(const struct matrix *m, struct strbuf *out);
void text_servers(const struct matrix *m, struct strbuf *out);
void text_remote_limits(const struct matrix *m, struct strbuf *out);
/* Of one run: what the client cost and what the server said. */
void text_remote_lines(const struct run *run, struct strbuf *out);
void text_remote_warnings(const struct matrix *m, struct strbuf *out);
/* Agreement of texts at temperature 0. */
void text_equal_prefix(const struct matrix *m, struct strbuf *out);

/* Value of "name=value" in a run's params; false: not there. The text is cut to size - 1. */
bool text_param(const char *params, const char *name, char *value, size_t size);

#endif
