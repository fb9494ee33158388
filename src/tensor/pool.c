/*
 * pool.c - the fixed team of threads behind pool.h.
 *
 * One job at a time. The caller writes it, then raises `generation`; workers see the new number and
 * run their part, then count `unfinished` down. Both sides spin for SPIN_NS before they sleep on a
 * condition variable, so that back-to-back jobs cost about a microsecond and an idle team nothing.
 * The spin ends by the clock: with more threads than cores nobody burns more than that.
 *
 * Shares are cut before `generation` is raised and not touched after `unfinished` reached 0. The
 * value of a share is all of its state, so taking by compare-and-exchange needs no more than
 * relaxed order, and a value that comes back is as good as one that never went.
 */
#include "tensor/pool.h"

#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include "base/mem.h"
#include "base/monotime.h"

#define SPIN_NS              40000
#define SPINS_PER_CLOCK_READ 16

/* What is left of a thread's share of the job: units [low half, high half). Its owner takes from
 * the front, and whoever has nothing left from the back: cores are not equally fast when the
 * machine has other work, and the job is done when the last one is. */
struct share {
    _Alignas(64) _Atomic uint64_t range;
};

struct worker {
    struct pool *pool;
    pthread_t thread;
    uint32_t index; /* 1 .. n_threads - 1; the caller is 0 */
};

struct pool {
    uint32_t n_threads;
    uint32_t n_started; /* workers that run */
    struct worker *workers;
    struct share *shares; /* [n_threads] */

    /* The job: written before `generation` is raised, read after it was seen. */
    void (*fn)(void *ctx, uint32_t begin, uint32_t end, uint32_t thread);
    void *ctx;
    uint32_t n;
    uint32_t grain;
    bool guarded; /* the caller may not allocate, so neither may the workers */
    bool stop;

    pthread_mutex_t mutex;
    pthread_cond_t job_posted;
    pthread_cond_t job_done;

    _Alignas(64) _Atomic uint32_t generation;
    _Alignas(64) _Atomic uint32_t sleepers; /* workers at or near job_posted */
    _Alignas(64) _Atomic uint32_t unfinished;
    _Alignas(64) _Atomic bool caller_sleeps;
};

static void cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Waits until *value differs from (equal = false) or equals (equal = true) `target`; false when
 * SPIN_NS went by first. */
static bool spin_until(_Atomic uint32_t *value, uint32_t target, bool equal)
{
    uint64_t begin = 0;
    for (uint32_t i = 1;; i++) {
        if ((atomic_load_explicit(value, memory_order_acquire) == target) == equal) {
            return true;
        }
        cpu_relax();
        if (i % SPINS_PER_CLOCK_READ == 0) {
            uint64_t now = monotime_now_ns();
            begin = begin == 0 ? now : begin;
            if (now - begin >= SPIN_NS) {
                return false;
            }
        }
    }
}

/* The sleeper announces itself before it looks at `generation` for the last time, and the poster
 * raises `generation` before it looks for sleepers (both in the single order of seq_cst): one of
 * the two sees the other. */
static void wait_for_job(struct pool *p, uint32_t seen)
{
    if (spin_until(&p->generation, seen, false)) {
        return;
    }
    pthread_mutex_lock(&p->mutex);
    atomic_fetch_add(&p->sleepers, 1);
    while (atomic_load(&p->generation) == seen) {
        pthread_cond_wait(&p->job_posted, &p->mutex);
    }
    atomic_fetch_sub(&p->sleepers, 1);
    pthread_mutex_unlock(&p->mutex);
}

static void post_job(struct pool *p)
{
    atomic_store_explicit(&p->unfinished, p->n_started, memory_order_relaxed);
    atomic_fetch_add(&p->generation, 1);
    if (atomic_load(&p->sleepers) > 0) {
        pthread_mutex_lock(&p->mutex);
        pthread_cond_broadcast(&p->job_posted);
        pthread_mutex_unlock(&p->mutex);
    }
}

static void wait_for_workers(struct pool *p)
{
    if (spin_until(&p->unfinished, 0, true)) {
        return;
    }
    pthread_mutex_lock(&p->mutex);
    atomic_store(&p->caller_sleeps, true);
    while (atomic_load(&p->unfinished) != 0) {
        pthread_cond_wait(&p->job_done, &p->mutex);
    }
    atomic_store(&p->caller_sleeps, false);
    pthread_mutex_unlock(&p->mutex);
}

static void finish_part(struct pool *p)
{
    if (atomic_fetch_sub(&p->unfinished, 1) == 1 && atomic_load(&p->caller_sleeps)) {
        pthread_mutex_lock(&p->mutex);
        pthread_cond_signal(&p->job_done);
        pthread_mutex_unlock(&p->mutex);
    }
}

static uint64_t range_of(uint64_t begin, uint64_t end)
{
    return begin | end << 32;
}

/* Takes a part of what is left of a share: a quarter from its front, or half of it from its back.
 * Returns an empty range when nothing is left. */
static uint64_t take(struct share *s, bool is_owner)
{
    uint64_t range = atomic_load_explicit(&s->range, memory_order_relaxed);
    for (;;) {
        uint64_t begin = (uint32_t)range;
        uint64_t end = range >> 32;
        if (begin >= end) {
            return 0;
        }
        uint64_t n = is_owner ? (end - begin + 3) / 4 : (end - begin + 1) / 2;
        uint64_t left = is_owner ? range_of(begin + n, end) : range_of(begin, end - n);
        if (atomic_compare_exchange_weak_explicit(&s->range, &range, left, memory_order_relaxed,
                                                  memory_order_relaxed)) {
            return is_owner ? range_of(begin, begin + n) : range_of(end - n, end);
        }
    }
}

/* Half of what another thread has left becomes this thread's share. */
static bool steal(struct pool *p, uint32_t thread)
{
    for (uint32_t i = 1; i < p->n_threads; i++) {
        uint64_t range = take(&p->shares[(thread + i) % p->n_threads], false);
        if (range != 0) {
            atomic_store_explicit(&p->shares[thread].range, range, memory_order_relaxed);
            return true;
        }
    }
    return false;
}

static void run_parts(struct pool *p, uint32_t thread)
{
    do {
        for (uint64_t range; (range = take(&p->shares[thread], true)) != 0;) {
            uint64_t begin = (uint64_t)(uint32_t)range * p->grain;
            uint64_t end = (range >> 32) * p->grain;
            end = end < p->n ? end : p->n;
            p->fn(p->ctx, (uint32_t)begin, (uint32_t)end, thread);
        }
    } while (steal(p, thread));
}

/* Before post_job: no worker looks at the shares then. */
static void cut_shares(struct pool *p)
{
    uint64_t units = ((uint64_t)p->n + p->grain - 1) / p->grain;
    for (uint64_t i = 0; i < p->n_threads; i++) {
        uint64_t range = range_of(units * i / p->n_threads, units * (i + 1) / p->n_threads);
        atomic_store_explicit(&p->shares[i].range, range, memory_order_relaxed);
    }
}

static void *worker_main(void *arg)
{
    const struct worker *w = arg;
    struct pool *p = w->pool;
    for (uint32_t seen = 0;; seen++) {
        wait_for_job(p, seen);
        if (p->stop) {
            return NULL;
        }
        if (p->guarded) {
            mem_step_begin();
        }
        run_parts(p, w->index);
        if (p->guarded) {
            mem_step_end();
        }
        finish_part(p);
    }
}

void pool_run(struct pool *p, uint32_t n, uint32_t grain,
              void (*fn)(void *ctx, uint32_t begin, uint32_t end, uint32_t thread), void *ctx)
{
    assert(grain >= 1);
    if (n == 0) {
        return;
    }
    if (p->n_threads == 1 || n <= grain) {
        fn(ctx, 0, n, 0);
        return;
    }
    p->fn = fn;
    p->ctx = ctx;
    p->n = n;
    p->grain = grain;
    p->guarded = mem_in_step();
    cut_shares(p);
    post_job(p);
    run_parts(p, 0);
    wait_for_workers(p);
}

/* Signals belong to the threads that asked for them: workers are born with all of them blocked. */
static int start_workers(struct pool *p)
{
    sigset_t all;
    sigset_t old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int failure = 0;
    for (uint32_t i = 1; i < p->n_threads && failure == 0; i++) {
        struct worker *w = &p->workers[i - 1];
        *w = (struct worker){.pool = p, .index = i};
        failure = pthread_create(&w->thread, NULL, worker_main, w);
        p->n_started += failure == 0;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return failure;
}

enum status pool_create(uint32_t n_threads, struct pool **out, struct error *err)
{
    if (n_threads < 1 || n_threads > POOL_MAX_THREADS) {
        return error_set(err, STATUS_USAGE, -1, "threads: %u is outside 1 to %d", n_threads,
                         POOL_MAX_THREADS);
    }
    struct pool *p = mem_alloc_aligned(_Alignof(struct pool), sizeof *p);
    if (p == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for a thread pool");
    }
    p->n_threads = n_threads;
    p->workers = mem_alloc(n_threads, sizeof *p->workers);
    p->shares = mem_alloc_aligned(_Alignof(struct share), n_threads * sizeof *p->shares);
    if (p->workers == NULL || p->shares == NULL) {
        mem_free(p->workers);
        mem_free(p->shares);
        mem_free(p);
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for a thread pool");
    }
    pthread_mutex_init(&p->mutex, NULL);
    pthread_cond_init(&p->job_posted, NULL);
    pthread_cond_init(&p->job_done, NULL);
    int failure = start_workers(p);
    if (failure != 0) {
        uint32_t started = p->n_started;
        pool_destroy(p);
        return error_set(err, STATUS_NO_MEMORY, -1, "cannot start thread %u of %u: %s; use fewer",
                         started + 2, n_threads, strerror(failure));
    }
    *out = p;
    return STATUS_OK;
}

void pool_destroy(struct pool *p)
{
    if (p == NULL) {
        return;
    }
    p->stop = true;
    post_job(p);
    for (uint32_t i = 0; i < p->n_started; i++) {
        pthread_join(p->workers[i].thread, NULL);
    }
    pthread_cond_destroy(&p->job_done);
    pthread_cond_destroy(&p->job_posted);
    pthread_mutex_destroy(&p->mutex);
    mem_free(p->workers);
    mem_free(p->shares);
    mem_free(p);
}

uint32_t pool_threads(const struct pool *p)
{
    return p->n_threads;
}
