/*
 * app_request.c - see app_int.h: a generating request into an exchange with its jobs.
 *
 * Cheap refusals come first (model, state, queue), then what costs time (tokens), then memory.
 * Nothing is submitted before all of it exists, so that a refusal leaves no trace.
 */
#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/monotime.h"
#include "base/rng.h"
#include "model/chat_template.h"
#include "serve/app_int.h"

/* ---- prompts ---- */

static void add_no_memory(struct api_errors *errors)
{
    api_errors_add(errors, 503, NULL, "no memory for this request; try again later");
}

bool app_encode(struct app *a, const struct api_request *r, const struct api_prompt *prompt,
                struct token_ids *out, struct api_errors *errors)
{
    const char *param = r->n_messages > 0 ? "messages" : "prompt";
    if (prompt->text.data == NULL) {
        assert(prompt->ids != NULL && prompt->n_ids >= 1);
        out->ids = mem_alloc(prompt->n_ids, sizeof *out->ids);
        if (out->ids == NULL) {
            add_no_memory(errors);
            return false;
        }
        memcpy(out->ids, prompt->ids, prompt->n_ids * sizeof *out->ids);
        out->n = prompt->n_ids;
        out->capacity = prompt->n_ids;
        return true;
    }
    bool generates = r->endpoint == API_COMPLETIONS || r->endpoint == API_CHAT;
    if (generates && a->max_token_bytes > 0 && prompt->text.len > a->context * a->max_token_bytes) {
        api_errors_add(errors, 400, param,
                       "%s: %zu bytes cannot fit the model's context length, %u tokens", param,
                       prompt->text.len, a->context);
        return false;
    }
    struct error err = ERROR_INIT;
    enum status s = tokenizer_encode(a->config.tokenizer, prompt->text.data, prompt->text.len,
                                     r->add_special_tokens, out, &err);
    if (s == STATUS_NO_MEMORY) {
        add_no_memory(errors);
    } else if (s != STATUS_OK) {
        api_errors_add(errors, 400, param, "%s: %s", param, err.message);
    }
    return s == STATUS_OK;
}

static enum chat_role role_of(enum api_role role)
{
    return role == API_ROLE_SYSTEM ? CHAT_SYSTEM
           : role == API_ROLE_USER ? CHAT_USER
                                   : CHAT_ASSISTANT;
}

bool app_render(struct app *a, const struct api_request *r, struct strbuf *out,
                struct api_errors *errors)
{
    if (a->config.chat == NULL) {
        api_errors_add(errors, 400, "messages", "messages: chat is not available: %s",
                       a->config.chat_refusal);
        return false;
    }
    struct chat_message *messages = mem_alloc(r->n_messages, sizeof *messages);
    struct error err = ERROR_INIT;
    enum status s = STATUS_NO_MEMORY;
    for (uint32_t i = 0; i < r->n_messages && messages != NULL; i++) {
        messages[i] = (struct chat_message){.role = role_of(r->messages[i].role),
                                            .text = r->messages[i].content.data,
                                            .len = r->messages[i].content.len};
    }
    if (messages != NULL) {
        s = chat_template_render(a->config.chat, messages, r->n_messages, r->add_generation_prompt,
                                 out, &err);
    }
    mem_free(messages);
    if (s == STATUS_NO_MEMORY || out->failed) {
        add_no_memory(errors);
        return false;
    }
    if (s != STATUS_OK) {
        api_errors_add(errors, 400, "messages", "messages: %s", err.message);
    }
    return s == STATUS_OK;
}

void app_warn_unknown(struct app *a, const struct api_request *r)
{
    uint32_t n = r->n_unknown < API_MAX_UNKNOWN ? r->n_unknown : API_MAX_UNKNOWN;
    for (uint32_t i = 0; i < n && a->n_warned < APP_MAX_WARNED; i++) {
        char *name = a->warned[a->n_warned];
        size_t len = r->unknown[i].len;
        assert(len < sizeof a->warned[0]);
        for (size_t k = 0; k < len; k++) { /* a client's text on our terminal */
            char c = r->unknown[i].data[k];
            name[k] = c >= ' ' && c <= '~' ? c : '?';
        }
        name[len] = '\0';
        uint32_t seen = 0;
        while (seen < a->n_warned && strcmp(a->warned[seen], name) != 0) {
            seen++;
        }
        if (seen == a->n_warned) {
            a->n_warned++;
            log_warn("requests have a field that is not known here and ignored: \"%s\"", name);
        }
    }
}

/* ---- the exchange ---- */

/* What a request becomes, until all of it is known to be possible. */
struct draft {
    struct app *app;
    const struct call *call;
    const struct api_request *r;
    struct api_errors *errors;
    struct exchange *ex;
    struct job_prompt **prompts; /* [r->n_prompts], or 1 for messages; one user is the draft */
    uint32_t n_prompts;
    uint32_t *max_new; /* [n_prompts] */
};

static bool has_room(const struct draft *d)
{
    const struct app *a = d->app;
    const struct backend *b = a->config.backend;
    uint32_t n = d->n_prompts * (uint32_t)d->r->n;
    if (n > a->config.max_queue || n > a->config.max_jobs) {
        api_errors_add(d->errors, 400, d->r->n > 1 ? "n" : "prompt",
                       "%u prompts with %u choices each are more than this server queues, %u",
                       d->n_prompts, (uint32_t)d->r->n, a->config.max_queue);
        return false;
    }
    uint32_t waiting = b->waiting(b->self);
    if (waiting > a->config.max_queue - n || a->n_jobs > a->config.max_jobs - n) {
        api_errors_add(d->errors, 429, NULL,
                       "%u requests are waiting, and %u are the limit; try again later", waiting,
                       a->config.max_queue);
        return false;
    }
    return true;
}

/* ids are taken over. */
static bool add_prompt(struct draft *d, uint32_t i, struct token_ids *ids)
{
    bool fits = api_request_fit(d->r, (uint32_t)ids->n, d->app->context, &d->max_new[i], d->errors);
    if (fits && d->max_new[i] == 0 && ids->n >= d->app->context) {
        api_errors_add(d->errors, 400, "prompt",
                       "the prompt has %zu tokens, and with max_tokens 0 it must be shorter than "
                       "the model's context length, %u",
                       ids->n, d->app->context);
        fits = false;
    }
    if (!fits) {
        token_ids_deinit(ids);
        return false;
    }
    int32_t *exact = mem_resize(ids->ids, ids->n, sizeof *ids->ids);
    if (job_prompt_create(exact != NULL ? exact : ids->ids, (uint32_t)ids->n, &d->prompts[i],
                          NULL) != STATUS_OK) {
        add_no_memory(d->errors);
        return false;
    }
    d->prompts[i]->users++;
    d->ex->prompt_tokens += (uint32_t)ids->n;
    return true;
}

static bool encode_prompts(struct draft *d)
{
    for (uint32_t i = 0; i < d->n_prompts; i++) {
        struct token_ids ids = {0};
        bool ok;
        if (d->r->n_messages > 0) {
            struct strbuf text = {0};
            ok = app_render(d->app, d->r, &text, d->errors);
            struct api_prompt prompt = {.text = {.data = strbuf_text(&text), .len = text.len}};
            ok = ok && app_encode(d->app, d->r, &prompt, &ids, d->errors);
            strbuf_deinit(&text);
        } else {
            ok = app_encode(d->app, d->r, &d->r->prompts[i], &ids, d->errors);
        }
        if (!ok) {
            token_ids_deinit(&ids);
            return false;
        }
        if (!add_prompt(d, i, &ids)) {
            return false;
        }
    }
    return true;
}

/* Log-probabilities cost memory in proportion to what was asked for, not to what comes. */
static bool count_logprobs(struct draft *d)
{
    const struct api_request *r = d->r;
    if (!r->want_logprobs) {
        return true;
    }
    uint64_t rows = 0;
    for (uint32_t i = 0; i < d->n_prompts; i++) {
        rows += d->max_new[i] + (r->echo ? d->prompts[i]->n_ids : 0);
    }
    uint64_t n = rows * (uint64_t)r->n * (1 + (uint64_t)r->top_logprobs);
    if (n > APP_REQUEST_LOGPROBS) {
        api_errors_add(d->errors, 400, r->endpoint == API_CHAT ? "top_logprobs" : "logprobs",
                       "logprobs: %llu values are asked for (tokens x choices x (1 + "
                       "alternatives)); the limit is %u: lower max_tokens, n or the alternatives",
                       (unsigned long long)n, APP_REQUEST_LOGPROBS);
        return false;
    }
    if (n > APP_TOTAL_LOGPROBS - d->app->n_logprobs) {
        api_errors_add(d->errors, 429, NULL,
                       "too many log-probabilities are being kept; try again later");
        return false;
    }
    d->ex->n_logprobs = (uint32_t)n;
    d->app->n_logprobs += (uint32_t)n;
    return true;
}

/* A copy in the exchange's arena; NULL when refused, or when there is nothing. */
static void *keep(struct exchange *ex, const void *items, uint32_t n, size_t size, bool *ok)
{
    if (n == 0) {
        return NULL;
    }
    void *copy = arena_alloc(&ex->arena, n, size);
    if (copy == NULL) {
        *ok = false;
        return NULL;
    }
    memcpy(copy, items, n * size);
    return copy;
}

static struct api_text keep_text(struct exchange *ex, const char *text, size_t len, bool *ok)
{
    char *copy = arena_strndup(&ex->arena, text, len);
    *ok = *ok && copy != NULL;
    return (struct api_text){.data = copy, .len = copy != NULL ? len : 0};
}

static bool keep_stops(struct draft *d)
{
    bool ok = true;
    struct text_stop *stops = NULL;
    if (d->r->n_stops > 0) {
        stops = arena_alloc(&d->ex->arena, d->r->n_stops, sizeof *stops);
    }
    for (uint32_t i = 0; i < d->r->n_stops && stops != NULL && ok; i++) {
        const struct api_text *stop = &d->r->stops[i];
        struct api_text kept = keep_text(d->ex, stop->data, stop->len, &ok);
        stops[i] = (struct text_stop){.data = kept.data, .len = kept.len};
    }
    d->ex->stops = stops;
    return ok && (stops != NULL || d->r->n_stops == 0);
}

/* What the answer's objects repeat. */
static bool make_head(struct draft *d, uint64_t number)
{
    struct exchange *ex = d->ex;
    const struct app *a = d->app;
    const struct api_text *asked = &d->r->request_id;
    bool chat = d->r->endpoint == API_CHAT;
    bool ok = true;
    char made[API_ID_BYTES];
    api_make_id(d->r->endpoint, rng_at(a->id_key, 2 * number), rng_at(a->id_key, 2 * number + 1),
                made);
    const char *base = d->call->request_id[0] != '\0' ? d->call->request_id : asked->data;
    ex->head = (struct api_head){
        .endpoint = d->r->endpoint,
        .created_s = (uint64_t)time(NULL),
        .model = {.data = a->config.served_names[0], .len = strlen(a->config.served_names[0])}};
    if (base != NULL) {
        struct strbuf id = {0};
        strbuf_printf(&id, "%s-%s", chat ? "chatcmpl" : "cmpl", base);
        ok = !id.failed;
        ex->head.id = keep_text(ex, strbuf_text(&id), id.len, &ok);
        strbuf_deinit(&id);
    } else {
        ex->head.id = keep_text(ex, made, strlen(made), &ok);
    }
    (void)snprintf(ex->request_id, sizeof ex->request_id, "%s",
                   d->call->request_id[0] != '\0' ? d->call->request_id : made);
    return ok;
}

/* With echo the answer begins with the prompt: as it was sent, or as its ids read. */
static bool make_echo(struct draft *d, uint32_t i, struct api_text *out)
{
    const struct api_text *text = &d->r->prompts[i].text;
    bool ok = true;
    if (text->data != NULL) {
        *out = keep_text(d->ex, text->data, text->len, &ok);
        return ok;
    }
    struct strbuf decoded = {0};
    tokenizer_decode(d->app->config.tokenizer, d->prompts[i]->ids, d->prompts[i]->n_ids, true,
                     &decoded);
    ok = !decoded.failed;
    *out = keep_text(d->ex, strbuf_text(&decoded), decoded.len, &ok);
    strbuf_deinit(&decoded);
    return ok;
}

/* The fields of the engine's request that all choices share. */
static bool make_request(struct draft *d, struct request *out)
{
    const struct api_request *r = d->r;
    bool ok = true;
    *out = (struct request){
        .deadline_ns = TIME_NEVER,
        .priority = (int32_t)r->priority,
        .sampling = {.temperature = (float)r->temperature,
                     .top_k = (uint32_t)r->top_k,
                     .top_p = (float)r->top_p,
                     .min_p = (float)r->min_p,
                     .repetition_penalty = (float)r->repetition_penalty,
                     .frequency_penalty = (float)r->frequency_penalty,
                     .presence_penalty = (float)r->presence_penalty,
                     .n_bias = r->n_logit_bias},
        .ignore_eos = r->ignore_eos,
        .stop_ids = keep(d->ex, r->stop_ids, r->n_stop_ids, sizeof *r->stop_ids, &ok),
        .n_stop_ids = r->n_stop_ids,
    };
    struct token_bias *bias = NULL;
    if (r->n_logit_bias > 0) {
        bias = arena_alloc(&d->ex->arena, r->n_logit_bias, sizeof *bias);
        ok = ok && bias != NULL;
    }
    for (uint32_t i = 0; i < r->n_logit_bias && bias != NULL; i++) {
        bias[i] = (struct token_bias){.id = r->logit_bias[i].id, .bias = r->logit_bias[i].bias};
    }
    out->sampling.bias = bias;
    return ok;
}

/* Job and choice k of prompt i. */
static bool add_choice(struct draft *d, uint32_t i, uint32_t k, uint64_t seed,
                       const struct request *shared)
{
    const struct api_request *r = d->r;
    struct exchange *ex = d->ex;
    struct job_prompt *prompt = d->prompts[i];
    struct job_options options = {
        .max_new_tokens = d->max_new[i] > 0 ? d->max_new[i] : 1,
        .want_logprobs = r->want_logprobs,
        .n_top = r->want_logprobs ? (uint32_t)r->top_logprobs : 0,
        .prompt_logprobs = r->want_logprobs && r->echo,
        .want_stamps = d->app->config.backend->limits.wants_stamps,
    };
    struct job *job;
    if (job_create(prompt, &options, &job, NULL) != STATUS_OK) {
        return false;
    }
    struct request made = job->request;
    job->request = *shared;
    job->request.prompt = made.prompt;
    job->request.prompt_tokens = made.prompt_tokens;
    job->request.max_new_tokens = made.max_new_tokens;
    job->request.logprobs = made.logprobs;
    job->request.sample_key = sample_key_of_choice(seed, k);
    job->request.min_new_tokens =
        r->min_tokens < made.max_new_tokens ? (uint32_t)r->min_tokens : made.max_new_tokens;
    job->owner = ex;
    job->choice = ex->n_choices;
    struct choice *c = &ex->choices[ex->n_choices++];
    c->job = job;
    text_stream_begin(&c->text, d->app->config.tokenizer, false, ex->stops, r->n_stops,
                      job->request.min_new_tokens);
    return true;
}

/* A request without a seed gets one that nobody else has; its choices and prompts, too, differ. */
static bool make_choices(struct draft *d, uint64_t number)
{
    struct request shared;
    struct exchange *ex = d->ex;
    uint32_t n = (uint32_t)d->r->n;
    ex->choices = arena_alloc(&ex->arena, (size_t)d->n_prompts * n, sizeof *ex->choices);
    if (ex->choices == NULL || !keep_stops(d) || !make_head(d, number) ||
        !make_request(d, &shared)) {
        return false;
    }
    uint64_t drawn = rng_at(d->app->config.default_seed, number);
    for (uint32_t i = 0; i < d->n_prompts; i++) {
        struct api_text echo = {.len = 0};
        if (d->r->echo && !make_echo(d, i, &echo)) {
            return false;
        }
        for (uint32_t k = 0; k < n; k++) {
            bool own = d->r->has_seed;
            if (!add_choice(d, i, own ? k : i * n + k, own ? (uint64_t)d->r->seed : drawn,
                            &shared)) {
                return false;
            }
            ex->choices[i * n + k].echo = echo;
        }
    }
    return true;
}

static bool fill_exchange(struct draft *d)
{
    const struct api_request *r = d->r;
    struct exchange *ex = d->ex;
    ex->is_stream = r->stream;
    ex->is_hidden = r->max_tokens == 0;
    ex->ignore_eos = r->ignore_eos;
    ex->want_ids = r->return_token_ids;
    ex->want_logprobs = r->want_logprobs;
    ex->n_top = r->want_logprobs ? (uint32_t)r->top_logprobs : 0;
    ex->last_sent_ns = monotime_now_ns();
    d->prompts = arena_alloc(&ex->arena, d->n_prompts, sizeof(void *));
    d->max_new = arena_alloc(&ex->arena, d->n_prompts, sizeof *d->max_new);
    if (d->prompts == NULL || d->max_new == NULL) {
        d->n_prompts = 0;
        add_no_memory(d->errors);
        return false;
    }
    if (!encode_prompts(d) || !count_logprobs(d)) {
        return false;
    }
    bool ok = make_choices(d, d->app->n_requests++);
    if (!ok) {
        add_no_memory(d->errors);
    }
    return ok;
}

/* NULL with an error. */
static struct exchange *make_exchange(struct draft *d)
{
    struct app *a = d->app;
    app_warn_unknown(a, d->r);
    if (!api_request_check_model(d->r, a->config.served_names, a->config.n_served_names,
                                 d->errors) ||
        !app_is_ready(a, d->errors) || !has_room(d)) {
        return NULL;
    }
    d->ex = mem_alloc(1, sizeof *d->ex);
    if (d->ex == NULL) {
        add_no_memory(d->errors);
        return NULL;
    }
    d->ex->app = a;
    exchange_link(d->ex);
    bool ok = fill_exchange(d);
    for (uint32_t i = 0; i < d->n_prompts; i++) {
        if (d->prompts != NULL && d->prompts[i] != NULL) {
            d->prompts[i]->users--;
            job_prompt_destroy_unused(d->prompts[i]);
        }
    }
    if (!ok) {
        exchange_destroy(d->ex);
        return NULL;
    }
    return d->ex;
}

static void submit(struct exchange *ex)
{
    struct app *a = ex->app;
    const struct backend *b = a->config.backend;
    for (uint32_t i = 0; i < ex->n_choices; i++) {
        a->n_jobs++;
        ex->n_with_backend++;
        b->submit(b->self, ex->choices[i].job);
    }
}

void app_generate(struct app *a, const struct call *call, enum api_endpoint endpoint)
{
    struct api_errors errors;
    struct api_request r;
    struct api_limits limits = {.n_vocab = a->config.n_vocab};
    if (api_request_parse(endpoint, call->body, call->body_len, &limits, &r, &errors) !=
        STATUS_OK) {
        app_answer_errors(call->x, call->request_id, &errors);
        return;
    }
    struct draft d = {.app = a,
                      .call = call,
                      .r = &r,
                      .errors = &errors,
                      .n_prompts = r.n_messages > 0 ? 1 : r.n_prompts};
    struct exchange *ex = make_exchange(&d);
    if (ex != NULL) {
        uint32_t n = (uint32_t)r.n;
        prom_request_params(a->config.prom, n, d.max_new[0]);
        api_stream_init(&ex->stream, &ex->head, ex->n_choices, &r);
        ex->x = call->x;
        http_exchange_set_user(call->x, ex);
        submit(ex);
    } else {
        app_answer_errors(call->x, call->request_id, &errors);
    }
    api_request_deinit(&r);
}
