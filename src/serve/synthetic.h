/*
 * synthetic.h - a backend without a model: the tokens of each job appear on an exact timetable.
 *
 *   token i of a job submitted at t is due at  t + ttft + i * tpot
 *
 * It runs on the network thread: a heap of due times and a timerfd, which is the backend's fd. Due
 * times and the instants at which the events were handed to the socket stand in the job; the
 * reference for `selftest client`. Ids are those of exec_sim_token over printable bytes, so that a
 * seed gives the same text again.
 */
#ifndef LLMSCHED_SERVE_SYNTHETIC_H
#define LLMSCHED_SERVE_SYNTHETIC_H

#include <stdint.h>

#include "serve/backend.h"

struct synthetic;

struct synthetic_config {
    uint64_t ttft_ns;
    uint64_t tpot_ns;
    uint32_t max_model_len;
};

enum status synthetic_create(const struct synthetic_config *config, struct synthetic **out,
                             struct error *err) MUST_USE;
struct backend *synthetic_backend(struct synthetic *s);
void synthetic_destroy(struct synthetic *s);

#endif
