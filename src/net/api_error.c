/* api_error.c - see api_error.h. */
#include "net/api_error.h"

#include <assert.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

static const struct row {
    int http_status;
    const char *type;
    const char *message;
} rows[] = {
#define API_ERROR_ROW(number, type, message) {number, type, message},
    API_ERROR_LIST(API_ERROR_ROW)
#undef API_ERROR_ROW
};

static const struct row *row_of(int http_status)
{
    const struct row *fallback = NULL;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (rows[i].http_status == http_status) {
            return &rows[i];
        }
        if (rows[i].http_status == (http_status < 500 ? 400 : 500)) {
            fallback = &rows[i];
        }
    }
    assert(fallback != NULL);
    return fallback;
}

const char *api_error_type(int http_status)
{
    return row_of(http_status)->type;
}

/* vsnprintf may have cut a character in two: end at the last whole one. */
static void end_whole(char *text)
{
    size_t n = strlen(text);
    size_t i = n;
    while (i > 0 && n - i < 4) {
        i--;
        if (((unsigned char)text[i] & 0xC0) != 0x80) {
            if (utf8_is_prefix(text + i, n - i)) {
                text[i] = '\0';
            }
            return;
        }
    }
}

static void fill(struct api_error *e, int http_status, const char *param, const char *fmt,
                 va_list args)
{
    e->http_status = http_status;
    (void)snprintf(e->param, sizeof e->param, "%s", param == NULL ? "" : param);
    end_whole(e->param);
    if (fmt == NULL) {
        (void)snprintf(e->message, sizeof e->message, "%s", row_of(http_status)->message);
    } else {
        (void)vsnprintf(e->message, sizeof e->message, fmt, args);
        end_whole(e->message);
    }
}

void api_error_set(struct api_error *e, int http_status, const char *param, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fill(e, http_status, param, fmt, args);
    va_end(args);
}

void api_errors_add(struct api_errors *errors, int http_status, const char *param, const char *fmt,
                    ...)
{
    errors->total++;
    if (errors->count == API_MAX_ERRORS) {
        return;
    }
    va_list args;
    va_start(args, fmt);
    fill(&errors->items[errors->count++], http_status, param, fmt, args);
    va_end(args);
}

int api_http_status(enum status s)
{
    switch (s) {
    case STATUS_OK:
        return 200;
    case STATUS_USAGE:
    case STATUS_BAD_DATA:
    case STATUS_INVALID:
        return 400;
    case STATUS_NOT_FOUND:
        return 404;
    case STATUS_UNSUPPORTED:
        return 501;
    case STATUS_NO_MEMORY:
    case STATUS_INTERRUPTED:
        return 503;
    default:
        return 500;
    }
}

int api_http_status_of_reject(enum reject_reason r)
{
    switch (r) {
    case REJECT_NONE:
        return 200;
    case REJECT_TOO_LONG:
    case REJECT_NO_BLOCKS:
        return 400;
    case REJECT_QUEUE_FULL:
    case REJECT_POLICY:
        return 429;
    case REJECT_SHUTDOWN:
        return 503;
    }
    return 500;
}

uint32_t api_retry_after_s(int http_status)
{
    /* A queue drains within seconds; a server that loads or stops needs longer. */
    return http_status == 429 ? 1 : http_status == 503 ? 5 : 0;
}

static void write_body(struct strbuf *b, int http_status, const char *param, const char *message)
{
    strbuf_puts(b, "{\"error\":{\"message\":");
    strbuf_json_string(b, message, strlen(message));
    strbuf_printf(b, ",\"type\":\"%s\",\"param\":", api_error_type(http_status));
    if (param[0] == '\0') {
        strbuf_puts(b, "null");
    } else {
        strbuf_json_string(b, param, strlen(param));
    }
    strbuf_printf(b, ",\"code\":%d}}", http_status);
}

void api_write_error(struct strbuf *b, const struct api_error *e)
{
    write_body(b, e->http_status, e->param, e->message);
}

void api_write_errors(struct strbuf *b, const struct api_errors *errors)
{
    assert(errors->count >= 1);
    char joined[API_MAX_ERRORS * (API_MESSAGE_BYTES + 2) + 32];
    size_t n = 0;
    for (uint32_t i = 0; i < errors->count; i++) {
        int wrote = snprintf(joined + n, sizeof joined - n, "%s%s", i == 0 ? "" : "; ",
                             errors->items[i].message);
        n += (size_t)wrote;
    }
    if (errors->total > errors->count) {
        (void)snprintf(joined + n, sizeof joined - n, "; and %u more",
                       errors->total - errors->count);
    }
    write_body(b, errors->items[0].http_status, errors->items[0].param, joined);
}
