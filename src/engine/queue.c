/* queue.c - see queue_int.h. */
#include "engine/queue_int.h"

#include <assert.h>
#include <string.h>

#include "base/mem.h"

enum status queue_init(struct queue *q, uint32_t most, struct error *err)
{
    assert(most >= 1 && most <= UINT32_MAX / 2);
    struct seq_view *items = mem_alloc((size_t)most * 2, sizeof *items);
    uint32_t *place = mem_alloc(most, sizeof *place);
    if (items == NULL || place == NULL) {
        mem_free(items);
        mem_free(place);
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for a queue of %u requests", most);
    }
    *q = (struct queue){.items = items, .head = most, .capacity = most * 2, .place = place};
    return STATUS_OK;
}

void queue_deinit(struct queue *q)
{
    mem_free(q->items);
    mem_free(q->place);
    *q = (struct queue){0};
}

static void note_places(struct queue *q, uint32_t from, uint32_t to)
{
    for (uint32_t i = from; i < to; i++) {
        q->place[q->items[i].slot] = i;
    }
}

/* At most half of the array is in use, so that a quarter of it is free on either side afterwards:
 * that many pushes pay for this move. */
static void recentre(struct queue *q)
{
    uint32_t head = (q->capacity - q->n) / 2;
    memmove(q->items + head, q->items + q->head, q->n * sizeof *q->items);
    q->head = head;
    note_places(q, head, head + q->n);
}

void queue_push_back(struct queue *q, const struct seq_view *view)
{
    assert(q->n < q->capacity / 2);
    if (q->head + q->n == q->capacity) {
        recentre(q);
    }
    uint32_t at = q->head + q->n++;
    q->items[at] = *view;
    q->place[view->slot] = at;
}

void queue_push_front(struct queue *q, const struct seq_view *view)
{
    assert(q->n < q->capacity / 2);
    if (q->head == 0) {
        recentre(q);
    }
    q->head--;
    q->n++;
    q->items[q->head] = *view;
    q->place[view->slot] = q->head;
}

struct seq_view *queue_at(struct queue *q, uint32_t slot)
{
    uint32_t at = q->place[slot];
    assert(at >= q->head && at < q->head + q->n && q->items[at].slot == slot);
    return &q->items[at];
}

void queue_remove(struct queue *q, uint32_t slot)
{
    uint32_t at = (uint32_t)(queue_at(q, slot) - q->items);
    uint32_t before = at - q->head;
    uint32_t after = q->n - before - 1;
    if (before <= after) {
        memmove(q->items + q->head + 1, q->items + q->head, before * sizeof *q->items);
        q->head++;
        note_places(q, q->head, at + 1);
    } else {
        memmove(q->items + at, q->items + at + 1, after * sizeof *q->items);
        note_places(q, at, at + after);
    }
    q->n--;
}
