/* config_open.c - from a path to a config: which files to read. */
#include "base/fs.h"
#include "base/mem.h"
#include "model/config_int.h"
#include "model/files.h"
#include "model/gguf.h"

#define MAX_CONFIG_BYTES ((size_t)16 << 20) /* real files: a few KB; with label maps below 2 MB */

static enum status open_gguf(const char *file, struct model_config *out, struct error *err)
{
    struct gguf *g = NULL;
    enum status s = gguf_open(file, &g, err);
    if (s == STATUS_OK) {
        s = config_from_gguf(g, out, err);
        gguf_close(g);
    }
    return s;
}

static enum status read_config(const char *file, struct model_config *out, struct error *err)
{
    char *text = NULL;
    size_t len = 0;
    enum status s = fs_read_file(file, MAX_CONFIG_BYTES, &text, &len, err);
    if (s == STATUS_OK) {
        s = config_from_json(text, len, file, out, err);
        mem_free(text);
    }
    return s;
}

/* generation_config.json often lists more ends of sequence than config.json (chat models). */
static enum status read_generation(const char *folder, struct model_config *m, struct error *err)
{
    char *file = fs_join(folder, "generation_config.json");
    if (file == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "%s: no memory for a path", folder);
    }
    enum status s = STATUS_OK;
    if (fs_is_file(file)) {
        char *text = NULL;
        size_t len = 0;
        s = fs_read_file(file, MAX_CONFIG_BYTES, &text, &len, err);
        s = s == STATUS_OK ? config_extend_eos(text, len, file, m, err) : s;
        mem_free(text);
    }
    mem_free(file);
    return s;
}

static enum status open_folder(const char *folder, struct model_config *out, struct error *err)
{
    char *file = fs_join(folder, "config.json");
    if (file == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "%s: no memory for a path", folder);
    }
    struct model_config m = {0};
    enum status s;
    if (fs_is_file(file)) {
        s = read_config(file, &m, err);
        s = s == STATUS_OK ? read_generation(folder, &m, err) : s;
    } else {
        s = error_set(err, STATUS_NOT_FOUND, -1, "%s: no config.json and no .gguf file here",
                      folder);
    }
    mem_free(file);
    if (s == STATUS_OK) {
        *out = m;
    }
    return s;
}

enum status config_open(const char *path, struct model_config *out, struct error *err)
{
    struct model_files files;
    enum status s = model_files_find(path, &files, err);
    if (s != STATUS_OK) {
        return s;
    }
    if (files.format == MODEL_FORMAT_GGUF) {
        s = open_gguf(files.file, out, err);
    } else if (fs_is_dir(path)) {
        s = open_folder(path, out, err);
    } else {
        s = read_config(path, out, err);
    }
    model_files_deinit(&files);
    return s;
}
