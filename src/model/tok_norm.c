/*
 * tok_norm.c - the first stage of encoding: normalizers, and the character classes and the
 * byte-level alphabet that all stages share.
 */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/utf8.h"
#include "model/tokenizer_int.h"

bool tok_is_space(uint32_t c)
{
    return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
           c == 0x205F || c == 0x3000;
}

bool tok_is_word(uint32_t c)
{
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default:
        /* Join_Control, and the circled letters (Other_Alphabetic) that are symbols */
        return c == 0x200C || c == 0x200D || (c >= 0x24B6 && c <= 0x24E9) ||
               (c >= 0x1F130 && c <= 0x1F149) || (c >= 0x1F150 && c <= 0x1F169) ||
               (c >= 0x1F170 && c <= 0x1F189);
    }
}

/* GPT-2's table (openai/gpt-2, src/encoder.py): printable Latin-1 stands for itself, the other 68
 * bytes take the characters from U+0100 on, in order. */
static bool is_printable_byte(uint32_t b)
{
    return (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || (b >= 0xAE && b <= 0xFF);
}

uint32_t tok_byte_to_char(unsigned char b)
{
    if (is_printable_byte(b)) {
        return b;
    }
    if (b <= 0x20) {
        return 0x100u + b;
    }
    return b == 0xAD ? 0x143u : 0x121u + (b - 0x7Fu);
}

int tok_char_to_byte(uint32_t c)
{
    if (c < 0x100) {
        return is_printable_byte(c) ? (int)c : -1;
    }
    if (c <= 0x120) {
        return (int)c - 0x100;
    }
    if (c <= 0x142) {
        return (int)c - 0x121 + 0x7F;
    }
    return c == 0x143 ? 0xAD : -1;
}

void tok_append_byte_chars(struct strbuf *out, const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        char c[4];
        strbuf_append(out, c, utf8_encode(tok_byte_to_char((unsigned char)text[i]), c));
    }
}

static bool is_ascii(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)text[i] >= 0x80) {
            return false;
        }
    }
    return true;
}

/* Canonical order: every run of combining characters sorted by class, equal classes kept in order.
 * A merge sort, because a hostile text is one run, and utf8proc's own sort is quadratic there. */
struct mark {
    uint32_t scalar;
    uint32_t place;
    int combining;
};

static int compare_marks(const void *a, const void *b)
{
    const struct mark *x = a;
    const struct mark *y = b;
    if (x->combining != y->combining) {
        return x->combining < y->combining ? -1 : 1;
    }
    return (x->place > y->place) - (x->place < y->place);
}

static int combining_class(uint32_t c)
{
    return c < 0x300 ? 0 : utf8proc_get_property((utf8proc_int32_t)c)->combining_class;
}

static enum status order_marks(uint32_t *c, size_t n, struct error *err)
{
    size_t i = 0;
    while (i < n) {
        size_t end = i;
        bool sorted = true;
        while (end < n && combining_class(c[end]) != 0) {
            sorted = sorted && (end == i || combining_class(c[end - 1]) <= combining_class(c[end]));
            end++;
        }
        if (!sorted) {
            struct mark *marks = mem_alloc(end - i, sizeof *marks);
            if (marks == NULL) {
                return tok_no_memory(err);
            }
            for (size_t k = i; k < end; k++) {
                marks[k - i] = (struct mark){c[k], (uint32_t)(k - i), combining_class(c[k])};
            }
            qsort(marks, end - i, sizeof *marks, compare_marks);
            for (size_t k = i; k < end; k++) {
                c[k] = marks[k - i].scalar;
            }
            mem_free(marks);
        }
        i = end > i ? end : i + 1;
    }
    return STATUS_OK;
}

/* Decomposes into s->scalars; *n is their number. */
static enum status decompose(struct tok_scratch *s, const char *text, size_t len, bool compat,
                             size_t *n, struct error *err)
{
    utf8proc_option_t options = UTF8PROC_DECOMPOSE;
    if (compat) {
        options |= UTF8PROC_COMPAT;
    }
    enum { MOST = 32 }; /* U+FDFA gives 18 characters, the longest of Unicode */
    size_t count = 0;
    size_t i = 0;
    while (i < len) {
        size_t step = utf8_sequence(text + i, len - i);
        uint32_t c = utf8_decode(text + i, step);
        if (tok_grow((void **)&s->scalars, &s->scalars_capacity, count + MOST, 4) != STATUS_OK) {
            return tok_no_memory(err);
        }
        int boundary = 0;
        utf8proc_ssize_t got = utf8proc_decompose_char(
            (utf8proc_int32_t)c, (utf8proc_int32_t *)s->scalars + count, MOST, options, &boundary);
        if (got < 0 || got > MOST) {
            return error_set(err, STATUS_BAD_DATA, (int64_t)i, "U+%04X does not decompose", c);
        }
        count += (size_t)got;
        if (count > TOK_MAX_TEXT_BYTES / 4) {
            return error_set(err, STATUS_BAD_DATA, (int64_t)i, "the text is too long");
        }
        i += step;
    }
    *n = count;
    return order_marks(s->scalars, count, err);
}

static enum status unicode_form(enum tok_norm_kind kind, struct tok_scratch *s, const char *text,
                                size_t len, struct strbuf *out, struct error *err)
{
    bool compat = kind == TOK_NORM_NFKC || kind == TOK_NORM_NFKD;
    size_t n = 0;
    enum status st = decompose(s, text, len, compat, &n, err);
    if (st != STATUS_OK) {
        return st;
    }
    if (kind == TOK_NORM_NFC || kind == TOK_NORM_NFKC) {
        utf8proc_ssize_t left =
            utf8proc_normalize_utf32((utf8proc_int32_t *)s->scalars, (utf8proc_ssize_t)n,
                                     (utf8proc_option_t)(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
        n = left > 0 ? (size_t)left : 0;
    }
    for (size_t i = 0; i < n; i++) {
        char c[4];
        strbuf_append(out, c, utf8_encode(s->scalars[i], c));
    }
    return STATUS_OK;
}

static void lowercase(const char *text, size_t len, struct strbuf *out)
{
    for (size_t i = 0; i < len;) {
        size_t step = utf8_sequence(text + i, len - i);
        uint32_t c = utf8_decode(text + i, step);
        char low[4];
        if (c == 0x130) { /* the one letter whose lower case is two characters */
            strbuf_puts(out, "i\xCC\x87");
        } else {
            c = (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
            strbuf_append(out, low, utf8_encode(c, low));
        }
        i += step;
    }
}

static void strip(const struct tok_norm *norm, const char *text, size_t len, struct strbuf *out)
{
    size_t start = 0;
    while (norm->left && start < len) {
        size_t step = utf8_sequence(text + start, len - start);
        if (!tok_is_space(utf8_decode(text + start, step))) {
            break;
        }
        start += step;
    }
    while (norm->right && len > start) {
        size_t step = 1;
        while (((unsigned char)text[len - step] & 0xC0) == 0x80) {
            step++;
        }
        if (!tok_is_space(utf8_decode(text + len - step, step))) {
            break;
        }
        len -= step;
    }
    strbuf_append(out, text + start, len - start);
}

static enum status apply(const struct tok_norm *norm, struct tok_scratch *s, const char *text,
                         size_t len, struct strbuf *out, struct error *err)
{
    switch (norm->kind) {
    case TOK_NORM_PREPEND:
        if (len > 0) {
            strbuf_append(out, norm->content, norm->len);
            strbuf_append(out, text, len);
        }
        return STATUS_OK;
    case TOK_NORM_REPLACE:
        return tok_regex_replace(&norm->regex, s, text, len, norm->content, norm->len, out, err);
    case TOK_NORM_NFC:
    case TOK_NORM_NFD:
    case TOK_NORM_NFKC:
    case TOK_NORM_NFKD:
        if (!is_ascii(text, len)) {
            return unicode_form(norm->kind, s, text, len, out, err);
        }
        strbuf_append(out, text, len);
        return STATUS_OK;
    case TOK_NORM_LOWERCASE:
        lowercase(text, len, out);
        return STATUS_OK;
    case TOK_NORM_STRIP:
        strip(norm, text, len, out);
        return STATUS_OK;
    case TOK_NORM_BYTE_LEVEL:
        tok_append_byte_chars(out, text, len);
        return STATUS_OK;
    }
    return STATUS_OK;
}

enum status tok_normalize(const struct tokenizer *t, struct tok_scratch *s, const char *text,
                          size_t len, struct tok_token *out, struct error *err)
{
    struct tok_token now = {.text = text, .len = (uint32_t)len};
    for (uint32_t i = 0; i < t->n_norms; i++) {
        struct strbuf *to = &s->normal[i % 2];
        strbuf_clear(to);
        enum status st = apply(&t->norms[i], s, now.text, now.len, to, err);
        if (st == STATUS_OK) {
            st = tok_check_text(s, to, err);
        }
        if (st != STATUS_OK) {
            return st;
        }
        now = (struct tok_token){.text = strbuf_text(to), .len = (uint32_t)to->len};
    }
    *out = now;
    return STATUS_OK;
}
