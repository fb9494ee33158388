/* The recorder: records from events, order asserted, nothing allocated while events arrive. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "timeline.h"

static struct recorder *make(struct request *requests, uint32_t n)
{
    struct recorder *r = NULL;
    make_requests(requests, n, 3, 4);
    assert_int_equal(recorder_create(requests, n, &r, NULL), STATUS_OK);
    return r;
}

static void test_a_life_with_preemption(void **state)
{
    (void)state;
    struct request requests[1];
    struct recorder *r = make(requests, 1);
    const struct record *rec = recorder_record(r, 0);
    mem_step_begin(); /* any allocation from here on aborts */
    send(r, 10, 0, EVENT_ARRIVE, 0, 0);
    send(r, 20, 0, EVENT_SCHEDULED, 7, 0);
    send(r, 30, 0, EVENT_TOKEN, 1, 0);
    send(r, 30, 0, EVENT_DELIVER, 1, 0);
    send(r, 40, 0, EVENT_PREEMPT, 3, 0);
    send(r, 50, 0, EVENT_SCHEDULED, 2, 0);
    send(r, 60, 0, EVENT_TOKEN, 2, 0);
    send(r, 60, 0, EVENT_DELIVER, 2, 0);
    assert_int_equal(recorder_pending(r), 1);
    send(r, 60, 0, EVENT_FINISH, 0, FINISH_STOP);
    mem_step_end();
    assert_int_equal(recorder_pending(r), 0);
    assert_int_equal(recorder_count(r), 1);
    assert_int_equal(rec->arrival_ns, at_ms(10));
    assert_int_equal(rec->scheduled_ns, at_ms(20));
    assert_int_equal(rec->first_deliver_ns, at_ms(30));
    assert_int_equal(rec->last_deliver_ns, at_ms(60));
    assert_int_equal(rec->end_ns, at_ms(60));
    assert_int_equal(rec->batch_size, 7);
    assert_int_equal(rec->preemptions, 1);
    assert_int_equal(rec->input_tokens, 3);
    assert_int_equal(rec->output_tokens, 3);
    assert_int_equal(rec->first_tokens, 1);
    assert_int_equal(rec->status, RECORD_OK);
    assert_int_equal(rec->reason, FINISH_STOP);
    const int32_t expected[3] = {11, 11, 22}; /* each delivery brought its own ids */
    assert_memory_equal(rec->tokens, expected, sizeof expected);
    assert_int_equal(recorder_totals(r)->preemptions, 1);
    assert_int_equal(recorder_totals(r)->first_send_ns, at_ms(10));
    assert_int_equal(recorder_totals(r)->last_end_ns, at_ms(60));
    recorder_destroy(r);
}

static void test_terminal_events(void **state)
{
    (void)state;
    static const struct {
        enum event_kind kind;
        uint32_t reason;
        bool scheduled;
        enum record_status status;
    } cases[] = {{EVENT_FINISH, FINISH_LENGTH, true, RECORD_OK},
                 {EVENT_FINISH, FINISH_ERROR, true, RECORD_FAILED},
                 {EVENT_FAIL, 0, true, RECORD_FAILED},
                 {EVENT_FAIL, 0, false, RECORD_FAILED},
                 {EVENT_REJECT, REJECT_QUEUE_FULL, false, RECORD_REJECTED},
                 {EVENT_CANCEL, 0, true, RECORD_CANCELLED},
                 {EVENT_CANCEL, 0, false, RECORD_CANCELLED}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct request requests[1];
        struct recorder *r = make(requests, 1);
        send(r, 0, 0, EVENT_ARRIVE, 0, 0);
        if (cases[i].scheduled) {
            send(r, 1, 0, EVENT_SCHEDULED, 1, 0);
        }
        send(r, 2, 0, cases[i].kind, 0, cases[i].reason);
        const struct record *rec = recorder_record(r, 0);
        assert_int_equal(rec->status, cases[i].status);
        assert_int_equal(rec->reason, cases[i].reason);
        assert_int_equal(rec->first_deliver_ns, TIME_NEVER);
        assert_int_equal(rec->scheduled_ns, cases[i].scheduled ? at_ms(1) : TIME_NEVER);
        recorder_destroy(r);
    }
}

/* Two deliveries at one instant are one: n_1 counts both. */
static void test_first_delivery_in_two_events(void **state)
{
    (void)state;
    struct request requests[1];
    struct recorder *r = make(requests, 1);
    send(r, 0, 0, EVENT_ARRIVE, 0, 0);
    send(r, 1, 0, EVENT_SCHEDULED, 1, 0);
    send(r, 2, 0, EVENT_TOKEN, 4, 0);
    send(r, 2, 0, EVENT_DELIVER, 1, 0);
    send(r, 2, 0, EVENT_DELIVER, 2, 0);
    send(r, 3, 0, EVENT_DELIVER, 1, 0);
    assert_int_equal(recorder_record(r, 0)->first_tokens, 3);
    assert_int_equal(recorder_record(r, 0)->output_tokens, 4);
    recorder_destroy(r);
}

static void test_totals(void **state)
{
    (void)state;
    struct request requests[1];
    struct recorder *r = make(requests, 1);
    gap(r, 0, 10, false); /* before the first send: not part of the run */
    send(r, 10, 0, EVENT_ARRIVE, 0, 0);
    gap(r, 5, 20, true); /* 10 of its 15 ms lie in the run */
    send(r, 20, 0, EVENT_SCHEDULED, 1, 0);
    step(r, 20, 30,
         (struct step_record){.sequences = 4,
                              .live_sequences = 3,
                              .useful_rows = 5,
                              .pad_rows = 3,
                              .recomputed_rows = 2,
                              .plan_ns = 1000,
                              .kv_blocks_used = 9});
    step(r, 30, 40,
         (struct step_record){.sequences = 1,
                              .live_sequences = 1,
                              .useful_rows = 1,
                              .plan_ns = 500,
                              .kv_blocks_used = 4});
    send(r, 40, 0, EVENT_CANCEL, 0, 0);
    gap(r, 40, 90, false); /* all is over */
    const struct run_totals *t = recorder_totals(r);
    assert_int_equal(t->n_steps, 2);
    assert_int_equal(t->step_ns, 20 * NS_PER_MS);
    assert_int_equal(t->useful_ns, 15 * NS_PER_MS);
    assert_int_equal(t->pad_ns, 3 * NS_PER_MS);
    assert_int_equal(t->recompute_ns, 2 * NS_PER_MS);
    assert_int_equal(t->fill_ns, 10 * NS_PER_MS);
    assert_int_equal(t->idle_ns, 0);
    assert_int_equal(t->plan_ns, 1500);
    assert_int_equal(t->useful_rows, 6);
    assert_int_equal(t->pad_rows, 3);
    assert_int_equal(t->recomputed_rows, 2);
    assert_int_equal(t->sequence_steps, 5);
    assert_int_equal(t->live_sequence_steps, 4);
    assert_int_equal(t->kv_peak_blocks, 9);
    recorder_destroy(r);
}

/* Sequences of events that only a bug can send, as kinds up to EVENT_ARRIVE again. */
struct bad_order {
    const char *what;
    struct {
        uint64_t ms;
        uint64_t id;
        enum event_kind kind;
        uint32_t n;
    } events[6];
    size_t n;
};

static const struct bad_order bad_orders[] = {
    {"unknown request", {{0, 9, EVENT_ARRIVE, 0}}, 1},
    {"scheduled before arrival", {{0, 0, EVENT_SCHEDULED, 1}}, 1},
    {"two arrivals", {{0, 0, EVENT_ARRIVE, 0}, {1, 0, EVENT_ARRIVE, 0}}, 2},
    {"token before scheduled", {{0, 0, EVENT_ARRIVE, 0}, {1, 0, EVENT_TOKEN, 1}}, 2},
    {"scheduled twice",
     {{0, 0, EVENT_ARRIVE, 0}, {1, 0, EVENT_SCHEDULED, 1}, {2, 0, EVENT_SCHEDULED, 1}},
     3},
    {"preempted twice",
     {{0, 0, EVENT_ARRIVE, 0},
      {1, 0, EVENT_SCHEDULED, 1},
      {2, 0, EVENT_PREEMPT, 1},
      {3, 0, EVENT_PREEMPT, 1}},
     4},
    {"more tokens than asked for",
     {{0, 0, EVENT_ARRIVE, 0}, {1, 0, EVENT_SCHEDULED, 1}, {2, 0, EVENT_TOKEN, 5}},
     3},
    {"delivered before computed",
     {{0, 0, EVENT_ARRIVE, 0},
      {1, 0, EVENT_SCHEDULED, 1},
      {2, 0, EVENT_TOKEN, 1},
      {2, 0, EVENT_DELIVER, 2}},
     4},
    {"an empty delivery",
     {{0, 0, EVENT_ARRIVE, 0}, {1, 0, EVENT_SCHEDULED, 1}, {2, 0, EVENT_DELIVER, 0}},
     3},
    {"two ends", {{0, 0, EVENT_ARRIVE, 0}, {1, 0, EVENT_CANCEL, 0}, {2, 0, EVENT_FAIL, 0}}, 3},
    {"finished unscheduled", {{0, 0, EVENT_ARRIVE, 0}, {1, 0, EVENT_FINISH, 0}}, 2},
    {"rejected in a batch",
     {{0, 0, EVENT_ARRIVE, 0}, {1, 0, EVENT_SCHEDULED, 1}, {2, 0, EVENT_REJECT, 0}},
     3},
    {"back in time",
     {{5, 0, EVENT_ARRIVE, 0}, {6, 0, EVENT_SCHEDULED, 1}, {4, 0, EVENT_CANCEL, 0}},
     3},
};

static void test_bad_order_aborts(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad_orders / sizeof bad_orders[0]; i++) {
        const struct bad_order *bad = &bad_orders[i];
        struct request requests[1];
        struct recorder *r = make(requests, 1);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            signal(SIGABRT, SIG_DFL); /* cmocka's handler would report on its own */
            setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
            if (freopen("/dev/null", "w", stderr) == NULL) {
                _exit(3);
            }
            for (size_t k = 0; k < bad->n; k++) {
                send(r, bad->events[k].ms, bad->events[k].id, bad->events[k].kind, bad->events[k].n,
                     0);
            }
            _exit(0);
        }
        int status = 0;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT) {
            fail_msg("\"%s\" did not abort: wait status %d", bad->what, status);
        }
        recorder_destroy(r);
    }
}

static void test_allocation_failures(void **state)
{
    (void)state;
    struct request requests[2];
    make_requests(requests, 2, 3, 4);
    for (uint64_t n = 1;; n++) {
        struct recorder *r = NULL;
        struct error err = ERROR_INIT;
        mem_fail_at(n, false);
        enum status s = recorder_create(requests, 2, &r, &err);
        mem_fail_at(0, false);
        if (s == STATUS_OK) {
            assert_true(n > 3);
            recorder_destroy(r);
            break;
        }
        assert_int_equal(s, STATUS_NO_MEMORY);
        assert_null(r);
    }
}

static void test_no_requests(void **state)
{
    (void)state;
    struct recorder *r = NULL;
    assert_int_equal(recorder_create(NULL, 0, &r, NULL), STATUS_OK);
    assert_int_equal(recorder_pending(r), 0);
    recorder_destroy(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_life_with_preemption),
        cmocka_unit_test(test_terminal_events),
        cmocka_unit_test(test_first_delivery_in_two_events),
        cmocka_unit_test(test_totals),
        cmocka_unit_test(test_bad_order_aborts),
        cmocka_unit_test(test_allocation_failures),
        cmocka_unit_test(test_no_requests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
