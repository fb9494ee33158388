/* test.h - what every cmocka program needs, in the order cmocka wants it, and small helpers. */
#ifndef LLMSCHED_TESTS_TEST_H
#define LLMSCHED_TESTS_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/status.h"

/* The status and the message of a failed call stand in the output. */
#define assert_ok(call)                                                                            \
    do {                                                                                           \
        enum status status_ = (call);                                                              \
        if (status_ != STATUS_OK) {                                                                \
            fail_msg("%s: %s: %s", #call, status_name(status_), err.message);                      \
        }                                                                                          \
    } while (0)

#define assert_status(call, expected)                                                              \
    do {                                                                                           \
        enum status status_ = (call);                                                              \
        if (status_ != (expected)) {                                                               \
            fail_msg("%s: got %s (%s), expected %s", #call, status_name(status_), err.message,     \
                     status_name(expected));                                                       \
        }                                                                                          \
    } while (0)

#define assert_contains(text, part)                                                                \
    do {                                                                                           \
        if (strstr((text), (part)) == NULL) {                                                      \
            fail_msg("\"%s\" does not contain \"%s\"", (text), (part));                            \
        }                                                                                          \
    } while (0)

#endif
