/* api_request.c - the table of every endpoint, and the walk over it. See api_request.h. */
#include "net/api_request.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "net/api_request_int.h"

#define AT(member) offsetof(struct api_request, member)

#define BOOL(field, member, fallback, null)                                                        \
    {                                                                                              \
        .name = (field), .type = FIELD_BOOL, .offset = AT(member), .fallback_bool = (fallback),    \
        .null_allowed = (null)                                                                     \
    }
#define INT(field, member, fallback, min, max, null)                                               \
    {                                                                                              \
        .name = (field), .type = FIELD_INT, .offset = AT(member), .fallback_int = (fallback),      \
        .min_int = (min), .max_int = (max), .null_allowed = (null)                                 \
    }
#define REAL(field, member, fallback, min, max, open)                                              \
    {                                                                                              \
        .name = (field), .type = FIELD_REAL, .offset = AT(member), .fallback_real = (fallback),    \
        .min_real = (min), .max_real = (max), .min_open = (open), .null_allowed = true             \
    }
#define TEXT(field, member)                                                                        \
    {                                                                                              \
        .name = (field), .type = FIELD_TEXT, .offset = AT(member), .null_allowed = true            \
    }
#define SPECIAL(field, fn, null)                                                                   \
    {                                                                                              \
        .name = (field), .type = FIELD_SPECIAL, .read = (fn), .null_allowed = (null)               \
    }
#define NEUTRAL(field, values)                                                                     \
    {                                                                                              \
        .name = (field), .type = FIELD_NEUTRAL, .neutral = (values), .null_allowed = true          \
    }
#define IGNORED(field)                                                                             \
    {                                                                                              \
        .name = (field), .type = FIELD_IGNORED, .null_allowed = true                               \
    }

static void parse_stream_options(struct parse *p, const char *name, const json_t *value);

/* Fields of both generating endpoints. Sources: OpenAI's reference for the ranges of its own
 * fields, vLLM's protocol for the extras. */
/* clang-format off */
#define SHARED_FIELDS                                                                              \
    TEXT("model", model),                                                                          \
    TEXT("request_id", request_id),                                                                \
    INT("n", n, 1, 1, API_MAX_N, true),                                                            \
    INT("min_tokens", min_tokens, 0, 0, INT32_MAX, false),                                         \
    INT("priority", priority, 0, INT32_MIN, INT32_MAX, false),                                     \
    {.name = "seed", .type = FIELD_INT, .offset = AT(seed), .given = AT(has_seed),                 \
     .min_int = INT64_MIN, .max_int = INT64_MAX, .null_allowed = true},                            \
    REAL("temperature", temperature, 1.0, 0.0, 2.0, false),                                        \
    REAL("top_p", top_p, 1.0, 0.0, 1.0, true),                                                     \
    INT("top_k", top_k, 0, -1, INT32_MAX, true),                                                   \
    REAL("min_p", min_p, 0.0, 0.0, 1.0, false),                                                    \
    REAL("repetition_penalty", repetition_penalty, 1.0, 0.0, 100.0, true),                         \
    REAL("frequency_penalty", frequency_penalty, 0.0, -2.0, 2.0, false),                           \
    REAL("presence_penalty", presence_penalty, 0.0, -2.0, 2.0, false),                             \
    BOOL("ignore_eos", ignore_eos, false, false),                                                  \
    BOOL("stream", stream, false, true),                                                           \
    BOOL("return_token_ids", return_token_ids, false, true),                                       \
    SPECIAL("stop", parse_stop, true),                                                             \
    SPECIAL("stop_token_ids", parse_stop_ids, true),                                               \
    SPECIAL("logit_bias", parse_logit_bias, true),                                                 \
    SPECIAL("stream_options", parse_stream_options, true),                                         \
    NEUTRAL("include_stop_str_in_output", "false"),                                                \
    NEUTRAL("skip_special_tokens", "true"),                                                        \
    NEUTRAL("spaces_between_special_tokens", "true|false"),                                        \
    NEUTRAL("return_tokens_as_token_ids", "false"),                                                \
    NEUTRAL("truncate_prompt_tokens", ""),                                                         \
    NEUTRAL("prompt_logprobs", ""),                                                                \
    NEUTRAL("allowed_token_ids", "[]"),                                                            \
    NEUTRAL("bad_words", "[]"),                                                                    \
    NEUTRAL("use_beam_search", "false"),                                                           \
    NEUTRAL("length_penalty", "1|1.0"),                                                            \
    NEUTRAL("response_format", "{\"type\":\"text\"}"),                                             \
    NEUTRAL("structured_outputs", ""),                                                             \
    NEUTRAL("guided_json", ""),                                                                    \
    NEUTRAL("guided_regex", ""),                                                                   \
    NEUTRAL("guided_choice", ""),                                                                  \
    NEUTRAL("guided_grammar", ""),                                                                 \
    NEUTRAL("logits_processors", "[]"),                                                            \
    NEUTRAL("kv_transfer_params", ""),                                                             \
    IGNORED("user"),                                                                               \
    IGNORED("metadata"),                                                                           \
    IGNORED("cache_salt"),                                                                         \
    IGNORED("service_tier")

static const struct field completion_fields[] = {
    SHARED_FIELDS,
    SPECIAL("prompt", parse_prompt, false),
    INT("max_tokens", max_tokens, 16, 0, INT32_MAX, true),
    INT("best_of", best_of, 0, 1, API_MAX_N, true),
    INT("logprobs", raw_logprobs, -1, 0, API_MAX_LOGPROBS, true),
    BOOL("echo", echo, false, true),
    BOOL("add_special_tokens", add_special_tokens, true, false),
    NEUTRAL("suffix", "\"\""),
    NEUTRAL("prompt_embeds", ""),
};

static const struct field chat_fields[] = {
    SHARED_FIELDS,
    SPECIAL("messages", parse_messages, false),
    INT("max_completion_tokens", max_completion_tokens, API_REST_OF_CONTEXT, 1, INT32_MAX, true),
    INT("max_tokens", max_tokens, API_REST_OF_CONTEXT, 1, INT32_MAX, true),
    BOOL("logprobs", want_logprobs, false, true),
    {.name = "top_logprobs", .type = FIELD_INT, .offset = AT(top_logprobs),
     .given = AT(has_top_logprobs), .max_int = API_MAX_LOGPROBS, .null_allowed = true},
    BOOL("add_generation_prompt", add_generation_prompt, true, false),
    BOOL("add_special_tokens", add_special_tokens, false, false),
    NEUTRAL("echo", "false"),
    NEUTRAL("continue_final_message", "false"),
    NEUTRAL("best_of", "1"),
    NEUTRAL("tools", "[]"),
    NEUTRAL("tool_choice", "\"none\"|\"auto\""),
    NEUTRAL("functions", "[]"),
    NEUTRAL("function_call", "\"none\"|\"auto\""),
    NEUTRAL("chat_template", ""),
    NEUTRAL("chat_template_kwargs", "{}"),
    NEUTRAL("documents", "[]"),
    NEUTRAL("modalities", "[\"text\"]"),
    NEUTRAL("audio", ""),
    NEUTRAL("prediction", ""),
    NEUTRAL("web_search_options", ""),
    NEUTRAL("store", "false"),
    IGNORED("parallel_tool_calls"),
    IGNORED("reasoning_effort"),
    IGNORED("verbosity"),
    IGNORED("safety_identifier"),
    IGNORED("prompt_cache_key"),
};

static const struct field tokenize_fields[] = {
    TEXT("model", model),
    SPECIAL("prompt", parse_text_prompt, true),
    SPECIAL("messages", parse_messages, true),
    BOOL("add_generation_prompt", add_generation_prompt, true, false),
    /* Its default depends on the form; see finish_tokenize. */
    BOOL("add_special_tokens", add_special_tokens, true, false),
    BOOL("return_token_strs", return_token_strs, false, true),
    NEUTRAL("continue_final_message", "false"),
    NEUTRAL("chat_template", ""),
    NEUTRAL("chat_template_kwargs", "{}"),
    NEUTRAL("tools", "[]"),
};

static const struct field detokenize_fields[] = {
    TEXT("model", model),
    SPECIAL("tokens", parse_tokens, false),
};

static const struct field stream_option_fields[] = {
    BOOL("include_usage", include_usage, false, true),
    BOOL("continuous_usage_stats", continuous_usage_stats, false, true),
    IGNORED("include_obfuscation"),
};
/* clang-format on */

/* Bytes of a field's or a model's name that messages repeat. */
#define NAME_SHOWN   64

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const struct {
    const struct field *fields;
    size_t n_fields;
    const char *needs; /* the field without which there is nothing to do */
} endpoints[] = {
    [API_COMPLETIONS] = {completion_fields, COUNT(completion_fields), "prompt"},
    [API_CHAT] = {chat_fields, COUNT(chat_fields), "messages"},
    [API_TOKENIZE] = {tokenize_fields, COUNT(tokenize_fields), NULL},
    [API_DETOKENIZE] = {detokenize_fields, COUNT(detokenize_fields), "tokens"},
};

struct excerpt {
    char text[API_ECHO_BYTES];
    size_t n;
    bool cut;
};

/* Takes what fits, then stops the dump. (json_dumpb leaves out pieces that do not fit.) */
static int take_excerpt(const char *bytes, size_t size, void *self)
{
    struct excerpt *e = self;
    size_t room = sizeof e->text - e->n;
    size_t n = size > room ? room : size;
    memcpy(e->text + e->n, bytes, n);
    e->n += n;
    e->cut = size > room;
    return e->cut ? -1 : 0;
}

const char *parse_shown(const json_t *value, char out[SHOWN_BYTES])
{
    struct excerpt e = {.n = 0};
    (void)json_dump_callback(value, take_excerpt, &e, JSON_COMPACT | JSON_ENCODE_ANY);
    size_t whole = 0;
    for (size_t len; whole < e.n && (len = utf8_sequence(e.text + whole, e.n - whole)) > 0;) {
        whole += len;
    }
    (void)snprintf(out, SHOWN_BYTES, "%.*s%s", (int)whole, e.text, e.cut ? "..." : "");
    return out;
}

void parse_wrong(struct parse *p, const char *name, const char *what, const json_t *value)
{
    char shown[SHOWN_BYTES];
    api_errors_add(p->errors, 400, name, "%s: must be %s, not %s", name, what,
                   parse_shown(value, shown));
}

bool parse_whole(const json_t *value, int64_t *out)
{
    if (json_is_integer(value)) {
        *out = json_integer_value(value);
        return true;
    }
    double real = json_is_real(value) ? json_real_value(value) : 0.5;
    if (real != floor(real) || !(fabs(real) <= 9007199254740992.0)) {
        return false;
    }
    *out = (int64_t)real;
    return true;
}

static void *slot(struct parse *p, size_t offset)
{
    return (char *)p->r + offset;
}

static void set_defaults(struct parse *p, const struct field *fields, size_t n_fields)
{
    for (size_t i = 0; i < n_fields; i++) {
        const struct field *f = &fields[i];
        if (f->type == FIELD_BOOL) {
            *(bool *)slot(p, f->offset) = f->fallback_bool;
        } else if (f->type == FIELD_INT) {
            *(int64_t *)slot(p, f->offset) = f->fallback_int;
        } else if (f->type == FIELD_REAL) {
            *(double *)slot(p, f->offset) = f->fallback_real;
        }
    }
}

static void read_int(struct parse *p, const struct field *f, const char *name, const json_t *value)
{
    int64_t whole;
    char shown[SHOWN_BYTES];
    if (!parse_whole(value, &whole)) {
        parse_wrong(p, name, "an integer", value);
    } else if (whole < f->min_int || whole > f->max_int) {
        api_errors_add(p->errors, 400, name, "%s: must be %lld to %lld, not %s", name,
                       (long long)f->min_int, (long long)f->max_int, parse_shown(value, shown));
    } else {
        *(int64_t *)slot(p, f->offset) = whole;
        if (f->given != 0) {
            *(bool *)slot(p, f->given) = true;
        }
    }
}

static void read_real(struct parse *p, const struct field *f, const char *name, const json_t *value)
{
    double real = json_number_value(value);
    char shown[SHOWN_BYTES];
    if (!json_is_number(value)) {
        parse_wrong(p, name, "a number", value);
    } else if (!(real >= f->min_real && real <= f->max_real) ||
               (f->min_open && !(real > f->min_real))) {
        api_errors_add(p->errors, 400, name, "%s: must be %s%g to %g, not %s", name,
                       f->min_open ? "above " : "", f->min_real, f->max_real,
                       parse_shown(value, shown));
    } else {
        *(double *)slot(p, f->offset) = real;
    }
}

static void read_text(struct parse *p, const struct field *f, const char *name, const json_t *value)
{
    if (!json_is_string(value)) {
        parse_wrong(p, name, "a string", value);
    } else if (json_string_length(value) > API_MAX_NAME_BYTES) {
        api_errors_add(p->errors, 400, name, "%s: has %zu bytes; the limit is %u", name,
                       json_string_length(value), API_MAX_NAME_BYTES);
    } else {
        *(struct api_text *)slot(p, f->offset) = parse_copy(p, value);
    }
}

/* True when the value, as compact JSON, is one of those in `list` ("false|[]"). */
static bool is_neutral(const json_t *value, const char *list)
{
    char text[32];
    size_t n = json_dumpb(value, text, sizeof text, JSON_COMPACT | JSON_ENCODE_ANY);
    if (n == 0 || n > sizeof text) {
        return false;
    }
    for (const char *at = list; *at != '\0';) {
        size_t len = strcspn(at, "|");
        if (len == n && memcmp(at, text, n) == 0) {
            return true;
        }
        at += len + (at[len] == '|');
    }
    return false;
}

static void read_field(struct parse *p, const struct field *f, const char *name,
                       const json_t *value)
{
    if (json_is_null(value)) {
        if (!f->null_allowed) {
            api_errors_add(p->errors, 400, name, "%s: must not be null; leave it out", name);
        }
        return;
    }
    switch (f->type) {
    case FIELD_BOOL:
        if (json_is_boolean(value)) {
            *(bool *)slot(p, f->offset) = json_is_true(value);
        } else {
            parse_wrong(p, name, "true or false", value);
        }
        break;
    case FIELD_INT:
        read_int(p, f, name, value);
        break;
    case FIELD_REAL:
        read_real(p, f, name, value);
        break;
    case FIELD_TEXT:
        read_text(p, f, name, value);
        break;
    case FIELD_SPECIAL:
        f->read(p, name, value);
        break;
    case FIELD_NEUTRAL:
        if (!is_neutral(value, f->neutral)) {
            char shown[SHOWN_BYTES];
            api_errors_add(p->errors, 400, name, "%s: %s is not supported; leave the field out",
                           name, parse_shown(value, shown));
        }
        break;
    case FIELD_IGNORED:
        break;
    }
}

static void note_unknown(struct parse *p, const char *name)
{
    uint32_t i = p->r->n_unknown++;
    if (i < API_MAX_UNKNOWN) {
        char *copy = arena_strndup(&p->r->arena, name, strlen(name));
        p->r->unknown[i] = (struct api_text){copy, copy == NULL ? 0 : strlen(name)};
    }
}

/* prefix + key, cut to NAME_SHOWN bytes at a whole character. */
static void full_name(char out[NAME_SHOWN + 1], const char *prefix, const char *key)
{
    size_t at = strlen(prefix);
    size_t n = strlen(key);
    assert(at < NAME_SHOWN);
    memcpy(out, prefix, at);
    for (size_t i = 0, len; i < n && (len = utf8_sequence(key + i, n - i)) > 0; i += len) {
        if (at + len > NAME_SHOWN) {
            break;
        }
        memcpy(out + at, key + i, len);
        at += len;
    }
    out[at] = '\0';
}

void parse_object(struct parse *p, const char *prefix, const json_t *object,
                  const struct field *fields, size_t n_fields)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value)
    {
        char name[NAME_SHOWN + 1];
        full_name(name, prefix, key);
        size_t i = 0;
        while (i < n_fields && strcmp(fields[i].name, key) != 0) {
            i++;
        }
        if (i == n_fields) {
            note_unknown(p, name);
        } else {
            read_field(p, &fields[i], name, value);
        }
    }
}

static void parse_stream_options(struct parse *p, const char *name, const json_t *value)
{
    if (!json_is_object(value)) {
        parse_wrong(p, name, "an object", value);
        return;
    }
    p->r->has_stream_options = json_object_size(value) > 0;
    parse_object(p, "stream_options.", value, stream_option_fields, COUNT(stream_option_fields));
}

/* What no single field can say. */
static void finish_generation(struct parse *p)
{
    struct api_request *r = p->r;
    if (r->has_stream_options && !r->stream) {
        api_errors_add(p->errors, 400, "stream_options",
                       "stream_options: only allowed with \"stream\": true");
    }
    if (r->top_k == -1) {
        r->top_k = 0;
    }
    if (r->max_tokens >= 0 && r->min_tokens > r->max_tokens) {
        api_errors_add(p->errors, 400, "min_tokens", "min_tokens: %lld is above max_tokens, %lld",
                       (long long)r->min_tokens, (long long)r->max_tokens);
    }
    if ((uint64_t)r->n * (r->n_prompts > 0 ? r->n_prompts : 1) > API_MAX_CHOICES) {
        api_errors_add(p->errors, 400, "n",
                       "n: %lld choices for each of %u prompts; the limit is %u choices",
                       (long long)r->n, r->n_prompts, API_MAX_CHOICES);
    }
}

static void finish_completion(struct parse *p)
{
    struct api_request *r = p->r;
    if (r->max_tokens == 0 && !r->echo) {
        api_errors_add(p->errors, 400, "max_tokens",
                       "max_tokens: 0 is only allowed with \"echo\": true");
    }
    if (r->best_of != 0 && r->best_of != r->n) {
        api_errors_add(p->errors, 400, "best_of",
                       "best_of: %lld is not supported; only the value of n, %lld",
                       (long long)r->best_of, (long long)r->n);
    }
    r->want_logprobs = r->raw_logprobs >= 0;
    r->top_logprobs = r->want_logprobs ? r->raw_logprobs : 0;
    finish_generation(p);
}

static void finish_chat(struct parse *p)
{
    struct api_request *r = p->r;
    if (r->max_completion_tokens != API_REST_OF_CONTEXT) {
        r->max_tokens = r->max_completion_tokens;
    }
    if (r->has_top_logprobs && r->top_logprobs > 0 && !r->want_logprobs) {
        api_errors_add(p->errors, 400, "top_logprobs",
                       "top_logprobs: only allowed with \"logprobs\": true");
    }
    finish_generation(p);
}

static void finish_tokenize(struct parse *p, const json_t *root)
{
    struct api_request *r = p->r;
    if ((r->n_prompts > 0) == (r->n_messages > 0) && p->errors->total == 0) {
        api_errors_add(p->errors, 400, "prompt", "prompt: give either prompt or messages");
    }
    if (r->n_messages > 0 && json_object_get(root, "add_special_tokens") == NULL) {
        r->add_special_tokens = false; /* a rendered template has its own */
    }
}

static void parse_root(struct parse *p, const json_t *root)
{
    enum api_endpoint e = p->r->endpoint;
    set_defaults(p, endpoints[e].fields, endpoints[e].n_fields);
    const char *needs = endpoints[e].needs;
    if (needs != NULL && json_object_get(root, needs) == NULL) {
        api_errors_add(p->errors, 400, needs, "%s: is missing", needs);
    }
    parse_object(p, "", root, endpoints[e].fields, endpoints[e].n_fields);
    if (e == API_COMPLETIONS) {
        finish_completion(p);
    } else if (e == API_CHAT) {
        finish_chat(p);
    } else if (e == API_TOKENIZE) {
        finish_tokenize(p, root);
    }
}

/* Before jansson takes any memory: a parsed value costs many times its text. */
static bool within_limits(const char *text, size_t len, struct api_errors *errors)
{
    uint32_t depth = 0;
    uint32_t values = 0;
    bool in_string = false;
    for (size_t i = 0; i < len && depth <= API_MAX_DEPTH && values <= API_MAX_VALUES; i++) {
        char c = text[i];
        if (in_string) {
            i += c == '\\';
            in_string = c != '"';
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            depth++;
            values++;
        } else if (c == '}' || c == ']') {
            depth -= depth > 0;
        } else if (c == ',') {
            values++;
        }
    }
    if (depth > API_MAX_DEPTH) {
        api_errors_add(errors, 400, NULL, "the body is nested more than %u deep", API_MAX_DEPTH);
    } else if (values > API_MAX_VALUES) {
        api_errors_add(errors, 400, NULL, "the body has more than %u values", API_MAX_VALUES);
    }
    return errors->total == 0;
}

/* NULL with an error. Refused memory does not always make jansson fail: it may leave out a key. */
static json_t *load(const char *text, size_t len, struct api_errors *errors)
{
    mem_lend(json_set_alloc_funcs);
    json_error_t e;
    uint64_t refused = mem_refused_count();
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &e);
    if (mem_refused_count() != refused) {
        json_decref(root);
        api_errors_add(errors, 503, NULL, "no memory for this request; try again later");
        return NULL;
    }
    if (root == NULL) {
        api_errors_add(errors, 400, NULL, "the body is not valid JSON: at byte %d: %s", e.position,
                       e.text);
        return NULL;
    }
    if (!json_is_object(root)) {
        char shown[SHOWN_BYTES];
        api_errors_add(errors, 400, NULL, "the body must be a JSON object, not %s",
                       parse_shown(root, shown));
        json_decref(root);
        return NULL;
    }
    return root;
}

static enum status status_of(const struct api_errors *errors)
{
    return errors->items[0].http_status == 503 ? STATUS_NO_MEMORY : STATUS_BAD_DATA;
}

enum status api_request_parse(enum api_endpoint endpoint, const char *text, size_t len,
                              const struct api_limits *limits, struct api_request *out,
                              struct api_errors *errors)
{
    memset(errors, 0, sizeof *errors);
    if (len > API_MAX_BODY_BYTES) {
        api_errors_add(errors, 413, NULL, "the body has %zu bytes; the limit is %zu", len,
                       API_MAX_BODY_BYTES);
        return STATUS_BAD_DATA;
    }
    uint64_t refused = mem_refused_count();
    json_t *root = within_limits(text, len, errors) ? load(text, len, errors) : NULL;
    if (root == NULL) {
        return status_of(errors);
    }
    struct api_request r = {.endpoint = endpoint, .arena = {.chunk_bytes = 4096}};
    struct parse p = {.r = &r, .limits = limits, .errors = errors};
    parse_root(&p, root);
    json_decref(root);
    if (mem_refused_count() != refused) {
        /* Whatever was found may be wrong: a list, or a value to compare, was not complete. */
        memset(errors, 0, sizeof *errors);
        api_errors_add(errors, 503, NULL, "no memory for this request; try again later");
    }
    if (errors->total > 0) {
        arena_deinit(&r.arena);
        return status_of(errors);
    }
    *out = r;
    return STATUS_OK;
}

void api_request_deinit(struct api_request *r)
{
    arena_deinit(&r->arena);
    memset(r, 0, sizeof *r);
}

bool api_request_check_model(const struct api_request *r, const char *const *names, uint32_t n,
                             struct api_errors *errors)
{
    if (r->model.data == NULL) {
        return true;
    }
    for (uint32_t i = 0; i < n; i++) {
        if (strcmp(names[i], r->model.data) == 0) {
            return true;
        }
    }
    char name[NAME_SHOWN + 1];
    full_name(name, "", r->model.data);
    api_errors_add(errors, 404, "model", "The model `%s` does not exist; see /v1/models", name);
    return false;
}

bool api_request_fit(const struct api_request *r, uint32_t prompt_tokens, uint32_t max_model_len,
                     uint32_t *max_new, struct api_errors *errors)
{
    const char *param = r->endpoint == API_CHAT ? "messages" : "prompt";
    if (prompt_tokens == 0) {
        api_errors_add(errors, 400, param, "%s: has no tokens", param);
        return false;
    }
    int64_t room = (int64_t)max_model_len - prompt_tokens;
    if (r->max_tokens == API_REST_OF_CONTEXT ? room < 1 : r->max_tokens > room) {
        int64_t wanted = r->max_tokens == API_REST_OF_CONTEXT ? 1 : r->max_tokens;
        int64_t together = prompt_tokens + wanted;
        api_errors_add(errors, 400, param,
                       "the prompt has %u tokens and max_tokens is %lld: together %lld, but the "
                       "model's context length is %u; shorten the prompt or max_tokens",
                       prompt_tokens, (long long)wanted, (long long)together, max_model_len);
        return false;
    }
    *max_new = (uint32_t)(r->max_tokens == API_REST_OF_CONTEXT ? room : r->max_tokens);
    return true;
}
