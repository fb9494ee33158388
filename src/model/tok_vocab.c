/*
 * tok_vocab.c - the tables of a tokenizer: token text -> id, pair of ids -> merge, and the search
 * for added tokens in text. Hash tables are open addressing at a load of at most one half.
 */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "model/tokenizer_int.h"

/* Tokens are short; 8 bytes a step, mixed by an odd multiplier and a fold. */
static uint64_t hash_bytes(const char *text, size_t len)
{
    uint64_t h = 0x9E3779B97F4A7C15ULL ^ (uint64_t)len;
    while (len > 0) {
        uint64_t word = 0;
        size_t n = len < sizeof word ? len : sizeof word;
        memcpy(&word, text, n);
        h = (h ^ word) * 0xD6E8FEB86659FD93ULL;
        h ^= h >> 32;
        text += n;
        len -= n;
    }
    h *= 0xD6E8FEB86659FD93ULL;
    return h ^ (h >> 29);
}

static size_t table_size(uint32_t count)
{
    size_t size = 16;
    while (size < (size_t)count * 2) {
        size *= 2;
    }
    return size;
}

enum status tok_vocab_begin(struct tok_vocab *v, uint32_t n_ids, uint32_t count, struct error *err)
{
    size_t size = table_size(count);
    v->tokens = mem_alloc(n_ids > 0 ? n_ids : 1, sizeof *v->tokens);
    v->slots = mem_alloc(size, sizeof *v->slots);
    if (v->tokens == NULL || v->slots == NULL) {
        return tok_no_memory(err);
    }
    v->n_ids = n_ids;
    v->mask = size - 1;
    return STATUS_OK;
}

/* The slot that holds the text, or the empty one where it belongs. */
static size_t vocab_slot(const struct tok_vocab *v, const char *text, size_t len)
{
    size_t i = (size_t)hash_bytes(text, len) & v->mask;
    while (v->slots[i] != 0) {
        const struct tok_token *t = &v->tokens[v->slots[i] - 1];
        if (t->len == len && memcmp(t->text, text, len) == 0) {
            break;
        }
        i = (i + 1) & v->mask;
    }
    return i;
}

enum status tok_vocab_add(struct tok_vocab *v, struct arena *arena, uint32_t id, const char *text,
                          size_t len, struct error *err)
{
    if (id >= v->n_ids) {
        return error_set(err, STATUS_BAD_MODEL, -1, "id %u of token \"%.*s\" is out of range", id,
                         (int)(len < 64 ? len : 64), text);
    }
    if (len > TOK_MAX_TOKEN_BYTES) {
        return error_set(err, STATUS_BAD_MODEL, -1, "token %u has %zu bytes (at most %zu)", id, len,
                         TOK_MAX_TOKEN_BYTES);
    }
    if (v->tokens[id].text != NULL) {
        return error_set(err, STATUS_BAD_MODEL, -1, "id %u is given to \"%.64s\" and \"%.*s\"", id,
                         v->tokens[id].text, (int)(len < 64 ? len : 64), text);
    }
    size_t slot = vocab_slot(v, text, len);
    if (v->slots[slot] != 0) {
        return error_set(err, STATUS_BAD_MODEL, -1, "token \"%.*s\" has the ids %d and %u",
                         (int)(len < 64 ? len : 64), text, v->slots[slot] - 1, id);
    }
    char *copy = arena_strndup(arena, text, len);
    if (copy == NULL) {
        return tok_no_memory(err);
    }
    v->tokens[id] = (struct tok_token){.text = copy, .len = (uint32_t)len};
    v->slots[slot] = (int32_t)id + 1;
    v->count++;
    return STATUS_OK;
}

int32_t tok_vocab_find(const struct tok_vocab *v, const char *text, size_t len)
{
    return v->slots == NULL ? -1 : v->slots[vocab_slot(v, text, len)] - 1;
}

void tok_vocab_deinit(struct tok_vocab *v)
{
    mem_free(v->tokens);
    mem_free(v->slots);
}

enum status tok_merges_begin(struct tok_merges *m, uint32_t count, struct error *err)
{
    size_t size = table_size(count);
    m->slots = mem_alloc(size, sizeof *m->slots);
    if (m->slots == NULL) {
        return tok_no_memory(err);
    }
    m->mask = size - 1;
    return STATUS_OK;
}

static size_t merge_slot(const struct tok_merges *m, uint64_t pair)
{
    uint64_t h = pair * 0x9E3779B97F4A7C15ULL;
    h = (h ^ (h >> 32)) * 0xD6E8FEB86659FD93ULL;
    size_t i = (size_t)(h >> 29) & m->mask;
    while (m->slots[i].id_plus_one != 0 && m->slots[i].pair != pair) {
        i = (i + 1) & m->mask;
    }
    return i;
}

static uint64_t pair_key(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

enum status tok_merges_add(struct tok_merges *m, const struct tok_vocab *v, uint32_t rank,
                           const struct tok_token pair[2], uint32_t skip, struct error *err)
{
    int32_t ids[2];
    for (int i = 0; i < 2; i++) {
        ids[i] = tok_vocab_find(v, pair[i].text, pair[i].len);
        if (ids[i] < 0) {
            return error_set(err, STATUS_BAD_MODEL, -1,
                             "merge %u: \"%.*s\" is not in the vocabulary", rank,
                             (int)(pair[i].len < 64 ? pair[i].len : 64), pair[i].text);
        }
    }
    if (pair[1].len < skip) {
        return error_set(err, STATUS_BAD_MODEL, -1,
                         "merge %u: its right part is shorter than continuing_subword_prefix",
                         rank);
    }
    size_t right_len = pair[1].len - skip;
    struct strbuf whole = {0};
    strbuf_append(&whole, pair[0].text, pair[0].len);
    strbuf_append(&whole, pair[1].text + skip, right_len);
    int32_t id = whole.failed ? -1 : tok_vocab_find(v, strbuf_text(&whole), whole.len);
    enum status st = STATUS_OK;
    if (whole.failed) {
        st = tok_no_memory(err);
    } else if (id < 0) {
        st = error_set(err, STATUS_BAD_MODEL, -1,
                       "merge %u: its result \"%.64s\" is not in the vocabulary", rank,
                       strbuf_text(&whole));
    }
    strbuf_deinit(&whole);
    if (st != STATUS_OK) {
        return st;
    }
    struct tok_merge *slot = &m->slots[merge_slot(m, pair_key(ids[0], ids[1]))];
    if (slot->id_plus_one != 0) {
        return error_set(err, STATUS_BAD_MODEL, -1, "merge %u is the same pair as merge %u", rank,
                         slot->rank);
    }
    *slot =
        (struct tok_merge){.pair = pair_key(ids[0], ids[1]), .rank = rank, .id_plus_one = id + 1};
    m->count++;
    return STATUS_OK;
}

enum status tok_split_merge(const char *text, size_t len, uint32_t rank, struct tok_token pair[2],
                            struct error *err)
{
    const char *space = memchr(text, ' ', len);
    const char *more =
        space != NULL ? memchr(space + 1, ' ', len - (size_t)(space + 1 - text)) : NULL;
    if (space == NULL || more != NULL || len > 2 * TOK_MAX_TOKEN_BYTES) {
        return error_set(err, STATUS_BAD_MODEL, -1,
                         "merge %u \"%.*s\" must be two tokens with one space between", rank,
                         (int)(len < 64 ? len : 64), text);
    }
    pair[0] = (struct tok_token){text, (uint32_t)(space - text)};
    pair[1] = (struct tok_token){space + 1, (uint32_t)(len - pair[0].len - 1)};
    return STATUS_OK;
}

const struct tok_merge *tok_merges_find(const struct tok_merges *m, int32_t left, int32_t right)
{
    if (m->slots == NULL) {
        return NULL;
    }
    const struct tok_merge *slot = &m->slots[merge_slot(m, pair_key(left, right))];
    return slot->id_plus_one != 0 ? slot : NULL;
}

void tok_merges_deinit(struct tok_merges *m)
{
    mem_free(m->slots);
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'A' && c <= 'F') {
        return c - 'A' + 10;
    }
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int tok_byte_of(const char *text, size_t len)
{
    if (len != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>') {
        return -1;
    }
    int high = hex_digit(text[3]);
    int low = hex_digit(text[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

enum status tok_add_token(struct tokenizer *t, const struct tok_added *token, struct error *err)
{
    if (t->n_added >= TOK_MAX_ADDED) {
        return error_set(err, STATUS_BAD_MODEL, -1, "more than %u added tokens", TOK_MAX_ADDED);
    }
    if (token->len > TOK_MAX_ADDED_BYTES) {
        return error_set(err, STATUS_BAD_MODEL, -1, "added token %d has %u bytes (at most %u)",
                         token->id, token->len, TOK_MAX_ADDED_BYTES);
    }
    int32_t known = tok_vocab_find(&t->vocab, token->text, token->len);
    if (known >= 0 && known != token->id) {
        return error_set(err, STATUS_BAD_MODEL, -1,
                         "added token \"%.64s\" has id %d, but the vocabulary gives it %d",
                         token->text, token->id, known);
    }
    if (known < 0 && (uint32_t)token->id < t->vocab.n_ids &&
        t->vocab.tokens[token->id].text != NULL) {
        return error_set(err, STATUS_BAD_MODEL, -1,
                         "added token \"%.64s\" takes id %d, which is \"%.64s\" in the vocabulary",
                         token->text, token->id, t->vocab.tokens[token->id].text);
    }
    if ((t->n_added & (t->n_added - 1)) == 0) { /* full at every power of two */
        size_t room = t->n_added == 0 ? 1 : (size_t)t->n_added * 2;
        struct tok_added *grown = mem_resize(t->added, room, sizeof *grown);
        if (grown == NULL) {
            return tok_no_memory(err);
        }
        t->added = grown;
    }
    t->added[t->n_added] = *token;
    char *copy = arena_strndup(&t->arena, token->text, token->len);
    if (copy == NULL) {
        return tok_no_memory(err);
    }
    t->added[t->n_added].text = copy;
    t->added[t->n_added].pattern = copy;
    t->added[t->n_added].pattern_len = token->len;
    t->n_added++;
    return STATUS_OK;
}

static int compare_patterns(const void *a, const void *b)
{
    const struct tok_added *x = *(const struct tok_added *const *)a;
    const struct tok_added *y = *(const struct tok_added *const *)b;
    uint32_t n = x->pattern_len < y->pattern_len ? x->pattern_len : y->pattern_len;
    int order = memcmp(x->pattern, y->pattern, n);
    if (order != 0) {
        return order;
    }
    return (x->pattern_len > y->pattern_len) - (x->pattern_len < y->pattern_len);
}

static enum status make_matcher(struct tokenizer *t, struct tok_matcher *m, bool normalized,
                                struct error *err)
{
    if (t->n_added == 0) {
        return STATUS_OK;
    }
    m->sorted = mem_alloc(t->n_added, sizeof(const struct tok_added *));
    if (m->sorted == NULL) {
        return tok_no_memory(err);
    }
    for (uint32_t i = 0; i < t->n_added; i++) {
        /* A pattern that normalises to nothing can never be found. */
        if (t->added[i].normalized == normalized && t->added[i].pattern_len > 0) {
            m->sorted[m->n++] = &t->added[i];
            m->starts[(unsigned char)t->added[i].pattern[0]] = true;
        }
    }
    qsort(m->sorted, m->n, sizeof(const struct tok_added *), compare_patterns);
    for (uint32_t i = 1; i < m->n; i++) {
        if (compare_patterns(&m->sorted[i - 1], &m->sorted[i]) == 0) {
            return error_set(err, STATUS_BAD_MODEL, -1,
                             "added tokens %d and %d are the same text \"%.64s\"",
                             m->sorted[i - 1]->id, m->sorted[i]->id, m->sorted[i]->pattern);
        }
    }
    return STATUS_OK;
}

/* First index in [lo, hi) whose byte at `depth` is >= c (patterns there are longer than depth). */
static uint32_t lower_bound(const struct tok_matcher *m, uint32_t lo, uint32_t hi, uint32_t depth,
                            unsigned c)
{
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if ((unsigned char)m->sorted[mid]->pattern[depth] < c) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo;
}

const struct tok_added *tok_matcher_at(const struct tok_matcher *m, const char *text, size_t len)
{
    if (len == 0 || !m->starts[(unsigned char)text[0]]) {
        return NULL;
    }
    const struct tok_added *best = NULL;
    uint32_t lo = 0;
    uint32_t hi = m->n;
    for (uint32_t depth = 0; depth < len && lo < hi; depth++) {
        unsigned c = (unsigned char)text[depth];
        lo = lower_bound(m, lo, hi, depth, c);
        hi = lower_bound(m, lo, hi, depth, c + 1);
        /* The shortest of a range with one prefix sorts first: it may end here. */
        if (lo < hi && m->sorted[lo]->pattern_len == depth + 1) {
            best = m->sorted[lo];
            lo++;
        }
    }
    return best;
}

/* Ids must be unique among added tokens as well; they may lie beyond the model's vocabulary. */
static enum status count_ids(struct tokenizer *t, uint32_t n_vocab, struct error *err)
{
    t->n_ids = t->vocab.n_ids;
    for (uint32_t i = 0; i < t->n_added; i++) {
        if ((uint32_t)t->added[i].id >= t->n_ids) {
            t->n_ids = (uint32_t)t->added[i].id + 1;
        }
    }
    if (t->n_ids == 0) {
        return error_set(err, STATUS_BAD_MODEL, -1, "the vocabulary is empty");
    }
    if (n_vocab != 0 && t->n_ids > n_vocab) {
        return error_set(err, STATUS_BAD_MODEL, -1,
                         "the tokenizer has ids up to %u, but the model's embedding only %u rows: "
                         "they belong to different models",
                         t->n_ids - 1, n_vocab);
    }
    for (uint32_t i = 0; i < t->n_before + t->n_after; i++) {
        int32_t id = i < t->n_before ? t->before[i] : t->after[i - t->n_before];
        if ((uint32_t)id >= t->n_ids) {
            return error_set(err, STATUS_BAD_MODEL, -1,
                             "the post-processor adds id %d, which no token has", id);
        }
    }
    return STATUS_OK;
}

/* Normalised added tokens are looked for in their normalised form. */
static enum status normalize_patterns(struct tokenizer *t, struct error *err)
{
    struct tok_scratch scratch = {0};
    enum status st = STATUS_OK;
    for (uint32_t i = 0; i < t->n_added && st == STATUS_OK; i++) {
        struct tok_added *a = &t->added[i];
        struct tok_token out;
        if (!a->normalized || t->n_norms == 0) {
            continue;
        }
        tok_scratch_limit(&scratch, a->len);
        st = tok_normalize(t, &scratch, a->text, a->len, &out, err);
        if (st == STATUS_OK && out.len > TOK_MAX_ADDED_BYTES) {
            st = error_set(err, STATUS_BAD_MODEL, -1,
                           "added token %d has %u bytes once normalised (at most %u)", a->id,
                           out.len, TOK_MAX_ADDED_BYTES);
        }
        if (st == STATUS_OK) {
            a->pattern = arena_strndup(&t->arena, out.text, out.len);
            a->pattern_len = out.len;
            st = a->pattern != NULL ? STATUS_OK : tok_no_memory(err);
        }
    }
    tok_scratch_deinit(&scratch);
    return st;
}

enum status tok_finish(struct tokenizer *t, uint32_t n_vocab, struct error *err)
{
    for (uint32_t b = 0; b < 256 && t->engine != TOK_ENGINE_BYTES; b++) {
        static const char digits[] = "0123456789ABCDEF";
        const char name[6] = {'<', '0', 'x', digits[b / 16], digits[b % 16], '>'};
        t->byte_ids[b] = tok_vocab_find(&t->vocab, name, sizeof name);
    }
    enum status st = count_ids(t, n_vocab, err);
    if (st == STATUS_OK) {
        st = normalize_patterns(t, err);
    }
    if (st == STATUS_OK) {
        st = make_matcher(t, &t->raw, false, err);
    }
    if (st == STATUS_OK) {
        st = make_matcher(t, &t->normalized, true, err);
    }
    if (st == STATUS_OK) {
        st = tok_make_pieces(t, err);
    }
    return st;
}
