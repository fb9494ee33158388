/* json_scan.c - see json_scan_int.h. */
#include "net/json_scan_int.h"

#include <assert.h>
#include <string.h>

#include "base/utf8.h"

bool cursor_fail(struct json_cursor *c, enum scan_bad bad)
{
    if (c->bad == SCAN_OK) {
        c->bad = bad;
    }
    return false;
}

char cursor_peek(struct json_cursor *c)
{
    while (c->at < c->end) {
        char b = *c->at;
        if (b != ' ' && b != '\n' && b != '\r' && b != '\t') {
            return b;
        }
        c->at++;
    }
    return 0;
}

/* ---- strings ---- */

#define EACH_BYTE(b) (UINT64_C(0x0101010101010101) * (uint64_t)(b))

/* Whether all eight bytes are plain: ASCII, no control character, no quote, no backslash. */
static bool all_plain(const char *p)
{
    uint64_t w;
    memcpy(&w, p, sizeof w);
    uint64_t quote = w ^ EACH_BYTE('"');
    uint64_t slash = w ^ EACH_BYTE('\\');
    uint64_t low = (w - EACH_BYTE(0x20)) & ~w;
    uint64_t special = low | ((quote - EACH_BYTE(1)) & ~quote) | ((slash - EACH_BYTE(1)) & ~slash);
    return ((special | w) & EACH_BYTE(0x80)) == 0;
}

static bool is_plain(char b)
{
    unsigned char c = (unsigned char)b;
    return c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    char lower = (char)(c | 0x20);
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

/* The 16 bits of "\uXXXX" at p, or -1. */
static int32_t unicode_escape(const char *p, const char *end)
{
    if (end - p < 6 || p[0] != '\\' || p[1] != 'u') {
        return -1;
    }
    int32_t value = 0;
    for (int i = 2; i < 6; i++) {
        int digit = hex_digit(p[i]);
        if (digit < 0) {
            return -1;
        }
        value = value * 16 + digit;
    }
    return value;
}

/* The scalar value of the escape or escaped surrogate pair at p, its bytes in *len; -1: bad. */
static int32_t unicode_scalar(const char *p, const char *end, size_t *len)
{
    int32_t high = unicode_escape(p, end);
    *len = 6;
    if (high < 0xD800 || high > 0xDFFF) {
        return high;
    }
    int32_t low = unicode_escape(p + 6, end);
    if (high > 0xDBFF || low < 0xDC00 || low > 0xDFFF) {
        return -1;
    }
    *len = 12;
    return 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
}

/* What a one-letter escape stands for, or 0. */
static char short_escape(char c)
{
    static const char letters[] = "\"\\/bfnrt";
    static const char meanings[] = "\"\\/\b\f\n\r\t";
    const char *found = c != '\0' ? strchr(letters, c) : NULL;
    return found != NULL ? meanings[found - letters] : '\0';
}

/* Bytes of the escape at p, checked; 0 when it is bad. */
static size_t escape_bytes(const char *p, const char *end)
{
    if (end - p < 2) {
        return 0;
    }
    if (p[1] != 'u') {
        return short_escape(p[1]) != '\0' ? 2 : 0;
    }
    size_t len;
    return unicode_scalar(p, end, &len) >= 0 ? len : 0;
}

bool cursor_string(struct json_cursor *c, struct json_text *text)
{
    if (cursor_peek(c) != '"') {
        return cursor_wrong_type(c);
    }
    const char *p = c->at + 1;
    *text = (struct json_text){.at = p};
    for (;;) {
        while (c->end - p >= 8 && all_plain(p)) {
            p += 8;
        }
        while (p < c->end && is_plain(*p)) {
            p++;
        }
        size_t step = 0;
        if (p < c->end && *p == '"') {
            text->len = (size_t)(p - text->at);
            c->at = p + 1;
            return true;
        }
        if (p < c->end && *p == '\\') {
            step = escape_bytes(p, c->end);
            text->is_escaped = true;
        } else if (p < c->end) {
            step = (unsigned char)*p >= 0x80 ? utf8_sequence(p, (size_t)(c->end - p)) : 0;
        }
        if (step == 0) {
            c->at = p;
            return cursor_fail(c, p < c->end ? SCAN_STRING : SCAN_SYNTAX);
        }
        p += step;
    }
}

size_t cursor_unescape(const struct json_text *text, char *out, size_t cap)
{
    const char *p = text->at;
    const char *end = p + text->len;
    size_t len = 0;
    while (p < end) {
        const char *slash = memchr(p, '\\', (size_t)(end - p));
        size_t run = (size_t)((slash != NULL ? slash : end) - p);
        if (run > cap - len) {
            return SIZE_MAX;
        }
        memcpy(out + len, p, run);
        len += run;
        p += run;
        if (slash == NULL) {
            break;
        }
        char bytes[4] = {short_escape(p[1])};
        size_t n = 1;
        size_t step = 2;
        if (p[1] == 'u') {
            int32_t scalar = unicode_scalar(p, end, &step);
            assert(scalar >= 0); /* json_string has checked it */
            n = utf8_encode((uint32_t)scalar, bytes);
        }
        if (n > cap - len) {
            return SIZE_MAX;
        }
        memcpy(out + len, bytes, n);
        len += n;
        p += step;
    }
    return len;
}

bool cursor_text_is(const struct json_text *text, const char *plain, size_t n)
{
    if (!text->is_escaped) {
        return text->len == n && memcmp(text->at, plain, n) == 0;
    }
    char bytes[24];
    size_t len = cursor_unescape(text, bytes, sizeof bytes);
    return len == n && memcmp(bytes, plain, n) == 0;
}

/* ---- containers ---- */

bool cursor_enter(struct json_cursor *c)
{
    if (c->depth == EVENT_SCAN_MAX_DEPTH) {
        return cursor_fail(c, SCAN_DEPTH);
    }
    c->depth++;
    c->at++;
    return true;
}

/* Before a member or element: 1 when one follows, 0 at the closing bracket, -1 on a fault. */
static int next_in(struct json_cursor *c, uint32_t *n, char close)
{
    char b = cursor_peek(c);
    if (b == close) {
        c->at++;
        c->depth--;
        return 0;
    }
    if (*n > 0) {
        if (b != ',') {
            cursor_fail(c, SCAN_SYNTAX);
            return -1;
        }
        c->at++;
    }
    *n = 1;
    return 1;
}

int cursor_member(struct json_cursor *c, uint32_t *n, struct json_text *key)
{
    int more = next_in(c, n, '}');
    if (more <= 0) {
        return more;
    }
    if (cursor_peek(c) != '"') {
        cursor_fail(c, SCAN_SYNTAX);
        return -1;
    }
    if (!cursor_string(c, key)) {
        return -1;
    }
    if (cursor_peek(c) != ':') {
        cursor_fail(c, SCAN_SYNTAX);
        return -1;
    }
    c->at++;
    return 1;
}

int cursor_element(struct json_cursor *c, uint32_t *n)
{
    return next_in(c, n, ']');
}

/* ---- values ---- */

static bool word(struct json_cursor *c, const char *text, size_t n)
{
    if ((size_t)(c->end - c->at) < n || memcmp(c->at, text, n) != 0) {
        return cursor_fail(c, SCAN_SYNTAX);
    }
    c->at += n;
    return true;
}

static bool digits(struct json_cursor *c)
{
    const char *begin = c->at;
    while (c->at < c->end && *c->at >= '0' && *c->at <= '9') {
        c->at++;
    }
    return c->at > begin || cursor_fail(c, SCAN_SYNTAX);
}

static bool number(struct json_cursor *c, bool *is_integer)
{
    *is_integer = true;
    if (c->at < c->end && *c->at == '-') {
        c->at++;
    }
    if (c->at < c->end && *c->at == '0') {
        c->at++; /* no digit may follow: it would be the next token, and a fault */
    } else if (!digits(c)) {
        return false;
    }
    if (c->at < c->end && *c->at == '.') {
        *is_integer = false;
        c->at++;
        if (!digits(c)) {
            return false;
        }
    }
    if (c->at < c->end && (*c->at == 'e' || *c->at == 'E')) {
        *is_integer = false;
        c->at++;
        if (c->at < c->end && (*c->at == '+' || *c->at == '-')) {
            c->at++;
        }
        return digits(c);
    }
    return true;
}

static bool skip_container(struct json_cursor *c, bool is_object)
{
    uint32_t n = 0;
    struct json_text key;
    int more;
    if (!cursor_enter(c)) {
        return false;
    }
    while ((more = is_object ? cursor_member(c, &n, &key) : cursor_element(c, &n)) > 0) {
        if (!cursor_skip(c)) {
            return false;
        }
    }
    return more == 0;
}

bool cursor_skip(struct json_cursor *c)
{
    struct json_text text;
    bool is_integer;
    switch (cursor_peek(c)) {
    case '"':
        return cursor_string(c, &text);
    case '{':
        return skip_container(c, true);
    case '[':
        return skip_container(c, false);
    case 't':
        return word(c, "true", 4);
    case 'f':
        return word(c, "false", 5);
    case 'n':
        return word(c, "null", 4);
    default:
        return number(c, &is_integer);
    }
}

bool cursor_wrong_type(struct json_cursor *c)
{
    return cursor_skip(c) && cursor_fail(c, SCAN_TYPE);
}

bool cursor_null(struct json_cursor *c)
{
    if (cursor_peek(c) != 'n' || c->end - c->at < 4 || memcmp(c->at, "null", 4) != 0) {
        return false;
    }
    c->at += 4;
    return true;
}

bool cursor_integer(struct json_cursor *c, int64_t *value)
{
    char first = cursor_peek(c);
    if (first != '-' && (first < '0' || first > '9')) {
        return cursor_wrong_type(c);
    }
    const char *p = c->at;
    bool is_integer;
    if (!number(c, &is_integer)) {
        return false;
    }
    uint64_t magnitude = 0;
    uint64_t most = first == '-' ? (uint64_t)INT64_MAX + 1 : (uint64_t)INT64_MAX;
    for (p += first == '-'; is_integer && p < c->at; p++) {
        uint64_t digit = (uint64_t)(*p - '0');
        if (magnitude > (most - digit) / 10) {
            is_integer = false;
            break;
        }
        magnitude = magnitude * 10 + digit;
    }
    if (!is_integer) {
        return cursor_fail(c, SCAN_TYPE);
    }
    *value = first == '-' ? (int64_t)(0 - magnitude) : (int64_t)magnitude;
    return true;
}
