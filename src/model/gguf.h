/*
 * gguf.h - a GGUF v2/v3 file: typed keys and a checked tensor directory. No tensor data is held.
 *
 * Every count, length and offset is checked against the bytes that remain before anything is
 * allocated. Strings and arrays are borrowed from the struct gguf. Rules and the bug behind each:
 * the comments in gguf.c. Source: ggml-org/ggml docs/gguf.md.
 */
#ifndef LLMSCHED_MODEL_GGUF_H
#define LLMSCHED_MODEL_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct gguf;

struct gguf_string {
    const char *text; /* not NUL-terminated by contract; may hold any bytes */
    size_t len;
};

enum gguf_type {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64
};

struct gguf_tensor {
    const char *name;   /* NUL-terminated, < 64 bytes */
    uint32_t ggml_type; /* raw id */
    uint32_t rank;
    uint64_t dims[4]; /* dims[0] is the fastest (columns) */
    uint64_t offset;  /* absolute, in the file */
    uint64_t bytes;
};

/* A tensor type of ggml: `block` elements take `bytes` bytes. */
struct ggml_type {
    uint32_t id;
    const char *name;
    uint32_t block;
    uint32_t bytes;
};

/* NULL for an id that is unknown or was removed from the format. */
const struct ggml_type *ggml_type_of(uint32_t id);

enum status gguf_open(const char *path, struct gguf **out, struct error *err) MUST_USE;
/* For tests and fuzzing: the header from memory; file_bytes is the size the checks assume. */
enum status gguf_parse(const void *data, size_t len, uint64_t file_bytes, const char *path,
                       struct gguf **out, struct error *err) MUST_USE;
void gguf_close(struct gguf *g);

const char *gguf_path(const struct gguf *g);
uint32_t gguf_version(const struct gguf *g);

/* Scalars: NOT_FOUND when the key is missing, BAD_MODEL when it has another type (any integer type
 * is accepted for _u64 when non-negative). */
enum status gguf_get_u64(const struct gguf *g, const char *key, uint64_t *out,
                         struct error *err) MUST_USE;
enum status gguf_get_f64(const struct gguf *g, const char *key, double *out,
                         struct error *err) MUST_USE;
enum status gguf_get_bool(const struct gguf *g, const char *key, bool *out,
                          struct error *err) MUST_USE;
enum status gguf_get_string(const struct gguf *g, const char *key, struct gguf_string *out,
                            struct error *err) MUST_USE;
/* Arrays of exactly the element type asked for; elements are unaligned little-endian bytes. */
enum status gguf_get_array(const struct gguf *g, const char *key, enum gguf_type element,
                           const void **data, uint64_t *count, struct error *err) MUST_USE;
enum status gguf_get_strings(const struct gguf *g, const char *key, const struct gguf_string **out,
                             uint64_t *count, struct error *err) MUST_USE;

/* By exact name, or NULL. */
const struct gguf_tensor *gguf_find_tensor(const struct gguf *g, const char *name);
uint64_t gguf_file_bytes(const struct gguf *g);
uint64_t gguf_tensor_count(const struct gguf *g);
const struct gguf_tensor *gguf_tensor_at(const struct gguf *g, uint64_t i);
uint64_t gguf_key_count(const struct gguf *g);
const char *gguf_key_at(const struct gguf *g, uint64_t i);

#endif
