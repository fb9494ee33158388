/* app_routes.c - see app_int.h: what is at each path, who may ask, and errors as answers. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "serve/app_int.h"

/* ---- answers ---- */

void app_write_error(void *self, int status, const char *why, struct strbuf *out)
{
    (void)self;
    struct api_error e;
    api_error_set(&e, status, NULL, "%s", why);
    api_write_error(out, &e);
}

/* Fields that an answer may have beside its body. */
struct fields {
    struct http_field items[3];
    size_t n;
    char retry_after[12];
};

static void add_field(struct fields *f, const char *name, const char *value)
{
    f->items[f->n++] = (struct http_field){.name = name, .value = value};
}

/* extra: one more field; its name may be NULL. */
static void answer_with(struct http_exchange *x, const char *request_id, int status,
                        const struct strbuf *body, struct http_field extra)
{
    static const char no_memory[] =
        "{\"error\":{\"message\":\"no memory for this answer; try again later\","
        "\"type\":\"ServiceUnavailableError\",\"param\":null,\"code\":503}}";
    struct fields f = {.n = 0};
    status = body->failed ? 503 : status;
    uint32_t retry_s = api_retry_after_s(status);
    if (retry_s > 0) {
        (void)snprintf(f.retry_after, sizeof f.retry_after, "%u", retry_s);
        add_field(&f, "Retry-After", f.retry_after);
    }
    if (request_id[0] != '\0') {
        add_field(&f, "x-request-id", request_id);
    }
    if (extra.name != NULL) {
        add_field(&f, extra.name, extra.value);
    }
    http_exchange_answer(x, status, "application/json",
                         body->failed ? no_memory : strbuf_text(body),
                         body->failed ? sizeof no_memory - 1 : body->len, f.items, f.n);
}

void app_answer(struct http_exchange *x, const char *request_id, int status,
                const struct strbuf *body)
{
    answer_with(x, request_id, status, body, (struct http_field){.name = NULL});
}

void app_answer_errors(struct http_exchange *x, const char *request_id,
                       const struct api_errors *errors)
{
    struct strbuf body = {0};
    api_write_errors(&body, errors);
    app_answer(x, request_id, errors->items[0].http_status, &body);
    strbuf_deinit(&body);
}

bool app_is_ready(const struct app *a, struct api_errors *errors)
{
    const struct backend *b = a->config.backend;
    enum backend_state state = b->state(b->self);
    if (state == BACKEND_READY && !a->is_draining) {
        return true;
    }
    if (state == BACKEND_FAILED) {
        api_errors_add(errors, 503, NULL, "the engine has failed: %s", b->error(b->self));
    } else if (state == BACKEND_LOADING && !a->is_draining) {
        api_errors_add(errors, 503, NULL, "the model is being loaded; try again later");
    } else {
        api_errors_add(errors, 503, NULL, "the server is shutting down");
    }
    return false;
}

/* ---- the small routes ---- */

static void get_health(struct app *a, const struct call *call)
{
    struct api_errors errors = {.count = 0};
    if (app_is_ready(a, &errors)) {
        http_exchange_answer(call->x, 200, NULL, NULL, 0, NULL, 0);
    } else {
        app_answer_errors(call->x, call->request_id, &errors);
    }
}

static void get_version(struct app *a, const struct call *call)
{
    struct strbuf body = {0};
    api_write_version(&body, a->config.version);
    app_answer(call->x, call->request_id, 200, &body);
    strbuf_deinit(&body);
}

static void get_models(struct app *a, const struct call *call)
{
    struct strbuf body = {0};
    api_write_models(&body, a->config.served_names, a->config.n_served_names, a->started_s,
                     a->context);
    app_answer(call->x, call->request_id, 200, &body);
    strbuf_deinit(&body);
}

static void get_metrics(struct app *a, const struct call *call)
{
    const struct backend *b = a->config.backend;
    struct strbuf body = {0};
    prom_set_waiting(a->config.prom, b->waiting(b->self));
    prom_write(a->config.prom, &body);
    if (body.failed) {
        app_answer(call->x, call->request_id, 200, &body);
    } else {
        http_exchange_answer(call->x, 200, "text/plain; version=0.0.4; charset=utf-8",
                             strbuf_text(&body), body.len, NULL, 0);
    }
    strbuf_deinit(&body);
}

static void post_completions(struct app *a, const struct call *call)
{
    app_generate(a, call, API_COMPLETIONS);
}

static void post_chat(struct app *a, const struct call *call)
{
    app_generate(a, call, API_CHAT);
}

static const struct route {
    const char *path;
    bool is_post;
    bool is_open; /* without a key */
    bool needs_engine;
    void (*run)(struct app *a, const struct call *call);
} routes[] = {
    {"/v1/completions", .is_post = true, .needs_engine = true, .run = post_completions},
    {"/v1/chat/completions", .is_post = true, .needs_engine = true, .run = post_chat},
    {"/tokenize", .is_post = true, .run = app_tokenize},
    {"/detokenize", .is_post = true, .run = app_detokenize},
    {"/v1/models", .run = get_models},
    {"/health", .is_open = true, .run = get_health},
    {"/version", .run = get_version},
    {"/metrics", .run = get_metrics},
};

static const struct route *find_route(const struct http_request *r, const char *buf)
{
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        if (http_span_is(buf, r->path, routes[i].path)) {
            return &routes[i];
        }
    }
    return NULL;
}

/* ---- heads ---- */

/* The client's own name for the request, if it can stand in a header of ours. */
static void read_request_id(const struct http_request *r, const char *buf,
                            char out[APP_REQUEST_ID_BYTES + 1])
{
    out[0] = '\0';
    const struct http_header *h = http_header_find(&r->head, buf, "X-Request-Id");
    if (h == NULL || h->value.len > APP_REQUEST_ID_BYTES) {
        return;
    }
    const char *text = buf + h->value.at;
    for (uint32_t i = 0; i < h->value.len; i++) {
        if (text[i] <= ' ' || text[i] > '~') {
            return;
        }
    }
    memcpy(out, text, h->value.len);
    out[h->value.len] = '\0';
}

/* Takes the same time for every wrong key of one length. */
static bool is_same_key(const char *given, size_t len, const char *key)
{
    size_t key_len = strlen(key);
    volatile unsigned char differs = len != key_len;
    for (size_t i = 0; i < len; i++) {
        differs |= (unsigned char)(given[i] ^ key[key_len > 0 ? i % key_len : 0]);
    }
    return differs == 0;
}

static bool is_allowed(const struct app *a, const struct http_request *r, const char *buf)
{
    static const char scheme[] = "Bearer ";
    const size_t n = sizeof scheme - 1;
    const struct http_header *h = http_header_find(&r->head, buf, "Authorization");
    if (h == NULL || h->value.len <= n || strncasecmp(buf + h->value.at, scheme, n) != 0) {
        return false;
    }
    return is_same_key(buf + h->value.at + n, h->value.len - n, a->config.api_key);
}

/* "application/json", maybe with parameters. */
static bool is_json(const struct http_request *r, const char *buf)
{
    const struct http_header *h = http_header_find(&r->head, buf, "Content-Type");
    if (h == NULL) {
        return false;
    }
    struct http_span type = h->value;
    const char *semicolon = memchr(buf + type.at, ';', type.len);
    if (semicolon != NULL) {
        type.len = (uint32_t)(semicolon - (buf + type.at));
    }
    while (type.len > 0 && strchr(" \t", buf[type.at + type.len - 1]) != NULL) {
        type.len--;
    }
    return http_span_is_nocase(buf, type, "application/json");
}

static bool is_method(const struct route *route, const struct http_request *r)
{
    return route->is_post ? r->method == HTTP_POST
                          : r->method == HTTP_GET || r->method == HTTP_HEAD;
}

/* What a head alone shows to be wrong; *extra is a field that the answer must have. */
static void check_head(const struct app *a, const struct http_request *r, const char *buf,
                       struct api_errors *errors, struct http_field *extra)
{
    const struct route *route = find_route(r, buf);
    if (route == NULL) {
        api_errors_add(errors, 404, NULL, NULL);
    } else if (!is_method(route, r)) {
        api_errors_add(errors, 405, NULL, NULL);
        *extra = (struct http_field){"Allow", route->is_post ? "POST" : "GET, HEAD"};
    } else if (!route->is_open && a->config.api_key != NULL && !is_allowed(a, r, buf)) {
        api_errors_add(errors, 401, NULL, NULL);
        *extra = (struct http_field){"WWW-Authenticate", "Bearer"};
    } else if (route->is_post && !is_json(r, buf)) {
        api_errors_add(errors, 415, NULL, NULL);
    } else if (r->head.framing == HTTP_LENGTH && r->head.content_length > API_MAX_BODY_BYTES) {
        api_errors_add(errors, 413, NULL, "the body has %llu bytes; the limit is %zu",
                       (unsigned long long)r->head.content_length, API_MAX_BODY_BYTES);
    } else if (route->needs_engine) {
        app_is_ready(a, errors);
    }
}

void app_on_head(void *self, struct http_exchange *x, const struct http_request *r, const char *buf)
{
    struct app *a = self;
    struct api_errors errors = {.count = 0};
    struct http_field extra = {.name = NULL};
    check_head(a, r, buf, &errors, &extra);
    if (errors.count > 0) {
        char request_id[APP_REQUEST_ID_BYTES + 1];
        struct strbuf body = {0};
        read_request_id(r, buf, request_id);
        api_write_errors(&body, &errors);
        answer_with(x, request_id, errors.items[0].http_status, &body, extra);
        strbuf_deinit(&body);
    }
}

void app_on_request(void *self, struct http_exchange *x, const struct http_request *r,
                    const char *buf, const char *body, size_t body_len)
{
    struct app *a = self;
    struct call call = {.x = x, .body = body, .body_len = body_len};
    read_request_id(r, buf, call.request_id);
    find_route(r, buf)->run(a, &call);
}
