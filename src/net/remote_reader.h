/*
 * remote_reader.h - the bytes of one HTTP answer, in pieces with the time of each, into a
 * remote_answer.
 *
 * No sockets and no clock: the client feeds what each read() gave, tests and fuzzers feed anything.
 * How an answer is cut into pieces changes its instants (and `coalesced`), nothing else.
 *
 *   HEAD ──200, events──► EVENTS ──[DONE] or a fault──► DRAIN ──end of body──► COMPLETE
 *     ├───200, JSON─────► WHOLE ──────────────────────────────end of body──► COMPLETE
 *     └───other status──► ERROR ──────────────────────────────end of body──► COMPLETE
 *   not HTTP, closed too early, an end from outside ───────────────────────► BROKEN
 *
 * An answer has ended when answer->end_ns is set; the message may go on behind that (DRAIN): its
 * last chunk must come before the connection can carry the next request.
 */
#ifndef LLMSCHED_NET_REMOTE_READER_H
#define LLMSCHED_NET_REMOTE_READER_H

#include "net/event_scan.h"
#include "net/http_body.h"
#include "net/remote.h"
#include "net/sse.h"

/* Of one event's data, or of an answer that is no stream. Real events have 200 to 400 bytes. */
#define REMOTE_MAX_EVENT_BYTES (4U << 20)
/* Of the body of a refusal; the rest of it is not read. */
#define REMOTE_MAX_REFUSAL_BYTES 16384U
/* Of a whole body: a million events. */
#define REMOTE_MAX_ANSWER_BYTES (256U << 20)

/* Room for the scanner, shared by all readers of a thread; grows to the longest event. */
struct remote_scratch {
    struct scan_buffers buffers;
};
enum status remote_scratch_init(struct remote_scratch *s, struct error *err) MUST_USE;
void remote_scratch_deinit(struct remote_scratch *s);

enum remote_phase {
    READER_HEAD,
    READER_EVENTS,
    READER_WHOLE,
    READER_ERROR,
    READER_DRAIN,
    READER_COMPLETE, /* the message is over; keep_alive says whether another may follow */
    READER_BROKEN    /* the connection is of no more use */
};

/* Read by the client: phase, keep_alive, has_bytes, no_memory. */
struct remote_reader {
    enum remote_phase phase;
    bool keep_alive;
    bool has_bytes; /* of this answer */
    bool no_memory; /* an allocation was refused: the answer is not what the server said */
    /* private */
    struct remote_answer *answer;
    struct remote_scratch *scratch;
    uint32_t least_tokens;
    bool keep_events;
    struct http_response response;
    struct http_body body;
    struct sse sse;
    char *buf; /* head, then event data, whole answer or refusal */
    size_t cap;
    size_t len;
    struct strbuf text;          /* of the answer so far; copied at its end */
    struct remote_event *events; /* likewise */
    uint32_t events_cap;
    uint64_t usage_tokens; /* the last completion_tokens, or SCAN_NO_COUNT */
    uint64_t event_tokens; /* sum over content events */
    bool has_ids;
};

/* Alloc: buffers that later answers reuse. Owner: the caller; scratch is borrowed. */
enum status remote_reader_init(struct remote_reader *r, struct remote_scratch *scratch,
                               bool keep_events, struct error *err) MUST_USE;
void remote_reader_deinit(struct remote_reader *r);

/* Before an answer. *answer is zeroed but for planned_ns; its other instants become TIME_NEVER. */
void remote_reader_begin(struct remote_reader *r, struct remote_answer *answer,
                         uint32_t least_tokens);
/* n >= 1 bytes that one read gave at `now_ns`; several calls with one instant are one read. Not
 * after COMPLETE or BROKEN. Alloc: none per event, once buffers have grown; two blocks at an
 * answer's end. */
void remote_reader_feed(struct remote_reader *r, const char *bytes, size_t n, uint64_t now_ns);
/* The server closed or reset the connection (`how`, for people). */
void remote_reader_close(struct remote_reader *r, uint64_t now_ns, const char *how);
/* Ends an answer that has not ended, from outside: timeout, cancelled, no connection. BROKEN. */
void remote_reader_fail(struct remote_reader *r, uint64_t now_ns, enum remote_fault fault,
                        const char *fmt, ...) PRINTF_LIKE(4, 5);

/* A fault in an answer that no reader has: sets end, fault and error. */
void remote_answer_fail(struct remote_answer *a, uint64_t now_ns, enum remote_fault fault,
                        const char *fmt, ...) PRINTF_LIKE(4, 5);
/* All instants but planned_ns to TIME_NEVER. */
void remote_answer_begin(struct remote_answer *a);

static inline bool remote_answer_has_ended(const struct remote_answer *a)
{
    return a->end_ns != UINT64_MAX;
}

#endif
