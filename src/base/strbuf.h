/*
 * strbuf.h - a growing byte string, always NUL-terminated once non-empty.
 *
 * A refused allocation is remembered in `failed` and every later append is ignored, so that a
 * writer checks once at its end. Owner: the caller; zero-initialise, end with strbuf_deinit.
 */
#ifndef LLMSCHED_BASE_STRBUF_H
#define LLMSCHED_BASE_STRBUF_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

struct strbuf {
    char *data;
    size_t len;
    size_t capacity;
    bool failed;
};

void strbuf_append(struct strbuf *b, const void *bytes, size_t n);
void strbuf_puts(struct strbuf *b, const char *text);
void strbuf_putc(struct strbuf *b, char c);
void strbuf_printf(struct strbuf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* A JSON string literal with quotes; bytes that are not UTF-8 become U+FFFD. */
void strbuf_json_string(struct strbuf *b, const char *text, size_t n);
void strbuf_clear(struct strbuf *b);             /* keeps the memory */
const char *strbuf_text(const struct strbuf *b); /* "" when empty */
void strbuf_deinit(struct strbuf *b);

#endif
