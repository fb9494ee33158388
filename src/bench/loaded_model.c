/* loaded_model.c - see loaded_model.h. */
#include "bench/loaded_model.h"

#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/monotime.h"
#include "model/weights.h"
#include "tensor/tensor.h"

/* Built-in shapes need no files; a folder of that name wins, so that its tokenizer is used. */
static enum status locate(const struct model_options *o, struct model_parts *f, struct error *err)
{
    struct error why = ERROR_INIT;
    enum status found = hub_locate(o->model, o->env, &f->path, &why);
    if (found == STATUS_OK) {
        return config_open(f->path, &f->config, err);
    }
    if (o->random_weights) {
        enum status s = config_builtin(o->model, &f->config, err);
        if (s == STATUS_OK || found != STATUS_NOT_FOUND) {
            return s;
        }
        error_prefix(err, "--random-weights");
        return s;
    }
    if (err != NULL) {
        *err = why;
    }
    return found;
}

enum status model_parts_open(const struct model_options *o, bool tokenizer_optional,
                             struct model_parts *out, struct error *err)
{
    struct model_parts f = {0};
    enum status s = locate(o, &f, err);
    if (s == STATUS_OK && f.path != NULL) {
        s = tokenizer_open(f.path, f.config.n_vocab, &f.tokenizer, err);
        if (s == STATUS_NOT_FOUND && (o->random_weights || tokenizer_optional)) {
            s = STATUS_OK;
        }
    }
    if (s == STATUS_OK && f.tokenizer == NULL && o->random_weights) {
        s = tokenizer_bytes(f.config.n_vocab, &f.tokenizer, err);
    }
    if (s != STATUS_OK) {
        model_parts_close(&f);
        return s;
    }
    *out = f;
    return STATUS_OK;
}

void model_parts_close(struct model_parts *f)
{
    tokenizer_close(f->tokenizer);
    mem_free(f->path);
    memset(f, 0, sizeof *f);
}

static enum status executor_options(const struct model_options *o, const struct model_parts *f,
                                    struct exec_model_options *out, struct error *err)
{
    const struct tensor_ops *ops;
    enum status s = tensor_select(o->isa, &ops, err);
    if (s == STATUS_OK) {
        *out = (struct exec_model_options){
            .config = &f->config,
            .ops = ops,
            .dtype = o->dtype,
            .kv_dtype = o->kv_dtype,
            .n_threads = o->threads,
            .kv_blocks = o->kv_blocks,
            .max_model_len = o->max_model_len,
            .max_rows = o->max_rows,
            .progress = o->progress,
        };
    }
    return s;
}

enum status model_memory(const struct model_options *o, const struct model_parts *f,
                         struct exec_model_memory *out, struct error *err)
{
    struct exec_model_options eo;
    enum status s = executor_options(o, f, &eo, err);
    return s == STATUS_OK ? exec_model_estimate(&eo, out, err) : s;
}

enum status model_load(const struct model_options *o, struct model_parts *files,
                       struct loaded_model *out, struct error *err)
{
    struct loaded_model m = {0};
    struct weights *weights = NULL;
    struct exec_model_options eo;
    uint64_t begin = monotime_now_ns();
    enum status s = executor_options(o, files, &eo, err);
    if (s == STATUS_OK) {
        s = o->random_weights ? weights_random(&files->config, o->weights_seed, &weights, err)
                              : weights_open(files->path, &files->config, &weights, err);
    }
    if (s != STATUS_OK) {
        return s;
    }
    struct weights_summary summary;
    weights_summarise(weights, &summary);
    snprintf(m.format, sizeof m.format, "%s", summary.format);
    eo.weights = weights;
    s = exec_model_create(&eo, &m.exec, err);
    weights_close(weights);
    if (s != STATUS_OK) {
        return s;
    }
    m.name = mem_strdup(o->model);
    m.tokenizer_text =
        mem_strdup(files->tokenizer != NULL ? tokenizer_describe(files->tokenizer) : "none");
    if (m.name == NULL || m.tokenizer_text == NULL) {
        loaded_model_close(&m);
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for the model's name");
    }
    m.load_ns = monotime_now_ns() - begin;
    m.files = *files;
    memset(files, 0, sizeof *files);
    *out = m;
    return STATUS_OK;
}

void loaded_model_close(struct loaded_model *m)
{
    exec_model_destroy(m->exec);
    model_parts_close(&m->files);
    mem_free(m->name);
    mem_free(m->tokenizer_text);
    memset(m, 0, sizeof *m);
}
