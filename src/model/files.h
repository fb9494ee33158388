/*
 * files.h - which weight file(s) a path stands for.
 *
 * A folder: model.safetensors, else model.safetensors.index.json, else its only *.safetensors, else
 * its only *.gguf. A path that ends in .gguf is that file.
 */
#ifndef LLMSCHED_MODEL_FILES_H
#define LLMSCHED_MODEL_FILES_H

#include "base/status.h"

enum model_format {
    MODEL_FORMAT_NONE, /* a folder (or a .json file) without weights */
    MODEL_FORMAT_GGUF,
    MODEL_FORMAT_SAFETENSORS,
    MODEL_FORMAT_SHARDS
};

struct model_files {
    enum model_format format;
    char *file; /* the weight file, the index, or (NONE) the path as given; owner: the struct */
};

/* Errors: NOT_FOUND, BAD_MODEL (more than one candidate; the message says what to give). */
enum status model_files_find(const char *path, struct model_files *out, struct error *err) MUST_USE;
void model_files_deinit(struct model_files *f);

#endif
