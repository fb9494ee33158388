/* results_json.c - benchmark_results.json, and the journal: one JSON object a line. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "fields_int.h"
#include "report/results.h"
#include "results_int.h"

#define JOURNAL_FLAGS (JSON_COMPACT | JSON_REAL_PRECISION(17))
#define FILE_FLAGS    (JSON_INDENT(1) | JSON_REAL_PRECISION(17))

/* Adds value (taken over) to object; false: out of memory, also when value is NULL. */
static bool put(json_t *object, const char *key, json_t *value)
{
    return value != NULL && json_object_set_new(object, key, value) == 0;
}

static json_t *rows_to_json(const struct run *run)
{
    json_t *rows = json_array();
    for (size_t i = 0; rows != NULL && i < run->n_rows; i++) {
        if (json_array_append_new(rows, fields_to_json(&row_fields, &run->rows[i])) != 0) {
            json_decref(rows);
            return NULL;
        }
    }
    return rows;
}

static json_t *run_to_json(const struct run *run)
{
    json_t *object = fields_to_json(&run_fields, run);
    if (object != NULL && !put(object, "requests", rows_to_json(run))) {
        json_decref(object);
        return NULL;
    }
    return object;
}

/* What head lines and the result file share. */
static bool put_provenance(json_t *object, const struct results *r)
{
    return put(object, "schema_version", json_integer(RESULTS_SCHEMA_VERSION)) &&
           put(object, "environment", fields_to_json(&environment_fields, &r->environment)) &&
           put(object, "model", fields_to_json(&model_fields, &r->model)) &&
           put(object, "settings", fields_to_json(&settings_fields, &r->settings));
}

static int append_chunk(const char *bytes, size_t n, void *out)
{
    strbuf_append(out, bytes, n);
    return ((struct strbuf *)out)->failed ? -1 : 0;
}

/* Takes over object (NULL: out of memory) and appends its text. */
static enum status dump(json_t *object, size_t flags, struct strbuf *out, struct error *err)
{
    int failed = object == NULL ? -1 : json_dump_callback(object, append_chunk, out, flags);
    json_decref(object);
    strbuf_putc(out, '\n');
    if (failed != 0 || out->failed) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory to write results as JSON");
    }
    return STATUS_OK;
}

static json_t *verdict_to_json(const struct results *r)
{
    struct text_verdict v;
    results_same_text(r, &v);
    json_t *object = json_object();
    if (object != NULL && put(object, "compared", json_integer((json_int_t)v.compared)) &&
        put(object, "differing", json_integer((json_int_t)v.differing))) {
        return object;
    }
    json_decref(object);
    return NULL;
}

/* Share of equal characters; null where texts are sampled, or nothing was compared. */
static json_t *prefix_to_json(const struct results *r, const char *scheduler)
{
    struct prefix_verdict v;
    results_equal_prefix(r, scheduler, &v);
    return r->settings.temperature == 0.0 && v.characters > 0
               ? json_real((double)v.equal_characters / (double)v.characters)
               : json_null();
}

static json_t *servers_to_json(const struct results *r)
{
    json_t *array = json_array();
    for (size_t i = 0; array != NULL && i < r->n_servers; i++) {
        json_t *object = fields_to_json(&server_fields, &r->servers[i]);
        bool ok = object != NULL &&
                  put(object, "equal_prefix_frac", prefix_to_json(r, r->servers[i].scheduler)) &&
                  json_array_append(array, object) == 0;
        json_decref(object);
        if (!ok) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static json_t *results_to_json(const struct results *r)
{
    json_t *object = json_object();
    json_t *runs = json_array();
    bool ok = object != NULL && runs != NULL && put_provenance(object, r) &&
              put(object, "servers", servers_to_json(r)) &&
              put(object, "partial", json_boolean(r->partial)) &&
              put(object, "same_text", verdict_to_json(r));
    for (size_t i = 0; ok && i < r->n_runs; i++) {
        ok = json_array_append_new(runs, run_to_json(&r->runs[i])) == 0;
    }
    if (ok && json_object_set(object, "runs", runs) == 0) {
        json_decref(runs);
        return object;
    }
    json_decref(runs);
    json_decref(object);
    return NULL;
}

enum status results_write_json(const struct results *r, const char *path, struct error *err)
{
    struct strbuf out = {0};
    enum status s = dump(results_to_json(r), FILE_FLAGS, &out, err);
    if (s == STATUS_OK) {
        s = fs_write_atomic(path, strbuf_text(&out), out.len, err);
    } else {
        error_prefix(err, "%s", path);
    }
    strbuf_deinit(&out);
    return s;
}

enum status results_head_to_line(const struct results *r, const char *fingerprint,
                                 struct strbuf *out, struct error *err)
{
    json_t *object = json_object();
    if (object != NULL &&
        !(put(object, "kind", json_string("head")) &&
          put(object, "fingerprint", json_string(fingerprint)) && put_provenance(object, r))) {
        json_decref(object);
        object = NULL;
    }
    return dump(object, JOURNAL_FLAGS, out, err);
}

enum status results_run_to_line(const struct run *run, struct strbuf *out, struct error *err)
{
    json_t *object = run_to_json(run);
    if (object != NULL && !put(object, "kind", json_string("run"))) {
        json_decref(object);
        object = NULL;
    }
    return dump(object, JOURNAL_FLAGS, out, err);
}

enum status results_server_to_line(const struct server_facts *facts, struct strbuf *out,
                                   struct error *err)
{
    json_t *object = fields_to_json(&server_fields, facts);
    if (object != NULL && !put(object, "kind", json_string("server"))) {
        json_decref(object);
        object = NULL;
    }
    return dump(object, JOURNAL_FLAGS, out, err);
}

static enum status read_part(const json_t *object, const char *key, const struct field_table *t,
                             void *base, struct error *err)
{
    enum status s = fields_from_json(t, base, json_object_get(object, key), err);
    if (s != STATUS_OK) {
        error_prefix(err, "%s", key);
    }
    return s;
}

static enum status read_head(const json_t *object, struct results *out, char **fingerprint,
                             struct error *err)
{
    const json_t *version = json_object_get(object, "schema_version");
    const json_t *text = json_object_get(object, "fingerprint");
    if (!json_is_integer(version) || json_integer_value(version) != RESULTS_SCHEMA_VERSION) {
        return error_set(err, STATUS_BAD_DATA, -1,
                         "\"schema_version\" is not %d, the version that "
                         "this program reads",
                         RESULTS_SCHEMA_VERSION);
    }
    if (!json_is_string(text)) {
        return error_set(err, STATUS_BAD_DATA, -1, "\"fingerprint\" is missing or not a text");
    }
    enum status s = read_part(object, "environment", &environment_fields, &out->environment, err);
    s = s != STATUS_OK ? s : read_part(object, "model", &model_fields, &out->model, err);
    s = s != STATUS_OK ? s : read_part(object, "settings", &settings_fields, &out->settings, err);
    if (s == STATUS_OK) {
        *fingerprint = mem_strdup(json_string_value(text));
        s = *fingerprint != NULL ? STATUS_OK : error_set(err, STATUS_NO_MEMORY, -1, "no memory");
    }
    return s;
}

static enum status read_rows(const json_t *array, struct run *run, struct error *err)
{
    if (!json_is_array(array)) {
        return error_set(err, STATUS_BAD_DATA, -1, "\"requests\" is missing or not an array");
    }
    for (size_t i = 0; i < json_array_size(array); i++) {
        struct request_row *rows = results_grow(run->rows, run->n_rows, sizeof *rows);
        if (rows == NULL) {
            return error_set(err, STATUS_NO_MEMORY, -1, "no memory for request %zu", i);
        }
        run->rows = rows;
        struct request_row *row = &rows[run->n_rows++];
        memset(row, 0, sizeof *row);
        enum status s = fields_from_json(&row_fields, row, json_array_get(array, i), err);
        if (s != STATUS_OK) {
            error_prefix(err, "requests[%zu]", i);
            return s;
        }
    }
    return STATUS_OK;
}

static enum status read_run(const json_t *object, struct results *out, struct error *err)
{
    struct run run = {0};
    enum status s = fields_from_json(&run_fields, &run, object, err);
    s = s != STATUS_OK ? s : read_rows(json_object_get(object, "requests"), &run, err);
    s = s != STATUS_OK ? s : results_add(out, &run, err);
    run_deinit(&run);
    return s;
}

static enum status read_server(const json_t *object, struct results *out, struct error *err)
{
    struct server_facts facts = {0};
    enum status s = fields_from_json(&server_fields, &facts, object, err);
    s = s != STATUS_OK ? s : results_set_server(out, &facts, err);
    server_facts_deinit(&facts);
    return s;
}

static enum status read_line(const char *line, size_t n, bool first, struct results *out,
                             char **fingerprint, struct error *err)
{
    json_error_t why;
    json_t *object = json_loadb(line, n, JSON_REJECT_DUPLICATES, &why);
    if (object == NULL) {
        /* jansson says nothing where an allocation was refused. */
        if (why.text[0] == '\0' || json_error_code(&why) == json_error_out_of_memory) {
            return error_set(err, STATUS_NO_MEMORY, -1, "no memory to parse it");
        }
        return error_set(err, STATUS_BAD_DATA, why.position, "%s", why.text);
    }
    const char *kind = json_string_value(json_object_get(object, "kind"));
    const char *wanted = first ? "head" : "run";
    enum status s;
    if (kind != NULL && !first && strcmp(kind, "server") == 0) {
        s = read_server(object, out, err);
    } else if (kind == NULL || strcmp(kind, wanted) != 0) {
        s = error_set(err, STATUS_BAD_DATA, -1, "\"kind\" must be \"%s\" here", wanted);
    } else {
        s = first ? read_head(object, out, fingerprint, err) : read_run(object, out, err);
    }
    json_decref(object);
    return s;
}

enum status results_from_journal(const char *text, size_t len, const char *path,
                                 struct results *out, char **fingerprint, bool *torn,
                                 struct error *err)
{
    struct results r = {0};
    char *print = NULL;
    size_t pos = 0;
    unsigned long line = 0;
    const char *newline;
    enum status s = STATUS_OK;
    while (s == STATUS_OK && pos < len && (newline = memchr(text + pos, '\n', len - pos)) != NULL) {
        size_t n = (size_t)(newline - (text + pos));
        line++;
        s = read_line(text + pos, n, line == 1, &r, &print, err);
        if (s != STATUS_OK) {
            error_prefix(err, "%s: line %lu", path, line);
            break;
        }
        pos += n + 1;
    }
    if (s == STATUS_OK && !(fields_complete(&environment_fields, &r.environment) &&
                            fields_complete(&model_fields, &r.model) &&
                            fields_complete(&settings_fields, &r.settings))) {
        s = error_set(err, STATUS_NO_MEMORY, -1, "%s: no memory", path);
    }
    if (s != STATUS_OK) {
        results_deinit(&r);
        mem_free(print);
        return s;
    }
    r.partial = r.n_runs < r.settings.runs_planned;
    *out = r;
    *fingerprint = print;
    *torn = pos < len;
    return STATUS_OK;
}
