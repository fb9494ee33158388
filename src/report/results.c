/* results.c - the structs of results.h: ownership, figures by name, the same-text verdict. */
#include "report/results.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/monotime.h"
#include "fields_int.h"
#include "results_int.h"

static void free_rows(struct run *r)
{
    for (size_t i = 0; i < r->n_rows; i++) {
        fields_deinit(&row_fields, &r->rows[i]);
    }
    mem_free(r->rows);
    r->rows = NULL;
    r->n_rows = 0;
}

void run_init(struct run *r)
{
    memset(r, 0, sizeof *r);
    fields_undefine(&run_fields, r);
}

bool run_is_remote(const struct run *r)
{
    return r->remote.endpoint != NULL && r->remote.endpoint[0] != '\0';
}

void run_deinit(struct run *r)
{
    free_rows(r);
    fields_deinit(&run_fields, r);
    memset(r, 0, sizeof *r);
}

void results_deinit(struct results *r)
{
    for (size_t i = 0; i < r->n_runs; i++) {
        run_deinit(&r->runs[i]);
    }
    mem_free(r->runs);
    for (size_t i = 0; i < r->n_servers; i++) {
        server_facts_deinit(&r->servers[i]);
    }
    mem_free(r->servers);
    fields_deinit(&environment_fields, &r->environment);
    fields_deinit(&model_fields, &r->model);
    fields_deinit(&settings_fields, &r->settings);
    memset(r, 0, sizeof *r);
}

static int by_request_id(const void *a, const void *b)
{
    uint64_t x = ((const struct request_row *)a)->request_id;
    uint64_t y = ((const struct request_row *)b)->request_id;
    return (x > y) - (x < y);
}

enum status run_sort_rows(struct run *run, struct error *err)
{
    bool sorted = true;
    for (size_t i = 1; i < run->n_rows && sorted; i++) {
        sorted = run->rows[i - 1].request_id < run->rows[i].request_id;
    }
    if (sorted) {
        return STATUS_OK;
    }
    qsort(run->rows, run->n_rows, sizeof *run->rows, by_request_id);
    for (size_t i = 1; i < run->n_rows; i++) {
        if (run->rows[i - 1].request_id == run->rows[i].request_id) {
            return error_set(
                err, STATUS_BAD_DATA, -1, "request %llu of %s, size %llu, run %llu is there twice",
                (unsigned long long)run->rows[i].request_id, run->scheduler,
                (unsigned long long)run->request_size, (unsigned long long)run->run_num);
        }
    }
    return STATUS_OK;
}

/* Where an array of n elements that doubles at powers of two from 16 on has no room for one more.
 */
static bool is_full(size_t n)
{
    return n == 0 || (n >= 16 && (n & (n - 1)) == 0);
}

void *results_grow(void *array, size_t n, size_t size)
{
    if (!is_full(n)) {
        return array;
    }
    return mem_resize(array, n == 0 ? 16 : n * 2, size);
}

ptrdiff_t results_find(const struct results *r, const char *scheduler, uint64_t size,
                       uint64_t run_num, size_t start)
{
    for (size_t k = 0; k < r->n_runs; k++) {
        size_t i = (start + k) % r->n_runs;
        const struct run *run = &r->runs[i];
        if (run->request_size == size && run->run_num == run_num &&
            strcmp(run->scheduler, scheduler) == 0) {
            return (ptrdiff_t)i;
        }
    }
    return -1;
}

enum status results_add(struct results *r, struct run *run, struct error *err)
{
    if (r->n_runs >= RESULTS_MAX_RUNS) {
        return error_set(err, STATUS_BAD_DATA, -1, "more than %d runs", RESULTS_MAX_RUNS);
    }
    if (!fields_complete(&run_fields, run)) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for a run");
    }
    if (results_find(r, run->scheduler, run->request_size, run->run_num, 0) >= 0) {
        return error_set(err, STATUS_BAD_DATA, -1, "%s, size %llu, run %llu is there twice",
                         run->scheduler, (unsigned long long)run->request_size,
                         (unsigned long long)run->run_num);
    }
    enum status s = run_sort_rows(run, err);
    if (s != STATUS_OK) {
        return s;
    }
    struct run *runs = results_grow(r->runs, r->n_runs, sizeof *runs);
    if (runs == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for run %zu", r->n_runs + 1);
    }
    r->runs = runs;
    r->runs[r->n_runs++] = *run;
    memset(run, 0, sizeof *run);
    return STATUS_OK;
}

void server_facts_deinit(struct server_facts *facts)
{
    fields_deinit(&server_fields, facts);
    memset(facts, 0, sizeof *facts);
}

const struct server_facts *results_server(const struct results *r, const char *scheduler)
{
    for (size_t i = 0; i < r->n_servers; i++) {
        if (strcmp(r->servers[i].scheduler, scheduler) == 0) {
            return &r->servers[i];
        }
    }
    return NULL;
}

enum status results_set_server(struct results *r, struct server_facts *facts, struct error *err)
{
    if (!fields_complete(&server_fields, facts)) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for a server's facts");
    }
    size_t i = 0;
    while (i < r->n_servers && strcmp(r->servers[i].scheduler, facts->scheduler) != 0) {
        i++;
    }
    if (i == r->n_servers) {
        struct server_facts *servers = results_grow(r->servers, r->n_servers, sizeof *servers);
        if (servers == NULL) {
            return error_set(err, STATUS_NO_MEMORY, -1, "no memory for a server's facts");
        }
        r->servers = servers;
        r->n_servers++;
    } else {
        server_facts_deinit(&r->servers[i]);
    }
    r->servers[i] = *facts;
    memset(facts, 0, sizeof *facts);
    return STATUS_OK;
}

void request_row_from_record(const struct record *rec, uint64_t first_send_ns,
                             struct request_row *row)
{
    row->status = rec->status;
    row->arrival_s = rec->arrival_ns == TIME_NEVER
                         ? (double)NAN
                         : monotime_seconds(rec->arrival_ns - first_send_ns);
    row->queue_s = record_queue_s(rec);
    row->ttft_s = record_ttft_s(rec);
    row->tpot_s = record_tpot_s(rec);
    row->latency_s = record_latency_s(rec);
    row->input_tokens = rec->input_tokens;
    row->output_tokens = rec->output_tokens;
    row->tokens_per_sec =
        row->latency_s > 0.0 ? (double)rec->output_tokens / row->latency_s : (double)NAN;
    row->batch_size = rec->batch_size;
    row->preemptions = rec->preemptions;
    row->output_hash = rec->tokens != NULL
                           ? results_hash(rec->tokens, rec->output_tokens * sizeof *rec->tokens)
                           : 0;
    row->http_status = COUNT_UNKNOWN;
    row->longest_gap_s = (double)NAN;
}

/* FNV-1a, 64 bits (Fowler, Noll, Vo): equality only, against accident and not against malice. */
uint64_t results_hash(const void *bytes, size_t n)
{
    const unsigned char *p = bytes;
    uint64_t h = 0xcbf29ce484222325ULL;
    for (size_t i = 0; i < n; i++) {
        h = (h ^ p[i]) * 0x100000001b3ULL;
    }
    return h;
}

static const struct request_row *find_row(const struct run *run, uint64_t id)
{
    if (id < run->n_rows && run->rows[id].request_id == id) {
        return &run->rows[id];
    }
    struct request_row key = {.request_id = id};
    return run->n_rows == 0 ? NULL
                            : bsearch(&key, run->rows, run->n_rows, sizeof key, by_request_id);
}

/* The first run in process among the first n (same size and number as `run`) that finished request
 * id. */
static const struct run *reference_for(const struct results *r, size_t n, const struct run *run,
                                       uint64_t id, const struct request_row **row)
{
    for (size_t i = 0; i < n; i++) {
        const struct run *other = &r->runs[i];
        if (other->request_size != run->request_size || other->run_num != run->run_num ||
            run_is_remote(other)) {
            continue;
        }
        *row = find_row(other, id);
        if (*row != NULL && (*row)->status == RECORD_OK) {
            return other;
        }
    }
    return NULL;
}

void results_same_text(const struct results *r, struct text_verdict *out)
{
    *out = (struct text_verdict){0};
    for (size_t i = 0; i < r->n_runs; i++) {
        const struct run *run = &r->runs[i];
        if (run_is_remote(run)) {
            continue; /* another program's sampling: its text may differ */
        }
        for (size_t k = 0; k < run->n_rows; k++) {
            const struct request_row *row = &run->rows[k];
            const struct request_row *other_row = NULL;
            const struct run *other = row->status == RECORD_OK
                                          ? reference_for(r, i, run, row->request_id, &other_row)
                                          : NULL;
            if (other == NULL) {
                continue;
            }
            out->compared++;
            if (other_row->output_hash == row->output_hash) {
                continue;
            }
            if (out->differing++ == 0) {
                snprintf(out->example, sizeof out->example,
                         "size %llu run %llu request %llu: %.60s and %.60s differ",
                         (unsigned long long)run->request_size, (unsigned long long)run->run_num,
                         (unsigned long long)row->request_id, other->scheduler, run->scheduler);
            }
        }
    }
}

/* Characters of UTF-8 in n bytes. */
static uint64_t characters(const char *text, size_t n)
{
    uint64_t count = 0;
    for (size_t i = 0; i < n; i++) {
        count += ((unsigned char)text[i] & 0xC0) != 0x80;
    }
    return count;
}

static void compare_prefix(const char *a, const char *b, struct prefix_verdict *v)
{
    size_t equal = 0;
    while (a[equal] != '\0' && a[equal] == b[equal]) {
        equal++;
    }
    v->compared++;
    v->identical += a[equal] == b[equal];
    /* Back to where a character begins: half of one is none. */
    while (equal > 0 &&
           (((unsigned char)a[equal] & 0xC0) == 0x80 || ((unsigned char)b[equal] & 0xC0) == 0x80)) {
        equal--;
    }
    uint64_t of_a = characters(a, strlen(a));
    uint64_t of_b = characters(b, strlen(b));
    v->characters += of_a > of_b ? of_a : of_b;
    v->equal_characters += characters(a, equal);
}

void results_equal_prefix(const struct results *r, const char *scheduler,
                          struct prefix_verdict *out)
{
    *out = (struct prefix_verdict){0};
    for (size_t i = 0; i < r->n_runs; i++) {
        const struct run *run = &r->runs[i];
        if (!run_is_remote(run) || strcmp(run->scheduler, scheduler) != 0) {
            continue;
        }
        for (size_t k = 0; k < run->n_rows; k++) {
            const struct request_row *row = &run->rows[k];
            const struct request_row *other_row = NULL;
            if (row->status == RECORD_OK &&
                reference_for(r, r->n_runs, run, row->request_id, &other_row) != NULL) {
                compare_prefix(row->generated_text, other_row->generated_text, out);
            }
        }
    }
}

static bool is_figure(const struct field *f)
{
    return f->kind == FIELD_COUNT || f->kind == FIELD_REAL;
}

bool results_figure(const struct run *run, const char *column, double *value)
{
    int i = field_find(&run_fields, column);
    if (i < 0 || !is_figure(&run_fields.fields[i])) {
        return false;
    }
    const struct field *f = &run_fields.fields[i];
    const void *p = (const char *)run + f->offset;
    if (f->kind == FIELD_REAL) {
        *value = *(const double *)p;
    } else {
        uint64_t count = *(const uint64_t *)p;
        bool unknown = (f->flags & FIELD_OPTIONAL) != 0 && count == COUNT_UNKNOWN;
        *value = unknown ? (double)NAN : (double)count;
    }
    return true;
}

const char *const *results_figure_names(void)
{
    static const char *names[RUN_FIELDS_MAX + 1];
    assert(run_fields.n <= RUN_FIELDS_MAX);
    size_t n = 0;
    for (size_t i = 0; i < run_fields.n; i++) {
        if (is_figure(&run_fields.fields[i])) {
            names[n++] = run_fields.fields[i].name; /* the same each time: no harm in a race */
        }
    }
    return names;
}
