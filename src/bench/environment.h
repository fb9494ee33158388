/*
 * environment.h - where a measurement was taken: the block that stands in every result, and memory.
 */
#ifndef LLMSCHED_BENCH_ENVIRONMENT_H
#define LLMSCHED_BENCH_ENVIRONMENT_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "report/results.h"

extern const char *const llmsched_version;
extern const char *const llmsched_commit;

/* Fills everything but isa and threads (the executor knows those). Owner of the strings: env. */
enum status environment_read(const char *command_line, struct environment *env,
                             struct error *err) MUST_USE;

/* The processor's name, as the system tells it; "unknown". */
void environment_cpu(char *out, size_t size);

/* Bytes the machine (and the control group, where it limits) can still give; UINT64_MAX: unknown.
 */
uint64_t environment_memory_available(void);

/* Peak resident bytes since the last reset, and the reset (Linux: /proc/self/clear_refs). Where the
 * kernel refuses the reset, the peak is that of the whole process. */
void environment_reset_peak_rss(void);
uint64_t environment_peak_rss_bytes(void);

#endif
