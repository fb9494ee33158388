/* prompts.c - see prompts.h. */
#include "load/prompts.h"

#include <ctype.h>
#include <jansson.h>
#include <string.h>

#include "base/fs.h"
#include "base/utf8.h"
#include "load/builtin_prompts.h"

static enum status add(struct prompt_set *set, struct prompt p, struct error *err)
{
    if (set->n == PROMPTS_MAX_COUNT) {
        return error_set(err, STATUS_BAD_DATA, -1, "more than %zu prompts", PROMPTS_MAX_COUNT);
    }
    if (set->n == set->capacity) {
        size_t capacity = set->capacity == 0 ? 128 : set->capacity * 2;
        struct prompt *items = mem_resize(set->items, capacity, sizeof *items);
        if (items == NULL) {
            return error_set(err, STATUS_NO_MEMORY, -1, "no memory for %zu prompts", capacity);
        }
        set->items = items;
        set->capacity = capacity;
    }
    set->items[set->n++] = p;
    return STATUS_OK;
}

static enum status add_copy(struct prompt_set *set, const char *text, size_t len,
                            uint32_t max_new_tokens, struct error *err)
{
    if (len == 0) {
        return error_set(err, STATUS_BAD_DATA, -1, "the prompt is empty");
    }
    if (memchr(text, '\0', len) != NULL) {
        return error_set(err, STATUS_BAD_DATA, -1,
                         "the prompt holds a NUL character, which no result file can carry");
    }
    char *copy = arena_strndup(&set->texts, text, len);
    if (copy == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for a prompt of %zu bytes", len);
    }
    return add(set, (struct prompt){copy, len, max_new_tokens}, err);
}

enum status prompts_builtin(struct prompt_set *out, struct error *err)
{
    struct prompt_set set = {0};
    for (size_t i = 0; i < builtin_prompt_count; i++) {
        const char *text = builtin_prompts[i];
        enum status s = add(&set, (struct prompt){text, strlen(text), 0}, err);
        if (s != STATUS_OK) {
            prompts_deinit(&set);
            return s;
        }
    }
    *out = set;
    return STATUS_OK;
}

/* One JSON element: "text" or {"prompt": "text", "max_new_tokens": n}. */
static enum status add_json(struct prompt_set *set, const json_t *value, struct error *err)
{
    const json_t *text = value;
    uint32_t max_new = 0;
    if (json_is_object(value)) {
        text = json_object_get(value, "prompt");
        const json_t *limit = json_object_get(value, "max_new_tokens");
        if (limit != NULL) {
            if (!json_is_integer(limit) || json_integer_value(limit) < 1 ||
                json_integer_value(limit) > INT32_MAX) {
                return error_set(err, STATUS_BAD_DATA, -1,
                                 "\"max_new_tokens\" must be a whole number from 1");
            }
            max_new = (uint32_t)json_integer_value(limit);
        }
    }
    if (!json_is_string(text)) {
        return error_set(err, STATUS_BAD_DATA, -1,
                         "expected a string or an object with the string \"prompt\"");
    }
    return add_copy(set, json_string_value(text), json_string_length(text), max_new, err);
}

#define PROMPT_JSON_FLAGS (JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL)

static enum status parse_array(struct prompt_set *set, const char *text, size_t len,
                               const char *path, struct error *err)
{
    json_error_t at;
    json_t *root = json_loadb(text, len, PROMPT_JSON_FLAGS, &at);
    if (root == NULL) {
        return error_set(err, STATUS_BAD_DATA, at.position, "%s: line %d column %d: %s", path,
                         at.line, at.column, at.text);
    }
    enum status s = STATUS_OK;
    for (size_t i = 0; i < json_array_size(root) && s == STATUS_OK; i++) {
        s = add_json(set, json_array_get(root, i), err);
        if (s != STATUS_OK) {
            error_prefix(err, "%s: element %zu", path, i);
        }
    }
    json_decref(root);
    return s;
}

static enum status parse_json_line(struct prompt_set *set, const char *line, size_t len,
                                   struct error *err)
{
    json_error_t at;
    json_t *value = json_loadb(line, len, PROMPT_JSON_FLAGS | JSON_DECODE_ANY, &at);
    if (value == NULL) {
        return error_set(err, STATUS_BAD_DATA, at.position, "column %d: %s", at.column, at.text);
    }
    enum status s = add_json(set, value, err);
    json_decref(value);
    return s;
}

/* Lines of JSON or of text; blank ones are skipped. A text line that is not UTF-8 is taken as it
 * is: the tokenizer reads U+FFFD for its bad bytes. */
static enum status parse_lines(struct prompt_set *set, const char *text, size_t len, bool json,
                               const char *path, struct error *err)
{
    size_t number = 0;
    for (size_t at = 0; at < len;) {
        const char *end = memchr(text + at, '\n', len - at);
        size_t next = end == NULL ? len : (size_t)(end - text) + 1;
        size_t stop = end == NULL ? len : (size_t)(end - text);
        if (stop > at && text[stop - 1] == '\r') {
            stop--;
        }
        number++;
        size_t first = at;
        while (first < stop && isspace((unsigned char)text[first])) {
            first++;
        }
        if (first < stop) {
            enum status s = json ? parse_json_line(set, text + first, stop - first, err)
                                 : add_copy(set, text + at, stop - at, 0, err);
            if (s != STATUS_OK) {
                error_prefix(err, "%s: line %zu", path, number);
                return s;
            }
        }
        at = next;
    }
    return STATUS_OK;
}

enum status prompts_parse(const char *text, size_t len, const char *path, struct prompt_set *out,
                          struct error *err)
{
    struct prompt_set set = {0};
    if (len >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0) { /* a byte order mark is no prompt */
        text += 3;
        len -= 3;
    }
    size_t first = 0;
    while (first < len && isspace((unsigned char)text[first])) {
        first++;
    }
    enum status s;
    if (first < len && text[first] == '[') {
        s = parse_array(&set, text, len, path, err);
    } else {
        s = parse_lines(&set, text, len, first < len && text[first] == '{', path, err);
    }
    if (s == STATUS_OK && set.n == 0) {
        s = error_set(err, STATUS_BAD_DATA, -1, "%s: no prompts in it", path);
    }
    if (s != STATUS_OK) {
        prompts_deinit(&set);
        return s;
    }
    *out = set;
    return STATUS_OK;
}

enum status prompts_read(const char *path, struct prompt_set *out, struct error *err)
{
    char *text;
    size_t len;
    enum status s = fs_read_file(path, PROMPTS_MAX_FILE_BYTES, &text, &len, err);
    if (s == STATUS_OK) {
        s = prompts_parse(text, len, path, out, err);
        mem_free(text);
    }
    return s;
}

void prompts_deinit(struct prompt_set *set)
{
    mem_free(set->items);
    arena_deinit(&set->texts);
    memset(set, 0, sizeof *set);
}
