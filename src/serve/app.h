/*
 * app.h - the OpenAI-compatible application: routes, requests into jobs, news into answers.
 *
 *   http_server ──on_request──► parse ─► tokenise ─► jobs ──backend.submit
 *        ▲                                                        │
 *        └── answer, or events ◄── text_stream ◄── backend.take ◄─┘
 *
 * Runs on the network thread, on the libevent base that the HTTP server uses. Owns exchanges and
 * jobs; the backend, tokenizer and metrics are borrowed.
 */
#ifndef LLMSCHED_SERVE_APP_H
#define LLMSCHED_SERVE_APP_H

#include <stdint.h>

#include "base/status.h"
#include "model/tokenizer.h"
#include "net/http_server.h"
#include "serve/backend.h"
#include "serve/prom.h"

struct event_base;
struct app;
struct chat_template;

struct app_config {
    struct event_base *base;
    struct backend *backend;
    struct prom *prom;
    const struct tokenizer *tokenizer;
    const struct chat_template *chat; /* NULL: chat is refused with chat_refusal */
    const char *chat_refusal;
    const char *const *served_names; /* the first one stands in answers */
    uint32_t n_served_names;
    const int32_t *eos_ids; /* end the output unless ignore_eos; not part of the text */
    uint32_t n_eos;
    uint32_t n_vocab;
    uint32_t max_queue;  /* more waiting jobs than this: 429 */
    uint32_t max_jobs;   /* the backend's bound on jobs submitted and not ended: beyond it 429 */
    const char *api_key; /* NULL: open */
    const char *version;
    /* NULL, or where a timetable's stamps are saved at the end: CSV with a line for each token that
     * was sent, "request_id,token,due_ns,written_ns"; request_id is the client's X-Request-Id, or
     * what the answer's x-request-id says, with ".k" for choices beyond the first. The only thing
     * here that grows with the number of requests served. */
    const char *stamps_path;
    uint64_t default_seed; /* requests without a seed draw from a counter behind it */
    /* NULL, or called on the loop when the backend's state has changed. */
    void (*on_state)(void *self, enum backend_state state);
    void *on_state_self;
};

enum status app_create(const struct app_config *config, struct app **out,
                       struct error *err) MUST_USE;
/* What http_server_create wants. */
struct http_handler app_handler(struct app *a);
/* New requests get 503, what runs goes on; `done` is called on the base's loop when the last
 * exchange has ended. */
void app_drain(struct app *a, void (*done)(void *self), void *self);
/* Ends what still runs with finish_reason abort. */
void app_abort(struct app *a);
/* Jobs that the backend has, for tests and the log. */
uint32_t app_live_jobs(const struct app *a);
/* Writes stamps_path if asked for. The HTTP server must be gone, and no job with a backend that
 * runs: drained, or the backend stopped. a may be NULL. Errors: IO, of the stamps. */
enum status app_destroy(struct app *a, struct error *err);

#endif
