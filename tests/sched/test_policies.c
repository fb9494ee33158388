/* test_policies.c - each rule of each policy on hand-made views. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/monotime.h"
#include "sched/registry.h"

#define MS       NS_PER_MS
#define MAX_VIEW 64

/* A view under construction, and the policy that sees it. */
struct bench {
    const struct policy_class *class;
    struct policy_params params;
    void *state;
    struct seq_view waiting[MAX_VIEW];
    struct seq_view running[MAX_VIEW];
    struct view view;
    struct plan plan;
};

static struct bench *b;

static void start(const char *policy, const char *params)
{
    struct error err = ERROR_INIT;
    memset(b, 0, sizeof *b);
    assert_int_equal(registry_find(policy, &b->class, &err), STATUS_OK);
    b->params = policy_params_default(b->class);
    assert_int_equal(policy_params_parse(b->class, &b->params, params, &err), STATUS_OK);
    assert_int_equal(policy_params_check(b->class, &b->params, &err), STATUS_OK);
    b->state = mem_alloc(1, b->class->state_bytes);
    assert_non_null(b->state);
    b->class->init(b->state, &b->params);
    b->view = (struct view){
        .waiting = b->waiting,
        .running = b->running,
        .block_tokens = 16,
        .total_blocks = 1000,
        .free_blocks = 1000,
        .limits = {.max_seqs = 64, .token_budget = 100, .max_model_len = 1024, .can_mix = true},
    };
}

static void stop(void)
{
    mem_free(b->state);
    b->state = NULL;
}

static struct seq_view *wait_one(uint64_t arrival_ns, uint32_t prompt, uint32_t max_new)
{
    uint32_t i = b->view.n_waiting++;
    b->waiting[i] = (struct seq_view){.id = 100 + i,
                                      .slot = 100 + i,
                                      .arrival_ns = arrival_ns,
                                      .prompt_tokens = prompt,
                                      .known_tokens = prompt,
                                      .max_new_tokens = max_new};
    return &b->waiting[i];
}

/* Owns just the blocks of what it has computed. */
static struct seq_view *run_one(uint32_t prompt, uint32_t known, uint32_t computed)
{
    uint32_t i = b->view.n_running++;
    uint32_t blocks = view_blocks_for(&b->view, computed);
    b->running[i] = (struct seq_view){.id = i,
                                      .slot = i,
                                      .prompt_tokens = prompt,
                                      .known_tokens = known,
                                      .computed_tokens = computed,
                                      .max_new_tokens = 100,
                                      .blocks_held = blocks,
                                      .blocks_if_preempted = blocks};
    b->view.free_blocks -= blocks;
    return &b->running[i];
}

static const struct plan *plan_at(uint64_t now_ns)
{
    plan_clear(&b->plan);
    b->class->plan(b->state, &b->view, now_ns, &b->plan);
    return &b->plan;
}

static void tell(enum policy_event_kind kind, uint32_t n_waiting, uint32_t n_running,
                 uint32_t n_admitted, double mem)
{
    b->class->event(b->state, 0,
                    &(struct policy_event){.kind = kind,
                                           .n_waiting = n_waiting,
                                           .n_running = n_running,
                                           .n_admitted = n_admitted,
                                           .mem_used_frac = mem});
}

static void assert_item(uint32_t i, uint32_t slot, uint32_t n, uint32_t pad, uint32_t kv)
{
    assert_true(i < b->plan.n_items);
    const struct plan_item *item = &b->plan.items[i];
    assert_int_equal(item->slot, slot);
    assert_int_equal(item->n_tokens, n);
    assert_int_equal(item->pad_tokens, pad);
    assert_int_equal(item->kv_tokens, kv);
}

/* ---- static batching ---- */

static void test_full_batch_fires_at_once(void **state)
{
    (void)state;
    start("naive", "batch_size=3");
    for (uint32_t i = 0; i < 5; i++) {
        wait_one(0, 10, 5);
    }
    assert_int_equal(plan_at(0)->n_items, 3);
    assert_int_equal(b->plan.items[2].slot, 102);
    assert_true(b->plan.items[0].hold);
    stop();
}

/* The timeout counts from max(engine idle, oldest arrival); both sides of the instant. */
static void test_timing_table(void **state)
{
    (void)state;
    static const struct {
        const char *policy;
        const char *params;
        uint64_t idle_ms;
        uint64_t arrival_ms;
        uint64_t fire_ms;
    } rows[] = {
        {"naive", "", 0, 0, 500},
        {"naive", "", 0, 300, 800},
        {"naive", "", 700, 300, 1200},
        {"naive", "timeout=0", 0, 300, 300},
        {"naive", "", 9000, 300, 9500}, /* naive has no bound on the wait */
        {"dynamic", "", 0, 300, 800},
        {"dynamic", "", 700, 300, 1200},
        {"dynamic", "", 2000, 300, 2300}, /* max_time_wait from arrival */
        {"dynamic", "", 9000, 300, 2300}, /* passed while the engine was busy */
        {"dynamic", "timeout=3:max_time_wait=1", 0, 0, 1000},
        {"dynamic", "max_time_wait=0", 100, 50, 50},
        {"dynamic", "timeout=0", 100, 50, 100},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        start(rows[i].policy, rows[i].params);
        b->view.idle_since_ns = rows[i].idle_ms * MS;
        wait_one(rows[i].arrival_ms * MS, 10, 5);
        wait_one(rows[i].arrival_ms * MS + 5 * MS, 10, 5);
        uint64_t fire = rows[i].fire_ms * MS;
        uint64_t earliest = b->view.idle_since_ns > b->waiting[0].arrival_ns
                                ? b->view.idle_since_ns
                                : b->waiting[0].arrival_ns;
        if (fire > earliest) {
            assert_int_equal(plan_at(fire - 1)->n_items, 0);
            assert_int_equal(b->plan.wake_at_ns, fire);
            assert_int_equal(plan_at(earliest)->wake_at_ns, fire);
        }
        assert_int_equal(plan_at(fire > earliest ? fire : earliest)->n_items, 2);
        stop();
    }
}

static void test_padding_and_reservation(void **state)
{
    (void)state;
    start("naive", "batch_size=2");
    wait_one(0, 10, 5);
    wait_one(0, 30, 7);
    plan_at(0);
    assert_item(0, 100, 10, 20, 35);
    assert_item(1, 101, 30, 0, 37);
    stop();
    start("naive", "batch_size=2:pad=false");
    wait_one(0, 10, 5);
    wait_one(0, 30, 7);
    plan_at(0);
    assert_item(0, 100, 10, 0, 15);
    assert_item(1, 101, 30, 0, 37);
    stop();
}

/* 10 + 6 tokens: a block each; but beside a prompt of 100, padded to it: 7 blocks each. */
static void test_batch_is_cut_to_what_fits(void **state)
{
    (void)state;
    static const struct {
        const char *params;
        uint32_t free_blocks;
        uint32_t items;
    } rows[] = {
        {"batch_size=4", 100, 4},         {"batch_size=4", 28, 4},
        {"batch_size=4", 27, 3},          {"batch_size=4", 20, 2},
        {"batch_size=4", 1, 1},           {"batch_size=4:pad=false", 10, 4},
        {"batch_size=4:pad=false", 9, 3},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        start("naive", rows[i].params);
        b->view.free_blocks = rows[i].free_blocks;
        wait_one(0, 10, 6);
        wait_one(0, 10, 6);
        wait_one(0, 100, 6);
        wait_one(0, 10, 6);
        assert_int_equal(plan_at(0)->n_items, rows[i].items);
        stop();
    }
}

static void test_size_is_bounded_by_max_seqs(void **state)
{
    (void)state;
    start("naive", "batch_size=8");
    b->view.limits.max_seqs = 2;
    wait_one(0, 10, 6);
    assert_int_equal(plan_at(0)->n_items, 0);
    wait_one(0, 10, 6);
    wait_one(0, 10, 6);
    assert_int_equal(plan_at(0)->n_items, 2); /* two are all that can ever run: no wait for eight */
    stop();
}

static void test_decode_rows_and_release(void **state)
{
    (void)state;
    for (int pad = 0; pad <= 1; pad++) {
        start("naive", pad ? "pad=true" : "pad=false");
        run_one(10, 13, 12);
        run_one(10, 12, 12)->finished = true;
        wait_one(0, 10, 5); /* never joins */
        wait_one(0, 10, 5);
        wait_one(0, 10, 5);
        wait_one(0, 10, 5);
        assert_int_equal(plan_at(9000 * MS)->n_items, pad ? 2 : 1);
        assert_item(0, 0, 1, 0, 13);
        if (pad) {
            assert_item(1, 1, 0, 1, 12);
        }
        assert_int_equal(b->plan.n_releases, 0);
        b->running[0].finished = true;
        assert_int_equal(plan_at(9000 * MS)->n_items, 0);
        assert_int_equal(b->plan.n_releases, 2);
        stop();
    }
}

/* The size of the next batch, seen from outside: how many of 64 it takes. */
static uint32_t dynamic_size(void)
{
    b->view.n_waiting = 0;
    for (uint32_t i = 0; i < MAX_VIEW; i++) {
        wait_one(0, 1, 1);
    }
    return plan_at(0)->n_items;
}

static void test_dynamic_adaptation(void **state)
{
    (void)state;
    static const struct {
        const char *params;
        uint32_t admitted; /* into the first batch, of size 8 */
        uint32_t left;     /* waiting as it fired */
        double peak;
        uint32_t size; /* of the second */
    } rows[] = {
        {"", 8, 1, 0.1, 10},
        {"", 8, 0, 0.1, 8}, /* no backlog */
        {"", 7, 3, 0.1, 8}, /* not full (cut to what fits) */
        {"", 8, 1, 0.79, 10},
        {"", 8, 1, 0.8, 7}, /* pressure at the threshold, before backlog */
        {"", 3, 0, 0.95, 7},
        {"batch_size=4", 4, 9, 0.9, 4},    /* floor */
        {"batch_size=32", 32, 9, 0.1, 32}, /* ceiling */
        {"batch_size=31", 31, 9, 0.1, 32},
        {"grow=always", 3, 0, 0.1, 10},
        {"grow=always", 3, 0, 0.9, 7},
        {"memory_threshold=0", 8, 1, 0.0, 7},
        {"memory_threshold=1", 8, 1, 0.99, 10},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        start("dynamic", rows[i].params);
        tell(POLICY_COMMIT, rows[i].left, rows[i].admitted, rows[i].admitted, 0.05);
        tell(POLICY_STEP, rows[i].left + 5, rows[i].admitted, 0, rows[i].peak);
        tell(POLICY_COMMIT, rows[i].left + 5, rows[i].admitted, 0, 0.05);
        uint32_t before = dynamic_size();
        assert_int_equal(before, rows[i].params[0] == 'b' ? b->params.values[0] : 8);
        tell(POLICY_COMMIT, rows[i].left + 5, 0, 0, 0.0); /* released */
        assert_int_equal(dynamic_size(), rows[i].size);
        tell(POLICY_COMMIT, 0, 0, 0, 0.0);
        tell(POLICY_ARRIVE, 1, 0, 0, 0.99);
        assert_int_equal(dynamic_size(), rows[i].size); /* one change a batch */
        stop();
    }
}

/* A batch whose members were all cancelled has ended, too. */
static void test_dynamic_batch_ends_by_cancel(void **state)
{
    (void)state;
    start("dynamic", "");
    tell(POLICY_COMMIT, 0, 1, 1, 0.9);
    tell(POLICY_CANCEL, 0, 0, 0, 0.0);
    assert_int_equal(dynamic_size(), 7);
    stop();
}

/* ---- continuous ---- */

static void test_decodes_and_chunks_share_the_budget(void **state)
{
    (void)state;
    start("continuous", "");
    run_one(10, 20, 19);   /* decode */
    run_one(200, 200, 60); /* mid-prefill */
    run_one(10, 30, 29);
    wait_one(0, 50, 5);
    plan_at(0);
    assert_int_equal(b->plan.n_items, 2); /* 1 + 99: the budget is spent in order of admission */
    assert_item(0, 0, 1, 0, 20);
    assert_item(1, 1, 99, 0, 159);
    stop();
    start("continuous", "long_prefill_threshold=30");
    run_one(10, 20, 19);
    run_one(200, 200, 60);
    run_one(10, 30, 29);
    wait_one(0, 50, 5);
    wait_one(0, 70, 5);
    plan_at(0);
    assert_int_equal(b->plan.n_items, 5);
    assert_item(1, 1, 30, 0, 90);
    assert_item(2, 2, 1, 0, 30);
    assert_item(3, 100, 30, 0, 50); /* reserve_full: the whole prompt's blocks at admission */
    assert_item(4, 101, 30, 0, 70);
    stop();
    start("continuous", "token_budget=7:reserve_full=false");
    run_one(10, 20, 19);
    wait_one(0, 50, 5);
    plan_at(0);
    assert_item(1, 100, 6, 0, 6);
    stop();
}

static void test_places(void **state)
{
    (void)state;
    start("continuous", "max_seqs=2");
    run_one(10, 20, 19);
    wait_one(0, 10, 5);
    wait_one(0, 10, 5);
    assert_int_equal(plan_at(0)->n_items, 2);
    b->view.limits.max_seqs = 1;
    assert_int_equal(plan_at(0)->n_items, 1);
    stop();
}

/* Bug list 7 and 27: victims come from the tail, nobody that was visited is withdrawn or skipped.
 */
static void test_preempts_from_the_tail(void **state)
{
    (void)state;
    start("continuous", "");
    for (uint32_t i = 0; i < 4; i++) {
        run_one(10, 17, 16); /* each needs a second block for its next token */
    }
    b->view.total_blocks = 4;
    b->view.free_blocks = 0;
    wait_one(0, 1, 1);
    plan_at(0);
    assert_int_equal(b->plan.n_preempts, 2);
    assert_int_equal(b->plan.preempts[0], 3);
    assert_int_equal(b->plan.preempts[1], 2);
    assert_int_equal(b->plan.n_items, 2);
    assert_item(0, 0, 1, 0, 17);
    assert_item(1, 1, 1, 0, 17);
    stop();
}

static void test_preempts_itself_at_worst(void **state)
{
    (void)state;
    start("continuous", "");
    run_one(10, 17, 16);
    run_one(10, 33, 32); /* two blocks, needs a third */
    b->view.total_blocks = 4;
    b->view.free_blocks = 1; /* for the first one */
    plan_at(0);
    assert_int_equal(b->plan.n_items, 1);
    assert_item(0, 0, 1, 0, 17);
    assert_int_equal(b->plan.n_preempts, 1);
    assert_int_equal(b->plan.preempts[0], 1);
    stop();
}

static void test_watermark(void **state)
{
    (void)state;
    static const struct {
        const char *params;
        uint32_t n_running;
        uint32_t free_blocks; /* the head needs 4 */
        uint32_t admitted;
    } rows[] = {
        {"watermark=0.01", 1, 14, 1}, {"watermark=0.01", 1, 13, 0},  {"watermark=0.01", 0, 4, 1},
        {"watermark=0", 1, 4, 1},     {"watermark=0", 1, 3, 0},      {"watermark=0.5", 1, 503, 0},
        {"watermark=0.5", 1, 504, 1}, {"watermark=0.0001", 1, 4, 0}, /* rounded up to one block */
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        start("continuous", rows[i].params);
        if (rows[i].n_running > 0) {
            run_one(10, 15, 14);
        }
        b->view.free_blocks = rows[i].free_blocks;
        wait_one(0, 64, 5);
        assert_int_equal(plan_at(0)->n_items, rows[i].n_running + rows[i].admitted);
        stop();
    }
}

/* FCFS: the first that does not fit ends the admission, however small the next. */
static void test_head_of_line_is_kept(void **state)
{
    (void)state;
    start("continuous", "");
    run_one(10, 15, 14);
    b->view.free_blocks = 12;
    wait_one(0, 64, 5);
    wait_one(0, 1, 5);
    assert_int_equal(plan_at(0)->n_items, 1);
    stop();
}

/* Bug list 9: a resumed sequence is not admitted on the strength of its first chunk. */
static void test_whole_known_sequence_must_fit(void **state)
{
    (void)state;
    start("continuous", "watermark=0");
    run_one(10, 15, 14);
    struct seq_view *s = wait_one(0, 40, 50);
    s->known_tokens = 65; /* preempted after 25 outputs */
    s->preempt_count = 1;
    b->view.free_blocks = 4;
    b->view.limits.token_budget = 17;
    assert_int_equal(plan_at(0)->n_items, 1);
    b->view.free_blocks = 5;
    assert_int_equal(plan_at(0)->n_items, 2);
    assert_item(1, 100, 16, 0, 65);
    stop();
}

static void test_executor_that_cannot_mix(void **state)
{
    (void)state;
    start("continuous", "");
    b->view.limits.can_mix = false;
    run_one(10, 20, 19);
    run_one(50, 50, 20);
    wait_one(0, 10, 5);
    plan_at(0);
    assert_int_equal(b->plan.n_items, 2); /* prefill only */
    assert_item(0, 1, 30, 0, 50);
    assert_item(1, 100, 10, 0, 10);
    b->view.n_running = 1;
    b->view.n_waiting = 0;
    plan_at(0);
    assert_int_equal(b->plan.n_items, 1);
    assert_item(0, 0, 1, 0, 20);
    stop();
}

static void test_nothing_to_do(void **state)
{
    (void)state;
    for (uint32_t p = 0; p < registry_count(); p++) {
        start(registry_at(p)->name, "");
        assert_true(plan_is_empty(plan_at(5)));
        assert_int_equal(b->plan.wake_at_ns, TIME_NEVER);
        stop();
    }
}

int main(void)
{
    static struct bench storage;
    b = &storage;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full_batch_fires_at_once),
        cmocka_unit_test(test_timing_table),
        cmocka_unit_test(test_padding_and_reservation),
        cmocka_unit_test(test_batch_is_cut_to_what_fits),
        cmocka_unit_test(test_size_is_bounded_by_max_seqs),
        cmocka_unit_test(test_decode_rows_and_release),
        cmocka_unit_test(test_dynamic_adaptation),
        cmocka_unit_test(test_dynamic_batch_ends_by_cancel),
        cmocka_unit_test(test_decodes_and_chunks_share_the_budget),
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_preempts_from_the_tail),
        cmocka_unit_test(test_preempts_itself_at_worst),
        cmocka_unit_test(test_watermark),
        cmocka_unit_test(test_head_of_line_is_kept),
        cmocka_unit_test(test_whole_known_sequence_must_fit),
        cmocka_unit_test(test_executor_that_cannot_mix),
        cmocka_unit_test(test_nothing_to_do),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
