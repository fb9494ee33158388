/*
 * scheduler_spec.h - what --schedulers and --set say: a label, a policy, its parameters; or a
 * server.
 *
 *   naive                          label naive, defaults
 *   big=naive:batch_size=16        label big
 *   big=naive:batch_size=16:pad=false
 *   vllm                           a server over HTTP, at the bench's endpoint
 *   a=vllm:endpoint=http://host:8000/v1/completions
 */
#ifndef LLMSCHED_BENCH_SCHEDULER_SPEC_H
#define LLMSCHED_BENCH_SCHEDULER_SPEC_H

#include <stdbool.h>

#include "base/status.h"
#include "base/strbuf.h"
#include "core/policy.h"

#define SCHEDULER_LABEL_MAX    64
#define SCHEDULER_ENDPOINT_MAX 1024

struct scheduler_spec {
    char label[SCHEDULER_LABEL_MAX];
    const struct policy_class *policy; /* NULL: a server over HTTP */
    struct policy_params params;
    char endpoint[SCHEDULER_ENDPOINT_MAX]; /* of that server; "": the bench's */
};

bool scheduler_spec_is_remote(const struct scheduler_spec *spec);
/* The policy's name, or "vllm". */
const char *scheduler_spec_kind(const struct scheduler_spec *spec);
/* "batch_size=4 timeout=0.5 pad=true", "endpoint=http://...", or nothing. */
void scheduler_spec_print(const struct scheduler_spec *spec, struct strbuf *out);

/* Errors: USAGE for an unknown policy (names them), a bad parameter, a label that is empty, too
 * long or has control characters. */
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
