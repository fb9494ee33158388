/*
 * raw_server.h - a server on loopback that sends exactly the bytes a test wants.
 *
 * One thread accepts, each connection has a thread of its own that runs the test's `serve`. What
 * serve does is plain blocking socket code. raw_server_stop ends everything; no descriptor is left.
 */
#ifndef LLMSCHED_TESTS_RAW_SERVER_H
#define LLMSCHED_TESTS_RAW_SERVER_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "test.h"

#define RAW_MAX_CONNECTIONS 2048

struct raw_server;
struct raw_peer {
    struct raw_server *server;
    int fd;
    pthread_t thread;
};
struct raw_server {
    void (*serve)(struct raw_server *s, int fd);
    const void *script; /* the test's */
    int listener;
    uint16_t port;
    pthread_t thread;
    atomic_int n_accepted;
    atomic_int n_requests;
    atomic_int n_closed;
    atomic_int stopping;
    struct raw_peer peers[RAW_MAX_CONNECTIONS];
    char request[65536]; /* the last one read; for tests with one connection */
    size_t request_len;
};

static inline void raw_sleep_ms(unsigned ms)
{
    struct timespec t = {ms / 1000, (long)(ms % 1000) * 1000000};
    while (nanosleep(&t, &t) != 0 && errno == EINTR) {
    }
}

/* False when the peer has gone. */
static inline bool raw_send(int fd, const void *bytes, size_t n)
{
    const char *at = bytes;
    while (n > 0) {
        ssize_t k = send(fd, at, n, MSG_NOSIGNAL);
        if (k <= 0) {
            return false;
        }
        at += k;
        n -= (size_t)k;
    }
    return true;
}

static inline bool raw_puts(int fd, const char *text)
{
    return raw_send(fd, text, strlen(text));
}

/* RST instead of FIN. The descriptor stays open for the server to close. */
static inline void raw_reset(int fd)
{
    struct linger now = {1, 0};
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    /* Connecting to nowhere dissolves the association: Linux sends the RST at once. */
    struct sockaddr nowhere = {.sa_family = AF_UNSPEC};
    (void)connect(fd, &nowhere, sizeof nowhere);
}

/* One request with head and Content-Length body into buf, NUL-terminated; false at its end. */
static inline bool raw_read_request_into(int fd, char *buf, size_t cap, size_t *len)
{
    size_t n = 0;
    size_t want = SIZE_MAX;
    while (n < want) {
        ssize_t k = recv(fd, buf + n, cap - 1 - n, 0);
        if (k <= 0) {
            return false;
        }
        n += (size_t)k;
        buf[n] = '\0';
        char *end = strstr(buf, "\r\n\r\n");
        if (want == SIZE_MAX && end != NULL) {
            char *length = strstr(buf, "Content-Length: ");
            want = (size_t)(end + 4 - buf) +
                   (length != NULL && length < end ? strtoul(length + 16, NULL, 10) : 0);
        }
    }
    *len = n;
    return true;
}

static inline bool raw_read_request(struct raw_server *s, int fd)
{
    char buf[65536];
    size_t len;
    if (!raw_read_request_into(fd, buf, sizeof buf, &len)) {
        return false;
    }
    if (atomic_fetch_add(&s->n_requests, 1) == 0) {
        memcpy(s->request, buf, len + 1);
        s->request_len = len;
    }
    return true;
}

static void *raw_peer_main(void *arg)
{
    struct raw_peer *p = arg;
    p->server->serve(p->server, p->fd);
    (void)shutdown(p->fd, SHUT_RDWR);
    atomic_fetch_add(&p->server->n_closed, 1);
    return NULL;
}

static void *raw_server_main(void *arg)
{
    struct raw_server *s = arg;
    for (;;) {
        int fd = accept(s->listener, NULL, NULL);
        if (fd < 0) {
            return NULL; /* shut down */
        }
        int i = atomic_load(&s->n_accepted);
        if (i == RAW_MAX_CONNECTIONS) {
            (void)close(fd);
            continue;
        }
        int on = 1;
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        s->peers[i] = (struct raw_peer){.server = s, .fd = fd};
        atomic_store(&s->n_accepted, i + 1); /* before its thread can do anything */
        if (pthread_create(&s->peers[i].thread, NULL, raw_peer_main, &s->peers[i]) != 0) {
            abort();
        }
    }
}

static inline struct raw_server *raw_server_start(void (*serve)(struct raw_server *, int),
                                                  const void *script)
{
    struct raw_server *s = calloc(1, sizeof *s);
    assert_non_null(s);
    s->serve = serve;
    s->script = script;
    s->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(s->listener >= 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    assert_int_equal(bind(s->listener, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(s->listener, 1024), 0);
    assert_int_equal(getsockname(s->listener, (struct sockaddr *)&a, &len), 0);
    s->port = ntohs(a.sin_port);
    assert_int_equal(pthread_create(&s->thread, NULL, raw_server_main, s), 0);
    return s;
}

/* As a killed process: nobody listens, every connection is gone. */
static inline void raw_server_kill(struct raw_server *s)
{
    atomic_store(&s->stopping, 1);
    (void)shutdown(s->listener, SHUT_RDWR);
    int n = atomic_load(&s->n_accepted);
    for (int i = 0; i < n; i++) {
        (void)shutdown(s->peers[i].fd, SHUT_RDWR);
    }
}

static inline void raw_server_stop(struct raw_server *s)
{
    raw_server_kill(s);
    assert_int_equal(pthread_join(s->thread, NULL), 0);
    raw_server_kill(s); /* those that were accepted meanwhile */
    for (int i = 0; i < atomic_load(&s->n_accepted); i++) {
        assert_int_equal(pthread_join(s->peers[i].thread, NULL), 0);
        (void)close(s->peers[i].fd);
    }
    (void)close(s->listener);
    free(s);
}

#endif
