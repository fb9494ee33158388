/*
 * csv_int.h - RFC 4180: records of cells in and out.
 *
 * Written: CRLF ends a record, cells are quoted where they hold a comma, a quote, CR or LF. Read:
 * CRLF, LF or CR, a byte order mark at the start, blank lines between records. Strict otherwise: a
 * stray quote, text after a closing quote, or an end inside quotes is an error with its line.
 */
#ifndef LLMSCHED_REPORT_CSV_INT_H
#define LLMSCHED_REPORT_CSV_INT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "base/strbuf.h"

/* Zero-initialise, set text, len and path (borrowed); end with csv_deinit. */
struct csv_reader {
    const char *text;
    size_t len;
    const char *path;
    size_t pos;
    uint64_t lines;       /* ends of lines passed, those inside quotes included */
    uint64_t record_line; /* where the current record began, from 1 */
    size_t record_pos;
    struct strbuf bytes; /* the current record's cells, each with a closing NUL */
    size_t *offsets;
    size_t n_cells;
    size_t capacity;
};

/* The next record; *end at the end of the text. Cells are valid until the next call. Errors:
 * BAD_DATA with path and line, NO_MEMORY. */
enum status csv_next(struct csv_reader *c, bool *end, struct error *err) MUST_USE;
const char *csv_cell(const struct csv_reader *c, size_t i);
void csv_deinit(struct csv_reader *c);

/* Appends one cell, quoted where needed. guard: see results.h, csv_safe. */
void csv_put(struct strbuf *out, const char *text, size_t n, bool guard);
#define CSV_END_OF_RECORD "\r\n"

#endif
