/*
 * test_engine_thread_model.c - a real, tiny model behind the engine's thread: what a request gets
 * does not depend on what else runs. Tokens and log-probabilities alone, against the same requests
 * all at once, among others that are cancelled, under every policy.
 */
#include "serve/engine_rig.h"

#include "infer/exec_model.h"
#include "model/config.h"
#include "model/weights.h"
#include "sanitized.h"

#define N_JOBS       (SANITIZED ? 16 : 64)
#define MAX_LEN      96 /* of the model */
#define TOTAL_BLOCKS 60

struct model {
    struct exec_model *exec;
    struct model_config config;
};

/* On the engine's thread, as the server does it. */
static enum status load_model(void *self, struct executor **out, struct error *err)
{
    struct model *m = self;
    const char *folder = TEST_DATA_DIR "/tiny/llama-gqa";
    struct weights *weights;
    enum status s = config_open(folder, &m->config, err);
    if (s == STATUS_OK) {
        s = weights_open(folder, &m->config, &weights, err);
    }
    if (s != STATUS_OK) {
        return s;
    }
    s = exec_model_create(
        &(struct exec_model_options){
            .config = &m->config, .weights = weights, .n_threads = 2, .kv_blocks = TOTAL_BLOCKS},
        &m->exec, err);
    weights_close(weights);
    if (s == STATUS_OK) {
        *out = exec_model_executor(m->exec);
    }
    return s;
}

static void start(struct rig *r, struct model *m, const char *policy)
{
    rig_init(r);
    memset(m, 0, sizeof *m);
    struct engine_thread_config c = rig_config(r, policy);
    c.load = load_model;
    c.load_self = m;
    c.total_blocks = TOTAL_BLOCKS;
    c.max_model_len = MAX_LEN;
    rig_start(r, c);
    rig_await_state(r, BACKEND_READY);
}

static void stop(struct rig *r, struct model *m)
{
    rig_stop(r);
    exec_model_destroy(m->exec);
}

/* The same every time it is called with the same key. */
static struct job *make_job(uint64_t key)
{
    struct error err = ERROR_INIT;
    struct rng rng = rng_stream(key, 9);
    uint32_t n_prompt = 1 + (uint32_t)rng_below(&rng, 40);
    int32_t *ids = mem_alloc(n_prompt, sizeof *ids);
    assert_non_null(ids);
    for (uint32_t i = 0; i < n_prompt; i++) {
        ids[i] = (int32_t)rng_below(&rng, 131);
    }
    struct job_prompt *prompt;
    struct job *job;
    assert_ok(job_prompt_create(ids, n_prompt, &prompt, &err));
    bool logprobs = rng_below(&rng, 2) == 0;
    assert_ok(job_create(prompt,
                         &(struct job_options){.max_new_tokens = 20 + (uint32_t)rng_below(&rng, 36),
                                               .want_logprobs = logprobs,
                                               .n_top = logprobs ? (uint32_t)rng_below(&rng, 4) : 0,
                                               .prompt_logprobs = rng_below(&rng, 2) == 0},
                         &job, &err));
    job->request.sample_key = key;
    job->request.deadline_ns = TIME_NEVER;
    job->request.sampling = (struct sampling){
        .temperature = rng_below(&rng, 4) == 0 ? 0.0f : 0.9f,
        .top_p = 0.95f,
        .repetition_penalty = rng_below(&rng, 2) == 0 ? 1.0f : 1.2f,
    };
    return job;
}

static void compare_jobs(const struct job *want, const struct job *got)
{
    assert_int_equal(job_end_of(got), JOB_FINISHED);
    assert_int_equal(got->reason, want->reason);
    uint32_t n = job_tokens(want);
    assert_int_equal(job_tokens(got), n);
    assert_memory_equal(got->tokens, want->tokens, n * sizeof *got->tokens);
    const struct logprob_store *a = want->request.logprobs;
    const struct logprob_store *b = got->request.logprobs;
    if (a == NULL) {
        return;
    }
    size_t rows = (size_t)n + (a->prompt ? want->request.prompt_tokens : 0);
    assert_memory_equal(a->chosen, b->chosen, rows * sizeof *a->chosen);
    if (a->n_top > 0) {
        assert_memory_equal(a->top, b->top, rows * a->n_top * sizeof *a->top);
    }
}

static void run_together(struct rig *r, struct job **want)
{
    struct job *jobs[N_JOBS];
    struct job *others[N_JOBS];
    for (uint64_t i = 0; i < N_JOBS; i++) {
        jobs[i] = make_job(i);
        others[i] = make_job(1000 + i);
        rig_submit_job(r, jobs[i]);
        rig_submit_job(r, others[i]);
    }
    for (uint32_t i = 0; i < N_JOBS; i++) {
        rig_await_end(r, jobs[i]);
        rig_cancel(r, others[i]);
    }
    for (uint32_t i = 0; i < N_JOBS; i++) {
        rig_await_end(r, others[i]);
        compare_jobs(want[i], jobs[i]);
        job_destroy(jobs[i]);
        job_destroy(others[i]);
    }
}

static void test_same_text_alone_and_among_others(void **state)
{
    (void)state;
    struct rig r;
    struct model m;
    struct job *want[N_JOBS];
    start(&r, &m, "continuous");
    for (uint64_t i = 0; i < N_JOBS; i++) {
        want[i] = make_job(i);
        rig_submit_job(&r, want[i]);
        rig_await_end(&r, want[i]);
        assert_int_equal(job_end_of(want[i]), JOB_FINISHED);
    }
    stop(&r, &m);
    for (uint32_t i = 0; i < registry_count(); i++) {
        start(&r, &m, registry_at(i)->name);
        run_together(&r, want);
        print_message("%s: %.0f preemptions\n", registry_at(i)->name,
                      rig_metric(&r, "vllm:num_preemptions_total"));
        stop(&r, &m);
    }
    for (uint32_t i = 0; i < N_JOBS; i++) {
        job_destroy(want[i]);
    }
}

int main(void)
{
    log_set_level(LOG_QUIET);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_text_alone_and_among_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
