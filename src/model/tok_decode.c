/*
 * tok_decode.c - ids to text. The decoder steps of the files act on single tokens, so each token's
 * text is made once, at load time; what is left for the stream is to join, to drop what a Strip
 * after Fuse takes at the very start, and to keep UTF-8 whole.
 *
 * One difference to the `tokenizers` library, on broken input only: its ByteFallback turns every
 * byte of a run into U+FFFD when the run as a whole is not UTF-8. A stream cannot know that in
 * time; here the well-formed characters of such a run stay.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "model/tokenizer_int.h"

/* --- pieces, at load time ------------------------------------------------------------------- */

/* Two buffers take turns as in normalising. */
struct piece_maker {
    struct tokenizer *t;
    struct tok_scratch scratch;
    struct strbuf text[2];
    int now;
    size_t total; /* bytes of all pieces so far */
    struct error *err;
};

/* All characters of the byte-level alphabet: the bytes; else the text as it is. */
static void byte_level(const char *text, size_t len, struct strbuf *out)
{
    for (size_t i = 0; i < len;) {
        size_t step = utf8_sequence(text + i, len - i);
        int b = tok_char_to_byte(utf8_decode(text + i, step));
        if (b < 0) {
            strbuf_clear(out);
            strbuf_append(out, text, len);
            return;
        }
        strbuf_putc(out, (char)b);
        i += step;
    }
}

static void metaspace(const struct tok_decode *d, const char *text, size_t len, bool first,
                      struct strbuf *out)
{
    for (size_t i = 0; i < len;) {
        size_t step = utf8_sequence(text + i, len - i);
        if (step == d->what_len && memcmp(text + i, d->what, step) == 0) {
            if (!(first && d->drop_first)) {
                strbuf_putc(out, ' ');
            }
        } else {
            strbuf_append(out, text + i, step);
        }
        i += step;
    }
}

static void strip(const struct tok_decode *d, const char *text, size_t len, struct strbuf *out)
{
    for (uint32_t i = 0; i < d->start && len >= d->what_len; i++) {
        if (memcmp(text, d->what, d->what_len) != 0) {
            break;
        }
        text += d->what_len;
        len -= d->what_len;
    }
    for (uint32_t i = 0; i < d->stop && len >= d->what_len; i++) {
        if (memcmp(text + len - d->what_len, d->what, d->what_len) != 0) {
            break;
        }
        len -= d->what_len;
    }
    strbuf_append(out, text, len);
}

/* Runs one step on the current buffer. *is_byte: the rest of the chain leaves byte tokens alone. */
static enum status run_decode(struct piece_maker *m, const struct tok_decode *d, bool first,
                              bool *is_byte)
{
    const struct strbuf *from = &m->text[m->now];
    struct strbuf *to = &m->text[!m->now];
    const char *text = strbuf_text(from);
    enum status st = STATUS_OK;
    strbuf_clear(to);
    switch (d->kind) {
    case TOK_DECODE_REPLACE:
        st = tok_regex_replace(&d->regex, &m->scratch, text, from->len, d->content, d->len, to,
                               m->err);
        break;
    case TOK_DECODE_BYTE_FALLBACK: {
        int b = tok_byte_of(text, from->len);
        if (b >= 0) {
            strbuf_putc(to, (char)b);
            *is_byte = true;
        } else {
            strbuf_append(to, text, from->len);
        }
        break;
    }
    case TOK_DECODE_BYTE_LEVEL:
        byte_level(text, from->len, to);
        break;
    case TOK_DECODE_METASPACE:
        metaspace(d, text, from->len, first, to);
        break;
    case TOK_DECODE_STRIP:
        strip(d, text, from->len, to);
        break;
    }
    m->now = !m->now;
    return st;
}

static enum status make_piece(struct piece_maker *m, const char *text, size_t len, bool first,
                              struct tok_piece *out)
{
    bool is_byte = false;
    tok_scratch_limit(&m->scratch, len);
    strbuf_clear(&m->text[m->now]);
    strbuf_append(&m->text[m->now], text, len);
    for (uint32_t i = 0; i < m->t->n_decodes && !is_byte; i++) {
        enum status st = run_decode(m, &m->t->decodes[i], first, &is_byte);
        if (st == STATUS_OK) {
            st = tok_check_text(&m->scratch, &m->text[m->now], m->err);
        }
        if (st != STATUS_OK) {
            return st;
        }
    }
    const struct strbuf *done = &m->text[m->now];
    if (done->failed) {
        return tok_no_memory(m->err);
    }
    m->total += done->len;
    if (m->total > TOK_MAX_PIECES_BYTES) {
        return error_set(m->err, STATUS_BAD_MODEL, -1,
                         "the decoded tokens together exceed %zu bytes", TOK_MAX_PIECES_BYTES);
    }
    /* Most pieces of plain text equal their token: share it. */
    bool same = done->len == len && memcmp(strbuf_text(done), text, len) == 0;
    out->text = same ? text : arena_strndup(&m->t->arena, strbuf_text(done), done->len);
    out->len = (uint32_t)done->len;
    out->present = true;
    return out->text != NULL ? STATUS_OK : tok_no_memory(m->err);
}

static enum status vocab_pieces(struct piece_maker *m, struct tok_piece *pieces, bool first)
{
    const struct tokenizer *t = m->t;
    for (uint32_t i = 0; i < t->vocab.n_ids; i++) {
        const struct tok_token *token = &t->vocab.tokens[i];
        enum status st = token->text == NULL
                             ? STATUS_OK
                             : make_piece(m, token->text, token->len, first, &pieces[i]);
        if (st != STATUS_OK) {
            return st;
        }
    }
    return STATUS_OK;
}

static enum status added_pieces(struct piece_maker *m, struct tok_piece *pieces, bool first,
                                bool *seen)
{
    const struct tokenizer *t = m->t;
    for (uint32_t i = 0; i < t->n_added; i++) {
        const struct tok_added *a = &t->added[i];
        if (seen[a->id]) {
            return error_set(m->err, STATUS_BAD_MODEL, -1, "two added tokens have id %d", a->id);
        }
        seen[a->id] = true;
        /* The library decodes the normalised form, so that its decoder can undo it. */
        enum status st = make_piece(m, a->pattern, a->pattern_len, first, &pieces[a->id]);
        if (st != STATUS_OK) {
            return st;
        }
        pieces[a->id].special = a->special;
    }
    return STATUS_OK;
}

static enum status make_table(struct piece_maker *m, bool first, struct tok_piece **table)
{
    *table = mem_alloc(m->t->n_ids, sizeof **table);
    bool *seen = mem_alloc(m->t->n_ids, sizeof *seen);
    enum status st = STATUS_OK;
    if (*table == NULL || seen == NULL) {
        st = tok_no_memory(m->err);
    }
    if (st == STATUS_OK) {
        st = vocab_pieces(m, *table, first);
    }
    if (st == STATUS_OK) {
        st = added_pieces(m, *table, first, seen);
    }
    mem_free(seen);
    return st;
}

static enum status byte_pieces(struct tokenizer *t, struct error *err)
{
    t->pieces = mem_alloc(256, sizeof *t->pieces);
    char *bytes = arena_alloc(&t->arena, 256, 1);
    if (t->pieces == NULL || bytes == NULL) {
        return tok_no_memory(err);
    }
    for (int i = 0; i < 256; i++) {
        bytes[i] = (char)i;
        t->pieces[i] = (struct tok_piece){.text = &bytes[i], .len = 1, .present = true};
    }
    return STATUS_OK;
}

enum status tok_make_pieces(struct tokenizer *t, struct error *err)
{
    if (t->engine == TOK_ENGINE_BYTES) {
        return byte_pieces(t, err);
    }
    bool first_differs = false;
    for (uint32_t i = 0; i < t->n_decodes; i++) {
        first_differs = first_differs || t->decodes[i].drop_first;
    }
    struct piece_maker m = {.t = t, .err = err};
    enum status st = make_table(&m, false, &t->pieces);
    if (st == STATUS_OK && first_differs) {
        st = make_table(&m, true, &t->first_pieces);
    }
    strbuf_deinit(&m.text[0]);
    strbuf_deinit(&m.text[1]);
    tok_scratch_deinit(&m.scratch);
    return st;
}

/* --- single tokens --------------------------------------------------------------------------- */

/* Steps that leave every byte of the text to some token. */
static bool keeps_all_text(const struct tokenizer *t)
{
    for (uint32_t i = 0; i < t->n_norms; i++) {
        if (t->norms[i].kind != TOK_NORM_PREPEND && t->norms[i].kind != TOK_NORM_BYTE_LEVEL) {
            return false;
        }
    }
    for (uint32_t i = 0; i < t->n_pretoks; i++) {
        const struct tok_pretok *p = &t->pretoks[i];
        if (p->kind == TOK_PRETOK_SPLIT && p->behavior == TOK_SPLIT_REMOVED) {
            return false;
        }
    }
    for (uint32_t i = 0; i < t->n_added; i++) {
        if (t->added[i].lstrip || t->added[i].rstrip) {
            return false;
        }
    }
    return !t->fuse_unk;
}

size_t tokenizer_max_token_bytes(const struct tokenizer *t)
{
    if (t->engine == TOK_ENGINE_BYTES) {
        return 1;
    }
    size_t longest = 4; /* a character that reads as unknown */
    for (uint32_t i = 0; i < t->n_ids; i++) {
        longest = t->pieces[i].len > longest ? t->pieces[i].len : longest;
    }
    return keeps_all_text(t) ? longest : 0;
}

const char *tokenizer_token(const struct tokenizer *t, int32_t id, size_t *len)
{
    if (id >= 0 && (uint32_t)id < t->vocab.n_ids && t->vocab.tokens[id].text != NULL) {
        *len = t->vocab.tokens[id].len;
        return t->vocab.tokens[id].text;
    }
    for (uint32_t i = 0; i < t->n_added; i++) {
        if (t->added[i].id == id) {
            *len = t->added[i].len;
            return t->added[i].text;
        }
    }
    return NULL;
}

/* No text belongs to an id beyond the bytes: a reader of results should still see it. */
static size_t byte_id_text(int32_t id, char out[16])
{
    return (size_t)snprintf(out, 16, "<%" PRId32 ">", id);
}

void tokenizer_append_token(const struct tokenizer *t, int32_t id, struct strbuf *out)
{
    if (t->engine == TOK_ENGINE_BYTES && id >= TOK_BYTE_COUNT) {
        char shown[16];
        strbuf_append(out, shown, byte_id_text(id, shown));
    } else if (id >= 0 && (uint32_t)id < t->n_ids && t->pieces[id].present) {
        strbuf_append(out, t->pieces[id].text, t->pieces[id].len);
    }
}

/* --- the stream ------------------------------------------------------------------------------ */

void detok_begin(struct detok *d, const struct tokenizer *t, bool keep_special)
{
    *d = (struct detok){.tokenizer = t, .keep_special = keep_special};
}

/* Whole characters reach the text; a Strip after Fuse takes from the very first ones. */
static void emit(struct detok *d, const char *text, size_t n, struct strbuf *out)
{
    const struct tokenizer *t = d->tokenizer;
    if (n == 0) {
        return;
    }
    while (!d->in_text && d->n_stripped < t->strip_start) {
        if (n < t->strip_len || memcmp(text, t->strip_what, t->strip_len) != 0) {
            break;
        }
        d->n_stripped++;
        text += t->strip_len;
        n -= t->strip_len;
        if (n == 0) {
            return;
        }
    }
    d->in_text = true;
    strbuf_append(out, text, n);
}

/* Adds one byte to a held, unfinished character. True when the byte was used up. */
static bool push_held(struct detok *d, char byte, struct strbuf *out)
{
    const char *held = (const char *)d->held;
    d->held[d->n_held++] = (unsigned char)byte;
    if (utf8_sequence(held, d->n_held) == d->n_held) {
        emit(d, held, d->n_held, out);
        d->n_held = 0;
        return true;
    }
    if (utf8_is_prefix(held, d->n_held)) {
        return true;
    }
    emit(d, UTF8_REPLACEMENT, 3, out); /* for what was held before; the byte starts afresh */
    d->n_held = 0;
    return false;
}

static void push_bytes(struct detok *d, const char *text, size_t n, struct strbuf *out)
{
    size_t i = 0;
    while (d->n_held > 0 && i < n) {
        if (push_held(d, text[i], out)) {
            i++;
        }
    }
    size_t start = i; /* of the whole characters not yet emitted */
    while (i < n) {
        size_t step = utf8_sequence(text + i, n - i);
        if (step > 0) {
            i += step;
            continue;
        }
        emit(d, text + start, i - start, out);
        if (utf8_is_prefix(text + i, n - i)) {
            d->n_held = (uint32_t)(n - i);
            memcpy(d->held, text + i, n - i);
            return;
        }
        emit(d, UTF8_REPLACEMENT, 3, out);
        i += utf8_invalid_run(text + i, n - i);
        start = i;
    }
    emit(d, text + start, n - start, out);
}

void detok_push(struct detok *d, int32_t id, struct strbuf *out)
{
    const struct tokenizer *t = d->tokenizer;
    if (t->engine == TOK_ENGINE_BYTES && id >= TOK_BYTE_COUNT) {
        char shown[16];
        d->started = true;
        push_bytes(d, shown, byte_id_text(id, shown), out);
        return;
    }
    if (id < 0 || (uint32_t)id >= t->n_ids) {
        return;
    }
    bool first = !d->started;
    const struct tok_piece *piece =
        first && t->first_pieces != NULL ? &t->first_pieces[id] : &t->pieces[id];
    if (!piece->present || (piece->special && !d->keep_special)) {
        return;
    }
    d->started = true;
    if (t->join_spaces && !first) {
        push_bytes(d, " ", 1, out);
    }
    push_bytes(d, piece->text, piece->len, out);
}

void detok_end(struct detok *d, struct strbuf *out)
{
    if (d->n_held > 0) {
        d->n_held = 0;
        emit(d, UTF8_REPLACEMENT, 3, out);
    }
}

void tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, bool keep_special,
                      struct strbuf *out)
{
    struct detok d;
    detok_begin(&d, t, keep_special);
    for (size_t i = 0; i < n; i++) {
        detok_push(&d, ids[i], out);
    }
    detok_end(&d, out);
}
