/*
 * safetensors.h - the checked tensor directory of one .safetensors file. No tensor data is held.
 *
 * The rules are those of the reference reader (huggingface/safetensors, src/tensor.rs), and limits
 * on counts, names, ranks and depth on top; each stands beside its check in safetensors.c.
 */
#ifndef LLMSCHED_MODEL_SAFETENSORS_H
#define LLMSCHED_MODEL_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define SAFETENSORS_MAX_RANK 8

/* name, bits of an element */
#define SAFETENSORS_DTYPES(X)                                                                      \
    X(F4, 4)                                                                                       \
    X(F6_E2M3, 6)                                                                                  \
    X(F6_E3M2, 6)                                                                                  \
    X(BOOL, 8)                                                                                     \
    X(U8, 8)                                                                                       \
    X(I8, 8)                                                                                       \
    X(F8_E5M2, 8)                                                                                  \
    X(F8_E4M3, 8)                                                                                  \
    X(F8_E8M0, 8)                                                                                  \
    X(F8_E4M3FNUZ, 8)                                                                              \
    X(F8_E5M2FNUZ, 8)                                                                              \
    X(I16, 16)                                                                                     \
    X(U16, 16)                                                                                     \
    X(F16, 16)                                                                                     \
    X(BF16, 16)                                                                                    \
    X(I32, 32)                                                                                     \
    X(U32, 32)                                                                                     \
    X(F32, 32)                                                                                     \
    X(C64, 64)                                                                                     \
    X(F64, 64)                                                                                     \
    X(I64, 64)                                                                                     \
    X(U64, 64)

enum safetensors_dtype {
#define SAFETENSORS_ENUM(name, bits) SAFETENSORS_##name,
    SAFETENSORS_DTYPES(SAFETENSORS_ENUM)
#undef SAFETENSORS_ENUM
        SAFETENSORS_DTYPE_COUNT
};

struct safetensors_tensor {
    const char *name; /* NUL-terminated UTF-8 */
    enum safetensors_dtype dtype;
    uint32_t rank;
    uint64_t shape[SAFETENSORS_MAX_RANK]; /* slowest first */
    uint64_t offset;                      /* absolute, in the file */
    uint64_t bytes;
};

struct safetensors;

enum status safetensors_open(const char *path, struct safetensors **out,
                             struct error *err) MUST_USE;
/* For tests and fuzzing: the header from memory; file_bytes is the size the checks assume. */
enum status safetensors_parse(const void *data, size_t len, uint64_t file_bytes, const char *path,
                              struct safetensors **out, struct error *err) MUST_USE;
void safetensors_close(struct safetensors *s);

uint64_t safetensors_file_bytes(const struct safetensors *s);
/* In the order of their data. */
uint64_t safetensors_count(const struct safetensors *s);
const struct safetensors_tensor *safetensors_at(const struct safetensors *s, uint64_t i);
const char *safetensors_dtype_name(enum safetensors_dtype dtype);

#endif
