/* tok_json.h - typed access to a parsed tokenizer.json; private to tok_json*.c. Every error is
 * BAD_MODEL and names the key. Strings are borrowed from the JSON tree. */
#ifndef LLMSCHED_MODEL_TOK_JSON_H
#define LLMSCHED_MODEL_TOK_JSON_H

#include <jansson.h>

#include "model/tokenizer_int.h"

/* A whole file, which must be an object. Errors, with path: BAD_MODEL, NO_MEMORY. */
enum status tok_json_parse(const char *text, size_t len, const char *path, json_t **root,
                           struct error *err) MUST_USE;
enum status tok_json_wrong(const char *key, const char *wanted, const json_t *got,
                           struct error *err);
/* may_lack: missing and null give NULL. */
enum status tok_json_string(const json_t *o, const char *key, bool may_lack, const char **text,
                            size_t *len, struct error *err) MUST_USE;
/* Missing and null give the fallback. */
enum status tok_json_bool(const json_t *o, const char *key, bool fallback, bool *out,
                          struct error *err) MUST_USE;
/* A whole number from 0 to most; v may be NULL (missing). */
enum status tok_json_count(const json_t *v, const char *key, uint32_t most, uint32_t *out,
                           struct error *err) MUST_USE;
/* A copy in the tokenizer's arena. */
enum status tok_json_keep(struct tokenizer *t, const char *text, size_t len, const char **out,
                          uint32_t *out_len, struct error *err) MUST_USE;

#endif
