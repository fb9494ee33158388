/*
 * prompts.h - prompt texts: a file's, or the built-in set.
 *
 * A prompt file is plain text (one prompt a line), a JSON array, or JSON lines. JSON elements are
 * strings or objects {"prompt": text, "max_new_tokens": n}. Which one it is, the first non-blank
 * character says: '[', '{' or anything else.
 */
#ifndef LLMSCHED_LOAD_PROMPTS_H
#define LLMSCHED_LOAD_PROMPTS_H

#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"
#include "base/status.h"

/* A prompt file larger than this is refused: prompts are held in memory, each tokenised once. */
#define PROMPTS_MAX_FILE_BYTES ((size_t)256 << 20)
#define PROMPTS_MAX_COUNT      ((size_t)1000000)

struct prompt {
    const char *text; /* len bytes without NUL, and a closing one */
    size_t len;
    uint32_t max_new_tokens; /* 0: the run's setting */
};

struct prompt_set {
    struct prompt *items;
    size_t n;
    size_t capacity;
    struct arena texts; /* owns the texts of files; empty for the built-in set */
};

/* At least 100 prompts of varied kinds and lengths. */
enum status prompts_builtin(struct prompt_set *out, struct error *err) MUST_USE;

/* Errors: NOT_FOUND, IO, BAD_DATA naming path and line (or element). */
enum status prompts_read(const char *path, struct prompt_set *out, struct error *err) MUST_USE;
/* The same from memory; path is for messages. */
enum status prompts_parse(const char *text, size_t len, const char *path, struct prompt_set *out,
                          struct error *err) MUST_USE;
void prompts_deinit(struct prompt_set *set);

#endif
