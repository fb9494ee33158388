/*
 * selftest_client.h - how wrong is the measuring client? Held against a server that knows.
 *
 *   child process, core 0                          this process, core 1
 *   serve --executor synthetic                     remote_run, one stream a connection
 *   stamps each token as it is written  ──────►    stamps each event as it is read
 *            └──────────── both on CLOCK_MONOTONIC of one machine ────────────┘
 *
 * Error of a figure = as the client measured it - by the server's stamps. TTFT: from the client's
 * first byte sent to its first event, against from the instant the server knew the request to its
 * first write; so it holds the way of the request too. ITL: between neighbouring events, against
 * between their writes. The run is void when the server was late against its own timetable: then
 * the machine, not the client, was measured.
 */
#ifndef LLMSCHED_BENCH_SELFTEST_CLIENT_H
#define LLMSCHED_BENCH_SELFTEST_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "base/strbuf.h"

#define SELFTEST_MAX_STREAMS 10000
/* Tokens of all streams: two stamps and two errors each are held in memory. */
#define SELFTEST_MAX_TOKENS   20000000ULL

#define SELFTEST_GOAL_TTFT_S  0.002
#define SELFTEST_GOAL_ITL_S   0.0005
#define SELFTEST_MAX_LATE_S   0.0005 /* p99 of the server's lateness; beyond it the run is void */
#define SELFTEST_NAGLE_FROM_S 0.035  /* errors here would be Nagle meeting a delayed ACK */
#define SELFTEST_NAGLE_TO_S   0.045
#define SELFTEST_MAX_NAGLE    0.001 /* of all events */

struct selftest_config {
    const char *program; /* the llmsched to start as the server */
    uint32_t streams;
    uint32_t tokens_per_s; /* of one stream */
    double seconds;
    const volatile int *stop;
};

/* Of the absolute values, in seconds. */
struct selftest_error {
    double p50, p95, p99, max;
    double bias; /* mean of the signed values */
};

struct selftest_result {
    uint32_t streams;
    uint32_t tokens_per_s;
    uint32_t tokens_each;
    uint32_t failed; /* streams that did not end well: the run is void */
    char first_failure[256];
    uint64_t events;
    uint64_t coalesced_streams; /* in which two events came in one read */
    struct selftest_error ttft;
    struct selftest_error itl;
    struct selftest_error late;  /* the server: written - due */
    struct selftest_error delay; /* read by the client - written by the server */
    double nagle_frac;           /* of ITL errors near 40 ms */
    double wall_s;
    double cpu_s; /* of the client's thread */
    double cpu_us_per_event;
    double send_lag_p99_s; /* send_begin - planned */
    int client_core;       /* -1: not pinned */
    int server_core;
    bool is_real_time; /* the client's thread */
    bool is_void;
};

/* Starts the server, measures, ends it. Errors: IO (program, core, stamps), UNREACHABLE (it did not
 * come up), NO_MEMORY, INTERRUPTED, USAGE (too many streams or tokens). */
enum status selftest_client_run(const struct selftest_config *config, struct selftest_result *out,
                                struct error *err) MUST_USE;

bool selftest_goals_met(const struct selftest_result *r);
void selftest_print_text(const struct selftest_result *r, struct strbuf *out);
void selftest_print_json(const struct selftest_result *r, struct strbuf *out);

/* Reads a stamps file ("request_id,token,due_ns,written_ns") into due[stream * tokens + token] and
 * written[...]. Errors: BAD_DATA naming the line (malformed, twice, outside, missing). */
enum status selftest_parse_stamps(const char *text, size_t len, uint32_t streams, uint32_t tokens,
                                  uint64_t *due, uint64_t *written, struct error *err) MUST_USE;

#endif
