/*
 * weights_safetensors.c - the tensor directory of one .safetensors file, or of shards with their
 * model.safetensors.index.json, for weights_bind.
 *
 * An index is input from outside: it may only name plain files of its own folder (or, in the layout
 * of the Hugging Face cache, links into its blobs), and each tensor stands in exactly one shard,
 * the one the index says.
 */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "model/dequant.h"
#include "model/jsontext.h"
#include "model/safetensors.h"
#include "model/weights_int.h"

#define MAX_SHARDS       512U /* file descriptors; the largest published models have 200 */
#define MAX_INDEX_BYTES  ((size_t)100000000) /* as for a safetensors header */
#define MAX_INDEX_VALUES 2000000U            /* one tensor is one value */
#define INDEX_DEPTH      8U

/* Everything that is held while a model is opened. */
struct shards {
    struct weights *w;
    struct safetensors **files; /* w->n_files of them are open */
    char **names;               /* file names as the index has them; NULL for a single file */
    uint32_t count;
    struct directory d;
    struct error *err;
};

static enum status no_memory(const struct shards *s, const char *path)
{
    return error_set(s->err, STATUS_NO_MEMORY, -1, "%s: no memory for the directory", path);
}

static bool weight_dtype_of(enum safetensors_dtype from, enum weight_dtype *to)
{
    switch (from) {
    case SAFETENSORS_F32:
        *to = DTYPE_F32;
        return true;
    case SAFETENSORS_F16:
        *to = DTYPE_F16;
        return true;
    case SAFETENSORS_BF16:
        *to = DTYPE_BF16;
        return true;
    default:
        return false;
    }
}

static void convert(const struct safetensors_tensor *from, uint32_t file, struct stored *to)
{
    *to = (struct stored){
        .name = from->name,
        .type_name = safetensors_dtype_name(from->dtype),
        .rank = from->rank,
        .file = file,
        .offset = from->offset,
        .bytes = from->bytes,
        .dims = {from->shape[0], from->shape[1]},
    };
    to->readable = weight_dtype_of(from->dtype, &to->dtype);
}

static enum status open_one(struct shards *s, const char *path)
{
    uint32_t i = s->w->n_files;
    enum status status = safetensors_open(path, &s->files[i], s->err);
    if (status != STATUS_OK) {
        return status;
    }
    status = weights_open_file(s->w, i, path, safetensors_file_bytes(s->files[i]), s->err);
    if (status != STATUS_OK) {
        safetensors_close(s->files[i]);
        s->files[i] = NULL;
    }
    return status;
}

static enum status allocate(struct shards *s, const char *path)
{
    s->files = mem_alloc(s->count, sizeof(struct safetensors *));
    s->w->files = mem_alloc(s->count, sizeof *s->w->files);
    return s->files == NULL || s->w->files == NULL ? no_memory(s, path) : STATUS_OK;
}

static enum status collect(struct shards *s, const char *path)
{
    uint64_t total = 0;
    for (uint32_t f = 0; f < s->count; f++) {
        total += safetensors_count(s->files[f]);
    }
    if (total == 0) {
        return error_set(s->err, STATUS_BAD_MODEL, -1, "%s: the file holds no tensors", path);
    }
    s->d.tensors = mem_alloc((size_t)total, sizeof *s->d.tensors);
    s->d.names = mem_alloc((size_t)total, sizeof *s->d.names);
    if (s->d.tensors == NULL || s->d.names == NULL) {
        return no_memory(s, path);
    }
    for (uint32_t f = 0; f < s->count; f++) {
        for (uint64_t i = 0; i < safetensors_count(s->files[f]); i++) {
            convert(safetensors_at(s->files[f], i), f, &s->d.tensors[s->d.count++]);
        }
    }
    return STATUS_OK;
}

static enum status open_single(struct shards *s, const char *file)
{
    s->count = 1;
    enum status status = allocate(s, file);
    status = status == STATUS_OK ? open_one(s, file) : status;
    return status == STATUS_OK ? collect(s, file) : status;
}

/* ---- shards ---- */

static bool is_plain_name(const char *name)
{
    size_t n = strlen(name);
    static const char suffix[] = ".safetensors";
    size_t m = sizeof suffix - 1;
    return n > m && n <= NAME_MAX && name[0] != '.' && strchr(name, '/') == NULL &&
           strchr(name, '\\') == NULL && strcmp(name + n - m, suffix) == 0;
}

static bool is_below(const char *path, const char *folder)
{
    size_t n = strlen(folder);
    return strncmp(path, folder, n) == 0 && path[n] == '/';
}

/* Cuts the last component off; false at the root. */
static bool to_parent(char *path)
{
    char *slash = strrchr(path, '/');
    if (slash == NULL || slash == path) {
        return false;
    }
    *slash = '\0';
    return true;
}

/* The file, links resolved, lies in the folder - or the folder is .../snapshots/<commit> of the
 * Hugging Face cache and the file is in its .../blobs. */
static bool stays_inside(const char *folder, const char *file)
{
    char real_folder[PATH_MAX];
    char real_file[PATH_MAX];
    if (realpath(folder, real_folder) == NULL || realpath(file, real_file) == NULL) {
        return false;
    }
    if (is_below(real_file, real_folder)) {
        return true;
    }
    if (!to_parent(real_folder)) {
        return false;
    }
    const char *last = strrchr(real_folder, '/');
    if (last == NULL || strcmp(last, "/snapshots") != 0 || !to_parent(real_folder)) {
        return false;
    }
    size_t n = strlen(real_folder);
    return is_below(real_file, real_folder) && strncmp(real_file + n, "/blobs/", 7) == 0;
}

/* The distinct file names of the map, checked. */
static enum status list_shards(struct shards *s, const json_t *map, const char *index)
{
    s->names = mem_alloc(MAX_SHARDS, sizeof *s->names);
    if (s->names == NULL) {
        return no_memory(s, index);
    }
    for (void *i = json_object_iter((json_t *)map); i != NULL;
         i = json_object_iter_next((json_t *)map, i)) {
        const char *name = json_string_value(json_object_iter_value(i));
        if (name == NULL || !is_plain_name(name)) {
            return error_set(s->err, STATUS_BAD_MODEL, -1,
                             "%s: tensor '%.80s' names '%.80s', not a plain file name that ends in "
                             ".safetensors",
                             index, json_object_iter_key(i), name == NULL ? "(no string)" : name);
        }
        uint32_t k = 0;
        while (k < s->count && strcmp(s->names[k], name) != 0) {
            k++;
        }
        if (k < s->count) {
            continue;
        }
        if (s->count == MAX_SHARDS) {
            return error_set(s->err, STATUS_BAD_MODEL, -1, "%s: more than %u shards", index,
                             MAX_SHARDS);
        }
        s->names[s->count] = mem_strdup(name);
        if (s->names[s->count] == NULL) {
            return no_memory(s, index);
        }
        s->count++;
    }
    return s->count > 0
               ? STATUS_OK
               : error_set(s->err, STATUS_BAD_MODEL, -1, "%s: 'weight_map' is empty", index);
}

static enum status open_shard(struct shards *s, const char *folder, uint32_t i)
{
    char *path = fs_join(folder, s->names[i]);
    if (path == NULL) {
        return no_memory(s, folder);
    }
    enum status status;
    if (!fs_is_file(path)) {
        status = error_set(s->err, STATUS_NOT_FOUND, -1,
                           "%s: the index names this shard; it is "
                           "missing",
                           path);
    } else if (!stays_inside(folder, path)) {
        status = error_set(s->err, STATUS_BAD_MODEL, -1,
                           "%s: the shard is a link out of the model's folder", path);
    } else {
        status = open_one(s, path);
    }
    mem_free(path);
    return status;
}

/* Every tensor of a shard is mapped to that shard; as the map's keys are unique, equal numbers then
 * mean that every key was found, once. */
static enum status check_map(const struct shards *s, const json_t *map, const char *index)
{
    for (uint64_t i = 0; i < s->d.count; i++) {
        const struct stored *t = &s->d.tensors[i];
        const char *mapped = json_string_value(json_object_get(map, t->name));
        if (mapped == NULL || strcmp(mapped, s->names[t->file]) != 0) {
            return error_set(s->err, STATUS_BAD_MODEL, -1,
                             "%s: tensor '%.100s' stands in %.100s; the index says %.100s", index,
                             t->name, s->names[t->file], mapped == NULL ? "nothing" : mapped);
        }
    }
    if (s->d.count != json_object_size(map)) {
        return error_set(s->err, STATUS_BAD_MODEL, -1,
                         "%s: 'weight_map' has %zu tensors, the shards hold %llu", index,
                         json_object_size(map), (unsigned long long)s->d.count);
    }
    return STATUS_OK;
}

static enum status open_mapped(struct shards *s, const json_t *root, const char *index)
{
    const json_t *map = json_object_get(root, "weight_map");
    if (!json_is_object(map)) {
        return error_set(s->err, STATUS_BAD_MODEL, -1, "%s: key 'weight_map' is not an object",
                         index);
    }
    enum status status = list_shards(s, map, index);
    status = status == STATUS_OK ? allocate(s, index) : status;
    if (status != STATUS_OK) {
        return status;
    }
    char *folder = mem_strdup(index);
    if (folder == NULL) {
        return no_memory(s, index);
    }
    char *slash = strrchr(folder, '/');
    if (slash != NULL) {
        slash[1] = '\0';
    }
    for (uint32_t i = 0; i < s->count && status == STATUS_OK; i++) {
        status = open_shard(s, slash != NULL ? folder : ".", i);
    }
    mem_free(folder);
    status = status == STATUS_OK ? collect(s, index) : status;
    return status == STATUS_OK ? check_map(s, map, index) : status;
}

static enum status open_index(struct shards *s, const char *index)
{
    static const struct json_limits limits = {
        .max_depth = INDEX_DEPTH, .max_values = MAX_INDEX_VALUES, .integers_as_real = true};
    char *text = NULL;
    size_t len = 0;
    enum status status = fs_read_file(index, MAX_INDEX_BYTES, &text, &len, s->err);
    if (status != STATUS_OK) {
        return status;
    }
    json_t *root = NULL;
    status = json_text_parse(text, len, &limits, index, 0, &root, s->err);
    mem_free(text);
    if (status == STATUS_OK) {
        status = open_mapped(s, root, index);
        json_decref(root);
    }
    return status;
}

enum status weights_open_safetensors(struct weights *w, const char *file, bool sharded,
                                     struct error *err)
{
    struct shards s = {.w = w, .err = err};
    enum status status = sharded ? open_index(&s, file) : open_single(&s, file);
    if (status == STATUS_OK) {
        w->summary.format = "safetensors";
        status = weights_bind(w, &s.d, file, err);
    }
    for (uint32_t i = 0; s.files != NULL && i < s.count; i++) {
        safetensors_close(s.files[i]);
    }
    for (uint32_t i = 0; s.names != NULL && i < s.count; i++) {
        mem_free(s.names[i]);
    }
    mem_free(s.names);
    mem_free(s.files);
    mem_free(s.d.tensors);
    mem_free(s.d.names);
    return status;
}
