/*
 * text_stream.c - see text_stream.h.
 *
 * All stop strings are followed at once, by Knuth, Morris and Pratt: `matched` of a stop is the
 * length of its longest proper prefix (or all of it) that the text ends with. So the longest of
 * them is what must be held back: no text before it can belong to a stop string any more.
 */
#include "serve/text_stream.h"

#include <assert.h>
#include <string.h>

#include "base/mem.h"

/* Behind the n_stops numbers of `matched` stand the borders of each stop, one after the other:
 * border[i] = the longest proper prefix of stop[0..i] that is also its end. */
static void fill_borders(const struct text_stop *stop, uint32_t *border)
{
    uint32_t k = 0;
    border[0] = 0;
    for (size_t i = 1; i < stop->len; i++) {
        while (k > 0 && stop->data[i] != stop->data[k]) {
            k = border[k - 1];
        }
        k += stop->data[i] == stop->data[k];
        border[i] = k;
    }
}

static bool prepare_stops(struct text_stream *t)
{
    size_t total = t->n_stops;
    for (uint32_t i = 0; i < t->n_stops; i++) {
        assert(t->stops[i].len >= 1 && t->stops[i].len < UINT32_MAX);
        total += t->stops[i].len;
    }
    t->matched = mem_alloc(total, sizeof *t->matched);
    if (t->matched == NULL) {
        return false;
    }
    uint32_t *border = t->matched + t->n_stops;
    for (uint32_t i = 0; i < t->n_stops; i++) {
        fill_borders(&t->stops[i], border);
        border += t->stops[i].len;
    }
    return true;
}

void text_stream_begin(struct text_stream *t, const struct tokenizer *tokenizer, bool keep_special,
                       const struct text_stop *stops, uint32_t n_stops, uint32_t min_tokens)
{
    *t = (struct text_stream){.stops = stops, .n_stops = n_stops, .min_tokens = min_tokens};
    detok_begin(&t->detok, tokenizer, keep_special);
    if (n_stops > 0 && !prepare_stops(t)) {
        t->held.failed = true;
    }
}

/* The text grows by one byte. Afterwards no stop is matched in full, unless `may_stop` and one is
 * complete: then true, the longest. */
static bool follow(struct text_stream *t, char byte, bool may_stop)
{
    const uint32_t *border = t->matched + t->n_stops;
    size_t best = 0;
    for (uint32_t i = 0; i < t->n_stops; i++) {
        const struct text_stop *stop = &t->stops[i];
        uint32_t k = t->matched[i];
        while (k > 0 && stop->data[k] != byte) {
            k = border[k - 1];
        }
        k += stop->data[k] == byte;
        if (k == stop->len) {
            if (may_stop && stop->len > best) {
                best = stop->len;
                t->stop_idx = i;
            }
            k = border[k - 1];
        }
        t->matched[i] = k;
        border += stop->len;
    }
    return best > 0;
}

static size_t held_back(const struct text_stream *t)
{
    size_t longest = 0;
    for (uint32_t i = 0; i < t->n_stops; i++) {
        longest = t->matched[i] > longest ? t->matched[i] : longest;
    }
    return longest;
}

/* Follows held[from, ...), and gives out what can no longer belong to a stop string. */
static void scan(struct text_stream *t, size_t from, struct strbuf *out)
{
    struct strbuf *held = &t->held;
    if (held->failed) {
        return;
    }
    for (size_t i = from; i < held->len && !t->stopped; i++) {
        if (follow(t, held->data[i], t->n_tokens > t->min_tokens)) {
            size_t len = t->stops[t->stop_idx].len;
            assert(len <= i + 1); /* its beginning was held back */
            t->stopped = true;
            strbuf_append(out, held->data, i + 1 - len);
            strbuf_clear(held);
            return;
        }
    }
    size_t keep = held_back(t);
    assert(keep <= held->len);
    size_t give = held->len - keep;
    if (give > 0) {
        strbuf_append(out, held->data, give);
        memmove(held->data, held->data + give, keep);
        held->len = keep;
    }
}

bool text_stream_push(struct text_stream *t, int32_t id, struct strbuf *out)
{
    if (t->stopped) {
        return true;
    }
    t->n_tokens++;
    if (t->n_stops == 0) {
        detok_push(&t->detok, id, out);
        return false;
    }
    size_t from = t->held.len;
    detok_push(&t->detok, id, &t->held);
    scan(t, from, out);
    return t->stopped;
}

void text_stream_end(struct text_stream *t, struct strbuf *out)
{
    if (t->stopped) {
        return;
    }
    if (t->n_stops == 0) {
        detok_end(&t->detok, out);
        return;
    }
    size_t from = t->held.len;
    detok_end(&t->detok, &t->held);
    scan(t, from, out);
    strbuf_append(out, strbuf_text(&t->held), t->held.len);
    strbuf_clear(&t->held);
}

void text_stream_deinit(struct text_stream *t)
{
    strbuf_deinit(&t->held);
    mem_free(t->matched);
    *t = (struct text_stream){0};
}
