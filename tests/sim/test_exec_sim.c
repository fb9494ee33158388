/* test_exec_sim.c - the synthetic executor's costs, lengths and ids, and the virtual clock. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "sim/clock_virtual.h"
#include "sim/exec_sim.h"

static struct exec_result result;

static void step(struct exec_sim *x, const struct exec_item *items, uint32_t n)
{
    static uint64_t plan_id;
    struct exec_step s = {.plan_id = ++plan_id, .items = items, .n_items = n};
    assert_int_equal(x->executor.submit(x->executor.self, &s, NULL), STATUS_OK);
    assert_int_equal(x->executor.poll(x->executor.self, &result, NULL), STATUS_OK);
    assert_int_equal(result.plan_id, plan_id);
    assert_int_equal(result.n_items, n);
}

static void test_cost_and_tokens(void **state)
{
    (void)state;
    struct exec_sim x;
    exec_sim_init(&x, &(struct exec_sim_config){
                          .base_ns = 1000, .per_row_ns = 10, .per_seq_ns = 3, .vocab = 50});
    struct request r = {.prompt_tokens = 8, .max_new_tokens = 3, .sample_key = 5};
    struct exec_item items[3] = {
        {.seq = {.request = &r, .known_tokens = 8}, .n_tokens = 8, .pad_tokens = 2},
        {.seq = {.request = &r, .known_tokens = 8}, .n_tokens = 7},
        {.seq = {.request = &r, .known_tokens = 9, .computed_tokens = 9}, .pad_tokens = 1},
    };
    step(&x, items, 3);
    assert_int_equal(result.duration_ns, 1000 + 10 * 18 + 3 * 3);
    assert_int_equal(result.items[0].n_out, 1);
    assert_int_equal(result.items[0].out[0], exec_sim_token(5, 8, 50));
    assert_int_equal(result.items[0].finish, FINISH_NONE);
    assert_int_equal(result.items[1].n_out, 0); /* a chunk: the last known position is missing */
    assert_int_equal(result.items[2].n_out, 0); /* pad only */
    assert_int_equal(x.rows, 18);
}

static void test_lengths(void **state)
{
    (void)state;
    static const struct {
        uint32_t max_new;
        uint32_t true_length;
        bool ignore_eos;
        uint32_t expected;
        enum finish_reason finish;
    } rows[] = {
        {5, 0, false, 5, FINISH_LENGTH}, {5, 3, false, 3, FINISH_STOP},
        {5, 5, false, 5, FINISH_LENGTH}, {5, 9, false, 5, FINISH_LENGTH},
        {5, 3, true, 5, FINISH_LENGTH},  {1, 0, false, 1, FINISH_LENGTH},
        {2, 1, false, 1, FINISH_STOP},
    };
    struct exec_sim x;
    exec_sim_init(&x, &(struct exec_sim_config){.base_ns = 1});
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct request r = {.prompt_tokens = 4,
                            .max_new_tokens = rows[i].max_new,
                            .ignore_eos = rows[i].ignore_eos,
                            .sim_output_tokens = rows[i].true_length};
        assert_int_equal(exec_sim_output_tokens(&r), rows[i].expected);
        struct exec_item item = {.seq = {.request = &r, .known_tokens = 4}, .n_tokens = 4};
        uint32_t n = 0;
        do {
            step(&x, &item, 1);
            n += result.items[0].n_out;
            item.seq.computed_tokens = item.seq.known_tokens;
            item.seq.known_tokens++;
            item.n_tokens = 1;
        } while (result.items[0].finish == FINISH_NONE);
        assert_int_equal(n, rows[i].expected);
        assert_int_equal(result.items[0].finish, rows[i].finish);
    }
}

static void test_virtual_clock(void **state)
{
    (void)state;
    struct clock_virtual self = {.now_ns = 100};
    struct clock clock = clock_virtual_clock(&self);
    assert_int_equal(clock.now(clock.self), 100);
    clock.wait_until(clock.self, 50); /* never back */
    assert_int_equal(clock.now(clock.self), 100);
    clock.wait_until(clock.self, 150);
    clock.advance(clock.self, 7);
    assert_int_equal(clock.now(clock.self), 157);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cost_and_tokens),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_virtual_clock),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
