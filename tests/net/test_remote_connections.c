/* Connections and time: reuse, closes between requests, a server that dies, stops, stalls, plans.
 */
#include "remote_test.h"

#include <sched.h>
#include <signal.h>
#include <sys/resource.h>

#include "base/mem.h"

/* ---- what the server receives ---- */

static void serve_answers(struct raw_server *s, int fd)
{
    const int *n = s->script;
    while (raw_read_request(s, fd) && raw_answer(fd, *n)) {
    }
}

static void sends_just_this(void **state)
{
    (void)state;
    int n = 1;
    struct raw_server *server = raw_server_start(serve_answers, &n);
    struct load l;
    load_init(&l, server->port, 1, 1);
    l.config.api_key = "sk-1 2";
    l.calls[0].request_id = "run-1-0";
    struct error err = ERROR_INIT;
    assert_ok(load_connect(&l));
    assert_ok(load_run(&l));
    char expected[1024];
    (void)snprintf(expected, sizeof expected,
                   "POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nUser-Agent: llmsched\r\n"
                   "Accept: text/event-stream, application/json\r\nConnection: keep-alive\r\n"
                   "Content-Type: application/json\r\nAuthorization: Bearer sk-1 2\r\n"
                   "X-Request-Id: run-1-0\r\nContent-Length: %zu\r\n\r\n%s",
                   server->port, sizeof BODY - 1, BODY);
    assert_string_equal(server->request, expected);
    load_deinit(&l);
    raw_server_stop(server);
}

/* A body that no socket buffer takes at once, read slowly. */
static void serve_slow_reader(struct raw_server *s, int fd)
{
    static char room[1 << 16];
    size_t left = *(const size_t *)s->script;
    raw_sleep_ms(50);
    while (left > 0) {
        ssize_t k = recv(fd, room, left < sizeof room ? left : sizeof room, 0);
        if (k <= 0) {
            return;
        }
        if (left == *(const size_t *)s->script) { /* the head is in the first bytes */
            char *end = memmem(room, (size_t)k, "\r\n\r\n", 4);
            left += end == NULL ? 0 : (size_t)(end + 4 - room);
        }
        left -= (size_t)k;
    }
    (void)raw_answer(fd, 2);
}

static void long_body(void **state)
{
    (void)state;
    size_t len = 7U << 20;
    char *body = malloc(len);
    assert_non_null(body);
    memset(body, ' ', len);
    struct raw_server *server = raw_server_start(serve_slow_reader, &len);
    struct load l;
    load_init(&l, server->port, 1, 1);
    l.calls[0].body = body;
    l.calls[0].body_len = len;
    struct error err = ERROR_INIT;
    assert_ok(load_connect(&l));
    assert_ok(load_run(&l));
    assert_string_equal(l.answers[0].error, "");
    assert_true(l.answers[0].send_begin_ns < l.answers[0].send_end_ns);
    assert_true(l.answers[0].send_end_ns <= l.answers[0].head_ns);
    load_deinit(&l);
    raw_server_stop(server);
    free(body);
}

/* Answers with a refusal before it has read the body, and closes. */
static void serve_early_refusal(struct raw_server *s, int fd)
{
    (void)s;
    char byte;
    if (recv(fd, &byte, 1, 0) == 1) {
        (void)raw_puts(fd,
                       "HTTP/1.1 413 Large\r\nContent-Length: 5\r\nConnection: close\r\n\r\nlarge");
        raw_sleep_ms(100);
    }
}

static void refused_while_sending(void **state)
{
    (void)state;
    size_t len = 7U << 20;
    char *body = calloc(len, 1);
    assert_non_null(body);
    struct raw_server *server = raw_server_start(serve_early_refusal, NULL);
    struct load l;
    load_init(&l, server->port, 1, 1);
    l.calls[0].body = body;
    l.calls[0].body_len = len;
    struct error err = ERROR_INIT;
    assert_ok(load_connect(&l));
    assert_ok(load_run(&l));
    assert_string_equal(l.answers[0].error, "status: HTTP 413: large");
    assert_int_equal(l.answers[0].send_end_ns, TIME_NEVER);
    load_deinit(&l);
    raw_server_stop(server);
    free(body);
}

/* Gone before the request was there. */
static void serve_nothing(struct raw_server *s, int fd)
{
    (void)s;
    char byte;
    if (recv(fd, &byte, 1, 0) == 1) {
        raw_reset(fd);
    }
}

static void closed_while_sending(void **state)
{
    (void)state;
    size_t len = 7U << 20;
    char *body = calloc(len, 1);
    assert_non_null(body);
    struct raw_server *server = raw_server_start(serve_nothing, NULL);
    struct load l;
    load_init(&l, server->port, 1, 1);
    l.calls[0].body = body;
    l.calls[0].body_len = len;
    struct error err = ERROR_INIT;
    assert_ok(load_connect(&l));
    assert_ok(load_run(&l));
    assert_int_equal(l.answers[0].fault, REMOTE_FAULT_SEND);
    assert_contains(l.answers[0].error, "before the request was sent");
    load_deinit(&l);
    raw_server_stop(server);
    free(body);
}

/* ---- reuse ---- */

static void run_all_ok(struct load *l)
{
    struct error err = ERROR_INIT;
    assert_ok(load_run(l));
    for (uint32_t i = 0; i < l->n; i++) {
        if (l->answers[i].fault != REMOTE_FAULT_NONE) {
            fail_msg("request %u: %s", i, l->answers[i].error);
        }
    }
    assert_int_equal(sched_getscheduler(0), SCHED_OTHER); /* it was raised for the run only */
}

static void keeps_a_connection(void **state)
{
    (void)state;
    int n = 3;
    struct raw_server *server = raw_server_start(serve_answers, &n);
    struct load l;
    load_init(&l, server->port, 20, 1);
    struct error err = ERROR_INIT;
    assert_ok(load_connect(&l));
    assert_int_equal(atomic_load(&server->n_requests), 0);
    run_all_ok(&l);
    assert_int_equal(atomic_load(&server->n_accepted), 1);
    for (uint32_t i = 0; i < l.n; i++) {
        assert_int_equal(l.answers[i].output_tokens, 3);
        assert_string_equal(strbuf_text(&l.answers[i].text), "ababab");
        assert_int_equal(l.answers[i].finish, SCAN_FINISH_LENGTH);
    }
    struct remote_cost cost = remote_cost_of(l.client);
    assert_int_equal(cost.events, 60);
    assert_true(cost.reads >= 20 && cost.cpu_ns > 0 && cost.cpu_ns <= cost.wall_ns);
    load_deinit(&l);
    raw_server_stop(server);
}

static void many_connections(void **state)
{
    (void)state;
    int n = 5;
    struct raw_server *server = raw_server_start(serve_answers, &n);
    struct load l;
    load_init(&l, server->port, 640, 64);
    struct error err = ERROR_INIT;
    assert_ok(load_connect(&l));
    run_all_ok(&l);
    assert_int_equal(atomic_load(&server->n_accepted), 64);
    assert_int_equal(atomic_load(&server->n_requests), 640);
    load_deinit(&l);
    raw_server_stop(server);
}

static void two_runs(void **state)
{
    (void)state;
    int n = 2;
    struct raw_server *server = raw_server_start(serve_answers, &n);
    struct load l;
    load_init(&l, server->port, 8, 2);
    struct error err = ERROR_INIT;
    assert_ok(load_connect(&l));
    run_all_ok(&l);
    struct load second;
    load_init(&second, server->port, 8, 2);
    second.client = l.client;
    assert_ok(remote_connect(second.client, &err));
    run_all_ok(&second);
    assert_int_equal(atomic_load(&server->n_accepted), 2);
    second.client = NULL;
    load_deinit(&second);
    load_deinit(&l);
    raw_server_stop(server);
}

/* One answer a connection, said so. */
static void serve_one_each(struct raw_server *s, int fd)
{
    if (raw_read_request(s, fd)) {
        (void)raw_puts(fd, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                           "Connection: close\r\n\r\n"
                           "data: {\"choices\":[{\"text\":\"a\",\"finish_reason\":\"stop\"}]}\n\n"
                           "data: [DONE]\n\n");
    }
}

static void opens_anew(void **state)
{
    (void)state;
    struct raw_server *server = raw_server_start(serve_one_each, NULL);
    struct load l;
    load_init(&l, server->port, 12, 2);
    struct error err = ERROR_INIT;
    assert_ok(load_connect(&l));
    run_all_ok(&l);
    assert_int_equal(atomic_load(&server->n_accepted), 12);
    load_deinit(&l);
    raw_server_stop(server);
}

/* Closes each connection 30 ms after an answer, without a word in it. */
static void serve_short_patience(struct raw_server *s, int fd)
{
    if (raw_read_request(s, fd) && raw_answer(fd, 1)) {
        raw_sleep_ms(30);
    }
}

/* Requests on a plan of their own, `gap` apart. */
struct plan {
    struct load *load;
    uint64_t begin_ns;
    uint64_t gap_ns;
    uint32_t issued;
};

static const struct request *plan_next(void *self, uint64_t now, uint64_t *next_at)
{
    struct plan *p = self;
    if (p->issued == p->load->n) {
        *next_at = TIME_NEVER;
        return NULL;
    }
    uint64_t due = p->begin_ns + p->issued * p->gap_ns;
    if (due > now) {
        *next_at = due;
        return NULL;
    }
    struct request *q = &p->load->requests[p->issued++];
    q->arrival_ns = due;
    return q;
}

static void plan_done(void *self, const struct request *q, uint64_t now)
{
    (void)self, (void)q, (void)now;
}

static void plan_begin(struct plan *p, struct load *l, uint64_t gap_ns)
{
    *p = (struct plan){.load = l, .begin_ns = monotime_now_ns() + gap_ns, .gap_ns = gap_ns};
    l->inner = (struct source){.next = plan_next, .on_done = plan_done, .self = p};
}

static void serve_one(struct raw_server *s, int fd)
{
    (void)(raw_read_request(s, fd) && raw_answer(fd, 1));
}

/* What was closed before a send is seen before it, and no request falls into it. */
static void closed_between_runs(void **state)
{
    (void)state;
    struct raw_server *server = raw_server_start(serve_one, NULL);
    struct load first;
    load_init(&first, server->port, 1, 1);
    struct error err = ERROR_INIT;
    assert_ok(load_connect(&first));
    run_all_ok(&first);
    while (atomic_load(&server->n_closed) < 1) {
        raw_sleep_ms(1);
    }
    raw_sleep_ms(20); /* FIN and client share the machine, not the moment */
    struct load second;
    load_init(&second, server->port, 1, 1);
    second.client = first.client;
    run_all_ok(&second);
    assert_int_equal(atomic_load(&server->n_accepted), 2);
    second.client = NULL;
    load_deinit(&second);
    load_deinit(&first);
    raw_server_stop(server);
}

/* The close is noticed while nothing is sent. */
static void closed_between_requests(void **state)
{
    (void)state;
    struct raw_server *server = raw_server_start(serve_short_patience, NULL);
    struct load l;
    struct plan p;
    load_init(&l, server->port, 4, 1);
    plan_begin(&p, &l, 150 * NS_PER_MS);
    struct error err = ERROR_INIT;
    assert_ok(load_connect(&l));
    assert_ok(load_run(&l));
    /* On a machine that stands still for 100 ms a request may meet the close, or come before. */
    assert_int_equal(load_count(&l, REMOTE_FAULT_NONE) + load_count(&l, REMOTE_FAULT_SEND), 4);
    assert_true(load_count(&l, REMOTE_FAULT_NONE) >= 1);
    int n_accepted = atomic_load(&server->n_accepted);
    assert_true(n_accepted >= 1 && n_accepted <= 4);
    load_deinit(&l);
    raw_server_stop(server);
}

/* Closed although the second request came: nobody can say whether it was read. */
static void serve_race(struct raw_server *s, int fd)
{
    if (raw_read_request(s, fd) && raw_answer(fd, 1)) {
        (void)raw_read_request(s, fd);
    }
}

static void closed_as_the_request_came(void **state)
{
    (void)state;
    struct raw_server *server = raw_server_start(serve_race, NULL);
    struct load l;
    load_init(&l, server->port, 4, 1);
    struct error err = ERROR_INIT;
    assert_ok(load_connect(&l));
    assert_ok(load_run(&l));
    for (uint32_t i = 0; i < 4; i++) {
        if (i % 2 == 0) {
            assert_string_equal(l.answers[i].error, "");
        } else {
            assert_string_equal(l.answers[i].error, "send: closed by the server as the request was "
                                                    "sent on a kept connection");
        }
    }
    assert_int_equal(atomic_load(&server->n_requests), 4); /* none was sent twice */
    load_deinit(&l);
    raw_server_stop(server);
}

/* The body's end comes `script` ms behind [DONE], or never. */
static void serve_late_end(struct raw_server *s, int fd)
{
    const int *ms = s->script;
    while (raw_read_request(s, fd) && raw_puts(fd, HEAD_OK) && raw_event(fd, "a", "\"stop\"") &&
           raw_done(fd)) {
        if (*ms < 0) {
            (void)raw_read_request(s, fd);
            return;
        }
        raw_sleep_ms((unsigned)*ms);
        (void)raw_puts(fd, LAST_CHUNK);
    }
}

static void waits_for_the_end_of_the_body(void **state)
{
    (void)state;
    int ms = 5;
    struct raw_server *server = raw_server_start(serve_late_end, &ms);
    struct load l;
    load_init(&l, server->port, 3, 1);
    struct error err = ERROR_INIT;
    assert_ok(load_connect(&l));
    run_all_ok(&l);
    assert_true(atomic_load(&server->n_accepted) <= 3); /* 1, unless the machine stood still */
    load_deinit(&l);
    raw_server_stop(server);

    ms = -1;
    server = raw_server_start(serve_late_end, &ms);
    load_init(&l, server->port, 3, 1);
    assert_ok(load_connect(&l));
    run_all_ok(&l);
    assert_int_equal(atomic_load(&server->n_accepted), 3);
    load_deinit(&l);
    raw_server_stop(server);
}

/* ---- no server ---- */

static uint16_t free_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    (void)close(fd);
    return ntohs(a.sin_port);
}

static void nobody_listens(void **state)
{
    (void)state;
    struct load l;
    load_init(&l, free_port(), 1, 3);
    assert_int_equal(load_connect(&l), STATUS_UNREACHABLE);
    assert_contains(l.err.message, "http://127.0.0.1:");
    assert_contains(l.err.message, "Connection refused");
    assert_int_equal(remote_connect(l.client, &l.err), STATUS_UNREACHABLE); /* again */
    load_deinit(&l);
    load_init(&l, 1, 1, 1);
    (void)snprintf(l.config.url.host, sizeof l.config.url.host, "no-such-host.invalid");
    assert_int_equal(load_connect(&l), STATUS_UNREACHABLE);
    assert_contains(l.err.message, "no-such-host.invalid:1/v1/completions: ");
    load_deinit(&l);
}

/* A full backlog: the SYN is dropped. */
static void nobody_accepts(void **state)
{
    (void)state;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(fd, 0), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    struct load l;
    load_init(&l, ntohs(a.sin_port), 1, 8);
    l.config.connect_timeout_ns = 200 * NS_PER_MS;
    assert_int_equal(load_connect(&l), STATUS_UNREACHABLE);
    assert_contains(l.err.message, "no connection within 0.2 s");
    load_deinit(&l);
    (void)close(fd);
}

static void serve_until_killed(struct raw_server *s, int fd)
{
    const int *n = s->script;
    while (raw_read_request(s, fd)) {
        if (atomic_load(&s->n_requests) >= 40) {
            raw_server_kill(s);
            return;
        }
        if (!raw_answer(fd, *n)) {
            return;
        }
    }
}

/* Every request has its end, and the run does not go on for long. */
static void server_dies(void **state)
{
    (void)state;
    int n = 50;
    struct raw_server *server = raw_server_start(serve_until_killed, &n);
    struct load l;
    load_init(&l, server->port, 3000, 16);
    struct error err = ERROR_INIT;
    assert_ok(load_connect(&l));
    assert_ok(load_run(&l));
    assert_int_equal(l.n_ended, 3000);
    uint32_t n_ok = load_count(&l, REMOTE_FAULT_NONE);
    uint32_t n_connect = load_count(&l, REMOTE_FAULT_CONNECT);
    uint32_t n_cut = load_count(&l, REMOTE_FAULT_CUT) + load_count(&l, REMOTE_FAULT_SEND);
    assert_int_equal(n_ok + n_connect + n_cut, 3000);
    assert_true(n_ok > 0 && n_ok < 40 && n_connect > 2900);
    assert_contains(l.answers[2999].error, "connect: 127.0.0.1 port ");
    assert_contains(l.answers[2999].error, "Connection refused");
    assert_int_equal(l.answers[2999].send_begin_ns, TIME_NEVER);
    load_deinit(&l);
    raw_server_stop(server);
}

/* ---- stops ---- */

static volatile int stop_flag;

static void on_signal(int signal)
{
    (void)signal;
    stop_flag = 1;
}

static void serve_hanging(struct raw_server *s, int fd)
{
    while (raw_read_request(s, fd) && raw_puts(fd, HEAD_OK) && raw_event(fd, "ab", "null")) {
    }
}

/* Ctrl-C, when the server has that many requests. */
struct interrupter {
    struct raw_server *server;
    int n_requests;
    pthread_t target;
    pthread_t thread;
    struct sigaction before;
};

static void *interrupt(void *arg)
{
    struct interrupter *in = arg;
    while (atomic_load(&in->server->n_requests) < in->n_requests) {
        raw_sleep_ms(1);
    }
    return pthread_kill(in->target, SIGUSR1) == 0 ? in : NULL;
}

static void interrupter_start(struct interrupter *in, struct raw_server *server, int n_requests)
{
    const struct sigaction action = {.sa_handler = on_signal};
    *in =
        (struct interrupter){.server = server, .n_requests = n_requests, .target = pthread_self()};
    stop_flag = 0;
    assert_int_equal(sigaction(SIGUSR1, &action, &in->before), 0);
    assert_int_equal(pthread_create(&in->thread, NULL, interrupt, in), 0);
}

static void interrupter_join(struct interrupter *in)
{
    void *sent;
    assert_int_equal(pthread_join(in->thread, &sent), 0);
    assert_non_null(sent);
    assert_int_equal(sigaction(SIGUSR1, &in->before, NULL), 0);
}

static void stopped_by_a_signal(void **state)
{
    (void)state;
    struct raw_server *server = raw_server_start(serve_hanging, NULL);
    struct load l;
    struct interrupter in;
    load_init(&l, server->port, 10, 4);
    struct error err = ERROR_INIT;
    assert_ok(load_connect(&l));
    l.stop = &stop_flag;
    interrupter_start(&in, server, 4);
    assert_int_equal(load_run(&l), STATUS_INTERRUPTED);
    interrupter_join(&in);
    assert_int_equal(load_count(&l, REMOTE_FAULT_CANCELLED), 10);
    assert_int_equal(l.n_ended, 4);
    for (uint32_t i = 0; i < 10; i++) {
        bool was_sent = i < 4;
        assert_int_equal(l.answers[i].send_begin_ns != TIME_NEVER, was_sent);
        assert_int_equal(l.answers[i].planned_ns != TIME_NEVER, was_sent);
        assert_string_equal(l.answers[i].error, was_sent
                                                    ? "cancelled: the run was stopped"
                                                    : "cancelled: the run was stopped before it");
    }
    /* Set before the run: nothing is sent. */
    struct load second;
    load_init(&second, server->port, 3, 4);
    second.client = l.client;
    second.stop = &stop_flag;
    assert_int_equal(load_run(&second), STATUS_INTERRUPTED);
    assert_int_equal(second.n_ended, 0);
    assert_int_equal(atomic_load(&server->n_requests), 4);
    second.client = NULL;
    load_deinit(&second);
    load_deinit(&l);
    raw_server_stop(server);
}

/* More due than there are connections; stopped, those in the queue end too. */
static void stopped_with_a_queue(void **state)
{
    (void)state;
    struct raw_server *server = raw_server_start(serve_hanging, NULL);
    struct load l;
    struct interrupter in;
    load_init(&l, server->port, 10, 2);
    closed_loop_init(&l.loop, l.requests, l.n, 7);
    struct error err = ERROR_INIT;
    assert_ok(load_connect(&l));
    l.stop = &stop_flag;
    interrupter_start(&in, server, 2);
    assert_int_equal(load_run(&l), STATUS_INTERRUPTED);
    interrupter_join(&in);
    assert_int_equal(l.n_ended, 7);
    assert_int_equal(load_count(&l, REMOTE_FAULT_CANCELLED), 10);
    assert_int_equal(atomic_load(&server->n_requests), 2);
    load_deinit(&l);
    raw_server_stop(server);
}

/* ---- time ---- */

static void serve_stall(struct raw_server *s, int fd)
{
    while (raw_read_request(s, fd) && raw_puts(fd, HEAD_OK) && raw_event(fd, "a", "null")) {
        raw_sleep_ms(300);
        (void)raw_event(fd, "b", "null");
        raw_sleep_ms(20);
        (void)raw_event(fd, "c", "\"length\"");
        raw_sleep_ms(150);
        (void)(raw_done(fd) && raw_puts(fd, LAST_CHUNK));
    }
}

static void a_stall_shows(void **state)
{
    (void)state;
    struct raw_server *server = raw_server_start(serve_stall, NULL);
    struct load l;
    load_init(&l, server->port, 1, 1);
    l.config.keep_events = true;
    struct error err = ERROR_INIT;
    assert_ok(load_connect(&l));
    run_all_ok(&l);
    const struct remote_answer *a = &l.answers[0];
    assert_int_equal(a->n_events, 3);
    /* Sleeps are never shorter; the client may have seen the first event late. */
    assert_true(a->longest_gap_ns > 150 * NS_PER_MS);
    assert_int_equal(a->longest_gap_ns, a->events[1].time_ns - a->events[0].time_ns);
    assert_true(a->end_ns - a->last_ns > 50 * NS_PER_MS);
    load_deinit(&l);
    raw_server_stop(server);
}

static void due_times(void **state)
{
    (void)state;
    int n = 1;
    struct raw_server *server = raw_server_start(serve_answers, &n);
    struct load l;
    struct plan p;
    load_init(&l, server->port, 40, 4);
    struct error err = ERROR_INIT;
    assert_ok(load_connect(&l));
    plan_begin(&p, &l, 5 * NS_PER_MS);
    run_all_ok(&l);
    uint64_t least_lag = TIME_NEVER;
    for (uint32_t i = 0; i < l.n; i++) {
        const struct remote_answer *a = &l.answers[i];
        assert_int_equal(a->planned_ns, p.begin_ns + i * 5 * NS_PER_MS);
        uint64_t lag = a->send_begin_ns - a->planned_ns; /* never early: load_check */
        least_lag = lag < least_lag ? lag : least_lag;
    }
    assert_true(least_lag < 5 * NS_PER_MS); /* no grid of milliseconds, no poll of 20 ms */
    load_deinit(&l);
    raw_server_stop(server);
}

/* ---- memory ---- */

/* Each allocation refused in turn: an error that says so, and every request has its end. */
static void every_allocation_refused(void **state)
{
    (void)state;
    int n = 300; /* more events than there is room for at first */
    struct raw_server *server = raw_server_start(serve_answers, &n);
    bool refused = true;
    int k = 0;
    while (refused) {
        struct load l;
        load_init(&l, server->port, 4, 2);
        l.config.keep_events = true;
        mem_fail_at((uint64_t)++k, false);
        uint64_t before = mem_refused_count();
        enum status s = load_connect(&l);
        if (s == STATUS_OK) {
            s = load_run(&l);
        }
        refused = mem_refused_count() != before;
        mem_fail_at(0, false);
        assert_int_equal(s, refused ? STATUS_NO_MEMORY : STATUS_OK);
        load_deinit(&l);
    }
    assert_true(k > 20);
    raw_server_stop(server);
}

/* ---- plans that cannot be ---- */

static void refused_plans(void **state)
{
    (void)state;
    struct error err = ERROR_INIT;
    struct remote *client;
    struct remote_config config = {.url = {.host = "127.0.0.1", .port = 1, .path = "/"},
                                   .connections = 1};
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    struct rlimit low = {64, before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    assert_ok(remote_create(&config, &client, &err)); /* raises the soft limit */
    struct rlimit now;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &now), 0);
    assert_int_equal(now.rlim_cur, before.rlim_max);
    remote_destroy(client);
    config.connections = 1U << 31;
    assert_int_equal(remote_create(&config, &client, &err), STATUS_USAGE);
    assert_contains(err.message, "2147483648 connections");
    config.connections = 1;
    config.api_key = "a\r\nX-Evil: 1";
    assert_int_equal(remote_create(&config, &client, &err), STATUS_USAGE);
    assert_contains(err.message, "API key");
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sends_just_this),
        cmocka_unit_test(long_body),
        cmocka_unit_test(refused_while_sending),
        cmocka_unit_test(closed_while_sending),
        cmocka_unit_test(keeps_a_connection),
        cmocka_unit_test(many_connections),
        cmocka_unit_test(two_runs),
        cmocka_unit_test(opens_anew),
        cmocka_unit_test(closed_between_runs),
        cmocka_unit_test(closed_between_requests),
        cmocka_unit_test(closed_as_the_request_came),
        cmocka_unit_test(waits_for_the_end_of_the_body),
        cmocka_unit_test(nobody_listens),
        cmocka_unit_test(nobody_accepts),
        cmocka_unit_test(server_dies),
        cmocka_unit_test(stopped_by_a_signal),
        cmocka_unit_test(stopped_with_a_queue),
        cmocka_unit_test(a_stall_shows),
        cmocka_unit_test(due_times),
        cmocka_unit_test(every_allocation_refused),
        cmocka_unit_test(refused_plans),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
