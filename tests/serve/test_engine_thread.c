/*
 * test_engine_thread.c - the engine behind its two boxes, driven as the network thread drives it.
 * The executor is the simulator (engine_rig.h); nothing here depends on how fast a step is.
 */
#include "serve/engine_rig.h"

#include <unistd.h>

#include "sanitized.h"

#define N_STORM (SANITIZED ? 1000 : 5000)

static struct rig r;

static void begin(const char *policy)
{
    rig_init(&r);
    rig_start(&r, rig_config(&r, policy));
    rig_await_state(&r, BACKEND_READY);
}

static void await_steps(uint64_t n)
{
    while (atomic_load(&r.n_steps) < n) {
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    }
}

static void test_one_request(void **state)
{
    (void)state;
    begin("continuous");
    assert_int_equal(r.backend->limits.kv_tokens, 2048 * 16);
    assert_int_equal(r.backend->limits.max_seqs, 32);
    struct job *job = rig_new(&r, 7, 40, 25);
    uint32_t seen = 0;
    while (job_end_of(job) == JOB_LIVE) {
        assert_ptr_equal(rig_await_news(&r), job);
        assert_true(job_tokens(job) >= seen);
        seen = job_tokens(job);
    }
    assert_int_equal(job_end_of(job), JOB_FINISHED);
    assert_int_equal(job->reason, FINISH_LENGTH);
    assert_int_equal(seen, 25);
    rig_check_tokens(job);
    assert_int_equal(rig_waiting(&r), 0);
    assert_null(rig_take(&r));
    job_destroy(job);
    rig_stop(&r);
}

/* ---- a storm: everything at once, against every policy ---- */

struct fate {
    struct job *job;
    uint32_t cancel_at; /* tokens seen; UINT32_MAX: never */
    uint32_t n_ends;
};

struct tally {
    uint32_t stop;
    uint32_t length;
    uint32_t abort;
    uint32_t n_late_cancels;
};

static struct fate fates[N_STORM];

static void storm_submit(struct fate *f, struct rng *rng)
{
    struct job *job =
        rig_job(rng_next(rng), 1 + (uint32_t)rng_below(rng, 100), 1 + (uint32_t)rng_below(rng, 40));
    job->owner = f;
    job->request.sim_output_tokens = rng_below(rng, 2) == 0 ? 0 : 1 + (uint32_t)rng_below(rng, 40);
    uint32_t when = (uint32_t)rng_below(rng, 4);
    *f = (struct fate){.job = job,
                       .cancel_at = when == 0   ? 0
                                    : when == 1 ? (uint32_t)rng_below(rng, 41)
                                                : UINT32_MAX};
    job->cancel_as = rng_below(rng, 2) == 0 ? FINISH_STOP : FINISH_NONE;
    rig_submit_job(&r, job);
    if (f->cancel_at == 0) {
        rig_cancel(&r, job);
    }
}

static void storm_end(struct fate *f, struct tally *tally)
{
    struct job *job = f->job;
    f->n_ends++;
    if (job_end_of(job) == JOB_FINISHED) {
        assert_int_equal(job_tokens(job), exec_sim_output_tokens(&job->request));
        tally->stop += job->reason == FINISH_STOP;
        tally->length += job->reason == FINISH_LENGTH;
    } else {
        assert_int_equal(job_end_of(job), JOB_CANCELLED);
        assert_true(f->cancel_at != UINT32_MAX);
        tally->stop += job->cancel_as == FINISH_STOP;
        tally->abort += job->cancel_as == FINISH_NONE;
    }
    if (f->cancel_at != UINT32_MAX && job_end_of(job) == JOB_FINISHED) {
        rig_cancel(&r, job); /* too late, and harmless */
        tally->n_late_cancels++;
    }
    job_destroy(job);
    f->job = NULL;
}

static void storm_news(struct job *job, bool held, struct tally *tally, uint32_t *n_live)
{
    struct fate *f = job->owner;
    assert_int_equal(f->n_ends, 0);
    rig_check_tokens(job);
    uint32_t n = job_tokens(job);
    if (held && n > 0) {
        assert_int_equal(n, exec_sim_output_tokens(&job->request));
    }
    if (job_end_of(job) != JOB_LIVE) {
        storm_end(f, tally);
        (*n_live)--;
    } else if (n >= f->cancel_at) {
        rig_cancel(&r, job);
    }
}

static void run_storm(const char *policy)
{
    struct error err = ERROR_INIT;
    struct rng rng = rng_stream(11, policy[0]);
    struct tally tally = {0};
    const uint32_t max_jobs = 64;
    bool held = strcmp(policy, "continuous") != 0;
    rig_init(&r);
    struct engine_thread_config config = rig_config(&r, policy);
    config.max_jobs = max_jobs;
    config.total_blocks = 64; /* continuous preempts; a batch is cut */
    if (held) {
        assert_ok(policy_params_set(config.policy, &config.params, "timeout", "1ms", &err));
    }
    rig_start(&r, config);
    rig_await_state(&r, BACKEND_READY);
    uint32_t n_sent = 0;
    uint32_t n_live = 0;
    while (n_sent < N_STORM || n_live > 0) {
        uint64_t burst = rng_below(&rng, max_jobs);
        while (burst-- > 0 && n_sent < N_STORM && n_live < max_jobs) {
            storm_submit(&fates[n_sent++], &rng);
            n_live++;
        }
        assert_true(rig_waiting(&r) <= n_live);
        struct job *job = NULL;
        bool any = false;
        while ((job = rig_take(&r)) != NULL) {
            storm_news(job, held, &tally, &n_live);
            any = true;
        }
        if (!any && n_live > 0) {
            rig_sleep(&r);
        }
    }
    for (uint32_t i = 0; i < N_STORM; i++) {
        assert_int_equal(fates[i].n_ends, 1);
    }
    assert_int_equal(rig_waiting(&r), 0);
    assert_null(rig_take(&r));
    print_message("%s: %u stop, %u length, %u abort, %u cancelled too late, %.0f preempted\n",
                  policy, tally.stop, tally.length, tally.abort, tally.n_late_cancels,
                  rig_metric(&r, "vllm:num_preemptions_total"));
    assert_true(tally.stop > 0 && tally.length > 0 && tally.abort > 0 && tally.n_late_cancels > 0);
    r.backend->drain(r.backend->self);
    rig_await_state(&r, BACKEND_STOPPED);
#define SUCCESS(reason)                                                                            \
    "vllm:request_success_total{engine=\"0\",model_name=\"sim\",finished_reason=\"" reason "\"}"
    assert_true(rig_metric(&r, SUCCESS("stop")) == tally.stop);
    assert_true(rig_metric(&r, SUCCESS("length")) == tally.length);
    assert_true(rig_metric(&r, SUCCESS("abort")) == tally.abort);
    assert_true(rig_metric(&r, SUCCESS("error")) == 0);
    assert_true(rig_metric(&r, "vllm:num_requests_running") == 0);
    assert_true(rig_metric(&r, "vllm:num_requests_waiting") == 0);
    assert_true(rig_metric(&r, "vllm:kv_cache_usage_perc") == 0);
    rig_stop(&r);
}

static void test_storm(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < registry_count(); i++) {
        run_storm(registry_at(i)->name);
    }
}

/* ---- cancel ---- */

/* At most the step in flight is computed, none of its tokens is handed over, and the KV blocks are
 * free for the next request, which needs all of them. */
static void test_cancel_during_a_step(void **state)
{
    (void)state;
    rig_init(&r);
    struct engine_thread_config config = rig_config(&r, "continuous");
    config.total_blocks = 4;
    rig_start(&r, config);
    rig_await_state(&r, BACKEND_READY);
    pthread_mutex_lock(&r.gate);
    struct job *first = rig_new(&r, 1, 30, 34);
    await_steps(1);
    struct job *second = rig_new(&r, 2, 30, 34);
    assert_int_equal(rig_waiting(&r), 1);
    rig_cancel(&r, first);
    pthread_mutex_unlock(&r.gate);
    rig_await_end(&r, first);
    assert_int_equal(job_end_of(first), JOB_CANCELLED);
    assert_int_equal(job_tokens(first), 0);
    rig_await_end(&r, second);
    assert_int_equal(job_end_of(second), JOB_FINISHED);
    assert_int_equal(job_tokens(second), 34);
    assert_int_equal(atomic_load(&r.n_steps), 1 + 34);
    job_destroy(first);
    job_destroy(second);
    rig_stop(&r);
}

/* Cancelled before the engine has seen it, and while it waits for others: no step is spent. */
static void test_cancel_while_waiting(void **state)
{
    (void)state;
    struct error err = ERROR_INIT;
    rig_init(&r);
    struct engine_thread_config config = rig_config(&r, "naive");
    assert_ok(
        policy_params_parse(config.policy, &config.params, "batch_size=4:timeout=3600", &err));
    rig_start(&r, config);
    rig_await_state(&r, BACKEND_READY);
    for (uint32_t i = 0; i < N_STORM / 5; i++) {
        struct job *job = rig_new(&r, i, 5, 5);
        rig_cancel(&r, job);
        rig_await_end(&r, job);
        assert_int_equal(job_end_of(job), JOB_CANCELLED);
        rig_cancel(&r, job);
        job_destroy(job);
    }
    assert_int_equal(atomic_load(&r.n_steps), 0);
    assert_int_equal(rig_waiting(&r), 0);
    rig_stop(&r);
}

/* ---- the end ---- */

static void test_drain_finishes_everybody(void **state)
{
    (void)state;
    begin("continuous");
    pthread_mutex_lock(&r.gate);
    struct job *jobs[50];
    for (uint32_t i = 0; i < 50; i++) {
        jobs[i] = rig_new(&r, i, 10, 20);
    }
    r.backend->drain(r.backend->self);
    assert_int_equal(r.backend->state(r.backend->self), BACKEND_DRAINING);
    pthread_mutex_unlock(&r.gate);
    for (uint32_t i = 0; i < 50; i++) {
        rig_await_end(&r, jobs[i]);
        assert_int_equal(job_end_of(jobs[i]), JOB_FINISHED);
        rig_check_tokens(jobs[i]);
        job_destroy(jobs[i]);
    }
    rig_await_state(&r, BACKEND_STOPPED);
    assert_string_equal(r.backend->error(r.backend->self), "");
    rig_stop(&r);
}

static void test_abort_ends_everybody(void **state)
{
    (void)state;
    begin("continuous");
    pthread_mutex_lock(&r.gate);
    struct job *jobs[100];
    for (uint32_t i = 0; i < 100; i++) {
        jobs[i] = rig_new(&r, i, 10, 10000);
    }
    await_steps(1);
    r.backend->abort(r.backend->self);
    assert_int_equal(r.backend->state(r.backend->self), BACKEND_DRAINING);
    pthread_mutex_unlock(&r.gate);
    for (uint32_t i = 0; i < 100; i++) {
        rig_await_end(&r, jobs[i]);
        assert_int_equal(job_end_of(jobs[i]), JOB_CANCELLED);
        job_destroy(jobs[i]);
    }
    assert_int_equal(atomic_load(&r.n_steps), 1);
    rig_await_state(&r, BACKEND_STOPPED);
    assert_int_equal(r.n_ended, 100);
    rig_stop(&r);
}

/* Also from sleep, and while the model is loaded. */
static void test_drain_and_abort_without_work(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        rig_init(&r);
        bool loading = i % 2 == 1;
        if (loading) {
            pthread_mutex_lock(&r.gate);
        }
        rig_start(&r, rig_config(&r, "continuous"));
        if (!loading) {
            rig_await_state(&r, BACKEND_READY);
        }
        (i / 2 == 0 ? r.backend->drain : r.backend->abort)(r.backend->self);
        if (loading) {
            assert_int_equal(r.backend->state(r.backend->self), BACKEND_DRAINING);
            pthread_mutex_unlock(&r.gate);
        }
        rig_await_state(&r, BACKEND_STOPPED);
        rig_stop(&r);
    }
}

/* Stopping without taking: the ends show, and nothing is leaked. */
static void test_stop_ends_jobs(void **state)
{
    (void)state;
    begin("continuous");
    atomic_store(&r.step_ns, NS_PER_MS);
    struct job *jobs[20];
    for (uint32_t i = 0; i < 20; i++) {
        jobs[i] = rig_new(&r, i, 10, 15000);
    }
    rig_stop(&r);
    for (uint32_t i = 0; i < 20; i++) {
        assert_int_equal(job_end_of(jobs[i]), JOB_CANCELLED);
        rig_check_tokens(jobs[i]);
        job_destroy(jobs[i]);
    }
}

/* ---- failures ---- */

static void await_failure(void)
{
    while (r.backend->state(r.backend->self) != BACKEND_FAILED) {
        rig_sleep(&r);
        assert_null(rig_take(&r));
    }
}

static void test_load_failure(void **state)
{
    (void)state;
    rig_init(&r);
    r.load_failure = "weights.bin: no such file; check --model";
    rig_start(&r, rig_config(&r, "continuous"));
    await_failure();
    assert_string_equal(r.backend->error(r.backend->self), r.load_failure);
    rig_stop(&r);
}

static void test_broken_promises(void **state)
{
    (void)state;
    rig_init(&r);
    struct engine_thread_config config = rig_config(&r, "continuous");
    config.max_model_len = 20001;
    rig_start(&r, config);
    await_failure();
    assert_contains(r.backend->error(r.backend->self), "20001 tokens");
    rig_stop(&r);

    rig_init(&r);
    config = rig_config(&r, "continuous");
    config.total_blocks = 2049;
    rig_start(&r, config);
    await_failure();
    assert_contains(r.backend->error(r.backend->self), "2049 KV blocks");
    rig_stop(&r);

    struct error err = ERROR_INIT;
    rig_init(&r);
    config = rig_config(&r, "continuous");
    config.max_jobs = 0;
    assert_status(engine_thread_start(&config, &r.thread, &err), STATUS_USAGE);
    config.max_jobs = (1U << 20) + 1;
    assert_status(engine_thread_start(&config, &r.thread, &err), STATUS_USAGE);
    assert_contains(err.message, "1048577");
}

/* One failed step fails its own requests; after the third in a row the backend is FAILED, and so
 * are all others, also those that come later because their caller could not know. */
static void test_executor_failure(void **state)
{
    (void)state;
    rig_init(&r);
    struct engine_thread_config config = rig_config(&r, "continuous");
    config.max_seqs = 1;
    rig_start(&r, config);
    rig_await_state(&r, BACKEND_READY);
    atomic_store(&r.fails, true);
    struct job *job = rig_new(&r, 1, 5, 5);
    rig_await_end(&r, job);
    assert_int_equal(job_end_of(job), JOB_FAILED);
    assert_int_equal(r.backend->state(r.backend->self), BACKEND_READY);
    job_destroy(job);

    atomic_store(&r.fails, false);
    job = rig_new(&r, 1, 5, 5);
    rig_await_end(&r, job);
    assert_int_equal(job_end_of(job), JOB_FINISHED);
    job_destroy(job);

    atomic_store(&r.fails, true);
    struct job *jobs[10];
    for (uint32_t i = 0; i < 10; i++) {
        jobs[i] = rig_new(&r, i, 5, 5);
    }
    for (uint32_t i = 0; i < 10; i++) {
        rig_await_end(&r, jobs[i]);
        assert_int_equal(job_end_of(jobs[i]), JOB_FAILED);
        job_destroy(jobs[i]);
    }
    await_failure();
    assert_string_equal(r.backend->error(r.backend->self), "the device is gone");
    for (uint32_t i = 0; i < 10; i++) {
        jobs[i] = rig_new(&r, i, 5, 5);
    }
    rig_sleep(&r); /* the descriptor says so */
    for (uint32_t i = 0; i < 10; i++) {
        rig_await_end(&r, jobs[i]);
        assert_int_equal(job_end_of(jobs[i]), JOB_FAILED);
        job_destroy(jobs[i]);
    }
    assert_int_equal(rig_waiting(&r), 0);
    rig_stop(&r);
}

static void test_rejection(void **state)
{
    (void)state;
    begin("continuous");
    struct job *job = rig_new(&r, 1, 1, 20000);
    rig_await_end(&r, job);
    assert_int_equal(job_end_of(job), JOB_REJECTED);
    assert_int_equal(job->reason, REJECT_TOO_LONG);
    assert_int_equal(rig_waiting(&r), 0);
    job_destroy(job);
    rig_stop(&r);
}

/* The n-th allocation fails, on either thread: an error or state FAILED, never a crash. */
static void test_refused_memory(void **state)
{
    (void)state;
    enum backend_state s = BACKEND_FAILED;
    for (uint64_t nth = 1; s != BACKEND_READY; nth++) {
        assert_true(nth < 100);
        struct error err = ERROR_INIT;
        rig_init(&r);
        struct engine_thread_config config = rig_config(&r, "continuous");
        mem_fail_at(nth, false);
        if (engine_thread_start(&config, &r.thread, &err) == STATUS_OK) {
            r.backend = engine_thread_backend(r.thread);
            while ((s = r.backend->state(r.backend->self)) == BACKEND_LOADING) {
                rig_sleep(&r);
                assert_null(rig_take(&r));
            }
            if (s == BACKEND_FAILED) {
                assert_contains(r.backend->error(r.backend->self), "no memory");
            }
            engine_thread_stop(r.thread);
        } else {
            assert_int_equal(err.code, STATUS_NO_MEMORY);
        }
        mem_fail_at(0, false);
    }
}

/* ---- sleeping and waking ---- */

static uint64_t process_cpu_ns(void)
{
    struct timespec ts;
    assert_int_equal(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts), 0);
    return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

/* Neither without work nor with a request that waits for its batch is a core burnt. */
static void test_idle_costs_nothing(void **state)
{
    (void)state;
    struct error err = ERROR_INIT;
    rig_init(&r);
    struct engine_thread_config config = rig_config(&r, "naive");
    assert_ok(
        policy_params_parse(config.policy, &config.params, "batch_size=2:timeout=3600", &err));
    rig_start(&r, config);
    rig_await_state(&r, BACKEND_READY);
    struct job *jobs[2];
    for (uint32_t i = 0; i < 2; i++) {
        uint64_t before = process_cpu_ns();
        nanosleep(&(struct timespec){.tv_nsec = 300000000}, NULL);
        uint64_t spent = process_cpu_ns() - before;
        if (spent > 30 * NS_PER_MS) {
            fail_msg("%.1f ms of CPU in 300 ms of idling", (double)spent / NS_PER_MS);
        }
        jobs[i] = rig_new(&r, i, 5, 5);
    }
    for (uint32_t i = 0; i < 2; i++) {
        rig_await_end(&r, jobs[i]);
        assert_int_equal(job_end_of(jobs[i]), JOB_FINISHED);
        job_destroy(jobs[i]);
    }
    rig_stop(&r);
}

/* A network thread that does not listen is woken once, not once per step. */
static void test_few_wake_ups(void **state)
{
    (void)state;
    begin("continuous");
    assert_null(rig_take(&r)); /* quiet */
    struct job *job = rig_new(&r, 3, 5, 200);
    uint64_t n_rings = 0;
    while (atomic_load(&job->is_queued_out) <= 1 + JOB_LIVE) {
        uint64_t count;
        n_rings += read(r.backend->fd, &count, sizeof count) > 0 ? count : 0;
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    }
    uint64_t count;
    n_rings += read(r.backend->fd, &count, sizeof count) > 0 ? count : 0;
    assert_in_range(n_rings, 1, 2); /* that it is READY may ring late */
    assert_ptr_equal(rig_take(&r), job);
    assert_int_equal(job_end_of(job), JOB_FINISHED);
    assert_int_equal(job_tokens(job), 200);
    assert_null(rig_take(&r));
    struct pollfd p = {.fd = r.backend->fd, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 0), 0);
    job_destroy(job);
    rig_stop(&r);
}

/* Requests one at a time, each from sleep: a lost wake-up hangs (rig_sleep fails then). */
static void test_ping_pong(void **state)
{
    (void)state;
    begin("continuous");
    for (uint32_t i = 0; i < N_STORM; i++) {
        struct job *job = rig_new(&r, i, 1 + i % 7, 1 + i % 3);
        rig_await_end(&r, job);
        assert_int_equal(job_end_of(job), JOB_FINISHED);
        rig_check_tokens(job);
        job_destroy(job);
    }
    rig_stop(&r);
}

int main(void)
{
    log_set_level(LOG_QUIET);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_request),
        cmocka_unit_test(test_storm),
        cmocka_unit_test(test_cancel_during_a_step),
        cmocka_unit_test(test_cancel_while_waiting),
        cmocka_unit_test(test_drain_finishes_everybody),
        cmocka_unit_test(test_abort_ends_everybody),
        cmocka_unit_test(test_drain_and_abort_without_work),
        cmocka_unit_test(test_stop_ends_jobs),
        cmocka_unit_test(test_load_failure),
        cmocka_unit_test(test_broken_promises),
        cmocka_unit_test(test_executor_failure),
        cmocka_unit_test(test_rejection),
        cmocka_unit_test(test_refused_memory),
        cmocka_unit_test(test_idle_costs_nothing),
        cmocka_unit_test(test_few_wake_ups),
        cmocka_unit_test(test_ping_pong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
