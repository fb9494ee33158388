/*
 * scheduler_spec.h - what --schedulers and --set say: a label, a policy, its parameters.
 *
 *   naive                          label naive, defaults
 *   big=naive:batch_size=16        label big
 *   big=naive:batch_size=16:pad=false
 */
#ifndef LLMSCHED_BENCH_SCHEDULER_SPEC_H
#define LLMSCHED_BENCH_SCHEDULER_SPEC_H

#include "base/status.h"
#include "core/policy.h"

#define SCHEDULER_LABEL_MAX 64

struct scheduler_spec {
    char label[SCHEDULER_LABEL_MAX];
    const struct policy_class *policy;
    struct policy_params params;
};

/* Errors: USAGE for an unknown policy (names them), `vllm` (not yet built), a bad parameter, a
 * label that is empty, too long or has control characters. */
enum status scheduler_spec_parse(const char *text, struct scheduler_spec *out,
                                 struct error *err) MUST_USE;

/* --set TARGET.NAME=VALUE: for the spec with that label, else for all specs of that policy.
 * Errors: USAGE when nothing matches. */
enum status scheduler_spec_set(struct scheduler_spec *specs, size_t n, const char *text,
                               struct error *err) MUST_USE;

/* Labels unique, parameters consistent. */
enum status scheduler_spec_check(const struct scheduler_spec *specs, size_t n,
                                 struct error *err) MUST_USE;

#endif
