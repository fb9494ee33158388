/*
 * serve_run.h - what `llmsched serve` does once its options are known: parts put together, the
 * loop, signals, the way out.
 */
#ifndef LLMSCHED_CLI_SERVE_RUN_H
#define LLMSCHED_CLI_SERVE_RUN_H

#include <stdbool.h>
#include <stdint.h>

#include "bench/scheduler_spec.h"
#include "cli/common.h"

struct serve_options {
    struct model_flags model;
    bool synthetic; /* a timetable instead of a model */
    uint64_t ttft_ns;
    uint64_t tpot_ns;
    const char *stamps_path;
    struct scheduler_spec scheduler;
    const char *host;
    uint16_t port;
    const char *api_key; /* NULL: open */
    const char *const *served_names;
    uint32_t n_served_names; /* 0: the model's name */
    uint32_t max_queue;
    uint32_t max_seqs;      /* 0: the engine's default */
    uint32_t max_model_len; /* 0: the model's context */
    uint64_t shutdown_ns;
    uint64_t seed;
};

/* Serves until a signal, or until the engine fails. Returns the exit code; errors are printed. */
int serve_run(const struct serve_options *options);

#endif
