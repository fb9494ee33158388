/* test_queue_blocks.c - the waiting queue against a plain array, the block table against counting.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/rng.h"
#include "engine/blocks.h"
#include "engine/queue_int.h"

#define MOST 40

static void check_queue(struct queue *q, const uint32_t *model, uint32_t n)
{
    assert_int_equal(q->n, n);
    for (uint32_t i = 0; i < n; i++) {
        assert_int_equal(queue_items(q)[i].slot, model[i]);
        assert_int_equal(queue_items(q)[i].id, 1000 + model[i]);
        assert_ptr_equal(queue_at(q, model[i]), &queue_items(q)[i]);
    }
}

static void insert(uint32_t *model, uint32_t n, uint32_t at, uint32_t slot)
{
    memmove(model + at + 1, model + at, (n - at) * sizeof *model);
    model[at] = slot;
}

static void test_queue_against_an_array(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct rng r = rng_stream(seed, 0);
        uint32_t most = (uint32_t)rng_between(&r, 1, MOST);
        uint32_t model[MOST + 1];
        uint32_t free_slots[MOST];
        uint32_t n = 0;
        uint32_t n_free = most;
        struct queue q;
        assert_int_equal(queue_init(&q, most, NULL), STATUS_OK);
        for (uint32_t i = 0; i < most; i++) {
            free_slots[i] = i;
        }
        uint64_t bias = rng_below(&r, 4); /* towards one end, so that both edges are reached */
        for (uint32_t step = 0; step < 400; step++) {
            uint64_t what = rng_below(&r, 5);
            if (what < 3 && n_free > 0) {
                bool front = rng_below(&r, 4) < bias;
                uint32_t slot = free_slots[--n_free];
                struct seq_view view = {.slot = slot, .id = 1000 + slot};
                (front ? queue_push_front : queue_push_back)(&q, &view);
                insert(model, n, front ? 0 : n, slot);
                n++;
            } else if (n > 0) {
                uint32_t at = what == 3 ? 0 : (uint32_t)rng_below(&r, n);
                queue_remove(&q, model[at]);
                free_slots[n_free++] = model[at];
                memmove(model + at, model + at + 1, (n - at - 1) * sizeof *model);
                n--;
            }
            check_queue(&q, model, n);
        }
        queue_deinit(&q);
    }
}

static void test_queue_without_memory(void **state)
{
    (void)state;
    struct queue q;
    for (uint64_t n = 1; n <= 2; n++) {
        mem_fail_at(n, false);
        assert_int_equal(queue_init(&q, 4, NULL), STATUS_NO_MEMORY);
        mem_fail_at(0, false);
    }
}

static void test_blocks(void **state)
{
    (void)state;
    struct blocks b;
    for (uint64_t n = 1; n <= 2; n++) {
        mem_fail_at(n, false);
        assert_int_equal(blocks_init(&b, 4, NULL), STATUS_NO_MEMORY);
        mem_fail_at(0, false);
    }
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct rng r = rng_stream(seed, 1);
        uint32_t total = (uint32_t)rng_between(&r, 1, 50);
        uint32_t owned[4][50];
        uint32_t n_owned[4] = {0};
        assert_int_equal(blocks_init(&b, total, NULL), STATUS_OK);
        for (uint32_t step = 0; step < 300; step++) {
            uint32_t owner = (uint32_t)rng_below(&r, 4);
            if (rng_below(&r, 3) > 0 && b.n_free > 0) {
                owned[owner][n_owned[owner]++] = blocks_take(&b, owner);
            } else {
                uint32_t n = (uint32_t)rng_below(&r, n_owned[owner] + 1);
                n_owned[owner] -= n;
                blocks_give(&b, owner, owned[owner] + n_owned[owner], n);
            }
            blocks_check(&b);
            assert_int_equal(n_owned[0] + n_owned[1] + n_owned[2] + n_owned[3] + b.n_free, total);
        }
        blocks_deinit(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_queue_against_an_array),
        cmocka_unit_test(test_queue_without_memory),
        cmocka_unit_test(test_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
