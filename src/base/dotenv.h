/*
 * dotenv.h - the text of a .env file as names and values.
 *
 *   # a comment                     blank lines too
 *   NAME=plain text  # a comment    white space around the value is cut; a # inside a word stays
 *   export NAME="a \"b\"\n"         in double quotes: \\ \" \$ \n \r \t, any other backslash stays
 *   NAME='$HOME \n'                 in single quotes: as it stands
 *
 * One line each, LF or CRLF, a byte order mark at the start is skipped. Nothing is substituted: a $
 * is a $. A name given twice has its last value. What is none of this is refused, with its line.
 */
#ifndef LLMSCHED_BASE_DOTENV_H
#define LLMSCHED_BASE_DOTENV_H

#include <stddef.h>

#include "base/status.h"

/* Real ones have a few hundred bytes; more is some other file. */
#define DOTENV_MAX_BYTES 65536U
#define DOTENV_MAX_PAIRS 256U

/* NUL-terminated, in the dotenv's storage; the value may be empty. */
struct dotenv_pair {
    const char *name; /* [A-Za-z_][A-Za-z0-9_]* */
    const char *value;
};

struct dotenv {
    struct dotenv_pair pairs[DOTENV_MAX_PAIRS];
    size_t n;
    char *storage;
};

/* The n bytes at text. `path` stands in messages ("path line 3: ..."). Owner of *out: the caller
 * (dotenv_deinit). Errors: BAD_DATA with line, fault and fix; NO_MEMORY. */
enum status dotenv_parse(const char *text, size_t n, const char *path, struct dotenv *out,
                         struct error *err) MUST_USE;
void dotenv_deinit(struct dotenv *d);

#endif
