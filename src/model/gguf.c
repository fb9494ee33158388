/*
 * gguf.c - see gguf.h.
 *
 * One pass over the header: magic, version, counts, keys, tensor directory. `struct reader` is the
 * only thing that touches bytes; it refuses any read beyond the declared end of the file, so a
 * length is always compared with what remains before memory is taken for it. The rules are those
 * that ggml-org/llama.cpp (ggml/src/gguf.cpp) arrived at, each after a bug; the bug stands beside
 * the check.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "model/gguf_int.h"

/* Limits, far above any real file; each bounds what a hostile one can make us do. */
#define MAX_HEADER_BYTES  ((uint64_t)1 << 30) /* memory; the largest real headers are ~20 MB */
#define MAX_KEYS          ((uint64_t)65536)   /* real files: below 100 */
#define MAX_TENSORS       ((uint64_t)1000000) /* as for safetensors */
#define MAX_KEY_BYTES     ((uint64_t)1 << 20)
#define MAX_STRING_BYTES  ((uint64_t)64 << 20) /* the largest real strings are chat templates */
#define MAX_ARRAY_COUNT   ((uint64_t)1 << 24)  /* the largest real vocabularies have 2^18 entries */
#define MAX_ALIGNMENT     ((uint64_t)1 << 20)  /* 2^31 would wrap the padding of 32-bit code */
#define MAX_TENSOR_NAME   ((uint64_t)63)
#define MAX_RANK          4
#define DEFAULT_ALIGNMENT 32
#define MIN_KEY_ENTRY     14 /* length 8, one byte of name, type 4, one byte of value */
#define MIN_TENSOR_ENTRY  25 /* length 8, one byte of name, rank 4, type 4, offset 8 */
#define BUFFER_BYTES      ((size_t)256 * 1024)

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "values are copied as they stand");

/* From ggml's public type list; removed ids (4, 5, 31..33, 36..38) have no row. */
static const struct ggml_type types[] = {
    {0, "F32", 1, 4},         {1, "F16", 1, 2},         {2, "Q4_0", 32, 18},
    {3, "Q4_1", 32, 20},      {6, "Q5_0", 32, 22},      {7, "Q5_1", 32, 24},
    {8, "Q8_0", 32, 34},      {9, "Q8_1", 32, 36},      {10, "Q2_K", 256, 84},
    {11, "Q3_K", 256, 110},   {12, "Q4_K", 256, 144},   {13, "Q5_K", 256, 176},
    {14, "Q6_K", 256, 210},   {15, "Q8_K", 256, 292},   {16, "IQ2_XXS", 256, 66},
    {17, "IQ2_XS", 256, 74},  {18, "IQ3_XXS", 256, 98}, {19, "IQ1_S", 256, 50},
    {20, "IQ4_NL", 32, 18},   {21, "IQ3_S", 256, 110},  {22, "IQ2_S", 256, 82},
    {23, "IQ4_XS", 256, 136}, {24, "I8", 1, 1},         {25, "I16", 1, 2},
    {26, "I32", 1, 4},        {27, "I64", 1, 8},        {28, "F64", 1, 8},
    {29, "IQ1_M", 256, 56},   {30, "BF16", 1, 2},       {34, "TQ1_0", 256, 54},
    {35, "TQ2_0", 256, 66},   {39, "MXFP4", 32, 17},
};

const struct ggml_type *ggml_type_of(uint32_t id)
{
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (types[i].id == id) {
            return &types[i];
        }
    }
    return NULL;
}

/* Bytes of the file from memory (data != NULL) or by pread through a buffer. */
struct reader {
    const char *path;
    const uint8_t *data;
    uint64_t data_len;
    int fd;
    uint64_t file_bytes;
    uint64_t pos;
    uint8_t *buffer;
    uint64_t buffer_begin;
    size_t buffer_len;
    const char *key; /* whose value is being read, for messages; or NULL */
    struct error *err;
};

static enum status bad(const struct reader *r, uint64_t at, const char *fmt, ...) PRINTF_LIKE(3, 4);

static enum status bad(const struct reader *r, uint64_t at, const char *fmt, ...)
{
    char text[256];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    bool in_key = r->key != NULL;
    return error_set(r->err, STATUS_BAD_MODEL, (int64_t)at, "%s: at byte %llu: %s%.80s%s%s",
                     r->path, (unsigned long long)at, in_key ? "key '" : "", in_key ? r->key : "",
                     in_key ? "': " : "", n < 0 ? "bad GGUF" : text);
}

static enum status no_memory(const struct reader *r)
{
    return error_set(r->err, STATUS_NO_MEMORY, (int64_t)r->pos, "%s: no memory for the header",
                     r->path);
}

static uint64_t remaining(const struct reader *r)
{
    return r->file_bytes - r->pos;
}

/* Large pieces go straight to their place, small ones through the buffer. */
static enum status read_file(struct reader *r, uint8_t *out, size_t n)
{
    if (n >= BUFFER_BYTES) {
        return fs_pread_exact(r->fd, r->path, out, n, r->pos, r->err);
    }
    uint64_t begin = r->buffer_begin;
    if (r->pos < begin || r->pos + n > begin + r->buffer_len) {
        uint64_t left = r->file_bytes - r->pos;
        size_t want = left < BUFFER_BYTES ? (size_t)left : BUFFER_BYTES;
        r->buffer_len = 0;
        enum status s = fs_pread_exact(r->fd, r->path, r->buffer, want, r->pos, r->err);
        if (s != STATUS_OK) {
            return s;
        }
        r->buffer_begin = r->pos;
        r->buffer_len = want;
    }
    memcpy(out, r->buffer + (r->pos - r->buffer_begin), n);
    return STATUS_OK;
}

/* The next n bytes; what names them in the message. */
static enum status take(struct reader *r, void *out, uint64_t n, const char *what)
{
    if (n > remaining(r)) {
        return bad(r, r->pos, "%s needs %llu bytes, the file has %llu left", what,
                   (unsigned long long)n, (unsigned long long)remaining(r));
    }
    if (r->pos + n > MAX_HEADER_BYTES) {
        return bad(r, r->pos, "the header is larger than %llu bytes",
                   (unsigned long long)MAX_HEADER_BYTES);
    }
    if (n == 0) {
        return STATUS_OK;
    }
    if (r->data != NULL) {
        if (n > r->data_len - r->pos) {
            return bad(r, r->pos, "%s lies beyond the %llu bytes at hand", what,
                       (unsigned long long)r->data_len);
        }
        memcpy(out, r->data + r->pos, (size_t)n);
    } else {
        enum status s = read_file(r, out, (size_t)n);
        if (s != STATUS_OK) {
            return s;
        }
    }
    r->pos += n;
    return STATUS_OK;
}

static enum status take_u32(struct reader *r, uint32_t *out, const char *what)
{
    return take(r, out, sizeof *out, what);
}

static enum status take_u64(struct reader *r, uint64_t *out, const char *what)
{
    return take(r, out, sizeof *out, what);
}

/* A length-prefixed string of at most max bytes into the arena, NUL-terminated. The length is
 * compared with what remains before memory is taken (CVE-2024-23496: length + 1 wrapped). */
static enum status take_string(struct reader *r, struct arena *a, uint64_t max, const char *what,
                               struct gguf_string *out)
{
    uint64_t at = r->pos;
    uint64_t len = 0;
    enum status s = take_u64(r, &len, what);
    if (s != STATUS_OK) {
        return s;
    }
    if (len > max || len > remaining(r)) {
        return bad(r, at, "%s has length %llu; the limit is %llu and %llu bytes remain", what,
                   (unsigned long long)len, (unsigned long long)max,
                   (unsigned long long)remaining(r));
    }
    if (len == 0) {
        *out = (struct gguf_string){.text = "", .len = 0};
        return STATUS_OK;
    }
    char *text = arena_alloc(a, (size_t)len + 1, 1);
    if (text == NULL) {
        return no_memory(r);
    }
    s = take(r, text, len, what);
    if (s == STATUS_OK) {
        *out = (struct gguf_string){.text = text, .len = (size_t)len};
    }
    return s;
}

static enum status check_bools(const struct reader *r, const uint8_t *bytes, uint64_t n,
                               uint64_t at)
{
    for (uint64_t i = 0; i < n; i++) {
        if (bytes[i] > 1) {
            return bad(r, at + i, "a bool is 0 or 1, not %u", bytes[i]);
        }
    }
    return STATUS_OK;
}

static enum status take_strings(struct reader *r, struct arena *a, struct gguf_value *v)
{
    struct gguf_string *strings = arena_alloc(a, (size_t)v->count, sizeof *strings);
    if (strings == NULL) {
        return no_memory(r);
    }
    for (uint64_t i = 0; i < v->count; i++) {
        enum status s = take_string(r, a, MAX_STRING_BYTES, "a string of an array", &strings[i]);
        if (s != STATUS_OK) {
            return s;
        }
    }
    v->data = strings;
    return STATUS_OK;
}

/* A count is compared with what remains before anything is allocated or looped over
 * (CVE-2024-21825; a 43-byte file with count 2^63 hung a reader). */
static enum status take_array(struct reader *r, struct arena *a, struct gguf_value *v)
{
    uint64_t at = r->pos;
    uint32_t element = 0;
    enum status s = take_u32(r, &element, "an array's element type");
    if (s == STATUS_OK) {
        s = take_u64(r, &v->count, "an array's count");
    }
    if (s != STATUS_OK) {
        return s;
    }
    if (element >= GGUF_TYPE_COUNT) {
        return bad(r, at, "unknown element type %u of an array", element);
    }
    if (element == GGUF_ARRAY) {
        return bad(r, at, "an array of arrays is not allowed");
    }
    v->element = (enum gguf_type)element;
    /* The shortest string is its 8-byte length. */
    uint64_t size = element == GGUF_STRING ? 8 : gguf_scalar_bytes[element];
    if (v->count > MAX_ARRAY_COUNT || v->count > remaining(r) / size) {
        return bad(r, at, "an array of %llu elements; the limit is %llu and %llu bytes remain",
                   (unsigned long long)v->count, (unsigned long long)MAX_ARRAY_COUNT,
                   (unsigned long long)remaining(r));
    }
    if (v->count == 0) {
        v->data = "";
        return STATUS_OK;
    }
    if (element == GGUF_STRING) {
        return take_strings(r, a, v);
    }
    uint8_t *bytes = arena_alloc(a, (size_t)v->count, (size_t)size);
    if (bytes == NULL) {
        return no_memory(r);
    }
    at = r->pos;
    s = take(r, bytes, v->count * size, "an array");
    if (s == STATUS_OK && element == GGUF_BOOL) {
        s = check_bools(r, bytes, v->count, at);
    }
    v->data = bytes;
    return s;
}

static enum status take_key(struct reader *r, struct arena *a, struct gguf_key *k)
{
    uint64_t at = r->pos;
    struct gguf_string name = {.text = "", .len = 0};
    enum status s = take_string(r, a, MAX_KEY_BYTES, "a key", &name);
    if (s != STATUS_OK) {
        return s;
    }
    if (name.len == 0 || strlen(name.text) != name.len) {
        return bad(r, at, "a key is empty or holds a NUL byte");
    }
    k->name = name.text;
    uint64_t type_at = r->pos;
    uint32_t type = 0;
    s = take_u32(r, &type, "a value's type");
    if (s != STATUS_OK) {
        return s;
    }
    if (type >= GGUF_TYPE_COUNT) {
        return bad(r, type_at, "key '%.80s' has the unknown type %u", k->name, type);
    }
    k->value.type = (enum gguf_type)type;
    r->key = k->name;
    if (type == GGUF_STRING) {
        s = take_string(r, a, MAX_STRING_BYTES, "a string", &k->value.string);
    } else if (type == GGUF_ARRAY) {
        s = take_array(r, a, &k->value);
    } else {
        uint64_t value_at = r->pos;
        s = take(r, k->value.scalar, gguf_scalar_bytes[type], "a value");
        if (s == STATUS_OK && type == GGUF_BOOL) {
            s = check_bools(r, k->value.scalar, 1, value_at);
        }
    }
    r->key = NULL;
    return s;
}

/* Counts drive the allocations below: first against the format's limits, then against the bytes
 * that remain (CVE-2024-21836, CVE-2024-23605). */
static enum status take_counts(struct reader *r, struct gguf *g)
{
    uint64_t at = r->pos;
    enum status s = take_u64(r, &g->n_tensors, "the tensor count");
    if (s == STATUS_OK) {
        s = take_u64(r, &g->n_keys, "the key count");
    }
    if (s != STATUS_OK) {
        return s;
    }
    uint64_t left = remaining(r);
    if (g->n_tensors > MAX_TENSORS || g->n_tensors > left / MIN_TENSOR_ENTRY) {
        return bad(r, at, "%llu tensors declared; the limit is %llu and %llu bytes remain",
                   (unsigned long long)g->n_tensors, (unsigned long long)MAX_TENSORS,
                   (unsigned long long)left);
    }
    if (g->n_keys > MAX_KEYS || g->n_keys > left / MIN_KEY_ENTRY) {
        return bad(r, at + 8, "%llu keys declared; the limit is %llu and %llu bytes remain",
                   (unsigned long long)g->n_keys, (unsigned long long)MAX_KEYS,
                   (unsigned long long)left);
    }
    return STATUS_OK;
}

static enum status take_preamble(struct reader *r, struct gguf *g)
{
    char magic[4] = "";
    enum status s = take(r, magic, sizeof magic, "the magic");
    if (s != STATUS_OK) {
        return s;
    }
    if (memcmp(magic, "GGUF", 4) != 0) {
        return bad(r, 0, "not a GGUF file: it does not begin with \"GGUF\"");
    }
    s = take_u32(r, &g->version, "the version");
    if (s != STATUS_OK) {
        return s;
    }
    if (g->version != 0 && (g->version & 0xFFFF) == 0) {
        return bad(r, 4, "the file is big-endian; convert it to little-endian");
    }
    if (g->version < 2 || g->version > 3) {
        return bad(r, 4, "GGUF version %u; versions 2 and 3 are read", g->version);
    }
    return take_counts(r, g);
}

static enum status take_keys(struct reader *r, struct gguf *g)
{
    if (g->n_keys == 0) {
        return STATUS_OK;
    }
    g->keys = arena_alloc(&g->arena, (size_t)g->n_keys, sizeof *g->keys);
    g->key_names = arena_alloc(&g->arena, (size_t)g->n_keys, sizeof *g->key_names);
    if (g->keys == NULL || g->key_names == NULL) {
        return no_memory(r);
    }
    for (uint64_t i = 0; i < g->n_keys; i++) {
        enum status s = take_key(r, &g->arena, &g->keys[i]);
        if (s != STATUS_OK) {
            return s;
        }
        const char *name = g->keys[i].name;
        g->key_names[i] = (struct name_entry){.text = name, .len = strlen(name), .value = i};
    }
    const struct name_entry *twice;
    if (names_sort(g->key_names, (size_t)g->n_keys, &twice)) {
        return bad(r, r->pos, "key '%.80s' stands twice", twice->text);
    }
    return STATUS_OK;
}

/* u32, a power of two, at most 1 MiB: a wrong type aborted one reader, 2^31 wrapped another. */
static enum status alignment_of(const struct reader *r, const struct gguf *g, uint64_t *out)
{
    *out = DEFAULT_ALIGNMENT;
    const char *name = "general.alignment";
    const struct name_entry *e = names_find(g->key_names, (size_t)g->n_keys, name, strlen(name));
    if (e == NULL) {
        return STATUS_OK;
    }
    const struct gguf_value *v = &g->keys[e->value].value;
    if (v->type != GGUF_U32) {
        return bad(r, r->pos, "key '%s' is a %s, not a u32", name, gguf_type_names[v->type]);
    }
    uint32_t a;
    memcpy(&a, v->scalar, sizeof a);
    if (a == 0 || (a & (a - 1)) != 0 || a > MAX_ALIGNMENT) {
        return bad(r, r->pos, "key '%s' is %u; it must be a power of two up to %llu", name, a,
                   (unsigned long long)MAX_ALIGNMENT);
    }
    *out = a;
    return STATUS_OK;
}

/* Bytes of a tensor: block size by the type table (removed and negative ids have no row), dim 0 in
 * whole blocks, product checked (CVE-2024-21802 indexed by an unchecked rank). */
static enum status tensor_bytes(const struct reader *r, uint64_t at, struct gguf_tensor *t)
{
    const struct ggml_type *type = ggml_type_of(t->ggml_type);
    if (type == NULL) {
        return bad(r, at, "tensor '%s' has the unknown type %u", t->name, t->ggml_type);
    }
    uint64_t elements = 1;
    for (uint32_t i = 0; i < MAX_RANK; i++) {
        if (__builtin_mul_overflow(elements, t->dims[i], &elements) || elements > INT64_MAX) {
            return bad(r, at, "tensor '%s': the product of its dimensions overflows", t->name);
        }
    }
    if (t->dims[0] % type->block != 0) {
        return bad(r, at, "tensor '%s': rows of %llu elements are not whole blocks of %u (%s)",
                   t->name, (unsigned long long)t->dims[0], type->block, type->name);
    }
    if (__builtin_mul_overflow(elements / type->block, type->bytes, &t->bytes) ||
        t->bytes > INT64_MAX) {
        return bad(r, at, "tensor '%s': its size in bytes overflows", t->name);
    }
    return STATUS_OK;
}

static enum status take_tensor(struct reader *r, struct arena *a, struct gguf_tensor *t)
{
    uint64_t at = r->pos;
    struct gguf_string name = {.text = "", .len = 0};
    enum status s = take_string(r, a, MAX_TENSOR_NAME, "a tensor name", &name);
    if (s != STATUS_OK) {
        return s;
    }
    if (name.len == 0 || strlen(name.text) != name.len) {
        return bad(r, at, "a tensor name is empty or holds a NUL byte");
    }
    t->name = name.text;
    s = take_u32(r, &t->rank, "a tensor's rank");
    if (s != STATUS_OK) {
        return s;
    }
    if (t->rank > MAX_RANK) {
        return bad(r, at, "tensor '%s' has %u dimensions; the limit is %d", t->name, t->rank,
                   MAX_RANK);
    }
    for (uint32_t i = 0; i < MAX_RANK; i++) {
        t->dims[i] = 1;
        if (i < t->rank) {
            s = take_u64(r, &t->dims[i], "a tensor's dimension");
        }
        if (s != STATUS_OK) {
            return s;
        }
        if (t->dims[i] > INT64_MAX) {
            return bad(r, at, "tensor '%s' has a negative dimension", t->name);
        }
    }
    s = take_u32(r, &t->ggml_type, "a tensor's type");
    if (s == STATUS_OK) {
        s = take_u64(r, &t->offset, "a tensor's offset");
    }
    return s == STATUS_OK ? tensor_bytes(r, at, t) : s;
}

/* Offsets must equal the running padded total, and every end lies in the file (CVE-2025-53630 and
 * CVE-2026-27940: sums that wrapped; CVE-2026-7482: a size larger than the file). */
static enum status place_tensors(const struct reader *r, struct gguf *g, uint64_t alignment)
{
    uint64_t mask = alignment - 1;
    uint64_t data = (r->pos + mask) & ~mask; /* pos <= MAX_HEADER_BYTES */
    uint64_t running = 0;
    for (uint64_t i = 0; i < g->n_tensors; i++) {
        struct gguf_tensor *t = &g->tensors[i];
        if (t->offset != running) {
            return bad(r, r->pos, "tensor '%s' has offset %llu; the ones before it end at %llu",
                       t->name, (unsigned long long)t->offset, (unsigned long long)running);
        }
        uint64_t begin = data + running; /* no overflow: see below */
        uint64_t end;
        if (__builtin_add_overflow(begin, t->bytes, &end) || end > g->file_bytes) {
            return bad(r, r->pos, "tensor '%s' needs %llu bytes at byte %llu, the file has %llu",
                       t->name, (unsigned long long)t->bytes, (unsigned long long)begin,
                       (unsigned long long)g->file_bytes);
        }
        t->offset = begin;
        /* No overflow: running + bytes <= file size < 2^63, alignment <= 1 MiB. */
        running = (running + t->bytes + mask) & ~mask;
    }
    return STATUS_OK;
}

static enum status take_tensors(struct reader *r, struct gguf *g)
{
    if (g->n_tensors == 0) {
        return STATUS_OK;
    }
    g->tensors = arena_alloc(&g->arena, (size_t)g->n_tensors, sizeof *g->tensors);
    g->tensor_names = arena_alloc(&g->arena, (size_t)g->n_tensors, sizeof *g->tensor_names);
    if (g->tensors == NULL || g->tensor_names == NULL) {
        return no_memory(r);
    }
    for (uint64_t i = 0; i < g->n_tensors; i++) {
        enum status s = take_tensor(r, &g->arena, &g->tensors[i]);
        if (s != STATUS_OK) {
            return s;
        }
        const char *name = g->tensors[i].name;
        g->tensor_names[i] = (struct name_entry){.text = name, .len = strlen(name), .value = i};
    }
    const struct name_entry *twice;
    if (names_sort(g->tensor_names, (size_t)g->n_tensors, &twice)) {
        return bad(r, r->pos, "tensor '%s' stands twice", twice->text);
    }
    return STATUS_OK;
}

static enum status parse(struct reader *r, struct gguf **out)
{
    if (r->file_bytes > INT64_MAX) {
        return bad(r, 0, "the file size is not representable");
    }
    struct gguf *g = mem_alloc(1, sizeof *g);
    if (g == NULL) {
        return no_memory(r);
    }
    g->file_bytes = r->file_bytes;
    uint64_t alignment = DEFAULT_ALIGNMENT;
    enum status s = STATUS_OK;
    g->path = mem_strdup(r->path);
    if (g->path == NULL) {
        s = no_memory(r);
    }
    s = s == STATUS_OK ? take_preamble(r, g) : s;
    s = s == STATUS_OK ? take_keys(r, g) : s;
    s = s == STATUS_OK ? alignment_of(r, g, &alignment) : s;
    s = s == STATUS_OK ? take_tensors(r, g) : s;
    s = s == STATUS_OK ? place_tensors(r, g, alignment) : s;
    if (s != STATUS_OK) {
        gguf_close(g);
        return s;
    }
    *out = g;
    return STATUS_OK;
}

enum status gguf_parse(const void *data, size_t len, uint64_t file_bytes, const char *path,
                       struct gguf **out, struct error *err)
{
    struct reader r = {.path = path,
                       .data = len > 0 ? data : (const void *)"",
                       .data_len = len,
                       .fd = -1,
                       .file_bytes = file_bytes,
                       .err = err};
    return parse(&r, out);
}

enum status gguf_open(const char *path, struct gguf **out, struct error *err)
{
    struct reader r = {.path = path, .err = err};
    r.fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (r.fd < 0) {
        return error_set(err, errno == ENOENT ? STATUS_NOT_FOUND : STATUS_IO, -1, "%s: %s", path,
                         strerror(errno));
    }
    struct stat st;
    enum status s;
    if (fstat(r.fd, &st) != 0) {
        s = error_set(err, STATUS_IO, -1, "%s: %s", path, strerror(errno));
    } else if (!S_ISREG(st.st_mode)) {
        s = error_set(err, STATUS_BAD_MODEL, -1, "%s: not a regular file", path);
    } else {
        r.file_bytes = (uint64_t)st.st_size;
        r.buffer = mem_alloc(BUFFER_BYTES, 1);
        s = r.buffer == NULL ? no_memory(&r) : parse(&r, out);
    }
    mem_free(r.buffer);
    close(r.fd);
    return s;
}

void gguf_close(struct gguf *g)
{
    if (g == NULL) {
        return;
    }
    arena_deinit(&g->arena);
    mem_free(g->path);
    mem_free(g);
}

const char *gguf_path(const struct gguf *g)
{
    return g->path;
}

uint32_t gguf_version(const struct gguf *g)
{
    return g->version;
}

uint64_t gguf_file_bytes(const struct gguf *g)
{
    return g->file_bytes;
}

uint64_t gguf_tensor_count(const struct gguf *g)
{
    return g->n_tensors;
}

const struct gguf_tensor *gguf_tensor_at(const struct gguf *g, uint64_t i)
{
    assert(i < g->n_tensors);
    return &g->tensors[i];
}

const struct gguf_tensor *gguf_find_tensor(const struct gguf *g, const char *name)
{
    const struct name_entry *e =
        names_find(g->tensor_names, (size_t)g->n_tensors, name, strlen(name));
    return e == NULL ? NULL : &g->tensors[e->value];
}

uint64_t gguf_key_count(const struct gguf *g)
{
    return g->n_keys;
}

const char *gguf_key_at(const struct gguf *g, uint64_t i)
{
    assert(i < g->n_keys);
    return g->keys[i].name;
}
