/*
 * bench_tokenize.c - the tokenizer as a filter, for tests/oracle/tokenizer_oracle.py and for
 * measuring. Records come on stdin, each as a 4-byte little-endian length and that many bytes.
 *
 *   bench_tokenize MODEL encode | encode-special     a record is a text; prints its ids, one line
 *   bench_tokenize MODEL decode | decode-special     a record is i32 ids; writes a record of text
 *
 * On stderr: what was opened, bytes and seconds.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/monotime.h"
#include "model/tokenizer.h"

/* False at the end of the input; a cut record ends the program with a message. */
static bool read_record(char **data, size_t *len, bool *bad)
{
    unsigned char head[4];
    size_t got = fread(head, 1, sizeof head, stdin);
    if (got == 0) {
        return false;
    }
    *len = (size_t)head[0] | (size_t)head[1] << 8 | (size_t)head[2] << 16 | (size_t)head[3] << 24;
    *data = got == sizeof head ? mem_alloc(*len + 1, 1) : NULL;
    *bad = *data == NULL || fread(*data, 1, *len, stdin) != *len;
    return !*bad;
}

static enum status encode(const struct tokenizer *t, const char *text, size_t len, bool special,
                          struct error *err)
{
    struct token_ids ids = {0};
    enum status st = tokenizer_encode(t, text, len, special, &ids, err);
    if (st == STATUS_OK) {
        for (size_t i = 0; i < ids.n; i++) {
            printf(i == 0 ? "%" PRId32 : " %" PRId32, ids.ids[i]);
        }
        putchar('\n');
    }
    token_ids_deinit(&ids);
    return st;
}

static void decode(const struct tokenizer *t, const char *data, size_t len, bool special)
{
    struct strbuf text = {0};
    int32_t *ids = mem_alloc(len / 4 + 1, sizeof *ids);
    if (ids != NULL) {
        memcpy(ids, data, len / 4 * 4);
        tokenizer_decode(t, ids, len / 4, special, &text);
    }
    unsigned char head[4];
    for (int i = 0; i < 4; i++) {
        head[i] = (unsigned char)(text.len >> (8 * i));
    }
    fwrite(head, 1, sizeof head, stdout);
    fwrite(strbuf_text(&text), 1, text.len, stdout);
    strbuf_deinit(&text);
    mem_free(ids);
}

int main(int argc, char **argv)
{
    struct error err = ERROR_INIT;
    struct tokenizer *t = NULL;
    if (argc != 3) {
        fputs("usage: bench_tokenize MODEL encode|encode-special|decode|decode-special\n", stderr);
        return 2;
    }
    uint64_t begin = monotime_now_ns();
    if (tokenizer_open(argv[1], 0, &t, &err) != STATUS_OK) {
        fprintf(stderr, "%s\n", err.message);
        return status_exit_code(err.code);
    }
    uint64_t opened = monotime_now_ns();
    bool special = strstr(argv[2], "-special") != NULL;
    bool encoding = strncmp(argv[2], "encode", 6) == 0;
    bool bad = false;
    char *data = NULL;
    size_t len = 0;
    uint64_t bytes = 0;
    uint64_t spent = 0;
    enum status st = STATUS_OK;
    while (st == STATUS_OK && read_record(&data, &len, &bad)) {
        uint64_t from = monotime_now_ns();
        if (encoding) {
            st = encode(t, data, len, special, &err);
        } else {
            decode(t, data, len, special);
        }
        spent += monotime_now_ns() - from;
        bytes += len;
        mem_free(data);
    }
    fprintf(stderr, "%s: opened in %.3f s; %" PRIu64 " bytes in %.3f s\n", tokenizer_describe(t),
            monotime_seconds(opened - begin), bytes, monotime_seconds(spent));
    tokenizer_close(t);
    if (st != STATUS_OK || bad) {
        fprintf(stderr, "%s\n", bad ? "a cut record" : err.message);
        return 1;
    }
    return 0;
}
