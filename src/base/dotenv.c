/* dotenv.c - see dotenv.h. */
#include "base/dotenv.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

#include "base/mem.h"

/* One line; put is where the storage goes on. */
struct line {
    const char *at;
    const char *end;
    char *put;
    const char *fault; /* NULL: none */
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static bool is_name_char(char c, bool first)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' ||
           (!first && c >= '0' && c <= '9');
}

static void skip_blanks(struct line *l)
{
    while (l->at < l->end && is_blank(*l->at)) {
        l->at++;
    }
}

/* "export" and white space behind it; `export=1` sets a variable of that name. */
static void skip_export(struct line *l)
{
    if (l->end - l->at > 6 && memcmp(l->at, "export", 6) == 0 && is_blank(l->at[6])) {
        const char *word = l->at;
        l->at += 6;
        skip_blanks(l);
        if (l->at < l->end && *l->at == '=') {
            l->at = word;
        }
    }
}

static const char *take_name(struct line *l)
{
    const char *name = l->put;
    while (l->at < l->end && is_name_char(*l->at, l->put == name)) {
        *l->put++ = *l->at++;
    }
    if (l->put == name) {
        l->fault = "a name was expected (letters, digits and _); begin a comment with #";
        return NULL;
    }
    *l->put++ = '\0';
    skip_blanks(l);
    if (l->at == l->end || *l->at != '=') {
        l->fault = "NAME=VALUE was expected";
        return NULL;
    }
    l->at++;
    skip_blanks(l);
    return name;
}

/* In double quotes, behind a backslash. */
static char unescaped(char c)
{
    switch (c) {
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 't':
        return '\t';
    case '\\':
    case '"':
    case '$':
        return c;
    default:
        return '\0';
    }
}

static void take_quoted(struct line *l, char quote)
{
    l->at++;
    while (l->at < l->end && *l->at != quote) {
        char c = *l->at++;
        if (c == '\\' && quote == '"' && l->at < l->end && unescaped(*l->at) != '\0') {
            c = unescaped(*l->at++);
        }
        *l->put++ = c;
    }
    if (l->at == l->end) {
        l->fault = "no closing quote on this line";
        return;
    }
    l->at++;
    skip_blanks(l);
    if (l->at < l->end && *l->at != '#') {
        l->fault = "text behind the closing quote; put all of the value into the quotes";
    }
}

static void take_plain(struct line *l)
{
    char *value = l->put;
    /* A # begins a comment behind white space only, also where no value comes before it. */
    while (l->at < l->end && !(*l->at == '#' && is_blank(l->at[-1]))) {
        *l->put++ = *l->at++;
    }
    while (l->put > value && is_blank(l->put[-1])) {
        l->put--;
    }
}

/* Adds the line's pair, if it has one, or sets its fault. */
static void take_line(struct line *l, struct dotenv *d)
{
    for (const char *p = l->at; p < l->end; p++) {
        if (((unsigned char)*p < 0x20 && *p != '\t') || *p == 0x7f) {
            l->fault = "a control character; this is not a text file of NAME=VALUE lines";
            return;
        }
    }
    skip_blanks(l);
    if (l->at == l->end || *l->at == '#') {
        return;
    }
    skip_export(l);
    struct dotenv_pair pair = {.name = take_name(l)};
    if (l->fault != NULL) {
        return;
    }
    pair.value = l->put;
    if (l->at < l->end && (*l->at == '"' || *l->at == '\'')) {
        take_quoted(l, *l->at);
    } else {
        take_plain(l);
    }
    if (l->fault != NULL) {
        return;
    }
    *l->put++ = '\0';
    size_t i = 0;
    while (i < d->n && strcmp(d->pairs[i].name, pair.name) != 0) {
        i++;
    }
    if (i == DOTENV_MAX_PAIRS) {
        l->fault = "more variables than the limit of 256";
        return;
    }
    d->pairs[i] = pair;
    d->n = i == d->n ? i + 1 : d->n;
}

enum status dotenv_parse(const char *text, size_t n, const char *path, struct dotenv *out,
                         struct error *err)
{
    _Static_assert(DOTENV_MAX_PAIRS == 256, "stands in a message");
    if (n > DOTENV_MAX_BYTES) {
        return error_set(err, STATUS_BAD_DATA, -1, "%s: %zu bytes, more than the limit of %u", path,
                         n, DOTENV_MAX_BYTES);
    }
    /* A pair needs two NULs; its line has a '=' and a line end, which the last line may lack. */
    struct dotenv d = {.storage = mem_alloc(n + 1, 1)};
    if (d.storage == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "%s: no memory", path);
    }
    const char *end = text + n;
    if (n >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0) {
        text += 3;
    }
    struct line l = {.put = d.storage};
    for (unsigned number = 1; text < end; number++) {
        const char *stop = memchr(text, '\n', (size_t)(end - text));
        const char *next = stop != NULL ? stop + 1 : end;
        stop = stop != NULL ? stop : end;
        if (stop > text && stop[-1] == '\r') {
            stop--;
        }
        l.at = text;
        l.end = stop;
        take_line(&l, &d);
        if (l.fault != NULL) {
            dotenv_deinit(&d);
            return error_set(err, STATUS_BAD_DATA, number, "%s line %u: %s", path, number, l.fault);
        }
        text = next;
    }
    assert(l.put <= d.storage + n + 1);
    *out = d;
    return STATUS_OK;
}

void dotenv_deinit(struct dotenv *d)
{
    mem_free(d->storage);
    *d = (struct dotenv){.n = 0};
}
