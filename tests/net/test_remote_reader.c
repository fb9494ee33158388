/* Answers as bytes and instants, without sockets: what they come to, however they are cut. */
#include "net_test.h"

#include "base/mem.h"
#include "base/monotime.h"
#include "base/strbuf.h"
#include "net/remote_reader.h"

#define LENGTH_HEAD "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
#define JSON_HEAD   "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
#define EVENT(json) "data: " json "\n\n"
#define TEXT(text)                                                                                 \
    EVENT("{\"choices\":[{\"index\":0,\"text\":\"" text "\",\"finish_reason\":null}]}")
#define STOP   EVENT("{\"choices\":[{\"text\":\"\",\"finish_reason\":\"stop\"}]}")
#define LENGTH EVENT("{\"choices\":[{\"text\":\"\",\"finish_reason\":\"length\"}]}")
#define USAGE(n)                                                                                   \
    EVENT("{\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":" n                \
          ",\"prompt_tokens_details\":{\"cached_tokens\":4}}}")
#define GROWING(text, n)                                                                           \
    EVENT("{\"choices\":[{\"text\":\"" text "\"}],\"usage\":{\"completion_tokens\":" n "}}")
#define IDS(text, ids) EVENT("{\"choices\":[{\"text\":\"" text "\",\"token_ids\":[" ids "]}]}")
#define DONE           EVENT("[DONE]")

enum framing { CHUNKED, LENGTH_GIVEN, UNTIL_CLOSE, AS_IT_IS };

/* The head of that framing and the body; chunks of 7, 100, 7, ... bytes. */
static void message(struct strbuf *out, enum framing framing, const char *head, const char *body)
{
    size_t n = strlen(body);
    strbuf_clear(out);
    strbuf_puts(out, head);
    switch (framing) {
    case CHUNKED:
        strbuf_puts(out, "Transfer-Encoding: chunked\r\n\r\n");
        for (size_t i = 0; n > 0; i++) {
            size_t k = i % 2 == 0 ? 7 : 100;
            k = k < n ? k : n;
            strbuf_printf(out, "%zx\r\n%.*s\r\n", k, (int)k, body);
            body += k;
            n -= k;
        }
        strbuf_puts(out, "0\r\n\r\n");
        break;
    case LENGTH_GIVEN:
        strbuf_printf(out, "Content-Length: %zu\r\n\r\n%s", n, body);
        break;
    case UNTIL_CLOSE:
        strbuf_printf(out, "\r\n%s", body);
        break;
    case AS_IT_IS:
        strbuf_puts(out, body);
        break;
    }
    assert_false(out->failed);
}

static struct remote_scratch scratch;
static struct remote_reader reader;

/* Pieces of `first` and then of `step` bytes, each at an instant of its own: 1000, 1010, ... */
static void read_answer(struct remote_answer *a, const char *in, size_t n, size_t first,
                        size_t step, bool closes, uint32_t least)
{
    *a = (struct remote_answer){0};
    remote_reader_begin(&reader, a, least);
    uint64_t now = 1000;
    size_t at = 0;
    for (size_t piece = first; at < n && reader.phase < READER_COMPLETE; piece = step) {
        piece = n - at < piece ? n - at : piece;
        remote_reader_feed(&reader, guarded(in + at, piece), piece, now);
        at += piece;
        now += 10;
    }
    if (closes && reader.phase < READER_COMPLETE) {
        remote_reader_close(&reader, now, "closed");
    }
}

struct row {
    const char *name;
    enum framing framing;
    const char *head;
    const char *body;
    enum remote_fault fault;
    enum remote_token_source source;
    uint32_t n_events;
    uint32_t tokens;
    const char *text;
    enum scan_finish finish;
    enum remote_phase phase; /* at the end, the connection not closed */
    const char *says;        /* within the error */
    uint32_t least;
};

#define OK(source, events, tokens, text, finish)                                                   \
    REMOTE_FAULT_NONE, REMOTE_TOKENS_##source, events, tokens, text, SCAN_FINISH_##finish,         \
        READER_COMPLETE, "", 0
#define BAD(fault, source, events, tokens, text, finish, phase, says)                              \
    REMOTE_FAULT_##fault, REMOTE_TOKENS_##source, events, tokens, text, SCAN_FINISH_##finish,      \
        READER_##phase, says, 0

static const struct row rows[] = {
    {"events", CHUNKED, LENGTH_HEAD, TEXT(" a") TEXT("\\u00e9") STOP DONE,
     OK(EVENTS, 2, 2, " a\xC3\xA9", STOP)},
    {"events, Content-Length", LENGTH_GIVEN, LENGTH_HEAD, TEXT("a") STOP DONE,
     OK(EVENTS, 1, 1, "a", STOP)},
    {"usage at the end", CHUNKED, LENGTH_HEAD, TEXT("a") LENGTH USAGE("9") DONE,
     OK(USAGE, 1, 9, "a", LENGTH)},
    {"usage in each event", CHUNKED, LENGTH_HEAD,
     GROWING("a", "1") GROWING("", "2") GROWING("b", "4") STOP USAGE("4") DONE,
     OK(USAGE, 2, 4, "ab", STOP)},
    {"ids", CHUNKED, LENGTH_HEAD, IDS("ab", "1,2") IDS("", "3") IDS("c", "") STOP DONE,
     OK(IDS, 3, 3, "abc", STOP)},
    {"ids and usage", CHUNKED, LENGTH_HEAD, IDS("ab", "1,2") STOP USAGE("3") DONE,
     OK(USAGE, 1, 3, "ab", STOP)},
    {"no output", CHUNKED, LENGTH_HEAD, STOP DONE, OK(NONE, 0, 0, "", STOP)},
    {"no output, counted", CHUNKED, LENGTH_HEAD, STOP USAGE("0") DONE, OK(USAGE, 0, 0, "", STOP)},
    {"chat", CHUNKED, LENGTH_HEAD,
     EVENT("{\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}")
         EVENT("{\"choices\":[{\"delta\":{\"reasoning_content\":\"r\"}}]}")
             EVENT("{\"choices\":[{\"delta\":{\"content\":\"c\"},\"finish_reason\":null}]}")
                 EVENT("{\"choices\":[{\"delta\":{},\"finish_reason\":\"tool_calls\"}]}") DONE,
     OK(EVENTS, 2, 2, "rc", OTHER)},
    {"text in the last event", CHUNKED, LENGTH_HEAD,
     EVENT("{\"choices\":[{\"text\":\"z\",\"finish_reason\":\"length\"}]}") DONE,
     OK(EVENTS, 1, 1, "z", LENGTH)},
    {"comments, CRLF, a mark, two data lines", CHUNKED, LENGTH_HEAD,
     "\xEF\xBB\xBF: ping\r\n\r\nid: 4\r\nevent: message\r\ndata: {\"choices\":\r\n"
     "data: [{\"text\":\"a\"}]}\r\n\r\n: ping\n\n" STOP "data:[DONE]\r\r",
     OK(EVENTS, 1, 1, "a", STOP)},
    {"[DONE] by prefix", CHUNKED, LENGTH_HEAD, STOP "data: [DONE] bye\n\n",
     OK(NONE, 0, 0, "", STOP)},
    {"more events behind [DONE]", CHUNKED, LENGTH_HEAD, TEXT("a") STOP DONE TEXT("b") "data: {\n\n",
     OK(EVENTS, 1, 1, "a", STOP)},
    {"interim answer, names in any case", AS_IT_IS, "HTTP/1.1 100 Continue\r\n\r\n",
     "HTTP/1.1 200 OK\r\ncontent-type:TEXT/EVENT-STREAM\r\nTRANSFER-ENCODING: Chunked\r\n\r\n"
     "46;x=y\r\n" STOP DONE "\r\n0\r\nTrailer: t\r\n\r\n",
     OK(NONE, 0, 0, "", STOP)},
    {"whole", LENGTH_GIVEN, JSON_HEAD,
     "{\"choices\":[{\"text\":\"abc\",\"finish_reason\":\"length\"}],"
     "\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3,"
     "\"prompt_tokens_details\":{\"cached_tokens\":4}}}",
     OK(USAGE, 1, 3, "abc", LENGTH)},
    {"whole chat", CHUNKED, JSON_HEAD,
     "{\"choices\":[{\"message\":{\"content\":\"abc\"},\"finish_reason\":\"stop\"}]}",
     OK(EVENTS, 1, 1, "abc", STOP)},
    {"whole, until close", UNTIL_CLOSE, JSON_HEAD,
     "{\"choices\":[{\"text\":\"abc\",\"finish_reason\":\"stop\"}]}",
     BAD(NONE, EVENTS, 1, 1, "abc", STOP, WHOLE, "")},
    {"until close", UNTIL_CLOSE, LENGTH_HEAD, TEXT("a") STOP DONE,
     BAD(NONE, EVENTS, 1, 1, "a", STOP, DRAIN, "")},

    {"whole without an end", LENGTH_GIVEN, JSON_HEAD, "{\"choices\":[{\"text\":\"a\"}]}",
     BAD(CUT, EVENTS, 1, 1, "a", NONE, COMPLETE, "without a finish_reason")},
    {"whole error", LENGTH_GIVEN, JSON_HEAD, "{\"error\":{\"message\":\"m\"}}",
     BAD(SERVER, NONE, 0, 0, "", NONE, COMPLETE, "server error: m")},
    {"whole, not JSON", LENGTH_GIVEN, JSON_HEAD, "{\"choices\":[",
     BAD(PARSE, NONE, 0, 0, "", NONE, COMPLETE, "not JSON, or cut off at byte 12")},
    {"no whole at all", LENGTH_GIVEN, JSON_HEAD, "",
     BAD(PARSE, NONE, 0, 0, "", NONE, COMPLETE, "not JSON")},
    {"no event at all", LENGTH_GIVEN, LENGTH_HEAD, "",
     BAD(CUT, NONE, 0, 0, "", NONE, COMPLETE, "without [DONE]")},
    {"[DONE] alone", CHUNKED, LENGTH_HEAD, TEXT("a") DONE,
     BAD(CUT, EVENTS, 1, 1, "a", NONE, COMPLETE, "without a finish_reason")},
    {"no [DONE]", CHUNKED, LENGTH_HEAD, TEXT("a") STOP,
     BAD(CUT, EVENTS, 1, 1, "a", STOP, COMPLETE, "without [DONE]")},
    {"[DONE] without its blank line", CHUNKED, LENGTH_HEAD, STOP "data: [DONE]\n",
     BAD(CUT, NONE, 0, 0, "", STOP, COMPLETE, "without [DONE]")},
    {"error event", CHUNKED, LENGTH_HEAD,
     TEXT("a") EVENT("{\"error\":{\"message\":\"no\\nmem\\u0001\",\"code\":500}}") DONE,
     BAD(SERVER, EVENTS, 1, 1, "a", NONE, COMPLETE, "server error: no mem ")},
    {"error without words", CHUNKED, LENGTH_HEAD, EVENT("{\"error\":true}") DONE,
     BAD(SERVER, NONE, 0, 0, "", NONE, COMPLETE, "without a message")},
    {"abort", CHUNKED, LENGTH_HEAD,
     TEXT("a") EVENT("{\"choices\":[{\"finish_reason\":\"abort\"}]}") DONE,
     BAD(SERVER, EVENTS, 1, 1, "a", ABORT, COMPLETE, "finish_reason \"abort\"")},
    {"finish error", CHUNKED, LENGTH_HEAD,
     EVENT("{\"choices\":[{\"finish_reason\":\"error\"}]}") DONE,
     BAD(SERVER, NONE, 0, 0, "", ERROR, COMPLETE, "finish_reason \"error\"")},
    {"not JSON", CHUNKED, LENGTH_HEAD, TEXT("a") EVENT("{\"choices\":[{]}") DONE,
     BAD(PARSE, EVENTS, 1, 1, "a", NONE, BROKEN, "parse: not JSON")},
    {"a count that is none", CHUNKED, LENGTH_HEAD, STOP USAGE("\"9\"") DONE,
     BAD(PARSE, NONE, 0, 0, "", STOP, BROKEN, "wrong type")},
    {"a count beyond 32 bits", CHUNKED, LENGTH_HEAD, STOP USAGE("4294967296") DONE,
     BAD(PARSE, NONE, 0, 0, "", STOP, BROKEN, "cannot be one")},
    {"the largest count", CHUNKED, LENGTH_HEAD, STOP USAGE("4294967295") DONE,
     OK(USAGE, 0, 4294967295, "", STOP)},
    {"long event type", CHUNKED, LENGTH_HEAD,
     "event: 12345678901234567890123456789012345678901234567890123456789012345\n" STOP DONE,
     BAD(PARSE, NONE, 0, 0, "", NONE, BROKEN, "longer than")},

    {"status", LENGTH_GIVEN, "HTTP/1.1 503 Busy\r\nContent-Type: application/json\r\n",
     "{\"error\":{\"message\":\"loading\",\"type\":\"t\"}}",
     BAD(STATUS, NONE, 0, 0, "", NONE, COMPLETE, "status: HTTP 503: loading")},
    {"status, former form", CHUNKED, "HTTP/1.1 400 Bad\r\n",
     "{\"object\":\"error\",\"message\":\"bad field\"}",
     BAD(STATUS, NONE, 0, 0, "", NONE, COMPLETE, "status: HTTP 400: bad field")},
    {"status, words", LENGTH_GIVEN, "HTTP/1.1 500 X\r\n", "no\r\n\xFFgood",
     BAD(STATUS, NONE, 0, 0, "", NONE, COMPLETE, "status: HTTP 500: no  ?good")},
    {"status, a body until close", UNTIL_CLOSE, "HTTP/1.1 404 X\r\n", "nowhere",
     BAD(STATUS, NONE, 0, 0, "", NONE, ERROR, "status: HTTP 404: nowhere")},
    {"no content", AS_IT_IS, "HTTP/1.1 204 No Content\r\n\r\n", "",
     BAD(STATUS, NONE, 0, 0, "", NONE, COMPLETE, "status: HTTP 204: ")},
    {"redirect", LENGTH_GIVEN, "HTTP/1.1 302 Found\r\nLocation: /x\r\n", "",
     BAD(STATUS, NONE, 0, 0, "", NONE, COMPLETE, "status: HTTP 302: ")},

    {"another type", LENGTH_GIVEN, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n", "a",
     BAD(PARSE, NONE, 0, 0, "", NONE, BROKEN, "\"text/plain\" is neither")},
    {"no type", LENGTH_GIVEN, "HTTP/1.1 200 OK\r\n", "a",
     BAD(PARSE, NONE, 0, 0, "", NONE, BROKEN, "\"\" is neither")},
    {"two lengths", AS_IT_IS, LENGTH_HEAD, "Content-Length: 1\r\nContent-Length: 1\r\n\r\na",
     BAD(PARSE, NONE, 0, 0, "", NONE, BROKEN, "not one valid Content-Length, at byte")},
    {"bad chunk", AS_IT_IS, LENGTH_HEAD, "Transfer-Encoding: chunked\r\n\r\n5\r\n: hi\nX",
     BAD(PARSE, NONE, 0, 0, "", NONE, BROKEN, "chunk not ended by CRLF, in the answer's body")},
    {"bad chunk behind [DONE]", AS_IT_IS, LENGTH_HEAD,
     "Transfer-Encoding: chunked\r\n\r\n46\r\n" STOP DONE "\r\nX",
     BAD(NONE, NONE, 0, 0, "", STOP, BROKEN, "")},

    {"short by usage", CHUNKED, LENGTH_HEAD, TEXT("a") LENGTH USAGE("3") DONE,
     REMOTE_FAULT_SHORT_OUTPUT, REMOTE_TOKENS_USAGE, 1, 3, "a", SCAN_FINISH_LENGTH, READER_COMPLETE,
     "short output: 3 of 4 tokens (counted by usage)", 4},
    {"short by ids", CHUNKED, LENGTH_HEAD, IDS("a", "1,2,3") LENGTH DONE, REMOTE_FAULT_SHORT_OUTPUT,
     REMOTE_TOKENS_IDS, 1, 3, "a", SCAN_FINISH_LENGTH, READER_COMPLETE,
     "short output: 3 of 4 tokens (counted by ids)", 4},
    {"short by events", CHUNKED, LENGTH_HEAD, TEXT("a") STOP DONE, REMOTE_FAULT_SHORT_OUTPUT,
     REMOTE_TOKENS_EVENTS, 1, 1, "a", SCAN_FINISH_STOP, READER_COMPLETE,
     "short output: 1 of 4 tokens (counted by events)", 4},
    {"fewer events than tokens", CHUNKED, LENGTH_HEAD, TEXT("a") LENGTH DONE, REMOTE_FAULT_NONE,
     REMOTE_TOKENS_EVENTS, 1, 1, "a", SCAN_FINISH_LENGTH, READER_COMPLETE, "", 4},
    {"enough", CHUNKED, LENGTH_HEAD, TEXT("a") STOP USAGE("4") DONE, REMOTE_FAULT_NONE,
     REMOTE_TOKENS_USAGE, 1, 4, "a", SCAN_FINISH_STOP, READER_COMPLETE, "", 4},
};
#define N_ROWS (sizeof rows / sizeof rows[0])

static void check(const struct row *row, const struct remote_answer *a, size_t first, size_t step)
{
    const char *text = strbuf_text(&a->text);
    if (a->fault != row->fault || a->token_source != row->source || a->n_events != row->n_events ||
        a->output_tokens != row->tokens || strcmp(text, row->text) != 0 ||
        a->finish != row->finish || strstr(a->error, row->says) == NULL ||
        !remote_answer_has_ended(a) || (a->n_events > 0) != (a->first_ns != TIME_NEVER)) {
        fail_msg("%s, cut at %zu, then every %zu: %s, tokens by %s, %u events, %u tokens, '%s', "
                 "finish %d, \"%s\"",
                 row->name, first, step, remote_fault_name(a->fault),
                 remote_token_source_name(a->token_source), a->n_events, a->output_tokens, text,
                 (int)a->finish, a->error);
    }
}

/* Whole, byte by byte, in two pieces with every cut, and in steps. */
static void rows_at_every_cut(void **state)
{
    (void)state;
    struct strbuf in = {0};
    for (size_t i = 0; i < N_ROWS; i++) {
        const struct row *row = &rows[i];
        message(&in, row->framing, row->head, row->body);
        for (size_t cut = 0; cut < in.len + 2; cut++) {
            size_t first = cut == 0 ? in.len : cut <= in.len ? cut : 1;
            size_t step = cut <= in.len ? in.len : 1;
            struct remote_answer a;
            read_answer(&a, in.data, in.len, first, step, false, row->least);
            if (reader.phase != row->phase) {
                fail_msg("%s, cut at %zu: phase %d", row->name, first, (int)reader.phase);
            }
            if (reader.phase < READER_COMPLETE) {
                remote_reader_close(&reader, 1000 + 10 * in.len, "closed");
                assert_int_equal(reader.phase, READER_BROKEN);
            }
            check(row, &a, first, step);
            assert_false(reader.no_memory);
            remote_answer_deinit(&a);
        }
    }
    strbuf_deinit(&in);
}

/* Every answer broken off at every byte: an end, and a failure unless [DONE] was there. */
static void rows_cut_off(void **state)
{
    (void)state;
    struct strbuf in = {0};
    for (size_t i = 0; i < N_ROWS; i++) {
        const struct row *row = &rows[i];
        message(&in, row->framing, row->head, row->body);
        for (size_t n = 0; n < in.len; n++) {
            struct remote_answer a;
            read_answer(&a, in.data, n, 1 + n / 2, n, true, row->least);
            assert_true(remote_answer_has_ended(&a));
            bool is_settled = a.fault == row->fault;
            bool is_whole = row->framing == UNTIL_CLOSE; /* then a cut looks like an end */
            if (!is_settled && a.fault != REMOTE_FAULT_CUT && !is_whole) {
                fail_msg("%s, %zu of %zu bytes: \"%s\"", row->name, n, in.len, a.error);
            }
            if (a.fault == REMOTE_FAULT_NONE) {
                const char *mark = strstr(in.data, "[DONE]"); /* chunks may have cut it */
                assert_true(mark == NULL || in.data + n > mark + 6);
                assert_true(is_whole || strstr(in.data, "event-stream") != NULL ||
                            strstr(in.data, "EVENT-STREAM") != NULL || n + 5 >= in.len);
            }
            remote_answer_deinit(&a);
        }
    }
    strbuf_deinit(&in);
}

static void prompt_counts_and_status(void **state)
{
    (void)state;
    struct strbuf in = {0};
    struct remote_answer a;
    message(&in, CHUNKED, LENGTH_HEAD, TEXT("a") STOP USAGE("2") DONE);
    read_answer(&a, in.data, in.len, in.len, in.len, false, 0);
    assert_int_equal(a.prompt_tokens, 7);
    assert_int_equal(a.cached_tokens, 4);
    assert_int_equal(a.http_status, 200);
    assert_true(reader.keep_alive && reader.has_bytes);
    remote_answer_deinit(&a);
    message(&in, LENGTH_GIVEN, "HTTP/1.1 503 X\r\nConnection: close\r\n", "x");
    read_answer(&a, in.data, in.len, in.len, in.len, false, 0);
    assert_int_equal(a.http_status, 503);
    assert_false(reader.keep_alive);
    remote_answer_deinit(&a);
    message(&in, LENGTH_GIVEN, "HTTP/1.0 503 X\r\n", "x");
    read_answer(&a, in.data, in.len, in.len, in.len, false, 0);
    assert_false(reader.keep_alive);
    remote_answer_deinit(&a);
    strbuf_deinit(&in);
}

/* The answer is right, but nobody knows what the connection carries now. */
static void another_answer_unasked(void **state)
{
    (void)state;
    struct strbuf in = {0};
    struct remote_answer a;
    strbuf_puts(&in, LENGTH_HEAD "Content-Length: 70\r\n\r\n" STOP DONE "HTTP/1.1 200 OK\r\n");
    read_answer(&a, in.data, in.len, in.len, in.len, false, 0);
    assert_int_equal(a.fault, REMOTE_FAULT_NONE);
    assert_int_equal(reader.phase, READER_BROKEN);
    remote_answer_deinit(&a);
    strbuf_deinit(&in);
}

/* ---- instants ---- */

static void feed(const char *text, uint64_t now)
{
    remote_reader_feed(&reader, text, strlen(text), now);
}

static void stamps(void **state)
{
    (void)state;
    struct remote_answer a = {0};
    remote_reader_begin(&reader, &a, 0);
    assert_int_equal(a.head_ns, TIME_NEVER);
    assert_int_equal(a.end_ns, TIME_NEVER);
    feed("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n", 100);
    assert_int_equal(a.head_ns, TIME_NEVER);
    feed("\r\n: ping\n\n", 110);
    assert_int_equal(a.head_ns, 110);
    feed(EVENT("{\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}"), 120);
    feed(TEXT(""), 130); /* neither is content */
    assert_int_equal(a.first_ns, TIME_NEVER);
    feed("data: {\"choices\":[{\"tex", 140);
    feed("t\":\"a\"}]}\n", 150);
    feed("\n", 160); /* the event is there with its blank line */
    assert_int_equal(a.first_ns, 160);
    assert_false(a.coalesced);
    feed(TEXT("b"), 170);
    feed(TEXT("c"), 290);
    feed(TEXT("d"), 300);
    assert_false(a.coalesced);
    feed(TEXT("e") TEXT("f"), 320); /* one read */
    assert_true(a.coalesced);
    feed(STOP, 330);
    feed(USAGE("8"), 340);
    assert_int_equal(a.end_ns, TIME_NEVER);
    feed(DONE, 350);
    assert_int_equal(a.last_ns, 320);
    assert_int_equal(a.end_ns, 350);
    assert_int_equal(a.longest_gap_ns, 120);
    assert_int_equal(a.first_tokens, 1);
    assert_int_equal(a.output_tokens, 8);
    assert_string_equal(strbuf_text(&a.text), "abcdef");
    assert_int_equal(a.n_events, 6);
    static const struct remote_event expected[] = {{160, 1}, {170, 1}, {290, 1},
                                                   {300, 1}, {320, 1}, {320, 1}};
    assert_int_equal(a.events_capacity, 6);
    for (uint32_t i = 0; i < 6; i++) {
        assert_int_equal(a.events[i].time_ns, expected[i].time_ns);
        assert_int_equal(a.events[i].n_tokens, expected[i].n_tokens);
    }
    assert_int_equal(reader.phase, READER_DRAIN);
    remote_reader_close(&reader, 400, "closed"); /* behind [DONE]: no failure */
    assert_int_equal(a.fault, REMOTE_FAULT_NONE);
    assert_int_equal(a.end_ns, 350);
    remote_answer_deinit(&a);
}

/* n_1: of the first instant; all where there was but one. */
static void first_delivery(void **state)
{
    (void)state;
    static const struct {
        const char *first;
        const char *second;
        uint32_t n_1;
    } deliveries[] = {
        {TEXT("a"), TEXT("b") STOP USAGE("9"), 1},
        {TEXT("a") TEXT("b"), TEXT("c") STOP USAGE("9"), 2},
        {IDS("ab", "1,2") IDS("c", "3"), IDS("d", "4"), 3},
        {GROWING("ab", "5"), GROWING("c", "6") STOP, 5},
        {TEXT("a") TEXT("b"), STOP USAGE("9"), 9},
        {TEXT("a"), STOP, 1},
    };
    for (size_t i = 0; i < sizeof deliveries / sizeof deliveries[0]; i++) {
        struct remote_answer a = {0};
        remote_reader_begin(&reader, &a, 0);
        feed(LENGTH_HEAD "\r\n", 10);
        feed(deliveries[i].first, 20);
        feed(deliveries[i].second, 30);
        feed(STOP DONE, 40);
        assert_int_equal(a.fault, REMOTE_FAULT_NONE);
        assert_int_equal(a.first_tokens, deliveries[i].n_1);
        remote_answer_deinit(&a);
    }
}

static void ended_from_outside(void **state)
{
    (void)state;
    struct remote_answer a = {0};
    remote_reader_begin(&reader, &a, 0);
    feed(LENGTH_HEAD "\r\n" TEXT("a"), 10);
    remote_reader_fail(&reader, 99, REMOTE_FAULT_TIMEOUT, "after %d s", 3);
    assert_int_equal(reader.phase, READER_BROKEN);
    assert_int_equal(a.fault, REMOTE_FAULT_TIMEOUT);
    assert_string_equal(a.error, "timeout: after 3 s");
    assert_int_equal(a.end_ns, 99);
    assert_string_equal(strbuf_text(&a.text), "a");
    assert_int_equal(a.events_capacity, 1);
    remote_answer_deinit(&a);
}

static void long_words_are_cut_whole(void **state)
{
    (void)state;
    struct remote_answer a = {0};
    char words[600];
    for (size_t i = 0; i + 3 < sizeof words; i += 3) {
        memcpy(words + i, "\xE2\x82\xAC", 4); /* the sign of the euro */
    }
    remote_answer_begin(&a);
    remote_answer_fail(&a, 1, REMOTE_FAULT_SEND, "%s", words);
    size_t len = strlen(a.error);
    assert_true(len >= sizeof a.error - 4 && len < sizeof a.error);
    assert_int_equal((len - strlen("send: ")) % 3, 0);
}

/* ---- limits ---- */

/* An answer with one event of n bytes of data (n >= 40), fed in pieces of `step`. */
static void long_event(struct remote_answer *a, size_t n, size_t step)
{
    static const char front[] = "{\"choices\":[{\"text\":\"";
    static const char back[] = "\"}]}";
    struct strbuf in = {0};
    strbuf_puts(&in, LENGTH_HEAD "\r\ndata: ");
    strbuf_puts(&in, front);
    for (size_t i = sizeof front + sizeof back - 2; i < n; i++) {
        strbuf_putc(&in, 'x');
    }
    strbuf_puts(&in, back);
    strbuf_puts(&in, "\n\n" STOP DONE);
    assert_false(in.failed);
    read_answer(a, in.data, in.len, step, step, true, 0);
    strbuf_deinit(&in);
}

static void limits_of_events(void **state)
{
    (void)state;
    static const size_t sizes[] = {40, 5000, 16384, 16385, 200000, REMOTE_MAX_EVENT_BYTES};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (size_t step = 1000; step <= 32768; step += 31768) {
            struct remote_answer a;
            long_event(&a, sizes[i], step);
            assert_string_equal(a.error, "");
            assert_int_equal(a.text.len, sizes[i] - 25);
            remote_answer_deinit(&a);
        }
    }
    struct remote_answer a;
    long_event(&a, REMOTE_MAX_EVENT_BYTES + 1, 32768);
    assert_int_equal(a.fault, REMOTE_FAULT_PARSE);
    assert_contains(a.error, "an event longer than 4194304 bytes");
    remote_answer_deinit(&a);
}

static void whole_of(struct remote_answer *a, const char *head, size_t n)
{
    struct strbuf in = {0};
    strbuf_printf(&in, "%sContent-Length: %zu\r\n\r\n", head, n);
    strbuf_puts(&in, "{\"choices\":[{\"text\":\"a\",\"finish_reason\":\"stop\"}]}");
    while (in.len < n + strlen(head) + 64) { /* white space: enough and more */
        strbuf_puts(&in, "                                                                ");
    }
    const char *body = strstr(in.data, "\r\n\r\n") + 4;
    size_t len = (size_t)(body - in.data) + n;
    assert_true(len <= in.len);
    read_answer(a, in.data, len, 32768, 32768, true, 0);
    strbuf_deinit(&in);
}

static void limits_of_bodies(void **state)
{
    (void)state;
    struct remote_answer a;
    whole_of(&a, JSON_HEAD, REMOTE_MAX_EVENT_BYTES);
    assert_string_equal(a.error, "");
    remote_answer_deinit(&a);
    whole_of(&a, JSON_HEAD, REMOTE_MAX_EVENT_BYTES + 1);
    assert_int_equal(a.fault, REMOTE_FAULT_PARSE);
    assert_contains(a.error, "an answer longer than 4194304 bytes");
    remote_answer_deinit(&a);
    whole_of(&a, "HTTP/1.1 400 X\r\n", REMOTE_MAX_REFUSAL_BYTES);
    assert_int_equal(a.fault, REMOTE_FAULT_STATUS);
    assert_int_equal(reader.phase, READER_COMPLETE);
    remote_answer_deinit(&a);
    whole_of(&a, "HTTP/1.1 400 X\r\n", REMOTE_MAX_REFUSAL_BYTES + 1);
    assert_int_equal(a.fault, REMOTE_FAULT_STATUS);
    assert_int_equal(reader.phase, READER_BROKEN); /* the rest is not read */
    remote_answer_deinit(&a);
}

/* ---- memory ---- */

/* Each allocation refused in turn: never a wrong answer without a word of it. */
static void every_allocation_refused(void **state)
{
    (void)state;
    struct strbuf in = {0};
    strbuf_puts(&in, LENGTH_HEAD "\r\n");
    for (int i = 0; i < 600; i++) { /* more events than there is room for at first */
        strbuf_puts(&in, TEXT("abc"));
    }
    strbuf_puts(&in, "data: {\"choices\":[{\"text\":\"");
    for (int i = 0; i < 100000; i++) {
        strbuf_putc(&in, 'x');
    }
    strbuf_puts(&in, "\"}]}\n\n" STOP DONE);
    bool refused = true;
    uint64_t k = 1;
    for (; refused; k++) {
        struct remote_scratch s = {0};
        struct remote_reader r = {0};
        struct remote_answer a = {0};
        struct error err = ERROR_INIT;
        mem_fail_at(k, false);
        uint64_t before = mem_refused_count();
        enum status made = remote_scratch_init(&s, &err);
        if (made == STATUS_OK) {
            made = remote_reader_init(&r, &s, true, &err);
        }
        if (made == STATUS_OK) {
            remote_reader_begin(&r, &a, 0);
            for (size_t at = 0; at < in.len && r.phase < READER_COMPLETE; at += 20000) {
                size_t n = in.len - at < 20000 ? in.len - at : 20000;
                remote_reader_feed(&r, in.data + at, n, 10 + at);
            }
        }
        refused = mem_refused_count() != before;
        mem_fail_at(0, false);
        if (made != STATUS_OK) {
            assert_int_equal(made, STATUS_NO_MEMORY);
        } else {
            assert_int_equal(r.no_memory, refused);
            assert_true(remote_answer_has_ended(&a));
        }
        if (!refused) {
            assert_string_equal(a.error, "");
            assert_int_equal(a.n_events, 601);
            assert_int_equal(a.text.len, 101800);
        }
        remote_answer_deinit(&a);
        remote_reader_deinit(&r);
        remote_scratch_deinit(&s);
    }
    assert_true(k > 10);
    strbuf_deinit(&in);
}

static int set_up(void **state)
{
    (void)state;
    return remote_scratch_init(&scratch, NULL) == STATUS_OK &&
                   remote_reader_init(&reader, &scratch, true, NULL) == STATUS_OK
               ? 0
               : -1;
}

static int tear_down(void **state)
{
    (void)state;
    remote_reader_deinit(&reader);
    remote_scratch_deinit(&scratch);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_at_every_cut),
        cmocka_unit_test(rows_cut_off),
        cmocka_unit_test(prompt_counts_and_status),
        cmocka_unit_test(another_answer_unasked),
        cmocka_unit_test(stamps),
        cmocka_unit_test(first_delivery),
        cmocka_unit_test(ended_from_outside),
        cmocka_unit_test(long_words_are_cut_whole),
        cmocka_unit_test(limits_of_events),
        cmocka_unit_test(limits_of_bodies),
        cmocka_unit_test(every_allocation_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
