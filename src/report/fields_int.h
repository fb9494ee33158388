/*
 * fields_int.h - the tables behind every file: name, kind and place of each figure.
 *
 * The CSV writer and reader, JSON, the journal and results_figure all walk these tables, so a new
 * column is one line here (and one in docs/METRICS.md).
 */
#ifndef LLMSCHED_REPORT_FIELDS_INT_H
#define LLMSCHED_REPORT_FIELDS_INT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"
#include "base/strbuf.h"
#include "report/results.h"

enum field_kind {
    FIELD_TEXT,  /* char *, owned */
    FIELD_COUNT, /* uint64_t */
    FIELD_REAL,  /* double; NaN: undefined, an empty cell, null */
    FIELD_BOOL,  /* bool: "true", "false" */
    FIELD_HASH,  /* uint64_t as 0x and 16 digits: no reader takes it for a number */
    FIELD_STATUS /* enum record_status by name */
};

enum field_flags {
    FIELD_REQUIRED = 1, /* a CSV without this column is refused */
    FIELD_FILLED = 2,   /* never empty */
    FIELD_OPTIONAL = 4  /* a count or hash that may be unknown: COUNT_UNKNOWN or 0, an empty cell */
};

struct field {
    const char *name;
    enum field_kind kind;
    unsigned flags;
    size_t offset; /* into the struct that the table describes */
};

struct field_table {
    const struct field *fields;
    size_t n;
};

extern const struct field_table run_fields;         /* struct run, its summary included */
extern const struct field_table row_fields;         /* struct request_row */
extern const struct field_table environment_fields; /* struct environment */
extern const struct field_table model_fields;       /* struct model_identity */
extern const struct field_table settings_fields;    /* struct bench_settings */
extern const struct field_table server_fields;      /* struct server_facts */
/* struct results: what CSV rows repeat on each line, so that a CSV tells where it is from. */
extern const struct field_table shared_fields;

/* Index of the field called name, or -1. */
int field_find(const struct field_table *t, const char *name);

/* The field of the struct at base as a CSV cell, not yet quoted. */
void field_to_text(const struct field *f, const void *base, struct strbuf *out);
/* The reverse; false: not a value of its kind. *no_memory is set when that was why. */
bool field_from_text(const struct field *f, void *base, const char *text, bool *no_memory);

/* A JSON object of all fields in table order; NULL: out of memory. */
json_t *fields_to_json(const struct field_table *t, const void *base);
/* Fills base from an object. Keys must be there and of their kind; unknown keys are ignored. The
 * message names the key. */
enum status fields_from_json(const struct field_table *t, void *base, const json_t *object,
                             struct error *err) MUST_USE;

/* Frees all texts of the struct at base. */
void fields_deinit(const struct field_table *t, void *base);
/* Makes every NULL text an owned "". False: out of memory. */
bool fields_complete(const struct field_table *t, void *base);
/* Sets reals to NaN and optional counts to unknown: what a column that is absent says. */
void fields_undefine(const struct field_table *t, void *base);

/* What a cell of kind looks like, for messages: "a whole number". */
const char *field_kind_words(enum field_kind kind);

#endif
