/*
 * mem.h - the only way the project allocates.
 *
 * One place that can count, refuse (tests make the n-th allocation fail) and guard: between
 * mem_step_begin() and mem_step_end() any allocation by that thread aborts, which proves that an
 * engine step allocates nothing. Other threads go on as they like, except those that work for the
 * step: a pool's workers are guarded while their caller is (tensor/pool.h). Thread: all functions
 * are thread-safe.
 */
#ifndef LLMSCHED_BASE_MEM_H
#define LLMSCHED_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* Zeroed memory for count objects of size bytes; NULL when refused, when count * size overflows or
 * is 0. Owner: the caller, who frees with mem_free. */
void *mem_alloc(size_t count, size_t size) MUST_USE;

/* Grows or shrinks to count * size bytes; new bytes are not zeroed. NULL leaves old as it was. */
void *mem_resize(void *old, size_t count, size_t size) MUST_USE;

/* Zeroed memory aligned to align bytes (a power of two); free with mem_free. */
void *mem_alloc_aligned(size_t align, size_t bytes) MUST_USE;

/* As mem_alloc_aligned(64, bytes), for large tables that are read from end to end (weights, KV):
 * the system is asked for huge pages, which spare the address look-ups that bound such reads. May
 * round up to whole huge pages where that costs less than 1 MiB. */
void *mem_alloc_table(size_t bytes) MUST_USE;

/* A copy of n bytes plus a closing NUL; NULL when refused. */
char *mem_strndup(const char *text, size_t n) MUST_USE;
char *mem_strdup(const char *text) MUST_USE;

void mem_free(void *p);

/* Gives memory that is free but kept for later (between pieces in use, too) back to the system.
 * Takes about a millisecond; for a moment when nobody waits. Does nothing without glibc. */
void mem_trim(void);

/* Zeroed address space for a large store that fills slowly (KV pages): the kernel gives each page
 * when it is first touched, so memory in use grows with what is written, not with bytes. Page
 * aligned. NULL when refused. Owner: the caller, who frees with mem_unreserve and the same bytes.
 */
void *mem_reserve(size_t bytes) MUST_USE;
void mem_unreserve(void *p, size_t bytes);

/* Guard of the calling thread: see the top. May be nested. */
void mem_step_begin(void);
void mem_step_end(void);
bool mem_in_step(void); /* for teams that pass the guard on, and for interposers in tests */

/* Tests: the n-th allocation from now (1 = next) is refused; sticky refuses all later ones too.
 * 0 switches off. mem_alloc_count() counts allocations since the start of the process. */
void mem_fail_at(uint64_t n, bool sticky);
uint64_t mem_alloc_count(void);

/* How often mem_alloc and mem_resize gave NULL on the calling thread. For libraries that use our
 * memory and do not say that it was refused. */
uint64_t mem_refused_count(void);

/* Gives the program's one library that allocates through two functions (jansson) ours: `take` is
 * its setter (json_set_alloc_funcs). Acts once in a process, whichever thread comes first; when it
 * returns the library has them. Whoever may parse beside other threads calls it before. */
void mem_lend(void (*take)(void *(*allocate)(size_t bytes), void (*release)(void *p)));

/*
 * arena - many small objects with one lifetime, freed together. Allocates in chunks. Not
 * thread-safe. Memory is zeroed and aligned to 16.
 */
struct arena_chunk;
struct arena {
    struct arena_chunk *head;
    size_t chunk_bytes; /* 0: a default */
};

void *arena_alloc(struct arena *a, size_t count, size_t size) MUST_USE;
char *arena_strndup(struct arena *a, const char *text, size_t n) MUST_USE;
void arena_deinit(struct arena *a);

#endif
