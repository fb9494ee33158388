/* fields.c - see fields_int.h. */
#include "fields_int.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "number_int.h"

#define TABLE(array)                                                                               \
    {                                                                                              \
        .fields = (array), .n = sizeof(array) / sizeof((array)[0])                                 \
    }
#define NEEDED (FIELD_REQUIRED | FIELD_FILLED)

#define RUN(column, kind, flags, member)                                                           \
    {                                                                                              \
        column, FIELD_##kind, flags, offsetof(struct run, member)                                  \
    }
#define SUM(column, kind, flags)    RUN(#column, kind, flags, summary.column)
#define REMOTE(column, kind, flags) RUN(#column, kind, flags, remote.column)
#define QUANTILES(prefix, flags)                                                                   \
    RUN(#prefix "_p50_s", REAL, flags, summary.prefix.p50_s),                                      \
        RUN(#prefix "_p95_s", REAL, flags, summary.prefix.p95_s),                                  \
        RUN(#prefix "_p99_s", REAL, flags, summary.prefix.p99_s),                                  \
        RUN(#prefix "_avg_s", REAL, flags, summary.prefix.avg_s),                                  \
        RUN(#prefix "_min_s", REAL, flags, summary.prefix.min_s),                                  \
        RUN(#prefix "_max_s", REAL, flags, summary.prefix.max_s)

static const struct field run_array[] = {
    RUN("scheduler", TEXT, NEEDED, scheduler),
    RUN("request_size", COUNT, NEEDED, request_size),
    RUN("run_num", COUNT, NEEDED, run_num),
    SUM(total_requests, COUNT, NEEDED),
    SUM(successful_requests, COUNT, NEEDED),
    SUM(failed_requests, COUNT, NEEDED),
    SUM(wall_time_s, REAL, NEEDED),
    SUM(throughput_req_per_sec, REAL, NEEDED),
    SUM(throughput_tokens_per_sec, REAL, NEEDED),
    QUANTILES(latency, FIELD_REQUIRED),
    QUANTILES(ttft, 0),
    QUANTILES(tpot, 0),
    QUANTILES(queue, 0),
    SUM(tpot_samples, COUNT, 0),
    SUM(mean_batch_size, REAL, 0),
    SUM(batch_efficiency, REAL, 0),
    SUM(computed_rows, COUNT, FIELD_OPTIONAL),
    SUM(padding_tokens, COUNT, FIELD_OPTIONAL),
    SUM(recomputed_tokens, COUNT, FIELD_OPTIONAL),
    SUM(output_tokens, COUNT, 0),
    SUM(kv_peak_blocks, COUNT, FIELD_OPTIONAL),
    SUM(preemptions, COUNT, FIELD_OPTIONAL),
    SUM(steps, COUNT, FIELD_OPTIONAL),
    SUM(useful_s, REAL, 0),
    SUM(padding_s, REAL, 0),
    SUM(recompute_s, REAL, 0),
    SUM(fill_wait_s, REAL, 0),
    SUM(idle_s, REAL, 0),
    SUM(overhead_s, REAL, 0),
    SUM(engine_idle_frac, REAL, 0),
    SUM(plan_mean_us, REAL, 0),
    SUM(peak_rss_bytes, COUNT, FIELD_OPTIONAL),
    RUN("policy", TEXT, 0, policy),
    RUN("params", TEXT, 0, params),
    RUN("fill_target", COUNT, 0, fill_target),
    RUN("seed", COUNT, 0, seed),
    RUN("invalid", TEXT, 0, invalid),
    RUN("incomparable", TEXT, 0, incomparable),
    REMOTE(endpoint, TEXT, 0),
    REMOTE(served_model, TEXT, 0),
    REMOTE(server_version, TEXT, 0),
    REMOTE(token_source, TEXT, 0),
    REMOTE(errors, TEXT, 0),
    REMOTE(server_prompt_tokens, COUNT, FIELD_OPTIONAL),
    REMOTE(cached_prompt_frac, REAL, 0),
    REMOTE(tokens_per_event, REAL, 0),
    REMOTE(client_lag_p50_s, REAL, 0),
    REMOTE(client_lag_p99_s, REAL, 0),
    REMOTE(client_cpu_frac, REAL, 0),
};
const struct field_table run_fields = TABLE(run_array);

#define ROW(column, kind, flags, member)                                                           \
    {                                                                                              \
        column, FIELD_##kind, flags, offsetof(struct request_row, member)                          \
    }

static const struct field row_array[] = {
    ROW("request_id", COUNT, NEEDED, request_id),
    ROW("status", STATUS, NEEDED, status),
    ROW("arrival_s", REAL, FIELD_REQUIRED, arrival_s),
    ROW("queue_s", REAL, FIELD_REQUIRED, queue_s),
    ROW("ttft_s", REAL, FIELD_REQUIRED, ttft_s),
    ROW("tpot_s", REAL, 0, tpot_s),
    ROW("latency_s", REAL, FIELD_REQUIRED, latency_s),
    ROW("input_tokens", COUNT, FIELD_REQUIRED | FIELD_OPTIONAL, input_tokens),
    ROW("output_tokens", COUNT, FIELD_REQUIRED, output_tokens),
    ROW("tokens_per_sec", REAL, FIELD_REQUIRED, tokens_per_sec),
    ROW("batch_size", COUNT, FIELD_REQUIRED | FIELD_OPTIONAL, batch_size),
    ROW("preemptions", COUNT, FIELD_REQUIRED | FIELD_OPTIONAL, preemptions),
    ROW("output_hash", HASH, FIELD_OPTIONAL, output_hash),
    ROW("prompt", TEXT, FIELD_REQUIRED, prompt),
    ROW("generated_text", TEXT, FIELD_REQUIRED, generated_text),
    ROW("error", TEXT, FIELD_REQUIRED, error),
    ROW("http_status", COUNT, FIELD_OPTIONAL, http_status),
    ROW("longest_gap_s", REAL, 0, longest_gap_s),
};
const struct field_table row_fields = TABLE(row_array);

#define ENV(member, kind, flags)                                                                   \
    {                                                                                              \
#member, FIELD_##kind, flags, offsetof(struct environment, member)                         \
    }

static const struct field environment_array[] = {
    ENV(llmsched_version, TEXT, 0),
    ENV(commit, TEXT, 0),
    ENV(compiler, TEXT, 0),
    ENV(command_line, TEXT, 0),
    ENV(started_at, TEXT, 0),
    ENV(cpu, TEXT, 0),
    ENV(isa, TEXT, 0),
    ENV(kernel, TEXT, 0),
    ENV(cores, COUNT, 0),
    ENV(threads, COUNT, FIELD_OPTIONAL),
    ENV(memory_bytes, COUNT, 0),
};
const struct field_table environment_fields = TABLE(environment_array);

#define MODEL(member, kind)                                                                        \
    {                                                                                              \
#member, FIELD_##kind, 0, offsetof(struct model_identity, member)                          \
    }

static const struct field model_array[] = {
    MODEL(name, TEXT),      MODEL(path, TEXT),        MODEL(architecture, TEXT),
    MODEL(format, TEXT),    MODEL(dtype, TEXT),       MODEL(kv_dtype, TEXT),
    MODEL(tokenizer, TEXT), MODEL(parameters, COUNT), MODEL(random_weights, BOOL),
};
const struct field_table model_fields = TABLE(model_array);

#define SET(member, kind, flags)                                                                   \
    {                                                                                              \
#member, FIELD_##kind, flags, offsetof(struct bench_settings, member)                      \
    }

static const struct field settings_array[] = {
    SET(workload, TEXT, 0),
    SET(device, TEXT, 0),
    SET(max_concurrent, COUNT, 0),
    SET(max_new_tokens, COUNT, 0),
    SET(kv_blocks, COUNT, FIELD_OPTIONAL),
    SET(block_tokens, COUNT, FIELD_OPTIONAL),
    SET(max_queue, COUNT, FIELD_OPTIONAL),
    SET(warmup_requests, COUNT, 0),
    SET(seed, COUNT, 0),
    SET(runs_planned, COUNT, 0),
    SET(temperature, REAL, 0),
    SET(top_k, COUNT, 0),
    SET(top_p, REAL, 0),
    SET(ignore_eos, BOOL, 0),
};
const struct field_table settings_fields = TABLE(settings_array);

#define SERVER(member, kind, flags)                                                                \
    {                                                                                              \
#member, FIELD_##kind, flags, offsetof(struct server_facts, member)                        \
    }

static const struct field server_array[] = {
    SERVER(scheduler, TEXT, FIELD_FILLED),
    SERVER(endpoint, TEXT, 0),
    SERVER(state, TEXT, FIELD_FILLED),
    SERVER(why, TEXT, 0),
    SERVER(model, TEXT, 0),
    SERVER(version, TEXT, 0),
    SERVER(dtype, TEXT, 0),
    SERVER(cache_config, TEXT, 0),
    SERVER(max_model_len, COUNT, FIELD_OPTIONAL),
    SERVER(refused_fields, TEXT, 0),
};
const struct field_table server_fields = TABLE(server_array);

#define SHARED(column, kind, flags, member)                                                        \
    {                                                                                              \
        column, FIELD_##kind, flags, offsetof(struct results, member)                              \
    }

static const struct field shared_array[] = {
    SHARED("model", TEXT, 0, model.name),
    SHARED("random_weights", BOOL, 0, model.random_weights),
    SHARED("dtype", TEXT, 0, model.dtype),
    SHARED("kv_dtype", TEXT, 0, model.kv_dtype),
    SHARED("device", TEXT, 0, settings.device),
    SHARED("cpu", TEXT, 0, environment.cpu),
    SHARED("isa", TEXT, 0, environment.isa),
    SHARED("threads", COUNT, FIELD_OPTIONAL, environment.threads),
    SHARED("workload", TEXT, 0, settings.workload),
    SHARED("max_concurrent", COUNT, 0, settings.max_concurrent),
    SHARED("max_new_tokens", COUNT, 0, settings.max_new_tokens),
    SHARED("kv_blocks", COUNT, FIELD_OPTIONAL, settings.kv_blocks),
    SHARED("partial", BOOL, 0, partial),
};
const struct field_table shared_fields = TABLE(shared_array);

static void *place(const struct field *f, void *base)
{
    return (char *)base + f->offset;
}

static const void *place_const(const struct field *f, const void *base)
{
    return (const char *)base + f->offset;
}

/* Optional, and without a value: an empty cell, null. */
static bool is_unknown(const struct field *f, const void *p)
{
    uint64_t none = f->kind == FIELD_HASH ? 0 : COUNT_UNKNOWN;
    return (f->flags & FIELD_OPTIONAL) != 0 && *(const uint64_t *)p == none;
}

static void make_unknown(const struct field *f, void *p)
{
    *(uint64_t *)p = f->kind == FIELD_HASH ? 0 : COUNT_UNKNOWN;
}

int field_find(const struct field_table *t, const char *name)
{
    for (size_t i = 0; i < t->n; i++) {
        if (strcmp(t->fields[i].name, name) == 0) {
            return (int)i;
        }
    }
    return -1;
}

static const char *text_of(const void *p)
{
    const char *text = *(char *const *)p;
    return text != NULL ? text : "";
}

/* Files are UTF-8; what is not becomes U+FFFD. */
static void append_valid(struct strbuf *out, const char *text)
{
    size_t n = strlen(text);
    size_t i = 0;
    while (i < n) {
        size_t start = i;
        size_t len;
        while (i < n && (len = utf8_sequence(text + i, n - i)) > 0) {
            i += len;
        }
        strbuf_append(out, text + start, i - start);
        if (i < n) {
            strbuf_puts(out, UTF8_REPLACEMENT);
            i += utf8_invalid_run(text + i, n - i);
        }
    }
}

void field_to_text(const struct field *f, const void *base, struct strbuf *out)
{
    const void *p = place_const(f, base);
    if (is_unknown(f, p)) {
        return;
    }
    switch (f->kind) {
    case FIELD_TEXT:
        append_valid(out, text_of(p));
        break;
    case FIELD_COUNT:
        strbuf_printf(out, "%llu", (unsigned long long)*(const uint64_t *)p);
        break;
    case FIELD_REAL:
        number_append(out, *(const double *)p);
        break;
    case FIELD_BOOL:
        strbuf_puts(out, *(const bool *)p ? "true" : "false");
        break;
    case FIELD_HASH:
        strbuf_printf(out, "0x%016llx", (unsigned long long)*(const uint64_t *)p);
        break;
    case FIELD_STATUS:
        strbuf_puts(out, record_status_name(*(const enum record_status *)p));
        break;
    }
}

/* All our reals are times, rates and shares: none is negative, none is astronomic, so that sums and
 * axes stay finite whatever a file says. */
#define REAL_MAX 1e15

static bool real_is_sane(double v)
{
    return v >= 0.0 && v <= REAL_MAX;
}

static bool parse_real(const char *text, double *out)
{
    double v;
    if (!number_parse_real(text, &v) || !real_is_sane(v)) {
        return false;
    }
    *out = v;
    return true;
}

static bool parse_hash(const char *text, uint64_t *out)
{
    if (strncmp(text, "0x", 2) != 0 || strlen(text) != 18) {
        return false;
    }
    uint64_t v = 0;
    for (const char *c = text + 2; *c != '\0'; c++) {
        const char *digits = "0123456789abcdef";
        const char *at = strchr(digits, *c);
        if (at == NULL) {
            return false;
        }
        v = v << 4 | (uint64_t)(at - digits);
    }
    *out = v;
    return true;
}

static bool parse_status(const char *text, enum record_status *out)
{
    for (enum record_status s = RECORD_PENDING; s <= RECORD_CANCELLED; s++) {
        if (strcmp(text, record_status_name(s)) == 0) {
            *out = s;
            return true;
        }
    }
    return false;
}

/* pandas writes True and False. */
static bool parse_bool(const char *text, bool *out)
{
    bool yes = strcmp(text, "true") == 0 || strcmp(text, "True") == 0;
    if (!yes && strcmp(text, "false") != 0 && strcmp(text, "False") != 0) {
        return false;
    }
    *out = yes;
    return true;
}

static bool set_text(char **p, const char *text, size_t n, bool *no_memory)
{
    char *copy = mem_strndup(text, n);
    if (copy == NULL) {
        *no_memory = true;
        return false;
    }
    mem_free(*p);
    *p = copy;
    return true;
}

bool field_from_text(const struct field *f, void *base, const char *text, bool *no_memory)
{
    void *p = place(f, base);
    if (text[0] == '\0' && (f->flags & FIELD_FILLED) != 0) {
        return false;
    }
    if (text[0] == '\0' && f->kind != FIELD_TEXT) {
        return true; /* stays as it is: undefined, or 0 */
    }
    switch (f->kind) {
    case FIELD_TEXT:
        return set_text(p, text, strlen(text), no_memory);
    case FIELD_COUNT:
        return number_parse_count(text, p);
    case FIELD_REAL:
        return parse_real(text, p);
    case FIELD_BOOL:
        return parse_bool(text, p);
    case FIELD_HASH:
        return parse_hash(text, p);
    case FIELD_STATUS:
        return parse_status(text, p);
    }
    return false;
}

/* JSON integers are signed 64-bit here; the upper half travels as text. */
static json_t *count_to_json(uint64_t v)
{
    if (v <= (uint64_t)INT64_MAX) {
        return json_integer((json_int_t)v);
    }
    return json_sprintf("%llu", (unsigned long long)v);
}

static json_t *field_to_json(const struct field *f, const void *base)
{
    const void *p = place_const(f, base);
    if (is_unknown(f, p)) {
        return json_null();
    }
    if (f->kind == FIELD_COUNT) {
        return count_to_json(*(const uint64_t *)p);
    }
    if (f->kind == FIELD_REAL) {
        double v = *(const double *)p;
        return isfinite(v) ? json_real(v) : json_null();
    }
    if (f->kind == FIELD_BOOL) {
        return json_boolean(*(const bool *)p);
    }
    struct strbuf text = {0};
    field_to_text(f, base, &text);
    json_t *v = text.failed ? NULL : json_stringn_nocheck(strbuf_text(&text), text.len);
    strbuf_deinit(&text);
    return v;
}

json_t *fields_to_json(const struct field_table *t, const void *base)
{
    json_t *object = json_object();
    for (size_t i = 0; object != NULL && i < t->n; i++) {
        json_t *v = field_to_json(&t->fields[i], base);
        if (v == NULL || json_object_set_new(object, t->fields[i].name, v) != 0) {
            json_decref(object);
            return NULL;
        }
    }
    return object;
}

static bool field_from_json(const struct field *f, void *base, const json_t *v, bool *no_memory)
{
    void *p = place(f, base);
    if (json_is_string(v)) {
        /* jansson refuses U+0000 inside strings, so that a C string holds all of it. */
        return f->kind != FIELD_BOOL && f->kind != FIELD_REAL &&
               field_from_text(f, base, json_string_value(v), no_memory);
    }
    if ((f->flags & FIELD_OPTIONAL) != 0 && json_is_null(v)) {
        make_unknown(f, p);
        return true;
    }
    if (f->kind == FIELD_COUNT && json_is_integer(v) && json_integer_value(v) >= 0) {
        *(uint64_t *)p = (uint64_t)json_integer_value(v);
        return true;
    }
    if (f->kind == FIELD_REAL && (json_is_number(v) || json_is_null(v))) {
        bool undefined = json_is_null(v);
        *(double *)p = undefined ? (double)NAN : json_number_value(v);
        return undefined ? (f->flags & FIELD_FILLED) == 0 : real_is_sane(*(double *)p);
    }
    if (f->kind == FIELD_BOOL && json_is_boolean(v)) {
        *(bool *)p = json_is_true(v);
        return true;
    }
    return false;
}

enum status fields_from_json(const struct field_table *t, void *base, const json_t *object,
                             struct error *err)
{
    if (!json_is_object(object)) {
        return error_set(err, STATUS_BAD_DATA, -1, "not a JSON object");
    }
    for (size_t i = 0; i < t->n; i++) {
        const struct field *f = &t->fields[i];
        const json_t *v = json_object_get(object, f->name);
        bool no_memory = false;
        if (v == NULL) {
            return error_set(err, STATUS_BAD_DATA, -1, "the key \"%s\" is missing", f->name);
        }
        if (!field_from_json(f, base, v, &no_memory)) {
            return no_memory ? error_set(err, STATUS_NO_MEMORY, -1, "no memory for \"%s\"", f->name)
                             : error_set(err, STATUS_BAD_DATA, -1, "\"%s\" must be %s", f->name,
                                         field_kind_words(f->kind));
        }
    }
    return STATUS_OK;
}

void fields_deinit(const struct field_table *t, void *base)
{
    for (size_t i = 0; i < t->n; i++) {
        if (t->fields[i].kind == FIELD_TEXT) {
            char **p = place(&t->fields[i], base);
            mem_free(*p);
            *p = NULL;
        }
    }
}

bool fields_complete(const struct field_table *t, void *base)
{
    for (size_t i = 0; i < t->n; i++) {
        char **p = place(&t->fields[i], base);
        if (t->fields[i].kind == FIELD_TEXT && *p == NULL) {
            *p = mem_strdup("");
            if (*p == NULL) {
                return false;
            }
        }
    }
    return true;
}

void fields_undefine(const struct field_table *t, void *base)
{
    for (size_t i = 0; i < t->n; i++) {
        if (t->fields[i].kind == FIELD_REAL) {
            *(double *)place(&t->fields[i], base) = (double)NAN;
        } else if ((t->fields[i].flags & FIELD_OPTIONAL) != 0) {
            make_unknown(&t->fields[i], place(&t->fields[i], base));
        }
    }
}

const char *field_kind_words(enum field_kind kind)
{
    switch (kind) {
    case FIELD_TEXT:
        return "a text";
    case FIELD_COUNT:
        return "a whole number, 0 or more";
    case FIELD_REAL:
        return "a number from 0 to 1e15";
    case FIELD_BOOL:
        return "true or false";
    case FIELD_HASH:
        return "0x and 16 hexadecimal digits";
    case FIELD_STATUS:
        return "ok, failed, rejected, cancelled or pending";
    }
    return "a value";
}
