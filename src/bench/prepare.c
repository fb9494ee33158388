/* prepare.c - everything about a bench that can be wrong is found here, before minutes are spent.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/rng.h"
#include "bench/bench_int.h"
#include "bench/environment.h"
#include "sched/registry.h"

enum status bench_tokenize_prompts(struct bench *b, struct error *err)
{
    size_t n = b->prompts.n;
    b->tokenized = mem_alloc(n, sizeof *b->tokenized);
    size_t *begin = mem_alloc(n + 1, sizeof *begin);
    enum status s = STATUS_OK;
    if (b->tokenized == NULL || begin == NULL) {
        s = error_set(err, STATUS_NO_MEMORY, -1, "no memory for %zu prompts", n);
    }
    for (size_t i = 0; i < n && s == STATUS_OK; i++) {
        const struct prompt *p = &b->prompts.items[i];
        begin[i] = b->ids.n;
        s = tokenizer_encode(b->files.tokenizer, p->text, p->len, true, &b->ids, err);
        if (s == STATUS_OK && (b->ids.n == begin[i] || b->ids.n - begin[i] > INT32_MAX)) {
            s = error_set(err, STATUS_BAD_DATA, -1, "it gives %zu tokens", b->ids.n - begin[i]);
        }
        if (s != STATUS_OK) {
            error_prefix(err, "%s: prompt %zu", b->prompts_name, i + 1);
        }
    }
    if (s == STATUS_OK) {
        begin[n] = b->ids.n;
        for (size_t i = 0; i < n; i++) { /* only now: the array moved while it grew */
            b->tokenized[i] = (struct tokenized_prompt){
                .ids = b->ids.ids + begin[i],
                .n_ids = (uint32_t)(begin[i + 1] - begin[i]),
                .max_new_tokens = b->prompts.items[i].max_new_tokens,
            };
        }
    }
    mem_free(begin);
    return s;
}

/* Sizes outermost, then runs, then schedulers in an order that rotates by one each run. */
static enum status make_cells(struct bench *b, struct error *err)
{
    const struct bench_options *o = &b->options;
    uint64_t n = (uint64_t)o->n_sizes * o->runs * o->n_specs;
    b->cells = mem_alloc((size_t)n, sizeof *b->cells);
    if (b->cells == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for %llu cells",
                         (unsigned long long)n);
    }
    for (uint32_t s = 0; s < o->n_sizes; s++) {
        for (uint32_t r = 1; r <= o->runs; r++) {
            for (uint32_t k = 0; k < o->n_specs; k++) {
                b->cells[b->n_cells++] =
                    (struct cell){.size = o->sizes[s], .run = r, .spec = (k + r - 1) % o->n_specs};
            }
        }
    }
    return STATUS_OK;
}

static uint64_t hash_prompts(const struct bench *b)
{
    uint64_t h = b->prompts.n;
    for (size_t i = 0; i < b->ids.n; i++) {
        h = rng_at(h, (uint64_t)(uint32_t)b->ids.ids[i]);
    }
    return h;
}

enum status bench_fingerprint(const struct bench *b, struct strbuf *out, struct error *err)
{
    const struct bench_options *o = &b->options;
    const struct exec_model *exec = b->model.exec;
    strbuf_printf(out, "model=%s format=%s commit=%s isa=%s threads=%u sizes=", b->model.name,
                  b->model.format, llmsched_commit, exec_model_isa(exec), exec_model_threads(exec));
    for (uint32_t i = 0; i < o->n_sizes; i++) {
        strbuf_printf(out, "%s%u", i > 0 ? "," : "", o->sizes[i]);
    }
    strbuf_printf(out, " runs=%u schedulers=", o->runs);
    for (uint32_t i = 0; i < o->n_specs; i++) {
        strbuf_printf(out, "%s%s(%s ", i > 0 ? "," : "", o->specs[i].label,
                      o->specs[i].policy->name);
        policy_params_print(o->specs[i].policy, &o->specs[i].params, out);
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

/* Bytes of all result files, generously: a row of each request twice (CSV, JSON) and the journal.
 */
static uint64_t results_bytes(const struct bench *b)
{
    uint64_t per_request = 1024 + (uint64_t)b->options.max_new_tokens * 12;
    uint64_t texts = 0;
    for (size_t i = 0; i < b->prompts.n; i++) {
        texts += b->prompts.items[i].len;
    }
    assert(b->prompts.n > 0);
    per_request += texts / b->prompts.n;
    uint64_t rows = 0;
    for (uint32_t i = 0; i < b->n_cells; i++) {
        rows += b->cells[i].size;
    }
    return 4 * rows * per_request + (8U << 20);
}

/* The folder exists or is made, can be written, and has room. */
static enum status check_folder(const struct bench *b, struct error *err)
{
    enum status s = fs_make_dirs(b->output_dir, err);
    if (s != STATUS_OK) {
        error_prefix(err, "--output-dir");
        return s;
    }
    char *probe = fs_join(b->output_dir, ".llmsched-probe");
    if (probe == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for a path");
    }
    int fd = open(probe, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0) {
        s = error_set(err, STATUS_IO, -1, "--output-dir %s: cannot write there: %s", b->output_dir,
                      strerror(errno));
    } else {
        close(fd);
        unlink(probe);
    }
    mem_free(probe);
    struct statvfs fs;
    if (s == STATUS_OK && statvfs(b->output_dir, &fs) == 0) {
        uint64_t left = (uint64_t)fs.f_bavail * fs.f_frsize;
        uint64_t need = results_bytes(b);
        if (left < need) {
            s = error_set(
                err, STATUS_IO, -1,
                "--output-dir %s: %llu bytes free, the results may need %llu; free room or "
                "give another folder",
                b->output_dir, (unsigned long long)left, (unsigned long long)need);
        }
    }
    return s;
}

static enum status check_memory(const struct bench *b, struct error *err)
{
    struct exec_model_memory need;
    enum status s = model_memory(&b->options.model, &b->files, &need, err);
    if (s != STATUS_OK) {
        return s;
    }
    uint64_t available = environment_memory_available();
    if (need.total_bytes <= available) {
        return STATUS_OK;
    }
    return error_set(err, STATUS_NO_MEMORY, -1,
                     "the run needs %llu bytes (weights %llu, KV cache %llu, activations %llu) and "
                     "%llu are available; lower --kv-blocks (now %u) or take a smaller --model",
                     (unsigned long long)need.total_bytes, (unsigned long long)need.weight_bytes,
                     (unsigned long long)need.kv_bytes, (unsigned long long)need.activation_bytes,
                     (unsigned long long)available, b->options.model.kv_blocks);
}

static enum status copy_texts(const struct bench_options *o, struct bench *b, struct error *err)
{
    b->output_dir = mem_strdup(o->output_dir);
    b->command_line = mem_strdup(o->command_line);
    b->prompts_name = mem_strdup(o->prompts_path != NULL ? o->prompts_path : "built-in prompts");
    if (b->output_dir == NULL || b->command_line == NULL || b->prompts_name == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for the options");
    }
    return STATUS_OK;
}

enum status bench_prepare(const struct bench_options *options, struct bench **out,
                          struct error *err)
{
    struct bench *b = mem_alloc(1, sizeof *b);
    if (b == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for the bench");
    }
    b->options = *options;
    enum status s = scheduler_spec_check(options->specs, options->n_specs, err);
    if (s == STATUS_OK) {
        s = copy_texts(options, b, err);
    }
    if (s == STATUS_OK) {
        s = options->prompts_path != NULL ? prompts_read(options->prompts_path, &b->prompts, err)
                                          : prompts_builtin(&b->prompts, err);
    }
    if (s == STATUS_OK) {
        s = model_files_open(&options->model, false, &b->files, err);
    }
    if (s == STATUS_OK) {
        s = bench_tokenize_prompts(b, err);
    }
    if (s == STATUS_OK) {
        s = make_cells(b, err);
    }
    if (s == STATUS_OK) {
        s = check_memory(b, err);
    }
    if (s == STATUS_OK) {
        s = check_folder(b, err);
    }
    if (s != STATUS_OK) {
        bench_destroy(b);
        return s;
    }
    *out = b;
    return STATUS_OK;
}

void bench_destroy(struct bench *b)
{
    if (b == NULL) {
        return;
    }
    results_deinit(&b->results);
    mem_free(b->cells);
    mem_free(b->tokenized);
    token_ids_deinit(&b->ids);
    prompts_deinit(&b->prompts);
    model_files_close(&b->files);
    if (b->loaded) {
        loaded_model_close(&b->model);
    }
    mem_free(b->prompts_name);
    mem_free(b->command_line);
    mem_free(b->output_dir);
    mem_free(b);
}

struct results *bench_results(struct bench *b)
{
    return &b->results;
}
