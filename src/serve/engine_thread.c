/*
 * engine_thread.c - see engine_thread.h: the boxes between the two threads, and the engine's
 * source, sink and clock behind them.
 *
 * No wake-up is lost. Each direction has an eventfd, and each side keeps one order:
 *   the giver:  puts the job into the box (or sets a flag), then writes the eventfd;
 *   the taker:  reads the eventfd (makes it quiet), then looks at the box (or the flag).
 * What the taker's look misses was put in after it, so its eventfd is written after the read, and
 * the next poll returns at once. The engine reads its eventfd in wait_until only, and every return
 * from there leads to source.next and next_cancel, which look. Towards the network the engine
 * collects: `has_news` is set with every push, and answered by one write when the engine has taken
 * its own news (next_cancel comes last there): at the start of each turn and after each step's
 * computation. Between that point and a sleep nothing is pushed (an empty plan ends no request;
 * asserted), and what is pushed in a step is told at the start of the next turn.
 *
 * A job's last touch by the engine is the exchange in tell() that carries its end (or the push that
 * follows it, before which nobody else can find the job). `job->end` itself is set by take.
 */
#include "serve/engine_thread.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/monotime.h"
#include "engine/engine.h"

/* When to ask an open source again: only a wake-up brings something. */
#define WHEN_WOKEN (TIME_NEVER - 1)

/* A request id is serial * LIVE_LIMIT + place in `live`: ids grow, as policies break ties by them,
 * and lead to their job without a search. */
#define LIVE_LIMIT ((uint64_t)ENGINE_QUEUE_LIMIT)

struct live {
    struct job *job; /* NULL: free place */
    bool was_scheduled;
    enum job_end end; /* of the terminal event; shown to the network by on_done */
};

struct engine_thread {
    struct engine_thread_config config;
    struct backend backend;
    pthread_t thread;
    int engine_fd; /* wakes the engine; backend.fd wakes the network */

    /* Network to engine. */
    _Atomic(struct job *) inbox; /* newest first */
    _Atomic int is_cancel_asked;
    _Atomic int is_drain_asked;
    _Atomic int is_abort_asked;

    /* Engine to network. */
    _Atomic(struct job *) outbox; /* newest first */
    _Atomic int run_state;        /* LOADING, READY, then STOPPED or FAILED */
    struct error error;           /* readable in state FAILED */

    _Atomic uint32_t n_waiting; /* + at submit, - at the first step or the end */

    /* The network thread's. */
    struct job *taken; /* oldest first */

    /* The engine thread's. */
    struct event_sink prom_sink;
    struct job *arrived; /* oldest first */
    struct live *live;   /* max_jobs */
    uint32_t *free_places;
    uint32_t n_free_places;
    uint32_t live_end; /* places below were ever used */
    uint64_t next_serial;
    bool is_rescan_due;
    uint32_t scan_at; /* place to look at for a cancelled job; live_end: scan is over */
    bool has_news;
    volatile int stop; /* what engine_run looks at: is_abort_asked, copied on the engine's thread */
};

/* The head of an inbox that nobody will look at again. */
static struct job inbox_closed;

static void ring(int fd)
{
    uint64_t one = 1;
    ssize_t n = write(fd, &one, sizeof one);
    /* EAGAIN: the counter is full, so it is readable. */
    assert(n == (ssize_t)sizeof one || errno == EAGAIN);
    (void)n;
}

static void make_quiet(int fd)
{
    uint64_t count;
    ssize_t n = read(fd, &count, sizeof count);
    assert(n == (ssize_t)sizeof count || errno == EAGAIN);
    (void)n;
}

/* ---- engine thread: news for the network ---- */

static void push_out(struct engine_thread *t, struct job *job)
{
    struct job *head = atomic_load_explicit(&t->outbox, memory_order_relaxed);
    do {
        atomic_store_explicit(&job->next_out, head, memory_order_relaxed);
    } while (!atomic_compare_exchange_weak_explicit(&t->outbox, &head, job, memory_order_release,
                                                    memory_order_relaxed));
}

/* A job that is queued already stays there, and its wake-up is on the way: take lowers the flag
 * after it popped the job, and with the flag it reads all that was written before. */
static void tell(struct engine_thread *t, struct job *job, enum job_end end)
{
    if (atomic_exchange_explicit(&job->is_queued_out, 1 + (int)end, memory_order_acq_rel) == 0) {
        push_out(t, job);
        t->has_news = true;
    }
}

static void wake_network(struct engine_thread *t)
{
    if (t->has_news) {
        t->has_news = false;
        ring(t->backend.fd);
    }
}

static struct live *live_of(struct engine_thread *t, uint64_t request_id)
{
    struct live *l = &t->live[request_id % LIVE_LIMIT];
    assert(l->job != NULL && l->job->request.id == request_id);
    return l;
}

static void leave_queue(struct engine_thread *t, struct live *l)
{
    if (!l->was_scheduled) {
        l->was_scheduled = true;
        atomic_fetch_sub_explicit(&t->n_waiting, 1, memory_order_relaxed);
    }
}

static void append_tokens(struct engine_thread *t, struct job *job, const struct event *ev)
{
    uint32_t n = atomic_load_explicit(&job->n_tokens, memory_order_relaxed);
    assert(ev->n <= job->request.max_new_tokens - n);
    memcpy(job->tokens + n, ev->tokens, ev->n * sizeof *job->tokens);
    atomic_store_explicit(&job->n_tokens, n + ev->n, memory_order_release);
    tell(t, job, JOB_LIVE);
}

static bool is_cancelled(const struct job *job)
{
    return atomic_load_explicit(&job->is_cancelled, memory_order_acquire) != 0;
}

/* To the counters, a request that was cancelled because its stop string is complete succeeded. */
static void count_event(const struct engine_thread *t, const struct job *job, struct event ev)
{
    if (ev.kind == EVENT_CANCEL) {
        ev.reason = is_cancelled(job) ? job->cancel_as : FINISH_NONE;
    }
    if (t->prom_sink.event != NULL) {
        t->prom_sink.event(t->prom_sink.self, &ev);
    }
}

static void on_event(void *self, const struct event *ev)
{
    struct engine_thread *t = self;
    struct live *l = live_of(t, ev->request_id);
    count_event(t, l->job, *ev);
    switch (ev->kind) {
    case EVENT_SCHEDULED:
        leave_queue(t, l);
        return;
    case EVENT_DELIVER:
        append_tokens(t, l->job, ev);
        return;
    case EVENT_FINISH:
        l->end = JOB_FINISHED;
        break;
    case EVENT_REJECT:
        l->end = JOB_REJECTED;
        break;
    case EVENT_CANCEL:
        l->end = JOB_CANCELLED;
        break;
    case EVENT_FAIL:
        l->end = JOB_FAILED;
        break;
    default:
        return;
    }
    l->job->reason = ev->reason;
}

static void on_step(void *self, const struct step_record *step)
{
    const struct engine_thread *t = self;
    if (t->prom_sink.step != NULL) {
        t->prom_sink.step(t->prom_sink.self, step);
    }
}

static void on_gap(void *self, const struct gap_record *gap)
{
    const struct engine_thread *t = self;
    if (t->prom_sink.gap != NULL) {
        t->prom_sink.gap(t->prom_sink.self, gap);
    }
}

/* ---- engine thread: source ---- */

static struct job *job_of(const struct request *r)
{
    return (struct job *)((char *)(uintptr_t)r - offsetof(struct job, request));
}

static struct job *reversed_inbox(struct job *newest)
{
    struct job *oldest = NULL;
    while (newest != NULL) {
        struct job *older = atomic_load_explicit(&newest->next_in, memory_order_relaxed);
        atomic_store_explicit(&newest->next_in, oldest, memory_order_relaxed);
        oldest = newest;
        newest = older;
    }
    return oldest;
}

static void enter(struct engine_thread *t, struct job *job, uint64_t now_ns)
{
    assert(t->n_free_places > 0); /* max_jobs bounds the caller */
    uint32_t place = t->free_places[--t->n_free_places];
    t->live[place] = (struct live){.job = job};
    if (place >= t->live_end) {
        assert(t->scan_at == t->live_end); /* arrivals come before cancels, never in a scan */
        t->live_end = place + 1;
        t->scan_at = t->live_end;
    }
    job->live_idx = place;
    job->request.id = t->next_serial++ * LIVE_LIMIT + place;
    /* It may have come after the engine read its clock. */
    if (job->request.arrival_ns > now_ns) {
        job->request.arrival_ns = now_ns;
    }
    /* Its cancellation may have been asked for, and searched in vain, before it got here. */
    t->is_rescan_due = t->is_rescan_due || is_cancelled(job);
}

/* The flag is looked at before the box: once draining is seen, so are all jobs before it. */
static const struct request *next(void *self, uint64_t now_ns, uint64_t *next_at_ns)
{
    struct engine_thread *t = self;
    t->stop = atomic_load_explicit(&t->is_abort_asked, memory_order_acquire);
    bool is_draining = atomic_load_explicit(&t->is_drain_asked, memory_order_acquire) != 0;
    if (t->arrived == NULL) {
        t->arrived =
            reversed_inbox(atomic_exchange_explicit(&t->inbox, NULL, memory_order_acquire));
    }
    struct job *job = t->arrived;
    if (job == NULL) {
        *next_at_ns = is_draining ? TIME_NEVER : WHEN_WOKEN;
        return NULL;
    }
    t->arrived = atomic_load_explicit(&job->next_in, memory_order_relaxed);
    enter(t, job, now_ns);
    return &job->request;
}

static uint64_t next_cancel(void *self, uint64_t now_ns)
{
    struct engine_thread *t = self;
    (void)now_ns;
    if (atomic_exchange_explicit(&t->is_cancel_asked, 0, memory_order_acq_rel) != 0 ||
        t->is_rescan_due) {
        t->is_rescan_due = false;
        t->scan_at = 0;
    }
    while (t->scan_at < t->live_end) {
        const struct job *job = t->live[t->scan_at++].job;
        if (job != NULL && is_cancelled(job)) {
            return job->request.id;
        }
    }
    wake_network(t);
    return UINT64_MAX;
}

static void on_done(void *self, const struct request *request, uint64_t now_ns)
{
    struct engine_thread *t = self;
    (void)now_ns;
    struct live *l = live_of(t, request->id);
    struct job *job = l->job;
    assert(job == job_of(request) && l->end != JOB_LIVE);
    leave_queue(t, l);
    l->job = NULL;
    t->free_places[t->n_free_places++] = job->live_idx;
    tell(t, job, l->end);
}

/* ---- engine thread: clock ---- */

static uint64_t now(void *self)
{
    (void)self;
    return monotime_now_ns();
}

static void wait_until(void *self, uint64_t t_ns)
{
    struct engine_thread *t = self;
    assert(!t->has_news);
    uint64_t at = monotime_now_ns();
    uint64_t left = t_ns > at ? t_ns - at : 0;
    struct timespec ts = {.tv_sec = (time_t)(left / NS_PER_S), .tv_nsec = (long)(left % NS_PER_S)};
    struct pollfd p = {.fd = t->engine_fd, .events = POLLIN};
    int n = ppoll(&p, 1, t_ns < WHEN_WOKEN ? &ts : NULL, NULL);
    assert(n >= 0 || errno == EINTR);
    if (n > 0) {
        make_quiet(t->engine_fd);
    }
    t->stop = atomic_load_explicit(&t->is_abort_asked, memory_order_acquire);
}

/* ---- engine thread: life ---- */

static enum status check_promises(const struct engine_thread *t, const struct executor *x,
                                  struct error *err)
{
    const struct backend_limits *l = &t->backend.limits;
    if (x->info.max_model_len != l->max_model_len || x->info.block_tokens != l->block_tokens) {
        return error_set(err, STATUS_INTERNAL, -1,
                         "limits of %u tokens and blocks of %u were announced, the executor has %u "
                         "and %u",
                         l->max_model_len, l->block_tokens, x->info.max_model_len,
                         x->info.block_tokens);
    }
    return STATUS_OK;
}

static enum status run_engine(struct engine_thread *t, struct executor *executor, struct error *err)
{
    struct clock clock = {.now = now, .wait_until = wait_until, .self = t};
    struct source source = {
        .next = next, .on_done = on_done, .next_cancel = next_cancel, .self = t};
    struct event_sink sink = {.event = on_event, .step = on_step, .gap = on_gap, .self = t};
    struct engine_config config = {
        .policy = t->config.policy,
        .params = t->config.params,
        .executor = executor,
        .clock = &clock,
        .sinks = &sink,
        .n_sinks = 1,
        .total_blocks = t->config.total_blocks,
        .max_seqs = t->config.max_seqs,
        .max_queue = t->config.max_jobs, /* the queue is bounded by whoever submits */
        .token_budget = t->config.token_budget,
        .guard_allocations = true,
    };
    struct engine *engine;
    enum status s = engine_create(&config, &engine, err);
    if (s != STATUS_OK) {
        return s;
    }
    atomic_store_explicit(&t->run_state, BACKEND_READY, memory_order_release);
    ring(t->backend.fd);
    s = engine_run(engine, &source, &t->stop, err);
    engine_destroy(engine);
    return s;
}

/* Jobs that the engine never saw. */
static void end_unseen(struct engine_thread *t, struct job *oldest, enum job_end end)
{
    while (oldest != NULL) {
        struct job *job = oldest;
        oldest = atomic_load_explicit(&job->next_in, memory_order_relaxed);
        atomic_fetch_sub_explicit(&t->n_waiting, 1, memory_order_relaxed);
        tell(t, job, end);
    }
}

static void *thread_main(void *arg)
{
    struct engine_thread *t = arg;
    struct error err = ERROR_INIT;
    struct executor *executor;
    enum status s = t->config.load(t->config.load_self, &executor, &err);
    if (s == STATUS_OK) {
        s = check_promises(t, executor, &err);
    }
    if (s == STATUS_OK) {
        s = run_engine(t, executor, &err);
    }
    bool failed = s != STATUS_OK && s != STATUS_INTERRUPTED;
    if (failed) {
        t->error = err;
    }
    enum job_end end = failed ? JOB_FAILED : JOB_CANCELLED;
    end_unseen(t, t->arrived, end);
    struct job *newest = atomic_exchange_explicit(&t->inbox, &inbox_closed, memory_order_acq_rel);
    end_unseen(t, reversed_inbox(newest), end);
    atomic_store_explicit(&t->run_state, failed ? BACKEND_FAILED : BACKEND_STOPPED,
                          memory_order_release);
    ring(t->backend.fd);
    return NULL;
}

/* ---- network thread: the backend ---- */

static enum backend_state state(void *self)
{
    struct engine_thread *t = self;
    int s = atomic_load_explicit(&t->run_state, memory_order_acquire);
    bool is_leaving = atomic_load_explicit(&t->is_drain_asked, memory_order_relaxed) != 0 ||
                      atomic_load_explicit(&t->is_abort_asked, memory_order_relaxed) != 0;
    return is_leaving && s <= BACKEND_READY ? BACKEND_DRAINING : (enum backend_state)s;
}

/* The engine has failed just now, and its caller could not know: the job ends here. */
static void refuse(struct engine_thread *t, struct job *job)
{
    atomic_fetch_sub_explicit(&t->n_waiting, 1, memory_order_relaxed);
    atomic_store_explicit(&job->is_queued_out, 1 + JOB_FAILED, memory_order_relaxed);
    atomic_store_explicit(&job->next_out, t->taken, memory_order_relaxed);
    t->taken = job;
    ring(t->backend.fd);
}

static void submit(void *self, struct job *job)
{
    struct engine_thread *t = self;
    job->request.arrival_ns = monotime_now_ns();
    /* Before the engine can count it down. */
    atomic_fetch_add_explicit(&t->n_waiting, 1, memory_order_relaxed);
    struct job *head = atomic_load_explicit(&t->inbox, memory_order_relaxed);
    do {
        if (head == &inbox_closed) {
            refuse(t, job);
            return;
        }
        atomic_store_explicit(&job->next_in, head, memory_order_relaxed);
    } while (!atomic_compare_exchange_weak_explicit(&t->inbox, &head, job, memory_order_release,
                                                    memory_order_relaxed));
    ring(t->engine_fd);
}

static void cancel(void *self, struct job *job)
{
    struct engine_thread *t = self;
    atomic_store_explicit(&job->is_cancelled, 1, memory_order_release);
    atomic_store_explicit(&t->is_cancel_asked, 1, memory_order_release);
    ring(t->engine_fd);
}

static struct job *reversed_outbox(struct job *newest)
{
    struct job *oldest = NULL;
    while (newest != NULL) {
        struct job *older = atomic_load_explicit(&newest->next_out, memory_order_relaxed);
        atomic_store_explicit(&newest->next_out, oldest, memory_order_relaxed);
        oldest = newest;
        newest = older;
    }
    return oldest;
}

static struct job *take(void *self)
{
    struct engine_thread *t = self;
    if (t->taken == NULL) {
        make_quiet(t->backend.fd);
        t->taken =
            reversed_outbox(atomic_exchange_explicit(&t->outbox, NULL, memory_order_acquire));
    }
    struct job *job = t->taken;
    if (job == NULL) {
        return NULL;
    }
    /* Once the flag is down, the engine may queue the job again and write next_out. */
    t->taken = atomic_load_explicit(&job->next_out, memory_order_relaxed);
    int queued = atomic_exchange_explicit(&job->is_queued_out, 0, memory_order_acq_rel);
    assert(queued >= 1);
    atomic_store_explicit(&job->end, queued - 1, memory_order_relaxed);
    return job;
}

static uint32_t waiting(void *self)
{
    struct engine_thread *t = self;
    return atomic_load_explicit(&t->n_waiting, memory_order_relaxed);
}

static void drain(void *self)
{
    struct engine_thread *t = self;
    atomic_store_explicit(&t->is_drain_asked, 1, memory_order_release);
    ring(t->engine_fd);
}

static void abort_jobs(void *self)
{
    struct engine_thread *t = self;
    atomic_store_explicit(&t->is_abort_asked, 1, memory_order_release);
    ring(t->engine_fd);
}

static const char *error_text(void *self)
{
    struct engine_thread *t = self;
    return state(self) == BACKEND_FAILED ? t->error.message : "";
}

static void release(struct engine_thread *t)
{
    if (t->engine_fd >= 0) {
        close(t->engine_fd);
    }
    if (t->backend.fd >= 0) {
        close(t->backend.fd);
    }
    mem_free(t->free_places);
    mem_free(t->live);
    mem_free(t);
}

static struct backend make_backend(struct engine_thread *t)
{
    const struct engine_thread_config *c = &t->config;
    return (struct backend){
        .limits = {.max_model_len = c->max_model_len,
                   .kv_tokens = (uint64_t)c->total_blocks * c->block_tokens,
                   .total_blocks = c->total_blocks,
                   .block_tokens = c->block_tokens,
                   .max_seqs = c->max_seqs > 0 ? c->max_seqs : ENGINE_DEFAULT_MAX_SEQS},
        .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
        .state = state,
        .submit = submit,
        .cancel = cancel,
        .take = take,
        .waiting = waiting,
        .drain = drain,
        .abort = abort_jobs,
        .error = error_text,
        .self = t,
    };
}

/* Signals belong to the thread that serves the network. */
static int start_thread(struct engine_thread *t)
{
    sigset_t all;
    sigset_t old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int failure = pthread_create(&t->thread, NULL, thread_main, t);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return failure;
}

enum status engine_thread_start(const struct engine_thread_config *config,
                                struct engine_thread **out, struct error *err)
{
    assert(config->total_blocks >= 1 && config->block_tokens >= 1 && config->max_model_len >= 1);
    if (config->max_jobs < 1 || config->max_jobs > ENGINE_QUEUE_LIMIT) {
        return error_set(err, STATUS_USAGE, -1, "%u requests at once asked for, the limit is 1..%u",
                         config->max_jobs, ENGINE_QUEUE_LIMIT);
    }
    struct engine_thread *t = mem_alloc(1, sizeof *t);
    if (t == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for the engine's thread");
    }
    t->config = *config;
    t->backend = make_backend(t);
    t->engine_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (config->prom != NULL) {
        t->prom_sink = prom_sink(config->prom);
    }
    enum status s = STATUS_OK;
    t->live = mem_alloc(config->max_jobs, sizeof *t->live);
    t->free_places = mem_alloc(config->max_jobs, sizeof *t->free_places);
    if (t->live == NULL || t->free_places == NULL) {
        s = error_set(err, STATUS_NO_MEMORY, -1, "no memory for %u requests", config->max_jobs);
        goto fail;
    }
    while (t->n_free_places < config->max_jobs) {
        t->free_places[t->n_free_places] = config->max_jobs - 1 - t->n_free_places;
        t->n_free_places++;
    }
    if (t->engine_fd < 0 || t->backend.fd < 0) {
        s = error_set(err, STATUS_IO, -1, "cannot make an eventfd: %s", strerror(errno));
        goto fail;
    }
    int failure = start_thread(t);
    if (failure != 0) {
        s = error_set(err, STATUS_IO, -1, "cannot start the engine's thread: %s",
                      strerror(failure));
        goto fail;
    }
    *out = t;
    return STATUS_OK;
fail:
    release(t);
    return s;
}

struct backend *engine_thread_backend(struct engine_thread *t)
{
    return &t->backend;
}

void engine_thread_stop(struct engine_thread *t)
{
    if (t == NULL) {
        return;
    }
    abort_jobs(t);
    pthread_join(t->thread, NULL);
    while (take(t) != NULL) {
        /* take shows the ends */
    }
    release(t);
}
