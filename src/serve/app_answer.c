/*
 * app_answer.c - see app_int.h: tokens into text, events and answers; how choices and exchanges
 * end.
 *
 * What is new for a choice when its job is taken goes out as one event in one write. A token whose
 * text is held back (it may become a stop string, or its character is unfinished) waits for the
 * next event, unless ids are wanted. A choice ends once: by its job's end, or by a stop string,
 * which ends the job.
 */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/monotime.h"
#include "serve/app_int.h"

/* ---- ends of jobs and exchanges ---- */

static void cancel_job(struct exchange *ex, struct choice *c, enum finish_reason as)
{
    if (c->is_taken || c->is_cancelled) {
        return;
    }
    const struct backend *b = ex->app->config.backend;
    c->is_cancelled = true;
    c->job->cancel_as = as;
    b->cancel(b->self, c->job);
}

static void cancel_rest(struct exchange *ex)
{
    for (uint32_t i = 0; i < ex->n_choices; i++) {
        cancel_job(ex, &ex->choices[i], FINISH_NONE);
    }
}

/* The last thing that is done with an exchange in a turn: it may be freed. */
static void settle(struct exchange *ex)
{
    if (ex->x == NULL && ex->n_with_backend == 0 && !ex->is_busy) {
        exchange_destroy(ex);
    }
}

void exchange_gone(struct exchange *ex)
{
    ex->x = NULL;
    cancel_rest(ex);
    settle(ex);
}

/* ---- stamps ---- */

/* All that was read and not stamped yet is in the event that is written next. */
static void stamp(struct choice *c)
{
    uint64_t now_ns = monotime_now_ns();
    while (c->n_stamped < c->n_read) {
        c->job->written_ns[c->n_stamped++] = now_ns;
    }
}

static void save_stamps(struct exchange *ex)
{
    for (uint32_t i = 0; i < ex->n_choices && ex->app->stamps != NULL; i++) {
        const struct choice *c = &ex->choices[i];
        stamps_add(ex->app->stamps, ex->request_id, i, c->job, c->n_stamped);
    }
}

/* ---- streams ---- */

static bool begin_stream(struct exchange *ex)
{
    const struct http_field fields[] = {
        {"Cache-Control", "no-cache"},
        {"X-Accel-Buffering", "no"}, /* nginx would collect events */
        {"x-request-id", ex->request_id},
    };
    ex->has_begun = true;
    return http_exchange_begin(ex->x, 200, "text/event-stream", fields,
                               sizeof fields / sizeof fields[0]);
}

static void end_stream(struct exchange *ex)
{
    struct http_exchange *x = ex->x;
    save_stamps(ex);
    ex->x = NULL;
    http_exchange_end(x);
}

/* Writes what stands in the app's buffer. False: the peer is gone. */
static bool write_out(struct exchange *ex)
{
    static const char no_memory[] =
        "data: {\"error\":{\"message\":\"no memory for this event\",\"type\":"
        "\"ServiceUnavailableError\",\"param\":null,\"code\":503}}\n\ndata: [DONE]\n\n";
    struct strbuf *out = &ex->app->out;
    if (!ex->has_begun && !begin_stream(ex)) {
        return false;
    }
    ex->last_sent_ns = monotime_now_ns();
    if (!out->failed) {
        bool ok = http_exchange_write(ex->x, out->data, out->len);
        if (out->capacity > APP_KEPT_BUFFER_BYTES) {
            strbuf_deinit(out);
        }
        return ok;
    }
    strbuf_deinit(out);
    if (http_exchange_write(ex->x, no_memory, sizeof no_memory - 1)) {
        end_stream(ex);
    }
    cancel_rest(ex);
    return false;
}

void exchange_keep_alive(struct exchange *ex, uint64_t now_ns)
{
    if (!ex->is_stream || ex->x == NULL || now_ns < ex->last_sent_ns + APP_KEEP_ALIVE_NS) {
        return;
    }
    ex->is_busy = true;
    strbuf_clear(&ex->app->out);
    api_write_keep_alive(&ex->app->out);
    (void)write_out(ex);
    ex->is_busy = false;
    settle(ex);
}

/* ---- choices as plain data ---- */

/* Rows [first, end) of the store, as the answer shows them. False: no memory. */
static bool describe_logprobs(const struct exchange *ex, const struct choice *c, uint32_t first,
                              uint32_t end, struct arena *arena, struct api_choice *out)
{
    const struct logprob_store *store = c->job->request.logprobs;
    const struct token_texts *texts = &ex->app->texts;
    out->has_logprobs = true;
    if (first == end) {
        return true;
    }
    uint32_t n = end - first;
    struct api_logprob *rows = arena_alloc(arena, n, sizeof *rows);
    struct api_alternative *tops = NULL;
    if (ex->n_top > 0) {
        tops = arena_alloc(arena, (size_t)n * ex->n_top, sizeof *tops);
    }
    if (rows == NULL || (tops == NULL && ex->n_top > 0)) {
        return false;
    }
    for (uint32_t i = 0; i < n; i++) {
        const struct token_prob *chosen = &store->chosen[first + i];
        rows[i] = (struct api_logprob){.text = token_text(texts, chosen->id),
                                       .logprob = (double)chosen->logprob,
                                       .has_logprob = !isnan(chosen->logprob)};
        for (uint32_t k = 0; k < ex->n_top && rows[i].has_logprob; k++) {
            const struct token_prob *top = &store->top[(size_t)(first + i) * ex->n_top + k];
            tops[k] = (struct api_alternative){.text = token_text(texts, top->id),
                                               .logprob = (double)top->logprob};
        }
        if (rows[i].has_logprob && ex->n_top > 0) {
            rows[i].top = tops;
            rows[i].n_top = ex->n_top;
            tops += ex->n_top;
        }
    }
    out->logprobs = rows;
    out->n_logprobs = n;
    return true;
}

/* The choice with what no event has carried yet (without streaming: all of it). */
static bool describe(const struct exchange *ex, const struct choice *c, struct arena *arena,
                     struct api_choice *out)
{
    *out = (struct api_choice){
        .index = c->job->choice,
        .text = {.data = strbuf_text(&c->whole), .len = c->whole.len},
        .finish = c->is_finished ? c->finish : API_FINISH_NONE,
        .stop_kind = c->stop_kind,
        .stop_token = c->stop_token,
        .text_offset = c->n_row_chars,
    };
    if (c->text.stopped) {
        const struct text_stop *stop = &ex->stops[c->text.stop_idx];
        out->stop_text = (struct api_text){.data = stop->data, .len = stop->len};
    }
    if (ex->want_ids) {
        const struct request *r = &c->job->request;
        out->has_token_ids = true;
        out->token_ids = c->job->tokens + c->n_ids_sent;
        out->n_token_ids = c->n_counted - c->n_ids_sent;
        out->prompt_ids = c->has_event ? NULL : r->prompt;
        out->n_prompt_ids = c->has_event ? 0 : r->prompt_tokens;
    }
    if (!ex->want_logprobs || c->whole.failed) {
        return !c->whole.failed;
    }
    uint32_t end = c->n_counted;
    if (c->job->logprobs.prompt && c->n_read > 0) { /* else the prompt was never computed */
        end += c->job->request.prompt_tokens;
    }
    return describe_logprobs(ex, c, c->n_rows_sent, end, arena, out);
}

/* These rows went out. Offsets count the tokens' texts, not the text sent: parts of that may still
 * be held back, and how much is a matter of time. */
static void rows_sent(struct choice *c, const struct api_logprob *rows, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        for (size_t k = 0; k < rows[i].text.len; k++) {
            c->n_row_chars += ((unsigned char)rows[i].text.data[k] & 0xC0) != 0x80;
        }
    }
    c->n_rows_sent += n;
}

static struct api_usage usage_of(const struct exchange *ex, uint32_t *most)
{
    struct api_usage usage = {.prompt_tokens = ex->prompt_tokens};
    *most = 0;
    for (uint32_t i = 0; i < ex->n_choices; i++) {
        uint32_t n = ex->choices[i].n_counted;
        usage.completion_tokens += n;
        *most = n > *most ? n : *most;
    }
    return usage;
}

/* ---- answers ---- */

static bool ended_well(const struct exchange *ex)
{
    for (uint32_t i = 0; i < ex->n_choices; i++) {
        enum api_finish f = ex->choices[i].finish;
        if (f != API_FINISH_STOP && f != API_FINISH_LENGTH) {
            return false;
        }
    }
    return true;
}

/* Without streaming: everything at once, when the last choice has finished. */
static void answer_whole(struct exchange *ex, const struct api_usage *usage)
{
    struct strbuf body = {0};
    struct arena arena = {.chunk_bytes = 0};
    struct api_choice *choices = arena_alloc(&arena, ex->n_choices, sizeof *choices);
    bool ok = choices != NULL;
    for (uint32_t i = 0; i < ex->n_choices && ok; i++) {
        ok = describe(ex, &ex->choices[i], &arena, &choices[i]);
    }
    if (ok) {
        api_write_answer(&body, &ex->head, choices, ex->n_choices, usage);
    }
    body.failed = body.failed || !ok;
    for (uint32_t i = 0; i < ex->n_choices && ex->app->stamps != NULL; i++) {
        stamp(&ex->choices[i]);
    }
    struct http_exchange *x = ex->x;
    ex->x = NULL;
    app_answer(x, ex->request_id, 200, &body);
    save_stamps(ex);
    arena_deinit(&arena);
    strbuf_deinit(&body);
}

static void finish_exchange(struct exchange *ex)
{
    uint32_t most;
    struct api_usage usage = usage_of(ex, &most);
    if (ended_well(ex)) {
        prom_request_done(ex->app->config.prom, most);
    }
    if (!ex->is_stream) {
        answer_whole(ex, &usage);
        return;
    }
    strbuf_clear(&ex->app->out);
    api_stream_end(&ex->app->out, &ex->stream, &usage);
    if (write_out(ex)) {
        end_stream(ex);
    }
}

/* The request as a whole cannot go on. */
static void fail_exchange(struct exchange *ex, const struct api_errors *errors)
{
    cancel_rest(ex);
    if (ex->has_begun) {
        strbuf_clear(&ex->app->out);
        api_stream_error(&ex->app->out, &ex->stream, &errors->items[0]);
        if (write_out(ex)) {
            end_stream(ex);
        }
        return;
    }
    struct http_exchange *x = ex->x;
    ex->x = NULL;
    app_answer_errors(x, ex->request_id, errors);
}

/* Sends an event if there is something new to see. */
static void send_event(struct exchange *ex, struct choice *c)
{
    bool has_ids = ex->want_ids && c->n_counted > c->n_ids_sent;
    if (c->whole.len == 0 && !has_ids && !c->is_finished && !c->whole.failed) {
        return;
    }
    struct arena arena = {.chunk_bytes = 4096};
    struct api_choice choice;
    struct api_usage usage = {.prompt_tokens = c->job->request.prompt_tokens,
                              .completion_tokens = c->n_counted};
    strbuf_clear(&ex->app->out);
    if (describe(ex, c, &arena, &choice)) {
        api_stream_choice(&ex->app->out, &ex->stream, &choice, &usage);
    } else {
        ex->app->out.failed = true;
    }
    c->has_event = true;
    c->n_ids_sent = c->n_counted;
    rows_sent(c, choice.logprobs, choice.n_logprobs);
    if (ex->app->stamps != NULL) {
        stamp(c);
    }
    if (write_out(ex)) {
        strbuf_clear(&c->whole);
    }
    arena_deinit(&arena);
}

/* ---- tokens ---- */

static bool is_among(int32_t id, const int32_t *ids, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        if (ids[i] == id) {
            return true;
        }
    }
    return false;
}

static bool is_eos(const struct exchange *ex, int32_t id)
{
    const struct app_config *c = &ex->app->config;
    return !ex->ignore_eos && is_among(id, c->eos_ids, c->n_eos);
}

/* The token that ends the output is counted but not shown. It is known by its id: its job's end may
 * be taken later than the token. */
static bool is_end(const struct exchange *ex, const struct choice *c, int32_t id)
{
    const struct request *r = &c->job->request;
    return is_eos(ex, id) || is_among(id, r->stop_ids, r->n_stop_ids);
}

static void read_tokens(struct exchange *ex, struct choice *c)
{
    uint32_t n = job_tokens(c->job);
    while (c->n_read < n && !c->is_finished) {
        int32_t id = c->job->tokens[c->n_read++];
        if (ex->is_hidden) {
            continue;
        }
        c->n_counted++;
        if (is_end(ex, c, id)) {
            continue;
        }
        if (text_stream_push(&c->text, id, &c->whole)) {
            c->is_finished = true;
            c->finish = API_FINISH_STOP;
            c->stop_kind = API_STOP_TEXT;
        }
    }
}

/* What the engine says about an end, once all tokens before it were read. */
static void take_finish(struct exchange *ex, struct choice *c)
{
    const struct request *r = &c->job->request;
    int32_t last = c->n_read > 0 ? c->job->tokens[c->n_read - 1] : -1;
    c->is_finished = true;
    c->finish = API_FINISH_ABORT;
    if (job_end_of(c->job) == JOB_FINISHED) {
        c->finish =
            ex->is_hidden ? API_FINISH_LENGTH : api_finish_of((enum finish_reason)c->job->reason);
        bool by_token = !is_eos(ex, last) && is_among(last, r->stop_ids, r->n_stop_ids);
        c->stop_kind = by_token ? API_STOP_TOKEN : API_STOP_EOS;
        c->stop_token = last;
    }
    text_stream_end(&c->text, &c->whole);
}

/* Whether the end is one that an answer can show; else adds why not. */
static bool is_presentable(const struct exchange *ex, const struct choice *c,
                           struct api_errors *errors)
{
    const struct backend *b = ex->app->config.backend;
    enum reject_reason reject = (enum reject_reason)c->job->reason;
    const char *why;
    switch (job_end_of(c->job)) {
    case JOB_REJECTED:
        api_errors_add(errors, api_http_status_of_reject(reject), NULL,
                       "the request was turned away: %s", reject_reason_name(reject));
        return false;
    case JOB_FAILED:
        why = b->error(b->self);
        api_errors_add(errors, 500, NULL, "the engine failed%s%s", why[0] != '\0' ? ": " : "", why);
        return false;
    case JOB_FINISHED:
        if (c->job->reason == FINISH_ERROR) {
            api_errors_add(errors, 500, NULL, "the model gave no usable result for this request");
            return false;
        }
        return true;
    default:
        return true;
    }
}

static void take_news(struct exchange *ex, struct choice *c)
{
    struct api_errors errors = {.count = 0};
    if (c->is_taken && !is_presentable(ex, c, &errors)) {
        fail_exchange(ex, &errors);
        return;
    }
    if (c->n_read == 0 && (c->is_taken || job_tokens(c->job) > 0)) {
        strbuf_append(&c->whole, c->echo.data, c->echo.len);
        c->echo.len = 0;
    }
    read_tokens(ex, c);
    if (c->is_finished) {
        cancel_job(ex, c, FINISH_STOP);
    } else if (c->is_taken) {
        take_finish(ex, c);
    }
    ex->n_finished += c->is_finished;
    if (ex->is_stream) {
        c->whole.failed = c->whole.failed || c->text.held.failed;
        send_event(ex, c);
    }
    if (ex->x != NULL && ex->n_finished == ex->n_choices) {
        finish_exchange(ex);
    }
}

void exchange_news(struct exchange *ex, struct job *job)
{
    struct choice *c = &ex->choices[job->choice];
    c->is_taken = job_end_of(job) != JOB_LIVE;
    ex->n_with_backend -= c->is_taken;
    if (ex->x != NULL && !c->is_finished) {
        ex->is_busy = true;
        take_news(ex, c);
        ex->is_busy = false;
    }
    settle(ex);
}
