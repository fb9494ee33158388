/* engine_speed_int.h - shared by engine_speed.c (rounds, limits) and engine_speed_load.c (one load
 * through the engine). */
#ifndef LLMSCHED_BENCH_ENGINE_SPEED_INT_H
#define LLMSCHED_BENCH_ENGINE_SPEED_INT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "infer/exec_model.h"

/* n requests that arrive at once. */
struct speed_load {
    struct exec_model *exec; /* borrowed */
    uint32_t n_vocab;
    uint32_t streams;
    uint32_t prompt_tokens;
    uint32_t new_tokens;
    bool is_prefill; /* measure the first step; else those after it */
};

/* Sums over the measured steps. */
struct speed_steps {
    uint64_t steps;
    uint64_t wall_ns; /* each from the end of the step before it; a first one from its planning */
    uint64_t exec_ns; /* of it in the executor; the parts are of this */
    uint64_t matmul_ns;
    uint64_t attention_ns;
    uint64_t norm_ns;
    uint64_t head_ns;
    uint64_t sample_ns;
};

/* Runs the load, a fresh engine each time, until min_s have passed (at least once). Errors:
 * INTERRUPTED, NO_MEMORY, BAD_MODEL. */
enum status speed_load_run(const struct speed_load *load, double min_s, const volatile int *stop,
                           struct speed_steps *out, struct error *err) MUST_USE;

#endif
