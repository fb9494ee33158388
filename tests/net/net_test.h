/* net_test.h - a guard page behind the input, and a reader of whole HTTP messages in steps. */
#ifndef LLMSCHED_TESTS_NET_TEST_H
#define LLMSCHED_TESTS_NET_TEST_H

#include <sys/mman.h>

#include "test.h"

#include "net/http_body.h"

#define GUARD_BYTES ((size_t)1 << 20)

/* A copy of the n bytes whose end is the end of accessible memory: one byte too far is a SIGSEGV.
 * Valid until the next call. */
static inline const char *guarded(const void *bytes, size_t n)
{
    static char *room;
    if (room == NULL) {
        room = mmap(NULL, GUARD_BYTES + 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                    -1, 0);
        assert_true(room != MAP_FAILED);
        assert_int_equal(mprotect(room + GUARD_BYTES, 65536, PROT_NONE), 0);
    }
    assert_true(n <= GUARD_BYTES);
    char *copy = room + GUARD_BYTES - n;
    memcpy(copy, bytes, n);
    return copy;
}

#define MESSAGE_BODY_BYTES 65536U

/* What reading a message came to. */
struct message {
    enum http_outcome outcome;
    enum http_bad bad;
    uint32_t bad_at; /* of the head; 0 for a body */
    size_t used;     /* head and body */
    size_t body_len;
    char body[MESSAGE_BODY_BYTES]; /* as much of it as fits */
};

/* The body, `step` bytes at a time, each piece before the guard page. */
static inline void message_body(struct message *m, const struct http_head *h, const char *in,
                                size_t n, size_t step, uint64_t max_bytes)
{
    struct http_body b;
    http_body_begin(&b, h, max_bytes);
    m->body_len = 0;
    size_t at = 0;
    for (;;) {
        size_t piece = n - at < step ? n - at : step;
        const char *copy = guarded(in + at, piece);
        size_t done = 0;
        enum http_body_outcome got;
        do {
            size_t used;
            const char *data;
            size_t len;
            got = http_body_next(&b, copy + done, piece - done, &used, &data, &len);
            assert_true(used <= piece - done);
            if (got == HTTP_BODY_DATA) {
                assert_true(len > 0 && data >= copy + done && data + len <= copy + done + used);
                if (m->body_len + len <= MESSAGE_BODY_BYTES) {
                    memcpy(m->body + m->body_len, data, len);
                }
                m->body_len += len;
            }
            done += used;
        } while (got == HTTP_BODY_DATA);
        at += done;
        m->used = h->bytes + at;
        if (got == HTTP_BODY_MORE) {
            assert_int_equal(done, piece);
            if (at < n) {
                continue;
            }
            m->outcome = HTTP_MORE;
            return;
        }
        m->outcome = got == HTTP_BODY_DONE ? HTTP_DONE : HTTP_BAD;
        m->bad = b.bad;
        assert_int_equal(b.bad != HTTP_BAD_NONE, got == HTTP_BODY_BAD);
        assert_int_equal(b.total_bytes, m->body_len);
        return;
    }
}

/* A request that arrives `step` bytes at a time. */
static inline void message_request(struct message *m, struct http_request *r, const char *in,
                                   size_t n, size_t step)
{
    http_request_begin(r);
    *m = (struct message){.outcome = HTTP_MORE};
    for (size_t len = 0; m->outcome == HTTP_MORE && len < n;) {
        len = n - len < step ? n : len + step;
        m->outcome = http_request_parse(r, guarded(in, len), len);
        if (m->outcome == HTTP_DONE) {
            assert_true(r->head.bytes <= len);
        }
    }
    m->bad = m->outcome == HTTP_BAD ? r->head.bad : HTTP_BAD_NONE;
    m->bad_at = m->outcome == HTTP_BAD ? r->head.bad_at : 0;
    if (m->outcome == HTTP_DONE) {
        message_body(m, &r->head, in + r->head.bytes, n - r->head.bytes, step, HTTP_MAX_BODY_BYTES);
    }
}

/* A response likewise. */
static inline void message_response(struct message *m, struct http_response *r, bool to_head,
                                    const char *in, size_t n, size_t step)
{
    http_response_begin(r, to_head);
    *m = (struct message){.outcome = HTTP_MORE};
    for (size_t len = 0; m->outcome == HTTP_MORE && len < n;) {
        len = n - len < step ? n : len + step;
        m->outcome = http_response_parse(r, guarded(in, len), len);
        if (m->outcome == HTTP_DONE) {
            assert_true(r->head.bytes <= len);
        }
    }
    m->bad = m->outcome == HTTP_BAD ? r->head.bad : HTTP_BAD_NONE;
    m->bad_at = m->outcome == HTTP_BAD ? r->head.bad_at : 0;
    if (m->outcome == HTTP_DONE) {
        message_body(m, &r->head, in + r->head.bytes, n - r->head.bytes, step, UINT64_MAX);
    }
}

#endif
