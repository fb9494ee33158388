/* tokenizer_test.h - what the tokenizer's tests share. A failure shows both sides and stops. */
#ifndef LLMSCHED_TESTS_TOKENIZER_TEST_H
#define LLMSCHED_TESTS_TOKENIZER_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "model/tokenizer.h"

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

static inline struct tokenizer *open_or_fail(const char *path)
{
    struct error err = ERROR_INIT;
    struct tokenizer *t = NULL;
    if (tokenizer_open(path, 0, &t, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    return t;
}

static inline void encode_or_fail(const struct tokenizer *t, const char *text, size_t len,
                                  bool special, struct token_ids *ids)
{
    struct error err = ERROR_INIT;
    if (tokenizer_encode(t, text, len, special, ids, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
}

/* "504 3575 282" */
static inline void ids_as_text(const struct tokenizer *t, const char *text, size_t len,
                               bool special, struct strbuf *out)
{
    struct token_ids ids = {0};
    encode_or_fail(t, text, len, special, &ids);
    for (size_t i = 0; i < ids.n; i++) {
        strbuf_printf(out, "%s%d", i == 0 ? "" : " ", ids.ids[i]);
    }
    token_ids_deinit(&ids);
}

static inline char *slurp(const char *path, size_t *len)
{
    struct error err = ERROR_INIT;
    char *text = NULL;
    if (fs_read_file(path, 1u << 20, &text, len, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    return text;
}

#endif
