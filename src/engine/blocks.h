/*
 * blocks.h - who owns which KV block. Accounting only: the storage is in infer.
 *
 * Invariants, asserted: free + owned = total; a block has at most one owner; only the owner gives
 * it back. O(1) per block. The lowest numbers go out first, and the last given back is the next
 * taken, so that a small load touches little memory. Thread: the engine's.
 */
#ifndef LLMSCHED_ENGINE_BLOCKS_H
#define LLMSCHED_ENGINE_BLOCKS_H

#include <stdint.h>

#include "base/status.h"

struct blocks {
    uint32_t total;
    uint32_t n_free;
    uint32_t *free_stack; /* n_free numbers */
    uint32_t *owner;      /* per block: owner + 1, 0 free */
};

/* total >= 1. Errors: NO_MEMORY. */
enum status blocks_init(struct blocks *b, uint32_t total, struct error *err) MUST_USE;
void blocks_deinit(struct blocks *b);

/* One block for `owner`; the caller knows that n_free >= 1 (asserted). */
uint32_t blocks_take(struct blocks *b, uint32_t owner);
/* n blocks of `owner` come back. */
void blocks_give(struct blocks *b, uint32_t owner, const uint32_t *list, uint32_t n);
/* Asserts the invariants in O(total): tests and the end of a run. */
void blocks_check(const struct blocks *b);

#endif
