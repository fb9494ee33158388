/*
 * fingerprint.c - which matrix is this? Everything that decides a run's figures, as one text:
 * settings, machine, build, prompts, and the model's files by name, size and time of change.
 */
#include <dirent.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/rng.h"
#include "bench/bench_int.h"
#include "bench/environment.h"
#include "tensor/pool.h"
#include "tensor/tensor.h"

static uint64_t hash_bytes(uint64_t h, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        h = rng_at(h, (uint64_t)(unsigned char)bytes[i]);
    }
    return rng_at(h, n);
}

static uint64_t hash_text(uint64_t h, const char *text)
{
    return hash_bytes(h, text, strlen(text));
}

static uint64_t hash_file(const char *path, const char *name)
{
    struct stat st;
    if (stat(path, &st) != 0) {
        return 0;
    }
    uint64_t h = hash_text((uint64_t)st.st_size, name);
    h = rng_at(h, (uint64_t)st.st_mtim.tv_sec);
    return rng_at(h, (uint64_t)st.st_mtim.tv_nsec);
}

/* A sum over the folder's files, so that their order in it says nothing. */
static uint64_t hash_model(const char *path)
{
    if (path == NULL || !fs_is_dir(path)) {
        return path == NULL ? 0 : hash_file(path, path);
    }
    uint64_t sum = 0;
    DIR *dir = opendir(path);
    const struct dirent *entry;
    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        char *file = fs_join(path, entry->d_name);
        if (file != NULL && fs_is_file(file)) {
            sum += hash_file(file, entry->d_name);
        }
        mem_free(file);
    }
    if (dir != NULL) {
        closedir(dir);
    }
    return sum;
}

static uint64_t hash_prompts(const struct bench *b)
{
    uint64_t h = b->prompts.n;
    for (size_t i = 0; i < b->prompts.n; i++) {
        const struct tokenized_prompt *p = &b->tokenized[i];
        h = rng_at(rng_at(h, p->n_ids), p->max_new_tokens);
        h = hash_bytes(h, b->prompts.items[i].text, b->prompts.items[i].len);
        for (uint32_t k = 0; k < p->n_ids; k++) {
            h = rng_at(h, (uint64_t)(uint32_t)p->ids[k]);
        }
    }
    return h;
}

enum status bench_fingerprint(struct bench *b, struct error *err)
{
    const struct bench_options *o = &b->options;
    struct strbuf *out = &b->fingerprint;
    const struct tensor_ops *ops;
    enum status s = tensor_select(o->model.isa, &ops, err);
    if (s != STATUS_OK) {
        return s;
    }
    uint32_t threads = o->model.threads != 0 ? o->model.threads : pool_default_threads();
    strbuf_printf(
        out, "model=%s%s files=%016llx commit=%s dtype=%s kv_dtype=%s isa=%s threads=%u sizes=",
        o->model.model, o->model.random_weights ? " (random weights)" : "",
        (unsigned long long)hash_model(b->files.path), llmsched_commit,
        tensor_dtype_name(o->model.dtype), tensor_dtype_name(o->model.kv_dtype), ops->isa, threads);
    for (uint32_t i = 0; i < o->n_sizes; i++) {
        strbuf_printf(out, "%s%u", i > 0 ? "," : "", o->sizes[i]);
    }
    strbuf_printf(out, " runs=%u schedulers=", o->runs);
    for (uint32_t i = 0; i < o->n_specs; i++) {
        strbuf_printf(out, "%s%s(%s ", i > 0 ? "," : "", o->specs[i].label,
                      scheduler_spec_kind(&o->specs[i]));
        scheduler_spec_print(&o->specs[i], out);
        strbuf_puts(out, ")");
    }
    strbuf_printf(out,
                  " max_concurrent=%u max_queue=%u kv_blocks=%u max_new_tokens=%u workload=%d "
                  "temperature=%.9g top_k=%u top_p=%.9g ignore_eos=%d warmup=%u seed=%llu "
                  "prompts=%016llx",
                  o->max_concurrent, o->max_queue, o->model.kv_blocks, o->max_new_tokens,
                  (int)o->workload, (double)o->sampling.temperature, o->sampling.top_k,
                  (double)o->sampling.top_p, (int)o->ignore_eos, o->warmup,
                  (unsigned long long)o->seed, (unsigned long long)hash_prompts(b));
    return out->failed ? error_set(err, STATUS_NO_MEMORY, -1, "no memory for the fingerprint")
                       : STATUS_OK;
}
