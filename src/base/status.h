/*
 * status.h - what a fallible function returns, and where the fault lies.
 *
 * Every operating error (file, peer, user, memory) travels as an enum status plus, where the caller
 * wants words, a struct error. Our own bugs are asserts. Outputs are untouched on error.
 */
#ifndef LLMSCHED_BASE_STATUS_H
#define LLMSCHED_BASE_STATUS_H

#include <stdarg.h>
#include <stdint.h>

/* name, text for people, process exit code (documented in the README) */
#define STATUS_LIST(X)                                                                             \
    X(OK, "ok", 0)                                                                                 \
    X(INTERNAL, "internal error", 1)                                                               \
    X(NO_MEMORY, "out of memory", 1)                                                               \
    X(IO, "input/output error", 1)                                                                 \
    X(USAGE, "usage error", 2)                                                                     \
    X(BAD_MODEL, "bad model file", 3)                                                              \
    X(BAD_DATA, "bad data", 3)                                                                     \
    X(NOT_FOUND, "not found", 3)                                                                   \
    X(UNSUPPORTED, "not supported", 3)                                                             \
    X(UNREACHABLE, "endpoint unreachable", 4)                                                      \
    X(THRESHOLD, "threshold failed", 5)                                                            \
    X(INVALID, "measurement invalid", 6)                                                           \
    X(INTERRUPTED, "interrupted", 130)

enum status {
#define STATUS_ENUM(name, text, exit_code) STATUS_##name,
    STATUS_LIST(STATUS_ENUM)
#undef STATUS_ENUM
        STATUS_COUNT
};

#define ERROR_MESSAGE_BYTES 512

/* code, a sentence with path and fix, and the byte offset in the file or text (-1: none). */
struct error {
    enum status code;
    int64_t position;
    char message[ERROR_MESSAGE_BYTES];
};

#define ERROR_INIT                                                                                 \
    {                                                                                              \
        .code = STATUS_OK, .position = -1, .message = ""                                           \
    }

#define MUST_USE                      __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt_idx, arg_idx) __attribute__((format(printf, fmt_idx, arg_idx)))

/* Name ("BAD_MODEL"), text, and exit code of a status. */
const char *status_name(enum status s);
const char *status_text(enum status s);
int status_exit_code(enum status s);

/* Fills err (which may be NULL) and returns code, so that `return error_set(...)` reads well.
 * A message that does not fit is cut at a whole UTF-8 character. Control bytes are shown as '?'. */
enum status error_set(struct error *err, enum status code, int64_t position, const char *fmt, ...)
    PRINTF_LIKE(4, 5);

/* The same call, spelt so that compilers and analysers see which status comes back. `code` is
 * evaluated twice. */
static inline enum status status_same(enum status s)
{
    return s;
}
#define error_set(err, code, ...) (error_set((err), (code), __VA_ARGS__), status_same(code))

/* Puts "text: " before the message already in err (path or key of an outer layer). */
void error_prefix(struct error *err, const char *fmt, ...) PRINTF_LIKE(2, 3);

#endif
