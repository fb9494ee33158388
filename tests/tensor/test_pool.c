/* test_pool.c - ranges cover everything once, jobs follow each other, sleepers wake, errors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <sched.h>
#include <time.h>

#include "base/mem.h"
#include "base/monotime.h"
#include "tensor/pool.h"

#define MAX_ITEMS 5000

struct marks {
    uint32_t grain;
    _Atomic uint32_t bad_cuts;
    _Atomic uint32_t calls;
    _Atomic uint32_t clashes; /* two calls at once with one thread's index */
    _Atomic bool busy[16];
    _Atomic uint8_t hits[MAX_ITEMS];
    uint8_t owner[MAX_ITEMS];
    uint32_t n;
};

static void mark(void *ctx, uint32_t begin, uint32_t end, uint32_t thread)
{
    struct marks *m = ctx;
    atomic_fetch_add(&m->calls, 1);
    if (atomic_exchange(&m->busy[thread], true)) {
        atomic_fetch_add(&m->clashes, 1);
    }
    if (begin % m->grain != 0 || (end % m->grain != 0 && end != m->n)) {
        atomic_fetch_add(&m->bad_cuts, 1);
    }
    for (uint32_t i = begin; i < end; i++) {
        atomic_fetch_add(&m->hits[i], 1);
        m->owner[i] = (uint8_t)thread;
    }
    atomic_store(&m->busy[thread], false);
}

static void ranges_cover_everything_once(void **state)
{
    (void)state;
    static const uint32_t threads[] = {1, 2, 3, 7, 16};
    static const uint32_t sizes[] = {0, 1, 2, 3, 15, 16, 17, 577, 4999};
    static const uint32_t grains[] = {1, 2, 7, 64, 6000};
    static struct marks m;
    for (size_t t = 0; t < sizeof threads / sizeof threads[0]; t++) {
        struct pool *p = NULL;
        assert_int_equal(pool_create(threads[t], &p, NULL), STATUS_OK);
        assert_int_equal(pool_threads(p), threads[t]);
        for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
            for (size_t g = 0; g < sizeof grains / sizeof grains[0]; g++) {
                for (int again = 0; again < 2; again++) {
                    memset(&m, 0, sizeof m);
                    m.grain = grains[g];
                    m.n = sizes[s];
                    pool_run(p, m.n, m.grain, mark, &m);
                    for (uint32_t i = 0; i < MAX_ITEMS; i++) {
                        assert_int_equal(m.hits[i], i < m.n);
                        assert_true(m.owner[i] < threads[t]);
                    }
                    assert_int_equal(m.bad_cuts, 0);
                    assert_int_equal(m.clashes, 0);
                    assert_true(m.calls <= (m.n + m.grain - 1) / m.grain);
                }
            }
        }
        pool_destroy(p);
    }
}

static void count_up(void *ctx, uint32_t begin, uint32_t end, uint32_t thread)
{
    (void)thread;
    uint64_t *cells = ctx;
    for (uint32_t i = begin; i < end; i++) {
        cells[i]++;
    }
}

/* Plain (not atomic) cells that change hands between jobs: under TSan this checks the barrier. */
static void jobs_follow_each_other(void **state)
{
    (void)state;
    static uint64_t cells[4096];
    memset(cells, 0, sizeof cells);
    struct pool *p = NULL;
    assert_int_equal(pool_create(3, &p, NULL), STATUS_OK);
    const uint32_t jobs = 5000;
    uint64_t want[64] = {0};
    for (uint32_t j = 0; j < jobs; j++) {
        uint32_t n = 1 + j % 64;
        pool_run(p, n, 1 + j % 3, count_up, cells);
        for (uint32_t i = 0; i < n; i++) {
            want[i]++;
        }
        assert_int_equal(cells[n - 1], want[n - 1]);
    }
    for (uint32_t i = 0; i < 64; i++) {
        assert_int_equal(cells[i], want[i]);
    }
    pool_destroy(p);
}

static uint64_t cpu_time_ns(void)
{
    struct timespec t;
    assert_int_equal(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t), 0);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static void sleep_ms(long ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    (void)nanosleep(&t, NULL);
}

/* Workers that have gone to sleep are woken by the next job; while they sleep they cost nothing. */
static void sleepers_wake_and_cost_nothing(void **state)
{
    (void)state;
    uint64_t cells[8] = {0};
    struct pool *p = NULL;
    assert_int_equal(pool_create(4, &p, NULL), STATUS_OK);
    for (int i = 0; i < 20; i++) {
        pool_run(p, 8, 1, count_up, cells);
        sleep_ms(5);
    }
    for (int i = 0; i < 8; i++) {
        assert_int_equal(cells[i], 20);
    }
    uint64_t before = cpu_time_ns();
    sleep_ms(200);
    uint64_t burnt = cpu_time_ns() - before;
    if (burnt > 20 * NS_PER_MS) {
        fail_msg("an idle pool used %.1f ms of CPU in 200 ms", (double)burnt / 1e6);
    }
    pool_destroy(p);
}

static void slow_later_parts(void *ctx, uint32_t begin, uint32_t end, uint32_t thread)
{
    (void)thread;
    if (begin > 0) {
        sleep_ms(3); /* far longer than a waiter spins */
    }
    count_up(ctx, begin, end, thread);
}

/* The caller ends first and has to sleep until the workers are done. */
static void caller_sleeps_until_the_last_part(void **state)
{
    (void)state;
    uint64_t cells[4] = {0};
    struct pool *p = NULL;
    assert_int_equal(pool_create(4, &p, NULL), STATUS_OK);
    for (uint64_t i = 1; i <= 30; i++) {
        pool_run(p, 4, 1, slow_later_parts, cells);
        for (int c = 0; c < 4; c++) {
            assert_int_equal(cells[c], i);
        }
    }
    pool_destroy(p);
}

struct slow_case {
    uint32_t slow; /* this thread waits in its first call for the other to do the rest */
    _Atomic bool slept;
    _Atomic uint32_t units[2]; /* by thread */
};

static void slow_first_call(void *ctx, uint32_t begin, uint32_t end, uint32_t thread)
{
    struct slow_case *c = ctx;
    atomic_fetch_add(&c->units[thread], end - begin);
    if (thread == c->slow && !atomic_exchange(&c->slept, true)) {
        for (int i = 0; i < 10000 && atomic_load(&c->units[1 - thread]) < 56; i++) {
            sleep_ms(1);
        }
    } else if (thread != c->slow) {
        while (!atomic_load(&c->slept)) { /* until the slow one has begun */
            sleep_ms(1);
        }
    }
}

/* What a thread cannot get to is done by the other: it is left with its first quarter. */
static void a_slow_threads_share_is_taken_over(void **state)
{
    (void)state;
    struct pool *p = NULL;
    assert_int_equal(pool_create(2, &p, NULL), STATUS_OK);
    for (uint32_t slow = 0; slow < 2; slow++) {
        struct slow_case c = {.slow = slow};
        pool_run(p, 64, 1, slow_first_call, &c);
        assert_int_equal(c.units[slow], 8);
        assert_int_equal(c.units[1 - slow], 56);
    }
    pool_destroy(p);
}

/* Far more threads than cores: every wait is bounded, so jobs still end. */
static void oversubscribed_team_makes_progress(void **state)
{
    (void)state;
    uint64_t cells[64] = {0};
    struct pool *p = NULL;
    assert_int_equal(pool_create(64, &p, NULL), STATUS_OK);
    for (uint64_t i = 1; i <= 100; i++) {
        pool_run(p, 64, 1, count_up, cells);
    }
    for (int c = 0; c < 64; c++) {
        assert_int_equal(cells[c], 100);
    }
    pool_destroy(p);
}

static void a_run_allocates_nothing(void **state)
{
    (void)state;
    uint64_t cells[8] = {0};
    struct pool *p = NULL;
    assert_int_equal(pool_create(2, &p, NULL), STATUS_OK);
    mem_step_begin();
    pool_run(p, 8, 1, count_up, cells);
    mem_step_end();
    pool_destroy(p);
    pool_destroy(NULL);
}

struct guard_seen {
    _Atomic bool other; /* a thread saw another state than this job's */
    bool guarded;
};

static void look_at_guard(void *ctx, uint32_t begin, uint32_t end, uint32_t thread)
{
    (void)begin;
    (void)end;
    (void)thread;
    struct guard_seen *seen = ctx;
    if (mem_in_step() != seen->guarded) {
        atomic_store(&seen->other, true);
    }
}

static void workers_are_under_the_callers_guard(void **state)
{
    (void)state;
    struct pool *p = NULL;
    assert_int_equal(pool_create(4, &p, NULL), STATUS_OK);
    for (uint32_t i = 0; i < 64; i++) {
        struct guard_seen seen = {.guarded = i % 3 != 0};
        if (seen.guarded) {
            mem_step_begin();
        }
        pool_run(p, 4, 1, look_at_guard, &seen);
        if (seen.guarded) {
            mem_step_end();
        }
        assert_false(atomic_load(&seen.other));
    }
    pool_destroy(p);
}

static void errors(void **state)
{
    (void)state;
    struct pool *p = NULL;
    struct error err = ERROR_INIT;
    assert_int_equal(pool_create(0, &p, &err), STATUS_USAGE);
    assert_int_equal(pool_create(POOL_MAX_THREADS + 1, &p, &err), STATUS_USAGE);
    assert_non_null(strstr(err.message, "257"));
    for (uint64_t n = 1; n <= 2; n++) {
        mem_fail_at(n, false);
        assert_int_equal(pool_create(2, &p, &err), STATUS_NO_MEMORY);
    }
    mem_fail_at(0, false);
    assert_null(p);
    assert_int_equal(pool_create(POOL_MAX_THREADS, &p, &err), STATUS_OK);
    pool_destroy(p);
}

static void default_threads_obey_the_affinity_mask(void **state)
{
    (void)state;
    uint32_t all = pool_default_threads();
    printf("default threads here: %u\n", all);
    assert_in_range(all, 1, POOL_MAX_THREADS);
    cpu_set_t old;
    cpu_set_t one;
    assert_int_equal(sched_getaffinity(0, sizeof old, &old), 0);
    CPU_ZERO(&one);
    for (int c = 0; c < CPU_SETSIZE; c++) {
        if (CPU_ISSET(c, &old)) {
            CPU_SET(c, &one);
            break;
        }
    }
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(pool_default_threads(), 1);
    assert_int_equal(sched_setaffinity(0, sizeof old, &old), 0);
    assert_int_equal(pool_default_threads(), all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranges_cover_everything_once),
        cmocka_unit_test(jobs_follow_each_other),
        cmocka_unit_test(a_slow_threads_share_is_taken_over),
        cmocka_unit_test(sleepers_wake_and_cost_nothing),
        cmocka_unit_test(caller_sleeps_until_the_last_part),
        cmocka_unit_test(oversubscribed_team_makes_progress),
        cmocka_unit_test(a_run_allocates_nothing),
        cmocka_unit_test(workers_are_under_the_callers_guard),
        cmocka_unit_test(errors),
        cmocka_unit_test(default_threads_obey_the_affinity_mask),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
