/*
 * serve_run.c - see serve_run.h.
 *
 *   listen ──► load on the engine's thread ──► ready ──signal──► drain ──timeout──► abort ──► gone
 *
 * Signals arrive as events of the loop: nothing is done inside a signal handler.
 */
#include "cli/serve_run.h"

#include <assert.h>
#include <errno.h>
#include <event2/event.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/monotime.h"
#include "bench/environment.h"
#include "engine/engine.h"
#include "infer/kv.h"
#include "model/chat_template.h"
#include "net/api_request.h"
#include "sched/policy_params.h"
#include "serve/app.h"
#include "serve/engine_thread.h"
#include "serve/synthetic.h"

/* What a timetable serves when nothing else is said: as many tokens as clients ask for. */
#define SYNTHETIC_CONTEXT 1048576U
#define SYNTHETIC_VOCAB   256U
/* Answers that the system has not sent yet when the last request has ended. */
#define LAST_WORDS_NS (2 * NS_PER_S)

struct serve {
    const struct serve_options *o;
    struct event_base *base;
    struct event *signals[2];
    struct event *timer; /* of the way out */
    struct http_server *server;
    struct app *app;
    struct prom *prom;
    struct backend *backend;
    struct engine_thread *engine;
    struct synthetic *synthetic;
    struct chat_template *chat;
    struct error chat_refusal;
    struct tokenizer *byte_tokenizer;  /* of a timetable */
    const struct tokenizer *tokenizer; /* that, or the model's */
    struct model_config config;        /* a copy: the engine's thread takes `parts` */
    const char *name;
    const char *const *served_names;
    uint32_t n_served_names;

    struct model_options model_options;
    struct model_parts parts;
    struct loaded_model model;
    struct hub_env env;
    struct progress_bar bar;
    struct progress progress;
    _Atomic int is_loaded; /* the load has ended, well or not */
    enum status load_status;

    uint64_t begin_ns;
    bool was_ready;
    bool is_leaving;
    uint64_t leave_ns; /* when to give up waiting for the last bytes */
    int code;
};

/* ---- addresses and messages ---- */

static void address_of(const struct serve *s, char *out, size_t n)
{
    const char *host = s->o->host;
    if (strcmp(host, "0.0.0.0") == 0) {
        host = "127.0.0.1";
    } else if (strcmp(host, "::") == 0) {
        host = "::1";
    }
    bool v6 = strchr(host, ':') != NULL;
    snprintf(out, n, "http://%s%s%s:%u", v6 ? "[" : "", host, v6 ? "]" : "",
             http_server_port(s->server));
}

static bool is_loopback(const char *host)
{
    return strncmp(host, "127.", 4) == 0 || strcmp(host, "localhost") == 0 ||
           strcmp(host, "::1") == 0;
}

static void announce(const struct serve *s)
{
    char address[320];
    address_of(s, address, sizeof address);
    printf("%s\n", address);
    fflush(stdout); /* scripts wait for this line */
    log_info("listening on %s, port %u: %s", s->o->host, http_server_port(s->server), address);
    if (!is_loopback(s->o->host) && s->o->api_key == NULL) {
        log_warn("anybody who reaches %s can use this server; --api-key-file sets a key",
                 s->o->host);
    }
}

static void describe_ready(const struct serve *s)
{
    const struct backend_limits *l = &s->backend->limits;
    char address[320];
    address_of(s, address, sizeof address);
    double seconds = monotime_seconds(monotime_now_ns() - s->begin_ns);
    if (s->o->synthetic) {
        log_info("ready: no model, a timetable: first token after %g ms, then one every %g ms",
                 (double)s->o->ttft_ns / 1e6, (double)s->o->tpot_ns / 1e6);
    } else {
        struct strbuf params = {0};
        policy_params_print(s->o->scheduler.policy, &s->o->scheduler.params, &params);
        log_info("ready after %.1f s: %s (%s, %s, %u threads)", seconds, s->name, s->model.format,
                 exec_model_isa(s->model.exec), exec_model_threads(s->model.exec));
        log_info("KV cache: %u blocks of %u tokens, %llu in all; context %u tokens; at most %u "
                 "sequences at once, %u waiting",
                 l->total_blocks, l->block_tokens, (unsigned long long)l->kv_tokens,
                 l->max_model_len, l->max_seqs, s->o->max_queue);
        log_info("scheduler: %s %s", s->o->scheduler.policy->name, strbuf_text(&params));
        log_info("chat: %s",
                 s->chat != NULL ? chat_template_name(s->chat) : s->chat_refusal.message);
        if (s->o->model.random_weights) {
            log_warn("random weights: the output has no meaning");
        }
        strbuf_deinit(&params);
    }
    log_info("try: curl %s/v1/completions -H 'Content-Type: application/json'%s -d '{\"prompt\": "
             "\"The capital of France is\", \"max_tokens\": 20, \"temperature\": 0}'",
             address,
             s->o->api_key != NULL ? " -H \"Authorization: Bearer $LLMSCHED_API_KEY\"" : "");
}

/* ---- the way out ---- */

static void set_timer(struct serve *s, uint64_t ns)
{
    struct timeval tv = {.tv_sec = (time_t)(ns / NS_PER_S),
                         .tv_usec = (suseconds_t)(ns % NS_PER_S / 1000)};
    event_add(s->timer, &tv);
}

/* Every exchange has ended: what is left are bytes on their way to peers. */
static void on_drained(void *self)
{
    struct serve *s = self;
    if (s->leave_ns == 0) {
        s->leave_ns = monotime_now_ns() + LAST_WORDS_NS;
        http_server_stop_listening(s->server);
        set_timer(s, 0);
    }
}

static void on_timer(evutil_socket_t fd, short what, void *self)
{
    (void)fd;
    (void)what;
    struct serve *s = self;
    if (s->leave_ns == 0) {
        log_warn("%u requests still run after the shutdown timeout: they end with "
                 "finish_reason \"abort\"",
                 app_live_jobs(s->app));
        app_abort(s->app);
    } else if (http_server_counts_of(s->server).connections == 0 ||
               monotime_now_ns() >= s->leave_ns) {
        event_base_loopbreak(s->base);
    } else {
        set_timer(s, 10 * NS_PER_MS);
    }
}

static void leave(struct serve *s)
{
    s->is_leaving = true;
    set_timer(s, s->o->shutdown_ns);
    app_drain(s->app, on_drained, s);
}

static void on_signal(evutil_socket_t number, short what, void *self)
{
    (void)what;
    struct serve *s = self;
    if (s->is_leaving) {
        _exit(128 + (int)number);
    }
    log_info("stopping; once more to quit at once");
    uint32_t n = app_live_jobs(s->app);
    if (n > 0) {
        log_info("%u requests run on for at most %g s, new ones are refused", n,
                 monotime_seconds(s->o->shutdown_ns));
    }
    leave(s);
}

/* ---- the backend ---- */

/* On the engine's thread. */
static enum status load(void *self, struct executor **out, struct error *err)
{
    struct serve *s = self;
    s->load_status = model_load(&s->model_options, &s->parts, &s->model, err);
    progress_bar_clear(&s->bar);
    if (s->load_status == STATUS_OK) {
        *out = exec_model_executor(s->model.exec);
    }
    atomic_store_explicit(&s->is_loaded, 1, memory_order_release);
    return s->load_status;
}

static void on_state(void *self, enum backend_state state)
{
    struct serve *s = self;
    if (state == BACKEND_READY && !s->was_ready) {
        s->was_ready = true;
        describe_ready(s);
    } else if (state == BACKEND_FAILED) {
        struct error err = ERROR_INIT;
        bool loaded = s->load_status == STATUS_OK;
        s->code = fail(error_set(&err, loaded ? STATUS_INTERNAL : s->load_status, -1, "%s%s",
                                 loaded ? "the engine has failed: " : "",
                                 s->backend->error(s->backend->self)),
                       &err);
        if (!s->is_leaving) {
            leave(s);
        }
    }
}

static enum status open_model(struct serve *s, struct error *err)
{
    const struct serve_options *o = s->o;
    progress_bar_init(&s->bar, false);
    s->progress = progress_bar_hook(&s->bar);
    s->env = hub_env_from_environment();
    s->model_options = model_options_from(&o->model, &s->env, &s->progress);
    s->model_options.max_model_len = o->max_model_len;
    s->name = s->model_options.model;
    enum status st = model_parts_open(&s->model_options, false, &s->parts, err);
    if (st != STATUS_OK) {
        return st;
    }
    s->config = s->parts.config;
    s->tokenizer = s->parts.tokenizer;
    if (o->max_model_len > s->config.n_ctx) {
        return error_set(err, STATUS_USAGE, -1,
                         "--max-model-len %u: the model's context is %u tokens", o->max_model_len,
                         s->config.n_ctx);
    }
    if (s->parts.path == NULL) {
        (void)error_set(&s->chat_refusal, STATUS_NOT_FOUND, -1,
                        "a built-in shape has no chat template");
        return STATUS_OK;
    }
    st = chat_template_open(s->parts.path, &s->chat, &s->chat_refusal);
    if (st == STATUS_NOT_FOUND || st == STATUS_UNSUPPORTED) {
        return STATUS_OK;
    }
    if (st != STATUS_OK) {
        *err = s->chat_refusal;
    }
    return st;
}

static uint32_t max_jobs(const struct serve *s)
{
    uint32_t seqs = s->o->max_seqs > 0 ? s->o->max_seqs : ENGINE_DEFAULT_MAX_SEQS;
    return s->o->max_queue + seqs + API_MAX_CHOICES;
}

static enum status make_prom(struct serve *s, const char *dtype, const char *kv_dtype,
                             uint32_t blocks, uint32_t context, struct error *err)
{
    struct prom_config config = {.model_name = s->served_names[0],
                                 .dtype = dtype,
                                 .kv_dtype = kv_dtype,
                                 .total_blocks = blocks,
                                 .block_tokens = KV_BLOCK_TOKENS,
                                 .max_model_len = context,
                                 .max_jobs = max_jobs(s)};
    return prom_create(&config, &s->prom, err);
}

static enum status start_engine(struct serve *s, struct error *err)
{
    const struct serve_options *o = s->o;
    uint32_t context = o->max_model_len > 0 ? o->max_model_len : s->config.n_ctx;
    enum status st = make_prom(s, tensor_dtype_name(model_dtype(&o->model)),
                               tensor_dtype_name(model_kv_dtype(&o->model)),
                               (uint32_t)o->model.kv_blocks, context, err);
    if (st != STATUS_OK) {
        return st;
    }
    struct engine_thread_config config = {
        .policy = o->scheduler.policy,
        .params = o->scheduler.params,
        .total_blocks = (uint32_t)o->model.kv_blocks,
        .block_tokens = KV_BLOCK_TOKENS,
        .max_model_len = context,
        .max_seqs = o->max_seqs,
        .max_jobs = max_jobs(s),
        .prom = s->prom,
        .load = load,
        .load_self = s,
    };
    st = engine_thread_start(&config, &s->engine, err);
    if (st == STATUS_OK) {
        s->backend = engine_thread_backend(s->engine);
    }
    return st;
}

static enum status start_timetable(struct serve *s, struct error *err)
{
    const struct serve_options *o = s->o;
    struct synthetic_config config = {
        .ttft_ns = o->ttft_ns,
        .tpot_ns = o->tpot_ns,
        .max_model_len = o->max_model_len > 0 ? o->max_model_len : SYNTHETIC_CONTEXT,
    };
    (void)error_set(&s->chat_refusal, STATUS_NOT_FOUND, -1, "a timetable has no chat template");
    enum status st = tokenizer_bytes(SYNTHETIC_VOCAB, &s->byte_tokenizer, err);
    s->tokenizer = s->byte_tokenizer;
    s->config.n_vocab = SYNTHETIC_VOCAB;
    if (st == STATUS_OK) {
        st = make_prom(s, NULL, NULL, 1, config.max_model_len, err);
    }
    if (st == STATUS_OK) {
        st = synthetic_create(&config, &s->synthetic, err);
    }
    if (st == STATUS_OK) {
        s->backend = synthetic_backend(s->synthetic);
        atomic_store(&s->is_loaded, 1);
    }
    return st;
}

/* ---- parts ---- */

static enum status make_app(struct serve *s, struct error *err)
{
    const struct serve_options *o = s->o;
    struct app_config config = {
        .base = s->base,
        .backend = s->backend,
        .prom = s->prom,
        .tokenizer = s->tokenizer,
        .chat = s->chat,
        .chat_refusal = s->chat_refusal.message,
        .served_names = s->served_names,
        .n_served_names = s->n_served_names,
        .eos_ids = s->config.eos_ids,
        .n_eos = s->config.n_eos,
        .n_vocab = s->config.n_vocab,
        .max_queue = o->max_queue,
        .max_jobs = max_jobs(s),
        .api_key = o->api_key,
        .version = llmsched_version,
        .stamps_path = o->stamps_path,
        .default_seed = o->seed,
        .on_state = on_state,
        .on_state_self = s,
    };
    return app_create(&config, &s->app, err);
}

static enum status make_events(struct serve *s, struct error *err)
{
    s->base = event_base_new();
    if (s->base != NULL) {
        s->timer = event_new(s->base, -1, 0, on_timer, s);
        s->signals[0] = evsignal_new(s->base, SIGTERM, on_signal, s);
        s->signals[1] = evsignal_new(s->base, SIGINT, on_signal, s);
    }
    if (s->timer == NULL || s->signals[0] == NULL || s->signals[1] == NULL ||
        event_add(s->signals[0], NULL) != 0 || event_add(s->signals[1], NULL) != 0) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for the event loop");
    }
    return STATUS_OK;
}

/* A connection is a descriptor, and the usual limit of 1024 is below what we accept. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
            log_warn("cannot raise the limit of open files: %s", strerror(errno));
        }
    }
}

static enum status start(struct serve *s, struct error *err)
{
    const struct serve_options *o = s->o;
    raise_descriptor_limit();
    s->name = "synthetic";
    enum status st = o->synthetic ? STATUS_OK : open_model(s, err);
    if (st == STATUS_OK) {
        st = make_events(s, err);
    }
    if (st != STATUS_OK) {
        return st;
    }
    s->served_names = o->n_served_names > 0 ? o->served_names : &s->name;
    s->n_served_names = o->n_served_names > 0 ? o->n_served_names : 1;
    st = o->synthetic ? start_timetable(s, err) : start_engine(s, err);
    if (st == STATUS_OK) {
        st = make_app(s, err);
    }
    if (st == STATUS_OK) {
        struct http_server_config config = {.base = s->base,
                                            .host = o->host,
                                            .port = o->port,
                                            .handler = app_handler(s->app),
                                            .max_body_bytes = API_MAX_BODY_BYTES};
        st = http_server_create(&config, &s->server, err);
    }
    return st;
}

static enum status stop(struct serve *s, struct error *err)
{
    http_server_destroy(s->server);
    if (s->engine != NULL && atomic_load_explicit(&s->is_loaded, memory_order_acquire) == 0) {
        /* A load takes as long as it takes, and nobody waits for it any more. */
        fflush(NULL);
        _exit(s->code);
    }
    engine_thread_stop(s->engine);
    synthetic_destroy(s->synthetic);
    enum status st = app_destroy(s->app, err);
    prom_destroy(s->prom);
    loaded_model_close(&s->model);
    model_parts_close(&s->parts);
    tokenizer_close(s->byte_tokenizer);
    chat_template_close(s->chat);
    struct event *const events[] = {s->signals[0], s->signals[1], s->timer};
    for (size_t i = 0; i < COUNT_OF(events); i++) {
        if (events[i] != NULL) {
            event_free(events[i]);
        }
    }
    if (s->base != NULL) {
        event_base_free(s->base);
    }
    return st;
}

int serve_run(const struct serve_options *options)
{
    struct serve s = {.o = options, .chat_refusal = ERROR_INIT, .begin_ns = monotime_now_ns()};
    struct error err = ERROR_INIT;
    enum status st = start(&s, &err);
    if (st == STATUS_OK) {
        announce(&s);
        event_base_dispatch(s.base);
    } else {
        s.code = fail(st, &err);
    }
    st = stop(&s, &err);
    if (st != STATUS_OK && s.code == 0) {
        s.code = fail(st, &err);
    }
    return s.code;
}
