/* net_steps.h - a message read whole and in steps must come to the same; shared by the HTTP
 * targets. */
#ifndef LLMSCHED_FUZZ_NET_STEPS_H
#define LLMSCHED_FUZZ_NET_STEPS_H

#include <stdlib.h>
#include <string.h>

#include "net/http_body.h"

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* What a body came to; hash tells its bytes apart. */
struct steps_body {
    enum http_body_outcome outcome;
    enum http_bad bad;
    size_t used;
    uint64_t len;
    uint64_t hash;
};

/* The body, `step` bytes at a time, each piece in memory of exactly its size. */
static inline struct steps_body steps_body(const struct http_head *h, const uint8_t *in, size_t n,
                                           size_t step, uint64_t max_bytes)
{
    struct steps_body r = {.outcome = HTTP_BODY_MORE};
    struct http_body b;
    http_body_begin(&b, h, max_bytes);
    do {
        size_t piece = n - r.used < step ? n - r.used : step;
        char *copy = malloc(piece + 1);
        MUST(copy != NULL);
        memcpy(copy + 1, in + r.used, piece); /* + 1: also not aligned */
        size_t done = 0;
        do {
            size_t used;
            const char *data;
            size_t len;
            r.outcome = http_body_next(&b, copy + 1 + done, piece - done, &used, &data, &len);
            MUST(used <= piece - done);
            MUST((r.outcome == HTTP_BODY_DATA) == (len > 0));
            for (size_t i = 0; i < len; i++) {
                r.hash = (r.hash ^ (uint8_t)data[i]) * 0x100000001b3ULL;
            }
            r.len += len;
            done += used;
        } while (r.outcome == HTTP_BODY_DATA);
        free(copy);
        MUST(r.outcome != HTTP_BODY_MORE || done == piece);
        r.used += done;
    } while (r.outcome == HTTP_BODY_MORE && r.used < n);
    r.bad = b.bad;
    MUST((r.outcome == HTTP_BODY_BAD) == (r.bad != HTTP_BAD_NONE));
    MUST(r.len == b.total_bytes && r.len <= max_bytes);
    return r;
}

/* Whole against steps of 1 and of a length that the input chooses. */
static inline void steps_compare_body(const struct http_head *h, const uint8_t *in, size_t n,
                                      uint64_t max_bytes)
{
    struct steps_body whole = steps_body(h, in, n, n + 1, max_bytes);
    size_t steps[2] = {1, 1 + (n > 0 ? in[n / 2] : 0)};
    for (int i = 0; i < 2; i++) {
        struct steps_body cut = steps_body(h, in, n, steps[i], max_bytes);
        if (h->framing == HTTP_UNTIL_CLOSE && whole.bad != HTTP_BAD_NONE) {
            MUST(cut.bad == whole.bad); /* what fits before the limit depends on the reads */
            continue;
        }
        MUST(cut.outcome == whole.outcome && cut.bad == whole.bad && cut.used == whole.used);
        MUST(cut.len == whole.len && cut.hash == whole.hash);
    }
}

static inline void steps_check_span(const struct http_head *h, struct http_span s)
{
    MUST(s.at <= h->bytes && s.len <= h->bytes - s.at);
}

/* What holds for every head that is done. */
static inline void steps_check_head(const struct http_head *h, size_t n)
{
    MUST(h->bytes <= n && h->bytes <= HTTP_MAX_HEAD_BYTES && h->n_headers <= HTTP_MAX_HEADERS);
    MUST(h->minor <= 1);
    for (uint32_t i = 0; i < h->n_headers; i++) {
        steps_check_span(h, h->headers[i].name);
        steps_check_span(h, h->headers[i].value);
        MUST(h->headers[i].name.len > 0);
    }
}

#endif
