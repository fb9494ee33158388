/*
 * text_stream.h - tokens of one choice in, text that may be sent out: detokenising, stop strings.
 *
 * Text is held back while it could still become a stop string, and while a character is unfinished;
 * the pieces given out joined are the choice's text, cut before its first stop string (the one that
 * ends first; of those that end together the longest). min_tokens: stop strings that end within the
 * first min_tokens tokens are ignored (one that merely begins there counts). Thread: one owner.
 * Cost: O(bytes * stops), whatever the text. Stop strings are whole UTF-8 characters.
 */
#ifndef LLMSCHED_SERVE_TEXT_STREAM_H
#define LLMSCHED_SERVE_TEXT_STREAM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/strbuf.h"
#include "model/tokenizer.h"

struct text_stop {
    const char *data;
    size_t len; /* >= 1 */
};

struct text_stream {
    struct detok detok;
    const struct text_stop *stops; /* borrowed */
    uint32_t n_stops;
    uint32_t min_tokens;
    uint32_t n_tokens; /* pushed, up to and including the one that completed a stop string */
    bool stopped;
    uint32_t stop_idx;  /* valid if stopped */
    struct strbuf held; /* private: text not yet given out */
    uint32_t *matched;  /* private: per stop, how much of it the text ends with */
};

/* Takes memory for the stop strings; a refusal shows in t->held.failed. */
void text_stream_begin(struct text_stream *t, const struct tokenizer *tokenizer, bool keep_special,
                       const struct text_stop *stops, uint32_t n_stops, uint32_t min_tokens);
/* Appends what can be sent now. True: a stop string is complete; later pushes are ignored. A
 * refused allocation shows in out->failed or t->held.failed. */
bool text_stream_push(struct text_stream *t, int32_t id, struct strbuf *out);
/* The rest, when the choice has ended otherwise. */
void text_stream_end(struct text_stream *t, struct strbuf *out);
void text_stream_deinit(struct text_stream *t);

#endif
