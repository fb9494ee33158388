/*
 * pool.h - a fixed team of threads that run one function over a range, with a cheap barrier.
 *
 * The caller is thread 0 and works too. Each thread begins with an equal share and, when it is
 * done, takes from those that are not, so a core that is slowed down holds up little. Workers spin
 * briefly between jobs, then sleep: an idle pool burns nothing. Which thread runs which part never
 * changes a result. Workers are under the caller's allocation guard (base/mem.h) while they work
 * for it. Thread: one caller at a time.
 */
#ifndef LLMSCHED_TENSOR_POOL_H
#define LLMSCHED_TENSOR_POOL_H

#include <stdint.h>

#include "base/status.h"

struct pool;

#define POOL_MAX_THREADS 256

enum status pool_create(uint32_t n_threads, struct pool **out, struct error *err) MUST_USE;
void pool_destroy(struct pool *p);
uint32_t pool_threads(const struct pool *p);

/* Calls fn(ctx, begin, end, thread) with disjoint ranges that cover [0, n), several times per
 * thread, but never twice at once with the same `thread`; returns when all are done. Ranges are cut
 * in units of `grain` (>= 1). Allocates nothing. */
void pool_run(struct pool *p, uint32_t n, uint32_t grain,
              void (*fn)(void *ctx, uint32_t begin, uint32_t end, uint32_t thread), void *ctx);

/* Physical cores this process may use (affinity and, where readable, the cgroup quota). */
uint32_t pool_default_threads(void);

#endif
