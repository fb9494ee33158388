/* safetensors.c - see safetensors.h. Layout: u64 length N, N bytes of JSON, tensor data. */
#include "model/safetensors.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "model/jsontext.h"

#define MAX_HEADER_BYTES ((uint64_t)100000000) /* the reference reader's, decimal */
#define MAX_TENSORS      ((size_t)1000000)     /* the largest real models have ~100,000 */
#define MAX_NAME_BYTES   ((size_t)1024)        /* real names stay below 200 */
#define MAX_DEPTH        4U /* a header has 3: object, tensor, shape; 4 leaves the message to us */
/* A tensor costs at most 1 object, 2 arrays, 3 fields, rank + 2 numbers. */
#define MAX_VALUES   (MAX_TENSORS * 16)
#define PREFIX_BYTES 8U

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "lengths are copied as they stand");

static const struct {
    const char *name;
    uint32_t bits;
} dtypes[SAFETENSORS_DTYPE_COUNT] = {
#define SAFETENSORS_ROW(name, bits) {#name, bits},
    SAFETENSORS_DTYPES(SAFETENSORS_ROW)
#undef SAFETENSORS_ROW
};

struct safetensors {
    json_t *header; /* owns the names */
    struct safetensors_tensor *tensors;
    uint64_t count;
    uint64_t file_bytes;
};

const char *safetensors_dtype_name(enum safetensors_dtype dtype)
{
    return dtypes[dtype].name;
}

/* ---- one tensor's entry ---- */

struct parser {
    const char *path;
    uint64_t data; /* where tensor data begins */
    struct error *err;
};

static enum status bad(const struct parser *p, const char *name, const char *what)
{
    return error_set(p->err, STATUS_BAD_MODEL, -1, "%s: tensor '%.100s': %s", p->path, name, what);
}

/* A JSON integer >= 0. Negative, fractional, quoted and (by jansson) > 2^63 - 1 ones are refused.
 */
static bool to_u64(const json_t *v, uint64_t *out)
{
    if (!json_is_integer(v) || json_integer_value(v) < 0) {
        return false;
    }
    *out = (uint64_t)json_integer_value(v);
    return true;
}

static enum status read_dtype(const struct parser *p, const json_t *v, struct safetensors_tensor *t)
{
    if (!json_is_string(v)) {
        return bad(p, t->name, "dtype is missing or not a string");
    }
    for (uint32_t i = 0; i < SAFETENSORS_DTYPE_COUNT; i++) {
        if (strcmp(dtypes[i].name, json_string_value(v)) == 0) {
            t->dtype = (enum safetensors_dtype)i;
            return STATUS_OK;
        }
    }
    return error_set(p->err, STATUS_BAD_MODEL, -1,
                     "%s: tensor '%.100s' has the unknown dtype '%.40s'", p->path, t->name,
                     json_string_value(v));
}

/* Shape, and from it the size: product and bits checked for overflow (ValidationOverflow), sub-byte
 * types a whole number of bytes (MisalignedSlice). */
static enum status read_shape(const struct parser *p, const json_t *v, struct safetensors_tensor *t,
                              uint64_t *bytes)
{
    if (!json_is_array(v) || json_array_size(v) > SAFETENSORS_MAX_RANK) {
        return bad(p, t->name, "shape is missing, no array, or of rank above 8");
    }
    t->rank = (uint32_t)json_array_size(v);
    uint64_t elements = 1;
    for (uint32_t i = 0; i < t->rank; i++) {
        if (!to_u64(json_array_get(v, i), &t->shape[i])) {
            return bad(p, t->name, "shape holds something other than integers >= 0");
        }
        if (__builtin_mul_overflow(elements, t->shape[i], &elements)) {
            return bad(p, t->name, "the product of its shape overflows");
        }
    }
    uint64_t bits;
    if (__builtin_mul_overflow(elements, dtypes[t->dtype].bits, &bits)) {
        return bad(p, t->name, "its size overflows");
    }
    if (bits % 8 != 0) {
        return bad(p, t->name, "its size is not a whole number of bytes");
    }
    *bytes = bits / 8;
    return STATUS_OK;
}

static enum status read_offsets(const struct parser *p, const json_t *v,
                                struct safetensors_tensor *t, uint64_t bytes)
{
    uint64_t begin;
    uint64_t end;
    if (!json_is_array(v) || json_array_size(v) != 2 || !to_u64(json_array_get(v, 0), &begin) ||
        !to_u64(json_array_get(v, 1), &end)) {
        return bad(p, t->name, "data_offsets is missing or not two integers >= 0");
    }
    if (end < begin || end - begin != bytes) {
        return error_set(p->err, STATUS_BAD_MODEL, -1,
                         "%s: tensor '%.100s': data_offsets [%llu, %llu], but dtype and shape need "
                         "%llu bytes",
                         p->path, t->name, (unsigned long long)begin, (unsigned long long)end,
                         (unsigned long long)bytes);
    }
    t->offset = begin;
    t->bytes = bytes;
    return STATUS_OK;
}

static enum status read_tensor(const struct parser *p, const char *name, const json_t *v,
                               struct safetensors_tensor *t)
{
    t->name = name;
    if (strlen(name) > MAX_NAME_BYTES) {
        return bad(p, name, "its name is longer than 1024 bytes");
    }
    if (!json_is_object(v) || json_object_size(v) != 3) {
        return bad(p, name, "the entry is not exactly {dtype, shape, data_offsets}");
    }
    uint64_t bytes = 0;
    enum status s = read_dtype(p, json_object_get(v, "dtype"), t);
    s = s == STATUS_OK ? read_shape(p, json_object_get(v, "shape"), t, &bytes) : s;
    return s == STATUS_OK ? read_offsets(p, json_object_get(v, "data_offsets"), t, bytes) : s;
}

static enum status check_metadata(const struct parser *p, const json_t *metadata)
{
    bool good = json_is_object(metadata);
    for (void *i = json_object_iter((json_t *)metadata); good && i != NULL;
         i = json_object_iter_next((json_t *)metadata, i)) {
        good = json_is_string(json_object_iter_value(i));
    }
    return good ? STATUS_OK
                : error_set(p->err, STATUS_BAD_MODEL, -1,
                            "%s: key '__metadata__' is not a map of strings to strings", p->path);
}

/* ---- the directory ---- */

static int by_offset(const void *a, const void *b)
{
    const struct safetensors_tensor *x = a;
    const struct safetensors_tensor *y = b;
    if (x->offset != y->offset) {
        return x->offset < y->offset ? -1 : 1;
    }
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

/* No hole, no overlap, and the last tensor ends with the file: so no bytes are read twice (many
 * tensors on the same bytes multiply memory) and no other file hides behind the data. */
static enum status check_layout(const struct parser *p, struct safetensors *st)
{
    qsort(st->tensors, (size_t)st->count, sizeof *st->tensors, by_offset);
    uint64_t end = 0;
    for (uint64_t i = 0; i < st->count; i++) {
        struct safetensors_tensor *t = &st->tensors[i];
        if (t->offset != end) {
            return error_set(p->err, STATUS_BAD_MODEL, -1,
                             "%s: tensor '%.100s' begins at data offset %llu; the one before it "
                             "ends at %llu (%s)",
                             p->path, t->name, (unsigned long long)t->offset,
                             (unsigned long long)end, t->offset < end ? "overlap" : "hole");
        }
        /* Below 2^63 + 2^63: offset and bytes come from integers < 2^63. */
        end = t->offset + t->bytes;
    }
    if (end != st->file_bytes - p->data) {
        return error_set(
            p->err, STATUS_BAD_MODEL, (int64_t)p->data,
            "%s: the tensors take %llu bytes, the file holds %llu after the header; it "
            "is truncated or has a tail",
            p->path, (unsigned long long)end, (unsigned long long)(st->file_bytes - p->data));
    }
    for (uint64_t i = 0; i < st->count; i++) {
        st->tensors[i].offset += p->data;
    }
    return STATUS_OK;
}

static enum status read_directory(const struct parser *p, struct safetensors *st)
{
    size_t keys = json_object_size(st->header);
    if (keys > MAX_TENSORS) {
        return error_set(p->err, STATUS_BAD_MODEL, -1, "%s: %zu tensors; the limit is %zu", p->path,
                         keys, MAX_TENSORS);
    }
    /* One more than needed: an empty header is legal. */
    st->tensors = mem_alloc(keys + 1, sizeof *st->tensors);
    if (st->tensors == NULL) {
        return error_set(p->err, STATUS_NO_MEMORY, -1, "%s: no memory for %zu tensors", p->path,
                         keys);
    }
    for (void *i = json_object_iter(st->header); i != NULL;
         i = json_object_iter_next(st->header, i)) {
        const char *name = json_object_iter_key(i);
        const json_t *value = json_object_iter_value(i);
        enum status s;
        if (strcmp(name, "__metadata__") == 0) {
            s = check_metadata(p, value);
        } else {
            s = read_tensor(p, name, value, &st->tensors[st->count]);
            st->count++;
        }
        if (s != STATUS_OK) {
            return s;
        }
    }
    return check_layout(p, st);
}

/* ---- the header's bytes ---- */

static enum status check_prefix(const uint8_t prefix[PREFIX_BYTES], uint64_t file_bytes,
                                const char *path, uint64_t *n, struct error *err)
{
    memcpy(n, prefix, sizeof *n);
    if (*n > MAX_HEADER_BYTES) {
        return error_set(err, STATUS_BAD_MODEL, 0,
                         "%s: at byte 0: the header length is %llu; the limit is %llu. Not a "
                         "safetensors file?",
                         path, (unsigned long long)*n, (unsigned long long)MAX_HEADER_BYTES);
    }
    if (*n > file_bytes - PREFIX_BYTES) {
        return error_set(err, STATUS_BAD_MODEL, 0,
                         "%s: at byte 0: the header of %llu bytes ends beyond the file of %llu",
                         path, (unsigned long long)*n, (unsigned long long)file_bytes);
    }
    return STATUS_OK;
}

static enum status too_small(const char *path, uint64_t file_bytes, struct error *err)
{
    return error_set(err, STATUS_BAD_MODEL, 0,
                     "%s: %llu bytes; a safetensors file begins with a length of 8 bytes", path,
                     (unsigned long long)file_bytes);
}

static enum status parse_header(const char *text, size_t n, uint64_t file_bytes, const char *path,
                                struct safetensors **out, struct error *err)
{
    static const struct json_limits limits = {.max_depth = MAX_DEPTH, .max_values = MAX_VALUES};
    struct parser p = {.path = path, .data = PREFIX_BYTES + n, .err = err};
    struct safetensors *st = mem_alloc(1, sizeof *st);
    if (st == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "%s: no memory", path);
    }
    st->file_bytes = file_bytes;
    enum status s = json_text_parse(text, n, &limits, path, PREFIX_BYTES, &st->header, err);
    s = s == STATUS_OK ? read_directory(&p, st) : s;
    if (s != STATUS_OK) {
        safetensors_close(st);
        return s;
    }
    *out = st;
    return STATUS_OK;
}

enum status safetensors_parse(const void *data, size_t len, uint64_t file_bytes, const char *path,
                              struct safetensors **out, struct error *err)
{
    if (file_bytes < PREFIX_BYTES || len < PREFIX_BYTES) {
        return too_small(path, file_bytes, err);
    }
    uint64_t n;
    enum status s = check_prefix(data, file_bytes, path, &n, err);
    if (s == STATUS_OK && n > len - PREFIX_BYTES) {
        return error_set(err, STATUS_BAD_MODEL, 0, "%s: the header lies beyond the bytes at hand",
                         path);
    }
    if (s != STATUS_OK) {
        return s;
    }
    return parse_header((const char *)data + PREFIX_BYTES, (size_t)n, file_bytes, path, out, err);
}

static enum status read_header(int fd, const char *path, uint64_t file_bytes,
                               struct safetensors **out, struct error *err)
{
    uint8_t prefix[PREFIX_BYTES];
    if (file_bytes < PREFIX_BYTES) {
        return too_small(path, file_bytes, err);
    }
    uint64_t n = 0;
    enum status s = fs_pread_exact(fd, path, prefix, sizeof prefix, 0, err);
    s = s == STATUS_OK ? check_prefix(prefix, file_bytes, path, &n, err) : s;
    if (s != STATUS_OK) {
        return s;
    }
    char *text = mem_alloc((size_t)n + 1, 1);
    if (text == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "%s: no memory for a header of %llu bytes",
                         path, (unsigned long long)n);
    }
    s = fs_pread_exact(fd, path, text, (size_t)n, PREFIX_BYTES, err);
    s = s == STATUS_OK ? parse_header(text, (size_t)n, file_bytes, path, out, err) : s;
    mem_free(text);
    return s;
}

enum status safetensors_open(const char *path, struct safetensors **out, struct error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return error_set(err, errno == ENOENT ? STATUS_NOT_FOUND : STATUS_IO, -1, "%s: %s", path,
                         strerror(errno));
    }
    struct stat st;
    enum status s;
    if (fstat(fd, &st) != 0) {
        s = error_set(err, STATUS_IO, -1, "%s: %s", path, strerror(errno));
    } else if (!S_ISREG(st.st_mode)) {
        s = error_set(err, STATUS_BAD_MODEL, -1, "%s: not a regular file", path);
    } else {
        s = read_header(fd, path, (uint64_t)st.st_size, out, err);
    }
    close(fd);
    return s;
}

void safetensors_close(struct safetensors *s)
{
    if (s == NULL) {
        return;
    }
    json_decref(s->header);
    mem_free(s->tensors);
    mem_free(s);
}

uint64_t safetensors_file_bytes(const struct safetensors *s)
{
    return s->file_bytes;
}

uint64_t safetensors_count(const struct safetensors *s)
{
    return s->count;
}

const struct safetensors_tensor *safetensors_at(const struct safetensors *s, uint64_t i)
{
    assert(i < s->count);
    return &s->tensors[i];
}
