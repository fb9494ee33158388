/* api_response.c - see api_response.h. */
#include "net/api_response.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

/* JSON has no infinity; clients expect vLLM's stand-in for a token of no probability. */
#define LOGPROB_FLOOR (-9999.0)

const char *api_finish_name(enum api_finish f)
{
    static const char *const names[] = {[API_FINISH_NONE] = NULL,
                                        [API_FINISH_STOP] = "stop",
                                        [API_FINISH_LENGTH] = "length",
                                        [API_FINISH_ABORT] = "abort",
                                        [API_FINISH_ERROR] = "error"};
    return names[f];
}

enum api_finish api_finish_of(enum finish_reason r)
{
    switch (r) {
    case FINISH_NONE:
        return API_FINISH_NONE;
    case FINISH_STOP:
        return API_FINISH_STOP;
    case FINISH_LENGTH:
        return API_FINISH_LENGTH;
    case FINISH_ERROR:
        break;
    }
    return API_FINISH_ERROR;
}

void api_make_id(enum api_endpoint endpoint, uint64_t a, uint64_t b, char out[API_ID_BYTES])
{
    (void)snprintf(out, API_ID_BYTES, "%s-%016" PRIx64 "%016" PRIx64,
                   endpoint == API_CHAT ? "chatcmpl" : "cmpl", a, b);
}

static void put_text(struct strbuf *b, struct api_text t)
{
    strbuf_json_string(b, t.data, t.len);
}

static void put_logprob(struct strbuf *b, double logprob)
{
    strbuf_printf(b, "%.9g", logprob >= LOGPROB_FLOOR ? logprob : LOGPROB_FLOOR);
}

/* A token as a string of its own. Part of a character becomes "bytes:\xe2\x82" (with the
 * backslashes), as OpenAI's endpoint had it: two such tokens must not share a key. */
static void put_token(struct strbuf *b, struct api_text t)
{
    if (utf8_is_valid(t.data, t.len)) {
        put_text(b, t);
        return;
    }
    strbuf_puts(b, "\"bytes:");
    for (size_t i = 0; i < t.len; i++) {
        strbuf_printf(b, "\\\\x%02x", (unsigned char)t.data[i]);
    }
    strbuf_putc(b, '"');
}

static void put_bytes(struct strbuf *b, struct api_text t)
{
    strbuf_putc(b, '[');
    for (size_t i = 0; i < t.len; i++) {
        strbuf_printf(b, "%s%u", i == 0 ? "" : ",", (unsigned char)t.data[i]);
    }
    strbuf_putc(b, ']');
}

/* Characters that begin in the text, so that one spread over two tokens counts once. */
static uint32_t characters(struct api_text t)
{
    uint32_t n = 0;
    for (size_t i = 0; i < t.len; i++) {
        n += ((unsigned char)t.data[i] & 0xC0) != 0x80;
    }
    return n;
}

static bool same_text(struct api_text a, struct api_text b)
{
    return a.len == b.len && memcmp(a.data, b.data, a.len) == 0;
}

/* A map token -> logprob, the sampled token included; a text that two tokens share stands once. */
static void put_top_map(struct strbuf *b, const struct api_logprob *lp)
{
    bool sampled_in = false;
    uint32_t written = 0;
    strbuf_putc(b, '{');
    for (uint32_t i = 0; i < lp->n_top; i++) {
        bool again = false;
        for (uint32_t j = 0; j < i; j++) {
            again = again || same_text(lp->top[i].text, lp->top[j].text);
        }
        if (again) {
            continue;
        }
        strbuf_puts(b, written++ == 0 ? "" : ",");
        put_token(b, lp->top[i].text);
        strbuf_putc(b, ':');
        put_logprob(b, lp->top[i].logprob);
        sampled_in = sampled_in || same_text(lp->top[i].text, lp->text);
    }
    if (!sampled_in) {
        strbuf_puts(b, written == 0 ? "" : ",");
        put_token(b, lp->text);
        strbuf_putc(b, ':');
        put_logprob(b, lp->logprob);
    }
    strbuf_putc(b, '}');
}

/* {"tokens":[],"token_logprobs":[],"top_logprobs":[],"text_offset":[]} */
static void put_completion_logprobs(struct strbuf *b, const struct api_choice *c)
{
    strbuf_puts(b, "{\"tokens\":[");
    for (uint32_t i = 0; i < c->n_logprobs; i++) {
        strbuf_puts(b, i == 0 ? "" : ",");
        put_token(b, c->logprobs[i].text);
    }
    strbuf_puts(b, "],\"token_logprobs\":[");
    for (uint32_t i = 0; i < c->n_logprobs; i++) {
        strbuf_puts(b, i == 0 ? "" : ",");
        if (c->logprobs[i].has_logprob) {
            put_logprob(b, c->logprobs[i].logprob);
        } else {
            strbuf_puts(b, "null");
        }
    }
    strbuf_puts(b, "],\"top_logprobs\":[");
    for (uint32_t i = 0; i < c->n_logprobs; i++) {
        strbuf_puts(b, i == 0 ? "" : ",");
        if (c->logprobs[i].has_logprob) {
            put_top_map(b, &c->logprobs[i]);
        } else {
            strbuf_puts(b, "null");
        }
    }
    strbuf_puts(b, "],\"text_offset\":[");
    uint32_t offset = c->text_offset;
    for (uint32_t i = 0; i < c->n_logprobs; i++) {
        strbuf_printf(b, "%s%u", i == 0 ? "" : ",", offset);
        offset += characters(c->logprobs[i].text);
    }
    strbuf_puts(b, "]}");
}

static void put_chat_token(struct strbuf *b, struct api_text text, double logprob)
{
    strbuf_puts(b, "{\"token\":");
    put_text(b, text);
    strbuf_puts(b, ",\"logprob\":");
    put_logprob(b, logprob);
    strbuf_puts(b, ",\"bytes\":");
    put_bytes(b, text);
}

/* {"content":[{"token","logprob","bytes","top_logprobs":[{"token","logprob","bytes"}]}]} */
static void put_chat_logprobs(struct strbuf *b, const struct api_choice *c)
{
    strbuf_puts(b, "{\"content\":[");
    for (uint32_t i = 0; i < c->n_logprobs; i++) {
        const struct api_logprob *lp = &c->logprobs[i];
        strbuf_puts(b, i == 0 ? "" : ",");
        put_chat_token(b, lp->text, lp->logprob);
        strbuf_puts(b, ",\"top_logprobs\":[");
        for (uint32_t k = 0; k < lp->n_top; k++) {
            strbuf_puts(b, k == 0 ? "" : ",");
            put_chat_token(b, lp->top[k].text, lp->top[k].logprob);
            strbuf_putc(b, '}');
        }
        strbuf_puts(b, "]}");
    }
    strbuf_puts(b, "],\"refusal\":null}");
}

static void put_usage(struct strbuf *b, const struct api_usage *u)
{
    strbuf_printf(b,
                  "\"usage\":{\"prompt_tokens\":%u,\"completion_tokens\":%u,\"total_tokens\":"
                  "%" PRIu64 ",\"prompt_tokens_details\":{\"cached_tokens\":%u}}",
                  u->prompt_tokens, u->completion_tokens,
                  (uint64_t)u->prompt_tokens + u->completion_tokens, u->cached_tokens);
}

/* ,"name":[1,2] */
static void put_ids(struct strbuf *b, const char *name, const int32_t *ids, uint32_t n)
{
    strbuf_printf(b, ",\"%s\":[", name);
    for (uint32_t i = 0; i < n; i++) {
        strbuf_printf(b, "%s%d", i == 0 ? "" : ",", ids[i]);
    }
    strbuf_putc(b, ']');
}

/* As in vLLM, a completion has its prompt's ids in the choice, a chat beside the choices. */
static void put_prompt_ids(struct strbuf *b, const struct api_choice *c)
{
    if (c->prompt_ids != NULL) {
        put_ids(b, "prompt_token_ids", c->prompt_ids, c->n_prompt_ids);
    }
}

/* ,"logprobs":..,"finish_reason":..,"stop_reason":..} - the end of every choice */
static void put_choice_end(struct strbuf *b, enum api_endpoint endpoint, const struct api_choice *c)
{
    strbuf_puts(b, ",\"logprobs\":");
    if (!c->has_logprobs) {
        strbuf_puts(b, "null");
    } else if (endpoint == API_CHAT) {
        put_chat_logprobs(b, c);
    } else {
        put_completion_logprobs(b, c);
    }
    const char *finish = api_finish_name(c->finish);
    if (finish == NULL) {
        strbuf_puts(b, ",\"finish_reason\":null");
    } else {
        strbuf_printf(b, ",\"finish_reason\":\"%s\"", finish);
    }
    strbuf_puts(b, ",\"stop_reason\":");
    if (c->finish == API_FINISH_STOP && c->stop_kind == API_STOP_TEXT) {
        put_text(b, c->stop_text);
    } else if (c->finish == API_FINISH_STOP && c->stop_kind == API_STOP_TOKEN) {
        strbuf_printf(b, "%d", c->stop_token);
    } else {
        strbuf_puts(b, "null");
    }
    if (c->has_token_ids) {
        put_ids(b, "token_ids", c->token_ids, c->n_token_ids);
    }
    if (endpoint != API_CHAT) {
        put_prompt_ids(b, c);
    }
    strbuf_putc(b, '}');
}

/* {"id":..,"object":..,"created":..,"model":..,"choices":[ */
static void put_head(struct strbuf *b, const struct api_head *h, const char *object)
{
    strbuf_puts(b, "{\"id\":");
    put_text(b, h->id);
    strbuf_printf(b, ",\"object\":\"%s\",\"created\":%" PRIu64 ",\"model\":", object, h->created_s);
    put_text(b, h->model);
    strbuf_puts(b, ",\"choices\":[");
}

void api_write_answer(struct strbuf *b, const struct api_head *head,
                      const struct api_choice *choices, uint32_t n_choices,
                      const struct api_usage *usage)
{
    bool chat = head->endpoint == API_CHAT;
    put_head(b, head, chat ? "chat.completion" : "text_completion");
    for (uint32_t i = 0; i < n_choices; i++) {
        assert(choices[i].finish != API_FINISH_NONE);
        strbuf_printf(b, "%s{\"index\":%u,", i == 0 ? "" : ",", choices[i].index);
        strbuf_puts(b, chat ? "\"message\":{\"role\":\"assistant\",\"content\":" : "\"text\":");
        put_text(b, choices[i].text);
        strbuf_puts(b, chat ? ",\"refusal\":null}" : "");
        put_choice_end(b, head->endpoint, &choices[i]);
    }
    strbuf_puts(b, "],");
    put_usage(b, usage);
    if (chat) {
        put_prompt_ids(b, &choices[0]);
    }
    strbuf_putc(b, '}');
}

enum { CHOICE_NEW, CHOICE_BEGUN, CHOICE_FINISHED };

void api_stream_init(struct api_stream *s, const struct api_head *head, uint32_t n_choices,
                     const struct api_request *r)
{
    assert(n_choices >= 1 && n_choices <= API_MAX_CHOICES);
    memset(s, 0, sizeof *s);
    s->head = *head;
    s->n_choices = n_choices;
    s->include_usage = r->include_usage;
    s->continuous = r->include_usage && r->continuous_usage_stats;
}

static void begin_chunk(struct strbuf *b, const struct api_stream *s)
{
    strbuf_puts(b, "data: ");
    put_head(b, &s->head,
             s->head.endpoint == API_CHAT ? "chat.completion.chunk" : "text_completion");
}

/* Without include_usage a chunk has no usage; with it, null until the last (or a running count). */
static void end_chunk(struct strbuf *b, const struct api_stream *s, const struct api_usage *usage)
{
    if (s->continuous && usage != NULL) {
        strbuf_putc(b, ',');
        put_usage(b, usage);
    } else if (s->include_usage) {
        strbuf_puts(b, ",\"usage\":null");
    }
    strbuf_puts(b, "}\n\n");
}

void api_stream_choice(struct strbuf *b, struct api_stream *s, const struct api_choice *choice,
                       const struct api_usage *usage)
{
    assert(!s->ended && choice->index < s->n_choices);
    uint8_t *state = &s->state[choice->index];
    assert(*state != CHOICE_FINISHED);
    bool chat = s->head.endpoint == API_CHAT;
    if (chat && *state == CHOICE_NEW) {
        begin_chunk(b, s);
        strbuf_printf(b,
                      "{\"index\":%u,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},"
                      "\"logprobs\":null,\"finish_reason\":null}",
                      choice->index);
        strbuf_putc(b, ']');
        put_prompt_ids(b, choice);
        end_chunk(b, s, usage);
    }
    begin_chunk(b, s);
    strbuf_printf(b, "{\"index\":%u,", choice->index);
    strbuf_puts(b, chat ? "\"delta\":{\"content\":" : "\"text\":");
    put_text(b, choice->text);
    strbuf_puts(b, chat ? "}" : "");
    put_choice_end(b, s->head.endpoint, choice);
    strbuf_putc(b, ']');
    end_chunk(b, s, usage);
    *state = CHOICE_BEGUN;
    if (choice->finish != API_FINISH_NONE) {
        *state = CHOICE_FINISHED;
        s->n_finished++;
    }
}

static void put_done(struct strbuf *b, struct api_stream *s)
{
    strbuf_puts(b, "data: [DONE]\n\n");
    s->ended = true;
}

void api_stream_end(struct strbuf *b, struct api_stream *s, const struct api_usage *usage)
{
    assert(!s->ended && s->n_finished == s->n_choices);
    if (s->include_usage) {
        begin_chunk(b, s);
        strbuf_puts(b, "],");
        put_usage(b, usage);
        strbuf_puts(b, "}\n\n");
    }
    put_done(b, s);
}

void api_stream_error(struct strbuf *b, struct api_stream *s, const struct api_error *e)
{
    assert(!s->ended);
    strbuf_puts(b, "data: ");
    api_write_error(b, e);
    strbuf_puts(b, "\n\n");
    put_done(b, s);
}

void api_write_keep_alive(struct strbuf *b)
{
    strbuf_puts(b, ": keep-alive\n\n");
}

void api_write_models(struct strbuf *b, const char *const *names, uint32_t n, uint64_t created_s,
                      uint32_t max_model_len)
{
    strbuf_puts(b, "{\"object\":\"list\",\"data\":[");
    for (uint32_t i = 0; i < n; i++) {
        strbuf_puts(b, i == 0 ? "{\"id\":" : ",{\"id\":");
        strbuf_json_string(b, names[i], strlen(names[i]));
        strbuf_printf(b,
                      ",\"object\":\"model\",\"created\":%" PRIu64
                      ",\"owned_by\":\"llmsched\",\"max_model_len\":%u}",
                      created_s, max_model_len);
    }
    strbuf_puts(b, "]}");
}

void api_write_tokenize(struct strbuf *b, const int32_t *ids, uint32_t n,
                        const struct api_text *strs, uint32_t max_model_len)
{
    strbuf_printf(b, "{\"count\":%u,\"max_model_len\":%u,\"tokens\":[", n, max_model_len);
    for (uint32_t i = 0; i < n; i++) {
        strbuf_printf(b, "%s%d", i == 0 ? "" : ",", ids[i]);
    }
    strbuf_puts(b, "],\"token_strs\":");
    if (strs == NULL) {
        strbuf_puts(b, "null}");
        return;
    }
    strbuf_putc(b, '[');
    for (uint32_t i = 0; i < n; i++) {
        strbuf_puts(b, i == 0 ? "" : ",");
        put_text(b, strs[i]);
    }
    strbuf_puts(b, "]}");
}

void api_write_detokenize(struct strbuf *b, const char *text, size_t len)
{
    strbuf_puts(b, "{\"prompt\":");
    strbuf_json_string(b, text, len);
    strbuf_putc(b, '}');
}

void api_write_version(struct strbuf *b, const char *version)
{
    strbuf_puts(b, "{\"version\":");
    strbuf_json_string(b, version, strlen(version));
    strbuf_putc(b, '}');
}
