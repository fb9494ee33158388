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
#include "bench/bench_int.h"
#include "bench/environment.h"
#include "tensor/tensor.h"

/* Only servers run, and no model of that name is here to count with: lengths are not known. */
static enum status leave_untokenized(struct bench *b, struct error *err)
{
    b->tokenized = mem_alloc(b->prompts.n, sizeof *b->tokenized);
    if (b->tokenized == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for %zu prompts", b->prompts.n);
    }
    for (size_t i = 0; i < b->prompts.n; i++) {
        b->tokenized[i].max_new_tokens = b->prompts.items[i].max_new_tokens;
    }
    return STATUS_OK;
}

enum status bench_tokenize_prompts(struct bench *b, struct error *err)
{
    if (b->files.tokenizer == NULL) {
        return leave_untokenized(b, err);
    }
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

uint32_t bench_max_new_tokens(const struct bench *b, size_t prompt)
{
    uint32_t own = b->tokenized[prompt].max_new_tokens;
    if (own != 0) {
        return own;
    }
    return b->options.workload == WORKLOAD_MIXED ? WORKLOAD_MIXED_MAX : b->options.max_new_tokens;
}

/* A request that can never run would be rejected in every run: the run could not be compared. */
static enum status check_lengths(const struct bench *b, struct error *err)
{
    if (!bench_has_local(b)) {
        return STATUS_OK; /* the limits are the server's */
    }
    uint64_t capacity = (uint64_t)b->options.model.kv_blocks * TENSOR_KV_TILE;
    for (size_t i = 0; i < b->prompts.n; i++) {
        uint32_t prompt = b->tokenized[i].n_ids;
        uint32_t new_tokens = bench_max_new_tokens(b, i);
        uint64_t total = (uint64_t)prompt + new_tokens;
        if (total > b->files.config.n_ctx || total > capacity) {
            bool context = total > b->files.config.n_ctx;
            return error_set(
                err, STATUS_USAGE, -1,
                "%s: prompt %zu (%u tokens) and %u new tokens exceed %s of %llu; shorten "
                "it, lower --max-new-tokens%s",
                b->prompts_name, i + 1, prompt, new_tokens,
                context ? "the model's context" : "the KV cache",
                (unsigned long long)(context ? b->files.config.n_ctx : capacity),
                context ? "" : ", or raise --kv-blocks");
        }
    }
    return STATUS_OK;
}

/* Bytes that one request's results take, in memory or in one file, generously. */
static uint64_t bytes_per_request(const struct bench *b)
{
    uint64_t most = 0;
    for (size_t i = 0; i < b->prompts.n; i++) {
        uint64_t bytes = b->prompts.items[i].len + (uint64_t)bench_max_new_tokens(b, i) * 16;
        most = bytes > most ? bytes : most;
    }
    return most + 1024;
}

static uint64_t matrix_rows(const struct bench *b)
{
    uint64_t rows = 0;
    for (uint32_t i = 0; i < b->n_cells; i++) {
        rows += b->cells[i].size;
    }
    return rows;
}

/* None of the names that are written at the end may be taken by a folder. */
static enum status check_names(const struct bench *b, struct error *err)
{
    static const char *const names[] = {JOURNAL_NAME, BENCH_SUMMARIES_NAME, BENCH_METRICS_NAME,
                                        BENCH_RESULTS_NAME, BENCH_REPORT_NAME};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char *path = fs_join(b->output_dir, names[i]);
        bool taken = path != NULL && fs_is_dir(path);
        mem_free(path);
        if (taken) {
            return error_set(err, STATUS_IO, -1,
                             "--output-dir %s: %s is a folder there; move it or give another",
                             b->output_dir, names[i]);
        }
    }
    return STATUS_OK;
}

/* The folder exists or is made, can be written, and has room. */
static enum status check_folder(const struct bench *b, struct error *err)
{
    enum status s = fs_make_dirs(b->output_dir, err);
    if (s != STATUS_OK) {
        error_prefix(err, "--output-dir");
        return s;
    }
    char *probe = fs_join(b->output_dir, JOURNAL_PROBE_NAME);
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
        /* journal, two CSVs, JSON; charts and their data */
        uint64_t need = 4 * matrix_rows(b) * bytes_per_request(b) + (8U << 20);
        if (left < need) {
            s = error_set(
                err, STATUS_IO, -1,
                "--output-dir %s: %llu bytes free, the results may need %llu; free room or "
                "give another folder",
                b->output_dir, (unsigned long long)left, (unsigned long long)need);
        }
    }
    return s == STATUS_OK ? check_names(b, err) : s;
}

static enum status check_memory(const struct bench *b, struct error *err)
{
    struct exec_model_memory need = {0};
    enum status s =
        bench_has_local(b) ? model_memory(&b->options.model, &b->files, &need, err) : STATUS_OK;
    if (s != STATUS_OK) {
        return s;
    }
    /* All rows stay in memory until the files are made; writing JSON holds them once more. */
    uint64_t results = 2 * matrix_rows(b) * bytes_per_request(b);
    uint64_t total = need.total_bytes + results;
    uint64_t available = environment_memory_available();
    if (total <= available) {
        return STATUS_OK;
    }
    return error_set(err, STATUS_NO_MEMORY, -1,
                     "the run needs %llu bytes (weights %llu, KV cache %llu, activations %llu, "
                     "results %llu) and %llu are available; lower --kv-blocks (now %u) or --sizes, "
                     "or take a smaller --model",
                     (unsigned long long)total, (unsigned long long)need.weight_bytes,
                     (unsigned long long)need.kv_bytes, (unsigned long long)need.activation_bytes,
                     (unsigned long long)results, (unsigned long long)available,
                     b->options.model.kv_blocks);
}

/* What has to do with files, in the order in which a fault is cheapest to mend. */
static enum status check_places(struct bench *b, struct error *err)
{
    enum status s = check_memory(b, err);
    if (s == STATUS_OK && !b->options.resume) {
        s = bench_find_servers(b, err);
    }
    if (s == STATUS_OK && !b->options.dry_run) {
        s = check_folder(b, err);
    }
    if (s == STATUS_OK && !b->options.dry_run) {
        s = journal_lock(b->output_dir, &b->journal, err);
    }
    if (s == STATUS_OK) {
        s = bench_fingerprint(b, err);
    }
    if (s == STATUS_OK && b->options.resume && !b->options.dry_run) {
        s = journal_resume(&b->journal, b->fingerprint.data, &b->results, err);
    }
    if (s == STATUS_OK && b->options.resume) { /* only those that still have something to do */
        s = bench_find_servers(b, err);
    }
    return s;
}

/* A bench of servers alone needs no model of ours: what is here counts tokens. */
static enum status open_model(struct bench *b, struct error *err)
{
    struct error why = ERROR_INIT;
    bool local = bench_has_local(b);
    enum status s = model_parts_open(&b->options.model, !local, &b->files, &why);
    if (s == STATUS_NOT_FOUND && !local) {
        log_info("no tokenizer of %s here: tokens are counted as the server counts them",
                 b->options.model.model);
        return STATUS_OK;
    }
    if (s != STATUS_OK) {
        *err = why;
    }
    return s;
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
    b->journal = (struct journal)JOURNAL_INIT;
    enum status s = scheduler_spec_check(options->specs, options->n_specs, err);
    if (s == STATUS_OK) {
        s = copy_texts(options, b, err);
    }
    if (s == STATUS_OK) {
        s = options->prompts_path != NULL ? prompts_read(options->prompts_path, &b->prompts, err)
                                          : prompts_builtin(&b->prompts, err);
    }
    if (s == STATUS_OK) {
        s = bench_open_rows(b, err);
    }
    if (s == STATUS_OK) {
        s = open_model(b, err);
    }
    if (s == STATUS_OK) {
        s = bench_tokenize_prompts(b, err);
    }
    if (s == STATUS_OK) {
        s = make_cells(b, err);
    }
    if (s == STATUS_OK) {
        s = check_lengths(b, err);
    }
    if (s == STATUS_OK) {
        s = check_places(b, err);
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
    journal_close(&b->journal);
    strbuf_deinit(&b->fingerprint);
    results_deinit(&b->results);
    mem_free(b->rows);
    mem_free(b->cells);
    mem_free(b->tokenized);
    token_ids_deinit(&b->ids);
    prompts_deinit(&b->prompts);
    model_parts_close(&b->files);
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
