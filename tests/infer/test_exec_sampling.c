/*
 * test_exec_sampling.c - what a request may ask of the executor beside tokens: stop ids, a minimum
 * length, rules, and log-probabilities of output and prompt, against logits computed apart from it.
 * That none of it depends on the schedule: test_infer_invariance.c.
 */
#include <math.h>

#include "infer_test.h"

#include "infer/sampler.h"

struct bench {
    struct checkpoint c;
    struct driver d;
    struct exec_model *m;
    struct executor *e;
};

static void bench_open(struct bench *b, const char *model, uint32_t n_seqs, uint64_t seed)
{
    struct error err = ERROR_INIT;
    checkpoint_open(&b->c, model);
    driver_init(&b->d, n_seqs, b->c.config.n_vocab, seed);
    must(exec_model_create(&(struct exec_model_options){.config = &b->c.config,
                                                        .weights = b->c.weights,
                                                        .n_threads = 2,
                                                        .kv_blocks = SEQ_MAX * SEQ_MAX_BLOCKS,
                                                        .max_rows = 16,
                                                        .tap = {driver_tap, &b->d}},
                           &b->m, &err),
         &err);
    b->e = exec_model_executor(b->m);
}

static void bench_close(struct bench *b)
{
    exec_model_destroy(b->m);
    driver_deinit(&b->d);
    checkpoint_close(&b->c);
}

/* Sequence i from its prompt to its end, alone; returns its output. */
static const int32_t *run(struct bench *b, uint32_t i)
{
    struct seq_state *s = &b->d.seqs[i];
    s->known = s->request.prompt_tokens;
    s->computed = 0;
    s->finish = FINISH_NONE;
    while (s->finish == FINISH_NONE) {
        driver_step(&b->d, b->e, &i, &(uint32_t){s->known - s->computed}, &(uint32_t){0}, 1);
    }
    return s->tokens + s->request.prompt_tokens;
}

static uint32_t output_tokens(const struct bench *b, uint32_t i)
{
    return b->d.seqs[i].known - b->d.seqs[i].request.prompt_tokens;
}

static uint32_t first_of(const int32_t *tokens, uint32_t n, int32_t id)
{
    uint32_t at = 0;
    while (at < n && tokens[at] != id) {
        at++;
    }
    return at;
}

/* ---------------------------------------------------------------- ends */

static void test_stop_ids(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b, "llama-gqa", 1, 31);
    struct seq_state *s = &b.d.seqs[0];
    s->request.max_new_tokens = 30;
    s->request.sampling = (struct sampling){.temperature = 3.0f, .top_p = 1.0f};
    int32_t free_run[30], stop_ids[2] = {-1};
    memcpy(free_run, run(&b, 0), sizeof free_run);
    assert_int_equal(s->finish, FINISH_LENGTH);
    s->request.stop_ids = stop_ids;
    s->request.n_stop_ids = 2;
    for (uint32_t i = 0; i < 30; i++) {
        stop_ids[1] = free_run[i];
        uint32_t at = first_of(free_run, 30, free_run[i]);
        for (uint32_t ignore_eos = 0; ignore_eos < 2; ignore_eos++) {
            s->request.ignore_eos = ignore_eos == 1; /* of stop ids it says nothing */
            const int32_t *output = run(&b, 0);
            assert_int_equal(s->finish, FINISH_STOP);
            assert_int_equal(output_tokens(&b, 0), at + 1);
            assert_memory_equal(output, free_run, (at + 1) * sizeof *output);
        }
        /* The last allowed token is a stop token too: that is the reason. */
        s->request.max_new_tokens = at + 1;
        (void)run(&b, 0);
        assert_int_equal(s->finish, FINISH_STOP);
        s->request.max_new_tokens = 30;
    }
    bench_close(&b);
}

/* The greedy run meets its stop token early; with a minimum it says something else until then. */
static void test_minimum_length(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b, "gpt2", 1, 32);
    struct seq_state *s = &b.d.seqs[0];
    s->request.max_new_tokens = 20;
    s->request.sampling = (struct sampling){0};
    s->request.ignore_eos = true;
    const int32_t stop_id = run(&b, 0)[0];
    s->request.stop_ids = &stop_id;
    s->request.n_stop_ids = 1;
    (void)run(&b, 0);
    assert_int_equal(output_tokens(&b, 0), 1);
    for (uint32_t min = 1; min <= 20; min++) {
        s->request.min_new_tokens = min;
        const int32_t *output = run(&b, 0);
        uint32_t n = output_tokens(&b, 0);
        assert_in_range(first_of(output, n, stop_id), min, 20);
        assert_true(n > min || (n == 20 && s->finish == FINISH_LENGTH));
        assert_true((first_of(output, n, stop_id) < n) == (s->finish == FINISH_STOP));
    }
    bench_close(&b);
}

/* The executor's tokens are sampler_next of its raw logits and the sequence so far. */
static void test_rules_reach_the_sampler(void **state)
{
    (void)state;
    static const struct token_bias bias[] = {{7, 3.0f}, {50, -100.0f}, {51, 1.0f}};
    struct bench b;
    struct sampler_scratch scratch;
    struct error err = ERROR_INIT;
    bench_open(&b, "llama-llama3", 8, 33);
    must(sampler_scratch_init(&scratch, b.c.config.n_vocab, &err), &err);
    uint32_t changed = 0;
    for (uint32_t i = 0; i < 8; i++) {
        struct seq_state *s = &b.d.seqs[i];
        struct sampling *p = &s->request.sampling;
        p->bias = bias;
        p->n_bias = i % 2 == 0 ? 3 : 0;
        p->repetition_penalty = i % 4 < 2 ? 1.5f : 0.0f;
        p->frequency_penalty = i % 3 == 0 ? 0.7f : 0.0f;
        p->presence_penalty = i == 7 ? 2.0f : 0.0f;
        p->min_p = i > 5 ? 0.2f : 0.0f;
        (void)run(&b, i);
        for (uint32_t n = s->request.prompt_tokens; n < s->known; n++) {
            const float *logits = s->logits + (size_t)(n - 1) * b.d.n_vocab;
            const struct sampler_seq seq = {.request = &s->request,
                                            .tokens = s->tokens,
                                            .n_tokens = n,
                                            .eos_ids = b.c.config.eos_ids,
                                            .n_eos = b.c.config.n_eos};
            assert_int_equal(s->tokens[n], sampler_next(logits, b.d.n_vocab, &seq, &scratch));
            struct request plain = s->request;
            plain.sampling = (struct sampling){
                .temperature = p->temperature, .top_k = p->top_k, .top_p = p->top_p};
            struct sampler_seq without = seq;
            without.request = &plain;
            changed += s->tokens[n] != sampler_next(logits, b.d.n_vocab, &without, &scratch);
        }
    }
    assert_true(changed > 10);
    sampler_scratch_deinit(&scratch);
    bench_close(&b);
}

/* ---------------------------------------------------------------- log-probabilities */

/* Row `row` against logits [V] of the position before `id`: the definition, ranks by counting. */
static void check_row(const float *logits, uint32_t n_vocab, const struct logprob_store *store,
                      uint32_t row, int32_t id)
{
    double sum = 0.0;
    for (uint32_t i = 0; i < n_vocab; i++) {
        sum += exp((double)logits[i]);
    }
    const struct token_prob *chosen = &store->chosen[row];
    assert_int_equal(chosen->id, id);
    assert_true(fabs((double)chosen->logprob - ((double)logits[id] - log(sum))) < 1e-5);
    for (uint32_t k = 0; k < store->n_top; k++) {
        const struct token_prob *t = &store->top[(size_t)row * store->n_top + k];
        uint32_t better = 0;
        assert_in_range(t->id, 0, n_vocab - 1);
        for (uint32_t i = 0; i < n_vocab; i++) {
            better += logits[i] > logits[t->id] || (logits[i] == logits[t->id] && (int)i < t->id);
        }
        assert_int_equal(better, k);
        assert_true(fabs((double)t->logprob - ((double)logits[t->id] - log(sum))) < 1e-5);
    }
}

static void check_sequence(struct bench *b, const struct seq_state *s)
{
    struct error err = ERROR_INIT;
    uint32_t n_vocab = b->d.n_vocab;
    float *logits = calloc((size_t)s->known * n_vocab, sizeof *logits);
    assert_non_null(logits);
    must(exec_model_logits(b->m, s->tokens, s->known, logits, &err), &err);
    uint32_t prompt_tokens = s->request.prompt_tokens;
    uint32_t first = s->store.prompt ? 1 : prompt_tokens;
    for (uint32_t at = first; at < s->known; at++) {
        uint32_t row = s->store.prompt ? at : at - prompt_tokens;
        check_row(logits + (size_t)(at - 1) * n_vocab, n_vocab, &s->store, row, s->tokens[at]);
    }
    if (s->store.prompt) {
        assert_int_equal(s->chosen[0].id, s->tokens[0]);
        assert_true(isnan(s->chosen[0].logprob));
        for (uint32_t k = 0; k < s->store.n_top; k++) {
            assert_int_equal(s->top[k].id, -1);
        }
    }
    free(logits);
}

/* Of output and prompt, of raw logits whatever the rules, on every architecture. */
static void test_rows_are_log_softmax(void **state)
{
    (void)state;
    static const struct token_bias bias = {40, 30.0f};
    for (size_t k = 0; k < N_TINY; k++) {
        struct bench b;
        bench_open(&b, tiny_models[k], 6, 34 + k);
        for (uint32_t i = 0; i < 6; i++) {
            struct seq_state *s = &b.d.seqs[i];
            driver_want_logprobs(s, i % (SEQ_MAX_TOP + 1), i % 2 == 0);
            s->request.sampling.bias = &bias;
            s->request.sampling.n_bias = i == 4;
            (void)run(&b, i);
            check_sequence(&b, s);
        }
        assert_int_equal(b.d.seqs[4].tokens[b.d.seqs[4].request.prompt_tokens], 40);
        bench_close(&b);
    }
}

static bool is_same(const struct token_prob *a, const struct token_prob *b)
{
    return a->id == b->id && a->logprob == b->logprob;
}

/* Nobody else's rows are touched, and a row is written once: after a preemption, which computes
 * everything again, marks put into the rows that are out stay. */
static void test_rows_are_written_once(void **state)
{
    (void)state;
    struct bench b;
    const struct token_prob mark = {-7, 7.0f};
    bench_open(&b, "gpt-neo", 3, 35);
    for (uint32_t i = 0; i < 3; i++) {
        struct seq_state *s = &b.d.seqs[i];
        s->request.max_new_tokens = 12;
        driver_want_logprobs(s, 2, i != 1);
        for (size_t k = 0; k < SEQ_MAX_TOKENS * SEQ_MAX_TOP; k++) {
            s->chosen[k % SEQ_MAX_TOKENS] = s->top[k] = mark;
        }
    }
    b.d.seqs[2].request.logprobs = NULL;
    for (uint32_t made = 0; made < 12; made++) {
        for (uint32_t i = 0; i < 3; i++) {
            struct seq_state *s = &b.d.seqs[i];
            uint32_t rows = made + (s->store.prompt ? s->request.prompt_tokens : 0);
            if (made % 3 == 2) {
                s->computed = 0;
            }
            driver_step(&b.d, b.e, &i, &(uint32_t){s->known - s->computed}, &(uint32_t){0}, 1);
            for (uint32_t row = 0; row < SEQ_MAX_TOKENS; row++) {
                bool is_new = i < 2 && (made == 0 ? row <= rows : row == rows);
                bool same = is_same(&s->chosen[row], &mark) && is_same(&s->top[2 * row], &mark);
                if (same == is_new) {
                    fail_msg("sequence %u, token %u: row %u was%s written", i, made, row,
                             is_new ? " not" : "");
                }
                s->chosen[row] = s->top[2 * row] = mark;
            }
        }
    }
    bench_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stop_ids), cmocka_unit_test(test_minimum_length),
        cmocka_unit_test(test_rules_reach_the_sampler), cmocka_unit_test(test_rows_are_log_softmax),
        cmocka_unit_test(test_rows_are_written_once)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
