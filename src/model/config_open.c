/* config_open.c - from a path to a config: which file to read. */
#include "model/config.h"

#include "model/files.h"
#include "model/gguf.h"

enum status config_open(const char *path, struct model_config *out, struct error *err)
{
    struct model_files files;
    enum status s = model_files_find(path, &files, err);
    if (s != STATUS_OK) {
        return s;
    }
    if (files.format == MODEL_FORMAT_GGUF) {
        struct gguf *g = NULL;
        s = gguf_open(files.file, &g, err);
        if (s == STATUS_OK) {
            s = config_from_gguf(g, out, err);
            gguf_close(g);
        }
    } else {
        s = error_set(err, STATUS_UNSUPPORTED, -1, "%s: config.json is not read yet", path);
    }
    model_files_deinit(&files);
    return s;
}
