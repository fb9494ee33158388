/* api_fields.c - the fields of a request that are lists or maps. See api_request.h. */
#include "net/api_request_int.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "messages[12].content[3].text" and the like. */
#define PATH_BYTES 96

static void path_format(char out[PATH_BYTES], const char *fmt, ...) PRINTF_LIKE(2, 3);

static void path_format(char out[PATH_BYTES], const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(out, PATH_BYTES, fmt, args);
    va_end(args);
}

void *parse_alloc(struct parse *p, size_t count, size_t size)
{
    return arena_alloc(&p->r->arena, count, size);
}

struct api_text parse_copy(struct parse *p, const json_t *string)
{
    size_t len = json_string_length(string);
    char *data = arena_strndup(&p->r->arena, json_string_value(string), len);
    return (struct api_text){.data = data, .len = data == NULL ? 0 : len};
}

/* One error per list: the first bad id. */
static bool read_id(struct parse *p, const char *name, size_t i, const json_t *value, int32_t *out)
{
    char path[PATH_BYTES];
    char shown[SHOWN_BYTES];
    int64_t id;
    path_format(path, "%s[%zu]", name, i);
    if (!parse_whole(value, &id)) {
        parse_wrong(p, path, "a token id", value);
        return false;
    }
    if (id < 0 || id > INT32_MAX) {
        api_errors_add(p->errors, 400, path, "%s: token id %s is %s", path,
                       parse_shown(value, shown), id < 0 ? "negative" : "out of vocabulary");
        return false;
    }
    if (p->limits->n_vocab > 0 && id >= (int64_t)p->limits->n_vocab) {
        api_errors_add(p->errors, 400, path,
                       "%s: token id %s is out of vocabulary; the model has %u tokens", path,
                       parse_shown(value, shown), p->limits->n_vocab);
        return false;
    }
    *out = (int32_t)id;
    return true;
}

/* NULL (with an error, or refused memory) unless every element is an id. The array is not empty. */
static const int32_t *read_ids(struct parse *p, const char *name, const json_t *array)
{
    size_t n = json_array_size(array);
    int32_t *ids = parse_alloc(p, n, sizeof *ids);
    for (size_t i = 0; ids != NULL && i < n; i++) {
        if (!read_id(p, name, i, json_array_get(array, i), &ids[i])) {
            return NULL;
        }
    }
    return ids;
}

static const char prompt_forms[] =
    "a string, a list of strings, a list of token ids or a list of lists of token ids";

static bool read_one_prompt(struct parse *p, const char *path, const json_t *value,
                            struct api_prompt *out)
{
    if (json_is_string(value)) {
        if (json_string_length(value) == 0) {
            api_errors_add(p->errors, 400, path, "%s: is empty", path);
            return false;
        }
        out->text = parse_copy(p, value);
        return out->text.data != NULL;
    }
    if (json_is_array(value) && json_array_size(value) > 0) {
        out->ids = read_ids(p, path, value);
        out->n_ids = (uint32_t)json_array_size(value);
        return out->ids != NULL;
    }
    parse_wrong(p, path, prompt_forms, value);
    return false;
}

static void read_prompt_list(struct parse *p, const char *name, const json_t *list)
{
    size_t n = json_array_size(list);
    json_type type = json_typeof(json_array_get(list, 0));
    if (n > API_MAX_PROMPTS) {
        api_errors_add(p->errors, 400, name, "%s: %zu prompts; the limit is %u", name, n,
                       API_MAX_PROMPTS);
        return;
    }
    struct api_prompt *prompts = parse_alloc(p, n, sizeof *prompts);
    for (size_t i = 0; prompts != NULL && i < n; i++) {
        char path[PATH_BYTES];
        const json_t *item = json_array_get(list, i);
        path_format(path, "%s[%zu]", name, i);
        if (json_typeof(item) != type) {
            parse_wrong(p, path, "of the same kind as the prompts before it", item);
            return;
        }
        if (!read_one_prompt(p, path, item, &prompts[i])) {
            return;
        }
    }
    if (prompts != NULL) {
        p->r->prompts = prompts;
        p->r->n_prompts = (uint32_t)n;
    }
}

void parse_prompt(struct parse *p, const char *name, const json_t *value)
{
    if (json_is_array(value)) {
        const json_t *first = json_array_get(value, 0);
        if (json_is_string(first) || json_is_array(first)) {
            read_prompt_list(p, name, value);
            return;
        }
    }
    if ((json_is_string(value) && json_string_length(value) == 0) ||
        (json_is_array(value) && json_array_size(value) == 0)) {
        api_errors_add(p->errors, 400, name, "%s: is empty", name);
        return;
    }
    struct api_prompt *prompt = parse_alloc(p, 1, sizeof *prompt);
    if (prompt != NULL && read_one_prompt(p, name, value, prompt)) {
        p->r->prompts = prompt;
        p->r->n_prompts = 1;
    }
}

void parse_text_prompt(struct parse *p, const char *name, const json_t *value)
{
    if (!json_is_string(value)) {
        parse_wrong(p, name, "a string", value);
        return;
    }
    struct api_prompt *prompt = parse_alloc(p, 1, sizeof *prompt);
    if (prompt != NULL) {
        prompt->text = parse_copy(p, value);
        p->r->prompts = prompt;
        p->r->n_prompts = 1;
    }
}

void parse_tokens(struct parse *p, const char *name, const json_t *value)
{
    if (!json_is_array(value)) {
        parse_wrong(p, name, "a list of token ids", value);
        return;
    }
    static const int32_t none[1];
    p->r->tokens = json_array_size(value) == 0 ? none : read_ids(p, name, value);
    p->r->n_tokens = p->r->tokens == NULL ? 0 : (uint32_t)json_array_size(value);
}

static bool read_stop(struct parse *p, const char *path, const json_t *value, struct api_text *out)
{
    if (!json_is_string(value)) {
        parse_wrong(p, path, "a string", value);
        return false;
    }
    size_t len = json_string_length(value);
    if (len == 0 || len > API_MAX_STOP_BYTES) {
        api_errors_add(p->errors, 400, path,
                       "%s: a stop string has 1 to %u bytes, this one has %zu", path,
                       API_MAX_STOP_BYTES, len);
        return false;
    }
    *out = parse_copy(p, value);
    return out->data != NULL;
}

void parse_stop(struct parse *p, const char *name, const json_t *value)
{
    bool is_list = json_is_array(value);
    if (!is_list && !json_is_string(value)) {
        parse_wrong(p, name, "a string or a list of strings", value);
        return;
    }
    size_t n = is_list ? json_array_size(value) : 1;
    if (n > API_MAX_STOPS) {
        api_errors_add(p->errors, 400, name, "%s: %zu stop strings; the limit is %u", name, n,
                       API_MAX_STOPS);
        return;
    }
    struct api_text *stops = n == 0 ? NULL : parse_alloc(p, n, sizeof *stops);
    for (size_t i = 0; stops != NULL && i < n; i++) {
        char path[PATH_BYTES];
        if (is_list) {
            path_format(path, "%s[%zu]", name, i);
        } else {
            path_format(path, "%s", name);
        }
        if (!read_stop(p, path, is_list ? json_array_get(value, i) : value, &stops[i])) {
            return;
        }
    }
    p->r->stops = stops;
    p->r->n_stops = stops == NULL ? 0 : (uint32_t)n;
}

void parse_stop_ids(struct parse *p, const char *name, const json_t *value)
{
    if (!json_is_array(value)) {
        parse_wrong(p, name, "a list of token ids", value);
        return;
    }
    size_t n = json_array_size(value);
    if (n > API_MAX_STOP_IDS) {
        api_errors_add(p->errors, 400, name, "%s: %zu ids; the limit is %u", name, n,
                       API_MAX_STOP_IDS);
        return;
    }
    p->r->stop_ids = n == 0 ? NULL : read_ids(p, name, value);
    p->r->n_stop_ids = p->r->stop_ids == NULL ? 0 : (uint32_t)n;
}

/* Digits only and no leading zero: so no id can stand in the map twice. */
static bool bias_key(const char *key, int32_t *out)
{
    size_t n = strlen(key);
    if (n == 0 || n > 10 || strspn(key, "0123456789") != n || (n > 1 && key[0] == '0')) {
        return false;
    }
    long long id = strtoll(key, NULL, 10);
    *out = (int32_t)id;
    return id <= INT32_MAX;
}

static int by_id(const void *a, const void *b)
{
    int32_t x = ((const struct api_bias *)a)->id;
    int32_t y = ((const struct api_bias *)b)->id;
    return (x > y) - (x < y);
}

static bool read_bias(struct parse *p, const char *name, const char *key, const json_t *value,
                      struct api_bias *out)
{
    char shown[SHOWN_BYTES];
    if (!bias_key(key, &out->id)) {
        api_errors_add(p->errors, 400, name, "%s: key '%.64s' is not a token id", name, key);
        return false;
    }
    if (p->limits->n_vocab > 0 && (uint32_t)out->id >= p->limits->n_vocab) {
        api_errors_add(p->errors, 400, name,
                       "%s: token id %s is out of vocabulary; the model has %u tokens", name, key,
                       p->limits->n_vocab);
        return false;
    }
    double bias = json_number_value(value);
    if (!json_is_number(value) || !(bias >= -100.0 && bias <= 100.0)) {
        api_errors_add(p->errors, 400, name, "%s: the bias of %s must be -100 to 100, not %s", name,
                       key, parse_shown(value, shown));
        return false;
    }
    out->bias = (float)bias;
    return true;
}

void parse_logit_bias(struct parse *p, const char *name, const json_t *value)
{
    if (!json_is_object(value)) {
        parse_wrong(p, name, "a map from token ids to numbers", value);
        return;
    }
    size_t n = json_object_size(value);
    if (n > API_MAX_LOGIT_BIAS) {
        api_errors_add(p->errors, 400, name, "%s: %zu entries; the limit is %u", name, n,
                       API_MAX_LOGIT_BIAS);
        return;
    }
    struct api_bias *list = n == 0 ? NULL : parse_alloc(p, n, sizeof *list);
    if (list == NULL) {
        return;
    }
    const char *key;
    json_t *bias;
    size_t i = 0;
    json_object_foreach((json_t *)value, key, bias)
    {
        if (!read_bias(p, name, key, bias, &list[i++])) {
            return;
        }
    }
    assert(i == n);
    qsort(list, n, sizeof *list, by_id);
    p->r->logit_bias = list;
    p->r->n_logit_bias = (uint32_t)n;
}

static bool read_role(struct parse *p, const char *path, const json_t *message, enum api_role *out)
{
    static const struct {
        const char *name;
        enum api_role role;
    } roles[] = {{"system", API_ROLE_SYSTEM},
                 {"developer", API_ROLE_SYSTEM},
                 {"user", API_ROLE_USER},
                 {"assistant", API_ROLE_ASSISTANT}};
    char param[PATH_BYTES];
    path_format(param, "%s.role", path);
    const json_t *value = json_object_get(message, "role");
    if (value == NULL) {
        api_errors_add(p->errors, 400, param, "%s: is missing", param);
        return false;
    }
    for (size_t i = 0; json_is_string(value) && i < sizeof roles / sizeof roles[0]; i++) {
        if (strcmp(json_string_value(value), roles[i].name) == 0) {
            *out = roles[i].role;
            return true;
        }
    }
    parse_wrong(p, param, "system, developer, user or assistant", value);
    return false;
}

/* The text of one part, or NULL with an error. */
static const json_t *part_text(struct parse *p, const char *path, const json_t *part)
{
    char param[PATH_BYTES];
    if (!json_is_object(part)) {
        parse_wrong(p, path, "an object with type and text", part);
        return NULL;
    }
    const json_t *type = json_object_get(part, "type");
    if (!json_is_string(type) || strcmp(json_string_value(type), "text") != 0) {
        path_format(param, "%s.type", path);
        if (type == NULL) {
            api_errors_add(p->errors, 400, param, "%s: is missing", param);
        } else {
            char shown[SHOWN_BYTES];
            api_errors_add(p->errors, 400, param,
                           "%s: %s is not supported; only parts of type \"text\" are", param,
                           parse_shown(type, shown));
        }
        return NULL;
    }
    const json_t *text = json_object_get(part, "text");
    if (!json_is_string(text)) {
        path_format(param, "%s.text", path);
        if (text == NULL) {
            api_errors_add(p->errors, 400, param, "%s: is missing", param);
        } else {
            parse_wrong(p, param, "a string", text);
        }
        return NULL;
    }
    return text;
}

static bool join_parts(struct parse *p, const char *param, const json_t *parts,
                       struct api_text *out)
{
    size_t n = json_array_size(parts);
    if (n == 0 || n > API_MAX_PARTS) {
        api_errors_add(p->errors, 400, param, "%s: has %zu parts; 1 to %u are allowed", param, n,
                       API_MAX_PARTS);
        return false;
    }
    size_t len = n - 1;
    for (size_t i = 0; i < n; i++) {
        char path[PATH_BYTES];
        path_format(path, "%s[%zu]", param, i);
        const json_t *text = part_text(p, path, json_array_get(parts, i));
        if (text == NULL) {
            return false;
        }
        len += json_string_length(text);
    }
    char *data = parse_alloc(p, len + 1, 1);
    if (data == NULL) {
        return false;
    }
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        const json_t *text = json_object_get(json_array_get(parts, i), "text");
        if (i > 0) {
            data[at++] = '\n';
        }
        memcpy(data + at, json_string_value(text), json_string_length(text));
        at += json_string_length(text);
    }
    *out = (struct api_text){.data = data, .len = len};
    return true;
}

static bool read_content(struct parse *p, const char *path, const json_t *message,
                         struct api_text *out)
{
    char param[PATH_BYTES];
    path_format(param, "%s.content", path);
    const json_t *value = json_object_get(message, "content");
    if (value == NULL) {
        api_errors_add(p->errors, 400, param, "%s: is missing", param);
        return false;
    }
    if (json_is_array(value)) {
        return join_parts(p, param, value, out);
    }
    if (!json_is_string(value)) {
        parse_wrong(p, param, "a string or a list of text parts", value);
        return false;
    }
    *out = parse_copy(p, value);
    return out->data != NULL;
}

/* Fields of a message that carry meaning we cannot keep. null and empty lists ask for nothing. */
static bool refuse_tools(struct parse *p, const char *path, const json_t *message)
{
    static const char *const names[] = {"tool_calls", "function_call", "tool_call_id", "audio"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const json_t *value = json_object_get(message, names[i]);
        if (value != NULL && !json_is_null(value) &&
            !(json_is_array(value) && json_array_size(value) == 0)) {
            char param[PATH_BYTES];
            path_format(param, "%s.%s", path, names[i]);
            api_errors_add(p->errors, 400, param, "%s: is not supported", param);
            return false;
        }
    }
    return true;
}

void parse_messages(struct parse *p, const char *name, const json_t *value)
{
    if (!json_is_array(value)) {
        parse_wrong(p, name, "a list of messages", value);
        return;
    }
    size_t n = json_array_size(value);
    if (n == 0 || n > API_MAX_MESSAGES) {
        api_errors_add(p->errors, 400, name, "%s: %zu messages; 1 to %u are allowed", name, n,
                       API_MAX_MESSAGES);
        return;
    }
    struct api_message *list = parse_alloc(p, n, sizeof *list);
    bool good = list != NULL;
    for (size_t i = 0; list != NULL && i < n; i++) {
        char path[PATH_BYTES];
        const json_t *message = json_array_get(value, i);
        path_format(path, "%s[%zu]", name, i);
        if (!json_is_object(message)) {
            parse_wrong(p, path, "an object with role and content", message);
            good = false;
            continue;
        }
        bool role = read_role(p, path, message, &list[i].role);
        bool content = read_content(p, path, message, &list[i].content);
        good = refuse_tools(p, path, message) && role && content && good;
    }
    if (good) {
        p->r->messages = list;
        p->r->n_messages = (uint32_t)n;
    }
}
