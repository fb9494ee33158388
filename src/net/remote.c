/*
 * remote.c - the client as a whole: opening, the run, what ends it. See remote.h and remote_int.h.
 *
 * Invariants of a run: a request that the source gave out is in the queue, on one connection, or
 * done; its on_done is called once, when its answer ends. Nothing is sent once is_over is set.
 */
#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/monotime.h"
#include "net/http_write.h"
#include "net/remote_int.h"

#define USER_AGENT "llmsched"
#define DRAIN_NS   (100 * NS_PER_MS)

/* ---- creation ---- */

/* Errors: USAGE for what the process or the system can never hold at once. */
static enum status check_limits(uint32_t connections, struct error *err)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        if (files.rlim_cur < files.rlim_max) {
            files.rlim_cur = files.rlim_max;
            (void)setrlimit(RLIMIT_NOFILE, &files);
            (void)getrlimit(RLIMIT_NOFILE, &files);
        }
        if (files.rlim_cur != RLIM_INFINITY &&
            (rlim_t)connections + REMOTE_SPARE_FILES > files.rlim_cur) {
            return error_set(err, STATUS_USAGE, -1,
                             "%u connections do not fit into the limit of %llu open files; use "
                             "fewer, or raise it (ulimit -Hn)",
                             connections, (unsigned long long)files.rlim_cur);
        }
    }
    FILE *f = fopen("/proc/sys/net/ipv4/ip_local_port_range", "re");
    if (f == NULL) {
        return STATUS_OK; /* no Linux: connect will say it */
    }
    uint32_t low = 0;
    uint32_t high = 0;
    int n = fscanf(f, "%u %u", &low, &high);
    (void)fclose(f);
    if (n == 2 && high >= low && connections > high - low + 1) {
        return error_set(err, STATUS_USAGE, -1,
                         "%u connections to one endpoint need as many local ports, there are %u; "
                         "use fewer, or widen net.ipv4.ip_local_port_range",
                         connections, high - low + 1);
    }
    return STATUS_OK;
}

/* All of a request's head that is the same for every request. */
static enum status make_head(struct remote *r, const char *api_key, struct error *err)
{
    const struct remote_url *u = &r->config.url;
    bool is_six = strchr(u->host, ':') != NULL;
    char host[sizeof u->host + 16];
    char port[8] = "";
    if (u->port != (u->tls ? 443 : 80)) {
        (void)snprintf(port, sizeof port, ":%u", u->port);
    }
    (void)snprintf(host, sizeof host, "%s%s%s%s", is_six ? "[" : "", u->host, is_six ? "]" : "",
                   port);
    r->head = mem_alloc(HTTP_MAX_HEAD_BYTES, 1);
    if (r->head == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for a client");
    }
    struct http_writer w = {.out = r->head, .cap = HTTP_MAX_HEAD_BYTES - REMOTE_HEAD_END_BYTES};
    http_write_request_line(&w, "POST", u->path);
    http_write_header(&w, "Host", host);
    http_write_header(&w, "User-Agent", USER_AGENT);
    http_write_header(&w, "Accept", "text/event-stream, application/json");
    http_write_header(&w, "Connection", "keep-alive");
    http_write_header(&w, "Content-Type", "application/json");
    if (api_key != NULL) {
        struct strbuf bearer = {0};
        strbuf_printf(&bearer, "Bearer %s", api_key);
        bool fits = !bearer.failed;
        http_write_header(&w, "Authorization", strbuf_text(&bearer));
        strbuf_deinit(&bearer);
        if (!fits) {
            return error_set(err, STATUS_NO_MEMORY, -1, "no memory for a client");
        }
    }
    r->head_len = w.len;
    return w.failed ? error_set(err, STATUS_USAGE, -1,
                                "the API key is too long or holds a line end or another byte that "
                                "no header may have")
                    : STATUS_OK;
}

static void on_tick(evutil_socket_t fd, short what, void *arg);
static void on_due(evutil_socket_t fd, short what, void *arg);

static enum status make_loop(struct remote *r, struct error *err)
{
    r->base = event_base_new();
    r->due_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (r->base == NULL || r->due_fd < 0) {
        return error_set(err, STATUS_IO, -1, "no event loop: %s", strerror(errno));
    }
    r->tick = event_new(r->base, -1, EV_PERSIST, on_tick, r);
    r->due = event_new(r->base, r->due_fd, EV_READ | EV_PERSIST, on_due, r);
    const struct timeval period = {.tv_usec = REMOTE_TICK_MS * 1000L};
    if (r->tick == NULL || r->due == NULL || event_add(r->tick, &period) != 0 ||
        event_add(r->due, NULL) != 0) {
        return error_set(err, STATUS_INTERNAL, -1, "libevent refuses a timer");
    }
    return STATUS_OK;
}

static enum status make_connections(struct remote *r, struct error *err)
{
    r->read_buf = mem_alloc(REMOTE_READ_BYTES, 1);
    r->plain_buf = mem_alloc(REMOTE_READ_BYTES, 1);
    r->conns = mem_alloc(r->config.connections, sizeof *r->conns);
    if (r->read_buf == NULL || r->plain_buf == NULL || r->conns == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for %u connections",
                         r->config.connections);
    }
    for (uint32_t i = 0; i < r->config.connections; i++) {
        enum status s = remote_conn_init(&r->conns[i], r, err);
        if (s != STATUS_OK) {
            return s;
        }
    }
    return STATUS_OK;
}

enum status remote_create(const struct remote_config *config, struct remote **out,
                          struct error *err)
{
    assert(config->connections >= 1);
    enum status s = check_limits(config->connections, err);
    if (s != STATUS_OK) {
        return s;
    }
    struct remote *r = mem_alloc(1, sizeof *r);
    if (r == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for a client");
    }
    r->config = *config;
    r->config.api_key = NULL; /* stands in the head */
    r->config.ca_file = NULL; /* was read */
    if (r->config.connect_timeout_ns == 0) {
        r->config.connect_timeout_ns = REMOTE_CONNECT_TIMEOUT_NS;
    }
    if (r->config.request_timeout_ns == 0) {
        r->config.request_timeout_ns = REMOTE_REQUEST_TIMEOUT_NS;
    }
    r->due_fd = -1;
    r->armed_ns = TIME_NEVER;
    r->refused_ns = TIME_NEVER;
    LIST_INIT(&r->idle);
    LIST_INIT(&r->closed);
    s = make_head(r, config->api_key, err);
    if (s == STATUS_OK && config->url.tls) {
        s = remote_tls_context(config->ca_file, &r->tls, err);
    }
    if (s == STATUS_OK) {
        s = remote_scratch_init(&r->scratch, err);
    }
    if (s == STATUS_OK) {
        s = make_loop(r, err);
    }
    if (s == STATUS_OK) {
        s = make_connections(r, err);
    }
    if (s != STATUS_OK) {
        remote_destroy(r);
        return s;
    }
    *out = r;
    return STATUS_OK;
}

void remote_destroy(struct remote *r)
{
    if (r == NULL) {
        return;
    }
    for (uint32_t i = 0; r->conns != NULL && i < r->config.connections; i++) {
        remote_conn_deinit(&r->conns[i]);
    }
    if (r->tick != NULL) {
        event_free(r->tick);
    }
    if (r->due != NULL) {
        event_free(r->due);
    }
    if (r->base != NULL) {
        event_base_free(r->base);
    }
    if (r->due_fd >= 0) {
        (void)close(r->due_fd);
    }
    if (r->addresses != NULL) {
        freeaddrinfo(r->addresses);
    }
    remote_scratch_deinit(&r->scratch);
    SSL_CTX_free(r->tls);
    mem_free(r->conns);
    mem_free(r->plain_buf);
    mem_free(r->read_buf);
    mem_free(r->head);
    mem_free(r);
}

/* ---- opening ---- */

static enum status unreachable(const struct remote *r, const char *why, struct error *err)
{
    struct strbuf url = {0};
    remote_url_print(&r->config.url, r->config.url.path, &url);
    enum status s = error_set(err, STATUS_UNREACHABLE, -1, "%.300s: %s", strbuf_text(&url), why);
    strbuf_deinit(&url);
    return s;
}

static enum status resolve(struct remote *r, struct error *err)
{
    const struct remote_url *u = &r->config.url;
    const struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    char port[8];
    (void)snprintf(port, sizeof port, "%u", u->port);
    int rc = getaddrinfo(u->host, port, &hints, &r->addresses);
    if (rc != 0) {
        r->addresses = NULL;
        return unreachable(r, rc == EAI_SYSTEM ? strerror(errno) : gai_strerror(rc), err);
    }
    return STATUS_OK;
}

/* Opens up to `most` of the closed ones, all at once. */
static bool open_some(struct remote *r, uint32_t most)
{
    r->open_failed = false;
    r->opening = 0;
    for (uint32_t i = 0; i < r->config.connections && r->opening < most && !r->open_failed; i++) {
        if (r->conns[i].state == CONN_CLOSED) {
            r->opening++;
            remote_conn_open(&r->conns[i]);
        }
    }
    while (r->opening > 0 && !r->open_failed) {
        (void)event_base_loop(r->base, EVLOOP_ONCE);
    }
    for (uint32_t i = 0; r->open_failed && i < r->config.connections; i++) {
        remote_conn_close(&r->conns[i]);
    }
    return !r->open_failed;
}

enum status remote_connect(struct remote *r, struct error *err)
{
    if (r->addresses == NULL) {
        enum status s = resolve(r, err);
        if (s != STATUS_OK) {
            return s;
        }
    }
    struct remote_conn *next;
    for (struct remote_conn *c = LIST_FIRST(&r->idle); c != NULL; c = next) {
        next = LIST_NEXT(c, link);
        (void)remote_conn_check(c);
    }
    /* "localhost" may be ::1 and 127.0.0.1, and the server listen on one: the first that answers
     * is taken for all. */
    if (r->address == NULL) {
        bool is_open = false;
        for (const struct addrinfo *a = r->addresses; a != NULL && !is_open; a = a->ai_next) {
            r->address = a;
            is_open = open_some(r, 1);
        }
        if (!is_open) {
            r->address = NULL;
            return unreachable(r, r->open_error, err);
        }
    }
    return open_some(r, r->config.connections) ? STATUS_OK : unreachable(r, r->open_error, err);
}

void remote_opened(struct remote_conn *c, const char *why)
{
    struct remote *r = c->remote;
    if (why != NULL) {
        (void)snprintf(r->open_error, sizeof r->open_error, "%s", why);
    } else {
        r->refused_ns = TIME_NEVER;
    }
    if (!r->is_running) {
        r->opening--;
        r->open_failed |= why != NULL;
    }
    if (c->request == NULL) {
        if (why == NULL) {
            remote_conn_rest(c);
        }
    } else if (why == NULL) {
        remote_conn_send(c);
    } else {
        remote_answer_fail(c->answer, monotime_now_ns(), REMOTE_FAULT_CONNECT, "%s", why);
        remote_ended(c);
    }
}

/* ---- the run ---- */

static bool must_stop(struct remote *r)
{
    if (r->run.stop != NULL && *r->run.stop != 0) {
        r->is_stopped = true;
    }
    return r->is_stopped || r->no_memory;
}

void remote_out_of_memory(struct remote *r)
{
    r->no_memory = true;
}

/* The request's answer is complete: said once, to the source and to the caller. */
static void finish(struct remote *r, const struct request *request)
{
    const struct remote_answer *a = &r->run.answers[request->id];
    r->n_done++;
    r->cost.events += a->n_events;
    r->run.source->on_done(r->run.source->self, request, a->end_ns);
    if (r->run.on_done != NULL) {
        r->run.on_done(r->run.self, r->n_done);
    }
}

void remote_ended(struct remote_conn *c)
{
    const struct request *request = c->request;
    c->request = NULL;
    c->remote->in_flight--;
    finish(c->remote, request);
}

/* All that are due go to the queue; gives the instant to ask again. */
static uint64_t take_due(struct remote *r)
{
    uint64_t next_at = TIME_NEVER;
    const struct request *q;
    while ((q = r->run.source->next(r->run.source->self, monotime_now_ns(), &next_at)) != NULL) {
        struct remote_answer *a = &r->run.answers[q->id];
        assert(q->id < r->run.n && r->queue_tail < r->run.n && !remote_answer_has_ended(a));
        a->planned_ns = q->arrival_ns;
        r->queue[r->queue_tail++] = q;
    }
    return next_at;
}

/* An open connection that the server has not closed; else one to be opened. */
static struct remote_conn *free_connection(struct remote *r)
{
    struct remote_conn *c;
    while ((c = LIST_FIRST(&r->idle)) != NULL) {
        if (remote_conn_check(c)) {
            return c;
        }
    }
    return LIST_FIRST(&r->closed);
}

static void start(struct remote *r, struct remote_conn *c, const struct request *request)
{
    c->request = request;
    c->call = &r->run.calls[request->id];
    c->answer = &r->run.answers[request->id];
    r->in_flight++;
    if (c->state == CONN_IDLE) {
        remote_conn_send(c);
        return;
    }
    uint64_t now = monotime_now_ns();
    if (r->refused_ns != TIME_NEVER && now - r->refused_ns < REMOTE_REFUSED_NS) {
        remote_answer_fail(c->answer, now, REMOTE_FAULT_CONNECT, "%s", r->open_error);
        remote_ended(c);
        return;
    }
    remote_conn_open(c);
}

/* Cancelled, with everything that the source gave out. */
static void cancel_all(struct remote *r)
{
    const char *why = r->no_memory ? "out of memory" : "the run was stopped";
    uint64_t now = monotime_now_ns();
    for (uint32_t i = 0; i < r->config.connections; i++) {
        struct remote_conn *c = &r->conns[i];
        if (c->request != NULL) {
            if (c->state == CONN_BUSY) {
                remote_reader_fail(&c->reader, now, REMOTE_FAULT_CANCELLED, "%s", why);
            } else {
                remote_answer_fail(c->answer, now, REMOTE_FAULT_CANCELLED, "%s", why);
            }
            remote_ended(c);
            remote_conn_close(c);
        }
    }
    while (r->queue_head < r->queue_tail) {
        const struct request *q = r->queue[r->queue_head++];
        remote_answer_fail(&r->run.answers[q->id], now, REMOTE_FAULT_CANCELLED, "%s", why);
        finish(r, q);
    }
}

static void arm(struct remote *r, uint64_t at)
{
    if (at == r->armed_ns) {
        return;
    }
    r->armed_ns = at;
    struct itimerspec when = {0}; /* zero: never */
    if (at != TIME_NEVER) {
        at = at == 0 ? 1 : at;
        when.it_value.tv_sec = (time_t)(at / NS_PER_S);
        when.it_value.tv_nsec = (long)(at % NS_PER_S);
    }
    int rc = timerfd_settime(r->due_fd, TFD_TIMER_ABSTIME, &when, NULL);
    assert(rc == 0);
    (void)rc;
}

/* Everything due goes out, as far as there are connections; gives when to ask again. */
static uint64_t send_due(struct remote *r)
{
    uint64_t next_at;
    uint32_t n_done;
    do { /* a request that fails at once makes the next one of a closed loop due */
        n_done = r->n_done;
        next_at = take_due(r);
        struct remote_conn *c;
        while (r->queue_head < r->queue_tail && !must_stop(r) && (c = free_connection(r)) != NULL) {
            start(r, c, r->queue[r->queue_head++]);
        }
    } while (r->n_done != n_done && !must_stop(r));
    return next_at;
}

void remote_pump(struct remote *r)
{
    if (!r->is_running || r->is_pumping || r->is_over) {
        return;
    }
    r->is_pumping = true;
    uint64_t next_at = must_stop(r) ? TIME_NEVER : send_due(r);
    if (must_stop(r)) {
        cancel_all(r);
    }
    r->is_over = r->in_flight == 0 && r->queue_head == r->queue_tail &&
                 (next_at == TIME_NEVER || must_stop(r));
    if (r->is_over) {
        (void)event_base_loopbreak(r->base);
    } else {
        arm(r, next_at);
    }
    r->is_pumping = false;
}

static void on_due(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    uint64_t times;
    ssize_t n = read(fd, &times, sizeof times);
    (void)n; /* set anew meanwhile: nothing to read, nothing lost */
    struct remote *r = arg;
    r->armed_ns = TIME_NEVER;
    remote_pump(r);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    struct remote *r = arg;
    uint64_t now = monotime_now_ns();
    for (uint32_t i = 0; i < r->config.connections; i++) {
        remote_conn_tick(&r->conns[i], now);
    }
    if (r->is_running && must_stop(r)) {
        remote_pump(r);
    }
}

static uint64_t thread_cpu_ns(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static void begin_run(struct remote *r, const struct remote_run *run)
{
    r->run = *run;
    r->is_over = false;
    r->no_memory = false;
    r->is_stopped = false;
    r->queue_head = 0;
    r->queue_tail = 0;
    r->in_flight = 0;
    r->n_done = 0;
    r->cost = (struct remote_cost){0};
    r->refused_ns = TIME_NEVER;
    for (uint32_t i = 0; i < run->n; i++) {
        const char *id = run->calls[i].request_id;
        assert(id == NULL || strlen(id) <= REMOTE_MAX_ID_BYTES);
        remote_answer_begin(&run->answers[i]);
    }
}

static bool is_draining(const struct remote *r)
{
    for (uint32_t i = 0; i < r->config.connections; i++) {
        if (r->conns[i].state == CONN_DRAIN) {
            return true;
        }
    }
    return false;
}

/* What the source never gave out was not sent; its answer says so. The ends of bodies behind the
 * last [DONE] are awaited a moment, so that their connections are open for the next run. */
static void end_run(struct remote *r)
{
    uint64_t now = monotime_now_ns();
    while (is_draining(r) && !r->is_stopped && monotime_now_ns() - now < DRAIN_NS) {
        (void)event_base_loop(r->base, EVLOOP_ONCE);
    }
    now = monotime_now_ns();
    for (uint32_t i = 0; i < r->run.n; i++) {
        struct remote_answer *a = &r->run.answers[i];
        if (!remote_answer_has_ended(a)) {
            a->planned_ns = TIME_NEVER;
            remote_answer_fail(a, now, REMOTE_FAULT_CANCELLED, "the run was stopped before it");
        }
    }
    for (uint32_t i = 0; i < r->config.connections; i++) {
        assert(r->conns[i].request == NULL);
        if (r->conns[i].state == CONN_DRAIN) {
            remote_conn_close(&r->conns[i]);
        }
    }
}

/* True when that was granted; a thread of another class than the normal one is left alone. */
static bool raise_priority(void)
{
    const struct sched_param lowest = {.sched_priority = sched_get_priority_min(SCHED_FIFO)};
    return sched_getscheduler(0) == SCHED_OTHER && sched_setscheduler(0, SCHED_FIFO, &lowest) == 0;
}

static void lower_priority(void)
{
    const struct sched_param none = {.sched_priority = 0};
    (void)sched_setscheduler(0, SCHED_OTHER, &none);
}

static void go(struct remote *r)
{
    r->cost.is_real_time = raise_priority();
    uint64_t wall = monotime_now_ns();
    uint64_t cpu = thread_cpu_ns();
    r->is_running = true;
    remote_pump(r);
    while (!r->is_over) {
        (void)event_base_loop(r->base, EVLOOP_ONCE);
    }
    r->is_running = false;
    r->cost.cpu_ns = thread_cpu_ns() - cpu;
    r->cost.wall_ns = monotime_now_ns() - wall;
    if (r->cost.is_real_time) {
        lower_priority();
    }
}

enum status remote_run(struct remote *r, const struct remote_run *run, struct error *err)
{
    assert(r->address != NULL && run->source->next_cancel == NULL);
    begin_run(r, run);
    r->queue = mem_alloc(run->n == 0 ? 1 : run->n, sizeof(void *));
    if (r->queue != NULL) {
        go(r);
    } else {
        r->no_memory = true;
    }
    end_run(r);
    mem_free(r->queue);
    r->queue = NULL;
    if (r->no_memory) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for the answers");
    }
    return r->is_stopped ? error_set(err, STATUS_INTERRUPTED, -1, "interrupted") : STATUS_OK;
}

struct remote_cost remote_cost_of(const struct remote *r)
{
    return r->cost;
}

bool remote_keeps_connections(const struct remote *r, uint64_t wait_ns)
{
    const struct remote_conn *c = LIST_FIRST(&r->idle);
    if (c == NULL) { /* closed: was it said? */
        return !r->conns[0].reader.keep_alive;
    }
    struct pollfd p = {.fd = c->fd, .events = POLLIN | POLLRDHUP};
    return poll(&p, 1, (int)(wait_ns / NS_PER_MS)) == 0;
}
