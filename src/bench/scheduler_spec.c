/* scheduler_spec.c - see scheduler_spec.h. */
#include "bench/scheduler_spec.h"

#include <stdio.h>
#include <string.h>

#include "sched/registry.h"

#define REMOTE_KIND "vllm"

bool scheduler_spec_is_remote(const struct scheduler_spec *spec)
{
    return spec->policy == NULL;
}

const char *scheduler_spec_kind(const struct scheduler_spec *spec)
{
    return spec->policy != NULL ? spec->policy->name : REMOTE_KIND;
}

void scheduler_spec_print(const struct scheduler_spec *spec, struct strbuf *out)
{
    if (spec->policy != NULL) {
        policy_params_print(spec->policy, &spec->params, out);
    } else if (spec->endpoint[0] != '\0') {
        strbuf_printf(out, "endpoint=%s", spec->endpoint);
    }
}

/* One parameter of either kind. A server has one: where it is. */
static enum status set_param(struct scheduler_spec *spec, const char *name, const char *value,
                             struct error *err)
{
    if (spec->policy != NULL) {
        return policy_params_set(spec->policy, &spec->params, name, value, err);
    }
    if (strcmp(name, "endpoint") != 0) {
        return error_set(err, STATUS_USAGE, -1,
                         REMOTE_KIND " has no parameter '%.80s'; it has: endpoint", name);
    }
    if (value[0] == '\0' || strlen(value) >= sizeof spec->endpoint) {
        return error_set(err, STATUS_USAGE, -1, "endpoint: a URL of 1 to %zu bytes, not %zu",
                         sizeof spec->endpoint - 1, strlen(value));
    }
    snprintf(spec->endpoint, sizeof spec->endpoint, "%s", value);
    return STATUS_OK;
}

/* "batch_size=16:pad=false"; of a server "endpoint=http://host:8000/...", colons and all. */
static enum status set_params(struct scheduler_spec *spec, const char *text, struct error *err)
{
    if (spec->policy != NULL) {
        return policy_params_parse(spec->policy, &spec->params, text, err);
    }
    size_t n = strcspn(text, "=");
    char name[SCHEDULER_LABEL_MAX];
    snprintf(name, sizeof name, "%.*s", (int)n, text);
    return set_param(spec, name, text[n] == '=' ? text + n + 1 : "", err);
}

static enum status take_label(const char *text, size_t len, struct scheduler_spec *out,
                              struct error *err)
{
    if (len == 0 || len >= SCHEDULER_LABEL_MAX) {
        return error_set(err, STATUS_USAGE, -1, "--schedulers: a label has 1 to %d bytes, not %zu",
                         SCHEDULER_LABEL_MAX - 1, len);
    }
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7F) {
            return error_set(err, STATUS_USAGE, -1,
                             "--schedulers: a label must not hold control characters");
        }
    }
    memcpy(out->label, text, len);
    out->label[len] = '\0';
    return STATUS_OK;
}

enum status scheduler_spec_parse(const char *text, struct scheduler_spec *out, struct error *err)
{
    struct scheduler_spec spec = {0};
    size_t head = strcspn(text, ":");
    const char *equals = memchr(text, '=', head);
    const char *name = equals != NULL ? equals + 1 : text;
    size_t name_len = head - (size_t)(name - text);
    enum status s = take_label(text, equals != NULL ? (size_t)(equals - text) : head, &spec, err);
    if (s != STATUS_OK) {
        return s;
    }
    char policy[SCHEDULER_LABEL_MAX];
    snprintf(policy, sizeof policy, "%.*s", (int)name_len, name);
    if (strcmp(policy, REMOTE_KIND) != 0) {
        s = registry_find(policy, &spec.policy, err);
        if (s != STATUS_OK) {
            error_prefix(err, "--schedulers (or " REMOTE_KIND ", a server)");
            return s;
        }
        spec.params = policy_params_default(spec.policy);
    }
    if (text[head] == ':') {
        s = set_params(&spec, text + head + 1, err);
        if (s != STATUS_OK) {
            error_prefix(err, "--schedulers %s", spec.label);
            return s;
        }
    }
    *out = spec;
    return STATUS_OK;
}

enum status scheduler_spec_set(struct scheduler_spec *specs, size_t n, const char *text,
                               struct error *err)
{
    const char *equals = strchr(text, '=');
    const char *dot = equals == NULL ? NULL : memrchr(text, '.', (size_t)(equals - text));
    if (dot == NULL || dot == text || dot + 1 == equals) {
        return error_set(err, STATUS_USAGE, -1,
                         "--set %s: expected SCHEDULER.PARAMETER=VALUE, as in "
                         "--set dynamic.max_batch_size=64",
                         text);
    }
    char target[SCHEDULER_LABEL_MAX];
    char param[SCHEDULER_LABEL_MAX];
    snprintf(target, sizeof target, "%.*s", (int)(dot - text), text);
    snprintf(param, sizeof param, "%.*s", (int)(equals - dot - 1), dot + 1);
    size_t matches = 0;
    for (int by_policy = 0; by_policy < 2 && matches == 0; by_policy++) {
        for (size_t i = 0; i < n; i++) {
            const char *name = by_policy ? scheduler_spec_kind(&specs[i]) : specs[i].label;
            if (strcmp(name, target) != 0) {
                continue;
            }
            matches++;
            enum status s = set_param(&specs[i], param, equals + 1, err);
            if (s != STATUS_OK) {
                error_prefix(err, "--set %s", text);
                return s;
            }
        }
    }
    if (matches == 0) {
        return error_set(err, STATUS_USAGE, -1,
                         "--set %s: no scheduler of this run is called \"%s\"", text, target);
    }
    return STATUS_OK;
}

enum status scheduler_spec_check(const struct scheduler_spec *specs, size_t n, struct error *err)
{
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < i; j++) {
            if (strcmp(specs[i].label, specs[j].label) == 0) {
                return error_set(err, STATUS_USAGE, -1,
                                 "--schedulers: \"%s\" stands twice; give one a label, as in "
                                 "big=%s:...",
                                 specs[i].label, scheduler_spec_kind(&specs[i]));
            }
        }
        enum status s = specs[i].policy == NULL
                            ? STATUS_OK
                            : policy_params_check(specs[i].policy, &specs[i].params, err);
        if (s != STATUS_OK) {
            error_prefix(err, "%s", specs[i].label);
            return s;
        }
    }
    return STATUS_OK;
}
