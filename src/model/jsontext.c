/* jsontext.c - see jsontext.h. */
#include "model/jsontext.h"

#include <string.h>

#include "base/mem.h"

/* The index behind a string literal that begins (its quote) at i. */
static size_t skip_string(const char *text, size_t len, size_t i)
{
    for (i++; i < len && text[i] != '"'; i++) {
        if (text[i] == '\\') {
            i++;
        }
    }
    return i < len ? i + 1 : len;
}

static enum status check_limits(const char *text, size_t len, const struct json_limits *limits,
                                const char *path, uint64_t base, struct error *err)
{
    uint32_t depth = 0;
    uint64_t values = 0;
    for (size_t i = 0; i < len;) {
        char c = text[i];
        if (c == '"') {
            i = skip_string(text, len, i);
            continue;
        }
        if (c == '{' || c == '[') {
            depth++;
            values++;
        } else if ((c == '}' || c == ']') && depth > 0) {
            depth--;
        } else if (c == ',') {
            values++;
        }
        if (depth > limits->max_depth || values > limits->max_values) {
            return error_set(err, STATUS_BAD_MODEL, (int64_t)(base + i),
                             "%s: at byte %llu: the JSON text is %s; the limit is %llu", path,
                             (unsigned long long)(base + i),
                             depth > limits->max_depth ? "nested too deeply" : "too large",
                             depth > limits->max_depth ? (unsigned long long)limits->max_depth
                                                       : (unsigned long long)limits->max_values);
        }
        i++;
    }
    return STATUS_OK;
}

static bool starts(const char *text, size_t len, size_t i, const char *word)
{
    size_t n = strlen(word);
    return len - i >= n && memcmp(text + i, word, n) == 0;
}

/* The first NaN or Infinity outside strings, or len; [*key, *key + *key_len) is the last string
 * before it that a colon follows. */
static size_t find_not_finite(const char *text, size_t len, const char **key, size_t *key_len)
{
    for (size_t i = 0; i < len;) {
        if (text[i] != '"') {
            if (starts(text, len, i, "NaN") || starts(text, len, i, "Infinity")) {
                return i;
            }
            i++;
            continue;
        }
        size_t end = skip_string(text, len, i);
        size_t next = end;
        while (next < len && strchr(" \t\r\n", text[next]) != NULL && text[next] != '\0') {
            next++;
        }
        if (next < len && text[next] == ':') {
            *key = text + i + 1;
            *key_len = end - i - 2;
        }
        i = end;
    }
    return len;
}

static enum status parse_error(const char *text, size_t len, const json_error_t *e, bool refused,
                               const char *path, uint64_t base, struct error *err)
{
    if (refused || json_error_code(e) == json_error_out_of_memory) {
        return error_set(err, STATUS_NO_MEMORY, -1, "%s: no memory for the JSON text", path);
    }
    const char *key = "";
    size_t key_len = 0;
    size_t at = find_not_finite(text, len, &key, &key_len);
    if (at < len && at <= (size_t)(e->position < 0 ? 0 : e->position)) {
        return error_set(err, STATUS_BAD_MODEL, (int64_t)(base + at),
                         "%s: at byte %llu: key '%.*s' is not a finite number (NaN and Infinity "
                         "are not JSON)",
                         path, (unsigned long long)(base + at), key_len > 80 ? 80 : (int)key_len,
                         key);
    }
    uint64_t position = base + (uint64_t)(e->position < 0 ? 0 : e->position);
    return error_set(err, STATUS_BAD_MODEL, (int64_t)position, "%s: at byte %llu: %s", path,
                     (unsigned long long)position, e->text);
}

enum status json_text_parse(const char *text, size_t len, const struct json_limits *limits,
                            const char *path, uint64_t base, json_t **out, struct error *err)
{
    mem_lend(json_set_alloc_funcs);
    enum status s = check_limits(text, len, limits, path, base, err);
    if (s != STATUS_OK) {
        return s;
    }
    size_t flags = JSON_REJECT_DUPLICATES;
    if (limits->integers_as_real) {
        flags |= JSON_DECODE_INT_AS_REAL;
    }
    json_error_t e;
    uint64_t refused_before = mem_refused_count();
    json_t *root = json_loadb(text, len, flags, &e);
    /* jansson does not always say that its memory was refused: it may even return a text's value
     * with a key left out. */
    bool refused = mem_refused_count() != refused_before;
    if (root == NULL || refused) {
        json_decref(root);
        return parse_error(text, len, &e, refused, path, base, err);
    }
    if (!json_is_object(root)) {
        json_decref(root);
        return error_set(err, STATUS_BAD_MODEL, (int64_t)base, "%s: not a JSON object", path);
    }
    *out = root;
    return STATUS_OK;
}
