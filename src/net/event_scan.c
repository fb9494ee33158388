/* event_scan.c - the fields of an event, over the cursor of json_scan_int.h. */
#include "net/event_scan.h"

#include <assert.h>
#include <string.h>

#include "net/json_scan_int.h"

struct scan {
    struct json_cursor c;
    const struct scan_buffers *buffers;
    size_t text_used;
    size_t ids_used;
};

static const char *const bad_texts[SCAN_BAD_COUNT] = {
#define SCAN_BAD_TEXT(name, text) text,
    SCAN_BAD_LIST(SCAN_BAD_TEXT)
#undef SCAN_BAD_TEXT
};

const char *scan_bad_text(enum scan_bad bad)
{
    assert(bad < SCAN_BAD_COUNT);
    return bad_texts[bad];
}

bool event_is_done(const char *data, size_t n)
{
    return n >= 6 && memcmp(data, "[DONE]", 6) == 0;
}

/* ---- objects as tables of known fields ---- */

/* Reads one value into target, which is of the type the table's object has. */
struct field {
    const char *name;
    uint32_t name_len;
    bool (*read)(struct scan *s, void *target);
};
#define FIELD(name, read)                                                                          \
    {                                                                                              \
        name, sizeof(name) - 1, read                                                               \
    }

static bool is_field(const struct json_text *key, const struct field *f)
{
    return (key->len == f->name_len || key->is_escaped) &&
           cursor_text_is(key, f->name, f->name_len);
}

/* The object that is next; known fields go to their readers, once each, others are skipped. */
static bool object(struct scan *s, const struct field *fields, uint32_t n_fields, void *target)
{
    if (cursor_peek(&s->c) != '{') {
        return cursor_wrong_type(&s->c);
    }
    if (!cursor_enter(&s->c)) {
        return false;
    }
    uint32_t seen = 0;
    uint32_t n = 0;
    struct json_text key;
    int more;
    while ((more = cursor_member(&s->c, &n, &key)) > 0) {
        uint32_t i = 0;
        while (i < n_fields && !is_field(&key, &fields[i])) {
            i++;
        }
        if (i == n_fields) {
            if (!cursor_skip(&s->c)) {
                return false;
            }
            continue;
        }
        if ((seen & (1U << i)) != 0) {
            return cursor_fail(&s->c, SCAN_DUPLICATE);
        }
        seen |= 1U << i;
        if (!fields[i].read(s, target)) {
            return false;
        }
    }
    return more == 0;
}
#define OBJECT(s, fields, target)                                                                  \
    object((s), (fields), (uint32_t)(sizeof(fields) / sizeof(fields)[0]), (target))

static bool enter_array(struct scan *s)
{
    return cursor_peek(&s->c) == '[' ? cursor_enter(&s->c) : cursor_wrong_type(&s->c);
}

/* ---- plain values ---- */

/* The characters of raw into *text: raw itself, or the caller's buffer where there are escapes. */
static bool unescape(struct scan *s, const struct json_text *raw, struct scan_text *text)
{
    *text = (struct scan_text){raw->at, raw->len};
    if (!raw->is_escaped) {
        return true;
    }
    size_t room = s->buffers->text_cap - s->text_used;
    if (room == 0) { /* an escape stands for a byte at least */
        return false;
    }
    char *out = s->buffers->text + s->text_used;
    size_t len = cursor_unescape(raw, out, room);
    if (len == SIZE_MAX) {
        return false;
    }
    s->text_used += len;
    *text = (struct scan_text){out, len};
    return true;
}

/* A string or null into *text. */
static bool read_text(struct scan *s, struct scan_text *text)
{
    if (cursor_null(&s->c)) {
        return true;
    }
    struct json_text raw;
    if (!cursor_string(&s->c, &raw)) {
        return false;
    }
    return unescape(s, &raw, text) || cursor_fail(&s->c, SCAN_TEXT_LONG);
}

/* An integer in 0..most, or null (then *value stays). */
static bool read_count(struct scan *s, int64_t most, uint64_t *value)
{
    if (cursor_null(&s->c)) {
        return true;
    }
    int64_t got;
    if (!cursor_integer(&s->c, &got)) {
        return false;
    }
    if (got < 0 || got > most) {
        return cursor_fail(&s->c, SCAN_TYPE);
    }
    *value = (uint64_t)got;
    return true;
}

/* ---- choices ---- */

static bool read_choice_text(struct scan *s, void *target)
{
    return read_text(s, &((struct scan_choice *)target)->text);
}

static bool read_reasoning(struct scan *s, void *target)
{
    return read_text(s, &((struct scan_choice *)target)->reasoning);
}

static bool read_message(struct scan *s, void *target)
{
    static const struct field fields[] = {
        FIELD("content", read_choice_text),
        FIELD("reasoning_content", read_reasoning),
        FIELD("reasoning", read_reasoning),
    };
    return cursor_null(&s->c) || OBJECT(s, fields, target);
}

static bool read_index(struct scan *s, void *target)
{
    uint64_t index = 0;
    if (!read_count(s, INT32_MAX, &index)) {
        return false;
    }
    ((struct scan_choice *)target)->index = (uint32_t)index;
    return true;
}

static bool read_finish(struct scan *s, void *target)
{
    static const struct {
        const char *name;
        size_t len;
        enum scan_finish finish;
    } names[] = {
        {"stop", 4, SCAN_FINISH_STOP},
        {"length", 6, SCAN_FINISH_LENGTH},
        {"abort", 5, SCAN_FINISH_ABORT},
        {"error", 5, SCAN_FINISH_ERROR},
    };
    if (cursor_null(&s->c)) {
        return true;
    }
    struct json_text name;
    if (!cursor_string(&s->c, &name)) {
        return false;
    }
    enum scan_finish *finish = &((struct scan_choice *)target)->finish;
    *finish = SCAN_FINISH_OTHER;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (cursor_text_is(&name, names[i].name, names[i].len)) {
            *finish = names[i].finish;
        }
    }
    return true;
}

static bool read_token_ids(struct scan *s, void *target)
{
    struct scan_choice *choice = target;
    if (cursor_null(&s->c)) {
        return true;
    }
    if (!enter_array(s)) {
        return false;
    }
    choice->has_token_ids = true;
    choice->token_ids = s->buffers->ids_cap > 0 ? s->buffers->ids + s->ids_used : NULL;
    uint32_t n = 0;
    int more;
    while ((more = cursor_element(&s->c, &n)) > 0) {
        int64_t id;
        if (!cursor_integer(&s->c, &id)) {
            return false;
        }
        if (id < 0 || id > INT32_MAX) {
            return cursor_fail(&s->c, SCAN_TYPE);
        }
        if (s->ids_used == s->buffers->ids_cap) {
            return cursor_fail(&s->c, SCAN_IDS_LONG);
        }
        s->buffers->ids[s->ids_used++] = (int32_t)id;
        choice->n_token_ids++;
    }
    return more == 0;
}

static bool read_choices(struct scan *s, void *target)
{
    static const struct field fields[] = {
        FIELD("index", read_index),          FIELD("text", read_choice_text),
        FIELD("delta", read_message),        FIELD("message", read_message),
        FIELD("finish_reason", read_finish), FIELD("token_ids", read_token_ids),
    };
    struct event_scan *out = target;
    if (cursor_null(&s->c)) {
        return true;
    }
    if (!enter_array(s)) {
        return false;
    }
    uint32_t n = 0;
    int more;
    while ((more = cursor_element(&s->c, &n)) > 0) {
        if (out->n_choices == EVENT_SCAN_MAX_CHOICES) {
            return cursor_fail(&s->c, SCAN_CHOICES);
        }
        struct scan_choice *choice = &out->choices[out->n_choices];
        *choice = (struct scan_choice){.finish = SCAN_FINISH_NONE};
        if (!OBJECT(s, fields, choice)) {
            return false;
        }
        out->n_choices++;
    }
    return more == 0;
}

/* ---- usage ---- */

static bool read_prompt_tokens(struct scan *s, void *target)
{
    return read_count(s, INT64_MAX, &((struct scan_usage *)target)->prompt_tokens);
}

static bool read_completion_tokens(struct scan *s, void *target)
{
    return read_count(s, INT64_MAX, &((struct scan_usage *)target)->completion_tokens);
}

static bool read_total_tokens(struct scan *s, void *target)
{
    return read_count(s, INT64_MAX, &((struct scan_usage *)target)->total_tokens);
}

static bool read_cached_tokens(struct scan *s, void *target)
{
    return read_count(s, INT64_MAX, &((struct scan_usage *)target)->cached_tokens);
}

static bool read_prompt_details(struct scan *s, void *target)
{
    static const struct field fields[] = {FIELD("cached_tokens", read_cached_tokens)};
    return cursor_null(&s->c) || OBJECT(s, fields, target);
}

static bool read_usage(struct scan *s, void *target)
{
    static const struct field fields[] = {
        FIELD("prompt_tokens", read_prompt_tokens),
        FIELD("completion_tokens", read_completion_tokens),
        FIELD("total_tokens", read_total_tokens),
        FIELD("prompt_tokens_details", read_prompt_details),
    };
    struct event_scan *out = target;
    if (cursor_null(&s->c)) {
        return true;
    }
    out->has_usage = true;
    return OBJECT(s, fields, &out->usage);
}

/* ---- errors ---- */

/* The words of an error. Another type than a string is read over, and a text that does not fit is
 * given as it is written: an error must not be lost over its words. */
static bool read_words(struct scan *s, struct scan_text *text)
{
    struct json_text raw;
    if (cursor_peek(&s->c) != '"') {
        return cursor_skip(&s->c);
    }
    if (!cursor_string(&s->c, &raw)) {
        return false;
    }
    (void)unescape(s, &raw, text);
    return true;
}

static bool read_error_message(struct scan *s, void *target)
{
    return read_words(s, &((struct scan_error *)target)->message);
}

static bool read_error_type(struct scan *s, void *target)
{
    return read_words(s, &((struct scan_error *)target)->type);
}

static bool read_error_code(struct scan *s, void *target)
{
    struct json_cursor before = s->c;
    if (cursor_integer(&s->c, &((struct scan_error *)target)->code)) {
        return true;
    }
    if (s->c.bad != SCAN_TYPE) {
        return false;
    }
    s->c = before;
    return cursor_skip(&s->c);
}

/* What Python calls true, for clients raise on any truthy error. By value: the cursor stays. */
static bool is_truthy(struct json_cursor c)
{
    char b = cursor_peek(&c);
    switch (b) {
    case '"':
        return c.end - c.at > 1 && c.at[1] != '"';
    case '{':
    case '[':
        c.at++;
        return cursor_peek(&c) != b + 2; /* ']' is '[' + 2, '}' is '{' + 2 */
    case 't':
        return true;
    case 'f':
    case 'n':
        return false;
    default: /* a number: 0, -0.0 and 0e9 are false */
        while (c.at < c.end && strchr("-.0", *c.at) != NULL && *c.at != '\0') {
            c.at++;
        }
        return c.at < c.end && *c.at >= '1' && *c.at <= '9';
    }
}

static const struct field error_fields[] = {
    FIELD("message", read_error_message),
    FIELD("type", read_error_type),
    FIELD("code", read_error_code),
};

static bool read_error(struct scan *s, struct event_scan *out)
{
    out->has_error = is_truthy(s->c);
    return cursor_peek(&s->c) == '{' ? OBJECT(s, error_fields, &out->error)
                                     : read_words(s, &out->error.message);
}

/* ---- the event ---- */

/* An error of vLLM's former form has its words at the top; they count when "object" is "error". */
struct top {
    struct event_scan *out;
    struct scan_error words;
    bool is_error;
};

static bool read_top_choices(struct scan *s, void *target)
{
    return read_choices(s, ((struct top *)target)->out);
}

static bool read_top_usage(struct scan *s, void *target)
{
    return read_usage(s, ((struct top *)target)->out);
}

static bool read_top_error(struct scan *s, void *target)
{
    return read_error(s, ((struct top *)target)->out);
}

static bool read_object_name(struct scan *s, void *target)
{
    struct json_text name;
    if (cursor_peek(&s->c) != '"') {
        return cursor_skip(&s->c);
    }
    if (!cursor_string(&s->c, &name)) {
        return false;
    }
    ((struct top *)target)->is_error = cursor_text_is(&name, "error", 5);
    return true;
}

static bool read_top_message(struct scan *s, void *target)
{
    return read_error_message(s, &((struct top *)target)->words);
}

static bool read_top_type(struct scan *s, void *target)
{
    return read_error_type(s, &((struct top *)target)->words);
}

static bool read_top_code(struct scan *s, void *target)
{
    return read_error_code(s, &((struct top *)target)->words);
}

enum scan_bad event_scan(const char *json, size_t n, const struct scan_buffers *buffers,
                         struct event_scan *out)
{
    static const struct field fields[] = {
        FIELD("choices", read_top_choices), FIELD("usage", read_top_usage),
        FIELD("error", read_top_error),     FIELD("object", read_object_name),
        FIELD("message", read_top_message), FIELD("type", read_top_type),
        FIELD("code", read_top_code),
    };
    struct scan s = {.c = {.at = json, .end = json + n}, .buffers = buffers};
    struct top top = {.out = out};
    out->n_choices = 0;
    out->has_usage = false;
    out->usage = (struct scan_usage){SCAN_NO_COUNT, SCAN_NO_COUNT, SCAN_NO_COUNT, SCAN_NO_COUNT};
    out->has_error = false;
    out->error = (struct scan_error){0};
    if (OBJECT(&s, fields, &top)) {
        (void)cursor_peek(&s.c);
        if (s.c.at < s.c.end) {
            cursor_fail(&s.c, SCAN_SYNTAX);
        }
    }
    if (top.is_error && !out->has_error) {
        out->has_error = true;
        out->error = top.words;
    }
    out->bad_at = (size_t)(s.c.at - json);
    return s.c.bad;
}
