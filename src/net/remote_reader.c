/* remote_reader.c - see remote_reader.h. What is stamped and counted: docs/METRICS.md. */
#include "net/remote_reader.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/monotime.h"
#include "base/utf8.h"

#define FIRST_SCRATCH_BYTES 65536U
#define FIRST_EVENTS        256U
#define ALL_OF(text)        (int)(text).len, (text).at == NULL ? "" : (text).at

/* ---- memory ---- */

enum status remote_scratch_init(struct remote_scratch *s, struct error *err)
{
    s->buffers = (struct scan_buffers){
        .text = mem_alloc(FIRST_SCRATCH_BYTES, 1),
        .text_cap = FIRST_SCRATCH_BYTES,
        .ids = mem_alloc(FIRST_SCRATCH_BYTES / 2, sizeof(int32_t)),
        .ids_cap = FIRST_SCRATCH_BYTES / 2,
    };
    if (s->buffers.text == NULL || s->buffers.ids == NULL) {
        remote_scratch_deinit(s);
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for events");
    }
    return STATUS_OK;
}

void remote_scratch_deinit(struct remote_scratch *s)
{
    mem_free(s->buffers.text);
    mem_free(s->buffers.ids);
    *s = (struct remote_scratch){0};
}

/* Unescaped text is no longer than its event, and an id takes two bytes with its comma. */
static bool scratch_fits(struct remote_scratch *s, size_t event_bytes)
{
    if (event_bytes <= s->buffers.text_cap) {
        return true;
    }
    size_t cap = 2 * event_bytes;
    char *text = mem_resize(s->buffers.text, cap, 1);
    if (text == NULL) {
        return false;
    }
    s->buffers.text = text;
    int32_t *ids = mem_resize(s->buffers.ids, cap / 2, sizeof *ids);
    if (ids == NULL) {
        return false; /* text is larger than its stated size: no harm */
    }
    s->buffers.ids = ids;
    s->buffers.text_cap = cap;
    s->buffers.ids_cap = cap / 2;
    return true;
}

enum status remote_reader_init(struct remote_reader *r, struct remote_scratch *scratch,
                               bool keep_events, struct error *err)
{
    *r = (struct remote_reader){
        .phase = READER_COMPLETE,
        .scratch = scratch,
        .keep_events = keep_events,
        .buf = mem_alloc(HTTP_MAX_HEAD_BYTES, 1),
        .cap = HTTP_MAX_HEAD_BYTES,
        .events = keep_events ? mem_alloc(FIRST_EVENTS, sizeof *r->events) : NULL,
        .events_cap = keep_events ? FIRST_EVENTS : 0,
    };
    if (r->buf == NULL || (keep_events && r->events == NULL)) {
        remote_reader_deinit(r);
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for a connection");
    }
    return STATUS_OK;
}

void remote_reader_deinit(struct remote_reader *r)
{
    mem_free(r->buf);
    mem_free(r->events);
    strbuf_deinit(&r->text);
    *r = (struct remote_reader){0};
}

/* Room for n bytes behind those in buf, up to max in all. */
static bool make_room(struct remote_reader *r, size_t n, size_t max)
{
    if (r->len + n <= r->cap || r->cap >= max) {
        return true; /* beyond max the caller or the parser refuses */
    }
    size_t cap = 2 * r->cap > r->len + n ? 2 * r->cap : r->len + n;
    cap = cap < max ? cap : max;
    char *buf = mem_resize(r->buf, cap, 1);
    if (buf == NULL) {
        r->no_memory = true;
        return false;
    }
    r->buf = buf;
    r->cap = cap;
    return true;
}

/* ---- ends ---- */

/* Whole UTF-8 characters on one line: it becomes a CSV cell and part of a message. */
static void set_error(struct remote_answer *a, enum remote_fault fault, const char *fmt,
                      va_list args)
{
    char raw[2 * sizeof a->error];
    size_t len = 0;
    int n = snprintf(raw, sizeof raw, "%s: ", remote_fault_name(fault));
    len = n < 0 ? 0 : (size_t)n;
    n = vsnprintf(raw + len, sizeof raw - len, fmt, args);
    len += n < 0 ? 0 : (size_t)n;
    len = len < sizeof raw ? len : sizeof raw - 1;
    size_t to = 0;
    for (size_t at = 0; at < len;) {
        size_t size = utf8_sequence(raw + at, len - at);
        if (to + (size == 0 ? 1 : size) >= sizeof a->error) {
            break;
        }
        if (size == 0) {
            a->error[to++] = '?';
            at += utf8_invalid_run(raw + at, len - at);
            continue;
        }
        if (size == 1 && ((unsigned char)raw[at] < 0x20 || raw[at] == 0x7F)) {
            a->error[to++] = ' ';
        } else {
            memcpy(a->error + to, raw + at, size);
            to += size;
        }
        at += size;
    }
    a->error[to] = '\0';
    a->fault = fault;
}

static PRINTF_LIKE(3, 4) void mark(struct remote_answer *a, enum remote_fault fault,
                                   const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    set_error(a, fault, fmt, args);
    va_end(args);
}

void remote_answer_begin(struct remote_answer *a)
{
    a->send_begin_ns = TIME_NEVER;
    a->send_end_ns = TIME_NEVER;
    a->head_ns = TIME_NEVER;
    a->first_ns = TIME_NEVER;
    a->last_ns = TIME_NEVER;
    a->end_ns = TIME_NEVER;
}

void remote_answer_deinit(struct remote_answer *a)
{
    strbuf_deinit(&a->text);
    mem_free(a->events);
    a->events = NULL;
    a->events_capacity = 0;
}

void remote_answer_fail(struct remote_answer *a, uint64_t now_ns, enum remote_fault fault,
                        const char *fmt, ...)
{
    assert(!remote_answer_has_ended(a));
    va_list args;
    va_start(args, fmt);
    set_error(a, fault, fmt, args);
    va_end(args);
    a->end_ns = now_ns;
}

/* Counts and copies what came; for good and bad ends alike. */
static void end_answer(struct remote_reader *r, uint64_t now)
{
    struct remote_answer *a = r->answer;
    a->end_ns = now;
    if (r->usage_tokens != SCAN_NO_COUNT) {
        a->output_tokens = (uint32_t)r->usage_tokens;
        a->token_source = REMOTE_TOKENS_USAGE;
    } else {
        a->output_tokens = (uint32_t)r->event_tokens;
        a->token_source = r->has_ids        ? REMOTE_TOKENS_IDS
                          : a->n_events > 0 ? REMOTE_TOKENS_EVENTS
                                            : REMOTE_TOKENS_NONE;
    }
    if (a->first_ns == a->last_ns && a->n_events > 0) {
        a->first_tokens = a->output_tokens; /* one delivery had them all */
    }
    strbuf_append(&a->text, r->text.data, r->text.len);
    r->no_memory |= r->text.failed || a->text.failed;
    if (r->keep_events && a->n_events > 0) {
        a->events = mem_alloc(a->n_events, sizeof *a->events);
        if (a->events == NULL) {
            r->no_memory = true;
            return;
        }
        memcpy(a->events, r->events, a->n_events * sizeof *a->events);
        a->events_capacity = a->n_events;
    }
}

static void fail_v(struct remote_reader *r, uint64_t now, enum remote_fault fault, const char *fmt,
                   va_list args)
{
    assert(!remote_answer_has_ended(r->answer));
    end_answer(r, now);
    set_error(r->answer, fault, fmt, args);
}

/* The answer ends here and now; where the message goes on is the caller's to say. */
static PRINTF_LIKE(4, 5) void fail(struct remote_reader *r, uint64_t now, enum remote_fault fault,
                                   const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fail_v(r, now, fault, fmt, args);
    va_end(args);
}

void remote_reader_fail(struct remote_reader *r, uint64_t now_ns, enum remote_fault fault,
                        const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fail_v(r, now_ns, fault, fmt, args);
    va_end(args);
    r->phase = READER_BROKEN;
}

/* A stream's [DONE], or the end of a whole answer. */
static void judge(struct remote_reader *r, uint64_t now)
{
    struct remote_answer *a = r->answer;
    if (a->finish == SCAN_FINISH_NONE) {
        fail(r, now, REMOTE_FAULT_CUT, "the answer ended without a finish_reason");
        return;
    }
    if (a->finish == SCAN_FINISH_ABORT || a->finish == SCAN_FINISH_ERROR) {
        fail(r, now, REMOTE_FAULT_SERVER, "finish_reason \"%s\"",
             a->finish == SCAN_FINISH_ABORT ? "abort" : "error");
        return;
    }
    end_answer(r, now);
    /* Events are a lower bound: where the server says that the limit was reached, it was. */
    bool is_known = a->token_source != REMOTE_TOKENS_EVENTS || a->finish != SCAN_FINISH_LENGTH;
    if (a->output_tokens < r->least_tokens && is_known) {
        mark(a, REMOTE_FAULT_SHORT_OUTPUT, "%u of %u tokens (counted by %s)", a->output_tokens,
             r->least_tokens, remote_token_source_name(a->token_source));
    }
}

/* ---- events ---- */

/* False: a count that cannot be one. */
static bool take_usage(struct remote_reader *r, const struct scan_usage *u)
{
    struct remote_answer *a = r->answer;
    if ((u->completion_tokens != SCAN_NO_COUNT && u->completion_tokens > UINT32_MAX) ||
        (u->prompt_tokens != SCAN_NO_COUNT && u->prompt_tokens > UINT32_MAX) ||
        (u->cached_tokens != SCAN_NO_COUNT && u->cached_tokens > UINT32_MAX)) {
        return false;
    }
    if (u->completion_tokens != SCAN_NO_COUNT) {
        r->usage_tokens = u->completion_tokens;
    }
    if (u->prompt_tokens != SCAN_NO_COUNT) {
        a->prompt_tokens = (uint32_t)u->prompt_tokens;
    }
    if (u->cached_tokens != SCAN_NO_COUNT) {
        a->cached_tokens = (uint32_t)u->cached_tokens;
        a->has_cached_tokens = true;
    }
    return true;
}

/* A content event of n tokens. Events of one instant are one delivery, the first one too. */
static void count_event(struct remote_reader *r, uint32_t n, uint64_t now)
{
    struct remote_answer *a = r->answer;
    if (a->n_events == 0) {
        a->first_ns = now;
    } else {
        a->coalesced |= a->last_ns == now;
        uint64_t gap = now - a->last_ns;
        a->longest_gap_ns = gap > a->longest_gap_ns ? gap : a->longest_gap_ns;
    }
    if (a->first_ns == now) {
        a->first_tokens += n;
    }
    a->last_ns = now;
    r->event_tokens += n;
    if (r->keep_events && a->n_events == r->events_cap) {
        struct remote_event *grown = mem_resize(r->events, 2UL * r->events_cap, sizeof *grown);
        if (grown == NULL) {
            r->no_memory = true;
            return;
        }
        r->events = grown;
        r->events_cap *= 2;
    }
    if (r->keep_events) {
        r->events[a->n_events] = (struct remote_event){now, n};
    }
    a->n_events++;
}

/* Text, ids and finish reason of an event's choices (one was asked for). */
static void take_choices(struct remote_reader *r, const struct event_scan *scan, uint64_t now)
{
    uint32_t n_ids = 0;
    bool has_ids = false;
    bool has_content = false;
    for (uint32_t i = 0; i < scan->n_choices; i++) {
        const struct scan_choice *c = &scan->choices[i];
        strbuf_append(&r->text, c->reasoning.at, c->reasoning.len);
        strbuf_append(&r->text, c->text.at, c->text.len);
        has_content |= c->text.len > 0 || c->reasoning.len > 0 || c->n_token_ids > 0;
        has_ids |= c->has_token_ids;
        n_ids += (uint32_t)c->n_token_ids;
        if (c->finish != SCAN_FINISH_NONE) {
            r->answer->finish = c->finish;
        }
    }
    if (!has_content) {
        return;
    }
    uint32_t n = 1;
    if (has_ids) {
        r->has_ids = true;
        n = n_ids;
    } else if (scan->has_usage && r->usage_tokens != SCAN_NO_COUNT &&
               r->usage_tokens > r->event_tokens) {
        n = (uint32_t)(r->usage_tokens - r->event_tokens); /* usage that grows with each event */
    }
    count_event(r, n, now);
}

/* One JSON object: of an event, or the whole answer. False: the answer has ended by a fault. */
static bool take_json(struct remote_reader *r, const char *json, size_t n, uint64_t now)
{
    struct event_scan scan;
    if (!scratch_fits(r->scratch, n)) {
        r->no_memory = true;
        fail(r, now, REMOTE_FAULT_PARSE, "no memory for an event of %zu bytes", n);
        return false;
    }
    enum scan_bad bad = event_scan(json, n, &r->scratch->buffers, &scan);
    if (bad != SCAN_OK) {
        fail(r, now, REMOTE_FAULT_PARSE, "%s at byte %zu of: %.*s", scan_bad_text(bad), scan.bad_at,
             (int)(n < 60 ? n : 60), json);
        return false;
    }
    if (scan.has_error) {
        if (scan.error.message.len > 0) {
            fail(r, now, REMOTE_FAULT_SERVER, "%.*s", ALL_OF(scan.error.message));
        } else {
            fail(r, now, REMOTE_FAULT_SERVER, "an error without a message");
        }
        return false;
    }
    if (scan.has_usage && !take_usage(r, &scan.usage)) {
        fail(r, now, REMOTE_FAULT_PARSE, "a token count that cannot be one");
        return false;
    }
    take_choices(r, &scan, now);
    return true;
}

static void take_events(struct remote_reader *r, const char *in, size_t n, uint64_t now)
{
    r->len = r->sse.len;
    if (!make_room(r, n + 1, REMOTE_MAX_EVENT_BYTES)) {
        fail(r, now, REMOTE_FAULT_PARSE, "no memory for a long event");
        r->phase = READER_BROKEN;
        return;
    }
    sse_set_buffer(&r->sse, r->buf, r->cap);
    struct sse_event ev;
    size_t used;
    enum sse_outcome got;
    while ((got = sse_next(&r->sse, in, n, &used, &ev)) == SSE_EVENT) {
        in += used;
        n -= used;
        if (event_is_done(ev.data, ev.data_len)) {
            judge(r, now);
        } else {
            (void)take_json(r, ev.data, ev.data_len, now);
        }
        if (remote_answer_has_ended(r->answer)) {
            /* Only a server that spoke clearly is worth another request on this connection. */
            r->phase = r->answer->fault == REMOTE_FAULT_PARSE ? READER_BROKEN : READER_DRAIN;
            return;
        }
    }
    if (got == SSE_BAD) {
        fail(r, now, REMOTE_FAULT_PARSE, "an event longer than %u bytes, or a type than %u",
             REMOTE_MAX_EVENT_BYTES, SSE_MAX_TYPE_BYTES);
        r->phase = READER_BROKEN;
    }
}

/* ---- whole answers and refusals ---- */

/* Bytes of a body that is read as a whole; those beyond max are the caller's to judge. */
static size_t keep_bytes(struct remote_reader *r, const char *in, size_t n, size_t max)
{
    size_t room = max - r->len;
    size_t kept = n < room ? n : room;
    if (!make_room(r, kept, max)) {
        return 0;
    }
    memcpy(r->buf + r->len, in, kept);
    r->len += kept;
    return kept;
}

static void refuse(struct remote_reader *r, uint64_t now)
{
    struct event_scan scan;
    unsigned status = r->answer->http_status;
    if (scratch_fits(r->scratch, r->len) &&
        event_scan(r->buf, r->len, &r->scratch->buffers, &scan) == SCAN_OK && scan.has_error &&
        scan.error.message.len > 0) {
        fail(r, now, REMOTE_FAULT_STATUS, "HTTP %u: %.*s", status, ALL_OF(scan.error.message));
    } else {
        fail(r, now, REMOTE_FAULT_STATUS, "HTTP %u: %.*s", status, (int)r->len, r->buf);
    }
}

static void take_piece(struct remote_reader *r, const char *in, size_t n, uint64_t now)
{
    switch (r->phase) {
    case READER_EVENTS:
        take_events(r, in, n, now);
        break;
    case READER_WHOLE:
        if (keep_bytes(r, in, n, REMOTE_MAX_EVENT_BYTES) < n) {
            fail(r, now, REMOTE_FAULT_PARSE, "an answer longer than %u bytes",
                 REMOTE_MAX_EVENT_BYTES);
            r->phase = READER_BROKEN;
        }
        break;
    case READER_ERROR:
        if (keep_bytes(r, in, n, REMOTE_MAX_REFUSAL_BYTES) < n) {
            refuse(r, now);
            r->phase = READER_BROKEN;
        }
        break;
    default: /* DRAIN */
        break;
    }
}

/* The body is complete. */
static void end_body(struct remote_reader *r, uint64_t now)
{
    if (r->phase == READER_EVENTS) {
        fail(r, now, REMOTE_FAULT_CUT, "the stream ended without [DONE]");
    } else if (r->phase == READER_WHOLE) {
        if (take_json(r, r->buf, r->len, now)) {
            judge(r, now);
        }
    } else if (r->phase == READER_ERROR) {
        refuse(r, now);
    }
    r->phase = READER_COMPLETE;
}

/* ---- bytes ---- */

/* A fault of the protocol: the answer ends with it unless it had ended before. */
static PRINTF_LIKE(4, 5) void break_off(struct remote_reader *r, uint64_t now,
                                        enum remote_fault fault, const char *fmt, ...)
{
    if (!remote_answer_has_ended(r->answer)) {
        va_list args;
        va_start(args, fmt);
        fail_v(r, now, fault, fmt, args);
        va_end(args);
    }
    r->phase = READER_BROKEN;
}

/* The head is whole; what it announces. */
static void begin_body(struct remote_reader *r, uint64_t now)
{
    const struct http_head *h = &r->response.head;
    const struct http_header *type = http_header_find(h, r->buf, "Content-Type");
    struct http_span kind = type == NULL ? (struct http_span){0, 0} : type->value;
    for (uint32_t i = 0; i < kind.len; i++) { /* without "; charset=utf-8" */
        if (strchr("; \t", r->buf[kind.at + i]) != NULL) {
            kind.len = i;
        }
    }
    r->keep_alive = h->keep_alive;
    r->answer->http_status = r->response.status;
    r->answer->head_ns = now;
    http_body_begin(&r->body, h, REMOTE_MAX_ANSWER_BYTES);
    if (r->response.status != 200) {
        r->phase = READER_ERROR;
    } else if (http_span_is_nocase(r->buf, kind, "text/event-stream")) {
        r->phase = READER_EVENTS;
        sse_init(&r->sse, r->buf, r->cap);
    } else if (http_span_is_nocase(r->buf, kind, "application/json")) {
        r->phase = READER_WHOLE;
    } else {
        break_off(r, now, REMOTE_FAULT_PARSE,
                  "Content-Type \"%.*s\" is neither text/event-stream nor application/json",
                  (int)kind.len, r->buf + kind.at);
    }
    r->len = 0;
}

/* Collects the head; gives the bytes of `in` that were used. */
static size_t take_head(struct remote_reader *r, const char *in, size_t n, uint64_t now)
{
    size_t before = r->len;
    size_t room = HTTP_MAX_HEAD_BYTES - before;
    size_t kept = n < room ? n : room;
    memcpy(r->buf + before, in, kept);
    r->len += kept;
    switch (http_response_parse(&r->response, r->buf, r->len)) {
    case HTTP_MORE:
        return kept;
    case HTTP_BAD:
        break_off(r, now, REMOTE_FAULT_PARSE, "%s, at byte %u of the answer's head",
                  http_bad_text(r->response.head.bad), r->response.head.bad_at);
        return kept;
    default:
        break;
    }
    size_t used = r->response.head.bytes - before;
    if (r->response.is_interim) { /* 100 Continue and the like: the answer follows */
        http_response_begin(&r->response, false);
        r->len = 0;
    } else {
        begin_body(r, now);
    }
    return used;
}

static void take_body(struct remote_reader *r, const char *in, size_t n, uint64_t now)
{
    while (r->phase != READER_BROKEN) {
        size_t used;
        size_t len;
        const char *data;
        switch (http_body_next(&r->body, in, n, &used, &data, &len)) {
        case HTTP_BODY_DATA:
            in += used;
            n -= used;
            take_piece(r, data, len, now);
            break;
        case HTTP_BODY_MORE:
            return;
        case HTTP_BODY_DONE:
            end_body(r, now);
            if (used < n) { /* nobody asked for more */
                r->phase = READER_BROKEN;
            }
            return;
        case HTTP_BODY_BAD:
            break_off(r, now, REMOTE_FAULT_PARSE, "%s, in the answer's body",
                      http_bad_text(r->body.bad));
            return;
        }
    }
}

void remote_reader_begin(struct remote_reader *r, struct remote_answer *answer,
                         uint32_t least_tokens)
{
    r->phase = READER_HEAD;
    r->keep_alive = false;
    r->has_bytes = false;
    r->no_memory = false;
    r->answer = answer;
    r->least_tokens = least_tokens;
    r->len = 0;
    r->usage_tokens = SCAN_NO_COUNT;
    r->event_tokens = 0;
    r->has_ids = false;
    strbuf_clear(&r->text);
    r->text.failed = false;
    http_response_begin(&r->response, false);
    remote_answer_begin(answer);
}

void remote_reader_feed(struct remote_reader *r, const char *bytes, size_t n, uint64_t now_ns)
{
    assert(n > 0 && r->phase != READER_COMPLETE && r->phase != READER_BROKEN);
    r->has_bytes = true;
    while (n > 0 && r->phase == READER_HEAD) {
        size_t used = take_head(r, bytes, n, now_ns);
        bytes += used;
        n -= used;
    }
    if (r->phase != READER_HEAD) {
        take_body(r, bytes, n, now_ns);
    }
}

void remote_reader_close(struct remote_reader *r, uint64_t now_ns, const char *how)
{
    assert(r->phase != READER_COMPLETE && r->phase != READER_BROKEN);
    if (r->phase == READER_HEAD) {
        break_off(r, now_ns, REMOTE_FAULT_CUT,
                  r->has_bytes ? "%s within the head" : "%s before an answer", how);
        return;
    }
    if (http_body_close(&r->body) == HTTP_BODY_DONE) {
        end_body(r, now_ns);
    } else if (r->phase == READER_ERROR) {
        refuse(r, now_ns);
    } else {
        break_off(r, now_ns, REMOTE_FAULT_CUT, "%s after %u events", how, r->answer->n_events);
    }
    r->phase = READER_BROKEN;
}
