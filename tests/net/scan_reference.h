/* scan_reference.h - the rules of event_scan.h over a jansson tree: slow, plain, independent. */
#ifndef LLMSCHED_TESTS_SCAN_REFERENCE_H
#define LLMSCHED_TESTS_SCAN_REFERENCE_H

#include <jansson.h>
#include <string.h>

#include "net/event_scan.h"

/* Whether tree value v and scanned text t agree; a value that may be a string or null. */
static inline bool ref_text(const json_t *v, struct scan_text t, bool *well_typed)
{
    if (v == NULL || json_is_null(v)) {
        return t.at == NULL;
    }
    if (!json_is_string(v)) {
        *well_typed = false;
        return true;
    }
    return t.at != NULL && t.len == json_string_length(v) &&
           memcmp(t.at, json_string_value(v), t.len) == 0;
}

static inline bool ref_count(const json_t *v, uint64_t got, uint64_t absent, int64_t most,
                             bool *well_typed)
{
    if (v == NULL || json_is_null(v)) {
        return got == absent;
    }
    if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > most) {
        *well_typed = false;
        return true;
    }
    return got == (uint64_t)json_integer_value(v);
}

static inline bool ref_object(const json_t *v, bool *well_typed)
{
    if (v != NULL && !json_is_null(v) && !json_is_object(v)) {
        *well_typed = false;
    }
    return json_is_object(v);
}

static inline bool ref_choice(const json_t *v, const struct scan_choice *c, bool *well_typed)
{
    if (!json_is_object(v)) {
        *well_typed = false;
        return true;
    }
    bool same = ref_count(json_object_get(v, "index"), c->index, 0, INT32_MAX, well_typed);
    /* one of the three places; two of them at once are not generated */
    const json_t *text = json_object_get(v, "text");
    const json_t *reasoning = NULL;
    static const char *const messages[] = {"delta", "message"};
    for (int i = 0; i < 2; i++) {
        const json_t *m = json_object_get(v, messages[i]);
        if (ref_object(m, well_typed)) {
            text = json_object_get(m, "content");
            reasoning = json_object_get(m, "reasoning_content");
            if (reasoning == NULL) {
                reasoning = json_object_get(m, "reasoning");
            }
        }
    }
    same = ref_text(text, c->text, well_typed) && same;
    same = ref_text(reasoning, c->reasoning, well_typed) && same;
    const json_t *finish = json_object_get(v, "finish_reason");
    if (finish == NULL || json_is_null(finish)) {
        same = same && c->finish == SCAN_FINISH_NONE;
    } else if (!json_is_string(finish)) {
        *well_typed = false;
    } else {
        const char *s = json_string_value(finish);
        bool whole = strlen(s) == json_string_length(finish);
        enum scan_finish f = !whole                     ? SCAN_FINISH_OTHER
                             : strcmp(s, "stop") == 0   ? SCAN_FINISH_STOP
                             : strcmp(s, "length") == 0 ? SCAN_FINISH_LENGTH
                             : strcmp(s, "abort") == 0  ? SCAN_FINISH_ABORT
                             : strcmp(s, "error") == 0  ? SCAN_FINISH_ERROR
                                                        : SCAN_FINISH_OTHER;
        same = same && c->finish == f;
    }
    const json_t *ids = json_object_get(v, "token_ids");
    if (ids == NULL || json_is_null(ids)) {
        return same && !c->has_token_ids;
    }
    if (!json_is_array(ids)) {
        *well_typed = false;
        return true;
    }
    same = same && c->has_token_ids && c->n_token_ids == json_array_size(ids);
    for (size_t i = 0; i < json_array_size(ids); i++) {
        uint64_t got = same ? (uint64_t)c->token_ids[i] : 0;
        same = ref_count(json_array_get(ids, i), got, UINT64_MAX, INT32_MAX, well_typed) && same;
        if (json_is_null(json_array_get(ids, i))) {
            *well_typed = false;
        }
    }
    return same;
}

static inline bool ref_truthy(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        return json_object_size(v) > 0;
    case JSON_ARRAY:
        return json_array_size(v) > 0;
    case JSON_STRING:
        return json_string_length(v) > 0;
    case JSON_INTEGER:
        return json_integer_value(v) != 0;
    case JSON_REAL:
        return json_real_value(v) != 0.0;
    case JSON_TRUE:
        return true;
    default:
        return false;
    }
}

static inline bool ref_words(const json_t *v, struct scan_text t)
{
    bool ignored = true;
    return json_is_string(v) ? ref_text(v, t, &ignored) : t.at == NULL;
}

static inline bool ref_error(const json_t *v, const struct scan_error *e)
{
    const json_t *code = json_object_get(v, "code");
    return ref_words(json_object_get(v, "message"), e->message) &&
           ref_words(json_object_get(v, "type"), e->type) &&
           e->code == (json_is_integer(code) ? json_integer_value(code) : 0);
}

/* Whether the scan of this tree is right, given that every known field is well typed; *well_typed
 * says whether that is so. */
static inline bool ref_event(const json_t *root, const struct event_scan *e, bool *well_typed)
{
    *well_typed = json_is_object(root);
    bool same = true;
    const json_t *choices = json_object_get(root, "choices");
    if (json_is_array(choices)) {
        size_t n = json_array_size(choices);
        same = n == e->n_choices;
        for (size_t i = 0; i < n; i++) {
            static const struct scan_choice none;
            const struct scan_choice *c = i < e->n_choices ? &e->choices[i] : &none;
            same = ref_choice(json_array_get(choices, i), c, well_typed) && same;
        }
    } else if (choices != NULL && !json_is_null(choices)) {
        *well_typed = false;
    }
    const json_t *usage = json_object_get(root, "usage");
    bool has_usage = ref_object(usage, well_typed);
    const struct scan_usage *u = &e->usage;
    const json_t *details = json_object_get(usage, "prompt_tokens_details");
    (void)ref_object(details, well_typed);
    same = same && e->has_usage == has_usage;
    same = ref_count(json_object_get(usage, "prompt_tokens"), u->prompt_tokens, SCAN_NO_COUNT,
                     INT64_MAX, well_typed) &&
           same;
    same = ref_count(json_object_get(usage, "completion_tokens"), u->completion_tokens,
                     SCAN_NO_COUNT, INT64_MAX, well_typed) &&
           same;
    same = ref_count(json_object_get(usage, "total_tokens"), u->total_tokens, SCAN_NO_COUNT,
                     INT64_MAX, well_typed) &&
           same;
    same = ref_count(json_object_get(details, "cached_tokens"), u->cached_tokens, SCAN_NO_COUNT,
                     INT64_MAX, well_typed) &&
           same;
    const json_t *error = json_object_get(root, "error");
    const json_t *object = json_object_get(root, "object");
    if (error != NULL && ref_truthy(error)) {
        same = same && e->has_error;
        same = same && (json_is_string(error) ? ref_words(error, e->error.message)
                                              : ref_error(error, &e->error));
    } else if (json_is_string(object) && json_string_length(object) == 5 &&
               strcmp(json_string_value(object), "error") == 0) {
        same = same && e->has_error && ref_error(root, &e->error);
    } else {
        same = same && !e->has_error;
    }
    return same;
}

#endif
