/*
 * prom.h - the server's counters, gauges and histograms, under vLLM's names, as Prometheus text.
 *
 * One table (prom.c) holds every metric: name, kind, help, buckets. Values are relaxed atomics with
 * a single writer each (the engine thread's event sink, or the network thread), so that a scrape
 * never stops a step; in every scrape a histogram's count is the sum of its buckets, and nothing
 * that counts ever falls. Buckets are vLLM's, with lower ones added (a CPU's queue times are often
 * below vLLM's first bucket of 0.3 s, a small model's token times below 10 ms).
 *
 * A "request" of the engine's metrics is one sequence: a choice of a prompt. As in vLLM, latencies
 * and sizes are observed when a request ends well (stop, length); time to first token and between
 * tokens as they happen. Where tokens are handed over at once (static batches) there is no time per
 * token, and none is observed. A cancelled request whose event has reason FINISH_STOP or
 * FINISH_LENGTH ended well (engine_thread.c says so when a stop string is complete).
 */
#ifndef LLMSCHED_SERVE_PROM_H
#define LLMSCHED_SERVE_PROM_H

#include <stdint.h>

#include "base/request.h"
#include "base/status.h"
#include "base/strbuf.h"

struct prom;

struct prom_config {
    const char *model_name; /* borrowed */
    const char *dtype;      /* of the arithmetic, borrowed; NULL: there is none */
    const char *kv_dtype;   /* of stored keys and values, likewise */
    uint32_t total_blocks;
    uint32_t block_tokens;
    uint32_t max_model_len;
    uint32_t max_jobs; /* requests that can be alive at once */
};

enum status prom_create(const struct prom_config *config, struct prom **out,
                        struct error *err) MUST_USE;
void prom_destroy(struct prom *p);

/* Of the engine: arrivals, tokens, ends, steps. Thread: the engine's. Allocates nothing. It follows
 * requests by id, so ids must be distinct among live requests (at most max_jobs of them). */
struct event_sink prom_sink(struct prom *p);

/* What only the network thread knows: a request was accepted; a request has ended well, and the
 * longest of its choices has so many tokens; a client went away before its answer was complete. */
void prom_request_params(struct prom *p, uint32_t n, uint32_t max_tokens);
void prom_request_done(struct prom *p, uint32_t most_tokens);
void prom_client_disconnected(struct prom *p);
/* The network thread's count of submitted jobs that were never in a step (inbox included), so that
 * num_requests_waiting misses nobody. */
void prom_set_waiting(struct prom *p, uint32_t waiting);

/* The text of /metrics. */
void prom_write(const struct prom *p, struct strbuf *out);

#endif
