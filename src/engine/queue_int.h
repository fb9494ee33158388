/*
 * queue_int.h - the waiting requests as one array of views, in queue order, ready for a policy.
 *
 * Push at both ends and removal at the head are amortised O(1); removal inside moves the shorter
 * side. Every slot knows its place. Alloc: at creation only. Thread: the engine's.
 */
#ifndef LLMSCHED_ENGINE_QUEUE_INT_H
#define LLMSCHED_ENGINE_QUEUE_INT_H

#include <stdint.h>

#include "base/status.h"
#include "core/view.h"

struct queue {
    struct seq_view *items; /* [head, head + n) are in use */
    uint32_t head;
    uint32_t n;
    uint32_t capacity; /* twice the most that may wait */
    uint32_t *place;   /* per slot: index in items, while it waits */
};

/* most >= 1: requests that may wait; also the number of slots. */
enum status queue_init(struct queue *q, uint32_t most, struct error *err) MUST_USE;
void queue_deinit(struct queue *q);

void queue_push_back(struct queue *q, const struct seq_view *view);
void queue_push_front(struct queue *q, const struct seq_view *view);
struct seq_view *queue_at(struct queue *q, uint32_t slot);
void queue_remove(struct queue *q, uint32_t slot);

static inline const struct seq_view *queue_items(const struct queue *q)
{
    return q->items + q->head;
}

#endif
