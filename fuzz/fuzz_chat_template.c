/*
 * fuzz_chat_template.c - chat templates from any bytes. What parses is run over a fixed set of
 * conversations, and twice gives the same; opened as a model's template, it is refused or renders
 * just that.
 */
#include <assert.h>
#include <string.h>

#include "model/chat_template.h"
#include "model/jinja_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct chat_message chat[] = {{CHAT_SYSTEM, " be brief\n", 10},
                                           {CHAT_USER, "hi", 2},
                                           {CHAT_ASSISTANT, "\xE2\x80\x83yes\xC2\xA0", 8},
                                           {CHAT_USER, "", 0}};

static void check_opened(const char *text, size_t size, const struct jinja_input *in,
                         const struct strbuf *expected, enum status expected_status)
{
    struct error err = ERROR_INIT;
    struct chat_template *t = NULL;
    struct strbuf out = {0};
    enum status st = chat_template_from_text(text, size, in->bos_token, in->eos_token, &t, &err);
    assert((st == STATUS_OK) == (t != NULL));
    if (st == STATUS_OK) {
        st = chat_template_render(t, in->messages, in->n, in->add_generation_prompt, &out, &err);
        assert(st == expected_status);
        assert(st != STATUS_OK || (out.len == expected->len &&
                                   memcmp(strbuf_text(&out), strbuf_text(expected), out.len) == 0));
    } else {
        assert(st == STATUS_UNSUPPORTED && err.message[0] != '\0');
    }
    strbuf_deinit(&out);
    chat_template_close(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    struct error err = ERROR_INIT;
    struct jinja j = {0};
    enum status st = jinja_parse(text, size, &j, &err);
    assert(st == STATUS_OK || (st == STATUS_UNSUPPORTED && err.message[0] != '\0'));
    for (size_t n = 1; n <= 4 && st == STATUS_OK; n++) {
        struct jinja_input in = {.messages = n == 3 ? chat + 1 : chat,
                                 .n = n,
                                 .bos_token = "<s>",
                                 .eos_token = "</s>",
                                 .add_generation_prompt = n % 2 == 0};
        struct strbuf out = {0};
        enum status ran = jinja_run(&j, &in, &out, &err);
        assert(ran == STATUS_OK || ran == STATUS_USAGE || ran == STATUS_UNSUPPORTED);
        check_opened(text, size, &in, &out, ran);
        strbuf_deinit(&out);
    }
    jinja_deinit(&j);
    return 0;
}
