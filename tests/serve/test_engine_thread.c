/* test_engine_thread.c - the engine behind its two boxes, driven as the network thread drives it.
 * The executor is the simulator (engine_rig.h). */
#include "serve/engine_rig.h"

static void test_one_request(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r);
    rig_start(&r, rig_config(&r, "continuous"));
    rig_await_state(&r, BACKEND_READY);
    assert_int_equal(r.backend->limits.kv_tokens, 2048 * 16);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_request),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
