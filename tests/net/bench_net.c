/*
 * bench_net.c - what the client spends on an event, on one core: server-sent events and the scanner
 * over streams as vLLM sends them, alone and inside chunked coding, in reads of several sizes.
 * Goal: >= 2 million events a second for events + scanner. Every event's text is checked by its
 * length, so that nothing is left out.
 *
 *     build/tests/bench_net [SECONDS per row]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/monotime.h"
#include "base/strbuf.h"
#include "net/event_scan.h"
#include "net/http_body.h"
#include "net/sse.h"

#define N_EVENTS    4096
#define GOAL        2e6
#define EVENT_BYTES 65536

enum { COMPLETIONS, CONTINUOUS_USAGE, CHAT, N_KINDS };
static const char *const kind_names[N_KINDS] = {"completions", "completions, usage in each",
                                                "chat"};

/* Words as tokenizers cut them; some need escapes. */
static const char *const words[] = {" the",  " of", "ing",      ",",        " model", "\\n",
                                    " \\\"", "s",   " request", "\xC3\xA9", " 12",    "\\u2019"};

static void event_json(struct strbuf *b, int kind, int i)
{
    const char *word = words[(size_t)i * 7 % (sizeof words / sizeof words[0])];
    const char *head = kind == CHAT ? "chatcmpl" : "cmpl";
    strbuf_printf(b, "{\"id\":\"%s-5f2e1c0d9b8a47568f3e2d1c0b9a8f7e\",\"object\":\"%s\",", head,
                  kind == CHAT ? "chat.completion.chunk" : "text_completion");
    strbuf_puts(b, "\"created\":1764000000,\"model\":\"HuggingFaceTB/SmolLM2-135M-Instruct\",");
    if (kind == CHAT) {
        strbuf_printf(b,
                      "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"%s\"},\"logprobs\":null,"
                      "\"finish_reason\":null}]}",
                      word);
        return;
    }
    strbuf_printf(b,
                  "\"choices\":[{\"index\":0,\"text\":\"%s\",\"logprobs\":null,"
                  "\"finish_reason\":null,\"stop_reason\":null}]",
                  word);
    if (kind == CONTINUOUS_USAGE) {
        strbuf_printf(b,
                      ",\"usage\":{\"prompt_tokens\":48,\"total_tokens\":%d,"
                      "\"completion_tokens\":%d}}",
                      48 + i, i);
    } else {
        strbuf_puts(b, ",\"usage\":null}");
    }
}

/* A body of N_EVENTS events, each a chunk of its own when chunked. */
static void stream(struct strbuf *body, int kind, bool chunked)
{
    struct strbuf event = {0};
    for (int i = 0; i < N_EVENTS; i++) {
        char size[HTTP_CHUNK_OVERHEAD];
        strbuf_clear(&event);
        strbuf_puts(&event, "data: ");
        event_json(&event, kind, i);
        strbuf_puts(&event, "\n\n");
        size_t n = chunked ? http_chunk_begin(size, sizeof size, event.len) : 0;
        strbuf_append(body, size, n);
        strbuf_append(body, event.data, event.len);
        strbuf_puts(body, chunked ? "\r\n" : "");
    }
    strbuf_deinit(&event);
}

struct reader {
    struct sse sse;
    struct http_body body;
    uint64_t events;
    uint64_t text_bytes;
    bool scans;
    bool failed;
};

static char event_room[EVENT_BYTES];
static char text_room[4096];
static int32_t id_room[64];
static const struct scan_buffers buffers = {text_room, sizeof text_room, id_room, 64};

static void take(struct reader *r, const char *in, size_t n)
{
    static struct event_scan scan;
    struct sse_event ev;
    size_t used;
    enum sse_outcome got;
    while ((got = sse_next(&r->sse, in, n, &used, &ev)) == SSE_EVENT) {
        in += used;
        n -= used;
        r->events++;
        if (r->scans) {
            r->failed |= event_scan(ev.data, ev.data_len, &buffers, &scan) != SCAN_OK ||
                         scan.n_choices != 1 || scan.choices[0].text.len == 0;
            r->text_bytes += scan.choices[0].text.len;
        }
    }
    r->failed |= got == SSE_BAD;
}

static void take_chunked(struct reader *r, const char *in, size_t n)
{
    const char *data;
    size_t data_len;
    size_t used;
    enum http_body_outcome got;
    while ((got = http_body_next(&r->body, in, n, &used, &data, &data_len)) == HTTP_BODY_DATA) {
        take(r, data, data_len);
        in += used;
        n -= used;
    }
    r->failed |= got != HTTP_BODY_MORE;
}

/* Events a second over the stream again and again for that long, the best of five parts. */
static double measure(const struct strbuf *body, bool chunked, bool scans, size_t read_bytes,
                      double seconds, bool *failed)
{
    static const struct http_head head = {.framing = HTTP_CHUNKED};
    static struct reader r;
    double best = 0.0;
    for (int part = 0; part < 5; part++) {
        r = (struct reader){.scans = scans};
        sse_init(&r.sse, event_room, sizeof event_room);
        http_body_begin(&r.body, &head, UINT64_MAX);
        uint64_t rounds = 0;
        uint64_t begin = monotime_now_ns();
        uint64_t end;
        do {
            for (size_t at = 0; at < body->len; at += read_bytes) {
                size_t n = body->len - at < read_bytes ? body->len - at : read_bytes;
                (chunked ? take_chunked : take)(&r, body->data + at, n);
            }
            rounds++;
            end = monotime_now_ns();
        } while (monotime_seconds(end - begin) < seconds / 5);
        double rate = (double)r.events / monotime_seconds(end - begin);
        best = rate > best ? rate : best;
        *failed |= r.failed || r.events != rounds * N_EVENTS || (scans && r.text_bytes < r.events);
    }
    return best;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        bool chunked;
        bool scans;
        size_t read_bytes;
    } rows[] = {
        {"events", false, false, 65536},
        {"events + scan", false, true, 65536},
        {"events + scan, reads of 1448 bytes", false, true, 1448},
        {"chunks + events + scan", true, true, 65536},
    };
    double seconds = argc > 1 ? strtod(argv[1], NULL) : 1.0;
    bool failed = false;
    bool reached = true;
    printf("%-28s %-36s %10s %8s %8s\n", "stream", "work", "events/s", "ns/event", "MB/s");
    for (int kind = 0; kind < N_KINDS; kind++) {
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
            struct strbuf body = {0};
            stream(&body, kind, rows[i].chunked);
            failed |= body.failed;
            double rate = measure(&body, rows[i].chunked, rows[i].scans, rows[i].read_bytes,
                                  seconds, &failed);
            printf("%-28s %-36s %10.0f %8.0f %8.0f\n", kind_names[kind], rows[i].name, rate,
                   1e9 / rate, rate * (double)body.len / N_EVENTS / 1e6);
            reached &= rate >= GOAL;
            strbuf_deinit(&body);
        }
    }
    printf("goal of %.0f events/s: %s\n", GOAL, reached ? "reached" : "NOT reached");
    if (failed) {
        fprintf(stderr, "bench_net: an event was lost or misread\n");
    }
    return failed ? 1 : 0;
}
