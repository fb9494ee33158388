/*
 * registry.h - the list of policies. Adding one is a file and a line in registry.c
 * (docs/ADDING_A_SCHEDULER.md); the command line, the docs and the property tests read this list.
 */
#ifndef LLMSCHED_SCHED_REGISTRY_H
#define LLMSCHED_SCHED_REGISTRY_H

#include <stdint.h>

#include "base/status.h"
#include "core/policy.h"
#include "sched/policy_params.h"

uint32_t registry_count(void);
/* idx < registry_count(). */
const struct policy_class *registry_at(uint32_t idx);

/* By name. Errors: USAGE, listing the names and the nearest one. */
enum status registry_find(const char *name, const struct policy_class **out,
                          struct error *err) MUST_USE;

#endif
