/*
 * fuzz_tokenizer_json.c - tokenizer.json from any bytes; what loads must encode and decode a fixed
 * set of texts, and the stream must give what decoding at once gives.
 */
#include <assert.h>
#include <string.h>

#include "base/utf8.h"
#include "model/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_stream(const struct tokenizer *t, const struct token_ids *ids, bool keep)
{
    struct strbuf whole = {0};
    struct strbuf joined = {0};
    struct detok d;
    tokenizer_decode(t, ids->ids, ids->n, keep, &whole);
    detok_begin(&d, t, keep);
    for (size_t i = 0; i < ids->n; i++) {
        size_t before = joined.len;
        detok_push(&d, ids->ids[i], &joined);
        assert(utf8_is_valid(strbuf_text(&joined) + before, joined.len - before));
    }
    detok_end(&d, &joined);
    assert(whole.len == joined.len);
    assert(memcmp(strbuf_text(&whole), strbuf_text(&joined), whole.len) == 0);
    strbuf_deinit(&whole);
    strbuf_deinit(&joined);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const texts[] = {
        "",
        "Hello, world! It's 2024-01-02.\n\n  a\tb",
        "<s>abc</s> <|endoftext|>  x",
        "\xC3\xA9\x65\xCC\x81 \xE4\xB8\xAD\xE6\x96\x87 \xF0\x9F\x98\x80\xE2\x96\x81 \xFF\xC3",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab",
    };
    struct error err = ERROR_INIT;
    struct tokenizer *t = NULL;
    enum status st = tokenizer_from_json((const char *)data, size, "fuzz", 0, &t, &err);
    if (st != STATUS_OK) {
        assert(t == NULL && err.message[0] != '\0');
        return 0;
    }
    struct token_ids ids = {0};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        size_t before = ids.n;
        st = tokenizer_encode(t, texts[i], strlen(texts[i]), i % 2 == 0, &ids, &err);
        assert(st == STATUS_OK || ids.n == before);
    }
    for (size_t i = 0; i < ids.n; i++) {
        assert(ids.ids[i] >= 0 && (uint32_t)ids.ids[i] < tokenizer_vocab_size(t));
    }
    check_stream(t, &ids, false);
    check_stream(t, &ids, true);
    token_ids_deinit(&ids);
    tokenizer_close(t);
    return 0;
}
