/* test_http_server_abuse.c - the HTTP server among hostile peers, without descriptors and without
 * memory: nothing stays behind, and those who behave are served. */
#include "net/http_server_rig.h"

#define POST(p) "POST " p " HTTP/1.1\r\n" HOST_LINE

/* Reset, or FIN, at every byte of a request. */
static void test_cut_everywhere(void **state)
{
    (void)state;
    struct fixture *f = start((struct http_server_config){0});
    int files = open_files();
    static const char text[] =
        POST("/hold") "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n" GET("/echo");
    for (int how = 0; how < 2; how++) {
        for (size_t n = 0; n < sizeof text; n++) {
            int fd = dial(f);
            say(fd, text, n);
            if (n % 7 == 0) {
                sched_yield(); /* now and then the server gets to see it before */
            }
            if (how == 0) {
                reset(fd);
            } else {
                close(fd);
            }
        }
        assert_serves(f);
    }
    wait_for_open_files(files);
    finish(f);
    assert_int_equal(f->counts.connections, 0);
    /* Whoever was heard of left in time: FINs, at least, destroy no input. */
    assert_true(atomic_load(&f->requests) >= 2 + (int)sizeof GET("/echo"));
    assert_true(atomic_load(&f->gone[HTTP_GONE_CLOSED]) >= atomic_load(&f->requests) - 2);
    free(f);
}

/* No descriptor left: peers are turned away or wait, the server does not spin, and recovers. */
static void test_no_descriptors(void **state)
{
    (void)state;
    enum { N = 20 };
    struct fixture *f = start((struct http_server_config){0});
    int peers[N];
    for (int i = 0; i < N; i++) {
        peers[i] = socket(AF_INET, SOCK_STREAM, 0);
        assert_true(peers[i] >= 0);
    }
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    struct rlimit none = {.rlim_cur = 3, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    struct sockaddr_in to = address_of(f);
    for (int i = 0; i < N; i++) {
        assert_int_equal(connect(peers[i], (struct sockaddr *)&to, sizeof to), 0);
    }
    assert_idle(f);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_serves(f);
    for (int i = 0; i < N; i++) {
        close(peers[i]);
    }
    finish(f);
    assert_int_equal(f->counts.connections, 0);
    free(f);
}

/* The n-th allocation fails: one peer may lose its connection or get a 503, the next is served. */
static void test_no_memory(void **state)
{
    (void)state;
    struct fixture *f = start((struct http_server_config){0});
    int files = open_files();
    bool refused = true;
    int answered = 0;
    for (uint64_t k = 1; refused; k++) {
        assert_true(k < 50);
        char out[8192];
        size_t len = 0;
        uint64_t allocs = mem_alloc_count();
        mem_fail_at(k, false);
        int fd = dial(f);
        say_text(fd, POST("/echo") "Content-Length: 2\r\n\r\nhi" GET("/stream") "BAD\r\n\r\n");
        assert_true(hear(fd, NULL, PATIENCE_MS, out, sizeof out, &len));
        refused = mem_alloc_count() - allocs >= k;
        mem_fail_at(0, false);
        close(fd);
        answered += len > 0;
        assert_serves(f);
    }
    assert_true(answered >= 2); /* a refused body, and the last round */
    wait_for_open_files(files);
    finish(f);
    assert_int_equal(f->counts.connections, 0);
    free(f);
}

/* ---------------------------------------------------------------- a crowd */

static const char *const crowd[] = {
    "",
    "G",
    "GET /echo HTTP/1.1\r\nHost",
    "\x16\x03\x01\x02\x01\x01",
    POST("/echo") "Content-Length: 900\r\n\r\nhalf",
    POST("/echo") "Transfer-Encoding: chunked\r\n\r\n5\r\nhal",
    GET("/hold"),
    GET("/hold") GET("/hold"),
    GET("/much"),
    GET("/late") GET("/late"),
    "GET /echo HTTP/1.1\r\nA: b\r\n B: folded\r\n\r\n",
    POST("/echo") "Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n",
    POST("/early") "Content-Length: 900\r\n\r\nhalf",
};
#define KINDS (sizeof crowd / sizeof crowd[0])

/* 2,000 peers of every kind, most of them there at the same time; beside them, one that behaves. */
static void test_crowd(void **state)
{
    (void)state;
    enum { N = 2000, AT_ONCE = 300 };
    struct fixture *f = start((struct http_server_config){.max_output_bytes = 100000});
    int files = open_files();
    char *flood = malloc(3 * HTTP_MAX_HEAD_BYTES);
    assert_non_null(flood);
    memset(flood, 'A', 3 * HTTP_MAX_HEAD_BYTES);
    int held[AT_ONCE] = {0};
    int good = dial(f);
    for (int i = 0; i < N; i++) {
        int *slot = &held[i % AT_ONCE];
        if (*slot > 0 && i % 2 == 0) {
            reset(*slot);
        } else if (*slot > 0) {
            close(*slot);
        }
        *slot = dial(f);
        say_text(*slot, crowd[(size_t)i % KINDS]);
        if (i % 40 == 0) {
            say(*slot, flood, 3 * HTTP_MAX_HEAD_BYTES);
        }
        if (i % 20 == 0) {
            char body[64];
            char text[256];
            char out[256];
            char want[256];
            size_t len = 0;
            int n = snprintf(body, sizeof body, "number %d", i);
            snprintf(text, sizeof text, POST("/echo") "Content-Length: %d\r\n\r\n%s", n, body);
            snprintf(want, sizeof want, OK_HEAD "Content-Length: %d\r\n\r\n%s", n, body);
            say_text(good, text);
            (void)hear(good, body, PATIENCE_MS, out, sizeof out, &len);
            assert_string_equal(out, want);
        }
    }
    for (int i = 0; i < AT_ONCE; i++) {
        close(held[i]);
    }
    close(good);
    wait_for_open_files(files);
    assert_idle(f);
    finish(f);
    assert_int_equal(f->counts.accepted, N + 1);
    assert_int_equal(f->counts.connections, 0);
    assert_int_equal(atomic_load(&f->gone[HTTP_GONE_SERVER]), 0);
    free(flood);
    free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cut_everywhere),
        cmocka_unit_test(test_no_descriptors),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_crowd),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
