/*
 * tok_regex.c - the regexes of tokenizer files, on PCRE2 with JIT.
 *
 * The files are written for Oniguruma (Ruby dialect, Unicode), the engine of the `tokenizers`
 * library. Most of the syntax they use means the same in PCRE2; what differs is rewritten here
 * (\s \d \w by Unicode property, scripts, \v, \uHHHH) and what could mean something else is refused
 * by name, never guessed. Dialect: github.com/kkos/oniguruma doc/RE.
 *
 * Letters are what the PCRE2 at hand knows: 10.42 has Unicode 14, the library's Oniguruma is newer,
 * so characters that Unicode added since may split otherwise (tokenizer_oracle.py counts them).
 *
 * Subjects are checked as UTF-8 once, by the caller, and never again: with PCRE2's own check each
 * of the many calls on one text would scan all of it.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <string.h>

#include "base/utf8.h"
#include "model/tokenizer_int.h"

/* A split regex of a real file needs a few thousand steps and hardly any stack for one match; these
 * stop patterns that backtrack without end, in well under a second. */
#define MATCH_LIMIT     20000000u
#define HEAP_LIMIT_KIB  (64u << 10)
#define JIT_STACK_START ((size_t)32 << 10)
#define JIT_STACK_MAX   ((size_t)1 << 20)

/* Oniguruma's table for Latin-1 counts superscript digits and fractions as word characters, beyond
 * UTS 18: measured against the library for every code point. */
#define WORD_CLASS "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"

static void *pcre_alloc(size_t n, void *unused)
{
    (void)unused;
    return mem_alloc(n, 1);
}

static void pcre_free(void *p, void *unused)
{
    (void)unused;
    mem_free(p);
}

struct reader {
    const char *text;
    size_t len;
    size_t at;
    struct strbuf out;
    struct error *err;
};

static enum status refuse(struct reader *r, const char *what)
{
    return error_set(r->err, STATUS_UNSUPPORTED, -1,
                     "regex \"%.*s\": %s (byte %zu) is not supported; use a tokenizer that avoids "
                     "it, or a GGUF file",
                     (int)(r->len < 80 ? r->len : 80), r->text, what, r->at);
}

static int peek(const struct reader *r, size_t ahead)
{
    return r->at + ahead < r->len ? (unsigned char)r->text[r->at + ahead] : -1;
}

static bool is_alnum(int c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

static bool is_hex(int c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'F') || (c >= 'a' && c <= 'f');
}

/* \p{Name}: general categories and binary properties as they are; anything else is a script, which
 * Oniguruma takes without the script extensions that PCRE2 would add. */
static enum status property(struct reader *r, bool negate)
{
    char name[32];
    size_t n = 0;
    size_t i = 3;
    if (peek(r, 2) != '{') {
        return refuse(r, "a property without braces");
    }
    if (peek(r, i) == '^') {
        negate = !negate;
        i++;
    }
    while (is_alnum(peek(r, i)) || peek(r, i) == '_') {
        if (n + 1 >= sizeof name) {
            return refuse(r, "this property name");
        }
        name[n++] = (char)peek(r, i++);
    }
    name[n] = '\0';
    if (n == 0 || peek(r, i) != '}') {
        return refuse(r, "this property name");
    }
    const char *kind = n <= 2 || strcmp(name, "Any") == 0 || strcmp(name, "Alphabetic") == 0 ||
                               strcmp(name, "White_Space") == 0
                           ? ""
                           : "sc:";
    strbuf_printf(&r->out, "\\%c{%s%s}", negate ? 'P' : 'p', kind, name);
    r->at += i + 1;
    return STATUS_OK;
}

/* \xHH (ASCII only: above, Oniguruma means a raw byte), \x{H...}, \uHHHH. */
static enum status code_point(struct reader *r)
{
    bool braces = peek(r, 1) == 'x' && peek(r, 2) == '{';
    size_t i = braces ? 3 : 2;
    size_t most = braces ? 8 : peek(r, 1) == 'x' ? 2 : 4;
    uint32_t value = 0;
    size_t digits = 0;
    while (digits < most && is_hex(peek(r, i))) {
        int c = peek(r, i++);
        value = value * 16 + (uint32_t)(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
        digits++;
    }
    bool complete = braces ? digits > 0 && peek(r, i) == '}' : digits == most;
    bool raw_byte = most == 2 && value > 0x7F;
    if (!complete || raw_byte || value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF)) {
        return refuse(r, "this character code");
    }
    strbuf_printf(&r->out, "\\x{%x}", value);
    r->at += i + (braces ? 1 : 0);
    return STATUS_OK;
}

static enum status refuse_escape(struct reader *r, int c)
{
    char what[] = "the escape \\?";
    if (c < 0) {
        return refuse(r, "an escape at the end");
    }
    if (c >= 0x20 && c < 0x7F) {
        what[sizeof what - 2] = (char)c;
    }
    return refuse(r, what);
}

static enum status escape(struct reader *r, bool in_class)
{
    int c = peek(r, 1);
    const char *plain = NULL;
    switch (c) {
    case 's':
        plain = "\\p{White_Space}";
        break;
    case 'S':
        plain = "\\P{White_Space}";
        break;
    case 'd':
        plain = "\\p{Nd}";
        break;
    case 'D':
        plain = "\\P{Nd}";
        break;
    case 'w':
        plain = in_class ? WORD_CLASS : "[" WORD_CLASS "]";
        break;
    case 'W':
        plain = in_class ? NULL : "[^" WORD_CLASS "]";
        break;
    case 'v': /* Oniguruma: the character VT; PCRE2: any vertical space */
        plain = "\\x0b";
        break;
    case 'p':
    case 'P':
        return property(r, c == 'P');
    case 'x':
    case 'u':
        return code_point(r);
    case 'n':
    case 'r':
    case 't':
    case 'f':
    case 'a':
    case 'e':
        strbuf_printf(&r->out, "\\%c", c);
        r->at += 2;
        return STATUS_OK;
    case 'A':
    case 'z':
        if (!in_class) {
            strbuf_printf(&r->out, "\\%c", c);
            r->at += 2;
            return STATUS_OK;
        }
        break;
    default:
        if (c > 0x20 && c < 0x7F && !is_alnum(c)) { /* escaped punctuation stands for itself */
            strbuf_printf(&r->out, "\\%c", c);
            r->at += 2;
            return STATUS_OK;
        }
        if (c == ' ' || c >= 0x80) { /* the character itself follows */
            r->at += 1;
            return STATUS_OK;
        }
        break;
    }
    if (plain == NULL) {
        return refuse_escape(r, c);
    }
    strbuf_puts(&r->out, plain);
    r->at += 2;
    return STATUS_OK;
}

static enum status char_class(struct reader *r)
{
    strbuf_putc(&r->out, '[');
    r->at++;
    if (peek(r, 0) == '^') {
        strbuf_putc(&r->out, '^');
        r->at++;
    }
    if (peek(r, 0) == ']') {
        return refuse(r, "an empty class");
    }
    while (peek(r, 0) != ']') {
        int c = peek(r, 0);
        enum status st = STATUS_OK;
        if (c < 0) {
            st = refuse(r, "a class without end");
        } else if (c == '[') {
            st = refuse(r, "a class inside a class");
        } else if (c == '&' && peek(r, 1) == '&') {
            st = refuse(r, "the class intersection &&");
        } else if (c == '\\') {
            st = escape(r, true);
        } else {
            strbuf_putc(&r->out, (char)c);
            r->at++;
        }
        if (st != STATUS_OK) {
            return st;
        }
    }
    strbuf_putc(&r->out, ']');
    r->at++;
    return STATUS_OK;
}

/* '(' and what may follow it. Options are known only where both dialects agree. */
static enum status group(struct reader *r)
{
    static const char *const openings[] = {
        "(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?-i:"};
    if (peek(r, 1) != '?') {
        strbuf_putc(&r->out, '(');
        r->at++;
        return STATUS_OK;
    }
    for (size_t i = 0; i < sizeof openings / sizeof openings[0]; i++) {
        size_t n = strlen(openings[i]);
        if (r->len - r->at >= n && memcmp(r->text + r->at, openings[i], n) == 0) {
            strbuf_append(&r->out, openings[i], n);
            r->at += n;
            return STATUS_OK;
        }
    }
    if (r->at == 0 && r->len >= 4 && memcmp(r->text, "(?i)", 4) == 0) {
        strbuf_puts(&r->out, "(?i)"); /* elsewhere Ruby groups what follows */
        r->at += 4;
        return STATUS_OK;
    }
    return refuse(r, "this kind of group");
}

/* {n} {n,} {n,m}; Ruby reads {,m}, {n}+ and {n}? otherwise than Perl. */
static enum status interval(struct reader *r)
{
    size_t i = 1;
    while (peek(r, i) >= '0' && peek(r, i) <= '9') {
        i++;
    }
    bool ok = i > 1;
    if (peek(r, i) == ',') {
        i++;
        while (peek(r, i) >= '0' && peek(r, i) <= '9') {
            i++;
        }
    }
    ok = ok && peek(r, i) == '}' && peek(r, i + 1) != '+' && peek(r, i + 1) != '?';
    if (!ok) {
        return refuse(r, "this form of {}");
    }
    strbuf_append(&r->out, r->text + r->at, i + 1);
    r->at += i + 1;
    return STATUS_OK;
}

static enum status translate(struct reader *r)
{
    while (r->at < r->len) {
        int c = peek(r, 0);
        enum status st = STATUS_OK;
        if (c == '\\') {
            st = escape(r, false);
        } else if (c == '[') {
            st = char_class(r);
        } else if (c == '(') {
            st = group(r);
        } else if (c == '{') {
            st = interval(r);
        } else if (c == '}' || c == ']' || c == 0) {
            st = refuse(r, "a bare } or ]");
        } else {
            strbuf_putc(&r->out, (char)c);
            r->at++;
        }
        if (st != STATUS_OK) {
            return st;
        }
    }
    return r->out.failed ? tok_no_memory(r->err) : STATUS_OK;
}

static enum status compile(const char *source, size_t len, uint32_t options, struct reader *r,
                           struct tok_regex *out)
{
    pcre2_general_context *general = pcre2_general_context_create(pcre_alloc, pcre_free, NULL);
    pcre2_compile_context *context = general != NULL ? pcre2_compile_context_create(general) : NULL;
    enum status st = STATUS_OK;
    if (context == NULL) {
        st = tok_no_memory(r->err);
    } else {
        int code = 0;
        PCRE2_SIZE at = 0;
        pcre2_set_newline(context, PCRE2_NEWLINE_LF);
        pcre2_code *re = pcre2_compile((PCRE2_SPTR)source, len, options, &code, &at, context);
        if (re != NULL) {
            /* Without JIT (refused memory, hardened kernels) the interpreter does the same work. */
            (void)pcre2_jit_compile(re, PCRE2_JIT_COMPLETE);
            out->code = re;
        } else if (code == PCRE2_ERROR_NOMEMORY || code == 121 /* failed to get heap memory */) {
            st = tok_no_memory(r->err);
        } else {
            PCRE2_UCHAR why[128] = "";
            pcre2_get_error_message(code, why, sizeof why);
            st = error_set(r->err, STATUS_UNSUPPORTED, -1, "regex \"%.*s\": %s",
                           (int)(r->len < 80 ? r->len : 80), r->text, (const char *)why);
        }
    }
    pcre2_compile_context_free(context);
    pcre2_general_context_free(general);
    return st;
}

enum status tok_regex_compile(const char *pattern, size_t len, bool literal, struct tok_regex *out,
                              struct error *err)
{
    struct reader r = {.text = pattern, .len = len, .err = err};
    if (len == 0 || len > TOK_MAX_PATTERN_BYTES) {
        return error_set(err, STATUS_UNSUPPORTED, -1, "a pattern of %zu bytes (1 to %zu)", len,
                         TOK_MAX_PATTERN_BYTES);
    }
    if (literal) {
        return compile(pattern, len, PCRE2_UTF | PCRE2_LITERAL, &r, out);
    }
    enum status st = translate(&r);
    if (st == STATUS_OK) {
        /* Ruby's ^ and $ always stand at lines. */
        st = compile(r.out.data, r.out.len,
                     PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &r, out);
    }
    strbuf_deinit(&r.out);
    return st;
}

void tok_regex_free(struct tok_regex *r)
{
    pcre2_code_free(r->code);
    r->code = NULL;
}

static enum status prepare(struct tok_scratch *s, struct error *err)
{
    if (s->jit_stack != NULL) {
        return STATUS_OK;
    }
    pcre2_general_context *general = pcre2_general_context_create(pcre_alloc, pcre_free, NULL);
    if (general != NULL) {
        s->match_data = s->match_data != NULL ? s->match_data : pcre2_match_data_create(1, general);
        s->match_context =
            s->match_context != NULL ? s->match_context : pcre2_match_context_create(general);
        s->jit_stack = pcre2_jit_stack_create(JIT_STACK_START, JIT_STACK_MAX, general);
    }
    pcre2_general_context_free(general);
    if (s->match_data == NULL || s->match_context == NULL || s->jit_stack == NULL) {
        return tok_no_memory(err);
    }
    pcre2_set_match_limit(s->match_context, MATCH_LIMIT);
    pcre2_set_heap_limit(s->match_context, HEAP_LIMIT_KIB);
    pcre2_jit_stack_assign(s->match_context, NULL, s->jit_stack);
    return STATUS_OK;
}

void tok_regex_scratch_free(struct tok_scratch *s)
{
    pcre2_match_data_free(s->match_data);
    pcre2_match_context_free(s->match_context);
    pcre2_jit_stack_free(s->jit_stack);
    s->match_data = NULL;
    s->match_context = NULL;
    s->jit_stack = NULL;
}

enum status tok_regex_next(const struct tok_regex *r, struct tok_scratch *s, const char *text,
                           size_t len, struct tok_matches *m, bool *found, size_t *start,
                           size_t *end, struct error *err)
{
    enum status st = prepare(s, err);
    while (st == STATUS_OK && m->next <= len) {
        int rc = pcre2_match(r->code, (PCRE2_SPTR)text, len, m->next, PCRE2_NO_UTF_CHECK,
                             s->match_data, s->match_context);
        if (rc == PCRE2_ERROR_NOMATCH) {
            break;
        }
        if (rc == PCRE2_ERROR_NOMEMORY) {
            return tok_no_memory(err);
        }
        if (rc < 0) {
            return error_set(err, STATUS_BAD_DATA, (int64_t)m->next,
                             "the tokenizer's regex gave up on this text (PCRE2 error %d)", rc);
        }
        const PCRE2_SIZE *range = pcre2_get_ovector_pointer(s->match_data);
        /* \K is refused, but a look-ahead could still end before its start. */
        size_t from = range[0] < range[1] ? range[0] : range[1];
        size_t to = range[1];
        if (from == to && m->any && m->last_end == to) {
            /* An empty match right behind the last one: step over a character, as Oniguruma. */
            size_t step = m->next < len ? utf8_sequence(text + m->next, len - m->next) : 1;
            m->next += step > 0 ? step : 1;
            continue;
        }
        m->next = to;
        m->last_end = to;
        m->any = true;
        *start = from;
        *end = to;
        *found = true;
        return STATUS_OK;
    }
    *found = false;
    return st;
}

enum status tok_regex_replace(const struct tok_regex *r, struct tok_scratch *s, const char *text,
                              size_t len, const char *content, size_t content_len,
                              struct strbuf *out, struct error *err)
{
    struct tok_matches m = {0};
    size_t done = 0;
    for (;;) {
        bool found = false;
        size_t start = 0;
        size_t end = 0;
        enum status st = tok_regex_next(r, s, text, len, &m, &found, &start, &end, err);
        if (st == STATUS_OK && found) {
            strbuf_append(out, text + done, start - done);
            strbuf_append(out, content, content_len);
            done = end;
            st = tok_check_text(s, out, err);
        }
        if (st != STATUS_OK) {
            return st;
        }
        if (!found) {
            strbuf_append(out, text + done, len - done);
            return tok_check_text(s, out, err);
        }
    }
}
