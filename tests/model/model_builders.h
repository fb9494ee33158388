/*
 * model_builders.h - small model files made in memory for tests, whole or spoilt on purpose.
 *
 * Every writer appends; nothing is checked, so that a test can write any nonsense.
 */
#ifndef LLMSCHED_TESTS_MODEL_BUILDERS_H
#define LLMSCHED_TESTS_MODEL_BUILDERS_H

#include <assert.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct bytes {
    uint8_t *data;
    size_t len;
    size_t capacity;
};

static inline void bytes_put(struct bytes *b, const void *data, size_t n)
{
    if (b->len + n > b->capacity) {
        b->capacity = 2 * (b->len + n) + 64;
        b->data = realloc(b->data, b->capacity);
        assert(b->data != NULL);
    }
    if (n > 0) {
        memcpy(b->data + b->len, data, n);
    }
    b->len += n;
}

static inline void bytes_free(struct bytes *b)
{
    free(b->data);
    *b = (struct bytes){0};
}

static inline void put_u8(struct bytes *b, uint8_t v)
{
    bytes_put(b, &v, sizeof v);
}

static inline void put_u32(struct bytes *b, uint32_t v)
{
    bytes_put(b, &v, sizeof v);
}

static inline void put_u64(struct bytes *b, uint64_t v)
{
    bytes_put(b, &v, sizeof v);
}

static inline void put_f32(struct bytes *b, float v)
{
    bytes_put(b, &v, sizeof v);
}

static inline void put_zeros(struct bytes *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        put_u8(b, 0);
    }
}

/* A GGUF string: u64 length and bytes. */
static inline void put_string(struct bytes *b, const char *text)
{
    put_u64(b, strlen(text));
    bytes_put(b, text, strlen(text));
}

static inline void gguf_preamble(struct bytes *b, uint32_t version, uint64_t tensors, uint64_t keys)
{
    bytes_put(b, "GGUF", 4);
    put_u32(b, version);
    put_u64(b, tensors);
    put_u64(b, keys);
}

static inline void gguf_key(struct bytes *b, const char *name, uint32_t type)
{
    put_string(b, name);
    put_u32(b, type);
}

static inline void gguf_key_u32(struct bytes *b, const char *name, uint32_t v)
{
    gguf_key(b, name, 4);
    put_u32(b, v);
}

static inline void gguf_key_f32(struct bytes *b, const char *name, float v)
{
    gguf_key(b, name, 6);
    put_f32(b, v);
}

static inline void gguf_key_string(struct bytes *b, const char *name, const char *v)
{
    gguf_key(b, name, 8);
    put_string(b, v);
}

static inline void gguf_key_array(struct bytes *b, const char *name, uint32_t element,
                                  uint64_t count)
{
    gguf_key(b, name, 9);
    put_u32(b, element);
    put_u64(b, count);
}

/* dims: fastest first. */
static inline void gguf_tensor_entry(struct bytes *b, const char *name, uint32_t rank,
                                     const uint64_t *dims, uint32_t type, uint64_t offset)
{
    assert(rank <= 5); /* one more than the format allows */
    put_string(b, name);
    put_u32(b, rank);
    for (uint32_t i = 0; i < rank; i++) {
        put_u64(b, dims[i]);
    }
    put_u32(b, type);
    put_u64(b, offset);
}

static inline void put_padding(struct bytes *b, size_t alignment)
{
    while (b->len % alignment != 0) {
        put_u8(b, 0);
    }
}

/* A safetensors file of this header text and n data bytes counting up. */
static inline void put_safetensors(struct bytes *b, const char *header, size_t n)
{
    put_u64(b, strlen(header));
    bytes_put(b, header, strlen(header));
    for (size_t i = 0; i < n; i++) {
        put_u8(b, (uint8_t)i);
    }
}

/* ---- files ---- */

/* A fresh folder below TMPDIR; the test removes what it wrote with remove_tree. */
static inline void make_folder(char out[256])
{
    const char *base = getenv("TMPDIR");
    snprintf(out, 256, "%s/llmsched-test-XXXXXX", base != NULL ? base : "/tmp");
    char *made = mkdtemp(out);
    assert(made != NULL);
    (void)made;
}

static inline void write_file(const char *folder, const char *name, const void *data, size_t n)
{
    char path[1024];
    int n_path = snprintf(path, sizeof path, "%s/%s", folder, name);
    assert(n_path > 0 && (size_t)n_path < sizeof path);
    (void)n_path;
    FILE *f = fopen(path, "wb");
    assert(f != NULL);
    size_t put = n == 0 ? 0 : fwrite(data, 1, n, f);
    assert(put == n);
    (void)put;
    fclose(f);
}

static inline void remove_tree(const char *folder)
{
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    int rc = system(command);
    assert(rc == 0);
    (void)rc;
}

#endif
