/* csv.c - see csv_int.h. */
#include "csv_int.h"

#include <assert.h>
#include <string.h>

#include "base/mem.h"

static enum status bad(const struct csv_reader *c, const char *what, struct error *err)
{
    return error_set(err, STATUS_BAD_DATA, (int64_t)c->pos, "%s: line %llu: %s", c->path,
                     (unsigned long long)c->lines + 1, what);
}

static bool begin_cell(struct csv_reader *c)
{
    if (c->n_cells == c->capacity) {
        size_t capacity = c->capacity == 0 ? 64 : c->capacity * 2;
        size_t *offsets = mem_resize(c->offsets, capacity, sizeof *offsets);
        if (offsets == NULL) {
            return false;
        }
        c->offsets = offsets;
        c->capacity = capacity;
    }
    c->offsets[c->n_cells++] = c->bytes.len;
    return true;
}

static bool at_line_end(const struct csv_reader *c)
{
    return c->pos < c->len && (c->text[c->pos] == '\r' || c->text[c->pos] == '\n');
}

static void skip_line_end(struct csv_reader *c)
{
    if (c->text[c->pos] == '\r' && c->pos + 1 < c->len && c->text[c->pos + 1] == '\n') {
        c->pos++;
    }
    c->pos++;
    c->lines++;
}

/* The cell after its opening quote, up to and with its closing one. */
static enum status quoted_cell(struct csv_reader *c, struct error *err)
{
    uint64_t opened = c->lines + 1;
    for (;;) {
        const char *quote = memchr(c->text + c->pos, '"', c->len - c->pos);
        if (quote == NULL) {
            return error_set(err, STATUS_BAD_DATA, (int64_t)c->pos,
                             "%s: line %llu: the quote that opens here never closes", c->path,
                             (unsigned long long)opened);
        }
        size_t n = (size_t)(quote - (c->text + c->pos));
        for (size_t i = 0; i < n; i++) {
            const char *p = c->text + c->pos + i;
            c->lines += *p == '\n' || (*p == '\r' && p[1] != '\n');
        }
        strbuf_append(&c->bytes, c->text + c->pos, n);
        c->pos += n + 1;
        if (c->pos >= c->len || c->text[c->pos] != '"') {
            break;
        }
        strbuf_putc(&c->bytes, '"');
        c->pos++;
    }
    if (c->pos < c->len && c->text[c->pos] != ',' && !at_line_end(c)) {
        return bad(c, "text after a closing quote (double the quotes inside a cell)", err);
    }
    return STATUS_OK;
}

static enum status plain_cell(struct csv_reader *c, struct error *err)
{
    size_t start = c->pos;
    while (c->pos < c->len && c->text[c->pos] != ',' && !at_line_end(c)) {
        if (c->text[c->pos] == '"') {
            return bad(c, "a quote inside a cell that is not quoted", err);
        }
        c->pos++;
    }
    strbuf_append(&c->bytes, c->text + start, c->pos - start);
    return STATUS_OK;
}

enum status csv_next(struct csv_reader *c, bool *end, struct error *err)
{
    if (c->pos == 0) {
        if (memchr(c->text, '\0', c->len) != NULL) {
            return error_set(err, STATUS_BAD_DATA, (char *)memchr(c->text, '\0', c->len) - c->text,
                             "%s: holds a NUL byte: not a CSV text", c->path);
        }
        c->pos = c->len >= 3 && memcmp(c->text, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
    }
    while (at_line_end(c)) {
        skip_line_end(c);
    }
    c->n_cells = 0;
    c->record_line = c->lines + 1;
    c->record_pos = c->pos;
    strbuf_clear(&c->bytes);
    *end = c->pos >= c->len;
    if (*end) {
        return STATUS_OK;
    }
    for (;;) {
        bool quoted = c->pos < c->len && c->text[c->pos] == '"';
        if (!begin_cell(c)) {
            break;
        }
        c->pos += quoted;
        enum status s = quoted ? quoted_cell(c, err) : plain_cell(c, err);
        if (s != STATUS_OK) {
            return s;
        }
        strbuf_putc(&c->bytes, '\0');
        if (c->bytes.failed) {
            break;
        }
        if (c->pos < c->len && c->text[c->pos] == ',') {
            c->pos++;
            continue;
        }
        if (c->pos < c->len) {
            skip_line_end(c);
        }
        return STATUS_OK;
    }
    return error_set(err, STATUS_NO_MEMORY, -1, "%s: no memory for line %llu", c->path,
                     (unsigned long long)c->record_line);
}

const char *csv_cell(const struct csv_reader *c, size_t i)
{
    assert(i < c->n_cells);
    return c->bytes.data + c->offsets[i];
}

void csv_deinit(struct csv_reader *c)
{
    strbuf_deinit(&c->bytes);
    mem_free(c->offsets);
    c->offsets = NULL;
}

void csv_put(struct strbuf *out, const char *text, size_t n, bool guard)
{
    bool formula = guard && n > 0 && strchr("=+-@\t\r", text[0]) != NULL;
    bool quote = false;
    for (size_t i = 0; i < n && !quote; i++) {
        quote = text[i] == ',' || text[i] == '"' || text[i] == '\r' || text[i] == '\n';
    }
    if (quote) {
        strbuf_putc(out, '"');
    }
    if (formula) {
        strbuf_putc(out, '\'');
    }
    size_t start = 0;
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '"') {
            strbuf_append(out, text + start, i - start + 1);
            start = i; /* the quote goes out a second time with what follows */
        }
    }
    strbuf_append(out, text + start, n - start);
    if (quote) {
        strbuf_putc(out, '"');
    }
}
