/* tensor_test.h - what the programs of tests/tensor share: buffers that end at a guard page,
 * values. */
#ifndef TENSOR_TEST_H
#define TENSOR_TEST_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sys/mman.h>
#include <unistd.h>

#include "base/rng.h"

/* n floats that end right before a page that must not be touched. */
struct guarded {
    float *at;
    void *map;
    size_t map_bytes;
};

static inline struct guarded guarded_alloc(size_t n)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t bytes = (n * sizeof(float) + page - 1) / page * page;
    struct guarded g = {.map_bytes = bytes + page};
    g.map = mmap(NULL, g.map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (g.map == MAP_FAILED || mprotect((char *)g.map + bytes, page, PROT_NONE) != 0) {
        perror("guarded_alloc");
        abort();
    }
    g.at = (float *)((char *)g.map + bytes) - n;
    return g;
}

static inline void guarded_free(struct guarded *g)
{
    (void)munmap(g->map, g->map_bytes);
    g->at = NULL;
}

/* Normal values of the given scale. */
static inline void fill_normal(float *x, size_t n, double scale, uint64_t seed)
{
    struct rng r = rng_stream(seed, 1);
    for (size_t i = 0; i < n; i++) {
        x[i] = (float)(rng_normal(&r) * scale);
    }
}

static inline struct guarded guarded_normal(size_t n, double scale, uint64_t seed)
{
    struct guarded g = guarded_alloc(n);
    fill_normal(g.at, n, scale, seed);
    return g;
}

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define F32_UNIT     0x1p-24

#endif
