/*
 * tok_pretok.c - the second stage of encoding: a text is split into words, which are then merged
 * each on its own. A step either cuts the ranges finer or rewrites the text (byte-level alphabet, a
 * leading space), range by range.
 */
#include <string.h>

#include "base/utf8.h"
#include "model/tokenizer_int.h"

struct splitter {
    const struct tok_pretok *step;
    struct tok_scratch *s;
    struct tok_spans *out;
    size_t base;      /* where the piece lies in the text of the spans */
    size_t first_out; /* spans of earlier pieces; a merge never reaches back into them */
    bool previous;    /* was the piece before a match */
    bool pending;     /* MERGED_WITH_NEXT: a delimiter waits for what follows */
    size_t pending_start;
};

static enum status push(struct splitter *p, size_t start, size_t end)
{
    return end > start ? tok_spans_push(p->out, p->base + start, end - start) : STATUS_OK;
}

/* Makes the last span of this piece longer, or starts one. */
static enum status extend(struct splitter *p, size_t start, size_t end)
{
    if (p->out->n > p->first_out) {
        struct tok_span *last = &p->out->items[p->out->n - 1];
        last->len = (uint32_t)(p->base + end - last->start);
        return STATUS_OK;
    }
    return push(p, start, end);
}

/* One stretch of the piece, in order, by the rules of the library's SplitDelimiterBehavior. */
static enum status stretch(struct splitter *p, size_t start, size_t end, bool is_match)
{
    enum status st = STATUS_OK;
    switch (p->step->behavior) {
    case TOK_SPLIT_REMOVED:
        st = is_match ? STATUS_OK : push(p, start, end);
        break;
    case TOK_SPLIT_ISOLATED:
        st = push(p, start, end);
        break;
    case TOK_SPLIT_CONTIGUOUS:
        st = is_match == p->previous ? extend(p, start, end) : push(p, start, end);
        break;
    case TOK_SPLIT_MERGED_WITH_PREVIOUS:
        st = is_match && !p->previous ? extend(p, start, end) : push(p, start, end);
        break;
    case TOK_SPLIT_MERGED_WITH_NEXT:
        /* A run of delimiters stays apart except its last, which leads what follows. */
        if (is_match) {
            st = p->pending ? push(p, p->pending_start, start) : STATUS_OK;
            p->pending = true;
            p->pending_start = start;
        } else {
            st = push(p, p->pending ? p->pending_start : start, end);
            p->pending = false;
        }
        break;
    }
    p->previous = is_match;
    return st;
}

/* Splits one piece, text[0, len), by the step's regex. */
static enum status split_piece(struct splitter *p, const char *text, size_t len, struct error *err)
{
    struct tok_matches m = {0};
    size_t done = 0;
    bool found = true;
    p->first_out = p->out->n;
    p->previous = false;
    p->pending = false;
    while (found) {
        size_t start = len;
        size_t end = len;
        enum status st =
            tok_regex_next(&p->step->regex, p->s, text, len, &m, &found, &start, &end, err);
        if (st != STATUS_OK) {
            return st;
        }
        if (done < start) {
            st = stretch(p, done, start, p->step->invert);
        }
        if (st == STATUS_OK && found) {
            st = stretch(p, start, end, !p->step->invert);
        }
        if (st != STATUS_OK) {
            return tok_no_memory(err);
        }
        done = end;
    }
    if (p->pending && push(p, p->pending_start, len) != STATUS_OK) {
        return tok_no_memory(err);
    }
    return STATUS_OK;
}

static bool starts_with(const char *text, size_t len, const char *what, size_t n)
{
    return len >= n && memcmp(text, what, n) == 0;
}

/* Appends the piece to out as METASPACE has it: spaces replaced, a replacement in front. */
static void metaspace(const struct tok_pretok *step, const char *text, size_t len, bool first,
                      struct strbuf *out)
{
    const char *mark = step->replacement;
    uint32_t n = step->replacement_len;
    bool prepend =
        step->prepend == TOK_PREPEND_ALWAYS || (step->prepend == TOK_PREPEND_FIRST && first);
    if (prepend && text[0] != ' ' && !starts_with(text, len, mark, n)) {
        strbuf_append(out, mark, n);
    }
    for (size_t i = 0; i < len; i++) {
        if (text[i] == ' ') {
            strbuf_append(out, mark, n);
        } else {
            strbuf_putc(out, text[i]);
        }
    }
}

struct stage {
    const char *text;
    const struct tok_spans *spans;
};

/* Rewrites every piece of `from` into `text`, ranges into `spans`: a space or a mark in front. */
static enum status rewrite(const struct tok_pretok *step, const struct tok_scratch *s,
                           const struct stage *from, bool first, struct strbuf *text,
                           struct tok_spans *spans, struct error *err)
{
    for (size_t i = 0; i < from->spans->n; i++) {
        const char *piece = from->text + from->spans->items[i].start;
        size_t len = from->spans->items[i].len;
        size_t start = text->len;
        if (step->kind == TOK_PRETOK_METASPACE) {
            metaspace(step, piece, len, first && i == 0, text);
        } else {
            if (step->add_prefix_space && piece[0] != ' ') {
                strbuf_putc(text, ' ');
            }
            strbuf_append(text, piece, len);
        }
        enum status st = tok_check_text(s, text, err);
        if (st != STATUS_OK) {
            return st;
        }
        if (tok_spans_push(spans, start, text->len - start) != STATUS_OK) {
            return tok_no_memory(err);
        }
    }
    return STATUS_OK;
}

static enum status split_all(const struct tok_pretok *step, struct tok_scratch *s,
                             const struct stage *from, struct tok_spans *out, struct error *err)
{
    struct splitter p = {.step = step, .s = s, .out = out};
    for (size_t i = 0; i < from->spans->n; i++) {
        p.base = from->spans->items[i].start;
        enum status st = split_piece(&p, from->text + p.base, from->spans->items[i].len, err);
        if (st != STATUS_OK) {
            return st;
        }
    }
    return STATUS_OK;
}

/* Every piece in the byte-level alphabet. */
static enum status to_byte_chars(const struct tok_scratch *s, const struct stage *from,
                                 struct strbuf *text, struct tok_spans *spans, struct error *err)
{
    for (size_t i = 0; i < from->spans->n; i++) {
        size_t start = text->len;
        tok_append_byte_chars(text, from->text + from->spans->items[i].start,
                              from->spans->items[i].len);
        enum status st = tok_check_text(s, text, err);
        if (st != STATUS_OK) {
            return st;
        }
        if (tok_spans_push(spans, start, text->len - start) != STATUS_OK) {
            return tok_no_memory(err);
        }
    }
    return STATUS_OK;
}

/* The two text buffers and the two span lists of the scratch take turns. */
struct turn {
    struct tok_scratch *s;
    struct stage now;
    int text;
    int spans;
};

static struct strbuf *next_text(struct turn *t)
{
    t->text = !t->text;
    strbuf_clear(&t->s->words[t->text]);
    return &t->s->words[t->text];
}

static struct tok_spans *next_spans(struct turn *t)
{
    t->spans = !t->spans;
    t->s->spans[t->spans].n = 0;
    return &t->s->spans[t->spans];
}

static enum status run_step(const struct tok_pretok *step, struct turn *t, bool first,
                            struct error *err)
{
    enum status st = STATUS_OK;
    bool rewrites = step->kind == TOK_PRETOK_METASPACE || step->add_prefix_space;
    if (rewrites) {
        struct strbuf *text = next_text(t);
        struct tok_spans *spans = next_spans(t);
        st = rewrite(step, t->s, &t->now, first, text, spans, err);
        t->now = (struct stage){strbuf_text(text), spans};
    }
    if (st == STATUS_OK && (step->kind == TOK_PRETOK_SPLIT || step->split)) {
        struct tok_spans *spans = next_spans(t);
        st = split_all(step, t->s, &t->now, spans, err);
        t->now.spans = spans;
    }
    if (st == STATUS_OK && step->kind == TOK_PRETOK_BYTE_LEVEL) {
        struct strbuf *text = next_text(t);
        struct tok_spans *spans = next_spans(t);
        st = to_byte_chars(t->s, &t->now, text, spans, err);
        t->now = (struct stage){strbuf_text(text), spans};
    }
    return st;
}

enum status tok_pretokenize(const struct tokenizer *t, struct tok_scratch *s, const char *text,
                            size_t len, bool first, const char **words_text,
                            const struct tok_spans **words, struct error *err)
{
    struct turn turn = {.s = s, .now = {.text = text}};
    struct tok_spans *whole = next_spans(&turn);
    if (tok_spans_push(whole, 0, len) != STATUS_OK) {
        return tok_no_memory(err);
    }
    turn.now.spans = whole;
    for (uint32_t i = 0; i < t->n_pretoks; i++) {
        enum status st = run_step(&t->pretoks[i], &turn, first, err);
        if (st != STATUS_OK) {
            return st;
        }
    }
    *words_text = turn.now.text;
    *words = turn.now.spans;
    return STATUS_OK;
}
