/*
 * workload.h - the requests of one run, made before it, the same for every scheduler.
 *
 * The first pass over the prompts keeps their order; each further pass (a size beyond the set) is a
 * seeded reshuffle. Sample keys have 63 bits, so that an API can be given the same as its `seed`,
 * an int64. All of it is a pure function of (prompts, size, seed, settings).
 */
#ifndef LLMSCHED_LOAD_WORKLOAD_H
#define LLMSCHED_LOAD_WORKLOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/request.h"
#include "base/status.h"

enum workload_kind {
    WORKLOAD_SHORT, /* every request asks for max_new_tokens */
    WORKLOAD_MIXED  /* uniform in WORKLOAD_MIXED_MIN..MAX, seeded */
};
#define WORKLOAD_MIXED_MIN 4
#define WORKLOAD_MIXED_MAX 64

/* A prompt after tokenisation; owner of ids: the caller, until the run ends. */
struct tokenized_prompt {
    const int32_t *ids;
    uint32_t n_ids;          /* >= 1 */
    uint32_t max_new_tokens; /* 0: the workload's */
};

struct workload_config {
    const struct tokenized_prompt *prompts;
    size_t n_prompts; /* >= 1 */
    uint32_t size;    /* requests, >= 1 */
    enum workload_kind kind;
    uint32_t max_new_tokens;
    struct sampling sampling;
    bool ignore_eos;
    bool warmup; /* other requests than those of the same seed: a shuffle and keys of its own */
    uint64_t seed;
};

struct workload {
    struct request *requests; /* ids 0 .. n-1 */
    size_t *prompt_idx;       /* which prompt each came from */
    uint32_t n;
};

enum status workload_create(const struct workload_config *config, struct workload *out,
                            struct error *err) MUST_USE;
void workload_deinit(struct workload *w);

#endif
