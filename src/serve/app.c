/* app.c - see app.h and app_int.h: lifecycle, news from the backend, keep-alive, drain. */
#include <assert.h>
#include <event2/event.h>
#include <string.h>
#include <time.h>

#include "base/monotime.h"
#include "base/rng.h"
#include "serve/app_int.h"

/* ---- exchanges ---- */

static void run_done(evutil_socket_t fd, short what, void *self)
{
    (void)fd;
    (void)what;
    struct app *a = self;
    a->done(a->done_self);
}

/* From the loop, so that whoever ended the last exchange is not inside it any more. */
static void tell_if_drained(struct app *a)
{
    if (a->done != NULL && a->n_exchanges == 0) {
        event_active(a->drained, EV_TIMEOUT, 0);
    }
}

void exchange_link(struct exchange *ex)
{
    struct app *a = ex->app;
    ex->next = a->exchanges;
    if (ex->next != NULL) {
        ex->next->prev = ex;
    }
    a->exchanges = ex;
    if (a->n_exchanges++ == 0) {
        event_add(a->tick, &(struct timeval){.tv_sec = 1});
    }
}

void exchange_destroy(struct exchange *ex)
{
    struct app *a = ex->app;
    for (uint32_t i = 0; i < ex->n_choices; i++) {
        struct choice *c = &ex->choices[i];
        text_stream_deinit(&c->text);
        strbuf_deinit(&c->whole);
        job_destroy(c->job);
    }
    *(ex->prev != NULL ? &ex->prev->next : &a->exchanges) = ex->next;
    if (ex->next != NULL) {
        ex->next->prev = ex->prev;
    }
    a->n_logprobs -= ex->n_logprobs;
    arena_deinit(&ex->arena);
    mem_free(ex);
    a->n_exchanges--;
    tell_if_drained(a);
}

/* ---- the loop ---- */

static void on_news(evutil_socket_t fd, short what, void *self)
{
    (void)fd;
    (void)what;
    struct app *a = self;
    struct backend *b = a->config.backend;
    for (struct job *job; (job = b->take(b->self)) != NULL;) {
        a->n_jobs -= job_end_of(job) != JOB_LIVE;
        exchange_news(job->owner, job);
    }
    enum backend_state state = b->state(b->self);
    if (state != a->seen_state) {
        a->seen_state = state;
        if (a->config.on_state != NULL) {
            a->config.on_state(a->config.on_state_self, state);
        }
    }
}

static void on_tick(evutil_socket_t fd, short what, void *self)
{
    (void)fd;
    (void)what;
    struct app *a = self;
    uint64_t now_ns = monotime_now_ns();
    for (struct exchange *ex = a->exchanges, *next; ex != NULL; ex = next) {
        next = ex->next; /* only ex itself can be freed */
        exchange_keep_alive(ex, now_ns);
    }
    if (a->n_exchanges > 0) {
        event_add(a->tick, &(struct timeval){.tv_sec = 1});
    } else {
        mem_trim(); /* none has begun for a second: that would have put the tick off */
    }
}

static void on_gone(void *self, struct http_exchange *x, enum http_gone why)
{
    struct app *a = self;
    struct exchange *ex = http_exchange_user(x);
    if (ex != NULL) {
        if (why != HTTP_GONE_SERVER) {
            prom_client_disconnected(a->config.prom);
        }
        exchange_gone(ex);
    }
}

struct http_handler app_handler(struct app *a)
{
    return (struct http_handler){.on_head = app_on_head,
                                 .on_request = app_on_request,
                                 .on_gone = on_gone,
                                 .write_error = app_write_error,
                                 .self = a};
}

/* ---- lifecycle ---- */

static enum status init(struct app *a, struct error *err)
{
    const struct app_config *c = &a->config;
    const struct backend_limits *limits = &c->backend->limits;
    assert(c->n_served_names >= 1 && c->max_queue >= 1 && c->max_jobs >= 1);
    a->context = limits->kv_tokens < limits->max_model_len ? (uint32_t)limits->kv_tokens
                                                           : limits->max_model_len;
    a->max_token_bytes = tokenizer_max_token_bytes(c->tokenizer);
    a->started_s = (uint64_t)time(NULL);
    a->id_key = rng_key(c->default_seed, monotime_now_ns());
    a->seen_state = BACKEND_LOADING;
    enum status s = STATUS_OK;
    if (c->stamps_path != NULL) {
        assert(limits->wants_stamps);
        s = stamps_create(&a->stamps, err);
    }
    uint32_t n_tokens = tokenizer_vocab_size(c->tokenizer);
    if (s == STATUS_OK) {
        s = token_texts_init(&a->texts, c->tokenizer, n_tokens > c->n_vocab ? n_tokens : c->n_vocab,
                             err);
    }
    if (s != STATUS_OK) {
        return s;
    }
    a->news = event_new(c->base, c->backend->fd, EV_READ | EV_PERSIST, on_news, a);
    a->tick = event_new(c->base, -1, 0, on_tick, a);
    a->drained = event_new(c->base, -1, 0, run_done, a);
    if (a->news == NULL || a->tick == NULL || a->drained == NULL || event_add(a->news, NULL) != 0) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for the server's events");
    }
    /* The state may have changed before anybody looked, and nothing else calls for a look. */
    event_active(a->news, EV_READ, 0);
    return STATUS_OK;
}

enum status app_create(const struct app_config *config, struct app **out, struct error *err)
{
    struct app *a = mem_alloc(1, sizeof *a);
    if (a == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for the server");
    }
    a->config = *config;
    enum status s = init(a, err);
    if (s != STATUS_OK) {
        a->config.stamps_path = NULL;
        enum status freed = app_destroy(a, NULL);
        assert(freed == STATUS_OK);
        (void)freed;
        return s;
    }
    *out = a;
    return STATUS_OK;
}

void app_drain(struct app *a, void (*done)(void *self), void *self)
{
    a->is_draining = true;
    a->done = done;
    a->done_self = self;
    a->config.backend->drain(a->config.backend->self);
    tell_if_drained(a);
}

void app_abort(struct app *a)
{
    a->is_draining = true;
    a->config.backend->abort(a->config.backend->self);
}

uint32_t app_live_jobs(const struct app *a)
{
    return a->n_jobs;
}

enum status app_destroy(struct app *a, struct error *err)
{
    if (a == NULL) {
        return STATUS_OK;
    }
    a->done = NULL;
    for (struct exchange *ex = a->exchanges, *next; ex != NULL; ex = next) {
        next = ex->next;
        assert(ex->x == NULL);
        exchange_destroy(ex);
    }
    enum status s = STATUS_OK;
    if (a->config.stamps_path != NULL) {
        s = stamps_save(a->stamps, a->config.stamps_path, err);
    }
    stamps_destroy(a->stamps);
    struct event *const events[] = {a->news, a->tick, a->drained};
    for (size_t i = 0; i < sizeof events / sizeof events[0]; i++) {
        if (events[i] != NULL) {
            event_free(events[i]);
        }
    }
    token_texts_deinit(&a->texts);
    strbuf_deinit(&a->out);
    strbuf_deinit(&a->piece);
    mem_free(a);
    return s;
}
