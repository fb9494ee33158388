/* blocks.c - see blocks.h. */
#include "engine/blocks.h"

#include <assert.h>

#include "base/mem.h"

enum status blocks_init(struct blocks *b, uint32_t total, struct error *err)
{
    assert(total >= 1);
    uint32_t *free_stack = mem_alloc(total, sizeof *free_stack);
    uint32_t *owner = mem_alloc(total, sizeof *owner);
    if (free_stack == NULL || owner == NULL) {
        mem_free(free_stack);
        mem_free(owner);
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for the table of %u KV blocks",
                         total);
    }
    for (uint32_t i = 0; i < total; i++) {
        free_stack[i] = total - 1 - i;
    }
    *b = (struct blocks){.total = total, .n_free = total, .free_stack = free_stack, .owner = owner};
    return STATUS_OK;
}

void blocks_deinit(struct blocks *b)
{
    mem_free(b->free_stack);
    mem_free(b->owner);
    *b = (struct blocks){0};
}

uint32_t blocks_take(struct blocks *b, uint32_t owner)
{
    assert(b->n_free > 0);
    uint32_t block = b->free_stack[--b->n_free];
    assert(b->owner[block] == 0);
    b->owner[block] = owner + 1;
    return block;
}

void blocks_give(struct blocks *b, uint32_t owner, const uint32_t *list, uint32_t n)
{
    for (uint32_t i = n; i > 0; i--) { /* so that they go out again in the same order */
        uint32_t block = list[i - 1];
        assert(block < b->total && b->owner[block] == owner + 1);
        assert(b->n_free < b->total);
        b->owner[block] = 0;
        b->free_stack[b->n_free++] = block;
    }
}

void blocks_check(const struct blocks *b)
{
    uint32_t owned = 0;
    for (uint32_t i = 0; i < b->total; i++) {
        owned += b->owner[i] != 0;
    }
    assert(owned + b->n_free == b->total);
    for (uint32_t i = 0; i < b->n_free; i++) {
        assert(b->free_stack[i] < b->total && b->owner[b->free_stack[i]] == 0);
    }
}
