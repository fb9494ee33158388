/*
 * tok_bpe.c - the third stage of encoding: the characters of a word are merged pair by pair, the
 * best pair of the whole word first (lowest rank, then leftmost), until none is left.
 *
 * Source: Sennrich et al., ACL 2016; the order and the treatment of stale candidates are those of
 * the `tokenizers` library (models/bpe/word.rs), which for SentencePiece scores are also those of
 * llama.cpp. A linked list of symbols and a heap of candidates: O(n log n).
 */
#include <string.h>

#include "base/utf8.h"
#include "model/tokenizer_int.h"

enum status tok_push_id(struct token_ids *out, int32_t id, struct error *err)
{
    if (tok_grow((void **)&out->ids, &out->capacity, out->n + 1, sizeof *out->ids) != STATUS_OK) {
        return tok_no_memory(err);
    }
    out->ids[out->n++] = id;
    return STATUS_OK;
}

struct word {
    const struct tokenizer *t;
    struct tok_scratch *s;
    const char *text;
    uint32_t n_symbols;
    uint32_t unk_len; /* an unknown stretch not yet added: fused with what follows */
};

static enum status add_symbol(struct word *w, int32_t id, size_t start, size_t len)
{
    struct tok_scratch *s = w->s;
    if (tok_grow((void **)&s->symbols, &s->symbols_capacity, (size_t)w->n_symbols + 1,
                 sizeof *s->symbols) != STATUS_OK) {
        return STATUS_NO_MEMORY;
    }
    s->symbols[w->n_symbols] = (struct tok_symbol){.id = id,
                                                   .prev = (int32_t)w->n_symbols - 1,
                                                   .next = (int32_t)w->n_symbols + 1,
                                                   .start = (uint32_t)start,
                                                   .len = (uint32_t)len};
    w->n_symbols++;
    return STATUS_OK;
}

/* The id of one character, with the affixes that mark a place in the word. */
static int32_t find_char(const struct tokenizer *t, const char *c, size_t len, bool first,
                         bool last, struct strbuf *affixed)
{
    bool prefix = !first && t->word_prefix_len > 0;
    bool suffix = last && t->word_suffix_len > 0;
    strbuf_clear(affixed);
    if (!prefix && !suffix) {
        return tok_vocab_find(&t->vocab, c, len);
    }
    if (prefix) {
        strbuf_append(affixed, t->word_prefix, t->word_prefix_len);
    }
    strbuf_append(affixed, c, len);
    if (suffix) {
        strbuf_append(affixed, t->word_suffix, t->word_suffix_len);
    }
    return tok_vocab_find(&t->vocab, strbuf_text(affixed), affixed->len);
}

/* Adds the byte tokens of an unknown character (affixes included, as the library does); *done says
 * whether all bytes have one. */
static enum status add_bytes(struct word *w, const char *bytes, size_t n, size_t start, bool *done)
{
    for (size_t i = 0; i < n; i++) {
        if (w->t->byte_ids[(unsigned char)bytes[i]] < 0) {
            *done = false;
            return STATUS_OK;
        }
    }
    for (size_t i = 0; i < n; i++) {
        if (add_symbol(w, w->t->byte_ids[(unsigned char)bytes[i]], start, 1) != STATUS_OK) {
            return STATUS_NO_MEMORY;
        }
    }
    *done = true;
    return STATUS_OK;
}

/* An unknown character becomes the unknown token, one for a whole run when fuse_unk is set, and
 * nothing at all when the model has none. The library adds the pending one late; so do we, because
 * byte tokens may come between. */
static enum status add_unknown(struct word *w, size_t start, size_t len)
{
    enum status st = STATUS_OK;
    if (w->t->unk_id < 0) {
        return STATUS_OK;
    }
    if (w->unk_len > 0 && w->t->fuse_unk) {
        w->unk_len += (uint32_t)len;
        return STATUS_OK;
    }
    if (w->unk_len > 0) {
        st = add_symbol(w, w->t->unk_id, start, w->unk_len);
    }
    w->unk_len = (uint32_t)len;
    return st;
}

static enum status flush_unknown(struct word *w, size_t start)
{
    uint32_t len = w->unk_len;
    w->unk_len = 0;
    return len > 0 ? add_symbol(w, w->t->unk_id, start, len) : STATUS_OK;
}

static enum status add_char(struct word *w, size_t at, size_t step, bool last,
                            struct strbuf *affixed)
{
    const struct tokenizer *t = w->t;
    const char *c = w->text + at;
    int32_t id = find_char(t, c, step, at == 0, last, affixed);
    if (affixed->failed) {
        return STATUS_NO_MEMORY;
    }
    if (t->engine == TOK_ENGINE_SPM) { /* a symbol is its text here; fallback comes after merging */
        return add_symbol(w, id, at, step);
    }
    if (id >= 0) {
        enum status st = flush_unknown(w, at);
        return st == STATUS_OK ? add_symbol(w, id, at, step) : st;
    }
    bool done = false;
    if (t->byte_fallback) {
        bool plain = affixed->len == 0;
        enum status st =
            add_bytes(w, plain ? c : affixed->data, plain ? step : affixed->len, at, &done);
        if (st != STATUS_OK) {
            return st;
        }
    }
    return done ? STATUS_OK : add_unknown(w, at, step);
}

static enum status make_symbols(struct word *w, size_t len)
{
    struct strbuf affixed = {0};
    enum status st = STATUS_OK;
    for (size_t at = 0; at < len && st == STATUS_OK;) {
        size_t step = utf8_sequence(w->text + at, len - at);
        st = add_char(w, at, step, at + step == len, &affixed);
        at += step;
    }
    strbuf_deinit(&affixed);
    return st == STATUS_OK ? flush_unknown(w, len) : st;
}

/* --- candidates --------------------------------------------------------------------------- */

static void sift_up(struct tok_candidate *heap, size_t i)
{
    struct tok_candidate c = heap[i];
    while (i > 0 && heap[(i - 1) / 2].order > c.order) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = c;
}

static struct tok_candidate pop(struct tok_scratch *s)
{
    struct tok_candidate *heap = s->heap;
    struct tok_candidate top = heap[0];
    struct tok_candidate c = heap[--s->heap_n];
    size_t n = s->heap_n;
    size_t i = 0;
    for (size_t child = 1; child < n; child = 2 * i + 1) {
        if (child + 1 < n && heap[child + 1].order < heap[child].order) {
            child++;
        }
        if (heap[child].order >= c.order) {
            break;
        }
        heap[i] = heap[child];
        i = child;
    }
    if (n > 0) {
        heap[i] = c;
    }
    return top;
}

/* What symbol a and the one behind it merge into: false when nothing. */
static bool find_pair(const struct word *w, const struct tok_symbol *a, struct tok_candidate *out)
{
    if (a->next >= (int32_t)w->n_symbols) {
        return false;
    }
    const struct tok_symbol *b = &w->s->symbols[a->next];
    uint32_t rank = 0;
    if (w->t->engine == TOK_ENGINE_SPM) {
        out->id = tok_vocab_find(&w->t->vocab, w->text + a->start, (size_t)a->len + b->len);
        if (out->id < 0) {
            return false;
        }
        rank = w->t->score_ranks[out->id];
    } else {
        const struct tok_merge *m = tok_merges_find(&w->t->merges, a->id, b->id);
        if (m == NULL) {
            return false;
        }
        out->id = m->id_plus_one - 1;
        rank = m->rank;
    }
    out->order = (uint64_t)rank << 32 | (uint32_t)(a - w->s->symbols);
    return true;
}

static enum status offer(struct word *w, int32_t at)
{
    struct tok_scratch *s = w->s;
    struct tok_candidate c;
    if (!find_pair(w, &s->symbols[at], &c)) {
        return STATUS_OK;
    }
    if (tok_grow((void **)&s->heap, &s->heap_capacity, s->heap_n + 1, sizeof *s->heap) !=
        STATUS_OK) {
        return STATUS_NO_MEMORY;
    }
    s->heap[s->heap_n++] = c;
    sift_up(s->heap, s->heap_n - 1);
    return STATUS_OK;
}

static enum status merge_all(struct word *w)
{
    struct tok_scratch *s = w->s;
    struct tok_symbol *symbols = s->symbols;
    enum status st = STATUS_OK;
    s->heap_n = 0;
    for (uint32_t i = 0; i + 1 < w->n_symbols && st == STATUS_OK; i++) {
        st = offer(w, (int32_t)i);
    }
    while (s->heap_n > 0 && st == STATUS_OK) {
        struct tok_candidate top = pop(s);
        int32_t at = (int32_t)(top.order & 0x7FFFFFFFu);
        struct tok_symbol *left = &symbols[at];
        struct tok_candidate now;
        /* Stale when the pair at this place no longer makes the same token. */
        if (left->len == 0 || !find_pair(w, left, &now) || now.id != top.id) {
            continue;
        }
        struct tok_symbol *right = &symbols[left->next];
        left->id = top.id;
        left->len += right->len;
        left->next = right->next;
        right->len = 0;
        if (left->next < (int32_t)w->n_symbols) {
            symbols[left->next].prev = at;
        }
        if (left->prev >= 0) {
            st = offer(w, left->prev);
        }
        if (st == STATUS_OK) {
            st = offer(w, at);
        }
    }
    return st;
}

/* SPM: what is no token after all merges falls back to bytes, else to the unknown token. */
static enum status push_spm(const struct word *w, const struct tok_symbol *symbol,
                            struct token_ids *out, struct error *err)
{
    if (symbol->id >= 0) {
        return tok_push_id(out, symbol->id, err);
    }
    for (uint32_t i = 0; i < symbol->len; i++) {
        int32_t id = w->t->byte_ids[(unsigned char)w->text[symbol->start + i]];
        if (id < 0) {
            id = w->t->unk_id;
        }
        enum status st = id >= 0 ? tok_push_id(out, id, err) : STATUS_OK;
        if (st != STATUS_OK) {
            return st;
        }
    }
    return STATUS_OK;
}

enum status tok_bpe_word(const struct tokenizer *t, struct tok_scratch *s, const char *word,
                         size_t len, struct token_ids *out, struct error *err)
{
    struct word w = {.t = t, .s = s, .text = word};
    if (t->ignore_merges) {
        int32_t id = tok_vocab_find(&t->vocab, word, len);
        if (id >= 0) {
            return tok_push_id(out, id, err);
        }
    }
    enum status st = make_symbols(&w, len);
    if (st == STATUS_OK) {
        st = merge_all(&w);
    }
    if (st != STATUS_OK) {
        return tok_no_memory(err);
    }
    for (uint32_t i = 0; i < w.n_symbols && st == STATUS_OK; i++) {
        const struct tok_symbol *symbol = &s->symbols[i];
        if (symbol->len == 0) {
            continue;
        }
        st = t->engine == TOK_ENGINE_SPM ? push_spm(&w, symbol, out, err)
                                         : tok_push_id(out, symbol->id, err);
    }
    return st;
}
