/*
 * test_small_model.c - every combination of a small world under every policy: 1 to 3 requests, 1 to
 * 4 blocks of 1 or 2 tokens, budgets, places, arrivals together or apart, a cancel at every instant
 * that matters, one failed step. All invariants are watched (harness.h).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/harness_run.h"

#define MS NS_PER_MS

static struct scenario sc;
static struct outcome out;
static uint64_t n_runs;

/* Digits of a mixed-radix counter. */
static uint64_t take(uint64_t *code, uint64_t radix)
{
    uint64_t digit = *code % radix;
    *code /= radix;
    return digit;
}

/* False when the code is beyond the last world. */
static bool make_world(uint64_t code, const struct policy_class *class)
{
    static int32_t prompt[3];
    static const uint32_t budgets[] = {1, 2, 8};
    static const uint64_t cancels_ms[] = {UINT64_MAX, 0, 1, 2, 3, 5};
    memset(&sc, 0, sizeof sc);
    sc.seed = code;
    sc.policy = class;
    sc.params = policy_params_default(class);
    sc.exec.base_ns = 1 * MS;
    sc.exec.info = (struct exec_info){
        .max_model_len = 8,
        .token_budget = budgets[take(&code, 3)],
        .block_tokens = 1 + (uint32_t)take(&code, 2),
        .total_blocks = 1 + (uint32_t)take(&code, 4),
        .can_mix = take(&code, 2) == 0,
    };
    sc.exec.vocab = 9;
    sc.max_seqs = 1 + (uint32_t)take(&code, 3);
    sc.max_queue = MAX_REQUESTS;
    uint64_t gap_ns = take(&code, 2) * 1500000;
    uint64_t cancel_ms = cancels_ms[take(&code, 6)];
    sc.p_poll_error = take(&code, 2) == 0 ? 0.0 : 0.25;
    sc.n_requests = 1 + (uint32_t)take(&code, 3);
    for (uint32_t i = 0; i < MAX_REQUESTS; i++) {
        sc.cancel_ns[i] = TIME_NEVER;
    }
    sc.cancel_ns[sc.n_requests - 1] = cancel_ms == UINT64_MAX ? TIME_NEVER : cancel_ms * MS;
    for (uint32_t i = 0; i < sc.n_requests; i++) {
        sc.due_ns[i] = i * gap_ns;
        sc.requests[i] = (struct request){.id = i,
                                          .prompt = prompt,
                                          .prompt_tokens = 1 + (uint32_t)take(&code, 3),
                                          .max_new_tokens = 1 + 2 * (uint32_t)take(&code, 2),
                                          .deadline_ns = TIME_NEVER,
                                          .sample_key = i};
    }
    return code == 0;
}

/* All of them in the full test; else every 7th (61st): 7 and 61 divide no radix, so that every
 * digit takes every value. */
static void test_every_small_world(void **state)
{
    (void)state;
    uint64_t stride = getenv("LLMSCHED_TEST_FULL") != NULL ? 1 : SANITIZED ? 61 : 7;
    const uint64_t n_codes = 3ULL * 2 * 4 * 2 * 3 * 2 * 6 * 2 * 3 * 6 * 6 * 6;
    for (uint32_t p = 0; p < registry_count(); p++) {
        n_runs = 0;
        for (uint64_t code = 0; code < n_codes; code += stride) {
            if (make_world(code, registry_at(p))) {
                scenario_run(&sc, &out);
                n_runs++;
            }
        }
        print_message("%s: %llu small worlds (one in %llu)\n", registry_at(p)->name,
                      (unsigned long long)n_runs, (unsigned long long)stride);
        assert_true(n_runs > 0);
    }
}

int main(void)
{
    log_set_level(LOG_QUIET);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_small_world),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
