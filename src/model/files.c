/* files.c - see files.h. */
#include "model/files.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"

static bool ends_with(const char *text, const char *suffix)
{
    size_t n = strlen(text);
    size_t m = strlen(suffix);
    return n > m && strcmp(text + n - m, suffix) == 0;
}

static enum status take(const char *folder, const char *name, enum model_format format,
                        struct model_files *out, struct error *err)
{
    char *file = fs_join(folder, name);
    if (file == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "%s: no memory for a path", folder);
    }
    out->format = format;
    out->file = file;
    return STATUS_OK;
}

/* How many files of the folder end in suffix, and the name of one of them (*name and *count come in
 * as NULL and 0; owner of *name: the caller). */
static enum status only_file(const char *folder, const char *suffix, char **name, uint32_t *count,
                             struct error *err)
{
    DIR *dir = opendir(folder);
    if (dir == NULL) {
        return error_set(err, STATUS_IO, -1, "%s: %s", folder, strerror(errno));
    }
    enum status s = STATUS_OK;
    for (const struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        if (e->d_name[0] == '.' || !ends_with(e->d_name, suffix)) {
            continue;
        }
        *count += 1;
        if (*name == NULL) {
            *name = mem_strdup(e->d_name);
            if (*name == NULL) {
                s = error_set(err, STATUS_NO_MEMORY, -1, "%s: no memory for a path", folder);
                break;
            }
        }
    }
    closedir(dir);
    return s;
}

static enum status find_only(const char *folder, const char *suffix, enum model_format format,
                             struct model_files *out, struct error *err)
{
    char *name = NULL;
    uint32_t count = 0;
    enum status s = only_file(folder, suffix, &name, &count, err);
    if (s == STATUS_OK && count > 1) {
        s = error_set(
            err, STATUS_BAD_MODEL, -1, "%s: %u files end in %s; %s", folder, count, suffix,
            format == MODEL_FORMAT_GGUF ? "give the path of one of them"
                                        : "shards need their model.safetensors.index.json");
    } else if (s == STATUS_OK && count == 1) {
        s = take(folder, name, format, out, err);
    }
    mem_free(name);
    return s;
}

static enum status find_in_folder(const char *folder, struct model_files *out, struct error *err)
{
    static const struct {
        const char *name;
        enum model_format format;
    } known[] = {{"model.safetensors", MODEL_FORMAT_SAFETENSORS},
                 {"model.safetensors.index.json", MODEL_FORMAT_SHARDS}};
    enum status s = STATUS_OK;
    for (size_t i = 0; i < 2 && s == STATUS_OK && out->file == NULL; i++) {
        s = take(folder, known[i].name, known[i].format, out, err);
        if (s == STATUS_OK && !fs_is_file(out->file)) {
            model_files_deinit(out);
        }
    }
    if (s == STATUS_OK && out->file == NULL) {
        s = find_only(folder, ".safetensors", MODEL_FORMAT_SAFETENSORS, out, err);
    }
    if (s == STATUS_OK && out->file == NULL) {
        s = find_only(folder, ".gguf", MODEL_FORMAT_GGUF, out, err);
    }
    if (s == STATUS_OK && out->file == NULL) {
        s = take(folder, "", MODEL_FORMAT_NONE, out, err);
    }
    return s;
}

enum status model_files_find(const char *path, struct model_files *out, struct error *err)
{
    struct model_files found = {.format = MODEL_FORMAT_NONE};
    enum status s = STATUS_OK;
    if (fs_is_dir(path)) {
        s = find_in_folder(path, &found, err);
    } else if (!fs_is_file(path)) {
        return error_set(err, STATUS_NOT_FOUND, -1, "%s: no such file or folder", path);
    } else if (ends_with(path, ".gguf") || ends_with(path, ".json")) {
        found.format = ends_with(path, ".gguf") ? MODEL_FORMAT_GGUF : MODEL_FORMAT_NONE;
        found.file = mem_strdup(path);
        if (found.file == NULL) {
            s = error_set(err, STATUS_NO_MEMORY, -1, "%s: no memory for a path", path);
        }
    } else {
        return error_set(err, STATUS_UNSUPPORTED, -1,
                         "%s: a model is a folder with config.json and *.safetensors, or a .gguf "
                         "file",
                         path);
    }
    if (s != STATUS_OK) {
        model_files_deinit(&found);
        return s;
    }
    *out = found;
    return STATUS_OK;
}

void model_files_deinit(struct model_files *f)
{
    mem_free(f->file);
    *f = (struct model_files){.format = MODEL_FORMAT_NONE};
}
