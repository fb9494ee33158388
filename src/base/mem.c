/* mem.c - see mem.h. */
#include "base/mem.h"

#include <assert.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sys/mman.h>

static _Atomic uint64_t alloc_count;
static _Atomic uint64_t fail_countdown; /* 0: off */
static _Atomic bool fail_sticky;
static _Thread_local int step_depth;
static _Thread_local uint64_t refused_count;

/* Passes p on; NULL counts as a refusal. */
static void *counted(void *p)
{
    refused_count += p == NULL;
    return p;
}

/* True when this allocation may go ahead; aborts inside a guarded step. */
static bool admit(void)
{
    if (step_depth > 0) {
        fputs("llmsched: bug: allocation inside an engine step\n", stderr);
        abort();
    }
    atomic_fetch_add_explicit(&alloc_count, 1, memory_order_relaxed);
    uint64_t left = atomic_load(&fail_countdown);
    if (left == 0) {
        return true;
    }
    if (left == 1) {
        if (!atomic_load(&fail_sticky)) {
            atomic_store(&fail_countdown, 0);
        }
        return false;
    }
    atomic_store(&fail_countdown, left - 1);
    return true;
}

void *mem_alloc(size_t count, size_t size)
{
    size_t bytes;
    if (count == 0 || size == 0 || __builtin_mul_overflow(count, size, &bytes) || !admit()) {
        return counted(NULL);
    }
    return counted(calloc(count, size));
}

void *mem_resize(void *old, size_t count, size_t size)
{
    size_t bytes;
    if (count == 0 || size == 0 || __builtin_mul_overflow(count, size, &bytes) || !admit()) {
        return counted(NULL);
    }
    return counted(realloc(old, bytes));
}

void *mem_alloc_aligned(size_t align, size_t bytes)
{
    assert(align >= sizeof(void *) && (align & (align - 1)) == 0);
    if (bytes == 0 || bytes > SIZE_MAX - align || !admit()) {
        return NULL;
    }
    size_t rounded = (bytes + align - 1) & ~(align - 1);
    void *p = aligned_alloc(align, rounded);
    if (p != NULL) {
        memset(p, 0, rounded);
    }
    return p;
}

#define HUGE_PAGE ((size_t)2 << 20)

void *mem_alloc_table(size_t bytes)
{
    if (bytes < HUGE_PAGE / 2 || bytes > SIZE_MAX - HUGE_PAGE) {
        return mem_alloc_aligned(64, bytes);
    }
    if (!admit()) {
        return NULL;
    }
    void *p = aligned_alloc(HUGE_PAGE, (bytes + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1));
    if (p != NULL) {
#if defined(MADV_HUGEPAGE)
        /* Only a wish: where it is refused, small pages serve. */
        (void)madvise(p, (bytes + HUGE_PAGE / 2) & ~(HUGE_PAGE - 1), MADV_HUGEPAGE);
#endif
        memset(p, 0, bytes);
    }
    return p;
}

char *mem_strndup(const char *text, size_t n)
{
    if (n == SIZE_MAX) {
        return NULL;
    }
    char *copy = mem_alloc(n + 1, 1);
    if (copy != NULL && n > 0) {
        memcpy(copy, text, n);
    }
    return copy;
}

char *mem_strdup(const char *text)
{
    return mem_strndup(text, strlen(text));
}

void mem_free(void *p)
{
    free(p);
}

void mem_trim(void)
{
#ifdef __GLIBC__
    malloc_trim(0);
#endif
}

void *mem_reserve(size_t bytes)
{
    if (bytes == 0 || !admit()) {
        return NULL;
    }
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

void mem_unreserve(void *p, size_t bytes)
{
    if (p != NULL) {
        int rc = munmap(p, bytes);
        assert(rc == 0);
        (void)rc;
    }
}

void mem_step_begin(void)
{
    step_depth++;
}

void mem_step_end(void)
{
    assert(step_depth > 0);
    step_depth--;
}

bool mem_in_step(void)
{
    return step_depth > 0;
}

void mem_fail_at(uint64_t n, bool sticky)
{
    atomic_store(&fail_sticky, sticky);
    atomic_store(&fail_countdown, n);
}

uint64_t mem_refused_count(void)
{
    return refused_count;
}

uint64_t mem_alloc_count(void)
{
    return atomic_load(&alloc_count);
}

static void *allocate_bytes(size_t bytes)
{
    return mem_alloc(bytes, 1);
}

void mem_lend(void (*take)(void *(*allocate)(size_t bytes), void (*release)(void *p)))
{
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    static bool lent;
    pthread_mutex_lock(&mutex);
    if (!lent) {
        take(allocate_bytes, mem_free);
        lent = true;
    }
    pthread_mutex_unlock(&mutex);
}

#define ARENA_DEFAULT_CHUNK ((size_t)64 * 1024)
#define ARENA_ALIGN         ((size_t)16)

struct arena_chunk {
    struct arena_chunk *next;
    size_t used;
    size_t capacity;
    _Alignas(16) unsigned char bytes[];
};

void *arena_alloc(struct arena *a, size_t count, size_t size)
{
    size_t bytes;
    if (count == 0 || size == 0 || __builtin_mul_overflow(count, size, &bytes) ||
        bytes > SIZE_MAX / 2) {
        return NULL;
    }
    bytes = (bytes + ARENA_ALIGN - 1) & ~(ARENA_ALIGN - 1);
    struct arena_chunk *c = a->head;
    if (c == NULL || c->capacity - c->used < bytes) {
        size_t capacity = a->chunk_bytes != 0 ? a->chunk_bytes : ARENA_DEFAULT_CHUNK;
        if (capacity < bytes) {
            capacity = bytes;
        }
        c = mem_alloc(1, sizeof *c + capacity);
        if (c == NULL) {
            return NULL;
        }
        c->capacity = capacity;
        c->next = a->head;
        a->head = c;
    }
    void *p = c->bytes + c->used;
    c->used += bytes;
    return p;
}

char *arena_strndup(struct arena *a, const char *text, size_t n)
{
    char *copy = n == SIZE_MAX ? NULL : arena_alloc(a, n + 1, 1);
    if (copy != NULL && n > 0) {
        memcpy(copy, text, n);
    }
    return copy;
}

void arena_deinit(struct arena *a)
{
    struct arena_chunk *c = a->head;
    while (c != NULL) {
        struct arena_chunk *next = c->next;
        mem_free(c);
        c = next;
    }
    a->head = NULL;
}
