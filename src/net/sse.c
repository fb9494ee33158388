/* sse.c - see sse.h. A machine over bytes, and one short cut for what servers really send. */
#include "net/sse.h"

#include <assert.h>
#include <string.h>

enum { MARK, LINE, NAME, VALUE_FIRST, VALUE, SKIP, FAILED };
enum { FIELD_OTHER, FIELD_DATA, FIELD_EVENT };

/* The short cut looks no further than this for a line's end: in a stream without LF it finds none,
 * and would look through the whole read again for every line. */
#define SHORT_CUT_BYTES 4096U

void sse_init(struct sse *s, char *buf, size_t cap)
{
    *s = (struct sse){.buf = buf, .cap = cap, .state = MARK};
}

void sse_set_buffer(struct sse *s, char *buf, size_t cap)
{
    assert(cap >= s->len);
    s->buf = buf;
    s->cap = cap;
}

static bool is_line_end(char c)
{
    return c == '\n' || c == '\r';
}

/* The value of the current field grows; false when it is too long. */
static bool append(struct sse *s, const char *text, size_t n)
{
    if (s->field == FIELD_DATA) {
        if (n > s->cap - s->len) {
            return false;
        }
        if (n > 0) {
            memcpy(s->buf + s->len, text, n);
        }
        s->len += n;
    } else if (s->field == FIELD_EVENT) {
        if (n > SSE_MAX_TYPE_BYTES - s->type_len) {
            return false;
        }
        memcpy(s->type + s->type_len, text, n);
        s->type_len += n;
    }
    return true;
}

/* The field's name is complete, its value begins. Data lines are joined by LF. */
static bool begin_value(struct sse *s)
{
    s->field = FIELD_OTHER;
    if (s->name_len == 4 && memcmp(s->name, "data", 4) == 0) {
        s->field = FIELD_DATA;
        bool joined = !s->has_data || append(s, "\n", 1);
        s->has_data = true;
        return joined;
    }
    if (s->name_len == 5 && memcmp(s->name, "event", 5) == 0) {
        s->field = FIELD_EVENT;
        s->type_len = 0;
    }
    return true;
}

/* The byte order mark, once, at the stream's start. What only begins like it is a field's name that
 * means nothing. Returns bytes used. */
static size_t skip_mark(struct sse *s, const char *in)
{
    if (*in == "\xEF\xBB\xBF"[s->mark_len]) {
        s->mark_len++;
        if (s->mark_len == 3) {
            s->state = LINE;
        }
        return 1;
    }
    s->state = s->mark_len == 0 ? LINE : NAME;
    s->name_len = s->mark_len == 0 ? 0 : sizeof s->name;
    return 0;
}

static void end_line(struct sse *s, char c)
{
    s->state = LINE;
    s->skip_lf = c == '\r';
}

/* A blank line: the event so far, if it has data. */
static bool take_event(struct sse *s, struct sse_event *ev)
{
    bool has_data = s->has_data;
    if (has_data) {
        *ev = (struct sse_event){s->buf, s->len, s->type, s->type_len};
    }
    s->has_data = false;
    s->len = 0;
    s->type_len = 0;
    return has_data;
}

/* "data: ...LF LF" whole in the caller's bytes and nothing of this event before it. Returns the
 * bytes used, or 0 where it does not apply. */
static size_t short_cut(const struct sse *s, const char *in, size_t n, struct sse_event *ev)
{
    if (s->has_data || n < 8 || memcmp(in, "data: ", 6) != 0) {
        return 0;
    }
    size_t window = n < SHORT_CUT_BYTES ? n : SHORT_CUT_BYTES;
    const char *value = in + 6;
    const char *lf = memchr(value, '\n', window - 6);
    if (lf == NULL || lf + 1 == in + n || lf[1] != '\n') {
        return 0;
    }
    size_t len = (size_t)(lf - value);
    if (len > s->cap || memchr(value, '\r', len) != NULL) {
        return 0;
    }
    *ev = (struct sse_event){value, len, s->type, s->type_len};
    return len + 8;
}

/* Name, value and skipped bytes: everything within a line. Returns bytes used; 0 is a failure. */
static size_t within_line(struct sse *s, const char *in, size_t n)
{
    switch (s->state) {
    case NAME:
        if (*in == ':') {
            s->state = VALUE_FIRST;
            return begin_value(s) ? 1 : 0;
        }
        if (is_line_end(*in)) {
            end_line(s, *in);
            return begin_value(s) ? 1 : 0;
        }
        if (s->name_len < sizeof s->name) {
            s->name[s->name_len++] = *in;
        }
        return 1;
    case VALUE_FIRST:
        s->state = VALUE;
        if (*in == ' ') {
            return 1;
        }
        break;
    default:
        break;
    }
    size_t i = 0;
    while (i < n && !is_line_end(in[i])) {
        i++;
    }
    if (s->state == VALUE && !append(s, in, i)) {
        return 0;
    }
    if (i < n) {
        end_line(s, in[i]);
        i++;
    }
    return i;
}

enum sse_outcome sse_next(struct sse *s, const char *in, size_t n, size_t *used,
                          struct sse_event *ev)
{
    size_t i = 0;
    while (i < n && s->state != FAILED) {
        if (s->state == MARK) {
            i += skip_mark(s, in + i);
            continue;
        }
        if (s->state != LINE) {
            size_t step = within_line(s, in + i, n - i);
            i += step;
            if (step == 0) {
                s->state = FAILED;
            }
            continue;
        }
        bool second_half = s->skip_lf && in[i] == '\n';
        s->skip_lf = false;
        if (second_half) {
            i++;
            continue;
        }
        size_t whole = short_cut(s, in + i, n - i, ev);
        if (whole > 0) {
            s->type_len = 0;
            *used = i + whole;
            return SSE_EVENT;
        }
        if (is_line_end(in[i])) {
            end_line(s, in[i]);
            i++;
            if (take_event(s, ev)) {
                *used = i;
                return SSE_EVENT;
            }
            continue;
        }
        s->state = in[i] == ':' ? SKIP : NAME;
        s->name_len = 0;
    }
    *used = i;
    return s->state == FAILED ? SSE_BAD : SSE_MORE;
}
