/*
 * utf8.h - well-formed UTF-8 by Unicode 15 table 3-7, and nothing more.
 *
 * Invalid input is replaced as WHATWG and Python do: one U+FFFD per maximal invalid prefix.
 */
#ifndef LLMSCHED_BASE_UTF8_H
#define LLMSCHED_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UTF8_REPLACEMENT "\xEF\xBF\xBD"

/* Bytes (1..4) of the well-formed character at text, or 0 when none starts there. */
size_t utf8_sequence(const char *text, size_t n);

/* For a place where utf8_sequence gave 0 and n > 0: the bytes one U+FFFD stands for (>= 1). */
size_t utf8_invalid_run(const char *text, size_t n);

/* True when the n bytes are a proper prefix (1..3 bytes) of some well-formed character. */
bool utf8_is_prefix(const char *text, size_t n);

bool utf8_is_valid(const char *text, size_t n);

/* Writes c (a scalar value) to out[4]; returns 1..4. */
size_t utf8_encode(uint32_t c, char *out);

/* The scalar value of a well-formed sequence of len bytes. */
uint32_t utf8_decode(const char *text, size_t len);

#endif
