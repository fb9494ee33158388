/*
 * test_exec_model.c - the executor's contract: ends of sequences, refusals, large steps, broken
 * weights, what memory it takes, and that a step allocates nothing (malloc itself is watched).
 */
#include <malloc.h>
#include <math.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "infer_test.h"

#include "infer/forward.h"
#include "infer/network.h"
#include "infer/sampler.h"

/* ---------------------------------------------------------------- the watch on malloc */

static _Atomic uint64_t in_step_count;

static void watch(void)
{
    if (mem_in_step()) {
        atomic_fetch_add(&in_step_count, 1);
    }
}

#if SANITIZED
/* The sanitizer's allocator interface; gcc ships no header for it.
 * NOLINTBEGIN(bugprone-reserved-identifier) - the names are the sanitizer's */
int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const volatile void *, size_t),
                                              void (*on_free)(const volatile void *));
size_t __sanitizer_get_current_allocated_bytes(void);
/* NOLINTEND(bugprone-reserved-identifier) */

static void on_malloc(const volatile void *p, size_t bytes)
{
    (void)p;
    (void)bytes;
    watch();
}

static void on_free(const volatile void *p)
{
    (void)p;
}

static uint64_t live_bytes(void)
{
    return __sanitizer_get_current_allocated_bytes();
}

static void watch_install(void)
{
    assert_true(__sanitizer_install_malloc_and_free_hooks(on_malloc, on_free) > 0);
}
#else
/* glibc's own entry points: the program's malloc is replaced by a counting one.
 * NOLINTBEGIN(bugprone-reserved-identifier) - the names are glibc's */
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t bytes);
void *__libc_memalign(size_t align, size_t bytes);
/* NOLINTEND(bugprone-reserved-identifier) */

void *malloc(size_t bytes)
{
    watch();
    return __libc_malloc(bytes);
}

void *calloc(size_t count, size_t size)
{
    watch();
    return __libc_calloc(count, size);
}

void *realloc(void *old, size_t bytes)
{
    watch();
    return __libc_realloc(old, bytes);
}

void *aligned_alloc(size_t align, size_t bytes)
{
    watch();
    return __libc_memalign(align, bytes);
}

static uint64_t live_bytes(void)
{
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

static void watch_install(void)
{
}
#endif

/* ---------------------------------------------------------------- helpers */

static struct exec_model *create(const struct checkpoint *c, const struct model_config *config,
                                 uint32_t max_len, struct driver *d)
{
    struct exec_model *m;
    struct error err = ERROR_INIT;
    must(exec_model_create(&(struct exec_model_options){.config = config,
                                                        .weights = c->weights,
                                                        .n_threads = 2,
                                                        .kv_blocks = 256,
                                                        .max_model_len = max_len,
                                                        .max_rows = 48,
                                                        .tap = {d == NULL ? NULL : driver_tap, d}},
                           &m, &err),
         &err);
    return m;
}

/* Runs sequence 0 of a driver with the given request until it ends; returns new tokens. */
static uint32_t run_one(const struct checkpoint *c, const struct model_config *config,
                        uint32_t max_len, uint32_t max_new, bool ignore_eos, int32_t *tokens,
                        enum finish_reason *finish)
{
    struct driver d;
    driver_init(&d, 1, config->n_vocab, 21);
    struct exec_model *m = create(c, config, max_len, &d);
    struct seq_state *s = &d.seqs[0];
    s->known = s->request.prompt_tokens = 10;
    s->request.max_new_tokens = max_new;
    s->request.ignore_eos = ignore_eos;
    driver_run_alone(&d, exec_model_executor(m));
    uint32_t made = s->known - 10;
    memcpy(tokens, s->tokens + 10, made * sizeof *tokens);
    *finish = s->finish;
    driver_deinit(&d);
    exec_model_destroy(m);
    return made;
}

/* ---------------------------------------------------------------- ends */

static void test_ends(void **state)
{
    struct checkpoint c;
    int32_t free_run[SEQ_MAX_TOKENS] = {0}, got[SEQ_MAX_TOKENS];
    enum finish_reason finish;
    (void)state;
    checkpoint_open(&c, "llama-gqa");
    assert_int_equal(run_one(&c, &c.config, 0, 20, true, free_run, &finish), 20);
    assert_int_equal(finish, FINISH_LENGTH);
    /* The model's length counts prompt and output. */
    assert_int_equal(run_one(&c, &c.config, 16, 20, true, got, &finish), 6);
    assert_int_equal(finish, FINISH_LENGTH);
    assert_memory_equal(got, free_run, 6 * sizeof *got);
    /* End of sequence: the first of several ids, at its first occurrence. */
    struct model_config ended = c.config;
    ended.n_eos = 2;
    ended.eos_ids[0] = 130;
    ended.eos_ids[1] = free_run[7];
    uint32_t at = 0;
    while (free_run[at] != free_run[7] && free_run[at] != 130) {
        at++;
    }
    assert_int_equal(run_one(&c, &ended, 0, 20, false, got, &finish), at + 1);
    assert_int_equal(finish, FINISH_STOP);
    assert_int_equal(run_one(&c, &ended, 0, 20, true, got, &finish), 20);
    assert_int_equal(finish, FINISH_LENGTH);
    /* Both at once: the end of sequence is the reason. */
    assert_int_equal(run_one(&c, &ended, 0, at + 1, false, got, &finish), at + 1);
    assert_int_equal(finish, FINISH_STOP);
    checkpoint_close(&c);
}

/* ---------------------------------------------------------------- the draw */

/* Token i of a sequence is sampler_pick of its logits, the request's key and position i: also after
 * a preemption, where prompt and output are computed again in one chunk. */
static void test_draw_by_key_and_position(void **state)
{
    struct checkpoint c;
    struct driver d;
    (void)state;
    checkpoint_open(&c, "gpt2");
    driver_init(&d, 4, c.config.n_vocab, 8);
    struct exec_model *m = create(&c, &c.config, 0, &d);
    struct sampler_candidate *scratch = calloc(c.config.n_vocab, sizeof *scratch);
    assert_non_null(scratch);
    uint32_t drawn = 0;
    for (uint32_t i = 0; i < d.n_seqs; i++) {
        struct seq_state *s = &d.seqs[i];
        s->request.sampling = (struct sampling){.temperature = 5.0f, .top_p = 1.0f};
        while (s->finish == FINISH_NONE) {
            if (s->known % 4 == 0) {
                s->computed = 0;
            }
            driver_step(&d, exec_model_executor(m), &i, &(uint32_t){s->known - s->computed},
                        &(uint32_t){0}, 1);
        }
        for (uint32_t p = s->request.prompt_tokens; p < s->known; p++, drawn++) {
            assert_int_equal(s->tokens[p],
                             sampler_pick(s->logits + (size_t)(p - 1) * d.n_vocab, d.n_vocab,
                                          &s->request.sampling, s->request.sample_key, p, scratch));
        }
    }
    assert_true(drawn > 20);
    free(scratch);
    exec_model_destroy(m);
    driver_deinit(&d);
    checkpoint_close(&c);
}

/* ---------------------------------------------------------------- refusals */

static void test_refusals(void **state)
{
    struct checkpoint c;
    struct driver d;
    static struct exec_result result;
    struct error err = ERROR_INIT;
    (void)state;
    checkpoint_open(&c, "llama-gqa");
    driver_init(&d, 1, c.config.n_vocab, 3);
    struct exec_model *m = create(&c, &c.config, 32, &d);
    struct executor *e = exec_model_executor(m);
    struct seq_state *s = &d.seqs[0];
    s->known = s->request.prompt_tokens = 20;

    assert_int_equal(e->poll(e->self, &result, &err), STATUS_USAGE);
    struct exec_item bad[6];
    for (uint32_t i = 0; i < 6; i++) {
        bad[i] = seq_item(s, 20, 0);
    }
    int32_t tokens[40] = {0};
    const uint32_t blocks[2] = {1, 256};
    bad[0].seq.tokens = tokens;
    tokens[11] = (int32_t)c.config.n_vocab;
    bad[1].seq.n_blocks = 1;
    bad[2].seq.blocks = blocks;
    bad[3].n_tokens = 21;
    bad[4].seq.known_tokens = 33;
    bad[4].seq.tokens = tokens;
    bad[4].n_tokens = 33;
    int32_t negative[20] = {0};
    negative[19] = -1;
    bad[5].seq.tokens = negative;
    static const char *const words[] = {"token id 131", "KV blocks",    "KV block 256",
                                        "known tokens", "length is 32", "token id -1"};
    for (uint32_t i = 0; i < 6; i++) {
        struct exec_item items[2] = {seq_item(s, 20, 0), bad[i]};
        struct exec_step step = {.items = items, .n_items = 2};
        assert_int_equal(e->submit(e->self, &step, &err), STATUS_USAGE);
        if (strstr(err.message, words[i]) == NULL) {
            fail_msg("case %u: '%s' lacks '%s'", i, err.message, words[i]);
        }
    }
    struct exec_item good = seq_item(s, 20, 0);
    struct exec_step too_many = {.items = &good, .n_items = PLAN_MAX_SEQS + 1};
    assert_int_equal(e->submit(e->self, &too_many, &err), STATUS_USAGE);
    struct exec_step step = {.plan_id = 4, .items = &good, .n_items = 1};
    must(e->submit(e->self, &step, &err), &err);
    assert_int_equal(e->submit(e->self, &step, &err), STATUS_USAGE);
    must(e->poll(e->self, &result, &err), &err);
    assert_int_equal(result.plan_id, 4);
    assert_int_equal(result.items[0].n_out, 1);
    assert_true(result.duration_ns > 0);

    float logits[1];
    assert_int_equal(exec_model_logits(m, tokens, 0, logits, &err), STATUS_USAGE);
    assert_int_equal(exec_model_logits(m, tokens, 33, logits, &err), STATUS_USAGE);
    assert_int_equal(exec_model_logits(m, tokens, 12, logits, &err), STATUS_USAGE);
    assert_int_equal(err.position, 11);
    exec_model_destroy(m);
    driver_deinit(&d);
    checkpoint_close(&c);
}

/* ---------------------------------------------------------------- many items */

#define MANY 200

/* More items than head slots, and more rows than a piece: as each alone. */
static void test_many_items(void **state)
{
    struct checkpoint c;
    struct error err = ERROR_INIT;
    static struct exec_result result, one;
    static struct exec_item items[MANY];
    static struct request requests[MANY];
    static int32_t tokens[MANY][2];
    static uint32_t blocks[MANY];
    (void)state;
    checkpoint_open(&c, "gpt-neo");
    struct exec_model *m = create(&c, &c.config, 0, NULL);
    struct executor *e = exec_model_executor(m);
    for (uint32_t i = 0; i < MANY; i++) {
        tokens[i][0] = (int32_t)(i % 131);
        tokens[i][1] = (int32_t)(i * i % 131);
        blocks[i] = MANY - i;
        requests[i] = (struct request){.id = i,
                                       .prompt = tokens[i],
                                       .prompt_tokens = 1 + i % 2,
                                       .max_new_tokens = 5,
                                       .sample_key = 1000 - i,
                                       .sampling = {.temperature = 1.0f, .top_p = 1.0f}};
        items[i] = (struct exec_item){.seq = {.request = &requests[i],
                                              .tokens = tokens[i],
                                              .known_tokens = 1 + i % 2,
                                              .blocks = &blocks[i],
                                              .n_blocks = 1},
                                      .n_tokens = i % 5 == 4 ? 0 : 1 + i % 2,
                                      .pad_tokens = i % 5 == 4 ? 3 : 0};
    }
    must(e->submit(e->self, &(struct exec_step){.items = items, .n_items = MANY}, &err), &err);
    must(e->poll(e->self, &result, &err), &err);
    for (uint32_t i = 0; i < MANY; i++) {
        must(e->submit(e->self, &(struct exec_step){.items = &items[i], .n_items = 1}, &err), &err);
        must(e->poll(e->self, &one, &err), &err);
        assert_int_equal(result.items[i].n_out, i % 5 == 4 ? 0 : 1);
        assert_int_equal(one.items[0].n_out, result.items[i].n_out);
        assert_int_equal(one.items[0].out[0], result.items[i].out[0]);
    }
    struct exec_model_timing t;
    exec_model_timing_get(m, &t);
    assert_int_equal(t.steps, 1 + MANY);
    assert_true(t.rows > MANY);
    uint64_t parts = t.matmul_ns + t.attention_ns + t.norm_ns + t.head_ns + t.sample_ns;
    assert_true(parts > 0 && parts <= t.total_ns);
    exec_model_timing_reset(m);
    exec_model_timing_get(m, &t);
    assert_int_equal(t.steps + t.rows + t.total_ns + t.matmul_ns + t.sample_ns, 0);
    must(e->submit(e->self, &(struct exec_step){.plan_id = 1, .items = items}, &err), &err);
    must(e->poll(e->self, &result, &err), &err); /* a step without items is no error */
    assert_int_equal(result.n_items, 0);
    exec_model_destroy(m);
    checkpoint_close(&c);
}

/* ---------------------------------------------------------------- weights that are not finite */

/* A copy of a checkpoint in which the embedding of token 5 is NaN. */
static void write_broken(const char *from, char *folder)
{
    char path[700];
    size_t len, config_len;
    json_error_t e;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/model.safetensors", from);
    char *bytes = read_file(path, &len);
    uint64_t header;
    memcpy(&header, bytes, sizeof header);
    json_t *j = json_loadb(bytes + 8, (size_t)header, 0, &e);
    assert_non_null(j);
    const json_t *offsets =
        json_object_get(json_object_get(j, "transformer.wte.weight"), "data_offsets");
    size_t at = 8 + (size_t)header + (size_t)json_integer_value(json_array_get(offsets, 0));
    float nan_row[24];
    for (uint32_t i = 0; i < 24; i++) {
        nan_row[i] = NAN;
    }
    memcpy(bytes + at + 5 * sizeof nan_row, nan_row, sizeof nan_row);
    json_decref(j);
    snprintf(path, sizeof path, "%s/config.json", from);
    char *config = read_file(path, &config_len);
    const struct {
        const char *name;
        const char *data;
        size_t len;
    } files[] = {{"model.safetensors", bytes, len}, {"config.json", config, config_len}};
    for (uint32_t i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, files[i].name);
        FILE *f = fopen(path, "wb");
        assert_non_null(f);
        assert_int_equal(fwrite(files[i].data, 1, files[i].len, f), files[i].len);
        fclose(f);
    }
    free(bytes);
    free(config);
}

static void remove_broken(const char *folder)
{
    char path[700];
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    unlink(path);
    snprintf(path, sizeof path, "%s/config.json", folder);
    unlink(path);
    rmdir(folder);
}

static void test_not_finite_fails_one_sequence(void **state)
{
    struct checkpoint whole;
    struct checkpoint broken;
    struct error err = ERROR_INIT;
    static struct exec_result result;
    char folder[] = "/tmp/llmsched-test-XXXXXX";
    (void)state;
    checkpoint_open(&whole, "gpt2-untied");
    write_broken(whole.folder, folder);
    broken.config = whole.config;
    must(weights_open(folder, &broken.config, &broken.weights, &err), &err);
    struct exec_model *m = create(&broken, &broken.config, 0, NULL);
    struct executor *e = exec_model_executor(m);
    assert_string_equal(exec_model_last_error(m), "");
    const int32_t prompts[3][4] = {{1, 2, 3, 4}, {1, 5, 3, 4}, {9, 8, 7, 6}};
    struct request requests[3];
    struct exec_item items[3];
    const uint32_t blocks[3] = {0, 1, 2};
    struct token_prob chosen[3][13] = {0}, top[3][13] = {0};
    struct logprob_store stores[3];
    for (uint32_t i = 0; i < 3; i++) {
        stores[i] =
            (struct logprob_store){.n_top = 1, .prompt = true, .chosen = chosen[i], .top = top[i]};
        requests[i] = (struct request){.id = 40 + i,
                                       .prompt = prompts[i],
                                       .prompt_tokens = 4,
                                       .max_new_tokens = 9,
                                       .logprobs = &stores[i],
                                       .ignore_eos = true};
        items[i] = (struct exec_item){.seq = {.request = &requests[i],
                                              .tokens = prompts[i],
                                              .known_tokens = 4,
                                              .blocks = &blocks[i],
                                              .n_blocks = 1},
                                      .n_tokens = 4};
    }
    must(e->submit(e->self, &(struct exec_step){.items = items, .n_items = 3}, &err), &err);
    must(e->poll(e->self, &result, &err), &err);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(result.items[i].n_out, i == 1 ? 0 : 1);
        assert_int_equal(result.items[i].finish, i == 1 ? FINISH_ERROR : FINISH_NONE);
        /* Token 5 is the broken one: nothing is known of what follows it, and no token is made. */
        for (uint32_t row = 1; row < 4; row++) {
            bool known = i != 1 || row == 1;
            assert_int_equal(chosen[i][row].id, prompts[i][row]);
            assert_true(isfinite(chosen[i][row].logprob) == known);
            assert_true(isfinite(top[i][row].logprob) == known);
            assert_true((top[i][row].id >= 0) == known);
        }
        assert_int_equal(chosen[i][4].id, i == 1 ? 0 : result.items[i].out[0]);
    }
    assert_non_null(strstr(exec_model_last_error(m), "request 41"));
    assert_non_null(strstr(exec_model_last_error(m), "position 3"));
    exec_model_destroy(m);
    weights_close(broken.weights);
    remove_broken(folder);
    checkpoint_close(&whole);
}

/* ---------------------------------------------------------------- memory */

static void test_a_step_allocates_nothing(void **state)
{
    (void)state;
    /* The watch sees an allocation inside a step, and only there. */
    atomic_store(&in_step_count, 0);
    mem_step_begin();
    void *volatile p = malloc(32);
    mem_step_end();
    free(p);
    p = malloc(32);
    free(p);
    assert_int_equal(atomic_load(&in_step_count), 1);

    atomic_store(&in_step_count, 0);
    for (size_t i = 0; i < N_TINY; i++) {
        struct checkpoint c;
        struct driver d;
        checkpoint_open(&c, tiny_models[i]);
        driver_init(&d, 6, c.config.n_vocab, i);
        d.seqs[4].request.sampling = (struct sampling){.temperature = 1.0f, .top_p = 0.9f};
        d.seqs[5].request.sampling = (struct sampling){.temperature = 1.0f, .top_p = 1.0f};
        for (uint32_t k = 2; k < 6; k++) {
            struct request *r = &d.seqs[k].request;
            driver_want_logprobs(&d.seqs[k], k - 2, k % 2 == 0);
            r->sampling.repetition_penalty = 1.2f;
            r->sampling.presence_penalty = 0.5f;
            r->sampling.min_p = 0.1f;
            r->min_new_tokens = 3;
            r->stop_ids = d.seqs[k].prompt;
            r->n_stop_ids = 1;
        }
        struct exec_model *m = create(&c, &c.config, 0, &d);
        /* A sanitizer allocates while a thread starts: let the workers do something first. */
        struct error err = ERROR_INIT;
        float *logits = malloc(c.config.n_vocab * sizeof *logits);
        assert_non_null(logits);
        must(exec_model_logits(m, &(int32_t){3}, 1, logits, &err), &err);
        free(logits);
        driver_run_alone(&d, exec_model_executor(m));
        exec_model_destroy(m);
        driver_deinit(&d);
        checkpoint_close(&c);
    }
    assert_int_equal(atomic_load(&in_step_count), 0);
}

static void test_every_refused_allocation(void **state)
{
    static const char *const names[] = {"gpt2-untied", "llama-llama3"};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct checkpoint c;
        struct exec_model *m = NULL;
        struct error err = ERROR_INIT;
        uint64_t n = 1;
        checkpoint_open(&c, names[i]);
        const struct exec_model_options o = {
            .config = &c.config, .weights = c.weights, .n_threads = 2, .kv_blocks = 4};
        for (;; n++) {
            mem_fail_at(n, n % 2 == 0);
            enum status s = exec_model_create(&o, &m, &err);
            mem_fail_at(0, false);
            if (s == STATUS_OK) {
                break;
            }
            assert_int_equal(s, STATUS_NO_MEMORY);
            assert_true(strlen(err.message) > 0);
            assert_null(m);
            assert_true(n < 1000);
        }
        assert_true(n > 30);
        print_message("%s: %llu allocations, each refused once\n", names[i],
                      (unsigned long long)n - 1);
        exec_model_destroy(m);
        checkpoint_close(&c);
    }
}

/* The estimate against the bytes that malloc holds afterwards. */
static void test_estimate(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_TINY; i++) {
        struct checkpoint c;
        struct exec_model *m;
        struct exec_model_memory estimate;
        struct error err = ERROR_INIT;
        checkpoint_open(&c, tiny_models[i]);
        struct exec_model_options o = {.config = &c.config, .n_threads = 2, .kv_blocks = 64};
        must(exec_model_estimate(&o, &estimate, &err), &err);
        assert_int_equal(estimate.total_bytes,
                         estimate.weight_bytes + estimate.kv_bytes + estimate.activation_bytes);
        assert_int_equal(estimate.kv_bytes, kv_bytes(&c.config, TENSOR_F32, 64));
        struct exec_model_memory narrow;
        o.kv_dtype = TENSOR_BF16;
        must(exec_model_estimate(&o, &narrow, &err), &err);
        assert_int_equal(narrow.kv_bytes, estimate.kv_bytes / 2);
        assert_int_equal(estimate.total_bytes - narrow.total_bytes, narrow.kv_bytes);
        o.weights = c.weights;
        uint64_t before = live_bytes();
        must(exec_model_create(&o, &m, &err), &err);
        uint64_t taken = live_bytes() - before;
        uint64_t expected = estimate.weight_bytes + estimate.activation_bytes;
        /* The rest: small structs, malloc's own words, biases that the files lack. */
        uint64_t slack = expected / 50 + 16384;
        if (taken > expected + slack || taken + slack < expected) {
            fail_msg("%s: estimated %llu bytes, took %llu", tiny_models[i],
                     (unsigned long long)expected, (unsigned long long)taken);
        }
        exec_model_destroy(m);
        checkpoint_close(&c);
    }
}

int main(void)
{
    watch_install();
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_ends),
                                       cmocka_unit_test(test_draw_by_key_and_position),
                                       cmocka_unit_test(test_refusals),
                                       cmocka_unit_test(test_many_items),
                                       cmocka_unit_test(test_not_finite_fails_one_sequence),
                                       cmocka_unit_test(test_a_step_allocates_nothing),
                                       cmocka_unit_test(test_every_refused_allocation),
                                       cmocka_unit_test(test_estimate)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
