/*
 * json_scan_int.h - a cursor over JSON (RFC 8259): members, strings, numbers, whole values to skip.
 *
 * Strict: grammar, escapes, surrogate pairs, UTF-8 and depth are checked in what is skipped too, so
 * that "scanned" means "is JSON". Builds nothing and allocates nothing. The first fault is kept in
 * the cursor; every function then returns false or -1.
 */
#ifndef LLMSCHED_NET_JSON_SCAN_INT_H
#define LLMSCHED_NET_JSON_SCAN_INT_H

#include "net/event_scan.h"

struct json_cursor {
    const char *at;
    const char *end;
    enum scan_bad bad;
    uint32_t depth; /* of containers entered */
};

/* A string between its quotes, checked but as written. */
struct json_text {
    const char *at;
    size_t len;
    bool is_escaped;
};

bool cursor_fail(struct json_cursor *c, enum scan_bad bad);

/* The first byte of the next value or mark, 0 at the end. Never a NUL of the input: that is no JSON
 * outside a string, so it reads as the end and the caller fails. */
char cursor_peek(struct json_cursor *c);

/* Fails: SCAN_TYPE where the next value is one, else SCAN_SYNTAX or what else is wrong in it. */
bool cursor_wrong_type(struct json_cursor *c);

/* Any value but a string is the wrong type. */
bool cursor_string(struct json_cursor *c, struct json_text *text);

/* Enters the object or array whose bracket is next: then json_member or json_element until 0. */
bool cursor_enter(struct json_cursor *c);
/* 1: *key is read and its value is next; 0: the object has ended; -1: bad. *n counts members. */
int cursor_member(struct json_cursor *c, uint32_t *n, struct json_text *key);
int cursor_element(struct json_cursor *c, uint32_t *n);

/* Any value. Recursion ends at EVENT_SCAN_MAX_DEPTH. */
bool cursor_skip(struct json_cursor *c);
/* "null", where it is next; else false and nothing is used. */
bool cursor_null(struct json_cursor *c);
/* A number that is an integer within int64_t; any other value is SCAN_TYPE. */
bool cursor_integer(struct json_cursor *c, int64_t *value);

/* The string's characters into out; returns their bytes, or SIZE_MAX when cap is too small. */
size_t cursor_unescape(const struct json_text *text, char *out, size_t cap);
/* Whether the string, unescaped, is that plain text of at most 24 bytes. */
bool cursor_text_is(const struct json_text *text, const char *plain, size_t n);

#endif
