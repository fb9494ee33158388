/*
 * app_int.h - what the files of the app share.
 *
 *   app.c          lifecycle, news from the backend, keep-alive, drain
 *   app_routes.c   heads (path, method, key, type), the small routes, errors as answers
 *   app_request.c  a generating request into an exchange with its jobs
 *   app_answer.c   tokens into text, events and answers; how choices and exchanges end
 *   app_tokens.c   /tokenize, /detokenize, texts of single tokens
 *   stamps.c       a timetable's stamps, saved at the end
 *
 * An exchange lives until its HTTP side is over (answered, or the peer gone: x is NULL) and the end
 * of each of its jobs was taken. Everything it needs is freed with it.
 */
#ifndef LLMSCHED_SERVE_APP_INT_H
#define LLMSCHED_SERVE_APP_INT_H

#include "base/mem.h"
#include "base/strbuf.h"
#include "net/api_error.h"
#include "net/api_request.h"
#include "net/api_response.h"
#include "serve/app.h"
#include "serve/stamps.h"
#include "serve/text_stream.h"

struct event;

/* A comment goes out on a stream that was silent for so long. */
#define APP_KEEP_ALIVE_NS (15 * 1000000000ULL)
/* Names of ignored fields that were warned about; beyond them, silence. */
#define APP_MAX_WARNED 64U
/* An X-Request-Id that is longer, or not visible ASCII, is not repeated. */
#define APP_REQUEST_ID_BYTES 128U
/* Log-probabilities that one request may store (8 bytes each; as JSON some 60), and all together:
 * a full context of 8192 tokens with 20 alternatives has 172,032. */
#define APP_REQUEST_LOGPROBS (1U << 20)
#define APP_TOTAL_LOGPROBS   (1U << 26)
/* Memory kept between events for writing them. */
#define APP_KEPT_BUFFER_BYTES ((size_t)1 << 20)

struct choice {
    struct job *job;
    bool is_taken;     /* the backend gave it back: its end stands in it */
    bool is_cancelled; /* asked for */
    bool is_finished;  /* finish and what follows are set; later tokens are ignored */
    struct text_stream text;
    struct strbuf whole; /* without streaming: the text so far, else what no event has carried */
    struct api_text echo;
    uint32_t n_read;    /* tokens looked at */
    uint32_t n_counted; /* of them, those of the answer: usage, log-probabilities */
    uint32_t n_stamped;
    uint32_t n_ids_sent;
    bool has_event;       /* one was sent */
    uint32_t n_rows_sent; /* of log-probabilities */
    uint32_t n_row_chars; /* characters of their tokens */
    enum api_finish finish;
    enum api_stop_kind stop_kind;
    int32_t stop_token;
};

struct exchange {
    struct app *app;
    struct http_exchange *x; /* NULL: answered, or the peer is gone */
    struct exchange *prev;
    struct exchange *next;
    struct arena arena; /* choices, and what their requests point to */
    struct choice *choices;
    uint32_t n_choices;
    uint32_t n_finished;
    uint32_t n_with_backend; /* jobs submitted whose end was not taken */
    uint32_t prompt_tokens;  /* of all prompts */
    uint32_t n_logprobs;     /* its share of the app's total */
    bool is_stream;
    bool has_begun; /* the stream's head was sent */
    bool is_busy;   /* one of our functions is at work on it: not to be freed yet */
    bool is_hidden; /* max_tokens 0: the one token that runs is not shown */
    bool ignore_eos;
    bool want_ids;
    bool want_logprobs;
    uint32_t n_top;
    uint64_t last_sent_ns;
    struct api_head head;
    struct api_stream stream;
    const struct text_stop *stops;
    char request_id[APP_REQUEST_ID_BYTES + 1];
};

/* Bytes of every token, in one string: text of id is [offsets[id], offsets[id + 1]). */
struct token_texts {
    struct strbuf bytes;
    uint32_t *offsets;
    uint32_t n;
};

struct app {
    struct app_config config;
    struct event *news;
    struct event *tick;
    struct event *drained;
    struct exchange *exchanges;
    uint32_t n_exchanges;
    uint32_t n_jobs;     /* with the backend */
    uint32_t n_logprobs; /* stored by all exchanges */
    uint32_t context;    /* tokens of prompt and output that one sequence can have */
    size_t max_token_bytes;
    struct token_texts texts;
    uint64_t n_requests; /* counter behind ids and seeds */
    uint64_t id_key;
    uint64_t started_s;
    enum backend_state seen_state;
    bool is_draining;
    void (*done)(void *self);
    void *done_self;
    struct strbuf out;   /* an event or an answer */
    struct strbuf piece; /* new text of a choice */
    struct stamps *stamps;
    char warned[APP_MAX_WARNED][APP_REQUEST_ID_BYTES];
    uint32_t n_warned;
};

/* One request on its way to a handler. request_id "": the client sent none (that can be used). */
struct call {
    struct http_exchange *x;
    char request_id[APP_REQUEST_ID_BYTES + 1];
    const char *body;
    size_t body_len;
};

/* ---- app_routes.c ---- */

void app_on_head(void *self, struct http_exchange *x, const struct http_request *r,
                 const char *buf);
void app_on_request(void *self, struct http_exchange *x, const struct http_request *r,
                    const char *buf, const char *body, size_t body_len);
void app_write_error(void *self, int status, const char *why, struct strbuf *out);

/* Ends the exchange with a JSON answer; a body that memory was refused for becomes a 503. Error
 * statuses get Retry-After, Allow and the like. */
void app_answer(struct http_exchange *x, const char *request_id, int status,
                const struct strbuf *body);
void app_answer_errors(struct http_exchange *x, const char *request_id,
                       const struct api_errors *errors);

/* True, or a 503 that says why nothing can be generated now. */
bool app_is_ready(const struct app *a, struct api_errors *errors);

/* ---- app_request.c ---- */

/* /v1/completions, /v1/chat/completions */
void app_generate(struct app *a, const struct call *call, enum api_endpoint endpoint);
/* The ids of one prompt, or of rendered messages; mem_alloc'ed. False with an error. */
bool app_encode(struct app *a, const struct api_request *r, const struct api_prompt *prompt,
                struct token_ids *out, struct api_errors *errors) MUST_USE;
bool app_render(struct app *a, const struct api_request *r, struct strbuf *out,
                struct api_errors *errors) MUST_USE;
void app_warn_unknown(struct app *a, const struct api_request *r);

/* ---- app_answer.c ---- */

/* New tokens of a job that was just taken, or its end. May free the exchange. */
void exchange_news(struct exchange *ex, struct job *job);
/* The peer is gone. May free the exchange. */
void exchange_gone(struct exchange *ex);
/* A comment, if nothing was sent for long. May free the exchange. */
void exchange_keep_alive(struct exchange *ex, uint64_t now_ns);

/* ---- app.c ---- */

/* Out of the list, and freed; its jobs are not with the backend. */
void exchange_destroy(struct exchange *ex);
/* Into the list. */
void exchange_link(struct exchange *ex);

/* ---- app_tokens.c ---- */

void app_tokenize(struct app *a, const struct call *call);
void app_detokenize(struct app *a, const struct call *call);
enum status token_texts_init(struct token_texts *t, const struct tokenizer *tokenizer, uint32_t n,
                             struct error *err) MUST_USE;
void token_texts_deinit(struct token_texts *t);
struct api_text token_text(const struct token_texts *t, int32_t id);

#endif
