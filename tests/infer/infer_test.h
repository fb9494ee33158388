/*
 * infer_test.h - shared by the tests of src/infer: tiny checkpoints, and a driver that pushes
 * sequences through an executor in any order, chunks and batches, and keeps all logits.
 */
#ifndef LLMSCHED_TESTS_INFER_TEST_H
#define LLMSCHED_TESTS_INFER_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/rng.h"
#include "infer/exec_model.h"
#include "model/config.h"
#include "model/weights.h"
#include "sanitized.h"
#include "tensor/tensor.h"

#define MAX_ISAS 8

static const char *const tiny_models[] = {
    "gpt2",           "gpt2-untied",    "gpt-neo",      "gpt-neo-window17", "llama-gqa",
    "llama-v4",       "llama-mha-tied", "llama-linear", "llama-linear-v4",  "llama-llama3",
    "llama-llama3-v4"};
#define N_TINY (sizeof tiny_models / sizeof tiny_models[0])

/* Fails the test with the library's own words. */
static inline void must(enum status s, const struct error *err)
{
    if (s != STATUS_OK) {
        fail_msg("%s: %s", status_name(s), err->message);
    }
}

static inline char *read_file(const char *path, size_t *len)
{
    FILE *f = fopen(path, "rb");
    if (f == NULL) {
        fail_msg("cannot open %s", path);
        abort();
    }
    fseek(f, 0, SEEK_END);
    long n = ftell(f);
    rewind(f);
    char *text = malloc((size_t)n + 1);
    assert_non_null(text);
    assert_int_equal(fread(text, 1, (size_t)n, f), n);
    fclose(f);
    text[n] = '\0';
    *len = (size_t)n;
    return text;
}

struct checkpoint {
    char folder[512];
    struct model_config config;
    struct weights *weights;
};

static inline void checkpoint_open(struct checkpoint *c, const char *name)
{
    struct error err = ERROR_INIT;
    snprintf(c->folder, sizeof c->folder, "%s/tiny/%s", TEST_DATA_DIR, name);
    must(config_open(c->folder, &c->config, &err), &err);
    must(weights_open(c->folder, &c->config, &c->weights, &err), &err);
}

static inline void checkpoint_close(struct checkpoint *c)
{
    weights_close(c->weights);
}

/* ---------------------------------------------------------------- driver */

#define SEQ_MAX_TOKENS 80
#define SEQ_MAX_BLOCKS (SEQ_MAX_TOKENS / 16)
#define SEQ_MAX        12
#define SEQ_MAX_TOP    5

struct seq_state {
    struct request request;
    int32_t prompt[SEQ_MAX_TOKENS];
    int32_t tokens[SEQ_MAX_TOKENS];
    uint32_t known;
    uint32_t computed;
    uint32_t blocks[SEQ_MAX_BLOCKS];
    enum finish_reason finish;
    float *logits;              /* [SEQ_MAX_TOKENS][V]: row i was sampled with i + 1 tokens known */
    struct logprob_store store; /* in use if request.logprobs */
    struct token_prob chosen[SEQ_MAX_TOKENS];
    struct token_prob top[SEQ_MAX_TOKENS * SEQ_MAX_TOP];
};

struct driver {
    struct seq_state seqs[SEQ_MAX];
    uint32_t n_seqs;
    uint32_t n_vocab;
};

/* The executor's tap: keeps the logits of every sampled row. */
static inline void driver_tap(void *self, const struct exec_item *item, const float *logits)
{
    struct driver *d = self;
    struct seq_state *s = &d->seqs[item->seq.request->id];
    memcpy(s->logits + (size_t)(item->seq.known_tokens - 1) * d->n_vocab, logits,
           d->n_vocab * sizeof(float));
}

/* Sequences with prompts, lengths and sampling that follow from the seed only. Blocks in order. */
static inline void driver_init(struct driver *d, uint32_t n_seqs, uint32_t n_vocab, uint64_t seed)
{
    struct rng rng = rng_stream(seed, 1);
    assert_true(n_seqs <= SEQ_MAX);
    *d = (struct driver){.n_seqs = n_seqs, .n_vocab = n_vocab};
    for (uint32_t i = 0; i < n_seqs; i++) {
        struct seq_state *s = &d->seqs[i];
        uint32_t n = (uint32_t)rng_between(&rng, 1, 40);
        for (uint32_t j = 0; j < n; j++) {
            s->prompt[j] = (int32_t)rng_below(&rng, n_vocab);
        }
        memcpy(s->tokens, s->prompt, sizeof s->tokens);
        s->known = n;
        s->request = (struct request){.id = i,
                                      .prompt = s->prompt,
                                      .prompt_tokens = n,
                                      .max_new_tokens = (uint32_t)rng_between(&rng, 1, 30),
                                      .sample_key = rng_key(seed, i),
                                      .ignore_eos = true};
        if (i % 3 != 0) {
            s->request.sampling =
                (struct sampling){.temperature = 0.7f, .top_k = 50, .top_p = 0.95f};
        }
        s->logits = calloc((size_t)SEQ_MAX_TOKENS * n_vocab, sizeof(float));
        assert_non_null(s->logits);
        for (uint32_t b = 0; b < SEQ_MAX_BLOCKS; b++) {
            s->blocks[b] = i * SEQ_MAX_BLOCKS + b;
        }
    }
}

static inline void driver_deinit(struct driver *d)
{
    for (uint32_t i = 0; i < d->n_seqs; i++) {
        free(d->seqs[i].logits);
    }
}

/* Log-probabilities of the output, and of the prompt. */
static inline void driver_want_logprobs(struct seq_state *s, uint32_t n_top, bool prompt)
{
    assert_true(n_top <= SEQ_MAX_TOP);
    s->store = (struct logprob_store){
        .n_top = n_top, .prompt = prompt, .chosen = s->chosen, .top = s->top};
    s->request.logprobs = &s->store;
}

static inline struct exec_item seq_item(const struct seq_state *s, uint32_t n, uint32_t pads)
{
    return (struct exec_item){.seq = {.request = &s->request,
                                      .tokens = s->tokens,
                                      .known_tokens = s->known,
                                      .computed_tokens = s->computed,
                                      .blocks = s->blocks,
                                      .n_blocks = SEQ_MAX_BLOCKS},
                              .n_tokens = n,
                              .pad_tokens = pads};
}

/* One step over the given sequences; applies the result to them. */
static inline void driver_step(struct driver *d, struct executor *e, const uint32_t *which,
                               const uint32_t *n_tokens, const uint32_t *pads, uint32_t n)
{
    static struct exec_result result;
    struct exec_item items[SEQ_MAX];
    struct error err = ERROR_INIT;
    for (uint32_t i = 0; i < n; i++) {
        items[i] = seq_item(&d->seqs[which[i]], n_tokens[i], pads[i]);
    }
    must(e->submit(e->self, &(struct exec_step){.plan_id = 9, .items = items, .n_items = n}, &err),
         &err);
    must(e->poll(e->self, &result, &err), &err);
    assert_int_equal(result.plan_id, 9);
    assert_int_equal(result.n_items, n);
    for (uint32_t i = 0; i < n; i++) {
        struct seq_state *s = &d->seqs[which[i]];
        const struct exec_item_result *r = &result.items[i];
        s->computed += n_tokens[i];
        bool sampled = n_tokens[i] > 0 && s->computed == s->known;
        assert_int_equal(r->n_out, sampled ? 1 : 0);
        if (sampled) {
            assert_true(s->known < SEQ_MAX_TOKENS);
            s->tokens[s->known++] = r->out[0];
            s->finish = r->finish;
        }
    }
}

/* Every sequence to its end, alone, its prompt at once. */
static inline void driver_run_alone(struct driver *d, struct executor *e)
{
    for (uint32_t i = 0; i < d->n_seqs; i++) {
        struct seq_state *s = &d->seqs[i];
        while (s->finish == FINISH_NONE) {
            driver_step(d, e, &i, &(uint32_t){s->known - s->computed}, &(uint32_t){0}, 1);
        }
    }
}

static inline void driver_compare_logprobs(const struct seq_state *a, const struct seq_state *b,
                                           const char *what)
{
    if (a->request.logprobs == NULL) {
        return;
    }
    uint32_t rows = a->known - (a->store.prompt ? 0 : a->request.prompt_tokens);
    if (memcmp(a->chosen, b->chosen, rows * sizeof a->chosen[0]) != 0 ||
        memcmp(a->top, b->top, rows * a->store.n_top * sizeof a->top[0]) != 0) {
        fail_msg("%s: sequence %llu: log-probabilities differ", what,
                 (unsigned long long)a->request.id);
    }
}

/* Same tokens, same bits of every sampled row's logits, and of the log-probabilities. */
static inline void driver_compare(const struct driver *want, const struct driver *got,
                                  const char *what)
{
    for (uint32_t i = 0; i < want->n_seqs; i++) {
        const struct seq_state *a = &want->seqs[i];
        const struct seq_state *b = &got->seqs[i];
        if (a->known != b->known || a->finish != b->finish) {
            fail_msg("%s: sequence %u: %u tokens, finish %d; alone %u, %d", what, i, b->known,
                     (int)b->finish, a->known, (int)a->finish);
        }
        for (uint32_t p = a->request.prompt_tokens - 1; p + 1 < a->known; p++) {
            size_t at = (size_t)p * want->n_vocab;
            if (memcmp(a->logits + at, b->logits + at, want->n_vocab * sizeof(float)) != 0) {
                fail_msg("%s: sequence %u: logits at position %u differ", what, i, p);
            }
            if (a->tokens[p + 1] != b->tokens[p + 1]) {
                fail_msg("%s: sequence %u: token %u is %d, alone %d", what, i, p + 1,
                         b->tokens[p + 1], a->tokens[p + 1]);
            }
        }
        driver_compare_logprobs(a, b, what);
    }
}

#endif
