/* jinja_lex.c - a template's text into tokens; see jinja_int.h. Positions count bytes after CR LF
 * and CR have become LF, which Jinja does first. */
#include <string.h>

#include "base/utf8.h"
#include "model/jinja_int.h"

struct lexer {
    char *text;
    size_t len;
    size_t at;
    bool line_start; /* what came before ended a line */
    struct arena *arena;
    struct jinja_tokens *out;
    struct error *err;
};

size_t jinja_space(const char *text, size_t len)
{
    size_t n = utf8_sequence(text, len);
    uint32_t c = n > 0 ? utf8_decode(text, n) : 'x';
    bool space = (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
                 c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
                 c == 0x202F || c == 0x205F || c == 0x3000;
    return space ? n : 0;
}

void jinja_strip(const char **text, size_t *len, bool left, bool right)
{
    size_t n;
    while (left && (n = jinja_space(*text, *len)) > 0) {
        *text += n;
        *len -= n;
    }
    while (right && *len > 0) {
        n = 1;
        while (n < *len && n < 4 && ((unsigned char)(*text)[*len - n] & 0xC0) == 0x80) {
            n++;
        }
        if (jinja_space(*text + *len - n, n) != n) {
            break;
        }
        *len -= n;
    }
}

static enum status no_memory(struct lexer *x)
{
    return error_set(x->err, STATUS_NO_MEMORY, -1, "no memory for a chat template");
}

static enum status push(struct lexer *x, struct jinja_token token)
{
    struct jinja_tokens *t = x->out;
    if (t->n == t->capacity) {
        size_t capacity = t->capacity == 0 ? 256 : t->capacity * 2;
        struct jinja_token *grown = mem_resize(t->items, capacity, sizeof *grown);
        if (grown == NULL) {
            return no_memory(x);
        }
        t->items = grown;
        t->capacity = capacity;
    }
    t->items[t->n++] = token;
    return STATUS_OK;
}

static enum status push_text(struct lexer *x, enum jinja_token_kind kind, const char *text,
                             size_t len, size_t at)
{
    char *copy = arena_strndup(x->arena, text, len);
    if (copy == NULL) {
        return no_memory(x);
    }
    return push(x, (struct jinja_token){.kind = kind, .text = copy, .len = len, .at = at});
}

static bool is_at(const struct lexer *x, size_t at, const char *what)
{
    size_t n = strlen(what);
    return x->len - at >= n && memcmp(x->text + at, what, n) == 0;
}

/* Past the end of a tag: '-' takes all white space along; else a block or comment takes one LF. */
static void end_tag(struct lexer *x, char sign, bool takes_newline)
{
    size_t from = x->at;
    size_t n;
    if (sign == '-') {
        while ((n = jinja_space(x->text + x->at, x->len - x->at)) > 0) {
            x->at += n;
        }
    } else if (sign != '+' && takes_newline && x->at < x->len && x->text[x->at] == '\n') {
        x->at++;
    }
    x->line_start = x->at > from && x->text[x->at - 1] == '\n';
}

/* The text from x->at up to the tag at `end`, which begins with sign. */
static enum status lex_text(struct lexer *x, size_t end, char sign, bool is_print)
{
    const char *text = x->text + x->at;
    size_t len = end - x->at;
    if (sign == '-') {
        jinja_strip(&text, &len, false, true);
    } else if (sign != '+' && !is_print) {
        size_t line = len;
        while (line > 0 && text[line - 1] != '\n') {
            line--;
        }
        const char *indent = text + line;
        size_t left = len - line;
        jinja_strip(&indent, &left, true, false);
        if (left == 0 && (line > 0 || x->line_start)) {
            len = line;
        }
    }
    return len == 0 ? STATUS_OK : push_text(x, JINJA_TEXT, text, len, x->at);
}

static enum status lex_comment(struct lexer *x, size_t begin)
{
    for (; x->at < x->len; x->at++) {
        char c = x->text[x->at];
        char sign = c == '-' || c == '+' ? c : ' ';
        if (is_at(x, x->at + (sign != ' '), "#}")) {
            x->at += sign != ' ' ? 3 : 2;
            end_tag(x, sign, true);
            return STATUS_OK;
        }
    }
    return error_set(x->err, STATUS_UNSUPPORTED, (int64_t)begin,
                     "the comment at byte %zu has no end", begin);
}

static enum status lex_string(struct lexer *x)
{
    static const char letters[] = "nrt\\'\"";
    static const char meanings[] = "\n\r\t\\'\"";
    size_t begin = x->at;
    char quote = x->text[x->at++];
    char *copy = arena_alloc(x->arena, x->len - begin, 1);
    size_t n = 0;
    if (copy == NULL) {
        return no_memory(x);
    }
    while (x->at < x->len && x->text[x->at] != quote) {
        char c = x->text[x->at++];
        if (c == '\\') {
            c = x->at < x->len ? x->text[x->at++] : '\0';
            const char *letter = c != '\0' ? strchr(letters, c) : NULL;
            if (letter == NULL) {
                return error_set(x->err, STATUS_UNSUPPORTED, (int64_t)x->at - 2,
                                 "the escape \\%c at byte %zu is not supported", c, x->at - 2);
            }
            c = meanings[letter - letters];
        }
        copy[n++] = c;
    }
    if (x->at == x->len) {
        return error_set(x->err, STATUS_UNSUPPORTED, (int64_t)begin,
                         "the string at byte %zu has no end", begin);
    }
    x->at++;
    return push(x, (struct jinja_token){.kind = JINJA_STRING, .text = copy, .len = n, .at = begin});
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || is_digit(c);
}

static enum status lex_number(struct lexer *x)
{
    struct jinja_token token = {.kind = JINJA_NUMBER, .at = x->at};
    while (x->at < x->len && is_digit(x->text[x->at]) && x->at - token.at < JINJA_MAX_DIGITS) {
        token.number = token.number * 10 + (x->text[x->at++] - '0');
    }
    if (x->at < x->len && (is_word(x->text[x->at]) || x->text[x->at] == '.')) {
        return error_set(x->err, STATUS_UNSUPPORTED, (int64_t)token.at,
                         "the number at byte %zu is not a whole one of at most %u digits", token.at,
                         JINJA_MAX_DIGITS);
    }
    return push(x, token);
}

static enum status lex_operator(struct lexer *x)
{
    static const char *const operators[] = {"==", "!=", "<=", ">=", "<", ">", "+", "-", "~",
                                            "%",  "|",  ".",  "[",  "]", "(", ")", ":", "="};
    for (size_t i = 0; i < sizeof operators / sizeof operators[0]; i++) {
        if (is_at(x, x->at, operators[i])) {
            size_t begin = x->at;
            x->at += strlen(operators[i]);
            return push(x, (struct jinja_token){.kind = JINJA_OPERATOR,
                                                .text = operators[i],
                                                .len = x->at - begin,
                                                .at = begin});
        }
    }
    size_t n = utf8_sequence(x->text + x->at, x->len - x->at);
    return error_set(x->err, STATUS_UNSUPPORTED, (int64_t)x->at,
                     "'%.*s' at byte %zu is not supported", (int)n, x->text + x->at, x->at);
}

/* The inside of {% %} or {{ }}, and its end. */
static enum status lex_code(struct lexer *x, bool is_print, size_t begin)
{
    enum status st = STATUS_OK;
    while (st == STATUS_OK && x->at < x->len) {
        char c = x->text[x->at];
        char sign = c == '-' || (c == '+' && !is_print) ? c : ' ';
        if (is_at(x, x->at + (sign != ' '), is_print ? "}}" : "%}")) {
            st = push(x, (struct jinja_token){.kind = is_print ? JINJA_PRINT_END : JINJA_BLOCK_END,
                                              .at = x->at});
            x->at += sign != ' ' ? 3 : 2;
            end_tag(x, sign, !is_print);
            return st;
        }
        size_t space = jinja_space(x->text + x->at, x->len - x->at);
        if (space > 0) {
            x->at += space;
        } else if (c == '\'' || c == '"') {
            st = lex_string(x);
        } else if (is_digit(c)) {
            st = lex_number(x);
        } else if (is_word(c)) {
            size_t from = x->at;
            while (x->at < x->len && is_word(x->text[x->at])) {
                x->at++;
            }
            st = push_text(x, JINJA_NAME, x->text + from, x->at - from, from);
        } else {
            st = lex_operator(x);
        }
    }
    return st != STATUS_OK ? st
                           : error_set(x->err, STATUS_UNSUPPORTED, (int64_t)begin,
                                       "the tag at byte %zu has no end", begin);
}

static enum status lex_tag(struct lexer *x, size_t begin)
{
    char what = x->text[begin + 1];
    char sign = begin + 2 < x->len ? x->text[begin + 2] : ' ';
    sign = sign == '-' || sign == '+' ? sign : ' ';
    enum status st = lex_text(x, begin, sign, what == '{');
    x->at = begin + (sign != ' ' ? 3 : 2);
    x->line_start = false;
    if (st != STATUS_OK) {
        return st;
    }
    if (what == '#') {
        return lex_comment(x, begin);
    }
    st = push(x, (struct jinja_token){.kind = what == '{' ? JINJA_PRINT_BEGIN : JINJA_BLOCK_BEGIN,
                                      .at = begin});
    return st == STATUS_OK ? lex_code(x, what == '{', begin) : st;
}

/* Line ends become LF, and one at the very end goes. */
static void normalize(struct lexer *x, const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (text[i] == '\r') {
            i += i + 1 < len && text[i + 1] == '\n';
            x->text[x->len++] = '\n';
        } else {
            x->text[x->len++] = text[i];
        }
    }
    x->len -= x->len > 0 && x->text[x->len - 1] == '\n';
}

enum status jinja_lex(const char *text, size_t len, struct arena *arena, struct jinja_tokens *out,
                      struct error *err)
{
    struct lexer x = {.arena = arena, .out = out, .err = err, .line_start = true};
    if (len > JINJA_MAX_BYTES || !utf8_is_valid(text, len)) {
        return error_set(err, STATUS_UNSUPPORTED, -1, "the template is %s",
                         len > JINJA_MAX_BYTES ? "longer than 64 KiB" : "not UTF-8");
    }
    x.text = arena_alloc(arena, len + 1, 1);
    if (x.text == NULL) {
        return no_memory(&x);
    }
    normalize(&x, text, len);
    enum status st = STATUS_OK;
    while (st == STATUS_OK && x.at < x.len) {
        size_t begin = x.at;
        while (begin < x.len && !is_at(&x, begin, "{{") && !is_at(&x, begin, "{%") &&
               !is_at(&x, begin, "{#")) {
            begin++;
        }
        if (begin == x.len) {
            st = lex_text(&x, begin, '+', false);
            x.at = begin;
        } else {
            st = lex_tag(&x, begin);
        }
    }
    return st == STATUS_OK ? push(&x, (struct jinja_token){.kind = JINJA_END, .at = x.len}) : st;
}
