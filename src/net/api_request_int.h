/* api_request_int.h - shared by api_request.c (tables, scalars) and api_fields.c (lists). */
#ifndef LLMSCHED_NET_API_REQUEST_INT_H
#define LLMSCHED_NET_API_REQUEST_INT_H

#include <jansson.h>

#include "net/api_request.h"

struct parse {
    struct api_request *r;
    const struct api_limits *limits;
    struct api_errors *errors;
};

enum field_type {
    FIELD_BOOL,
    FIELD_INT,
    FIELD_REAL,
    FIELD_TEXT,
    FIELD_SPECIAL, /* read() does all */
    FIELD_NEUTRAL, /* known, not served: only values that ask for nothing */
    FIELD_IGNORED  /* known, without effect here */
};

struct field {
    const char *name;
    enum field_type type;
    bool null_allowed; /* null: the default */
    bool min_open;     /* the value must be > min */
    size_t offset;     /* into struct api_request: bool, int64_t, double, struct api_text */
    size_t given;      /* offset of a bool that says whether it was given; 0: none */
    int64_t fallback_int;
    int64_t min_int;
    int64_t max_int;
    double fallback_real;
    double min_real;
    double max_real;
    bool fallback_bool;
    void (*read)(struct parse *p, const char *name, const json_t *value);
    const char *neutral; /* the harmless values as compact JSON, between '|' */
};

/* Room for an excerpt of a value: API_ECHO_BYTES, "..." and NUL. */
#define SHOWN_BYTES (API_ECHO_BYTES + 4)

/* The value as compact JSON, cut to API_ECHO_BYTES at a whole character. Returns out. */
const char *parse_shown(const json_t *value, char out[SHOWN_BYTES]);

/* Adds "name: must be WHAT, not VALUE" as a 400 about param `name`. */
void parse_wrong(struct parse *p, const char *name, const char *what, const json_t *value);

/* A whole number, written as 3 or 3.0. */
bool parse_whole(const json_t *value, int64_t *out);

/* Walks an object by a table; prefix ("stream_options.") names its fields in messages. */
void parse_object(struct parse *p, const char *prefix, const json_t *object,
                  const struct field *fields, size_t n_fields);

/* Copies into the arena; data NULL when refused. Refusals need no error here: the caller of all
 * this compares mem_refused_count() at the end. */
struct api_text parse_copy(struct parse *p, const json_t *string);
void *parse_alloc(struct parse *p, size_t count, size_t size);

void parse_prompt(struct parse *p, const char *name, const json_t *value);
void parse_text_prompt(struct parse *p, const char *name, const json_t *value);
void parse_tokens(struct parse *p, const char *name, const json_t *value);
void parse_stop(struct parse *p, const char *name, const json_t *value);
void parse_stop_ids(struct parse *p, const char *name, const json_t *value);
void parse_logit_bias(struct parse *p, const char *name, const json_t *value);
void parse_messages(struct parse *p, const char *name, const json_t *value);

#endif
