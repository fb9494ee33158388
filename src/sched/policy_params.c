/* policy_params.c - see policy_params.h. */
#include "sched/policy_params.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "sched/nearest_int.h"

/* Longest name or value that is looked at; longer text is an error, not cut. */
#define TEXT_LIMIT 63

struct policy_params policy_params_default(const struct policy_class *class)
{
    struct policy_params params = {{0}};
    assert(class->n_params <= POLICY_MAX_PARAMS);
    for (uint32_t i = 0; i < class->n_params; i++) {
        params.values[i] = class->params[i].fallback;
    }
    return params;
}

const char *param_type_name(enum param_type type)
{
    switch (type) {
    case PARAM_INT:
        return "int";
    case PARAM_REAL:
        return "real";
    case PARAM_BOOL:
        return "bool";
    case PARAM_ENUM:
        return "choice";
    case PARAM_SECONDS:
        return "seconds";
    }
    return "unknown";
}

/* The shortest of %.1g .. %.17g that reads back to the same double. */
static void put_number(struct strbuf *out, double value)
{
    struct strbuf digits = {0};
    for (int precision = 1; precision <= 17; precision++) {
        strbuf_clear(&digits);
        strbuf_printf(&digits, "%.*g", precision, value);
        if (digits.failed || strtod(strbuf_text(&digits), NULL) == value) {
            break;
        }
    }
    if (fabs(value) < 1e15 && value == floor(value)) {
        strbuf_printf(out, "%.0f", value); /* 40, not 4e+01 */
    } else {
        strbuf_puts(out, strbuf_text(&digits));
    }
    out->failed = out->failed || digits.failed;
    strbuf_deinit(&digits);
}

/* The idx-th word of "a|b|c"; length 0 when there is none. */
static const char *choice_at(const char *choices, uint32_t idx, size_t *length)
{
    const char *word = choices;
    for (uint32_t i = 0; i < idx; i++) {
        word = strchr(word, '|');
        if (word == NULL) {
            *length = 0;
            return "";
        }
        word++;
    }
    *length = strcspn(word, "|");
    return word;
}

void param_value_text(const struct param_spec *spec, double value, struct strbuf *out)
{
    size_t length;
    switch (spec->type) {
    case PARAM_BOOL:
        strbuf_puts(out, value != 0.0 ? "true" : "false");
        return;
    case PARAM_ENUM: {
        const char *word = choice_at(spec->choices, (uint32_t)value, &length);
        strbuf_append(out, word, length);
        return;
    }
    case PARAM_INT:
    case PARAM_REAL:
    case PARAM_SECONDS:
        put_number(out, value);
        return;
    }
}

void param_range_text(const struct param_spec *spec, struct strbuf *out)
{
    switch (spec->type) {
    case PARAM_BOOL:
        strbuf_puts(out, "true|false");
        return;
    case PARAM_ENUM:
        strbuf_puts(out, spec->choices);
        return;
    case PARAM_INT:
    case PARAM_REAL:
    case PARAM_SECONDS:
        put_number(out, spec->min);
        strbuf_puts(out, "..");
        put_number(out, spec->max);
        return;
    }
}

static bool parse_bool(const char *text, double *value)
{
    static const char *const words[] = {"false", "true", "off", "on", "no", "yes", "0", "1"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcasecmp(text, words[i]) == 0) {
            *value = (double)(i % 2);
            return true;
        }
    }
    return false;
}

static bool parse_choice(const char *choices, const char *text, double *value)
{
    size_t length;
    const char *word;
    for (uint32_t i = 0; (word = choice_at(choices, i, &length)), length > 0; i++) {
        if (strlen(text) == length && strncasecmp(text, word, length) == 0) {
            *value = (double)i;
            return true;
        }
    }
    return false;
}

/* A decimal number with nothing after it; seconds may end in "s" or "ms". */
static bool parse_number(enum param_type type, const char *text, double *value)
{
    if (strspn(text, "+-.0123456789eEms") != strlen(text)) {
        return false; /* no spaces, hexadecimal, inf or nan */
    }
    char *end;
    double x = strtod(text, &end);
    if (end == text) {
        return false;
    }
    if (type == PARAM_SECONDS && strcmp(end, "ms") == 0) {
        x /= 1000.0;
    } else if (*end != '\0' && !(type == PARAM_SECONDS && strcmp(end, "s") == 0)) {
        return false;
    }
    if (type == PARAM_INT && x != floor(x)) {
        return false;
    }
    *value = x;
    return true;
}

static bool in_range(const struct param_spec *spec, double value)
{
    switch (spec->type) {
    case PARAM_BOOL:
        return value == 0.0 || value == 1.0;
    case PARAM_ENUM: {
        size_t length = 0;
        if (value >= 0.0 && value < 1e6 && value == floor(value)) {
            choice_at(spec->choices, (uint32_t)value, &length);
        }
        return length > 0;
    }
    case PARAM_INT:
        return value >= spec->min && value <= spec->max && value == floor(value);
    case PARAM_REAL:
    case PARAM_SECONDS:
        return value >= spec->min && value <= spec->max;
    }
    return false;
}

static enum status fail_value(const struct policy_class *class, const struct param_spec *spec,
                              const char *text, struct error *err)
{
    static const char *const wanted[] = {
        [PARAM_INT] = "a whole number in", [PARAM_REAL] = "a number in",   [PARAM_BOOL] = "one of",
        [PARAM_ENUM] = "one of",           [PARAM_SECONDS] = "seconds in",
    };
    struct strbuf range = {0};
    param_range_text(spec, &range);
    enum status s = error_set(err, STATUS_USAGE, -1, "%s.%s=%.80s: want %s %s", class->name,
                              spec->name, text, wanted[spec->type], strbuf_text(&range));
    strbuf_deinit(&range);
    return s;
}

static enum status fail_name(const struct policy_class *class, const char *name, struct error *err)
{
    struct strbuf known = {0};
    const char *nearest = NULL;
    uint32_t best = UINT32_MAX;
    for (uint32_t i = 0; i < class->n_params; i++) {
        strbuf_printf(&known, "%s%s", i > 0 ? ", " : "", class->params[i].name);
        uint32_t d = nearest_distance(name, class->params[i].name);
        if (d < best) {
            best = d;
            nearest = class->params[i].name;
        }
    }
    bool close = nearest != NULL && nearest_is_close(nearest, best);
    enum status s =
        error_set(err, STATUS_USAGE, -1, "%s has no parameter '%.80s'%s%s%s; it has: %s",
                  class->name, name, close ? " (did you mean '" : "", close ? nearest : "",
                  close ? "'?)" : "", class->n_params > 0 ? strbuf_text(&known) : "none");
    strbuf_deinit(&known);
    return s;
}

enum status policy_params_set(const struct policy_class *class, struct policy_params *params,
                              const char *name, const char *text, struct error *err)
{
    uint32_t i = 0;
    while (i < class->n_params && strcmp(class->params[i].name, name) != 0) {
        i++;
    }
    if (i == class->n_params) {
        return fail_name(class, name, err);
    }
    const struct param_spec *spec = &class->params[i];
    double value = 0.0;
    bool ok;
    if (spec->type == PARAM_BOOL) {
        ok = parse_bool(text, &value);
    } else if (spec->type == PARAM_ENUM) {
        ok = parse_choice(spec->choices, text, &value);
    } else {
        ok = parse_number(spec->type, text, &value);
    }
    if (!ok || !in_range(spec, value)) {
        return fail_value(class, spec, text, err);
    }
    params->values[i] = value;
    return STATUS_OK;
}

enum status policy_params_parse(const struct policy_class *class, struct policy_params *params,
                                const char *text, struct error *err)
{
    struct policy_params result = *params;
    const char *rest = text;
    while (*rest != '\0') {
        size_t length = strcspn(rest, ":");
        const char *equals = memchr(rest, '=', length);
        char name[TEXT_LIMIT + 1];
        char value[TEXT_LIMIT + 1];
        if (equals == NULL || equals == rest) {
            return error_set(err, STATUS_USAGE, rest - text, "%s: '%.*s': want name=value",
                             class->name, (int)(length < 80 ? length : 80), rest);
        }
        size_t n_name = (size_t)(equals - rest);
        size_t n_value = length - n_name - 1;
        if (n_name > TEXT_LIMIT || n_value > TEXT_LIMIT) {
            return error_set(err, STATUS_USAGE, rest - text,
                             "%s: '%.40s...': a name or value is longer than %d bytes", class->name,
                             rest, TEXT_LIMIT);
        }
        memcpy(name, rest, n_name);
        name[n_name] = '\0';
        memcpy(value, equals + 1, n_value);
        value[n_value] = '\0';
        enum status s = policy_params_set(class, &result, name, value, err);
        if (s != STATUS_OK) {
            return s;
        }
        rest += length;
        if (*rest == ':') {
            rest++;
        }
    }
    *params = result;
    return STATUS_OK;
}

enum status policy_params_check(const struct policy_class *class,
                                const struct policy_params *params, struct error *err)
{
    for (uint32_t i = 0; i < class->n_params; i++) {
        if (!in_range(&class->params[i], params->values[i])) {
            struct strbuf text = {0};
            put_number(&text, params->values[i]);
            enum status s = fail_value(class, &class->params[i], strbuf_text(&text), err);
            strbuf_deinit(&text);
            return s;
        }
    }
    const char *fault = class->check != NULL ? class->check(params) : NULL;
    if (fault != NULL) {
        return error_set(err, STATUS_USAGE, -1, "%s: %s", class->name, fault);
    }
    return STATUS_OK;
}

void policy_params_print(const struct policy_class *class, const struct policy_params *params,
                         struct strbuf *out)
{
    for (uint32_t i = 0; i < class->n_params; i++) {
        strbuf_printf(out, "%s%s=", i > 0 ? " " : "", class->params[i].name);
        param_value_text(&class->params[i], params->values[i], out);
    }
}
