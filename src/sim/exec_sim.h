/*
 * exec_sim.h - an executor that computes nothing: a step costs a constant, plus so much per row and
 * per sequence; a request ends at its true length (request.sim_output_tokens) or at max_new_tokens.
 *
 * It reports its duration and never sleeps: meant for the virtual clock. Token ids are a pure
 * function of (sample_key, position), so every scheduler must produce the same text here too.
 */
#ifndef LLMSCHED_SIM_EXEC_SIM_H
#define LLMSCHED_SIM_EXEC_SIM_H

#include <stdint.h>

#include "core/executor.h"

struct exec_sim_config {
    struct exec_info info;
    uint64_t base_ns;    /* per step */
    uint64_t per_row_ns; /* per row, pad rows included */
    uint64_t per_seq_ns; /* per item of the step */
    int32_t vocab;       /* ids 0 .. vocab - 1; 0: 50257 */
};

struct exec_sim {
    struct exec_sim_config config;
    struct executor executor; /* hand this to the engine */
    const struct exec_step *in_flight;
    uint64_t steps;
    uint64_t rows;
};

/* x: caller's storage, borrowed by x->executor. */
void exec_sim_init(struct exec_sim *x, const struct exec_sim_config *config);

/* The id that a request with this key has at this position (0 = first prompt token). */
int32_t exec_sim_token(uint64_t sample_key, uint32_t position, int32_t vocab);
/* Tokens this request ends with: max_new_tokens, or less when its true length is known. */
uint32_t exec_sim_output_tokens(const struct request *r);

#endif
