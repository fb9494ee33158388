/*
 * test_infer_invariance.c - a sequence's logits, tokens and log-probabilities are the same bits
 * however it is scheduled.
 *
 * The truth is every sequence alone, its prompt at once, one thread, blocks in order, pieces larger
 * than any step. Against it: random batches, chunks, pad rows, shuffled blocks full of NaN from an
 * older owner, preemption with recomputation, more threads, small pieces. On every instruction set,
 * with keys and values in f32 and in bf16.
 */
#include <math.h>

#include "infer_test.h"

#include "infer/forward.h"

#if SANITIZED
#define N_SEQS 3
#else
#define N_SEQS 10
#endif

static struct exec_model *open_model(const struct checkpoint *c, const struct tensor_ops *ops,
                                     enum tensor_dtype dtype, enum tensor_dtype kv_dtype,
                                     uint32_t threads, uint32_t max_rows, struct driver *d)
{
    struct exec_model *m;
    struct error err = ERROR_INIT;
    must(exec_model_create(&(struct exec_model_options){.config = &c->config,
                                                        .weights = c->weights,
                                                        .ops = ops,
                                                        .dtype = dtype,
                                                        .kv_dtype = kv_dtype,
                                                        .n_threads = threads,
                                                        .kv_blocks = 2 * SEQ_MAX * SEQ_MAX_BLOCKS,
                                                        .max_rows = max_rows,
                                                        .tap = {driver_tap, d}},
                           &m, &err),
         &err);
    return m;
}

/* Some sequences with all that a request may ask for; V is at least 131. */
static void ask_for_more(struct driver *d)
{
    static const struct token_bias bias[] = {{3, 2.5f}, {77, -100.0f}, {90, 1.0f}};
    static const int32_t stop_ids[] = {5, 90};
    for (uint32_t i = 0; i < d->n_seqs; i++) {
        struct request *r = &d->seqs[i].request;
        if (i % 2 == 1) {
            driver_want_logprobs(&d->seqs[i], i % SEQ_MAX_TOP, i % 4 == 1);
        }
        if (i % 4 >= 1 && i % 4 <= 2) {
            r->sampling.min_p = 0.02f;
            r->sampling.repetition_penalty = 1.3f;
            r->sampling.frequency_penalty = 0.4f;
            r->sampling.presence_penalty = -0.3f;
            r->sampling.bias = bias;
            r->sampling.n_bias = 3;
            r->stop_ids = stop_ids;
            r->n_stop_ids = 2;
            r->min_new_tokens = 4;
        }
    }
}

/* Gives the sequence blocks that nobody owns, in random order; `owned` marks the taken ones. */
static void take_blocks(struct seq_state *s, bool *owned, uint32_t n_blocks, struct rng *rng)
{
    for (uint32_t b = 0; b < SEQ_MAX_BLOCKS; b++) {
        uint32_t pick;
        do {
            pick = (uint32_t)rng_below(rng, n_blocks);
        } while (owned[pick]);
        owned[pick] = true;
        s->blocks[b] = pick;
    }
}

/* Random steps until all are done; a tenth of the time a victim loses everything it computed. */
static void run_random(struct driver *d, struct executor *e, uint64_t seed)
{
    struct rng rng = rng_stream(seed, 2);
    bool owned[2 * SEQ_MAX * SEQ_MAX_BLOCKS] = {false};
    const uint32_t n_blocks = 2 * SEQ_MAX * SEQ_MAX_BLOCKS;
    for (uint32_t i = 0; i < d->n_seqs; i++) {
        take_blocks(&d->seqs[i], owned, n_blocks, &rng);
    }
    for (;;) {
        uint32_t which[SEQ_MAX], n_tokens[SEQ_MAX], pads[SEQ_MAX], n = 0, live = 0;
        for (uint32_t i = 0; i < d->n_seqs; i++) {
            struct seq_state *s = &d->seqs[i];
            live += s->finish == FINISH_NONE;
            if (rng_below(&rng, 3) == 0) {
                continue;
            }
            if (s->finish == FINISH_NONE && rng_below(&rng, 10) == 0) {
                for (uint32_t b = 0; b < SEQ_MAX_BLOCKS; b++) {
                    owned[s->blocks[b]] = false;
                }
                take_blocks(s, owned, n_blocks, &rng);
                s->computed = 0;
            }
            uint32_t left = s->finish == FINISH_NONE ? s->known - s->computed : 0;
            uint32_t take = left == 0 ? 0 : (uint32_t)rng_between(&rng, 1, left);
            if (take > 1 && rng_below(&rng, 2) == 0) {
                take = left;
            }
            pads[n] = (uint32_t)(rng_below(&rng, 3) == 0 ? rng_between(&rng, 1, 5) : 0);
            if (take == 0 && pads[n] == 0) {
                pads[n] = 1; /* a finished member of a static batch */
            }
            n_tokens[n] = take;
            which[n++] = i;
        }
        if (live == 0) {
            break;
        }
        if (n > 0) {
            driver_step(d, e, which, n_tokens, pads, n);
        }
    }
}

static void check_random(const char *name, const struct tensor_ops *ops, enum tensor_dtype dtype,
                         enum tensor_dtype kv_dtype, uint32_t n_seqs, uint64_t seed)
{
    static const struct {
        uint32_t threads;
        uint32_t max_rows;
    } ways[] = {{1, 256}, {2, 256}, {3, 7}};
    struct checkpoint c;
    struct driver alone, mixed;
    char what[160];
    checkpoint_open(&c, name);
    driver_init(&alone, n_seqs, c.config.n_vocab, seed);
    ask_for_more(&alone);
    struct exec_model *m = open_model(&c, ops, dtype, kv_dtype, 1, 256, &alone);
    driver_run_alone(&alone, exec_model_executor(m));
    exec_model_destroy(m);
    for (size_t w = 0; w < sizeof ways / sizeof ways[0]; w++) {
        driver_init(&mixed, n_seqs, c.config.n_vocab, seed);
        ask_for_more(&mixed);
        m = open_model(&c, ops, dtype, kv_dtype, ways[w].threads, ways[w].max_rows, &mixed);
        run_random(&mixed, exec_model_executor(m), seed + w);
        snprintf(what, sizeof what,
                 "%s on %s, %s, KV in %s, %u threads, pieces of %u rows, seed %llu", name, ops->isa,
                 tensor_dtype_name(dtype), tensor_dtype_name(kv_dtype), ways[w].threads,
                 ways[w].max_rows, (unsigned long long)seed);
        driver_compare(&alone, &mixed, what);
        driver_deinit(&mixed);
        exec_model_destroy(m);
    }
    driver_deinit(&alone);
    checkpoint_close(&c);
}

static void test_any_schedule_gives_the_same_bits(void **state)
{
    static const enum tensor_dtype types[][2] = {{TENSOR_F32, TENSOR_F32},
                                                 {TENSOR_BF16, TENSOR_F32},
                                                 {TENSOR_BF16, TENSOR_BF16},
                                                 {TENSOR_INT8, TENSOR_F32}};
    const struct tensor_ops *isas[MAX_ISAS];
    uint32_t n_isas = tensor_available(isas, MAX_ISAS);
    (void)state;
    for (size_t i = 0; i < N_TINY; i++) {
        for (uint32_t k = 0; k < n_isas; k++) {
            for (size_t t = 0; t < sizeof types / sizeof types[0]; t++) {
                check_random(tiny_models[i], isas[k], types[t][0], types[t][1], N_SEQS, 100 + i);
            }
        }
        print_message("%s: %u instruction sets\n", tiny_models[i], n_isas);
    }
}

/* Prefill at once, in pieces of every size, and one by one: the logits of every position. */
static void test_prefill_in_pieces(void **state)
{
    const struct tensor_ops *isas[MAX_ISAS];
    uint32_t n_isas = tensor_available(isas, MAX_ISAS);
    static const char *const names[] = {"gpt2", "gpt-neo-window17", "llama-gqa"};
    static const uint32_t pieces[] = {1, 2, 3, 15, 16, 17, 31, 50};
    (void)state;
    for (size_t way = 0; way < 2 * 3 * (size_t)n_isas; way++) {
        size_t i = way / 2;
        enum tensor_dtype kv_dtype = way % 2 == 0 ? TENSOR_F32 : TENSOR_BF16;
        struct checkpoint c;
        struct error err = ERROR_INIT;
        int32_t ids[50];
        checkpoint_open(&c, names[i % 3]);
        size_t floats = 50 * (size_t)c.config.n_vocab;
        float *want = NULL;
        struct rng rng = rng_stream(5, i);
        for (uint32_t t = 0; t < 50; t++) {
            ids[t] = (int32_t)rng_below(&rng, c.config.n_vocab);
        }
        for (size_t p = sizeof pieces / sizeof pieces[0]; p-- > 0;) {
            struct exec_model *m =
                open_model(&c, isas[i / 3], (enum tensor_dtype)(i % TENSOR_DTYPES), kv_dtype,
                           1 + p % 2, pieces[p], NULL);
            float *got = calloc(floats, sizeof *got);
            assert_non_null(got);
            must(exec_model_logits(m, ids, 50, got, &err), &err);
            if (want == NULL) {
                want = got;
            } else {
                if (memcmp(want, got, floats * sizeof *got) != 0) {
                    fail_msg("%s on %s: pieces of %u rows differ from one of 50", names[i % 3],
                             isas[i / 3]->isa, pieces[p]);
                }
                free(got);
            }
            exec_model_destroy(m);
        }
        free(want);
        checkpoint_close(&c);
    }
}

/* NaN and infinity, as f32 and as bf16. */
static void soil(const struct kv *kv)
{
    static const uint16_t rubbish[] = {0x7FC0, 0x7FC0, 0, 0x7F80};
    for (size_t i = 0; i + sizeof rubbish <= kv->bytes; i += sizeof rubbish) {
        memcpy(kv->data + i, rubbish, sizeof rubbish);
    }
}

/* What an older owner left in a block, even NaN, is never seen. */
static void test_stale_nan_is_never_read(void **state)
{
    const struct tensor_ops *isas[MAX_ISAS];
    uint32_t n_isas = tensor_available(isas, MAX_ISAS);
    (void)state;
    for (uint32_t way = 0; way < 2 * n_isas * (uint32_t)N_TINY; way++) {
        uint32_t k = way / 2;
        enum tensor_dtype kv_dtype = way % 2 == 0 ? TENSOR_F32 : TENSOR_BF16;
        struct checkpoint c;
        struct error err = ERROR_INIT;
        struct network net;
        struct kv kv;
        struct pool *pool;
        struct forward *f;
        const uint32_t blocks[] = {2, 0, 3};
        checkpoint_open(&c, tiny_models[k / n_isas]);
        must(pool_create(1, &pool, &err), &err);
        must(kv_init(&kv, &c.config, kv_dtype, 4, &err), &err);
        must(network_load(&net, &c.config, c.weights, isas[k % n_isas],
                          (enum tensor_dtype)(k % TENSOR_DTYPES), pool, 48, NULL, &err),
             &err);
        must(forward_create(&net, &kv, pool, 40, &f, &err), &err);
        float *first = calloc(c.config.n_vocab, sizeof *first);
        assert_non_null(first);
        for (uint32_t pass = 0; pass < 2; pass++) {
            struct forward_row rows[37];
            for (uint32_t t = 0; t < 37; t++) {
                rows[t] = (struct forward_row){(int32_t)(t * 7 % 131), t, blocks};
            }
            forward_layers(f, rows, 37);
            forward_select(f, 36, 0);
            size_t stride;
            const float *logits = forward_head(f, 1, &stride);
            assert_true(isfinite(logits[0]));
            if (pass == 0) {
                memcpy(first, logits, c.config.n_vocab * sizeof *first);
                soil(&kv);
            } else if (memcmp(first, logits, c.config.n_vocab * sizeof *first) != 0) {
                fail_msg("%s on %s: old block contents change the logits", tiny_models[k / n_isas],
                         isas[k % n_isas]->isa);
            }
        }
        free(first);
        forward_destroy(f);
        network_deinit(&net);
        kv_deinit(&kv);
        pool_destroy(pool);
        checkpoint_close(&c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_prefill_in_pieces),
                                       cmocka_unit_test(test_stale_nan_is_never_read),
                                       cmocka_unit_test(test_any_schedule_gives_the_same_bits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
