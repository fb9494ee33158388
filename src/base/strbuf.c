/* strbuf.c - see strbuf.h. */
#include "base/strbuf.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"

static bool reserve(struct strbuf *b, size_t extra)
{
    if (b->failed) {
        return false;
    }
    if (extra > (size_t)-1 / 4 - b->len) {
        b->failed = true;
        return false;
    }
    size_t need = b->len + extra + 1;
    if (need <= b->capacity) {
        return true;
    }
    size_t capacity = b->capacity < 64 ? 64 : b->capacity;
    while (capacity < need) {
        capacity += capacity / 2;
    }
    char *data = mem_resize(b->data, capacity, 1);
    if (data == NULL) {
        b->failed = true;
        return false;
    }
    b->data = data;
    b->capacity = capacity;
    return true;
}

void strbuf_append(struct strbuf *b, const void *bytes, size_t n)
{
    if (n == 0 || !reserve(b, n)) {
        return;
    }
    memcpy(b->data + b->len, bytes, n);
    b->len += n;
    b->data[b->len] = '\0';
}

void strbuf_puts(struct strbuf *b, const char *text)
{
    strbuf_append(b, text, strlen(text));
}

void strbuf_putc(struct strbuf *b, char c)
{
    strbuf_append(b, &c, 1);
}

void strbuf_printf(struct strbuf *b, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (n < 0) {
        b->failed = true;
    } else if (reserve(b, (size_t)n)) {
        vsnprintf(b->data + b->len, (size_t)n + 1, fmt, again);
        b->len += (size_t)n;
    }
    va_end(again);
}

/* Bytes at the beginning that stand for themselves in a JSON string: most of most texts, so they
 * are appended in one piece. */
static size_t plain_run(const char *text, size_t n)
{
    size_t i = 0;
    while (i < n && text[i] >= 0x20 && text[i] < 0x7F && text[i] != '"' && text[i] != '\\') {
        i++;
    }
    return i;
}

void strbuf_json_string(struct strbuf *b, const char *text, size_t n)
{
    strbuf_putc(b, '"');
    size_t i = 0;
    while (i < n) {
        size_t plain = plain_run(text + i, n - i);
        if (plain > 0) {
            strbuf_append(b, text + i, plain);
            i += plain;
            continue;
        }
        unsigned char c = (unsigned char)text[i];
        if (c == '"' || c == '\\') {
            char pair[2] = {'\\', (char)c};
            strbuf_append(b, pair, 2);
            i++;
        } else if (c < 0x20 || c == 0x7F) {
            strbuf_printf(b, "\\u%04x", c);
            i++;
        } else {
            size_t len = utf8_sequence(text + i, n - i);
            if (len == 0) {
                strbuf_append(b, UTF8_REPLACEMENT, 3);
                len = utf8_invalid_run(text + i, n - i);
            } else {
                strbuf_append(b, text + i, len);
            }
            i += len;
        }
    }
    strbuf_putc(b, '"');
}

void strbuf_clear(struct strbuf *b)
{
    b->len = 0;
    if (b->data != NULL) {
        b->data[0] = '\0';
    }
}

const char *strbuf_text(const struct strbuf *b)
{
    return b->len > 0 ? b->data : "";
}

void strbuf_deinit(struct strbuf *b)
{
    mem_free(b->data);
    memset(b, 0, sizeof *b);
}
