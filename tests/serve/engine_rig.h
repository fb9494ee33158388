/*
 * engine_rig.h - an engine thread with an executor that can be slowed, held at a gate and made to
 * fail, and the network thread's side of it: the test's own thread.
 */
#ifndef LLMSCHED_TESTS_SERVE_ENGINE_RIG_H
#define LLMSCHED_TESTS_SERVE_ENGINE_RIG_H

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <time.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/monotime.h"
#include "base/rng.h"
#include "sched/registry.h"
#include "serve/engine_thread.h"
#include "sim/exec_sim.h"
#include "test.h"

#define RIG_VOCAB   1000
#define RIG_WAIT_MS 60000 /* only a hang takes that long */

struct rig {
    struct engine_thread *thread;
    struct backend *backend;
    struct prom *prom;
    struct executor *given; /* NULL: the simulator */

    struct exec_sim sim;
    struct executor executor;
    _Atomic uint64_t step_ns; /* each step sleeps so long */
    _Atomic uint64_t n_steps; /* begun */
    _Atomic bool fails;
    pthread_mutex_t gate; /* held by the test: loading, and a step at its end, wait */
    const char *load_failure;

    uint32_t n_ended;
};

static enum status rig_submit(void *self, const struct exec_step *step, struct error *err)
{
    struct rig *r = self;
    atomic_fetch_add(&r->n_steps, 1);
    if (atomic_load(&r->fails)) {
        return error_set(err, STATUS_IO, -1, "the device is gone");
    }
    return r->sim.executor.submit(r->sim.executor.self, step, err);
}

static enum status rig_poll(void *self, struct exec_result *result, struct error *err)
{
    struct rig *r = self;
    uint64_t ns = atomic_load(&r->step_ns);
    if (ns > 0) {
        nanosleep(&(struct timespec){.tv_nsec = (long)ns}, NULL);
    }
    pthread_mutex_lock(&r->gate);
    pthread_mutex_unlock(&r->gate);
    return r->sim.executor.poll(r->sim.executor.self, result, err);
}

static enum status rig_load(void *self, struct executor **out, struct error *err)
{
    struct rig *r = self;
    pthread_mutex_lock(&r->gate);
    pthread_mutex_unlock(&r->gate);
    if (r->load_failure != NULL) {
        return error_set(err, STATUS_BAD_MODEL, -1, "%s", r->load_failure);
    }
    *out = r->given != NULL ? r->given : &r->executor;
    return STATUS_OK;
}

static inline struct exec_sim_config rig_sim_config(void)
{
    return (struct exec_sim_config){.vocab = RIG_VOCAB,
                                    .info = {.max_model_len = 20000,
                                             .token_budget = 256,
                                             .block_tokens = 16,
                                             .total_blocks = 2048,
                                             .can_mix = true}};
}

static inline struct engine_thread_config rig_config(struct rig *r, const char *policy)
{
    struct error err = ERROR_INIT;
    struct engine_thread_config c = {.total_blocks = 2048,
                                     .block_tokens = 16,
                                     .max_model_len = 20000,
                                     .max_seqs = 32,
                                     .max_jobs = 256,
                                     .load = rig_load,
                                     .load_self = r};
    assert_ok(registry_find(policy, &c.policy, &err));
    c.params = policy_params_default(c.policy);
    return c;
}

/* Before rig_start: fields of r that the load or the steps look at may be set after it. */
static inline void rig_init(struct rig *r)
{
    memset(r, 0, sizeof *r);
    struct exec_sim_config config = rig_sim_config();
    exec_sim_init(&r->sim, &config);
    r->executor = r->sim.executor;
    r->executor.submit = rig_submit;
    r->executor.poll = rig_poll;
    r->executor.self = r;
    pthread_mutex_init(&r->gate, NULL);
}

static inline void rig_start(struct rig *r, struct engine_thread_config config)
{
    struct error err = ERROR_INIT;
    assert_ok(prom_create(&(struct prom_config){.model_name = "sim",
                                                .total_blocks = config.total_blocks,
                                                .block_tokens = config.block_tokens,
                                                .max_model_len = config.max_model_len,
                                                .max_jobs = config.max_jobs},
                          &r->prom, &err));
    config.prom = r->prom;
    assert_ok(engine_thread_start(&config, &r->thread, &err));
    r->backend = engine_thread_backend(r->thread);
}

static inline void rig_stop(struct rig *r)
{
    engine_thread_stop(r->thread);
    prom_destroy(r->prom);
    pthread_mutex_destroy(&r->gate);
}

/* Sleeps until the backend has news. */
static inline void rig_sleep(const struct rig *r)
{
    struct pollfd p = {.fd = r->backend->fd, .events = POLLIN};
    int n = poll(&p, 1, RIG_WAIT_MS);
    if (n < 1 && errno != EINTR) {
        fail_msg("no news within %d s: a wake-up was lost", RIG_WAIT_MS / 1000);
    }
}

static inline struct job *rig_take(struct rig *r)
{
    return r->backend->take(r->backend->self);
}

static inline void rig_await_state(struct rig *r, enum backend_state wanted)
{
    enum backend_state s;
    while ((s = r->backend->state(r->backend->self)) != wanted) {
        if (s == BACKEND_FAILED) {
            fail_msg("failed: %s", r->backend->error(r->backend->self));
        }
        rig_sleep(r);
        assert_null(rig_take(r)); /* makes the descriptor quiet */
    }
}

/* The next job with news; waits for it. */
static inline struct job *rig_await_news(struct rig *r)
{
    struct job *job;
    while ((job = rig_take(r)) == NULL) {
        rig_sleep(r);
    }
    r->n_ended += job_end_of(job) != JOB_LIVE;
    return job;
}

static inline void rig_await_end(struct rig *r, const struct job *job)
{
    while (job_end_of(job) == JOB_LIVE) {
        rig_await_news(r);
    }
}

static inline struct job *rig_job(uint64_t key, uint32_t n_prompt, uint32_t max_new_tokens)
{
    struct error err = ERROR_INIT;
    int32_t *ids = mem_alloc(n_prompt, sizeof *ids);
    assert_non_null(ids);
    for (uint32_t i = 0; i < n_prompt; i++) {
        ids[i] = (int32_t)(rng_at(key, i) % RIG_VOCAB);
    }
    struct job_prompt *prompt;
    struct job *job;
    assert_ok(job_prompt_create(ids, n_prompt, &prompt, &err));
    assert_ok(
        job_create(prompt, &(struct job_options){.max_new_tokens = max_new_tokens}, &job, &err));
    job->request.sample_key = key;
    job->request.deadline_ns = TIME_NEVER;
    return job;
}

static inline void rig_submit_job(struct rig *r, struct job *job)
{
    r->backend->submit(r->backend->self, job);
}

static inline struct job *rig_new(struct rig *r, uint64_t key, uint32_t n_prompt, uint32_t n_new)
{
    struct job *job = rig_job(key, n_prompt, n_new);
    rig_submit_job(r, job);
    return job;
}

static inline void rig_cancel(struct rig *r, struct job *job)
{
    r->backend->cancel(r->backend->self, job);
}

static inline uint32_t rig_waiting(struct rig *r)
{
    return r->backend->waiting(r->backend->self);
}

/* Every token so far is the one that key and position determine. */
static inline void rig_check_tokens(const struct job *job)
{
    uint32_t n = job_tokens(job);
    assert_true(n <= job->request.max_new_tokens);
    for (uint32_t i = 0; i < n; i++) {
        int32_t want =
            exec_sim_token(job->request.sample_key, job->request.prompt_tokens + i, RIG_VOCAB);
        if (job->tokens[i] != want) {
            fail_msg("token %u is %d, expected %d", i, job->tokens[i], want);
        }
    }
}

/* The value of the first sample whose line begins with `start`. */
static inline double rig_metric(const struct rig *r, const char *start)
{
    struct strbuf text = {0};
    prom_write(r->prom, &text);
    const char *at = strbuf_text(&text);
    size_t n = strlen(start);
    while (at != NULL && strncmp(at, start, n) != 0) {
        at = strchr(at, '\n');
        at = at != NULL ? at + 1 : NULL;
    }
    if (at == NULL) {
        fail_msg("no sample %s", start);
        abort();
    }
    const char *end = strchr(at, '\n');
    while (end[-1] != ' ') {
        end--;
    }
    double value = strtod(end, NULL);
    strbuf_deinit(&text);
    return value;
}

#endif
