/* gguf_get.c - see gguf.h: typed access to the keys of a file that gguf.c has read and checked. */
#include <stdio.h>
#include <string.h>

#include "model/gguf_int.h"

const uint8_t gguf_scalar_bytes[GGUF_TYPE_COUNT] = {
    [GGUF_U8] = 1,  [GGUF_I8] = 1,  [GGUF_U16] = 2,  [GGUF_I16] = 2,    [GGUF_U32] = 4,
    [GGUF_I32] = 4, [GGUF_F32] = 4, [GGUF_BOOL] = 1, [GGUF_STRING] = 0, [GGUF_ARRAY] = 0,
    [GGUF_U64] = 8, [GGUF_I64] = 8, [GGUF_F64] = 8,
};
const char *const gguf_type_names[GGUF_TYPE_COUNT] = {
    [GGUF_U8] = "u8",   [GGUF_I8] = "i8",   [GGUF_U16] = "u16",       [GGUF_I16] = "i16",
    [GGUF_U32] = "u32", [GGUF_I32] = "i32", [GGUF_F32] = "f32",       [GGUF_BOOL] = "bool",
    [GGUF_U64] = "u64", [GGUF_I64] = "i64", [GGUF_STRING] = "string", [GGUF_ARRAY] = "array",
    [GGUF_F64] = "f64",
};

static enum status find_key(const struct gguf *g, const char *key, const struct gguf_value **out,
                            struct error *err)
{
    const struct name_entry *e = names_find(g->key_names, (size_t)g->n_keys, key, strlen(key));
    if (e == NULL) {
        return error_set(err, STATUS_NOT_FOUND, -1, "%s: key '%s' is missing", g->path, key);
    }
    *out = &g->keys[e->value].value;
    return STATUS_OK;
}

static enum status wrong_type(const struct gguf *g, const char *key, const struct gguf_value *v,
                              const char *want, struct error *err)
{
    bool array = v->type == GGUF_ARRAY;
    return error_set(err, STATUS_BAD_MODEL, -1, "%s: key '%s' is %s %s, not %s", g->path, key,
                     array ? "an array of" : "a", gguf_type_names[array ? v->element : v->type],
                     want);
}

static int64_t signed_scalar(const struct gguf_value *v)
{
    int8_t i8;
    int16_t i16;
    int32_t i32;
    int64_t i64;
    switch (v->type) {
    case GGUF_I8:
        memcpy(&i8, v->scalar, sizeof i8);
        return i8;
    case GGUF_I16:
        memcpy(&i16, v->scalar, sizeof i16);
        return i16;
    case GGUF_I32:
        memcpy(&i32, v->scalar, sizeof i32);
        return i32;
    default:
        memcpy(&i64, v->scalar, sizeof i64);
        return i64;
    }
}

enum status gguf_get_u64(const struct gguf *g, const char *key, uint64_t *out, struct error *err)
{
    const struct gguf_value *v = NULL;
    enum status s = find_key(g, key, &v, err);
    if (s != STATUS_OK) {
        return s;
    }
    uint64_t u = 0;
    switch (v->type) {
    case GGUF_U8:
    case GGUF_U16:
    case GGUF_U32:
    case GGUF_U64:
        memcpy(&u, v->scalar, gguf_scalar_bytes[v->type]);
        break;
    case GGUF_I8:
    case GGUF_I16:
    case GGUF_I32:
    case GGUF_I64:
        if (signed_scalar(v) < 0) {
            return error_set(err, STATUS_BAD_MODEL, -1, "%s: key '%s' is negative", g->path, key);
        }
        u = (uint64_t)signed_scalar(v);
        break;
    default:
        return wrong_type(g, key, v, "an integer", err);
    }
    *out = u;
    return STATUS_OK;
}

enum status gguf_get_f64(const struct gguf *g, const char *key, double *out, struct error *err)
{
    const struct gguf_value *v = NULL;
    enum status s = find_key(g, key, &v, err);
    if (s != STATUS_OK) {
        return s;
    }
    if (v->type == GGUF_F32) {
        float f;
        memcpy(&f, v->scalar, sizeof f);
        *out = (double)f;
    } else if (v->type == GGUF_F64) {
        memcpy(out, v->scalar, sizeof *out);
    } else {
        return wrong_type(g, key, v, "a float", err);
    }
    return STATUS_OK;
}

enum status gguf_get_bool(const struct gguf *g, const char *key, bool *out, struct error *err)
{
    const struct gguf_value *v = NULL;
    enum status s = find_key(g, key, &v, err);
    if (s == STATUS_OK && v->type != GGUF_BOOL) {
        return wrong_type(g, key, v, "a bool", err);
    }
    if (s == STATUS_OK) {
        *out = v->scalar[0] == 1;
    }
    return s;
}

enum status gguf_get_string(const struct gguf *g, const char *key, struct gguf_string *out,
                            struct error *err)
{
    const struct gguf_value *v = NULL;
    enum status s = find_key(g, key, &v, err);
    if (s == STATUS_OK && v->type != GGUF_STRING) {
        return wrong_type(g, key, v, "a string", err);
    }
    if (s == STATUS_OK) {
        *out = v->string;
    }
    return s;
}

enum status gguf_get_array(const struct gguf *g, const char *key, enum gguf_type element,
                           const void **data, uint64_t *count, struct error *err)
{
    const struct gguf_value *v = NULL;
    enum status s = find_key(g, key, &v, err);
    if (s != STATUS_OK) {
        return s;
    }
    /* The element type must be the one the caller reads: u8 read as i32 is a heap over-read. */
    if (v->type != GGUF_ARRAY || v->element != element) {
        char want[32];
        snprintf(want, sizeof want, "an array of %s", gguf_type_names[element]);
        return wrong_type(g, key, v, want, err);
    }
    *data = v->data;
    *count = v->count;
    return STATUS_OK;
}

enum status gguf_get_strings(const struct gguf *g, const char *key, const struct gguf_string **out,
                             uint64_t *count, struct error *err)
{
    const void *data = NULL;
    enum status s = gguf_get_array(g, key, GGUF_STRING, &data, count, err);
    if (s == STATUS_OK) {
        *out = *count == 0 ? NULL : data;
    }
    return s;
}
