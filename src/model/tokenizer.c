/*
 * tokenizer.c - opening, the encode pipeline, and what all parts share. See tokenizer_int.h for the
 * map. Not here: file formats (tok_json.c, tok_gguf.c), the stages (tok_norm.c ...), decoding
 * (tok_decode.c).
 */
#include "model/tokenizer.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "base/utf8.h"
#include "model/gguf.h"
#include "model/tokenizer_int.h"

enum status tok_grow(void **items, size_t *capacity, size_t n, size_t size)
{
    if (n <= *capacity) {
        return STATUS_OK;
    }
    size_t room = *capacity < 64 ? 64 : *capacity + *capacity / 2;
    if (room < n) {
        room = n;
    }
    void *grown = mem_resize(*items, room, size);
    if (grown == NULL) {
        return STATUS_NO_MEMORY;
    }
    *items = grown;
    *capacity = room;
    return STATUS_OK;
}

enum status tok_spans_push(struct tok_spans *s, size_t start, size_t len)
{
    if (tok_grow((void **)&s->items, &s->capacity, s->n + 1, sizeof *s->items) != STATUS_OK) {
        return STATUS_NO_MEMORY;
    }
    s->items[s->n++] = (struct tok_span){(uint32_t)start, (uint32_t)len};
    return STATUS_OK;
}

void tok_scratch_limit(struct tok_scratch *s, size_t len)
{
    size_t grown =
        len > TOK_MAX_TEXT_BYTES / TOK_MAX_GROWTH ? TOK_MAX_TEXT_BYTES : len * TOK_MAX_GROWTH;
    s->text_limit = grown < TOK_GROWTH_FLOOR ? TOK_GROWTH_FLOOR : grown;
}

enum status tok_check_text(const struct tok_scratch *s, const struct strbuf *b, struct error *err)
{
    if (b->failed) {
        return tok_no_memory(err);
    }
    if (b->len > s->text_limit) {
        return error_set(err, STATUS_BAD_DATA, -1,
                         "the tokenizer's rewriting makes the text longer than %zu bytes",
                         s->text_limit);
    }
    return STATUS_OK;
}

void tok_scratch_deinit(struct tok_scratch *s)
{
    tok_regex_scratch_free(s);
    for (int i = 0; i < 2; i++) {
        strbuf_deinit(&s->normal[i]);
        strbuf_deinit(&s->words[i]);
        mem_free(s->spans[i].items);
    }
    mem_free(s->scalars);
    mem_free(s->symbols);
    mem_free(s->heap);
}

struct tokenizer *tok_new(void)
{
    struct tokenizer *t = mem_alloc(1, sizeof *t);
    if (t != NULL) {
        t->unk_id = -1;
        t->word_prefix = "";
        t->word_suffix = "";
        for (int i = 0; i < 256; i++) {
            t->byte_ids[i] = -1;
        }
    }
    return t;
}

void tokenizer_close(struct tokenizer *t)
{
    if (t == NULL) {
        return;
    }
    for (uint32_t i = 0; i < t->n_norms; i++) {
        tok_regex_free(&t->norms[i].regex);
    }
    for (uint32_t i = 0; i < t->n_pretoks; i++) {
        tok_regex_free(&t->pretoks[i].regex);
    }
    for (uint32_t i = 0; i < t->n_decodes; i++) {
        tok_regex_free(&t->decodes[i].regex);
    }
    tok_vocab_deinit(&t->vocab);
    tok_merges_deinit(&t->merges);
    mem_free(t->score_ranks);
    mem_free(t->added);
    mem_free(t->raw.sorted);
    mem_free(t->normalized.sorted);
    mem_free(t->pieces);
    mem_free(t->first_pieces);
    arena_deinit(&t->arena);
    mem_free(t);
}

const char *tokenizer_describe(const struct tokenizer *t)
{
    return t->description;
}

uint32_t tokenizer_vocab_size(const struct tokenizer *t)
{
    return t->n_ids;
}

int32_t tokenizer_id_of(const struct tokenizer *t, const char *token, size_t len)
{
    for (uint32_t i = 0; i < t->n_added; i++) {
        if (t->added[i].len == len && memcmp(t->added[i].text, token, len) == 0) {
            return t->added[i].id;
        }
    }
    if (t->engine == TOK_ENGINE_BYTES) {
        return len == 1 ? (unsigned char)token[0] : -1;
    }
    return tok_vocab_find(&t->vocab, token, len);
}

void token_ids_deinit(struct token_ids *ids)
{
    mem_free(ids->ids);
    memset(ids, 0, sizeof *ids);
}

/* --- encoding ------------------------------------------------------------------------------- */

struct encoder {
    const struct tokenizer *t;
    struct tok_scratch scratch;
    struct token_ids *out;
    struct error *err;
};

/* A stretch without added tokens, normalised. first: at the start of the input. */
static enum status encode_words(struct encoder *e, const char *text, size_t len, bool first)
{
    const char *words_text = NULL;
    const struct tok_spans *words = NULL;
    enum status st =
        tok_pretokenize(e->t, &e->scratch, text, len, first, &words_text, &words, e->err);
    for (size_t i = 0; st == STATUS_OK && i < words->n; i++) {
        st = tok_bpe_word(e->t, &e->scratch, words_text + words->items[i].start,
                          words->items[i].len, e->out, e->err);
    }
    return st;
}

typedef enum status gap_fn(struct encoder *e, const char *text, size_t len, bool first);

static bool is_space_before(const char *text, size_t end, size_t *step)
{
    *step = 1;
    while (*step < end && ((unsigned char)text[end - *step] & 0xC0) == 0x80) {
        (*step)++;
    }
    return tok_is_space(utf8_decode(text + end - *step, *step));
}

/* Is there a word character before `at` (behind: after it)? */
static bool touches_word(const char *text, size_t len, size_t at, bool behind)
{
    if (behind ? at == len : at == 0) {
        return false;
    }
    size_t from = at;
    if (!behind) {
        from--;
        while (from > 0 && ((unsigned char)text[from] & 0xC0) == 0x80) {
            from--;
        }
    }
    size_t step = utf8_sequence(text + from, len - from);
    return tok_is_word(utf8_decode(text + from, step));
}

/* Takes added tokens out of text, as added_vocabulary.rs find_matches; every gap goes to `gap`. */
static enum status split_added(struct encoder *e, const struct tok_matcher *m, const char *text,
                               size_t len, bool first, gap_fn *gap)
{
    enum status st = STATUS_OK;
    size_t done = 0;
    size_t at = 0;
    while (at < len && m->n > 0 && st == STATUS_OK) {
        const struct tok_added *a = tok_matcher_at(m, text + at, len - at);
        if (a == NULL) {
            at++;
            continue;
        }
        size_t start = at;
        size_t end = at + a->pattern_len;
        at = end;
        if (a->single_word &&
            (touches_word(text, len, start, false) || touches_word(text, len, end, true))) {
            continue;
        }
        size_t step = 0;
        while (a->lstrip && start > done && is_space_before(text, start, &step)) {
            start -= step;
        }
        while (a->rstrip && end < len) {
            step = utf8_sequence(text + end, len - end);
            if (!tok_is_space(utf8_decode(text + end, step))) {
                break;
            }
            end += step;
        }
        if (done < start) {
            st = gap(e, text + done, start - done, first && done == 0);
        }
        if (st == STATUS_OK) {
            st = tok_push_id(e->out, a->id, e->err);
        }
        done = end;
    }
    if (st == STATUS_OK && done < len) {
        st = gap(e, text + done, len - done, first && done == 0);
    }
    return st;
}

static enum status encode_raw_gap(struct encoder *e, const char *text, size_t len, bool first)
{
    struct tok_token normal;
    enum status st = tok_normalize(e->t, &e->scratch, text, len, &normal, e->err);
    if (st != STATUS_OK) {
        return st;
    }
    return split_added(e, &e->t->normalized, normal.text, normal.len, first, encode_words);
}

static enum status encode_bytes(struct encoder *e, const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        enum status st = tok_push_id(e->out, (unsigned char)text[i], e->err);
        if (st != STATUS_OK) {
            return st;
        }
    }
    return STATUS_OK;
}

static enum status push_all(struct encoder *e, const int32_t *ids, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        enum status st = tok_push_id(e->out, ids[i], e->err);
        if (st != STATUS_OK) {
            return st;
        }
    }
    return STATUS_OK;
}

static enum status encode_valid(struct encoder *e, const char *text, size_t len, bool add_special)
{
    const struct tokenizer *t = e->t;
    enum status st = add_special ? push_all(e, t->before, t->n_before) : STATUS_OK;
    if (st == STATUS_OK) {
        st = t->engine == TOK_ENGINE_BYTES
                 ? encode_bytes(e, text, len)
                 : split_added(e, &t->raw, text, len, true, encode_raw_gap);
    }
    if (st == STATUS_OK && add_special) {
        st = push_all(e, t->after, t->n_after);
    }
    return st;
}

/* A copy with U+FFFD for what is not UTF-8. */
static void repair(const char *text, size_t len, struct strbuf *out)
{
    for (size_t i = 0; i < len;) {
        size_t step = utf8_sequence(text + i, len - i);
        if (step > 0) {
            strbuf_append(out, text + i, step);
        } else {
            strbuf_puts(out, UTF8_REPLACEMENT);
            step = utf8_invalid_run(text + i, len - i);
        }
        i += step;
    }
}

enum status tokenizer_encode(const struct tokenizer *t, const char *text, size_t len,
                             bool add_special, struct token_ids *out, struct error *err)
{
    struct encoder e = {.t = t, .out = out, .err = err};
    struct strbuf repaired = {0};
    size_t n_before = out->n;
    enum status st = STATUS_OK;
    if (len > TOK_MAX_TEXT_BYTES) {
        return error_set(err, STATUS_BAD_DATA, -1, "a text of %zu bytes is too long (at most %zu)",
                         len, TOK_MAX_TEXT_BYTES);
    }
    tok_scratch_limit(&e.scratch, len);
    if (!utf8_is_valid(text, len)) {
        repair(text, len, &repaired);
        st = tok_check_text(&e.scratch, &repaired, err);
        text = strbuf_text(&repaired);
        len = repaired.len;
    }
    if (st == STATUS_OK) {
        st = encode_valid(&e, text, len, add_special);
    }
    if (st != STATUS_OK) {
        out->n = n_before;
    }
    strbuf_deinit(&repaired);
    tok_scratch_deinit(&e.scratch);
    return st;
}

/* --- opening -------------------------------------------------------------------------------- */

enum status tokenizer_bytes(uint32_t n_vocab, struct tokenizer **out, struct error *err)
{
    if (n_vocab < TOK_BYTE_COUNT) {
        return error_set(err, STATUS_USAGE, -1,
                         "byte tokens need a vocabulary of at least 256 ids, not %u", n_vocab);
    }
    struct tokenizer *t = tok_new();
    if (t == NULL) {
        return tok_no_memory(err);
    }
    t->engine = TOK_ENGINE_BYTES;
    t->n_ids = TOK_BYTE_COUNT;
    enum status st = tok_make_pieces(t, err);
    if (st != STATUS_OK) {
        tokenizer_close(t);
        return st;
    }
    snprintf(t->description, sizeof t->description, "plain bytes, 256 ids");
    *out = t;
    return STATUS_OK;
}

static bool ends_with(const char *text, const char *ending)
{
    size_t n = strlen(text);
    size_t k = strlen(ending);
    return n >= k && strcmp(text + n - k, ending) == 0;
}

static enum status open_gguf(const char *path, uint32_t n_vocab, struct tokenizer **out,
                             struct error *err)
{
    struct gguf *g = NULL;
    enum status st = gguf_open(path, &g, err);
    if (st == STATUS_OK) {
        st = tokenizer_from_gguf(g, n_vocab, out, err);
        gguf_close(g);
    }
    return st;
}

/* folder: where the companions of tokenizer.json lie, or NULL. */
static enum status open_json(const char *path, const char *folder, uint32_t n_vocab,
                             struct tokenizer **out, struct error *err)
{
    char *text = NULL;
    size_t len = 0;
    struct tokenizer *t = tok_new();
    enum status st =
        t != NULL ? fs_read_file(path, TOK_MAX_FILE_BYTES, &text, &len, err) : tok_no_memory(err);
    if (st == STATUS_OK) {
        st = tok_load_json(t, text, len, path, err);
        mem_free(text);
    }
    if (st == STATUS_OK && folder != NULL) {
        st = tok_apply_config(t, folder, err);
    }
    return tok_deliver(t, st, path, n_vocab, out, err);
}

static enum status open_vocab_merges(const char *vocab, const char *merges, const char *folder,
                                     uint32_t n_vocab, struct tokenizer **out, struct error *err)
{
    struct tokenizer *t = tok_new();
    enum status st = t != NULL ? tok_load_vocab_merges(t, vocab, merges, err) : tok_no_memory(err);
    if (st == STATUS_OK) {
        st = tok_apply_config(t, folder, err);
    }
    return tok_deliver(t, st, vocab, n_vocab, out, err);
}

/* The name of the only *.gguf in a folder. */
static enum status single_gguf(const char *folder, char **path, struct error *err)
{
    DIR *dir = opendir(folder);
    if (dir == NULL) {
        return error_set(err, STATUS_IO, -1, "%s: %s", folder, strerror(errno));
    }
    char *name = NULL;
    uint32_t count = 0;
    bool failed = false;
    for (struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        if (ends_with(e->d_name, ".gguf") && ++count == 1) {
            name = mem_strdup(e->d_name);
            failed = name == NULL;
        }
    }
    closedir(dir);
    if (count == 1 && !failed) {
        *path = fs_join(folder, name);
        failed = *path == NULL;
    }
    mem_free(name);
    if (failed) {
        return tok_no_memory(err);
    }
    if (count != 1) {
        return error_set(err, STATUS_NOT_FOUND, -1,
                         "%s: no tokenizer here: neither tokenizer.json, nor vocab.json with "
                         "merges.txt, nor exactly one .gguf (%u found); add one of them or name "
                         "the .gguf file",
                         folder, count);
    }
    return STATUS_OK;
}

static enum status open_folder(const char *folder, uint32_t n_vocab, struct tokenizer **out,
                               struct error *err)
{
    char *json = fs_join(folder, "tokenizer.json");
    char *vocab = fs_join(folder, "vocab.json");
    char *merges = fs_join(folder, "merges.txt");
    char *gguf = NULL;
    enum status st = STATUS_OK;
    if (json == NULL || vocab == NULL || merges == NULL) {
        st = tok_no_memory(err);
    } else if (fs_is_file(json)) {
        st = open_json(json, folder, n_vocab, out, err);
    } else if (fs_is_file(vocab) && fs_is_file(merges)) {
        st = open_vocab_merges(vocab, merges, folder, n_vocab, out, err);
    } else {
        st = single_gguf(folder, &gguf, err);
        if (st == STATUS_OK) {
            st = open_gguf(gguf, n_vocab, out, err);
        }
    }
    mem_free(json);
    mem_free(vocab);
    mem_free(merges);
    mem_free(gguf);
    return st;
}

enum status tokenizer_open(const char *path, uint32_t n_vocab, struct tokenizer **out,
                           struct error *err)
{
    if (fs_is_dir(path)) {
        return open_folder(path, n_vocab, out, err);
    }
    if (!fs_is_file(path)) {
        return error_set(err, STATUS_NOT_FOUND, -1, "%s: no such file or folder", path);
    }
    return ends_with(path, ".json") ? open_json(path, NULL, n_vocab, out, err)
                                    : open_gguf(path, n_vocab, out, err);
}
