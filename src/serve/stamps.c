/* stamps.c - see stamps.h. */
#include "serve/stamps.h"

#include <inttypes.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/strbuf.h"

/* One choice: its name and its tokens' instants in `times` (due, written, due, written ...). */
struct series {
    char *name;
    size_t first;
    uint32_t n;
};

struct stamps {
    struct series *series;
    size_t n_series;
    size_t series_capacity;
    uint64_t *times;
    size_t n_times;
    size_t times_capacity;
    uint64_t lost;
};

enum status stamps_create(struct stamps **out, struct error *err)
{
    struct stamps *s = mem_alloc(1, sizeof *s);
    if (s == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for stamps");
    }
    *out = s;
    return STATUS_OK;
}

void stamps_destroy(struct stamps *s)
{
    if (s == NULL) {
        return;
    }
    for (size_t i = 0; i < s->n_series; i++) {
        mem_free(s->series[i].name);
    }
    mem_free(s->series);
    mem_free(s->times);
    mem_free(s);
}

/* Doubles the list until it holds n; false: refused, and as it was. */
static bool grow(void **items, size_t *capacity, size_t n, size_t size)
{
    size_t wanted = *capacity > 0 ? *capacity : 1024;
    while (wanted < n) {
        wanted *= 2;
    }
    if (wanted == *capacity) {
        return true;
    }
    void *bigger = mem_resize(*items, wanted, size);
    if (bigger == NULL) {
        return false;
    }
    *items = bigger;
    *capacity = wanted;
    return true;
}

/* As a CSV cell: in quotes where a reader would need them. */
static char *make_name(const char *request_id, uint32_t choice)
{
    struct strbuf name = {0};
    bool quoted = strpbrk(request_id, ",\"") != NULL;
    strbuf_puts(&name, quoted ? "\"" : "");
    for (const char *p = request_id; *p != '\0'; p++) {
        strbuf_puts(&name, *p == '"' ? "\"" : "");
        strbuf_putc(&name, *p);
    }
    if (choice > 0) {
        strbuf_printf(&name, ".%u", choice);
    }
    strbuf_puts(&name, quoted ? "\"" : "");
    char *copy = name.failed ? NULL : mem_strndup(strbuf_text(&name), name.len);
    strbuf_deinit(&name);
    return copy;
}

void stamps_add(struct stamps *s, const char *request_id, uint32_t choice, const struct job *job,
                uint32_t n)
{
    void *series = s->series;
    void *times = s->times;
    bool ok = grow(&series, &s->series_capacity, s->n_series + 1, sizeof *s->series);
    s->series = series;
    ok = grow(&times, &s->times_capacity, s->n_times + 2 * (size_t)n, sizeof *s->times) && ok;
    s->times = times;
    char *name = ok ? make_name(request_id, choice) : NULL;
    if (name == NULL) {
        s->lost += n;
        return;
    }
    s->series[s->n_series++] = (struct series){.name = name, .first = s->n_times, .n = n};
    for (uint32_t i = 0; i < n; i++) {
        s->times[s->n_times++] = job->due_ns[i];
        s->times[s->n_times++] = job->written_ns[i];
    }
}

enum status stamps_save(const struct stamps *s, const char *path, struct error *err)
{
    if (s->lost > 0) {
        return error_set(err, STATUS_NO_MEMORY, -1, "%s: no memory for %" PRIu64 " stamps", path,
                         s->lost);
    }
    struct strbuf text = {0};
    strbuf_puts(&text, "request_id,token,due_ns,written_ns\n");
    for (size_t i = 0; i < s->n_series; i++) {
        const struct series *series = &s->series[i];
        for (uint32_t k = 0; k < series->n; k++) {
            const uint64_t *t = &s->times[series->first + 2 * (size_t)k];
            strbuf_printf(&text, "%s,%u,%" PRIu64 ",%" PRIu64 "\n", series->name, k, t[0], t[1]);
        }
    }
    enum status st = text.failed
                         ? error_set(err, STATUS_NO_MEMORY, -1, "%s: no memory to write it", path)
                         : fs_write_atomic(path, strbuf_text(&text), text.len, err);
    strbuf_deinit(&text);
    return st;
}
