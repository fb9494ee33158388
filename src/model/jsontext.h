/*
 * jsontext.h - JSON from a model's files, strictly, with bounded memory.
 *
 * jansson does the parsing (duplicate keys, bad UTF-8, NUL and trailing text are refused). Before
 * it takes any memory, one pass counts depth and values, because a parsed value costs some 40 times
 * its text. NaN and Infinity, which Python writes, are refused with the key named.
 * jansson's memory comes from base/mem.
 */
#ifndef LLMSCHED_MODEL_JSONTEXT_H
#define LLMSCHED_MODEL_JSONTEXT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct json_limits {
    uint32_t max_depth;
    uint64_t max_values;   /* commas and opening brackets */
    bool integers_as_real; /* numbers like 10^30 are then no error; integers are exact to 2^53 */
};

/* A JSON object. err->position is the byte of the fault, plus `base` (where text begins in its
 * file). Errors: BAD_MODEL, NO_MEMORY. Owner of *out: the caller (json_decref). */
enum status json_text_parse(const char *text, size_t len, const struct json_limits *limits,
                            const char *path, uint64_t base, json_t **out,
                            struct error *err) MUST_USE;

#endif
