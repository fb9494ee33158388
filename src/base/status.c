/* status.c - see status.h. */
#include "base/status.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    const char *text;
    int exit_code;
} status_rows[STATUS_COUNT] = {
#define STATUS_ROW(name, text, exit_code) {#name, text, exit_code},
    STATUS_LIST(STATUS_ROW)
#undef STATUS_ROW
};

const char *status_name(enum status s)
{
    assert(s >= 0 && s < STATUS_COUNT);
    return status_rows[s].name;
}

const char *status_text(enum status s)
{
    assert(s >= 0 && s < STATUS_COUNT);
    return status_rows[s].text;
}

int status_exit_code(enum status s)
{
    assert(s >= 0 && s < STATUS_COUNT);
    return status_rows[s].exit_code;
}

/* Cuts a truncated text back to a whole UTF-8 character and hides control bytes: messages quote
 * names from files, which may hold terminal escapes. */
static void make_printable(char *text, size_t written, size_t capacity)
{
    size_t len = strlen(text);
    if (written >= capacity && len > 0) {
        while (len > 0 && ((unsigned char)text[len - 1] & 0xC0) == 0x80) {
            len--;
        }
        if (len > 0 && (unsigned char)text[len - 1] >= 0xC0) {
            len--;
        }
        text[len] = '\0';
    }
    for (char *p = text; *p != '\0'; p++) {
        unsigned char c = (unsigned char)*p;
        if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7F) {
            *p = '?';
        }
    }
}

enum status(error_set)(struct error *err, enum status code, int64_t position, const char *fmt, ...)
{
    if (err == NULL) {
        return code;
    }
    err->code = code;
    err->position = position;
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(err->message, sizeof err->message, fmt, args);
    va_end(args);
    make_printable(err->message, n < 0 ? 0 : (size_t)n, sizeof err->message);
    return code;
}

void error_prefix(struct error *err, const char *fmt, ...)
{
    if (err == NULL) {
        return;
    }
    char old[ERROR_MESSAGE_BYTES];
    memcpy(old, err->message, sizeof old);
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(err->message, sizeof err->message, fmt, args);
    va_end(args);
    size_t used = n < 0 ? 0 : (size_t)n;
    if (used < sizeof err->message) {
        int m = snprintf(err->message + used, sizeof err->message - used, ": %s", old);
        used += m < 0 ? 0 : (size_t)m;
    }
    make_printable(err->message, used, sizeof err->message);
}
