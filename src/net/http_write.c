/* http_write.c - see http_write.h. */
#include "net/http_write.h"
#include "net/http_int.h"

static const struct {
    int status;
    const char *text;
} status_table[] = {
    {100, "Continue"},
    {200, "OK"},
    {204, "No Content"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {408, "Request Timeout"},
    {411, "Length Required"},
    {413, "Content Too Large"},
    {414, "URI Too Long"},
    {415, "Unsupported Media Type"},
    {417, "Expectation Failed"},
    {422, "Unprocessable Content"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {503, "Service Unavailable"},
    {505, "HTTP Version Not Supported"},
};

const char *http_status_text(int status)
{
    for (size_t i = 0; i < sizeof status_table / sizeof status_table[0]; i++) {
        if (status_table[i].status == status) {
            return status_table[i].text;
        }
    }
    return "";
}

static void put(struct http_writer *w, const char *text, size_t n)
{
    if (w->failed || n > w->cap - w->len) {
        w->failed = true;
        return;
    }
    memcpy(w->out + w->len, text, n);
    w->len += n;
}

static void put_checked(struct http_writer *w, const char *text, bool (*is_good)(unsigned char c))
{
    size_t n = strlen(text);
    for (size_t i = 0; i < n; i++) {
        if (!is_good((unsigned char)text[i])) {
            w->failed = true;
        }
    }
    put(w, text, n);
}

/* An empty method, target or name is as bad as a wrong one. */
static void put_word(struct http_writer *w, const char *text, bool (*is_good)(unsigned char c))
{
    if (text[0] == '\0') {
        w->failed = true;
    }
    put_checked(w, text, is_good);
}

void http_write_request_line(struct http_writer *w, const char *method, const char *target)
{
    put_word(w, method, http_is_token_byte);
    put(w, " ", 1);
    put_word(w, target, http_is_target_byte);
    put(w, " HTTP/1.1\r\n", 11);
}

void http_write_status_line(struct http_writer *w, int status)
{
    if (status < 100 || status > 599) {
        w->failed = true;
        return;
    }
    char code[4] = {(char)('0' + status / 100), (char)('0' + status / 10 % 10),
                    (char)('0' + status % 10), ' '};
    put(w, "HTTP/1.1 ", 9);
    put(w, code, sizeof code);
    const char *text = http_status_text(status);
    put(w, text, strlen(text));
    put(w, "\r\n", 2);
}

void http_write_header(struct http_writer *w, const char *name, const char *value)
{
    put_word(w, name, http_is_token_byte);
    put(w, ": ", 2);
    put_checked(w, value, http_is_field_byte);
    put(w, "\r\n", 2);
}

void http_write_header_u64(struct http_writer *w, const char *name, uint64_t value)
{
    char digits[21] = {0};
    size_t i = sizeof digits - 1;
    do {
        digits[--i] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    http_write_header(w, name, digits + i);
}

void http_write_end(struct http_writer *w)
{
    put(w, "\r\n", 2);
}
