/* test_synthetic.c - tokens on a timetable: instants, ends, cancels, drain and abort. */
#include "test.h"

#include <poll.h>

#include "base/mem.h"
#include "base/monotime.h"
#include "serve/synthetic.h"

#define TTFT_NS (4 * NS_PER_MS)
#define TPOT_NS (NS_PER_MS / 2)

static struct synthetic *make(void)
{
    struct error err = ERROR_INIT;
    struct synthetic_config config = {.ttft_ns = TTFT_NS, .tpot_ns = TPOT_NS, .max_model_len = 100};
    struct synthetic *s;
    assert_ok(synthetic_create(&config, &s, &err));
    return s;
}

static struct job *make_job(uint64_t key, uint32_t n)
{
    struct error err = ERROR_INIT;
    int32_t *ids = mem_alloc(3, sizeof *ids);
    assert_non_null(ids);
    struct job_prompt *prompt;
    assert_ok(job_prompt_create(ids, 3, &prompt, &err));
    struct job *j;
    struct job_options o = {.max_new_tokens = n, .want_stamps = true};
    assert_ok(job_create(prompt, &o, &j, &err));
    j->request.sample_key = key;
    return j;
}

/* Waits for the descriptor as the loop does. NULL after ms milliseconds of quiet. */
static struct job *look_for(struct backend *b, int ms)
{
    uint64_t until = monotime_now_ns() + (uint64_t)ms * NS_PER_MS;
    struct job *j;
    while ((j = b->take(b->self)) == NULL) {
        struct pollfd p = {.fd = b->fd, .events = POLLIN};
        uint64_t now = monotime_now_ns();
        if (now >= until || poll(&p, 1, (int)((until - now) / NS_PER_MS) + 1) == 0) {
            return NULL;
        }
    }
    return j;
}

static struct job *wait_for(struct backend *b)
{
    struct job *j = look_for(b, 10000);
    if (j == NULL) {
        fail_msg("no news for 10 s");
        abort(); /* for the compiler */
    }
    return j;
}

static void test_timetable(void **state)
{
    (void)state;
    struct synthetic *s = make();
    struct backend *b = synthetic_backend(s);
    enum { N = 150, TOKENS = 20 }; /* more than the heap's first room */
    struct job *jobs[N];
    for (uint32_t i = 0; i < N; i++) {
        jobs[i] = make_job(i / 2, TOKENS);
        uint64_t before = monotime_now_ns();
        b->submit(b->self, jobs[i]);
        assert_true(jobs[i]->request.arrival_ns >= before);
    }
    uint32_t seen[N] = {0};
    uint32_t ended = 0;
    while (ended < N) {
        struct job *j = wait_for(b);
        uint64_t now = monotime_now_ns();
        uint32_t n = job_tokens(j);
        uint32_t i = (uint32_t)j->request.id;
        assert_ptr_equal(jobs[i], j);
        assert_int_equal(n, seen[i] + 1); /* one at a time, however late */
        for (; seen[i] < n; seen[i]++) {
            uint64_t due = j->request.arrival_ns + TTFT_NS + seen[i] * TPOT_NS;
            assert_int_equal(j->due_ns[seen[i]], due);
            assert_true(due <= now); /* never early */
            assert_true((j->tokens[seen[i]] >= 'a' && j->tokens[seen[i]] <= 'z') ||
                        j->tokens[seen[i]] == ' ');
        }
        if (job_end_of(j) != JOB_LIVE) {
            assert_int_equal(job_end_of(j), JOB_FINISHED);
            assert_int_equal(j->reason, FINISH_LENGTH);
            assert_int_equal(n, TOKENS);
            ended++;
        }
    }
    assert_null(b->take(b->self));
    for (uint32_t i = 0; i < N; i += 2) { /* one key, one text; another, another */
        assert_memory_equal(jobs[i]->tokens, jobs[i + 1]->tokens, TOKENS * sizeof(int32_t));
        assert_memory_not_equal(jobs[i]->tokens, jobs[(i + 2) % N]->tokens,
                                TOKENS * sizeof(int32_t));
    }
    for (uint32_t i = 0; i < N; i++) {
        job_destroy(jobs[i]);
    }
    synthetic_destroy(s);
}

static void test_cancel(void **state)
{
    (void)state;
    struct synthetic *s = make();
    struct backend *b = synthetic_backend(s);
    struct job *jobs[3];
    for (uint32_t i = 0; i < 3; i++) {
        jobs[i] = make_job(i, 100000);
        b->submit(b->self, jobs[i]);
    }
    b->cancel(b->self, jobs[1]);
    struct job *j = wait_for(b);
    assert_ptr_equal(j, jobs[1]); /* at once, before anything is due */
    assert_int_equal(job_end_of(j), JOB_CANCELLED);
    assert_int_equal(job_tokens(j), 0);
    b->cancel(b->self, jobs[1]); /* it has ended: harmless */
    b->cancel(b->self, jobs[0]);
    b->cancel(b->self, jobs[0]);
    b->cancel(b->self, jobs[2]);
    for (int i = 0; i < 2; i++) {
        j = wait_for(b);
        assert_int_equal(job_end_of(j), JOB_CANCELLED);
    }
    assert_null(look_for(b, 2 * TTFT_NS / NS_PER_MS)); /* nobody is given out twice */
    for (uint32_t i = 0; i < 3; i++) {
        job_destroy(jobs[i]);
    }
    synthetic_destroy(s);
}

static void test_drain_and_abort(void **state)
{
    (void)state;
    struct synthetic *s = make();
    struct backend *b = synthetic_backend(s);
    struct job *short_job = make_job(1, 2);
    struct job *long_job = make_job(2, 100000);
    b->submit(b->self, short_job);
    b->submit(b->self, long_job);
    b->drain(b->self);
    assert_int_equal(b->state(b->self), BACKEND_DRAINING);
    struct job *j;
    do { /* what runs runs on */
        j = wait_for(b);
    } while (j != short_job || job_end_of(j) == JOB_LIVE);
    assert_int_equal(job_end_of(short_job), JOB_FINISHED);
    assert_int_equal(b->state(b->self), BACKEND_DRAINING);
    b->abort(b->self);
    do {
        j = wait_for(b);
        assert_ptr_equal(j, long_job);
    } while (job_end_of(j) == JOB_LIVE);
    assert_int_equal(job_end_of(long_job), JOB_CANCELLED);
    assert_null(b->take(b->self));
    assert_int_equal(b->state(b->self), BACKEND_STOPPED);
    job_destroy(short_job);
    job_destroy(long_job);
    synthetic_destroy(s);
}

/* Without a job the descriptor says that the state has changed, then is quiet. */
static void test_drain_empty(void **state)
{
    (void)state;
    struct synthetic *s = make();
    struct backend *b = synthetic_backend(s);
    assert_int_equal(b->state(b->self), BACKEND_READY);
    struct pollfd p = {.fd = b->fd, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 0), 0);
    b->drain(b->self);
    assert_int_equal(poll(&p, 1, 1000), 1);
    assert_null(b->take(b->self));
    assert_int_equal(b->state(b->self), BACKEND_STOPPED);
    assert_int_equal(poll(&p, 1, 0), 0);
    synthetic_destroy(s);
}

static void test_no_memory(void **state)
{
    (void)state;
    struct synthetic *s = make();
    struct backend *b = synthetic_backend(s);
    struct job *j = make_job(1, 5);
    mem_fail_at(1, false);
    b->submit(b->self, j); /* the heap cannot grow */
    mem_fail_at(0, false);
    assert_ptr_equal(wait_for(b), j);
    assert_int_equal(job_end_of(j), JOB_FAILED);
    job_destroy(j);
    synthetic_destroy(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_timetable),       cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_drain_and_abort), cmocka_unit_test(test_drain_empty),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
