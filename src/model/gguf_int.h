/* gguf_int.h - shared by gguf.c (reading a file) and gguf_get.c (its keys) only. */
#ifndef LLMSCHED_MODEL_GGUF_INT_H
#define LLMSCHED_MODEL_GGUF_INT_H

#include "base/mem.h"
#include "model/gguf.h"
#include "model/names.h"

#define GGUF_TYPE_COUNT (GGUF_F64 + 1)

/* Bytes of a scalar of this key type; 0 for STRING and ARRAY. */
extern const uint8_t gguf_scalar_bytes[GGUF_TYPE_COUNT];
/* "u32" */
extern const char *const gguf_type_names[GGUF_TYPE_COUNT];

struct gguf_value {
    enum gguf_type type;
    enum gguf_type element; /* of an ARRAY */
    uint64_t count;         /* of an ARRAY */
    uint8_t scalar[8];      /* little-endian, as in the file */
    struct gguf_string string;
    const void *data; /* of an ARRAY: bytes, or struct gguf_string[] */
};

struct gguf_key {
    const char *name;
    struct gguf_value value;
};

struct gguf {
    struct arena arena; /* all of the below, but path */
    char *path;
    uint64_t file_bytes;
    uint32_t version;
    struct gguf_key *keys;
    uint64_t n_keys;
    struct name_entry *key_names; /* sorted */
    struct gguf_tensor *tensors;
    uint64_t n_tensors;
    struct name_entry *tensor_names; /* sorted */
};

#endif
