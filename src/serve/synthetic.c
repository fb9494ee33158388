/*
 * synthetic.c - see synthetic.h.
 *
 * A heap of jobs, the one whose next token is due first on top; a timerfd stands at that instant.
 * A cancelled job is due at once. Everything happens on the network thread.
 */
#include "serve/synthetic.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/monotime.h"
#include "sim/exec_sim.h"

#define LETTERS   27 /* a to z and the space: one event each, nothing to escape */
#define FIRST_CAP 64U
#define REST_NS   (NS_PER_MS / 10) /* see rest */

struct entry {
    uint64_t due_ns;
    struct job *job;
};

struct synthetic {
    struct backend backend;
    struct synthetic_config config;
    enum backend_state state;
    struct entry *heap; /* heap[job->live_idx].job == job */
    uint32_t n;
    uint32_t capacity;
    struct job *refused; /* submitted, but the heap could not grow; linked by next_out */
    uint64_t last_id;
};

/* ---------------------------------------------------------------- the heap */

static void place(struct synthetic *s, uint32_t at, struct entry e)
{
    s->heap[at] = e;
    e.job->live_idx = at;
}

static void sift_up(struct synthetic *s, uint32_t at)
{
    struct entry moving = s->heap[at];
    while (at > 0 && moving.due_ns < s->heap[(at - 1) / 2].due_ns) {
        place(s, at, s->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    place(s, at, moving);
}

static void sift_down(struct synthetic *s, uint32_t at)
{
    struct entry moving = s->heap[at];
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child + 1 < s->n && s->heap[child + 1].due_ns < s->heap[child].due_ns) {
            child++;
        }
        if (child >= s->n || s->heap[child].due_ns >= moving.due_ns) {
            break;
        }
        place(s, at, s->heap[child]);
        at = child;
    }
    place(s, at, moving);
}

static bool grow(struct synthetic *s)
{
    uint32_t capacity = s->capacity > 0 ? 2 * s->capacity : FIRST_CAP;
    struct entry *heap = mem_resize(s->heap, capacity, sizeof *heap);
    if (heap == NULL) {
        return false;
    }
    s->heap = heap;
    s->capacity = capacity;
    return true;
}

static void remove_top(struct synthetic *s)
{
    struct entry last = s->heap[--s->n];
    if (s->n > 0) {
        place(s, 0, last);
        sift_down(s, 0);
    }
}

/* ---------------------------------------------------------------- time */

/* TIME_NEVER: the timer rests. An instant that has passed makes fd readable at once. */
static void set_timer(const struct synthetic *s, uint64_t at_ns)
{
    struct itimerspec t = {{0, 0}, {0, 0}};
    if (at_ns != TIME_NEVER) {
        at_ns = at_ns > 0 ? at_ns : 1; /* 0 would mean: rest */
        t.it_value = (struct timespec){.tv_sec = (time_t)(at_ns / NS_PER_S),
                                       .tv_nsec = (long)(at_ns % NS_PER_S)};
    }
    int rc = timerfd_settime(s->backend.fd, TFD_TIMER_ABSTIME, &t, NULL);
    assert(rc == 0);
    (void)rc;
}

static uint64_t due_of(const struct synthetic *s, const struct job *j, uint32_t token)
{
    return j->request.arrival_ns + s->config.ttft_ns + (uint64_t)token * s->config.tpot_ns;
}

/* ---------------------------------------------------------------- the backend */

static enum backend_state state(void *self)
{
    const struct synthetic *s = self;
    return s->state;
}

static void submit(void *self, struct job *j)
{
    struct synthetic *s = self;
    assert(s->state == BACKEND_READY);
    j->request.id = s->last_id++;
    j->request.arrival_ns = monotime_now_ns();
    if (s->n == s->capacity && !grow(s)) {
        atomic_store_explicit(&j->next_out, s->refused, memory_order_relaxed);
        s->refused = j;
        set_timer(s, 1);
        return;
    }
    s->heap[s->n] = (struct entry){.due_ns = due_of(s, j, 0), .job = j};
    j->live_idx = s->n++;
    sift_up(s, j->live_idx);
    if (j->live_idx == 0) {
        set_timer(s, s->heap[0].due_ns);
    }
}

/* A job that is in the heap: its end was not taken. */
static bool is_live(const struct synthetic *s, const struct job *j)
{
    return j->live_idx < s->n && s->heap[j->live_idx].job == j;
}

static void cancel(void *self, struct job *j)
{
    struct synthetic *s = self;
    if (!is_live(s, j)) {
        return;
    }
    atomic_store_explicit(&j->is_cancelled, 1, memory_order_relaxed);
    s->heap[j->live_idx].due_ns = 0;
    sift_up(s, j->live_idx);
    set_timer(s, 1);
}

static void end_job(struct job *j, enum job_end end, uint32_t reason)
{
    j->reason = reason;
    atomic_store_explicit(&j->end, end, memory_order_release);
}

/* The next token, which is due; true when it was the last one. One at a time even when more are
 * due: each gets an event of its own, so that every stamp has its counterpart. */
static bool produce(const struct synthetic *s, struct job *j)
{
    const struct request *r = &j->request;
    uint32_t n = job_tokens(j);
    int32_t letter = exec_sim_token(r->sample_key, r->prompt_tokens + n, LETTERS);
    j->tokens[n] = letter < LETTERS - 1 ? 'a' + letter : ' ';
    if (j->due_ns != NULL) {
        j->due_ns[n] = due_of(s, j, n);
    }
    atomic_store_explicit(&j->n_tokens, n + 1, memory_order_release);
    return n + 1 == r->max_new_tokens;
}

/* Nothing is due. With thousands of tokens a second one is due every few microseconds: a pause lets
 * one wake-up and one timer serve many. They are late by it at most, which their stamps show. */
static struct job *rest(struct synthetic *s, uint64_t now_ns)
{
    uint64_t due_ns = s->n > 0 ? s->heap[0].due_ns : TIME_NEVER;
    set_timer(s, due_ns > now_ns + REST_NS ? due_ns : now_ns + REST_NS);
    if (s->n == 0 && s->state == BACKEND_DRAINING) {
        s->state = BACKEND_STOPPED;
    }
    return NULL;
}

static struct job *take(void *self)
{
    struct synthetic *s = self;
    struct job *j = s->refused;
    if (j != NULL) {
        s->refused = atomic_load_explicit(&j->next_out, memory_order_relaxed);
        end_job(j, JOB_FAILED, FINISH_ERROR);
        return j;
    }
    uint64_t now_ns = monotime_now_ns();
    if (s->n == 0 || s->heap[0].due_ns > now_ns) {
        return rest(s, now_ns);
    }
    j = s->heap[0].job;
    if (atomic_load_explicit(&j->is_cancelled, memory_order_relaxed) != 0) {
        remove_top(s);
        end_job(j, JOB_CANCELLED, 0);
    } else if (produce(s, j)) {
        remove_top(s);
        end_job(j, JOB_FINISHED, FINISH_LENGTH);
    } else {
        s->heap[0].due_ns = due_of(s, j, job_tokens(j));
        sift_down(s, 0);
    }
    return j;
}

/* Nobody waits for a turn here. */
static uint32_t waiting(void *self)
{
    (void)self;
    return 0;
}

static void drain(void *self)
{
    struct synthetic *s = self;
    if (s->state == BACKEND_READY) {
        s->state = BACKEND_DRAINING;
        set_timer(s, 1); /* take finds out whether that was all */
    }
}

static void abort_all(void *self)
{
    struct synthetic *s = self;
    drain(s);
    for (uint32_t i = 0; i < s->n; i++) {
        atomic_store_explicit(&s->heap[i].job->is_cancelled, 1, memory_order_relaxed);
        s->heap[i].due_ns = 0; /* all alike: still a heap */
    }
    set_timer(s, 1);
}

static const char *error(void *self)
{
    (void)self;
    return "";
}

enum status synthetic_create(const struct synthetic_config *config, struct synthetic **out,
                             struct error *err)
{
    struct synthetic *s = mem_alloc(1, sizeof *s);
    if (s == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for the timetable");
    }
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (fd < 0) {
        mem_free(s);
        return error_set(err, STATUS_IO, -1, "no timer: %s", strerror(errno));
    }
    s->config = *config;
    s->state = BACKEND_READY;
    s->backend = (struct backend){
        .limits = {.max_model_len = config->max_model_len,
                   .kv_tokens = config->max_model_len,
                   .max_seqs = UINT32_MAX,
                   .wants_stamps = true},
        .fd = fd,
        .state = state,
        .submit = submit,
        .cancel = cancel,
        .take = take,
        .waiting = waiting,
        .drain = drain,
        .abort = abort_all,
        .error = error,
        .self = s,
    };
    *out = s;
    return STATUS_OK;
}

struct backend *synthetic_backend(struct synthetic *s)
{
    return &s->backend;
}

void synthetic_destroy(struct synthetic *s)
{
    if (s != NULL) {
        assert(s->n == 0 && s->refused == NULL);
        close(s->backend.fd);
        mem_free(s->heap);
        mem_free(s);
    }
}
