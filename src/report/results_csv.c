/* results_csv.c - benchmark_summaries.csv and benchmark_detailed_metrics.csv, out and in. */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "csv_int.h"
#include "fields_int.h"
#include "report/results.h"
#include "results_int.h"

#define SCHEMA_COLUMN "schema_version"
#define KEY_FIELDS    3 /* scheduler, request_size, run_num head the table */

static struct field_table key_fields(void)
{
    return (struct field_table){.fields = run_fields.fields, .n = KEY_FIELDS};
}

/* model and random_weights head the table of shared fields. */
static struct field_table model_key_fields(void)
{
    return (struct field_table){.fields = shared_fields.fields, .n = 2};
}

static void put_names(struct strbuf *out, const struct field_table *t)
{
    for (size_t i = 0; i < t->n; i++) {
        strbuf_puts(out, t->fields[i].name);
        strbuf_putc(out, ',');
    }
}

static void put_cells(struct strbuf *out, const struct field_table *t, const void *base,
                      bool csv_safe, struct strbuf *cell)
{
    for (size_t i = 0; i < t->n; i++) {
        strbuf_clear(cell);
        field_to_text(&t->fields[i], base, cell);
        csv_put(out, strbuf_text(cell), cell->len, csv_safe && t->fields[i].kind == FIELD_TEXT);
        strbuf_putc(out, ',');
    }
}

static enum status write_out(struct strbuf *out, struct strbuf *cell, const char *path,
                             struct error *err)
{
    enum status s = out->failed || cell->failed
                        ? error_set(err, STATUS_NO_MEMORY, -1, "%s: no memory to write it", path)
                        : fs_write_atomic(path, strbuf_text(out), out->len, err);
    strbuf_deinit(out);
    strbuf_deinit(cell);
    return s;
}

enum status results_write_summaries_csv(const struct results *r, const char *path, bool csv_safe,
                                        struct error *err)
{
    struct strbuf out = {0};
    struct strbuf cell = {0};
    put_names(&out, &run_fields);
    put_names(&out, &shared_fields);
    strbuf_puts(&out, SCHEMA_COLUMN CSV_END_OF_RECORD);
    for (size_t i = 0; i < r->n_runs; i++) {
        put_cells(&out, &run_fields, &r->runs[i], csv_safe, &cell);
        put_cells(&out, &shared_fields, r, csv_safe, &cell);
        strbuf_printf(&out, "%d" CSV_END_OF_RECORD, RESULTS_SCHEMA_VERSION);
    }
    return write_out(&out, &cell, path, err);
}

enum status results_write_detailed_csv(const struct results *r, const char *path, bool csv_safe,
                                       struct error *err)
{
    struct field_table key = key_fields();
    struct field_table model = model_key_fields();
    struct strbuf out = {0};
    struct strbuf cell = {0};
    put_names(&out, &key);
    put_names(&out, &row_fields);
    put_names(&out, &model);
    strbuf_puts(&out, SCHEMA_COLUMN CSV_END_OF_RECORD);
    for (size_t i = 0; i < r->n_runs; i++) {
        const struct run *run = &r->runs[i];
        for (size_t k = 0; k < run->n_rows; k++) {
            put_cells(&out, &key, run, csv_safe, &cell);
            put_cells(&out, &row_fields, &run->rows[k], csv_safe, &cell);
            put_cells(&out, &model, r, csv_safe, &cell);
            strbuf_printf(&out, "%d" CSV_END_OF_RECORD, RESULTS_SCHEMA_VERSION);
        }
    }
    return write_out(&out, &cell, path, err);
}

/* Which cell of a record holds which field: -1 for a column that the file lacks. */
struct mapping {
    const struct field_table *table;
    int columns[RUN_FIELDS_MAX];
};

static int find_column(const struct csv_reader *csv, const char *name)
{
    for (size_t i = 0; i < csv->n_cells; i++) {
        if (strcmp(csv_cell(csv, i), name) == 0) {
            return (int)i;
        }
    }
    return -1;
}

/* Adds the names of required columns that the header lacks to missing. */
static void map_header(const struct csv_reader *csv, struct mapping *m, struct strbuf *missing)
{
    assert(m->table->n <= RUN_FIELDS_MAX);
    for (size_t i = 0; i < m->table->n; i++) {
        const struct field *f = &m->table->fields[i];
        m->columns[i] = find_column(csv, f->name);
        if (m->columns[i] < 0 && (f->flags & FIELD_REQUIRED) != 0) {
            strbuf_printf(missing, "%s%s", missing->len > 0 ? ", " : "", f->name);
        }
    }
}

static enum status check_header(const struct csv_reader *csv, bool end, struct strbuf *missing,
                                struct error *err)
{
    enum status s = STATUS_OK;
    if (end) {
        s = error_set(err, STATUS_BAD_DATA, 0, "%s: empty: the first line must name the columns",
                      csv->path);
    } else if (missing->failed) {
        s = error_set(err, STATUS_NO_MEMORY, -1, "%s: no memory", csv->path);
    } else if (missing->len > 0) {
        s = error_set(err, STATUS_BAD_DATA, 0, "%s: line 1: missing column: %s", csv->path,
                      strbuf_text(missing));
    }
    for (size_t i = 0; s == STATUS_OK && i < csv->n_cells; i++) {
        if (find_column(csv, csv_cell(csv, i)) != (int)i && csv_cell(csv, i)[0] != '\0') {
            s = error_set(err, STATUS_BAD_DATA, 0, "%s: line 1: two columns are called \"%s\"",
                          csv->path, csv_cell(csv, i));
        }
    }
    strbuf_deinit(missing);
    return s;
}

/* Next record of as many cells as the header has. */
static enum status next_record(struct csv_reader *csv, size_t n_columns, bool *end,
                               struct error *err)
{
    enum status s = csv_next(csv, end, err);
    if (s == STATUS_OK && !*end && csv->n_cells != n_columns) {
        return error_set(err, STATUS_BAD_DATA, (int64_t)csv->record_pos,
                         "%s: line %llu: %zu cells, but the header names %zu columns", csv->path,
                         (unsigned long long)csv->record_line, csv->n_cells, n_columns);
    }
    return s;
}

static enum status fill(const struct csv_reader *csv, const struct mapping *m, void *base,
                        struct error *err)
{
    for (size_t i = 0; i < m->table->n; i++) {
        const struct field *f = &m->table->fields[i];
        if (m->columns[i] < 0) {
            continue;
        }
        const char *text = csv_cell(csv, (size_t)m->columns[i]);
        bool no_memory = false;
        if (field_from_text(f, base, text, &no_memory)) {
            continue;
        }
        return no_memory ? error_set(err, STATUS_NO_MEMORY, -1, "%s: no memory", csv->path)
                         : error_set(err, STATUS_BAD_DATA, (int64_t)csv->record_pos,
                                     "%s: line %llu, column \"%s\": \"%.60s\" is not %s", csv->path,
                                     (unsigned long long)csv->record_line, f->name, text,
                                     field_kind_words(f->kind));
    }
    return STATUS_OK;
}

/* path and line before a message that lacks them. */
static enum status at_line(const struct csv_reader *csv, enum status s, struct error *err)
{
    if (s != STATUS_OK) {
        error_prefix(err, "%s: line %llu", csv->path, (unsigned long long)csv->record_line);
    }
    return s;
}

static enum status check_version(const struct csv_reader *csv, int column, struct error *err)
{
    if (column < 0) {
        return STATUS_OK;
    }
    const char *text = csv_cell(csv, (size_t)column);
    char known[16];
    snprintf(known, sizeof known, "%d", RESULTS_SCHEMA_VERSION);
    if (strcmp(text, known) == 0) {
        return STATUS_OK;
    }
    return error_set(err, STATUS_BAD_DATA, (int64_t)csv->record_pos,
                     "%s: line %llu, column \"" SCHEMA_COLUMN "\": \"%.20s\", but this program "
                     "reads version %s",
                     csv->path, (unsigned long long)csv->record_line, text, known);
}

/* One model a comparison: the first record's, and all others must say the same. */
static enum status fill_shared(const struct csv_reader *csv, const struct mapping *shared,
                               struct results *out, struct error *err)
{
    if (out->n_runs == 0) {
        return fill(csv, shared, out, err);
    }
    int column = shared->columns[0];
    if (column >= 0 && strcmp(csv_cell(csv, (size_t)column), out->model.name) != 0) {
        return error_set(err, STATUS_BAD_DATA, (int64_t)csv->record_pos,
                         "%s: line %llu, column \"model\": \"%.60s\" after \"%.60s\": compare one "
                         "model at a time",
                         csv->path, (unsigned long long)csv->record_line,
                         csv_cell(csv, (size_t)column), out->model.name);
    }
    return STATUS_OK;
}

static enum status read_summaries(struct csv_reader *csv, struct results *out, struct error *err)
{
    bool end = false;
    enum status s = csv_next(csv, &end, err);
    if (s != STATUS_OK) {
        return s;
    }
    struct mapping runs = {.table = &run_fields};
    struct mapping shared = {.table = &shared_fields};
    struct strbuf missing = {0};
    map_header(csv, &runs, &missing);
    map_header(csv, &shared, &missing);
    int version = find_column(csv, SCHEMA_COLUMN);
    size_t n_columns = csv->n_cells;
    s = check_header(csv, end, &missing, err);
    while (s == STATUS_OK && (s = next_record(csv, n_columns, &end, err)) == STATUS_OK && !end) {
        struct run run;
        run_init(&run);
        s = check_version(csv, version, err);
        s = s != STATUS_OK ? s : fill_shared(csv, &shared, out, err);
        s = s != STATUS_OK ? s : fill(csv, &runs, &run, err);
        s = s != STATUS_OK ? s : at_line(csv, results_add(out, &run, err), err);
        run_deinit(&run);
    }
    return s;
}

/* Adds one row to the run it belongs to; *last: where the row before went. */
static enum status add_row(const struct csv_reader *csv, const struct mapping *key,
                           const struct mapping *rows, bool has_hash, struct results *out,
                           size_t *last, struct error *err)
{
    struct run owner = {0};
    struct request_row row = {0};
    fields_undefine(&row_fields, &row);
    ptrdiff_t i = -1;
    enum status s = fill(csv, key, &owner, err);
    s = s != STATUS_OK ? s : fill(csv, rows, &row, err);
    if (s == STATUS_OK) {
        i = results_find(out, owner.scheduler, owner.request_size, owner.run_num, *last);
        s = i >= 0 ? STATUS_OK
                   : error_set(err, STATUS_BAD_DATA, (int64_t)csv->record_pos,
                               "%s: line %llu: the summaries have no run %llu of %.60s, size %llu: "
                               "pass the two files of one bench",
                               csv->path, (unsigned long long)csv->record_line,
                               (unsigned long long)owner.run_num, owner.scheduler,
                               (unsigned long long)owner.request_size);
    }
    if (s == STATUS_OK) {
        struct run *run = &out->runs[i];
        *last = (size_t)i;
        struct request_row *grown = results_grow(run->rows, run->n_rows, sizeof row);
        if (grown == NULL) {
            s = error_set(err, STATUS_NO_MEMORY, -1, "%s: no memory", csv->path);
        } else {
            if (!has_hash) {
                row.output_hash = results_hash(row.generated_text, strlen(row.generated_text));
            }
            run->rows = grown;
            run->rows[run->n_rows++] = row;
            memset(&row, 0, sizeof row);
        }
    }
    fields_deinit(&run_fields, &owner);
    fields_deinit(&row_fields, &row);
    return s;
}

static enum status read_rows(struct csv_reader *csv, struct results *out, struct error *err)
{
    bool end = false;
    enum status s = csv_next(csv, &end, err);
    if (s != STATUS_OK) {
        return s;
    }
    struct field_table key_table = key_fields();
    struct mapping key = {.table = &key_table};
    struct mapping rows = {.table = &row_fields};
    struct strbuf missing = {0};
    map_header(csv, &key, &missing);
    map_header(csv, &rows, &missing);
    int version = find_column(csv, SCHEMA_COLUMN);
    bool has_hash = find_column(csv, "output_hash") >= 0;
    size_t n_columns = csv->n_cells;
    size_t last = 0;
    s = check_header(csv, end, &missing, err);
    while (s == STATUS_OK && (s = next_record(csv, n_columns, &end, err)) == STATUS_OK && !end) {
        s = check_version(csv, version, err);
        s = s != STATUS_OK ? s : add_row(csv, &key, &rows, has_hash, out, &last, err);
    }
    for (size_t i = 0; s == STATUS_OK && i < out->n_runs; i++) {
        s = run_sort_rows(&out->runs[i], err);
        if (s != STATUS_OK) {
            error_prefix(err, "%s", csv->path);
        }
    }
    return s;
}

enum status results_parse_csv(const char *summaries, size_t summaries_len, const char *metrics,
                              size_t metrics_len, const char *summaries_path,
                              const char *metrics_path, struct results *out, struct error *err)
{
    struct results r = {0};
    fields_undefine(&settings_fields, &r.settings); /* most of them are not in the files */
    struct csv_reader csv = {.text = summaries, .len = summaries_len, .path = summaries_path};
    enum status s = fields_complete(&environment_fields, &r.environment) &&
                            fields_complete(&model_fields, &r.model) &&
                            fields_complete(&settings_fields, &r.settings)
                        ? read_summaries(&csv, &r, err)
                        : error_set(err, STATUS_NO_MEMORY, -1, "%s: no memory", summaries_path);
    csv_deinit(&csv);
    if (s == STATUS_OK && r.n_runs == 0) {
        s = error_set(err, STATUS_BAD_DATA, -1, "%s: a header, but no run below it",
                      summaries_path);
    }
    if (s == STATUS_OK && metrics != NULL) {
        csv = (struct csv_reader){.text = metrics, .len = metrics_len, .path = metrics_path};
        s = read_rows(&csv, &r, err);
        csv_deinit(&csv);
    }
    if (s != STATUS_OK) {
        results_deinit(&r);
        return s;
    }
    *out = r;
    return STATUS_OK;
}

enum status results_read_csv(const char *summaries_path, const char *metrics_path,
                             struct results *out, struct error *err)
{
    char *summaries = NULL;
    char *metrics = NULL;
    size_t summaries_len = 0;
    size_t metrics_len = 0;
    enum status s =
        fs_read_file(summaries_path, RESULTS_MAX_FILE_BYTES, &summaries, &summaries_len, err);
    if (s == STATUS_OK && metrics_path != NULL) {
        s = fs_read_file(metrics_path, RESULTS_MAX_FILE_BYTES, &metrics, &metrics_len, err);
    }
    if (s == STATUS_OK) {
        s = results_parse_csv(summaries, summaries_len, metrics, metrics_len, summaries_path,
                              metrics_path, out, err);
    }
    mem_free(summaries);
    mem_free(metrics);
    return s;
}
